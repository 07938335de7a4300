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
use crate::lake::Lake;
use crate::lake::compact::Compactor;
use crate::layout;
use crate::ledger::aside::Aside;
use crate::protocol::BatchNumber;
use crate::reports::figures::{Delta, Key};
use crate::reports::item::{Replacement, parse_key};
use crate::reports::top_lists::ListKey;

/// Top lists that are read at a time.
const LISTS_AT_A_TIME: usize = 25;

/// What a rebuild has done so far.
#[derive(Debug, Default)]
pub(super) struct Rebuilt {
    /// The last batch in the figures of the first attempt.
    through: BatchNumber,
    batches: usize,
    items: usize,
    /// The lists of the day, by now and before.
    lists: BTreeSet<ListKey>,
    /// The items of the day.
    keys: BTreeSet<Key>,
    pub(super) refused: Refused,
}

impl Replay {
    /// Rebuilds a day, and returns a summary. An item or a list that is refused is an error.
    pub async fn rebuild(&self, day: i32) -> Result<String, ReplayError> {
        let Rebuilt { items, batches, refused, .. } = self.rebuild_day(day).await?;
        refused.into_result()?;
        Ok(format!("rebuilt {items} report items and the curated files of {batches} batches"))
    }

    /// Gives every item of a day the figures of its archived files, and fills its top lists anew. The day's items and
    /// lists that were set aside are removed from that list, as they are right again.
    pub(super) async fn rebuild_day(&self, day: i32) -> Result<Rebuilt, ReplayError> {
        let mut rebuilt = Rebuilt { lists: self.reports.lists_of_day(day).await?, ..Rebuilt::default() };
        // Read first: an item that is set aside from now on may lack figures.
        let (listed, _) = self.ledger.aside(usize::MAX).await?;
        let never = CancellationToken::new();
        let marked = self.reports.mark_rebuilding(&rebuilt.lists, &never).await?;
        let replaced = self.replace_items(day, &mut rebuilt).await;
        let filled = match rebuilt.keys.is_empty() {
            // No item was touched.
            true => self.reports.unmark_rebuilding(&marked, &never).await.map_err(ReplayError::from),
            // Even after an error: some figures may be lower than before by now.
            false => self.refill_lists(day, &mut rebuilt).await,
        };
        replaced?;
        filled?;
        self.unlist(day, listed, &rebuilt.refused).await?;
        Ok(rebuilt)
    }

    fn compactor(&self) -> Compactor {
        Compactor {
            bucket: self.bucket.clone(),
            memory: self.memory,
            order: self.plan.clustering(),
            shutdown: CancellationToken::new(),
        }
    }

    async fn replace_items(&self, day: i32, rebuilt: &mut Rebuilt) -> Result<(), ReplayError> {
        let never = CancellationToken::new();
        // The items to replace; `None` for all.
        let mut only: Option<HashSet<Key>> = None;
        for attempt in 0..ATTEMPTS {
            let is_first = attempt == 0;
            let through = self.finished_through(day).await?;
            let mut lake = Lake::new(self.bucket.clone(), self.ledger.clone());
            if is_first {
                // That no file of a batch is missing, before the first change.
                self.batches(day, through).await?;
                // Readers of the table are not to see files that change.
                self.progress.set_message(format!("{} table", date_text(day)));
                lake.detach(&date_text(day), &self.ledger.registry().await?, &self.compactor()).await?;
            }
            let (mut sums, last) = self.fold(day, through, only.as_ref(), is_first, &mut rebuilt.batches).await?;
            if is_first {
                lake.rewrite(&date_text(day), &self.ledger.registry().await?, &self.compactor()).await?;
            }
            let of = Replacement { through, last, now_ms: now_ms(), may_lower: true };
            self.progress.set_message(format!("{} writing", date_text(day)));
            if is_first {
                rebuilt.through = through;
                self.add_items_without_rows(day, &rebuilt.lists, &mut sums).await?;
                rebuilt.items = sums.figures.len();
            }
            for key in only.take().into_iter().flatten() {
                sums.entry(key);
            }
            let figures = sums.figures.into_iter();
            let deltas: Vec<Delta> = figures.map(|(key, (figures, labels))| Delta { key, figures, labels }).collect();
            let replaced = self.reports.replace(of, &deltas, &never).await;
            rebuilt.keys.extend(deltas.into_iter().map(|delta| delta.key));
            let (outcomes, touched) = replaced?;
            rebuilt.lists.extend(touched);
            let changing = rebuilt.refused.take_changing(outcomes);
            if changing.is_empty() {
                return Ok(());
            }
            only = Some(changing);
        }
        Err(ReplayError::Changing(only.map_or(0, |only| only.len())))
    }

