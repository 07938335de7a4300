//! Exceptions of a roll forward: what is refused is set aside, and what an outage delays is kept from expiring.
//!
//! The tests are tests/pipeline/refusals.rs and tests/chaos.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};

use crate::aws::error::AwsError;
use crate::aws::retry::retry_until;
use crate::aws::s3::CONCURRENT_OBJECTS;
use crate::batch::LOGGED_ASIDE;
use crate::batch::manifest::Manifest;
use crate::batch::roll_forward::{RollForward, age_of};
use crate::layout;
use crate::ledger::aside::{Aside, What};
use crate::protocol::{BatchNumber, State};
use crate::telemetry::metrics::{label, metrics};

/// Entries of the list of things set aside that are written at the same time.
const CONCURRENT_ENTRIES: usize = 16;
/// Age of a batch from which on the things it needs are kept from expiring. Claims expire after 15 days, and objects
/// under `batches/` after 31.
const KEEP_AFTER: Duration = Duration::from_secs(7 * 86_400);
/// Interval at which they are renewed.
const KEEP_INTERVAL: Duration = Duration::from_secs(86_400);

impl RollForward {
    /// Lists things as set aside, and logs them.
    pub async fn set_aside(&self, entries: Vec<Aside>) -> Result<(), AwsError> {
        let count = entries.len();
        for entry in entries.iter().take(LOGGED_ASIDE) {
            let [kind, name, way_back] = entry.describe();
            tracing::error!(
                batch = entry.batch,
                "set aside: {kind} {name}: {} ({way_back}; music-streams aside lists it)",
                entry.reason
            );
        }
        if count > LOGGED_ASIDE {
            tracing::error!("set aside: {} more (music-streams aside lists them)", count - LOGGED_ASIDE);
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

    /// Sets aside a committed batch whose manifest is gone or damaged: it cannot be carried out, and must not hold up
    /// others.
    pub async fn set_batch_aside(&self, batch: BatchNumber, reason: &str) -> Result<(), AwsError> {
        let what = What::Batch { key: layout::manifest_key(batch) };
        self.set_aside(vec![Aside::new(what, batch, reason)]).await?;
        retry_until(&self.deadline, async || self.ledger.close(batch, State::Aside, "{}").await).await
    }

    /// Keeps the claims, the manifest and the delta files of a batch from expiring, if an outage has delayed it for
    /// long.
    pub async fn keep(&self, manifest: &Manifest, json: &[u8]) -> Result<(), AwsError> {
        let key = layout::manifest_key(manifest.batch);
        if age_of(manifest) < KEEP_AFTER || self.bucket.age(&key).await?.is_none_or(|age| age < KEEP_INTERVAL) {
            return Ok(());
        }
        futures::stream::iter(&manifest.objects)
            .map(|object| self.ledger.renew_claim(&object.object, manifest.batch))
            .buffer_unordered(CONCURRENT_OBJECTS)
            .try_collect::<()>()
            .await?;
        for file in &manifest.delta_files {
            let bytes = self.bucket.read_all(&file.key).await?;
            self.bucket.put(&file.key, bytes, "application/vnd.apache.parquet").await?;
        }
        // Last, as its age tells when the next renewal is due.
        self.bucket.put(&key, json.to_vec(), "application/json").await
    }
}
