//! A pass: the fold of the rows of one period into its items.
//!
//! Pure. Covered by the tests of [`crate::compute::fold`].

use std::collections::BTreeMap;

use crate::compute::fold::Scratch;
use crate::compute::fold::gather::gather;
use crate::compute::items::Items;
use crate::compute::names::{Names, Value};
use crate::compute::pairs::Pairs;
use crate::compute::rows::Rows;
use crate::plan::columns::{Coded, Kind, Number};
use crate::plan::folding::{Base, Count, Folding, SlotSource, Sort, Target};
use crate::plan::reports::{LatestValue, Merge};
use crate::plan::{NO_NUMBER, Plan};
use crate::reference::MAX_MANY;
use crate::reports::distinct::Member;

/// Number of codes between two memory checks: tables take their memory at once when they double, and are checked
/// beforehand; sets grow little by little.
const CODES_PER_LOOK: usize = 64;

/// The fold of the rows of one period.
pub(super) struct Pass<'a> {
    pub(super) plan: &'a Plan,
    pub(super) rows: &'a Rows,
    pub(super) names: &'a Names,
    pub(super) masks: &'a [Vec<bool>],
    pub(super) items: &'a mut [Items],
    /// New items, and bytes of members in addition.
    pub(super) touched: usize,
    pub(super) bytes: usize,
}

impl Pass<'_> {
    /// Adds the rows to the items. Returns false if there is no room for all of them.
    pub(super) fn fold(&mut self, folding: &Folding, scratch: &mut Scratch, bytes: usize, limit_bytes: usize) -> bool {
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
        let Scratch { pairs, members, of_run, .. } = scratch;
        set_pairs(pairs, sort, self.rows, self.names, self.masks);
        learn_members(members, sort.second, self.rows, self.names);
        let tables = self.items.iter().map(Items::table_bytes).sum::<usize>();
        let room = room.saturating_sub(tables);
        let of_second = members.get(&sort.second).map_or(&[][..], Vec::as_slice);
        let none = no_value_of(sort, self.names);
        if !self.count_runs(pairs, (sort.first, &sort.counts), (none, of_second), of_run, room) {
            return false;
        }
        if let (Coded::Column(second), Some(first), [_, ..]) = (sort.second, sort.first, &sort.reverse[..]) {
            pairs.swap_distinct();
            learn_members(members, Coded::Column(first), self.rows, self.names);
            let of_first = members.get(&Coded::Column(first)).map_or(&[][..], Vec::as_slice);
            let none = self.names.no_value(first);
            return self.count_runs(pairs, (Some(second), &sort.reverse), (none, of_first), of_run, room);
        }
        true
    }

    /// Adds the members in each run of pairs to the items that follow from its first code, which is of a column. The
    /// second code that stands for no value is none.
    fn count_runs(
        &mut self,
        pairs: &Pairs,
        (column, counts): (Option<usize>, &[Count]),
        (none, members): (Option<u32>, &[Member]),
        of_run: &mut Vec<Member>,
        room: usize,
    ) -> bool {
        let references = self.names.references();
        for run in pairs.runs() {
            if self.bytes > room {
                return false;
            }
            let code = Pairs::first(run[0]);
            let seconds = run.chunk_by(|a, b| a == b).map(|same| Pairs::second(same[0]));
            of_run.clear();
            of_run.extend(seconds.filter(|second| Some(*second) != none).map(|second| members[second as usize]));
            let own = [column.map_or(code, |column| self.names.counted_under(column, code))];
            for count in counts {
                let keys = count.spread.map_or(&own[..], |attribute| references.values(attribute).values(code));
                let items = &mut self.items[count.report];
                let sketches = self.plan.reports[count.report].sketches.len();
                for &key in keys {
                    // Every row was distributed before.
                    let Some(slot) = items.find(key) else { continue };
                    self.bytes += items.members[slot * sketches + count.sketch].extend(of_run);
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

/// Returns the second code of pairs that are not to be counted.
fn no_value_of(sort: &Sort, names: &Names) -> Option<u32> {
    match sort.second {
        Coded::Column(column) => names.no_value(column),
        Coded::Attribute(_) => None,
    }
}

/// Sorts the pairs of codes that a sort is about, or finds the different ones where that takes no sort.
fn set_pairs(pairs: &mut Pairs, sort: &Sort, rows: &Rows, names: &Names, masks: &[Vec<bool>]) {
    let column = match sort.second {
        Coded::Column(column) => column,
        Coded::Attribute(attribute) => names.plan().attributes[attribute].code,
    };
    // Counted the other way round, rows without a second value are those of the value that stands for none.
    let none = names.no_value(column).filter(|_| sort.reverse.is_empty());
    let seconds = &rows.codes[column];
    let is_taken = |row: usize| sort.mask.is_none_or(|mask| masks[mask][row]) && Some(seconds[row]) != none;
    let first = |row: usize| sort.first.map_or(0, |column| rows.codes[column][row]);
    let taken = (0..rows.len()).filter(|&row| is_taken(row));
    match sort.second {
        Coded::Column(_) => {
            let pair = |row: usize| Pairs::of(first(row), seconds[row]);
            match (sort.is_of_one_code(), sort.first, sort.mask, none) {
                // The usual cases, without a test for each row.
                (false, Some(first), None, None) => {
                    pairs.set(rows.codes[first].iter().zip(seconds).map(|(&first, &second)| Pairs::of(first, second)));
                }
                (true, of_codes, None, None) => {
                    pairs.set_once(seconds.iter().map(|&code| Pairs::of(of_codes.map_or(0, |_| code), code)));
                }
                (true, ..) => pairs.set_once(taken.map(pair)),
                (false, ..) => pairs.set(taken.map(pair)),
            }
        }
        Coded::Attribute(attribute) => {
            let values = names.references().values(attribute);
            let found = taken.filter_map(|row| Some(Pairs::of(first(row), values.value(seconds[row])?)));
            if sort.is_of_one_code() { pairs.set_once(found) } else { pairs.set(found) }
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
            let is_number = names.plan().attributes[attribute].kind == Kind::Number;
            let member = |code: u32| match values.text(code) {
                text if is_number => Value::Number(text.parse().unwrap_or(0)).member(),
                text => Value::Text(text).member(),
            };
            known.extend((known.len() as u32..values.len() as u32).map(member));
        }
    }
}
