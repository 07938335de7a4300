//! The fold: the sums of a batch's rows, for each report item.
//!
//! Pure. The fold takes the rows of a row group at a time, day by day, and does what the plan says
//! ([`crate::plan::folding`]): it sums in passes over the rows, by code, adds the sums to the items of all reports that
//! follow from the code, and then sorts pairs of codes for the distinct counts. It so meets every report item once with
//! all its rows, and each row costs a few passes over arrays only.
//!
//! It returns one [`FoldedItem`] for each report item that a row touched, and never two for one key: periods are unique,
//! the items of a period are keyed by code, and a value has one code ([`crate::compute::names`]). Rows without a value
//! are counted under the code of the value that stands for none. A second delta of a key in a batch would be mistaken
//! for a repetition and dropped; a delta file with two rows of one key is therefore refused
//! ([`crate::compute::deltas::decode`]).

use std::collections::BTreeMap;

use crate::compute::items::Items;
use crate::compute::masks::Masks;
use crate::compute::names::{Names, Value};
use crate::compute::pairs::Pairs;
use crate::compute::rows::Rows;
use crate::plan::columns::{Coded, Number};
use crate::plan::folding::{Base, Count, Folding, SlotSource, Sort, Source, Target};
use crate::plan::period::Period;
use crate::plan::reports::{LatestValue, Merge};
use crate::plan::{NO_NUMBER, Plan};
use crate::reference::MAX_MANY;
use crate::reports::distinct::{Member, Members};

/// Number of codes between two memory checks: tables take their memory at once when they double, and are checked
/// beforehand; sets grow little by little.
const CODES_PER_LOOK: usize = 64;

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
    /// The codes of the current rows, in the order of their first occurrence.
    touched: Vec<u32>,
    /// By code, the latest row.
    latest: Vec<u32>,
    /// The members of distinct counts, by code.
    members: BTreeMap<Coded, Vec<Member>>,
}

