//! Notifications: from the body of a queue message to the objects that it announces.
//!
//! First stage of the flow, and pure. A message can have any of four forms, which are recognized without configuration:
//! an S3 event notification sent directly to the queue, the same through SNS (wrapped in an envelope or raw), and an
//! EventBridge event. Promises:
//!
//! * Every record of a message ends as one of four: accepted, ignored, refused or unreadable. An unreadable record does
//!   not affect the others.
//! * The output is bounded: an object's identity fits into the ledger's keys and into a request for it, and quotations
//!   in reasons are short. The number of records is bounded by the size of an SQS message (1 MiB), and JSON is at most
//!   128 levels deep.
//! * Unknown fields and every 2.x event version are accepted.
//! * Keys are decoded as their form encodes them: S3 notifications are form-encoded (`+` is a space, `%2B` a plus),
//!   EventBridge keys are plain.
//! * `s3:TestEvent` and events other than object creation announce nothing to process, and are ignored by name.
//!
//! Formats: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html>,
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html>,
//! <https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html>.
//!
//! * `mod.rs`: the forms of a message, and the message that S3 would send for an object
//! * `identity.rs`: the identity and size of an object, with their bounds
//! * `admission.rs`: the objects that a consumer of one bucket accepts

mod admission;
mod identity;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};

pub use crate::intake::notification::admission::{Admission, admit};
use crate::intake::notification::identity::{bounded, event, text};
use crate::layout::MAX_KEY_BYTES;
use crate::object::{ObjectEvent, ObjectId, Version};

/// The most envelopes around an event: SNS may wrap an event of EventBridge or S3, and nothing wraps deeper than that.
const MAX_ENVELOPES: usize = 2;

/// The longest form-encoded key: it has at most three bytes for each byte of the key.
const MAX_ENCODED_KEY_BYTES: usize = 3 * MAX_KEY_BYTES;
/// The most characters that a reason quotes.
const QUOTED_CHARS: usize = 64;

/// The content of one message.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Notification {
    /// The objects created.
    pub events: Vec<ObjectEvent>,
    /// The kinds of the records that announce something else: a test, a deletion, a restore. One for each record.
    pub ignored: Vec<String>,
    /// The reasons why records, or the whole message, could not be read. Such a message is never deleted: SQS moves it
    /// to the dead-letter queue after its last receive.
    pub unreadable: Vec<String>,
}

impl Notification {
    fn unreadable(reason: impl Into<String>) -> Self {
        Notification { unreadable: vec![reason.into()], ..Notification::default() }
    }

    fn ignored(kind: &str) -> Self {
        Notification { ignored: vec![quoted(kind)], ..Notification::default() }
    }
}

/// The beginning of an untrusted text.
fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_CHARS).collect()
}

/// Decodes a message body. It never fails as a whole: `Notification::unreadable` has what cannot be read.
pub fn decode(body: &str) -> Notification {
    let mut body = Cow::Borrowed(body);
    for _ in 0..=MAX_ENVELOPES {
        let value: Value = match serde_json::from_str(&body) {
            Ok(value) => value,
            Err(error) => return Notification::unreadable(format!("not JSON: {error}")),
        };
        if value["Type"] == "Notification" && value["Message"].is_string() {
            body = Cow::Owned(value["Message"].as_str().unwrap_or_default().to_owned());
            continue;
        }
        return announced_in(&value);
    }
    Notification::unreadable(format!("more than {MAX_ENVELOPES} envelopes around the event"))
}

/// Builds the message that S3 would send for an object. `None` if no notification can name it; the sweep finds such
/// objects.
pub fn announcement(event: &ObjectEvent) -> Option<String> {
    let ObjectEvent { object: ObjectId { bucket, key, version }, size, created_at } = event;
    let key = utf8_percent_encode(key, NON_ALPHANUMERIC).to_string();
    let mut object = json!({ "key": key, "size": size });
    match version {
        Version::Id(id) if id == "null" => return None,
        Version::Id(id) => object["versionId"] = id.as_str().into(),
        Version::ETag(etag) => object["eTag"] = etag.as_str().into(),
    }
    let record = json!({
        "eventVersion": "2.1", "eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "eventTime": created_at,
        "s3": {"bucket": {"name": bucket}, "object": object},
    });
    Some(json!({ "Records": [record] }).to_string())
}

fn announced_in(value: &Value) -> Notification {
    if let Some(records) = value["Records"].as_array() {
        let mut notification = Notification::default();
        for (index, record) in records.iter().enumerate() {
            match s3_record(record) {
                Ok(Announced::Object(event)) => notification.events.push(event),
                Ok(Announced::Else(kind)) => notification.ignored.push(quoted(kind)),
                Err(reason) => notification.unreadable.push(format!("record {index}: {reason}")),
            }
        }
        if records.is_empty() { Notification::ignored("no records") } else { notification }
    } else if value["Event"] == "s3:TestEvent" {
        Notification::ignored("s3:TestEvent")
    } else if value["source"] == "aws.s3" && value["detail-type"].is_string() {
        match event_bridge(value) {
            Ok(Announced::Object(event)) => Notification { events: vec![event], ..Notification::default() },
            Ok(Announced::Else(kind)) => Notification::ignored(kind),
            Err(reason) => Notification::unreadable(reason),
        }
    } else {
        Notification::unreadable("neither an S3 event, nor an SNS envelope, nor an EventBridge event of aws.s3")
    }
}

/// The announcement in one record.
enum Announced<'a> {
    /// A new object.
    Object(ObjectEvent),
    /// An event of another kind.
    Else(&'a str),
}

fn s3_record(record: &Value) -> Result<Announced<'_>, String> {
    let name = text(record, "eventName")?;
    // Some emitters keep the "s3:" of the subscription in the name.
    if !name.trim_start_matches("s3:").starts_with("ObjectCreated:") {
        return Ok(Announced::Else(name));
    }
    let version = text(record, "eventVersion")?;
    if version != "2" && !version.starts_with("2.") {
        return Err(format!("event version {:?} is not 2.x", quoted(version)));
    }
    let object = &record["s3"]["object"];
    let key = bounded("encoded key", text(object, "key")?, MAX_ENCODED_KEY_BYTES)?.replace('+', " ");
    let key = percent_decode_str(&key)
        .decode_utf8()
        .map_err(|_| format!("key {:?} does not decode to UTF-8", quoted(&key)))?
        .into_owned();
    let created_at = record["eventTime"].as_str();
    event(text(&record["s3"]["bucket"], "name")?, key, object, ("versionId", "eTag"), created_at).map(Announced::Object)
}

fn event_bridge(value: &Value) -> Result<Announced<'_>, String> {
    let kind = text(value, "detail-type")?;
    if kind != "Object Created" {
        return Ok(Announced::Else(kind));
    }
    let detail = &value["detail"];
    let key = text(&detail["object"], "key")?.to_owned();
    let created_at = value["time"].as_str();
    event(text(&detail["bucket"], "name")?, key, &detail["object"], ("version-id", "etag"), created_at)
        .map(Announced::Object)
}
