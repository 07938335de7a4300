//! Seen: what is kept of the rows of a trial, in place of curated files. A few of the first ones, the first rejected
//! ones for each reason, and what no row has.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use crate::batch::prepare::{Destination, PrepareError};
use crate::compute::curated::{self, CuratedValue};
use crate::compute::{Names, Rows};
use crate::formats::parquet::{RowGroup, Type};
use crate::input::file::{Blocks, Recognized};
use crate::plan::columns::{CuratedColumn, Places};
use crate::plan::{NO_NUMBER, Plan};
use crate::reports::figures::decimal_text;
use crate::reports::item::time_text;

/// Most reasons whose rejected rows are shown.
const MAX_REASONS: usize = 20;

/// What is kept of the rows.
pub(super) struct Seen {
    plan: Arc<Plan>,
    most: usize,
    recognized: Option<Recognized>,
    /// Number of good rows.
    pub(super) rows: u64,
    /// The first good rows: the values of the curated columns.
    pub(super) first: Vec<Vec<Value>>,
    /// By column of the definition: some row has a value.
    has_value: Vec<bool>,
    /// By reference: the rows whose key it has.
    pub(super) found: Vec<u64>,
    /// The first rejected rows for each reason, in the order of the files.
    pub(super) rejected: Vec<RejectedRow>,
    of_reason: HashMap<String, usize>,
}

/// A rejected row, as the list of rejected rows has it.
#[derive(Debug, serde::Deserialize, serde::Serialize)]
pub(super) struct RejectedRow {
    /// The key of its file.
    pub(super) object: String,
    pub(super) line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) record: Option<u64>,
    pub(super) reason: String,
    pub(super) fields: Vec<String>,
}

impl Seen {
    /// Nothing yet. At most `most` rows are kept, and rejected rows for each reason.
    pub(super) fn new(plan: &Arc<Plan>, most: usize) -> Self {
        Seen {
            plan: Arc::clone(plan),
            most,
            recognized: None,
            rows: 0,
            first: Vec::new(),
            has_value: vec![false; plan.columns.len()],
            found: vec![0; plan.references.len()],
            rejected: Vec::new(),
            of_reason: HashMap::new(),
        }
    }

    /// Takes the form of the file that was opened last.
    pub(super) fn take_recognized(&mut self) -> Option<Recognized> {
        self.recognized.take()
    }

    /// Returns the columns of which no row has a value. There is a row.
    pub(super) fn empty_columns(&self) -> Vec<&str> {
        let columns = self.plan.definition.columns.iter().zip(&self.has_value);
        columns.filter(|(_, has_value)| self.rows > 0 && !**has_value).map(|(column, _)| column.name.as_str()).collect()
    }

    fn keep_rejected(&mut self, row: RejectedRow) {
        if self.of_reason.len() >= MAX_REASONS && !self.of_reason.contains_key(&row.reason) {
            return;
        }
        let of_reason = self.of_reason.entry(row.reason.clone()).or_default();
        *of_reason += 1;
        if *of_reason <= self.most {
            self.rejected.push(row);
        }
    }
}

impl Destination for Seen {
    fn opened(&mut self, file: &Blocks) {
        self.recognized = Some(file.recognized());
    }

    fn rows(&mut self, rows: &Rows, names: &Names) {
        self.rows += rows.len() as u64;
        for row in 0..rows.len().min(self.most - self.first.len()) {
            let value = |column| shown(column, curated::value(column, rows, row, names));
            self.first.push(self.plan.curated.iter().map(value).collect());
        }
        for (has_value, places) in self.has_value.iter_mut().zip(&self.plan.columns) {
            *has_value = *has_value || has_any(*places, rows, names);
        }
        for (reference, (found, &code)) in self.found.iter_mut().zip(&self.plan.references).enumerate() {
            let has = |&&code: &&u32| names.references().has_key(reference, code);
            *found += rows.codes[code].iter().filter(has).count() as u64;
        }
    }

    /// A trial has no curated files.
    async fn curated(&mut self, _: Vec<(i32, RowGroup)>) -> Result<(), PrepareError> {
        Ok(())
    }

    async fn rejected(&mut self, lines: Vec<u8>) -> Result<(), PrepareError> {
        // The last line of a file may give numbers of unlisted rows, and is none of them.
        let rows = lines.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
        rows.for_each(|row| self.keep_rejected(row));
        Ok(())
    }
}

/// Returns true if a row has a value in these places.
fn has_any(places: Places, rows: &Rows, names: &Names) -> bool {
    if let Some(code) = places.code {
        let none = names.no_value(code);
        return rows.codes[code].iter().any(|code| Some(*code) != none);
    }
    places.int.is_none_or(|int| rows.ints[int].iter().any(|&number| number != NO_NUMBER))
}

/// Returns a value as the curated file has it: a decimal is an exact number, a time a text.
fn shown(column: &CuratedColumn, value: CuratedValue<'_>) -> Value {
    match (value, column.column.type_) {
        (CuratedValue::None, _) => Value::Null,
        (CuratedValue::Text(text), _) => Value::from(text),
        (CuratedValue::Number(micros), Type::Timestamp) => Value::from(time_text(micros)),
        (CuratedValue::Number(units), Type::Decimal { places }) => {
            Value::Number(serde_json::from_str(&decimal_text(units.into(), places)).unwrap_or_else(|_| 0.into()))
        }
        (CuratedValue::Number(number), _) => Value::from(number),
    }
}
