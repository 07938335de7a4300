//! Listening files as blocks, for a batch, and the errors of reading one.
//!
//! The rules of CSV are those of [`crate::formats::csv`]; [`crate::input::audit_reader`] reads the same file row by
//! row. Covered by the tests of [`crate::input`] and by `tests/hostile`.

use std::sync::Arc;

use tokio::io::AsyncRead;

use crate::aws::error::AwsError;
use crate::formats::csv::{self, Header, NotCsv, NotHeader, plain_csv};
use crate::formats::{BadFile, FileError};
use crate::input::block::Block;
use crate::input::cleanse::{Columns, REQUIRED_COLUMNS};

/// A reason why an object cannot be counted. The object goes to quarantine with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadObject {
    /// The file cannot be read, or not to its end.
    #[error(transparent)]
    File(#[from] BadFile),
    /// The file is not text.
    #[error(transparent)]
    Binary(NotHeader),
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

/// A file that is read block by block.
pub struct Blocks {
    blocks: csv::Blocks<'static>,
    columns: Columns,
    judged_at: i64,
}

impl Blocks {
    /// Reads the header. `judged_at` is the present from which the future is measured; `limit_bytes` bounds the
    /// decompressed file.
    pub async fn open(
        body: impl AsyncRead + Send + Unpin + 'static,
        limit_bytes: u64,
        judged_at: jiff::Timestamp,
    ) -> Result<Self, ReadError> {
        let blocks = csv::Blocks::open(body, limit_bytes, Arc::new(plain_csv())).await?;
        let header = blocks.header().ok_or(NotCsv::NoHeader)?;
        let columns = columns(header)?;
        Ok(Blocks { blocks, columns, judged_at: judged_at.as_microsecond() })
    }

    /// Returns the next block, or `None` at the end of the file. Blocks that came before an error must not be used: a
    /// file counts as a whole or not at all.
    pub async fn next(&mut self) -> Result<Option<Block>, ReadError> {
        let block = self.blocks.next().await?;
        Ok(block.map(|block| Block::new(block, self.columns, self.judged_at)))
    }
}

/// Finds the columns in a header.
pub(super) fn columns(header: &Header) -> Result<Columns, ReadError> {
    let indices = header.find(&REQUIRED_COLUMNS).map_err(|problem| match problem {
        NotHeader::Binary(_) => ReadError::Bad(BadObject::Binary(problem)),
        NotHeader::Text(problem) => ReadError::Bad(BadObject::Header(problem)),
    })?;
    Columns::new([indices[0], indices[1], indices[2]], header.width()).map_err(|problem| ReadError::Bad(BadObject::Header(problem)))
}
