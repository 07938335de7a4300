//! Transform and aggregate: from the objects of a batch to everything the batch is going to publish.
//!
//! Streams each object once, never whole in memory: plain or gzip, CSV with a header. Rows are cleansed, enriched, encoded
//! and folded; what cannot be used is set aside with its reason. Everything is written invisibly ([`Bucket::upload`]), so
//! that giving up at any point costs nothing.
//!
//! An object counts whole or not at all. Its rows wait in memory until its end is reached, so that a file which turns out
//! bad at its last byte leaves no trace. A file with more rows than fit there is used as it comes; should it turn out bad
//! afterwards, preparation ends with [`PrepareError::Spoiled`] and the batch is prepared again without it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::num::NonZeroU32;
use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt};
use governor::DefaultDirectRateLimiter;
use tokio::io::AsyncRead;
use tokio_util::sync::CancellationToken;

use crate::aws::error::{AwsError, Kind};
use crate::aws::retry::retry_until;
use crate::aws::s3::{Bucket, PendingUpload, Upload};
use crate::batch::manifest::DeltaFile;
use crate::calendar::{date_of, date_text};
use crate::compute::deltas;
use crate::compute::{self, Compute, ComputeError, Dictionary, Fold, Rows, Scope, curated};
use crate::formats::csv::NotCsv;
use crate::formats::parquet::{ParquetError, ParquetFile, RowGroup};
use crate::input::block::Parsed;
use crate::input::file::{BadObject, Blocks, ReadError};
use crate::input::rejects::MAX_LISTED;
use crate::layout;
use crate::memory::Memory;
use crate::object::{ObjectEvent, ObjectId};
use crate::protocol::BatchNumber;
use crate::reference::catalogue::Catalogue;
use crate::reports::figures::Delta;
use crate::telemetry::progress::Progress;

/// Rejected rows, encoded, that wait for the end of their object. Twice what is listed of one, so that those of earlier objects can
/// always make room.
const MAX_REJECT_BYTES: usize = 2 * MAX_LISTED.1;
/// Rows for which the rate limit is asked at a time.
const ROWS_PER_CHECK: u32 = 4096;
/// Report items in one delta file, which is also cut at some 8 MiB ([`compute::encode_deltas`]): what a roll forward holds in memory
/// at a time.
pub const DELTAS_PER_FILE: usize = 4096;
/// Uploads that are finished at the same time.
const CONCURRENT_UPLOADS: usize = 16;
/// Bytes of memory that a row group takes in the footer of its file, until that is written.
const FOOTER_BYTES: usize = 6 << 10;
/// Bytes of memory that a finished upload takes, in the manifest too: keys, eTags, and S3's id.
const UPLOAD_BYTES: usize = 2 << 10;

/// What became of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Counted.
    Counted {
        /// Rows of the file, without the header.
        rows: u64,
        /// Rows among them that were rejected.
        rejected: u64,
    },
    /// To quarantine.
    Bad(BadObject),
    /// Deleted or replaced before it was read; what replaced it has its own event.
    Gone,
    /// The service does not give it out: no permission, a storage class that cannot be read, a key that is lost, or failures that did
    /// not pass for as long as reading is tried. The text is what it said. Nothing of the object is in the batch, and it stays where
    /// it is.
    Unreadable(String),
}

/// Why a batch could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A call failed.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// Encoding failed.
    #[error(transparent)]
    Columnar(#[from] ParquetError),
    /// A computation did not come to its end.
    #[error(transparent)]
    Compute(#[from] ComputeError),
    /// The process is about to stop.
    #[error("stopped by request")]
    Cancelled,
    /// An object cannot be in the batch: it turned out unusable after rows of it were used.
    #[error("object {object} turned out unusable late")]
    Spoiled {
        /// Its position among those given to [`Preparation::add`].
        object: usize,
        /// What it turned out to be.
        outcome: Outcome,
    },
    /// The objects together touch more report items than a batch may, or than there is memory for. The reason is that of an object
    /// which does so alone.
    #[error("too much for one batch")]
    TooLarge(BadObject),
}

/// What is prepared.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The batch that the files carry in their names.
    pub batch: BatchNumber,
    /// When it was opened: what rows' times are judged by.
    pub opened_at: jiff::Timestamp,
    /// What of the rows is wanted; the others are read and left.
    pub scope: Scope,
}

