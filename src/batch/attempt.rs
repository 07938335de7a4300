//! One attempt at a batch: open, claim, prepare, commit, roll forward.
//!
//! [`Worker::attempt`] reads top to bottom as the protocol. Until the commit, any failure abandons the batch; from the
//! commit on, it stays committed until somebody finishes it. The tests are tests/pipeline, tests/chaos and tests/model.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use fail::fail_point;
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::aws::error::{AwsError, Kind};
use crate::aws::retry::retry_until;
use crate::aws::s3::READ_AHEAD_BYTES;
use crate::batch::manifest::{Fate, Manifest, ManifestObject};
use crate::batch::prepare::{ObjectOutcome, Preparation, PrepareError, Prepared, Subject, Uploads};
use crate::batch::roll_forward::{CarriedOut, RollForward, RollForwardError};
use crate::batch::{Disposition, Worker};
use crate::calendar::date_of;
use crate::compute::Scope;
use crate::formats::delta::schema::Column;
use crate::layout::{self, KeyAllocator};
use crate::object::{ObjectEvent, ObjectId};
use crate::protocol::{BatchNumber, MAX_UNFINISHED};
use crate::telemetry::batch_trace::BatchTrace;

/// Time that a preparation has to end by itself when the process stops.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// Bodies that are opened ahead of their turn, as long as fewer bytes of them than the next constant are in memory.
const OPEN_AHEAD: usize = 64;
const OPEN_AHEAD_BYTES: u64 = 4 << 20;

/// The subject of one attempt: some objects of a window.
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    /// All objects of the window.
    pub(super) events: &'a [ObjectEvent],
    /// Positions, among them, of those to attempt.
    pub(super) positions: &'a [usize],
    /// Outcomes, known from earlier attempts, of objects that cannot be counted or read.
    pub(super) unusable: &'a HashMap<usize, ObjectOutcome>,
}

/// The error that ended an attempt.
#[derive(Debug, thiserror::Error)]
pub(super) enum BatchError {
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error("the manifest of the batch cannot be written: {0}")]
    Manifest(serde_json::Error),
    #[error("S3 does not work for this consumer: {0}")]
    Outage(AwsError),
    #[error(
        "{MAX_UNFINISHED} batches are unfinished, and no more are opened until some are finished; music-streams status \
         lists them, and the log of the consumer that recovers them says what holds them up"
    )]
    TooManyUnfinished,
    #[error("the definition in force cannot be used, and no batch is opened: {0}")]
    Definition(String),
    #[error("the batch was taken away from this consumer, which was silent for longer than the lease")]
    Evicted,
    #[error(
        "the batch is not committed: another definition has come into force, or it was taken away from this consumer, \
         which was silent for longer than the lease"
    )]
    NotCommitted,
    #[error("{0}; the batch stays committed, and a live consumer will finish it")]
    LeftCommitted(RollForwardError),
}

impl From<AwsError> for BatchError {
    fn from(error: AwsError) -> Self {
        BatchError::Prepare(error.into())
    }
}

impl BatchError {
    /// Returns true if one of the objects may have caused it, so that it is worth trying fewer of them.
    pub(super) fn may_be_of_an_object(&self) -> bool {
        match self {
            BatchError::Prepare(PrepareError::Aws(error)) => error.kind == Kind::Refused,
            BatchError::Prepare(PrepareError::Columnar(_) | PrepareError::Compute(_)) | BatchError::Manifest(_) => true,
            _ => false,
        }
    }
}

/// A batch that can be committed.
struct Ready {
    manifest: Manifest,
    report_items: usize,
}

