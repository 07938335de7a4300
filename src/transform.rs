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

use crate::aggregate::{Dictionary, Fold, Rows};
use crate::aws::{AwsError, Kind, persist};
use crate::bucket::{Bucket, PendingUpload, Upload};
use crate::catalogue::Catalogue;
use crate::columnar::{self, ColumnarError, ParquetFile, RowGroup};
use crate::compute::{self, Compute, ComputeError, Scope};
use crate::event::ObjectEvent;
use crate::health::Progress;
use crate::layout;
use crate::listening_file::{BadObject, Blocks, ReadError};
use crate::manifest::DeltaFile;
use crate::protocol::BatchNumber;
use crate::report::Delta;
use crate::row::{date_of, date_text};

/// Rows that make a row group worth writing: small enough to hold several times, large enough that its dictionaries, which name
/// every track that occurs, weigh little.
pub const ROW_GROUP_ROWS: usize = 512 * 1024;
/// Rows that there is room for from the start: a row group, and the block that fills it.
pub const ROOM: usize = ROW_GROUP_ROWS + ROW_GROUP_ROWS / 16;
/// Encoded bytes of all days that may wait for their uploads; with more, the largest file is finished early.
const MAX_PENDING_BYTES: usize = 64 << 20;
/// Rejected rows, encoded, that wait for the end of their object.
const MAX_REJECT_BYTES: usize = 8 << 20;
/// Rows for which the rate limit is asked at a time.
const ROWS_PER_CHECK: u32 = 4096;
/// Report items in one delta file: what a roll forward holds in memory at a time, at 16 KiB each at the most.
pub const DELTAS_PER_FILE: usize = 4096;
/// Uploads that are finished at the same time.
const CONCURRENT_UPLOADS: usize = 16;

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
    /// The service does not give it out: no permission, a storage class that cannot be read, a key that is lost, a body that
    /// always breaks off. It is left out of the batch and stays where it is.
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
    Columnar(#[from] ColumnarError),
    /// A computation did not come to its end.
    #[error(transparent)]
    Compute(#[from] ComputeError),
    /// The process is about to stop.
    #[error("stopped by request")]
    Cancelled,
    /// An object cannot be in the batch: it turned out unusable after rows of it were used, or it cannot be read.
    #[error("object {object} turned out unusable late")]
    Spoiled {
        /// Its position among those given to [`Preparation::add`].
        object: usize,
        /// What it turned out to be.
        outcome: Outcome,
    },
    /// The objects together touch more report items than a batch may.
    #[error("too many report items for one batch")]
    TooManyItems,
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
    /// Report items that a batch may touch: what memory grows with.
    pub report_items: usize,
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
    /// Rejected rows of the objects that count, by [`Rejection::kind`](crate::row::Rejection::kind).
    pub rejected: BTreeMap<String, u64>,
}

/// A curated file that is being written.
struct CuratedFile {
    parquet: ParquetFile,
    upload: PendingUpload,
}

impl CuratedFile {
    fn pending_bytes(&self) -> usize {
        self.parquet.pending_bytes() + self.upload.buffered_bytes()
    }

    async fn append(&mut self, row_group: RowGroup) -> Result<(), PrepareError> {
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
    stop: CancellationToken,
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
        stop: CancellationToken,
        progress: Progress,
    ) -> Self {
        let dictionary = Dictionary::of(catalogue);
        let compute = Compute::new(dictionary.names().clone(), plan.scope);
        Preparation {
            bucket,
            plan,
            limits,
            stop,
            dictionary,
            rows: Rows::with_capacity(ROOM),
            compute,
            files: BTreeMap::new(),
            parts: BTreeMap::new(),
            finished: Vec::new(),
            rejects: Vec::new(),
            rejects_upload: None,
            rejected: BTreeMap::new(),
            progress,
        }
    }

    /// Whether anything of it may have been written.
    pub fn has_written(&self) -> bool {
        self.rejects_upload.is_some() || !self.files.is_empty() || !self.finished.is_empty()
    }

    /// Adds an object, whose content is read from `body`. It counts whole or not at all; `position` names it in
    /// [`PrepareError::Spoiled`].
    pub async fn add(
        &mut self,
        position: usize,
        event: &ObjectEvent,
        body: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<Outcome, PrepareError> {
        if event.size > self.limits.object_bytes {
            return Ok(Outcome::Bad(BadObject::TooLarge { limit_bytes: self.limits.object_bytes }));
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
                // What may pass was tried again until nothing more was to be hoped for.
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
        let mut parsed = std::pin::pin!(compute::parse(blocks, event.clone(), self.dictionary.names().clone()));
        let source = self.dictionary.names().add_source(&event.object.key);
        let (mut rows, mut rejected) = (0_u64, BTreeMap::<_, u64>::new());
        while let Some(block) = parsed.try_next().await? {
            rows += block.rows;
            for (kind, count) in &block.rejected {
                *rejected.entry(*kind).or_default() += count;
            }
            self.rows.append(&block, source, &mut self.dictionary);
            if self.plan.scope == Scope::Batch {
                self.rejects.extend_from_slice(&block.rejects);
            }
            if self.rows.len() >= ROW_GROUP_ROWS || self.rejects.len() >= MAX_REJECT_BYTES {
                self.relieve(mark).await?;
            }
            self.progress.made();
            self.check_pace(block.rows).await?;
        }
        for (&kind, count) in &rejected {
            *self.rejected.entry(kind).or_default() += count;
        }
        Ok(Outcome::Counted { rows, rejected: rejected.into_values().sum() })
    }

    async fn check_pace(&self, rows: u64) -> Result<(), PrepareError> {
        if self.stop.is_cancelled() {
            return Err(PrepareError::Cancelled);
        }
        // Also of objects that turned out bad, whose rows nobody counts.
        if self.dictionary.len() > self.limits.report_items {
            return Err(PrepareError::TooManyItems);
        }
        let Some(limiter) = &self.limits.rows else { return Ok(()) };
        let mut left = u32::try_from(rows).unwrap_or(u32::MAX);
        while let Some(step) = NonZeroU32::new(left.min(ROWS_PER_CHECK)) {
            // A limiter with a burst below the step would never let it pass; configuration rules that out.
            let _ = self.stop.run_until_cancelled(limiter.until_n_ready(step)).await;
            left -= step.get();
        }
        Ok(())
    }

    /// Makes room: writes what earlier objects left, or, when the current object alone fills the memory, all of it.
    async fn relieve(&mut self, mark: &mut Mark) -> Result<(), PrepareError> {
        if mark.rows >= ROW_GROUP_ROWS / 2 || mark.rejects >= MAX_REJECT_BYTES / 2 {
            let (current_rows, current_rejects) =
                (self.rows.split_off(mark.rows), self.rejects.split_off(mark.rejects));
            self.flush().await?;
            (self.rows, self.rejects) = (current_rows, current_rejects);
        } else if self.rows.len() >= 2 * ROW_GROUP_ROWS || self.rejects.len() >= 2 * MAX_REJECT_BYTES {
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
        let rows = std::mem::replace(&mut self.rows, Rows::with_capacity(ROOM));
        if self.compute.start(rows).await? > self.limits.report_items {
            return Err(PrepareError::TooManyItems);
        }
        self.write_encoded(compute::cores() - 1).await?;
        if !self.rejects.is_empty() {
            let key = || layout::rejected_rows_key(&date_of(self.plan.opened_at), self.plan.batch);
            let upload = self.rejects_upload.get_or_insert_with(|| self.bucket.upload(key(), self.stop.clone()));
            upload.write(&std::mem::take(&mut self.rejects)).await?;
        }
        Ok(())
    }

    /// Adds row groups to their files until at most so many are still being encoded, and sends the files on.
    async fn write_encoded(&mut self, at_most: usize) -> Result<(), PrepareError> {
        let mut pending_bytes: usize = self.files.values().map(CuratedFile::pending_bytes).sum();
        while let Some(row_groups) = self.compute.encoded(at_most).await? {
            for (day, row_group) in row_groups {
                let file = self.file(day)?;
                let before = file.pending_bytes();
                file.append(row_group).await?;
                pending_bytes = pending_bytes + file.pending_bytes() - before;
                if pending_bytes > MAX_PENDING_BYTES {
                    let largest = self.files.iter().max_by_key(|(_, file)| file.pending_bytes()).map(|(&day, _)| day);
                    if let Some(file) = largest.and_then(|day| self.files.remove(&day)) {
                        pending_bytes -= file.pending_bytes();
                        self.finished.push(file.finish().await?);
                    }
                }
            }
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
                    parquet: ParquetFile::curated()?,
                    upload: self.bucket.upload(key, self.stop.clone()),
                })
            }
        })
    }

    /// Ends the files and writes the delta files, and gives what is to be published.
    pub async fn finish(mut self) -> Result<Prepared, PrepareError> {
        let (uploads, fold) = self.finish_files().await?;
        let report_items = fold.items();
        let mut delta_files = Vec::new();
        let encoded = compute::encode_deltas(fold, self.dictionary.names().clone(), DELTAS_PER_FILE);
        let mut encoded = std::pin::pin!(encoded);
        while let Some(bytes) = encoded.try_next().await? {
            let key = layout::deltas_key(self.plan.batch, delta_files.len() + 1);
            let file = DeltaFile::new(key, &bytes);
            let put = async || self.bucket.put(&file.key, bytes.clone(), "application/vnd.apache.parquet").await;
            persist(&self.stop, put).await?;
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
        let encoded = compute::encode_deltas(fold, self.dictionary.names().clone(), DELTAS_PER_FILE);
        Ok((uploads, rows, encoded.map(|bytes| Ok(columnar::decode_deltas(&bytes?)?))))
    }

    async fn finish_files(&mut self) -> Result<(Vec<Upload>, Fold), PrepareError> {
        self.flush().await?;
        self.write_encoded(0).await?;
        let files = std::mem::take(&mut self.files).into_values().map(CuratedFile::finish);
        let mut uploads = std::mem::take(&mut self.finished);
        uploads
            .extend(futures::stream::iter(files).buffer_unordered(CONCURRENT_UPLOADS).try_collect::<Vec<_>>().await?);
        if let Some(upload) = self.rejects_upload.take() {
            uploads.push(upload.finish().await?);
        }
        let fold = self.compute.take_fold().await?;
        if fold.items() > self.limits.report_items {
            return Err(PrepareError::TooManyItems);
        }
        Ok((uploads, fold))
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
