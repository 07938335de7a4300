//! CSV, as listening files and the catalogue have it: from the bytes of a file to blocks of whole records, and from a block to its
//! records.
//!
//! Streams, and never has a file in memory whole. Plain or gzip, told apart by the first two bytes; a byte-order mark is passed over.
//! A line ends as in an editor: with LF, CRLF or CR. A record ends with a line, unless that line ends within quotes, and an empty line
//! is no record. [`Blocks`] only looks for where records end; what their fields are is said by csv-async ([`Records`]), block by block,
//! and so on any core.
//!
//! Nothing is swallowed. A quote that is never closed would take every later record with it, and one that is closed by the next stray
//! quote takes those between: so a file is refused that ends within quotes, or has a record of more than [`MAX_RECORD_LINES`] lines or
//! [`MAX_RECORD_BYTES`] bytes. Text behind a closing quote makes a record malformed, which its [`Line`] says.

mod blocks;
mod body;
mod header;
mod records;

pub use blocks::{Block, Blocks};
pub(crate) use body::Body;
pub(crate) use header::find_columns;
pub use header::{Header, NotHeader};
pub use records::{Line, Records};

use crate::aws::error::AwsError;

/// Text of a block: large enough that handing it over costs nothing, small enough for a core's cache.
pub const BLOCK_BYTES: usize = 256 << 10;
/// Longest record, in bytes without the end of its last line.
pub const MAX_RECORD_BYTES: usize = 2 << 20;
/// Most lines of a record. No field that is needed ever has more than one; a text that somebody wrote, in another column, may.
pub const MAX_RECORD_LINES: u64 = 100;
/// What some programs put before UTF-8.
pub const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Why bytes are not CSV that can be read to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCsv {
    /// No byte in it.
    #[error("the file is empty: not even a header")]
    Empty,
    /// A record without an end.
    #[error(
        "the file is not CSV: the record at line {line} is longer than {MAX_RECORD_BYTES} bytes (an unclosed quote?)"
    )]
    LongRecord {
        /// Line of the record's beginning.
        line: u64,
    },
    /// A record of too many lines.
    #[error(
        "the file is not CSV: the record at line {line} is longer than {MAX_RECORD_LINES} lines (an unclosed quote?)"
    )]
    TallRecord {
        /// Line of the record's beginning.
        line: u64,
    },
    /// The last record has no end.
    #[error(
        "the file is not CSV: it ends within the quotes that line {line} opens, and every line after that is inside them"
    )]
    EndsInQuotes {
        /// Line of the quote that is not closed.
        line: u64,
    },
    /// The compressed stream stops in the middle.
    #[error("the gzip stream is cut off")]
    TruncatedGzip,
    /// The compressed stream is damaged.
    #[error("the gzip stream is damaged: {0}")]
    DamagedGzip(String),
    /// Larger than allowed.
    #[error("the file is larger than the limit of {limit_bytes} bytes (--max-object-size)")]
    TooLarge {
        /// The limit, before or after decompression.
        limit_bytes: u64,
    },
}

/// Why a file could not be read on.
#[derive(Debug, thiserror::Error)]
pub enum CsvError {
    /// It is not CSV.
    #[error(transparent)]
    Bad(#[from] NotCsv),
    /// Its bytes could not be had, which says nothing about the file.
    #[error(transparent)]
    Body(AwsError),
}

impl From<std::io::Error> for CsvError {
    fn from(error: std::io::Error) -> Self {
        // What the bucket and the body say travels inside; anything else is said by the decompressor.
        let error = match error.downcast::<AwsError>() {
            Ok(error) => return CsvError::Body(error),
            Err(error) => error,
        };
        CsvError::Bad(match error.downcast::<NotCsv>() {
            Ok(bad) => bad,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => NotCsv::TruncatedGzip,
            Err(error) => NotCsv::DamagedGzip(error.to_string()),
        })
    }
}
