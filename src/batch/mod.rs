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

pub mod manifest;
pub mod prepare;
pub mod roll_forward;

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use fail::fail_point;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::aws::error::{AwsError, Kind};
use crate::aws::pace::Pace;
use crate::aws::retry::{Backoff, retry_until};
use crate::aws::s3::{CONCURRENT_OBJECTS, READ_AHEAD_BYTES};
use crate::batch::manifest::{Fate, Manifest, ManifestObject};
use crate::batch::prepare::{Limits, Outcome, Plan, Preparation, PrepareError, Prepared};
use crate::batch::roll_forward::{CarriedOut, RollForward, RollForwardError};
use crate::calendar::date_of;
use crate::compute::Scope;
use crate::counts::Counts;
use crate::intake::custody::Custody;
use crate::intake::custody::MessageId;
use crate::intake::window::Closed;
use crate::layout::{self, KeyAllocator};
use crate::ledger::Claim;
use crate::ledger::aside::{Aside, What};
use crate::object::{ObjectEvent, ObjectId};
use crate::process::ecs::ScaleInProtection;
use crate::process::tasks;
use crate::protocol::{BatchNumber, DEATHS_BEFORE_ALONE, DEATHS_BEFORE_ASIDE, Entry, MAX_UNFINISHED, State};
use crate::reference::CatalogueSource;
use crate::telemetry::batch_trace::BatchTrace;
use crate::telemetry::metrics::{label, metrics};

/// How long a batch in preparation may take to end by itself when the process stops.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// Bodies that are opened ahead of their turn, while together they have fewer bytes in memory than this.
const OPEN_AHEAD: usize = 64;
const OPEN_AHEAD_BYTES: u64 = 4 << 20;
/// Beats within one lease.
const BEATS_PER_LEASE: u32 = 4;
/// Objects set aside by one batch that the log names one by one.
const NAMED: usize = 10;

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

/// What one attempt is about: some objects of a window.
#[derive(Clone, Copy)]
struct Work<'a> {
    events: &'a [ObjectEvent],
    /// Positions among the events.
    positions: &'a [usize],
    /// What earlier attempts found of objects that cannot be counted, or not be read.
    unusable: &'a HashMap<usize, Outcome>,
}

/// Why a batch did not come to its end.
#[derive(Debug, thiserror::Error)]
enum BatchError {
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error("the manifest of the batch cannot be written: {0}")]
    Manifest(serde_json::Error),
    #[error("S3 does not work for this consumer: {0}")]
    Outage(AwsError),
    #[error(
        "{MAX_UNFINISHED} batches are not finished, and no more are opened until some are; music-streams status shows them, and the \
         log of who recovers them says what keeps them"
    )]
    TooManyUnfinished,
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

impl BatchError {
    /// Whether it may be the fault of one of the objects, so that it pays to try fewer of them.
    fn may_be_of_an_object(&self) -> bool {
        match self {
            BatchError::Prepare(PrepareError::Aws(error)) => error.kind == Kind::Refused,
            BatchError::Prepare(PrepareError::Columnar(_) | PrepareError::Compute(_)) | BatchError::Manifest(_) => true,
            _ => false,
        }
    }
}

/// What was prepared.
struct Ready {
    manifest: Manifest,
    report_items: usize,
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
        self.roll_forward.progress.clear();
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

