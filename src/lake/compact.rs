//! Compaction: small files of a day become a few large ones, sorted.
//!
//! A file of a batch has five minutes of rows, and a day 288 of them. Read one after another and sorted, their rows
//! take fewer bytes, and a query makes a few requests instead of hundreds. The new files are written under names of
//! their own; one entry of the log puts them in the place of the others. It is decided on the very table that it
//! replaces: each file is still there, the batches are the same, and so is the number of rows. Else it is dropped, and
//! its files are removed later ([`crate::lake::Lake::vacuum`]).
//!
//! What is read and written is bounded: a row group at a time is in memory ([`Memory::compaction`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read, Seek};

use fail::fail_point;
use tokio_util::sync::CancellationToken;

use crate::aws::error::AwsError;
use crate::aws::s3::{Bucket, PendingUpload};
use crate::compute;
use crate::compute::merge::Merge;
use crate::formats::delta::DeltaError;
use crate::formats::delta::action::{Action, Add};
use crate::formats::delta::schema::Column;
use crate::formats::delta::stats::Stats;
use crate::formats::parquet::{self, ParquetError, ParquetFile};
use crate::lake::arrivals::data_file;
use crate::lake::batches::batches_of;
use crate::lake::snapshot::{DataFile, KEPT_MS, Overtaken, Replacement, Snapshot, day_of};
use crate::lake::{Lake, LakeError, now_ms};
use crate::layout;
use crate::memory::Memory;
use crate::protocol::BatchNumber;

/// Bytes below which a file is small.
const SMALL_BYTES: u64 = 32 << 20;
/// Bytes at which a new file is large enough.
const TARGET_BYTES: u64 = 256 << 20;
/// Small files of a day that are worth a compaction: two hours of five-minute windows.
const WORTHWHILE: usize = 24;
/// The age of a file from which on it is compacted.
const SETTLED_MS: i64 = 3_600_000;
/// Rows in a row group, at most, but for those of the last file in it.
const ROW_GROUP_ROWS: usize = 768 << 10;

/// Files of a day that are to become fewer.
#[derive(Debug)]
pub struct Compaction {
    /// The day.
    pub day: String,
    /// The files, those of a batch together.
    pub files: Vec<Vec<Input>>,
    columns: Vec<parquet::Column>,
}

impl Compaction {
    /// Names files of a day, those of a batch together, and the columns that new files have.
    pub fn new(day: &str, files: Vec<Vec<Input>>, columns: Vec<parquet::Column>) -> Self {
        Compaction { day: day.to_owned(), files, columns }
    }

    /// Leaves files to the next time, so that this one takes no longer than some twenty seconds: windows wait for it.
    fn shorten(&mut self) {
        let mut bytes = 0;
        let of = |files: &Vec<Input>| files.iter().map(|file| file.bytes).sum::<u64>();
        let most = self.files.iter().take_while(|files| {
            bytes += of(files);
            bytes <= TARGET_BYTES
        });
        let most = most.count();
        self.files.truncate(most);
    }
}

/// A file that is read.
#[derive(Debug, Clone)]
pub struct Input {
    /// Its place below the table.
    pub path: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The batches whose rows it has.
    pub batches: BTreeSet<BatchNumber>,
    /// Its statistics.
    pub stats: Stats,
}

/// A file that was written, and those whose rows it has.
#[derive(Debug)]
pub struct Merged {
    /// The file.
    pub file: DataFile,
    /// The batches whose rows it has.
    pub batches: BTreeSet<BatchNumber>,
    /// The places of the files that were read.
    pub of: BTreeSet<String>,
}

