//! Advancing: an entry of the log that adds every finished batch the table lacks. Any consumer may do it at any time,
//! any number of times, and with a registry that is old: an old one is less, and never wrong.

use crate::batch::manifest::Manifest;
use crate::lake::arrivals::Look;
use crate::lake::snapshot::Arrival;
use crate::lake::{Lake, LakeError, Snapshot, now_ms};
use crate::protocol::{BatchNumber, Registry, State};

/// Batches that one entry adds, so that no entry is large.
const BATCHES_PER_ENTRY: usize = 10_000;

impl Lake {
    /// Adds every batch to the table that is finished, or committed with all its files there. Returns the number of
    /// batches added.
    pub async fn advance(&mut self, registry: &Registry) -> Result<usize, LakeError> {
        if self.refreshed_ms.is_some() && self.lacking(registry).is_empty() {
            return Ok(0);
        }
        self.refresh().await?;
        let mut added = 0;
        for batches in self.lacking(registry).chunks(BATCHES_PER_ENTRY) {
            // Up to here, every batch is in the table or looked at.
            let through = registry.applied_through().min(batches.last().copied().unwrap_or(0));
            let (mut arrivals, mut is_whole) = (Vec::new(), true);
            for look in self.look_at(batches, registry).await? {
                match look {
                    Look::In(arrival) => arrivals.push(arrival),
                    Look::Nothing(batch) => drop(self.without_files.insert(batch)),
                    Look::Later | Look::Listed(_) => is_whole = false,
                }
            }
            added += self.add(&arrivals, through).await?;
            if !is_whole {
                break;
            }
        }
        Ok(added)
    }

    async fn add(&mut self, arrivals: &[Arrival], through: BatchNumber) -> Result<usize, LakeError> {
        let before = self.snapshot.applied();
        self.commit(|snapshot| Ok::<_, LakeError>(snapshot.advance(through, arrivals, now_ms())?)).await?;
        let after = self.snapshot.applied();
        let through = after.through;
        self.without_files.retain(|&batch| batch > through);
        let is_new = |arrival: &&Arrival| !before.contains(arrival.batch) && after.contains(arrival.batch);
        Ok(arrivals.iter().filter(is_new).count())
    }

    /// Returns the number of batches that are finished for ever, and that the table is not known to have.
    pub fn lag(&self, registry: &Registry) -> usize {
        let through = registry.applied_through();
        self.lacking(registry).into_iter().filter(|&batch| batch <= through).count()
    }

    /// Returns the number of batches that the next entry would add.
    pub async fn late(&self, registry: &Registry) -> Result<usize, LakeError> {
        let looks = self.look_at(&self.lacking(registry), registry).await?;
        Ok(looks.iter().filter(|look| matches!(look, Look::In(_))).count())
    }

    /// Returns the batches that the table may have to take up, in order.
    fn lacking(&self, registry: &Registry) -> Vec<BatchNumber> {
        let applied = self.snapshot.applied();
        let may_be_in = |batch: &BatchNumber| {
            let state = registry.batches.get(batch).map(|entry| entry.state);
            !matches!(state, Some(State::Open | State::Abandoned | State::Lost))
        };
        let lacking = |batch: &BatchNumber| !applied.contains(*batch) && !self.without_files.contains(batch);
        (applied.through + 1..=registry.last).filter(lacking).filter(may_be_in).collect()
    }

    /// Adds the files of a batch that was set aside and has come back. May be repeated.
    pub async fn include(&mut self, batch: BatchNumber, registry: &Registry) -> Result<(), LakeError> {
        self.advance(registry).await?;
        let Some(manifest) = Manifest::find(&self.bucket, batch).await? else { return Ok(()) };
        let arrivals = [self.of_manifest(&manifest).await?];
        self.include_all(&arrivals).await
    }

    /// Adds the files of batches that the table has passed without them.
    pub(super) async fn include_all(&mut self, arrivals: &[Arrival]) -> Result<(), LakeError> {
        let is_foreign = |snapshot: &Snapshot| {
            let mut days = arrivals.iter().flat_map(|arrival| &arrival.files).map(|file| file.day.as_str());
            days.find_map(|day| Some(snapshot.foreign(day)?.path.clone()))
        };
        let decide = |snapshot: &Snapshot| match is_foreign(snapshot) {
            Some(path) => Err(LakeError::Foreign(path)),
            None => Ok(snapshot.include(arrivals, now_ms())?),
        };
        self.commit(decide).await.map(drop)
    }
}
