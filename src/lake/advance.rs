//! Advancing: entries of the log that add every finished batch the table lacks. Any consumer may do it at any time, any
//! number of times, and with a registry that is old: an old one is less, and never wrong.

use crate::batch::manifest::Manifest;
use crate::lake::arrivals::{Listing, Look};
use crate::lake::snapshot::Arrival;
use crate::lake::{Lake, LakeError, Snapshot, now_ms};
use crate::protocol::{BatchNumber, Registry, State};

/// Batches that are looked at for one entry.
const BATCHES_PER_ENTRY: usize = 500;
/// Lacking batches from which on a listing says which of them have files. So many are lacking at a first start, and
/// when numbers were skipped.
const MANY: usize = 5000;

impl Lake {
    /// Adds every batch to the table that is finished, or committed with all its files there. Returns the number of
    /// batches added.
    pub async fn advance(&mut self, registry: &Registry) -> Result<usize, LakeError> {
        if registry.last < self.settled {
            // The ledger was lost, and issues numbers again.
            self.look_again();
        }
        if self.refreshed_ms.is_some() && self.lacking(registry).next().is_none() {
            return Ok(0);
        }
        self.refresh().await?;
        let mut listing = Listing::default();
        let lacking: Vec<BatchNumber> = match self.lacking(registry).nth(MANY) {
            Some(_) => {
                let files = listing.read(&self.bucket).await?;
                let listed: Vec<BatchNumber> = files.keys().copied().collect();
                listed.into_iter().filter(|batch| self.lacks(*batch, registry)).collect()
            }
            None => self.lacking(registry).collect(),
        };
        // Below it, every batch is in the table or will never be.
        let (mut through, mut added) = (registry.applied_through(), 0);
        for batches in lacking.chunks(BATCHES_PER_ENTRY) {
            let mut arrivals = Vec::new();
            for look in self.look_at(batches, registry, &mut listing).await? {
                match look {
                    Look::In(arrival) => arrivals.push(arrival),
                    Look::Nothing(batch) => drop(self.without_files.insert(batch)),
                    Look::Later(batch) => through = through.min(batch - 1),
                    Look::Damaged(batch, error) => {
                        through = through.min(batch - 1);
                        self.complain(batch, &error);
                    }
                }
            }
            let last = batches.last().copied().unwrap_or(0);
            added += self.add(&arrivals, through.min(last)).await?;
        }
        let left_out = lacking.iter().copied().find(|batch| self.lacks(*batch, registry));
        self.settled = self.settled.max(left_out.map_or(through, |batch| through.min(batch - 1)));
        self.without_files.retain(|batch| *batch > self.settled);
        Ok(added)
    }

    async fn add(&mut self, arrivals: &[Arrival], through: BatchNumber) -> Result<usize, LakeError> {
        let before = self.snapshot.applied();
        self.commit(|snapshot| Ok::<_, LakeError>(snapshot.advance(through, arrivals, now_ms())?)).await?;
        let after = self.snapshot.applied();
        let mut added = 0;
        for arrival in arrivals.iter().filter(|arrival| !before.contains(arrival.batch)) {
            added += usize::from(after.contains(arrival.batch));
            if let Some(error) = self.snapshot.conflict(arrival) {
                self.complain(arrival.batch, &error.into());
            }
        }
        Ok(added)
    }

    /// Forgets which batches have nothing for the table: some may have by now.
    pub(super) fn look_again(&mut self) {
        self.settled = 0;
        self.without_files.clear();
    }

    /// Says once that a batch is left out of the table.
    fn complain(&mut self, batch: BatchNumber, error: &LakeError) {
        if self.left_out.insert(batch) {
            tracing::warn!(batch, "the batch is left out of the table: {error}");
        }
    }

    /// Returns the number of batches that are finished for ever, and that the table is not known to have, up to some
    /// thousands.
    pub fn lag(&self, registry: &Registry) -> usize {
        let through = registry.applied_through();
        self.lacking(registry).take_while(|&batch| batch <= through).take(2 * MANY).count()
    }

    /// Returns the number of finished batches that the next entry would add, up to some hundreds.
    pub async fn late(&self, registry: &Registry) -> Result<usize, LakeError> {
        let through = registry.applied_through();
        let lacking: Vec<BatchNumber> =
            self.lacking(registry).take_while(|&batch| batch <= through).take(BATCHES_PER_ENTRY).collect();
        let looks = self.look_at(&lacking, registry, &mut Listing::default()).await?;
        Ok(looks.iter().filter(|look| matches!(look, Look::In(_) | Look::Damaged(..))).count())
    }

    /// Returns the batches that the table may have to take up, in order.
    fn lacking(&self, registry: &Registry) -> impl Iterator<Item = BatchNumber> {
        let first = self.snapshot.applied().through.max(self.settled) + 1;
        (first..=registry.last).filter(|&batch| self.lacks(batch, registry))
    }

    fn lacks(&self, batch: BatchNumber, registry: &Registry) -> bool {
        let state = registry.batches.get(&batch).map(|entry| entry.state);
        !matches!(state, Some(State::Open | State::Abandoned | State::Lost))
            && batch > self.settled
            && !self.without_files.contains(&batch)
            && !self.snapshot.contains(batch)
    }

    /// Adds the files of a batch that was set aside and has come back. May be repeated.
    pub async fn include(&mut self, batch: BatchNumber, registry: &Registry) -> Result<(), LakeError> {
        self.look_again();
        self.advance(registry).await?;
        let arrival = match Manifest::find(&self.bucket, batch).await? {
            Some(manifest) => self.of_manifest(&manifest).await?,
            None => self.of_listing(batch, &mut Listing::default()).await?,
        };
        self.include_all(&[arrival]).await
    }

    /// Adds the files of batches that the table has passed without them.
    pub(super) async fn include_all(&mut self, arrivals: &[Arrival]) -> Result<(), LakeError> {
        let is_foreign = |snapshot: &Snapshot| {
            let files = arrivals.iter().flat_map(|arrival| &arrival.files);
            let mut days = files.filter(|file| snapshot.file(&file.path).is_none()).map(|file| file.day.as_str());
            days.find_map(|day| Some(snapshot.foreign(day)?.path.clone()))
        };
        let decide = |snapshot: &Snapshot| match is_foreign(snapshot) {
            Some(path) => Err(LakeError::Foreign(path)),
            None => Ok(snapshot.include(arrivals, now_ms())?),
        };
        self.commit(decide).await.map(drop)
    }
}
