//! The plan: a definition with every name resolved to a number, once, before any row is read.
//!
//! Data and nothing else. A [`Plan`] says which arrays the rows are kept in, which of them a report sums and sorts, and
//! what its items and files look like; the folders above carry it out with loops over arrays. A type matters only where
//! values are read and shown: between the two there are codes, integers and times.
//!
//! * A **code** stands for a value of one column: the keys of its references first, then the other values in the order
//!   in which the batch meets them. Ids, texts and joins have codes, and integers that are a key or counted.
//! * An **integer** is a number, a decimal in its units, or a time in microseconds.
//! * The **time** of a row is that of the definition's time column.
//!
//! | file | contents |
//! |---|---|
//! | [`columns`] | the arrays of the rows, attributes of references, columns of the curated files, conditions |
//! | [`reports`] | reports: keys, figures and how they are shown, labels, top lists |
//! | [`folding`] | what is summed and sorted for all reports of a key |
//! | [`period`] | days and hours |
//! | [`zone`] | the days of a time zone |
//! | `compile` | from the definition to the plan |

pub mod columns;
mod compile;
pub mod folding;
pub mod period;
pub mod reports;
pub mod zone;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::definition::Definition;
use crate::plan::columns::{Attribute, CodeColumn, Coded, CuratedColumn, IntColumn, Mask, Places};
use crate::plan::folding::Folding;
use crate::plan::period::{MICROS_PER_HOUR, Period};
use crate::plan::reports::Report;
use crate::plan::zone::Zone;
use crate::values::time::TimeFormat;

/// The code of no value, in what a block of rows hands on. In [`crate::compute::Rows`] it is a code of its own.
pub const NO_CODE: u32 = u32::MAX;
/// The integer of no value. No column has it as a value.
pub const NO_NUMBER: i64 = i64::MIN;

/// A definition in numbers: an index says which of the columns, attributes or reports is meant.
#[derive(Debug)]
pub struct Plan {
    /// The definition as it was written.
    pub definition: Arc<Definition>,
    /// Its digest, which manifests name.
    pub digest: String,
    /// The places of each column of the definition, in its order.
    pub columns: Vec<Places>,
    /// The columns that rows have as codes.
    pub codes: Vec<CodeColumn>,
    /// The columns that rows have as integers.
    pub ints: Vec<IntColumn>,
    /// The code column that is the key of each reference, in the definition's order.
    pub references: Vec<usize>,
    /// The attributes of all references, in the definition's order.
    pub attributes: Vec<Attribute>,
    /// The columns of the curated files.
    pub curated: Vec<CuratedColumn>,
    /// The conditions of measures, each set of them once.
    pub masks: Vec<Mask>,
    /// The reports, in the definition's order.
    pub reports: Vec<Report>,
    /// The work on the rows of a day, for the reports by day.
    pub days: Folding,
    /// The work on the rows of an hour, for the reports by hour.
    pub hours: Folding,
    /// The zone of the days.
    pub zone: Zone,
    /// The notation of each column of the definition that is a time, in the definition's order.
    pub times: Vec<Option<TimeFormat>>,
    /// The first time that a row may have, in microseconds since the Unix epoch.
    pub earliest: i64,
    /// The first period that each report counts; all without one.
    pub since: Vec<Option<Period>>,
}

/// The error of a definition that cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the definition cannot be carried out: {0}")]
pub struct PlanError(String);

impl Plan {
    /// Resolves the names of a definition. The error names one that refers to nothing, which the checks of definitions
    /// exclude.
    pub fn of(definition: Definition) -> Result<Self, PlanError> {
        compile::plan_of(definition).map_err(PlanError)
    }

    /// Returns the same plan, but reports with these tables count nothing before these periods. The error names a text
    /// that is no period.
    pub fn since(mut self, since: &BTreeMap<String, String>) -> Result<Self, PlanError> {
        for (first, report) in self.since.iter_mut().zip(&self.reports) {
            let Some(text) = since.get(&report.table) else { continue };
            let period = Period::parse(text).filter(|period| matches!(period, Period::Hour(_)) == report.is_hourly);
            *first = Some(period.ok_or_else(|| PlanError(format!("{text} is no period of {}", report.name)))?);
        }
        Ok(self)
    }

    /// Returns true if a report counts a period.
    pub fn counts(&self, report: usize, period: Period) -> bool {
        self.since[report].is_none_or(|since| since <= period)
    }

    /// Returns the plan of the built-in definition.
    pub fn built_in() -> Result<Arc<Self>, PlanError> {
        let definition = Definition::built_in().map_err(|problems| PlanError(problems.describe("the built-in one")))?;
        Plan::of(definition).map(Arc::new)
    }

    /// Returns the report of this name, as an index.
    pub fn report_named(&self, name: &str) -> Option<usize> {
        self.reports.iter().position(|report| report.name == name)
    }

    /// Returns the columns of curated files by which rows of a day are sorted, so that equal values are neighbours:
    /// that of the first report that has one, and the time.
    pub fn clustering(&self) -> Vec<String> {
        let code = self.reports.iter().find_map(|report| report.key).map(|key| match key {
            Coded::Column(code) => code,
            Coded::Attribute(attribute) => self.attributes[attribute].code,
        });
        let column = code.map(|code| self.codes[code].name.clone());
        column.into_iter().chain([self.definition.time.clone()]).collect()
    }

    /// Returns true if any report has items by hour.
    pub fn has_hours(&self) -> bool {
        !self.hours.bases.is_empty()
    }

    /// Returns the periods of a report that are, or belong to, a day.
    pub fn periods_of(&self, report: &Report, day: i32) -> Vec<Period> {
        if report.is_hourly { self.zone.hours_of(day) } else { vec![Period::Day(day)] }
    }

    /// Returns the day that a period is or belongs to.
    pub fn day_of(&self, period: Period) -> i32 {
        match period {
            Period::Day(day) => day,
            Period::Hour(hour) => self.zone.day_of(i64::from(hour) * MICROS_PER_HOUR),
        }
    }

    /// Bytes of a row in memory.
    pub fn row_bytes(&self) -> usize {
        // A time, a source and the columns.
        let bytes = 8 + 4 + 4 * self.codes.len() + 8 * self.ints.len();
        // Rows are copied to split them by hour.
        if self.has_hours() { 2 * bytes } else { bytes }
    }
}
