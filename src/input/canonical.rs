//! Canonical lines: an integer, an id of 22 characters and a time, and nothing else, as in
//! `17,5SuOikwiRyPMVoIQDJUgSV,2024-06-25 17:43:13`.
//!
//! Such a line is not even split: if a reference has the 22 bytes after the first comma as a key, and a well-formed
//! time stands between the next comma and a line feed, no delimiter can have been overlooked. Any definition may have
//! lines of this shape; those that are not like it are read like all others.
//!
//! Pure. Covered by the tests of [`crate::input`].

use crate::calendar::MICROS_PER_DAY;
use crate::definition::input::Delimited;
use crate::input::block::Parser;
use crate::input::codes::Codes;
use crate::input::layout::{Layout, Width};
use crate::input::rules::{Accepts, Rules, Source};
use crate::reference::keys::SHORT_ID_BYTES;
use crate::values::iso::{parse_time, time_of_day};
use crate::values::zone::Zone;

/// Length of `YYYY-MM-DD HH:MM:SS`.
const TIME_BYTES: usize = 19;
/// Number of digits that never overflow an `i64`.
const MAX_DIGITS: usize = 18;

/// The arrays of the three columns, and the integers that are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Canonical {
    /// Code columns of the integer and of the id.
    number: usize,
    id: usize,
    /// Integer column of the integer, if it has one too.
    int: Option<usize>,
    min: i64,
    max: i64,
}

/// The date of the last canonical line, with the byte after it, and its midnight: neighbouring lines mostly share it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LastDate {
    date: [u8; 11],
    midnight: i64,
}

impl Canonical {
    /// Returns the columns if the definition has exactly these three, in the first three fields.
    pub(super) fn of(rules: &Rules, format: &Delimited, of_place: &[Option<usize>], width: Width) -> Option<Self> {
        let begins_with_digit = |text: &String| text.as_bytes().first().is_some_and(u8::is_ascii_digit);
        let is_plain = format.delimiter == b',' && format.null.iter().all(String::is_empty);
        let has_conditions = !rules.conditions.is_empty() || format.comment.iter().any(begins_with_digit);
        if !is_plain || has_conditions || !matches!(width, Width::Exactly(3) | Width::AtLeast(..=3)) {
            return None;
        }
        let column_of = |field: usize| {
            rules.columns.iter().find(|column| match column.source {
                Source::Place(place) => of_place[place] == Some(field),
                Source::Places(_) | Source::Key(_) | Source::Join { .. } => false,
            })
        };
        let (number, id, time) = (column_of(0)?, column_of(1)?, column_of(2)?);
        let (Accepts::Integer { min, max }, Accepts::Id { max: SHORT_ID_BYTES.. }) = (&number.accepts, &id.accepts)
        else {
            return None;
        };
        let is_time = time.places.is_time && matches!(&time.accepts, Accepts::Time(format) if format.is_iso_in_utc());
        (is_time && rules.columns.len() == 3).then_some(Canonical {
            number: number.places.code?,
            id: id.places.code?,
            int: number.places.int,
            min: *min,
            max: *max,
        })
    }
}

impl Parser<'_> {
    /// Takes a canonical line at the start of the text. Returns its length with the line feed, or `None` if the line is
    /// not canonical.
    #[inline]
    pub(super) fn canonical(&mut self, columns: Canonical, text: &[u8]) -> Option<usize> {
        let (number, digits) = leading_number(text)?;
        let id_at = digits + 1;
        let time_at = id_at + SHORT_ID_BYTES + 1;
        let id = text.get(id_at..)?.first_chunk()?;
        let time = text.get(time_at..time_at + TIME_BYTES + 1)?;
        if text[time_at - 1] != b',' || time[TIME_BYTES] != b'\n' {
            return None;
        }
        // This comes before the date is kept: a time outside its day, such as 24:00:00, has the date of another day.
        let of_day = time_of_day(time[11..].first_chunk()?)?;
        let last = &mut self.last_date;
        if time[..last.date.len()] != last.date {
            last.midnight = parse_time(&time[..TIME_BYTES], &Zone::UTC)?.div_euclid(MICROS_PER_DAY) * MICROS_PER_DAY;
            last.date.copy_from_slice(&time[..11]);
        }
        let time = last.midnight + of_day;
        let Layout { rules, latest, .. } = self.layout;
        if time < rules.plan.earliest || time > *latest || number < columns.min || number > columns.max {
            return None;
        }
        let Codes::Texts(ids) = &self.codes[columns.id] else { return None };
        let id = ids.keys.find_short(id)?;
        let number_code = self.codes[columns.number].number(number);
        self.parsed.rows += 1;
        self.parsed.codes[columns.id].push(id);
        self.parsed.codes[columns.number].push(number_code);
        if let Some(int) = columns.int {
            self.parsed.ints[int].push(number);
        }
        self.parsed.times.push(time);
        Some(time_at + TIME_BYTES + 1)
    }
}

/// Returns the number before the first comma, and the number of its digits.
#[inline]
fn leading_number(text: &[u8]) -> Option<(i64, usize)> {
    let mut value = 0_i64;
    for (digits, &byte) in text.iter().take(MAX_DIGITS + 1).enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return (byte == b',' && digits > 0).then_some((value, digits));
        }
        // The loop ends at the nineteenth digit, so that 18 digits are taken at most.
        value = value.wrapping_mul(10).wrapping_add(i64::from(digit));
    }
    None
}
