//! The end of a preparation: the last curated files, and the delta files.
//!
//! The tests are tests/pipeline and tests/parquet.rs.

use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt};

use crate::aws::retry::retry_until;
use crate::aws::s3::Upload;
use crate::batch::manifest::DeltaFile;
use crate::batch::prepare::{Preparation, PrepareError, Prepared};
use crate::compute::{self, Fold, deltas};
use crate::layout;
use crate::reports::figures::Delta;

/// Report items in one delta file, which is what a roll forward holds in memory at a time. A file is also limited to
/// about 8 MiB ([`compute::encode_deltas`]).
pub const DELTAS_PER_FILE: usize = 4096;

impl Preparation {
    /// Finishes the curated files, writes the delta files, and returns everything that is to be published.
    pub async fn finish(mut self) -> Result<Prepared, PrepareError> {
        let (uploads, fold) = self.finish_files().await?;
        let report_items = fold.items();
        let mut delta_files = Vec::new();
        let encoded =
            compute::encode_deltas(fold, self.dictionary.names().clone(), DELTAS_PER_FILE, self.limits.memory);
        let mut encoded = std::pin::pin!(encoded);
        while let Some(bytes) = encoded.try_next().await? {
            let key = layout::deltas_key(self.subject.batch, delta_files.len() + 1);
            let file = DeltaFile::new(key, &bytes);
            let put = async || self.bucket.put(&file.key, bytes.clone(), "application/vnd.apache.parquet").await;
            retry_until(&self.shutdown, put).await?;
            delta_files.push(file);
            self.progress.made();
        }
        Ok(Prepared { uploads, delta_files, report_items, rejected: self.rejected })
    }

    /// Finishes the curated files. Returns their uploads, the number of their rows, and the deltas that a roll forward
    /// would read from the delta files, which are not written.
    pub async fn finish_unwritten(
        mut self,
    ) -> Result<(Vec<Upload>, u64, impl Stream<Item = Result<Vec<Delta>, PrepareError>>), PrepareError> {
        let (uploads, fold) = self.finish_files().await?;
        let (rows, plan) = (fold.rows(), Arc::clone(self.plan()));
        let encoded =
            compute::encode_deltas(fold, self.dictionary.names().clone(), DELTAS_PER_FILE, self.limits.memory);
        Ok((uploads, rows, encoded.map(move |bytes| Ok(deltas::decode(&bytes?, &plan)?))))
    }

    /// Finishes the curated files and the list of rejected rows. Returns their uploads, and the folded rows.
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
