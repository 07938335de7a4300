//! The destination of a preparation: what leaves its memory on the way to the figures.

use crate::batch::prepare::PrepareError;
use crate::compute::{Names, Rows};
use crate::formats::parquet::RowGroup;
use crate::input::file::Blocks;

/// The destination of what a preparation has read. The figures stay in the preparation; rows and the list of rejected
/// ones would fill the memory, and go on.
///
/// What a destination has may be of a file that turns out bad later. The preparation then ends with
/// [`PrepareError::Spoiled`], and everything given to its destination is void.
pub trait Destination {
    /// Sees a file whose beginning was read, before any of its rows.
    fn opened(&mut self, _file: &Blocks) {}

    /// Sees good rows before they are folded and encoded, in the order of the files.
    fn rows(&mut self, _rows: &Rows, _names: &Names) {}

    /// Takes row groups of the curated files, each with its day.
    fn curated(&mut self, row_groups: Vec<(i32, RowGroup)>) -> impl Future<Output = Result<(), PrepareError>>;

    /// Takes lines of the list of rejected rows.
    fn rejected(&mut self, lines: Vec<u8>) -> impl Future<Output = Result<(), PrepareError>>;

    /// Bytes of memory that are taken until the end of the batch.
    fn lasting_bytes(&self) -> usize {
        0
    }
}
