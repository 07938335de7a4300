//! A deployment of the template, its files, tables and queues.

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_sqs::types::{MessageSystemAttributeName, QueueAttributeName};
use music_streams::aws::Clients;

use super::data::{songs_csv, users_csv};
use super::*;

/// A deployment of deploy/template.yaml under names of its own.
pub struct Deployment {
    pub clients: Clients,
    pub bucket: String,
    pub queue_url: String,
    pub dead_letter_queue_url: String,
    pub table_prefix: String,
}

impl Deployment {
    pub async fn new(test: &str) -> Self {
        Self::with(test, &[]).await
    }

    pub async fn with(test: &str, parameters: &[&str]) -> Self {
        is_ministack();
        let unique =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() % 1_000_000_000;
        let name = format!("{test}-{}-{unique}", std::process::id());
        let output = Command::new(root().join(".tools/stack/bin/python"))
            .arg(root().join("localstack/deploy.py"))
            .arg(&name)
            .args([format!("BucketName={name}"), format!("QueueName={name}"), format!("TablePrefix={name}-")])
            .args(parameters)
            .stderr(Stdio::inherit())
            .output()
            .expect("`make test` installs the local stack");
        assert!(output.status.success(), "deploying the template failed");
        let outputs: HashMap<String, String> = serde_json::from_slice(&output.stdout).unwrap();
        let deployment = Deployment {
            clients: Clients::from_environment().await,
            bucket: outputs["BucketName"].clone(),
            queue_url: outputs["QueueUrl"].clone(),
            dead_letter_queue_url: outputs["DeadLetterQueueUrl"].clone(),
            table_prefix: outputs["TablePrefix"].clone(),
        };
        deployment.put_catalogue().await;
        deployment
    }

    pub async fn put_catalogue(&self) {
        self.put("reference/songs.csv", songs_csv()).await;
        self.put("reference/users.csv", users_csv()).await;
    }

    pub async fn put(&self, key: &str, content: impl Into<Vec<u8>>) {
        let body = ByteStream::from(content.into());
        self.clients.s3.put_object().bucket(&self.bucket).key(key).body(body).send().await.unwrap();
    }

    pub async fn keys(&self, prefix: &str) -> Vec<String> {
        let pages = self.clients.s3.list_objects_v2().bucket(&self.bucket).prefix(prefix).into_paginator().send();
        let pages: Vec<_> = pages.try_collect().await.unwrap();
        pages.iter().flat_map(|page| page.contents()).map(|object| object.key().unwrap().to_owned()).collect()
    }

    pub async fn get(&self, key: &str) -> Vec<u8> {
        let object = self.clients.s3.get_object().bucket(&self.bucket).key(key).send().await.unwrap();
        object.body.collect().await.unwrap().to_vec()
    }

    pub async fn scan(&self, table: &str) -> Vec<Item> {
        let table = format!("{}{table}", self.table_prefix);
        let scan = self.clients.dynamodb.scan().table_name(table).consistent_read(true).into_paginator().items().send();
        scan.try_collect().await.unwrap()
    }

    pub async fn send(&self, body: impl Into<String>) {
        self.clients.sqs.send_message().queue_url(&self.queue_url).message_body(body).send().await.unwrap();
    }

