//! Lines: a reference's file read by the places of its columns. Covered by the tests of `parse`.

use std::sync::Arc;

use tokio::io::AsyncRead;

use crate::definition::Reference;
use crate::definition::columns::Place;
use crate::formats::csv::{self, Header};
use crate::reference::error::CatalogueError;

/// A file that is read by the places of its columns: the key and then the attributes.
pub(super) struct Table<'a> {
    /// The key of the file in the bucket.
    file: String,
    blocks: csv::Blocks<'a>,
    indices: Vec<usize>,
    /// The number of fields of a line, if the file has a header.
    width: Option<usize>,
    pub(super) last_line: u64,
}

impl<'a> Table<'a> {
    pub(super) async fn open(
        reference: &Reference,
        file: impl AsyncRead + Unpin + Send + 'a,
    ) -> Result<Self, CatalogueError> {
        let key = super::file_key(reference);
        let opened = csv::Blocks::open(file, u64::MAX, Arc::new(reference.format.clone())).await;
        let blocks = opened.map_err(|error| CatalogueError::of_file(&key, error))?;
        let places: Vec<&Place> =
            std::iter::once(&reference.key_from).chain(reference.attributes.iter().map(|it| &it.place)).collect();
        let (indices, width) = places_in(blocks.header().map(Arc::as_ref), &places, &key)?;
        Ok(Table { file: key, blocks, indices, width, last_line: 1 })
    }

    pub(super) async fn next(&mut self) -> Result<Option<csv::Block>, CatalogueError> {
        let block = self.blocks.next().await.map_err(|error| CatalogueError::of_file(&self.file, error))?;
        self.last_line = block.as_ref().map_or(self.last_line, csv::Block::first_line);
        Ok(block)
    }

    pub(super) fn lines<'b>(&self, block: &'b csv::Block) -> Lines<'b> {
        Lines { records: block.records(), indices: self.indices.clone(), width: self.width }
    }
}

/// Finds the fields of some places, from 0, and the width of the lines.
fn places_in(
    header: Option<&Header>,
    places: &[&Place],
    key: &str,
) -> Result<(Vec<usize>, Option<usize>), CatalogueError> {
    let name = |place: &Place| match place {
        Place::Name(name) => Some(name.clone()),
        Place::Number(_) | Place::Path(_) => None,
    };
    let names: Vec<String> = places.iter().filter_map(|place| name(place)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let bad = |problem: String| CatalogueError::Header { key: key.to_owned(), problem };
    let found = match header {
        Some(header) => {
            header.find(&names).map_err(|problem| bad(format!("{problem}; it must name {}", names.join(", "))))?
        }
        None if names.is_empty() => Vec::new(),
        None => return Err(bad(format!("it has no header, and {} are found by name", names.join(", ")))),
    };
    let mut found = found.into_iter();
    let index = |place: &&Place| match place {
        Place::Number(number) => Some(number.saturating_sub(1)),
        Place::Name(_) | Place::Path(_) => found.next(),
    };
    Ok((places.iter().filter_map(index).collect(), header.map(Header::width)))
}

/// The lines of a block.
pub(super) struct Lines<'b> {
    records: csv::Records<'b>,
    indices: Vec<usize>,
    width: Option<usize>,
}

impl Lines<'_> {
    /// Moves to the next line, and returns its number. The error says why the line is unusable.
    pub(super) fn advance(&mut self) -> Option<(u64, Result<(), &'static str>)> {
        let line = self.records.advance()?;
        let usable = if line.is_malformed {
            Err("text follows the quote that closes a field")
        } else if self.width.is_some_and(|width| self.records.record().len() != width) {
            Err("it has more or fewer fields than the header")
        } else if self.indices.iter().any(|&index| index >= self.records.record().len()) {
            Err("it has too few fields")
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
