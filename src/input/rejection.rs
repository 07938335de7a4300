//! Rejections: the reasons why a row is not good, in a word and in a sentence.

use std::fmt::{self, Display};

use crate::calendar::{MICROS_PER_DAY, date_text};
use crate::input::rules::{Accepts, Rules};

/// A reason why a row is not good. Columns are numbers in the definition's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rejection {
    /// The number of fields is not the header's.
    Width { fields: usize, expected: usize },
    /// There are fewer fields than the definition reads, and no header.
    Narrow { fields: usize, needed: usize },
    /// Text follows the quote that closes a field.
    Quotes,
    /// The record is no JSON.
    Json,
    /// The record is a text, a number, `true`, `false` or `null`.
    NoObject,
    /// A key that is read is there twice.
    Repeated,
    /// A document has no list of records.
    NoList,
    /// A column that needs a value has none.
    Missing(usize),
    /// The value is not of the column's type.
    Value(usize),
    /// The value has more digits after the point than the column.
    Places(usize),
    /// The value is not UTF-8.
    Utf8(usize),
    /// The value is longer than the column allows.
    Long(usize),
    /// The value is an object or a list.
    Nested(usize),
    /// The value is a local time that clocks never showed.
    Skipped(usize),
    /// The time is not one that a row may have.
    TimeRange,
}

impl Rejection {
    /// Returns the reason in a word: the label of a metric.
    pub(super) fn kind(self, rules: &Rules) -> String {
        match self {
            Rejection::Width { .. } | Rejection::Narrow { .. } => "width".to_owned(),
            Rejection::Quotes => "quotes".to_owned(),
            Rejection::Json | Rejection::NoObject | Rejection::Repeated | Rejection::NoList => "json".to_owned(),
            Rejection::Missing(_) => "missing".to_owned(),
            Rejection::Value(column)
            | Rejection::Places(column)
            | Rejection::Utf8(column)
            | Rejection::Long(column)
            | Rejection::Nested(column)
            | Rejection::Skipped(column) => rules.columns[column].name.clone(),
            Rejection::TimeRange => format!("{}_range", rules.columns[rules.time].name),
        }
    }

    /// Returns the reason in a sentence.
    pub(super) fn words(self, rules: &Rules) -> String {
        let name = |column: usize| &rules.columns[column].name;
        match self {
            Rejection::Width { fields, expected } => format!("{fields} fields, the header has {expected}"),
            Rejection::Narrow { fields, needed } => format!("{fields} fields, and field {needed} is read"),
            Rejection::Quotes => "text follows the quote that closes a field".to_owned(),
            Rejection::Json => "the record is not JSON".to_owned(),
            Rejection::NoObject => "the record is not an object".to_owned(),
            Rejection::Repeated => "a key that is read is there twice".to_owned(),
            Rejection::NoList => "the document has no list of records".to_owned(),
            Rejection::Missing(column) => format!("{} is empty", name(column)),
            Rejection::Value(column) => format!("{} is not {}", name(column), Expected(&rules.columns[column].accepts)),
            Rejection::Places(column) => match rules.columns[column].accepts {
                Accepts::Decimal { places: 1, .. } => format!("{} has more than 1 decimal place", name(column)),
                Accepts::Decimal { places, .. } => format!("{} has more than {places} decimal places", name(column)),
                _ => format!("{} has decimal places", name(column)),
            },
            Rejection::Utf8(column) => format!("{} is not UTF-8", name(column)),
            Rejection::Long(column) => match rules.columns[column].accepts {
                Accepts::Text { max, .. } => format!("{} is longer than {max} bytes", name(column)),
                _ => format!("{} is too long", name(column)),
            },
            Rejection::Nested(column) => format!("{} is an object or a list", name(column)),
            Rejection::Skipped(column) => {
                format!("{} is a time that its zone does not have: clocks were put forward past it", name(column))
            }
            Rejection::TimeRange => {
                let (name, future) = (name(rules.time), Ahead(rules.future));
                format!(
                    "{name} is before {} or more than {future} in the future",
                    date_text(rules.plan.definition.earliest)
                )
            }
        }
    }
}

/// A description of accepted values, behind "is not".
struct Expected<'r>(&'r Accepts);

impl Display for Expected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Accepts::Id { max } => write!(f, "1 to {max} visible ASCII characters"),
            Accepts::Text { max, .. } => write!(f, "a text of 1 to {max} bytes"),
            Accepts::Integer { min, max } => match (*min, *max) {
                (1, i64::MAX) => f.write_str("a positive integer"),
                (min, i64::MAX) if min <= -i64::MAX => f.write_str("an integer"),
                (min, i64::MAX) => write!(f, "an integer from {min} on"),
                (min, max) if min <= -i64::MAX => write!(f, "an integer up to {max}"),
                (min, max) => write!(f, "an integer from {min} to {max}"),
            },
            Accepts::Decimal { places, min, max } => {
                const LEAST: i64 = -999_999_999_999_999_999;
                let units = |units| Units { units, places: *places };
                match (*min, *max) {
                    (LEAST, max) if max == -LEAST => f.write_str("a decimal number"),
                    (min, max) if max == -LEAST => write!(f, "a decimal number from {} on", units(min)),
                    (LEAST, max) => write!(f, "a decimal number up to {}", units(max)),
                    (min, max) => write!(f, "a decimal number from {} to {}", units(min), units(max)),
                }
            }
            Accepts::Time(format) => write!(f, "a time like {}", format.example()),
        }
    }
}

/// A decimal of so many units of its last place.
struct Units {
    units: i64,
    places: u32,
}

impl Display for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = 10_u64.pow(self.places);
        let (whole, rest) = (self.units.unsigned_abs() / unit, self.units.unsigned_abs() % unit);
        let sign = if self.units < 0 { "-" } else { "" };
        match format!("{rest:0width$}", width = self.places as usize).trim_end_matches('0') {
            "" => write!(f, "{sign}{whole}"),
            rest => write!(f, "{sign}{whole}.{rest}"),
        }
    }
}

/// A time by which something is ahead, in microseconds.
struct Ahead(i64);

impl Display for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == MICROS_PER_DAY {
            return f.write_str("a day");
        }
        let duration = std::time::Duration::from_micros(self.0.unsigned_abs());
        write!(f, "{}", humantime::format_duration(duration))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_values_are_described() {
        const NINES: i64 = 999_999_999_999_999_999;
        for (accepts, expected) in [
            (Accepts::Integer { min: 1, max: i64::MAX }, "a positive integer"),
            (Accepts::Integer { min: 0, max: i64::MAX }, "an integer from 0 on"),
            (Accepts::Integer { min: i64::MIN, max: i64::MAX }, "an integer"),
            (Accepts::Integer { min: i64::MIN + 1, max: 7 }, "an integer up to 7"),
            (Accepts::Integer { min: -5, max: 7 }, "an integer from -5 to 7"),
            (Accepts::Decimal { places: 2, min: -NINES, max: NINES }, "a decimal number"),
            (Accepts::Decimal { places: 2, min: 0, max: NINES }, "a decimal number from 0 on"),
            (Accepts::Decimal { places: 3, min: -50, max: 1250 }, "a decimal number from -0.05 to 1.25"),
            (Accepts::Id { max: 64 }, "1 to 64 visible ASCII characters"),
        ] {
            assert_eq!(Expected(&accepts).to_string(), expected);
        }
        assert_eq!(Ahead(MICROS_PER_DAY).to_string(), "a day");
        assert_eq!(Ahead(90 * 60_000_000).to_string(), "1h 30m");
    }
}
