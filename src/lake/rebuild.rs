//! Rebuilds: files of batches that are replaced in place, which a log must not see.
//!
//! First the day's files of batches leave the table, for compacted ones of the same rows ([`Lake::detach`]). Then they
//! may be replaced: nobody reads them. At last, compacted files of the new rows take the place of the old ones
//! ([`Lake::rewrite`]). Readers see the day as it was, and then as it is. A rebuild that ends in between is repeated,
//! and an older version of that day can be read no further back than its beginning.

use std::collections::{BTreeMap, BTreeSet};

use crate::formats::delta::action::Add;
use crate::formats::delta::schema::Column;
use crate::lake::batches::batches_of;
use crate::lake::compact::{Compaction, Compactor, Input, columns_in_files, replaced};
use crate::lake::snapshot::{Arrival, DataFile, Overtaken, Replacement, Snapshot};
use crate::lake::{Lake, LakeError, now_ms};
use crate::layout;
use crate::protocol::{BatchNumber, Registry};

/// Attempts at a day of which others compact files at the same time.
const ATTEMPTS: usize = 5;

impl Lake {
    /// Replaces every file of a batch in a day by compacted ones. Every batch up to `registry`'s watermark is in the
    /// table before.
    pub async fn detach(&mut self, day: &str, registry: &Registry, compactor: &Compactor) -> Result<(), LakeError> {
        self.advance(registry).await?;
        let mut contended = 0;
        while contended < ATTEMPTS {
            self.refresh().await?;
            if let Some(add) = self.snapshot.foreign(day) {
                return Err(LakeError::Foreign(add.path.clone()));
            }
            self.drop_lost(day).await?;
            let compaction = self.all_of(day, |add| layout::batch_of_curated(&add.path).is_some())?;
            if compaction.files.is_empty() {
                return Ok(());
            }
            match compactor.run(&compaction).await {
                Ok(merged) => match self.replace(merged).await? {
                    true => return Ok(()),
                    false => contended += 1,
                },
                // One file less at each turn.
                Err(LakeError::File { key, error }) if layout::batch_of_curated(&key).is_some() => {
                    tracing::warn!(key, "the file leaves the table until its day is rebuilt: {error}");
                    let path = key.strip_prefix(layout::CURATED).unwrap_or(&key).to_owned();
                    self.drop_files(BTreeSet::from([path])).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(LakeError::Contended(ATTEMPTS))
    }

    /// Removes files of batches from the table that are gone, or have another size than they had. No reader can read
    /// the day with them; they come back by the rebuild.
    async fn drop_lost(&mut self, day: &str) -> Result<(), LakeError> {
        let there: BTreeMap<String, u64> = self.bucket.list(&layout::curated_prefix(day)).await?.into_iter().collect();
        let is_lost = |add: &&Add| {
            add.tags.is_none() && there.get(&format!("{}{}", layout::CURATED, add.path)) != Some(&add.size)
        };
        let lost = self.snapshot.files_of(day).filter(is_lost).map(|add| add.path.clone()).collect();
        self.drop_files(lost).await
    }

    async fn drop_files(&mut self, removed: BTreeSet<String>) -> Result<(), LakeError> {
        if removed.is_empty() {
            return Ok(());
        }
        let replacement = Replacement { removed, added: Vec::new(), changes_rows: true };
        match self.commit(|snapshot| replaced(snapshot, &replacement)).await {
            // Also by our own entry, if the answer to it was lost.
            Ok(_) | Err(LakeError::Overtaken(Overtaken::Gone(_))) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Builds the compacted files of a day anew from the files of their batches, and adds the files of batches that the
    /// table lacks, or has passed without them. The registry was read after the last file was replaced.
    pub async fn rewrite(&mut self, day: &str, registry: &Registry, compactor: &Compactor) -> Result<(), LakeError> {
        let rest = self.rewrite_compacted(day, compactor).await?;
        // The rebuild may have brought files of batches that had none before.
        self.look_again();
        self.advance(registry).await?;
        self.include_all(&rest).await
    }

    /// Builds the compacted files of a day anew. Returns the files of all other batches.
    async fn rewrite_compacted(&mut self, day: &str, compactor: &Compactor) -> Result<Vec<Arrival>, LakeError> {
        for _ in 0..ATTEMPTS {
            self.refresh().await?;
            // Listed after the log was read: every batch in it has published its files before.
            let arrivals = self.files_of_day(day).await?;
            let Some((removed, batches)) = self.compacted(day) else { return Ok(arrivals) };
            let (of_batches, rest): (Vec<_>, Vec<_>) =
                arrivals.into_iter().partition(|arrival| batches.contains(&arrival.batch));
            let columns = self.columns_with(&of_batches)?;
            let files = of_batches.into_iter().map(|arrival| inputs(&arrival)).collect();
            let merged = compactor.run(&Compaction::new(day, files, columns_in_files(&columns)?)).await?;
            let added = merged.into_iter().map(|merged| (merged.file, merged.batches)).collect();
            let replacement = Replacement { removed, added, changes_rows: true };
            let of_columns = |snapshot: &Snapshot| {
                let mut actions = snapshot.replace(&replacement, now_ms())?;
                actions.extend(snapshot.described([&columns].into_iter(), now_ms())?);
                Ok(Some(actions))
            };
            match self.commit(of_columns).await {
                Err(LakeError::Overtaken(overtaken)) => tracing::info!("the day was compacted meanwhile: {overtaken}"),
                done => return done.map(|_| rest),
            }
        }
        Err(LakeError::Contended(ATTEMPTS))
    }

    /// Returns the compacted files of a day, and the batches whose rows they have; `None` if there are none.
    fn compacted(&self, day: &str) -> Option<(BTreeSet<String>, BTreeSet<BatchNumber>)> {
        let files: BTreeMap<_, _> = self
            .snapshot
            .files_of(day)
            .filter(|add| add.tags.is_some())
            .map(|add| (add.path.clone(), batches_of(add)))
            .filter(|(_, batches)| !batches.is_empty())
            .collect();
        let batches = files.values().flatten().copied().collect();
        (!files.is_empty()).then(|| (files.into_keys().collect(), batches))
    }

    /// Returns the columns of the table, and those that come with these files.
    fn columns_with(&self, arrivals: &[Arrival]) -> Result<Vec<Column>, LakeError> {
        let mut columns = self.snapshot.columns()?;
        for column in arrivals.iter().flat_map(|arrival| &arrival.columns) {
            if columns.iter().all(|known| known.name != column.name) {
                columns.push(column.clone());
            }
        }
        Ok(columns)
    }
}

fn inputs(arrival: &Arrival) -> Vec<Input> {
    let input = |file: &DataFile| Input {
        path: file.path.clone(),
        bytes: file.bytes,
        batches: BTreeSet::from([arrival.batch]),
        stats: file.stats.clone(),
    };
    arrival.files.iter().map(input).collect()
}