impl Scratch {
    fn memory_bytes(&self) -> usize {
        let members = self.members.values().map(Vec::capacity).sum::<usize>();
        let words = self.touched.capacity() + self.latest.capacity() + members;
        8 * self.gathered.iter().map(Vec::capacity).sum::<usize>() + 4 * words + self.masks.memory_bytes()
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

    /// Returns the report items, period by period. The memory of a period is freed with its last item.
    pub fn into_items(self, plan: &Plan) -> impl Iterator<Item = FoldedItem> + use<> {
        let shapes: Vec<(usize, usize, usize)> = plan
            .reports
            .iter()
            .enumerate()
            .map(|(index, it)| (it.slots.len(), it.sketches.len(), latest_of(plan, index)))
            .collect();
        self.periods.into_iter().flat_map(move |(period, reports)| {
            let shapes = shapes.clone();
            reports.into_iter().enumerate().flat_map(move |(report, items)| {
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

/// The fold of the rows of one period.
struct Pass<'a> {
    plan: &'a Plan,
    rows: &'a Rows,
    names: &'a Names,
    masks: &'a [Vec<bool>],
    items: &'a mut [Items],
    /// New items, and bytes of members in addition.
    touched: usize,
    bytes: usize,
}

impl Pass<'_> {
    /// Adds the rows to the items. Returns false if there is no room for all of them.
    fn fold(&mut self, folding: &Folding, scratch: &mut Scratch, bytes: usize, limit_bytes: usize) -> bool {
        // The bases of days and those of hours have memory of their own.
        let first = if std::ptr::eq(folding, &self.plan.hours) { self.plan.days.bases.len() } else { 0 };
        for (place, base) in (first..).zip(&folding.bases) {
            if scratch.gathered.len() <= place {
                scratch.gathered.resize_with(place + 1, Vec::new);
            }
            let mut gathered = std::mem::take(&mut scratch.gathered[place]);
            gather(base, self.rows, self.names, self.masks, &mut gathered, scratch);
            let taken = bytes + scratch.memory_bytes() + 8 * gathered.capacity();
            let is_done = self.distribute(base, &mut gathered, scratch, limit_bytes.saturating_sub(taken));
            scratch.gathered[place] = gathered;
            if !is_done {
                return false;
            }
        }
        for sort in &folding.sorts {
            let room = limit_bytes.saturating_sub(bytes + scratch.memory_bytes());
            if !self.count(sort, scratch, room) {
                return false;
            }
        }
        true
    }

    /// Returns true if the items stay within the limit until the next look.
    #[cold]
    fn has_room(&self, base: &Base, room: usize) -> bool {
        let growth = |target: &Target| {
            let more = CODES_PER_LOOK * if target.spread.is_some() { MAX_MANY } else { 1 };
            let (report, latest) = (&self.plan.reports[target.report], base.latest.len());
            self.items[target.report].growth_bytes(more, report, latest, self.codes_of(report.key))
        };
        let tables = self.items.iter().map(Items::table_bytes).sum::<usize>();
        self.bytes + tables + base.targets.iter().map(growth).sum::<usize>() <= room
    }

    /// The number of codes that the keys of a report may have.
    fn codes_of(&self, key: Option<Coded>) -> usize {
        match key {
            None => 1,
            Some(Coded::Column(column)) => self.names.codes(column),
            Some(Coded::Attribute(attribute)) => self.names.references().values(attribute).len(),
        }
    }

    /// Adds what was gathered of each code to the items that follow from it, and makes the memory neutral again.
    fn distribute(&mut self, base: &Base, gathered: &mut [i64], scratch: &mut Scratch, room: usize) -> bool {
        let (stride, references) = (1 + base.sources.len(), self.names.references());
        let merges: Vec<Vec<Merge>> = base
            .targets
            .iter()
            .map(|target| self.plan.reports[target.report].slots.iter().map(|slot| slot.merge).collect())
            .collect();
        let codes: Vec<usize> =
            base.targets.iter().map(|target| self.codes_of(self.plan.reports[target.report].key)).collect();
        let mut is_room = true;
        for (number, &code) in scratch.touched.iter().enumerate() {
            let first = code as usize * stride;
            let gathered = &mut gathered[first..first + stride];
            if number.is_multiple_of(CODES_PER_LOOK) && is_room {
                is_room = self.has_room(base, room);
            }
            for ((target, merges), &codes) in base.targets.iter().zip(&merges).zip(&codes).filter(|_| is_room) {
                let report = &self.plan.reports[target.report];
                let latest = if report.has_latest() { base.latest.len() } else { 0 };
                let items = &mut self.items[target.report];
                let own = [base.code.map_or(code, |column| self.names.counted_under(column, code))];
                let keys = target.spread.map_or(&own[..], |attribute| references.values(attribute).values(code));
                for &key in keys {
                    let slot = items.slot_of(key, report, latest, codes);
                    self.touched += usize::from(items.figures[slot * merges.len()] == 0);
                    let figure = |(source, merge): (&SlotSource, &Merge)| match *source {
                        SlotSource::Rows => gathered[0],
                        SlotSource::Gathered(place) => gathered[1 + place],
                        SlotSource::RowsTimes(attribute) => match references.values(attribute).number(code) {
                            NO_NUMBER => 0,
                            number => number.saturating_mul(gathered[0]),
                        },
                        SlotSource::Attribute(attribute) => merge.slot_of(references.values(attribute).number(code)),
                    };
                    items.merge(slot, merges, target.slots.iter().zip(merges).map(figure));
                    if latest > 0 {
                        let row = scratch.latest[code as usize] as usize;
                        let values = base.latest.iter().map(|value| value_of(self.rows, *value, row));
                        items.see_row(slot, self.rows.times[row], values);
                    }
                }
            }
            gathered[0] = 0;
            gathered[1..].iter_mut().zip(&base.sources).for_each(|(it, source)| *it = source.merge.neutral());
        }
        scratch.touched.clear();
        is_room
    }

    /// Adds the members of distinct counts. Every item is there already.
    fn count(&mut self, sort: &Sort, scratch: &mut Scratch, room: usize) -> bool {
        let Scratch { pairs, members, .. } = scratch;
        set_pairs(pairs, sort, self.rows, self.names, self.masks);
        learn_members(members, sort.second, self.rows, self.names);
        let tables = self.items.iter().map(Items::table_bytes).sum::<usize>();
        let room = room.saturating_sub(tables);
        let of_second = members.get(&sort.second).map_or(&[][..], Vec::as_slice);
        if !self.count_runs(pairs, sort.first, &sort.counts, None, of_second, room) {
            return false;
        }
        if let (Coded::Column(second), Some(first), [_, ..]) = (sort.second, sort.first, &sort.reverse[..]) {
            pairs.swap_distinct();
            learn_members(members, Coded::Column(first), self.rows, self.names);
            let of_first = members.get(&Coded::Column(first)).map_or(&[][..], Vec::as_slice);
            return self.count_runs(pairs, Some(second), &sort.reverse, self.names.no_value(first), of_first, room);
        }
        true
    }

    /// Adds the members in each run of pairs to the items that follow from its first code.
    fn count_runs(
        &mut self,
        pairs: &Pairs,
        column: Option<usize>,
        counts: &[Count],
        none: Option<u32>,
        members: &[Member],
        room: usize,
    ) -> bool {
        let references = self.names.references();
        for run in pairs.runs() {
            if self.bytes > room {
                return false;
            }
            let code = Pairs::first(run[0]);
            let seconds = run.chunk_by(|a, b| a == b).map(|same| Pairs::second(same[0]));
            let of_run = seconds.filter(|second| Some(*second) != none).map(|second| members[second as usize]);
            let own = [column.map_or(code, |column| self.names.counted_under(column, code))];
            for count in counts {
                let keys = count.spread.map_or(&own[..], |attribute| references.values(attribute).values(code));
                let items = &mut self.items[count.report];
                let sketches = self.plan.reports[count.report].sketches.len();
                for &key in keys {
                    // Every row was distributed before.
                    let Some(slot) = items.find(key) else { continue };
                    self.bytes += items.members[slot * sketches + count.sketch].extend(of_run.clone());
                }
            }
        }
        true
    }
}

/// Returns a value of a row that a label needs.
fn value_of(rows: &Rows, value: LatestValue, row: usize) -> i64 {
    match value {
        LatestValue::Code(column) => i64::from(rows.codes[column][row]),
        LatestValue::Number(Number::Int(int), _) | LatestValue::Time(Number::Int(int)) => rows.ints[int][row],
        LatestValue::Number(..) | LatestValue::Time(_) => rows.times[row],
    }
}

/// Gathers what a base needs of each code, in passes over the rows. What was gathered before is neutral.
fn gather(
    base: &Base,
    rows: &Rows,
    names: &Names,
    masks: &[Vec<bool>],
    gathered: &mut Vec<i64>,
    scratch: &mut Scratch,
) {
    let stride = 1 + base.sources.len();
    let codes = base.code.map_or(1, |column| {
        let greatest = rows.codes[column].iter().max().map_or(0, |&code| code as usize + 1);
        greatest.max(names.codes(column))
    });
    if gathered.len() < codes * stride {
        let neutral = || std::iter::once(0).chain(base.sources.iter().map(|source| source.merge.neutral()));
        let more = codes - gathered.len() / stride;
        gathered.reserve_exact(more * stride);
        (0..more).for_each(|_| gathered.extend(neutral()));
    }
    let Scratch { touched, latest, .. } = scratch;
    let keys = match base.code {
        None => {
            touched.push(0);
            gathered[0] = rows.len() as i64;
            Keys::All
        }
        Some(column) => {
            for &code in &rows.codes[column] {
                let count = &mut gathered[code as usize * stride];
                if *count == 0 {
                    touched.push(code);
                }
                *count += 1;
            }
            Keys::Codes(&rows.codes[column])
        }
    };
    for (place, source) in base.sources.iter().enumerate() {
        let into = Into { gathered, stride, place: 1 + place, merge: source.merge };
        let mask = source.mask.map(|mask| masks[mask].as_slice());
        gather_source(source, rows, names, into, &keys, mask);
    }
    if !base.latest.is_empty() {
        latest.resize(latest.len().max(codes), 0);
        find_latest(&keys, &rows.times, touched, latest);
    }
}

/// Finds the latest row of each code; of several as late, the last one.
fn find_latest(keys: &Keys<'_>, times: &[i64], touched: &[u32], latest: &mut [u32]) {
    match keys {
        Keys::All => latest[0] = (0..times.len()).max_by_key(|&row| times[row]).unwrap_or(0) as u32,
        Keys::Codes(keys) => {
            touched.iter().for_each(|&code| latest[code as usize] = u32::MAX);
            for (row, &code) in keys.iter().enumerate() {
                let known = &mut latest[code as usize];
                if *known == u32::MAX || times[*known as usize] <= times[row] {
                    *known = row as u32;
                }
            }
        }
    }
}

/// The codes that rows are gathered by.
enum Keys<'a> {
    All,
    Codes(&'a [u32]),
}

/// The place into which a source is gathered.
struct Into<'a> {
    gathered: &'a mut [i64],
    stride: usize,
    place: usize,
    merge: Merge,
}

impl Into<'_> {
    fn values(self, keys: &Keys<'_>, values: impl Iterator<Item = i64>, mask: Option<&[bool]>) {
        match (keys, mask) {
            (Keys::All, None) => self.pairs(values.map(|value| (0, value))),
            (Keys::All, Some(mask)) => {
                self.pairs(values.zip(mask).filter(|(_, met)| **met).map(|(value, _)| (0, value)));
            }
            (Keys::Codes(codes), None) => self.pairs(codes.iter().copied().zip(values)),
            (Keys::Codes(codes), Some(mask)) => {
                let of_mask = codes.iter().copied().zip(values).zip(mask).filter(|(_, met)| **met);
                self.pairs(of_mask.map(|(pair, _)| pair));
            }
        }
    }

    #[inline]
    fn pairs(self, pairs: impl Iterator<Item = (u32, i64)>) {
        let Into { gathered, stride, place, merge } = self;
        match merge {
            Merge::Add => {
                for (code, value) in pairs.filter(|&(_, value)| value != NO_NUMBER) {
                    let sum = &mut gathered[code as usize * stride + place];
                    *sum = sum.saturating_add(value);
                }
            }
            Merge::Greatest | Merge::Least => {
                for (code, value) in pairs {
                    let greatest = &mut gathered[code as usize * stride + place];
                    *greatest = (*greatest).max(merge.slot_of(value));
                }
            }
        }
    }
}

fn gather_source(source: &Source, rows: &Rows, names: &Names, into: Into<'_>, keys: &Keys<'_>, mask: Option<&[bool]>) {
    match source.of {
        None => into.values(keys, std::iter::repeat_n(1, rows.len()), mask),
        Some(Number::Time) => into.values(keys, rows.times.iter().copied(), mask),
        Some(Number::Int(int)) => into.values(keys, rows.ints[int].iter().copied(), mask),
        Some(Number::Attribute(attribute)) => {
            let values = names.references().values(attribute);
            let codes = &rows.codes[names.plan().attributes[attribute].code];
            into.values(keys, codes.iter().map(|&code| values.number(code)), mask);
        }
    }
}

/// Sorts the pairs of codes that a sort is about.
fn set_pairs(pairs: &mut Pairs, sort: &Sort, rows: &Rows, names: &Names, masks: &[Vec<bool>]) {
    let column = match sort.second {
        Coded::Column(column) => column,
        Coded::Attribute(attribute) => names.plan().attributes[attribute].code,
    };
    let (seconds, none) = (&rows.codes[column], names.no_value(column));
    let is_taken = |row: usize| sort.mask.is_none_or(|mask| masks[mask][row]) && Some(seconds[row]) != none;
    let first = |row: usize| sort.first.map_or(0, |column| rows.codes[column][row]);
    match sort.second {
        Coded::Column(_) => match (sort.first, sort.mask, none) {
            // The usual case, without a test for each row.
            (Some(first), None, None) => {
                pairs.set(rows.codes[first].iter().zip(seconds).map(|(&first, &second)| Pairs::of(first, second)));
            }
            _ => pairs.set((0..rows.len()).filter(|&row| is_taken(row)).map(|row| Pairs::of(first(row), seconds[row]))),
        },
        Coded::Attribute(attribute) => {
            let values = names.references().values(attribute);
            let value = |row: usize| Some(Pairs::of(first(row), values.value(seconds[row])?));
            pairs.set((0..rows.len()).filter(|&row| is_taken(row)).filter_map(value));
        }
    }
}

/// Hashes the values that are new since the last rows.
fn learn_members(members: &mut BTreeMap<Coded, Vec<Member>>, of: Coded, rows: &Rows, names: &Names) {
    let known = members.entry(of).or_default();
    match of {
        Coded::Column(column) => {
            let wanted = rows.codes[column].iter().max().map_or(0, |&code| code + 1);
            known.extend((known.len() as u32..wanted).map(|code| names.value(column, code).member()));
        }
        Coded::Attribute(attribute) => {
            let values = names.references().values(attribute);
            let is_number = names.plan().attributes[attribute].kind == crate::plan::columns::Kind::Number;
            let member = |code: u32| match values.text(code) {
                text if is_number => Value::Number(text.parse().unwrap_or(0)).member(),
                text => Value::Text(text).member(),
            };
            known.extend((known.len() as u32..values.len() as u32).map(member));
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::compute::deltas;
    use crate::compute::fixtures::{self, Cell, Cells, NOON};
    use crate::compute::names::Dictionary;
    use crate::definition::reports::{Aggregate, Key, Measure, Period as Every};
    use crate::reference::References;
    use crate::reports::figures::Delta;
    use proptest::prelude::*;
    use std::collections::HashSet;
    use std::sync::Arc;

    const SONGS: &str = "track_id,track_name,artists,track_genre,duration_ms\n\
        t0,A,X,pop,1000\nt0,A,X,rock,1000\nt1,B,Y,rock,250\nt2,C,Z,,7\nt3,D,Z,unknown,11\n";
    const USERS: &str = "user_id,user_country\n1,Peru\n2,Ghana\n";

    /// A dictionary on a small catalogue of the built-in definition.
    pub(in crate::compute) async fn dictionary() -> Dictionary {
        let plan = Plan::built_in().unwrap();
        let references = References::parse(&plan, vec![SONGS.as_bytes(), USERS.as_bytes()]).await.unwrap();
        Dictionary::of(plan, Arc::new(references))
    }

    /// A day of this century.
    pub(in crate::compute) const DAY: i64 = 20_000;

    /// A row of the built-in definition: user, track, day.
    pub(in crate::compute) type Listen = (i64, u8, i64);

    fn cells((user, track, day): Listen) -> Cells {
        vec![user.into(), Cell::Text(format!("t{track}")), (day * 86_400_000_000 + 5_000_000).into()]
    }

    pub(in crate::compute) fn add(fold: &mut Fold, listens: &[Listen], dictionary: &mut Dictionary) {
        let cells: Vec<Cells> = listens.iter().map(|&listen| cells(listen)).collect();
        let zone = dictionary.names().plan().zone.clone();
        for (day, rows) in fixtures::rows(dictionary, &cells).by_day(&zone) {
            fold.add(day, &rows, dictionary.names(), usize::MAX);
        }
    }

    /// Report, id and day of an item.
    type Id = (String, String, i32);

    /// The visible part of deltas: rows, milliseconds, distinct.
    type Visible = BTreeMap<Id, (i64, i64, u64)>;

    /// Returns the deltas as they come out of a delta file.
    pub(in crate::compute) fn deltas(fold: Fold, names: &Names) -> Vec<Delta> {
        let items = fold.into_items(names.plan()).collect();
        deltas::decode(&deltas::encode(items, names).unwrap(), names.plan()).unwrap()
    }

    fn folded(batches: &[&[Listen]], dictionary: &mut Dictionary) -> Visible {
        let mut fold = Fold::default();
        batches.iter().for_each(|listens| add(&mut fold, listens, dictionary));
        let plan = Arc::clone(dictionary.names().plan());
        let mut visible = Visible::new();
        for Delta { key, figures, .. } in deltas(fold, dictionary.names()) {
            let distinct = figures.distinct[0].as_ref().unwrap().count();
            let value = (figures.slots[0].unwrap(), figures.slots[1].unwrap(), distinct);
            let (day, _) = key.period.date_and_hour();
            let id = (plan.reports[key.report].name.clone(), key.id, day);
            assert_eq!(visible.insert(id, value), None, "an item twice");
        }
        visible
    }

    /// Computes the same with plain sets, without codes and sketches.
    fn reference(listens: &[Listen]) -> Visible {
        let mut sets: BTreeMap<Id, (i64, i64, HashSet<String>)> = BTreeMap::new();
        for &(user, track, day) in listens {
            let (ms, genres): (i64, &[&str]) = match track {
                0 => (1000, &["pop", "rock"]),
                1 => (250, &["rock"]),
                2 => (7, &["unknown"]),
                3 => (11, &["unknown"]),
                _ => (0, &["unknown"]),
            };
            let mut count = |report: &str, id: String, member: String| {
                let entry = sets.entry((report.to_owned(), id, day as i32)).or_default();
                (entry.0, entry.1) = (entry.0 + 1, entry.1 + ms);
                entry.2.insert(member);
            };
            count("tracks", format!("t{track}"), user.to_string());
            count("listeners", user.to_string(), format!("t{track}"));
            genres.iter().for_each(|genre| count("genres", (*genre).to_owned(), user.to_string()));
        }
        sets.into_iter().map(|(key, (listens, ms, members))| (key, (listens, ms, members.len() as u64))).collect()
    }

    fn listens() -> impl Strategy<Value = Vec<Listen>> {
        prop::collection::vec((1..40_i64, 0..6_u8, DAY - 2..DAY + 3), 0..200)
    }

    /// Sets outgrow their lists, and runs those that are sorted by comparison.
    #[tokio::test]
    async fn many_rows_are_folded_as_few_are() {
        let listens: Vec<Listen> =
            (0..40_000_i64).map(|row| (1 + row * row % 3001, (row % 7 % 6) as u8, DAY + row % 97 / 90)).collect();
        let expected = reference(&listens);
        for parts in [1, 3, 17] {
            let parts: Vec<&[Listen]> = listens.chunks(listens.len().div_ceil(parts)).collect();
            let folded = folded(&parts, &mut dictionary().await);
            assert_eq!(folded.len(), expected.len());
            for (item, &(listens, ms, members)) in &expected {
                let (folded_listens, folded_ms, folded_members) = folded[item];
                assert_eq!((folded_listens, folded_ms), (listens, ms), "{item:?}");
                assert!(folded_members.abs_diff(members) as f64 <= 1.0 + members as f64 * 0.03, "{item:?} {members}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_fold_is_that_of_plain_sets_however_the_rows_are_cut(a in listens(), b in listens()) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let expected = reference(&[a.clone(), b.clone()].concat());
            prop_assert_eq!(&folded(&[&a, &b], &mut runtime.block_on(dictionary())), &expected);
            prop_assert_eq!(&folded(&[&b, &a], &mut runtime.block_on(dictionary())), &expected);
        }
    }

    /// Returns rows of `tracks` tracks and `users` listeners that the catalogue lacks, with `listens` rows per track.
    fn new_rows(tracks: usize, users: usize, listens: usize, dictionary: &mut Dictionary) -> Rows {
        let plan = Arc::clone(dictionary.names().plan());
        let mut block = crate::input::parsed::Parsed::of(&plan);
        let count = tracks * listens;
        let new = |column: usize, ids: usize| -> Vec<u32> {
            let of_row = |row: usize| if column == 0 { row * 7919 % users } else { row % tracks };
            assert!(ids > 0);
            (0..count).map(|row| crate::input::parsed::Parsed::new_code(of_row(row))).collect()
        };
        block.codes = vec![new(0, users), new(1, tracks)];
        let ids: Vec<Arc<str>> = (0..tracks).map(|track| Arc::from(format!("new-{track}"))).collect();
        let numbers = (0..users as i64).map(|user| 1000 + user).collect();
        block.new_ids = vec![crate::input::parsed::NewIds::Numbers(numbers), crate::input::parsed::NewIds::Texts(ids)];
        block.times = vec![NOON; count];
        let mut rows = Rows::with_capacity(&plan, count);
        rows.append(&block, 0, dictionary);
        rows
    }

    fn item_bytes(fold: &Fold) -> (usize, usize) {
        let items = || fold.periods.values().flatten();
        (items().map(Items::member_bytes).sum(), items().map(Items::table_bytes).sum())
    }

    /// The accounted memory equals the sum over every item.
    #[tokio::test]
    async fn a_fold_knows_the_bytes_it_takes() {
        let mut dictionary = dictionary().await;
        let mut fold = Fold::default();
        for (day, tracks, users, listens) in [(1, 3000, 2000, 4), (2, 5, 6000, 5000), (1, 10, 9000, 3000), (3, 1, 1, 1)]
        {
            let rows = new_rows(tracks, users, listens, &mut dictionary);
            fold.add(day, &rows, dictionary.names(), usize::MAX);
        }
        let (members, tables) = item_bytes(&fold);
        let days = 3 * 2 * 3 * std::mem::size_of::<Items>();
        assert_eq!(fold.memory_bytes(), members + tables + days + fold.scratch.memory_bytes());
        assert!(members > 100_000 && tables > 100_000, "{members} {tables}");
    }

    #[tokio::test]
    async fn a_fold_stops_before_it_takes_more_than_it_may() {
        let mut dictionary = dictionary().await;
        for (tracks, users, listens) in [(50_000, 40_000, 1), (20, 20_000, 10_000), (2000, 2000, 100)] {
            let rows = new_rows(tracks, users, listens, &mut dictionary);
            let mut fold = Fold::default();
            fold.add(1, &rows, dictionary.names(), usize::MAX);
            let needed = fold.memory_bytes();
            assert!(!fold.is_too_large());
            for limit in [needed / 8, needed / 3, needed - 1] {
                let mut fold = Fold::default();
                fold.add(1, &rows, dictionary.names(), limit);
                assert!(fold.is_too_large(), "{limit} of {needed}");
                let (members, tables) = item_bytes(&fold);
                assert!(members + tables <= limit + (2 << 20), "{members} {tables}, and {limit} were allowed");
                // It stays too large whatever follows.
                fold.add(2, &rows, dictionary.names(), usize::MAX);
                assert!(fold.is_too_large());
            }
            let mut fold = Fold::default();
            // A table that doubles exists twice for a while.
            fold.add(1, &rows, dictionary.names(), 3 * needed + (1 << 20));
            assert!(!fold.is_too_large());
        }
    }

    /// Labels are those of the latest row, by the rows' own times, and of the last of several as late.
    #[tokio::test]
    async fn labels_are_of_the_latest_row() {
        let mut report = fixtures::report("items", Key::Field("item".to_owned()), Every::Day);
        report.attributes = ["title", "kind", "weight", "shop", "price", "paid"].map(str::to_owned).to_vec();
        report.measures = vec![Measure { name: "rows".to_owned(), aggregate: Aggregate::Count, conditions: vec![] }];
        let mut of_kind = fixtures::report("kinds", Key::Field("kind".to_owned()), Every::Day);
        of_kind.attributes = vec!["item".to_owned(), "buyer".to_owned()];
        of_kind.measures = report.measures.clone();
        let plan = Arc::new(Plan::of(fixtures::definition(vec![report, of_kind], "UTC")).unwrap());
        let references = Arc::new(fixtures::references(&plan).await);
        let mut dictionary = Dictionary::of(Arc::clone(&plan), references);
        let row = |item: &str, minute: i64, shop: Cell, buyer: Cell, price: i64| -> Cells {
            let at = Cell::Number(NOON + minute * 60_000_000);
            vec![item.into(), at, shop, buyer, Cell::None, price.into(), Cell::Number(price), Cell::None]
        };
        let rows = [
            row("i1", 5, "s1".into(), 7.into(), 1234),
            row("i1", 9, Cell::None, 8.into(), 500),
            row("i1", 9, "s2".into(), Cell::None, -5),
            row("i1", 2, "s3".into(), 9.into(), 1),
            row("i3", 30, Cell::None, 9.into(), 0),
        ];
        let mut fold = Fold::default();
        // The latest row is in the first row group.
        for part in [&rows[..3], &rows[3..]] {
            let rows = fixtures::rows(&mut dictionary, part);
            fold.add(DAY as i32, &rows, dictionary.names(), usize::MAX);
        }
        let labels: BTreeMap<(usize, String), Vec<Vec<String>>> = deltas(fold, dictionary.names())
            .into_iter()
            .map(|delta| {
                let texts = |label| delta.labels.texts(label).map(str::to_owned).collect();
                ((delta.key.report, delta.key.id), (0..delta.labels.0.len()).map(texts).collect())
            })
            .collect();
        let time = "1969-12-31T23:59:59.999995Z";
        let of = |report, id: &str| labels[&(report, id.to_owned())].clone();
        assert_eq!(of(0, "i1"), [vec!["One"], vec!["a", "b"], vec!["1.5"], vec!["s2"], vec!["-0.05"], vec![time]]);
        let epoch = "1970-01-01T00:00:00Z";
        assert_eq!(of(0, "i3"), [vec![], vec!["b"], vec![], vec!["nowhere"], vec!["0"], vec![epoch]]);
        // The kind of two items has the labels of the one whose row was the latest.
        assert_eq!(of(1, "a"), [vec!["i1"], vec!["0"]]);
        assert_eq!(of(1, "b"), [vec!["i3"], vec!["9"]]);
    }
}
