//! Roll forward: everything that a committed batch decided, done by whoever gets to it.
//!
//! Three steps, each of which may be repeated by anyone, any number of times, and ends in the same state: the reports get the
//! batch's figures, its files are published, its objects are put away. None waits for what another is refused. A thing that is
//! refused for good, an item, an upload or an object, is set aside by itself ([`crate::ledger::aside`]), and the batch comes to its end
//! without it. A service that refuses everything is an outage: the batch stays committed and is taken up again later.

use std::sync::Mutex;
use std::time::Duration;

use fail::fail_point;
use futures::{StreamExt, TryStreamExt};
use opentelemetry::KeyValue;
use tokio_util::sync::CancellationToken;

use crate::aws::error::{AwsError, Kind};
use crate::aws::retry::{Backoff, retry_until};
use crate::aws::s3::{Bucket, CONCURRENT_OBJECTS, Copied, Upload};
use crate::batch::manifest::{DeltaFile, DeltaFileError, Fate, Manifest, ManifestObject, Note};
use crate::layout;
use crate::ledger::Ledger;
use crate::ledger::aside::{Aside, What};
use crate::object::ObjectId;
use crate::protocol::{BatchNumber, State};
use crate::reports::figures::{Delta, Key, Report};
use crate::reports::store::{Outcome, Reports};
use crate::telemetry::metrics::{label, metrics};
use crate::telemetry::progress::Progress;
use crate::telemetry::stages::BatchTrace;

/// Tries of a move that is refused, before the object is left where it is.
const MOVE_TRIES: usize = 3;
/// Items of one report, all of which are refused, that mean that the table is not what it should be.
const REFUSED_BY_THE_TABLE: usize = 20;
/// Entries of the list of what is set aside that are written at the same time.
const CONCURRENT_ENTRIES: usize = 16;
/// Things set aside by one batch that the log names one by one.
const NAMED: usize = 10;
/// Age of a batch from which on what it needs is kept from expiring, and how often: claims expire after 15 days, and what lies
/// under `batches/` after 31.
const KEPT_FROM: Duration = Duration::from_secs(7 * 86_400);
const KEPT_EVERY: Duration = Duration::from_secs(86_400);
/// After so long the bucket's lifecycle aborts uploads that are not completed.
const UPLOADS_LAST: Duration = Duration::from_secs(60 * 86_400);

/// Why a roll forward did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum RollForwardError {
    /// A service does not work for us, or the process must go.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// A table takes none of its items.
    #[error(
        "{table} refuses all of {count} items: {reason}; compare it with the template, and the batch goes on by itself"
    )]
    TableRefuses {
        /// Its name.
        table: String,
        /// How many.
        count: usize,
        /// What was said of the first.
        reason: String,
    },
}

/// Carries out committed batches.
#[derive(Debug, Clone)]
pub struct RollForward {
    /// The ledger.
    pub ledger: Ledger,
    /// The bucket.
    pub bucket: Bucket,
    /// The report tables.
    pub reports: Reports,
    /// Told of every step.
    pub progress: Progress,
    /// What may pass is tried again until then.
    pub deadline: CancellationToken,
}

/// How far a batch came.
#[derive(Debug)]
pub struct CarriedOut {
    /// The objects that are where they should be, or set aside: their messages can be deleted.
    pub settled: Vec<ObjectId>,
    /// Whether all of it is done, and the batch closed.
    pub done: Result<(), RollForwardError>,
}

impl RollForward {
    /// Does everything that the batch decided. `is_repeated` when somebody may have done some of it before.
    pub async fn carry_out(&self, manifest: &Manifest, is_repeated: bool, stages: &mut BatchTrace) -> CarriedOut {
        let reported = self.report(manifest).await;
        if reported.is_ok() {
            fail_point!("upserted");
            observe_freshness(manifest);
        }
        stages.end("upsert");

        let published = self.publish(manifest).await;
        fail_point!("published");
        stages.end("publish");

        let (settled, put_away) = self.put_all_away(manifest, is_repeated).await;
        fail_point!("archived");
        stages.end("archive");

        let done = async {
            reported?;
            published?;
            put_away?;
            let summary = serde_json::to_string(&manifest.counts()).unwrap_or_default();
            retry_until(&self.deadline, async || self.ledger.close(manifest.batch, State::Done, &summary).await)
                .await?;
            observe_done(manifest);
            Ok(())
        };
        let done = done.await;
        CarriedOut { settled, done }
    }

