//! The errors of reading a file. Covered by the tests of [`crate::input`] and by `tests/hostile`.

use crate::aws::error::AwsError;
use crate::formats::csv::NotCsv;
use crate::formats::{BadFile, FileError};

/// A reason why an object cannot be counted. The object goes to quarantine with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadObject {
    /// The file cannot be read, or not to its end.
    #[error(transparent)]
    File(#[from] BadFile),
    /// The header lacks columns, or has too many.
    #[error("the file does not have the columns of the definition: {0}")]
    Header(String),
    /// A column is read from the object's key, which has no value for it.
    #[error("the object's name does not fit the definition: {0}")]
    Key(String),
    /// The file touches more report items than a batch may.
    #[error("the file alone touches more than {limit} report items (--max-report-items)")]
    TooManyItems {
        /// The limit.
        limit: usize,
    },
    /// The report items that the file touches do not fit into memory.
    #[error(
        "the report items that the file alone touches do not fit into the memory of {limit_bytes} bytes \
         (--max-memory); raise it, or split the file"
    )]
    TooMuchMemory {
        /// All memory of the process.
        limit_bytes: u64,
    },
}

/// A failure to read on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be counted.
    #[error(transparent)]
    Bad(BadObject),
    /// The bytes could not be fetched, which says nothing about the file.
    #[error(transparent)]
    Body(AwsError),
}

impl From<FileError> for ReadError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Bad(bad) => ReadError::Bad(bad.into()),
            FileError::Body(error) => ReadError::Body(error),
        }
    }
}

impl From<BadObject> for ReadError {
    fn from(bad: BadObject) -> Self {
        ReadError::Bad(bad)
    }
}

impl From<std::io::Error> for ReadError {
    fn from(error: std::io::Error) -> Self {
        FileError::from(error).into()
    }
}

impl From<NotCsv> for ReadError {
    fn from(bad: NotCsv) -> Self {
        ReadError::Bad(BadFile::Csv(bad).into())
    }
}
