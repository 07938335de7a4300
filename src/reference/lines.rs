//! Lines: a CSV file read by column name. Covered by the tests of `parse`.

use std::sync::Arc;

use tokio::io::AsyncRead;

use crate::formats::csv;
use crate::reference::error::CatalogueError;

/// A CSV file read by column name.
pub(super) struct Table<'a, const N: usize> {
    pub(super) key: &'static str,
    blocks: csv::Blocks<'a>,
    indices: [usize; N],
    width: usize,
    pub(super) last_line: u64,
}

impl<'a, const N: usize> Table<'a, N> {
    pub(super) async fn open(
        key: &'static str,
        columns: [&'static str; N],
        file: impl AsyncRead + Unpin + Send + 'a,
    ) -> Result<Self, CatalogueError> {
        let opened = csv::Blocks::open(file, u64::MAX, Arc::new(csv::plain_csv())).await;
        let blocks = opened.map_err(|error| CatalogueError::of_file(key, error))?;
        let no_header = || CatalogueError::of_file(key, csv::NotCsv::NoHeader.into());
        let header = blocks.header().ok_or_else(no_header)?;
        let found = header.find(&columns).map_err(|problem| CatalogueError::Header {
            key,
            problem: format!("{problem}; it must name {}", columns.join(", ")),
        })?;
        let (mut indices, width) = ([0; N], header.width());
        indices.copy_from_slice(&found);
        Ok(Table { key, blocks, indices, width, last_line: 1 })
    }

    pub(super) async fn next(&mut self) -> Result<Option<csv::Block>, CatalogueError> {
        let block = self.blocks.next().await.map_err(|error| CatalogueError::of_file(self.key, error))?;
        self.last_line = block.as_ref().map_or(self.last_line, csv::Block::first_line);
        Ok(block)
    }

    pub(super) fn lines<'b>(&self, block: &'b csv::Block) -> Lines<'b, N> {
        Lines { records: block.records(), indices: self.indices, width: self.width }
    }
}

/// The lines of a block.
pub(super) struct Lines<'b, const N: usize> {
    records: csv::Records<'b>,
    indices: [usize; N],
    width: usize,
}

impl<const N: usize> Lines<'_, N> {
    /// Returns the next line's number, and the fields of the columns or the reason why the line is unusable.
    pub(super) fn next(&mut self) -> Option<(u64, Result<[&str; N], &'static str>)> {
        let line = self.records.advance()?;
        let record = self.records.record();
        let fields = || {
            if line.is_malformed {
                return Err("text follows the quote that closes a field");
            }
            if record.len() != self.width {
                return Err("it has more or fewer fields than the header");
            }
            let mut fields = [""; N];
            for (field, index) in fields.iter_mut().zip(self.indices) {
                *field =
                    std::str::from_utf8(record.get(index).unwrap_or_default()).map_err(|_| "a field is not UTF-8")?;
            }
            Ok(fields)
        };
        Some((line.number, fields()))
    }
}
