//! Parquet: the one place that knows arrow2, parquet2 and parquet-format-safe. It knows no column's name.
//!
//! | file | content |
//! |---|---|
//! | [`schema`] | the columns of a file and their types |
//! | [`file`](mod@file) | a file that is written, row group by row group |
//! | [`dictionary`] | columns by dictionary, whose positions follow from codes shared by several columns |
//! | [`pages`] | plain values, their statistics, compressed pages |
//! | [`arrays`] | columns as arrow2 arrays, for files that are small or read back |
//! | [`read`] | footers, and columns read back |
//! | [`summary`](mod@summary) | rows, columns and bounds of a file, from its footer |
//! | [`nested`] | rows with groups, maps and lists, as JSON |
//!
//! Both crates are archived upstream and have faults that this folder works round, each with a test:
//!
//! * arrow2 writes `null_count = 0` for a dictionary column with null keys, so that `IS NULL` finds nothing in DuckDB
//!   and Spark. Pages of dictionary columns are therefore built here, straight on parquet2.
//! * parquet2 leaves `column_orders` out of the footer, so that readers ignore every minimum and maximum. The footer is
//!   completed before it is written ([`ParquetFile::finish`]).
//! * A timestamp in seconds loses its logical type. Microseconds, adjusted to UTC, are used.
//! * Both crates panic on bytes that they do not expect. Everything is decoded inside [`contained`], and delta files
//!   only if their bytes are those that were written ([`crate::batch::manifest::DeltaFile`]).
//! * arrow2's reader of nested columns loses maps within groups; [`nested`] is used in its place.
//! * A dictionary that serves several row groups is written whole into each of them. Codes are renumbered per row
//!   group.
//!
//! Format: <https://github.com/apache/parquet-format>. Covered by `tests/parquet.rs`, which reads the files with
//! DuckDB, pyarrow and Polars, and by the fuzz target for delta files (`tests/hostile`).

pub mod arrays;
pub mod dictionary;
pub mod file;
pub mod nested;
pub mod pages;
pub mod read;
pub mod schema;
pub mod summary;

pub use file::{ParquetFile, RowGroup};
pub use read::{contained, count_rows, footer_bytes};
pub use schema::{Column, MAX_DECIMAL_DIGITS, Schema, Type};
pub use summary::{Bound, Summary, summary};

/// A failure to encode or decode.
#[derive(Debug, thiserror::Error)]
pub enum ParquetError {
    /// arrow2 or parquet2 refused the columns: a fault of this program.
    #[error("Parquet encoding failed, which is a fault of this program: {0}")]
    Encode(String),
    /// The file is not one that this program writes.
    #[error("the Parquet file cannot be decoded: {0}")]
    Decode(String),
}

impl From<arrow2::error::Error> for ParquetError {
    fn from(error: arrow2::error::Error) -> Self {
        ParquetError::Encode(error.to_string())
    }
}

impl From<parquet2::error::Error> for ParquetError {
    fn from(error: parquet2::error::Error) -> Self {
        ParquetError::Encode(error.to_string())
    }
}
