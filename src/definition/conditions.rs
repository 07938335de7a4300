//! Conditions of rows, and of the rows that a measure takes.

/// A condition of a column that is read from the file. Of several all must hold, also of those for one column.
///
/// A row without a value in the column meets [`Test::NotIn`] and `Present(false)`, and no other test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The column: no join and no attribute.
    pub column: String,
    /// The test of its value.
    pub test: Test,
}

/// A test of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// The value is one of these.
    In(Values),
    /// The value is none of these.
    NotIn(Values),
    /// The number is within these bounds, both included. At least one of them is there.
    Within {
        /// The least value; of a decimal in its units.
        min: Option<i64>,
        /// The greatest value; of a decimal in its units.
        max: Option<i64>,
    },
    /// There is a value, or there is none.
    Present(bool),
}

impl Test {
    /// True if a row without a value does not meet it.
    pub fn asks_for_value(&self) -> bool {
        matches!(self, Test::In(_) | Test::Within { .. } | Test::Present(true))
    }
}

/// Values to compare with: at least one, each once, in the order in which they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Values {
    /// Of an id or a text.
    Texts(Vec<String>),
    /// Of an integer; or of a decimal, in its units.
    Numbers(Vec<i64>),
}
