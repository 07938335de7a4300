//! Items: the first items of each report, as its table would have them.

use std::cmp::Reverse;

use crate::aws::item::Item;
use crate::compute::{Fold, FoldedItem, Names, deltas};
use crate::formats::parquet::ParquetError;
use crate::plan::period::Period;
use crate::plan::reports::Report;
use crate::reports::figures::Delta;
use crate::reports::item::{ReportItem, item_of};

/// The items of a report.
pub(super) struct ReportItems {
    /// The report, as a number of the plan.
    pub(super) report: usize,
    /// The number of all its items.
    pub(super) items: u64,
    /// The first ones: those with the greatest measure of its top lists; without top lists those of the first periods.
    pub(super) first: Vec<Item>,
}

/// Returns the first items of each report.
pub(super) fn first_items(fold: Fold, names: &Names, most: usize) -> Result<Vec<ReportItems>, ParquetError> {
    let plan = names.plan();
    let mut first: Vec<First> = plan.reports.iter().map(|_| First::default()).collect();
    for item in fold.into_items(plan) {
        let report = item.report();
        first[report].offer(item, &plan.reports[report], names, most);
    }
    let mut all = Vec::with_capacity(first.len());
    for (report, mut first) in first.into_iter().enumerate() {
        first.cut(&plan.reports[report], names, most);
        // The way of an item into its table: written to a delta file, read back, and added to an item without rows.
        let deltas = deltas::decode(&deltas::encode(first.items, names)?, plan)?;
        let shape = &plan.reports[report];
        let of_first =
            |delta: Delta| Some(item_of(shape, &delta.key, &ReportItem::default().with(&delta, shape, 1, 0)?));
        all.push(ReportItems { report, items: first.count, first: deltas.into_iter().filter_map(of_first).collect() });
    }
    Ok(all)
}

/// The first items of a report so far, and some that will be cut.
#[derive(Default)]
struct First {
    count: u64,
    items: Vec<FoldedItem>,
    /// The rank of the last item, once there are enough of them.
    last: Option<Rank>,
}

/// The rank of an item: by the measure of the top lists, then by the period. Items of one rank have the order of their
/// keys.
type Rank = (Reverse<i64>, Period);

fn rank(item: &FoldedItem, report: &Report) -> Rank {
    (Reverse(report.top_slot().map_or(0, |slot| item.slot(slot))), item.period())
}

impl First {
    fn offer(&mut self, item: FoldedItem, report: &Report, names: &Names, most: usize) {
        self.count += 1;
        if self.last.is_some_and(|last| rank(&item, report) > last) {
            return;
        }
        self.items.push(item);
        if self.items.len() >= 2 * most + 64 {
            self.cut(report, names, most);
        }
    }

    fn cut(&mut self, report: &Report, names: &Names, most: usize) {
        let id = |item: &FoldedItem| names.key_text(report.key, item.key());
        self.items.sort_by(|a, b| rank(a, report).cmp(&rank(b, report)).then_with(|| id(a).cmp(&id(b))));
        self.items.truncate(most);
        self.last = self.items.last().filter(|_| self.items.len() == most).map(|item| rank(item, report));
    }
}
