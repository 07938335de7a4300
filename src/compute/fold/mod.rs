//! The fold: the sums of a batch's rows, for each report item.
//!
//! Pure. The fold takes the rows of a row group at a time, day by day, and does what the plan says
//! ([`crate::plan::folding`]): it sums in passes over the rows, by code, adds the sums to the items of all reports that
//! follow from the code, and then finds the different pairs of codes for the distinct counts. It so meets every report
//! item once with all its rows, and each row costs a few passes over arrays only.
//!
//! It returns one [`FoldedItem`] for each report item that a row touched, and never two for one key: periods are
//! unique, the items of a period are keyed by code, and a value has one code ([`crate::compute::names`]). Rows without
//! a value are counted under the code of the value that stands for none. A second delta of a key in a batch would be
//! mistaken for a repetition and dropped; a delta file with two rows of one key is therefore refused
//! ([`crate::compute::deltas::decode`]).
//!
//! * `mod.rs`: the fold, and its items
//! * `pass.rs`: the rows of one period into their items
//! * `gather.rs`: what is summed of each code

mod gather;
mod pass;
#[cfg(test)]
pub(super) mod tests;

use std::collections::BTreeMap;

use crate::compute::fold::pass::Pass;
use crate::compute::items::Items;
use crate::compute::masks::Masks;
use crate::compute::names::Names;
use crate::compute::pairs::Pairs;
use crate::compute::rows::Rows;
use crate::plan::Plan;
use crate::plan::columns::Coded;
use crate::plan::folding::Folding;
use crate::plan::period::Period;
use crate::reports::distinct::{Member, Members};

/// A report item, in codes.
#[derive(Debug)]
pub struct FoldedItem {
    /// The report.
    pub(super) report: usize,
    /// Its period.
    pub(super) period: Period,
    /// The code of its key.
    pub(super) key: u32,
    /// Its figures, in the order of the report's slots.
    pub(super) figures: Vec<i64>,
    /// The members of its distinct counts.
    pub(super) members: Vec<Members>,
    /// The values of its latest row that labels need, by the base's `latest`.
    pub(super) latest: Vec<i64>,
}

impl FoldedItem {
    /// The report, as a number of the plan.
    pub fn report(&self) -> usize {
        self.report
    }

    /// Its day or hour.
    pub fn period(&self) -> Period {
        self.period
    }

    /// The code of its key, which stands for [`Names::key_text`].
    pub fn key(&self) -> u32 {
        self.key
    }

    /// The integer in one of the report's slots.
    pub fn slot(&self, slot: usize) -> i64 {
        self.figures[slot]
    }
}

/// The sums of the rows so far.
#[derive(Debug, Default)]
pub struct Fold {
    /// By period, by report.
    periods: BTreeMap<Period, Vec<Items>>,
    rows: u64,
    items: usize,
    /// Bytes of memory of the items.
    bytes: usize,
    /// The memory limit was exceeded, and rows are missing.
    is_too_large: bool,
    scratch: Scratch,
}

/// Memory that is used again for the rows to come.
#[derive(Debug, Default)]
struct Scratch {
    pairs: Pairs,
    masks: Masks,
    /// By base, by code: the number of rows and what else is gathered. Neutral once it is distributed.
    gathered: Vec<Vec<i64>>,
    /// The codes of the current rows, in their order.
    touched: Vec<u32>,
    /// By code, the latest row.
    latest: Vec<u32>,
    /// The members of distinct counts, by code.
    members: BTreeMap<Coded, Vec<Member>>,
    /// The different members of one code.
    of_run: Vec<Member>,
}

impl Scratch {
    fn memory_bytes(&self) -> usize {
        let members = self.members.values().map(Vec::capacity).sum::<usize>();
        let words = self.touched.capacity() + self.latest.capacity() + members + self.of_run.capacity();
        let gathered = self.gathered.iter().map(Vec::capacity).sum::<usize>();
        8 * gathered + 4 * words + self.masks.memory_bytes() + self.pairs.memory_bytes()
    }
}

