//! The delta files of the version before definitions, which consumers of two versions share during a deployment. They
//! have ten columns with names of their own, which are found by their places here: what they mean follows from the plan
//! that was built in.
//!
//! A file has no columns of a definition, so that it is of the built-in one. This module goes with the next version.

use std::io::Cursor;

use crate::compute::deltas::{DATE, HOUR, ID, REPORT, label_from, period_of, sketch_of};
use crate::formats::parquet::ParquetError;
use crate::formats::parquet::read::Reader;
use crate::plan::Plan;
use crate::reports::figures::{Delta, Figures, Key, Labels};

/// The number of columns: report, id, date, rows, one sum, one sketch, and the labels of all reports.
const COLUMNS: usize = 10;
const FIRST_LABEL: usize = 6;

/// Returns true if a file has the columns of that version.
pub(super) fn has_columns(reader: &Reader<Cursor<&[u8]>>) -> bool {
    let names = reader.column_names();
    names.len() == COLUMNS && names[..3] == [REPORT, ID, DATE] && names[3] != HOUR
}

/// Reads such a file. Its reports were named in the singular; its labels are those of the reports, in their order.
pub(super) fn read(reader: Reader<Cursor<&[u8]>>, plan: &Plan, deltas: &mut Vec<Delta>) -> Result<(), ParquetError> {
    let names: Vec<String> = reader.column_names().into_iter().map(str::to_owned).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut first_labels = Vec::with_capacity(plan.reports.len());
    let mut labels = FIRST_LABEL;
    for report in &plan.reports {
        first_labels.push(labels);
        labels += report.labels.len();
    }
    if labels != COLUMNS {
        return Err(ParquetError::Decode("it is of the version before, which had another definition".to_owned()));
    }
    reader.read(&names, |columns| {
        let (reports, ids, days) = (columns.texts(REPORT)?, columns.texts(ID)?, columns.numbers::<i32>(DATE)?);
        let (rows, sums) = (columns.numbers::<i64>(names[3])?, columns.numbers::<i64>(names[4])?);
        let sketches = columns.bytes(names[5])?;
        for row in 0..columns.rows() {
            let index = plan
                .report_named(&format!("{}s", reports.value(row)))
                .ok_or_else(|| ParquetError::Decode(format!("no report {:?}", reports.value(row))))?;
            let slots = [rows.value(row), sums.value(row)];
            if slots.iter().any(|&value| value < 0) {
                return Err(ParquetError::Decode("a negative count".to_owned()));
            }
            let places = (first_labels[index]..).zip(&plan.reports[index].labels);
            let labels = places.map(|(place, label)| Ok(label_from(columns.texts(names[place])?.get(row), label.many)));
            deltas.push(Delta {
                key: Key { report: index, id: ids.value(row).to_owned(), period: period_of(days.value(row), None)? },
                figures: Figures {
                    slots: slots.into_iter().map(Some).collect(),
                    distinct: vec![Some(sketch_of(sketches.value(row))?)],
                },
                labels: Labels(labels.collect::<Result<_, ParquetError>>()?),
            });
        }
        Ok(())
    })
}
