//! Roll forward: carrying out everything that a committed batch decided, by whichever consumer gets to it.
//!
//! Three steps: the reports get the batch's figures (`reports.rs`), its files are published (`publish.rs`), its objects
//! are moved to the archive or to quarantine (`archive.rs`). Each step may be repeated by anyone, any number of times,
//! and ends in the same state. No step waits for another one that is refused. An item, an upload or an object that is
//! permanently refused is set aside (`aside.rs`, [`crate::ledger::aside`]), and the batch finishes without it. A
//! service that refuses everything is an outage: the batch stays committed and is resumed later.
//!
//! The tests are tests/pipeline/refusals.rs, tests/chaos (crashes at every step) and tests/model.

mod archive;
mod aside;
mod publish;
mod reports;

use std::time::Duration;

use fail::fail_point;
use opentelemetry::KeyValue;
use tokio_util::sync::CancellationToken;

use crate::aws::error::AwsError;
use crate::aws::retry::retry_until;
use crate::aws::s3::Bucket;
use crate::batch::manifest::{Fate, Manifest};
use crate::ledger::Ledger;
use crate::object::ObjectId;
use crate::protocol::State;
use crate::reports::store::Reports;
use crate::telemetry::batch_trace::BatchTrace;
use crate::telemetry::metrics::{label, metrics};
use crate::telemetry::progress::Progress;

/// The error that kept a roll forward from finishing.
#[derive(Debug, thiserror::Error)]
pub enum RollForwardError {
    /// A service does not work for this consumer, or the deadline has passed.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The definition by which the batch was prepared cannot be used.
    #[error("{0}; the batch resumes by itself")]
    Definition(String),
    /// A table accepts none of its items.
    #[error(
        "{table} refuses all of {count} items: {reason}; compare the table with the template, and the batch resumes by \
         itself"
    )]
    TableRefuses {
        /// The name of the table.
        table: String,
        /// The number of items.
        count: usize,
        /// The reason given for the first one.
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
    /// Receives a mark for every step.
    pub progress: Progress,
    /// Cancelled when transient errors are no longer worth a retry.
    pub deadline: CancellationToken,
}

/// The extent to which a batch was carried out.
#[derive(Debug)]
pub struct CarriedOut {
    /// The objects that are where they should be, or set aside: their messages can be deleted.
    pub settled: Vec<ObjectId>,
    /// `Ok` if all of the batch is done, and the batch closed.
    pub done: Result<(), RollForwardError>,
}

impl RollForward {
    /// Does everything that the batch decided. `is_repeated` says that part of it may have been done before.
    pub async fn carry_out(&self, manifest: &Manifest, is_repeated: bool, stages: &mut BatchTrace) -> CarriedOut {
        let reported = self.report(manifest).await;
        if reported.is_ok() {
            fail_point!("upserted");
            record_freshness(manifest);
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
            record_done(manifest);
            Ok(())
        };
        let done = done.await;
        CarriedOut { settled, done }
    }
}

/// The time since a batch was opened.
fn age_of(manifest: &Manifest) -> Duration {
    let seconds = jiff::Timestamp::now().as_second().saturating_sub(manifest.opened_at.as_second());
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// Records the age of the objects whose rows have just entered the reports.
fn record_freshness(manifest: &Manifest) {
    let now = jiff::Timestamp::now();
    for object in &manifest.objects {
        if let (Fate::Archived { .. }, Some(created_at)) = (&object.fate, object.created_at) {
            let age = now.duration_since(created_at).as_secs_f64().max(0.0);
            metrics().freshness.record(age, &[]);
        }
    }
}

/// Records the figures of a batch: at its end, so that work which was repeated counts once.
fn record_done(manifest: &Manifest) {
    let counts = manifest.counts();
    let metrics = metrics();
    metrics.batches.add(1, &label("outcome", "done"));
    metrics.objects.add(counts.archived, &label("outcome", "archived"));
    metrics.objects.add(counts.quarantined, &label("outcome", "quarantined"));
    metrics.objects.add(counts.gone, &label("outcome", "superseded"));
    metrics.object_bytes.add(counts.bytes, &[]);
    metrics.rows_read.add(counts.rows, &[]);
    metrics.rows_curated.add(counts.rows - counts.rejected, &[]);
    metrics.rows_passed_over.add(counts.passed_over, &[]);
    metrics.suspect_files.add(counts.suspect, &[]);
    for (kind, count) in &manifest.rejected {
        metrics.rows_rejected.add(*count, &[KeyValue::new("reason", kind.clone())]);
    }
}
