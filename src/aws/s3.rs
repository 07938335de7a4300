//! S3: reading, writing, moving and listing objects of the bucket.
//!
//! The only module that knows S3. Reading is pinned to one content by version id or eTag, and resumes where the network
//! broke off. Writing that must stay invisible until the commit is a multipart upload that is not completed. Moving copies
//! on condition of the source's content and then deletes on the same condition, so that a file which was overwritten in
//! between is never deleted unread. Calls for objects go through a [`Pace`], so that fewer are under way when S3 asks to slow
//! down.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::delete_object::builders::DeleteObjectFluentBuilder;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::operation::list_objects_v2::builders::ListObjectsV2FluentBuilder;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    CompletedMultipartUpload, CompletedPart, Delete, EncodingType, MultipartUpload, Object, ObjectIdentifier,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::aws::error::{AwsError, Kind, aws_error};
use crate::aws::pace::Pace;
use crate::aws::retry::{Backoff, retry_until};
use crate::layout::{ARCHIVE, BATCHES, CURATED, INCOMING, QUARANTINED_OBJECTS, QUARANTINED_ROWS};
use crate::object::{ObjectEvent, ObjectId, Version};
use crate::process::tasks;

/// Parts of a multipart upload are at least this large; S3 wants 5 MiB of all but the last:
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>.
pub const PART_BYTES: usize = 8 << 20;
/// Largest object that is copied by one call: what certainly ends within the timeout of a call. S3 would take 5 GiB.
const MAX_COPY_BYTES: u64 = 256 << 20;
/// Parts of an upload, at most. Same source.
const MAX_PARTS: u64 = 10_000;
/// Parts of an upload after which they become twice as large, and how often they do: an upload holds 490 GiB within
/// [`MAX_PARTS`], and has no more than 64 MiB in memory.
const PARTS_OF_A_SIZE: usize = 1000;
const DOUBLINGS: usize = 3;
/// Parts of a large object that are copied at the same time. One of 256 MiB takes some six seconds, so 40 GiB take two minutes.
const CONCURRENT_PARTS: usize = 8;
/// Uploads that are aborted at the same time.
const CONCURRENT_ABORTS: usize = 16;
/// Calls for objects under way at once. Small objects cost round trips and little else.
pub const CONCURRENT_OBJECTS: usize = 64;
/// Chunks of a body read ahead.
const CHUNKS_AHEAD: usize = 8;
/// What these chunks take in memory, about.
pub const READ_AHEAD_BYTES: u64 = 512 << 10;
/// Longest wait for the next chunk of a body.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);
/// Tries to go on reading a body without any progress, the SDK's own not counted. When a third of all calls fail, one object of
/// ten thousand is left out; one for which all fail is known after half a minute.
const READ_TRIES: u32 = 8;
/// The same when no data comes, each of which takes [`CHUNK_TIMEOUT`].
const STALLS: u32 = 3;

/// What a copy source keeps unencoded: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html>.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A multipart upload whose parts are all there: completing it makes the object visible at once.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Upload {
    /// Key of the object to be.
    pub key: String,
    /// S3's id of the upload.
    pub upload_id: String,
    /// ETags of the parts, in order.
    pub part_etags: Vec<String>,
}

/// What lies under a key.
#[derive(Debug)]
pub struct Current {
    /// Which object.
    pub object: ObjectId,
    /// Its size in bytes.
    pub size: Option<u64>,
    /// Its eTag, also where a version names it.
    pub etag: Option<String>,
    /// Its metadata.
    pub metadata: HashMap<String, String>,
}

/// What became of an object that was to be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// It lies at the destination, and its source can be deleted.
    There,
    /// It lies at the destination, and not any more where it was: somebody moved it before.
    Moved,
    /// Its content was replaced or deleted by somebody before it could be copied.
    Lost,
}

/// One bucket.
#[derive(Debug, Clone)]
pub struct Bucket {
    client: aws_sdk_s3::Client,
    name: String,
    /// Set when the service turned out not to delete conditionally.
    unconditional_delete: Arc<AtomicBool>,
    pace: Pace,
}

