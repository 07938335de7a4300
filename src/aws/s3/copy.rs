//! Copying objects, the first half of moving them into the archive and the quarantine; [`delete`](super::delete) is the
//! other.
//!
//! Both are conditional on the source's content, so that a file that was overwritten in between is never deleted
//! unread. Covered by `tests/pipeline` (`refusals.rs`, `edges.rs`) and `tests/chaos`.

use std::collections::BTreeMap;

use aws_sdk_s3::types::EncodingType;
use futures::{StreamExt, TryStreamExt};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::aws::error::{AwsError, Kind, aws_error};
use crate::aws::retry::Backoff;
use crate::aws::s3::list::named;
use crate::aws::s3::write::{Description, Upload};
use crate::aws::s3::{Bucket, MAX_PARTS, OBJECT_TRIES};
use crate::layout::INCOMING;
use crate::object::{ObjectId, Version};

/// Size of the largest object that is copied by one call, so that the call ends within its timeout. S3 permits 5 GiB.
const MAX_COPY_BYTES: u64 = 256 << 20;
/// Parts of a large object that are copied concurrently. A part of 256 MiB takes some six seconds, so 40 GiB take two
/// minutes.
const CONCURRENT_PARTS: usize = 8;
/// Characters that stay unencoded in a copy source:
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html>.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The outcome of copying an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// The object is at the destination, and its source can be deleted.
    There,
    /// The object is at the destination, and its source is gone: it was moved before.
    Moved,
    /// The source was replaced or deleted before it could be copied.
    Lost,
}

impl Bucket {
    /// Copies an object's content to another key, in exactly the given version. May be repeated, and carried out by
    /// several consumers concurrently: all of them copy the same content to the same key. If it `may_be_there`, the
    /// destination is checked first. Calls `made_progress` after every part.
    pub async fn copy_exactly(
        &self,
        object: &ObjectId,
        size: u64,
        destination: &str,
        may_be_there: bool,
        made_progress: &(impl Fn() + Sync),
    ) -> Result<Copied, AwsError> {
        // No two batches write to the same key, so an object of the right size is the copy.
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
            // Gone or replaced: moved by an earlier attempt, or removed by its producer.
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::Condition) => {
                Ok(if self.find(destination).await?.is_some() { Copied::Moved } else { Copied::Lost })
            }
            Err(error) => Err(error),
        }
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

    /// Copies an object in parts, several concurrently. Continues an upload to the same key if there is one: no other
    /// batch writes there, so its parts have the same content.
    async fn copy_large(
        &self,
        object: &ObjectId,
        size: u64,
        destination: &str,
        made_progress: &(impl Fn() + Sync),
    ) -> Result<(), AwsError> {
        let part_bytes = MAX_COPY_BYTES.max(size.div_ceil(MAX_PARTS));
        let parts = size.div_ceil(part_bytes);
        // Under the incoming prefix, an unfinished upload is a producer's.
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
                let mut backoff = Backoff::for_one_object();
                for _ in 1..OBJECT_TRIES {
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

    /// Finds an uncompleted upload to a key of our own.
    async fn begun_copy(&self, key: &str) -> Result<Option<String>, AwsError> {
        let list = self.client.list_multipart_uploads().bucket(&self.name).prefix(key).encoding_type(EncodingType::Url);
        let page = list.send().await.map_err(aws_error("s3:ListBucketMultipartUploads", self.url(key)))?;
        let is_encoded = page.encoding_type.is_some();
        let uploads = page.uploads().iter().filter_map(|upload| named(upload, is_encoded));
        Ok(uploads.filter(|(found, _)| found == key).map(|(_, upload_id)| upload_id).next_back())
    }

    /// Lists the parts of an upload that are written, by number.
    async fn parts_of(&self, key: &str, upload_id: &str) -> Result<BTreeMap<u64, String>, AwsError> {
        let list = self.client.list_parts().bucket(&self.name).key(key).upload_id(upload_id);
        let parts = list.into_paginator().items().send().try_collect().await;
        match parts.map_err(aws_error("s3:ListMultipartUploadParts", self.url(key))) {
            Ok(parts) => {
                let part = |part: aws_sdk_s3::types::Part| Some((u64::try_from(part.part_number?).ok()?, part.e_tag?));
                Ok(parts.into_iter().filter_map(part).collect())
            }
            // Completed by another consumer this moment.
            Err(error) if error.kind == Kind::UploadGone => Ok(BTreeMap::new()),
            Err(error) => Err(error),
        }
    }

    /// Reads the properties that a copy in parts would lose, unlike a copy by one call: type, encoding, metadata and
    /// tags.
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
}
