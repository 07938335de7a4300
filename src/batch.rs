//! The batch: one closed window from its claim to its end, exactly once.
//!
//! This file is the protocol carried out, and reads top to bottom: `attempt` opens, claims, prepares and commits;
//! `roll_forward` upserts, publishes, archives and finishes. Before the commit nothing can be seen and giving up
//! costs nothing; after it every step may be repeated by anyone, any number of times, and ends in the same state.
//! [`Worker::recover`] does for a dead consumer's batch what is left to do.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use fail::fail_point;
use futures::{StreamExt, TryStreamExt};
use opentelemetry::KeyValue;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::aws::{AwsError, Backoff, persist};
use crate::bucket::{Bucket, Moved, READ_AHEAD_BYTES};
use crate::catalogue::CatalogueSource;
use crate::compute::Scope;
use crate::ecs::ScaleInProtection;
use crate::event::{ObjectEvent, ObjectId};
use crate::health::Progress;
use crate::layout::{self, Places};
use crate::ledger::{Claim, Ledger};
use crate::manifest::{Counts, DeltaFileError, Fate, Manifest, ManifestObject};
use crate::metrics::{label, metrics};
use crate::protocol::{BatchNumber, Entry, State};
use crate::queue::Custody;
use crate::row::date_of;
use crate::stages::Stages;
use crate::transform::{Limits, Outcome, Plan, Preparation, PrepareError, Prepared};
use crate::upsert::{Reports, UpsertError};
use crate::window::{Closed, MessageId};

/// How long a batch in preparation may take to end by itself when the process stops.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// Calls for different objects under way at once: claims, copies, deletes. Small objects cost round trips and little else.
const CONCURRENT_OBJECTS: usize = 64;
/// Bodies that are opened ahead of their turn, while together they have fewer bytes in memory than this.
const OPEN_AHEAD: usize = 64;
const OPEN_AHEAD_BYTES: u64 = 4 << 20;
/// Beats within one lease.
const BEATS_PER_LEASE: u32 = 4;
/// When messages come back whose object S3 does not give out: rarely, as each return counts towards the dead-letter queue.
const UNREADABLE_OBJECT_DELAY: Duration = Duration::from_secs(1800);
/// When a message comes back that nobody can read: soon, so that it reaches the dead-letter queue soon.
pub const UNREADABLE_DELAY: Duration = Duration::from_secs(5);

/// What the window knows of one of its objects after a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finish {
    /// Archived, quarantined, gone, or finished by another batch: its messages can be deleted.
    Finished,
    /// Another consumer has it: its messages come back after a lease, and later each time.
    Elsewhere,
    /// S3 does not give it out: its messages come back much later.
    Unreadable,
    /// Not done, because the process stops: its messages come back at once.
    Undone,
}

/// What one attempt is about: some objects of a window.
struct Work<'a> {
    events: &'a [ObjectEvent],
    /// Positions among the events.
    positions: &'a [usize],
    /// What an earlier attempt found of objects that cannot be counted.
    unusable: &'a HashMap<usize, Outcome>,
}

/// Why a batch did not come to its end.
#[derive(Debug, thiserror::Error)]
enum BatchError {
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error("the manifest of the batch cannot be written: {0}")]
    Manifest(serde_json::Error),
    #[error("the batch was taken away from this consumer, which was silent for longer than the lease")]
    Evicted,
    #[error("{0}; it stays committed, and whoever lives finishes it")]
    LeftCommitted(RollForwardError),
}

impl From<AwsError> for BatchError {
    fn from(error: AwsError) -> Self {
        BatchError::Prepare(error.into())
    }
}

