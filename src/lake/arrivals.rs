//! Arrivals: the files that a finished batch has, from its manifest, or from a listing once that has expired.

use std::collections::BTreeMap;

use futures::{FutureExt, StreamExt, TryStreamExt};

use crate::aws::s3::Written;
use crate::batch::manifest::{CuratedFile, Manifest};
use crate::formats::delta::schema::Column;
use crate::formats::delta::stats::Stats;
use crate::formats::parquet;
use crate::lake::snapshot::{Arrival, DataFile};
use crate::lake::{Lake, LakeError};
use crate::layout;
use crate::plan::columns::SOURCE_COLUMN;
use crate::protocol::{BatchNumber, Registry, State};

/// Batches, and files of a batch, that are looked at together.
const CONCURRENT_LOOKS: usize = 16;
/// The sizes of a file's end that are read for its footer: one that nearly always suffices, and one that always does.
const END_BYTES: [usize; 2] = [64 << 10, 64 << 20];

/// A batch, as far as the table is concerned.
#[derive(Debug)]
pub(super) enum Look {
    /// It is to be in the table.
    In(Arrival),
    /// It has nothing for the table, and never will.
    Nothing(BatchNumber),
    /// It is not finished.
    Later,
    /// Its manifest is gone: a listing shows its files.
    Listed(BatchNumber),
}

impl Lake {
    /// Looks at batches that the table lacks. The registry is as it was when `through` was known.
    pub(super) async fn look_at(&self, batches: &[BatchNumber], registry: &Registry) -> Result<Vec<Look>, LakeError> {
        // Collected, as the compiler cannot tell that a stream of closures may change threads.
        let looks: Vec<_> = batches.iter().map(|&batch| self.look(batch, registry).boxed()).collect();
        let mut looks: Vec<Look> = futures::stream::iter(looks).buffered(CONCURRENT_LOOKS).try_collect().await?;
        let listed: Vec<BatchNumber> = looks
            .iter()
            .filter_map(|look| match look {
                Look::Listed(batch) => Some(*batch),
                Look::In(_) | Look::Nothing(_) | Look::Later => None,
            })
            .collect();
        if !listed.is_empty() {
            looks.retain(|look| !matches!(look, Look::Listed(_)));
            looks.extend(self.listed(&listed).await?);
        }
        Ok(looks)
    }

    async fn look(&self, batch: BatchNumber, registry: &Registry) -> Result<Look, LakeError> {
        let state = match registry.batches.get(&batch) {
            Some(entry) => Some(entry.state),
            None => self.ledger.recorded_state(batch).await?,
        };
        match state {
            Some(State::Open) => return Ok(Look::Later),
            // One that is set aside is included when it comes back.
            Some(State::Abandoned | State::Lost | State::Aside) => return Ok(Look::Nothing(batch)),
            // A record is kept for as long as the manifest.
            None => return Ok(Look::Listed(batch)),
            Some(State::Committed | State::Done) => {}
        }
        let is_done = state == Some(State::Done);
        let Some(manifest) = Manifest::find(&self.bucket, batch).await? else {
            return Ok(if is_done { Look::Listed(batch) } else { Look::Later });
        };
        let arrival = self.of_manifest(&manifest).await?;
        // A log must not name a file that is not there. Those that could not be published are included when they come
        // back.
        let is_whole = arrival.files.len() == curated_keys(&manifest).count();
        Ok(match arrival {
            _ if !is_done && !is_whole => Look::Later,
            arrival if arrival.files.is_empty() => Look::Nothing(batch),
            arrival => Look::In(arrival),
        })
    }

