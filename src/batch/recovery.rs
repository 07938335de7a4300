//! Recovery: batches that were given up, by this consumer or by a silent one.

use fail::fail_point;
use tracing::Instrument;

use crate::aws::error::{AwsError, Kind};
use crate::aws::retry::retry_until;
use crate::batch::Worker;
use crate::batch::manifest::Manifest;
use crate::batch::roll_forward::{CarriedOut, RollForward, RollForwardError};
use crate::counts::Counts;
use crate::layout::{self};
use crate::protocol::{BatchNumber, Entry, State};
use crate::telemetry::metrics::{label, metrics};
use crate::telemetry::stages::BatchTrace;

impl Worker {
    /// Gives up a batch of one's own before its commit. Best effort: what is left over, the next consumer clears away.
    pub(super) async fn give_up(&self, batch: BatchNumber, has_written: bool) {
        fail_point!("given up");
        let ledger = &self.roll_forward.ledger;
        let cleared = match ledger.abandon_own(batch).await {
            Ok(true) => self.clear_away(batch, State::Abandoned, has_written).await,
            // Abandoned by another, who may have cleared away before the last of it was written.
            Ok(false) => match ledger.state_of(batch).await {
                Ok(Some(state)) if state.is_given_up() => self.clear_away(batch, state, has_written).await,
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        if let Err(error) = cleared {
            tracing::warn!(batch, "{error}; the remains of this batch are cleared away after the lease");
        }
    }

    /// Removes what a batch that was given up had prepared, if it had, then the batch itself from the registry.
    pub(super) async fn clear_away(&self, batch: BatchNumber, state: State, has_written: bool) -> Result<(), AwsError> {
        fail_point!("abandoned");
        if has_written {
            match self.remove_remains(batch).await {
                // Nobody sees them, and the bucket's lifecycle removes them: no reason to keep the batch listed.
                Err(error) if !error.kind.is_transient() => {
                    tracing::warn!(batch, "{error}; the remains of this batch are left to the bucket's lifecycle");
                }
                removed => removed?,
            }
        }
        fail_point!("cleared away");
        self.roll_forward.ledger.close(batch, state, "{}").await
    }

    pub(super) async fn remove_remains(&self, batch: BatchNumber) -> Result<(), AwsError> {
        let bucket = &self.roll_forward.bucket;
        for prefix in [layout::CURATED, layout::QUARANTINED_ROWS] {
            bucket.abort_uploads(prefix, |key| layout::is_of_batch(key, batch)).await?;
        }
        bucket.delete_prefix(&layout::batch_prefix(batch)).await
    }

    /// Does what is left to do for a batch whose owner is silent.
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
            // An error each time: whoever looks at the log late must see it too.
            tracing::error!(batch, "the batch cannot be finished: {error}; trying again, ever more rarely");
        }
        self.roll_forward.progress.rests();
    }

    /// Whether a batch shows anything. An open one never does, unless the ledger is an older state of itself that was restored.
    pub(super) async fn is_published(&self, batch: BatchNumber) -> Result<bool, AwsError> {
        let bucket = &self.roll_forward.bucket;
        let Some(manifest) = Manifest::find(bucket, batch).await? else { return Ok(false) };
        for upload in &manifest.uploads {
            if bucket.find(&upload.key).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) async fn abandon_or_finish(&self, batch: BatchNumber, seen: &Entry) -> Result<(), RollForwardError> {
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

    /// Finishes a batch that was just taken over.
    pub(super) async fn finish_adopted(&self, batch: BatchNumber, seen: &Entry) -> Result<(), RollForwardError> {
        fail_point!("adopted");
        metrics().recoveries.add(1, &label("what", "adopted"));
        let RollForward { bucket, deadline, progress, .. } = &self.roll_forward;
        progress.made();
        tracing::warn!(batch, owner = seen.owner, "took over a committed batch whose owner is silent");
        let _heart = self.beat(batch);
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
        let mut stages = BatchTrace::begin("batch recovery", manifest.traceparent.as_deref());
        stages.note("batch", batch);
        let span = stages.log_span();
        let finish = async {
            let _protected = self.protection.hold();
            let CarriedOut { done, .. } = self.roll_forward.carry_out(&manifest, true, &mut stages).await;
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