    /// One batch. Gives the objects that are to be worked on alone.
    async fn attempt(
        &mut self,
        work: Work<'_>,
        finishes: &mut [Disposition],
        stages: &mut BatchTrace,
    ) -> Result<Vec<usize>, BatchError> {
        let shutdown = self.shutdown.clone();
        self.roll_forward.progress.made();

        // Open.
        let opened = retry_until(&shutdown, async || self.roll_forward.ledger.open().await).await?;
        let Some(batch) = opened else { return Err(BatchError::TooManyUnfinished) };
        fail_point!("opened");
        stages.note("batch", batch);
        let heart = self.beat(batch);

        // Claim and prepare; until the commit, any failure gives the batch up.
        let (has_written, mut alone) = (Cell::new(false), Vec::new());
        let prepared = tokio::select! {
            prepared = self.claim_and_prepare(batch, work, finishes, &mut alone, &has_written, stages) => prepared,
            () = heart.evicted.cancelled() => {
                has_written.set(true);
                Err(BatchError::Evicted)
            }
            // It sees the stop by itself, between two calls. Cut off in one that begins an upload, nobody could abort that.
            () = async { shutdown.cancelled().await; tokio::time::sleep(STOP_GRACE).await } => {
                has_written.set(true);
                Err(PrepareError::Cancelled.into())
            }
        };
        let Ready { manifest, report_items } = match prepared {
            Ok(Some(ready)) => ready,
            // Every object belongs to another batch, was set aside, or is to be worked on alone.
            Ok(None) => {
                self.give_up(batch, has_written.get()).await;
                return Ok(alone);
            }
            Err(error) => {
                self.give_up(batch, has_written.get()).await;
                return Err(error);
            }
        };

        // Commit. An answer that does not come leaves it open what happened, so it is asked for until the very end.
        let RollForward { ledger, deadline, .. } = &self.roll_forward;
        match retry_until(deadline, async || ledger.commit(batch).await).await {
            Ok(true) => {}
            Ok(false) => {
                self.give_up(batch, true).await;
                return Err(BatchError::Evicted);
            }
            Err(error) => return Err(left_committed(work, &manifest, finishes, &[], error.into())),
        }

        fail_point!("committed");

        // Roll forward.
        stages.end("commit");
        let protected = self.protection.hold();
        let CarriedOut { settled, done } = self.roll_forward.carry_out(&manifest, false, stages).await;
        drop(protected);
        if let Err(error) = done {
            return Err(left_committed(work, &manifest, finishes, &settled, error));
        }
        finish(work, &settled, finishes, Disposition::Finished);
        tell(batch, &manifest, report_items, stages);
        Ok(alone)
    }

    async fn claim_and_prepare(
        &mut self,
        batch: BatchNumber,
        work: Work<'_>,
        finishes: &mut [Disposition],
        alone: &mut Vec<usize>,
        has_written: &Cell<bool>,
        stages: &mut BatchTrace,
    ) -> Result<Option<Ready>, BatchError> {
        let opened_at = jiff::Timestamp::now();
        let (won, mut unreadable) = self.claim(batch, work, finishes, alone).await?;
        if won.is_empty() && unreadable.is_empty() {
            return Ok(None);
        }
        fail_point!("claimed");
        stages.end("claim");

        let mut objects = Vec::with_capacity(won.len());
        let mut preparation = self.begin(batch, opened_at).await;
        let mut places = KeyAllocator::new(date_of(opened_at), batch);
        let bucket = self.roll_forward.bucket.clone();
        let (mut waiting, mut open, mut open_bytes) = (won.into_iter(), FuturesUnordered::new(), 0);
        let mut has_seen_s3_work = false;
        loop {
            while open.len() < OPEN_AHEAD
                && open_bytes < OPEN_AHEAD_BYTES
                && let Some(position) = waiting.next()
            {
                let event = &work.events[position];
                let body = (!work.unusable.contains_key(&position)).then(|| bucket.open(&event.object));
                open_bytes += event.size.min(READ_AHEAD_BYTES);
                open.push(async move {
                    match body {
                        Some(body) => (position, Some(body.await)),
                        None => (position, None),
                    }
                });
            }
            // In the order in which S3 gives them out.
            let Some((position, body)) = open.next().await else { break };
            let event = &work.events[position];
            open_bytes -= event.size.min(READ_AHEAD_BYTES);
            let outcome = match body {
                Some(body) => preparation.add(position, event, body).await,
                None => Ok(work.unusable[&position].clone()),
            };
            has_written.set(preparation.has_written());
            let fate = match outcome? {
                Outcome::Counted { rows, rejected } => {
                    let fate = Fate::Archived { to: places.archive(&event.object.key), rows, rejected };
                    if fate.is_suspect() {
                        let object = &event.object.key;
                        let told = match rows {
                            0 => "there is a header and no row".to_owned(),
                            _ => format!("{rejected} were rejected; quarantine/rows/ lists them with their reasons"),
                        };
                        tracing::warn!(batch, object, rows, rejected, "of {rows} rows of {object} {told}");
                    }
                    fate
                }
                Outcome::Bad(reason) => {
                    let to = places.quarantine(&event.object.key);
                    tracing::warn!(batch, object = event.object.key, to, "quarantined: {reason}");
                    Fate::Quarantined { to, reason: reason.to_string() }
                }
                Outcome::Gone => Fate::Gone,
                Outcome::Unreadable(reason) => {
                    if !std::mem::replace(&mut has_seen_s3_work, true) {
                        self.see_s3_work().await?;
                    }
                    unreadable.push((position, reason));
                    continue;
                }
            };
            let ObjectEvent { object, size, created_at } = event.clone();
            objects.push(ManifestObject { object, size, created_at, fate });
        }
        self.set_aside(batch, work, unreadable, finishes).await?;
        if objects.is_empty() {
            return Ok(None);
        }

        has_written.set(true);
        let Prepared { uploads, delta_files, report_items, rejected } = preparation.finish().await?;
        fail_point!("prepared");
        let traceparent = stages.traceparent();
        let manifest = Manifest { batch, opened_at, objects, uploads, delta_files, rejected, traceparent };
        let json = serde_json::to_vec(&manifest).map_err(BatchError::Manifest)?;
        let key = layout::manifest_key(batch);
        retry_until(&self.shutdown, async || bucket.put(&key, json.clone(), "application/json").await).await?;
        fail_point!("manifest written");
        stages.end("transform");
        Ok(Some(Ready { manifest, report_items }))
    }