    // ------------------------------------------------------------------------------------------ reports

    async fn report(&self, manifest: &Manifest) -> Result<(), RollForwardError> {
        let (batch, deadline) = (manifest.batch, &self.deadline);
        let registry = retry_until(deadline, async || self.ledger.registry().await).await?;
        let through = registry.applied_through().min(batch - 1);
        for file in &manifest.delta_files {
            match self.deltas(file).await? {
                Ok(deltas) => {
                    let changes = self.reports.apply(batch, through, 0, &deltas, deadline).await?;
                    self.set_refused_items_aside(batch, changes.items).await?;
                    let lists = changes.refused_lists.iter();
                    let entries = lists.map(|(list, reason)| Aside::top_list(list, batch, reason)).collect();
                    self.set_aside(entries).await?;
                }
                Err(error) => {
                    let what = What::Batch { key: file.key.clone() };
                    self.set_aside(vec![Aside::new(what, batch, &error.to_string())]).await?;
                }
            }
        }
        Ok(())
    }

    /// The deltas of a file; the inner error when it is gone or damaged.
    pub async fn deltas(&self, file: &DeltaFile) -> Result<Result<Vec<Delta>, DeltaFileError>, AwsError> {
        match retry_until(&self.deadline, async || self.bucket.read_all(&file.key).await).await {
            Ok(bytes) => Ok(file.decode(&bytes)),
            Err(error) if error.kind == Kind::NotFound => Ok(Err(file.gone())),
            Err(error) => Err(error),
        }
    }

    async fn set_refused_items_aside(
        &self,
        batch: BatchNumber,
        outcomes: Vec<(Key, Outcome)>,
    ) -> Result<(), RollForwardError> {
        for report in Report::ALL {
            let of_report = outcomes.iter().filter(|(key, _)| key.report == report);
            let (mut refused, mut count) = (Vec::new(), 0);
            for (key, outcome) in of_report {
                count += 1;
                if let Outcome::Refused(reason) = outcome {
                    refused.push((key, reason));
                }
            }
            if let [(_, reason), ..] = refused[..]
                && refused.len() == count
                && count >= REFUSED_BY_THE_TABLE
            {
                let table = self.reports.table(report);
                return Err(RollForwardError::TableRefuses { table, count, reason: reason.clone() });
            }
            let entries = refused.into_iter().map(|(key, reason)| Aside::item(key, batch, reason)).collect();
            self.set_aside(entries).await?;
        }
        Ok(())
    }

    // ------------------------------------------------------------------------------------------ publish

    /// Publishes every upload that may be; the first error of those that an outage keeps.
    pub async fn publish(&self, manifest: &Manifest) -> Result<(), AwsError> {
        let publish = |upload: &Upload| {
            let upload = upload.clone();
            async move {
                let reason =
                    match retry_until(&self.deadline, async || self.bucket.complete_upload(&upload).await).await {
                        Ok(true) => return Ok(()),
                        Ok(false) if age_of(manifest) < UPLOADS_LAST => {
                            tracing::warn!(
                                batch = manifest.batch,
                                key = upload.key,
                                "was published before, and somebody has taken it away since"
                            );
                            return Ok(());
                        }
                        Ok(false) => "its parts have expired".to_owned(),
                        Err(error) if error.kind == Kind::Refused => error.to_string(),
                        Err(error) => return Err(error),
                    };
                let what = What::Upload { upload: upload.clone() };
                self.set_aside(vec![Aside::new(what, manifest.batch, &reason)]).await
            }
        };
        let published: Vec<Result<(), AwsError>> = futures::stream::iter(&manifest.uploads)
            .map(publish)
            .buffer_unordered(CONCURRENT_OBJECTS)
            .inspect(|_| self.progress.made())
            .collect()
            .await;
        published.into_iter().collect()
    }

