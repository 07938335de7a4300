//! `music-streams definition explain`: everything that follows from a definition, before any file is there. The columns
//! of the curated files, the tables and their items, what a write of an item costs, and each report as SQL.
//!
//! | file | content |
//! |---|---|
//! | `mod.rs` | the arguments, and what is explained |
//! | `words.rs` | types, conditions and measures in words |
//! | `cost.rs` | bytes and write units of items |
//! | `sql.rs` | a report as SQL |
//! | `text.rs` | the answer for people |
//!
//! Covered by tests/definition.

mod cost;
mod sql;
mod text;
mod words;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::commands::definition::explain::cost::ItemCost;
use crate::commands::definition::{DefinitionError, good_or_built_in};
use crate::commands::format::{Format, print};
use crate::definition::{Definition, Reference};
use crate::plan::Plan;
use crate::plan::columns::{Coded, CuratedColumn};
use crate::plan::folding::{Count, Sort};
use crate::plan::reports::LabelSource;

/// The place of the curated files, where none is given.
const CURATED: &str = "s3://BUCKET/curated";

/// The arguments of `music-streams definition explain`.
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The definition; the built-in one by default
    file: Option<PathBuf>,

    /// The place of the curated files, for the SQL
    #[arg(long, value_name = "LOCATION", default_value = CURATED)]
    curated: String,

    /// Text for people or JSON for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

impl Explain {
    pub(super) fn run(&self) -> Result<(), DefinitionError> {
        let plan = Plan::of(good_or_built_in(self.file.as_deref())?)?;
        let explanation = Explanation::of(&plan, &self.curated);
        print(&match self.format {
            Format::Table => text::answer(&explanation),
            Format::Json => format!("{:#}", serde_json::json!(explanation)),
        });
        Ok(())
    }
}

/// Everything that is explained.
#[derive(Debug, Serialize)]
struct Explanation {
    definition: String,
    digest: String,
    /// The zone of the days.
    zone: String,
    /// The rows that are meant, in words.
    rows: Option<String>,
    columns: Vec<ColumnPart>,
    references: Vec<ReferencePart>,
    reports: Vec<ReportPart>,
    /// The pairs of values of which the different ones are found, for distinct counts, by a sort of the rows each.
    sorts: Vec<SortPart>,
}

/// A column of the curated files.
#[derive(Debug, Serialize)]
struct ColumnPart {
    column: String,
    #[serde(rename = "type")]
    type_: String,
    from: String,
    curated: String,
    without_value: String,
}

/// A file that is looked up.
#[derive(Debug, Serialize)]
struct ReferencePart {
    reference: String,
    file: String,
    key: String,
    attributes: Vec<String>,
}

/// A report.
#[derive(Debug, Serialize)]
struct ReportPart {
    report: String,
    table: String,
    partition_key: String,
    sort_key: &'static str,
    items: String,
    measures: Vec<AttributePart>,
    attributes: Vec<AttributePart>,
    top_lists: Option<TopPart>,
    typical_item: ItemCost,
    largest_item: ItemCost,
    sql: String,
}

/// An attribute of a report's items.
#[derive(Debug, Serialize)]
struct AttributePart {
    attribute: String,
    meaning: String,
}

/// The top lists of a report.
#[derive(Debug, Serialize)]
struct TopPart {
    by: String,
    entries: usize,
    lists: Vec<String>,
}

/// A sort of rows.
#[derive(Debug, Serialize)]
struct SortPart {
    pairs: String,
    counts: Vec<String>,
}

