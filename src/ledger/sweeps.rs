//! Turns: work that one consumer does for all; and the state of sweeps: the time of the last one and its result.
//! Covered by `tests/pipeline` (`edges.rs`).

use std::time::Duration;

use crate::aws::error::AwsError;
use crate::aws::item::{number, text, text_of};
use crate::ledger::{Ledger, UPDATE, count, epoch_seconds, timestamp};

/// Tolerated difference between the consumers' clocks. A start that lies further in the future came from a wrong clock.
const CLOCKS_APART_SECONDS: u64 = 60;
/// Both keys of the item.
const SWEEP: &str = "sweep";

/// The result of a sweep.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Swept {
    /// Objects that no message had announced and no batch had finished.
    pub found: u64,
    /// Objects under the incoming prefix whose content was finished before under the same key: put again, unchanged.
    pub left_over: u64,
}

/// The last sweep: its start, its end and its result.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LastSweep {
    /// The time at which it began.
    pub started_at: jiff::Timestamp,
    /// The consumer that began it.
    pub by: String,
    /// The time at which the last completed sweep ended: this one, or an earlier one.
    pub finished_at: Option<jiff::Timestamp>,
    /// The result of the last completed sweep.
    #[serde(flatten)]
    pub swept: Swept,
}

impl Ledger {
    /// Begins a sweep, unless any consumer began one within the interval. Returns true if this consumer is to sweep.
    pub async fn begin_sweep(&self, interval: Duration) -> Result<bool, AwsError> {
        self.take_turn(SWEEP, interval).await
    }

    /// Takes the turn at work of this name, unless any consumer took it within the interval. Returns true if it is this
    /// consumer's. The consumers' clocks decide; they influence only how often the work is done, not its outcome.
    pub async fn take_turn(&self, name: &str, interval: Duration) -> Result<bool, AwsError> {
        let now = epoch_seconds();
        let update = self
            .update(name, name)
            .update_expression("SET started_at = :now, #by = :me")
            .condition_expression("attribute_not_exists(started_at) OR started_at <= :due OR started_at > :soon")
            .expression_attribute_names("#by", "by")
            .expression_attribute_values(":now", count(now))
            .expression_attribute_values(":due", count(now.saturating_sub(interval.as_secs())))
            .expression_attribute_values(":soon", count(now.saturating_add(CLOCKS_APART_SECONDS)))
            .expression_attribute_values(":me", text(&self.owner));
        self.conditional(UPDATE, name, update.send()).await
    }

    /// Records the result of a sweep.
    pub async fn end_sweep(&self, swept: Swept) -> Result<(), AwsError> {
        let update = self
            .update(SWEEP, SWEEP)
            .update_expression("SET finished_at = :now, #found = :found, left_over = :left_over")
            .expression_attribute_names("#found", "found")
            .expression_attribute_values(":now", count(epoch_seconds()))
            .expression_attribute_values(":found", count(swept.found))
            .expression_attribute_values(":left_over", count(swept.left_over));
        update.send().await.map(drop).map_err(self.error(UPDATE, SWEEP))
    }

    /// Reads the last sweep; `None` before the first.
    pub async fn last_sweep(&self) -> Result<Option<LastSweep>, AwsError> {
        let Some(item) = self.get(SWEEP, SWEEP).await? else { return Ok(None) };
        let time = |name| timestamp(number(&item, name)?);
        let count = |name| number(&item, name).unwrap_or(0);
        Ok(time("started_at").map(|started_at| LastSweep {
            started_at,
            by: text_of(&item, "by").unwrap_or_default(),
            finished_at: time("finished_at"),
            swept: Swept { found: count("found"), left_over: count("left_over") },
        }))
    }
}
