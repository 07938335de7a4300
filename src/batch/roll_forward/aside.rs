//! What is set aside, and what is kept from expiring.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};

use crate::aws::error::AwsError;
use crate::aws::retry::retry_until;
use crate::aws::s3::CONCURRENT_OBJECTS;
use crate::batch::manifest::Manifest;
use crate::batch::roll_forward::{RollForward, age_of};
use crate::layout;
use crate::ledger::aside::{Aside, What};
use crate::protocol::{BatchNumber, State};
use crate::telemetry::metrics::{label, metrics};

/// Entries of the list of what is set aside that are written at the same time.
const CONCURRENT_ENTRIES: usize = 16;
/// Things set aside by one batch that the log names one by one.
const NAMED: usize = 10;
/// Age of a batch from which on what it needs is kept from expiring, and how often: claims expire after 15 days, and what lies
/// under `batches/` after 31.
const KEPT_FROM: Duration = Duration::from_secs(7 * 86_400);
const KEPT_EVERY: Duration = Duration::from_secs(86_400);

impl RollForward {
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
