//! Notifications: from the body of a queue message to the objects it announces.
//!
//! First stage of the flow, and pure. One message can come in four forms, and all of them are understood without being
//! told which is used: an S3 event notification sent straight to the queue, the same through SNS (wrapped in an envelope
//! or raw), and an EventBridge event. Promises:
//!
//! * Every record of a message is looked at; one that cannot be read does not take the others with it.
//! * Unknown fields and every 2.x event version are accepted.
//! * Keys are decoded as their form encodes them: S3 notifications are form-encoded (`+` is a space, `%2B` a plus),
//!   EventBridge keys are plain.
//! * `s3:TestEvent` and events other than object creation announce nothing.
//!
//! Formats: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html>,
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html>,
//! <https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html>.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};

use crate::layout::{INCOMING, MAX_KEY_BYTES};

/// SNS may wrap what EventBridge or S3 sent, and nothing wraps deeper than that.
const MAX_ENVELOPES: usize = 2;

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
    /// The version id where there is a real one, else the eTag. Objects written while versioning is off or suspended carry
    /// the version id "null", which a later write reuses.
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

/// The identity of an object: the same content under the same key, whoever announces it and however often.
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

/// What one message announces.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Notification {
    /// The objects created.
    pub events: Vec<ObjectEvent>,
    /// Records that announce something else (a test event, a deletion).
    pub ignored: usize,
    /// Why a record, or the whole message, could not be read. Such a message is never deleted: SQS moves it to the
    /// dead-letter queue after its receives.
    pub unreadable: Option<String>,
}

impl Notification {
    fn because(reason: impl Into<String>) -> Self {
        Notification { unreadable: Some(reason.into()), ..Notification::default() }
    }

    fn ignored() -> Self {
        Notification { ignored: 1, ..Notification::default() }
    }
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
    /// Why the message must stay in the queue, whatever becomes of its events.
    pub unreadable: Option<String>,
}

/// Admits objects of `bucket` under the incoming prefix.
pub fn admit(notification: Notification, bucket: &str) -> Admission {
    let mut admission = Admission { unreadable: notification.unreadable, ..Admission::default() };
    for event in notification.events {
        let ObjectId { bucket: name, key, .. } = &event.object;
        if name != bucket {
            admission.unreadable =
                Some(format!("it announces an object of bucket {name:?}, this consumer reads {bucket:?}"));
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
                Ok(Some(event)) => notification.events.push(event),
                Ok(None) => notification.ignored += 1,
                Err(reason) => notification.unreadable = Some(format!("record {index}: {reason}")),
            }
        }
        notification
    } else if value["Event"] == "s3:TestEvent" {
        Notification::ignored()
    } else if value["source"] == "aws.s3" && value["detail-type"].is_string() {
        match event_bridge(value) {
            Ok(Some(event)) => Notification { events: vec![event], ..Notification::default() },
            Ok(None) => Notification::ignored(),
            Err(reason) => Notification::because(reason),
        }
    } else {
        Notification::because("neither an S3 event, nor an SNS envelope, nor an EventBridge event of aws.s3")
    }
}

fn s3_record(record: &Value) -> Result<Option<ObjectEvent>, String> {
    let name = text(record, "eventName")?;
    // Some emitters keep the "s3:" of the subscription in the name.
    if !name.trim_start_matches("s3:").starts_with("ObjectCreated:") {
        return Ok(None);
    }
    let version = text(record, "eventVersion")?;
    if version != "2" && !version.starts_with("2.") {
        return Err(format!("event version {version:?} is not 2.x"));
    }
    let object = &record["s3"]["object"];
    let key = text(object, "key")?.replace('+', " ");
    let key = percent_decode_str(&key)
        .decode_utf8()
        .map_err(|_| format!("key {key:?} does not decode to UTF-8"))?
        .into_owned();
    let created_at = record["eventTime"].as_str();
    event(text(&record["s3"]["bucket"], "name")?, key, object, ("versionId", "eTag"), created_at).map(Some)
}

fn event_bridge(value: &Value) -> Result<Option<ObjectEvent>, String> {
    if value["detail-type"] != "Object Created" {
        return Ok(None);
    }
    let detail = &value["detail"];
    let key = text(&detail["object"], "key")?.to_owned();
    let created_at = value["time"].as_str();
    event(text(&detail["bucket"], "name")?, key, &detail["object"], ("version-id", "etag"), created_at).map(Some)
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
    if key.len() > MAX_KEY_BYTES {
        return Err(format!("its key has {} bytes, and S3 has none above {MAX_KEY_BYTES}", key.len()));
    }
    let version = Version::new(object[version_field].as_str(), || text(object, etag_field))?;
    Ok(ObjectEvent {
        object: ObjectId { bucket: bucket.to_owned(), key, version },
        size: object["size"].as_u64().unwrap_or(0),
        created_at: created_at.and_then(|time| time.parse().ok()),
    })
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
            assert_eq!(notification.unreadable, None);
            assert_eq!(
                notification.events[0].created_at.map(|time| time.to_string()).as_deref(),
                Some("2026-01-02T03:04:05.678Z")
            );
        }
        for body in [in_event_bridge("incoming/a.csv"), in_sns(&in_event_bridge("incoming/a.csv"))] {
            assert_eq!(decode(&body).events[0].object.version, Version::Id("v1".into()));
            assert_eq!(keys(&decode(&body)), ["incoming/a.csv"]);
        }
        assert!(decode(&in_sns(&in_sns(&in_sns(&plain)))).unreadable.is_some());
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
            assert_eq!(decode(&body), Notification { ignored: 1, ..Notification::default() });
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
        assert_eq!(notification.ignored, 1);
        assert_eq!(notification.unreadable.as_deref(), Some("record 1: no text in field \"eTag\""));
    }

    #[test]
    fn versions_within_2_are_accepted_and_others_are_not() {
        for (version, readable) in [("2.0", true), ("2.3", true), ("2.17", true), ("3.0", false), ("20.1", false)] {
            let mut changed = record("incoming/a.csv");
            changed["eventVersion"] = version.into();
            assert_eq!(decode(&direct(&[changed])).unreadable.is_none(), readable, "{version}");
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
        assert_eq!(admission.unreadable, None);
        let foreign = admit(decode(&direct(&records)), "other");
        assert!(foreign.events.is_empty() && foreign.unreadable.is_some());
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
            let notification = decode(&body);
            prop_assert!(notification.events.is_empty());
        }
    }
}
