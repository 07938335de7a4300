//! Errors: the reasons why a catalogue is not used.

use crate::aws::error::AwsError;
use crate::formats::{BadFile, FileError};
use crate::reference::source::LOAD_TIMEOUT;

/// Metadata of a file that is to be used even if [`Refusal`] applies.
pub const ACCEPT: (&str, &str) = ("accept", "as-is");

/// A reason to refuse a readable file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No line is usable.
    #[error("none of its {0} lines can be used")]
    Empty(u64),
    /// Most lines are unusable.
    #[error("{skipped} of its {lines} lines cannot be used")]
    Skipped {
        /// Lines skipped.
        skipped: u64,
        /// All its lines.
        lines: u64,
    },
    /// Most of the keys before it are gone.
    #[error("it lacks {lost} of the {known} keys that were there before")]
    Lost {
        /// Keys that the file lacks.
        lost: u64,
        /// Keys before it.
        known: u64,
    },
}

/// A reason why the catalogue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// Fetching failed.
    #[error("the catalogue cannot be loaded: {0}")]
    Aws(#[from] AwsError),
    /// The file does not exist.
    #[error("{key} is not there; upload it under reference/ of the bucket")]
    Missing {
        /// The file's key.
        key: String,
    },
    /// The file would falsify figures.
    #[error(
        "{key} is refused: {reason}. Upload a whole file, or the same one with the metadata {}={} if it is meant \
         (aws s3 cp FILE s3://BUCKET/{key} --metadata {}={})",
        ACCEPT.0, ACCEPT.1, ACCEPT.0, ACCEPT.1
    )]
    Refused {
        /// The file's key.
        key: String,
        /// The reason.
        reason: Refusal,
    },
    /// Another consumer refused the same files.
    #[error("the catalogue was refused by running consumers: {0}")]
    RefusedBefore(String),
    /// The files did not arrive in time.
    #[error("the catalogue was not read within {} s", LOAD_TIMEOUT.as_secs())]
    Stalled,
    /// Reading or parsing failed.
    #[error("{key} cannot be used: {bad}")]
    Unreadable {
        /// The file's key.
        key: String,
        /// The problem.
        bad: BadFile,
    },
    /// The header lacks columns.
    #[error("{key} cannot be used: {problem}")]
    Header {
        /// The file's key.
        key: String,
        /// The problem, and the header as found.
        problem: String,
    },
    /// The catalogue takes more memory than allowed.
    #[error(
        "the catalogue takes more than {limit_bytes} bytes of memory, at line {line} of {key}: a quarter of \
         the memory that --max-memory leaves a batch, since a changed catalogue is loaded while the old one is in use; \
         raise --max-memory (and the memory of the container), or leave out lines that no row refers to"
    )]
    TooLarge {
        /// The file's key.
        key: String,
        /// The line at which the limit was exceeded.
        line: u64,
        /// The limit.
        limit_bytes: usize,
    },
}

impl CatalogueError {
    pub(super) fn of_file(key: &str, error: FileError) -> Self {
        match error {
            FileError::Bad(bad) => CatalogueError::Unreadable { key: key.to_owned(), bad },
            FileError::Body(error) => error.into(),
        }
    }
}
