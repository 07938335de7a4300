//! Custody of the messages received from a queue.
//!
//! One task, the custodian, owns every receipt from receive to finish: it extends a message's visibility before it runs
//! out, deletes the message, or gives it back. Because the same task does all three, an extension can neither race with
//! a delete nor overwrite the delay of a message that was given back. A message that slips out of custody nevertheless
//! comes back as a duplicate, which the ledger recognizes.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::aws::error::{AwsError, Kind};
use crate::aws::sqs::{BATCH_ENTRIES, Queue, Receipt, Refusal};
use crate::process::tasks;
use crate::telemetry::metrics::metrics;

/// Batch calls under way at once.
const CONCURRENT_CALLS: usize = 16;

/// A message is extended when less than this share of its visibility is left.
const EXTEND_BELOW: f64 = 0.5;

/// Upper bound of the factor by which a first delay grows when a message is deferred repeatedly. With a hundred
/// receives until the dead-letter queue and a first delay of a minute, this makes a day and a half.
const MAX_DEFERRALS: u32 = 32;

/// Longest delay of a deferred message.
const MAX_DEFERRAL: Duration = Duration::from_secs(3600);

/// Commands waiting for the custodian: it answers quickly, and waiting loses nothing.
const COMMANDS: usize = 64;

/// Identifies a message in custody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub u64);

/// A message in custody.
#[derive(Debug)]
pub struct Received {
    /// Its id in custody.
    pub id: MessageId,
    /// SQS's id of the message, for logs.
    pub message_id: String,
    /// The body.
    pub body: String,
    /// The number of times it has been received.
    pub receive_count: u32,
}

/// An action on messages in custody.
#[derive(Debug, Clone, Copy)]
enum Action {
    /// Hides them for this long from now on.
    Hide(Duration),
    /// Hides each for this long from now on, times the number of its receives.
    Defer(Duration),
    Delete,
}

/// Returns the time for which a message is hidden that has been received this often. It grows, because each receive
/// brings the message nearer to the dead-letter queue.
fn deferral(first: Duration, receive_count: u32) -> Duration {
    (first * receive_count.clamp(1, MAX_DEFERRALS)).min(first.max(MAX_DEFERRAL))
}

#[derive(Debug)]
enum Command {
    Hold(Vec<(MessageId, Receipt)>, Instant),
    Finish(Vec<MessageId>, Action, oneshot::Sender<()>),
}

/// A handle to the custodian of one queue.
#[derive(Debug, Clone)]
pub struct Custody {
    queue: Queue,
    commands: mpsc::Sender<Command>,
    next_id: Arc<AtomicU64>,
}

impl Custody {
    /// Starts the custodian of a queue's messages. It ends when the last [`Custody`] is dropped.
    pub fn start(queue: Queue) -> (Self, tokio::task::JoinHandle<()>) {
        let (commands, received) = mpsc::channel(COMMANDS);
        let custodian = Custodian { queue: queue.clone(), held: HashMap::new() };
        let custody = Custody { queue, commands, next_id: Arc::default() };
        (custody, tasks::spawn("custodian", custodian.run(received)))
    }

    /// Returns an id for events that came without a message. Deleting or releasing it has no effect.
    pub fn untracked_id(&self) -> MessageId {
        self.next_id()
    }

