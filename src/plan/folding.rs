//! Folding: what is summed and sorted for the reports of one kind of period.
//!
//! The reports that follow from the codes of one column share a [`Base`]: whatever is summed is summed once for each
//! code, in a pass over the rows, and is then added to the items of all these reports. Distinct counts need the
//! different pairs of two codes. A [`Sort`] finds them for all reports that count the same pairs, from either side.

use crate::plan::columns::{Coded, Number};
use crate::plan::reports::{LatestValue, Merge};

/// The work on the rows of a period.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folding {
    /// The reports by the column whose codes their items follow from.
    pub bases: Vec<Base>,
    /// The pairs of codes that are counted.
    pub sorts: Vec<Sort>,
}

/// The reports whose items follow from the codes of one column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Base {
    /// The column; `None` for all rows together.
    pub code: Option<usize>,
    /// What is gathered of each code, beside the number of its rows.
    pub sources: Vec<Source>,
    /// The values of each code's latest row that labels need.
    pub latest: Vec<LatestValue>,
    /// The reports.
    pub targets: Vec<Target>,
}

/// Something that is gathered of the rows of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// The value of a row; `None` counts rows.
    pub of: Option<Number>,
    /// The way in which the values of two rows become one.
    pub merge: Merge,
    /// The rows that are taken; `None` for all.
    pub mask: Option<usize>,
}

/// A report, and the origin of its items' slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The report.
    pub report: usize,
    /// The attribute whose values are the items' keys; `None` if the codes are.
    pub spread: Option<usize>,
    /// The origin of each slot. The first one is the number of rows.
    pub slots: Vec<SlotSource>,
}

/// The origin of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotSource {
    /// The number of rows.
    Rows,
    /// Among [`Base::sources`].
    Gathered(usize),
    /// The number of rows times an attribute of the code.
    RowsTimes(usize),
    /// An attribute of the code.
    Attribute(usize),
}

/// Different pairs of codes, found by one sort.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sort {
    /// The column that comes first; `None` for all rows together.
    pub first: Option<usize>,
    /// The values that are counted for each of its codes.
    pub second: Coded,
    /// The rows that are taken; `None` for all.
    pub mask: Option<usize>,
    /// The distinct counts of the second for each code of the first.
    pub counts: Vec<Count>,
    /// The distinct counts of the first for each code of the second, which is a column then.
    pub reverse: Vec<Count>,
}

impl Sort {
    /// Returns true if the second code of a pair says which pair it is, so that no sort is needed to find the
    /// different ones: counts of all rows together, and those of a column for what follows from its own codes.
    pub fn is_of_one_code(&self) -> bool {
        self.first.is_none_or(|first| self.second == Coded::Column(first))
    }
}

/// A distinct count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// The report.
    pub report: usize,
    /// The attribute whose values are the items' keys; `None` if the codes are.
    pub spread: Option<usize>,
    /// The sketch.
    pub sketch: usize,
}
