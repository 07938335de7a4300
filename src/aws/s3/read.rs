//! Reading objects, pinned to one content by version id or eTag.
//!
//! Errors of a stream carry an [`AwsError`]. Covered by `tests/pipeline`, and by `tests/chaos` under broken
//! connections.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use futures::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;
use tokio_util::task::AbortOnDropHandle;

use crate::aws::error::{AwsError, Kind, aws_error};
use crate::aws::retry::Backoff;
use crate::aws::s3::{Bucket, OBJECT_TRIES};
use crate::layout::INCOMING;
use crate::object::{ObjectId, Version};
use crate::process::tasks;

/// Chunks of a body that are read ahead.
const CHUNKS_AHEAD: usize = 8;
/// Approximate size of these chunks in memory.
pub const READ_AHEAD_BYTES: u64 = 512 << 10;
/// Longest wait for the next chunk of a body.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);
/// Upper bound of attempts that end because no data arrives, each of which takes [`CHUNK_TIMEOUT`].
const STALLS: u32 = 3;
/// HTTP status of a range that begins behind the end of an object.
const RANGE_NOT_SATISFIABLE: u16 = 416;

/// A stream of an object's bytes.
pub type Body = StreamReader<futures::stream::Chain<FirstChunk, Chunks>, bytes::Bytes>;

type FirstChunk = futures::stream::Iter<std::option::IntoIter<std::io::Result<bytes::Bytes>>>;

impl Bucket {
    /// Streams an object, in exactly the given version. Starts at once, reads a little ahead, and resumes where the
    /// network breaks off. Errors carry an [`AwsError`]: of kind `NotFound` or `Condition` when that content is gone; a
    /// transient one only after several attempts.
    pub fn read(&self, object: &ObjectId) -> impl AsyncRead + Send + Unpin + use<> {
        StreamReader::new(self.chunks(object))
    }

    /// Streams an object like [`Bucket::read`], and completes once its first bytes have arrived or it has failed.
    /// Bodies that are opened concurrently become ready in the order in which S3 answers, so that a slow one delays no
    /// other.
    pub fn open(&self, object: &ObjectId) -> impl Future<Output = Body> + Send + use<> {
        let mut chunks = self.chunks(object);
        async move {
            let first = chunks.next().await;
            StreamReader::new(futures::stream::iter(first).chain(chunks))
        }
    }

    fn chunks(&self, object: &ObjectId) -> Chunks {
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let (bucket, object) = (self.clone(), object.clone());
        let reading = AbortOnDropHandle::new(tasks::spawn("body reader", async move {
            if let Err(error) = bucket.read_into(&object, &sender).await {
                let _ = sender.send(Err(std::io::Error::other(error))).await;
            }
        }));
        Chunks { receiver, _reading: reading }
    }

    async fn read_into(
        &self,
        object: &ObjectId,
        chunks: &mpsc::Sender<std::io::Result<bytes::Bytes>>,
    ) -> Result<(), AwsError> {
        let (mut offset, mut failures, mut stalls, mut backoff) = (0_u64, 0, 0, Backoff::for_one_object());
        loop {
            let error = match self.pace.call(self.get_from(object, offset)).await {
                // The connection broke off exactly at the end of the object.
                Ok(None) => return Ok(()),
                Ok(Some(output)) => {
                    let end = offset.saturating_add(u64::try_from(output.content_length.unwrap_or(0)).unwrap_or(0));
                    let mut body = output.body;
                    let interruption = loop {
                        match tokio::time::timeout(CHUNK_TIMEOUT, body.next()).await {
                            Ok(Some(Ok(chunk))) => {
                                offset += chunk.len() as u64;
                                (failures, stalls, backoff) = (0, 0, Backoff::for_one_object());
                                if chunks.send(Ok(chunk)).await.is_err() {
                                    return Ok(());
                                }
                            }
                            Ok(None) if offset >= end => return Ok(()),
                            Ok(None) => break "the body ended early".to_owned(),
                            Ok(Some(Err(error))) => break error.to_string(),
                            Err(_) => {
                                stalls += 1;
                                break format!("no data for {} s", CHUNK_TIMEOUT.as_secs());
                            }
                        }
                    };
                    self.interrupted(&object.key, interruption)
                }
                Err(error) if error.kind.is_transient() => error,
                Err(error) => return Err(error),
            };
            failures += 1;
            if failures >= OBJECT_TRIES || stalls >= STALLS {
                return Err(error);
            }
            backoff.pause_uncancelled().await;
        }
    }

