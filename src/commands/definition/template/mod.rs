//! `music-streams definition template`: the CloudFormation template of a pipeline with a definition.
//!
//! `template.yaml` is the template's text, with places that the definition fills. Lines between `# @EACH REPORT` and
//! `# @END` are written for each report. `deploy/template.yaml` is the answer for the built-in definition; a test
//! compares the two.
//!
//! Covered by tests/definition.

use std::path::PathBuf;

use clap::Args;
use sha2::{Digest, Sha256};

use crate::commands::definition::{DefinitionError, good_or_built_in};
use crate::commands::format::print;
use crate::definition::Definition;
use crate::definition::reports::{ALL, Key, Period, Report};

const TEMPLATE: &str = include_str!("template.yaml");
const EACH_REPORT: &str = "# @EACH REPORT";
const END: &str = "# @END";

/// The arguments of `music-streams definition template`.
#[derive(Debug, Args)]
pub(super) struct Template {
    /// The definition; the built-in one by default
    file: Option<PathBuf>,
}

impl Template {
    pub(super) fn run(&self) -> Result<(), DefinitionError> {
        // What is printed ends with a line end of its own.
        print(template_of(&good_or_built_in(self.file.as_deref())?).trim_end());
        Ok(())
    }
}

/// Fills the places of the template.
fn template_of(definition: &Definition) -> String {
    let mut text = String::new();
    let mut lines = TEMPLATE.split_inclusive('\n');
    while let Some(line) = lines.next() {
        if line.trim() != EACH_REPORT {
            text.push_str(line);
            continue;
        }
        let of_report: String = lines.by_ref().take_while(|line| line.trim() != END).collect();
        text.extend(definition.reports.iter().map(|report| filled(&of_report, report)));
    }
    text.replace("@PIPELINE@", &definition.name)
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
    let places = [("@RESOURCE@", resource(&report.table)), ("@TABLE@", report.table.clone())];
    let filled = places.iter().fold(lines.to_owned(), |lines, (place, value)| lines.replace(place, value));
    filled.replace("@KEY@", key).replace("@PERIOD@", period)
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
        let template = template_of(&Definition::built_in().unwrap());
        let (text, _) = template.split_once("AttributeDefinitions").unwrap();
        assert!(!template.contains('@') && text.contains("\"music\""), "{template}");
    }
}
