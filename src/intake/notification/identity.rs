//! The identity of an announced object.

use serde_json::Value;

use crate::intake::notification::quoted;
use crate::layout::MAX_KEY_BYTES;
use crate::object::{ObjectEvent, ObjectId, Version};

/// Names of buckets are shorter, those of the early days included:
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>.
const MAX_BUCKET_BYTES: usize = 255;
/// S3's eTags are 32 hexadecimal digits, and a dash and the number of parts where there are several:
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html>.
const MAX_ETAG_BYTES: usize = 128;
/// S3 says that version ids have at most 1,024 bytes, and so have sort keys in DynamoDB, of which the ledger's begin
/// with `version#`. Those that S3 gives out are of 32.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/versioning-workflows.html>,
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html>
const MAX_VERSION_ID_BYTES: usize = 1024 - "version#".len();
/// S3's largest object (48.8 TiB) is of 10,000 parts of 5 GiB:
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
        // It goes into the header of a request.
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
            format!("its size is {size}, and not a whole number of bytes up to the {MAX_OBJECT_BYTES} of S3's largest object")
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
