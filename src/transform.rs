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
use std::num::NonZeroU32;
use std::sync::Arc;

use csv_async::ByteRecord;
use futures::{StreamExt, TryStreamExt};
use governor::DefaultDirectRateLimiter;
use tokio::io::AsyncRead;
use tokio_util::sync::CancellationToken;

use crate::aggregate::{Dictionary, Fold, Rows};
use crate::aws::{AwsError, Kind};
use crate::bucket::{Bucket, PendingUpload, Upload};
use crate::catalogue::Catalogue;
use crate::columnar::{self, ColumnarError, ParquetFile, Renumbering};
use crate::event::ObjectEvent;
use crate::layout;
use crate::listening_file::{BadObject, ListeningFile, ReadError};
use crate::manifest::DeltaFile;
use crate::protocol::BatchNumber;
use crate::row::{Rejection, date_of, date_text};

/// Rows that make a row group worth writing: small enough to hold twice, large enough to compress well.
const ROW_GROUP_ROWS: usize = 128 * 1024;
/// Encoded bytes of all days that may wait for their uploads; with more, the largest file is finished early.
const MAX_PENDING_BYTES: usize = 64 << 20;
/// Rejected rows, encoded, that wait for the end of their object.
const MAX_REJECT_BYTES: usize = 8 << 20;
/// Longest field that is shown of a rejected row, in bytes, and how many fields are.
const SHOWN: (usize, usize) = (256, 32);
/// Rows between two looks at the rate limit and at cancellation.
const ROWS_PER_CHECK: u32 = 4096;
/// Report items in one delta file: what a roll forward holds in memory at a time, at 8 KiB each at the most.
const DELTAS_PER_FILE: usize = 4096;
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
    /// The service does not give it out: no permission, a storage class that cannot be read, a key that is lost. It is left
    /// out of the batch and stays where it is. Only ever in [`PrepareError::Spoiled`].
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

    async fn finish(mut self) -> Result<Upload, PrepareError> {
        self.upload.write(&self.parquet.finish()?).await?;
        Ok(self.upload.finish().await?)
    }
}

/// A batch in preparation.
pub struct Preparation {
    bucket: Bucket,
    catalogue: Arc<Catalogue>,
    batch: BatchNumber,
    opened_at: jiff::Timestamp,
    limits: Limits,
    stop: CancellationToken,
    dictionary: Dictionary,
    /// Rows that are neither folded nor encoded yet.
    rows: Rows,
    fold: Fold,
    renumbering: Renumbering,
    files: BTreeMap<i32, CuratedFile>,
    parts: BTreeMap<i32, usize>,
    finished: Vec<Upload>,
    /// Rows read since the last look at the pace.
    unpaced_rows: u32,
    /// Rejected rows that are not with the upload yet.
    rejects: Vec<u8>,
    rejects_upload: Option<PendingUpload>,
}

/// Where the current object begins in what is still in memory, and whether part of it has left memory.
#[derive(Debug, Clone, Copy)]
struct Mark {
    rows: usize,
    rejects: usize,
    spilled: bool,
}

