//! S3: reading, writing, moving and listing objects of the bucket.
//!
//! The only module that knows S3. Reading is pinned to one content by version id or eTag, and resumes where the network
//! broke off. Writing that must stay invisible until the commit is a multipart upload that is not completed. Moving copies
//! on condition of the source's content and then deletes on the same condition, so that a file which was overwritten in
//! between is never deleted unread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_s3::operation::delete_object::builders::DeleteObjectFluentBuilder;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, Delete, ObjectIdentifier};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;
use tokio_util::task::AbortOnDropHandle;

use crate::aws::{AwsError, Backoff, Kind, explain};
use crate::event::{ObjectEvent, ObjectId, Version};
use crate::layout::INCOMING;
use crate::tasks;

/// Parts of a multipart upload are at least this large; S3 wants 5 MiB of all but the last:
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>.
pub const PART_BYTES: usize = 8 << 20;
/// Largest object that is copied by one call: what certainly ends within the timeout of a call. S3 would take 5 GiB.
const MAX_COPY_BYTES: u64 = 256 << 20;
/// Parts of an upload, at most. Same source.
const MAX_PARTS: u64 = 10_000;
/// Chunks of a body read ahead.
const CHUNKS_AHEAD: usize = 8;
/// What these chunks take in memory, about.
pub const READ_AHEAD_BYTES: u64 = 512 << 10;
/// Longest wait for the next chunk of a body.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);
/// Tries to go on reading a body without any progress.
const RESUMES: u32 = 5;

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

/// What became of an object that was to be moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// It lies at the destination, and is gone from where it was.
    There,
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
}

