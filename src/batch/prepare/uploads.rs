//! Uploads: the destination of a batch, which are invisible uploads to the bucket.
//!
//! The tests are tests/pipeline and tests/parquet.rs.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use crate::aws::s3::{Bucket, PendingUpload, Upload};
use crate::batch::manifest::CuratedFile;
use crate::batch::prepare::{Destination, PrepareError, Subject};
use crate::calendar::{date_of, date_text};
use crate::compute::curated;
use crate::formats::delta::stats::Stats;
use crate::formats::parquet::{self, ParquetFile, RowGroup};
use crate::layout;
use crate::memory::Memory;
use crate::plan::Plan;
use crate::plan::columns::SOURCE_COLUMN;
use crate::telemetry::progress::Progress;

/// Uploads that are finished at the same time.
const CONCURRENT_UPLOADS: usize = 16;
/// Bytes of memory that a row group takes in the footer of its file, until the footer is written.
const FOOTER_BYTES: usize = 6 << 10;
/// Bytes of memory that a finished upload takes, also in the manifest: keys, eTags, and S3's upload id.
const UPLOAD_BYTES: usize = 2 << 10;

/// The uploads of a batch: curated files, one for each day, and the list of rejected rows.
pub struct Uploads {
    pub(super) bucket: Bucket,
    pub(super) shutdown: CancellationToken,
    plan: Arc<Plan>,
    subject: Subject,
    memory: Memory,
    progress: Progress,
    /// The file being written for each day.
    files: BTreeMap<i32, CuratedFileWriter>,
    /// The number of the last file begun for each day.
    parts: BTreeMap<i32, usize>,
    rejects: Option<PendingUpload>,
    finished: Vec<Upload>,
    /// The curated files among those that are finished.
    pub(super) curated_files: Vec<CuratedFile>,
}

/// A curated file that is being written.
struct CuratedFileWriter {
    parquet: ParquetFile,
    upload: PendingUpload,
    row_groups: usize,
    /// Bytes that the upload has.
    bytes: u64,
}

impl CuratedFileWriter {
    /// Bytes of memory that the file takes until it is finished.
    fn pending_bytes(&self) -> usize {
        self.parquet.pending_bytes() + self.upload.buffered_bytes() + self.row_groups * FOOTER_BYTES
    }

    async fn append(&mut self, row_group: RowGroup) -> Result<(), PrepareError> {
        self.row_groups += 1;
        self.parquet.append(row_group)?;
        let bytes = self.parquet.take_pending();
        self.bytes += bytes.len() as u64;
        Ok(self.upload.write(&bytes).await?)
    }

    async fn finish(mut self) -> Result<(Upload, CuratedFile), PrepareError> {
        let end = self.parquet.finish()?;
        let stats = Stats::of(&parquet::summary(&end)?, SOURCE_COLUMN);
        self.upload.write(&end).await?;
        let upload = self.upload.finish().await?;
        let file = CuratedFile { key: upload.key.clone(), bytes: self.bytes + end.len() as u64, stats };
        Ok((upload, file))
    }
}

impl Uploads {
    pub(super) fn new(
        bucket: Bucket,
        plan: Arc<Plan>,
        subject: Subject,
        memory: Memory,
        shutdown: CancellationToken,
        progress: Progress,
    ) -> Self {
        let (files, parts, rejects) = (BTreeMap::new(), BTreeMap::new(), None);
        let (finished, curated_files) = (Vec::new(), Vec::new());
        Uploads { bucket, shutdown, plan, subject, memory, progress, files, parts, rejects, finished, curated_files }
    }

    /// Returns true if anything may have been written.
    pub(super) fn has_written(&self) -> bool {
        self.rejects.is_some() || !self.files.is_empty() || !self.finished.is_empty()
    }

    /// Finishes all files, and returns their uploads.
    pub(super) async fn finish(&mut self) -> Result<Vec<Upload>, PrepareError> {
        let files = std::mem::take(&mut self.files).into_values().collect();
        self.finish_all(files).await?;
        let mut uploads = std::mem::take(&mut self.finished);
        if let Some(rejects) = self.rejects.take() {
            uploads.push(rejects.finish().await?);
        }
        Ok(uploads)
    }

    /// Finishes the largest files, several at a time, until the others have at most `at_most` bytes pending. Returns
    /// the number of bytes still pending.
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
        Ok(pending_bytes)
    }

    /// Finishes files, several at a time.
    async fn finish_all(&mut self, files: Vec<CuratedFileWriter>) -> Result<(), PrepareError> {
        let mut finished =
            futures::stream::iter(files).map(CuratedFileWriter::finish).buffer_unordered(CONCURRENT_UPLOADS);
        while let Some((upload, file)) = finished.try_next().await? {
            self.finished.push(upload);
            self.curated_files.push(file);
            self.progress.made();
        }
        Ok(())
    }

    /// Returns the file being written for a day, and begins one if there is none.
    fn file(&mut self, day: i32) -> Result<&mut CuratedFileWriter, PrepareError> {
        Ok(match self.files.entry(day) {
            Entry::Occupied(file) => file.into_mut(),
            Entry::Vacant(entry) => {
                let part = self.parts.entry(day).and_modify(|part| *part += 1).or_insert(1);
                let key = layout::curated_key(&date_text(day), self.subject.batch, *part);
                entry.insert(CuratedFileWriter {
                    parquet: curated::new_file(&self.plan)?,
                    upload: self.bucket.upload(key, self.shutdown.clone()),
                    row_groups: 0,
                    bytes: 0,
                })
            }
        })
    }
}

impl Destination for Uploads {
    async fn curated(&mut self, row_groups: Vec<(i32, RowGroup)>) -> Result<(), PrepareError> {
        let most = self.memory.pending_bytes();
        let mut pending_bytes: usize = self.files.values().map(CuratedFileWriter::pending_bytes).sum();
        for (day, row_group) in row_groups {
            let file = self.file(day)?;
            let before = file.pending_bytes();
            file.append(row_group).await?;
            pending_bytes = pending_bytes + file.pending_bytes() - before;
            if pending_bytes > most {
                pending_bytes = self.finish_largest(pending_bytes, most / 2).await?;
            }
        }
        Ok(())
    }

    async fn rejected(&mut self, lines: Vec<u8>) -> Result<(), PrepareError> {
        let key = || layout::rejected_rows_key(&date_of(self.subject.opened_at), self.subject.batch);
        let upload = self.rejects.get_or_insert_with(|| self.bucket.upload(key(), self.shutdown.clone()));
        Ok(upload.write(&lines).await?)
    }

    fn lasting_bytes(&self) -> usize {
        self.finished.len() * UPLOAD_BYTES
    }
}
