//! Curated files.

use crate::batch::prepare::object::Mark;
use crate::batch::prepare::rejects::MAX_REJECT_BYTES;
use crate::batch::prepare::room;
use std::collections::btree_map::Entry;

use futures::{StreamExt, TryStreamExt};

use crate::aws::s3::{PendingUpload, Upload};
use crate::batch::prepare::{Preparation, PrepareError};
use crate::calendar::{date_of, date_text};
use crate::compute::aggregate::Rows;
use crate::compute::columnar::{ParquetFile, RowGroup};
use crate::compute::{self};
use crate::layout;

/// Uploads that are finished at the same time.
const CONCURRENT_UPLOADS: usize = 16;
/// Bytes of memory that a row group takes in the footer of its file, until that is written.
const FOOTER_BYTES: usize = 6 << 10;

/// A curated file that is being written.
pub(super) struct CuratedFile {
    pub(super) parquet: ParquetFile,
    pub(super) upload: PendingUpload,
    pub(super) row_groups: usize,
}

impl CuratedFile {
    /// Bytes of memory that it takes until it is finished.
    pub(super) fn pending_bytes(&self) -> usize {
        self.parquet.pending_bytes() + self.upload.buffered_bytes() + self.row_groups * FOOTER_BYTES
    }

    pub(super) async fn append(&mut self, row_group: RowGroup) -> Result<(), PrepareError> {
        self.row_groups += 1;
        self.parquet.append(row_group)?;
        Ok(self.upload.write(&self.parquet.take_pending()).await?)
    }

    pub(super) async fn finish(mut self) -> Result<Upload, PrepareError> {
        self.upload.write(&self.parquet.finish()?).await?;
        Ok(self.upload.finish().await?)
    }
}

impl Preparation {
    /// Makes room: writes what earlier objects left, or, when the current object alone fills the memory, all of it.
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

    /// Has all rows in memory folded and encoded, and hands what was encoded meanwhile to the uploads.
    pub(super) async fn flush(&mut self) -> Result<(), PrepareError> {
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
    pub(super) async fn write_encoded(&mut self, at_most: usize) -> Result<(), PrepareError> {
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
    pub(super) async fn finish_largest(
        &mut self,
        mut pending_bytes: usize,
        at_most: usize,
    ) -> Result<usize, PrepareError> {
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
    pub(super) async fn finish_all(&mut self, files: Vec<CuratedFile>) -> Result<(), PrepareError> {
        let mut finished = futures::stream::iter(files).map(CuratedFile::finish).buffer_unordered(CONCURRENT_UPLOADS);
        while let Some(upload) = finished.try_next().await? {
            self.finished.push(upload);
            self.progress.made();
        }
        Ok(())
    }

    /// The file of a day that is being written.
    pub(super) fn file(&mut self, day: i32) -> Result<&mut CuratedFile, PrepareError> {
        Ok(match self.files.entry(day) {
            Entry::Occupied(file) => file.into_mut(),
            Entry::Vacant(place) => {
                let part = self.parts.entry(day).and_modify(|part| *part += 1).or_insert(1);
                let key = layout::curated_key(&date_text(day), self.plan.batch, *part);
                place.insert(CuratedFile {
                    parquet: ParquetFile::curated()?,
                    upload: self.bucket.upload(key, self.shutdown.clone()),
                    row_groups: 0,
                })
            }
        })
    }
}
