//! Objects: a file in S3 in one version, which is the unit that is claimed, counted and archived.

use std::fmt;

/// Which content of a key is meant: S3 keeps several under one key over time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Version {
    /// The version id, on a bucket with versioning.
    Id(String),
    /// The eTag without its quotes, on a bucket without.
    ETag(String),
}

impl Version {
    /// The version id where there is a real one, else the eTag. Objects written while versioning is off or suspended
    /// carry the version id "null", which a later write reuses.
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

/// The identity of an object: the same content under the same key, as far as S3 can tell that by version or eTag, whoever announces
/// it and however often. The eTag of an upload in parts, or under a KMS key, is not that of its content alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct ObjectId {
    /// Bucket name.
    pub bucket: String,
    /// Key, decoded.
    pub key: String,
    /// Which content under that key.
    pub version: Version,
}

/// An object that was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectEvent {
    /// Which object.
    pub object: ObjectId,
    /// Size in bytes as announced; 0 when the event does not say.
    pub size: u64,
    /// When it was created, as announced (RFC 3339); what the lag is measured from.
    pub created_at: Option<jiff::Timestamp>,
}
