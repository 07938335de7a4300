//! Curated rows with the definition as it is written: values by name.

use std::borrow::Cow;

use crate::compute::curated::CuratedValue;
use crate::definition::columns::{Source, Type};
use crate::definition::conditions::{Condition, Test, Values};
use crate::definition::{Definition, Field};
use crate::formats::parquet;

/// The columns of a curated file that an audit reads: those of the definition, and the key of the row's file.
pub(super) fn curated_columns(definition: &Definition) -> Vec<(&str, parquet::Type)> {
    let of_field = |field: Field<'_>| match field.type_() {
        _ if is_join(field) => parquet::Type::Text,
        Type::Id { .. } | Type::Text { .. } => parquet::Type::Text,
        Type::Integer { min, max } if i32::try_from(*min).is_ok() && i32::try_from(*max).is_ok() => {
            parquet::Type::Int32
        }
        Type::Integer { .. } => parquet::Type::Int64,
        Type::Decimal { places, .. } => parquet::Type::Decimal { places: *places },
        Type::Time { .. } => parquet::Type::Timestamp,
    };
    let fields = definition.fields().map(|field| (field.name(), of_field(field)));
    fields.chain([("source_key", parquet::Type::Text)]).collect()
}

fn is_join(field: Field<'_>) -> bool {
    matches!(field, Field::Column(column) if matches!(column.source, Source::Join { .. }))
}

/// A curated row with its definition.
#[derive(Clone, Copy)]
pub(super) struct AuditedRow<'a> {
    pub(super) definition: &'a Definition,
    /// In the order of [`curated_columns`].
    pub(super) values: &'a [CuratedValue<'a>],
}

impl<'a> AuditedRow<'a> {
    pub(super) fn value(&self, name: &str) -> CuratedValue<'a> {
        let place = self.definition.fields().position(|field| field.name() == name);
        place.and_then(|place| self.values.get(place)).copied().unwrap_or(CuratedValue::None)
    }

    pub(super) fn number(&self, name: &str) -> Option<i64> {
        match self.value(name) {
            CuratedValue::Number(number) => Some(number),
            CuratedValue::None | CuratedValue::Text(_) => None,
        }
    }

    /// The row's time, in microseconds.
    pub(super) fn time(&self) -> i64 {
        self.number(&self.definition.time).unwrap_or(0)
    }

    /// The values of the columns that were read from the row's file, and the key of that file.
    pub(super) fn of_file(&self) -> (&'a [CuratedValue<'a>], CuratedValue<'a>) {
        let source = self.values.last().copied().unwrap_or(CuratedValue::None);
        (&self.values[..self.definition.columns.len()], source)
    }

    /// The texts of a field under which a report has the row: several of an attribute with many.
    pub(super) fn texts(&self, name: &str) -> Vec<Cow<'a, str>> {
        let field = self.definition.field(name);
        let many = match field {
            Some(Field::Attribute(_, attribute)) => attribute.many,
            Some(Field::Column(_)) | None => None,
        };
        match (self.value(name), many) {
            (CuratedValue::Text(text), Some(separator)) => {
                text.split(char::from(separator)).map(Cow::Borrowed).collect()
            }
            (CuratedValue::Text(text), None) => vec![Cow::Borrowed(text)],
            (CuratedValue::Number(number), _) => vec![Cow::Owned(number.to_string())],
            (CuratedValue::None, _) => {
                let unknown = field.and_then(|field| field.unknown());
                unknown.map(Cow::Borrowed).into_iter().collect()
            }
        }
    }

    pub(super) fn meets(&self, Condition { column, test }: &Condition) -> bool {
        match (test, self.value(column)) {
            (Test::In(Values::Texts(values)), CuratedValue::Text(text)) => values.iter().any(|value| value == text),
            (Test::NotIn(Values::Texts(values)), CuratedValue::Text(text)) => values.iter().all(|value| value != text),
            (Test::In(Values::Numbers(values)), CuratedValue::Number(number)) => values.contains(&number),
            (Test::NotIn(Values::Numbers(values)), CuratedValue::Number(number)) => !values.contains(&number),
            (Test::Within { min, max }, CuratedValue::Number(number)) => {
                number >= min.unwrap_or(i64::MIN) && number <= max.unwrap_or(i64::MAX)
            }
            (Test::Present(present), value) => *present == (value != CuratedValue::None),
            (test, _) => matches!(test, Test::NotIn(_)),
        }
    }
}
