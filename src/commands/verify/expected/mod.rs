//! The sums of a day's curated rows: a plain fold of the definition as it is written. It has only its result in common
//! with the batch's: no plan, no codes, a table of named figures for each item.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::{Read, Seek};

use crate::compute::curated::{self, CuratedValue};
use crate::definition::Definition;
use crate::definition::columns::Type;
use crate::definition::reports::{ALL, Aggregate, Key as ReportKey, Period as Every, Report};
use crate::formats::parquet::ParquetError;
use crate::plan::period::Period;
use crate::reports::distinct::{Distinct, Member};
use crate::reports::figures::{Key, decimal_text};
use crate::reports::item::time_text;

use super::hash;
use super::row::{AuditedRow, curated_columns};

/// The number of partitions that a day is split into, at most.
const MAX_PARTITIONS: u64 = 1 << 20;

/// The items that are folded at a time.
#[derive(Debug, Clone)]
pub(super) enum Partition {
    /// The items whose hash leaves this remainder.
    Part { modulus: u64, remainder: u64 },
    /// These items.
    Only(HashSet<Key>),
}

impl Partition {
    /// Returns true if the item belongs to the partition.
    pub(super) fn has(&self, report: usize, id: &str, period: Period) -> bool {
        match self {
            Partition::Part { modulus: 1, .. } => true,
            Partition::Part { modulus, remainder } => hash(id) % modulus == *remainder,
            Partition::Only(keys) => keys.contains(&Key { report, id: id.to_owned(), period }),
        }
    }

    /// Splits off and returns half of the partition; `None` if it cannot be split any further.
    pub(super) fn split(&mut self) -> Option<Partition> {
        match self {
            // Ids that are still together have the same hash.
            Partition::Part { modulus: MAX_PARTITIONS.., .. } | Partition::Only(_) => None,
            Partition::Part { modulus, remainder } => {
                *modulus *= 2;
                Some(Partition::Part { modulus: *modulus, remainder: *remainder + *modulus / 2 })
            }
        }
    }
}

/// The figure of a measure.
#[derive(Debug)]
enum Figure {
    Count(u64),
    Sum(i128),
    Extreme(Option<i64>),
    Distinct(Distinct),
    /// Made of others.
    Ratio,
}

/// The expected content of an item.
#[derive(Debug)]
pub(super) struct ExpectedItem {
    figures: Vec<Figure>,
    /// The texts of each label that the report has lists under.
    pub(super) under: Vec<BTreeSet<String>>,
}

/// A published figure: the text of the item's attribute, or none.
pub(super) type Published = Vec<Option<String>>;

/// Recounts the reports of a day from its curated files, as an audit does: the key of each item, and the text of each
/// of its measures.
pub fn recounted(
    definition: &Definition,
    day: i32,
    files: impl IntoIterator<Item = impl Read + Seek>,
) -> Result<Vec<(Key, Published)>, ParquetError> {
    let (columns, mut expected) = (curated_columns(definition), Expected::new(definition, &[]));
    let all = Partition::Part { modulus: 1, remainder: 0 };
    for file in files {
        curated::read_rows(file, &columns, |values| expected.add(AuditedRow { definition, values }, &all, day))?;
    }
    let keys = (0..definition.reports.len()).flat_map(|report| expected.unseen(report)).collect::<Vec<_>>();
    Ok(keys.into_iter().filter_map(|key| expected.see(&key).map(|published| (key, published))).collect())
}

/// The sums of a day's curated rows: by report, by period, by id.
#[derive(Debug)]
pub(super) struct Expected<'d> {
    definition: &'d Definition,
    /// The first period that each report counts, if not all.
    since: &'d [Option<Period>],
    items: Vec<HashMap<Period, HashMap<String, ExpectedItem>>>,
    count: usize,
}

impl<'d> Expected<'d> {
    pub(super) fn new(definition: &'d Definition, since: &'d [Option<Period>]) -> Self {
        Expected { definition, since, items: definition.reports.iter().map(|_| HashMap::new()).collect(), count: 0 }
    }

    /// Returns the number of items.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Returns the items of a report that were not seen.
    pub(super) fn items(&self, report: usize) -> impl Iterator<Item = (Period, &String, &ExpectedItem)> {
        let periods = self.items[report].iter();
        periods.flat_map(|(&period, items)| items.iter().map(move |(id, item)| (period, id, item)))
    }

    /// Adds a row of a day to those of its items that belong to the partition.
    pub(super) fn add(&mut self, row: AuditedRow<'_>, partition: &Partition, day: i32) {
        for (index, report) in self.definition.reports.iter().enumerate() {
            let period = match report.every {
                Every::Day => Period::Day(day),
                Every::Hour => Period::Hour(row.time().div_euclid(3_600_000_000) as i32),
            };
            if self.since.get(index).copied().flatten().is_some_and(|since| period < since) {
                continue;
            }
            let ids = match &report.key {
                ReportKey::All => vec![Cow::Borrowed(ALL.1)],
                ReportKey::Field(name) => row.texts(name),
            };
            for id in ids.iter().filter(|id| partition.has(index, id, period)) {
                let items = self.items[index].entry(period).or_default();
                if !items.contains_key(id.as_ref()) {
                    items.insert(id.clone().into_owned(), ExpectedItem::of(report));
                    self.count += 1;
                }
                if let Some(item) = items.get_mut(id.as_ref()) {
                    item.add(row, report);
                }
            }
        }
    }

    /// Drops all items outside the partition.
    pub(super) fn keep(&mut self, partition: &Partition) {
        self.count = 0;
        for (report, periods) in self.items.iter_mut().enumerate() {
            for (&period, items) in periods {
                items.retain(|id, _| partition.has(report, id, period));
                self.count += items.len();
            }
        }
    }

