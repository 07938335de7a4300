//! Recovery: completing, or clearing away, the batches of silent owners.
//!
//! An open batch is abandoned, an abandoned one is cleared away, and a committed one is adopted and rolled forward. The
//! tests are tests/chaos and tests/model.

use fail::fail_point;
use tracing::Instrument;

use crate::aws::error::{AwsError, Kind};
use crate::aws::retry::retry_until;
use crate::batch::Worker;
use crate::batch::manifest::Manifest;
use crate::batch::roll_forward::{CarriedOut, RollForward, RollForwardError};
use crate::counts::Counts;
use crate::layout;
use crate::protocol::{BatchNumber, Entry, State};
use crate::telemetry::batch_trace::BatchTrace;
use crate::telemetry::metrics::{label, metrics};

impl Worker {
    /// Does what remains to be done for a batch whose owner is silent.
    pub async fn recover(&mut self, batch: BatchNumber, seen: Entry) {
        let recovered = match seen.state {
            State::Open => self.abandon_or_finish(batch, &seen).await,
            State::Abandoned | State::Lost => {
                self.clear_away(batch, seen.state, true).await.map_err(RollForwardError::from)
            }
            State::Committed => match self.roll_forward.ledger.adopt(batch, &seen).await {
                Ok(true) => self.finish_adopted(batch, &seen).await,
                Ok(false) => Ok(()),
                Err(error) => Err(error.into()),
            },
            State::Done | State::Aside => Ok(()),
        };
        if let Err(error) = recovered {
            // An error each time, so that it is also seen by those who look at the log late.
            tracing::error!(batch, "the batch cannot be finished: {error}; trying again, less and less often");
        }
        self.roll_forward.progress.clear();
    }

    /// Abandons an open batch, or finishes one that turns out to have been committed.
    async fn abandon_or_finish(&self, batch: BatchNumber, seen: &Entry) -> Result<(), RollForwardError> {
        let ledger = &self.roll_forward.ledger;
        if self.is_published(batch).await? {
            tracing::warn!(batch, "the ledger has forgotten that this batch was committed: it is published");
            return match ledger.commit_again(batch, seen).await? {
                true => self.finish_adopted(batch, seen).await,
                false => Ok(()),
            };
        }
        if ledger.abandon(batch, seen).await? {
            metrics().recoveries.add(1, &label("what", "abandoned"));
            tracing::warn!(batch, owner = seen.owner, "abandoned an open batch whose owner is silent");
            self.clear_away(batch, State::Lost, true).await?;
        }
        Ok(())
    }

    /// Returns true if any file of the batch is published. That of an open batch never is, unless the ledger was
    /// restored to an earlier time.
    async fn is_published(&self, batch: BatchNumber) -> Result<bool, AwsError> {
        let bucket = &self.roll_forward.bucket;
        let Some(manifest) = Manifest::find(bucket, batch).await? else { return Ok(false) };
        for upload in &manifest.uploads {
            if bucket.find(&upload.key).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Finishes a committed batch that this consumer has just adopted.
    async fn finish_adopted(&self, batch: BatchNumber, seen: &Entry) -> Result<(), RollForwardError> {
        fail_point!("adopted");
        metrics().recoveries.add(1, &label("what", "adopted"));
        let RollForward { bucket, deadline, progress, .. } = &self.roll_forward;
        progress.made();
        tracing::warn!(batch, owner = seen.owner, "took over a committed batch whose owner is silent");
        let _heartbeat = self.start_heartbeat(batch);
        let key = layout::manifest_key(batch);
        let json = match retry_until(deadline, async || bucket.read_all(&key).await).await {
            Ok(json) => json,
            Err(error) if error.kind == Kind::NotFound => {
                return Ok(self.roll_forward.set_batch_aside(batch, &format!("its manifest {key} is gone")).await?);
            }
            Err(error) => return Err(error.into()),
        };
        let manifest: Manifest = match serde_json::from_slice(&json) {
            Ok(manifest) => manifest,
            Err(error) => {
                let reason = format!("its manifest {key} cannot be read: {error}");
                return Ok(self.roll_forward.set_batch_aside(batch, &reason).await?);
            }
        };
        self.roll_forward.keep(&manifest, &json).await?;
        self.carry_out_again(&manifest).await
    }

    /// Carries out a batch that another consumer may have carried out in part, as a continuation of its trace.
    async fn carry_out_again(&self, manifest: &Manifest) -> Result<(), RollForwardError> {
        let batch = manifest.batch;
        let mut stages = BatchTrace::begin("batch recovery", manifest.traceparent.as_deref());
        stages.note("batch", batch);
        let span = stages.log_span();
        let finish = async {
            let _protected = self.protection.hold();
            let CarriedOut { done, .. } = self.roll_forward.carry_out(manifest, true, &mut stages).await;
            done.inspect_err(|error| stages.failed(error))?;
            let Counts { objects, quarantined, rows, rejected, suspect, .. } = manifest.counts();
            tracing::info!(
                batch,
                objects,
                quarantined,
                rows,
                rejected,
                suspect,
                seconds = %stages,
                "batch done after recovery"
            );
            Ok(())
        };
        finish.instrument(span).await
    }
}
