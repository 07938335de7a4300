//! The records of finished batches.

use crate::aws::error::AwsError;
use crate::aws::item::text_of;
use crate::counts::Counts;
use crate::ledger::Ledger;
use crate::protocol::{BatchNumber, State};

/// The record that a batch left.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Record {
    /// Which batch.
    pub batch: BatchNumber,
    /// Done, given up, or set aside.
    pub state: State,
    /// Since when.
    pub finished_at: jiff::Timestamp,
    /// What it did.
    #[serde(flatten)]
    pub counts: Counts,
}

impl Ledger {
    /// The record that a batch left; `None` before that, and after the record has expired.
    pub async fn record(&self, batch: BatchNumber) -> Result<Option<Record>, AwsError> {
        let Some(item) = self.get(&record_key(batch), "record").await? else { return Ok(None) };
        let parse = || {
            let state = State::from_name(&text_of(&item, "state")?)?;
            let finished_at = text_of(&item, "finished_at")?.parse().ok()?;
            let counts = serde_json::from_str(&text_of(&item, "summary")?).unwrap_or_default();
            Some(Record { batch, state, finished_at, counts })
        };
        Ok(parse())
    }

    /// Where a batch stands; `None` when nothing is known of it any more.
    pub async fn state_of(&self, number: BatchNumber) -> Result<Option<State>, AwsError> {
        // The registry first: a batch leaves it only after its record is written.
        if let Some(entry) = self.registry().await?.batches.get(&number) {
            return Ok(Some(entry.state));
        }
        self.recorded_state(number).await
    }

    pub(super) async fn recorded_state(&self, number: BatchNumber) -> Result<Option<State>, AwsError> {
        let Some(record) = self.get(&record_key(number), "record").await? else { return Ok(None) };
        let state = text_of(&record, "state").and_then(|state| State::from_name(&state));
        // Taken for none, its objects would count again.
        state.map(Some).ok_or_else(|| self.foreign(&record_key(number)))
    }
}

pub(super) fn record_key(number: BatchNumber) -> String {
    format!("batch#{number:012}")
}
