//! JSON: the bytes of a file to blocks of whole records, and the values at some paths of a record.
//!
//! A file is a sequence of objects, which are its records. Blanks, commas, brackets or nothing may stand between two of
//! them, so that lines, one list, a list on many lines and objects one after the other are one format. With the key of
//! an envelope, each object of the sequence is a document that has a list of records under that key.
//!
//! | file | content |
//! |---|---|
//! | `grammar` | the end of a value, by the grammar of <https://www.rfc-editor.org/rfc/rfc8259> |
//! | `blocks` | the text cut into blocks of whole records |
//! | `envelope` | documents that have records in a list |
//! | `scan` | the values at some paths of a record |
//! | `text` | texts with escapes |
//!
//! A record is **broken** if it is no JSON, or nested deeper than [`MAX_DEPTH`]. It may have swallowed others then. If
//! the next line begins a record, or if there is none and the broken record began its line, it ends with the line that
//! it begins on, and is rejected alone. Otherwise the file is bad. The records of an envelope are never broken: the
//! file is. A file that begins with a bracket must end with one, as one that was cut off between two records would not.
//!
//! A `null`, a number, a text, `true` or `false` in the place of an object swallows nothing. It is rejected alone in a
//! file that begins with a list, or had a record before. Other files may be of another format.
//!
//! Most files have a record on each line. A line that begins with `{` and ends with `}` before another such line is
//! known to hold whole records without a look inside: no JSON contains a `}`, a line end and a `{` in succession. Other
//! files are walked through, value by value, on one core; their records are parsed on all.

mod blocks;
mod envelope;
mod grammar;
mod scan;
mod text;

pub use blocks::{Block, Blocks, Piece, Pieces};
pub use grammar::lone_value;
pub use scan::{Paths, Scanner};
pub use text::unescaped;

use crate::formats::MAX_RECORD_BYTES;

/// Deepest nesting of a record.
pub const MAX_DEPTH: u32 = 64;

/// A reason why a file is not JSON, or not to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotJson {
    /// A record is broken, and the next line begins no other.
    #[error("the file is not JSON: the record at line {line} is broken, and the next line begins no other: {text:?}")]
    Broken {
        /// The line on which the record begins.
        line: u64,
        /// Its beginning.
        text: String,
    },
    /// A record is too long.
    #[error("the file is not JSON: the record at line {line} is longer than {MAX_RECORD_BYTES} bytes")]
    LongRecord {
        /// The line on which the record begins.
        line: u64,
    },
    /// The file begins with a bracket and ends without, or it ends within a document.
    #[error("the file is cut off: it ends within a list or a document")]
    CutOff,
    /// A document of an envelope is broken.
    #[error("the file is not JSON: the document at line {line} is broken: {text:?}")]
    Document {
        /// The line on which what is broken begins.
        line: u64,
        /// Its beginning.
        text: String,
    },
}

/// Returns the place of the next record in a piece: past what may stand between two records.
#[inline]
pub fn next_record(text: &[u8]) -> Option<usize> {
    text.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b'[' | b']'))
}

/// Returns the beginning of a text, for an error.
fn shown(text: &[u8]) -> String {
    const CHARS: usize = 60;
    String::from_utf8_lossy(&text[..text.len().min(4 * CHARS)]).chars().take(CHARS).collect()
}
