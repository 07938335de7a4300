//! Bad messages: bodies that cannot be read, and keys that are hard to read.

use music_streams::intake::notification::{Admission, admit, decode};
use serde_json::{Value, json};

fn record(change: impl FnOnce(&mut Value)) -> Value {
    let mut record = json!({
        "eventVersion": "2.1", "eventSource": "aws:s3", "eventTime": "2026-01-02T03:04:05.678Z",
        "eventName": "ObjectCreated:Put",
        "s3": {"bucket": {"name": "bucket"}, "object": {"key": "incoming/a.csv", "size": 3, "eTag": "e1"}}
    });
    change(&mut record);
    record
}

fn direct(change: impl FnOnce(&mut Value)) -> String {
    json!({ "Records": [record(change)] }).to_string()
}

fn keyed(key: &str) -> String {
    direct(|record| record["s3"]["object"]["key"] = json!(key))
}

fn event_bridge(change: impl FnOnce(&mut Value)) -> String {
    let mut event = json!({
        "version": "0", "detail-type": "Object Created", "source": "aws.s3", "time": "2026-01-02T03:04:05Z",
        "detail": {"bucket": {"name": "bucket"}, "object": {"key": "incoming/a.csv", "size": 3, "etag": "e1"}}
    });
    change(&mut event);
    event.to_string()
}

fn sns(message: &str) -> String {
    json!({"Type": "Notification", "TopicArn": "arn:aws:sns:x", "Message": message}).to_string()
}

fn answer(body: &str) -> Admission {
    admit(decode(body), "bucket")
}