    /// Returns the figures that an item must show. They are returned once: the item counts as seen afterwards.
    pub(super) fn see(&mut self, key: &Key) -> Option<Published> {
        let item = self.items[key.report].get_mut(&key.period)?.remove(&key.id)?;
        Some(item.published(self.definition, &self.definition.reports[key.report]))
    }

    /// Returns true if the item is expected and was not seen.
    pub(super) fn has(&self, key: &Key) -> bool {
        self.items[key.report].get(&key.period).is_some_and(|items| items.contains_key(&key.id))
    }

    /// Returns the keys of a report's items that were not seen.
    pub(super) fn unseen(&self, report: usize) -> Vec<Key> {
        self.items(report).map(|(period, id, _)| Key { report, id: id.clone(), period }).collect()
    }
}

impl ExpectedItem {
    fn of(report: &Report) -> Self {
        let figure = |aggregate: &Aggregate| match aggregate {
            Aggregate::Count => Figure::Count(0),
            Aggregate::Sum { .. } => Figure::Sum(0),
            Aggregate::Min { .. } | Aggregate::Max { .. } => Figure::Extreme(None),
            Aggregate::Distinct { .. } => Figure::Distinct(Distinct::default()),
            Aggregate::Ratio { .. } => Figure::Ratio,
        };
        let under = report.top.iter().flat_map(|top| &top.under).map(|_| BTreeSet::new()).collect();
        ExpectedItem { figures: report.measures.iter().map(|measure| figure(&measure.aggregate)).collect(), under }
    }

    fn add(&mut self, row: AuditedRow<'_>, report: &Report) {
        for (measure, figure) in report.measures.iter().zip(&mut self.figures) {
            if !measure.conditions.iter().all(|condition| row.meets(condition)) {
                continue;
            }
            match (figure, &measure.aggregate) {
                (Figure::Count(count), _) => *count += 1,
                (Figure::Sum(sum), Aggregate::Sum { of, .. }) => *sum += i128::from(row.number(of).unwrap_or(0)),
                (Figure::Extreme(least), Aggregate::Min { of }) => {
                    *least = [*least, row.number(of)].into_iter().flatten().min()
                }
                (Figure::Extreme(greatest), Aggregate::Max { of }) => *greatest = (*greatest).max(row.number(of)),
                (Figure::Distinct(distinct), Aggregate::Distinct { of }) => match row.value(of) {
                    CuratedValue::None => {}
                    CuratedValue::Text(text) => distinct.insert(Member::of_text(text)),
                    CuratedValue::Number(number) => distinct.insert(Member::of_number(number)),
                },
                _ => {}
            }
        }
        for (name, texts) in report.top.iter().flat_map(|top| &top.under).zip(&mut self.under) {
            for text in row.texts(name) {
                if !texts.contains(text.as_ref()) {
                    texts.insert(text.into_owned());
                }
            }
        }
    }

    /// The figure of a measure as an integer in units of 10^-places; `None` if there is none.
    fn number(&self, report: &Report, name: &str) -> Option<i128> {
        let place = report.measures.iter().position(|measure| measure.name == *name)?;
        match &self.figures[place] {
            Figure::Count(count) => Some(i128::from(*count)),
            // Published sums stay within 64 bits.
            Figure::Sum(sum) => Some((*sum).clamp(-i128::from(i64::MAX), i128::from(i64::MAX))),
            Figure::Distinct(distinct) => Some(i128::from(distinct.count())),
            Figure::Extreme(extreme) => extreme.map(i128::from),
            Figure::Ratio => None,
        }
    }

    /// The figure by which the report's lists are ordered, if the item has one.
    pub(super) fn rank(&self, report: &Report) -> Option<i128> {
        self.number(report, &report.top.as_ref()?.by)
    }

    /// The texts of the item's attributes, in the order of the report's measures.
    pub(super) fn published(&self, definition: &Definition, report: &Report) -> Published {
        let places = |name: &str| report.measure(name).map_or(0, |measure| measure.aggregate.places(definition));
        let of_measure = |measure: &crate::definition::reports::Measure| match &measure.aggregate {
            Aggregate::Ratio { of, by, places: shown } => {
                let (of, by) = ((self.number(report, of)?, places(of)), (self.number(report, by)?, places(by)));
                Some(decimal_text(rounded(of, by, *shown)?, *shown))
            }
            Aggregate::Min { of } | Aggregate::Max { of } => {
                let Some(number) = self.number(report, &measure.name) else { return Some("NULL".to_owned()) };
                match definition.field(of).map(|field| field.type_()) {
                    Some(Type::Time { .. }) => i64::try_from(number).ok().map(time_text),
                    _ => Some(decimal_text(number, places(&measure.name))),
                }
            }
            _ => Some(decimal_text(self.number(report, &measure.name)?, places(&measure.name))),
        };
        report.measures.iter().map(of_measure).collect()
    }
}

/// Divides numbers with so many decimal places, and rounds to some, half away from zero.
fn rounded((of, of_places): (i128, u8), (by, by_places): (i128, u8), places: u8) -> Option<i128> {
    let ten = |places: u8| 10_i128.checked_pow(u32::from(places));
    // Both sides are made whole numbers of the same unit.
    let of = of.checked_mul(ten(by_places.saturating_sub(of_places))?)?.checked_mul(ten(places)?)?;
    let by = by.checked_mul(ten(of_places.saturating_sub(by_places))?)?;
    let (whole, rest) = (of.checked_div(by)?, of.checked_rem(by)?);
    let is_up = 2 * rest.abs() >= by.abs();
    Some(if is_up { whole + of.signum() * by.signum() } else { whole })
}
