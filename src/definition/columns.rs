//! Columns of the rows and attributes of references: types and places.

use jiff::tz::TimeZone;

/// Most bytes of an id and of a text, and so of a report's key. DynamoDB takes 2,048 bytes of a partition key.
pub const MAX_VALUE_BYTES: usize = 1024;

/// The type of a join. A row whose joined text is longer is rejected.
pub const JOINED: Type = Type::Text { max_bytes: MAX_VALUE_BYTES, is_cut: false };

/// A column of the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The type of its values.
    pub type_: Type,
    /// The place of its values.
    pub source: Source,
    /// True if a row may have no value. A join may have none if one of its columns may.
    pub is_optional: bool,
    /// The value that reports have in place of none.
    pub unknown: Option<String>,
}

/// An attribute of a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// The type of its values: any but a time.
    pub type_: Type,
    /// Its place in the file's lines: a name or a number.
    pub place: Place,
    /// True if a line may have no value. In any case a row has none if the file lacks its key.
    pub is_optional: bool,
    /// The value that reports have in place of none.
    pub unknown: Option<String>,
    /// The ASCII character between several values of a line, which is in none of them. A key then has the values of all
    /// its lines, each once. A value that the type does not take is passed over, and the line's others count. Only ids
    /// and texts may be many.
    pub many: Option<u8>,
}

/// A type: the values that are accepted. A row with another value is rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// Visible ASCII characters, at least one.
    Id {
        /// Most characters: 1 to [`MAX_VALUE_BYTES`].
        max_bytes: usize,
    },
    /// UTF-8, at least one byte.
    Text {
        /// Most bytes: 1 to [`MAX_VALUE_BYTES`].
        max_bytes: usize,
        /// True if a longer value is cut, at the last character that fits whole, instead of rejected.
        is_cut: bool,
    },
    /// A whole number.
    Integer {
        /// The least value.
        min: i64,
        /// The greatest value.
        max: i64,
    },
    /// A decimal number, kept as an integer of units of 10^-`places`. Nothing is ever rounded.
    Decimal {
        /// Most digits after the point, zeros at the end aside: 1 to 9.
        places: u8,
        /// The least value, in units. Like `max`, it has at most 18 digits.
        min: i64,
        /// The greatest value, in units.
        max: i64,
    },
    /// A point in time, kept in microseconds since the Unix epoch.
    Time {
        /// The way it is written.
        format: TimeFormat,
        /// The zone of times that do not state theirs.
        zone: TimeZone,
    },
}

impl Type {
    /// Returns the most bytes of a value as a text of its own.
    pub fn most_bytes(&self) -> usize {
        match self {
            Type::Id { max_bytes } | Type::Text { max_bytes, .. } => *max_bytes,
            Type::Integer { .. } | Type::Decimal { .. } => 20,
            Type::Time { .. } => 32,
        }
    }

    /// Returns the digits after the point of a number of units.
    pub fn places(&self) -> u8 {
        if let Type::Decimal { places, .. } = self { *places } else { 0 }
    }

    /// Returns true for numbers of which some may be below 0.
    pub fn may_be_negative(&self) -> bool {
        matches!(self, Type::Integer { min, .. } | Type::Decimal { min, .. } if *min < 0)
    }
}

/// The way a time is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimeFormat {
    /// ISO 8601, in the forms of [`crate::input`].
    Iso,
    /// Seconds since the Unix epoch.
    Unix,
    /// Milliseconds since the Unix epoch.
    UnixMillis,
    /// Microseconds since the Unix epoch.
    UnixMicros,
    /// A pattern of [`jiff::fmt::strtime`] with a date. Without a time of day it is midnight.
    Pattern(String),
}

/// The origin of a column's values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A place in each row; or 2 to 4 places for texts and times, joined by blanks. If one of them has no value there
    /// is none.
    Places(Vec<Place>),
    /// A part of the object's key below the prefix, the same for all rows of a file.
    Key(KeyPart),
    /// Other columns, joined. If one of them has no value there is none.
    Join {
        /// The columns, 2 to 4 ids and texts, in the order of the text.
        columns: Vec<String>,
        /// The text between two of them, 1 to 16 bytes.
        with: String,
    },
}

/// A place in a row or a reference's line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A name in the header, in any letter case.
    Name(String),
    /// The number of a field, from 1.
    Number(usize),
    /// The keys from a JSON record down to the value.
    Path(Vec<String>),
}

/// A part of an object's key, after the prefix and between slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPart {
    /// The number of the part, from 1.
    Number(usize),
    /// The name `n` of the part `n=value`, whose value is meant.
    Name(String),
}