    // ------------------------------------------------------------------------------------------ archive

    /// Puts every object away that may be; those that are settled, and the first error of those that an outage keeps.
    pub async fn put_all_away(&self, manifest: &Manifest, is_repeated: bool) -> (Vec<ObjectId>, Result<(), AwsError>) {
        // Once it is an outage, the others need not find that out one by one.
        let outage = Mutex::new(None);
        let is_out = || outage.lock().is_ok_and(|outage| outage.is_some());
        let settled = futures::stream::iter(&manifest.objects)
            .map(async |object| {
                if is_out() {
                    return None;
                }
                match self.put_away(manifest.batch, object, is_repeated).await {
                    Ok(()) => Some(object.object.clone()),
                    Err(error) => {
                        if let Ok(mut outage) = outage.lock() {
                            outage.get_or_insert(error);
                        }
                        None
                    }
                }
            })
            .buffer_unordered(CONCURRENT_OBJECTS)
            .filter_map(std::future::ready)
            .collect()
            .await;
        let outage = outage.into_inner().unwrap_or(None);
        (settled, outage.map_or(Ok(()), Err))
    }

    /// Moves one object to the archive or to quarantine; one that cannot be moved is left where it is and set aside.
    async fn put_away(&self, batch: BatchNumber, object: &ManifestObject, is_repeated: bool) -> Result<(), AwsError> {
        let ManifestObject { object, size, fate, .. } = object;
        self.progress.made();
        let (to, reason) = match fate {
            Fate::Archived { to, .. } => (to, None),
            Fate::Quarantined { to, reason } => (to, Some(reason)),
            Fate::Gone => return retry_until(&self.deadline, async || self.ledger.release(object, batch).await).await,
        };
        let mut backoff = Backoff::default();
        let mut refusal = None;
        for attempt in 1..=MOVE_TRIES {
            match self.move_away(batch, object, *size, to, reason, is_repeated || attempt > 1).await {
                Ok(()) => return Ok(()),
                Err(error) if error.kind.is_transient() || !error.kind.may_be_of_the_thing() => return Err(error),
                Err(error) => refusal = Some(error),
            }
            if !backoff.pause(&self.deadline).await {
                break;
            }
        }
        let Some(refusal) = refusal else { return Ok(()) };
        if self.deadline.is_cancelled() {
            return Err(refusal);
        }
        // If S3 works for us otherwise, the fault is of this object.
        retry_until(&self.deadline, async || self.bucket.probe(self.ledger.owner()).await).await?;
        let (object, to, quarantined) = (object.clone(), to.clone(), reason.cloned());
        let what = What::Original { object, size: *size, to, quarantined };
        self.set_aside(vec![Aside::new(what, batch, &refusal.to_string())]).await
    }

    /// Moves an object to its place, with the reason beside it if it goes to quarantine. May be repeated.
    pub async fn move_away(
        &self,
        batch: BatchNumber,
        object: &ObjectId,
        size: u64,
        to: &str,
        reason: Option<&String>,
        is_repeated: bool,
    ) -> Result<(), AwsError> {
        let deadline = &self.deadline;
        if let Some(reason) = reason {
            // Done before, to its end: what lies there now was put there again since, and is another batch's to judge.
            if is_repeated && !retry_until(deadline, async || self.ledger.is_held_by(object, batch).await).await? {
                return Ok(());
            }
            let note = Note { object: object.clone(), size, batch, reason: reason.clone() };
            let key = format!("{to}{}", layout::REASON_SUFFIX);
            let note = serde_json::json!(note).to_string().into_bytes();
            retry_until(deadline, async || self.bucket.put(&key, note.clone(), "application/json").await).await?;
        }
        let made_progress = || self.progress.made();
        let mut may_be_there = is_repeated;
        let copied = retry_until(deadline, async || {
            let copied = self.bucket.copy_exactly(object, size, to, may_be_there, &made_progress).await;
            may_be_there = true;
            copied
        });
        match copied.await? {
            Copied::There => {
                fail_point!("copied");
                retry_until(deadline, async || self.bucket.delete_exactly(object).await).await?;
                fail_point!("deleted");
            }
            Copied::Moved => {}
            Copied::Lost => tracing::warn!(
                batch,
                object = object.key,
                "was replaced or deleted by its owner between reading and moving"
            ),
        }
        if reason.is_some() {
            retry_until(deadline, async || self.ledger.release_quarantined(object, batch).await).await?;
        }
        Ok(())
    }