impl Lake {
    /// Returns the files that are worth a compaction, of the day that has most of them; of other days than `but`.
    pub fn worth_compacting(&self, but: impl Fn(&str) -> bool) -> Result<Option<Compaction>, LakeError> {
        let settled = |add: &Add| now_ms().saturating_sub(add.modification_time) >= settled_ms();
        let mut small_of: BTreeMap<&str, usize> = BTreeMap::new();
        for add in self.snapshot.files().filter(|add| settled(add) && add.size < SMALL_BYTES) {
            *small_of.entry(day_of(add).unwrap_or_default()).or_default() += 1;
        }
        let mut days: Vec<(usize, &str)> = small_of.into_iter().map(|(day, files)| (files, day)).collect();
        days.retain(|(files, day)| *files >= worthwhile() && !but(day));
        days.sort_unstable();
        while let Some((_, day)) = days.pop() {
            let mut compaction = self.compaction(day, settled)?;
            if compaction.files.len() >= worthwhile() {
                compaction.shorten();
                return Ok(Some(compaction));
            }
        }
        Ok(None)
    }

    /// Returns the small files of a day that may be compacted.
    pub fn compaction(&self, day: &str, may_be: impl Fn(&Add) -> bool) -> Result<Compaction, LakeError> {
        let mut compaction =
            self.all_of(day, |add| add.tags.is_some() || layout::batch_of_curated(&add.path).is_some())?;
        let is_small = |files: &Vec<Input>| {
            files.iter().map(|file| file.bytes).sum::<u64>() < SMALL_BYTES
                && files.iter().all(|file| self.snapshot.file(&file.path).is_some_and(&may_be))
        };
        compaction.files.retain(is_small);
        Ok(compaction)
    }

    /// Returns the files of a day in the table that satisfy a condition, those of a batch together.
    pub(super) fn all_of(&self, day: &str, is_wanted: impl Fn(&Add) -> bool) -> Result<Compaction, LakeError> {
        let mut files: BTreeMap<BTreeSet<BatchNumber>, Vec<Input>> = BTreeMap::new();
        for add in self.snapshot.files_of(day).filter(|add| is_wanted(add)) {
            let batches = batches_of(add);
            // What another writer made of them cannot be told apart any more.
            if batches.is_empty() {
                continue;
            }
            let stats = add.stats.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
            let input = Input { path: add.path.clone(), bytes: add.size, batches: batches.clone(), stats };
            files.entry(batches).or_default().push(input);
        }
        let columns = columns_in_files(&self.snapshot.columns()?)?;
        Ok(Compaction::new(day, files.into_values().collect(), columns))
    }

    /// Puts files in the place of those that they were made of. Returns false if somebody else has replaced some.
    pub async fn replace(&mut self, merged: Vec<Merged>) -> Result<bool, LakeError> {
        // A process that slept might name files that were deleted meanwhile.
        let is_old = |merged: &Merged| now_ms().saturating_sub(merged.file.modified_ms) > KEPT_MS / 7;
        if merged.is_empty() || merged.iter().any(is_old) {
            return Ok(false);
        }
        let removed = merged.iter().flat_map(|merged| merged.of.iter().cloned()).collect();
        let added = merged.into_iter().map(|merged| (merged.file, merged.batches)).collect();
        let replacement = Replacement { removed, added, changes_rows: false };
        match self.commit(|snapshot| replaced(snapshot, &replacement)).await {
            Err(LakeError::Overtaken(Overtaken::Gone(path))) => {
                tracing::info!(path, "another consumer has compacted the day; this one's files are dropped");
                Ok(false)
            }
            done => done,
        }
    }
}

/// The age of a file from which on it is compacted; tests do not wait for so long.
fn settled_ms() -> i64 {
    fail_point!("settled at once", |_| 0);
    SETTLED_MS
}

/// The number of small files that are worth a compaction; tests have fewer.
fn worthwhile() -> usize {
    fail_point!("settled at once", |_| 4);
    WORTHWHILE
}

/// Returns the entry of a replacement.
pub(super) fn replaced(snapshot: &Snapshot, replacement: &Replacement) -> Result<Option<Vec<Action>>, LakeError> {
    Ok(Some(snapshot.replace(replacement, now_ms())?))
}

