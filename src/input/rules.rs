//! The rules of reading: the columns of a plan, the places that they are read from, and the conditions of rows.
//!
//! A row is good if each column has a value of its type, or none where it may have none. Nothing is trimmed, guessed or
//! repaired: any other row is rejected with its reason, and the original file is kept. A row that does not meet the
//! definition's conditions is neither: it is passed over.

use std::sync::Arc;

use crate::definition::columns::{KeyPart, Place, Source as Origin, Type};
use crate::definition::conditions::Test;
use crate::definition::input::{Delimited, Input};
use crate::formats::json::Paths;
use crate::plan::Plan;
use crate::plan::columns::Places;
use crate::values::number::MAX_PLACES;
use crate::values::time::TimeFormat;

/// The rules of a plan.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) plan: Arc<Plan>,
    pub(super) format: Format,
    /// The columns, in the definition's order.
    pub(super) columns: Vec<ColumnRule>,
    /// The conditions of the rows that are meant, each with its column.
    pub(super) conditions: Vec<(usize, Test)>,
    /// The column that says when, and the time by which it may be ahead, in microseconds.
    pub(super) time: usize,
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
    /// Returns the rules of a plan.
    pub(super) fn of(plan: Arc<Plan>) -> Self {
        let definition = &plan.definition;
        // The checks of definitions exclude names of nothing.
        let number_of = |name: &String| definition.columns.iter().position(|column| column.name == *name);
        let mut places = RecordPlaces::default();
        let mut columns = Vec::with_capacity(definition.columns.len());
        for (number, column) in definition.columns.iter().enumerate() {
            columns.push(ColumnRule {
                name: column.name.clone(),
                source: match &column.source {
                    Origin::Places(all) => match places.numbers(all, column.is_optional).as_slice() {
                        [one] => Source::Place(*one),
                        several => Source::Places(several.to_vec()),
                    },
                    Origin::Key(part) => Source::Key(part.clone()),
                    Origin::Join { columns, with } => {
                        Source::Join { columns: columns.iter().filter_map(number_of).collect(), with: with.clone() }
                    }
                },
                accepts: accepts_of(&column.type_, plan.times[number].as_ref()),
                is_optional: column.is_optional,
                places: plan.columns[number],
            });
        }
        let conditions = definition.conditions.iter();
        Rules {
            format: places.of_format(&definition.input),
            columns,
            conditions: conditions.filter_map(|it| Some((number_of(&it.column)?, it.test.clone()))).collect(),
            time: number_of(&definition.time).unwrap_or_default(),
            future: i64::try_from(definition.future.as_micros()).unwrap_or(i64::MAX),
            plan,
        }
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

fn accepts_of(type_: &Type, time: Option<&TimeFormat>) -> Accepts {
    match (type_, time) {
        (_, Some(format)) => Accepts::Time(format.clone()),
        (Type::Text { max_bytes, is_cut }, _) => Accepts::Text { max: *max_bytes, is_cut: *is_cut },
        // The least integer stands for no value.
        (Type::Integer { min, max }, _) => Accepts::Integer { min: (*min).max(-i64::MAX), max: *max },
        (Type::Decimal { places, min, max }, _) => {
            Accepts::Decimal { places: u32::from(*places).min(MAX_PLACES), min: *min, max: *max }
        }
        (Type::Id { max_bytes }, _) => Accepts::Id { max: *max_bytes },
        // A plan has the notation of each time.
        (Type::Time { .. }, None) => Accepts::Id { max: 0 },
    }
}