    /// Claims the objects. Gives the positions of those that are this batch's, and of those that are to be set aside, each with
    /// the reason.
    async fn claim(
        &self,
        batch: BatchNumber,
        work: Work<'_>,
        finishes: &mut [Disposition],
        alone: &mut Vec<usize>,
    ) -> Result<(Vec<usize>, Vec<(usize, String)>), BatchError> {
        let (ledger, shutdown) = (&self.roll_forward.ledger, &self.shutdown);
        let judge = ledger.judge();
        let mut claims = futures::stream::iter(work.positions)
            .map(|&position| {
                let (event, judge) = (&work.events[position], &judge);
                let claim = async || self.claims.call(ledger.claim(event, batch, judge)).await;
                async move {
                    let claim = retry_until(shutdown, claim).await;
                    if let Ok(Claim::Won { .. }) = claim {
                        self.say_if_repeated(batch, event).await;
                    }
                    (position, claim)
                }
            })
            .buffered(CONCURRENT_OBJECTS);
        let (mut won, mut unusable) = (Vec::new(), Vec::new());
        while let Some((position, claim)) = claims.next().await {
            match claim {
                Ok(Claim::Won { deaths }) if deaths >= DEATHS_BEFORE_ASIDE => {
                    let reason =
                        format!("{deaths} consumers have died with it, half of them while they had nothing else");
                    unusable.push((position, reason));
                }
                Ok(Claim::Won { deaths }) if deaths >= DEATHS_BEFORE_ALONE && work.positions.len() > 1 => {
                    let object = &work.events[position].object;
                    tracing::warn!(batch, object = object.key, deaths, "consumers have died with it; worked on alone");
                    retry_until(shutdown, async || ledger.hand_back(object, batch).await).await?;
                    alone.push(position);
                }
                Ok(Claim::Won { .. }) => won.push(position),
                Ok(Claim::Duplicate) => {
                    metrics().objects.add(1, &label("outcome", "duplicate"));
                    finishes[position] = Disposition::Finished;
                }
                Ok(Claim::Aside) => finishes[position] = Disposition::Finished,
                Ok(Claim::Left) => finishes[position] = Disposition::Elsewhere,
                // The ledger cannot have this claim, or has one that nobody understands.
                Err(error) if error.kind == Kind::Refused => unusable.push((position, error.to_string())),
                Err(error) => return Err(error.into()),
            }
        }
        Ok((won, unusable))
    }