impl Explanation {
    fn of(plan: &Plan, curated: &str) -> Self {
        let definition = &plan.definition;
        let of_periods = [&plan.days, &plan.hours].into_iter().flat_map(|folding| &folding.sorts);
        let of_periods = of_periods.filter(|sort| !sort.is_of_one_code());
        Explanation {
            definition: definition.name.clone(),
            digest: plan.digest.clone(),
            zone: definition.zone.iana_name().unwrap_or("UTC").to_owned(),
            rows: words::conditions(definition, &definition.conditions),
            columns: plan.curated.iter().map(|curated| ColumnPart::of(definition, curated)).collect(),
            references: definition.references.iter().map(ReferencePart::of).collect(),
            reports: (0..plan.reports.len()).map(|report| ReportPart::of(plan, report, curated)).collect(),
            sorts: of_periods.map(|sort| SortPart::of(plan, sort)).collect(),
        }
    }
}

impl ColumnPart {
    fn of(definition: &Definition, CuratedColumn { column, .. }: &CuratedColumn) -> Self {
        let (column, curated) = (column.name.clone(), words::curated_type(column.type_));
        match definition.field(&column) {
            Some(field) => ColumnPart {
                type_: words::type_of(field),
                from: words::origin(field),
                without_value: words::without_value(definition, field),
                column,
                curated,
            },
            None => ColumnPart {
                type_: "text".to_owned(),
                from: "the key of the row's file".to_owned(),
                without_value: String::new(),
                column,
                curated,
            },
        }
    }
}

impl ReferencePart {
    fn of(reference: &Reference) -> Self {
        ReferencePart {
            reference: reference.name.clone(),
            file: reference.file.clone(),
            key: reference.key.clone(),
            attributes: reference.attributes.iter().map(|attribute| attribute.name.clone()).collect(),
        }
    }
}

impl ReportPart {
    fn of(plan: &Plan, index: usize, curated: &str) -> Self {
        let (definition, report) = (&plan.definition, &plan.reports[index]);
        let period = if report.is_hourly { "hour (UTC)" } else { "day" };
        let items = match report.key {
            Some(_) => format!("an item for each {} and {period}", report.key_attribute),
            None => format!("an item of all rows for each {period}"),
        };
        let measures = definition.reports[index].measures.iter().map(|measure| AttributePart {
            attribute: measure.name.clone(),
            meaning: words::measure(definition, measure),
        });
        let attributes = report.labels.iter().map(|label| AttributePart {
            attribute: label.name.clone(),
            meaning: match (label.source, label.many) {
                (LabelSource::OfKey(_), None) => format!("of the {}", report.key_attribute),
                (LabelSource::OfKey(_), Some(many)) => {
                    format!("of the {}, several joined by '{many}'", report.key_attribute)
                }
                (LabelSource::Latest(_), _) => "of the latest row".to_owned(),
            },
        });
        let top_lists = report.top.as_ref().map(|top| {
            let under = top.under.iter().map(|&label| format!("of each {}", report.labels[label].name));
            TopPart {
                by: report.measures[top.measure].name.clone(),
                entries: top.keep,
                lists: ["of all items".to_owned()].into_iter().chain(under).collect(),
            }
        });
        let (typical_item, largest_item) = cost::costs(definition, report);
        ReportPart {
            report: report.name.clone(),
            table: report.table.clone(),
            partition_key: report.key_attribute.clone(),
            sort_key: report.period_attribute(),
            items,
            measures: measures.collect(),
            attributes: attributes.collect(),
            top_lists,
            typical_item,
            largest_item,
            sql: sql::query(plan, index, curated),
        }
    }
}

impl SortPart {
    fn of(plan: &Plan, sort: &Sort) -> Self {
        let second = match sort.second {
            Coded::Column(column) => &plan.codes[column].name,
            Coded::Attribute(attribute) => &plan.attributes[attribute].name,
        };
        let pairs = match sort.first {
            Some(first) => format!("{} with {second}", plan.codes[first].name),
            None => second.clone(),
        };
        let name = |count: &Count| {
            let report = &plan.reports[count.report];
            format!("{} of {}", report.sketches[count.sketch].measure, report.name)
        };
        SortPart { pairs, counts: sort.counts.iter().chain(&sort.reverse).map(name).collect() }
    }
}
