//! Parts of a definition in words.

use crate::definition::columns::{KeyPart, MAX_VALUE_BYTES, Place, Source, TimeFormat, Type};
use crate::definition::conditions::{Condition, Test, Values};
use crate::definition::keys::limits::MAX_DECIMAL;
use crate::definition::reports::{Aggregate, Measure};
use crate::definition::{Definition, Field};
use crate::formats::parquet;
use crate::reports::figures::decimal_text;

/// Describes a type.
pub(super) fn type_of(field: Field<'_>) -> String {
    let between = |min: i64, max: i64, (least, greatest): (i64, i64), places: u8| {
        let number = |number: i64| decimal_text(number.into(), places);
        match (min, max) {
            _ if min <= least && max >= greatest => String::new(),
            _ if max >= greatest => format!(" from {} on", number(min)),
            _ if min <= least => format!(" up to {}", number(max)),
            _ => format!(" from {} to {}", number(min), number(max)),
        }
    };
    let described = match field.type_() {
        Type::Id { max_bytes } => format!("id of up to {max_bytes}"),
        Type::Text { max_bytes: MAX_VALUE_BYTES, is_cut: false } => "text".to_owned(),
        Type::Text { max_bytes, is_cut } => {
            format!("text of up to {max_bytes} bytes{}", if *is_cut { ", cut" } else { "" })
        }
        Type::Integer { min, max } => format!("integer{}", between(*min, *max, (i64::MIN, i64::MAX), 0)),
        Type::Decimal { places, min, max } => {
            let digits = if *places == 1 { "place" } else { "places" };
            let range = between(*min, *max, (-MAX_DECIMAL, MAX_DECIMAL), *places);
            format!("decimal of {places} {digits}{range}")
        }
        Type::Time { format, zone } => {
            let format = match format {
                TimeFormat::Iso => "iso",
                TimeFormat::Unix => "unix",
                TimeFormat::UnixMillis => "unix_ms",
                TimeFormat::UnixMicros => "unix_us",
                TimeFormat::Pattern(pattern) => pattern,
            };
            let zone = zone.iana_name().filter(|name| *name != "UTC");
            let zone = zone.map_or(String::new(), |name| format!(", else of {name}"));
            format!("time, {format}{zone}")
        }
    };
    match field {
        Field::Attribute(_, attribute) => match attribute.many {
            Some(many) => format!("{described}, many by {}", char::from(many)),
            None => described,
        },
        Field::Column(_) => described,
    }
}

/// Describes the place of a field's values.
pub(super) fn origin(field: Field<'_>) -> String {
    let place = |place: &Place| match place {
        Place::Name(name) => name.clone(),
        Place::Number(number) => format!("field {number}"),
        Place::Path(path) => path.join("."),
    };
    let column = match field {
        Field::Attribute(reference, attribute) => {
            return format!("{} of {}", place(&attribute.place), reference.name);
        }
        Field::Column(column) => column,
    };
    match &column.source {
        Source::Places(places) => places.iter().map(place).collect::<Vec<_>>().join(" and "),
        Source::Key(KeyPart::Number(number)) => format!("part {number} of the key"),
        Source::Key(KeyPart::Name(name)) => format!("part {name}= of the key"),
        Source::Join { columns, with } => format!("{}, joined by '{with}'", columns.join(", ")),
    }
}

/// Describes what becomes of a row without a value in a field.
pub(super) fn without_value(definition: &Definition, field: Field<'_>) -> String {
    let is_passed_over = |condition: &Condition| condition.column == field.name() && condition.test.asks_for_value();
    match (definition.may_lack(field), field.unknown()) {
        (false, _) if definition.conditions.iter().any(is_passed_over) => "row passed over".to_owned(),
        (false, _) => "row rejected".to_owned(),
        (true, Some(unknown)) => format!("null, '{unknown}' in reports"),
        (true, None) => "null".to_owned(),
    }
}

/// Returns the name of the type that a column of the curated files has.
pub(super) fn curated_type(type_: parquet::Type) -> String {
    match type_ {
        parquet::Type::Text => "STRING".to_owned(),
        parquet::Type::Bytes => "BINARY".to_owned(),
        parquet::Type::Int32 => "INT32".to_owned(),
        parquet::Type::Int64 => "INT64".to_owned(),
        parquet::Type::Date => "DATE".to_owned(),
        parquet::Type::Timestamp => "TIMESTAMP".to_owned(),
        parquet::Type::Decimal { places } => format!("DECIMAL(18, {places})"),
    }
}

/// Describes a measure.
pub(super) fn measure(definition: &Definition, measure: &Measure) -> String {
    let is_time = |name: &str| matches!(definition.field(name).map(|it| it.type_()), Some(Type::Time { .. }));
    let figure = match &measure.aggregate {
        Aggregate::Count => "the number of rows".to_owned(),
        Aggregate::Sum { of, divide: 1 } => format!("the sum of {of}"),
        Aggregate::Sum { of, divide } => format!("the sum of {of}, divided by {divide}"),
        Aggregate::Min { of } if is_time(of) => format!("the first {of}"),
        Aggregate::Max { of } if is_time(of) => format!("the last {of}"),
        Aggregate::Min { of } => format!("the least {of}"),
        Aggregate::Max { of } => format!("the greatest {of}"),
        Aggregate::Distinct { of } => format!("the number of different values of {of}"),
        Aggregate::Ratio { of, by, places } => {
            let rounded = match places {
                0 => "to a whole number".to_owned(),
                1 => "to 1 place".to_owned(),
                places => format!("to {places} places"),
            };
            format!("{of} divided by {by}, rounded {rounded}")
        }
    };
    match conditions(definition, &measure.conditions) {
        Some(conditions) => format!("{figure}, where {conditions}"),
        None => figure,
    }
}

/// Describes conditions that all hold.
pub(super) fn conditions(definition: &Definition, conditions: &[Condition]) -> Option<String> {
    let described: Vec<String> = conditions.iter().map(|it| condition(definition, it)).collect();
    (!described.is_empty()).then(|| described.join(" and "))
}

fn condition(definition: &Definition, Condition { column, test }: &Condition) -> String {
    let places = definition.column(column).map_or(0, |column| column.type_.places());
    let number = |number: i64| decimal_text(number.into(), places);
    let values = |values: &Values| match values {
        Values::Texts(texts) => texts.iter().map(|text| format!("'{text}'")).collect::<Vec<_>>().join(" or "),
        Values::Numbers(numbers) => numbers.iter().map(|&it| number(it)).collect::<Vec<_>>().join(" or "),
    };
    match test {
        Test::In(these) => format!("{column} is {}", values(these)),
        Test::NotIn(these) => format!("{column} is not {}", values(these)),
        Test::Within { min: Some(min), max: Some(max) } => {
            format!("{column} is from {} to {}", number(*min), number(*max))
        }
        Test::Within { min: Some(min), .. } => format!("{column} is {} or more", number(*min)),
        Test::Within { max, .. } => format!("{column} is {} or less", max.map_or(String::new(), number)),
        Test::Present(true) => format!("there is a value of {column}"),
        Test::Present(false) => format!("there is no value of {column}"),
    }
}
