//! The window that fills and the batch that runs.

use std::time::{Duration, Instant};

use futures::future::LocalBoxFuture;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::aws::sqs::Custody;
use crate::batch::Worker;
use crate::intake::window::{Message, Window};
use crate::protocol::{BatchNumber, Entry};
use crate::telemetry::metrics::metrics;

use crate::service::unix_time;

/// The worker, or the batch that it is at.
enum Slot {
    Idle(Box<Worker>),
    Busy(LocalBoxFuture<'static, Box<Worker>>),
}

/// The window that fills, and what fills and empties it.
pub(super) struct Flow {
    pub(super) window: Window,
    pub(super) messages: mpsc::Receiver<Vec<Message>>,
    pub(super) idle_limit: Option<Duration>,
    pub(super) custody: Custody,
    pub(super) shutdown: CancellationToken,
    pub(super) deadline: CancellationToken,
}

impl Flow {
    pub(super) async fn run(mut self, worker: Box<Worker>) {
        let mut hand = Slot::Idle(worker);
        let mut last_activity = Instant::now();
        // Windows and recoveries take turns: neither keeps the other waiting for longer than one of it takes.
        let mut is_windows_turn = false;
        loop {
            let is_idle = matches!(hand, Slot::Idle(_));
            metrics().window_objects.record(self.window.objects() as u64, &[]);
            metrics().window_fill.record(self.window.fill(), &[]);
            let due_in = self.window.due_in(Instant::now());
            let is_due = due_in.is_some_and(|due_in| due_in.is_zero());
            let idle_for = match self.idle_limit {
                Some(limit) if is_idle && self.window.is_empty() => Some(limit.saturating_sub(last_activity.elapsed())),
                _ => None,
            };
            hand = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => break,
                next = next_of(&mut hand), if !(is_idle && is_due && is_windows_turn) => match (next, hand) {
                    (Next::Done(worker), _) => {
                        last_activity = Instant::now();
                        Slot::Idle(worker)
                    }
                    (Next::Overdue(batch, entry), Slot::Idle(mut worker)) => {
                        is_windows_turn = true;
                        Slot::Busy(Box::pin(async move {
                            worker.recover(batch, entry).await;
                            worker
                        }))
                    }
                    (Next::Overdue(..), busy) => busy,
                },
                () = sleep_if(due_in), if is_idle => match (hand, self.window.close()) {
                    (Slot::Idle(mut worker), Some(window)) => {
                        is_windows_turn = false;
                        Slot::Busy(Box::pin(async move {
                            tracing::info!(objects = window.objects.len(), messages = window.messages.len(), "window closed");
                            worker.process(window).await;
                            worker
                        }))
                    }
                    (hand, _) => hand,
                },
                Some(messages) = self.messages.recv(), if !self.window.is_full() => {
                    last_activity = Instant::now();
                    for message in messages {
                        // One call's messages are taken together; the window's limits are overstepped by ten at most.
                        if let Err(message) = self.window.offer(message, unix_time(), Instant::now()) {
                            self.custody.release(vec![message.id], Duration::ZERO).await;
                        }
                    }
                    hand
                }
                () = sleep_if(idle_for) => {
                    tracing::info!("idle; stopping as configured");
                    self.shutdown.cancel();
                    hand
                }
            };
        }
        let deadline = self.deadline.clone();
        let batch = async {
            if let Slot::Busy(batch) = hand {
                batch.await;
            }
        };
        // Dropping both at the end of the time is as safe as a crash.
        let _ = deadline.run_until_cancelled(futures::future::join(self.give_back(), batch)).await;
    }

    /// Gives every buffered message back to the queue.
    pub(super) async fn give_back(&mut self) {
        tracing::info!("stopping");
        let mut ids: Vec<_> =
            self.window.close().into_iter().flat_map(|window| window.messages).map(|message| message.id).collect();
        self.messages.close();
        while let Some(messages) = self.messages.recv().await {
            ids.extend(messages.into_iter().map(|message| message.id));
        }
        let given_back = ids.len();
        self.custody.release(ids, Duration::ZERO).await;
        tracing::info!(given_back, "buffered messages are back in the queue");
    }
}

/// What happens next to the worker.
enum Next {
    /// The batch under way has come to its end.
    Done(Box<Worker>),
    /// A batch of a silent owner was found while it is idle.
    Overdue(BatchNumber, Entry),
}

/// Waits for the batch under way, or, when there is none, for one to recover.
async fn next_of(hand: &mut Slot) -> Next {
    match hand {
        Slot::Busy(batch) => Next::Done(batch.await),
        Slot::Idle(worker) => match worker.overdue.recv().await {
            Some((batch, entry)) => Next::Overdue(batch, entry),
            None => std::future::pending().await,
        },
    }
}

/// Sleeps; for ever when there is nothing to wait for.
pub(super) async fn sleep_if(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