    /// Requests an object from `offset` on. Returns `None` when it ends there.
    async fn get_from(&self, object: &ObjectId, offset: u64) -> Result<Option<GetObjectOutput>, AwsError> {
        let mut get = self.client.get_object().bucket(&object.bucket).key(&object.key);
        if let (Version::Id(id), 0, true) = (&object.version, offset, object.key.starts_with(INCOMING)) {
            // A version whose key was deleted can still be read, but its owner does not want it to be counted.
            match get.clone().send().await.map_err(aws_error("s3:GetObject", self.url(&object.key))) {
                Ok(current) if current.version_id() == Some(id) => return Ok(Some(current)),
                Err(error) if error.kind == Kind::NotFound => return Err(error),
                // An error of the current version says nothing about this one.
                Ok(_) | Err(_) => {}
            }
        }
        get = match &object.version {
            Version::Id(id) => get.version_id(id),
            Version::ETag(etag) => get.if_match(format!("\"{etag}\"")),
        };
        if offset > 0 {
            get = get.range(format!("bytes={offset}-"));
        }
        match get.send().await {
            Ok(output) => Ok(Some(output)),
            Err(error) if offset > 0 && status_of(&error) == Some(RANGE_NOT_SATISFIABLE) => Ok(None),
            Err(error) => Err(aws_error("s3:GetObject", self.url(&object.key))(error)),
        }
    }

    /// Reads a whole object of our own.
    pub async fn read_all(&self, key: &str) -> Result<Vec<u8>, AwsError> {
        let get = self.client.get_object().bucket(&self.name).key(key).send().await;
        self.collect(key, get.map_err(aws_error("s3:GetObject", self.url(key)))?.body).await
    }

    /// Copies an object to a temporary file, which can be read in any order. Returns `None` if there is none; an error
    /// carries that of the call, or is the disk's.
    pub async fn download(&self, key: &str) -> std::io::Result<Option<std::fs::File>> {
        let Some(object) = self.find(key).await.map_err(std::io::Error::other)? else { return Ok(None) };
        let mut file = tokio::fs::File::from_std(tempfile::tempfile()?);
        tokio::io::copy(&mut self.read(&object), &mut file).await?;
        file.flush().await?;
        let mut file = file.into_std().await;
        std::io::Seek::rewind(&mut file)?;
        Ok(Some(file))
    }

    /// Reads the last `bytes` bytes of an object of our own, or all when it has fewer.
    pub async fn read_end(&self, key: &str, bytes: usize) -> Result<Vec<u8>, AwsError> {
        let get = self.client.get_object().bucket(&self.name).key(key).range(format!("bytes=-{bytes}"));
        match get.send().await {
            Ok(output) => self.collect(key, output.body).await,
            // An empty object has no range.
            Err(error) if status_of(&error) == Some(RANGE_NOT_SATISFIABLE) => Ok(Vec::new()),
            Err(error) => Err(aws_error("s3:GetObject", self.url(key))(error)),
        }
    }

    async fn collect(&self, key: &str, mut body: ByteStream) -> Result<Vec<u8>, AwsError> {
        let mut bytes = Vec::new();
        loop {
            match tokio::time::timeout(CHUNK_TIMEOUT, body.next()).await {
                Ok(Some(Ok(chunk))) => bytes.extend_from_slice(&chunk),
                Ok(None) => return Ok(bytes),
                Ok(Some(Err(error))) => return Err(self.interrupted(key, error.to_string())),
                Err(_) => return Err(self.interrupted(key, format!("no data for {} s", CHUNK_TIMEOUT.as_secs()))),
            }
        }
    }

    fn interrupted(&self, key: &str, cause: String) -> AwsError {
        AwsError { operation: "s3:GetObject", resource: self.url(key), kind: Kind::Transient, cause }
    }
}

/// The chunks of a body. A task reads ahead until this is dropped.
pub struct Chunks {
    receiver: mpsc::Receiver<std::io::Result<bytes::Bytes>>,
    _reading: AbortOnDropHandle<()>,
}

impl Stream for Chunks {
    type Item = std::io::Result<bytes::Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.receiver.poll_recv(context)
    }
}

fn status_of<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}
