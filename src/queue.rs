//! SQS, and custody of the messages received from it.
//!
//! The only module that knows SQS. One task ([`Custody::keep`]) owns every receipt handle from receive to finish: it extends
//! visibility before it runs out, deletes, and gives back. Because the same task does all three, an extension can neither
//! race with a delete nor overwrite the delay of a give-back. A message that slips out of custody all the same comes
//! back as a duplicate, which the ledger recognizes.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry, QueueAttributeName,
};
use futures::StreamExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::aws::{AwsError, Kind, explain};
use crate::window::MessageId;

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

/// Commands waiting for the custodian: it answers quickly, and who waits loses nothing.
const COMMANDS: usize = 64;

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
            .map_err(explain("sqs:GetQueueAttributes", &self.url))?;
        Ok(())
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
            .message_system_attribute_names(aws_sdk_sqs::types::MessageSystemAttributeName::ApproximateReceiveCount)
            .send()
            .await
            .map_err(explain("sqs:ReceiveMessage", &self.url))?;
        let mut received = Vec::new();
        let mut held = Vec::new();
        for message in output.messages.unwrap_or_default() {
            let count = aws_sdk_sqs::types::MessageSystemAttributeName::ApproximateReceiveCount;
            let receive_count =
                message.attributes.as_ref().and_then(|attributes| attributes.get(&count)?.parse().ok()).unwrap_or(1);
            let Some(receipt_handle) = message.receipt_handle else { continue };
            let id = custody.next_id();
            held.push((id, receipt_handle));
            received.push(Received {
                id,
                message_id: message.message_id.unwrap_or_default(),
                body: message.body.unwrap_or_default(),
                receive_count,
            });
        }
        custody.hold(held).await;
        Ok(received)
    }

    /// Carries out one batch call; gives the messages for which SQS refused it.
    async fn call(&self, action: Action, messages: &[(MessageId, String)]) -> Result<Vec<Refusal>, AwsError> {
        let failed = match action {
            Action::Hide(delay) => {
                let entries = messages.iter().enumerate().filter_map(|(index, (_, receipt_handle))| {
                    ChangeMessageVisibilityBatchRequestEntry::builder()
                        .id(index.to_string())
                        .receipt_handle(receipt_handle)
                        .visibility_timeout(delay.as_secs() as i32)
                        .build()
                        .ok()
                });
                let call = self.client.change_message_visibility_batch().queue_url(&self.url);
                let output = call.set_entries(Some(entries.collect())).send().await;
                output.map_err(explain("sqs:ChangeMessageVisibility", &self.url))?.failed
            }
            Action::Delete => {
                let entries = messages.iter().enumerate().filter_map(|(index, (_, receipt_handle))| {
                    DeleteMessageBatchRequestEntry::builder()
                        .id(index.to_string())
                        .receipt_handle(receipt_handle)
                        .build()
                        .ok()
                });
                let call = self.client.delete_message_batch().queue_url(&self.url);
                let output = call.set_entries(Some(entries.collect())).send().await;
                output.map_err(explain("sqs:DeleteMessage", &self.url))?.failed
            }
        };
        Ok(refusals(messages, failed))
    }

    /// Carries out an action for any number of messages, in batches of ten.
    async fn call_in_batches(&self, action: Action, messages: Vec<(MessageId, String)>) -> Vec<BatchResult> {
        let batches: Vec<Vec<_>> = messages.chunks(BATCH_ENTRIES).map(<[_]>::to_vec).collect();
        let calls = batches.into_iter().map(|batch| async move {
            let result = self.call(action, &batch).await;
            (batch, result)
        });
        futures::stream::iter(calls).buffer_unordered(CONCURRENT_CALLS).collect().await
    }
}

/// What can be done to messages in custody.
#[derive(Debug, Clone, Copy)]
enum Action {
    /// Hide them for so long from now on.
    Hide(Duration),
    Delete,
}

/// A batch of messages, and those of them that SQS refused.
type BatchResult = (Vec<(MessageId, String)>, Result<Vec<Refusal>, AwsError>);

/// One item of a batch call that SQS did not carry out.
#[derive(Debug)]
struct Refusal {
    id: MessageId,
    code: String,
    /// Whether the request itself is at fault, so that trying again does not help.
    final_: bool,
}

fn refusals(messages: &[(MessageId, String)], failed: Vec<BatchResultErrorEntry>) -> Vec<Refusal> {
    let refusal = |entry: BatchResultErrorEntry| {
        let (id, _) = messages.get(entry.id.parse::<usize>().ok()?)?;
        Some(Refusal { id: *id, code: entry.code, final_: entry.sender_fault })
    };
    failed.into_iter().filter_map(refusal).collect()
}

#[derive(Debug)]
enum Command {
    Hold(Vec<(MessageId, String)>, Instant),
    Delete(Vec<MessageId>, oneshot::Sender<()>),
    Release(Vec<MessageId>, Duration, oneshot::Sender<()>),
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
        (Custody { commands, next_id: std::sync::Arc::default() }, tokio::spawn(custodian.run(received)))
    }

    /// A name for what came without a message: whatever is done to it here does nothing.
    pub fn unheld(&self) -> MessageId {
        self.next_id()
    }

    fn next_id(&self) -> MessageId {
        MessageId(self.next_id.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
    }

    async fn hold(&self, messages: Vec<(MessageId, String)>) {
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
        let (done, waiting) = oneshot::channel();
        let _ = self.commands.send(Command::Release(messages, delay, done)).await;
        let _ = waiting.await;
    }
}

struct Custodian {
    queue: Queue,
    /// Receipt handle, and when the message becomes visible again unless extended.
    held: HashMap<MessageId, (String, Instant)>,
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
                        self.held.extend(messages.into_iter().map(|(id, receipt_handle)| (id, (receipt_handle, until))));
                    }
                    Some(Command::Delete(ids, done)) => {
                        let messages = self.take(&ids);
                        report("delete", self.queue.call_in_batches(Action::Delete, messages).await);
                        let _ = done.send(());
                    }
                    Some(Command::Release(ids, delay, done)) => {
                        let messages = self.take(&ids);
                        report("give back", self.queue.call_in_batches(Action::Hide(delay), messages).await);
                        let _ = done.send(());
                    }
                    None => return,
                },
                _ = tick.tick() => self.extend().await,
            }
        }
    }

    fn take(&mut self, ids: &[MessageId]) -> Vec<(MessageId, String)> {
        ids.iter().filter_map(|id| self.held.remove(id).map(|(receipt_handle, _)| (*id, receipt_handle))).collect()
    }

    async fn extend(&mut self) {
        let now = Instant::now();
        let soon = now + self.queue.visibility.mul_f64(EXTEND_BELOW);
        let due: Vec<_> = self
            .held
            .iter()
            .filter(|(_, (_, until))| *until < soon)
            .map(|(id, (receipt_handle, _))| (*id, receipt_handle.clone()))
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