/// Bounds of a preparation.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest object, before and after decompression.
    pub object_bytes: u64,
    /// Report items that a batch may touch.
    pub report_items: usize,
    /// Memory of the process, which the names and report items of a batch share with its catalogue.
    pub memory: Memory,
    /// Pace of reading, if it is limited.
    pub rows: Option<Arc<DefaultDirectRateLimiter>>,
}

/// Everything that a batch is going to publish.
#[derive(Debug)]
pub struct Prepared {
    /// Uploads to complete.
    pub uploads: Vec<Upload>,
    /// The delta files.
    pub delta_files: Vec<DeltaFile>,
    /// Report items in them.
    pub report_items: usize,
    /// Rejected rows of the objects that count, by [`Rejection::kind`](crate::input::cleanse::Rejection::kind).
    pub rejected: BTreeMap<String, u64>,
}

/// A curated file that is being written.
struct CuratedFile {
    parquet: ParquetFile,
    upload: PendingUpload,
    row_groups: usize,
}

impl CuratedFile {
    /// Bytes of memory that it takes until it is finished.
    fn pending_bytes(&self) -> usize {
        self.parquet.pending_bytes() + self.upload.buffered_bytes() + self.row_groups * FOOTER_BYTES
    }

    async fn append(&mut self, row_group: RowGroup) -> Result<(), PrepareError> {
        self.row_groups += 1;
        self.parquet.append(row_group)?;
        Ok(self.upload.write(&self.parquet.take_pending()).await?)
    }

    async fn finish(mut self) -> Result<Upload, PrepareError> {
        self.upload.write(&self.parquet.finish()?).await?;
        Ok(self.upload.finish().await?)
    }
}

/// A batch in preparation.
pub struct Preparation {
    bucket: Bucket,
    plan: Plan,
    limits: Limits,
    shutdown: CancellationToken,
    dictionary: Dictionary,
    /// Rows that are neither folded nor encoded yet.
    rows: Rows,
    compute: Compute,
    files: BTreeMap<i32, CuratedFile>,
    parts: BTreeMap<i32, usize>,
    finished: Vec<Upload>,
    /// Rejected rows that are not with the upload yet.
    rejects: Vec<u8>,
    rejects_upload: Option<PendingUpload>,
    /// What the rows that are folded take in memory.
    folded_bytes: usize,
    rejected: BTreeMap<&'static str, u64>,
    progress: Progress,
}

/// Where the current object begins in what is still in memory, and whether part of it has left memory.
#[derive(Debug, Clone, Copy)]
struct Mark {
    rows: usize,
    rejects: usize,
    spilled: bool,
}

impl Preparation {
    /// Nothing yet.
    pub fn new(
        bucket: Bucket,
        catalogue: Arc<Catalogue>,
        plan: Plan,
        limits: Limits,
        shutdown: CancellationToken,
        progress: Progress,
    ) -> Self {
        let dictionary = Dictionary::of(catalogue);
        let compute = Compute::new(dictionary.names().clone(), plan.scope);
        Preparation {
            bucket,
            plan,
            shutdown,
            dictionary,
            rows: Rows::with_capacity(room(limits.memory.row_group_rows())),
            compute,
            files: BTreeMap::new(),
            parts: BTreeMap::new(),
            finished: Vec::new(),
            rejects: Vec::new(),
            rejects_upload: None,
            folded_bytes: 0,
            rejected: BTreeMap::new(),
            progress,
            limits,
        }
    }

    /// Whether anything of it may have been written.
    pub fn has_written(&self) -> bool {
        self.rejects_upload.is_some() || !self.files.is_empty() || !self.finished.is_empty()
    }

