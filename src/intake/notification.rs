//! Notifications: from the body of a queue message to the objects it announces.
//!
//! First stage of the flow, and pure. One message can come in four forms, and all of them are understood without being
//! told which is used: an S3 event notification sent straight to the queue, the same through SNS (wrapped in an
//! envelope or raw), and an EventBridge event. Promises:
//!
//! * Every record of a message is looked at, and ends as one of four: accepted, ignored, refused or unreadable; one
//!   that cannot be read does not take the others with it.
//! * What comes out is bounded: an object's identity fits into the ledger's keys and into a request for it, and what a
//!   reason quotes is short. Records are as many as a message of SQS has room for (1 MiB), and JSON is 128 levels deep
//!   at the most.
//! * Unknown fields and every 2.x event version are accepted.
//! * Keys are decoded as their form encodes them: S3 notifications are form-encoded (`+` is a space, `%2B` a plus),
//!   EventBridge keys are plain.
//! * `s3:TestEvent` and events other than object creation announce nothing to work on, and are ignored by name.
//!
//! Formats: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html>,
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html>,
//! <https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html>.

use std::borrow::Cow;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};

use crate::layout::{INCOMING, MAX_KEY_BYTES};
use crate::object::{ObjectEvent, ObjectId, Version};

/// SNS may wrap what EventBridge or S3 sent, and nothing wraps deeper than that.
const MAX_ENVELOPES: usize = 2;

/// Names of buckets are shorter, those of the early days included:
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>.
const MAX_BUCKET_BYTES: usize = 255;
/// A form-encoded key has at most three bytes for each of its own.
const MAX_ENCODED_KEY_BYTES: usize = 3 * MAX_KEY_BYTES;
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
/// What a reason quotes of what it is about.
const QUOTED_CHARS: usize = 64;

/// What one message announces.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Notification {
    /// The objects created.
    pub events: Vec<ObjectEvent>,
    /// The kinds of the records that announce something else: a test, a deletion, a restore. One for each record.
    pub ignored: Vec<String>,
    /// Why a record, or the whole message, could not be read; one reason for each. Such a message is never deleted: SQS
    /// moves it to the dead-letter queue after its receives.
    pub unreadable: Vec<String>,
}

impl Notification {
    fn because(reason: impl Into<String>) -> Self {
        Notification { unreadable: vec![reason.into()], ..Notification::default() }
    }

    fn ignored(kind: &str) -> Self {
        Notification { ignored: vec![quoted(kind)], ..Notification::default() }
    }
}

/// The beginning of a text from outside.
fn quoted(text: &str) -> String {
    text.chars().take(QUOTED_CHARS).collect()
}

/// Decodes a message body. Never fails as a whole: what cannot be read is said in [`Notification::unreadable`].
pub fn decode(body: &str) -> Notification {
    let mut body = Cow::Borrowed(body);
    for _ in 0..=MAX_ENVELOPES {
        let value: Value = match serde_json::from_str(&body) {
            Ok(value) => value,
            Err(error) => return Notification::because(format!("not JSON: {error}")),
        };
        if value["Type"] == "Notification" && value["Message"].is_string() {
            body = Cow::Owned(value["Message"].as_str().unwrap_or_default().to_owned());
            continue;
        }
        return announced_in(&value);
    }
    Notification::because(format!("more than {MAX_ENVELOPES} envelopes around the event"))
}

/// What a consumer of one bucket does with a notification.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// The objects to work on.
    pub events: Vec<ObjectEvent>,
    /// Keys that are not read: outside the incoming prefix (our own output above all), or a folder marker.
    pub refused: Vec<String>,
    /// The kinds of what is no announcement of a new object.
    pub ignored: Vec<String>,
    /// Why the message must stay in the queue, whatever becomes of its events; empty when it need not.
    pub unreadable: Vec<String>,
}

