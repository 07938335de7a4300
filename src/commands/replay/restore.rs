//! Restore: selected items of a day get the figures that batches recorded for them.
//!
//! That is exact where the day has the figures that its batches recorded, and no listens fall. Otherwise the whole day
//! is rebuilt: its other items have the figures of another catalogue, or a top list lacks what was cut off of it while
//! an item had too many listens.

use std::collections::HashSet;
use std::pin::pin;

use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

use super::figures::{Refused, Sums};
use super::{ATTEMPTS, Replay, ReplayError, now_ms};
use crate::calendar::date_text;
use crate::protocol::BatchNumber;
use crate::reports::figures::{Delta, Key, Report};
use crate::reports::item::Replacement;
use crate::reports::store::WriteOutcome;
use crate::reports::top_lists::ListKey;

impl Replay {
    /// Gives items of a day the figures that all finished batches recorded for them, or rebuilds the day. Returns those
    /// that are still refused, each with the reason.
    pub async fn restore(&self, day: i32, mut keys: HashSet<Key>) -> Result<Vec<(Key, String)>, ReplayError> {
        let (mut refused, never) = (Refused::default(), CancellationToken::new());
        for _ in 0..ATTEMPTS {
            let through = self.finished_through(day).await?;
            let Some((sums, last)) = self.recorded_sums(day, &keys, through).await? else {
                return Ok(self.rebuild_day(day).await?.refused.items);
            };
            let items = sums.figures.into_iter().map(|(key, (figures, attributes))| Delta { key, figures, attributes });
            let items: Vec<Delta> = items.collect();
            let of = Replacement { through, last, now_ms: now_ms(), may_lower: false };
            let (outcomes, _) = self.reports.replace(of, &items, &never).await?;
            let would_lower = outcomes.iter().any(|(_, outcome)| *outcome == WriteOutcome::WouldLower);
            let replaced: Vec<Key> = items.into_iter().map(|item| item.key).collect();
            keys = refused.take_changing(outcomes);
            let offered = self.reports.offer_again(&replaced, &never).await?;
            if would_lower {
                return Ok(self.rebuild_day(day).await?.refused.items);
            }
            if let Some((list, reason)) = offered.refused.into_iter().next() {
                return Err(ReplayError::Refused { count: 1, first: format!("{}: {reason}", list.list) });
            }
            if keys.is_empty() {
                self.progress.finish_and_clear();
                return Ok(refused.items);
            }
        }
        Err(ReplayError::Changing(keys.len()))
    }

    /// Returns the sums that batches up to `through` recorded for items of a day, and the last of these batches; `None`
    /// if the day does not have the figures that its batches recorded.
    async fn recorded_sums(
        &self,
        day: i32,
        keys: &HashSet<Key>,
        through: BatchNumber,
    ) -> Result<Option<(Sums, BatchNumber)>, ReplayError> {
        // A rebuild raises the epoch of each list of its day.
        let lists = Report::ALL.map(|report| ListKey::of_report(report, day));
        if self.reports.lists(&lists).await?.into_values().any(|list| list.is_ok_and(|list| list.epoch > 0)) {
            return Ok(None);
        }
        let batches = self.batches(day, through).await?;
        let last = batches.keys().next_back().copied().unwrap_or(0);
        self.begin(format!("{} restore", date_text(day)), batches.len());
        let mut sums = Sums::default();
        for (batch, curated) in batches {
            let recorded = self.recorded_deltas(batch, &curated, day).await?;
            if !recorded.are_original {
                return Ok(None);
            }
            let mut deltas = pin!(recorded.deltas);
            while let Some(deltas) = deltas.try_next().await? {
                sums.add(deltas, Some(keys));
                self.check_limits(&sums)?;
            }
            self.progress.inc(1);
        }
        Ok(Some((sums, last)))
    }
}
