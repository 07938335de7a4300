//! The sums of a day's curated rows: a plain fold of the definition as it is written. It has only its result in common
//! with the batch's: no plan, no codes, a table of named figures for each item.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};

use crate::compute::curated::CuratedValue;
use crate::definition::columns::{Source, Type};
use crate::definition::conditions::{Condition, Test, Values};
use crate::definition::reports::{ALL, Aggregate, Key as ReportKey, Period as Every, Report};
use crate::definition::{Definition, Field};
use crate::formats::parquet;
use crate::plan::period::Period;
use crate::reports::distinct::{Distinct, Member};
use crate::reports::figures::{Key, decimal_text};
use crate::reports::item::time_text;

use super::hash;

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

/// The columns of a curated file that an audit reads: those of the definition, and the key of the row's file.
pub(super) fn curated_columns(definition: &Definition) -> Vec<(&str, parquet::Type)> {
    let of_field = |field: Field<'_>| match field.type_() {
        _ if is_join(field) => parquet::Type::Text,
        Type::Id { .. } | Type::Text { .. } => parquet::Type::Text,
        Type::Integer { min, max } if i32::try_from(*min).is_ok() && i32::try_from(*max).is_ok() => {
            parquet::Type::Int32
        }
        Type::Integer { .. } => parquet::Type::Int64,
        Type::Decimal { places, .. } => parquet::Type::Decimal { places: *places },
        Type::Time { .. } => parquet::Type::Timestamp,
    };
    let fields = definition.fields().map(|field| (field.name(), of_field(field)));
    fields.chain([("source_key", parquet::Type::Text)]).collect()
}

fn is_join(field: Field<'_>) -> bool {
    matches!(field, Field::Column(column) if matches!(column.source, Source::Join { .. }))
}

/// A curated row with its definition.
#[derive(Clone, Copy)]
pub(super) struct AuditedRow<'a> {
    pub(super) definition: &'a Definition,
    /// In the order of [`curated_columns`].
    pub(super) values: &'a [CuratedValue<'a>],
}

