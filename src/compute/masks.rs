//! Masks: the rows that meet the conditions of measures.
//!
//! Pure. A text is compared once for each code, whatever the number of its rows.

use crate::compute::names::{Names, Value};
use crate::compute::rows::Rows;
use crate::definition::conditions::{Test, Values};
use crate::plan::NO_NUMBER;
use crate::plan::columns::{Condition, Operand};

/// The codes that meet a condition, of those that were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Not,
    Yes,
    No,
}

/// What is known of the conditions of a plan's masks.
#[derive(Debug, Default)]
pub(super) struct Masks {
    /// By mask and condition, by code.
    known: Vec<Vec<Vec<Known>>>,
}

impl Masks {
    /// Returns, for each mask of the plan, the rows that meet it.
    pub(super) fn of(&mut self, rows: &Rows, names: &Names) -> Vec<Vec<bool>> {
        let masks = &names.plan().masks;
        self.known.resize_with(masks.len(), Vec::new);
        let mut met = Vec::with_capacity(masks.len());
        for (mask, known) in masks.iter().zip(&mut self.known) {
            known.resize_with(mask.0.len(), Vec::new);
            let mut rows_met = vec![true; rows.len()];
            for (condition, known) in mask.0.iter().zip(known) {
                restrict(&mut rows_met, condition, known, rows, names);
            }
            met.push(rows_met);
        }
        met
    }

    /// Bytes of memory.
    pub(super) fn memory_bytes(&self) -> usize {
        self.known.iter().flatten().map(Vec::capacity).sum()
    }
}

/// Leaves out the rows that do not meet a condition.
fn restrict(met: &mut [bool], condition: &Condition, known: &mut Vec<Known>, rows: &Rows, names: &Names) {
    match condition.of {
        Operand::Time => met.iter_mut().for_each(|met| *met &= condition.test == Test::Present(true)),
        Operand::Int(int) => {
            for (met, &value) in met.iter_mut().zip(&rows.ints[int]) {
                *met = *met && meets_number(&condition.test, value);
            }
        }
        Operand::Code(column) => {
            for (met, &code) in met.iter_mut().zip(&rows.codes[column]).filter(|(met, _)| **met) {
                let place = code as usize;
                if place >= known.len() {
                    known.resize(names.codes(column).max(place + 1), Known::Not);
                }
                if known[place] == Known::Not {
                    let is_met = meets_text(&condition.test, column, code, names);
                    known[place] = if is_met { Known::Yes } else { Known::No };
                }
                *met = known[place] == Known::Yes;
            }
        }
    }
}

fn meets_number(test: &Test, value: i64) -> bool {
    let is_present = value != NO_NUMBER;
    match test {
        Test::In(Values::Numbers(values)) => is_present && values.contains(&value),
        Test::NotIn(Values::Numbers(values)) => !is_present || !values.contains(&value),
        Test::Within { min, max } => {
            is_present && min.is_none_or(|min| min <= value) && max.is_none_or(|max| value <= max)
        }
        Test::Present(present) => *present == is_present,
        // A text is no number.
        Test::In(Values::Texts(_)) => false,
        Test::NotIn(Values::Texts(_)) => true,
    }
}

fn meets_text(test: &Test, column: usize, code: u32, names: &Names) -> bool {
    let value = match names.value(column, code) {
        _ if names.no_value(column) == Some(code) => None,
        Value::Text(text) => Some(text),
        Value::Number(number) => return meets_number(test, number),
    };
    let is_in = |values: &[String]| value.is_some_and(|value| values.iter().any(|it| it == value));
    match test {
        Test::In(Values::Texts(values)) => is_in(values),
        Test::NotIn(Values::Texts(values)) => !is_in(values),
        Test::Present(present) => *present == value.is_some(),
        // A number is no text.
        Test::In(Values::Numbers(_)) | Test::Within { .. } => false,
        Test::NotIn(Values::Numbers(_)) => true,
    }
}
