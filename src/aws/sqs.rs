//! SQS, and custody of the messages received from it.
//!
//! The only module that knows SQS. One task ([`Custody::keep`]) owns every receipt handle from receive to finish: it extends
//! visibility before it runs out, deletes, and gives back. Because the same task does all three, an extension can neither
//! race with a delete nor overwrite the delay of a give-back. A message that slips out of custody all the same comes
//! back as a duplicate, which the ledger recognizes.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
    MessageSystemAttributeName, QueueAttributeName,
};
use futures::StreamExt;
use opentelemetry::KeyValue;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::aws::error::{AwsError, Kind, aws_error};
use crate::process::tasks;
use crate::telemetry::metrics::metrics;

/// Entries of one batch call:
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>.
pub const BATCH_ENTRIES: usize = 10;

/// Longest time a message can be in flight, whatever is extended: 12 hours from its receive. Same source.
pub const MAX_IN_FLIGHT_TIME: Duration = Duration::from_secs(12 * 3600);

/// Messages that may be in flight in a standard queue; with long polling SQS gives no error there, but nothing more.
/// Same source.
pub const MAX_IN_FLIGHT_MESSAGES: usize = 120_000;

/// Batch calls under way at once.
const CONCURRENT_CALLS: usize = 16;

/// A message is extended when less than this share of its visibility is left.
const EXTEND_BELOW: f64 = 0.5;

/// How often, at most, a first delay is counted when a message is deferred again and again. With a hundred receives until the
/// dead-letter queue and a first delay of a minute that makes a day and a half.
const MAX_DEFERRALS: u32 = 32;

/// Longest time between two looks at a deferred message.
const MAX_DEFERRAL: Duration = Duration::from_secs(3600);

/// Between two looks at how far a move is.
const MOVE_POLL: Duration = Duration::from_millis(500);

/// Commands waiting for the custodian: it answers quickly, and who waits loses nothing.
const COMMANDS: usize = 64;

/// Names a message held in custody by [`crate::aws::sqs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub u64);

/// A message as it came.
#[derive(Debug)]
pub struct Received {
    /// Its name in custody.
    pub id: MessageId,
    /// SQS's id of the message, for logs.
    pub message_id: String,
    /// The body.
    pub body: String,
    /// How often it has been received.
    pub receive_count: u32,
}

/// How many messages a queue has, as SQS counts them: approximately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Backlog {
    /// Messages that can be received.
    pub waiting: u64,
    /// Messages that somebody has received and not deleted.
    pub in_flight: u64,
    /// Messages that will be there later.
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
    /// The queue at `url`, whose messages are hidden for `visibility` at each receive and extension.
    pub fn new(client: aws_sdk_sqs::Client, url: String, visibility: Duration) -> Self {
        Queue { client, url, visibility }
    }

    /// Whether the queue is there and readable.
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

    /// How many messages it has.
    pub async fn backlog(&self) -> Result<Backlog, AwsError> {
        let attributes = self.attributes().await?;
        let count = |name| attributes.get(&name).and_then(|count| count.parse().ok()).unwrap_or(0);
        Ok(Backlog {
            waiting: count(QueueAttributeName::ApproximateNumberOfMessages),
            in_flight: count(QueueAttributeName::ApproximateNumberOfMessagesNotVisible),
            delayed: count(QueueAttributeName::ApproximateNumberOfMessagesDelayed),
        })
    }

    /// The queue that takes what was received too often, if there is one.
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

    /// Lets SQS move every message of this dead-letter queue to another queue, and waits until that is done. How many they were.
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

    /// Waits up to `wait` (at most 20 s) for messages, and takes those that came into custody.
    pub async fn receive(&self, wait: Duration, custody: &Custody) -> Result<Vec<Received>, AwsError> {
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
        let mut received = Vec::new();
        let mut held = Vec::new();
        for message in output.messages.unwrap_or_default() {
            let attribute = |name| message.attributes.as_ref().and_then(|attributes| attributes.get(&name));
            let receive_count = attribute(MessageSystemAttributeName::ApproximateReceiveCount)
                .and_then(|count| count.parse().ok())
                .unwrap_or(1);
            let sent_at = attribute(MessageSystemAttributeName::SentTimestamp).and_then(|millis| millis.parse().ok());
            let sent_at = UNIX_EPOCH + Duration::from_millis(sent_at.unwrap_or(0));
            let Some(receipt_handle) = message.receipt_handle else { continue };
            let id = custody.next_id();
            held.push((id, Receipt { handle: receipt_handle, receive_count, sent_at }));
            received.push(Received {
                id,
                message_id: message.message_id.unwrap_or_default(),
                body: message.body.unwrap_or_default(),
                receive_count,
            });
        }
        metrics().messages_received.add(
            received.len() as u64,
            &[KeyValue::new("messaging.system", "aws_sqs"), KeyValue::new("messaging.operation.name", "receive")],
        );
        custody.hold(held).await;
        Ok(received)
    }

    /// Carries out one batch call; gives the messages for which SQS refused it.
    async fn call(&self, action: Action, messages: &[(MessageId, Receipt)]) -> Result<Vec<Refusal>, AwsError> {
        let failed = match action {
            Action::Hide(delay) | Action::Defer(delay) => {
                let entries = messages.iter().enumerate().filter_map(|(index, (_, receipt))| {
                    let delay = match action {
                        Action::Defer(first) => deferral(first, receipt.receive_count),
                        _ => delay,
                    };
                    ChangeMessageVisibilityBatchRequestEntry::builder()
                        .id(index.to_string())
                        .receipt_handle(&receipt.handle)
                        .visibility_timeout(delay.as_secs() as i32)
                        .build()
                        .ok()
                });
                let call = self.client.change_message_visibility_batch().queue_url(&self.url);
                let output = call.set_entries(Some(entries.collect())).send().await;
                output.map_err(aws_error("sqs:ChangeMessageVisibility", &self.url))?.failed
            }
            Action::Delete => {
                let entries = messages.iter().enumerate().filter_map(|(index, (_, receipt))| {
                    DeleteMessageBatchRequestEntry::builder()
                        .id(index.to_string())
                        .receipt_handle(&receipt.handle)
                        .build()
                        .ok()
                });
                let call = self.client.delete_message_batch().queue_url(&self.url);
                let output = call.set_entries(Some(entries.collect())).send().await;
                output.map_err(aws_error("sqs:DeleteMessage", &self.url))?.failed
            }
        };
        Ok(refusals(messages, failed))
    }

    /// Carries out an action for any number of messages, in batches of ten.
    async fn call_in_batches(&self, action: Action, messages: Vec<(MessageId, Receipt)>) -> Vec<BatchResult> {
        let batches: Vec<Vec<_>> = messages.chunks(BATCH_ENTRIES).map(<[_]>::to_vec).collect();
        let calls = batches.into_iter().map(|batch| async move {
            let result = self.call(action, &batch).await;
            (batch, result)
        });
        futures::stream::iter(calls).buffer_unordered(CONCURRENT_CALLS).collect().await
    }
}