    /// Says so when another content of the same name and size was counted before. It counts again all the same: that is what its name, or
    /// its version, says.
    async fn say_if_repeated(&self, batch: BatchNumber, event: &ObjectEvent) {
        let ledger = &self.roll_forward.ledger;
        // What cannot be told now is no reason to wait.
        if let Ok(Some(earlier)) = self.claims.call(ledger.find_similar_claim(event)).await {
            let ObjectId { key, version, .. } = &event.object;
            tracing::warn!(
                batch,
                object = key,
                size = event.size,
                "{key} comes again as {version}: batch {earlier} had another content of the same name and size. \
                 If it was written again by mistake, write with If-None-Match: *"
            );
        }
    }

    async fn begin(&mut self, batch: BatchNumber, opened_at: jiff::Timestamp) -> Preparation {
        let catalogue = self.catalogue.latest().await;
        let plan = Plan { batch, opened_at, scope: Scope::Batch };
        let RollForward { bucket, progress, .. } = &self.roll_forward;
        Preparation::new(bucket.clone(), catalogue, plan, self.limits.clone(), self.shutdown.clone(), progress.clone())
    }

    /// Whether S3 works for us, so that an object which cannot be read is itself at fault.
    async fn see_s3_work(&self) -> Result<(), BatchError> {
        let RollForward { bucket, ledger, .. } = &self.roll_forward;
        bucket.probe(ledger.owner()).await.map_err(BatchError::Outage)
    }

    /// Sets objects of the batch aside that cannot be in it.
    async fn set_aside(
        &self,
        batch: BatchNumber,
        work: Work<'_>,
        objects: Vec<(usize, String)>,
        finishes: &mut [Disposition],
    ) -> Result<(), BatchError> {
        if objects.is_empty() {
            return Ok(());
        }
        // Seen after the last of them failed.
        self.see_s3_work().await?;
        let (ledger, shutdown, count) = (&self.roll_forward.ledger, &self.shutdown, objects.len());
        let mut done = futures::stream::iter(objects)
            .map(async |(position, reason)| {
                let event = &work.events[position];
                let until =
                    retry_until(shutdown, async || self.claims.call(ledger.set_aside(event, batch, &reason)).await);
                (position, until.await, reason)
            })
            .buffer_unordered(CONCURRENT_OBJECTS);
        let mut named = 0;
        while let Some((position, until, reason)) = done.next().await {
            let object = &work.events[position].object;
            match until {
                // Taken for dead meanwhile: it is whose it is now.
                Ok(None) => {
                    finishes[position] = Disposition::Elsewhere;
                    continue;
                }
                Ok(Some(until)) => {
                    if named < NAMED {
                        tracing::error!(
                            batch,
                            object = object.key,
                            %until,
                            "set aside: {reason} (music-streams aside lists it)"
                        );
                    }
                    named += 1;
                    metrics().set_aside.add(1, &label("what", "object"));
                }
                // Its claim cannot be written: it is listed all the same. The sweep finds it again while it lies there.
                Err(error) if error.kind == Kind::Refused => {
                    let ObjectEvent { object, size, created_at } = work.events[position].clone();
                    let what = What::Object { object, size, created_at, until: jiff::Timestamp::now(), times: 1 };
                    self.roll_forward.set_aside(vec![Aside::new(what, batch, &reason)]).await?;
                }
                Err(error) => return Err(error.into()),
            }
            finishes[position] = Disposition::Finished;
        }
        if count > NAMED {
            tracing::error!(batch, "set aside: {} more (music-streams aside lists them)", count - NAMED);
        }
        Ok(())
    }