    // ------------------------------------------------------------------------------------------ set aside

    /// Lists things as set aside, and says so.
    pub async fn set_aside(&self, entries: Vec<Aside>) -> Result<(), AwsError> {
        let count = entries.len();
        for entry in entries.iter().take(NAMED) {
            let [kind, name, way_back] = entry.told();
            tracing::error!(
                batch = entry.batch,
                "set aside: {kind} {name}: {} ({way_back}; music-streams aside lists it)",
                entry.reason
            );
        }
        if count > NAMED {
            tracing::error!("set aside: {} more (music-streams aside lists them)", count - NAMED);
        }
        futures::stream::iter(&entries)
            .map(async |entry| {
                retry_until(&self.deadline, async || self.ledger.list_aside(entry).await).await?;
                metrics().set_aside.add(1, &label("what", entry.what.name()));
                Ok::<_, AwsError>(())
            })
            .buffer_unordered(CONCURRENT_ENTRIES)
            .try_collect()
            .await
    }

    /// Sets a committed batch aside whose manifest is gone or damaged: nothing can be done for it, and it holds nothing up.
    pub async fn set_batch_aside(&self, batch: BatchNumber, reason: &str) -> Result<(), AwsError> {
        let what = What::Batch { key: layout::manifest_key(batch) };
        self.set_aside(vec![Aside::new(what, batch, reason)]).await?;
        retry_until(&self.deadline, async || self.ledger.close(batch, State::Aside, "{}").await).await
    }

    /// Keeps what a batch needs from expiring that an outage has kept unfinished for long: the claims on its objects, its
    /// manifest and its delta files.
    pub async fn keep(&self, manifest: &Manifest, json: &[u8]) -> Result<(), AwsError> {
        let key = layout::manifest_key(manifest.batch);
        if age_of(manifest) < KEPT_FROM || self.bucket.age(&key).await?.is_none_or(|age| age < KEPT_EVERY) {
            return Ok(());
        }
        futures::stream::iter(&manifest.objects)
            .map(|object| self.ledger.renew_own(&object.object, manifest.batch))
            .buffer_unordered(CONCURRENT_OBJECTS)
            .try_collect::<()>()
            .await?;
        for file in &manifest.delta_files {
            let bytes = self.bucket.read_all(&file.key).await?;
            self.bucket.put(&file.key, bytes, "application/vnd.apache.parquet").await?;
        }
        // Last: its age is what tells that it is time again.
        self.bucket.put(&key, json.to_vec(), "application/json").await
    }
}

fn age_of(manifest: &Manifest) -> Duration {
    let seconds = jiff::Timestamp::now().as_second().saturating_sub(manifest.opened_at.as_second());
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
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
    let counts = manifest.counts();
    let metrics = metrics();
    metrics.batches.add(1, &label("outcome", "done"));
    metrics.objects.add(counts.archived, &label("outcome", "archived"));
    metrics.objects.add(counts.quarantined, &label("outcome", "quarantined"));
    metrics.objects.add(counts.gone, &label("outcome", "superseded"));
    metrics.object_bytes.add(counts.bytes, &[]);
    metrics.rows_read.add(counts.rows, &[]);
    metrics.rows_curated.add(counts.rows - counts.rejected, &[]);
    metrics.suspect_files.add(counts.suspect, &[]);
    for (kind, count) in &manifest.rejected {
        metrics.rows_rejected.add(*count, &[KeyValue::new("reason", kind.clone())]);
    }
}
