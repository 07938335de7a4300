//! Reports: keys, figures and how they are shown, labels, top lists.
//!
//! The figures of an item are an array of integers, its **slots**, and its **sketches**. The first slot is the number
//! of rows. Slots merge by addition or by taking the greater number; the least of some values is kept as the greatest
//! of their negatives, so that a slot without a value is [`NO_NUMBER`](crate::plan::NO_NUMBER) in both cases.

use crate::definition::reports::Unit;
use crate::plan::columns::{Coded, Number};
use crate::plan::period::Period;

/// The attribute of an item that has its number of rows, if no measure of the report is that.
pub const ROWS_ATTRIBUTE: &str = "applied_rows";

/// The attribute of an item that has the sketch of a distinct count.
pub const SKETCH_ATTRIBUTE: &str = "sketch";

/// A report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its name.
    pub name: String,
    /// Its DynamoDB table, without the prefix of all tables.
    pub table: String,
    /// The partition key of the table.
    pub key_attribute: String,
    /// The value that an item stands for; `None` for one item of all rows.
    pub key: Option<Coded>,
    /// True if its items are of hours and not of days.
    pub is_hourly: bool,
    /// The slots of an item. The first one is the number of rows.
    pub slots: Vec<Slot>,
    /// The attribute in which an item has the number of rows.
    pub rows_attribute: String,
    /// The sketches of an item: one for each measure that is a distinct count.
    pub sketches: Vec<Sketch>,
    /// The measures, in the definition's order.
    pub measures: Vec<Measure>,
    /// The labels, in the definition's order; then attributes that have lists under them and are not shown otherwise.
    pub labels: Vec<Label>,
    /// The top lists, if any are kept.
    pub top: Option<Top>,
}

impl Report {
    /// Returns true if an item has labels of its latest row.
    pub fn has_latest(&self) -> bool {
        self.labels.iter().any(|label| matches!(label.source, LabelSource::Latest(_)))
    }

    /// Returns its name and its table, for messages.
    pub fn with_table(&self) -> String {
        format!("{} (table {})", self.name, self.table)
    }

    /// The sort key of its table: the attribute that has the period.
    pub fn period_attribute(&self) -> &'static str {
        if self.is_hourly { Period::Hour(0) } else { Period::Day(0) }.attribute()
    }

    /// The slot by which the top lists are ordered.
    pub fn top_slot(&self) -> Option<usize> {
        match self.measures[self.top.as_ref()?.measure].figure {
            Figure::Number { slot, .. } | Figure::Time { slot } => Some(slot),
            Figure::Distinct { .. } | Figure::Ratio { .. } => None,
        }
    }
}

/// The sketch of a distinct count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sketch {
    /// The name of its measure.
    pub measure: String,
    /// The attribute in which an item has it: [`SKETCH_ATTRIBUTE`] if it is the only one, else `sketch_MEASURE`.
    pub attribute: String,
}

impl Sketch {
    /// Returns the attribute of a sketch that is not the only one.
    pub fn attribute_of(measure: &str) -> String {
        format!("{SKETCH_ATTRIBUTE}_{measure}")
    }
}

/// An integer of an item's figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The name of its measure; `rows` for the first one.
    pub name: String,
    /// The way in which two of them become one.
    pub merge: Merge,
}

/// The way in which two integers become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// Their sum. It stays within 64 bits: beyond, it is the greatest integer, or the least but one.
    Add,
    /// The greater one.
    Greatest,
    /// The lesser one, kept as the greater of the negatives.
    Least,
}

impl Merge {
    /// The integer that changes nothing.
    pub fn neutral(self) -> i64 {
        match self {
            Merge::Add => 0,
            Merge::Greatest | Merge::Least => crate::plan::NO_NUMBER,
        }
    }

    /// Merges a slot into another.
    #[inline]
    pub fn merge(self, slot: &mut i64, other: i64) {
        match self {
            // The least integer is that of no value.
            Merge::Add => *slot = slot.saturating_add(other).max(-i64::MAX),
            Merge::Greatest | Merge::Least => *slot = (*slot).max(other),
        }
    }

    /// Returns the slot of one value, or the value of a slot.
    #[inline]
    pub fn slot_of(self, value: i64) -> i64 {
        match self {
            // The least integer is that of no value, and is its own negative here.
            Merge::Least => value.wrapping_neg(),
            Merge::Add | Merge::Greatest => value,
        }
    }
}

/// A measure: an attribute of the item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measure {
    /// Its name.
    pub name: String,
    /// The figure.
    pub figure: Figure,
    /// The unit of the figure, for people.
    pub unit: Option<Unit>,
}

/// The origin of a measure, and the way it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// A slot, shown with some digits after the point.
    Number {
        /// The slot.
        slot: usize,
        /// Digits after the point.
        places: u8,
    },
    /// A slot that is a time in microseconds.
    Time {
        /// The slot.
        slot: usize,
    },
    /// The number of different values in a sketch.
    Distinct {
        /// The sketch.
        sketch: usize,
    },
    /// A measure divided by another, both of them in the same report.
    Ratio {
        /// The measure that is divided.
        of: usize,
        /// The measure by which it is divided.
        by: usize,
        /// Digits after the point to which it is rounded.
        places: u8,
    },
}

impl Figure {
    /// Digits after the point.
    pub fn places(self) -> u8 {
        match self {
            Figure::Number { places, .. } | Figure::Ratio { places, .. } => places,
            Figure::Time { .. } | Figure::Distinct { .. } => 0,
        }
    }
}

/// A text that is shown beside an item's figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Its name: the item's attribute.
    pub name: String,
    /// Its origin.
    pub source: LabelSource,
    /// The character between several values, if there may be several: such a label keeps the values of all batches.
    pub many: Option<char>,
    /// The value in place of none.
    pub unknown: Option<String>,
}

/// The origin of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelSource {
    /// An attribute of the item's key.
    OfKey(usize),
    /// The value that the key's latest row has, among [`Base::latest`](crate::plan::folding::Base::latest).
    Latest(usize),
}

/// A value of a key's latest row, and the way it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LatestValue {
    /// Of a code column.
    Code(usize),
    /// An integer, shown with some digits after the point.
    Number(Number, u8),
    /// A time in microseconds.
    Time(Number),
}

/// The top lists of a report: of each period one of all items, and one for each value of some labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Top {
    /// The measure by which they are ordered: a slot that never falls.
    pub measure: usize,
    /// The labels with a list under each of their values.
    pub under: Vec<usize>,
    /// Most entries of a list.
    pub keep: usize,
    /// The bytes at which a label of an entry is cut.
    pub label_bytes: usize,
}