/// Admits objects of `bucket` under the incoming prefix.
pub fn admit(notification: Notification, bucket: &str) -> Admission {
    let Notification { events, ignored, unreadable } = notification;
    let mut admission = Admission { ignored, unreadable, ..Admission::default() };
    for event in events {
        let ObjectId { bucket: name, key, .. } = &event.object;
        if name != bucket {
            let name = quoted(name);
            let reason = format!("it announces an object of bucket {name:?}, this consumer reads {bucket:?}");
            admission.unreadable.push(reason);
        } else if !key.starts_with(INCOMING) || key.ends_with('/') {
            admission.refused.push(event.object.key);
        } else {
            admission.events.push(event);
        }
    }
    admission
}

/// The message that S3 would send for an object; none for one that no notification names, which the sweep finds.
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
            Err(reason) => Notification::because(reason),
        }
    } else {
        Notification::because("neither an S3 event, nor an SNS envelope, nor an EventBridge event of aws.s3")
    }
}

/// What one record announces.
enum Announced<'a> {
    /// A new object.
    Object(ObjectEvent),
    /// Something of this name.
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

fn event(
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

fn bounded<'a>(what: &str, text: &'a str, max: usize) -> Result<&'a str, String> {
    if text.len() > max {
        return Err(format!("its {what} has {} bytes, and S3 has none above {max}", text.len()));
    }
    Ok(text)
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str, String> {
    value[field].as_str().ok_or_else(|| format!("no text in field {field:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn record(key: &str) -> Value {
        json!({
            "eventVersion": "2.1", "eventSource": "aws:s3", "eventTime": "2026-01-02T03:04:05.678Z",
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": "b"}, "object": {"key": key, "size": 3_000_000_000_u64, "eTag": "e1", "sequencer": "0055"}}
        })
    }

    fn direct(records: &[Value]) -> String {
        json!({ "Records": records }).to_string()
    }

    fn in_sns(message: &str) -> String {
        json!({"Type": "Notification", "MessageId": "m", "TopicArn": "arn:t", "Subject": "Amazon S3 Notification",
               "Message": message, "Timestamp": "2026-01-02T03:04:05Z", "NewField": {}})
        .to_string()
    }

    fn in_event_bridge(key: &str) -> String {
        json!({"version": "0", "detail-type": "Object Created", "source": "aws.s3", "time": "2026-01-02T03:04:05Z",
               "detail": {"version": "0", "bucket": {"name": "b"},
                          "object": {"key": key, "size": 3, "etag": "e1", "version-id": "v1", "sequencer": "0055"},
                          "reason": "PutObject"}})
        .to_string()
    }

    fn keys(notification: &Notification) -> Vec<&str> {
        notification.events.iter().map(|event| event.object.key.as_str()).collect()
    }

    #[test]
    fn every_form_announces_the_same_object() {
        let plain = direct(&[record("incoming/a.csv")]);
        let expected =
            ObjectId { bucket: "b".into(), key: "incoming/a.csv".into(), version: Version::ETag("e1".into()) };
        for body in [plain.clone(), in_sns(&plain), in_sns(&in_sns(&plain))] {
            let notification = decode(&body);
            assert_eq!(notification.events.len(), 1, "{body}");
            assert_eq!(notification.events[0].object, expected);
            assert_eq!(notification.events[0].size, 3_000_000_000);
            assert!(notification.unreadable.is_empty());
            assert_eq!(
                notification.events[0].created_at.map(|time| time.to_string()).as_deref(),
                Some("2026-01-02T03:04:05.678Z")
            );
        }
        for body in [in_event_bridge("incoming/a.csv"), in_sns(&in_event_bridge("incoming/a.csv"))] {
            assert_eq!(decode(&body).events[0].object.version, Version::Id("v1".into()));
            assert_eq!(keys(&decode(&body)), ["incoming/a.csv"]);
        }
        assert_eq!(decode(&in_sns(&in_sns(&in_sns(&plain)))).unreadable.len(), 1);
    }

    #[test]
    fn keys_are_decoded_as_each_form_encodes_them() {
        for (encoded, key) in [
            ("incoming/a+b.csv", "incoming/a b.csv"),
            ("incoming/a%20b.csv", "incoming/a b.csv"),
            ("incoming/a%2Bb.csv", "incoming/a+b.csv"),
            ("incoming/%C3%BC+%E2%99%AB.csv", "incoming/ü ♫.csv"),
            ("incoming/100%25.csv", "incoming/100%.csv"),
        ] {
            assert_eq!(keys(&decode(&direct(&[record(encoded)]))), [key]);
        }
        assert_eq!(keys(&decode(&in_event_bridge("incoming/a+b %2B ü.csv"))), ["incoming/a+b %2B ü.csv"]);
    }

    #[test]
    fn what_is_announced_anew_is_the_same_object() {
        for version in [Version::ETag("e1".into()), Version::Id("v/1 +".into())] {
            let object = ObjectId { bucket: "b".into(), key: "incoming/a +%ü.csv".into(), version };
            let created_at = "2026-01-02T03:04:05Z".parse().ok();
            let event = ObjectEvent { object, size: 7, created_at };
            assert_eq!(decode(&announcement(&event).unwrap()).events, [event]);
        }
    }

    #[test]
    fn test_events_announce_nothing_in_any_form() {
        let test = r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"2026-01-02T03:04:05Z","Bucket":"b","RequestId":"r","HostId":"h"}"#;
        for body in [test.to_owned(), in_sns(test)] {
            let ignored = vec!["s3:TestEvent".to_owned()];
            assert_eq!(decode(&body), Notification { ignored, ..Notification::default() });
        }
    }

    #[test]
    fn one_bad_record_does_not_take_the_others_with_it() {
        let mut bad = record("incoming/bad.csv");
        bad["s3"]["object"]["eTag"] = Value::Null;
        let mut deletion = record("incoming/gone.csv");
        deletion["eventName"] = "ObjectRemoved:Delete".into();
        let notification = decode(&direct(&[record("incoming/1.csv"), bad, deletion, record("incoming/2.csv")]));
        assert_eq!(keys(&notification), ["incoming/1.csv", "incoming/2.csv"]);
        assert_eq!(notification.ignored, ["ObjectRemoved:Delete"]);
        assert_eq!(notification.unreadable, ["record 1: no text in field \"eTag\""]);
    }

    #[test]
    fn versions_within_2_are_accepted_and_others_are_not() {
        for (version, readable) in [("2.0", true), ("2.3", true), ("2.17", true), ("3.0", false), ("20.1", false)] {
            let mut changed = record("incoming/a.csv");
            changed["eventVersion"] = version.into();
            assert_eq!(decode(&direct(&[changed])).unreadable.is_empty(), readable, "{version}");
        }
    }

    #[test]
    fn the_version_id_is_the_identity_only_where_versioning_is_on() {
        for (id, expected) in
            [("v9", Version::Id("v9".into())), ("null", Version::ETag("e1".into())), ("", Version::ETag("e1".into()))]
        {
            let mut versioned = record("incoming/a.csv");
            versioned["s3"]["object"]["versionId"] = id.into();
            assert_eq!(decode(&direct(&[versioned])).events[0].object.version, expected);
        }
    }

    #[test]
    fn only_files_under_the_incoming_prefix_of_the_bucket_are_admitted() {
        let keys = [
            "incoming/a.csv",
            "archive/2026-01-02/incoming/a.csv",
            "curated/x.parquet",
            "incoming/",
            "incoming/folder/",
            "incomingx",
        ];
        let records: Vec<_> = keys.iter().map(|key| record(key)).collect();
        let admission = admit(decode(&direct(&records)), "b");
        assert_eq!(
            admission.events.iter().map(|event| event.object.key.as_str()).collect::<Vec<_>>(),
            ["incoming/a.csv"]
        );
        assert_eq!(admission.refused, keys[1..]);
        assert!(admission.unreadable.is_empty());
        let foreign = admit(decode(&direct(&records)), "other");
        assert_eq!((foreign.events.len(), foreign.unreadable.len()), (0, keys.len()));
    }

    fn with(field: &str, value: Value) -> Notification {
        let mut changed = record("incoming/a.csv");
        changed["s3"]["object"][field] = value;
        decode(&direct(&[changed]))
    }

    #[test]
    fn an_identity_fits_into_the_ledger_and_into_a_request() {
        for (field, value, reason) in [
            ("eTag", json!("e".repeat(128)), None),
            ("eTag", json!("e".repeat(129)), Some("its eTag has 129 bytes, and S3 has none above 128")),
            ("eTag", json!(""), Some("its eTag is empty")),
            ("eTag", json!("\"\""), Some("its eTag is empty")),
            ("eTag", json!("e\ne"), Some("has characters that eTags do not have")),
            ("eTag", json!("e\"e"), Some("has characters that eTags do not have")),
            ("eTag", json!("é"), Some("has characters that eTags do not have")),
            ("versionId", json!("v".repeat(1016)), None),
            ("versionId", json!("v".repeat(1017)), Some("its version id has 1017 bytes, and S3 has none above 1016")),
            ("versionId", json!("v\0"), Some("its version id has control characters")),
        ] {
            let notification = with(field, value.clone());
            assert_eq!(
                notification.unreadable.first().map(|said| said.contains(reason.unwrap_or_default())),
                reason.map(|_| true),
                "{value}"
            );
            assert_eq!(notification.events.len(), usize::from(reason.is_none()), "{value}");
        }
    }

    #[test]
    fn a_size_is_one_that_an_object_can_have() {
        // 10,000 parts of 5 GiB.
        for (size, readable) in [
            (json!(0), true),
            (json!(53_687_091_200_000_u64), true),
            (json!(53_687_091_200_001_u64), false),
            (json!(u64::MAX), false),
            (json!(-1), false),
            (json!(1.5), false),
            (json!("3"), false),
            (json!(1e300), false),
        ] {
            let notification = with("size", size.clone());
            assert_eq!(notification.unreadable.is_empty(), readable, "{size}");
            assert_eq!(notification.events.first().map(|event| event.size), size.as_u64().filter(|_| readable));
        }
        assert_eq!(with("size", Value::Null).events[0].size, 0, "the event does not say");
    }

    #[test]
    fn what_is_said_of_a_record_is_short() {
        let long = "x".repeat(100_000);
        let mut named = record("incoming/a.csv");
        named["eventName"] = long.as_str().into();
        assert_eq!(decode(&direct(&[named])).ignored[0].len(), 64);
        let mut bucket = record("incoming/a.csv");
        bucket["s3"]["bucket"]["name"] = long.as_str().into();
        let mut version = record("incoming/a.csv");
        version["eventVersion"] = long.as_str().into();
        for changed in [record(&long), record(&"%FF".repeat(900)), bucket, version] {
            assert!(decode(&direct(&[changed])).unreadable[0].len() < 300);
        }
    }

    proptest! {
        #[test]
        fn any_key_survives_form_encoding(key in "incoming/[^\\p{C}]{1,40}") {
            let encoded: String = percent_encoding::utf8_percent_encode(&key, percent_encoding::NON_ALPHANUMERIC).to_string().replace("%20", "+");
            let notification = decode(&direct(&[record(&encoded)]));
            prop_assert_eq!(keys(&notification), [key.as_str()]);
        }

        #[test]
        fn no_body_panics(body in ".{0,200}") {
            let Notification { events, ignored, unreadable } = decode(&body);
            prop_assert!(events.is_empty() && ignored.len() + unreadable.len() > 0);
        }
    }
}