impl Worker {
    /// Makes one attempt at a batch. Returns the positions of objects that must be processed alone.
    pub(super) async fn attempt(
        &mut self,
        work: Work<'_>,
        dispositions: &mut [Disposition],
        stages: &mut BatchTrace,
    ) -> Result<Vec<usize>, BatchError> {
        let shutdown = self.shutdown.clone();
        self.roll_forward.progress.made();

        // Open.
        let batch = self.open().await?;
        fail_point!("opened");
        self.company.opened(batch);
        stages.note("batch", batch);
        let heartbeat = self.start_heartbeat(batch);

        // Claim and prepare; until the commit, any failure abandons the batch.
        let (has_written, mut alone) = (Cell::new(false), Vec::new());
        let prepared = tokio::select! {
            prepared = self.claim_and_prepare(batch, work, dispositions, &mut alone, &has_written, stages) => prepared,
            () = heartbeat.evicted.cancelled() => {
                has_written.set(true);
                Err(BatchError::Evicted)
            }
            // The preparation notices the stop by itself, between two calls. If it were cut off in a call that creates
            // an upload, nobody could abort that upload.
            () = async { shutdown.cancelled().await; tokio::time::sleep(STOP_GRACE).await } => {
                has_written.set(true);
                Err(PrepareError::Cancelled.into())
            }
        };
        match prepared {
            Ok(Some(ready)) => self.commit_and_carry_out(batch, work, ready, dispositions, stages).await?,
            // Every object belongs to another batch, was set aside, or must be processed alone.
            Ok(None) => self.abandon_own(batch, has_written.get()).await,
            Err(error) => {
                self.abandon_own(batch, has_written.get()).await;
                return Err(error);
            }
        }
        Ok(alone)
    }

    /// Commits a prepared batch, and carries out what it decided.
    async fn commit_and_carry_out(
        &self,
        batch: BatchNumber,
        work: Work<'_>,
        ready: Ready,
        dispositions: &mut [Disposition],
        stages: &mut BatchTrace,
    ) -> Result<(), BatchError> {
        let Ready { manifest, report_items } = ready;
        let RollForward { ledger, deadline, .. } = &self.roll_forward;
        // While there is no answer it is unknown what happened, so the request is repeated until the deadline.
        match retry_until(deadline, async || ledger.commit(batch, &self.definition).await).await {
            Ok(true) => {}
            Ok(false) => {
                self.abandon_own(batch, true).await;
                return Err(BatchError::NotCommitted);
            }
            Err(error) => return Err(left_committed(work, &manifest, dispositions, &[], error.into())),
        }
        fail_point!("committed");
        stages.end("commit");

        let protected = self.protection.hold();
        let CarriedOut { settled, done } = self.roll_forward.carry_out(&manifest, false, stages).await;
        drop(protected);
        if let Err(error) = done {
            return Err(left_committed(work, &manifest, dispositions, &settled, error));
        }
        set_dispositions(work, &settled, dispositions, Disposition::Finished);
        log_done(batch, &manifest, report_items, stages);
        Ok(())
    }

    /// Claims the objects, reads them, and writes everything that the batch is going to publish, with its manifest.
    /// `None` if no object is left for the batch.
    async fn claim_and_prepare(
        &mut self,
        batch: BatchNumber,
        work: Work<'_>,
        dispositions: &mut [Disposition],
        alone: &mut Vec<usize>,
        has_written: &Cell<bool>,
        stages: &mut BatchTrace,
    ) -> Result<Option<Ready>, BatchError> {
        let subject = Subject { batch, opened_at: jiff::Timestamp::now(), scope: Scope::Batch };
        let (won, mut unreadable) = self.claim(batch, work, dispositions, alone).await?;
        if won.is_empty() && unreadable.is_empty() {
            return Ok(None);
        }
        fail_point!("claimed");
        stages.end("claim");

        let mut preparation = self.start_preparation(subject).await;
        let objects = self.read_objects(&mut preparation, subject, work, won, &mut unreadable, has_written).await?;
        self.set_aside(batch, work, unreadable, dispositions).await?;
        if objects.is_empty() {
            return Ok(None);
        }

        has_written.set(true);
        let Prepared { uploads, curated, delta_files, report_items, rejected } = preparation.finish().await?;
        fail_point!("prepared");
        let (opened_at, traceparent) = (subject.opened_at, stages.traceparent());
        let plan = self.roll_forward.reports.plan();
        let manifest = Manifest {
            batch,
            opened_at,
            definition: Some(plan.digest.clone()),
            objects,
            uploads,
            columns: plan.curated.iter().map(|curated| Column::of(&curated.column)).collect(),
            curated,
            delta_files,
            rejected,
            traceparent,
        };
        let json = serde_json::to_vec(&manifest).map_err(BatchError::Manifest)?;
        let (bucket, key) = (&self.roll_forward.bucket, layout::manifest_key(batch));
        retry_until(&self.shutdown, async || bucket.put(&key, json.clone(), "application/json").await).await?;
        fail_point!("manifest written");
        stages.end("transform");
        Ok(Some(Ready { manifest, report_items }))
    }