impl<'a> AuditedRow<'a> {
    fn value(&self, name: &str) -> CuratedValue<'a> {
        let place = self.definition.fields().position(|field| field.name() == name);
        place.and_then(|place| self.values.get(place)).copied().unwrap_or(CuratedValue::None)
    }

    fn number(&self, name: &str) -> Option<i64> {
        match self.value(name) {
            CuratedValue::Number(number) => Some(number),
            CuratedValue::None | CuratedValue::Text(_) => None,
        }
    }

    /// The row's time, in microseconds.
    pub(super) fn time(&self) -> i64 {
        self.number(&self.definition.time).unwrap_or(0)
    }

    /// The values of the columns that were read from the row's file, and the key of that file.
    pub(super) fn of_file(&self) -> (&'a [CuratedValue<'a>], CuratedValue<'a>) {
        let source = self.values.last().copied().unwrap_or(CuratedValue::None);
        (&self.values[..self.definition.columns.len()], source)
    }

    /// The texts of a field under which a report has the row: several of an attribute with many.
    fn texts(&self, name: &str) -> Vec<Cow<'a, str>> {
        let field = self.definition.field(name);
        let many = match field {
            Some(Field::Attribute(_, attribute)) => attribute.many,
            Some(Field::Column(_)) | None => None,
        };
        match (self.value(name), many) {
            (CuratedValue::Text(text), Some(separator)) => {
                text.split(char::from(separator)).map(Cow::Borrowed).collect()
            }
            (CuratedValue::Text(text), None) => vec![Cow::Borrowed(text)],
            (CuratedValue::Number(number), _) => vec![Cow::Owned(number.to_string())],
            (CuratedValue::None, _) => {
                let unknown = field.and_then(|field| field.unknown());
                unknown.map(|unknown| Cow::Borrowed(unknown)).into_iter().collect()
            }
        }
    }

    fn meets(&self, Condition { column, test }: &Condition) -> bool {
        match (test, self.value(column)) {
            (Test::In(Values::Texts(values)), CuratedValue::Text(text)) => values.iter().any(|value| value == text),
            (Test::NotIn(Values::Texts(values)), CuratedValue::Text(text)) => values.iter().all(|value| value != text),
            (Test::In(Values::Numbers(values)), CuratedValue::Number(number)) => values.contains(&number),
            (Test::NotIn(Values::Numbers(values)), CuratedValue::Number(number)) => !values.contains(&number),
            (Test::Within { min, max }, CuratedValue::Number(number)) => {
                number >= min.unwrap_or(i64::MIN) && number <= max.unwrap_or(i64::MAX)
            }
            (Test::Present(present), value) => *present == (value != CuratedValue::None),
            (test, _) => matches!(test, Test::NotIn(_)),
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

/// The sums of a day's curated rows: by report, by period, by id.
#[derive(Debug)]
pub(super) struct Expected<'d> {
    definition: &'d Definition,
    items: Vec<HashMap<Period, HashMap<String, ExpectedItem>>>,
    count: usize,
}

impl<'d> Expected<'d> {
    pub(super) fn new(definition: &'d Definition) -> Self {
        Expected { definition, items: definition.reports.iter().map(|_| HashMap::new()).collect(), count: 0 }
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
            Figure::Sum(sum) => Some(*sum),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::fixtures::{self, Cell, Cells, NOON};
    use crate::compute::{Dictionary, Fold, curated, deltas};
    use crate::definition::reports::{Measure, Top};
    use crate::plan::Plan;
    use crate::reports::figures::{Figures, Shown};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::io::Cursor;
    use std::sync::Arc;

    #[test]
    fn partitions_that_are_split_have_every_item_once() {
        let mut partitions = vec![Partition::Part { modulus: 1, remainder: 0 }];
        for _ in 0..4 {
            let halves: Vec<_> = partitions.iter_mut().filter_map(Partition::split).collect();
            partitions.extend(halves);
        }
        assert_eq!(partitions.len(), 16);
        for id in 0..1000 {
            let has = |partition: &&Partition| partition.has(0, &id.to_string(), Period::Day(7));
            assert_eq!(partitions.iter().filter(has).count(), 1, "{id}");
        }
        let mut smallest = Partition::Part { modulus: MAX_PARTITIONS, remainder: 5 };
        assert!(smallest.split().is_none());
    }

    #[test]
    fn ratios_are_rounded_half_away_from_zero() {
        assert_eq!(rounded((1000, 3), (3, 0), 3), Some(333));
        assert_eq!(rounded((2000, 3), (3, 0), 3), Some(667));
        assert_eq!(rounded((-1, 0), (2, 0), 0), Some(-1));
        assert_eq!(rounded((1, 0), (8, 0), 2), Some(13));
        assert_eq!(rounded((1, 0), (0, 0), 2), None);
    }

    /// Measures of every kind, with and without conditions. The first are those that a ratio may be made of.
    fn measures() -> Vec<Measure> {
        let is = |column: &str, test: Test| Condition { column: column.to_owned(), test };
        let texts = |values: &[&str]| Values::Texts(values.iter().map(|&value| value.to_owned()).collect());
        let of = || "pieces".to_owned();
        let sum = |of: &str, divide| Aggregate::Sum { of: of.to_owned(), divide };
        let distinct = |of: &str| Aggregate::Distinct { of: of.to_owned() };
        let min = |of: &str| Aggregate::Min { of: of.to_owned() };
        let max = |of: &str| Aggregate::Max { of: of.to_owned() };
        let aggregates: Vec<(Aggregate, Vec<Condition>)> = vec![
            (Aggregate::Count, vec![]),
            (sum("pieces", 1), vec![]),
            (sum("price", 100), vec![]),
            (distinct("buyer"), vec![]),
            (sum("price", 1), vec![is("buyer", Test::In(Values::Numbers(vec![1, 5])))]),
            (sum("weight", 1), vec![]),
            (sum("weight", 10), vec![is("shop", Test::Present(true))]),
            (Aggregate::Count, vec![is("shop", Test::In(texts(&["s1", "nowhere"])))]),
            (Aggregate::Count, vec![is("shop", Test::NotIn(texts(&["s1"]))), is("pieces", Test::Present(true))]),
            (Aggregate::Count, vec![is("pieces", Test::Within { min: Some(-2), max: Some(3) })]),
            (Aggregate::Count, vec![is("pieces", Test::NotIn(Values::Numbers(vec![2])))]),
            (Aggregate::Count, vec![is("paid", Test::Present(false))]),
            (Aggregate::Min { of: of() }, vec![]),
            (max("pieces"), vec![is("price", Test::Within { min: Some(0), max: None })]),
            (min("price"), vec![]),
            (max("paid"), vec![]),
            (min("at"), vec![is("item", Test::In(texts(&["i1", "i6"])))]),
            (max("weight"), vec![]),
            (min("weight"), vec![is("buyer", Test::Present(true))]),
            (max("level"), vec![]),
            (sum("buyer", 1), vec![]),
            (distinct("shop"), vec![]),
            (distinct("place"), vec![]),
            (distinct("land"), vec![]),
            (distinct("level"), vec![]),
            (distinct("item"), vec![is("pieces", Test::Within { min: None, max: Some(0) })]),
            (distinct("item"), vec![]),
            (distinct("buyer"), vec![is("shop", Test::Present(true))]),
        ];
        let measure = |(place, (aggregate, conditions))| Measure { name: format!("m{place}"), aggregate, conditions };
        aggregates.into_iter().enumerate().map(measure).collect()
    }

    fn reports() -> impl Strategy<Value = Vec<Report>> {
        let keys = ["*", "item", "shop", "buyer", "place", "kind", "land", "level"];
        let one = (
            prop::sample::select(keys.to_vec()),
            any::<bool>(),
            prop::sample::subsequence(measures(), 1..10),
            prop::option::of((0..4_usize, 0..4_usize, 0..5_u8)),
            any::<bool>(),
        );
        prop::collection::vec(one, 1..6).prop_map(|reports| {
            let report = |(place, (key, is_hourly, mut measures, ratio, has_labels)): (
                usize,
                (&str, bool, Vec<Measure>, Option<(usize, usize, u8)>, bool),
            )| {
                let distinct = |measure: &&Measure| matches!(measure.aggregate, Aggregate::Distinct { .. });
                while measures.iter().filter(distinct).count() > 4 {
                    let last = measures.iter().rposition(|it| distinct(&it)).unwrap();
                    measures.remove(last);
                }
                let parts: Vec<String> = measures
                    .iter()
                    .filter(|it| it.name.len() == 2 && it.name < "m4".to_owned())
                    .map(|it| it.name.clone())
                    .collect();
                if let (Some((of, by, places)), false) = (ratio, parts.is_empty()) {
                    let (of, by) = (parts[of % parts.len()].clone(), parts[by % parts.len()].clone());
                    measures.push(Measure {
                        name: "ratio".to_owned(),
                        aggregate: Aggregate::Ratio { of, by, places },
                        conditions: vec![],
                    });
                }
                let every = if is_hourly { Every::Hour } else { Every::Day };
                let of_key = if key == "*" { ReportKey::All } else { ReportKey::Field(key.to_owned()) };
                let mut report = fixtures::report(&format!("r{place}"), of_key, every);
                let top = measures.iter().find(|it| it.aggregate == Aggregate::Count).map(|it| it.name.clone());
                report.top = top.map(|by| Top {
                    by,
                    under: if key == "item" { vec!["kind".to_owned()] } else { vec![] },
                    keep: 3,
                });
                report.measures = measures;
                if has_labels && key != "*" {
                    report.attributes = ["price", "shop", "paid", "pieces"]
                        .iter()
                        .filter(|it| **it != key)
                        .map(|&it| it.to_owned())
                        .collect();
                    if key == "item" {
                        report.attributes.push("weight".to_owned());
                    }
                }
                report
            };
            reports.into_iter().enumerate().map(report).collect()
        })
    }

    fn cells() -> impl Strategy<Value = Vec<Cells>> {
        let optional = |cells: Vec<Cell>| prop_oneof![1 => Just(Cell::None), 5 => prop::sample::select(cells)];
        let row = (
            prop::sample::select(vec!["i1", "i2", "i3", "i4", "i5", "i6"]),
            -40..40_i64,
            optional(vec!["s1".into(), "s2".into(), "nowhere".into()]),
            optional(vec![0.into(), 1.into(), 2.into(), 5.into(), i64::MAX.into()]),
            optional((-3..4_i64).map(Cell::Number).collect()),
            -500..500_i64,
            optional(vec![NOON.into(), (NOON + 1).into(), 0.into()]),
        );
        let row = row.prop_map(|(item, hours, shop, buyer, pieces, price, paid)| {
            let at = NOON + hours * 1_800_000_000;
            vec![item.into(), at.into(), shop, buyer, pieces, price.into(), paid, Cell::None]
        });
        prop::collection::vec(row, 1..60)
    }

    /// The figures of items as texts, by report, id and period.
    type All = BTreeMap<(usize, String, Period), Published>;

    /// Folds rows in batches, each through a delta file, and merges what comes out.
    fn folded(plan: &Arc<Plan>, references: &Arc<crate::reference::References>, batches: &[&[Cells]]) -> All {
        let mut merged: BTreeMap<(usize, String, Period), Figures> = BTreeMap::new();
        for batch in batches {
            let mut dictionary = Dictionary::of(Arc::clone(plan), Arc::clone(references));
            let mut fold = Fold::default();
            // Two row groups.
            for part in batch.chunks(batch.len().div_ceil(2).max(1)) {
                for (day, rows) in fixtures::rows(&mut dictionary, part).by_day(&plan.zone) {
                    fold.add(day, &rows, dictionary.names(), usize::MAX);
                }
            }
            let items: Vec<_> = fold.into_items(plan).collect();
            let file = deltas::encode(items, dictionary.names()).unwrap();
            for delta in deltas::decode(&file, plan).unwrap() {
                let Key { report, id, period } = delta.key;
                merged.entry((report, id, period)).or_default().merge(&delta.figures, &plan.reports[report]);
            }
        }
        let text = |shown: Option<Shown>, is_ratio: bool| match shown? {
            Shown::Number(number, places) => Some(decimal_text(number, places)),
            Shown::Time(micros) => Some(time_text(micros)),
            Shown::Nothing => (!is_ratio).then(|| "NULL".to_owned()),
        };
        let published = |(key, figures): ((usize, String, Period), Figures)| {
            let report = &plan.reports[key.0];
            let shown = crate::reports::figures::shown(&figures, report).into_iter().zip(&report.measures);
            let texts = shown
                .map(|(it, measure)| text(it, matches!(measure.figure, crate::plan::reports::Figure::Ratio { .. })));
            (key, texts.collect())
        };
        merged.into_iter().map(published).collect()
    }

    /// Folds the rows of curated files as the auditor does.
    fn audited(plan: &Arc<Plan>, references: &Arc<crate::reference::References>, cells: &[Cells]) -> All {
        let mut dictionary = Dictionary::of(Arc::clone(plan), Arc::clone(references));
        let (mut all, columns) = (All::new(), curated_columns(&plan.definition));
        let rows = fixtures::rows(&mut dictionary, cells);
        for (day, rows) in rows.by_day(&plan.zone) {
            let mut file = curated::new_file(plan).unwrap();
            file.append(curated::encode_rows(&rows, dictionary.names()).unwrap()).unwrap();
            let mut expected = Expected::new(&plan.definition);
            let partition = Partition::Part { modulus: 1, remainder: 0 };
            curated::read_rows(Cursor::new(file.finish().unwrap()), &columns, |values| {
                let row = AuditedRow { definition: &plan.definition, values };
                assert_eq!(super::super::day::day_in(&plan.definition.zone, row.time()), day);
                expected.add(row, &partition, day);
            })
            .unwrap();
            for report in 0..plan.reports.len() {
                for key in expected.unseen(report) {
                    let published = expected.see(&key).unwrap();
                    assert_eq!(all.insert((key.report, key.id, key.period), published), None, "an hour of two days");
                }
            }
        }
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// The fold by arrays and the auditor's by maps have nothing in common but the definition. They agree for any
        /// reports, however rows are cut into batches, and through curated files and delta files.
        #[test]
        fn the_fold_of_a_plan_is_that_of_the_definition(
            reports in reports(), cells in cells(), cut in 0..60_usize, zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York"]),
        ) {
            let plan = Arc::new(Plan::of(fixtures::definition(reports, zone)).unwrap());
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let references = Arc::new(runtime.block_on(fixtures::references(&plan)));
            let expected = audited(&plan, &references, &cells);
            let (one, other) = cells.split_at(cut.min(cells.len()));
            prop_assert_eq!(&folded(&plan, &references, &[&cells]), &expected);
            prop_assert_eq!(&folded(&plan, &references, &[one, other]), &expected);
            prop_assert_eq!(&folded(&plan, &references, &[other, one]), &expected);
        }
    }
}
