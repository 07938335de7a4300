//! Abandoning a batch before its commit, and clearing away what it had prepared.
//!
//! Nothing of such a batch can be seen, so all of this may be left undone: the next consumer does it after the lease,
//! and the bucket's lifecycle removes what nobody else does. The tests are tests/chaos and tests/pipeline.

use fail::fail_point;

use crate::aws::error::AwsError;
use crate::batch::Worker;
use crate::layout;
use crate::protocol::{BatchNumber, State};

impl Worker {
    /// Abandons a batch of this consumer before its commit, on a best-effort basis. `has_written` says whether anything
    /// of it may be in the bucket.
    pub(super) async fn abandon_own(&self, batch: BatchNumber, has_written: bool) {
        fail_point!("given up");
        let ledger = &self.roll_forward.ledger;
        let cleared = match ledger.abandon_own(batch).await {
            Ok(true) => self.clear_away(batch, State::Abandoned, has_written).await,
            // Abandoned by another consumer, which may have cleared away before the last of it was written.
            Ok(false) => match ledger.state_of(batch).await {
                Ok(Some(state)) if state.is_abandoned() => self.clear_away(batch, state, has_written).await,
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        if let Err(error) = cleared {
            tracing::warn!(batch, "{error}; the remains of this batch are cleared away after the lease");
        }
    }

    /// Removes what an abandoned batch had prepared, if anything, then removes the batch from the registry.
    pub(super) async fn clear_away(&self, batch: BatchNumber, state: State, has_written: bool) -> Result<(), AwsError> {
        fail_point!("abandoned");
        if has_written {
            match self.remove_remains(batch).await {
                // Nobody sees them, and the bucket's lifecycle removes them: no reason to keep the batch registered.
                Err(error) if !error.kind.is_transient() => {
                    tracing::warn!(batch, "{error}; the remains of this batch are left to the bucket's lifecycle");
                }
                removed => removed?,
            }
        }
        fail_point!("cleared away");
        self.roll_forward.ledger.close(batch, state, "{}").await
    }

    async fn remove_remains(&self, batch: BatchNumber) -> Result<(), AwsError> {
        let bucket = &self.roll_forward.bucket;
        for prefix in [layout::CURATED, layout::QUARANTINED_ROWS] {
            bucket.abort_uploads(prefix, |key| layout::is_of_batch(key, batch)).await?;
        }
        bucket.delete_prefix(&layout::batch_prefix(batch)).await
    }
}
