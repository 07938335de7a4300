//! Answers as tables for people, and as items for programs.

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Map, Value};

use super::{Form, Said, for_programs};
use crate::aws::item::Item;
use crate::commands::format::{printable, table};
use crate::plan::Plan;
use crate::plan::period::Period;
use crate::plan::reports::{Report, SKETCH_ATTRIBUTE};
use crate::reading::answer::{Exactness, Point, Row, Series, Top};
use crate::reading::range::Range;
use crate::reading::shape::{self, value_text};
use crate::reports::figures::Shown;
use crate::reports::item::{is_empty, parse_key};
use crate::web::chart::blocks;

/// Columns of a terminal from which on a row has its trend.
const TREND_FROM: usize = 100;

/// True if an item has rows, in a period that its report counts.
pub(super) fn is_shown(plan: &Plan, report: usize, item: &Item) -> bool {
    let of_report = &plan.reports[report];
    !is_empty(of_report, item) && parse_key(of_report, report, item).is_some_and(|key| plan.counts(report, key.period))
}

/// The items of one id, as they are stored.
pub(super) fn items(format: Form, report: &Report, items: &[Item]) -> Said {
    let values: Vec<Value> = items.iter().map(visible).collect();
    let figures = Value::Array(values.clone());
    let columns = columns_of(report, report.period_attribute());
    let is_number = |name: &&str| items.iter().any(|item| matches!(item.get(*name), Some(AttributeValue::N(_))));
    let rows = || items.iter().map(|item| columns.iter().map(|name| attribute_text(item.get(*name))).collect());
    let as_csv = || {
        let header = columns.iter().map(|name| (*name).to_owned()).collect();
        std::iter::once(header).chain(rows()).map(|row: Vec<String>| shape::csv(&row)).collect::<String>()
    };
    let text = for_programs(format, values, as_csv).unwrap_or_else(|| {
        let numbers: Vec<bool> = columns.iter().map(is_number).collect();
        laid_out(&columns, &numbers, rows().collect())
    });
    Said { text, figures, remark: "exact · ".to_owned() }
}

/// Lays out rows; a column that no row fills is left out.
fn laid_out(columns: &[&str], numbers: &[bool], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return "no rows".to_owned();
    }
    let filled: Vec<usize> =
        (0..columns.len()).filter(|&column| rows.iter().any(|row| !row[column].is_empty())).collect();
    let headings: Vec<&str> = filled.iter().map(|&column| columns[column]).collect();
    let numbers: Vec<bool> = filled.iter().map(|&column| numbers[column]).collect();
    table(&headings, &numbers, rows.into_iter().map(|row| filled.iter().map(|&column| row[column].clone()).collect()))
}

/// Attributes of an answer in the order they are shown: the key, the labels, the measures.
pub(in crate::commands) fn columns_of<'r>(report: &'r Report, key: &'r str) -> Vec<&'r str> {
    let labels = report.labels.iter().map(|label| label.name.as_str());
    let measures = report.measures.iter().map(|measure| measure.name.as_str());
    std::iter::once(key).chain(labels).chain(measures).collect()
}

/// Returns an attribute as text.
pub(in crate::commands) fn attribute_text(value: Option<&AttributeValue>) -> String {
    match value {
        Some(AttributeValue::N(number)) => number.clone(),
        Some(AttributeValue::S(text)) => printable(text),
        _ => String::new(),
    }
}

/// Returns the attributes of an item that people read: all but the sketches and those of the protocol.
pub(in crate::commands) fn visible(item: &Item) -> Value {
    let is_hidden =
        |name: &str| name == "version" || [SKETCH_ATTRIBUTE, "applied"].iter().any(|hidden| name.starts_with(hidden));
    let fields = item.iter().filter(|(name, _)| !is_hidden(name)).map(|(name, value)| {
        let value = match value {
            AttributeValue::N(number) => serde_json::from_str(number).unwrap_or(Value::Null),
            AttributeValue::S(text) => Value::String(text.clone()),
            _ => Value::Null,
        };
        (name.clone(), value)
    });
    Value::Object(fields.collect::<Map<_, _>>())
}