/// Unreadable bodies, with the beginning of the reason.
fn unreadable() -> Vec<(String, &'static str)> {
    let text = |text: &str| text.to_owned();
    let neither = "neither an S3 event, nor an SNS envelope, nor an EventBridge event";
    vec![
        (text(""), "not JSON"),
        (text(" "), "not JSON"),
        (text("hello"), "not JSON"),
        (text("{"), "not JSON"),
        (text("{\"Records\":[{}"), "not JSON"),
        (text("{\"Records\":[]}trailing"), "not JSON"),
        (text("\u{feff}{}"), "not JSON"),
        (text("{'Records': []}"), "not JSON"),
        (text("<Records/>"), "not JSON"),
        (text("\0"), "not JSON"),
        ("[".repeat(100_000), "not JSON"),
        (format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000)), "not JSON"),
        (text("null"), neither),
        (text("true"), neither),
        (text("1"), neither),
        (text("1e400"), "not JSON"),
        (text("\"text\""), neither),
        (text("[]"), neither),
        (text("{}"), neither),
        (text("{\"Records\": null}"), neither),
        (text("{\"Records\": {}}"), neither),
        (text("{\"Records\": \"x\"}"), neither),
        (text("{\"records\": []}"), neither),
        (json!({"Records": [null]}).to_string(), "no text in field \"eventName\""),
        (json!({"Records": [1, "x", []]}).to_string(), "no text in field \"eventName\""),
        (json!({"Records": [{}]}).to_string(), "no text in field \"eventName\""),
        (direct(|record| record["eventName"] = json!(5)), "no text in field \"eventName\""),
        (direct(|record| record["eventVersion"] = json!(2.1)), "no text in field \"eventVersion\""),
        (direct(|record| record["eventVersion"] = json!("3.0")), "event version \"3.0\" is not 2.x"),
        (direct(|record| record["eventVersion"] = json!("1.9")), "is not 2.x"),
        (direct(|record| record["eventVersion"] = json!("20")), "is not 2.x"),
        (direct(|record| record["eventVersion"] = json!("")), "is not 2.x"),
        (direct(|record| record["s3"] = json!(null)), "no text in field \"key\""),
        (direct(|record| record["s3"] = json!([])), "no text in field \"key\""),
        (direct(|record| record["s3"]["object"] = json!("incoming/a.csv")), "no text in field \"key\""),
        (direct(|record| record["s3"]["object"]["key"] = json!(7)), "no text in field \"key\""),
        (direct(|record| record["s3"]["object"]["key"] = json!(null)), "no text in field \"key\""),
        (direct(|record| record["s3"]["object"]["eTag"] = json!(null)), "no text in field \"eTag\""),
        (direct(|record| record["s3"]["object"]["eTag"] = json!(["e"])), "no text in field \"eTag\""),
        (direct(|record| record["s3"]["bucket"] = json!("bucket")), "no text in field \"name\""),
        (direct(|record| record["s3"]["bucket"]["name"] = json!("")), "empty bucket name or key"),
        (keyed(""), "empty bucket name or key"),
        (keyed(&format!("incoming/{}", "x".repeat(1016))), "its key has 1025 bytes"),
        (keyed(&format!("incoming/{}", "%C3%BC".repeat(508))), "its key has 1025 bytes"),
        (keyed("incoming/%FF.csv"), "does not decode to UTF-8"),
        (keyed("incoming/%C3.csv"), "does not decode to UTF-8"),
        (keyed("incoming/%ED%A0%80.csv"), "does not decode to UTF-8"),
        (keyed("incoming/%C0%AF.csv"), "does not decode to UTF-8"),
        (
            direct(|record| record["s3"]["bucket"]["name"] = json!("other")),
            "it announces an object of bucket \"other\"",
        ),
        (
            direct(|record| record["s3"]["bucket"]["name"] = json!("BUCKET")),
            "it announces an object of bucket \"BUCKET\"",
        ),
        (direct(|record| record["s3"]["bucket"]["name"] = json!("bucket ")), "it announces an object of bucket"),
        (event_bridge(|event| event["source"] = json!("aws.ec2")), neither),
        (event_bridge(|event| event["detail-type"] = json!(1)), neither),
        (event_bridge(|event| event["detail"] = json!(null)), "no text in field \"key\""),
        (event_bridge(|event| event["detail"]["object"]["etag"] = json!(0)), "no text in field \"etag\""),
        (
            event_bridge(|event| event["detail"]["bucket"]["name"] = json!("other")),
            "it announces an object of bucket \"other\"",
        ),
        (sns(""), "not JSON"),
        (sns("hello"), "not JSON"),
        (sns("{}"), neither),
        (json!({"Type": "Notification"}).to_string(), neither),
        (json!({"Type": "Notification", "Message": {}}).to_string(), neither),
        (json!({"Type": "SubscriptionConfirmation", "Message": "x", "Token": "t"}).to_string(), neither),
        (json!({"Type": "UnsubscribeConfirmation", "Message": "x"}).to_string(), neither),
        (sns(&sns(&sns(&direct(|_| {})))), "more than 2 envelopes"),
        (sns(&sns(&sns(&sns("x")))), "more than 2 envelopes"),
    ]
}

#[test]
fn what_nobody_can_read_is_kept_with_the_reason() {
    let bodies = unreadable();
    assert!(bodies.len() >= 60, "{}", bodies.len());
    for (body, reason) in bodies {
        let admission = answer(&body);
        let shown: String = body.chars().take(200).collect();
        let found = admission.unreadable.first().unwrap_or_else(|| panic!("taken for readable: {shown}"));
        assert!(found.contains(reason), "{shown}: {found}");
        assert!(admission.events.is_empty(), "{shown}");
    }
}

#[test]
fn what_announces_nothing_to_read_is_acknowledged() {
    for body in [
        json!({"Records": []}).to_string(),
        json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "bucket"}).to_string(),
        sns(&json!({"Event": "s3:TestEvent"}).to_string()),
        direct(|record| record["eventName"] = json!("ObjectRemoved:Delete")),
        direct(|record| record["eventName"] = json!("ObjectRestore:Completed")),
        direct(|record| record["eventName"] = json!("")),
        direct(|record| record["eventName"] = json!("objectcreated:Put")),
        event_bridge(|event| event["detail-type"] = json!("Object Deleted")),
        event_bridge(|event| event["detail-type"] = json!("Object Tags Added")),
    ] {
        let Admission { events, refused, ignored, unreadable } = answer(&body);
        assert_eq!((events.len(), refused.len(), ignored.len(), unreadable.len()), (0, 0, 1, 0), "{body}");
    }
}