impl Fold {
    /// Adds rows of one day within `limit_bytes` of memory. It stops amid the rows before it takes more;
    /// [`Fold::is_too_large`] is true then and the fold of no further use.
    pub fn add(&mut self, day: i32, rows: &Rows, names: &Names, limit_bytes: usize) {
        let plan = names.plan();
        self.rows += rows.len() as u64;
        self.add_period(Period::Day(day), rows, names, &plan.days, limit_bytes);
        if plan.has_hours() {
            for (hour, rows) in rows.by_hour() {
                self.add_period(hour, &rows, names, &plan.hours, limit_bytes);
            }
        }
    }

    fn add_period(&mut self, period: Period, rows: &Rows, names: &Names, folding: &Folding, limit_bytes: usize) {
        if self.is_too_large || rows.is_empty() || folding.bases.is_empty() {
            return;
        }
        let Fold { periods, items, bytes, scratch, .. } = self;
        let of_period = periods.entry(period).or_insert_with(|| {
            *bytes += 2 * names.plan().reports.len() * std::mem::size_of::<Items>();
            names.plan().reports.iter().map(|_| Items::default()).collect()
        });
        let masks = scratch.masks.of(rows, names);
        let mut pass = Pass { plan: names.plan(), rows, names, masks: &masks, items: of_period, touched: 0, bytes: 0 };
        let taken = pass.items.iter().map(Items::table_bytes).sum::<usize>();
        let before = *bytes - taken;
        let is_done = pass.fold(folding, scratch, before, limit_bytes);
        *items += pass.touched;
        *bytes = before + pass.bytes + pass.items.iter().map(Items::table_bytes).sum::<usize>();
        self.is_too_large = !is_done || self.memory_bytes() > limit_bytes;
    }

    /// Returns true if the memory limit was exceeded. The fold lacks rows then.
    pub fn is_too_large(&self) -> bool {
        self.is_too_large
    }

    /// Returns the bytes of memory that the fold takes.
    pub fn memory_bytes(&self) -> usize {
        self.bytes + self.scratch.memory_bytes()
    }

    /// Returns the number of report items touched so far, with which memory and delta files grow.
    pub fn items(&self) -> usize {
        self.items
    }

    /// Returns the number of rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the report items of the periods that their reports count, period by period. The memory of a period is
    /// freed with its last item.
    pub fn into_items(self, plan: &Plan) -> impl Iterator<Item = FoldedItem> + use<> {
        let shapes: Vec<(usize, usize, usize)> = plan
            .reports
            .iter()
            .enumerate()
            .map(|(index, it)| (it.slots.len(), it.sketches.len(), latest_of(plan, index)))
            .collect();
        let since = plan.since.clone();
        self.periods.into_iter().flat_map(move |(period, reports)| {
            let (shapes, since) = (shapes.clone(), since.clone());
            let is_counted = move |(report, _): &(usize, Items)| since[*report].is_none_or(|since| since <= period);
            reports.into_iter().enumerate().filter(is_counted).flat_map(move |(report, items)| {
                let (slots, sketches, latest) = shapes[report];
                let Items { keys, figures, members, latest: values, .. } = items;
                let mut members = members.into_iter();
                keys.into_iter().enumerate().map(move |(item, key)| FoldedItem {
                    report,
                    period,
                    key,
                    figures: figures[item * slots..(item + 1) * slots].to_vec(),
                    members: members.by_ref().take(sketches).collect(),
                    latest: values[item * latest..(item + 1) * latest].to_vec(),
                })
            })
        })
    }
}

/// The number of values of a latest row that a report's items have.
fn latest_of(plan: &Plan, report: usize) -> usize {
    let bases = plan.days.bases.iter().chain(&plan.hours.bases);
    let has_labels = plan.reports[report].has_latest();
    let mut of_report = bases.filter(|base| has_labels && base.targets.iter().any(|target| target.report == report));
    of_report.next().map_or(0, |base| base.latest.len())
}