/// What is needed to do something about a message that was received.
#[derive(Debug, Clone)]
struct Receipt {
    handle: String,
    receive_count: u32,
    /// When it came into the queue.
    sent_at: SystemTime,
}

/// What can be done to messages in custody.
#[derive(Debug, Clone, Copy)]
enum Action {
    /// Hide them for so long from now on.
    Hide(Duration),
    /// Hide each for so long from now on, times its receives.
    Defer(Duration),
    Delete,
}

/// How long a message is hidden that has come so often: ever longer, as each receive brings it nearer to the dead letters.
fn deferral(first: Duration, receive_count: u32) -> Duration {
    (first * receive_count.clamp(1, MAX_DEFERRALS)).min(first.max(MAX_DEFERRAL))
}

/// A batch of messages, and those of them that SQS refused.
type BatchResult = (Vec<(MessageId, Receipt)>, Result<Vec<Refusal>, AwsError>);

/// One item of a batch call that SQS did not carry out.
#[derive(Debug)]
struct Refusal {
    id: MessageId,
    code: String,
    /// Whether the request itself is at fault, so that trying again does not help.
    final_: bool,
}

fn refusals(messages: &[(MessageId, Receipt)], failed: Vec<BatchResultErrorEntry>) -> Vec<Refusal> {
    let refusal = |entry: BatchResultErrorEntry| {
        let (id, _) = messages.get(entry.id.parse::<usize>().ok()?)?;
        Some(Refusal { id: *id, code: entry.code, final_: entry.sender_fault })
    };
    failed.into_iter().filter_map(refusal).collect()
}

#[derive(Debug)]
enum Command {
    Hold(Vec<(MessageId, Receipt)>, Instant),
    Delete(Vec<MessageId>, oneshot::Sender<()>),
    Release(Vec<MessageId>, Action, oneshot::Sender<()>),
}