fn change_text(change: Option<f64>) -> String {
    match change {
        None => String::new(),
        Some(change) if change.abs() < 0.0005 => "±0.0%".to_owned(),
        Some(change) if change > 0.0 => format!("▲{:.1}%", change * 100.0),
        Some(change) => format!("▼{:.1}%", -change * 100.0),
    }
}

/// The labels of a row, each as one text, as items have them.
fn label_texts<'r>(report: &'r Report, row: &'r Row) -> impl Iterator<Item = String> + 'r {
    report.labels.iter().enumerate().map(|(place, label)| {
        let texts: Vec<&str> = row.labels.texts(place).collect();
        texts.join(&label.many.map(String::from).unwrap_or_default())
    })
}

/// A row as the item that it would be: of the period, if there is one.
fn row_item(report: &Report, row: &Row, period: Option<Period>) -> Value {
    let mut fields = Map::new();
    fields.insert(report.key_attribute.clone(), Value::String(row.id.clone()));
    for (label, text) in report.labels.iter().zip(label_texts(report, row)).filter(|(_, text)| !text.is_empty()) {
        fields.insert(label.name.clone(), Value::String(text));
    }
    put_values(&mut fields, report, &row.values);
    if let Some(period) = period {
        fields.insert(period.attribute().to_owned(), Value::String(period.to_string()));
    }
    Value::Object(fields)
}

fn put_values(fields: &mut Map<String, Value>, report: &Report, values: &[Option<Shown>]) {
    for (measure, value) in report.measures.iter().zip(values).filter(|(_, value)| value.is_some()) {
        fields.insert(measure.name.clone(), shape::value_json(*value));
    }
}

/// A ranking. `date` is the day or hour that is asked for, if one is.
pub(super) fn ranking(format: Form, top: &Top, date: Option<Period>, remark: Option<String>) -> Said {
    let (report, range) = (top.report(), top.question.range);
    let period = date.or((range.days() == 1 && !report.is_hourly).then_some(Period::Day(range.to)));
    let values: Vec<Value> = top.rows.iter().map(|row| row_item(report, row, period)).collect();
    let text = for_programs(format, values, || shape::top_csv(top)).unwrap_or_else(|| {
        let text = ranking_table(top, period.is_some());
        match remark {
            _ if top.exactness == Exactness::Rebuilding => {
                format!("{text}\nthe list is being rebuilt and is not complete yet")
            }
            Some(remark) => format!("{text}\n{remark}"),
            None => text,
        }
    });
    let exactness = match top.exactness {
        Exactness::Exact => "exact · ".to_owned(),
        Exactness::Rebuilding => "being rebuilt · ".to_owned(),
        Exactness::MissingAtMost(most) => {
            format!("one that is not here may have up to {} more than the last · ", value_text(Some(most)))
        }
    };
    Said::of_top(text, top, exactness)
}

fn ranking_table(top: &Top, is_one_period: bool) -> String {
    let report = top.report();
    let mut columns = columns_of(report, &report.key_attribute);
    let mut numbers: Vec<bool> = vec![false; 1 + report.labels.len()];
    numbers.extend(vec![true; report.measures.len()]);
    let width = terminal_width();
    let has_trend = !is_one_period && width.is_none_or(|width| width >= TREND_FROM);
    if top.against.is_some() {
        columns.push("change");
        numbers.push(true);
    }
    if has_trend {
        columns.push("trend");
        numbers.push(false);
    }
    let row = |row: &Row| {
        let mut cells: Vec<String> = vec![printable(&row.id)];
        cells.extend(label_texts(report, row).map(|text| printable(&text)));
        cells.extend(row.values.iter().map(|&value| value_text(value)));
        cells.extend(top.against.map(|_| change_text(row.change)));
        cells.extend(has_trend.then(|| blocks(&row.points)));
        cells
    };
    laid_out(&columns, &numbers, top.rows.iter().map(row).collect())
}

