//! The answer for people, in lines of at most 120 columns.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use crate::aws::item::Item;
use crate::batch::prepare::ObjectOutcome;
use crate::commands::definition::trial::items::ReportItems;
use crate::commands::definition::trial::seen::RejectedRow;
use crate::commands::definition::trial::{Trial, Tried};
use crate::commands::format::{WIDTH, cut, fitting, printable, wrapped};
use crate::commands::report::text::{attribute_text, columns_of};
use crate::definition::columns::Source;
use crate::layout::INCOMING;

/// Most files that are shown one by one.
const MAX_FILES: usize = 20;

/// Returns everything that a trial found.
pub(super) fn answer(trial: &Trial) -> String {
    let sections = [files(trial), columns(trial), references(trial), rows(trial), rejected(trial), reports(trial)];
    sections.into_iter().flatten().collect::<Vec<_>>().join("\n\n")
}

/// The counts of a file: good rows, rejected ones, and those passed over.
fn counts(tried: &Tried) -> Option<[u64; 3]> {
    match tried.outcome {
        ObjectOutcome::Counted { rows, rejected, passed_over } => Some([rows - rejected, rejected, passed_over]),
        _ => None,
    }
}

/// Lists the files with their form and counts, and those that cannot be counted.
fn files(trial: &Trial) -> Option<String> {
    let row = |tried: &Tried| {
        let recognized = tried.recognized.as_ref();
        let format = recognized.map_or(String::new(), |it| it.format.to_owned());
        let compression = recognized.map(|it| it.compression.map_or("plain".to_owned(), |it| it.to_string()));
        let counts = match counts(tried) {
            Some(counts) => counts.map(|count| count.to_string()),
            None => ["-"; 3].map(str::to_owned),
        };
        let mut row = vec![printable(&tried.file.path.display().to_string()), format, compression.unwrap_or_default()];
        row.extend(counts);
        row
    };
    let headings = ["FILE", "FORMAT", "COMPRESSION", "GOOD", "REJECTED", "PASSED OVER"];
    let mut rows: Vec<Vec<String>> = trial.files.iter().take(MAX_FILES).map(row).collect();
    if trial.files.len() > 1 {
        let mut sums = [0_u64; 3];
        let counted = trial.files.iter().filter_map(counts);
        counted.for_each(|counts| sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count));
        let mut all = vec![format!("all {} files", trial.files.len()), String::new(), String::new()];
        all.extend(sums.map(|sum| sum.to_string()));
        rows.push(all);
    }
    let mut text = fitting(&headings, &[false, false, false, true, true, true], &rows);
    let bad: Vec<&Tried> = trial.files.iter().filter(|tried| tried.problem().is_some()).collect();
    for tried in bad.iter().take(MAX_FILES) {
        let path = printable(&tried.file.path.display().to_string());
        let problem = format!("{path} cannot be counted: {}", printable(&tried.problem().unwrap_or_default()));
        let _ = write!(text, "\n{}", wrapped(&problem, "  "));
    }
    if bad.len() > MAX_FILES {
        let _ = write!(text, "\n{} more files cannot be counted", bad.len() - MAX_FILES);
    }
    Some(text)
}

