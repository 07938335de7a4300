//! Answers as JSON and CSV, with the tables' own names: one vocabulary in DynamoDB, command line, API and Parquet.
//!
//! Numbers are numbers, exact in the text; what a report cannot tell is null. Attributes of a label with several values
//! are a list, of one value too.

use serde_json::{Map, Value, json};

use crate::calendar::date_text;
use crate::plan::period::Period;
use crate::plan::reports::{Figure, Report};
use crate::reading::answer::{Exactness, Point, Row, Series, Top, Values};
use crate::reading::range::Range;
use crate::reports::figures::{Label, Labels, Shown, decimal_text};
use crate::reports::item::time_text;

/// Digits after the point of shares and changes.
const FRACTION_PLACES: f64 = 10_000.0;

/// Returns a value as text; an empty one for none.
pub fn value_text(value: Option<Shown>) -> String {
    match value {
        Some(Shown::Number(number, places)) => decimal_text(number, places),
        Some(Shown::Time(micros)) => time_text(micros),
        Some(Shown::Nothing) | None => String::new(),
    }
}

/// Returns a value as JSON; null for none.
pub fn value_json(value: Option<Shown>) -> Value {
    match value {
        Some(Shown::Number(number, places)) => {
            serde_json::from_str(&decimal_text(number, places)).unwrap_or(Value::Null)
        }
        Some(Shown::Time(micros)) => Value::String(time_text(micros)),
        Some(Shown::Nothing) | None => Value::Null,
    }
}

fn fraction(number: Option<f64>) -> Value {
    number.map_or(Value::Null, |number| json!((number * FRACTION_PLACES).round() / FRACTION_PLACES))
}

fn put_values(into: &mut Map<String, Value>, report: &Report, values: &Values) {
    for (measure, &value) in report.measures.iter().zip(values) {
        into.insert(measure.name.clone(), value_json(value));
    }
}

fn put_between(into: &mut Map<String, Value>, report: &Report, between: &[Option<[u64; 2]>]) {
    for (measure, between) in report.measures.iter().zip(between) {
        if let Some(between) = between {
            into.insert(format!("{}_between", measure.name), json!(between));
        }
    }
}

fn put_labels(into: &mut Map<String, Value>, report: &Report, labels: &Labels) {
    for (label, text) in report.labels.iter().zip(&labels.0) {
        let value = match text {
            Label::One(text) => text.clone().map_or(Value::Null, Value::String),
            Label::Many(texts) => json!(texts),
        };
        into.insert(label.name.clone(), value);
    }
}

fn range_json(range: Range) -> Value {
    json!({ "from": date_text(range.from), "to": date_text(range.to), "days": range.days() })
}

/// The first period that a report counts, if it lies within the days.
fn counted_from(plan: &crate::plan::Plan, report: usize, range: Range) -> Option<Period> {
    plan.since[report].filter(|&since| plan.day_of(since) > range.from)
}

/// Returns an answer as JSON: its `as_of` is of the moment, and everything else of the figures.
pub fn series_json(series: &Series) -> Value {
    let report = series.report();
    let mut totals = Map::new();
    put_values(&mut totals, report, &series.totals);
    put_between(&mut totals, report, &series.between);
    let point = |point: &Point| {
        let mut fields = Map::new();
        fields.insert(report.period_attribute().to_owned(), json!(point.period.to_string()));
        put_values(&mut fields, report, &point.values);
        fields.insert("whole".to_owned(), json!(point.is_whole));
        if !point.is_counted {
            fields.insert("counted".to_owned(), json!(false));
        }
        Value::Object(fields)
    };
    let against = series.against.map(|range| {
        let (mut totals, mut change) = (Map::new(), Map::new());
        if let Some(values) = &series.before_totals {
            put_values(&mut totals, report, values);
        }
        for (measure, &by) in report.measures.iter().zip(&series.change) {
            change.insert(measure.name.clone(), fraction(by));
        }
        let points = series.before.iter().map(point).collect::<Vec<_>>();
        let mut fields = range_json(range);
        fields["totals"] = Value::Object(totals);
        fields["change"] = Value::Object(change);
        fields["points"] = json!(points);
        fields
    });
    let mut labels = Map::new();
    put_labels(&mut labels, report, &series.labels);
    let range = series.question.range;
    let from = counted_from(&series.plan, series.question.report, range);
    json!({
        "report": report.name,
        "key": report.key_attribute,
        "id": series.question.id,
        "labels": labels,
        "period": range_json(range),
        "whole": series.whole,
        "counted_from": from.map(|from| from.to_string()),
        "totals": totals,
        "points": series.points.iter().map(point).collect::<Vec<_>>(),
        "against": against,
        "as_of": series.as_of,
    })
}

/// Returns the figures of an answer alone, by which it is compared with a later one.
pub fn figures_of(mut answer: Value) -> Value {
    if let Some(fields) = answer.as_object_mut() {
        fields.remove("as_of");
    }
    answer
}

