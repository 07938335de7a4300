//! Errors: reasons for which the catalogue is not used.

use crate::aws::error::AwsError;
use crate::formats::csv::{CsvError, NotCsv};
use crate::reference::source::LOAD_TIMEOUT;

/// Metadata of a file that is to be used whatever it lacks.
pub const ACCEPT: (&str, &str) = ("accept", "as-is");

/// Why a file is not used though it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nothing in it can be used.
    #[error("none of its {0} lines can be used")]
    Empty(u64),
    /// Most of it cannot be used.
    #[error("{skipped} of its {lines} lines cannot be used")]
    Skipped {
        /// Lines passed over.
        skipped: u64,
        /// All its lines.
        lines: u64,
    },
    /// Most of what was there before is gone.
    #[error("it lacks {lost} of the {known} keys that were there before")]
    Lost {
        /// Keys that it lacks.
        lost: u64,
        /// Keys that there were.
        known: u64,
    },
}

/// Why a file of the catalogue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// Fetching failed.
    #[error("the catalogue cannot be loaded: {0}")]
    Aws(#[from] AwsError),
    /// There is no such file.
    #[error("{key} is not there; upload it under reference/ of the bucket")]
    Missing {
        /// Which file.
        key: &'static str,
    },
    /// It would damage the figures.
    #[error(
        "{key} is refused: {reason}. Upload a whole file, or the same one with the metadata {}={} if it is meant \
         (aws s3 cp songs.csv s3://BUCKET/{key} --metadata {}={})",
        ACCEPT.0, ACCEPT.1, ACCEPT.0, ACCEPT.1
    )]
    Refused {
        /// Which file.
        key: &'static str,
        /// What it lacks.
        reason: Refused,
    },
    /// Another consumer refused it.
    #[error("the catalogue was refused by consumers that run: {0}")]
    RefusedBefore(String),
    /// The files did not arrive in time.
    #[error("the catalogue was not read within {} s", LOAD_TIMEOUT.as_secs())]
    Stalled,
    /// Reading or parsing failed.
    #[error("{key} cannot be used: {bad}")]
    Unreadable {
        /// Which file.
        key: &'static str,
        /// What is wrong with it.
        bad: NotCsv,
    },
    /// The header is not that of the file.
    #[error("{key} cannot be used: {problem}")]
    Header {
        /// Which file.
        key: &'static str,
        /// What is wrong, and what was found.
        problem: String,
    },
    /// It takes more memory than there is for it.
    #[error(
        "the catalogue takes more than {limit_bytes} bytes of memory, at line {line} of {key}: a quarter of what --max-memory leaves a \
         batch, as a changed one is loaded beside it; give a higher --max-memory, and the memory for it, or leave out what nobody listens to"
    )]
    TooLarge {
        /// Which file.
        key: &'static str,
        /// Its line.
        line: u64,
        /// The limit.
        limit_bytes: usize,
    },
    /// More distinct genres or countries than a 16-bit code holds.
    #[error("{key} has more than 65,535 different values in {column}; this is not the catalogue")]
    TooManyValues {
        /// Which file.
        key: &'static str,
        /// Which column.
        column: &'static str,
    },
}

impl CatalogueError {
    pub(super) fn of_file(key: &'static str, error: CsvError) -> Self {
        match error {
            CsvError::Bad(bad) => CatalogueError::Unreadable { key, bad },
            CsvError::Body(error) => error.into(),
        }
    }
}
