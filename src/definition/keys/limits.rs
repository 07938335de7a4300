//! The limits of a definition, the words it may choose from, and the names that it may not.

/// Most bytes of a definition.
pub const MAX_FILE_BYTES: usize = 64 << 10;
/// Most characters of a name.
pub const MAX_NAME_CHARS: usize = 63;
/// Most columns and attributes together: each is a column of the curated files.
pub const MAX_COLUMNS: usize = 64;
/// Most references, and most reports.
pub const MAX_SECTIONS: usize = 16;
/// Most measures of a report.
pub const MAX_MEASURES: usize = 16;
/// Most distinct counts of a report: an item holds the sketch of each, up to 8 KiB.
pub const MAX_DISTINCTS: usize = 4;
/// Most fields that are shown beside a report's figures.
pub const MAX_SHOWN: usize = 16;
/// Most attributes under which a report has top lists.
pub const MAX_UNDER: usize = 2;
/// Most entries of a top list, and as many as one has by default.
pub const KEPT: (i64, i64) = (1000, 100);
/// Most values of a condition.
pub const MAX_VALUES: usize = 64;
/// Most places that are joined by a blank, and most columns of a join.
pub const MAX_JOINED: usize = 4;
/// Highest number of a field.
pub const MAX_FIELD: i64 = 4096;
/// Most keys of a path into a record of JSON.
pub const MAX_PATH: usize = 16;
/// Longest time by which rows may be ahead of the clock, in days.
pub const MAX_FUTURE_DAYS: u64 = 366;
/// Bytes that an id has at most, if nothing else is written.
pub const ID_BYTES: usize = 64;
/// The greatest decimal, in units: of 18 digits, as Parquet's `DECIMAL(18, …)` has and 64 bits hold.
pub const MAX_DECIMAL: i64 = 999_999_999_999_999_999;
/// The pipeline's own tables.
pub const RESERVED_TABLES: [&str; 2] = ["music_streams_ledger", "top_lists"];
/// Names that the program gives in curated files and in items.
pub const RESERVED_NAMES: [&str; 5] = ["report_date", "report_hour", "date_shard", "source_key", "version"];
/// Beginnings of such names.
pub const RESERVED_BEGINNINGS: [&str; 2] = ["sketch", "applied"];

/// The pattern of names.
pub const NAME: &str = "^[a-z][a-z0-9_]{0,62}$";
/// The types of columns.
pub const TYPES: [&str; 5] = ["id", "text", "integer", "decimal", "time"];
/// The types of attributes.
pub const ATTRIBUTE_TYPES: [&str; 4] = ["id", "text", "integer", "decimal"];
/// The formats of files.
pub const FORMATS: [&str; 4] = ["csv", "tsv", "w3c", "json"];
/// The measures.
pub const MEASURES: [&str; 6] = ["count", "sum", "min", "max", "distinct", "ratio"];
/// The ways to write a time that have a name.
pub const TIME_FORMATS: [&str; 4] = ["iso", "unix", "unix_ms", "unix_us"];