/// The way to the custodian.
#[derive(Debug, Clone)]
pub struct Custody {
    commands: mpsc::Sender<Command>,
    next_id: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl Custody {
    /// Starts the custodian of a queue's messages. It ends when the last [`Custody`] is dropped.
    pub fn keep(queue: Queue) -> (Self, tokio::task::JoinHandle<()>) {
        let (commands, received) = mpsc::channel(COMMANDS);
        let custodian = Custodian { queue, held: HashMap::new() };
        (Custody { commands, next_id: std::sync::Arc::default() }, tasks::spawn("custodian", custodian.run(received)))
    }

    /// A name for what came without a message: whatever is done to it here does nothing.
    pub fn unheld(&self) -> MessageId {
        self.next_id()
    }

    fn next_id(&self) -> MessageId {
        MessageId(self.next_id.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
    }

    async fn hold(&self, messages: Vec<(MessageId, Receipt)>) {
        // The custodian lives as long as this sender.
        let _ = self.commands.send(Command::Hold(messages, Instant::now())).await;
    }

    /// Deletes messages whose objects are all finished. What SQS does not delete comes back and is found to be a duplicate.
    pub async fn delete(&self, messages: Vec<MessageId>) {
        let (done, waiting) = oneshot::channel();
        let _ = self.commands.send(Command::Delete(messages, done)).await;
        let _ = waiting.await;
    }

    /// Gives messages back to the queue, to be received again after `delay`.
    pub async fn release(&self, messages: Vec<MessageId>, delay: Duration) {
        self.give_back(messages, Action::Hide(delay)).await;
    }

    /// Gives messages back that wait for another consumer: to be received again after `first`, and each time later.
    pub async fn defer(&self, messages: Vec<MessageId>, first: Duration) {
        self.give_back(messages, Action::Defer(first)).await;
    }

    async fn give_back(&self, messages: Vec<MessageId>, how: Action) {
        let (done, waiting) = oneshot::channel();
        let _ = self.commands.send(Command::Release(messages, how, done)).await;
        let _ = waiting.await;
    }
}

struct Custodian {
    queue: Queue,
    /// When the message becomes visible again unless extended.
    held: HashMap<MessageId, (Receipt, Instant)>,
}

impl Custodian {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut tick = tokio::time::interval((self.queue.visibility / 10).max(Duration::from_millis(200)));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Hold(messages, at)) => {
                        let until = at + self.queue.visibility;
                        self.held.extend(messages.into_iter().map(|(id, receipt)| (id, (receipt, until))));
                    }
                    Some(Command::Delete(ids, done)) => {
                        let messages = self.take(&ids);
                        report("delete", self.queue.call_in_batches(Action::Delete, messages).await);
                        let _ = done.send(());
                    }
                    Some(Command::Release(ids, how, done)) => {
                        let messages = self.take(&ids);
                        report("give back", self.queue.call_in_batches(how, messages).await);
                        let _ = done.send(());
                    }
                    None => return,
                },
                _ = tick.tick() => self.extend().await,
            }
        }
    }

    fn take(&mut self, ids: &[MessageId]) -> Vec<(MessageId, Receipt)> {
        ids.iter().filter_map(|id| self.held.remove(id).map(|(receipt, _)| (*id, receipt))).collect()
    }

    async fn extend(&mut self) {
        let oldest = self.held.values().filter_map(|(receipt, _)| receipt.sent_at.elapsed().ok()).max();
        metrics().oldest_message_age.record(oldest.unwrap_or_default().as_secs_f64(), &[]);
        let now = Instant::now();
        let soon = now + self.queue.visibility.mul_f64(EXTEND_BELOW);
        let due: Vec<_> = self
            .held
            .iter()
            .filter(|(_, (_, until))| *until < soon)
            .map(|(id, (receipt, _))| (*id, receipt.clone()))
            .collect();
        for (batch, result) in self.queue.call_in_batches(Action::Hide(self.queue.visibility), due).await {
            match result {
                Ok(refused) => {
                    for (id, _) in batch {
                        if let Some((_, until)) = self.held.get_mut(&id) {
                            *until = now + self.queue.visibility;
                        }
                    }
                    for refusal in refused {
                        if refusal.final_ {
                            tracing::warn!(
                                code = refusal.code,
                                "a message slipped out of custody; it comes back by itself"
                            );
                            self.held.remove(&refusal.id);
                        } else if let Some((_, until)) = self.held.get_mut(&refusal.id) {
                            *until = now;
                        }
                    }
                }
                // Tried again at the next tick; half of the visibility is left for that.
                Err(error) => tracing::warn!("{error}; trying again"),
            }
        }
    }
}

/// Says once what a whole round of calls could not do: those messages come back by themselves.
fn report(what: &str, results: Vec<BatchResult>) {
    let mut refused = 0;
    let mut example = None;
    for (batch, result) in results {
        match result {
            Ok(refusals) => {
                refused += refusals.len();
                example = refusals.into_iter().next().map(|refusal| refusal.code).or(example);
            }
            Err(error) => {
                // A receipt handle that ran out is no failure: the message is on its way back already.
                if error.kind != Kind::MissingResource {
                    refused += batch.len();
                }
                example = Some(error.to_string());
            }
        }
    }
    if let Some(example) = example {
        tracing::warn!(refused, "could not {what} some messages: {example}; they come back and are recognized");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deferred_message_is_looked_at_ever_more_rarely_and_never_given_up() {
        let minute = Duration::from_secs(60);
        assert_eq!(deferral(minute, 1), minute);
        assert_eq!(deferral(minute, 5), 5 * minute);
        assert_eq!(deferral(minute, u32::MAX), 32 * minute);
        assert_eq!(deferral(4 * minute, 30), MAX_DEFERRAL);
        // The hundred receives of the template's dead-letter queue outlast the longest batch by far.
        let total: Duration = (1..100).map(|count| deferral(minute, count)).sum();
        assert!(total > Duration::from_secs(36 * 3600), "{total:?}");
        // SQS hides for 12 hours at the most; the longest lease is an hour.
        assert!(deferral(Duration::from_secs(3600), 100) <= MAX_IN_FLIGHT_TIME);
    }
}
