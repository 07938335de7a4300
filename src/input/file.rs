//! Listening files as blocks, for a batch, and the errors of reading one.
//!
//! The rules of CSV are those of [`crate::formats::csv`]; [`crate::input::audit_reader`] reads the same file row by
//! row. Covered by the tests of [`crate::input`] and by `tests/hostile`.

use tokio::io::AsyncRead;

use crate::aws::error::AwsError;
use crate::formats::csv::{self, CsvError, Header, NotCsv, NotHeader};
use crate::input::block::Block;
use crate::input::cleanse::{Columns, REQUIRED_COLUMNS};

/// A reason why an object cannot be counted. The object goes to quarantine with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadObject {
    /// The file is not CSV, or not to its end.
    #[error(transparent)]
    Csv(#[from] NotCsv),
    /// The file is not text.
    #[error(transparent)]
    Binary(NotHeader),
    /// The header is not that of a listening file.
    #[error("the file is not a listening file: {0}")]
    Header(String),
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
        let (blocks, header) = csv::Blocks::open(body, limit_bytes).await?;
        Ok(Blocks { blocks, columns: columns(&header)?, judged_at: judged_at.as_microsecond() })
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
    Columns::new(&indices, header.width()).map_err(|problem| ReadError::Bad(BadObject::Header(problem)))
}
