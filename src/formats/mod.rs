//! Formats: from bytes to fields and back, without a word of what the fields mean.

pub mod csv;
pub mod parquet;
