//! Writing objects: by one call, or by a multipart upload that stays invisible until it is completed.
//!
//! Covered by its unit test, `tests/pipeline` and `tests/chaos`.

use std::collections::HashMap;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, EncodingType};
use futures::{StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use crate::aws::error::{AwsError, Kind, aws_error};
use crate::aws::retry::retry_until;
use crate::aws::s3::Bucket;
use crate::aws::s3::list::{decoded, named};

/// Smallest size of the parts of a multipart upload. S3 requires 5 MiB for all but the last:
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>.
pub const PART_BYTES: usize = 8 << 20;
/// Number of parts after which the size of further parts doubles. With [`DOUBLINGS`], an upload can hold 490 GiB within
/// the 10,000 parts that S3 permits, and has no more than 64 MiB in memory.
const PARTS_OF_A_SIZE: usize = 1000;
/// Upper bound of the number of times the part size doubles.
const DOUBLINGS: usize = 3;
/// Uploads that are aborted concurrently.
const CONCURRENT_ABORTS: usize = 16;

/// A multipart upload whose parts are all written: completing it makes the object visible atomically.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Upload {
    /// Key of the object that it becomes.
    pub key: String,
    /// S3's id of the upload.
    pub upload_id: String,
    /// ETags of the parts, in order.
    pub part_etags: Vec<String>,
}

/// The properties of an object besides its content.
#[derive(Debug, Clone, Default)]
pub(super) struct Description {
    pub(super) content_type: Option<String>,
    pub(super) content_encoding: Option<String>,
    pub(super) metadata: Option<HashMap<String, String>>,
    /// As a query string.
    pub(super) tags: Option<String>,
}

impl Bucket {
    /// Writes an object.
    pub async fn put(&self, key: &str, bytes: Vec<u8>, content_type: &str) -> Result<(), AwsError> {
        let put = self.client.put_object().bucket(&self.name).key(key).content_type(content_type);
        put.body(ByteStream::from(bytes)).send().await.map(drop).map_err(aws_error("s3:PutObject", self.url(key)))
    }

    /// Writes an object if there is none under its key. Returns false if there is one, which an earlier attempt whose
    /// answer was lost may have written.
    pub async fn put_new(&self, key: &str, bytes: Vec<u8>, content_type: &str) -> Result<bool, AwsError> {
        let put = self.client.put_object().bucket(&self.name).key(key).content_type(content_type).if_none_match("*");
        match put.body(ByteStream::from(bytes)).send().await.map_err(aws_error("s3:PutObject", self.url(key))) {
            Ok(_) => Ok(true),
            Err(error) if error.kind == Kind::Condition => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Creates an upload that stays invisible until it is completed. Transient errors are retried until `shutdown`.
    pub fn upload(&self, key: String, shutdown: CancellationToken) -> PendingUpload {
        let upload = Upload { key, upload_id: String::new(), part_etags: Vec::new() };
        PendingUpload { bucket: self.clone(), upload, buffer: Vec::new(), shutdown }
    }

    pub(super) async fn begin_upload(&self, key: &str, description: &Description) -> Result<String, AwsError> {
        let Description { content_type, content_encoding, metadata, tags } = description.clone();
        let create = self.client.create_multipart_upload().bucket(&self.name).key(key);
        let create = create.set_content_type(content_type).set_content_encoding(content_encoding);
        let output = create.set_metadata(metadata).set_tagging(tags).send().await;
        Ok(output.map_err(aws_error("s3:PutObject", self.url(key)))?.upload_id.unwrap_or_default())
    }

    pub(super) async fn abort_upload(&self, key: &str, upload_id: &str) -> Result<bool, AwsError> {
        let abort = self.client.abort_multipart_upload().bucket(&self.name).key(key).upload_id(upload_id);
        match abort.send().await.map_err(aws_error("s3:AbortMultipartUpload", self.url(key))) {
            Ok(_) => Ok(true),
            Err(error) if error.kind == Kind::UploadGone => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes the object of an upload visible. May be repeated. Returns false if neither the upload nor its object
    /// exists: it was completed before, and the object has been removed since.
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

    /// Aborts every upload under `prefix` whose key satisfies `ours`, and returns their number. May be repeated.
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
}

/// An upload in progress. It buffers bytes, and sends them in parts; the upload begins with its first part.
#[derive(Debug)]
pub struct PendingUpload {
    bucket: Bucket,
    upload: Upload,
    buffer: Vec<u8>,
    shutdown: CancellationToken,
}

impl PendingUpload {
    /// Adds bytes, and sends a part once there are enough for one.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), AwsError> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= part_bytes(self.upload.part_etags.len()) { self.send_part().await } else { Ok(()) }
    }

    /// The number of bytes in memory.
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Sends the remaining bytes.
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

/// The size in bytes of the next part of an upload that has `parts` parts.
fn part_bytes(parts: usize) -> usize {
    PART_BYTES << (parts / PARTS_OF_A_SIZE).min(DOUBLINGS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::s3::MAX_PARTS;

    #[test]
    fn parts_grow_so_that_an_upload_never_runs_out_of_them() {
        assert_eq!((part_bytes(0), part_bytes(999), part_bytes(1000)), (PART_BYTES, PART_BYTES, 2 * PART_BYTES));
        let most: u64 = (0..MAX_PARTS as usize).map(|part| part_bytes(part) as u64).sum();
        assert!(most > 490 << 30, "{most}");
    }
}