/// The columns of the terminal; `None` where there is none.
fn terminal_width() -> Option<usize> {
    use std::io::IsTerminal;
    std::io::stdout().is_terminal().then(|| comfy_table::Table::new().width().map_or(80, usize::from))
}

/// One item over days.
pub(super) fn series(format: Form, series: &Series, is_one_period: bool) -> Said {
    let report = series.report();
    let has_rows = |point: &&Point| point.is_counted && point.values.iter().any(is_something);
    let item = |point: &Point| {
        let mut fields = Map::new();
        fields.insert(report.key_attribute.clone(), Value::String(series.question.id.clone()));
        put_values(&mut fields, report, &point.values);
        fields.insert(point.period.attribute().to_owned(), Value::String(point.period.to_string()));
        Value::Object(fields)
    };
    let values: Vec<Value> = series.points.iter().rev().filter(has_rows).map(item).collect();
    let text = for_programs(format, values, || shape::series_csv(series)).unwrap_or_else(|| {
        let columns: Vec<&str> = std::iter::once(report.period_attribute())
            .chain(report.measures.iter().map(|measure| measure.name.as_str()))
            .collect();
        let mut numbers = vec![true; columns.len()];
        numbers[0] = false;
        let cells = |name: String, values: &[Option<Shown>]| {
            std::iter::once(name).chain(values.iter().map(|&value| value_text(value))).collect::<Vec<_>>()
        };
        let mut rows: Vec<Vec<String>> = series
            .points
            .iter()
            .rev()
            .filter(has_rows)
            .map(|point| cells(point.period.to_string(), &point.values))
            .collect();
        if !rows.is_empty() && !is_one_period {
            rows.push(cells("together".to_owned(), &series.totals));
            if let Some(before) = &series.before_totals {
                rows.push(cells("before".to_owned(), before));
                let changes = series.change.iter().map(|&change| change_text(change));
                rows.push(std::iter::once("change".to_owned()).chain(changes).collect());
            }
        }
        laid_out(&columns, &numbers, rows)
    });
    Said::of_series(text, series, "exact · ".to_owned())
}

fn is_something(value: &Option<Shown>) -> bool {
    !matches!(value, None | Some(Shown::Nothing | Shown::Number(0, _)))
}

/// The last day: all rows, and the greatest items of each report.
pub(super) fn glance(format: Form, range: Range, totals: Option<&Series>, tops: &[Top]) -> Said {
    let mut figures = Map::new();
    figures.extend(totals.map(|series| (series.report().name.clone(), shape::figures_of(shape::series_json(series)))));
    figures.extend(tops.iter().map(|top| (top.report().name.clone(), shape::figures_of(shape::top_json(top)))));
    let figures = Value::Object(figures);
    let text = match format {
        Form::Json => format!("{figures:#}"),
        Form::Ndjson => figures.to_string(),
        Form::Csv => tops.iter().map(|top| shape::top_csv(top).replace("\r\n", "\n")).collect::<Vec<_>>().join("\n"),
        Form::Table => {
            let mut parts = Vec::new();
            if let Some(series) = totals {
                let name = &series.report().name;
                parts.push(format!("{name}, {range}\n{}", self::series(Form::Table, series, false).text));
            }
            let part = |top: &Top| format!("Top {}, {range}\n{}", top.report().name, ranking_table(top, true));
            parts.extend(tops.iter().map(part));
            parts.join("\n\n")
        }
    };
    let is_exact = tops.iter().all(|top| top.exactness == Exactness::Exact);
    Said { text, figures, remark: if is_exact { "exact · ".to_owned() } else { String::new() } }
}