/// Returns an answer as JSON, as [`series_json`] does.
pub fn top_json(top: &Top) -> Value {
    let report = top.report();
    let row = |(index, row): (usize, &Row)| {
        let mut fields = Map::new();
        fields.insert("rank".to_owned(), json!(index + 1));
        fields.insert(report.key_attribute.clone(), json!(row.id));
        put_labels(&mut fields, report, &row.labels);
        put_values(&mut fields, report, &row.values);
        put_between(&mut fields, report, &row.between);
        fields.insert("share".to_owned(), fraction(row.share));
        fields.insert("change".to_owned(), fraction(row.change));
        fields.insert("points".to_owned(), json!(top.points(row)));
        Value::Object(fields)
    };
    let range = top.question.range;
    let under = top.question.under.as_ref().map(|(label, text)| json!({ &report.labels[*label].name: text }));
    let by = &report.measures[top.measure()].name;
    let from = counted_from(&top.plan, top.question.report, range);
    let missing = match top.exactness {
        Exactness::MissingAtMost(most) => value_json(Some(most)),
        Exactness::Exact | Exactness::Rebuilding => Value::Null,
    };
    json!({
        "report": report.name,
        "by": by,
        "under": under,
        "period": range_json(range),
        "against": top.against.map(range_json),
        "counted_from": from.map(|from| from.to_string()),
        "exact": top.exactness == Exactness::Exact,
        "missing_at_most": missing,
        "rebuilding": top.exactness == Exactness::Rebuilding,
        "truncated": top.truncated,
        "items": top.rows.iter().enumerate().map(row).collect::<Vec<_>>(),
        "as_of": top.as_of,
    })
}

impl Top {
    /// The ranking measure of a row by day or hour, as numbers.
    fn points(&self, row: &Row) -> Vec<Value> {
        let report = self.report();
        let shown = |&slot: &i64| match report.measures[self.measure()].figure {
            Figure::Number { places, .. } => value_json(Some(Shown::Number(slot.into(), places))),
            Figure::Time { .. } if slot != 0 => value_json(Some(Shown::Time(slot))),
            Figure::Time { .. } | Figure::Distinct { .. } | Figure::Ratio { .. } => Value::Null,
        };
        row.points.iter().map(shown).collect()
    }
}

/// Quotes a field of CSV by RFC 4180. A text that a spreadsheet would take for a formula gets an apostrophe in front.
fn csv_field(text: &str, is_number: bool) -> String {
    let is_formula = !is_number && text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if is_formula { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) || text.starts_with(' ') || text.ends_with(' ') {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

/// Returns a line of CSV.
pub fn csv(fields: &[String]) -> String {
    csv_line(fields.iter().map(|field| csv_field(field, field.parse::<f64>().is_ok())))
}

fn csv_line(fields: impl Iterator<Item = String>) -> String {
    fields.collect::<Vec<_>>().join(",") + "\r\n"
}

fn measures(report: &Report) -> impl Iterator<Item = String> {
    report.measures.iter().map(|measure| csv_field(&measure.name, false))
}

fn values(values: &Values) -> impl Iterator<Item = String> {
    values.iter().map(|&value| csv_field(&value_text(value), matches!(value, Some(Shown::Number(..)))))
}

/// Returns the points of a series as CSV with a header.
pub fn series_csv(series: &Series) -> String {
    let report = series.report();
    let header = [report.period_attribute().to_owned()].into_iter().chain(measures(report)).chain(["whole".to_owned()]);
    let line = |point: &Point| {
        let ends = [point.is_whole.to_string()];
        csv_line([point.period.to_string()].into_iter().chain(values(&point.values)).chain(ends))
    };
    csv_line(header) + &series.points.iter().map(line).collect::<String>()
}

/// Returns the rows of a ranking as CSV with a header.
pub fn top_csv(top: &Top) -> String {
    let report = top.report();
    let labels = report.labels.iter().map(|label| csv_field(&label.name, false));
    let header = ["rank".to_owned(), csv_field(&report.key_attribute, false)].into_iter().chain(labels);
    let header = header.chain(measures(report)).chain(["share".to_owned(), "change".to_owned()]);
    let line = |(index, row): (usize, &Row)| {
        let labels = report.labels.iter().enumerate().map(|(place, label)| {
            let texts: Vec<&str> = row.labels.texts(place).collect();
            csv_field(&texts.join(&label.many.map(String::from).unwrap_or_default()), false)
        });
        let number = |number: Option<f64>| fraction(number).as_f64().map_or(String::new(), |number| number.to_string());
        let ends = [number(row.share), number(row.change)];
        let fields = [(index + 1).to_string(), csv_field(&row.id, false)].into_iter().chain(labels);
        csv_line(fields.chain(values(&row.values)).chain(ends))
    };
    csv_line(header) + &top.rows.iter().enumerate().map(line).collect::<String>()
}

/// Returns the list of an answer, its `items` or `points`, as a line of JSON each.
pub fn lines(answer: &Value) -> String {
    let list = answer.get("items").or_else(|| answer.get("points")).and_then(Value::as_array);
    list.into_iter().flatten().map(|item| format!("{item}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The library reads back what was written.
        #[test]
        fn fields_survive_and_are_no_formulas(texts in prop::collection::vec("\\PC{0,8}|[=+@,\"\r\n ]{0,4}", 2..6)) {
            let line = csv_line(texts.iter().map(|text| csv_field(text, false)));
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let read: Vec<String> = runtime.block_on(async {
                use futures::StreamExt;
                let mut reader = csv_async::AsyncReaderBuilder::new().has_headers(false).create_reader(line.as_bytes());
                let record = reader.records().next().await.unwrap().unwrap();
                record.iter().map(str::to_owned).collect()
            });
            prop_assert_eq!(read.len(), texts.len());
            for (read, text) in read.iter().zip(&texts) {
                prop_assert!(!read.starts_with(['=', '+', '-', '@']), "{}", read);
                prop_assert_eq!(read.strip_prefix('\'').filter(|_| !text.starts_with('\'')).unwrap_or(read), text);
            }
        }
    }

    #[test]
    fn values_are_exact() {
        assert_eq!(value_json(Some(Shown::Number(1_234_500, 3))).to_string(), "1234.5");
        assert_eq!(value_json(Some(Shown::Number(7, 0))).to_string(), "7");
        assert_eq!(value_json(None), Value::Null);
        assert_eq!(value_text(Some(Shown::Nothing)), "");
    }
}