    async fn start_preparation(&mut self, subject: Subject) -> Preparation<Uploads> {
        let references = self.catalogue.latest().await;
        let RollForward { bucket, reports, progress, .. } = &self.roll_forward;
        let (bucket, plan, limits) = (bucket.clone(), Arc::clone(reports.plan()), self.limits.clone());
        Preparation::new(bucket, plan, references, subject, limits, self.shutdown.clone(), progress.clone())
    }

    /// Reads the objects into the preparation, in the order in which S3 returns them. Returns their fates, and adds
    /// those that S3 does not return to `unreadable`, each with the reason.
    async fn read_objects(
        &self,
        preparation: &mut Preparation<Uploads>,
        subject: Subject,
        work: Work<'_>,
        won: Vec<usize>,
        unreadable: &mut Vec<(usize, String)>,
        has_written: &Cell<bool>,
    ) -> Result<Vec<ManifestObject>, BatchError> {
        let bucket = &self.roll_forward.bucket;
        let mut objects = Vec::with_capacity(won.len());
        let mut keys = KeyAllocator::new(date_of(subject.opened_at), subject.batch);
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
            let Some((position, body)) = open.next().await else { return Ok(objects) };
            let event = &work.events[position];
            open_bytes -= event.size.min(READ_AHEAD_BYTES);
            let outcome = match body {
                Some(body) => preparation.add(position, event, body).await,
                None => Ok(work.unusable[&position].clone()),
            };
            has_written.set(preparation.has_written());
            match fate_of(outcome?, subject.batch, &event.object.key, &mut keys) {
                Ok(fate) => {
                    let ObjectEvent { object, size, created_at } = event.clone();
                    objects.push(ManifestObject { object, size, created_at, fate });
                }
                Err(reason) => {
                    if !std::mem::replace(&mut has_seen_s3_work, true) {
                        self.see_s3_work().await?;
                    }
                    unreadable.push((position, reason));
                }
            }
        }
    }
}

/// Decides the fate of an object, and logs one that somebody should look at. The error is the reason why S3 does not
/// return the object.
fn fate_of(outcome: ObjectOutcome, batch: BatchNumber, object: &str, keys: &mut KeyAllocator) -> Result<Fate, String> {
    match outcome {
        ObjectOutcome::Counted { rows, rejected, passed_over } => {
            let fate = Fate::Archived { to: keys.archive(object), rows, rejected, passed_over };
            if fate.is_suspect() {
                let finding = match rows {
                    0 => "there is a header and no row".to_owned(),
                    _ => format!("{rejected} were rejected; quarantine/rows/ lists them with their reasons"),
                };
                tracing::warn!(batch, object, rows, rejected, "of {rows} rows of {object} {finding}");
            }
            Ok(fate)
        }
        ObjectOutcome::Bad(reason) => {
            let to = keys.quarantine(object);
            tracing::warn!(batch, object, to, "quarantined: {reason}");
            Ok(Fate::Quarantined { to, reason: reason.to_string() })
        }
        ObjectOutcome::Gone => Ok(Fate::Gone),
        ObjectOutcome::Unreadable(reason) => Err(reason),
    }
}

/// Notes a disposition for some of an attempt's objects.
fn set_dispositions(work: Work<'_>, objects: &[ObjectId], dispositions: &mut [Disposition], disposition: Disposition) {
    let objects: HashSet<&ObjectId> = objects.iter().collect();
    for &position in work.positions.iter().filter(|&&position| objects.contains(&work.events[position].object)) {
        dispositions[position] = disposition;
    }
}

/// Notes that a batch stays committed for now: its settled objects are finished, the others belong to whoever finishes
/// it.
fn left_committed(
    work: Work<'_>,
    manifest: &Manifest,
    dispositions: &mut [Disposition],
    settled: &[ObjectId],
    error: RollForwardError,
) -> BatchError {
    let all: Vec<ObjectId> = manifest.objects.iter().map(|object| object.object.clone()).collect();
    set_dispositions(work, &all, dispositions, Disposition::Elsewhere);
    set_dispositions(work, settled, dispositions, Disposition::Finished);
    BatchError::LeftCommitted(error)
}

/// Logs the figures of a batch in one line, and adds them to its trace.
fn log_done(batch: BatchNumber, manifest: &Manifest, report_items: usize, stages: &BatchTrace) {
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
        passed_over = counts.passed_over,
        suspect = counts.suspect,
        report_items,
        files = manifest.uploads.len(),
        seconds = %stages,
        lag_s = lag,
        "batch done"
    );
}
