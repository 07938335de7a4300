//! Files as blocks, for a batch.
//!
//! The rules of the formats are those of [`crate::formats`]; [`crate::input::auditor`] reads the same file row by row.
//! Covered by the tests of [`crate::input`] and by `tests/hostile`.

use std::sync::Arc;

use tokio::io::AsyncRead;

use crate::formats::csv::Header;
use crate::formats::{csv, json};
use crate::input::file::ReadError;
use crate::input::layout::Layout;
use crate::input::parse::{Block, Text};
use crate::input::rules::{Format, Rules};

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

impl Blocks {
    /// Reads the beginning of the file under this key. `judged_at` is the present from which the future is measured;
    /// `limit_bytes` bounds the decompressed file.
    pub async fn open(
        body: impl AsyncRead + Send + Unpin + 'static,
        limit_bytes: u64,
        judged_at: jiff::Timestamp,
        rules: &Arc<Rules>,
        key: &str,
    ) -> Result<Self, ReadError> {
        let layout = Layout::of_file(rules, key, judged_at)?;
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
