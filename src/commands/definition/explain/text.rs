//! The answer for people. Lines have at most 120 columns, but for those of the SQL.

use crate::commands::definition::explain::cost::{ItemCost, TYPICAL};
use crate::commands::definition::explain::{AttributePart, Explanation, ReportPart};
use crate::commands::format::{broken, printable, wrapped};

/// Lays out everything that is explained.
pub(super) fn answer(explanation: &Explanation) -> String {
    let mut sections =
        vec![format!("{}, definition {}", explanation.definition, explanation.digest), rows(explanation)];
    sections.extend(references(explanation));
    sections.extend(explanation.reports.iter().map(report));
    sections.push(costs(explanation));
    let queries = explanation.reports.iter().map(|report| format!("-- {}\n{}", report.report, report.sql));
    sections.push(format!(
        "The reports as SQL of DuckDB, on the curated files:\n\n{}",
        queries.collect::<Vec<_>>().join("\n\n")
    ));
    sections.join("\n\n")
}

/// Lays out the columns of the curated files.
fn rows(explanation: &Explanation) -> String {
    let rows: Vec<Vec<String>> = explanation
        .columns
        .iter()
        .map(|it| {
            [&it.column, &it.type_, &it.from, &it.curated, &it.without_value].map(|cell| printable(cell)).to_vec()
        })
        .collect();
    let headings = ["COLUMN", "TYPE", "FROM", "CURATED AS", "WITHOUT A VALUE"];
    let meant = match &explanation.rows {
        Some(conditions) => {
            wrapped(&format!("Rows are meant where {}; others are passed over.\n", printable(conditions)), "  ") + "\n"
        }
        None => String::new(),
    };
    let days = format!("Days are those of {}.", explanation.zone);
    format!("{meant}{days}\n\n{}", broken(&headings, &[], &rows))
}

fn references(explanation: &Explanation) -> Option<String> {
    let line = |it: &super::ReferencePart| {
        let text = format!(
            "{}: reference/{}, looked up by {}, has {}",
            it.reference,
            it.file,
            it.key,
            it.attributes.join(", ")
        );
        wrapped(&printable(&text), "  ")
    };
    let lines: Vec<String> = explanation.references.iter().map(line).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn report(report: &ReportPart) -> String {
    let ReportPart { report: name, table, partition_key, sort_key, items, .. } = report;
    let keys =
        format!("{name}: {items}, in the table {table}, by {partition_key} (partition key) and {sort_key} (sort key)");
    let row = |part: &AttributePart| vec![part.attribute.clone(), printable(&part.meaning)];
    let parts: Vec<Vec<String>> = report.measures.iter().chain(&report.attributes).map(row).collect();
    let mut text = format!("{}\n{}", wrapped(&keys, "  "), broken(&["ATTRIBUTE", "MEANING"], &[], &parts));
    if let Some(top) = &report.top_lists {
        let period = if *sort_key == "report_hour" { "hour" } else { "day" };
        let lists = top.lists.join(", and ");
        let line = format!("Top lists of each {period}: {lists}; {} entries by {}", top.entries, top.by);
        text = format!("{text}\n{}", wrapped(&line, "  "));
    }
    text
}

/// Lays out the cost of the items, and of the distinct counts.
fn costs(explanation: &Explanation) -> String {
    let cells = |cost: ItemCost| [cost.bytes.to_string(), cost.write_units.to_string()];
    let row = |it: &ReportPart| {
        let mut row = vec![it.report.clone()];
        row.extend(cells(it.typical_item).into_iter().chain(cells(it.largest_item)));
        row
    };
    let rows: Vec<Vec<String>> = explanation.reports.iter().map(row).collect();
    let headings = ["A WRITE OF AN ITEM", "BYTES", "WRITE UNITS", "BYTES AT MOST", "WRITE UNITS AT MOST"];
    let table = broken(&headings, &[false, true, true, true, true], &rows);
    let sorts = match explanation.sorts.len() {
        0 => "No distinct count sorts the rows.".to_owned(),
        count => {
            let sorts = explanation.sorts.iter().map(|sort| format!("  {}: {}", sort.pairs, sort.counts.join(", ")));
            let sorts: Vec<String> = sorts.map(|line| wrapped(&line, "    ")).collect();
            let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
            format!("A row is sorted {times} for distinct counts:\n{}", sorts.join("\n"))
        }
    };
    format!("{table}\n{}\n\n{sorts}", wrapped(&format!("{TYPICAL}."), "  "))
}