/// Why a roll forward stopped.
#[derive(Debug, thiserror::Error)]
enum RollForwardError {
    #[error(transparent)]
    Aws(#[from] AwsError),
    #[error(transparent)]
    Upsert(#[from] UpsertError),
    #[error(transparent)]
    DeltaFile(#[from] DeltaFileError),
    #[error("the manifest {key} cannot be read: {error}")]
    Manifest { key: String, error: serde_json::Error },
}

/// Carries out batches, one at a time.
pub struct Worker {
    /// The ledger.
    pub ledger: Ledger,
    /// The bucket.
    pub bucket: Bucket,
    /// The report tables.
    pub reports: Reports,
    /// Custody of the messages.
    pub custody: Custody,
    /// The catalogue.
    pub catalogue: CatalogueSource,
    /// Bounds of a preparation.
    pub limits: Limits,
    /// How long an owner may be silent.
    pub lease: Duration,
    /// Told of every step, so that a batch that stands still is seen.
    pub progress: Progress,
    /// Keeps the task while a batch is committed and not done.
    pub protection: ScaleInProtection,
    /// The process is about to stop: what is not committed is given up.
    pub stop: CancellationToken,
    /// The time to stop is up: what is committed is left to the next consumer.
    pub halt: CancellationToken,
}

impl Worker {
    /// Works off a window, and then acknowledges its messages or gives them back.
    pub async fn run(&mut self, window: Closed) {
        let mut finishes = vec![Finish::Undone; window.objects.len()];
        let mut unusable = HashMap::new();
        let mut backoff = Backoff::default();
        // Nearly always one batch. More when the objects together touch too many report items for one, or too large ones.
        let mut pending = vec![(0..window.objects.len()).collect::<Vec<_>>()];
        while let Some(objects) = pending.pop() {
            let work = Work { events: &window.objects, positions: &objects, unusable: &unusable };
            let mut stages = Stages::begin("batch", None);
            let span = stages.log_span();
            let attempted = self.attempt(&work, &mut finishes, &mut stages).instrument(span).await;
            if let Err(error) = &attempted {
                stages.failed(error);
                metrics().batches.add(1, &label("outcome", "failed"));
            }
            drop(stages);
            match attempted {
                Ok(()) => {}
                Err(BatchError::Prepare(PrepareError::Spoiled { object, outcome: Outcome::Unreadable(error) })) => {
                    tracing::error!(object = window.objects[object].object.key, "left out: {error}");
                    finishes[object] = Finish::Unreadable;
                    pending.push(objects.into_iter().filter(|&other| other != object).collect());
                }
                Err(BatchError::Prepare(PrepareError::Spoiled { object, outcome })) => {
                    unusable.insert(object, outcome);
                    pending.push(objects);
                }
                Err(BatchError::Prepare(PrepareError::TooLarge(reason))) => match objects.as_slice() {
                    [single] => {
                        unusable.insert(*single, Outcome::Bad(reason));
                        pending.push(objects);
                    }
                    several => {
                        let (first, second) = several.split_at(several.len() / 2);
                        pending.extend([second.to_vec(), first.to_vec()]);
                    }
                },
                Err(BatchError::Prepare(PrepareError::Cancelled)) => break,
                // Its objects are the committed batch's; their messages come back and are found to be duplicates.
                Err(error @ BatchError::LeftCommitted(_)) => {
                    tracing::error!("{error}");
                    objects.iter().for_each(|&object| finishes[object] = Finish::Elsewhere);
                }
                // The messages stay in custody meanwhile: every return to the queue would count towards the dead letters.
                Err(error) => {
                    tracing::error!(objects = objects.len(), "batch failed: {error}; trying again");
                    if !backoff.pause(&self.stop).await {
                        break;
                    }
                    pending.push(objects);
                }
            }
        }
        self.settle_messages(&window, &finishes).await;
        self.progress.rests();
    }

    /// A message is deleted when all its objects are finished, and only then.
    async fn settle_messages(&self, window: &Closed, finishes: &[Finish]) {
        let (mut finished, mut unreadable, mut elsewhere) = (vec![], vec![], vec![]);
        let (mut undone, mut kept) = (vec![], vec![]);
        for message in &window.messages {
            let of_message = |finish| message.objects.iter().any(|&object| finishes[object] == finish);
            let place: &mut Vec<MessageId> = if of_message(Finish::Undone) {
                &mut undone
            } else if of_message(Finish::Elsewhere) {
                &mut elsewhere
            } else if of_message(Finish::Unreadable) {
                &mut unreadable
            } else if message.keep {
                &mut kept
            } else {
                &mut finished
            };
            place.push(message.id);
        }
        fail_point!("finished");
        self.custody.delete(finished).await;
        fail_point!("acknowledged");
        self.custody.release(kept, UNREADABLE_DELAY).await;
        self.custody.release(unreadable, UNREADABLE_OBJECT_DELAY).await;
        self.custody.defer(elsewhere, self.lease).await;
        self.custody.release(undone, Duration::ZERO).await;
    }

    /// One batch.
    async fn attempt(
        &mut self,
        work: &Work<'_>,
        finishes: &mut [Finish],
        stages: &mut Stages,
    ) -> Result<(), BatchError> {
        let Work { events, positions, .. } = *work;
        let stop = self.stop.clone();
        self.progress.made();

        // Open.
        let batch = persist(&stop, async || self.ledger.open().await).await?;
        fail_point!("opened");
        stages.note("batch", batch);
        let opened_at = jiff::Timestamp::now();
        let heart = self.beat(batch);

        // Claim and prepare; until the commit, any failure gives the batch up.
        let prepared = tokio::select! {
            prepared = self.claim_and_prepare(batch, opened_at, work, finishes, stages) => prepared,
            () = heart.evicted.cancelled() => Err(BatchError::Evicted),
            // It sees the stop by itself, between two calls. Cut off in one that begins an upload, nobody could abort that.
            () = async { stop.cancelled().await; tokio::time::sleep(STOP_GRACE).await } => Err(PrepareError::Cancelled.into()),
        };
        let (manifest, report_items) = match prepared {
            Ok(Some(prepared)) => prepared,
            // Every object belongs to another batch.
            Ok(None) => {
                self.give_up(batch).await;
                return Ok(());
            }
            Err(error) => {
                self.give_up(batch).await;
                return Err(error);
            }
        };

        // Commit. An answer that does not come leaves it open what happened, so it is asked for until the very end.
        match persist(&self.halt, async || self.ledger.commit(batch).await).await {
            Ok(true) => {}
            Ok(false) => {
                self.give_up(batch).await;
                return Err(BatchError::Evicted);
            }
            Err(error) => return Err(BatchError::LeftCommitted(error.into())),
        }

        fail_point!("committed");

        // Roll forward.
        stages.end("commit");
        self.roll_forward(batch, &manifest, stages).await.map_err(BatchError::LeftCommitted)?;
        let done: HashSet<&ObjectId> = manifest.objects.iter().map(|object| &object.object).collect();
        for &position in positions.iter().filter(|&&position| done.contains(&events[position].object)) {
            finishes[position] = Finish::Finished;
        }
        let counts = Counts::of(&manifest);
        stages.note("objects", counts.objects);
        stages.note("rows", counts.rows);
        stages.note("report_items", report_items as u64);
        let lag = counts.oldest_created_at.map_or(0, |oldest| jiff::Timestamp::now().as_second() - oldest.as_second());
        tracing::info!(
            batch,
            objects = counts.objects,
            bytes = counts.bytes,
            quarantined = counts.quarantined,
            gone = counts.gone,
            rows = counts.rows,
            rejected = counts.rejected,
            report_items,
            files = manifest.uploads.len(),
            seconds = %stages,
            lag_s = lag,
            "batch done"
        );
        Ok(())
    }

    async fn claim_and_prepare(
        &mut self,
        batch: BatchNumber,
        opened_at: jiff::Timestamp,
        work: &Work<'_>,
        finishes: &mut [Finish],
        stages: &mut Stages,
    ) -> Result<Option<(Manifest, usize)>, BatchError> {
        let Work { events, positions, unusable } = *work;
        let claims: Vec<(usize, Claim)> = futures::stream::iter(positions)
            .map(|&position| {
                let (ledger, object) = (&self.ledger, &events[position].object);
                async move { ledger.claim(object, batch).await.map(|claim| (position, claim)) }
            })
            .buffered(CONCURRENT_OBJECTS)
            .try_collect()
            .await?;
        let mut won = Vec::new();
        for (position, claim) in claims {
            match claim {
                Claim::Won => won.push(position),
                Claim::Duplicate => {
                    metrics().objects.add(1, &label("outcome", "duplicate"));
                    finishes[position] = Finish::Finished;
                }
                Claim::Left => finishes[position] = Finish::Elsewhere,
            }
        }
        if won.is_empty() {
            return Ok(None);
        }
        fail_point!("claimed");
        stages.end("claim");

        let catalogue = self.catalogue.latest().await;
        let (bucket, limits, stop) = (self.bucket.clone(), self.limits.clone(), self.stop.clone());
        let plan = Plan { batch, opened_at, scope: Scope::Batch };
        let mut preparation = Preparation::new(bucket, catalogue, plan, limits, stop, self.progress.clone());
        let mut places = Places::new(date_of(opened_at), batch);
        let mut objects = Vec::with_capacity(won.len());
        let bucket = self.bucket.clone();
        let (mut waiting, mut open, mut open_bytes) = (won.into_iter(), VecDeque::new(), 0);
        loop {
            while open.len() < OPEN_AHEAD
                && open_bytes < OPEN_AHEAD_BYTES
                && let Some(position) = waiting.next()
            {
                let body = (!unusable.contains_key(&position)).then(|| bucket.read(&events[position].object));
                let bytes = events[position].size.min(READ_AHEAD_BYTES);
                open_bytes += bytes;
                open.push_back((position, body, bytes));
            }
            let Some((position, body, bytes)) = open.pop_front() else { break };
            open_bytes -= bytes;
            let event = &events[position];
            let outcome = match body {
                Some(body) => preparation.add(position, event, body).await?,
                None => unusable[&position].clone(),
            };
            let fate = match outcome.clone() {
                Outcome::Counted { rows, rejected } => {
                    Fate::Archived { to: places.archive(&event.object.key), rows, rejected }
                }
                Outcome::Bad(reason) => {
                    let to = places.quarantine(&event.object.key);
                    tracing::warn!(batch, object = event.object.key, to, "quarantined: {reason}");
                    Fate::Quarantined { to, reason: reason.to_string() }
                }
                Outcome::Gone => Fate::Gone,
                Outcome::Unreadable(_) => return Err(PrepareError::Spoiled { object: position, outcome }.into()),
            };
            let ObjectEvent { object, size, created_at } = event.clone();
            objects.push(ManifestObject { object, size, created_at, fate });
        }

        let Prepared { uploads, delta_files, report_items, rejected } = preparation.finish().await?;
        fail_point!("prepared");
        let traceparent = stages.traceparent();
        let manifest = Manifest { batch, opened_at, objects, uploads, delta_files, rejected, traceparent };
        let json = serde_json::to_vec(&manifest).map_err(BatchError::Manifest)?;
        self.bucket.put(&layout::manifest_key(batch), json, "application/json").await?;
        fail_point!("manifest written");
        stages.end("transform");
        Ok(Some((manifest, report_items)))
    }

    /// Gives up a batch of one's own before its commit. Best effort: what is left over, the next consumer clears away.
    async fn give_up(&self, batch: BatchNumber) {
        fail_point!("given up");
        let abandoned = self.ledger.abandon_own(batch).await;
        let cleared = match abandoned {
            Ok(true) => self.clear_away(batch).await,
            // Abandoned by another, who may have cleared away before the last of it was written.
            Ok(false) => match self.ledger.state_of(batch).await {
                Ok(Some(State::Abandoned)) => self.clear_away(batch).await,
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        if let Err(error) = cleared {
            tracing::warn!(batch, "{error}; the remains of this batch are cleared away after the lease");
        }
    }

    /// Removes what an abandoned batch had prepared, then the batch itself from the registry.
    async fn clear_away(&self, batch: BatchNumber) -> Result<(), AwsError> {
        fail_point!("abandoned");
        for prefix in [layout::CURATED, layout::QUARANTINED_ROWS] {
            self.bucket.abort_uploads(prefix, |key| layout::is_of_batch(key, batch)).await?;
        }
        self.bucket.delete_prefix(&layout::batch_prefix(batch)).await?;
        fail_point!("cleared away");
        self.ledger.close(batch, State::Abandoned, "{}").await
    }

    /// Does everything that the batch decided. May be repeated by anyone, any number of times. What may pass is tried again
    /// until the process must go; what may not ends it here, and the batch, which nobody beats for any more, is taken up
    /// again after the lease.
    async fn roll_forward(
        &self,
        batch: BatchNumber,
        manifest: &Manifest,
        stages: &mut Stages,
    ) -> Result<(), RollForwardError> {
        let halt = &self.halt;
        let _protected = self.protection.hold();

        // Upsert.
        let through = persist(halt, async || self.ledger.registry().await).await?.applied_through().min(batch - 1);
        for file in &manifest.delta_files {
            let bytes = persist(halt, async || self.bucket.read_all(&file.key).await).await?;
            self.reports.apply(batch, through, 0, file.decode(&bytes)?, halt).await?;
        }
        fail_point!("upserted");
        stages.end("upsert");
        observe_freshness(manifest);

        // Publish.
        futures::stream::iter(&manifest.uploads)
            .map(|upload| persist(halt, async || self.bucket.complete_upload(upload).await))
            .buffer_unordered(CONCURRENT_OBJECTS)
            .try_collect::<()>()
            .await?;
        fail_point!("published");
        stages.end("publish");

        // Archive. One object that cannot be moved does not keep the others.
        let put_away: Vec<Result<(), AwsError>> = futures::stream::iter(&manifest.objects)
            .map(|object| self.put_away(batch, object))
            .buffer_unordered(CONCURRENT_OBJECTS)
            .collect()
            .await;
        put_away.into_iter().collect::<Result<(), _>>()?;
        fail_point!("archived");
        stages.end("archive");

        // Finish.
        let summary = serde_json::to_string(&Counts::of(manifest)).unwrap_or_default();
        persist(halt, async || self.ledger.close(batch, State::Done, &summary).await).await?;
        observe_done(manifest);
        Ok(())
    }

    /// Moves one object to the archive or to quarantine.
    async fn put_away(&self, batch: BatchNumber, object: &ManifestObject) -> Result<(), AwsError> {
        let ManifestObject { object, size, fate, .. } = object;
        self.progress.made();
        let to = match fate {
            Fate::Archived { to, .. } => to,
            Fate::Quarantined { to, reason } => {
                let note = serde_json::json!({ "object": object, "size": size, "batch": batch, "reason": reason });
                let key = format!("{to}{}", layout::REASON_SUFFIX);
                let note = note.to_string().into_bytes();
                persist(&self.halt, async || self.bucket.put(&key, note.clone(), "application/json").await).await?;
                to
            }
            Fate::Gone => return persist(&self.halt, async || self.ledger.release(object, batch).await).await,
        };
        match persist(&self.halt, async || self.bucket.move_object(object, *size, to).await).await? {
            Moved::There => Ok(()),
            Moved::Lost => {
                tracing::warn!(
                    batch,
                    object = object.key,
                    "was replaced or deleted by its owner between reading and moving"
                );
                Ok(())
            }
        }
    }

    /// Does what is left to do for a batch whose owner is silent.
    pub async fn recover(&mut self, batch: BatchNumber, seen: Entry) {
        let recovered = match seen.state {
            State::Open => self.abandon_or_finish(batch, &seen).await,
            State::Abandoned => self.clear_away(batch).await.map_err(RollForwardError::from),
            State::Committed => match self.ledger.adopt(batch, &seen).await {
                Ok(true) => self.finish_adopted(batch, &seen).await,
                Ok(false) => Ok(()),
                Err(error) => Err(error.into()),
            },
            State::Done => Ok(()),
        };
        if let Err(error) = recovered {
            tracing::warn!(batch, "recovery did not succeed: {error}; trying again after the lease");
        }
        self.progress.rests();
    }

    /// Whether a batch shows anything. An open one never does, unless the ledger is an older state of itself that was restored.
    async fn is_published(&self, batch: BatchNumber) -> Result<bool, AwsError> {
        let Some(manifest) = Manifest::find(&self.bucket, batch).await? else { return Ok(false) };
        for upload in &manifest.uploads {
            if self.bucket.find(&upload.key).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn abandon_or_finish(&self, batch: BatchNumber, seen: &Entry) -> Result<(), RollForwardError> {
        if self.is_published(batch).await? {
            tracing::warn!(batch, "the ledger has forgotten that this batch was committed: it is published");
            return match self.ledger.commit_again(batch, seen).await? {
                true => self.finish_adopted(batch, seen).await,
                false => Ok(()),
            };
        }
        if self.ledger.abandon(batch, seen).await? {
            metrics().recoveries.add(1, &label("what", "abandoned"));
            tracing::warn!(batch, owner = seen.owner, "abandoned an open batch whose owner is silent");
            self.clear_away(batch).await?;
        }
        Ok(())
    }

    /// Finishes a batch that was just taken over.
    async fn finish_adopted(&self, batch: BatchNumber, seen: &Entry) -> Result<(), RollForwardError> {
        fail_point!("adopted");
        metrics().recoveries.add(1, &label("what", "adopted"));
        self.progress.made();
        tracing::warn!(batch, owner = seen.owner, "took over a committed batch whose owner is silent");
        let _heart = self.beat(batch);
        let key = layout::manifest_key(batch);
        let json = persist(&self.halt, async || self.bucket.read_all(&key).await).await?;
        let manifest: Manifest =
            serde_json::from_slice(&json).map_err(|error| RollForwardError::Manifest { key, error })?;
        let mut stages = Stages::begin("batch recovery", manifest.traceparent.as_deref());
        stages.note("batch", batch);
        let span = stages.log_span();
        let finish = async {
            self.roll_forward(batch, &manifest, &mut stages).await.inspect_err(|error| stages.failed(error))?;
            tracing::info!(batch, objects = manifest.objects.len(), seconds = %stages, "batch done after recovery");
            Ok(())
        };
        finish.instrument(span).await
    }

    fn beat(&self, batch: BatchNumber) -> Heart {
        let evicted = CancellationToken::new();
        let (ledger, lease, told) = (self.ledger.clone(), self.lease, evicted.clone());
        let beating = tokio::spawn(async move {
            loop {
                tokio::time::sleep(lease / BEATS_PER_LEASE).await;
                // A beat that hangs must not take the place of the next.
                match tokio::time::timeout(lease / BEATS_PER_LEASE, ledger.beat(batch)).await {
                    Ok(Ok(true)) => {}
                    Ok(Ok(false)) => return told.cancel(),
                    Ok(Err(error)) => tracing::warn!(batch, "{error}; trying again"),
                    Err(_) => tracing::warn!(batch, "a beat was not answered in time; trying again"),
                }
            }
        });
        Heart { evicted, _beating: AbortOnDropHandle::new(beating) }
    }
}

/// Beats for a batch until it is dropped.
struct Heart {
    /// The batch is no longer this consumer's.
    evicted: CancellationToken,
    _beating: AbortOnDropHandle<()>,
}

/// How old the objects are whose listens have just come into the reports.
fn observe_freshness(manifest: &Manifest) {
    let now = jiff::Timestamp::now();
    for object in &manifest.objects {
        if let (Fate::Archived { .. }, Some(created_at)) = (&object.fate, object.created_at) {
            let age = now.duration_since(created_at).as_secs_f64().max(0.0);
            metrics().freshness.record(age, &[]);
        }
    }
}

/// What a batch did. Counted at its end, so that what was tried several times counts once.
fn observe_done(manifest: &Manifest) {
    let counts = Counts::of(manifest);
    let metrics = metrics();
    metrics.batches.add(1, &label("outcome", "done"));
    metrics.objects.add(counts.archived, &label("outcome", "archived"));
    metrics.objects.add(counts.quarantined, &label("outcome", "quarantined"));
    metrics.objects.add(counts.gone, &label("outcome", "superseded"));
    metrics.object_bytes.add(counts.bytes, &[]);
    metrics.rows_read.add(counts.rows, &[]);
    metrics.rows_curated.add(counts.rows - counts.rejected, &[]);
    for (kind, count) in &manifest.rejected {
        metrics.rows_rejected.add(*count, &[KeyValue::new("reason", kind.clone())]);
    }
}
