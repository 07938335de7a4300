//! Objects: an object is a file in S3 in one version, the unit that is claimed, counted and archived.
//!
//! Covered by the unit tests of `intake/notification.rs`.

use std::fmt;

/// The identity of one content of a key, which has several over time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Version {
    /// The version id, on a bucket with versioning.
    Id(String),
    /// The eTag without its quotes, on a bucket without.
    ETag(String),
}

impl Version {
    /// Identifies a content by its version id if there is a real one, else by its eTag. Objects that are written while
    /// versioning is off or suspended have the version id "null", which a later write reuses.
    pub fn new<'a, E>(id: Option<&str>, etag: impl FnOnce() -> Result<&'a str, E>) -> Result<Self, E> {
        match id {
            Some(id) if !id.is_empty() && id != "null" => Ok(Version::Id(id.to_owned())),
            _ => Ok(Version::ETag(etag()?.trim_matches('"').to_owned())),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Version::Id(id) => write!(f, "version {id}"),
            Version::ETag(etag) => write!(f, "eTag {etag}"),
        }
    }
}

/// The identity of an object: one content under one key, as far as S3 distinguishes contents by version id or eTag,
/// independent of the messages that announce it. The eTag of a multipart upload, or of an object under a KMS key, does
/// not depend on the content alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct ObjectId {
    /// Bucket name.
    pub bucket: String,
    /// Key, decoded.
    pub key: String,
    /// The content under that key.
    pub version: Version,
}

/// The announcement of a created object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectEvent {
    /// The object.
    pub object: ObjectId,
    /// Size in bytes as announced; 0 when the event does not say.
    pub size: u64,
    /// The time at which it was created, as announced. The lag is measured from it.
    pub created_at: Option<jiff::Timestamp>,
}
