//! Rebuild: the items of a day get the figures that its archived files add up to, and its curated files are replaced.

use std::collections::{BTreeSet, HashSet};
use std::pin::pin;

use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

use super::figures::{Refused, Sums};
use super::{ATTEMPTS, Replay, ReplayError, now_ms};
use crate::aws::s3::Upload;
use crate::calendar::date_text;
use crate::compute::Scope;
use crate::layout;
use crate::ledger::aside::Aside;
use crate::protocol::BatchNumber;
use crate::reports::figures::{Delta, Key, Report};
use crate::reports::item::{Replacement, parse_key};

impl Replay {
    /// Gives every item of a day the figures of its archived files, and returns a summary. The day's items that were
    /// set aside are removed from that list, as they are right again.
    pub async fn rebuild(&self, day: i32) -> Result<String, ReplayError> {
        let (mut batches, mut items) = (0, 0);
        let mut genres = BTreeSet::new();
        let mut refused = Refused::default();
        // Read first: an item that is set aside from now on may lack figures.
        let (listed, _) = self.ledger.aside(usize::MAX).await?;
        // The items to replace; `None` for all.
        let mut only: Option<HashSet<Key>> = None;
        for attempt in 0..ATTEMPTS {
            let is_first = attempt == 0;
            let through = self.finished_through(day).await?;
            let (mut sums, last) = self.fold(day, through, only.as_ref(), is_first, &mut batches).await?;
            let of = Replacement { through, last, now_ms: now_ms() };
            self.progress.set_message(format!("{} writing", date_text(day)));
            if is_first {
                self.add_items_without_rows(day, &mut sums).await?;
                items = sums.figures.len();
                genres.extend(sums.figures.keys().filter(|key| key.report == Report::Genre).map(|key| key.id.clone()));
            }
            for key in only.into_iter().flatten() {
                sums.entry(key);
            }
            let deltas =
                sums.figures.into_iter().map(|(key, (figures, attributes))| Delta { key, figures, attributes });
            // The item of a genre without rows leads to stale listings, so it is emptied last.
            let (genres_without_rows, first): (Vec<_>, Vec<_>) =
                deltas.partition(|delta| delta.key.report == Report::Genre && delta.figures.listens == 0);
            let never = CancellationToken::new();
            let mut outcomes = self.reports.replace(of, first, &never).await?;
            for genre in &genres {
                self.reports.empty_stale_listings(genre, day, of, &never).await?;
            }
            outcomes.extend(self.reports.replace(of, genres_without_rows, &never).await?);
            let changing = refused.take_changing(outcomes);
            if changing.is_empty() {
                self.unlist(day, listed, &refused.keys).await?;
                refused.into_result()?;
                return Ok(format!("rebuilt {items} report items and the curated files of {batches} batches"));
            }
            only = Some(changing);
        }
        Err(ReplayError::Changing(only.map_or(0, |only| only.len())))
    }

    /// Removes a day's report items from the list of what is set aside, except those that are still refused.
    async fn unlist(
        &self,
        day: i32,
        listed: Vec<(jiff::Timestamp, Aside)>,
        refused: &HashSet<Key>,
    ) -> Result<(), ReplayError> {
        for (_, entry) in listed {
            if entry.report_item().is_some_and(|key| key.day == day && !refused.contains(&key)) {
                self.ledger.unlist_aside(&entry).await?;
            }
        }
        Ok(())
    }

    /// Returns the sums of the archived files of finished batches, and the last of these batches. The first attempt
    /// also publishes curated files.
    async fn fold(
        &self,
        day: i32,
        through: BatchNumber,
        only: Option<&HashSet<Key>>,
        is_first: bool,
        count: &mut usize,
    ) -> Result<(Sums, BatchNumber), ReplayError> {
        let batches = self.batches(day, through).await?;
        let last = batches.keys().next_back().copied().unwrap_or(0);
        *count = batches.len();
        self.begin(format!("{} rebuild", date_text(day)), batches.len());
        let mut sums = Sums::default();
        for (batch, curated) in batches {
            let scope = if is_first { Scope::Day(day) } else { Scope::FiguresOf(day) };
            let prepared = self.prepare(batch, &curated, scope, sums.bytes).await;
            if prepared.is_err() && is_first {
                // Its uploads will never be completed. An error here would hide the one that matters.
                let prefix = layout::curated_prefix(&date_text(day));
                let _ = self.bucket.abort_uploads(&prefix, |key| layout::is_of_batch(key, batch)).await;
            }
            let (uploads, deltas) = prepared?;
            let mut deltas = pin!(deltas);
            while let Some(deltas) = deltas.try_next().await.map_err(|error| self.limit_error(error))? {
                sums.add(deltas, only);
                self.check_limits(&sums)?;
            }
            if is_first {
                self.publish(&uploads, &curated).await?;
            }
            self.progress.inc(1);
        }
        Ok((sums, last))
    }

    /// Replaces the curated files of a batch and day.
    async fn publish(&self, uploads: &[Upload], before: &[String]) -> Result<(), ReplayError> {
        for upload in uploads {
            self.bucket.complete_upload(upload).await?;
        }
        // A batch of very many days published several files per day. All their rows are now in the first.
        for key in before.iter().filter(|key| uploads.iter().all(|upload| upload.key != **key)) {
            self.bucket.delete_prefix(key).await?;
        }
        Ok(())
    }

    /// Adds the items of the tables that have no row, so that they get no listens.
    async fn add_items_without_rows(&self, day: i32, sums: &mut Sums) -> Result<(), ReplayError> {
        for report in Report::ALL {
            let mut items = pin!(self.reports.day(report, day));
            while let Some(item) = items.try_next().await? {
                if let Some(key) = parse_key(report, &item) {
                    sums.entry(key);
                }
                self.check_limits(sums)?;
            }
        }
        Ok(())
    }
}
