//! The status of a claim, by the state of the batch that holds it.

use std::collections::HashMap;

use tokio::sync::Mutex;

use crate::aws::error::AwsError;
use crate::ledger::claims::{ClaimStatus, Holder};
use crate::ledger::{Ledger, epoch_seconds};
use crate::protocol::{BatchNumber, ClaimConflict, Registry, State, resolve};

/// Judges claims by the states of the batches that have them, each of which is read once: the registry is one item, and a
/// thousand contested claims must not be a thousand reads of it. What it knows may be old. A state that was final stays, and
/// of one that was not, the worst that is said is to leave the object for now.
pub struct ClaimJudge<'a> {
    ledger: &'a Ledger,
    registry: Mutex<Option<Registry>>,
    records: Mutex<HashMap<BatchNumber, Option<State>>>,
}

impl ClaimJudge<'_> {
    pub(in crate::ledger) async fn standing_of(&self, holder: Option<Holder>) -> Result<ClaimStatus, AwsError> {
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
                // A batch that was not there yet.
                Some(known) if known.last >= batch => known,
                _ => self.ledger.registry().await?,
            };
            let entry = registry.insert(known).batches.get(&batch);
            if let Some(entry) = entry {
                return Ok(Some(entry.state));
            }
        }
        // It has left the registry, for ever, and so after its record was written.
        let mut records = self.records.lock().await;
        if let Some(&state) = records.get(&batch) {
            return Ok(state);
        }
        let state = self.ledger.recorded_state(batch).await?;
        records.insert(batch, state);
        Ok(state)
    }
}

impl Ledger {
    /// A judge of claims, for one attempt or one look.
    pub fn judge(&self) -> ClaimJudge<'_> {
        ClaimJudge { ledger: self, registry: Mutex::default(), records: Mutex::default() }
    }
}
