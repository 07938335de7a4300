//! Which batches have rows of a day.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};

use super::{Replay, ReplayError};
use crate::batch::manifest::Manifest;
use crate::calendar::date_text;
use crate::layout;
use crate::protocol::{BatchNumber, State};

/// Records and manifests that are read at the same time.
const CONCURRENT_READS: usize = 32;
/// How long batches at work are waited for.
const PATIENCE: Duration = Duration::from_secs(900);
/// Between two looks at whether they are finished.
const PAUSE: Duration = Duration::from_millis(500);

impl Replay {
    /// The finished batches that have rows of a day, each with its curated files of that day.
    pub(super) async fn batches(
        &self,
        day: i32,
        through: BatchNumber,
    ) -> Result<BTreeMap<BatchNumber, Vec<String>>, ReplayError> {
        let lost = self.lost.iter().filter(|&&batch| (1..=through).contains(&batch));
        let mut batches: BTreeMap<BatchNumber, Vec<String>> = lost.map(|&batch| (batch, Vec::new())).collect();
        let published = self.published(day, through).await?;
        let curated = self.bucket.list(&layout::curated_prefix(&date_text(day))).await?;
        // Read after the listing: whatever is listed, the ledger has known before.
        let known = self.ledger.registry().await?.last;
        for (key, _) in curated {
            match layout::batch_of_curated(&key) {
                Some(batch) if batch <= through => batches.entry(batch).or_default().push(key),
                Some(batch) if batch > known => return Err(ReplayError::Forgotten(batch)),
                _ => {}
            }
        }
        // A file that is gone would be taken for a batch without rows of the day.
        for (batch, key) in published {
            let is_there = batches.get(&batch).is_some_and(|keys| self.lost.contains(&batch) || keys.contains(&key));
            if !is_there {
                return Err(ReplayError::LostFile { batch, key });
            }
        }
        Ok(batches)
    }

    /// The curated files of the day that finished batches have published, by their manifests, as far as these are kept.
    async fn published(&self, day: i32, through: BatchNumber) -> Result<Vec<(BatchNumber, String)>, ReplayError> {
        let folders = self.bucket.folders(layout::BATCHES).await?;
        let batches = folders.iter().filter_map(|folder| layout::batch_of_folder(folder, 1));
        let prefix = layout::curated_prefix(&date_text(day));
        let manifests = futures::stream::iter(batches.filter(|&batch| batch <= through))
            .map(async |batch| {
                // Of a batch that was given up, remains may be left.
                let is_done = self.ledger.record(batch).await?.is_some_and(|record| record.state == State::Done);
                if is_done { Manifest::find(&self.bucket, batch).await } else { Ok(None) }
            })
            .buffer_unordered(CONCURRENT_READS);
        let manifests: Vec<Manifest> =
            manifests.try_filter_map(|manifest| std::future::ready(Ok(manifest))).try_collect().await?;
        let mut published = Vec::new();
        for manifest in manifests {
            let keys = manifest.uploads.into_iter().map(|upload| upload.key).filter(|key| key.starts_with(&prefix));
            published.extend(keys.map(|key| (manifest.batch, key)));
        }
        Ok(published)
    }

    /// Waits until every batch is finished that there is now, and gives the number up to which all are: nothing can be added to what
    /// they published, and nothing of them is under way.
    pub(super) async fn finished(&self, day: i32) -> Result<BatchNumber, ReplayError> {
        let last = self.ledger.registry().await?.last;
        let begun = Instant::now();
        loop {
            let registry = self.ledger.registry().await?;
            let through = registry.applied_through();
            if through >= last {
                return Ok(through);
            }
            if begun.elapsed() > PATIENCE {
                return Err(ReplayError::Unfinished(
                    registry.batches.into_keys().filter(|&batch| batch <= last).collect(),
                ));
            }
            self.progress.set_message(format!("{} waiting for batches at work", date_text(day)));
            tokio::time::sleep(PAUSE).await;
        }
    }
}
