//! The status of a claim, by the state of the batch that holds it. Covered by `tests/pipeline` and `tests/chaos`.

use std::collections::HashMap;

use tokio::sync::Mutex;

use crate::aws::error::AwsError;
use crate::ledger::claims::{ClaimStatus, Holder};
use crate::ledger::{Ledger, epoch_seconds};
use crate::protocol::{BatchNumber, ClaimConflict, Registry, State, resolve};

/// Judges claims by the states of the batches that hold them. Each state is read once: the registry is a single item,
/// and a thousand contested claims must not read it a thousand times. A cached state may be outdated. Final states do
/// not change; for any other, the worst outcome is that the object is left for now.
pub struct ClaimJudge<'a> {
    ledger: &'a Ledger,
    registry: Mutex<Option<Registry>>,
    records: Mutex<HashMap<BatchNumber, Option<State>>>,
}

impl Ledger {
    /// Creates a judge of claims, for one attempt at a batch or one round of checks.
    pub fn judge(&self) -> ClaimJudge<'_> {
        ClaimJudge { ledger: self, registry: Mutex::default(), records: Mutex::default() }
    }
}

impl ClaimJudge<'_> {
    pub(super) async fn status(&self, holder: Option<Holder>) -> Result<ClaimStatus, AwsError> {
        Ok(match holder {
            Some(Holder { aside_until: Some(until), batch: None, .. }) if until > epoch_seconds() => ClaimStatus::Aside,
            Some(Holder { renewed: true, .. }) => ClaimStatus::Held(ClaimConflict::Duplicate),
            Some(Holder { batch: Some(batch), .. }) => ClaimStatus::Held(resolve(self.state_of(batch).await?)),
            Some(Holder { batch: None, .. }) | None => ClaimStatus::Held(resolve(None)),
        })
    }

    async fn state_of(&self, batch: BatchNumber) -> Result<Option<State>, AwsError> {
        {
            let mut registry = self.registry.lock().await;
            let known = match registry.take() {
                // A registry that is older than the batch says nothing about it.
                Some(known) if known.last >= batch => known,
                _ => self.ledger.registry().await?,
            };
            let entry = registry.insert(known).batches.get(&batch);
            if let Some(entry) = entry {
                return Ok(Some(entry.state));
            }
        }
        // A batch leaves the registry permanently, and only after its record is written.
        let mut records = self.records.lock().await;
        if let Some(&state) = records.get(&batch) {
            return Ok(state);
        }
        let state = self.ledger.recorded_state(batch).await?;
        records.insert(batch, state);
        Ok(state)
    }
}
