use super::*;
use proptest::prelude::*;
use serde_json::json;

fn record(key: &str) -> Value {
    json!({
        "eventVersion": "2.1", "eventSource": "aws:s3", "eventTime": "2026-01-02T03:04:05.678Z",
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": "b"},
               "object": {"key": key, "size": 3_000_000_000_u64, "eTag": "e1", "sequencer": "0055"}}
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
    let expected = ObjectId { bucket: "b".into(), key: "incoming/a.csv".into(), version: Version::ETag("e1".into()) };
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
    let test = r#"{"Service":"Amazon S3","Event":"s3:TestEvent","Time":"2026-01-02T03:04:05Z","Bucket":"b",
                   "RequestId":"r","HostId":"h"}"#;
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
    assert_eq!(admission.events.iter().map(|event| event.object.key.as_str()).collect::<Vec<_>>(), ["incoming/a.csv"]);
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
        let encoded = percent_encoding::utf8_percent_encode(&key, percent_encoding::NON_ALPHANUMERIC).to_string();
        let encoded = encoded.replace("%20", "+");
        let notification = decode(&direct(&[record(&encoded)]));
        prop_assert_eq!(keys(&notification), [key.as_str()]);
    }

    #[test]
    fn no_body_panics(body in ".{0,200}") {
        let Notification { events, ignored, unreadable } = decode(&body);
        prop_assert!(events.is_empty() && ignored.len() + unreadable.len() > 0);
    }
}
