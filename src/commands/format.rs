//! What people see: tables without frames, times in UTC, and nothing of a file's name or content that a terminal would obey.
//!
//! And how it comes to them: a reader that has gone away (`… | head`) is no failure, and nothing stops for it.

use std::io::{ErrorKind, Write};
use std::sync::OnceLock;

use clap::ValueEnum;
use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};

/// How an answer is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

const ONE_LINE_BELOW_THE_HEADING: TableStyle =
    TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// Why the first thing that could not be said was not.
static UNSAID: OnceLock<std::io::Error> = OnceLock::new();

/// Says something on standard output, a line or several.
pub fn say(text: &str) {
    let mut stdout = std::io::stdout().lock();
    if let Err(error) = writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        let _ = UNSAID.set(error);
    }
}

/// Why something that was to be said is not on standard output, though somebody reads there: a full disk, mostly.
pub fn unsaid() -> Option<&'static std::io::Error> {
    UNSAID.get().filter(|error| error.kind() != ErrorKind::BrokenPipe)
}

/// A table. `numbers` says which columns are aligned to the right.
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

/// A text from outside, with control characters and those that change the direction of writing made visible.
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
