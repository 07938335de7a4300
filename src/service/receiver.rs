//! A receiver: from polls of the queue to messages for the window.
//!
//! The tests are tests/pipeline and tests/chaos.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::aws::retry::Backoff;
use crate::intake::custody::{Custody, Received};
use crate::intake::notification::{Admission, admit, decode};
use crate::intake::window::Message;
use crate::telemetry::metrics::{label, metrics};

/// Time after which an unreadable message comes back: short, so that it soon reaches the dead-letter queue.
const UNREADABLE_DELAY: Duration = Duration::from_secs(5);

/// A task that polls the queue and decodes the messages.
pub(super) struct Receiver {
    pub(super) custody: Custody,
    pub(super) bucket: String,
    pub(super) poll_wait: Duration,
    pub(super) messages: mpsc::Sender<Vec<Message>>,
    pub(super) shutdown: CancellationToken,
}

impl Receiver {
    /// Receives messages until the process stops.
    pub(super) async fn run(self) {
        let mut backoff = Backoff::default();
        loop {
            // Without room downstream there is no poll: the messages stay in the queue for other consumers.
            let permit = tokio::select! {
                permit = self.messages.reserve() => permit,
                () = self.shutdown.cancelled() => return,
            };
            let Ok(permit) = permit else { return };
            let received = match self.custody.receive(self.poll_wait).await {
                Ok(received) => received,
                Err(error) => {
                    tracing::error!("{error}; trying again");
                    if !backoff.pause(&self.shutdown).await {
                        return;
                    }
                    continue;
                }
            };
            backoff = Backoff::default();
            if self.shutdown.is_cancelled() {
                self.custody.release(received.iter().map(|message| message.id).collect(), Duration::ZERO).await;
                return;
            }
            let messages = self.decode_all(received).await;
            if !messages.is_empty() {
                permit.send(messages);
            }
        }
    }

    /// Decodes messages, settles those without objects to process, and returns the others.
    async fn decode_all(&self, received: Vec<Received>) -> Vec<Message> {
        let mut messages = Vec::with_capacity(received.len());
        let (mut finished, mut unreadable) = (Vec::new(), Vec::new());
        for Received { id, message_id, body, receive_count } in received {
            let admission = admit(decode(&body), &self.bucket);
            record(&admission, &message_id, receive_count);
            let is_readable = admission.unreadable.is_empty();
            if !is_readable {
                unreadable.push(id);
            } else if admission.events.is_empty() {
                finished.push(id);
            }
            if !admission.events.is_empty() {
                // The readable objects of a partly unreadable message are processed without the message, like those
                // that a sweep finds.
                let id = if is_readable { id } else { self.custody.untracked_id() };
                messages.push(Message { id, events: admission.events });
            }
        }
        if !finished.is_empty() {
            self.custody.delete(finished).await;
        }
        if !unreadable.is_empty() {
            self.custody.release(unreadable, UNREADABLE_DELAY).await;
        }
        messages
    }
}

/// Counts the events of a message, and logs those that are not processed.
fn record(admission: &Admission, message_id: &str, receive_count: u32) {
    let Admission { events, refused, ignored, unreadable } = admission;
    let outcomes = [
        ("accepted", events.len()),
        ("ignored", ignored.len()),
        ("refused", refused.len()),
        ("unreadable", unreadable.len()),
    ];
    for (outcome, count) in outcomes {
        metrics().events.add(count as u64, &label("outcome", outcome));
    }
    if let Some(kind) = ignored.first() {
        tracing::info!(message_id, events = ignored.len(), kind, "announces no new object; ignored");
    }
    if let Some(key) = refused.first() {
        tracing::warn!(
            message_id,
            events = refused.len(),
            key,
            "announced, but not a file under the incoming prefix; not read"
        );
    }
    // Such a message is received again and again, but it is logged only once.
    if let Some(reason) = unreadable.first()
        && receive_count <= 1
    {
        tracing::warn!(
            message_id,
            events = unreadable.len(),
            "message cannot be read: {reason}; left for the dead-letter queue"
        );
    }
}
