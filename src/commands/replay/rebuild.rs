//! Rebuild: every item of a day gets the figures that its archived files add up to.

use std::collections::{BTreeSet, HashSet};
use std::pin::pin;

use futures::TryStreamExt;
use tokio_util::sync::CancellationToken;

use super::figures::{Refused, Sums};
use super::{LOOKS, Replay, ReplayError, now_ms};
use crate::aws::s3::Upload;
use crate::calendar::date_text;
use crate::compute::Scope;
use crate::layout;
use crate::ledger::aside::Aside;
use crate::protocol::BatchNumber;
use crate::reports::figures::{Delta, Key, Report};
use crate::reports::item::{Replacement, parse_key};

impl Replay {
    /// Gives every item of a day the figures that its archived files add up to. What is listed as set aside of the day comes off the
    /// list, as it is right again.
    pub async fn rebuild(&self, day: i32) -> Result<String, ReplayError> {
        let (mut batches, mut items) = (0, 0);
        let mut genres = BTreeSet::new();
        let mut refused = Refused::default();
        // As it is before: what is set aside from now on may not be in the figures.
        let (listed, _) = self.ledger.aside(usize::MAX).await?;
        // What is to be replaced; `None` for everything.
        let mut only: Option<HashSet<Key>> = None;
        for look in 0..LOOKS {
            let is_first = look == 0;
            let through = self.finished(day).await?;
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
            // The item of a genre that nothing has any more tells where to look for stale listings, so it goes last.
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
                refused.conclude()?;
                return Ok(format!("rebuilt {items} report items and the curated files of {batches} batches"));
            }
            only = Some(changing);
        }
        Err(ReplayError::Changing(only.map_or(0, |only| only.len())))
    }

    /// Takes a day's report items off the list of what is set aside, but for those that are refused still.
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

    /// What the archived files of finished batches add up to, and the last of these. At the first look, curated files are published
    /// from them.
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
                // What it had begun to upload, nobody will complete. That it failed is what counts.
                let prefix = layout::curated_prefix(&date_text(day));
                let _ = self.bucket.abort_uploads(&prefix, |key| layout::is_of_batch(key, batch)).await;
            }
            let (uploads, deltas) = prepared?;
            let mut deltas = pin!(deltas);
            while let Some(deltas) = deltas.try_next().await.map_err(|error| self.explained(error))? {
                sums.add_up(deltas, only);
                self.bound(&sums)?;
            }
            if is_first {
                self.publish(&uploads, &curated).await?;
            }
            self.progress.inc(1);
        }
        Ok((sums, last))
    }

    /// Puts the curated files of a batch and day in the place of those that there are.
    async fn publish(&self, uploads: &[Upload], before: &[String]) -> Result<(), ReplayError> {
        for upload in uploads {
            self.bucket.complete_upload(upload).await?;
        }
        // Of a batch of very many days there are several files a day, whose rows are all in the first now.
        for key in before.iter().filter(|key| uploads.iter().all(|upload| upload.key != **key)) {
            self.bucket.delete_prefix(key).await?;
        }
        Ok(())
    }

    /// Items that the tables have and no row explains are to have no listens.
    async fn add_items_without_rows(&self, day: i32, sums: &mut Sums) -> Result<(), ReplayError> {
        for report in Report::ALL {
            let mut items = pin!(self.reports.day(report, day));
            while let Some(item) = items.try_next().await? {
                if let Some(key) = parse_key(report, &item) {
                    sums.entry(key);
                }
                self.bound(sums)?;
            }
        }
        Ok(())
    }
}
