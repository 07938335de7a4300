//! The flow: the window that fills, and the batch that runs beside it; or a compaction, when there is no batch.
//!
//! The tests are tests/pipeline and tests/chaos.

use std::time::{Duration, Instant};

use futures::future::LocalBoxFuture;
use tokio::sync::mpsc;

use crate::batch::Worker;
use crate::intake::custody::Custody;
use crate::intake::window::{Closed, Message, Window};
use crate::lake::compact::Compactor;
use crate::protocol::{BatchNumber, Entry};
use crate::service::table::{Commission, OfTable};
use crate::service::{Shutdown, unix_time};
use crate::telemetry::metrics::metrics;

/// The place of the worker, or of the batch that it is processing.
enum Slot {
    Idle(Box<Worker>),
    Busy(LocalBoxFuture<'static, Box<Worker>>),
}

impl Slot {
    fn process(mut worker: Box<Worker>, window: Closed) -> Self {
        Slot::Busy(Box::pin(async move {
            tracing::info!(objects = window.objects.len(), messages = window.messages.len(), "window closed");
            worker.process(window).await;
            worker
        }))
    }

    fn recover(mut worker: Box<Worker>, batch: BatchNumber, entry: Entry) -> Self {
        Slot::Busy(Box::pin(async move {
            worker.recover(batch, entry).await;
            worker
        }))
    }

    fn compact(worker: Box<Worker>, commission: Commission) -> Self {
        let compactor = Compactor {
            bucket: worker.roll_forward.bucket.clone(),
            memory: worker.limits.memory,
            order: worker.roll_forward.reports.plan().clustering(),
            shutdown: worker.shutdown.clone(),
        };
        Slot::Busy(Box::pin(async move {
            // Its keeper is gone if the process stops.
            let _ = commission.done.send(compactor.run(&commission.compaction).await);
            worker
        }))
    }

    /// Waits for the batch under way or, if there is none, for one to recover or files to compact.
    async fn next(&mut self, commissions: &mut mpsc::Receiver<Commission>) -> Next {
        match self {
            Slot::Busy(batch) => Next::Done(batch.await),
            Slot::Idle(worker) => tokio::select! {
                biased;
                Some((batch, entry)) = worker.overdue.recv() => Next::Overdue(batch, entry),
                Some(commission) = commissions.recv() => Next::Commission(commission),
                else => std::future::pending().await,
            },
        }
    }
}

/// The next event in the slot.
enum Next {
    /// The batch under way is finished.
    Done(Box<Worker>),
    /// A batch of a silent owner was found while the worker was idle.
    Overdue(BatchNumber, Entry),
    /// Files are to be compacted, and the worker was idle.
    Commission(Commission),
}

/// The window that fills, with its input and its output. The table's keeper ends when it is dropped.
pub(super) struct Flow {
    pub(super) window: Window,
    /// The offset of the windows that follow one with company; `None` if the offset never changes.
    pub(super) offset_with_company: Option<Duration>,
    pub(super) messages: mpsc::Receiver<Vec<Message>>,
    /// The time without messages and batches after which the process stops.
    pub(super) idle_limit: Option<Duration>,
    pub(super) custody: Custody,
    pub(super) table: OfTable,
    pub(super) shutdown: Shutdown,
}

impl Flow {
    /// Fills and processes windows until the process stops, then returns buffered messages and waits for the batch.
    pub(super) async fn run(mut self, worker: Box<Worker>) {
        let requested = self.shutdown.requested.clone();
        let mut slot = Slot::Idle(worker);
        let mut last_activity = Instant::now();
        // Windows and recoveries take turns: each waits for at most one of the other kind.
        let mut is_windows_turn = false;
        loop {
            let is_idle = matches!(slot, Slot::Idle(_));
            metrics().window_objects.record(self.window.objects() as u64, &[]);
            metrics().window_fill.record(self.window.fill(), &[]);
            let due_in = self.window.due_in(Instant::now());
            let is_due = due_in.is_some_and(|due_in| due_in.is_zero());
            let is_for_window = is_idle && is_due && is_windows_turn;
            let idle_for = match self.idle_limit {
                Some(limit) if is_idle && self.window.is_empty() => Some(limit.saturating_sub(last_activity.elapsed())),
                _ => None,
            };
            slot = tokio::select! {
                biased;
                () = requested.cancelled() => break,
                next = slot.next(&mut self.table.commissions), if !is_for_window => match (next, slot) {
                    (Next::Done(worker), _) => {
                        last_activity = Instant::now();
                        self.table.batch_ended.notify_one();
                        self.choose_offset(&worker);
                        Slot::Idle(worker)
                    }
                    (Next::Overdue(batch, entry), Slot::Idle(worker)) => {
                        is_windows_turn = true;
                        Slot::recover(worker, batch, entry)
                    }
                    (Next::Commission(commission), Slot::Idle(worker)) => {
                        is_windows_turn = true;
                        Slot::compact(worker, commission)
                    }
                    (Next::Overdue(..) | Next::Commission(_), busy) => busy,
                },
                () = sleep_if(due_in), if is_idle => match (slot, self.window.close()) {
                    (Slot::Idle(worker), Some(window)) => {
                        is_windows_turn = false;
                        Slot::process(worker, window)
                    }
                    (slot, _) => slot,
                },
                Some(messages) = self.messages.recv(), if !self.window.is_full() => {
                    last_activity = Instant::now();
                    self.fill(messages).await;
                    slot
                }
                () = sleep_if(idle_for) => {
                    tracing::info!("idle; stopping as configured");
                    requested.cancel();
                    slot
                }
            };
        }
        self.stop(slot).await;
    }

    /// Lets the next windows end at a moment of their own while other consumers share the queue, and on the clock
    /// otherwise.
    fn choose_offset(&mut self, worker: &Worker) {
        let Some(own) = self.offset_with_company else { return };
        let (offset, reason) = match worker.company.is_there() {
            true => (own, "as other consumers share the queue"),
            false => (Duration::ZERO, "as no other consumer shares the queue"),
        };
        if self.window.set_offset(offset) {
            tracing::info!("windows end {} after the clock, {reason}", humantime::format_duration(offset));
        }
    }

    /// Adds the messages of one receive call to the window. Those that no longer fit go back to the queue.
    async fn fill(&mut self, messages: Vec<Message>) {
        for message in messages {
            if let Err(message) = self.window.offer(message, unix_time(), Instant::now()) {
                self.custody.release(vec![message.id], Duration::ZERO).await;
            }
        }
    }

    /// Returns every buffered message and waits for the batch under way, until the deadline.
    async fn stop(mut self, slot: Slot) {
        let deadline = self.shutdown.deadline.clone();
        let batch = async {
            if let Slot::Busy(batch) = slot {
                batch.await;
            }
        };
        // Dropping both at the deadline is as safe as a crash.
        let _ = deadline.run_until_cancelled(futures::future::join(self.give_back(), batch)).await;
    }

    /// Returns every buffered message to the queue.
    async fn give_back(&mut self) {
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

/// Sleeps for the duration; forever if there is none.
async fn sleep_if(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
