//! Formats: bytes to fields and back. Nothing here knows what the fields mean, and no column's name occurs.
//!
//! * [`csv`]: blocks of whole records out of a plain or compressed stream; used for incoming files and the catalogue.
//! * [`parquet`]: curated files and delta files, written and read; the only place that knows the Parquet crates.

pub mod csv;
pub mod parquet;
