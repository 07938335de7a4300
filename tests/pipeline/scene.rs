//! A deployment behind proxies that may refuse requests.

use crate::refusing::{Answer, Refusing};
use crate::support::*;

pub const DENIED: Answer = Answer::S3(403, "AccessDenied");

/// A deployment with proxies to its services that may refuse requests.
pub struct Scene {
    pub deployment: Deployment,
    pub s3: Refusing,
    pub dynamodb: Refusing,
}

impl Scene {
    pub async fn new(test: &str, parameters: &[&str]) -> Self {
        let deployment = Deployment::with(test, parameters).await;
        Scene { deployment, s3: Refusing::before_s3().await, dynamodb: Refusing::before_dynamodb().await }
    }

    pub fn consumer(&self, flags: &[&str]) -> Consumer {
        let ways =
            [("AWS_ENDPOINT_URL", self.s3.url.as_str()), ("AWS_ENDPOINT_URL_DYNAMODB", self.dynamodb.url.as_str())];
        self.deployment.consumer_in(&[&["--window", "1s"], flags].concat(), &ways)
    }

    pub async fn put(&self, name: &str, rows: &[Row]) {
        self.deployment.put(&format!("incoming/{name}"), csv_of(rows)).await;
    }

    /// Returns the entries that `music-streams aside` lists.
    pub fn aside(&self) -> Vec<serde_json::Value> {
        let ended = self.command(&["aside", "--format", "json"]);
        assert!(ended.success, "{}", ended.stderr);
        serde_json::from_str(&ended.stdout).unwrap()
    }

    pub fn retry(&self) -> Ended {
        self.command(&["aside", "--retry"])
    }

    pub fn command(&self, arguments: &[&str]) -> Ended {
        let Deployment { bucket, queue_url, table_prefix, .. } = &self.deployment;
        let environment = [
            ("MUSIC_STREAMS_BUCKET", bucket.as_str()),
            ("MUSIC_STREAMS_QUEUE_URL", queue_url.as_str()),
            ("MUSIC_STREAMS_TABLE_PREFIX", table_prefix.as_str()),
        ];
        program(arguments, &environment)
    }

    pub fn verify(&self) -> Ended {
        self.command(&["verify", "--date", "2024-06-24", "--date", "2024-06-25"])
    }

    /// Returns the states of the batches in the registry.
    pub async fn registered(&self) -> Vec<String> {
        let ledger = self.deployment.scan("music_streams_ledger").await;
        let Some(registry) = ledger.iter().find(|item| text(item, "pk") == "registry") else { return Vec::new() };
        let batches = registry["batches"].as_m().unwrap();
        batches.values().map(|entry| entry.as_m().unwrap()["state"].as_s().unwrap().clone()).collect()
    }
}