impl Bucket {
    /// The bucket called `name`.
    pub fn new(client: aws_sdk_s3::Client, name: String) -> Self {
        Bucket { client, name, unconditional_delete: Arc::default(), pace: Pace::new(CONCURRENT_OBJECTS) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn url(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.name)
    }

    /// Whether S3 works for us: the bucket can be listed, and an object be written, read and deleted under a prefix of our own.
    /// An object that fails while this does not is itself at fault. `who` keeps several apart that ask at the same time.
    pub async fn probe(&self, who: &str) -> Result<(), AwsError> {
        self.pages(INCOMING, |list| list.max_keys(1)).try_next().await?;
        let key = format!("{BATCHES}check-{who}");
        self.put(&key, b"Written, read and deleted to see whether that is allowed.".to_vec(), "text/plain").await?;
        self.read_all(&key).await?;
        self.delete(&key).await
    }

    /// Deletes an object of our own, if it is there.
    pub async fn delete(&self, key: &str) -> Result<(), AwsError> {
        let delete = self.client.delete_object().bucket(&self.name).key(key).send().await;
        delete.map(drop).map_err(aws_error("s3:DeleteObject", self.url(key)))
    }

    /// Whether everything is allowed that a consumer does, as far as that can be tried without leaving a trace; all that is not.
    pub async fn check(&self, who: &str) -> Vec<AwsError> {
        let mut problems = Vec::new();
        match self.probe(who).await {
            Ok(()) => {}
            // Where nothing answers, everything else would be tried for nothing, several times over.
            Err(error) if error.kind.is_transient() => return vec![error],
            Err(error) => problems.push(error),
        }
        // An upload that is begun and aborted shows nothing to anybody.
        for prefix in [CURATED, ARCHIVE, QUARANTINED_ROWS, QUARANTINED_OBJECTS] {
            let key = format!("{prefix}check-{who}");
            match self.begin_upload(&key, &Description::default()).await {
                Ok(upload_id) => problems.extend(self.abort_upload(&key, &upload_id).await.err()),
                Err(error) => problems.push(error),
            }
        }
        // There is no such object. A refusal to look or to delete comes first all the same.
        let key = format!("{INCOMING}check-{who}");
        let get = self.client.get_object().bucket(&self.name).key(&key).send().await;
        problems.extend(get.err().map(aws_error("s3:GetObject", self.url(&key))).filter(is_denied));
        let delete = self.client.delete_object().bucket(&self.name).key(&key).if_match("\"check\"").send().await;
        problems.extend(delete.err().map(aws_error("s3:DeleteObject", self.url(&key))).filter(is_denied));
        problems.extend(self.default_retention().await);
        problems
    }

    /// A default retention of the bucket, which would keep every file that is to be moved or cleared away. A bucket that does not say
    /// has none that we may know of.
    async fn default_retention(&self) -> Option<AwsError> {
        let lock = self.client.get_object_lock_configuration().bucket(&self.name).send().await.ok()?;
        let retention = lock.object_lock_configuration?.rule?.default_retention?;
        let mode = retention.mode.map_or("retention".to_owned(), |mode| mode.as_str().to_owned());
        Some(AwsError {
            operation: "s3:GetObjectLockConfiguration",
            resource: self.url(""),
            kind: Kind::Refused,
            cause: format!(
                "the bucket retains every new object by default ({mode}), so that no file could be moved out of {INCOMING}; \
                 take the default retention off, and lock the objects under {ARCHIVE} instead"
            ),
        })
    }

    // ------------------------------------------------------------------------------------------ reading

    /// Streams an object, in exactly the given version. Starts at once, reads a little ahead, and resumes where the network
    /// breaks off. Its errors carry an [`AwsError`]: `NotFound` or `Condition` when that content is gone; one that is passing was
    /// tried again until nothing more was to be hoped for.
    pub fn read(&self, object: &ObjectId) -> impl AsyncRead + Send + Unpin + use<> {
        StreamReader::new(self.chunks(object))
    }

    /// The same, once its first bytes are there or it has failed. Several that are opened at a time come in the order in which S3
    /// gives them out, so that one which it is slow with keeps no other.
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
        let (mut offset, mut failures, mut stalls, mut backoff) = (0_u64, 0, 0, Backoff::of_one_object());
        loop {
            let error = match self.pace.call(self.get_from(object, offset)).await {
                // It broke off exactly at its end.
                Ok(None) => return Ok(()),
                Ok(Some(output)) => {
                    let end = offset.saturating_add(u64::try_from(output.content_length.unwrap_or(0)).unwrap_or(0));
                    let mut body = output.body;
                    let interruption = loop {
                        match tokio::time::timeout(CHUNK_TIMEOUT, body.next()).await {
                            Ok(Some(Ok(chunk))) => {
                                offset += chunk.len() as u64;
                                (failures, stalls, backoff) = (0, 0, Backoff::of_one_object());
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
            if failures >= READ_TRIES || stalls >= STALLS {
                return Err(error);
            }
            backoff.pause_uncancelled().await;
        }
    }

    /// Asks for an object from a position on; `None` when it ends there.
    async fn get_from(&self, object: &ObjectId, offset: u64) -> Result<Option<GetObjectOutput>, AwsError> {
        let mut get = self.client.get_object().bucket(&object.bucket).key(&object.key);
        if let (Version::Id(id), 0, true) = (&object.version, offset, object.key.starts_with(INCOMING)) {
            // A version whose key was deleted can be read all the same, and is not what its owner wants to have read.
            match get.clone().send().await.map_err(aws_error("s3:GetObject", self.url(&object.key))) {
                Ok(current) if current.version_id() == Some(id) => return Ok(Some(current)),
                Err(error) if error.kind == Kind::NotFound => return Err(error),
                // What is wrong with the current one says nothing about another.
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

    /// Reads an object of our own whole.
    pub async fn read_all(&self, key: &str) -> Result<Vec<u8>, AwsError> {
        let get = self.client.get_object().bucket(&self.name).key(key).send().await;
        self.collect(key, get.map_err(aws_error("s3:GetObject", self.url(key)))?.body).await
    }

    /// Reads the last bytes of an object of our own: so many, or all when it has fewer.
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

    /// A page of the objects that lie under a prefix, and where the next page begins. Of a key with several versions the current one:
    /// what was overwritten or deleted is history.
    pub async fn list_current(
        &self,
        prefix: &str,
        from: Option<NextVersion>,
    ) -> Result<(Vec<ObjectEvent>, Option<NextVersion>), AwsError> {
        let (key_marker, version_id_marker) = from.map_or((None, None), |next| (Some(next.0), next.1));
        let list = self.client.list_object_versions().bucket(&self.name).prefix(prefix);
        let list = list.encoding_type(EncodingType::Url);
        let list = list.set_key_marker(key_marker).set_version_id_marker(version_id_marker);
        let output = list.send().await.map_err(aws_error("s3:ListBucketVersions", &self.name))?;
        let is_encoded = output.encoding_type.is_some();
        let next = match (output.is_truncated, output.next_key_marker) {
            (Some(true), Some(key)) => Some((decoded(key, is_encoded), output.next_version_id_marker)),
            _ => None,
        };
        let event = |version: aws_sdk_s3::types::ObjectVersion| {
            let content = Version::new(version.version_id.as_deref(), || version.e_tag.as_deref().ok_or(())).ok()?;
            let key = decoded(version.key?, is_encoded);
            Some(ObjectEvent {
                object: ObjectId { bucket: self.name.clone(), key, version: content },
                size: version.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
                created_at: version.last_modified.and_then(|at| jiff::Timestamp::from_second(at.secs()).ok()),
            })
        };
        let versions = output.versions.unwrap_or_default().into_iter();
        Ok((versions.filter(|version| version.is_latest != Some(false)).filter_map(event).collect(), next))
    }

    /// Every object under a prefix of our own, with its size in bytes.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, AwsError> {
        let mut pages = self.pages(prefix, |list| list);
        let mut found = Vec::new();
        while let Some(page) = pages.try_next().await? {
            let listed = |object: Object| Some((object.key?, object.size?.try_into().ok()?));
            found.extend(page.contents.unwrap_or_default().into_iter().filter_map(listed));
        }
        Ok(found)
    }

    /// The last key under a prefix and behind another one from which something can be told.
    pub async fn last_behind<T>(
        &self,
        prefix: &str,
        key: String,
        tell: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, AwsError> {
        let mut pages = self.pages(prefix, |list| list.start_after(key));
        let mut last = None;
        while let Some(page) = pages.try_next().await? {
            last = page.contents().iter().rev().find_map(|object| tell(object.key()?)).or(last);
        }
        Ok(last)
    }

    /// The folders directly under a prefix of our own, each with the slash at its end.
    pub async fn folders(&self, prefix: &str) -> Result<Vec<String>, AwsError> {
        let mut pages = self.pages(prefix, |list| list.delimiter("/"));
        let mut folders = Vec::new();
        while let Some(page) = pages.try_next().await? {
            folders.extend(page.common_prefixes.unwrap_or_default().into_iter().filter_map(|folder| folder.prefix));
        }
        Ok(folders)
    }

    /// The pages of a list. Keys come encoded and are decoded here: XML has no way to write a control character that is in a key, and
    /// one such key would make every list with it unreadable.
    fn pages(
        &self,
        prefix: &str,
        narrow: impl FnOnce(ListObjectsV2FluentBuilder) -> ListObjectsV2FluentBuilder,
    ) -> BoxStream<'static, Result<ListObjectsV2Output, AwsError>> {
        let list = self.client.list_objects_v2().bucket(&self.name).prefix(prefix).encoding_type(EncodingType::Url);
        let (pages, url) = (narrow(list).into_paginator().send(), self.url(prefix));
        Box::pin(futures::stream::try_unfold((pages, url), async |(mut pages, url)| {
            let page = pages.try_next().await.map_err(aws_error("s3:ListBucket", url.clone()))?;
            Ok(page.map(|mut page| {
                let is_encoded = page.encoding_type.is_some();
                for object in page.contents.iter_mut().flatten() {
                    object.key = object.key.take().map(|key| decoded(key, is_encoded));
                }
                for folder in page.common_prefixes.iter_mut().flatten() {
                    folder.prefix = folder.prefix.take().map(|prefix| decoded(prefix, is_encoded));
                }
                (page, (pages, url))
            }))
        }))
    }

    /// The current object under a key.
    pub async fn find(&self, key: &str) -> Result<Option<ObjectId>, AwsError> {
        Ok(self.describe_current(key).await?.map(|current| current.object))
    }

    /// The same with what S3 says of it.
    pub async fn describe_current(&self, key: &str) -> Result<Option<Current>, AwsError> {
        let Some(head) = self.head(key).await? else { return Ok(None) };
        let version = Version::new(head.version_id(), || head.e_tag().ok_or(())).ok();
        Ok(version.map(|version| Current {
            object: ObjectId { bucket: self.name.clone(), key: key.to_owned(), version },
            size: head.content_length.and_then(|length| u64::try_from(length).ok()),
            etag: head.e_tag,
            metadata: head.metadata.unwrap_or_default(),
        }))
    }

    /// Since when exactly this content lies there; `None` when it does not.
    pub async fn lies_there_since(&self, object: &ObjectId) -> Result<Option<jiff::Timestamp>, AwsError> {
        let mut head = self.client.head_object().bucket(&object.bucket).key(&object.key);
        head = match &object.version {
            Version::Id(id) => head.version_id(id),
            Version::ETag(etag) => head.if_match(format!("\"{etag}\"")),
        };
        match head.send().await.map_err(aws_error("s3:GetObject", self.url(&object.key))) {
            Ok(head) => Ok(head.last_modified.and_then(|at| jiff::Timestamp::from_second(at.secs()).ok())),
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::Condition) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How long ago an object of our own was written; `None` when it is not there.
    pub async fn age(&self, key: &str) -> Result<Option<Duration>, AwsError> {
        let Some(head) = self.head(key).await? else { return Ok(None) };
        let written = head.last_modified.map_or(i64::MAX, |at| at.secs());
        let seconds = jiff::Timestamp::now().as_second().saturating_sub(written);
        Ok(Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0))))
    }

    /// What S3 says of the current object under a key; `None` when there is none.
    async fn head(&self, key: &str) -> Result<Option<HeadObjectOutput>, AwsError> {
        let head = self.client.head_object().bucket(&self.name).key(key).send().await;
        match head.map_err(aws_error("s3:GetObject", self.url(key))) {
            Ok(head) => Ok(Some(head)),
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    // ------------------------------------------------------------------------------------------ writing

    /// Writes an object.
    pub async fn put(&self, key: &str, bytes: Vec<u8>, content_type: &str) -> Result<(), AwsError> {
        let put = self.client.put_object().bucket(&self.name).key(key).content_type(content_type);
        put.body(ByteStream::from(bytes)).send().await.map(drop).map_err(aws_error("s3:PutObject", self.url(key)))
    }

    /// An upload that stays invisible until it is completed. What may pass is tried again until `stop` comes.
    pub fn upload(&self, key: String, shutdown: CancellationToken) -> PendingUpload {
        let upload = Upload { key, upload_id: String::new(), part_etags: Vec::new() };
        PendingUpload { bucket: self.clone(), upload, buffer: Vec::new(), shutdown }
    }

    async fn begin_upload(&self, key: &str, description: &Description) -> Result<String, AwsError> {
        let Description { content_type, content_encoding, metadata, tags } = description.clone();
        let create = self.client.create_multipart_upload().bucket(&self.name).key(key);
        let create = create.set_content_type(content_type).set_content_encoding(content_encoding);
        let output = create.set_metadata(metadata).set_tagging(tags).send().await;
        Ok(output.map_err(aws_error("s3:PutObject", self.url(key)))?.upload_id.unwrap_or_default())
    }

    async fn abort_upload(&self, key: &str, upload_id: &str) -> Result<bool, AwsError> {
        let abort = self.client.abort_multipart_upload().bucket(&self.name).key(key).upload_id(upload_id);
        match abort.send().await.map_err(aws_error("s3:AbortMultipartUpload", self.url(key))) {
            Ok(_) => Ok(true),
            Err(error) if error.kind == Kind::UploadGone => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes the object of an upload visible. May be repeated: `false` when the upload is gone and so is its object, which is
    /// what is left when it was completed before and somebody has taken the object away since.
    pub async fn complete_upload(&self, upload: &Upload) -> Result<bool, AwsError> {
        let parts = upload
            .part_etags
            .iter()
            .zip(1..)
            .map(|(etag, number)| CompletedPart::builder().part_number(number).e_tag(etag).build());
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build();
        let complete = self
            .client
            .complete_multipart_upload()
            .bucket(&self.name)
            .key(&upload.key)
            .upload_id(&upload.upload_id)
            .multipart_upload(parts)
            .send()
            .await;
        match complete.map_err(aws_error("s3:PutObject", self.url(&upload.key))) {
            Ok(_) => {
                fail::fail_point!("upload completed");
                Ok(true)
            }
            Err(error) if error.kind == Kind::UploadGone => Ok(self.find(&upload.key).await?.is_some()),
            Err(error) => Err(error),
        }
    }

    /// Aborts every upload under `prefix` whose key satisfies `ours`. May be repeated.
    pub async fn abort_uploads(&self, prefix: &str, ours: impl Fn(&str) -> bool) -> Result<usize, AwsError> {
        let (mut key_marker, mut upload_marker) = (None, None);
        let mut aborted = 0;
        loop {
            let page = self
                .client
                .list_multipart_uploads()
                .bucket(&self.name)
                .prefix(prefix)
                .encoding_type(EncodingType::Url)
                .set_key_marker(key_marker)
                .set_upload_id_marker(upload_marker)
                .send()
                .await
                .map_err(aws_error("s3:ListBucketMultipartUploads", self.url(prefix)))?;
            let is_encoded = page.encoding_type.is_some();
            let of_ours =
                page.uploads().iter().filter_map(|upload| named(upload, is_encoded)).filter(|(key, _)| ours(key));
            let aborts = of_ours.map(async |(key, id)| self.abort_upload(&key, &id).await);
            let aborts = futures::stream::iter(aborts).buffer_unordered(CONCURRENT_ABORTS);
            aborted +=
                aborts.try_filter(|&was_there| std::future::ready(was_there)).try_collect::<Vec<_>>().await?.len();
            if page.is_truncated() != Some(true) {
                return Ok(aborted);
            }
            key_marker = page.next_key_marker.map(|key| decoded(key, is_encoded));
            upload_marker = page.next_upload_id_marker;
        }
    }

    /// Deletes every object under a prefix of our own. May be repeated.
    pub async fn delete_prefix(&self, prefix: &str) -> Result<(), AwsError> {
        loop {
            let Some(page) = self.pages(prefix, |list| list).try_next().await? else { return Ok(()) };
            let keys: Vec<_> = page
                .contents()
                .iter()
                .filter_map(|object| ObjectIdentifier::builder().key(object.key()?).build().ok())
                .collect();
            let Ok(delete) = Delete::builder().set_objects(Some(keys)).quiet(true).build() else { return Ok(()) };
            if delete.objects().is_empty() {
                return Ok(());
            }
            let output = self.client.delete_objects().bucket(&self.name).delete(delete).send().await;
            let output = output.map_err(aws_error("s3:DeleteObject", self.url(prefix)))?;
            if let Some(failed) = output.errors().first() {
                return Err(AwsError {
                    operation: "s3:DeleteObject",
                    resource: self.url(failed.key().unwrap_or(prefix)),
                    kind: Kind::Transient,
                    cause: failed.message().unwrap_or("refused").to_owned(),
                });
            }
        }
    }

    // ------------------------------------------------------------------------------------------ moving

    /// Copies an object's content to another key, in exactly the given version. May be repeated, and carried out by
    /// several at a time: every repetition copies the same content to the same place, and one that `may_be_there` is looked for
    /// first. `made_progress` is told of every part.
    pub async fn copy_exactly(
        &self,
        object: &ObjectId,
        size: u64,
        destination: &str,
        may_be_there: bool,
        made_progress: &(impl Fn() + Sync),
    ) -> Result<Copied, AwsError> {
        // No two batches write to the same place, so what lies there with the right size is what is wanted.
        if may_be_there && self.size_of(destination).await? == Some(size) {
            return Ok(Copied::There);
        }
        let copied = if size > MAX_COPY_BYTES {
            self.copy_large(object, size, destination, made_progress).await
        } else {
            self.pace.call(self.copy(object, destination)).await
        };
        match copied {
            Ok(()) => Ok(Copied::There),
            // Gone or replaced: moved by somebody earlier, or taken away by whoever put it there.
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::Condition) => {
                Ok(if self.find(destination).await?.is_some() { Copied::Moved } else { Copied::Lost })
            }
            Err(error) => Err(error),
        }
    }

    async fn size_of(&self, key: &str) -> Result<Option<u64>, AwsError> {
        let head = self.head(key).await?;
        Ok(head.and_then(|head| head.content_length).and_then(|length| u64::try_from(length).ok()))
    }

    fn copy_source(&self, object: &ObjectId) -> String {
        let path = format!("{}/{}", object.bucket, utf8_percent_encode(&object.key, PATH));
        match &object.version {
            Version::Id(id) => format!("{path}?versionId={}", utf8_percent_encode(id, PATH)),
            Version::ETag(_) => path,
        }
    }

    async fn copy(&self, object: &ObjectId, destination: &str) -> Result<(), AwsError> {
        let mut copy =
            self.client.copy_object().bucket(&self.name).key(destination).copy_source(self.copy_source(object));
        if let Version::ETag(etag) = &object.version {
            copy = copy.copy_source_if_match(format!("\"{etag}\""));
        }
        copy.send().await.map(drop).map_err(aws_error("s3:PutObject", self.url(destination)))
    }

    /// Copies an object in parts, several at a time. An upload to the same place that somebody began is gone on with: nobody else
    /// writes there, and its parts are of the same content.
    async fn copy_large(
        &self,
        object: &ObjectId,
        size: u64,
        destination: &str,
        made_progress: &(impl Fn() + Sync),
    ) -> Result<(), AwsError> {
        let part_bytes = MAX_COPY_BYTES.max(size.div_ceil(MAX_PARTS));
        let parts = size.div_ceil(part_bytes);
        // Under the incoming prefix, an upload that is under way is a producer's.
        let begun = if destination.starts_with(INCOMING) { None } else { self.begun_copy(destination).await? };
        let (upload_id, mut etags) = match begun {
            Some(upload_id) => {
                let there = self.parts_of(destination, &upload_id).await?;
                (upload_id, there)
            }
            None => (self.begin_upload(destination, &self.describe(object).await?).await?, BTreeMap::new()),
        };
        let missing: Vec<u64> = (1..=parts).filter(|number| !etags.contains_key(number)).collect();
        let copies = missing.into_iter().map(|number| {
            let range = (number - 1) * part_bytes..(number * part_bytes).min(size);
            let upload_id = upload_id.as_str();
            async move {
                let copy = || self.copy_part(object, destination, upload_id, number, range.clone());
                let mut backoff = Backoff::of_one_object();
                for _ in 1..READ_TRIES {
                    match self.pace.call(copy()).await {
                        Err(error) if error.kind.is_transient() => backoff.pause_uncancelled().await,
                        copied => return copied.map(|etag| (number, etag)),
                    }
                }
                self.pace.call(copy()).await.map(|etag| (number, etag))
            }
        });
        let mut copies = futures::stream::iter(copies).buffer_unordered(CONCURRENT_PARTS);
        while let Some((number, etag)) = copies.try_next().await? {
            etags.insert(number, etag);
            made_progress();
        }
        drop(copies);
        let part_etags = etags.into_values().collect();
        self.complete_upload(&Upload { key: destination.to_owned(), upload_id, part_etags }).await.map(drop)
    }

    async fn copy_part(
        &self,
        object: &ObjectId,
        destination: &str,
        upload_id: &str,
        number: u64,
        range: std::ops::Range<u64>,
    ) -> Result<String, AwsError> {
        let mut copy = self
            .client
            .upload_part_copy()
            .bucket(&self.name)
            .key(destination)
            .upload_id(upload_id)
            .part_number(i32::try_from(number).unwrap_or(i32::MAX))
            .copy_source(self.copy_source(object))
            .copy_source_range(format!("bytes={}-{}", range.start, range.end.saturating_sub(1)));
        if let Version::ETag(etag) = &object.version {
            copy = copy.copy_source_if_match(format!("\"{etag}\""));
        }
        let part = copy.send().await.map_err(aws_error("s3:PutObject", self.url(destination)))?;
        Ok(part.copy_part_result.and_then(|result| result.e_tag).unwrap_or_default())
    }

    /// The upload to a place of ours that somebody began and did not complete.
    async fn begun_copy(&self, key: &str) -> Result<Option<String>, AwsError> {
        let list = self.client.list_multipart_uploads().bucket(&self.name).prefix(key).encoding_type(EncodingType::Url);
        let page = list.send().await.map_err(aws_error("s3:ListBucketMultipartUploads", self.url(key)))?;
        let is_encoded = page.encoding_type.is_some();
        let uploads = page.uploads().iter().filter_map(|upload| named(upload, is_encoded));
        Ok(uploads.filter(|(found, _)| found == key).map(|(_, upload_id)| upload_id).next_back())
    }

    /// The parts of an upload that are there, by number.
    async fn parts_of(&self, key: &str, upload_id: &str) -> Result<BTreeMap<u64, String>, AwsError> {
        let list = self.client.list_parts().bucket(&self.name).key(key).upload_id(upload_id);
        let parts = list.into_paginator().items().send().try_collect().await;
        match parts.map_err(aws_error("s3:ListMultipartUploadParts", self.url(key))) {
            Ok(parts) => {
                let part = |part: aws_sdk_s3::types::Part| Some((u64::try_from(part.part_number?).ok()?, part.e_tag?));
                Ok(parts.into_iter().filter_map(part).collect())
            }
            // Completed this moment, by another.
            Err(error) if error.kind == Kind::UploadGone => Ok(BTreeMap::new()),
            Err(error) => Err(error),
        }
    }

    /// What a copy in parts would lose, unlike a copy in one: type, encoding, metadata and tags.
    async fn describe(&self, object: &ObjectId) -> Result<Description, AwsError> {
        let mut head = self.client.head_object().bucket(&object.bucket).key(&object.key);
        let mut tagging = self.client.get_object_tagging().bucket(&object.bucket).key(&object.key);
        match &object.version {
            Version::Id(id) => (head, tagging) = (head.version_id(id), tagging.version_id(id)),
            Version::ETag(etag) => head = head.if_match(format!("\"{etag}\"")),
        }
        let head = head.send().await.map_err(aws_error("s3:GetObject", self.url(&object.key)))?;
        let tagging = tagging.send().await.map_err(aws_error("s3:GetObjectTagging", self.url(&object.key)))?;
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let tag = |tag: &aws_sdk_s3::types::Tag| format!("{}={}", encoded(tag.key()), encoded(tag.value()));
        let tags = tagging.tag_set().iter().map(tag).collect::<Vec<_>>().join("&");
        Ok(Description {
            content_type: head.content_type,
            content_encoding: head.content_encoding,
            metadata: head.metadata,
            tags: (!tags.is_empty()).then_some(tags),
        })
    }

    /// Deletes exactly this content: by version id, or on condition of the eTag. Where the service does not delete
    /// conditionally, the eTag is checked right before, which leaves a gap of milliseconds and is said once in the log.
    pub async fn delete_exactly(&self, object: &ObjectId) -> Result<(), AwsError> {
        self.pace.call(self.delete_as_known(object)).await
    }

    async fn delete_as_known(&self, object: &ObjectId) -> Result<(), AwsError> {
        let delete = || self.client.delete_object().bucket(&object.bucket).key(&object.key);
        let send = async |delete: DeleteObjectFluentBuilder| {
            match delete.send().await.map_err(aws_error("s3:DeleteObject", self.url(&object.key))) {
                Ok(_) => Ok(()),
                // Gone already, or replaced: nothing of ours is there.
                Err(error) if matches!(error.kind, Kind::NotFound | Kind::Condition) => Ok(()),
                Err(error) => Err(error),
            }
        };
        let etag = match &object.version {
            Version::Id(id) => return send(delete().version_id(id)).await,
            Version::ETag(etag) => format!("\"{etag}\""),
        };
        if !self.unconditional_delete.load(Ordering::Relaxed) {
            match send(delete().if_match(&etag)).await {
                Err(error) if error.kind == Kind::NotImplemented => {
                    if !self.unconditional_delete.swap(true, Ordering::Relaxed) {
                        tracing::warn!(
                            "this S3 does not delete conditionally; checking the eTag before each delete instead"
                        );
                    }
                }
                done => return done,
            }
        }
        let head = self.client.head_object().bucket(&object.bucket).key(&object.key).if_match(&etag).send().await;
        match head.map_err(aws_error("s3:GetObject", self.url(&object.key))) {
            Ok(_) => send(delete()).await,
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::Condition) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// A key of a list, in which a space may come as `+`, as in forms.
fn decoded(key: String, is_encoded: bool) -> String {
    match is_encoded {
        true => percent_decode_str(&key.replace('+', " ")).decode_utf8_lossy().into_owned(),
        false => key,
    }
}

/// The key and the id of an upload in a list.
fn named(upload: &MultipartUpload, is_encoded: bool) -> Option<(String, String)> {
    Some((decoded(upload.key.clone()?, is_encoded), upload.upload_id.clone()?))
}

/// Where a page of versions begins: a key, and a version of it.
pub type NextVersion = (String, Option<String>);

/// An object's bytes, as they come.
pub type Body = StreamReader<futures::stream::Chain<FirstChunk, Chunks>, bytes::Bytes>;

type FirstChunk = futures::stream::Iter<std::option::IntoIter<std::io::Result<bytes::Bytes>>>;

/// The chunks of a body that a task reads ahead, for as long as this is there.
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

/// What is said of an object besides its content.
#[derive(Debug, Clone, Default)]
struct Description {
    content_type: Option<String>,
    content_encoding: Option<String>,
    metadata: Option<HashMap<String, String>>,
    /// As a query string.
    tags: Option<String>,
}

fn is_denied(error: &AwsError) -> bool {
    error.kind == Kind::Denied
}

const RANGE_NOT_SATISFIABLE: u16 = 416;

fn status_of<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

/// An upload in the making: takes bytes, sends them in parts. Nothing is sent before there is enough for one.
#[derive(Debug)]
pub struct PendingUpload {
    bucket: Bucket,
    upload: Upload,
    buffer: Vec<u8>,
    shutdown: CancellationToken,
}

impl PendingUpload {
    /// Adds bytes; sends a part when there are enough for one.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), AwsError> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= part_bytes(self.upload.part_etags.len()) { self.send_part().await } else { Ok(()) }
    }

    /// Bytes that are in memory.
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Sends the rest.
    pub async fn finish(mut self) -> Result<Upload, AwsError> {
        if !self.buffer.is_empty() || self.upload.part_etags.is_empty() {
            self.send_part().await?;
        }
        Ok(self.upload)
    }

    async fn send_part(&mut self) -> Result<(), AwsError> {
        let (bucket, key, shutdown) = (&self.bucket, &self.upload.key, &self.shutdown);
        if self.upload.upload_id.is_empty() {
            let description = Description::default();
            self.upload.upload_id =
                retry_until(shutdown, async || bucket.begin_upload(key, &description).await).await?;
        }
        let (upload_id, number) = (&self.upload.upload_id, self.upload.part_etags.len() as i32 + 1);
        let bytes = bytes::Bytes::from(std::mem::take(&mut self.buffer));
        let etag = retry_until(shutdown, async || {
            let part = bucket.client.upload_part().bucket(&bucket.name).key(key).upload_id(upload_id);
            let part = part.part_number(number).body(ByteStream::from(bytes.clone())).send().await;
            Ok(part.map_err(aws_error("s3:PutObject", bucket.url(key)))?.e_tag.unwrap_or_default())
        });
        self.upload.part_etags.push(etag.await?);
        Ok(())
    }
}

/// Bytes of the next part of an upload that has so many.
fn part_bytes(parts: usize) -> usize {
    PART_BYTES << (parts / PARTS_OF_A_SIZE).min(DOUBLINGS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_grow_so_that_an_upload_never_runs_out_of_them() {
        assert_eq!((part_bytes(0), part_bytes(999), part_bytes(1000)), (PART_BYTES, PART_BYTES, 2 * PART_BYTES));
        let most: u64 = (0..MAX_PARTS as usize).map(|part| part_bytes(part) as u64).sum();
        assert!(most > 490 << 30, "{most}");
    }
}
