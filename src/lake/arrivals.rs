//! Arrivals: the files that a finished batch has, from its manifest, or from a listing once that has expired.

use std::collections::BTreeMap;

use futures::{FutureExt, StreamExt, TryStreamExt};

use crate::aws::error::AwsError;
use crate::aws::s3::{Bucket, Written};
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
/// Bytes of a file's end that are read for its footer, which nearly always suffice.
const END_BYTES: usize = 64 << 10;
/// Bytes of the largest footer that is read.
const MAX_FOOTER_BYTES: usize = 16 << 20;

/// A batch, as far as the table is concerned.
#[derive(Debug)]
pub(super) enum Look {
    /// It is to be in the table.
    In(Arrival),
    /// It has nothing for the table, and never will.
    Nothing(BatchNumber),
    /// It is not finished.
    Later(BatchNumber),
    /// One of its files cannot be read.
    Damaged(BatchNumber, LakeError),
}

/// The files of all batches, listed once when they are needed.
#[derive(Debug, Default)]
pub(super) struct Listing(Option<BTreeMap<BatchNumber, Vec<Written>>>);

impl Listing {
    pub(super) async fn read(&mut self, bucket: &Bucket) -> Result<&BTreeMap<BatchNumber, Vec<Written>>, AwsError> {
        let files = match self.0.take() {
            Some(files) => files,
            None => {
                let mut files: BTreeMap<BatchNumber, Vec<Written>> = BTreeMap::new();
                for written in bucket.list_written(layout::CURATED_DAYS).await? {
                    if let Some(batch) = layout::batch_of_curated(&written.key) {
                        files.entry(batch).or_default().push(written);
                    }
                }
                files
            }
        };
        Ok(self.0.insert(files))
    }
}

impl Lake {
    /// Looks at batches that the table lacks. The registry is as it was when the watermark was known.
    pub(super) async fn look_at(
        &self,
        batches: &[BatchNumber],
        registry: &Registry,
        listing: &mut Listing,
    ) -> Result<Vec<Look>, LakeError> {
        // Collected, as the compiler cannot tell that a stream of closures may change threads.
        let looks: Vec<_> = batches.iter().map(|&batch| self.look(batch, registry).boxed()).collect();
        let looks: Vec<Option<Look>> = futures::stream::iter(looks).buffered(CONCURRENT_LOOKS).try_collect().await?;
        let mut found = Vec::with_capacity(looks.len());
        for (look, &batch) in looks.into_iter().zip(batches) {
            found.push(match look {
                Some(look) => look,
                None => look_of(batch, self.of_listing(batch, listing).await)?,
            });
        }
        Ok(found)
    }

    /// Looks at a batch. `None` if its manifest is gone, so that a listing must show its files.
    async fn look(&self, batch: BatchNumber, registry: &Registry) -> Result<Option<Look>, LakeError> {
        let state = match registry.batches.get(&batch) {
            Some(entry) => Some(entry.state),
            None => self.ledger.recorded_state(batch).await?,
        };
        match state {
            Some(State::Open) => return Ok(Some(Look::Later(batch))),
            // One that is set aside is included when it comes back.
            Some(State::Abandoned | State::Lost | State::Aside) => return Ok(Some(Look::Nothing(batch))),
            // A record is kept for as long as the manifest.
            None => return Ok(None),
            Some(State::Committed | State::Done) => {}
        }
        let is_done = state == Some(State::Done);
        let Some(manifest) = Manifest::find(&self.bucket, batch).await? else {
            return Ok((!is_done).then_some(Look::Later(batch)));
        };
        let look = look_of(batch, self.of_manifest(&manifest).await)?;
        // A log must not name a file that is not there. Those that could not be published are included when they come
        // back.
        let is_whole = |arrival: &Arrival| is_done || arrival.files.len() == curated_keys(&manifest).count();
        Ok(Some(match look {
            Look::In(arrival) if !is_whole(&arrival) => Look::Later(batch),
            Look::Nothing(_) if !is_done && curated_keys(&manifest).next().is_some() => Look::Later(batch),
            look => look,
        }))
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
            match manifest.curated.iter().find(is_same) {
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

    /// Returns the files of a batch that are there, by a listing of all.
    pub(super) async fn of_listing(&self, batch: BatchNumber, listing: &mut Listing) -> Result<Arrival, LakeError> {
        let mut arrival = Arrival { batch, columns: Vec::new(), files: Vec::new() };
        for written in listing.read(&self.bucket).await?.get(&batch).into_iter().flatten() {
            self.add_by_footer(&mut arrival, written).await?;
        }
        Ok(arrival)
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
        let mut end = self.bucket.read_end(&written.key, END_BYTES).await?;
        if let Some(footer) = parquet::footer_bytes(&end).filter(|&footer| footer > end.len()) {
            end = self.bucket.read_end(&written.key, footer.min(MAX_FOOTER_BYTES)).await?;
        }
        let summary = parquet::summary(&end);
        let summary = summary.map_err(|error| LakeError::File { key: written.key.clone(), error })?;
        add_columns(arrival, summary.columns.iter().map(Column::of));
        arrival.files.extend(data_file(written, Stats::of(&summary, SOURCE_COLUMN)));
        Ok(())
    }
}

/// Returns the look at a batch whose files were looked for. One that cannot be read is the batch's own fault.
fn look_of(batch: BatchNumber, arrival: Result<Arrival, LakeError>) -> Result<Look, LakeError> {
    match arrival {
        Ok(arrival) if arrival.files.is_empty() => Ok(Look::Nothing(batch)),
        Ok(arrival) => Ok(Look::In(arrival)),
        Err(error @ LakeError::File { .. }) => Ok(Look::Damaged(batch, error)),
        Err(error) => Err(error),
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
