//! Files as blocks, for a batch, and the errors of reading one.
//!
//! The rules of the formats are those of [`crate::formats`]; [`crate::input::auditor`] reads the same file row by row.
//! Covered by the tests of [`crate::input`] and by `tests/hostile`.

use std::sync::Arc;

use tokio::io::AsyncRead;

use crate::aws::error::AwsError;
use crate::formats::csv::{Header, NotCsv};
use crate::formats::{BadFile, Compression, FileError, csv, json};
use crate::input::block::{Block, Text};
use crate::input::layout::Layout;
use crate::input::rules::{Format, Rules};
use crate::plan::Plan;

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

/// A file that is read block by block.
pub struct Blocks {
    records: Records,
    layout: Arc<Layout>,
    /// The header that the layout is of.
    header: Option<Arc<Header>>,
}

enum Records {
    Delimited(csv::Blocks<'static>),
    Json(json::Blocks<'static>),
}

/// The form of a file, as its beginning shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recognized {
    /// The name of the format.
    pub format: &'static str,
    /// The compression, if it is compressed.
    pub compression: Option<Compression>,
    /// The names of its columns, if it has names.
    pub columns: Option<Vec<String>>,
}

impl Blocks {
    /// Returns the form that the beginning of the file shows.
    pub fn recognized(&self) -> Recognized {
        match &self.records {
            Records::Delimited(blocks) => Recognized {
                format: blocks.format_name(),
                compression: blocks.compression(),
                columns: blocks.column_names(),
            },
            Records::Json(blocks) => Recognized {
                format: if blocks.begins_list() { "JSON, a list" } else { "JSON" },
                compression: blocks.compression(),
                columns: None,
            },
        }
    }

    /// Reads the beginning of the file under this key. `judged_at` is the present from which the future is measured;
    /// `limit_bytes` bounds the decompressed file.
    pub async fn open(
        body: impl AsyncRead + Send + Unpin + 'static,
        limit_bytes: u64,
        judged_at: jiff::Timestamp,
        plan: &Arc<Plan>,
        key: &str,
    ) -> Result<Self, ReadError> {
        let rules = Arc::new(Rules::of(Arc::clone(plan)));
        let layout = Layout::of_file(&rules, key, judged_at)?;
        let records = match &rules.format {
            Format::Delimited { format, .. } => {
                Records::Delimited(csv::Blocks::open(body, limit_bytes, Arc::clone(format)).await?)
            }
            Format::Json { records, .. } => {
                Records::Json(json::Blocks::open(body, limit_bytes, records.as_deref()).await?)
            }
        };
        let header = match &records {
            Records::Delimited(blocks) => blocks.header().cloned(),
            Records::Json(_) => None,
        };
        let layout = Arc::new(layout.with_header(header.as_deref())?);
        Ok(Blocks { records, layout, header })
    }

    /// Returns the next block, or `None` at the end of the file. Blocks that came before an error must not be used: a
    /// file counts as a whole or not at all.
    pub async fn next(&mut self) -> Result<Option<Block>, ReadError> {
        let text = match &mut self.records {
            Records::Json(blocks) => blocks.next().await?.map(Text::Json),
            Records::Delimited(blocks) => match blocks.next().await? {
                Some(block) => {
                    let is_known =
                        |known: &Arc<Header>| block.header().is_some_and(|header| Arc::ptr_eq(header, known));
                    if block.header().is_some() && !self.header.as_ref().is_some_and(is_known) {
                        self.layout = Arc::new(self.layout.with_header(block.header().map(Arc::as_ref))?);
                        self.header = block.header().cloned();
                    }
                    Some(Text::Delimited(block))
                }
                None => None,
            },
        };
        Ok(text.map(|text| Block { text, layout: Arc::clone(&self.layout) }))
    }
}