    /// Adds an object, whose content is read from `body`. It counts whole or not at all: with any outcome but `Counted` nothing of it is
    /// in the batch, and the next one can be added. Whether what kept its body from being read would pass makes no difference, as
    /// reading has been tried for long by then. `position` names it in [`PrepareError::Spoiled`], which is given for the same outcomes
    /// when rows of it have been used: then the batch is to be prepared again without it.
    pub async fn add(
        &mut self,
        position: usize,
        event: &ObjectEvent,
        body: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<Outcome, PrepareError> {
        if event.size > self.limits.object_bytes {
            return Ok(Outcome::Bad(NotCsv::TooLarge { limit_bytes: self.limits.object_bytes }.into()));
        }
        let mut mark = Mark { rows: self.rows.len(), rejects: self.rejects.len(), spilled: false };
        let failure = match self.read(event, body, &mut mark).await {
            Ok(outcome) => return Ok(outcome),
            Err(failure) => failure,
        };
        let outcome = match failure {
            Failure::Bad(bad) => Outcome::Bad(bad),
            Failure::Body(error) => match error.kind {
                Kind::NotFound | Kind::Condition => Outcome::Gone,
                _ => Outcome::Unreadable(error.to_string()),
            },
            Failure::Prepare(error) => return Err(error),
        };
        if mark.spilled {
            return Err(PrepareError::Spoiled { object: position, outcome });
        }
        self.rows.truncate(mark.rows);
        self.rejects.truncate(mark.rejects);
        Ok(outcome)
    }

    async fn read(
        &mut self,
        event: &ObjectEvent,
        body: impl AsyncRead + Send + Unpin + 'static,
        mark: &mut Mark,
    ) -> Result<Outcome, Failure> {
        let blocks = Blocks::open(body, self.limits.object_bytes, self.plan.opened_at).await?;
        let blocks = futures::stream::try_unfold(blocks, async |mut blocks| {
            Ok::<_, Failure>(blocks.next().await?.map(|block| (block, blocks)))
        });
        let mut parsed = std::pin::pin!(compute::parse(blocks, self.dictionary.names().clone(), self.limits.memory));
        let source = self.dictionary.add_source(&event.object.key);
        let (mut rows, mut rejected) = (0_u64, BTreeMap::<_, u64>::new());
        let mut listing = Listing::default();
        while let Some(block) = parsed.try_next().await? {
            rows += block.rows;
            for (kind, count) in &block.rejected {
                *rejected.entry(*kind).or_default() += count;
            }
            self.rows.append(&block, source, &mut self.dictionary);
            if self.plan.scope == Scope::Batch {
                listing.add(&block, &event.object, &mut self.rejects);
            }
            if self.rows.len() >= self.row_group_rows() || self.rejects.len() >= MAX_REJECT_BYTES {
                self.relieve(mark).await?;
            }
            self.progress.made();
            self.check_pace(block.rows).await?;
        }
        if self.plan.scope == Scope::Batch {
            listing.end(&rejected, &event.object, &mut self.rejects);
        }
        for (&kind, count) in &rejected {
            *self.rejected.entry(kind).or_default() += count;
        }
        Ok(Outcome::Counted { rows, rejected: rejected.into_values().sum() })
    }

    async fn check_pace(&self, rows: u64) -> Result<(), PrepareError> {
        if self.shutdown.is_cancelled() {
            return Err(PrepareError::Cancelled);
        }
        // Also of objects that turned out bad, whose rows nobody counts.
        if self.dictionary.len() > self.limits.report_items {
            return Err(self.too_many_items());
        }
        if self.folded_bytes > self.fold_limit_bytes() {
            return Err(self.too_much_memory());
        }
        let Some(limiter) = &self.limits.rows else { return Ok(()) };
        let mut left = u32::try_from(rows).unwrap_or(u32::MAX);
        while let Some(step) = NonZeroU32::new(left.min(ROWS_PER_CHECK)) {
            // A limiter with a burst below the step would never let it pass; configuration rules that out.
            let _ = self.shutdown.run_until_cancelled(limiter.until_n_ready(step)).await;
            left -= step.get();
        }
        Ok(())
    }

    fn row_group_rows(&self) -> usize {
        self.limits.memory.row_group_rows()
    }

    fn too_many_items(&self) -> PrepareError {
        PrepareError::TooLarge(BadObject::TooManyItems { limit: self.limits.report_items })
    }

    fn too_much_memory(&self) -> PrepareError {
        PrepareError::TooLarge(BadObject::TooMuchMemory { limit_bytes: self.limits.memory.bytes() })
    }

    /// Bytes of memory that report items may take: what everything else that lasts leaves them.
    fn fold_limit_bytes(&self) -> usize {
        let others = self.dictionary.names().catalogue().memory_bytes()
            + self.dictionary.memory_bytes()
            + self.finished.len() * UPLOAD_BYTES;
        self.limits.memory.lasting().saturating_sub(others)
    }

    /// Makes room: writes what earlier objects left, or, when the current object alone fills the memory, all of it.
    async fn relieve(&mut self, mark: &mut Mark) -> Result<(), PrepareError> {
        if mark.rows >= self.row_group_rows() / 2 || mark.rejects >= MAX_REJECT_BYTES / 2 {
            let (current_rows, current_rejects) =
                (self.rows.split_off(mark.rows), self.rejects.split_off(mark.rejects));
            self.flush().await?;
            (self.rows, self.rejects) = (current_rows, current_rejects);
        } else if self.rows.len() >= 2 * self.row_group_rows() {
            self.flush().await?;
            mark.spilled = true;
        } else {
            return Ok(());
        }
        (mark.rows, mark.rejects) = (0, 0);
        Ok(())
    }

    /// Has all rows in memory folded and encoded, and hands what was encoded meanwhile to the uploads.
    async fn flush(&mut self) -> Result<(), PrepareError> {
        let next = Rows::with_capacity(room(self.row_group_rows()));
        let rows = std::mem::replace(&mut self.rows, next);
        let folded = self.compute.start(rows, self.fold_limit_bytes()).await?;
        if folded.items > self.limits.report_items {
            return Err(self.too_many_items());
        }
        if folded.is_too_large {
            return Err(self.too_much_memory());
        }
        self.folded_bytes = folded.bytes;
        self.write_encoded(self.limits.memory.row_groups_ahead(compute::cores())).await?;
        if !self.rejects.is_empty() {
            let key = || layout::rejected_rows_key(&date_of(self.plan.opened_at), self.plan.batch);
            let upload = self.rejects_upload.get_or_insert_with(|| self.bucket.upload(key(), self.shutdown.clone()));
            upload.write(&std::mem::take(&mut self.rejects)).await?;
        }
        Ok(())
    }

    /// Adds row groups to their files until at most so many are still being encoded, and sends the files on.
    async fn write_encoded(&mut self, at_most: usize) -> Result<(), PrepareError> {
        let most = self.limits.memory.pending_bytes();
        let mut pending_bytes: usize = self.files.values().map(CuratedFile::pending_bytes).sum();
        while let Some(row_groups) = self.compute.encoded(at_most).await? {
            for (day, row_group) in row_groups {
                let file = self.file(day)?;
                let before = file.pending_bytes();
                file.append(row_group).await?;
                pending_bytes = pending_bytes + file.pending_bytes() - before;
                if pending_bytes > most {
                    pending_bytes = self.finish_largest(pending_bytes, most / 2).await?;
                }
            }
        }
        Ok(())
    }

    /// Finishes the largest files, several at a time, until the others have at most so many bytes pending; tells how many.
    async fn finish_largest(&mut self, mut pending_bytes: usize, at_most: usize) -> Result<usize, PrepareError> {
        let mut by_size: Vec<(usize, i32)> =
            self.files.iter().map(|(&day, file)| (file.pending_bytes(), day)).collect();
        by_size.sort_unstable();
        let mut largest = Vec::new();
        while pending_bytes > at_most
            && let Some((bytes, day)) = by_size.pop()
        {
            pending_bytes -= bytes;
            largest.extend(self.files.remove(&day));
        }
        self.finish_all(largest).await?;
        if self.folded_bytes > self.fold_limit_bytes() {
            return Err(self.too_much_memory());
        }
        Ok(pending_bytes)
    }

    /// Finishes files, several at a time.
    async fn finish_all(&mut self, files: Vec<CuratedFile>) -> Result<(), PrepareError> {
        let mut finished = futures::stream::iter(files).map(CuratedFile::finish).buffer_unordered(CONCURRENT_UPLOADS);
        while let Some(upload) = finished.try_next().await? {
            self.finished.push(upload);
            self.progress.made();
        }
        Ok(())
    }

    /// The file of a day that is being written.
    fn file(&mut self, day: i32) -> Result<&mut CuratedFile, PrepareError> {
        Ok(match self.files.entry(day) {
            Entry::Occupied(file) => file.into_mut(),
            Entry::Vacant(place) => {
                let part = self.parts.entry(day).and_modify(|part| *part += 1).or_insert(1);
                let key = layout::curated_key(&date_text(day), self.plan.batch, *part);
                place.insert(CuratedFile {
                    parquet: curated::new_file()?,
                    upload: self.bucket.upload(key, self.shutdown.clone()),
                    row_groups: 0,
                })
            }
        })
    }

    /// Ends the files and writes the delta files, and gives what is to be published.
    pub async fn finish(mut self) -> Result<Prepared, PrepareError> {
        let (uploads, fold) = self.finish_files().await?;
        let report_items = fold.items();
        let mut delta_files = Vec::new();
        let encoded =
            compute::encode_deltas(fold, self.dictionary.names().clone(), DELTAS_PER_FILE, self.limits.memory);
        let mut encoded = std::pin::pin!(encoded);
        while let Some(bytes) = encoded.try_next().await? {
            let key = layout::deltas_key(self.plan.batch, delta_files.len() + 1);
            let file = DeltaFile::new(key, &bytes);
            let put = async || self.bucket.put(&file.key, bytes.clone(), "application/vnd.apache.parquet").await;
            retry_until(&self.shutdown, put).await?;
            delta_files.push(file);
            self.progress.made();
        }
        let rejected = self.rejected.into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect();
        Ok(Prepared { uploads, delta_files, report_items, rejected })
    }

    /// Ends the files, and gives them, the rows in them, and what a roll forward would read from the delta files.
    pub async fn finish_unwritten(
        mut self,
    ) -> Result<(Vec<Upload>, u64, impl Stream<Item = Result<Vec<Delta>, PrepareError>>), PrepareError> {
        let (uploads, fold) = self.finish_files().await?;
        let rows = fold.listens();
        let encoded =
            compute::encode_deltas(fold, self.dictionary.names().clone(), DELTAS_PER_FILE, self.limits.memory);
        Ok((uploads, rows, encoded.map(|bytes| Ok(deltas::decode(&bytes?)?))))
    }

    async fn finish_files(&mut self) -> Result<(Vec<Upload>, Fold), PrepareError> {
        self.flush().await?;
        self.write_encoded(0).await?;
        let files = std::mem::take(&mut self.files).into_values().collect();
        self.finish_all(files).await?;
        let mut uploads = std::mem::take(&mut self.finished);
        if let Some(upload) = self.rejects_upload.take() {
            uploads.push(upload.finish().await?);
        }
        let fold = self.compute.take_fold().await?;
        if fold.items() > self.limits.report_items {
            return Err(self.too_many_items());
        }
        if fold.is_too_large() {
            return Err(self.too_much_memory());
        }
        Ok((uploads, fold))
    }
}

/// Rows that there is room for from the start: a row group, and the block that fills it.
pub fn room(row_group_rows: usize) -> usize {
    row_group_rows + 32 * 1024
}

/// The list of an object's rejected rows. It has the first of them with their lines, [`MAX_LISTED`]; of the others it tells how many there
/// are for each reason.
#[derive(Debug, Default)]
struct Listing {
    rows: usize,
    bytes: usize,
    of_kind: BTreeMap<&'static str, u64>,
}

impl Listing {
    fn add(&mut self, block: &Parsed, object: &ObjectId, list: &mut Vec<u8>) {
        for (rejection, line) in block.rejects.lines(object) {
            if self.rows >= MAX_LISTED.0 || self.bytes >= MAX_LISTED.1 {
                return;
            }
            self.rows += 1;
            self.bytes += line.len();
            *self.of_kind.entry(rejection.kind()).or_default() += 1;
            list.extend_from_slice(&line);
        }
    }