    fn next_id(&self) -> MessageId {
        MessageId(self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Waits up to `wait` (at most 20 s) for messages, and takes those that arrive into custody.
    pub async fn receive(&self, wait: Duration) -> Result<Vec<Received>, AwsError> {
        let mut received = Vec::new();
        let mut held = Vec::new();
        for delivery in self.queue.receive(wait).await? {
            let id = self.next_id();
            let (message_id, body, receive_count) =
                (delivery.message_id, delivery.body, delivery.receipt.receive_count);
            held.push((id, delivery.receipt));
            received.push(Received { id, message_id, body, receive_count });
        }
        // The custodian lives as long as this sender.
        let _ = self.commands.send(Command::Hold(held, Instant::now())).await;
        Ok(received)
    }

    /// Deletes messages whose objects are all finished. A message that SQS does not delete comes back and is recognized
    /// as a duplicate.
    pub async fn delete(&self, messages: Vec<MessageId>) {
        self.finish(messages, Action::Delete).await;
    }

    /// Gives messages back to the queue, to be received again after `delay`.
    pub async fn release(&self, messages: Vec<MessageId>, delay: Duration) {
        self.finish(messages, Action::Hide(delay)).await;
    }

    /// Gives messages back that wait for another consumer: to be received again after `first`, and later each time.
    pub async fn defer(&self, messages: Vec<MessageId>, first: Duration) {
        self.finish(messages, Action::Defer(first)).await;
    }

    async fn finish(&self, messages: Vec<MessageId>, action: Action) {
        let (done, waiting) = oneshot::channel();
        let _ = self.commands.send(Command::Finish(messages, action, done)).await;
        let _ = waiting.await;
    }
}

struct Custodian {
    queue: Queue,
    /// Receipts, each with the time at which its message becomes visible again unless extended.
    held: HashMap<MessageId, (Receipt, Instant)>,
}

impl Custodian {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut tick = tokio::time::interval((self.queue.visibility() / 10).max(Duration::from_millis(200)));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Hold(messages, at)) => {
                        let until = at + self.queue.visibility();
                        self.held.extend(messages.into_iter().map(|(id, receipt)| (id, (receipt, until))));
                    }
                    Some(Command::Finish(ids, action, done)) => {
                        let messages = self.take(&ids);
                        let what = if matches!(action, Action::Delete) { "delete" } else { "give back" };
                        report(what, self.call_in_batches(action, messages).await);
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

    /// Extends every message whose visibility runs out soon.
    async fn extend(&mut self) {
        let oldest = self.held.values().filter_map(|(receipt, _)| receipt.sent_at.elapsed().ok()).max();
        metrics().oldest_message_age.record(oldest.unwrap_or_default().as_secs_f64(), &[]);
        let now = Instant::now();
        let visibility = self.queue.visibility();
        let soon = now + visibility.mul_f64(EXTEND_BELOW);
        let due: Vec<_> = self
            .held
            .iter()
            .filter(|(_, (_, until))| *until < soon)
            .map(|(id, (receipt, _))| (*id, receipt.clone()))
            .collect();
        for (batch, result) in self.call_in_batches(Action::Hide(visibility), due).await {
            match result {
                Ok(refusals) => {
                    for id in &batch {
                        if let Some((_, until)) = self.held.get_mut(id) {
                            *until = now + visibility;
                        }
                    }
                    for refusal in refusals {
                        let Some(id) = batch.get(refusal.index) else { continue };
                        if refusal.is_final {
                            tracing::warn!(
                                code = refusal.code,
                                "a message slipped out of custody; it will be received again"
                            );
                            self.held.remove(id);
                        } else if let Some((_, until)) = self.held.get_mut(id) {
                            *until = now;
                        }
                    }
                }
                // Repeated at the next tick; half of the visibility is left for that.
                Err(error) => tracing::warn!("{error}; trying again"),
            }
        }
    }

    /// Carries out an action on any number of messages, in batches of ten.
    async fn call_in_batches(&self, action: Action, messages: Vec<(MessageId, Receipt)>) -> Vec<BatchResult> {
        let batches: Vec<Vec<_>> = messages.chunks(BATCH_ENTRIES).map(<[_]>::to_vec).collect();
        let calls = batches.into_iter().map(|batch| async move {
            let result = self.call(action, &batch).await;
            (batch.into_iter().map(|(id, _)| id).collect(), result)
        });
        futures::stream::iter(calls).buffer_unordered(CONCURRENT_CALLS).collect().await
    }

    async fn call(&self, action: Action, batch: &[(MessageId, Receipt)]) -> Result<Vec<Refusal>, AwsError> {
        let receipts = batch.iter().map(|(_, receipt)| receipt);
        match action {
            Action::Delete => self.queue.delete(&receipts.collect::<Vec<_>>()).await,
            Action::Hide(delay) => self.queue.hide(&receipts.map(|it| (it, delay)).collect::<Vec<_>>()).await,
            Action::Defer(first) => {
                let deferred = receipts.map(|receipt| (receipt, deferral(first, receipt.receive_count)));
                self.queue.hide(&deferred.collect::<Vec<_>>()).await
            }
        }
    }
}

/// A batch of messages, and those of them that SQS refused.
type BatchResult = (Vec<MessageId>, Result<Vec<Refusal>, AwsError>);

/// Logs the failures of a whole round of calls in one line: their messages come back by themselves.
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
                // An expired receipt handle is no failure: the message is on its way back already.
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
    use crate::aws::sqs::MAX_IN_FLIGHT_TIME;

    #[test]
    fn a_deferred_message_is_received_ever_more_rarely_and_never_abandoned() {
        let minute = Duration::from_secs(60);
        assert_eq!(deferral(minute, 1), minute);
        assert_eq!(deferral(minute, 5), 5 * minute);
        assert_eq!(deferral(minute, u32::MAX), 32 * minute);
        assert_eq!(deferral(4 * minute, 30), MAX_DEFERRAL);
        // The hundred receives of the template's dead-letter queue outlast the longest batch by far.
        let total: Duration = (1..100).map(|count| deferral(minute, count)).sum();
        assert!(total > Duration::from_secs(36 * 3600), "{total:?}");
        // SQS hides a message for at most 12 hours; the longest lease is an hour.
        assert!(deferral(Duration::from_secs(3600), 100) <= MAX_IN_FLIGHT_TIME);
    }
}
