//! SQS: receiving, hiding, deleting and sending messages, and moving them out of a dead-letter queue.
//!
//! The only module that knows SQS. It keeps no state: [`crate::intake::custody`] decides when a message is extended,
//! deleted or given back. Covered by `tests/pipeline` (`operators.rs` for dead letters) and `tests/chaos`.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
    Message as SdkMessage, MessageSystemAttributeName, QueueAttributeName,
};
use opentelemetry::KeyValue;

use crate::aws::error::{AwsError, Kind, aws_error};
use crate::telemetry::metrics::metrics;

/// Entries of one batch call:
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>.
pub const BATCH_ENTRIES: usize = 10;

/// Longest time a message can be in flight, however often it is extended: 12 hours from its receive. Same source.
pub const MAX_IN_FLIGHT_TIME: Duration = Duration::from_secs(12 * 3600);

/// Messages that may be in flight in a standard queue. Beyond it, a long poll returns no error and no messages. Same
/// source.
pub const MAX_IN_FLIGHT_MESSAGES: usize = 120_000;

/// Pause between two requests for the progress of a message move.
const MOVE_POLL: Duration = Duration::from_millis(500);

/// A message as SQS delivered it.
#[derive(Debug)]
pub struct Delivery {
    /// SQS's id of the message, for logs.
    pub message_id: String,
    /// The body.
    pub body: String,
    /// The receipt that hiding and deleting the message take.
    pub receipt: Receipt,
}

/// The receipt of one delivery of a message.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// SQS's receipt handle.
    pub handle: String,
    /// The number of times the message has been received, this delivery included.
    pub receive_count: u32,
    /// The time at which the message was sent to the queue.
    pub sent_at: SystemTime,
}

/// An entry of a batch call that SQS did not carry out.
#[derive(Debug)]
pub struct Refusal {
    /// The entry's position in the call.
    pub index: usize,
    /// SQS's error code.
    pub code: String,
    /// True if the request itself is at fault, so that a repetition does not help.
    pub is_final: bool,
}

/// The approximate number of messages in a queue, as SQS counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Backlog {
    /// Messages that can be received.
    pub waiting: u64,
    /// Messages that were received and not yet deleted.
    pub in_flight: u64,
    /// Messages whose delivery is delayed.
    pub delayed: u64,
}

/// One queue.
#[derive(Debug, Clone)]
pub struct Queue {
    client: aws_sdk_sqs::Client,
    url: String,
    visibility: Duration,
}

impl Queue {
    /// Creates a client for the queue at `url`, whose messages are hidden for `visibility` at each receive and
    /// extension.
    pub fn new(client: aws_sdk_sqs::Client, url: String, visibility: Duration) -> Self {
        Queue { client, url, visibility }
    }

    /// The time for which a received or extended message is hidden.
    pub fn visibility(&self) -> Duration {
        self.visibility
    }

    /// Checks that the queue exists and may be read.
    pub async fn check(&self) -> Result<(), AwsError> {
        self.client
            .get_queue_attributes()
            .queue_url(&self.url)
            .attribute_names(QueueAttributeName::QueueArn)
            .send()
            .await
            .map_err(aws_error("sqs:GetQueueAttributes", &self.url))?;
        Ok(())
    }

    async fn attributes(&self) -> Result<HashMap<QueueAttributeName, String>, AwsError> {
        let get = self.client.get_queue_attributes().queue_url(&self.url).attribute_names(QueueAttributeName::All);
        let output = get.send().await.map_err(aws_error("sqs:GetQueueAttributes", &self.url))?;
        Ok(output.attributes.unwrap_or_default())
    }

    /// Reads the number of messages in the queue.
    pub async fn backlog(&self) -> Result<Backlog, AwsError> {
        let attributes = self.attributes().await?;
        let count = |name| attributes.get(&name).and_then(|count| count.parse().ok()).unwrap_or(0);
        Ok(Backlog {
            waiting: count(QueueAttributeName::ApproximateNumberOfMessages),
            in_flight: count(QueueAttributeName::ApproximateNumberOfMessagesNotVisible),
            delayed: count(QueueAttributeName::ApproximateNumberOfMessagesDelayed),
        })
    }

    /// Finds the dead-letter queue that the redrive policy names; `None` without such a policy.
    pub async fn dead_letter_queue(&self) -> Result<Option<Queue>, AwsError> {
        let attributes = self.attributes().await?;
        let policy = attributes.get(&QueueAttributeName::RedrivePolicy);
        let policy: Option<serde_json::Value> = policy.and_then(|policy| serde_json::from_str(policy).ok());
        let Some(arn) = policy.as_ref().and_then(|policy| policy["deadLetterTargetArn"].as_str()) else {
            return Ok(None);
        };
        // arn:aws:sqs:REGION:ACCOUNT:NAME; the region is this queue's.
        let mut parts = arn.rsplit(':');
        let (name, account) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let get = self.client.get_queue_url().queue_name(name).queue_owner_aws_account_id(account);
        let output = get.send().await.map_err(aws_error("sqs:GetQueueUrl", arn))?;
        Ok(output.queue_url.map(|url| Queue { url, ..self.clone() }))
    }

    async fn arn(&self) -> Result<String, AwsError> {
        Ok(self.attributes().await?.remove(&QueueAttributeName::QueueArn).unwrap_or_default())
    }

