//! `music-streams definition template`: the CloudFormation template of a pipeline with a definition.
//!
//! `template.yaml` is the template's text, with places that the definition fills. Lines between `# @EACH …` and
//! `# @END` are written for each report of which all words hold ([`holds`]), and those between `# @IF …` and `# @END`
//! once if there is one; those after `# @EACH COLUMN` for each column of the curated files. `deploy/template.yaml` is
//! the answer for the built-in definition; a test compares the two.
//!
//! Covered by tests/definition.

use std::path::PathBuf;

use clap::Args;
use sha2::{Digest, Sha256};

use crate::calendar;
use crate::commands::definition::{DefinitionError, good_or_built_in};
use crate::commands::format::print;
use crate::definition::Definition;
use crate::definition::reports::{ALL, Key, Period, Report};
use crate::formats::parquet;
use crate::plan::Plan;

const TEMPLATE: &str = include_str!("template.yaml");
const EACH: &str = "# @EACH ";
const IF: &str = "# @IF ";
const END: &str = "# @END";
/// The word of the lines for each column.
const COLUMN: &str = "COLUMN";
const SECONDS_PER_DAY: u64 = 86_400;

/// The arguments of `music-streams definition template`.
#[derive(Debug, Args)]
pub(super) struct Template {
    /// The definition; the built-in one by default
    file: Option<PathBuf>,
}

impl Template {
    pub(super) fn run(&self) -> Result<(), DefinitionError> {
        // What is printed ends with a line end of its own.
        print(template_of(&Plan::of(good_or_built_in(self.file.as_deref())?)?).trim_end());
        Ok(())
    }
}

/// Fills the places of the template.
fn template_of(plan: &Plan) -> String {
    let definition = &plan.definition;
    let lines: Vec<&str> = TEMPLATE.split_inclusive('\n').collect();
    // A clock may be a day ahead of that of UTC.
    let ahead = definition.future.as_secs().div_ceil(SECONDS_PER_DAY) + 1;
    written(&lines, plan)
        .replace("@PIPELINE@", &definition.name)
        .replace("@DATABASE@", &definition.name.replace('-', "_"))
        .replace("@EARLIEST@", &calendar::date_text(definition.earliest))
        .replace("@AHEAD@", &ahead.to_string())
}

/// Writes lines for the reports and columns that they are for.
fn written(lines: &[&str], plan: &Plan) -> String {
    let definition = &plan.definition;
    let (mut text, mut rest) = (String::new(), lines);
    while let Some((line, after)) = rest.split_first() {
        let (each, once) = (line.trim().strip_prefix(EACH), line.trim().strip_prefix(IF));
        let Some(words) = each.or(once) else {
            text.push_str(line);
            rest = after;
            continue;
        };
        let (within, after) = after.split_at(length(after));
        let mut reports = (0..definition.reports.len()).filter(|&index| holds(words, definition, index));
        match each {
            Some(COLUMN) => text.extend(plan.curated.iter().map(|it| of_column(&within.concat(), &it.column))),
            Some(_) => text.extend(reports.map(|index| filled(&within.concat(), &definition.reports[index]))),
            None if reports.next().is_some() => text.push_str(&written(within, plan)),
            None => {}
        }
        rest = after.get(1..).unwrap_or_default();
    }
    text
}

/// The number of lines up to the end of a part of the template that has begun before them.
fn length(lines: &[&str]) -> usize {
    let mut open = 1;
    let is_end = |line: &&str| {
        let line = line.trim();
        open += i32::from(line.starts_with(EACH) || line.starts_with(IF)) - i32::from(line == END);
        open == 0
    };
    lines.iter().position(is_end).unwrap_or(lines.len())
}

/// True if all words hold for a report.
fn holds(words: &str, definition: &Definition, index: usize) -> bool {
    let report = &definition.reports[index];
    words.split(' ').all(|word| match word {
        "REPORT" => true,
        "OPEN" => !report.has_persons(),
        "PERSONAL" => report.has_persons(),
        "LISTED" => report.top.is_some(),
        "UNDER" => report.top.as_ref().is_some_and(|top| !top.under.is_empty()),
        // It is asked for the first and last day; LISTED its top lists are.
        "DAYS" => definition.days_report() == Some(index),
        "ALL" => report.key == Key::All,
        _ => false,
    })
}

/// Fills the places of lines that are written for each report.
fn filled(lines: &str, report: &Report) -> String {
    let key = match &report.key {
        Key::All => ALL.0,
        Key::Field(name) => name,
    };
    let period = match report.every {
        Period::Day => "report_date",
        Period::Hour => "report_hour",
    };
    let places =
        [("@RESOURCE@", resource(&report.table)), ("@TABLE@", report.table.clone()), ("@REPORT@", report.name.clone())];
    let filled = places.iter().fold(lines.to_owned(), |lines, (place, value)| lines.replace(place, value));
    filled.replace("@KEY@", key).replace("@PERIOD@", period)
}

/// Fills the places of lines that are written for each column.
fn of_column(lines: &str, column: &parquet::Column) -> String {
    lines.replace("@COLUMN@", &column.name).replace("@TYPE@", &catalog_type(column.type_))
}

/// Returns the type that Glue's catalog has for a column of the curated files.
fn catalog_type(type_: parquet::Type) -> String {
    match type_ {
        parquet::Type::Text => "string".to_owned(),
        parquet::Type::Bytes => "binary".to_owned(),
        parquet::Type::Int32 => "int".to_owned(),
        parquet::Type::Int64 => "bigint".to_owned(),
        parquet::Type::Date => "date".to_owned(),
        parquet::Type::Timestamp => "timestamp".to_owned(),
        parquet::Type::Decimal { places } => format!("decimal(18,{places})"),
    }
}

/// Returns the name that a table has within the template. It depends on the table's name alone, as CloudFormation takes
/// a resource of another name for another table; names of different tables differ, also from those of other resources.
fn resource(table: &str) -> String {
    let is_plain = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    let parts: Vec<&str> = table.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty()).collect();
    let capital = |part: &&str| format!("{}{}", part[..1].to_ascii_uppercase(), &part[1..]);
    let name: String = parts.iter().map(capital).collect();
    match table {
        _ if !table.split('_').all(is_plain) => format!("{name}Table{:.8}", format!("{:x}", Sha256::digest(table))),
        _ if table.ends_with("_reports") => name,
        _ => format!("{name}Table"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_named_after_their_tables_alone() {
        for (table, expected) in [
            ("bike_level_reports", "BikeLevelReports"),
            ("reports", "ReportsTable"),
            ("queue", "QueueTable"),
            ("queue_table", "QueueTableTable"),
            ("a_b1", "AB1Table"),
            ("r10", "R10Table"),
        ] {
            assert_eq!(resource(table), expected);
        }
        let alike = ["a_b", "a__b", "A_b", "a.b", "a-b", "ab", "_a_b", "aB", "a_1b", "a1b", "1a", "1_a", "..."];
        let names: std::collections::BTreeSet<String> = alike.iter().map(|table| resource(table)).collect();
        assert_eq!(names.len(), alike.len(), "{names:?}");
        let is_name = |name: &String| name.chars().all(|c| c.is_ascii_alphanumeric());
        assert!(names.iter().all(is_name), "{names:?}");
    }

    #[test]
    fn every_place_is_filled() {
        let template = template_of(&Plan::built_in().unwrap());
        let (text, _) = template.split_once("AttributeDefinitions").unwrap();
        assert!(!template.contains('@') && text.contains("\"music\""), "{template}");
    }
}