    fn end(self, rejected: &BTreeMap<&'static str, u64>, object: &ObjectId, list: &mut Vec<u8>) {
        let unlisted = |(&kind, &count): (&&'static str, &u64)| {
            (kind, count.saturating_sub(self.of_kind.get(kind).copied().unwrap_or(0)))
        };
        let reasons: BTreeMap<&str, u64> = rejected.iter().map(unlisted).filter(|&(_, count)| count > 0).collect();
        if reasons.is_empty() {
            return;
        }
        let unlisted: u64 = reasons.values().sum();
        let line = serde_json::json!({
            "object": object.key, "version": object.version, "unlisted": unlisted, "reasons": reasons,
        });
        list.extend_from_slice(format!("{line}\n").as_bytes());
    }
}

/// Why an object could not be read to its end.
enum Failure {
    Bad(BadObject),
    /// Reading its body failed. Told apart from failures of what the batch writes, which say nothing about the object.
    Body(AwsError),
    Prepare(PrepareError),
}

impl From<PrepareError> for Failure {
    fn from(error: PrepareError) -> Self {
        Failure::Prepare(error)
    }
}

impl From<ComputeError> for Failure {
    fn from(error: ComputeError) -> Self {
        Failure::Prepare(error.into())
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Bad(bad) => Failure::Bad(bad),
            ReadError::Body(error) => Failure::Body(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Version;

    fn list(lines: &[&str]) -> (Vec<serde_json::Value>, usize) {
        let object = ObjectId {
            bucket: "b".to_owned(),
            key: format!("incoming/{}", "k".repeat(975)),
            version: Version::ETag("e".to_owned()),
        };
        let catalogue = Catalogue::default();
        let (mut listing, mut rejected, mut bytes) = (Listing::default(), BTreeMap::new(), Vec::new());
        for lines in lines {
            let block = crate::input::block::tests::parse(lines, &catalogue);
            block.rejected.iter().for_each(|(&kind, count)| *rejected.entry(kind).or_default() += count);
            listing.add(&block, &object, &mut bytes);
        }
        listing.end(&rejected, &object, &mut bytes);
        let rows = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        (rows.map(|row| serde_json::from_slice(row).unwrap()).collect(), bytes.len())
    }

    #[test]
    fn of_many_rejected_rows_the_first_are_listed_and_the_others_counted() {
        let bad_users = "x,t,2024-06-25 00:00:05\n".repeat(300);
        let (rows, bytes) = list(&[&bad_users, &"x\n".repeat(100_000), &"x\n".repeat(100_000), &bad_users]);
        let (last, listed) = rows.split_last().unwrap();
        assert!((2000..=MAX_LISTED.0).contains(&listed.len()), "{}", listed.len());
        assert!(bytes < MAX_LISTED.1 + (16 << 10), "{bytes}");
        assert!(listed.iter().zip(2..302).all(|(row, line)| row["line"] == line && row["fields"][0] == "x"));
        let unlisted = 200_600 - listed.len() as u64;
        assert_eq!(last["unlisted"], unlisted);
        assert_eq!(last["reasons"], serde_json::json!({"user_id": 300, "width": unlisted - 300}));
        assert_eq!(last["object"], listed[0]["object"]);
    }

    #[test]
    fn of_few_rejected_rows_each_is_listed() {
        let (rows, _) = list(&["x\n7,t,2024-06-25 00:00:05\n", "y,z\n"]);
        let shown: Vec<_> = rows.iter().map(|row| (row["line"].as_u64(), row["fields"][0].as_str())).collect();
        assert_eq!(shown, [(Some(2), Some("x")), (Some(2), Some("y"))]);
    }
}
