//! CSV: the bytes of a file to blocks of whole records, and a block to its records. Incoming files and the catalogue
//! are read by it.
//!
//! | file | content |
//! |---|---|
//! | `body` | the text of a file: decompressed and bounded |
//! | `blocks` | the text cut into blocks of whole records |
//! | `records` | the ends of records, and the fields of a block's records |
//! | `header` | columns found by name |
//!
//! A file is read as a stream and is never in memory as a whole. Plain text and gzip are told apart by the first two
//! bytes; a byte-order mark is skipped. A line ends with LF, CRLF or CR, as in an editor. A record ends with a line,
//! unless that line ends within quotes; an empty line is no record. [`Blocks`] only searches for the ends of records.
//! Their fields are parsed by csv-async ([`Records`]), block by block and on any core.
//!
//! No record is lost unnoticed. A quote that is never closed would swallow every later record, and one that is closed
//! by the next stray quote those between. A file is therefore refused if it ends within quotes, or if a record has more
//! than [`MAX_RECORD_LINES`] lines or [`MAX_RECORD_BYTES`] bytes. Text after a closing quote makes a record malformed
//! ([`Line::is_malformed`]).

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

/// Size of a block's text: large enough that handing it to another thread costs nothing, small enough for a core's
/// cache.
pub const BLOCK_BYTES: usize = 256 << 10;
/// Longest record, in bytes without its final line end.
pub const MAX_RECORD_BYTES: usize = 2 << 20;
/// Most lines of a record. A needed field never has more than one; free text in another column may.
pub const MAX_RECORD_LINES: u64 = 100;
/// Byte-order mark that some programs put before UTF-8.
pub const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// A reason why bytes are not CSV, or not to their end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCsv {
    /// The file has no bytes.
    #[error("the file is empty: not even a header")]
    Empty,
    /// A record is too long.
    #[error(
        "the file is not CSV: the record at line {line} is longer than {MAX_RECORD_BYTES} bytes (an unclosed quote?)"
    )]
    LongRecord {
        /// Line on which the record begins.
        line: u64,
    },
    /// A record has too many lines.
    #[error(
        "the file is not CSV: the record at line {line} is longer than {MAX_RECORD_LINES} lines (an unclosed quote?)"
    )]
    TallRecord {
        /// Line on which the record begins.
        line: u64,
    },
    /// The file ends within quotes.
    #[error(
        "the file is not CSV: it ends within the quotes that line {line} opens, \
         and every line after that is inside them"
    )]
    EndsInQuotes {
        /// Line of the quote that is never closed.
        line: u64,
    },
    /// The compressed stream is cut off.
    #[error("the gzip stream is cut off")]
    TruncatedGzip,
    /// The compressed stream is damaged.
    #[error("the gzip stream is damaged: {0}")]
    DamagedGzip(String),
    /// The file is larger than allowed.
    #[error("the file is larger than the limit of {limit_bytes} bytes (--max-object-size)")]
    TooLarge {
        /// The limit, which applies before and after decompression.
        limit_bytes: u64,
    },
}

/// A failure to read on.
#[derive(Debug, thiserror::Error)]
pub enum CsvError {
    /// The file is not CSV.
    #[error(transparent)]
    Bad(#[from] NotCsv),
    /// The bytes could not be fetched, which says nothing about the file.
    #[error(transparent)]
    Body(AwsError),
}

impl From<std::io::Error> for CsvError {
    fn from(error: std::io::Error) -> Self {
        // Errors of the bucket and of the body travel inside an I/O error; any other is the decompressor's.
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
