//! Output for people and programs: tables without frames, times in UTC, and text from outside made safe for a terminal.
//!
//! A reader that has gone away (`… | head`) is no failure and stops nothing; any other error of standard output is kept
//! for the exit status ([`output_error`], covered by tests/process.rs).

use std::io::{ErrorKind, Write};
use std::sync::OnceLock;

use clap::ValueEnum;
use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};
use serde::Serialize;

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

const ONE_LINE_BELOW_THE_HEADING: TableStyle =
    TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// The first error of standard output.
static OUTPUT_ERROR: OnceLock<std::io::Error> = OnceLock::new();

/// Prints one or several lines on standard output.
pub fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    if let Err(error) = writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        let _ = OUTPUT_ERROR.set(error);
    }
}

/// Returns the first error of standard output, such as a full disk. A reader that has gone away is none.
pub fn output_error() -> Option<&'static std::io::Error> {
    OUTPUT_ERROR.get().filter(|error| error.kind() != ErrorKind::BrokenPipe)
}

/// Lays out a table. Columns for which `numbers` is true are aligned to the right.
pub fn table(headings: &[&str], numbers: &[bool], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(ONE_LINE_BELOW_THE_HEADING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(headings);
    table.add_rows(rows);
    for (index, _) in numbers.iter().enumerate().filter(|(_, is_number)| **is_number) {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// Prints the result of a retry: for people line by line, each under the heading of its list, or `nothing` if all lists
/// are empty.
pub fn print_retried(format: Format, result: &impl Serialize, lists: [(&str, &[String]); 2], nothing: &str) {
    match format {
        Format::Json => print(&format!("{:#}", serde_json::json!(result))),
        Format::Table if lists.iter().all(|(_, list)| list.is_empty()) => print(nothing),
        Format::Table => {
            for (heading, list) in lists {
                list.iter().for_each(|what| print(&printable(&format!("{heading}: {what}"))));
            }
        }
    }
}

/// Makes control characters, and those that change the direction of writing, visible in a text from outside.
pub fn printable(text: &str) -> String {
    let is_harmful = |char: char| {
        char.is_control() || matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|char| if is_harmful(char) { '\u{fffd}' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_move_the_cursor_or_turn_the_line() {
        assert_eq!(printable("a\u{1b}[2Jü\nb\u{202e}c.csv"), "a\u{fffd}[2Jü\u{fffd}b\u{fffd}c.csv");
    }
}
