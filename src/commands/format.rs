//! Output for people and programs: tables without frames, times in UTC, and text from outside made safe for a terminal.
//!
//! A reader that has gone away (`… | head`) is no failure and stops nothing; any other error of standard output is kept
//! for the exit status ([`output_error`], covered by tests/process.rs).

use std::io::{ErrorKind, Write};
use std::sync::OnceLock;

use clap::ValueEnum;
use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

pub use crate::values::outside::{cut, is_harmful, printable};

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Most columns of a line, of an answer whose width is bounded.
pub const WIDTH: usize = 120;

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
    laid_out(headings, numbers, rows, |table| table.set_content_arrangement(ContentArrangement::Dynamic))
}

/// Lays out a table in lines of at most [`WIDTH`] columns. Long cells are broken into several lines.
pub fn broken(headings: &[&str], numbers: &[bool], rows: &[Vec<String>]) -> String {
    let text = laid_out(headings, numbers, rows.iter().cloned(), |table| {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH as u16)
    });
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

fn laid_out(
    headings: &[&str],
    numbers: &[bool],
    rows: impl Iterator<Item = Vec<String>>,
    arrange: impl FnOnce(&mut Table) -> &mut Table,
) -> String {
    let mut table = Table::new();
    arrange(table.load_style(ONE_LINE_BELOW_THE_HEADING));
    if !headings.is_empty() {
        table.set_header(headings);
    }
    table.add_rows(rows);
    for (index, _) in numbers.iter().enumerate().filter(|(_, is_number)| **is_number) {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// Lays out a table in lines of at most [`WIDTH`] columns. If the rows are too wide, long cells are cut; if they are
/// still too wide, each row becomes a column, a few of them beside each other.
pub fn fitting(headings: &[&str], numbers: &[bool], rows: &[Vec<String>]) -> String {
    /// Columns of a cell, if the table is too wide otherwise.
    const CELL: usize = 36;
    /// Columns of a cell that has others beside it, where rows are columns: enough for a time.
    const NARROW: usize = 20;
    let laid_out = |headings: &[&str], numbers: &[bool], rows: &mut dyn Iterator<Item = Vec<String>>| {
        let text =
            laid_out(headings, numbers, rows, |table| table.set_content_arrangement(ContentArrangement::Disabled));
        text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    };
    for most in [WIDTH, CELL] {
        let mut cut_rows = rows.iter().map(|row| row.iter().map(|cell| cut(cell, most)).collect());
        let text = laid_out(headings, numbers, &mut cut_rows);
        if text.lines().all(|line| line.width() <= WIDTH) {
            return text;
        }
    }
    let names: Vec<String> = headings.iter().map(|name| cut(name, CELL)).collect();
    let name_columns = names.iter().map(|name| name.width()).max().unwrap_or(0);
    // Each column has a blank on both sides, and one between it and the next.
    let room = WIDTH.saturating_sub(name_columns + 3);
    let beside = (room / (NARROW + 3)).clamp(1, rows.len().max(1));
    let most = (room / beside).saturating_sub(3);
    let blocks = rows.chunks(beside).map(|rows| {
        let mut lines = names.iter().enumerate().map(|(column, name)| {
            let cells = rows.iter().map(|row| row.get(column).map_or(String::new(), |cell| cut(cell, most)));
            std::iter::once(name.clone()).chain(cells).collect()
        });
        laid_out(&[], &[], &mut lines)
    });
    blocks.collect::<Vec<_>>().join("\n\n")
}

/// Breaks a text between words into lines of at most [`WIDTH`] columns, the further ones behind an indent. A word that
/// is too long is cut.
pub fn wrapped(text: &str, indent: &str) -> String {
    let (mut lines, mut line) = (Vec::new(), text.chars().take_while(|&char| char == ' ').collect::<String>());
    let mut has_word = false;
    for word in text.split_whitespace() {
        let word = cut(word, WIDTH.saturating_sub(indent.width()));
        if has_word && line.width() + 1 + word.width() > WIDTH {
            lines.push(std::mem::replace(&mut line, indent.to_owned()));
            has_word = false;
        }
        if has_word {
            line.push(' ');
        }
        line.push_str(&word);
        has_word = true;
    }
    lines.push(line);
    lines.join("\n")
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