    /// Returns the files of a batch that are there, by its manifest.
    pub(super) async fn of_manifest(&self, manifest: &Manifest) -> Result<Arrival, LakeError> {
        let keys: Vec<&str> = curated_keys(manifest).collect();
        let looks: Vec<_> = keys.iter().map(|key| self.bucket.written(key).boxed()).collect();
        let mut files = futures::stream::iter(looks).buffered(CONCURRENT_LOOKS).enumerate();
        let mut arrival = Arrival { batch: manifest.batch, columns: Vec::new(), files: Vec::new() };
        while let Some((place, written)) = files.next().await {
            let Some(written) = written? else { continue };
            let is_same = |file: &&CuratedFile| file.key == keys[place] && file.bytes == written.bytes;
            let described = manifest.curated.iter().find(is_same);
            match described {
                Some(CuratedFile { stats, .. }) => {
                    add_columns(&mut arrival, manifest.columns.iter().cloned());
                    arrival.files.extend(data_file(&written, stats.clone()));
                }
                // As the version before the table wrote it, or a rebuild since.
                None => self.add_by_footer(&mut arrival, &written).await?,
            }
        }
        Ok(arrival)
    }

    /// Returns the arrivals of batches by a listing of all files.
    async fn listed(&self, batches: &[BatchNumber]) -> Result<Vec<Look>, LakeError> {
        let mut files: BTreeMap<BatchNumber, Vec<Written>> = batches.iter().map(|&batch| (batch, Vec::new())).collect();
        for written in self.bucket.list_written(layout::CURATED_DAYS).await? {
            if let Some(of_batch) = layout::batch_of_curated(&written.key).and_then(|batch| files.get_mut(&batch)) {
                of_batch.push(written);
            }
        }
        let looks: Vec<_> = files.into_iter().map(|(batch, files)| self.by_footers(batch, files).boxed()).collect();
        futures::stream::iter(looks).buffered(CONCURRENT_LOOKS).try_collect().await
    }

    async fn by_footers(&self, batch: BatchNumber, files: Vec<Written>) -> Result<Look, LakeError> {
        if files.is_empty() {
            return Ok(Look::Nothing(batch));
        }
        let mut arrival = Arrival { batch, columns: Vec::new(), files: Vec::new() };
        for written in files {
            self.add_by_footer(&mut arrival, &written).await?;
        }
        Ok(Look::In(arrival))
    }

    /// Returns the batches' files of a day, as they are by now.
    pub(super) async fn files_of_day(&self, day: &str) -> Result<Vec<Arrival>, LakeError> {
        let mut arrivals: BTreeMap<BatchNumber, Arrival> = BTreeMap::new();
        for written in self.bucket.list_written(&layout::curated_prefix(day)).await? {
            let Some(batch) = layout::batch_of_curated(&written.key) else { continue };
            let new = || Arrival { batch, columns: Vec::new(), files: Vec::new() };
            self.add_by_footer(arrivals.entry(batch).or_insert_with(new), &written).await?;
        }
        Ok(arrivals.into_values().collect())
    }

    /// Adds a file to an arrival by what its footer says.
    async fn add_by_footer(&self, arrival: &mut Arrival, written: &Written) -> Result<(), LakeError> {
        let fault = |error| LakeError::File { key: written.key.clone(), error };
        for bytes in END_BYTES {
            let end = self.bucket.read_end(&written.key, bytes).await?;
            if parquet::footer_bytes(&end).is_some_and(|footer| footer > end.len()) && bytes != END_BYTES[1] {
                continue;
            }
            let summary = parquet::summary(&end).map_err(fault)?;
            add_columns(arrival, summary.columns.iter().map(Column::of));
            arrival.files.extend(data_file(written, Stats::of(&summary, SOURCE_COLUMN)));
            break;
        }
        Ok(())
    }
}

fn add_columns(arrival: &mut Arrival, columns: impl Iterator<Item = Column>) {
    for column in columns {
        if !arrival.columns.contains(&column) {
            arrival.columns.push(column);
        }
    }
}

/// The keys of a batch's curated files.
fn curated_keys(manifest: &Manifest) -> impl Iterator<Item = &str> {
    let keys = manifest.uploads.iter().map(|upload| upload.key.as_str());
    keys.filter(|key| layout::date_of_curated(key).is_some())
}

/// Returns a file of the table; `None` if it lies elsewhere.
pub(super) fn data_file(written: &Written, stats: Stats) -> Option<DataFile> {
    let path = written.key.strip_prefix(layout::CURATED)?.to_owned();
    let day = path.split('/').find_map(|folder| folder.strip_prefix("report_date="))?.to_owned();
    Some(DataFile { path, day, bytes: written.bytes, modified_ms: written.at_ms, stats })
}
