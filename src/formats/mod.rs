//! Formats: bytes to fields and back. Nothing here knows what the fields mean, and no column's name occurs.
//!
//! * [`csv`]: fields between delimiters, in blocks of whole records; events and references.
//! * [`json`]: records of JSON in blocks, and the values at some paths of a record; events.
//! * [`delta`]: the entries of a Delta table's log, and its checkpoints.
//! * [`parquet`]: curated files and delta files, written and read; the only place that knows the Parquet crates.
//!
//! A file of [`csv`] or [`json`] is read as a stream and is never in memory as a whole. Plain text, gzip and zstd are
//! told apart by the first bytes; a byte-order mark is skipped (`body`).

mod body;
pub mod csv;
pub mod delta;
pub mod json;
pub mod parquet;

pub use body::{BLOCK_BYTES, BYTE_ORDER_MARK, MAX_RECORD_BYTES};
pub(crate) use body::{Body, binary_kind, refuse_binary};

use std::fmt;

use crate::aws::error::AwsError;
use crate::formats::csv::NotCsv;
use crate::formats::json::NotJson;

/// A value of a record, as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Raw<'t> {
    /// Nothing at all, or null.
    Nothing,
    /// A field, or a text of JSON without escapes; or a number, `true` or `false`.
    Text(&'t [u8]),
    /// A text of JSON with escapes, as it is written between its quotes ([`json::unescaped`]).
    Escaped(&'t [u8]),
    /// An object or a list.
    Nested,
}

/// A compression that is recognized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// gzip, of one member or several: <https://www.rfc-editor.org/rfc/rfc1952>.
    Gzip,
    /// zstd, of one frame or several: <https://www.rfc-editor.org/rfc/rfc8878>.
    Zstd,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        })
    }
}

/// A reason why a file cannot be read, or not to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFile {
    /// The file has no bytes.
    #[error("the file is empty")]
    Empty,
    /// The compressed stream is cut off.
    #[error("the {0} stream is cut off")]
    CutOff(Compression),
    /// The compressed stream is damaged, or needs more memory than a decompressor may take.
    #[error("the {compression} stream is damaged: {problem}")]
    Damaged {
        /// The compression.
        compression: Compression,
        /// The decompressor's words.
        problem: String,
    },
    /// The bytes could not be had, for a reason that no service gave.
    #[error("the file cannot be read: {0}")]
    Unreadable(String),
    /// The file is larger than allowed.
    #[error("the file is larger than the limit of {limit_bytes} bytes (--max-object-size)")]
    TooLarge {
        /// The limit, which applies before and after decompression.
        limit_bytes: u64,
    },
    /// The file is not text: its actual kind.
    #[error("the file is not {expected}: its first line is {kind}")]
    Binary {
        /// The format that was expected.
        expected: &'static str,
        /// The kind that was found.
        kind: &'static str,
    },
    /// The file is not delimited text, or not to its end.
    #[error(transparent)]
    Csv(#[from] NotCsv),
    /// The file is not JSON, or not to its end.
    #[error(transparent)]
    Json(#[from] NotJson),
}

/// A failure to read on.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error(transparent)]
    Bad(BadFile),
    /// The bytes could not be fetched, which says nothing about the file.
    #[error(transparent)]
    Body(AwsError),
}

impl From<BadFile> for FileError {
    fn from(bad: BadFile) -> Self {
        FileError::Bad(bad)
    }
}

impl From<NotCsv> for FileError {
    fn from(bad: NotCsv) -> Self {
        FileError::Bad(bad.into())
    }
}

impl From<NotJson> for FileError {
    fn from(bad: NotJson) -> Self {
        FileError::Bad(bad.into())
    }
}

impl From<std::io::Error> for FileError {
    fn from(error: std::io::Error) -> Self {
        // Errors of the bucket and of the body travel inside an I/O error; there are no others in memory.
        let error = match error.downcast::<AwsError>() {
            Ok(error) => return FileError::Body(error),
            Err(error) => error,
        };
        FileError::Bad(match error.downcast::<BadFile>() {
            Ok(bad) => bad,
            Err(error) => BadFile::Unreadable(error.to_string()),
        })
    }
}