impl Bucket {
    /// The bucket called `name`.
    pub fn new(client: aws_sdk_s3::Client, name: String) -> Self {
        Bucket { client, name, unconditional_delete: Arc::default() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn url(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.name)
    }

    /// Whether the bucket is there and may be listed.
    pub async fn check(&self) -> Result<(), AwsError> {
        let list = self.client.list_objects_v2().bucket(&self.name).prefix(INCOMING).max_keys(1).send().await;
        list.map(drop).map_err(explain("s3:ListBucket", self.url("")))
    }

    // ------------------------------------------------------------------------------------------ reading

    /// Streams an object, in exactly the given version. Starts at once, reads a little ahead, and resumes where the network
    /// breaks off. Its errors carry an [`AwsError`]: `NotFound` or `Condition` when that content is gone.
    pub fn read(&self, object: &ObjectId) -> impl AsyncRead + Send + Unpin + use<> {
        let (sender, mut receiver) = mpsc::channel(CHUNKS_AHEAD);
        let (bucket, object) = (self.clone(), object.clone());
        let reading = AbortOnDropHandle::new(tasks::spawn("body reader", async move {
            if let Err(error) = bucket.read_into(&object, &sender).await {
                let _ = sender.send(Err(std::io::Error::other(error))).await;
            }
        }));
        StreamReader::new(futures::stream::poll_fn(move |context| {
            let _until_dropped = &reading;
            receiver.poll_recv(context)
        }))
    }

    async fn read_into(
        &self,
        object: &ObjectId,
        chunks: &mpsc::Sender<std::io::Result<bytes::Bytes>>,
    ) -> Result<(), AwsError> {
        let (mut offset, mut resumes, mut backoff) = (0_u64, 0, Backoff::default());
        let never = tokio_util::sync::CancellationToken::new();
        loop {
            let mut get = self.client.get_object().bucket(&object.bucket).key(&object.key);
            get = match &object.version {
                Version::Id(id) => get.version_id(id),
                Version::ETag(etag) => get.if_match(format!("\"{etag}\"")),
            };
            if offset > 0 {
                get = get.range(format!("bytes={offset}-"));
            }
            let output = get.send().await.map_err(explain("s3:GetObject", self.url(&object.key)))?;
            let end = offset + u64::try_from(output.content_length.unwrap_or(0)).unwrap_or(0);
            let mut body = output.body;
            let interruption = loop {
                match tokio::time::timeout(CHUNK_TIMEOUT, body.next()).await {
                    Ok(Some(Ok(chunk))) => {
                        offset += chunk.len() as u64;
                        (resumes, backoff) = (0, Backoff::default());
                        if chunks.send(Ok(chunk)).await.is_err() {
                            return Ok(());
                        }
                    }
                    Ok(None) if offset >= end => return Ok(()),
                    Ok(None) => break "the body ended early".to_owned(),
                    Ok(Some(Err(error))) => break error.to_string(),
                    Err(_) => break format!("no data for {} s", CHUNK_TIMEOUT.as_secs()),
                }
            };
            resumes += 1;
            if resumes > RESUMES {
                return Err(self.interrupted(&object.key, interruption));
            }
            backoff.pause(&never).await;
        }
    }

    /// Reads a small object whole, and its eTag. `None` when it still has the eTag `unless`.
    pub async fn read_unless(&self, key: &str, unless: Option<&str>) -> Result<Option<(ByteStream, String)>, AwsError> {
        let get = self.client.get_object().bucket(&self.name).key(key).set_if_none_match(unless.map(str::to_owned));
        match get.send().await {
            Ok(output) => Ok(Some((output.body, output.e_tag.unwrap_or_default()))),
            Err(error) if error.raw_response().is_some_and(|response| response.status().as_u16() == 304) => Ok(None),
            Err(error) => Err(explain("s3:GetObject", self.url(key))(error)),
        }
    }

    /// Reads an object of our own whole.
    pub async fn read_all(&self, key: &str) -> Result<Vec<u8>, AwsError> {
        match self.read_unless(key, None).await? {
            Some((body, _)) => self.collect(key, body).await,
            None => Err(self.interrupted(key, "no content".to_owned())),
        }
    }

    /// Reads the last bytes of an object of our own: so many, or all when it has fewer.
    pub async fn read_end(&self, key: &str, bytes: usize) -> Result<Vec<u8>, AwsError> {
        let get = self.client.get_object().bucket(&self.name).key(key).range(format!("bytes=-{bytes}"));
        match get.send().await {
            Ok(output) => self.collect(key, output.body).await,
            // An empty object has no range.
            Err(error) if error.raw_response().is_some_and(|response| response.status().as_u16() == 416) => {
                Ok(Vec::new())
            }
            Err(error) => Err(explain("s3:GetObject", self.url(key))(error)),
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

    /// A page of the objects under a prefix, in every version that there is of them, and where the next page begins.
    pub async fn list_versions(
        &self,
        prefix: &str,
        from: Option<NextVersion>,
    ) -> Result<(Vec<ObjectEvent>, Option<NextVersion>), AwsError> {
        let (key_marker, version_id_marker) = from.map_or((None, None), |next| (Some(next.0), next.1));
        let list = self.client.list_object_versions().bucket(&self.name).prefix(prefix);
        let list = list.set_key_marker(key_marker).set_version_id_marker(version_id_marker);
        let output = list.send().await.map_err(explain("s3:ListBucketVersions", &self.name))?;
        let next = match (output.is_truncated, output.next_key_marker) {
            (Some(true), Some(key)) => Some((key, output.next_version_id_marker)),
            _ => None,
        };
        let event = |version: aws_sdk_s3::types::ObjectVersion| {
            let content = Version::new(version.version_id.as_deref(), || version.e_tag.as_deref().ok_or(())).ok()?;
            Some(ObjectEvent {
                object: ObjectId { bucket: self.name.clone(), key: version.key?, version: content },
                size: version.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
                created_at: version.last_modified.and_then(|at| jiff::Timestamp::from_second(at.secs()).ok()),
            })
        };
        Ok((output.versions.unwrap_or_default().into_iter().filter_map(event).collect(), next))
    }

    /// Every object under a prefix of our own, with its size in bytes.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, AwsError> {
        let pages = self.client.list_objects_v2().bucket(&self.name).prefix(prefix).into_paginator().send();
        let pages: Vec<_> = pages.try_collect().await.map_err(explain("s3:ListBucket", self.url(prefix)))?;
        let listed = |object: aws_sdk_s3::types::Object| Some((object.key?, object.size?.try_into().ok()?));
        Ok(pages.into_iter().flat_map(|page| page.contents.unwrap_or_default()).filter_map(listed).collect())
    }

    /// The last key under a prefix and behind another one from which something can be told.
    pub async fn last_behind<T>(
        &self,
        prefix: &str,
        key: String,
        tell: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, AwsError> {
        let list = self.client.list_objects_v2().bucket(&self.name).prefix(prefix).start_after(key);
        let mut pages = list.into_paginator().send();
        let mut last = None;
        while let Some(page) = pages.try_next().await.map_err(explain("s3:ListBucket", self.url(prefix)))? {
            last = page.contents().iter().rev().find_map(|object| tell(object.key()?)).or(last);
        }
        Ok(last)
    }

    /// The folders directly under a prefix of our own, each with the slash at its end.
    pub async fn folders(&self, prefix: &str) -> Result<Vec<String>, AwsError> {
        let list = self.client.list_objects_v2().bucket(&self.name).prefix(prefix).delimiter("/");
        let pages: Vec<_> =
            list.into_paginator().send().try_collect().await.map_err(explain("s3:ListBucket", self.url(prefix)))?;
        let folders = pages.into_iter().flat_map(|page| page.common_prefixes.unwrap_or_default());
        Ok(folders.filter_map(|folder| folder.prefix).collect())
    }

    /// The current object under a key.
    pub async fn find(&self, key: &str) -> Result<Option<ObjectId>, AwsError> {
        let head = self.client.head_object().bucket(&self.name).key(key).send().await;
        match head.map_err(explain("s3:GetObject", self.url(key))) {
            Ok(head) => {
                let version = Version::new(head.version_id(), || head.e_tag().ok_or(()));
                let object = |version| ObjectId { bucket: self.name.clone(), key: key.to_owned(), version };
                Ok(version.ok().map(object))
            }
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Since when exactly this content lies there; `None` when it does not.
    pub async fn lies_there_since(&self, object: &ObjectId) -> Result<Option<jiff::Timestamp>, AwsError> {
        let mut head = self.client.head_object().bucket(&object.bucket).key(&object.key);
        head = match &object.version {
            Version::Id(id) => head.version_id(id),
            Version::ETag(etag) => head.if_match(format!("\"{etag}\"")),
        };
        match head.send().await.map_err(explain("s3:GetObject", self.url(&object.key))) {
            Ok(head) => Ok(head.last_modified.and_then(|at| jiff::Timestamp::from_second(at.secs()).ok())),
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::Condition) => Ok(None),
            Err(error) => Err(error),
        }
    }

    // ------------------------------------------------------------------------------------------ writing

    /// Writes an object.
    pub async fn put(&self, key: &str, bytes: Vec<u8>, content_type: &str) -> Result<(), AwsError> {
        let put = self.client.put_object().bucket(&self.name).key(key).content_type(content_type);
        put.body(ByteStream::from(bytes)).send().await.map(drop).map_err(explain("s3:PutObject", self.url(key)))
    }

    /// An upload that stays invisible until it is completed.
    pub fn upload(&self, key: String) -> PendingUpload {
        let upload = Upload { key, upload_id: String::new(), part_etags: Vec::new() };
        PendingUpload { bucket: self.clone(), upload, buffer: Vec::new() }
    }

    async fn begin_upload(&self, key: &str) -> Result<String, AwsError> {
        let output = self.client.create_multipart_upload().bucket(&self.name).key(key).send().await;
        Ok(output.map_err(explain("s3:PutObject", self.url(key)))?.upload_id.unwrap_or_default())
    }

    /// Makes the object of an upload visible. May be repeated.
    pub async fn complete_upload(&self, upload: &Upload) -> Result<(), AwsError> {
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
        match complete.map_err(explain("s3:PutObject", self.url(&upload.key))) {
            Ok(_) => {
                fail::fail_point!("upload completed");
                Ok(())
            }
            // It was completed before.
            Err(error) if error.kind == Kind::UploadGone && self.find(&upload.key).await?.is_some() => Ok(()),
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
                .set_key_marker(key_marker)
                .set_upload_id_marker(upload_marker)
                .send()
                .await
                .map_err(explain("s3:ListBucketMultipartUploads", self.url(prefix)))?;
            for upload in page.uploads() {
                let (Some(key), Some(upload_id)) = (upload.key(), upload.upload_id()) else { continue };
                if !ours(key) {
                    continue;
                }
                let abort = self.client.abort_multipart_upload().bucket(&self.name).key(key).upload_id(upload_id);
                match abort.send().await.map_err(explain("s3:AbortMultipartUpload", self.url(key))) {
                    Ok(_) => aborted += 1,
                    Err(error) if error.kind == Kind::UploadGone => {}
                    Err(error) => return Err(error),
                }
            }
            if page.is_truncated() != Some(true) {
                return Ok(aborted);
            }
            (key_marker, upload_marker) = (page.next_key_marker, page.next_upload_id_marker);
        }
    }

    /// Deletes every object under a prefix of our own. May be repeated.
    pub async fn delete_prefix(&self, prefix: &str) -> Result<(), AwsError> {
        loop {
            let list = self.client.list_objects_v2().bucket(&self.name).prefix(prefix).send().await;
            let page = list.map_err(explain("s3:ListBucket", self.url(prefix)))?;
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
            let output = output.map_err(explain("s3:DeleteObject", self.url(prefix)))?;
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

    /// Moves an object's content to another key, in exactly the given version. May be repeated, and carried out by
    /// several at a time: every repetition copies the same content to the same place.
    pub async fn move_object(&self, object: &ObjectId, size: u64, destination: &str) -> Result<Moved, AwsError> {
        let copied = if size > MAX_COPY_BYTES {
            self.copy_large(object, size, destination).await
        } else {
            self.copy(object, destination).await
        };
        match copied {
            Ok(()) => {}
            // Gone or replaced: moved by somebody earlier, or taken away by whoever put it there.
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::Condition) => {
                return Ok(if self.find(destination).await?.is_some() { Moved::There } else { Moved::Lost });
            }
            Err(error) => return Err(error),
        }
        fail::fail_point!("copied");
        self.delete_exactly(object).await?;
        fail::fail_point!("deleted");
        Ok(Moved::There)
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
        copy.send().await.map(drop).map_err(explain("s3:PutObject", self.url(destination)))
    }

    async fn copy_large(&self, object: &ObjectId, size: u64, destination: &str) -> Result<(), AwsError> {
        let upload_id = self.begin_upload(destination).await?;
        let mut upload = Upload { key: destination.to_owned(), upload_id, part_etags: Vec::new() };
        let copied = self.copy_parts(object, size, &mut upload).await;
        if copied.is_err() {
            // Best effort: what is left over, the bucket's lifecycle removes.
            let abort = self.client.abort_multipart_upload().bucket(&self.name).key(destination);
            let _ = abort.upload_id(&upload.upload_id).send().await;
        }
        copied
    }

    async fn copy_parts(&self, object: &ObjectId, size: u64, upload: &mut Upload) -> Result<(), AwsError> {
        let part_bytes = MAX_COPY_BYTES.max(size.div_ceil(MAX_PARTS));
        let mut start = 0;
        while start < size {
            let end = (start + part_bytes).min(size);
            let mut copy = self
                .client
                .upload_part_copy()
                .bucket(&self.name)
                .key(&upload.key)
                .upload_id(&upload.upload_id)
                .part_number(upload.part_etags.len() as i32 + 1)
                .copy_source(self.copy_source(object))
                .copy_source_range(format!("bytes={start}-{}", end - 1));
            if let Version::ETag(etag) = &object.version {
                copy = copy.copy_source_if_match(format!("\"{etag}\""));
            }
            let part = copy.send().await.map_err(explain("s3:PutObject", self.url(&upload.key)))?;
            upload.part_etags.push(part.copy_part_result.and_then(|result| result.e_tag).unwrap_or_default());
            start = end;
        }
        self.complete_upload(upload).await
    }

    /// Deletes exactly this content: by version id, or on condition of the eTag. Where the service does not delete
    /// conditionally, the eTag is checked right before, which leaves a gap of milliseconds and is said once in the log.
    async fn delete_exactly(&self, object: &ObjectId) -> Result<(), AwsError> {
        let delete = || self.client.delete_object().bucket(&object.bucket).key(&object.key);
        let send = async |delete: DeleteObjectFluentBuilder| {
            match delete.send().await.map_err(explain("s3:DeleteObject", self.url(&object.key))) {
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
        match head.map_err(explain("s3:GetObject", self.url(&object.key))) {
            Ok(_) => send(delete()).await,
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::Condition) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Where a page of versions begins: a key, and a version of it.
pub type NextVersion = (String, Option<String>);

/// An upload in the making: takes bytes, sends them in parts. Nothing is sent before there is enough for one.
#[derive(Debug)]
pub struct PendingUpload {
    bucket: Bucket,
    upload: Upload,
    buffer: Vec<u8>,
}

impl PendingUpload {
    /// Adds bytes; sends a part when there are enough for one.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), AwsError> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PART_BYTES { self.send_part().await } else { Ok(()) }
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
        let key = &self.upload.key;
        if self.upload.upload_id.is_empty() {
            self.upload.upload_id = self.bucket.begin_upload(key).await?;
        }
        let part = self
            .bucket
            .client
            .upload_part()
            .bucket(&self.bucket.name)
            .key(key)
            .upload_id(&self.upload.upload_id)
            .part_number(self.upload.part_etags.len() as i32 + 1)
            .body(ByteStream::from(std::mem::take(&mut self.buffer)))
            .send()
            .await
            .map_err(explain("s3:PutObject", self.bucket.url(key)))?;
        self.upload.part_etags.push(part.e_tag.unwrap_or_default());
        Ok(())
    }
}
