//! Blocks of a listening file: text to rows in codes. Every byte of input is read here.
//!
//! A block is a few hundred kilobytes of whole records. Blocks are independent of each other, so that several cores can
//! parse them at once. A track or listener that the catalogue lacks is numbered within the block and gets its code when
//! the block's rows are appended, in order ([`crate::compute::Rows::append`]).
//!
//! There are three ways through a block, from fast to general. They give the same rows for every input, which the tests
//! of [`crate::input`] check:
//!
//! 1. **Canonical lines** of plain text, `17,5SuOikwiRyPMVoIQDJUgSV,2024-06-25 17:43:13`, are not even split: if the
//!    catalogue has the 22 bytes after the first comma as a track, and a well-formed time stands between the next comma
//!    and a line feed, no delimiter can have been overlooked (`lines.rs`).
//! 2. **Plain lines**, in a block without quotes and carriage returns, are split at every comma (`lines.rs`).
//! 3. **Records** are everything else, split by csv-async ([`crate::formats::csv`]).
//!
//! docs/adr/0011-compute-path.md has the measurements.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::formats::csv::{self, Line};
use crate::input::cleanse::{Columns, Rejection, Row};
use crate::input::rejects::Rejects;
use crate::reference::Catalogue;

/// Marks the number of a track or listener that is new in the block.
const NEW: u32 = 1 << 31;

/// A part of a listening file.
#[derive(Debug)]
pub struct Block {
    pub(super) csv: csv::Block,
    pub(super) columns: Columns,
    pub(super) judged_at: i64,
}

/// The rows of a block, in codes of the catalogue or in numbers of the block's own.
#[derive(Debug, Default)]
pub struct Parsed {
    /// Number of rows, good and rejected.
    pub rows: u64,
    /// Number of rejected rows, by [`Rejection::kind`].
    pub rejected: BTreeMap<&'static str, u64>,
    pub(crate) tracks: Vec<u32>,
    pub(crate) users: Vec<u32>,
    pub(crate) times: Vec<i64>,
    pub(crate) new_tracks: Vec<Arc<str>>,
    pub(crate) new_users: Vec<i64>,
    /// The first rejected rows, as many as may be listed of an object.
    pub rejects: Rejects,
}

impl Parsed {
    /// Returns the position among the block's new tracks or listeners, if the code is that of a new one.
    pub(crate) fn new_position(code: u32) -> Option<usize> {
        (code & NEW != 0).then_some((code & !NEW) as usize)
    }
}

impl Block {
    /// Wraps a block of a file with these columns. `judged_at` is in microseconds since the Unix epoch.
    pub(crate) fn new(csv: csv::Block, columns: Columns, judged_at: i64) -> Self {
        Block { csv, columns, judged_at }
    }

    /// Judges every row and finds its codes.
    pub fn parse(&self, catalogue: &Catalogue) -> Parsed {
        let mut parser = Parser {
            block: self,
            catalogue,
            parsed: Parsed::default(),
            new_tracks: HashMap::default(),
            new_users: HashMap::default(),
            date: [0; 11],
            midnight: 0,
        };
        if self.csv.is_plain() {
            parser.plain(self.csv.text());
        } else {
            let mut records = self.csv.records();
            while let Some(line) = records.advance() {
                let record = records.record();
                parser.add(line, record.len(), |index| record.get(index).unwrap_or_default());
            }
        }
        parser.parsed
    }
}

pub(super) struct Parser<'a> {
    pub(super) block: &'a Block,
    pub(super) catalogue: &'a Catalogue,
    pub(super) parsed: Parsed,
    new_tracks: HashMap<Arc<str>, u32, RandomState>,
    new_users: HashMap<i64, u32, RandomState>,
    /// Date of the last canonical line, with the byte after it, and its midnight: neighbouring lines mostly share it.
    pub(super) date: [u8; 11],
    pub(super) midnight: i64,
}

impl Parser<'_> {
    /// Judges a record.
    pub(super) fn add<'r>(&mut self, line: Line, fields: usize, field: impl Fn(usize) -> &'r [u8]) {
        let row = match line.is_malformed {
            true => Err(Rejection::Quotes),
            false => self.block.columns.cleanse(fields, &field, self.block.judged_at),
        };
        match row {
            Ok(Row { user_id, track_id, listen_time }) => {
                let (track, user) = (self.track_code(track_id), self.user_code(user_id));
                self.push(track, user, listen_time);
            }
            Err(rejection) => self.reject(line, rejection, (0..fields).map(field)),
        }
    }

    #[inline]
    pub(super) fn push(&mut self, track: u32, user: u32, listen_time: i64) {
        self.parsed.rows += 1;
        self.parsed.tracks.push(track);
        self.parsed.users.push(user);
        self.parsed.times.push(listen_time);
    }

    fn track_code(&mut self, id: &str) -> u32 {
        if let Some(code) = self.catalogue.find_song(id.as_bytes()).or_else(|| self.new_tracks.get(id).copied()) {
            return code;
        }
        let (code, id) = (NEW | self.parsed.new_tracks.len() as u32, Arc::<str>::from(id));
        self.parsed.new_tracks.push(Arc::clone(&id));
        self.new_tracks.insert(id, code);
        code
    }

    #[inline]
    pub(super) fn user_code(&mut self, id: i64) -> u32 {
        self.catalogue.find_user(id).unwrap_or_else(|| {
            *self.new_users.entry(id).or_insert_with(|| {
                self.parsed.new_users.push(id);
                NEW | (self.parsed.new_users.len() - 1) as u32
            })
        })
    }

    fn reject<'r>(&mut self, line: Line, rejection: Rejection, fields: impl Iterator<Item = &'r [u8]>) {
        self.parsed.rows += 1;
        *self.parsed.rejected.entry(rejection.kind()).or_default() += 1;
        self.parsed.rejects.add(line, rejection.kind(), || rejection.to_string(), fields);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::input::cleanse::REQUIRED_COLUMNS;

    /// Parses lines without a header.
    pub(crate) fn parse(lines: &str, catalogue: &Catalogue) -> Parsed {
        let columns = Columns::from_header(REQUIRED_COLUMNS.iter().map(|name| name.as_bytes())).unwrap();
        Block::new(csv::Block::of(lines.as_bytes().to_vec(), 2), columns, i64::MAX).parse(catalogue)
    }
}
