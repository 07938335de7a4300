//! Lines: a reference's file read by the places of its columns. Covered by the tests of `parse`.

use std::sync::Arc;

use tokio::io::AsyncRead;

use crate::definition::Reference;
use crate::definition::columns::Place;
use crate::formats::csv::{self, NotHeader};
use crate::reference::error::CatalogueError;

/// A file that is read by the places of its columns: the key and then the attributes.
pub(super) struct Table<'a> {
    /// The key of the file in the bucket.
    file: String,
    blocks: csv::Blocks<'a>,
    indices: Vec<usize>,
    /// The number of fields of a line; without a header, the least.
    width: usize,
    is_exact: bool,
    pub(super) last_line: u64,
}

fn name_of(place: &Place) -> Option<&str> {
    match place {
        Place::Name(name) => Some(name),
        Place::Number(_) | Place::Path(_) => None,
    }
}

impl<'a> Table<'a> {
    pub(super) async fn open(
        reference: &Reference,
        file: impl AsyncRead + Unpin + Send + 'a,
    ) -> Result<Self, CatalogueError> {
        let key = super::file_key(reference);
        let opened = csv::Blocks::open(file, u64::MAX, Arc::new(reference.format.clone())).await;
        let blocks = opened.map_err(|error| CatalogueError::of_file(&key, error))?;
        let places = std::iter::once(&reference.key_from).chain(reference.attributes.iter().map(|it| &it.place));
        let places: Vec<&Place> = places.collect();
        let names: Vec<&str> = places.iter().filter_map(|place| name_of(place)).collect();
        let found = match blocks.header() {
            Some(header) => header.find(&names),
            None => Ok(Vec::new()),
        };
        let mut found = found.map_err(|problem| CatalogueError::Header {
            key: key.clone(),
            problem: match problem {
                NotHeader::Binary(_) => problem.to_string(),
                NotHeader::Text(problem) => format!("{problem}; it must name {}", names.join(", ")),
            },
        })?;
        let mut named = found.drain(..);
        let index = |place: &&Place| match place {
            Place::Number(number) => number.saturating_sub(1),
            Place::Name(_) | Place::Path(_) => named.next().unwrap_or_default(),
        };
        let indices: Vec<usize> = places.iter().map(index).collect();
        let needed = indices.iter().max().map_or(0, |greatest| greatest + 1);
        let (width, is_exact) = blocks.header().map_or((needed, false), |header| (header.width(), true));
        if width < needed {
            let problem = format!("the header has {width} columns, and field {needed} is read");
            return Err(CatalogueError::Header { key, problem });
        }
        Ok(Table { file: key, blocks, indices, width, is_exact, last_line: 1 })
    }

    pub(super) async fn next(&mut self) -> Result<Option<csv::Block>, CatalogueError> {
        let block = self.blocks.next().await.map_err(|error| CatalogueError::of_file(&self.file, error))?;
        self.last_line = block.as_ref().map_or(self.last_line, csv::Block::first_line);
        Ok(block)
    }

    pub(super) fn lines<'b>(&self, block: &'b csv::Block) -> Lines<'b> {
        Lines { records: block.records(), indices: self.indices.clone(), width: self.width, is_exact: self.is_exact }
    }
}

/// The lines of a block.
pub(super) struct Lines<'b> {
    records: csv::Records<'b>,
    indices: Vec<usize>,
    width: usize,
    is_exact: bool,
}

impl Lines<'_> {
    /// Moves to the next line, and returns its number. The error says why the line is unusable.
    pub(super) fn advance(&mut self) -> Option<(u64, Result<(), &'static str>)> {
        let line = self.records.advance()?;
        let usable = if line.is_malformed {
            Err("text follows the quote that closes a field")
        } else if self.is_exact && self.records.record().len() != self.width {
            Err("it has more or fewer fields than the header")
        } else if self.records.record().len() < self.width {
            Err("it has fewer fields than are read")
        } else {
            Ok(())
        };
        Some((line.number, usable))
    }

    /// Returns a field of the current line: 0 is the key, and the attributes follow.
    pub(super) fn field(&self, place: usize) -> &[u8] {
        let index = self.indices.get(place).copied();
        index.and_then(|index| self.records.record().get(index)).unwrap_or_default()
    }
}