    /// Empties the day's lists, and offers them all items of the day: those that were replaced, and those of batches
    /// that were at work meanwhile. Batches that begin after the lists were emptied offer theirs by themselves.
    async fn refill_lists(&self, day: i32, rebuilt: &mut Rebuilt) -> Result<(), ReplayError> {
        self.progress.set_message(format!("{} top lists", date_text(day)));
        let never = CancellationToken::new();
        // Twice: a batch that does not end must not leave the lists empty. They are marked as being rebuilt until the
        // offers of the batches that were at work are in them.
        self.finished_through(day).await?;
        let mut restarted = self.reports.restart(&rebuilt.lists, now_ms(), &never).await?;
        let keys: Vec<Key> = std::mem::take(&mut rebuilt.keys).into_iter().collect();
        self.reports.refill(&mut restarted, &keys, &never).await?;
        let through = self.finished_through(day).await?;
        let late: Vec<Key> = self.keys_after(day, rebuilt.through, through).await?.into_iter().collect();
        self.reports.refill(&mut restarted, &late, &never).await?;
        rebuilt.refused.note_lists(self.reports.complete_rebuilding(restarted, &never).await?);
        Ok(())
    }

    /// Returns the items of a day that finished batches later than `after` have touched.
    async fn keys_after(
        &self,
        day: i32,
        after: BatchNumber,
        through: BatchNumber,
    ) -> Result<BTreeSet<Key>, ReplayError> {
        let mut keys = BTreeSet::new();
        for (batch, curated) in self.batches(day, through).await?.into_iter().filter(|(batch, _)| *batch > after) {
            let mut deltas = pin!(self.recorded_deltas(batch, &curated, day).await?.deltas);
            while let Some(deltas) = deltas.try_next().await? {
                keys.extend(deltas.into_iter().map(|delta| delta.key));
            }
        }
        Ok(keys)
    }

    /// Removes a day's report items and top lists from the list of what is set aside, except those that are still
    /// refused.
    async fn unlist(
        &self,
        day: i32,
        listed: Vec<(jiff::Timestamp, Aside)>,
        refused: &Refused,
    ) -> Result<(), ReplayError> {
        for (_, entry) in listed {
            let is_right = match (entry.report_item(&self.plan), entry.top_list_key()) {
                (Some(key), _) => self.plan.day_of(key.period) == day && !refused.keys.contains(&key),
                (_, Some(list)) => {
                    self.plan.day_of(list.period) == day && refused.lists.iter().all(|(it, _)| *it != list)
                }
                _ => false,
            };
            if is_right {
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
                sums.add(deltas, only, &self.plan);
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

    /// Adds items that no row explains, so that they get no rows: those in the top lists, and with `--scan` those
    /// of the tables.
    async fn add_items_without_rows(
        &self,
        day: i32,
        lists: &BTreeSet<ListKey>,
        sums: &mut Sums,
    ) -> Result<(), ReplayError> {
        let lists: Vec<ListKey> = lists.iter().cloned().collect();
        for group in lists.chunks(LISTS_AT_A_TIME) {
            for (list, stored) in self.reports.lists(group).await? {
                let Some(report) = list.report(&self.plan) else { continue };
                for entry in stored.into_iter().flat_map(|stored| stored.entries) {
                    sums.entry(Key { report, id: entry.id.clone(), period: list.period });
                }
            }
            self.check_limits(sums)?;
        }
        for report in (0..self.plan.reports.len()).filter(|_| self.scan) {
            let mut items = pin!(self.reports.scan(report, day));
            while let Some(item) = items.try_next().await? {
                let key = parse_key(&self.plan.reports[report], report, &item);
                if let Some(key) = key.filter(|key| self.plan.day_of(key.period) == day) {
                    sums.entry(key);
                }
                self.check_limits(sums)?;
            }
        }
        Ok(())
    }
}
