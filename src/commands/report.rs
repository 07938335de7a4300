//! `music-streams report`: a report's top lists, and the items of one id day by day. Covered by tests/pipeline/cli.rs.

use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;
use clap::Args;
use serde_json::{Map, Value};

use crate::aws::Clients;
use crate::aws::error::AwsError;
use crate::aws::item::{Item, text};
use crate::commands::format::{Format, printable, table};
use crate::commands::resources::Tables;
use crate::plan::Plan;
use crate::plan::period::Period;
use crate::plan::reports::{Report, SKETCH_ATTRIBUTE};
use crate::reports::item::{is_empty, parse_key};
use crate::reports::top_lists::{ListKey, TopList};

/// The arguments of `music-streams report`.
#[derive(Debug, Args)]
pub struct Query {
    /// Name of the report
    report: String,

    /// Id of an item, which is shown day by day; the top list of a day if not given
    #[arg(value_name = "KEY", required_unless_present = "date")]
    key: Option<String>,

    /// Day, or hour (UTC) of a report by the hour, as YYYY-MM-DD or YYYY-MM-DDTHH
    #[arg(long, value_parser = parse_period, value_name = "DATE")]
    date: Option<Period>,

    /// The items with this value only: VALUE of the attribute that the report has lists under, or ATTRIBUTE=VALUE
    #[arg(long, value_name = "VALUE", conflicts_with = "key")]
    under: Option<String>,

    /// Number of entries
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "COUNT")]
    top: u16,

    #[command(flatten)]
    tables: Tables,

    /// Table for people or JSON for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// An error of `music-streams report`.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A call failed.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The definition has no such report.
    #[error("there is no report {name}; the reports are {known}")]
    NoReport {
        /// The name that was given.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// The report has no such list.
    #[error("{0}")]
    NoList(String),
}

fn parse_period(text: &str) -> Result<Period, String> {
    Period::parse(text).ok_or_else(|| "give a day as YYYY-MM-DD, or an hour as YYYY-MM-DDTHH".to_owned())
}

impl Query {
    /// The pipeline's tables.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Reads the answer from the tables, and returns it as text.
    pub async fn answer(&self, clients: &Clients, plan: Arc<Plan>) -> Result<String, ReportError> {
        let index = self.report_of(&plan)?;
        let report = &plan.reports[index];
        let reports = self.tables.reports(clients, &plan, 1, None);
        let (Some(date), None) = (self.date, &self.key) else {
            let mut items = reports.items_of(index, self.key.as_deref().unwrap_or_default()).await?;
            let is_counted =
                |item: &Item| parse_key(report, index, item).is_some_and(|key| plan.counts(index, key.period));
            items.retain(|item| !is_empty(report, item) && is_counted(item));
            if let Some(date) = self.date {
                let (attribute, date) = (date.attribute(), text(date.to_string()));
                items.retain(|item| item.get(attribute) == Some(&date));
            }
            // The id is the same in every line.
            return Ok(self.formatted(&items, &columns_of(report, report.period_attribute()), None));
        };
        let key = self.list_of(report, date)?;
        if let Some(since) = plan.since[index].filter(|since| date < *since) {
            return Err(ReportError::NoList(format!(
                "{} counts from {since} on; music-streams replay --rebuild lets it begin earlier",
                report.name
            )));
        }
        let list = reports.list(&key).await?;
        let remark = remark_on(&list, usize::from(self.top), report);
        let with_period = |mut item: Item| {
            item.insert(date.attribute().to_owned(), text(date.to_string()));
            item
        };
        let entries = list.entries.into_iter().take(usize::from(self.top));
        let items: Vec<Item> = entries.map(|entry| with_period(entry.attributes(report))).collect();
        Ok(self.formatted(&items, &columns_of(report, &report.key_attribute), remark))
    }

    /// Finds the report by its name, which may be given in the singular.
    fn report_of(&self, plan: &Plan) -> Result<usize, ReportError> {
        let singular = || plan.report_named(&format!("{}s", self.report));
        plan.report_named(&self.report).or_else(singular).ok_or_else(|| {
            let known = plan.reports.iter().map(|report| report.name.as_str()).collect::<Vec<_>>().join(", ");
            ReportError::NoReport { name: self.report.clone(), known }
        })
    }

