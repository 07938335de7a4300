//! The format of files. Compression is none of it: gzip and zstd are recognized by their first bytes.

/// The format of the files under `incoming/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Lines of fields: `csv`, `tsv` and `w3c`.
    Delimited(Delimited),
    /// A sequence of JSON values with blanks, commas or nothing between them: `json`. An array stands for its elements.
    Json {
        /// The key under which each value has the list of its records; without it each value is a record.
        records: Option<String>,
    },
}

/// The format of lines of fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delimited {
    /// The ASCII character between two fields.
    pub delimiter: u8,
    /// The ASCII character around a field that may contain delimiters, line ends and, doubled, itself. Without it every
    /// character is plain.
    pub quote: Option<u8>,
    /// The place of the columns' names.
    pub header: Header,
    /// The beginning of lines that are passed over; 1 to 16 bytes.
    pub comment: Option<String>,
    /// The texts of a field that mean no value.
    pub null: Vec<String>,
}

/// The place of the columns' names in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// The first line that is no comment.
    FirstLine,
    /// The file has none; columns have numbers.
    Missing,
    /// Each line that begins with `#Fields:` has the names, with blanks between them, for the lines that follow. Other
    /// lines that begin with `#` are comments. Source: W3C, "Extended Log File Format",
    /// <https://www.w3.org/TR/WD-logfile.html>.
    Directive,
}
