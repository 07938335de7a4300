//! The batch: one closed window from its claim to its commit, exactly once.
//!
//! This file is the protocol carried out up to the commit, and reads top to bottom: `attempt` opens, claims, prepares and
//! commits; [`crate::batch::roll_forward`] does what was decided. Before the commit nothing can be seen and giving up costs nothing.
//! [`Worker::recover`] does for a dead consumer's batch what is left to do.
//!
//! What is refused here costs only itself:
//!
//! * An object that S3 does not give out is left out of the attempt and set aside, while S3 works for us otherwise.
//! * What fails the same way twice, and by no outage, is halved until the one object is left that is at fault.
//! * An object with which several consumers have died is worked on alone, and set aside when more die with it.
//! * An outage is waited for: nothing is set aside, and batches of others are recovered meanwhile.

mod attempt;
mod claim;
mod heartbeat;
pub mod manifest;
pub mod prepare;
mod recovery;
pub mod roll_forward;

use std::collections::HashMap;
use std::time::Duration;

use fail::fail_point;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::aws::pace::Pace;
use crate::aws::retry::Backoff;
use crate::aws::sqs::Custody;
use crate::aws::sqs::MessageId;
use crate::batch::attempt::{BatchError, Work};
use crate::batch::prepare::{Limits, Outcome, PrepareError};
use crate::batch::roll_forward::RollForward;
use crate::intake::window::Closed;
use crate::process::ecs::ScaleInProtection;
use crate::protocol::{BatchNumber, Entry};
use crate::reference::catalogue::CatalogueSource;
use crate::telemetry::metrics::{label, metrics};
use crate::telemetry::stages::BatchTrace;

/// What the window knows of one of its objects after a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disposition {
    /// Archived, quarantined, gone, set aside, or finished by another batch: its messages can be deleted.
    Finished,
    /// Another consumer has it: its messages come back after a lease, and later each time.
    Elsewhere,
    /// Not done, because the process stops: its messages come back at once.
    Undone,
}

/// Objects of a window that are to be in one batch.
#[derive(Debug)]
struct Group {
    /// Positions among the window's objects.
    positions: Vec<usize>,
    /// What the last attempt failed with, if it is of what may be an object's fault.
    failure: Option<String>,
}

impl Group {
    fn of(positions: Vec<usize>) -> Self {
        Group { positions, failure: None }
    }

    /// Both halves.
    fn halves(self) -> [Group; 2] {
        let (first, second) = self.positions.split_at(self.positions.len() / 2);
        [Group::of(second.to_vec()), Group::of(first.to_vec())]
    }
}

/// Carries out batches, one at a time.
pub struct Worker {
    /// What is done after the commit, and with what.
    pub roll_forward: RollForward,
    /// Custody of the messages.
    pub custody: Custody,
    /// The catalogue.
    pub catalogue: CatalogueSource,
    /// Bounds of a preparation.
    pub limits: Limits,
    /// How long an owner may be silent.
    pub lease: Duration,
    /// Batches of silent owners, as they are found.
    pub overdue: mpsc::Receiver<(BatchNumber, Entry)>,
    /// Bounds the claims under way at once.
    pub claims: Pace,
    /// Keeps the task while a batch is committed and not done.
    pub protection: ScaleInProtection,
    /// The process is about to stop: what is not committed is given up.
    pub shutdown: CancellationToken,
}

impl Worker {
    /// Works off a window, and then acknowledges its messages or gives them back.
    pub async fn run(&mut self, window: Closed) {
        let mut finishes = vec![Disposition::Undone; window.objects.len()];
        let mut unusable = HashMap::new();
        let mut backoff = Backoff::default();
        // Nearly always one batch. More when the objects are too much for one, or when one of them is at fault.
        let mut groups = vec![Group::of((0..window.objects.len()).collect())];
        while let Some(mut group) = groups.pop() {
            // What an attempt that failed has noted says nothing of the next.
            group.positions.iter().for_each(|&position| finishes[position] = Disposition::Undone);
            let work = Work { events: &window.objects, positions: &group.positions, unusable: &unusable };
            let mut stages = BatchTrace::begin("batch", None);
            let span = stages.log_span();
            let attempted = self.attempt(work, &mut finishes, &mut stages).instrument(span).await;
            if let Err(error) = &attempted {
                stages.failed(error);
                metrics().batches.add(1, &label("outcome", "failed"));
            }
            drop(stages);
            let error = match attempted {
                Ok(alone) => {
                    groups.extend(alone.into_iter().map(|position| Group::of(vec![position])));
                    continue;
                }
                Err(BatchError::Prepare(PrepareError::Cancelled)) => break,
                Err(BatchError::Prepare(PrepareError::Spoiled { object, outcome })) => {
                    unusable.insert(object, outcome);
                    groups.push(group);
                    continue;
                }
                Err(BatchError::Prepare(PrepareError::TooLarge(reason))) => {
                    match group.positions[..] {
                        [single] => {
                            unusable.insert(single, Outcome::Bad(reason));
                            groups.push(group);
                        }
                        _ => groups.extend(group.halves()),
                    }
                    continue;
                }
                // Its objects are the committed batch's; their messages come back and are found to be duplicates.
                Err(error @ BatchError::LeftCommitted(_)) => {
                    tracing::error!("{error}");
                    continue;
                }
                Err(error) => error,
            };
            // The messages stay in custody meanwhile: every return to the queue would count towards the dead letters.
            tracing::error!(objects = group.positions.len(), "batch failed: {error}; trying again");
            let failure = error.may_be_of_an_object().then(|| error.to_string());
            match (&failure, &group.positions[..]) {
                // The same again, and no outage: one of the objects is at fault.
                (Some(failure), &[single]) if group.failure.is_some() => {
                    unusable.insert(single, Outcome::Unreadable(failure.clone()));
                    group.failure = None;
                    groups.push(group);
                }
                (Some(_), _) if group.failure.is_some() => groups.extend(group.halves()),
                _ => {
                    group.failure = failure;
                    groups.push(group);
                }
            }
            // Who waits for a service can bring others' batches to their end meanwhile, which may be what is waited for.
            if let Ok((batch, seen)) = self.overdue.try_recv() {
                self.recover(batch, seen).await;
            }
            if !backoff.pause(&self.shutdown).await {
                break;
            }
        }
        self.settle_messages(&window, &finishes).await;
        self.roll_forward.progress.rests();
    }

    /// A message is deleted when all its objects are finished, and only then.
    async fn settle_messages(&self, window: &Closed, finishes: &[Disposition]) {
        let (mut finished, mut elsewhere, mut undone) = (vec![], vec![], vec![]);
        for message in &window.messages {
            let of_message = |finish| message.objects.iter().any(|&object| finishes[object] == finish);
            let place: &mut Vec<MessageId> = if of_message(Disposition::Undone) {
                &mut undone
            } else if of_message(Disposition::Elsewhere) {
                &mut elsewhere
            } else {
                &mut finished
            };
            place.push(message.id);
        }
        fail_point!("finished");
        self.custody.delete(finished).await;
        fail_point!("acknowledged");
        self.custody.defer(elsewhere, self.lease).await;
        self.custody.release(undone, Duration::ZERO).await;
    }
}
