//! Curated files: folding, encoding and uploading the rows of a preparation, and making room for more.
//!
//! The tests are tests/pipeline and tests/parquet.rs.

use std::collections::btree_map::Entry;

use futures::{StreamExt, TryStreamExt};

use crate::aws::s3::{PendingUpload, Upload};
use crate::batch::prepare::object::Mark;
use crate::batch::prepare::rejects::MAX_REJECT_BYTES;
use crate::batch::prepare::{Preparation, PrepareError, room};
use crate::calendar::{date_of, date_text};
use crate::compute::{self, Rows, curated};
use crate::formats::parquet::{ParquetFile, RowGroup};
use crate::layout;

/// Uploads that are finished at the same time.
const CONCURRENT_UPLOADS: usize = 16;
/// Bytes of memory that a row group takes in the footer of its file, until the footer is written.
const FOOTER_BYTES: usize = 6 << 10;

/// A curated file that is being written.
pub(super) struct CuratedFileWriter {
    parquet: ParquetFile,
    upload: PendingUpload,
    row_groups: usize,
}

impl CuratedFileWriter {
    /// Bytes of memory that the file takes until it is finished.
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

impl Preparation {
    /// Makes room in memory: writes the rows of earlier objects, or all rows if the current object alone fills the
    /// memory.
    pub(super) async fn relieve(&mut self, mark: &mut Mark) -> Result<(), PrepareError> {
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

    /// Starts to fold and encode all rows in memory, and passes to the uploads what was encoded meanwhile.
    pub(super) async fn flush(&mut self) -> Result<(), PrepareError> {
        let next = Rows::with_capacity(self.plan(), room(self.row_group_rows()));
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
            let key = || layout::rejected_rows_key(&date_of(self.subject.opened_at), self.subject.batch);
            let upload = self.rejects_upload.get_or_insert_with(|| self.bucket.upload(key(), self.shutdown.clone()));
            upload.write(&std::mem::take(&mut self.rejects)).await?;
        }
        Ok(())
    }

    /// Uploads encoded row groups until at most `at_most` are still being encoded.
    pub(super) async fn write_encoded(&mut self, at_most: usize) -> Result<(), PrepareError> {
        let most = self.limits.memory.pending_bytes();
        let mut pending_bytes: usize = self.files.values().map(CuratedFileWriter::pending_bytes).sum();
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
        if self.folded_bytes > self.fold_limit_bytes() {
            return Err(self.too_much_memory());
        }
        Ok(pending_bytes)
    }

    /// Finishes files, several at a time.
    pub(super) async fn finish_all(&mut self, files: Vec<CuratedFileWriter>) -> Result<(), PrepareError> {
        let mut finished =
            futures::stream::iter(files).map(CuratedFileWriter::finish).buffer_unordered(CONCURRENT_UPLOADS);
        while let Some(upload) = finished.try_next().await? {
            self.finished.push(upload);
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
                    parquet: curated::new_file(self.dictionary.names().plan())?,
                    upload: self.bucket.upload(key, self.shutdown.clone()),
                    row_groups: 0,
                })
            }
        })
    }
}
