//! Receivers.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::aws::retry::Backoff;
use crate::aws::sqs::{Custody, Queue, Received};
use crate::intake::notification::{Admission, admit, decode};
use crate::intake::window::Message;
use crate::telemetry::metrics::{label, metrics};

/// When a message comes back that nobody can read: soon, so that it reaches the dead-letter queue soon.
const UNREADABLE_DELAY: Duration = Duration::from_secs(5);

/// A receiver: polls, decodes, passes on.
pub(super) struct Receiver {
    pub(super) queue: Queue,
    pub(super) custody: Custody,
    pub(super) bucket: String,
    pub(super) poll_wait: Duration,
    pub(super) messages: mpsc::Sender<Vec<Message>>,
    pub(super) shutdown: CancellationToken,
}

impl Receiver {
    pub(super) async fn run(self) {
        let mut backoff = Backoff::default();
        loop {
            // No place downstream, no poll: what cannot be taken stays in the queue for others.
            let place = tokio::select! {
                place = self.messages.reserve() => place,
                () = self.shutdown.cancelled() => return,
            };
            let Ok(place) = place else { return };
            let received = match self.queue.receive(self.poll_wait, &self.custody).await {
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
            let messages = self.understand(received).await;
            if !messages.is_empty() {
                place.send(messages);
            }
        }
    }

    pub(super) async fn understand(&self, received: Vec<Received>) -> Vec<Message> {
        let mut messages = Vec::with_capacity(received.len());
        let (mut finished, mut unreadable) = (Vec::new(), Vec::new());
        for Received { id, message_id, body, receive_count } in received {
            let admission = admit(decode(&body), &self.bucket);
            tell(&admission, &message_id, receive_count);
            let is_readable = admission.unreadable.is_empty();
            if !is_readable {
                unreadable.push(id);
            } else if admission.events.is_empty() {
                finished.push(id);
            }
            if !admission.events.is_empty() {
                // What can be read of a message that goes its own way is worked on without it, as what a sweep finds.
                let id = if is_readable { id } else { self.custody.unheld() };
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

/// Counts what a message announces, and says what of it nobody acts upon.
pub(super) fn tell(admission: &Admission, message_id: &str, receive_count: u32) {
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
    // It comes back again and again, and says nothing new.
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