impl Preparation {
    /// An empty batch. Rows are judged as of `opened_at`.
    pub fn new(
        bucket: Bucket,
        catalogue: Arc<Catalogue>,
        batch: BatchNumber,
        opened_at: jiff::Timestamp,
        limits: Limits,
        stop: CancellationToken,
    ) -> Self {
        Preparation {
            bucket,
            catalogue,
            batch,
            opened_at,
            limits,
            stop,
            dictionary: Dictionary::default(),
            rows: Rows::default(),
            fold: Fold::default(),
            renumbering: Renumbering::default(),
            files: BTreeMap::new(),
            parts: BTreeMap::new(),
            finished: Vec::new(),
            unpaced_rows: 0,
            rejects: Vec::new(),
            rejects_upload: None,
        }
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
                Kind::Denied | Kind::Refused | Kind::NotImplemented => Outcome::Unreadable(error.to_string()),
                _ => return Err(error.into()),
            },
            Failure::Prepare(error) => return Err(error),
        };
        if mark.spilled || matches!(outcome, Outcome::Unreadable(_)) {
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
        let mut file = ListeningFile::open(body, self.limits.object_bytes, self.opened_at).await?;
        let source = self.dictionary.add_source(&event.object.key);
        let (mut rows, mut rejected) = (0_u64, 0_u64);
        while let Some(line) = file.next().await? {
            rows += 1;
            match line.row {
                Ok(row) => self.rows.push(row, source, &mut self.dictionary, &self.catalogue),
                Err(rejection) => {
                    rejected += 1;
                    self.reject(event, line.number, rejection, line.record);
                }
            }
            if self.rows.len() >= ROW_GROUP_ROWS || self.rejects.len() >= MAX_REJECT_BYTES {
                self.relieve(mark).await?;
            }
            self.unpaced_rows += 1;
            if self.unpaced_rows >= ROWS_PER_CHECK {
                self.check_pace().await?;
            }
        }
        Ok(Outcome::Counted { rows, rejected })
    }

    async fn check_pace(&mut self) -> Result<(), PrepareError> {
        if self.stop.is_cancelled() {
            return Err(PrepareError::Cancelled);
        }
        // Also of objects that turned out bad, whose rows nobody counts.
        if self.dictionary.len() > self.limits.report_items {
            return Err(PrepareError::TooManyItems);
        }
        let rows = NonZeroU32::new(std::mem::take(&mut self.unpaced_rows));
        if let (Some(limiter), Some(rows)) = (&self.limits.rows, rows) {
            // A limiter with a burst below the step would never let it pass; configuration rules that out.
            let _ = self.stop.run_until_cancelled(limiter.until_n_ready(rows)).await;
        }
        Ok(())
    }

    fn reject(&mut self, event: &ObjectEvent, line: u64, rejection: Rejection, record: &ByteRecord) {
        let shown = |field: &[u8]| String::from_utf8_lossy(&field[..field.len().min(SHOWN.0)]).into_owned();
        let fields: Vec<String> = record.iter().take(SHOWN.1).map(shown).collect();
        let reject = serde_json::json!({
            "object": event.object.key, "version": event.object.version, "line": line,
            "reason": rejection.to_string(), "fields": fields,
        });
        self.rejects.extend_from_slice(reject.to_string().as_bytes());
        self.rejects.push(b'\n');
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

    /// Folds and encodes all rows in memory, and hands finished bytes to the uploads.
    async fn flush(&mut self) -> Result<(), PrepareError> {
        let rows = std::mem::take(&mut self.rows);
        self.fold.add(&rows, &self.dictionary, &self.catalogue);
        if self.fold.items() > self.limits.report_items {
            return Err(PrepareError::TooManyItems);
        }
        let mut pending_bytes: usize = self.files.values().map(CuratedFile::pending_bytes).sum();
        for (day, positions) in columnar::by_day(&rows) {
            let mut file = match self.files.remove(&day) {
                Some(file) => file,
                None => {
                    let part = self.parts.entry(day).and_modify(|part| *part += 1).or_insert(1);
                    let key = layout::curated_key(&date_text(day), self.batch, *part);
                    CuratedFile { parquet: ParquetFile::curated()?, upload: self.bucket.upload(key) }
                }
            };
            pending_bytes -= file.pending_bytes();
            let (dictionary, catalogue) = (&self.dictionary, &self.catalogue);
            columnar::write_rows(&mut file.parquet, &rows, &positions, dictionary, catalogue, &mut self.renumbering)?;
            let bytes = file.parquet.take_pending();
            file.upload.write(&bytes).await?;
            pending_bytes += file.pending_bytes();
            self.files.insert(day, file);
            if pending_bytes > MAX_PENDING_BYTES {
                let largest = self.files.iter().max_by_key(|(_, file)| file.pending_bytes()).map(|(&day, _)| day);
                if let Some(file) = largest.and_then(|day| self.files.remove(&day)) {
                    pending_bytes -= file.pending_bytes();
                    self.finished.push(file.finish().await?);
                }
            }
        }
        if !self.rejects.is_empty() {
            let key = || layout::rejected_rows_key(&date_of(self.opened_at), self.batch);
            let upload = self.rejects_upload.get_or_insert_with(|| self.bucket.upload(key()));
            upload.write(&std::mem::take(&mut self.rejects)).await?;
        }
        Ok(())
    }

    /// Ends the files, and gives what is to be published.
    pub async fn finish(mut self) -> Result<Prepared, PrepareError> {
        self.flush().await?;
        let files = std::mem::take(&mut self.files).into_values().map(CuratedFile::finish);
        let mut uploads = self.finished;
        uploads
            .extend(futures::stream::iter(files).buffer_unordered(CONCURRENT_UPLOADS).try_collect::<Vec<_>>().await?);
        if let Some(upload) = self.rejects_upload {
            uploads.push(upload.finish().await?);
        }
        let report_items = self.fold.items();
        let mut delta_files = Vec::new();
        let mut deltas = self.fold.into_deltas(&self.dictionary, &self.catalogue).peekable();
        while deltas.peek().is_some() {
            let group: Vec<_> = deltas.by_ref().take(DELTAS_PER_FILE).collect();
            let key = layout::deltas_key(self.batch, delta_files.len() + 1);
            let bytes = columnar::encode_deltas(&group)?;
            let file = DeltaFile::new(key, &bytes);
            self.bucket.put(&file.key, bytes, "application/vnd.apache.parquet").await?;
            delta_files.push(file);
        }
        Ok(Prepared { uploads, delta_files, report_items })
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

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Bad(bad) => Failure::Bad(bad),
            ReadError::Body(error) => Failure::Body(error),
        }
    }
}
