//! The batch: one closed window from its claim to its commit, exactly once.
//!
//! [`Worker::process`] takes a closed window and makes one or more attempts at it. Before an attempt commits, nothing
//! of it can be seen and abandoning it costs nothing. After the commit, [`roll_forward`] carries out what the batch
//! decided. [`Worker::recover`] completes, or clears away, the batches of consumers that have died.
//!
//! A failure costs only the object that causes it:
//!
//! * An object that S3 does not return is left out of the batch and set aside, provided that S3 works otherwise.
//! * When an attempt fails twice, and not because of an outage, its objects are halved until the faulty one is left.
//! * An object with which several consumers have died is processed alone, and set aside when more of them die.
//! * During an outage the batch waits: nothing is set aside, and batches of other consumers are recovered meanwhile.
//!
//! | file | content |
//! |---|---|
//! | `mod.rs` | the worker, and the way of a window through its attempts |
//! | `groups.rs` | the objects that go into one attempt, and into the next one after a failure |
//! | `attempt.rs` | one attempt: open, claim, prepare, commit, roll forward |
//! | `claim.rs` | claiming objects, and setting those aside that cannot be in a batch |
//! | `definition.rs` | taking up the definition in force |
//! | [`company`] | other consumers of the queue, as the numbers of batches show them |
//! | [`prepare`] | reading the objects and writing, invisibly, everything that the batch will publish |
//! | [`manifest`] | the record of what a batch decided |
//! | [`roll_forward`] | everything after the commit |
//! | `abandon.rs` | abandoning a batch before its commit |
//! | `recovery.rs` | batches of silent owners |
//! | `heartbeat.rs` | renewing the lease of the batch at work |
//!
//! The tests are tests/pipeline, tests/chaos (crashes at every step) and tests/model (every interleaving of the
//! protocol).

mod abandon;
mod attempt;
mod claim;
pub mod company;
mod definition;
mod groups;
mod heartbeat;
pub mod manifest;
pub mod prepare;
mod recovery;
pub mod roll_forward;

use std::time::Duration;

use fail::fail_point;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::aws::pace::Pace;
use crate::aws::retry::Backoff;
use crate::batch::attempt::{BatchError, Work};
use crate::batch::company::Company;
use crate::batch::groups::Groups;
use crate::batch::prepare::{PreparationLimits, PrepareError};
use crate::batch::roll_forward::RollForward;
use crate::intake::custody::{Custody, MessageId};
use crate::intake::window::Closed;
use crate::process::ecs::ScaleInProtection;
use crate::protocol::{BatchNumber, Entry, InForce};
use crate::reference::CatalogueSource;
use crate::telemetry::batch_trace::BatchTrace;
use crate::telemetry::metrics::{label, metrics};

/// Objects set aside by one batch that are logged one by one; of the others the log has the number.
const LOGGED_ASIDE: usize = 10;

/// The state of one of a window's objects after an attempt, which decides what becomes of its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disposition {
    /// Archived, quarantined, gone, set aside, or finished by another batch: its messages can be deleted.
    Finished,
    /// Held by another consumer: its messages come back after a lease, and later each time.
    Elsewhere,
    /// Not processed, because the process stops: its messages come back at once.
    Undone,
}

/// Processes batches, one at a time.
pub struct Worker {
    /// Carries out batches after their commit.
    pub roll_forward: RollForward,
    /// Custody of the messages.
    pub custody: Custody,
    /// The definition in force, as this consumer knows it: that of the reports and of the catalogue.
    pub definition: InForce,
    /// The catalogue.
    pub catalogue: CatalogueSource,
    /// Bounds of a preparation.
    pub limits: PreparationLimits,
    /// The time for which an owner may be silent.
    pub lease: Duration,
    /// Batches of silent owners, as they are found.
    pub overdue: mpsc::Receiver<(BatchNumber, Entry)>,
    /// Bounds the calls for claims under way at once.
    pub claims: Pace,
    /// Other consumers of the queue.
    pub company: Company,
    /// Keeps ECS from stopping the task while a batch is committed and not done.
    pub protection: ScaleInProtection,
    /// Cancelled when the process is to stop: what is not committed is abandoned.
    pub shutdown: CancellationToken,
}

impl Worker {
    /// Processes a window, then deletes its messages or returns them to the queue.
    pub async fn process(&mut self, window: Closed) {
        let mut dispositions = vec![Disposition::Undone; window.objects.len()];
        self.company.begin_window();
        let mut groups = Groups::of_all(window.objects.len());
        let mut backoff = Backoff::default();
        while let Some(group) = groups.pending.pop() {
            // The notes of a failed attempt do not hold for the next one.
            group.positions.iter().for_each(|&position| dispositions[position] = Disposition::Undone);
            let work = Work { events: &window.objects, positions: &group.positions, unusable: &groups.unusable };
            match self.traced_attempt(work, &mut dispositions).await {
                Ok(alone) => groups.add_alone(alone),
                Err(BatchError::Prepare(PrepareError::Cancelled)) => break,
                Err(BatchError::Prepare(PrepareError::Spoiled { object, outcome })) => {
                    groups.retry_without(group, object, outcome);
                }
                Err(BatchError::Prepare(PrepareError::TooLarge(reason))) => groups.retry_smaller(group, reason),
                // The committed batch keeps its objects; their messages come back and are recognized as duplicates.
                Err(error @ BatchError::LeftCommitted(_)) => tracing::error!("{error}"),
                Err(error) => {
                    // The messages stay in custody meanwhile: each return to the queue would bring them closer to the
                    // dead-letter queue.
                    tracing::error!(objects = group.positions.len(), "batch failed: {error}; trying again");
                    groups.retry_after(group, error.may_be_of_an_object().then(|| error.to_string()));
                    // Meanwhile another batch can be recovered, and that may be what this one waits for.
                    if let Ok((batch, seen)) = self.overdue.try_recv() {
                        self.recover(batch, seen).await;
                    }
                    if !backoff.pause(&self.shutdown).await {
                        break;
                    }
                }
            }
        }
        self.settle_messages(&window, &dispositions).await;
        self.roll_forward.progress.clear();
    }

    /// Makes one attempt, with its trace. Returns the positions of objects that must be processed alone.
    async fn traced_attempt(
        &mut self,
        work: Work<'_>,
        dispositions: &mut [Disposition],
    ) -> Result<Vec<usize>, BatchError> {
        let mut stages = BatchTrace::begin("batch", None);
        let span = stages.log_span();
        let attempted = self.attempt(work, dispositions, &mut stages).instrument(span).await;
        if let Err(error) = &attempted {
            stages.failed(error);
            metrics().batches.add(1, &label("outcome", "failed"));
        }
        attempted
    }

    /// Deletes the messages all of whose objects are finished, and returns the others to the queue.
    async fn settle_messages(&self, window: &Closed, dispositions: &[Disposition]) {
        let (mut finished, mut elsewhere, mut undone) = (vec![], vec![], vec![]);
        for message in &window.messages {
            let has = |disposition| message.objects.iter().any(|&object| dispositions[object] == disposition);
            let messages: &mut Vec<MessageId> = if has(Disposition::Undone) {
                &mut undone
            } else if has(Disposition::Elsewhere) {
                &mut elsewhere
            } else {
                &mut finished
            };
            messages.push(message.id);
        }
        fail_point!("finished");
        self.custody.delete(finished).await;
        fail_point!("acknowledged");
        self.custody.defer(elsewhere, self.lease).await;
        self.custody.release(undone, Duration::ZERO).await;
    }
}
