//! The end of a preparation: the last rows, the figures, and the delta files.
//!
//! The tests are tests/pipeline and tests/parquet.rs.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt};

use crate::aws::retry::retry_until;
use crate::aws::s3::Upload;
use crate::batch::manifest::DeltaFile;
use crate::batch::prepare::{Destination, Preparation, PrepareError, Prepared, Uploads};
use crate::compute::{self, Fold, Names, deltas};
use crate::layout;
use crate::reports::figures::Delta;

/// Report items in one delta file, which is what a roll forward holds in memory at a time. A file is also limited to
/// about 8 MiB ([`compute::encode_deltas`]).
pub const DELTAS_PER_FILE: usize = 4096;

/// Everything that a preparation has read, folded.
pub struct Folded<D> {
    /// The destination, which has seen all rows.
    pub destination: D,
    /// The sums of the rows.
    pub fold: Fold,
    /// The meaning of their codes.
    pub names: Names,
    /// Rejected rows of the objects that count, by their reason in a word.
    pub rejected: BTreeMap<String, u64>,
}

impl<D: Destination> Preparation<D> {
    /// Ends a preparation whose figures are not to be published: passes the last rows on, and returns all that it has.
    pub async fn finish_folded(mut self) -> Result<Folded<D>, PrepareError> {
        self.pass_on_all().await?;
        let fold = self.take_fold().await?;
        let Preparation { destination, dictionary, rejected, .. } = self;
        Ok(Folded { destination, fold, names: dictionary.names().clone(), rejected })
    }

    async fn pass_on_all(&mut self) -> Result<(), PrepareError> {
        self.flush().await?;
        self.pass_on_encoded(0).await
    }

    async fn take_fold(&mut self) -> Result<Fold, PrepareError> {
        let fold = self.compute.take_fold().await?;
        if fold.items() > self.limits.report_items {
            return Err(self.too_many_items());
        }
        if fold.is_too_large() {
            return Err(self.too_much_memory());
        }
        Ok(fold)
    }
}

impl Preparation<Uploads> {
    /// Finishes the curated files, writes the delta files, and returns everything that is to be published.
    pub async fn finish(mut self) -> Result<Prepared, PrepareError> {
        let (uploads, fold) = self.finish_files().await?;
        let report_items = fold.items();
        let mut delta_files = Vec::new();
        let encoded =
            compute::encode_deltas(fold, self.dictionary.names().clone(), DELTAS_PER_FILE, self.limits.memory);
        let mut encoded = std::pin::pin!(encoded);
        let Uploads { bucket, shutdown, .. } = &self.destination;
        while let Some(bytes) = encoded.try_next().await? {
            let key = layout::deltas_key(self.subject.batch, delta_files.len() + 1);
            let file = DeltaFile::new(key, &bytes);
            let put = async || bucket.put(&file.key, bytes.clone(), "application/vnd.apache.parquet").await;
            retry_until(shutdown, put).await?;
            delta_files.push(file);
            self.progress.made();
        }
        let curated = self.destination.curated_files;
        Ok(Prepared { uploads, curated, delta_files, report_items, rejected: self.rejected })
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

    /// Finishes the curated files and the list of rejected rows, while the last rows are folded. Returns their uploads,
    /// and the folded rows.
    async fn finish_files(&mut self) -> Result<(Vec<Upload>, Fold), PrepareError> {
        self.pass_on_all().await?;
        let uploads = self.destination.finish().await?;
        Ok((uploads, self.take_fold().await?))
    }
}