/// Returns the columns of new files.
pub(super) fn columns_in_files(columns: &[Column]) -> Result<Vec<parquet::Column>, LakeError> {
    let in_files = |column: &Column| {
        let unsupported = || DeltaError::Unsupported(format!("the type {} of {}", column.type_, column.name));
        column.in_files().ok_or_else(unsupported)
    };
    Ok(columns.iter().map(in_files).collect::<Result<_, DeltaError>>()?)
}

/// Merges files of a day.
#[derive(Debug, Clone)]
pub struct Compactor {
    /// The bucket.
    pub bucket: Bucket,
    /// The memory of the process.
    pub memory: Memory,
    /// The columns by which rows are sorted.
    pub order: Vec<String>,
    /// Cancelled when the process is to stop.
    pub shutdown: CancellationToken,
}

/// A file that is being written.
struct Output {
    key: String,
    parquet: ParquetFile,
    upload: PendingUpload,
    bytes: u64,
    rows: usize,
    inputs: Vec<Input>,
}

impl Compactor {
    /// Reads files one after another, and writes their rows to new ones, sorted. Nothing of it is in the table yet.
    /// When the process is to stop, returns those that are finished.
    pub async fn run(&self, compaction: &Compaction) -> Result<Vec<Merged>, LakeError> {
        let mut output = None;
        let merged = self.merge(compaction, &mut output).await;
        if let (Err(_), Some(Output { key, .. })) = (&merged, &output) {
            // An error here would hide the one that matters; the bucket aborts it at last.
            let _ = self.bucket.abort_uploads(key, |_| true).await;
        }
        merged
    }

    async fn merge(&self, compaction: &Compaction, output: &mut Option<Output>) -> Result<Vec<Merged>, LakeError> {
        let mut merged = Vec::new();
        let mut merge = Merge::new(&compaction.columns);
        for files in &compaction.files {
            // What was not finished is nowhere yet.
            if self.shutdown.is_cancelled() {
                return Ok(merged);
            }
            let writing = match output {
                Some(output) => output,
                None => output.insert(self.begin(&compaction.day, files, &compaction.columns)?),
            };
            for input in files {
                merge = self.read(input, merge, writing).await?;
            }
            writing.inputs.extend(files.iter().cloned());
            if writing.bytes >= TARGET_BYTES {
                merge = self.flush(merge, writing).await?;
                merged.push(self.finish(output).await?);
            }
        }
        if let Some(writing) = output {
            self.flush(merge, writing).await?;
            merged.push(self.finish(output).await?);
        }
        Ok(merged)
    }