#[test]
fn keys_that_are_not_ours_to_read_are_refused() {
    for key in [
        "archive/2026-01-01/a.csv",
        "curated/report_date=2026-01-01/x.parquet",
        "quarantine/rows/x.jsonl",
        "batches/x",
        "reference/songs.csv",
        "incoming",
        "Incoming/a.csv",
        "/incoming/a.csv",
        "incoming/",
        "incoming/folder/",
        "incoming%2Ffolder%2F",
        "../incoming/a.csv",
        "x/incoming/a.csv",
        " incoming/a.csv",
        "%00incoming/a.csv",
    ] {
        let admission = answer(&keyed(key));
        assert_eq!((admission.events.len(), admission.refused.len(), admission.unreadable.len()), (0, 1, 0), "{key}");
    }
}

/// Odd keys are read exactly as S3 has them.
#[test]
fn odd_keys_are_names() {
    for (encoded, key) in [
        ("incoming/a+b.csv", "incoming/a b.csv"),
        ("incoming/a%2Bb.csv", "incoming/a+b.csv"),
        ("incoming/%2525.csv", "incoming/%25.csv"),
        ("incoming/100%.csv", "incoming/100%.csv"),
        ("incoming/%zz.csv", "incoming/%zz.csv"),
        ("incoming/%00.csv", "incoming/\0.csv"),
        ("incoming/%0A%1B%5B2J.csv", "incoming/\n\u{1b}[2J.csv"),
        ("incoming/..%2F..%2Fetc%2Fpasswd", "incoming/../../etc/passwd"),
        ("incoming/%E2%80%AEvsc.exe", "incoming/\u{202e}vsc.exe"),
        ("incoming/%F0%9F%8E%B5.csv", "incoming/🎵.csv"),
        ("incoming/e%CC%81.csv", "incoming/e\u{301}.csv"),
        ("incoming/%7B%22a%22%3A1%7D", "incoming/{\"a\":1}"),
        ("incoming/'%3B+DROP+TABLE", "incoming/'; DROP TABLE"),
        ("incoming/a.csv.reason.json", "incoming/a.csv.reason.json"),
        ("incoming//a.csv", "incoming//a.csv"),
    ] {
        let admission = answer(&keyed(encoded));
        assert_eq!(admission.events.first().map(|event| event.object.key.as_str()), Some(key), "{encoded}");
        assert!(admission.unreadable.is_empty());
    }
}

#[test]
fn odd_numbers_and_times_do_no_harm() {
    for size in [json!(-1), json!(1.5), json!("3"), json!(u64::MAX), json!(1e300)] {
        let admission = answer(&direct(|record| record["s3"]["object"]["size"] = size.clone()));
        assert!(admission.unreadable[0].contains(&format!("its size is {size}")), "{:?}", admission.unreadable);
    }
    assert_eq!(answer(&direct(|record| record["s3"]["object"]["size"] = json!(null))).events[0].size, 0);
    for time in
        [json!("yesterday"), json!(0), json!(""), json!("9999-99-99T00:00:00Z"), json!("+292277026596-01-01T00:00:00Z")]
    {
        assert_eq!(answer(&direct(|record| record["eventTime"] = time.clone())).events[0].created_at, None, "{time}");
    }
}

/// An unreadable record does not affect the others.
#[test]
fn good_records_beside_bad_ones_count() {
    let body = json!({"Records": [
        record(|_| {}),
        {},
        record(|it| it["s3"]["object"]["key"] = json!("archive/x")),
        record(|_| {}),
    ]});
    let admission = answer(&body.to_string());
    assert_eq!((admission.events.len(), admission.refused.len()), (2, 1));
    assert!(admission.unreadable[0].starts_with("record 1: "));
}
