//! The identity and the size of an announced object, with their bounds.

use serde_json::Value;

use crate::intake::notification::quoted;
use crate::layout::MAX_KEY_BYTES;
use crate::object::{ObjectEvent, ObjectId, Version};

/// Longest name of a bucket, including early ones that today's rules exclude:
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>.
const MAX_BUCKET_BYTES: usize = 255;
/// Longest eTag, with room to spare: S3's have 32 hexadecimal digits, with a dash and a number if there are several
/// parts: <https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html>.
const MAX_ETAG_BYTES: usize = 128;
/// Longest version id. S3 allows 1,024 bytes, but so does DynamoDB for sort keys, and the ledger's begin with
/// `version#`. S3's own ids have 32 bytes.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/versioning-workflows.html>,
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html>
const MAX_VERSION_ID_BYTES: usize = 1024 - "version#".len();
/// Size of S3's largest object (48.8 TiB): 10,000 parts of 5 GiB:
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html>.
const MAX_OBJECT_BYTES: u64 = 10_000 * (5 << 30);

pub(super) fn event(
    bucket: &str,
    key: String,
    object: &Value,
    (version_field, etag_field): (&str, &str),
    created_at: Option<&str>,
) -> Result<ObjectEvent, String> {
    if bucket.is_empty() || key.is_empty() {
        return Err("empty bucket name or key".to_owned());
    }
    bounded("bucket name", bucket, MAX_BUCKET_BYTES)?;
    bounded("key", &key, MAX_KEY_BYTES)?;
    let version = Version::new(object[version_field].as_str(), || text(object, etag_field))?;
    match &version {
        Version::Id(id) => {
            if bounded("version id", id, MAX_VERSION_ID_BYTES)?.chars().any(char::is_control) {
                return Err("its version id has control characters".to_owned());
            }
        }
        // It becomes part of a request header.
        Version::ETag(etag) => {
            let is_header_text = |byte: u8| byte.is_ascii_graphic() && byte != b'"';
            if !bounded("eTag", etag, MAX_ETAG_BYTES)?.bytes().all(is_header_text) || etag.is_empty() {
                return Err("its eTag is empty, or has characters that eTags do not have".to_owned());
            }
        }
    }
    let size = match &object["size"] {
        Value::Null => 0,
        size => size.as_u64().filter(|&size| size <= MAX_OBJECT_BYTES).ok_or_else(|| {
            let size = quoted(&size.to_string());
            format!(
                "its size is {size}, and not a whole number of bytes up to the {MAX_OBJECT_BYTES} of S3's largest \
                 object"
            )
        })?,
    };
    Ok(ObjectEvent {
        object: ObjectId { bucket: bucket.to_owned(), key, version },
        size,
        created_at: created_at.and_then(|time| time.parse().ok()),
    })
}

pub(super) fn bounded<'a>(what: &str, text: &'a str, max: usize) -> Result<&'a str, String> {
    if text.len() > max {
        return Err(format!("its {what} has {} bytes, and S3 has none above {max}", text.len()));
    }
    Ok(text)
}

pub(super) fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str, String> {
    value[field].as_str().ok_or_else(|| format!("no text in field {field:?}"))
}