    /// The list that is asked for.
    fn list_of(&self, report: &Report, date: Period) -> Result<ListKey, ReportError> {
        let name = &report.name;
        let no_list = |problem: String| Err(ReportError::NoList(problem));
        let Some(top) = &report.top else {
            return no_list(format!("{name} keeps no top list; give the id of an item"));
        };
        if matches!(date, Period::Hour(_)) != report.is_hourly {
            let example = if report.is_hourly { "an hour as YYYY-MM-DDTHH" } else { "a day as YYYY-MM-DD" };
            return no_list(format!("{name} needs {example}"));
        }
        let Some(under) = &self.under else { return Ok(ListKey::of_all(report, date)) };
        let labels: Vec<&str> = top.under.iter().map(|&label| report.labels[label].name.as_str()).collect();
        let named = under.split_once('=').filter(|(label, _)| labels.contains(label));
        match (named, labels.first()) {
            (Some((label, value)), _) => Ok(ListKey::under(report, label, value, date)),
            (None, Some(label)) => Ok(ListKey::under(report, label, under, date)),
            (None, None) => no_list(format!("{name} keeps one list only, of all its items")),
        }
    }

    fn formatted(&self, items: &[Item], columns: &[&str], remark: Option<String>) -> String {
        match (self.format, remark) {
            (Format::Table, Some(remark)) => format!("{}\n{remark}", as_table(items, columns)),
            (Format::Table, None) => as_table(items, columns),
            (Format::Json, _) => as_json(items),
        }
    }
}

/// Attributes of an answer in the order they are shown: the key, the labels, the measures.
pub(super) fn columns_of<'r>(report: &'r Report, key: &'r str) -> Vec<&'r str> {
    let labels = report.labels.iter().map(|label| label.name.as_str());
    let measures = report.measures.iter().map(|measure| measure.name.as_str());
    std::iter::once(key).chain(labels).chain(measures).collect()
}

/// Returns a remark on a list that does not have everything that was asked for.
fn remark_on(list: &TopList, asked: usize, report: &Report) -> Option<String> {
    if list.rebuilding {
        return Some("the list is being rebuilt and is not complete yet".to_owned());
    }
    let keep = report.top.as_ref()?.keep;
    (list.entries.len() == keep && asked > keep).then(|| {
        format!("a list has {keep} entries; the others are in the report's table, by id, and in the curated files")
    })
}

fn as_table(items: &[Item], columns: &[&str]) -> String {
    if items.is_empty() {
        return "no rows".to_owned();
    }
    // A column that no item fills is left out.
    let columns: Vec<&str> =
        columns.iter().copied().filter(|name| items.iter().any(|item| item.contains_key(*name))).collect();
    let is_number = |name: &&str| items.iter().any(|item| matches!(item.get(*name), Some(AttributeValue::N(_))));
    let numbers: Vec<bool> = columns.iter().map(is_number).collect();
    let row = |item: &Item| columns.iter().map(|name| shown(item.get(*name))).collect();
    table(&columns, &numbers, items.iter().map(row))
}

/// Returns an attribute as text.
pub(super) fn shown(value: Option<&AttributeValue>) -> String {
    match value {
        Some(AttributeValue::N(number)) => number.clone(),
        Some(AttributeValue::S(text)) => printable(text),
        _ => String::new(),
    }
}

/// Formats the visible attributes.
fn as_json(items: &[Item]) -> String {
    format!("{:#}", Value::Array(items.iter().map(visible).collect()))
}

/// Returns the attributes of an item that people read: all but the sketches and those of the protocol.
pub(super) fn visible(item: &Item) -> Value {
    let is_hidden =
        |name: &str| name == "version" || [SKETCH_ATTRIBUTE, "applied"].iter().any(|hidden| name.starts_with(hidden));
    let mut fields: Vec<_> = item.iter().filter(|(name, _)| !is_hidden(name)).collect();
    fields.sort_by_key(|(name, _)| name.as_str());
    let values = fields.into_iter().map(|(name, value)| {
        let value = match value {
            AttributeValue::N(number) => serde_json::from_str(number).unwrap_or(Value::Null),
            AttributeValue::S(text) => Value::String(text.clone()),
            _ => Value::Null,
        };
        (name.clone(), value)
    });
    Value::Object(values.collect::<Map<_, _>>())
}
