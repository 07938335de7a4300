//! A listening file: from the bytes of an object to its rows.
//!
//! CSV with a header, plain or gzip ([`crate::formats::csv`]). [`Blocks`] gives it in blocks, for a batch; [`crate::input::audit_reader::InputFile`] row by row, for
//! whoever is not in a hurry, byte by byte and by code of its own, so that one can be held against the other.
//! Whatever the bytes are, the answer is rows or a [`BadObject`]: nothing panics, and neither a record without an end nor
//! a stream that inflates without end takes memory or time beyond the limits. What the rows are depends on the bytes, the
//! limit and `judged_at` alone, so that whoever reads the file again later finds the same rows.

use tokio::io::AsyncRead;

use crate::aws::error::AwsError;
use crate::formats::csv::{self, CsvError, Header, NotCsv, NotHeader};
use crate::input::block::Block;
use crate::input::cleanse::{Columns, REQUIRED_COLUMNS};

/// Why an object cannot be counted. It goes to quarantine with this reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadObject {
    /// It is not CSV, or not to its end.
    #[error(transparent)]
    Csv(#[from] NotCsv),
    /// Not text.
    #[error(transparent)]
    Binary(NotHeader),
    /// Its header is not that of a listening file.
    #[error("the file is not a listening file: {0}")]
    Header(String),
    /// It touches more report items than a batch may.
    #[error("the file alone touches more than {limit} report items (--max-report-items)")]
    TooManyItems {
        /// The limit.
        limit: usize,
    },
    /// What it touches does not fit into the memory.
    #[error(
        "the report items that the file alone touches do not fit into the memory of {limit_bytes} bytes (--max-memory); give more, or put \
         the file there in parts"
    )]
    TooMuchMemory {
        /// All the memory of the process.
        limit_bytes: u64,
    },
}

/// Why a file could not be read on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not a listening file.
    #[error(transparent)]
    Bad(BadObject),
    /// Its bytes could not be had, which says nothing about the file.
    #[error(transparent)]
    Body(AwsError),
}

impl From<CsvError> for ReadError {
    fn from(error: CsvError) -> Self {
        match error {
            CsvError::Bad(bad) => ReadError::Bad(bad.into()),
            CsvError::Body(error) => ReadError::Body(error),
        }
    }
}

impl From<NotCsv> for ReadError {
    fn from(bad: NotCsv) -> Self {
        ReadError::Bad(bad.into())
    }
}

impl From<std::io::Error> for ReadError {
    fn from(error: std::io::Error) -> Self {
        CsvError::from(error).into()
    }
}

/// A file that is being read block by block.
pub struct Blocks {
    blocks: csv::Blocks<'static>,
    columns: Columns,
    judged_at: i64,
}

impl Blocks {
    /// Reads the header. `judged_at` is what "the future" is measured from; `limit_bytes` bounds the decompressed file.
    pub async fn open(
        body: impl AsyncRead + Send + Unpin + 'static,
        limit_bytes: u64,
        judged_at: jiff::Timestamp,
    ) -> Result<Self, ReadError> {
        let (blocks, header) = csv::Blocks::open(body, limit_bytes).await?;
        Ok(Blocks { blocks, columns: columns(&header)?, judged_at: judged_at.as_microsecond() })
    }

    /// The next block; `None` at the end of the file. Blocks that came before an error are not to be used: a file counts whole
    /// or not at all.
    pub async fn next(&mut self) -> Result<Option<Block>, ReadError> {
        let block = self.blocks.next().await?;
        Ok(block.map(|block| Block::new(block, self.columns, self.judged_at)))
    }
}

/// Finds the columns in a header.
pub(super) fn columns(header: &Header) -> Result<Columns, ReadError> {
    let indices = header.find(REQUIRED_COLUMNS).map_err(|problem| match problem {
        NotHeader::Binary(_) => ReadError::Bad(BadObject::Binary(problem)),
        NotHeader::Text(problem) => ReadError::Bad(BadObject::Header(problem)),
    })?;
    Columns::new(indices, header.width()).map_err(|problem| ReadError::Bad(BadObject::Header(problem)))
}
