//! Values: the text of a field to an id, a text, a number or a time.
//!
//! Pure. A value is taken as it is written or not at all: nothing is trimmed, guessed, rounded or repaired. A
//! definition says which type a column has; nothing here knows a column.
//!
//! | type | accepts | becomes |
//! |---|---|---|
//! | [`text::id`] | visible ASCII characters, up to a number | a text |
//! | [`text::text`] | UTF-8, up to a number of bytes | a text |
//! | [`number::integer`] | `-12`, `12.0` | an `i64` |
//! | [`number::decimal`] | `12.5` with at most so many places | an `i64` in units of the last place |
//! | [`time::TimeFormat`] | ISO 8601, seconds since 1970, or a pattern | microseconds since 1970, UTC |
//!
//! | file | content |
//! |---|---|
//! | [`text`] | ids and texts |
//! | [`number`] | integers and decimals |
//! | [`time`] | times in any of their formats |
//! | `iso` | ISO 8601 |
//! | [`outside`] | values as they are shown, without what could harm a terminal or a page |
//! | `pattern` | patterns such as `%d/%b/%Y:%H:%M:%S %z` |
//! | [`zone`] | time zones, for times that do not say theirs and for the days of reports |

pub(crate) mod iso;
pub mod number;
pub mod outside;
mod pattern;
pub mod text;
pub mod time;
pub mod zone;
