//! The SQL of reports: what DuckDB makes of curated files by it, what a batch makes of the rows, and what an audit
//! makes of the curated files are the same.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;
use music_streams::aws::item::Item;
use music_streams::commands::verify::recounted;
use music_streams::definition::Definition;
use music_streams::definition::columns::Type;
use music_streams::definition::reports::{Aggregate, Report};
use music_streams::plan::Plan;
use music_streams::reports::figures::parse_decimal;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::Value;

use super::batch::{Batch, prepared};
use super::rows::{Random, of_json, references, rows};
use super::run;
use crate::generate;
use crate::written::{EXAMPLES, good};

/// Rows by their key and period.
type Rows = BTreeMap<(String, String), BTreeMap<String, Option<String>>>;

/// The answers of DuckDB to some queries.
fn answers(queries: &[String]) -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut python = Command::new(root.join(".tools/checks/bin/python"))
        .arg(root.join("tests/definition/explain/queries.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("`make test` installs DuckDB");
    let mut input = python.stdin.take().unwrap();
    input.write_all(serde_json::json!(queries).to_string().as_bytes()).unwrap();
    drop(input);
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The queries of a definition's reports, as they are printed.
fn queries(definition: &Definition, curated: &Path) -> Vec<String> {
    let files = [("x.toml", definition.canonical())];
    let curated = curated.to_str().unwrap();
    let answer = run(&files, &["x.toml", "--curated", curated, "--format", "json"]);
    assert!(answer.status.success(), "{answer:?}");
    let answer: Value = serde_json::from_slice(&answer.stdout).unwrap();
    let reports = answer["reports"].as_array().unwrap().iter();
    reports.map(|report| report["sql"].as_str().unwrap().to_owned()).collect()
}

fn key_of(row: &BTreeMap<String, Option<String>>, report: &music_streams::plan::reports::Report) -> (String, String) {
    let period = if report.is_hourly { "report_hour" } else { "report_date" };
    let text = |name: &str| row[name].clone().unwrap_or_else(|| panic!("no {name} in {row:?}"));
    (text(&report.key_attribute), text(period))
}

/// The rows of an answer.
fn rows_of(answer: &Value, report: &music_streams::plan::reports::Report) -> Result<Rows, String> {
    let mut rows = Rows::new();
    for row in answer.as_array().ok_or_else(|| answer.to_string())? {
        let text = |(name, value): (&String, &Value)| (name.clone(), value.as_str().map(str::to_owned));
        let row: BTreeMap<String, Option<String>> = row.as_object().unwrap().iter().map(text).collect();
        if let Some(other) = rows.insert(key_of(&row, report), row) {
            return Err(format!("two rows of one key: {other:?}"));
        }
    }
    Ok(rows)
}

/// What people read of an item: the names are those of the answers' columns.
fn shown(item: &Item, report: &music_streams::plan::reports::Report) -> BTreeMap<String, Option<String>> {
    let period = if report.is_hourly { "report_hour" } else { "report_date" };
    let text = |name: &str| match item.get(name) {
        Some(AttributeValue::N(text) | AttributeValue::S(text)) => Some(text.clone()),
        _ => None,
    };
    let names = [report.key_attribute.as_str(), period].into_iter();
    let names = names.chain(report.labels.iter().map(|label| label.name.as_str()));
    let names = names.chain(report.measures.iter().map(|measure| measure.name.as_str()));
    names.map(|name| (name.to_owned(), text(name))).collect()
}

/// The sums that have come to the end of 64 bits, where an item stays, and the ratios of these.
fn ended(row: &BTreeMap<String, Option<String>>, report: &Report, definition: &Definition) -> Vec<String> {
    let is_ended = |name: &str| {
        let Some(aggregate @ Aggregate::Sum { .. }) = report.measure(name).map(|measure| &measure.aggregate) else {
            return false;
        };
        let units = row[name].as_deref().and_then(|text| parse_decimal(text, aggregate.places(definition)));
        units.is_some_and(|units| units.unsigned_abs() == i64::MAX as u64)
    };
    let is_of_ended = |aggregate: &Aggregate| match aggregate {
        Aggregate::Ratio { of, by, .. } => is_ended(of) || is_ended(by),
        _ => false,
    };
    let measures = report.measures.iter().filter(|it| is_ended(&it.name) || is_of_ended(&it.aggregate));
    measures.map(|measure| measure.name.clone()).collect()
}

/// Compares what the queries of several batches give with the items and with an audit. Returns the rows compared.
fn compare(batches: &[Batch]) -> usize {
    let of_batches: Vec<Vec<String>> =
        batches.iter().map(|batch| queries(&batch.plan.definition, batch.curated.path())).collect();
    let mut answers = answers(&of_batches.concat()).into_iter();
    let mut compared = 0;
    for (batch, queries) in batches.iter().zip(&of_batches) {
        let definition = &batch.plan.definition;
        let audited =
            batch.days.iter().flat_map(|(day, file)| recounted(definition, *day, [Cursor::new(file)]).unwrap());
        let mut audited: Vec<_> = audited.collect();
        for (index, query) in queries.iter().enumerate() {
            let (report, written) = (&batch.plan.reports[index], &definition.reports[index]);
            let context = || format!("{}\n{query}", definition.canonical());
            let mut found =
                rows_of(&answers.next().unwrap(), report).unwrap_or_else(|error| panic!("{error}\n{}", context()));
            let mut expected = Rows::new();
            for (_, item) in batch.items.iter().filter(|(key, _)| key.report == index) {
                let row = shown(item, report);
                expected.insert(key_of(&row, report), row);
            }
            for (key, published) in audited.extract_if(.., |(key, _)| key.report == index) {
                let item = &expected[&(key.id, key.period.to_string())];
                for (measure, text) in report.measures.iter().zip(published) {
                    let text = text.filter(|text| text != "NULL");
                    assert_eq!(item[&measure.name], text, "{} by the audit\n{}", measure.name, context());
                }
            }
            for (key, row) in &mut expected {
                for name in ended(row, written, definition) {
                    row.remove(&name);
                    found.get_mut(key).map(|row| row.remove(&name));
                }
            }
            assert_eq!(found, expected, "\n{}", context());
            compared += expected.len();
        }
        assert!(audited.is_empty());
    }
    compared
}

fn batch(definition: Definition, seed: u64, count: usize) -> Batch {
    let mut random = Random(seed);
    let plan = Arc::new(Plan::of(of_json(definition)).unwrap());
    let files = references(&plan.definition, &mut random);
    let data = [rows(&plan.definition, count, &mut random), rows(&plan.definition, count / 2, &mut random)];
    prepared(plan, &files, &data)
}

#[test]
fn the_sql_of_the_examples_gives_what_the_items_show() {
    let mut definitions: Vec<Definition> = EXAMPLES.iter().map(|(_, text)| good(text)).collect();
    definitions.push(Definition::built_in().unwrap_or_else(|it| panic!("{it:?}")));
    // An hour of Kathmandu is one of two days.
    let batches: Vec<Batch> =
        definitions.into_iter().enumerate().map(|(seed, it)| batch(it, seed as u64, 400)).collect();
    assert!(batches.iter().all(|batch| batch.rows > 50), "{:?}", batches.iter().map(|it| it.rows).collect::<Vec<_>>());
    let compared = compare(&batches);
    assert!(compared > 500, "{compared}");
}

/// Generated definitions, with texts and names of columns that need quotes, and bounds of every size.
#[test]
fn the_sql_of_any_definition_gives_what_the_items_show() {
    let mut runner = TestRunner::default();
    let mut batches = Vec::new();
    for seed in 0..120 {
        let mut definition = generate::definition().new_tree(&mut runner).unwrap().current();
        // The least integer stands for no value, so that nothing is of this type.
        if definition.fields().any(|field| matches!(field.type_(), Type::Integer { max: i64::MIN, .. })) {
            continue;
        }
        if Plan::of(definition.clone()).is_err() {
            definition.zone = jiff::tz::TimeZone::UTC;
        }
        batches.push(batch(definition, seed, 60));
    }
    // Without a row there is no file, which DuckDB refuses.
    batches.retain(|batch| batch.rows > 0);
    let compared = compare(&batches);
    assert!(compared > 3000, "{compared}");
}

/// A distinct count is by a sketch: exact up to some 1,500 values, within 0.8 % beyond, which is its standard error.
#[test]
fn a_large_distinct_count_is_near_that_of_the_sql() {
    let definition = of_json(Definition::built_in().unwrap_or_else(|it| panic!("{it:?}")));
    let plan = Arc::new(Plan::of(definition).unwrap());
    let rows: String = (1..=40_000)
        .map(|user| format!("{{\"user_id\":{user},\"track_id\":\"t\",\"listen_time\":1711800000000000}}\n"))
        .collect();
    let references = references(&plan.definition, &mut Random(1));
    let batch = prepared(plan, &references, &[rows.into_bytes()]);
    let queries = queries(&batch.plan.definition, batch.curated.path());
    let answer = &answers(&queries[..1])[0];
    assert_eq!(answer[0]["unique_users"], "40000");
    let (_, item) = batch.items.iter().find(|(key, _)| key.report == 0).unwrap();
    let counted: f64 = item["unique_users"].as_n().unwrap().parse().unwrap();
    assert!((counted - 40_000.0).abs() / 40_000.0 < 0.03, "{counted}");
}