    fn begin(&self, day: &str, files: &[Input], columns: &[parquet::Column]) -> Result<Output, LakeError> {
        let first = files.iter().flat_map(|file| &file.batches).min().copied().unwrap_or_default();
        let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), now_ms());
        let key = layout::compacted_key(day, &format!("from-{first:012}-{random:016x}"));
        let fault = |error| LakeError::File { key: key.clone(), error };
        let parquet = Merge::schema(columns).and_then(|schema| ParquetFile::new(schema, true)).map_err(fault)?;
        let upload = self.bucket.upload(key.clone(), self.shutdown.clone());
        Ok(Output { key, parquet, upload, bytes: 0, rows: 0, inputs: Vec::new() })
    }

    /// Adds the rows of a file, and writes row groups as they fill.
    async fn read(&self, input: &Input, mut merge: Merge, output: &mut Output) -> Result<Merge, LakeError> {
        let key = format!("{}{}", layout::CURATED, input.path);
        let mut source = self.open(&key, input.bytes).await?;
        let (mut row_group, mut rows) = (0, 0);
        loop {
            let before = merge.rows();
            let added = compute::apart(move || {
                let row_groups = merge.add(&mut source, row_group);
                (merge, source, row_groups)
            });
            let row_groups: Result<usize, ParquetError>;
            (merge, source, row_groups) = added.await?;
            let fault = |error| LakeError::File { key: key.clone(), error };
            let row_groups = row_groups.map_err(fault)?;
            rows += (merge.rows() - before) as u64;
            if merge.rows() >= ROW_GROUP_ROWS || merge.bytes() >= self.memory.compaction() {
                merge = self.flush(merge, output).await?;
            }
            row_group += 1;
            if row_group < row_groups {
                continue;
            }
            let expected = input.stats.num_records;
            return match rows == expected {
                true => Ok(merge),
                false => Err(fault(ParquetError::Decode(format!("it has {rows} rows, and had {expected}")))),
            };
        }
    }

    /// Opens a file: a small one in memory, a large one on disk, which only commands come to.
    async fn open(&self, key: &str, bytes: u64) -> Result<Source, LakeError> {
        if bytes < SMALL_BYTES {
            return Ok(Source::Memory(Cursor::new(self.bucket.read_all(key).await?)));
        }
        match self.bucket.download(key).await {
            Ok(Some(file)) => Ok(Source::Disk(file)),
            Ok(None) => Err(LakeError::File { key: key.to_owned(), error: ParquetError::Decode("it is gone".into()) }),
            Err(error) => Err(match std::io::Error::downcast::<AwsError>(error) {
                Ok(error) => error.into(),
                Err(error) => LakeError::TemporaryFile(error),
            }),
        }
    }

    /// Writes the rows that were gathered as a row group.
    async fn flush(&self, mut merge: Merge, output: &mut Output) -> Result<Merge, LakeError> {
        if merge.rows() == 0 {
            return Ok(merge);
        }
        output.rows += merge.rows();
        let order = self.order.clone();
        let encoded = compute::apart(move || {
            let row_group = merge.encode(&order);
            (merge, row_group)
        });
        let row_group;
        (merge, row_group) = encoded.await?;
        let appended = row_group.and_then(|row_group| output.parquet.append(row_group));
        appended.map_err(|error| LakeError::File { key: output.key.clone(), error })?;
        let bytes = output.parquet.take_pending();
        output.bytes += bytes.len() as u64;
        output.upload.write(&bytes).await?;
        Ok(merge)
    }

    async fn finish(&self, output: &mut Option<Output>) -> Result<Merged, LakeError> {
        let gone = || ParquetError::Encode("no file is being written".into());
        let output =
            output.take().ok_or_else(|| LakeError::File { key: layout::COMPACTED.to_owned(), error: gone() })?;
        let Output { key, parquet, mut upload, rows, inputs, .. } = output;
        let gone = |problem: &str| LakeError::File { key: key.clone(), error: ParquetError::Decode(problem.into()) };
        let end = parquet.finish().map_err(|error| LakeError::File { key: key.clone(), error })?;
        upload.write(&end).await?;
        let upload = upload.finish().await?;
        fail_point!("compacted");
        if !self.bucket.complete_upload(&upload).await? {
            return Err(gone("its upload is gone"));
        }
        let written = self.bucket.written(&key).await?.ok_or_else(|| gone("it is gone"))?;
        let stats = Stats { num_records: rows as u64, ..Stats::merged(inputs.iter().map(|input| &input.stats)) };
        let file = data_file(&written, stats).ok_or_else(|| gone("it lies elsewhere"))?;
        let batches = inputs.iter().flat_map(|input| &input.batches).copied().collect();
        Ok(Merged { file, batches, of: inputs.into_iter().map(|input| input.path).collect() })
    }
}

/// A file that is read.
enum Source {
    Memory(Cursor<Vec<u8>>),
    Disk(std::fs::File),
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Source::Memory(file) => file.read(buffer),
            Source::Disk(file) => file.read(buffer),
        }
    }
}

impl Seek for Source {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        match self {
            Source::Memory(file) => file.seek(to),
            Source::Disk(file) => file.seek(to),
        }
    }
}
