//! Support for the tests against a local AWS: a deployment for each test, the real program as a process, generated
//! data, and the figures that an independent fold of that data gives.
mod consumer;
pub mod data;
mod deployment;
mod eventually;
mod expected;
mod random;

use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::json;

#[allow(unused_imports, reason = "each test program uses a part of it")]
pub use consumer::{Consumer, Ended, program};
pub use data::{Row, csv_of, rows, songs};
pub use deployment::Deployment;
pub use eventually::{eventually, eventually_blocking, eventually_some};
pub use expected::{Expected, curated_rows, expected_rows};
pub use random::Random;

pub type Item = HashMap<String, AttributeValue>;

/// The time that anything may take before a test fails. Generous, as the machine may be slow; a passing test never
/// waits for all of it.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub fn is_ministack() -> bool {
    std::env::var("MUSIC_STREAMS_TEST_STACK").expect("the tests need a local stack: run them by `make test`")
        == "ministack"
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the event that S3 would send, in each of the forms in which it can arrive.
pub fn announcements(deployment: &Deployment, key: &str, etag: &str) -> Vec<String> {
    let encoded: String = key
        .bytes()
        .map(|byte| match byte {
            b' ' => "+".to_owned(),
            b'/' | b'.' | b'-' | b'0'..=b'9' | b'a'..=b'z' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect();
    let direct = json!({"Records": [{
        "eventVersion": "2.9", "eventName": "ObjectCreated:Put", "eventTime": "2026-01-01T00:00:00Z",
        "brandNewField": [1],
        "s3": {
            "bucket": {"name": deployment.bucket},
            "object": {"key": encoded, "size": 1, "eTag": etag, "sequencer": "00"},
        },
    }]})
    .to_string();
    let in_sns = json!({"Type": "Notification", "TopicArn": "arn:aws:sns:x", "Message": direct}).to_string();
    let event_bridge = json!({"version": "0", "source": "aws.s3", "detail-type": "Object Created", "detail": {
        "bucket": {"name": deployment.bucket}, "object": {"key": key, "size": 1, "etag": etag},
    }})
    .to_string();
    vec![direct, in_sns, event_bridge]
}

pub async fn etag_of(deployment: &Deployment, key: &str) -> String {
    let head = deployment.clients.s3.head_object().bucket(&deployment.bucket).key(key).send().await.unwrap();
    head.e_tag.unwrap().trim_matches('"').to_owned()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn text<'a>(item: &'a Item, name: &str) -> &'a str {
    item.get(name).and_then(|value| value.as_s().ok()).map_or("", String::as_str)
}

pub fn number(item: &Item, name: &str) -> u64 {
    item[name].as_n().unwrap().parse().unwrap()
}
