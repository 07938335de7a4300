//! Delimited text: the bytes of a file to blocks of whole records, and a block to its records. Files of events and of
//! references are read by it.
//!
//! | file | content |
//! |---|---|
//! | `blocks` | the text cut into blocks of whole records |
//! | `directives` | the lines `#Fields:` of logs, which name the columns |
//! | `records` | the ends of records, and the fields of a block's records |
//! | `header` | columns found by name |
//! | `recognized` | the form of a file, for people |
//!
//! The format ([`Delimited`]) has a delimiter, perhaps quotes, and perhaps comments: lines that are passed over. The
//! columns' names are in the first record, in lines `#Fields:`, or nowhere. A line ends with LF, CRLF or CR, as in an
//! editor. A record ends with a line, unless that line ends within quotes; an empty line is no record. [`Blocks`] only
//! searches for the ends of records. Their fields are parsed by csv-async ([`Records`]), block by block and on any
//! core.
//!
//! No record is lost unnoticed. A quote that is never closed would swallow every later record, and one that is closed
//! by the next stray quote those between. A file is therefore refused if it ends within quotes, or if a record has more
//! than [`MAX_RECORD_LINES`] lines or [`MAX_RECORD_BYTES`] bytes. Text after a closing quote makes a record malformed
//! ([`Line::is_malformed`]).

mod blocks;
mod directives;
mod header;
mod recognized;
mod records;

pub use blocks::{Block, Blocks};
pub use header::{Header, NotHeader};
pub use records::{Line, Records};

use crate::definition::input::{Delimited, Header as Names};
use crate::formats::MAX_RECORD_BYTES;

/// Most lines of a record. A needed field never has more than one; free text in another column may.
pub const MAX_RECORD_LINES: u64 = 100;

/// A reason why a file is not delimited text, or not to its end. `format` is the name of the expected format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCsv {
    /// The file has no record.
    #[error("the file is empty: not even a header")]
    NoHeader,
    /// A record is too long.
    #[error(
        "the file is not {format}: the record at line {line} is longer than {MAX_RECORD_BYTES} bytes{}",
        hint(format)
    )]
    LongRecord {
        /// The format.
        format: &'static str,
        /// Line on which the record begins.
        line: u64,
    },
    /// A record has too many lines.
    #[error(
        "the file is not {format}: the record at line {line} is longer than {MAX_RECORD_LINES} lines{}",
        hint(format)
    )]
    TallRecord {
        /// The format.
        format: &'static str,
        /// Line on which the record begins.
        line: u64,
    },
    /// The file ends within quotes.
    #[error(
        "the file is not {format}: it ends within the quotes that line {line} opens, \
         and every line after that is inside them"
    )]
    EndsInQuotes {
        /// The format.
        format: &'static str,
        /// Line of the quote that is never closed.
        line: u64,
    },
    /// No line names the columns of a record.
    #[error("the file is not {format}: no line #Fields: before line {line} names its columns")]
    NoFields {
        /// The format.
        format: &'static str,
        /// Line of the first record, or of the end of a file without one.
        line: u64,
    },
}

/// Returns the likely cause of a record that is too long.
fn hint(format: &str) -> &'static str {
    if format == CSV { " (an unclosed quote?)" } else { "" }
}

const CSV: &str = "CSV";

/// Returns the name of a format, for errors.
pub(crate) fn name_of(format: &Delimited) -> &'static str {
    match (format.header, format.quote) {
        (Names::Directive, _) => "a W3C log",
        (_, Some(_)) => CSV,
        (_, None) if format.delimiter == b'\t' => "TSV",
        _ => "lines of fields",
    }
}

/// Returns the beginning of the lines that are passed over.
pub(crate) fn comment_of(format: &Delimited) -> Option<&[u8]> {
    match format.header {
        Names::Directive => Some(b"#"),
        Names::FirstLine | Names::Missing => format.comment.as_deref().map(str::as_bytes),
    }
}

/// Returns the format of files with commas, quotes and a header.
#[cfg(test)]
pub(crate) fn plain_csv() -> Delimited {
    let null = vec![String::new()];
    Delimited { delimiter: b',', quote: Some(b'"'), header: Names::FirstLine, comment: None, null }
}
