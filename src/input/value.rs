//! Values: a place of a record to a value of its column.
//!
//! Pure. Covered by the tests of [`crate::input`] and [`crate::values`].

use crate::formats::Raw;
use crate::formats::json::unescaped;
use crate::input::layout::Constant;
use crate::input::rejection::Rejection;
use crate::input::rules::{Accepts, ColumnRule, Source};
use crate::values::number::{NotDecimal, decimal, integer};
use crate::values::text::{NotText, id, text};

/// A value of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'v> {
    Nothing,
    Text(&'v str),
    Number(i64),
}

/// A reason why there is no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Problem {
    Other,
    Places,
    Utf8,
    Long,
    Nested,
    /// A local time that clocks never showed.
    Skipped,
}

impl Problem {
    /// Returns the reason for rejecting a row by a column.
    pub(super) fn of_column(self, column: usize) -> Rejection {
        match self {
            Problem::Other => Rejection::Value(column),
            Problem::Places => Rejection::Places(column),
            Problem::Utf8 => Rejection::Utf8(column),
            Problem::Long => Rejection::Long(column),
            Problem::Nested => Rejection::Nested(column),
            Problem::Skipped => Rejection::Skipped(column),
        }
    }
}

/// Returns the value of a column in a record whose places are `raw`. A join has none here. `scratch` holds what is not
/// in the record as it stands.
#[inline]
pub(super) fn read<'v, 't: 'v>(
    column: &ColumnRule,
    constant: &'v Constant,
    raw: impl Fn(usize) -> Raw<'t>,
    scratch: &'v mut Vec<u8>,
) -> Result<Value<'v>, Problem> {
    match &column.source {
        Source::Place(place) => match raw(*place) {
            Raw::Text(bytes) => value_of(&column.accepts, bytes),
            Raw::Nothing => Ok(Value::Nothing),
            Raw::Escaped(written) => {
                scratch.clear();
                scratch.extend(unescaped(written).ok_or(Problem::Utf8)?);
                value_of(&column.accepts, scratch)
            }
            Raw::Nested => Err(Problem::Nested),
        },
        Source::Places(places) => {
            scratch.clear();
            for (index, &place) in places.iter().enumerate() {
                if index > 0 {
                    scratch.push(b' ');
                }
                match raw(place) {
                    Raw::Text(bytes) => scratch.extend_from_slice(bytes),
                    Raw::Nothing => return Ok(Value::Nothing),
                    Raw::Escaped(written) => scratch.extend(unescaped(written).ok_or(Problem::Utf8)?),
                    Raw::Nested => return Err(Problem::Nested),
                }
            }
            value_of(&column.accepts, scratch)
        }
        Source::Key(_) => Ok(match constant {
            Constant::Nothing => Value::Nothing,
            Constant::Text(text) => Value::Text(text),
            Constant::Number(number) => Value::Number(*number),
        }),
        Source::Join { .. } => Ok(Value::Nothing),
    }
}

/// Returns the value that bytes are for a column that accepts these.
#[inline]
pub(super) fn value_of<'v>(accepts: &Accepts, bytes: &'v [u8]) -> Result<Value<'v>, Problem> {
    let within = |number: i64, min: i64, max: i64| {
        if (min..=max).contains(&number) { Ok(Value::Number(number)) } else { Err(Problem::Other) }
    };
    match accepts {
        Accepts::Id { max } => id(bytes, *max).map(Value::Text).ok_or(Problem::Other),
        Accepts::Text { max, is_cut } => match text(bytes, *max, *is_cut) {
            // Also of a text whose first character is too long for the column.
            Ok("") => Err(Problem::Other),
            Ok(text) => Ok(Value::Text(text)),
            Err(NotText::Utf8) => Err(Problem::Utf8),
            Err(NotText::Long) => Err(Problem::Long),
        },
        Accepts::Integer { min, max } => within(integer(bytes).ok_or(Problem::Other)?, *min, *max),
        Accepts::Decimal { places, min, max } => {
            let number = decimal(bytes, *places).map_err(|problem| match problem {
                NotDecimal::Number => Problem::Other,
                NotDecimal::Places => Problem::Places,
            })?;
            within(number, *min, *max)
        }
        Accepts::Time(format) => format.parse(bytes).map(Value::Number).ok_or_else(|| match format.is_skipped(bytes) {
            true => Problem::Skipped,
            false => Problem::Other,
        }),
    }
}
