//! One attempt at a batch: open, claim, prepare, commit, roll forward.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use fail::fail_point;
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::aws::error::{AwsError, Kind};
use crate::aws::retry::retry_until;
use crate::aws::s3::READ_AHEAD_BYTES;
use crate::batch::manifest::{Fate, Manifest, ManifestObject};
use crate::batch::prepare::{Outcome, Plan, Preparation, PrepareError, Prepared};
use crate::batch::roll_forward::{CarriedOut, RollForward, RollForwardError};
use crate::batch::{Disposition, Worker};
use crate::calendar::date_of;
use crate::compute::Scope;
use crate::layout::{self, KeyAllocator};
use crate::object::{ObjectEvent, ObjectId};
use crate::protocol::{BatchNumber, MAX_UNFINISHED};
use crate::telemetry::stages::BatchTrace;

/// How long a batch in preparation may take to end by itself when the process stops.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// Bodies that are opened ahead of their turn, while together they have fewer bytes in memory than this.
const OPEN_AHEAD: usize = 64;
const OPEN_AHEAD_BYTES: u64 = 4 << 20;

/// What one attempt is about: some objects of a window.
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    pub(super) events: &'a [ObjectEvent],
    /// Positions among the events.
    pub(super) positions: &'a [usize],
    /// What earlier attempts found of objects that cannot be counted, or not be read.
    pub(super) unusable: &'a HashMap<usize, Outcome>,
}

/// Why a batch did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum BatchError {
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
    pub(super) fn may_be_of_an_object(&self) -> bool {
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

impl Worker {
    /// One batch. Gives the objects that are to be worked on alone.
    pub(super) async fn attempt(
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

    pub(super) async fn begin(&mut self, batch: BatchNumber, opened_at: jiff::Timestamp) -> Preparation {
        let catalogue = self.catalogue.latest().await;
        let plan = Plan { batch, opened_at, scope: Scope::Batch };
        let RollForward { bucket, progress, .. } = &self.roll_forward;
        Preparation::new(bucket.clone(), catalogue, plan, self.limits.clone(), self.shutdown.clone(), progress.clone())
    }
}

/// Notes what has become of some of an attempt's objects.
pub(super) fn finish(work: Work<'_>, objects: &[ObjectId], finishes: &mut [Disposition], finish: Disposition) {
    let objects: HashSet<&ObjectId> = objects.iter().collect();
    for &position in work.positions.iter().filter(|&&position| objects.contains(&work.events[position].object)) {
        finishes[position] = finish;
    }
}

/// A batch that stays committed for now: what is settled of it is finished, the rest whoever finishes the batch does.
pub(super) fn left_committed(
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
pub(super) fn tell(batch: BatchNumber, manifest: &Manifest, report_items: usize, stages: &BatchTrace) {
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
