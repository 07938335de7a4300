//! Columns: the arrays of the rows, the attributes of references, and the columns of the curated files.

use crate::definition::conditions::Test;
use crate::formats::parquet;

/// The column of a curated file that has the key of the row's file.
pub const SOURCE_COLUMN: &str = "source_key";

/// The places of a column of the definition in the rows. It may have several, or be the rows' time; a column that is
/// neither counted by a report nor shown has at least the one that the curated files need.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Places {
    /// Its place among [`Plan::codes`](crate::plan::Plan::codes).
    pub code: Option<usize>,
    /// Its place among [`Plan::ints`](crate::plan::Plan::ints).
    pub int: Option<usize>,
    /// True for the column that says when: it is the rows' time.
    pub is_time: bool,
}

/// The values that codes stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Texts: ids, texts and joins.
    Text,
    /// Integers.
    Number,
}

/// A column that rows have as codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeColumn {
    /// Its name.
    pub name: String,
    /// Its place among the definition's columns.
    pub column: usize,
    /// The kind of its values.
    pub kind: Kind,
    /// Most bytes of a text.
    pub max_bytes: usize,
    /// True if a row may have no value. Such rows have a code of their own.
    pub is_optional: bool,
    /// The value that reports have in place of none.
    pub unknown: Option<String>,
}

/// A column that rows have as integers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntColumn {
    /// Its name.
    pub name: String,
    /// Its place among the definition's columns.
    pub column: usize,
}

/// An attribute of a reference: an array by the codes of the reference's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its reference, and its place among that one's attributes.
    pub reference: (usize, usize),
    /// The code column that is the reference's key.
    pub code: usize,
    /// The kind of its values.
    pub kind: Kind,
    /// Digits after the point of a decimal, which is a number of units of the last one; else 0.
    pub places: u8,
    /// True if its values have codes: all texts do, and numbers that are compared.
    pub has_codes: bool,
    /// True if equal values must have one code: the attribute is the key of a report, counted or listed under.
    pub is_compared: bool,
    /// The character between several values of a key, if it may have several.
    pub many: Option<char>,
    /// The value that reports have in place of none.
    pub unknown: Option<String>,
}

/// A value with a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Coded {
    /// Of a code column.
    Column(usize),
    /// Of an attribute of the code column that is its reference's key.
    Attribute(usize),
}

/// A value that is an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// Of an integer column.
    Int(usize),
    /// The row's time.
    Time,
    /// Of an attribute.
    Attribute(usize),
}

/// A column of the curated files.
#[derive(Debug, Clone, PartialEq)]
pub struct CuratedColumn {
    /// Its name, type and nullability.
    pub column: parquet::Column,
    /// Its values.
    pub values: CuratedValues,
}

/// The values of a column of the curated files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CuratedValues {
    /// A code column's.
    Code(usize),
    /// An integer column's.
    Int(usize),
    /// The rows' times.
    Time,
    /// An attribute's. An attribute with many has them joined by its character.
    Attribute(usize),
    /// The keys of the rows' files.
    Source,
}

/// Conditions, all of which hold for the rows that a measure takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask(pub Vec<Condition>);

/// A condition of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The value that is tested.
    pub of: Operand,
    /// The test.
    pub test: Test,
}

/// The subject of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operand {
    /// A code column.
    Code(usize),
    /// An integer column.
    Int(usize),
    /// The row's time, which is always there.
    Time,
}
