//! The batches that have rows of a day.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};

use super::{Replay, ReplayError};
use crate::batch::manifest::Manifest;
use crate::calendar::date_text;
use crate::layout;
use crate::protocol::{BatchNumber, State};

/// The number of records and manifests that are read at the same time.
const CONCURRENT_READS: usize = 32;
/// The longest wait for batches at work.
const PATIENCE: Duration = Duration::from_secs(900);
/// The time between two looks at the registry.
const PAUSE: Duration = Duration::from_millis(500);

impl Replay {
    /// Returns the finished batches up to `through` that have rows of a day, each with its curated files of that day.
    pub(super) async fn batches(
        &self,
        day: i32,
        through: BatchNumber,
    ) -> Result<BTreeMap<BatchNumber, Vec<String>>, ReplayError> {
        let lost = self.lost.iter().filter(|&&batch| (1..=through).contains(&batch));
        let mut batches: BTreeMap<BatchNumber, Vec<String>> = lost.map(|&batch| (batch, Vec::new())).collect();
        let published = self.published(day, through).await?;
        let curated = self.bucket.list(&layout::curated_prefix(&date_text(day))).await?;
        // Read after the listing: the ledger knew every listed batch before.
        let known = self.ledger.registry().await?.last;
        for (key, _) in curated {
            match layout::batch_of_curated(&key) {
                Some(batch) if batch <= through => batches.entry(batch).or_default().push(key),
                Some(batch) if batch > known => return Err(ReplayError::Forgotten(batch)),
                _ => {}
            }
        }
        // Without its file, a batch would be taken for one without rows of the day.
        for (batch, key) in published {
            let is_there = batches.get(&batch).is_some_and(|keys| self.lost.contains(&batch) || keys.contains(&key));
            if !is_there {
                return Err(ReplayError::LostFile { batch, key });
            }
        }
        Ok(batches)
    }

    /// Returns the curated files of the day that finished batches published, according to those manifests that are
    /// kept.
    async fn published(&self, day: i32, through: BatchNumber) -> Result<Vec<(BatchNumber, String)>, ReplayError> {
        let folders = self.bucket.folders(layout::BATCHES).await?;
        let batches = folders.iter().filter_map(|folder| layout::batch_of_folder(folder, 1));
        let prefix = layout::curated_prefix(&date_text(day));
        let manifests = futures::stream::iter(batches.filter(|&batch| batch <= through))
            .map(async |batch| {
                // An abandoned batch may have left a manifest.
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

    /// Waits until all present batches are finished, and returns the number up to which all are: they publish nothing
    /// more.
    pub(super) async fn finished_through(&self, day: i32) -> Result<BatchNumber, ReplayError> {
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
