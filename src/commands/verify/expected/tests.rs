//! Tests of the auditor's fold: against the batch's, which has nothing in common with it.

use super::*;
use crate::commands::verify::day::day_in;
use crate::commands::verify::row::curated_columns;
use crate::compute::fixtures::{self, Cell, Cells, NOON};
use crate::compute::{Dictionary, Fold, curated, deltas};
use crate::definition::conditions::{Condition, Test, Values};
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
    let measure =
        |(place, (aggregate, conditions))| Measure { name: format!("m{place}"), aggregate, conditions, unit: None };
    aggregates.into_iter().enumerate().map(measure).collect()
}

/// Key, hours, measures, the parts and places of a ratio, labels.
type Drawn = (&'static str, bool, Vec<Measure>, Option<(usize, usize, u8)>, bool);

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
        let report = |(place, drawn): (usize, Drawn)| {
            let (key, is_hourly, mut measures, ratio, has_labels) = drawn;
            let distinct = |measure: &&Measure| matches!(measure.aggregate, Aggregate::Distinct { .. });
            while measures.iter().filter(distinct).count() > 4 {
                let last = measures.iter().rposition(|it| distinct(&it)).unwrap();
                measures.remove(last);
            }
            let parts: Vec<String> =
                measures.iter().filter(|it| it.name.len() == 2 && *it.name < *"m4").map(|it| it.name.clone()).collect();
            if let (Some((of, by, places)), false) = (ratio, parts.is_empty()) {
                let (of, by) = (parts[of % parts.len()].clone(), parts[by % parts.len()].clone());
                measures.push(Measure {
                    name: "ratio".to_owned(),
                    aggregate: Aggregate::Ratio { of, by, places },
                    conditions: vec![],
                    unit: None,
                });
            }
            let every = if is_hourly { Every::Hour } else { Every::Day };
            let of_key = if key == "*" { ReportKey::All } else { ReportKey::Field(key.to_owned()) };
            let mut report = fixtures::report(&format!("r{place}"), of_key, every);
            let top = measures.iter().find(|it| it.aggregate == Aggregate::Count).map(|it| it.name.clone());
            report.top =
                top.map(|by| Top { by, under: if key == "item" { vec!["kind".to_owned()] } else { vec![] }, keep: 3 });
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
        let texts =
            shown.map(|(it, measure)| text(it, matches!(measure.figure, crate::plan::reports::Figure::Ratio { .. })));
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
        let mut expected = Expected::new(&plan.definition, &plan.since);
        let partition = Partition::Part { modulus: 1, remainder: 0 };
        curated::read_rows(Cursor::new(file.finish().unwrap()), &columns, |values| {
            let row = AuditedRow { definition: &plan.definition, values };
            assert_eq!(day_in(&plan.definition.zone, row.time()), day);
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
        reports in reports(), cells in cells(), cut in 0..60_usize,
        zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York"]),
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
