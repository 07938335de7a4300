//! Roll forward: everything that a committed batch decided, done by whoever gets to it.
//!
//! Three steps, each of which may be repeated by anyone, any number of times, and ends in the same state: the reports get the
//! batch's figures, its files are published, its objects are put away. None waits for what another is refused. A thing that is
//! refused for good, an item, an upload or an object, is set aside by itself ([`crate::ledger::aside`]), and the batch comes to its end
//! without it. A service that refuses everything is an outage: the batch stays committed and is taken up again later.

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
use crate::telemetry::metrics::{label, metrics};
use crate::telemetry::progress::Progress;
use crate::telemetry::stages::BatchTrace;

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