    /// Has SQS move every message of this dead-letter queue to another queue, and waits until it is done. Returns the
    /// number of messages moved.
    pub async fn redrive(&self, to: &Queue) -> Result<u64, AwsError> {
        let (arn, to) = (self.arn().await?, to.arn().await?);
        let start = self.client.start_message_move_task().source_arn(&arn).destination_arn(to).send().await;
        start.map_err(aws_error("sqs:StartMessageMoveTask", &arn))?;
        loop {
            let list = self.client.list_message_move_tasks().source_arn(&arn).max_results(1).send().await;
            let tasks = list.map_err(aws_error("sqs:ListMessageMoveTasks", &arn))?.results.unwrap_or_default();
            let Some(task) = tasks.into_iter().next() else { return Ok(0) };
            let moved = u64::try_from(task.approximate_number_of_messages_moved).unwrap_or(0);
            match task.status.as_deref() {
                Some("RUNNING" | "CANCELLING") => tokio::time::sleep(MOVE_POLL).await,
                Some("COMPLETED") => return Ok(moved),
                _ => {
                    let reason = task.failure_reason.unwrap_or_else(|| "no reason given".to_owned());
                    let cause = format!("it ended after {moved} messages: {reason}");
                    return Err(AwsError {
                        operation: "sqs:StartMessageMoveTask",
                        resource: arn,
                        kind: Kind::Refused,
                        cause,
                    });
                }
            }
        }
    }

    /// Sends a message.
    pub async fn send(&self, body: String) -> Result<(), AwsError> {
        let send = self.client.send_message().queue_url(&self.url).message_body(body).send().await;
        send.map(drop).map_err(aws_error("sqs:SendMessage", &self.url))
    }

    /// Waits up to `wait` (at most 20 s) for messages and receives at most [`BATCH_ENTRIES`] of them.
    pub async fn receive(&self, wait: Duration) -> Result<Vec<Delivery>, AwsError> {
        let output = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(BATCH_ENTRIES as i32)
            .wait_time_seconds(wait.as_secs() as i32)
            .visibility_timeout(self.visibility.as_secs() as i32)
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp)
            .send()
            .await
            .map_err(aws_error("sqs:ReceiveMessage", &self.url))?;
        let received: Vec<_> = output.messages.unwrap_or_default().into_iter().filter_map(delivery).collect();
        metrics().messages_received.add(
            received.len() as u64,
            &[KeyValue::new("messaging.system", "aws_sqs"), KeyValue::new("messaging.operation.name", "receive")],
        );
        Ok(received)
    }

    /// Hides messages, each for the given time from now on. Takes at most [`BATCH_ENTRIES`] of them; returns those that
    /// SQS refused.
    pub async fn hide(&self, messages: &[(&Receipt, Duration)]) -> Result<Vec<Refusal>, AwsError> {
        let entries = messages.iter().enumerate().filter_map(|(index, (receipt, delay))| {
            ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(index.to_string())
                .receipt_handle(&receipt.handle)
                .visibility_timeout(delay.as_secs() as i32)
                .build()
                .ok()
        });
        let call = self.client.change_message_visibility_batch().queue_url(&self.url);
        let output = call.set_entries(Some(entries.collect())).send().await;
        Ok(refusals(output.map_err(aws_error("sqs:ChangeMessageVisibility", &self.url))?.failed))
    }

    /// Deletes messages. Takes at most [`BATCH_ENTRIES`] of them; returns those that SQS refused.
    pub async fn delete(&self, messages: &[&Receipt]) -> Result<Vec<Refusal>, AwsError> {
        let entries = messages.iter().enumerate().filter_map(|(index, receipt)| {
            let entry = DeleteMessageBatchRequestEntry::builder().id(index.to_string());
            entry.receipt_handle(&receipt.handle).build().ok()
        });
        let call = self.client.delete_message_batch().queue_url(&self.url);
        let output = call.set_entries(Some(entries.collect())).send().await;
        Ok(refusals(output.map_err(aws_error("sqs:DeleteMessage", &self.url))?.failed))
    }
}

fn delivery(message: SdkMessage) -> Option<Delivery> {
    let attribute = |name| message.attributes.as_ref().and_then(|attributes| attributes.get(&name));
    let receive_count = attribute(MessageSystemAttributeName::ApproximateReceiveCount);
    let sent_at = attribute(MessageSystemAttributeName::SentTimestamp).and_then(|millis| millis.parse().ok());
    let receipt = Receipt {
        receive_count: receive_count.and_then(|count| count.parse().ok()).unwrap_or(1),
        sent_at: UNIX_EPOCH + Duration::from_millis(sent_at.unwrap_or(0)),
        handle: message.receipt_handle?,
    };
    let (message_id, body) = (message.message_id.unwrap_or_default(), message.body.unwrap_or_default());
    Some(Delivery { message_id, body, receipt })
}

fn refusals(failed: Vec<BatchResultErrorEntry>) -> Vec<Refusal> {
    let refusal = |entry: BatchResultErrorEntry| {
        Some(Refusal { index: entry.id.parse().ok()?, code: entry.code, is_final: entry.sender_fault })
    };
    failed.into_iter().filter_map(refusal).collect()
}