/// Says which columns the files have, and which parts of their keys are read.
fn columns(trial: &Trial) -> Option<String> {
    let mut lines = Vec::new();
    let columns = trial.files.iter().filter_map(|tried| tried.recognized.as_ref()?.columns.as_ref());
    let mut kinds: Vec<(&Vec<String>, usize)> = Vec::new();
    for columns in columns {
        match kinds.iter_mut().find(|(known, _)| *known == columns) {
            Some((_, files)) => *files += 1,
            None => kinds.push((columns, 1)),
        }
    }
    for (columns, files) in kinds.iter().take(MAX_FILES) {
        let of_files = if kinds.len() > 1 { format!(" of {files} files") } else { String::new() };
        let names = cut(&printable(&columns.join(", ")), 5 * WIDTH);
        lines.push(wrapped(&format!("{} columns{of_files}: {names}", columns.len()), "  "));
    }
    if trial.plan.definition.columns.iter().any(|column| matches!(column.source, Source::Key(_))) {
        for tried in trial.files.iter().take(MAX_FILES) {
            let key = tried.file.key.strip_prefix(INCOMING).unwrap_or(&tried.file.key);
            lines.push(cut(&format!("key below {INCOMING}: {}", printable(key)), WIDTH));
        }
    }
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// Says how many rows each reference knows, and which of its lines are not used.
fn references(trial: &Trial) -> Option<String> {
    let mut lines = Vec::new();
    for found in &trial.references {
        let (reference, file, keys) = (&found.reference, printable(&found.file), found.keys);
        let rows = format!("{} of the {} good rows", found.rows_found, trial.seen.rows);
        let line = format!("{reference}: {file} has {} and knows {rows}", counted(keys, "key"));
        lines.push(wrapped(&line, "  "));
        if found.rows_found == 0 && trial.seen.rows > 0 {
            lines.push("  it knows no row: are its keys written as those of the rows?".to_owned());
        }
        lines.extend(found.remarks.iter().map(|remark| wrapped(&format!("  {}", printable(remark)), "    ")));
    }
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// Shows the first good rows.
fn rows(trial: &Trial) -> Option<String> {
    let (seen, plan) = (&trial.seen, &trial.plan);
    let passed_over: u64 = trial.files.iter().filter_map(counts).map(|[.., passed_over]| passed_over).sum();
    if seen.rows == 0 {
        let all = if passed_over > 0 { "; [where] says which are meant" } else { "" };
        return Some(format!("no row is good{all}"));
    }
    let mut text = match (seen.first.len() as u64, seen.rows) {
        (0, rows) => counted(rows, "good row"),
        (1, 1) => "the good row, as the curated file has it".to_owned(),
        (first, rows) if first == rows => format!("the {rows} good rows, as curated files have them"),
        (first, rows) => format!("the first {first} of {rows} good rows, as curated files have them"),
    };
    if !seen.first.is_empty() {
        let headings: Vec<&str> = plan.curated.iter().map(|curated| curated.column.name.as_str()).collect();
        let is_number = |column: usize| seen.first.iter().any(|row| row[column].is_number());
        let numbers: Vec<bool> = (0..headings.len()).map(is_number).collect();
        let first: Vec<Vec<String>> = seen.first.iter().map(|row| row.iter().map(cell).collect()).collect();
        let _ = write!(text, "\n{}", fitting(&headings, &numbers, &first));
    }
    let empty = seen.empty_columns();
    if !empty.is_empty() {
        let remark = format!("no row has a value of {}: is that right, or is 'from'?", empty.join(", "));
        let _ = write!(text, "\n{}", wrapped(&remark, "  "));
    }
    Some(text)
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => printable(text),
        other => other.to_string(),
    }
}

/// Shows rejected rows: of each reason the first ones.
fn rejected(trial: &Trial) -> Option<String> {
    let all: u64 = trial.rejected.values().sum();
    if all == 0 {
        return None;
    }
    let kinds: Vec<String> = trial.rejected.iter().map(|(kind, rows)| format!("{kind} {rows}")).collect();
    let verb = if all == 1 { "is" } else { "are" };
    let mut lines = vec![wrapped(&format!("{} {verb} rejected: {}", counted(all, "row"), kinds.join(", ")), "  ")];
    let paths: BTreeMap<&str, String> =
        trial.files.iter().map(|tried| (tried.file.key.as_str(), tried.file.path.display().to_string())).collect();
    for RejectedRow { object, line, record, reason, fields } in &trial.seen.rejected {
        let of_file = match paths.get(object.as_str()) {
            Some(path) if trial.files.len() > 1 => format!(" of {}", printable(path)),
            _ => String::new(),
        };
        let record = record.map_or(String::new(), |record| format!(", record {record}"));
        let what = format!("  line {line}{record}{of_file}: {}", printable(reason));
        lines.push(wrapped(&what, "    "));
        lines.push(cut(&format!("    {}", printable(&fields.join(" | "))), WIDTH));
    }
    Some(lines.join("\n"))
}

/// Shows the first items of each report.
fn reports(trial: &Trial) -> Option<String> {
    let of_report = |found: &ReportItems| {
        let report = &trial.plan.reports[found.report];
        let period = report.period_attribute();
        let (name, items) = (&report.name, counted(found.items, "item"));
        let mut text = match report.key {
            Some(_) => format!("{name}: {items} by {} and {period}", report.key_attribute),
            None => format!("{name}: {items} of all rows by {period}"),
        };
        if report.name != report.table {
            let _ = write!(text, ", in the table {}", report.table);
        }
        if found.first.len() as u64 != found.items && !found.first.is_empty() {
            let _ = match &report.top {
                Some(top) => {
                    write!(text, "; those with the greatest {}", report.measures[top.measure].name)
                }
                None => write!(text, "; the first {}", found.first.len()),
            };
        }
        let mut text = wrapped(&text, "  ");
        if !found.first.is_empty() {
            let mut columns = columns_of(report, &report.key_attribute);
            columns.insert(1, period);
            let is_number = |name: &&str| found.first.iter().any(|item| item.get(*name).is_some_and(|it| it.is_n()));
            let numbers: Vec<bool> = columns.iter().map(is_number).collect();
            let row = |item: &Item| columns.iter().map(|name| attribute_text(item.get(*name))).collect();
            let items: Vec<Vec<String>> = found.first.iter().map(row).collect();
            let _ = write!(text, "\n{}", fitting(&columns, &numbers, &items));
        }
        text
    };
    Some(trial.reports.iter().map(of_report).collect::<Vec<_>>().join("\n\n"))
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
