//! The rules of reading: the columns of a plan, the places that they are read from, and the conditions of rows.
//!
//! A row is good if each column has a value of its type, or none where it may have none. Nothing is trimmed, guessed or
//! repaired: any other row is rejected with its reason, and the original file is kept. A row that does not meet the
//! definition's conditions is neither: it is passed over.

use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::calendar::MICROS_PER_DAY;
use crate::definition::columns::{Column, KeyPart, Place, Source as Origin, TimeFormat as WrittenFormat, Type};
use crate::definition::conditions::Test;
use crate::definition::input::{Delimited, Input};
use crate::formats::json::Paths;
use crate::plan::Plan;
use crate::plan::columns::Places;
use crate::values::number::MAX_PLACES;
use crate::values::time::TimeFormat;
use crate::values::zone::Zone;

/// The rules of a plan.
#[derive(Debug)]
pub struct Rules {
    pub(super) plan: Arc<Plan>,
    pub(super) format: Format,
    /// The columns, in the definition's order.
    pub(super) columns: Vec<ColumnRule>,
    /// The conditions of the rows that are meant, each with its column.
    pub(super) conditions: Vec<(usize, Test)>,
    /// The column that says when, the first time that a row may have, and the time by which it may be ahead.
    pub(super) time: usize,
    pub(super) earliest: i64,
    pub(super) future: i64,
}

/// The format of the files, and the places in a record that are read. A place's number is its position.
#[derive(Debug)]
pub(super) enum Format {
    /// Fields.
    Delimited { format: Arc<Delimited>, places: Vec<FieldPlace> },
    /// Values at paths.
    Json { records: Option<String>, paths: Paths },
}

/// A field that is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FieldPlace {
    pub(super) place: Place,
    /// Every column that is read from it may have no value.
    pub(super) is_optional: bool,
}

/// A column, as it is read.
#[derive(Debug)]
pub(super) struct ColumnRule {
    pub(super) name: String,
    pub(super) source: Source,
    pub(super) accepts: Accepts,
    pub(super) is_optional: bool,
    /// The arrays that its values go to.
    pub(super) places: Places,
}

/// The origin of a column's values.
#[derive(Debug)]
pub(super) enum Source {
    /// A place in the record.
    Place(usize),
    /// Places, joined by blanks.
    Places(Vec<usize>),
    /// A part of the file's key.
    Key(KeyPart),
    /// Other columns.
    Join { columns: Vec<usize>, with: String },
}

/// The values that a column accepts.
#[derive(Debug)]
pub(super) enum Accepts {
    Id { max: usize },
    Text { max: usize, is_cut: bool },
    Integer { min: i64, max: i64 },
    Decimal { places: u32, min: i64, max: i64 },
    Time(TimeFormat),
}

impl Rules {
    /// Compiles the rules of a plan. The error names what cannot be carried out, which the checks of definitions
    /// exclude.
    pub fn of(plan: Arc<Plan>) -> Result<Self, String> {
        let definition = &plan.definition;
        let number_of = |name: &str| {
            let number = definition.columns.iter().position(|column| column.name == name);
            number.ok_or_else(|| format!("there is no column {name}"))
        };
        let mut places = RecordPlaces::default();
        let mut columns = Vec::with_capacity(definition.columns.len());
        for (column, arrays) in definition.columns.iter().zip(&plan.columns) {
            columns.push(ColumnRule {
                name: column.name.clone(),
                source: match &column.source {
                    Origin::Places(all) => match places.numbers(all, column.is_optional).as_slice() {
                        [one] => Source::Place(*one),
                        several => Source::Places(several.to_vec()),
                    },
                    Origin::Key(part) => Source::Key(part.clone()),
                    Origin::Join { columns, with } => {
                        let columns = columns.iter().map(|name| number_of(name)).collect::<Result<_, _>>()?;
                        Source::Join { columns, with: with.clone() }
                    }
                },
                accepts: accepts_of(column)?,
                is_optional: column.is_optional,
                places: *arrays,
            });
        }
        let condition = |written: &crate::definition::conditions::Condition| {
            Ok::<_, String>((number_of(&written.column)?, written.test.clone()))
        };
        let zone = Zone::of(&definition.zone);
        Ok(Rules {
            format: places.of_format(&definition.input),
            columns,
            conditions: definition.conditions.iter().map(condition).collect::<Result<_, _>>()?,
            time: number_of(&definition.time)?,
            earliest: zone.beginning_of(i64::from(definition.earliest) * MICROS_PER_DAY),
            future: i64::try_from(definition.future.as_micros()).unwrap_or(i64::MAX),
            plan,
        })
    }

    /// Returns the plan.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Returns the number of places in a record.
    pub(super) fn places(&self) -> usize {
        match &self.format {
            Format::Delimited { places, .. } => places.len(),
            Format::Json { paths, .. } => paths.len(),
        }
    }
}

/// The places in a record that are read, each once.
#[derive(Default)]
struct RecordPlaces(Vec<FieldPlace>);

impl RecordPlaces {
    fn numbers(&mut self, places: &[Place], is_optional: bool) -> Vec<usize> {
        let number = |place: &Place| {
            let known = self.0.iter().position(|known| known.place == *place);
            let number = known.unwrap_or_else(|| {
                self.0.push(FieldPlace { place: place.clone(), is_optional: true });
                self.0.len() - 1
            });
            self.0[number].is_optional &= is_optional;
            number
        };
        places.iter().map(number).collect()
    }

    fn of_format(self, input: &Input) -> Format {
        match input {
            Input::Delimited(format) => Format::Delimited { format: Arc::new(format.clone()), places: self.0 },
            Input::Json { records } => {
                let path = |place: &FieldPlace| match &place.place {
                    Place::Path(keys) => keys.clone(),
                    Place::Name(name) => vec![name.clone()],
                    Place::Number(_) => Vec::new(),
                };
                let paths: Vec<Vec<String>> = self.0.iter().map(path).collect();
                Format::Json { records: records.clone(), paths: Paths::new(paths.iter().map(Vec::as_slice)) }
            }
        }
    }
}

fn accepts_of(column: &Column) -> Result<Accepts, String> {
    Ok(match &column.type_ {
        Type::Id { max_bytes } => Accepts::Id { max: *max_bytes },
        Type::Text { max_bytes, is_cut } => Accepts::Text { max: *max_bytes, is_cut: *is_cut },
        // The least integer stands for no value.
        Type::Integer { min, max } => Accepts::Integer { min: (*min).max(-i64::MAX), max: *max },
        Type::Decimal { places, min, max } => {
            Accepts::Decimal { places: u32::from(*places).min(MAX_PLACES), min: *min, max: *max }
        }
        Type::Time { format, zone } => Accepts::Time(format_of(format, zone)?),
    })
}

fn format_of(format: &WrittenFormat, zone: &TimeZone) -> Result<TimeFormat, String> {
    let name = match format {
        WrittenFormat::Iso => "iso",
        WrittenFormat::Unix => "unix",
        WrittenFormat::UnixMillis => "unix_ms",
        WrittenFormat::UnixMicros => "unix_us",
        WrittenFormat::Pattern(pattern) => pattern,
    };
    TimeFormat::new(name, Zone::of(zone))
}