    pub async fn messages_in(&self, queue_url: &str) -> u32 {
        let names = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ];
        let attributes = self.clients.sqs.get_queue_attributes().queue_url(queue_url);
        let attributes = attributes.set_attribute_names(Some(names.to_vec())).send().await.unwrap().attributes.unwrap();
        names.iter().map(|name| attributes.get(name).map_or(0, |count| count.parse::<u32>().unwrap())).sum()
    }

    /// Receives the visible messages, and makes them visible again. Returns receive counts and bodies.
    pub async fn receive(&self) -> Vec<(u32, String)> {
        let count = MessageSystemAttributeName::ApproximateReceiveCount;
        let receive =
            self.clients.sqs.receive_message().queue_url(&self.queue_url).visibility_timeout(0).wait_time_seconds(2);
        let output =
            receive.max_number_of_messages(10).message_system_attribute_names(count.clone()).send().await.unwrap();
        let of = |message: &aws_sdk_sqs::types::Message| {
            let attributes = message.attributes().unwrap();
            (attributes[&count].parse().unwrap(), message.body().unwrap().to_owned())
        };
        output.messages().iter().map(of).collect()
    }

    /// Returns an item of the ledger.
    pub async fn ledger_item(&self, pk: &str) -> Item {
        let ledger = self.scan("music_streams_ledger").await;
        ledger.into_iter().find(|item| text(item, "pk") == pk).unwrap()
    }

    /// Returns the number of batches that were opened, whatever their outcome.
    pub async fn batches(&self) -> u64 {
        let registry = self.scan("music_streams_ledger").await.into_iter().find(|item| text(item, "pk") == "registry");
        registry.map_or(0, |registry| number(&registry, "last"))
    }

    /// Waits until nothing is left to do: no file is incoming and no message is queued.
    pub async fn settled(&self) {
        self.settled_within(PATIENCE).await;
    }

    pub async fn settled_within(&self, patience: Duration) {
        eventually_some("no file is incoming and no message is queued", patience, async || {
            let (files, messages) = (self.keys("incoming/").await, self.messages_in(&self.queue_url).await);
            if files.is_empty() && messages == 0 { Ok(()) } else { Err(format!("{messages} messages, {files:?}")) }
        })
        .await
    }

    /// Waits until every batch is finished or cleared away.
    pub async fn registry_is_empty(&self) {
        // It may have had two hundred.
        eventually_some("the registry is empty", 3 * PATIENCE, async || {
            let registry = self.ledger_item("registry").await;
            if registry["batches"].as_m().unwrap().is_empty() { Ok(()) } else { Err(format!("{registry:?}")) }
        })
        .await
    }

    /// Asserts that nothing half done is left anywhere, once everything has stopped.
    pub async fn assert_clean(&self) {
        let ledger = self.scan("music_streams_ledger").await;
        let registry = ledger.iter().find(|item| text(item, "pk") == "registry").unwrap();
        assert_eq!(registry["batches"].as_m().unwrap().len(), 0, "a batch is left in the registry: {registry:?}");
        let uploads = self.clients.s3.list_multipart_uploads().bucket(&self.bucket).send().await.unwrap();
        // But for one of a start that was killed while it tried what it may; that is the bucket's lifecycle's.
        let keys = uploads.uploads().iter().filter_map(|upload| upload.key());
        let left: Vec<_> = keys.filter(|key| !key.contains("/check-")).collect();
        assert!(left.is_empty(), "uploads are left over: {left:?}");
        assert_eq!(self.messages_in(&self.queue_url).await, 0);
        assert_eq!(self.messages_in(&self.dead_letter_queue_url).await, 0, "a healthy message was dead-lettered");
    }

    /// Turns off the notifications of the bucket.
    pub async fn silence(&self) {
        let silence = aws_sdk_s3::types::NotificationConfiguration::builder().build();
        let configure = self.clients.s3.put_bucket_notification_configuration().bucket(&self.bucket);
        configure.notification_configuration(silence).send().await.unwrap();
    }

    /// Starts the consumer, with short times; `arguments` come last and win.
    pub fn consumer(&self, arguments: &[&str]) -> Consumer {
        self.consumer_in(arguments, &[])
    }

    /// Starts the consumer with additional environment variables.
    pub fn consumer_in(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Consumer {
        self.consumer_of(env!("CARGO_BIN_EXE_music-streams"), arguments, environment)
    }

    /// Starts a given program as the consumer: another version, say.
    pub fn consumer_of(&self, program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Consumer {
        let log = std::env::temp_dir().join(format!(
            "{}-{:x}.log",
            self.bucket,
            std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos()
        ));
        let mut command = Command::new(program);
        command
            .args(["run", "--window", "2s", "--lease", "3s", "--visibility-timeout", "10s", "--poll-wait", "1s"])
            .args(arguments)
            .env("MUSIC_STREAMS_QUEUE_URL", &self.queue_url)
            .env("MUSIC_STREAMS_BUCKET", &self.bucket)
            .env("MUSIC_STREAMS_TABLE_PREFIX", &self.table_prefix)
            .env("MUSIC_STREAMS_LOG_FORMAT", "json")
            .envs(environment.iter().copied())
            .stderr(std::fs::File::create(&log).unwrap())
            .stdout(Stdio::null());
        Consumer { process: command.spawn().unwrap(), log }
    }

    /// Runs the consumer until everything is processed.
    pub async fn process_all(&self) {
        let consumer = self.consumer(&[]);
        self.settled().await;
        consumer.stop();
    }
}
