//! The cost of a report's items: their bytes, as the program writes them, and the write units that DynamoDB asks for.

use serde::Serialize;

use crate::aws::item::field_bytes;
use crate::definition::Definition;
use crate::plan::period::Period;
use crate::plan::reports::{Figure, Report};
use crate::protocol::Applied;
use crate::reports::distinct::{Distinct, Member};
use crate::reports::figures::{Figures, Key, Label, Labels, MAX_VALUES};
use crate::reports::item::{ReportItem, fields_of, key_fields};

/// Bytes of a write unit.
const UNIT_BYTES: usize = 1024;
/// Bytes of a number at most.
const NUMBER_BYTES: usize = 21;
/// The assumptions behind the typical item, in words.
pub(super) const TYPICAL: &str = "typical: ids and texts of 24 bytes, sums of 7 digits, 100 different values in a \
                                  distinct count, 2 of a field that may have several";

/// The size of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct ItemCost {
    /// Its bytes.
    pub(super) bytes: usize,
    /// The units of a write of it.
    pub(super) write_units: usize,
}

/// The content of an item.
struct Content {
    /// Most bytes of a key or label.
    text_bytes: usize,
    /// Texts of a label with many.
    texts: usize,
    /// The number of rows, and the other figures.
    rows: i64,
    figure: i64,
    /// A time in microseconds.
    time: i64,
    /// Different values in a distinct count.
    distinct: i64,
    /// Batches that it lists.
    batches: u64,
}

/// Returns the cost of a typical item, and of the largest one.
pub(super) fn costs(definition: &Definition, report: &Report) -> (ItemCost, ItemCost) {
    let typical = Content {
        text_bytes: 24,
        texts: 2,
        rows: 1_000,
        figure: 1_000_000,
        time: 1_750_000_000_000_000,
        distinct: 100,
        batches: 2,
    };
    let largest = Content {
        text_bytes: usize::MAX,
        texts: MAX_VALUES,
        rows: i64::MAX,
        figure: i64::MAX,
        // Of the last day that there is, with all its digits.
        time: 253_402_207_199_999_999,
        distinct: 100_000,
        batches: 200,
    };
    let ratios = report.measures.iter().filter(|measure| matches!(measure.figure, Figure::Ratio { .. })).count();
    (cost(typical.bytes(definition, report)), cost(largest.bytes(definition, report) + ratios * NUMBER_BYTES))
}

fn cost(bytes: usize) -> ItemCost {
    ItemCost { bytes, write_units: bytes.div_ceil(UNIT_BYTES) }
}

impl Content {
    fn bytes(&self, definition: &Definition, report: &Report) -> usize {
        let text_bytes = |name: &str| {
            let most = definition.field(name).map_or(1, |field| field.type_().most_bytes());
            most.min(self.text_bytes)
        };
        let mut slots: Vec<Option<i64>> =
            report.slots.iter().map(|slot| Some(slot.merge.slot_of(self.figure))).collect();
        slots[0] = Some(self.rows);
        for measure in &report.measures {
            if let Figure::Time { slot } = measure.figure {
                slots[slot] = Some(report.slots[slot].merge.slot_of(self.time));
            }
        }
        let mut distinct = Distinct::default();
        if !report.sketches.is_empty() {
            (0..self.distinct).for_each(|value| distinct.insert(Member::of_number(value)));
        }
        let label = |label: &crate::plan::reports::Label| {
            let width = text_bytes(&label.name);
            match label.many {
                None => Label::One(Some("x".repeat(width))),
                Some(_) => Label::Many((0..self.texts).map(|number| format!("{number:0>width$}")).collect()),
            }
        };
        // Numbers of batches are those of years of them.
        let first = 100_000_000;
        let stored = ReportItem {
            figures: Figures { slots, distinct: report.sketches.iter().map(|_| Some(distinct.clone())).collect() },
            labels: Labels(report.labels.iter().map(label).collect()),
            applied: Applied { through: first, listed: (first + 1..=first + self.batches).collect() },
            version: 1_750_000_000_000,
        };
        let period = if report.is_hourly { Period::Hour(480_000) } else { Period::Day(20_000) };
        let key = Key { report: 0, id: "x".repeat(text_bytes(&report.key_attribute)), period };
        field_bytes(&key_fields(report, &key)) + field_bytes(&fields_of(report, &stored))
    }
}
