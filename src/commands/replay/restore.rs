//! Restore: some items of a day get what batches have written down for them.

use std::collections::HashSet;
use std::pin::pin;

use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

use super::figures::{Refused, Sums};
use super::{LOOKS, Replay, ReplayError, now_ms};
use crate::calendar::date_text;
use crate::reports::figures::{Delta, Key};
use crate::reports::item::Replacement;

impl Replay {
    /// Gives some items of a day the figures that all finished batches have written down for them. Returns those that are refused
    /// still, each with the reason.
    pub async fn restore(&self, day: i32, keys: HashSet<Key>) -> Result<Vec<(Key, String)>, ReplayError> {
        let mut refused = Refused::default();
        let mut keys = keys;
        for _ in 0..LOOKS {
            let through = self.finished(day).await?;
            let batches = self.batches(day, through).await?;
            let last = batches.keys().next_back().copied().unwrap_or(0);
            self.begin(format!("{} restore", date_text(day)), batches.len());
            let mut sums = Sums::default();
            for (batch, curated) in batches {
                let mut deltas = pin!(self.written_down(batch, &curated, day).await?);
                while let Some(deltas) = deltas.try_next().await? {
                    sums.add_up(deltas, Some(&keys));
                    self.bound(&sums)?;
                }
                self.progress.inc(1);
            }
            let items = sums.figures.into_iter().map(|(key, (figures, attributes))| Delta { key, figures, attributes });
            let of = Replacement { through, last, now_ms: now_ms() };
            let outcomes = self.reports.replace(of, items.collect(), &CancellationToken::new()).await?;
            keys = refused.take_changing(outcomes);
            if keys.is_empty() {
                self.progress.finish_and_clear();
                return Ok(refused.items);
            }
        }
        Err(ReplayError::Changing(keys.len()))
    }
}
