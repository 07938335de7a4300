//! Relief: room in memory for more rows. What was read so far is folded and encoded, and goes on to the destination.
//!
//! The tests are tests/pipeline and tests/parquet.rs.

use crate::batch::prepare::object::Mark;
use crate::batch::prepare::rejects::MAX_REJECT_BYTES;
use crate::batch::prepare::{Destination, Preparation, PrepareError, room};
use crate::compute::{self, Rows};

impl<D: Destination> Preparation<D> {
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

    /// Starts to fold and encode all rows in memory, and passes on what was encoded meanwhile.
    pub(super) async fn flush(&mut self) -> Result<(), PrepareError> {
        let next = Rows::with_capacity(self.plan(), room(self.row_group_rows()));
        let rows = std::mem::replace(&mut self.rows, next);
        self.destination.rows(&rows, self.dictionary.names());
        let folded = self.compute.start(rows, self.fold_limit_bytes()).await?;
        if folded.items > self.limits.report_items {
            return Err(self.too_many_items());
        }
        if folded.is_too_large {
            return Err(self.too_much_memory());
        }
        self.folded_bytes = folded.bytes;
        self.pass_on_encoded(self.limits.memory.row_groups_ahead(compute::cores())).await?;
        if !self.rejects.is_empty() {
            self.destination.rejected(std::mem::take(&mut self.rejects)).await?;
        }
        Ok(())
    }

    /// Passes on encoded row groups until at most `at_most` are still being encoded.
    pub(super) async fn pass_on_encoded(&mut self, at_most: usize) -> Result<(), PrepareError> {
        while let Some(row_groups) = self.compute.encoded(at_most).await? {
            self.destination.curated(row_groups).await?;
            if self.folded_bytes > self.fold_limit_bytes() {
                return Err(self.too_much_memory());
            }
        }
        Ok(())
    }
}
