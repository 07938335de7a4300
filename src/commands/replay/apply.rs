//! Replay proper: the batches of a day are applied again.

use std::pin::pin;

use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

use super::figures::Refused;
use super::{Replay, ReplayError, now_ms};
use crate::calendar::date_text;
use crate::reports::figures::Key;
use crate::reports::store::{Offering, WriteOutcome};

impl Replay {
    /// Applies the batches of a day again, and returns a summary. No consumer may be at work.
    pub(super) async fn apply_again(&self, day: i32) -> Result<String, ReplayError> {
        let registry = self.ledger.registry().await?;
        if !registry.batches.is_empty() {
            return Err(ReplayError::AtWork(registry.batches.into_keys().collect()));
        }
        let batches = self.batches(day, registry.last).await?;
        let (mut items, mut lacked) = (0, 0);
        self.begin(format!("{} replay", date_text(day)), batches.len());
        let mut refused = Refused::default();
        // In ascending order: an item that has a batch is taken to have all earlier batches of its day.
        for (&batch, curated) in &batches {
            let mut deltas = pin!(self.recorded_deltas(batch, curated, day).await?);
            while let Some(deltas) = deltas.try_next().await? {
                items += deltas.len();
                let never = CancellationToken::new();
                let offering = Offering::default();
                let outcomes = self.reports.apply((batch, batch - 1), now_ms(), &deltas, &offering, &never).await?;
                let offered = self.reports.offer(batch, &offering, &never).await?;
                refused.note_lists(offered.refused);
                if offered.is_stale {
                    let keys: Vec<Key> = deltas.iter().map(|delta| delta.key.clone()).collect();
                    refused.note_lists(self.reports.offer_again(&keys, &never).await?.refused);
                }
                for (key, outcome) in outcomes {
                    lacked += usize::from(outcome == WriteOutcome::Changed);
                    refused.note(key, outcome);
                }
            }
            self.progress.inc(1);
        }
        let after = self.ledger.registry().await?;
        if after.last != registry.last || !after.batches.is_empty() {
            return Err(ReplayError::AtWork((registry.last + 1..=after.last).collect()));
        }
        refused.into_result()?;
        let had = items - lacked;
        Ok(format!(
            "{} batches with {items} figures: {lacked} were lacking and are restored, {had} were there",
            batches.len()
        ))
    }
}
