//! Replay proper: the batches of a day are applied again, and its top lists are filled anew.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;

use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

use super::figures::Refused;
use super::{Replay, ReplayError, now_ms};
use crate::calendar::date_text;
use crate::protocol::BatchNumber;
use crate::reports::figures::Key;
use crate::reports::store::{Offering, WriteOutcome};
use crate::reports::top_lists::ListKey;

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
        let (never, mut lists) = (CancellationToken::new(), self.reports.lists_of_day(day).await?);
        // In ascending order: an item that has a batch is taken to have all earlier batches of its day.
        for (&batch, curated) in &batches {
            let mut deltas = pin!(self.recorded_deltas(batch, curated, day).await?.deltas);
            while let Some(deltas) = deltas.try_next().await? {
                items += deltas.len();
                // The offers are not made: the lists are filled anew.
                let offering = Offering::default();
                let outcomes = self.reports.apply((batch, batch - 1), now_ms(), &deltas, &offering, &never).await?;
                lists.extend(deltas.iter().flat_map(|it| ListKey::of_item(&it.key, &it.attributes.genres)));
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
        refused.note_lists(self.fill_lists(day, &batches, &lists).await?);
        refused.into_result()?;
        let had = items - lacked;
        Ok(format!(
            "{} batches with {items} figures: {lacked} were lacking and are restored, {had} were there",
            batches.len()
        ))
    }

    /// Fills the top lists of a day with the items of its batches. Items and lists may have been restored to different
    /// times, so that a list has later versions of items than the items themselves; therefore they are emptied first.
    /// Returns those refused.
    async fn fill_lists(
        &self,
        day: i32,
        batches: &BTreeMap<BatchNumber, Vec<String>>,
        lists: &BTreeSet<ListKey>,
    ) -> Result<Vec<(ListKey, String)>, ReplayError> {
        let never = CancellationToken::new();
        self.begin(format!("{} top lists", date_text(day)), batches.len());
        let mut restarted = self.reports.restart(lists, now_ms(), &never).await?;
        for (&batch, curated) in batches {
            let mut deltas = pin!(self.recorded_deltas(batch, curated, day).await?.deltas);
            while let Some(deltas) = deltas.try_next().await? {
                let keys: Vec<Key> = deltas.into_iter().map(|delta| delta.key).collect();
                self.reports.refill(&mut restarted, &keys, &never).await?;
            }
            self.progress.inc(1);
        }
        Ok(self.reports.complete_rebuilding(restarted, &never).await?)
    }
}
