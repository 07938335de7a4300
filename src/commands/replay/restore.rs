//! Restore: selected items of a day get the figures that batches recorded for them.

use std::collections::HashSet;
use std::pin::pin;

use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

use super::figures::{Refused, Sums};
use super::{ATTEMPTS, Replay, ReplayError, now_ms};
use crate::calendar::date_text;
use crate::reports::figures::{Delta, Key};
use crate::reports::item::Replacement;
use crate::reports::top_lists::ListKey;

impl Replay {
    /// Gives items of a day the figures that all finished batches recorded for them. Returns those that are still
    /// refused, each with the reason.
    pub async fn restore(&self, day: i32, keys: HashSet<Key>) -> Result<Vec<(Key, String)>, ReplayError> {
        let mut refused = Refused::default();
        let (mut keys, mut has_left_lists) = (keys, false);
        for _ in 0..ATTEMPTS {
            let through = self.finished_through(day).await?;
            let batches = self.batches(day, through).await?;
            let last = batches.keys().next_back().copied().unwrap_or(0);
            self.begin(format!("{} restore", date_text(day)), batches.len());
            let mut sums = Sums::default();
            for (batch, curated) in batches {
                let mut deltas = pin!(self.recorded_deltas(batch, &curated, day).await?);
                while let Some(deltas) = deltas.try_next().await? {
                    sums.add(deltas, Some(&keys), &self.plan);
                    self.check_limits(&sums)?;
                }
                self.progress.inc(1);
            }
            let items = sums.figures.into_iter().map(|(key, (figures, labels))| Delta { key, figures, labels });
            let of = Replacement { through, last, now_ms: now_ms() };
            let (items, never): (Vec<Delta>, _) = (items.collect(), CancellationToken::new());
            let (outcomes, mut lists) = self.reports.replace(of, &items, &never).await?;
            for item in &items {
                for list in ListKey::of_item(&self.plan.reports[item.key.report], item.key.period, &item.labels) {
                    lists.remove(&list);
                }
            }
            // An item that keeps its lists has at least the figures that it had: offering it is enough. Otherwise a list
            // has lost an entry, and what was cut off of it before is to be found again.
            has_left_lists |= !lists.is_empty();
            let replaced: Vec<Key> = items.into_iter().map(|item| item.key).collect();
            keys = refused.take_changing(outcomes);
            let offered = self.reports.offer_again(&replaced, &never).await?;
            if let Some((list, reason)) = offered.refused.into_iter().next() {
                return Err(ReplayError::Refused { count: 1, first: format!("{}: {reason}", list.list) });
            }
            if keys.is_empty() {
                if has_left_lists {
                    self.rebuild(day).await?;
                }
                self.progress.finish_and_clear();
                return Ok(refused.items);
            }
        }
        Err(ReplayError::Changing(keys.len()))
    }
}