    /// Gives up a batch of one's own before its commit. Best effort: what is left over, the next consumer clears away.
    async fn give_up(&self, batch: BatchNumber, has_written: bool) {
        fail_point!("given up");
        let ledger = &self.roll_forward.ledger;
        let cleared = match ledger.abandon_own(batch).await {
            Ok(true) => self.clear_away(batch, State::Abandoned, has_written).await,
            // Abandoned by another, who may have cleared away before the last of it was written.
            Ok(false) => match ledger.state_of(batch).await {
                Ok(Some(state)) if state.is_abandoned() => self.clear_away(batch, state, has_written).await,
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        if let Err(error) = cleared {
            tracing::warn!(batch, "{error}; the remains of this batch are cleared away after the lease");
        }
    }

    /// Removes what a batch that was given up had prepared, if it had, then the batch itself from the registry.
    async fn clear_away(&self, batch: BatchNumber, state: State, has_written: bool) -> Result<(), AwsError> {
        fail_point!("abandoned");
        if has_written {
            match self.remove_remains(batch).await {
                // Nobody sees them, and the bucket's lifecycle removes them: no reason to keep the batch listed.
                Err(error) if !error.kind.is_transient() => {
                    tracing::warn!(batch, "{error}; the remains of this batch are left to the bucket's lifecycle");
                }
                removed => removed?,
            }
        }
        fail_point!("cleared away");
        self.roll_forward.ledger.close(batch, state, "{}").await
    }

    async fn remove_remains(&self, batch: BatchNumber) -> Result<(), AwsError> {
        let bucket = &self.roll_forward.bucket;
        for prefix in [layout::CURATED, layout::QUARANTINED_ROWS] {
            bucket.abort_uploads(prefix, |key| layout::is_of_batch(key, batch)).await?;
        }
        bucket.delete_prefix(&layout::batch_prefix(batch)).await
    }

    /// Does what is left to do for a batch whose owner is silent.
    pub async fn recover(&mut self, batch: BatchNumber, seen: Entry) {
        let recovered = match seen.state {
            State::Open => self.abandon_or_finish(batch, &seen).await,
            State::Abandoned | State::Lost => {
                self.clear_away(batch, seen.state, true).await.map_err(RollForwardError::from)
            }
            State::Committed => match self.roll_forward.ledger.adopt(batch, &seen).await {
                Ok(true) => self.finish_adopted(batch, &seen).await,
                Ok(false) => Ok(()),
                Err(error) => Err(error.into()),
            },
            State::Done | State::Aside => Ok(()),
        };
        if let Err(error) = recovered {
            // An error each time: whoever looks at the log late must see it too.
            tracing::error!(batch, "the batch cannot be finished: {error}; trying again, ever more rarely");
        }
        self.roll_forward.progress.clear();
    }

    /// Whether a batch shows anything. An open one never does, unless the ledger is an older state of itself that was restored.
    async fn is_published(&self, batch: BatchNumber) -> Result<bool, AwsError> {
        let bucket = &self.roll_forward.bucket;
        let Some(manifest) = Manifest::find(bucket, batch).await? else { return Ok(false) };
        for upload in &manifest.uploads {
            if bucket.find(&upload.key).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn abandon_or_finish(&self, batch: BatchNumber, seen: &Entry) -> Result<(), RollForwardError> {
        let ledger = &self.roll_forward.ledger;
        if self.is_published(batch).await? {
            tracing::warn!(batch, "the ledger has forgotten that this batch was committed: it is published");
            return match ledger.commit_again(batch, seen).await? {
                true => self.finish_adopted(batch, seen).await,
                false => Ok(()),
            };
        }
        if ledger.abandon(batch, seen).await? {
            metrics().recoveries.add(1, &label("what", "abandoned"));
            tracing::warn!(batch, owner = seen.owner, "abandoned an open batch whose owner is silent");
            self.clear_away(batch, State::Lost, true).await?;
        }
        Ok(())
    }

    /// Finishes a batch that was just taken over.
    async fn finish_adopted(&self, batch: BatchNumber, seen: &Entry) -> Result<(), RollForwardError> {
        fail_point!("adopted");
        metrics().recoveries.add(1, &label("what", "adopted"));
        let RollForward { bucket, deadline, progress, .. } = &self.roll_forward;
        progress.made();
        tracing::warn!(batch, owner = seen.owner, "took over a committed batch whose owner is silent");
        let _heart = self.beat(batch);
        let key = layout::manifest_key(batch);
        let json = match retry_until(deadline, async || bucket.read_all(&key).await).await {
            Ok(json) => json,
            Err(error) if error.kind == Kind::NotFound => {
                return Ok(self.roll_forward.set_batch_aside(batch, &format!("its manifest {key} is gone")).await?);
            }
            Err(error) => return Err(error.into()),
        };
        let manifest: Manifest = match serde_json::from_slice(&json) {
            Ok(manifest) => manifest,
            Err(error) => {
                let reason = format!("its manifest {key} cannot be read: {error}");
                return Ok(self.roll_forward.set_batch_aside(batch, &reason).await?);
            }
        };
        self.roll_forward.keep(&manifest, &json).await?;
        let mut stages = BatchTrace::begin("batch recovery", manifest.traceparent.as_deref());
        stages.note("batch", batch);
        let span = stages.log_span();
        let finish = async {
            let _protected = self.protection.hold();
            let CarriedOut { done, .. } = self.roll_forward.carry_out(&manifest, true, &mut stages).await;
            done.inspect_err(|error| stages.failed(error))?;
            let Counts { objects, quarantined, rows, rejected, suspect, .. } = manifest.counts();
            tracing::info!(
                batch,
                objects,
                quarantined,
                rows,
                rejected,
                suspect,
                seconds = %stages,
                "batch done after recovery"
            );
            Ok(())
        };
        finish.instrument(span).await
    }

    fn beat(&self, batch: BatchNumber) -> Heartbeat {
        let evicted = CancellationToken::new();
        let (ledger, lease, told) = (self.roll_forward.ledger.clone(), self.lease, evicted.clone());
        let beating = tasks::spawn("heart", async move {
            loop {
                tokio::time::sleep(lease / BEATS_PER_LEASE).await;
                // A beat that hangs must not take the place of the next.
                match tokio::time::timeout(lease / BEATS_PER_LEASE, ledger.renew_lease(batch)).await {
                    Ok(Ok(true)) => {}
                    Ok(Ok(false)) => return told.cancel(),
                    Ok(Err(error)) => tracing::warn!(batch, "{error}; trying again"),
                    Err(_) => tracing::warn!(batch, "a beat was not answered in time; trying again"),
                }
            }
        });
        Heartbeat { evicted, _beating: AbortOnDropHandle::new(beating) }
    }
}

/// Beats for a batch until it is dropped.
struct Heartbeat {
    /// The batch is no longer this consumer's.
    evicted: CancellationToken,
    _beating: AbortOnDropHandle<()>,
}

/// Notes what has become of some of an attempt's objects.
fn finish(work: Work<'_>, objects: &[ObjectId], finishes: &mut [Disposition], finish: Disposition) {
    let objects: HashSet<&ObjectId> = objects.iter().collect();
    for &position in work.positions.iter().filter(|&&position| objects.contains(&work.events[position].object)) {
        finishes[position] = finish;
    }
}

/// A batch that stays committed for now: what is settled of it is finished, the rest whoever finishes the batch does.
fn left_committed(
    work: Work<'_>,
    manifest: &Manifest,
    finishes: &mut [Disposition],
    settled: &[ObjectId],
    error: RollForwardError,
) -> BatchError {
    let all: Vec<ObjectId> = manifest.objects.iter().map(|object| object.object.clone()).collect();
    finish(work, &all, finishes, Disposition::Elsewhere);
    finish(work, settled, finishes, Disposition::Finished);
    BatchError::LeftCommitted(error)
}

/// Says what a batch did, in one line and in its trace.
fn tell(batch: BatchNumber, manifest: &Manifest, report_items: usize, stages: &BatchTrace) {
    let counts = manifest.counts();
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
        suspect = counts.suspect,
        report_items,
        files = manifest.uploads.len(),
        seconds = %stages,
        lag_s = lag,
        "batch done"
    );
}
