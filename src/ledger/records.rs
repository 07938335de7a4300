//! The records of finished batches. Covered by `tests/pipeline` and `tests/chaos`.

use crate::aws::error::AwsError;
use crate::aws::item::{text, text_of};
use crate::counts::Counts;
use crate::ledger::{Ledger, PUT, expiry, now_text};
use crate::protocol::{BatchNumber, State};

/// Lifetime of a record. It exceeds the lifetime of every claim of its batch.
const RECORD_DAYS: u64 = 31;
/// Sort key of a record.
const RECORD: &str = "record";

/// The record of a finished batch.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Record {
    /// The batch.
    pub batch: BatchNumber,
    /// Done, abandoned, lost or set aside.
    pub state: State,
    /// The time at which it reached that state.
    pub finished_at: jiff::Timestamp,
    /// The batch's counts.
    #[serde(flatten)]
    pub counts: Counts,
}

impl Ledger {
    /// Writes the record of a batch. May be repeated.
    pub(super) async fn write_record(&self, number: BatchNumber, state: State, summary: &str) -> Result<(), AwsError> {
        let pk = record_key(number);
        let put = self
            .put(&pk, RECORD)
            .item("state", text(state.name()))
            .item("summary", text(summary))
            .item("finished_at", now_text());
        // A batch that is set aside keeps its objects until an operator resolves it.
        let put = if state == State::Aside { put } else { put.item("expires_at", expiry(RECORD_DAYS)) };
        put.send().await.map(drop).map_err(self.error(PUT, &pk))
    }

    /// Reads the record of a batch; `None` before it is written, and after it has expired.
    pub async fn record(&self, batch: BatchNumber) -> Result<Option<Record>, AwsError> {
        let Some(item) = self.get(&record_key(batch), RECORD).await? else { return Ok(None) };
        let parse = || {
            let state = State::from_name(&text_of(&item, "state")?)?;
            let finished_at = text_of(&item, "finished_at")?.parse().ok()?;
            let counts = serde_json::from_str(&text_of(&item, "summary")?).unwrap_or_default();
            Some(Record { batch, state, finished_at, counts })
        };
        Ok(parse())
    }

    /// Reads the state of a batch from the registry or its record; `None` when there is no trace of it any more.
    pub async fn state_of(&self, number: BatchNumber) -> Result<Option<State>, AwsError> {
        // The registry first: a batch leaves it only after its record is written.
        if let Some(entry) = self.registry().await?.batches.get(&number) {
            return Ok(Some(entry.state));
        }
        self.recorded_state(number).await
    }

    /// Reads the state of a batch from its record alone; `None` if there is none.
    pub async fn recorded_state(&self, number: BatchNumber) -> Result<Option<State>, AwsError> {
        let pk = record_key(number);
        let Some(record) = self.get(&pk, RECORD).await? else { return Ok(None) };
        let state = text_of(&record, "state").and_then(|state| State::from_name(&state));
        // An unknown state must not pass for a missing record: the batch's objects would count again.
        state.map(Some).ok_or_else(|| self.unrecognized(&pk))
    }
}

fn record_key(number: BatchNumber) -> String {
    format!("batch#{number:012}")
}
