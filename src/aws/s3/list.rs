//! Lists of objects, and the properties of one object. Covered by `tests/pipeline`.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::operation::list_objects_v2::builders::ListObjectsV2FluentBuilder;
use aws_sdk_s3::types::{EncodingType, MultipartUpload, Object};
use futures::TryStreamExt;
use futures::stream::BoxStream;
use percent_encoding::percent_decode_str;

use crate::aws::error::{AwsError, Kind, aws_error};
use crate::aws::s3::Bucket;
use crate::object::{ObjectEvent, ObjectId, Version};

/// The position at which a page of versions begins: a key, and a version of it.
pub type NextVersion = (String, Option<String>);

/// The current object under a key.
#[derive(Debug)]
pub struct Current {
    /// Its identity.
    pub object: ObjectId,
    /// Its size in bytes.
    pub size: Option<u64>,
    /// Its eTag, also when a version id identifies it.
    pub etag: Option<String>,
    /// Its metadata.
    pub metadata: HashMap<String, String>,
}

/// An object of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its key.
    pub key: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The time at which it was written, in milliseconds since the Unix epoch.
    pub at_ms: i64,
}

impl Bucket {
    /// Lists a page of the objects under a prefix. Returns the position of the next page, if there is one. Of a key
    /// with several versions only the current one is listed.
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

    /// Lists every object under a prefix of our own, with its size in bytes.
    pub async fn list(&self, prefix: &str) -> Result<Vec<(String, u64)>, AwsError> {
        let mut pages = self.pages(prefix, |list| list);
        let mut found = Vec::new();
        while let Some(page) = pages.try_next().await? {
            let listed = |object: Object| Some((object.key?, object.size?.try_into().ok()?));
            found.extend(page.contents.unwrap_or_default().into_iter().filter_map(listed));
        }
        Ok(found)
    }

    /// Lists every object under a prefix of our own, with its size and the time at which it was written.
    pub async fn list_written(&self, prefix: &str) -> Result<Vec<Written>, AwsError> {
        let mut pages = self.pages(prefix, |list| list);
        let mut found = Vec::new();
        while let Some(page) = pages.try_next().await? {
            let listed = |object: Object| {
                let at_ms = object.last_modified.and_then(|at| at.to_millis().ok())?;
                Some(Written { key: object.key?, bytes: object.size?.try_into().ok()?, at_ms })
            };
            found.extend(page.contents.unwrap_or_default().into_iter().filter_map(listed));
        }
        Ok(found)
    }

    /// Finds the object under a key of our own; `None` when there is none.
    pub async fn written(&self, key: &str) -> Result<Option<Written>, AwsError> {
        let Some(head) = self.head(key).await? else { return Ok(None) };
        let bytes = head.content_length.and_then(|length| u64::try_from(length).ok()).unwrap_or(0);
        let at_ms = head.last_modified.and_then(|at| at.to_millis().ok()).unwrap_or(0);
        Ok(Some(Written { key: key.to_owned(), bytes, at_ms }))
    }

    /// Returns `parse(key)` for the last key under `prefix` and after `start_after` for which it is `Some`.
    pub async fn last_key_after<T>(
        &self,
        prefix: &str,
        start_after: String,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, AwsError> {
        let mut pages = self.pages(prefix, |list| list.start_after(start_after));
        let mut last = None;
        while let Some(page) = pages.try_next().await? {
            last = page.contents().iter().rev().find_map(|object| parse(object.key()?)).or(last);
        }
        Ok(last)
    }

    /// Lists the folders directly under a prefix of our own, each with a trailing slash.
    pub async fn folders(&self, prefix: &str) -> Result<Vec<String>, AwsError> {
        let mut pages = self.pages(prefix, |list| list.delimiter("/"));
        let mut folders = Vec::new();
        while let Some(page) = pages.try_next().await? {
            folders.extend(page.common_prefixes.unwrap_or_default().into_iter().filter_map(|folder| folder.prefix));
        }
        Ok(folders)
    }

    /// Streams the pages of a list. Keys are transferred in URL encoding and decoded here: XML cannot represent control
    /// characters, so that one key with such a character would make every list with it unreadable.
    pub(super) fn pages(
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

    /// Finds the current object under a key.
    pub async fn find(&self, key: &str) -> Result<Option<ObjectId>, AwsError> {
        Ok(self.describe_current(key).await?.map(|current| current.object))
    }

    /// Finds the current object under a key, with its properties.
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

    /// Returns the time at which exactly this content was written; `None` when it is gone.
    pub async fn last_modified(&self, object: &ObjectId) -> Result<Option<jiff::Timestamp>, AwsError> {
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

    /// Returns the time since an object of our own was written; `None` when there is none.
    pub async fn age(&self, key: &str) -> Result<Option<Duration>, AwsError> {
        let Some(head) = self.head(key).await? else { return Ok(None) };
        let written = head.last_modified.map_or(i64::MAX, |at| at.secs());
        let seconds = jiff::Timestamp::now().as_second().saturating_sub(written);
        Ok(Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0))))
    }

    /// Reads the properties of the current object under a key; `None` when there is none.
    pub(super) async fn head(&self, key: &str) -> Result<Option<HeadObjectOutput>, AwsError> {
        let head = self.client.head_object().bucket(&self.name).key(key).send().await;
        match head.map_err(aws_error("s3:GetObject", self.url(key))) {
            Ok(head) => Ok(Some(head)),
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn size_of(&self, key: &str) -> Result<Option<u64>, AwsError> {
        let head = self.head(key).await?;
        Ok(head.and_then(|head| head.content_length).and_then(|length| u64::try_from(length).ok()))
    }
}

/// Decodes a key of a list. S3 may encode a space as `+`, as in forms.
pub(super) fn decoded(key: String, is_encoded: bool) -> String {
    match is_encoded {
        true => percent_decode_str(&key.replace('+', " ")).decode_utf8_lossy().into_owned(),
        false => key,
    }
}

/// Returns the key and the id of an upload in a list.
pub(super) fn named(upload: &MultipartUpload, is_encoded: bool) -> Option<(String, String)> {
    Some((decoded(upload.key.clone()?, is_encoded), upload.upload_id.clone()?))
}
