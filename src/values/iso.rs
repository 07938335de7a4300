//! ISO 8601: dates by month, week or day, times of day, fractions and zones.
//!
//! Pure.

use crate::calendar::{MICROS_PER_DAY, civil_from_days, days_from_civil, days_of, exact_days, two_digits};
use crate::values::zone::{Reading, Zone};

/// Returns the microseconds since midnight of `HH:MM:SS`.
#[inline]
pub(crate) fn time_of_day(text: &[u8; 8]) -> Option<i64> {
    let digits = [0, 1, 3, 4, 6, 7].map(|index| text[index].wrapping_sub(b'0'));
    let [hour, minute, second] = [0, 2, 4].map(|index| i64::from(digits[index]) * 10 + i64::from(digits[index + 1]));
    let well_formed = digits.iter().all(|&digit| digit <= 9) & (text[2] == b':') & (text[5] == b':');
    (well_formed & (hour <= 23) & (minute <= 59) & (second <= 59))
        .then_some((hour * 3600 + minute * 60 + second) * 1_000_000)
}

/// Parses a date and a time of ISO 8601:2004, with a space or a `T` between them. Digits past the microsecond are cut
/// off.
///
/// * The date: `2024-06-25`, `2024-W26-2` (week) or `2024-177` (day of the year), each also without its hyphens.
/// * The time: `17:43:13` with 1 to 9 digits of a second after a dot or comma, or `17:43`, each also without its
///   colons; `24:00` is the midnight after, and the leap second `23:59:60` (UTC) the second after it.
/// * The zone: `Z`, `+02:00`, `+0200`, `+02`.
#[inline]
pub(super) fn reading(field: &[u8]) -> Option<Reading> {
    parse_usual_time(field).or_else(|| parse_other_time(field))
}

/// Parses a date and a time of ISO 8601 to microseconds since the Unix epoch. Times without a zone are in this one.
pub(crate) fn parse_time(field: &[u8], zone: &Zone) -> Option<i64> {
    reading(field)?.in_zone(zone)
}

/// Parses `2024-06-25 17:43:13` with an optional fraction and zone, as nearly all times are written.
#[inline]
fn parse_usual_time(field: &[u8]) -> Option<Reading> {
    let (date, rest) = (field.get(..10)?, field.get(10..19)?);
    if !matches!(rest[0], b' ' | b'T' | b't') {
        return None;
    }
    let time_of_day = time_of_day(rest[1..].first_chunk()?)?;
    let (fraction, zone) = parse_fraction(&field[19..])?;
    let midnight = i64::from(days_of(date)?) * MICROS_PER_DAY;
    Some(Reading { micros: midnight + time_of_day + fraction, offset: parse_offset(zone)?, is_leap_second: false })
}

fn parse_other_time(field: &[u8]) -> Option<Reading> {
    let between = field.iter().position(|byte| matches!(byte, b' ' | b'T' | b't'))?;
    let midnight = i64::from(parse_any_date(&field[..between])?) * MICROS_PER_DAY;
    let time = &field[between + 1..];
    let hour = two_digits(time.get(..2)?)?;
    let (is_extended, time) = match &time[2..] {
        [b':', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let (minute, time) = (two_digits(time.get(..2)?)?, &time[2..]);
    let seconds = match time {
        [b':', rest @ ..] if is_extended => Some(rest),
        [b'0'..=b'9', ..] if !is_extended => Some(time),
        _ => None,
    };
    let (second, (fraction, zone)) = match seconds {
        Some(time) => (two_digits(time.get(..2)?)?, parse_fraction(&time[2..])?),
        None => (0, (0, time)),
    };
    let of_day = Reading::of_day(hour, minute, second, fraction)?;
    Some(Reading { micros: midnight + of_day.micros, offset: parse_offset(zone)?, ..of_day })
}

/// Parses a calendar date, week date or ordinal date, with or without hyphens, to days since the Unix epoch.
fn parse_any_date(date: &[u8]) -> Option<i32> {
    let year = (two_digits(date.get(..2)?)? * 100 + two_digits(date.get(2..4)?)?) as i32;
    let number = |digits: &[u8]| digits.iter().fold(0, |number, digit| number * 10 + i32::from(digit - b'0'));
    let is_number = |digits: &[u8]| digits.iter().all(u8::is_ascii_digit);
    match &date[4..] {
        [b'-', month @ .., b'-', _, _] if month.len() == 2 => days_of(date),
        &[a, b, c, d] if is_number(&[a, b, c, d]) => exact_days(year, number(&[a, b]), number(&[c, d])),
        &[b'-', b'W' | b'w', a, b, b'-', c] | &[b'W' | b'w', a, b, c] if is_number(&[a, b, c]) => {
            days_of_week(year, number(&[a, b]), number(&[c]))
        }
        &[b'-', a, b, c] | &[a, b, c] if is_number(&[a, b, c]) => {
            let days = days_from_civil(year, 1, 1) + number(&[a, b, c]) - 1;
            (civil_from_days(days).0 == year).then_some(days)
        }
        _ => None,
    }
}

/// Returns the days since the Unix epoch of a day, from 1 for Monday, in a week of ISO 8601. The first week of a year
/// is the one with January 4.
fn days_of_week(year: i32, week: i32, day: i32) -> Option<i32> {
    // The epoch was a Thursday.
    let first_monday = |year| {
        let january_4 = days_from_civil(year, 1, 4);
        january_4 - (january_4 + 3).rem_euclid(7)
    };
    let days = first_monday(year) + (week - 1) * 7 + day - 1;
    ((1..=7).contains(&day) && week >= 1 && days < first_monday(year + 1)).then_some(days)
}

/// Parses `.123456789` or `,123456789` to microseconds. Returns them and the rest of the text.
fn parse_fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    match text {
        [b'.' | b',', digits @ ..] => parse_fraction_digits(digits),
        _ => Some((0, text)),
    }
}

/// Parses 1 to 9 digits of a second to microseconds. Returns them and the rest of the text.
pub(super) fn parse_fraction_digits(digits: &[u8]) -> Option<(i64, &[u8])> {
    let length = digits.iter().take_while(|digit| digit.is_ascii_digit()).count();
    if !(1..=9).contains(&length) {
        return None;
    }
    let micros =
        (0..6).fold(0, |micros, index| micros * 10 + if index < length { i64::from(digits[index] - b'0') } else { 0 });
    Some((micros, &digits[length..]))
}

/// Parses a zone to microseconds east of UTC, or to `None` if the text is empty.
pub(super) fn parse_offset(zone: &[u8]) -> Option<Option<i64>> {
    let (sign, digits) = match zone {
        [] => return Some(None),
        [b'Z' | b'z'] => return Some(Some(0)),
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = match digits {
        [_, _] => (two_digits(digits)?, 0),
        [_, _, _, _] => (two_digits(&digits[..2])?, two_digits(&digits[2..])?),
        [_, _, b':', _, _] => (two_digits(&digits[..2])?, two_digits(&digits[3..])?),
        _ => return None,
    };
    (hours <= 23 && minutes <= 59).then_some(Some(sign * (hours * 3600 + minutes * 60) * 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::date_text;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn times_agree_with_an_independent_calendar(
            seconds in -62_135_596_800..253_402_300_799_i64, micros in 0..1_000_000_i64,
        ) {
            let time = jiff::Timestamp::from_microsecond(seconds * 1_000_000 + micros).unwrap();
            prop_assert_eq!(parse_time(time.to_string().as_bytes(), &Zone::UTC), Some(time.as_microsecond()));
        }

        #[test]
        fn week_dates_and_ordinal_dates_agree_with_an_independent_calendar(
            year in 1000..9999_i16, week in 0..55_i8, weekday in 0..9_i8, day in 0..368_i16,
        ) {
            let expected = jiff::civil::Weekday::from_monday_one_offset(weekday)
                .and_then(|weekday| jiff::civil::ISOWeekDate::new(year, week, weekday));
            let found = parse_any_date(format!("{year}-W{week:02}-{weekday}").as_bytes());
            prop_assert_eq!(found.map(date_text), expected.ok().map(|date| date.date().to_string()));
            prop_assert_eq!(parse_any_date(format!("{year}W{week:02}{weekday}").as_bytes()), found);
            let expected = jiff::civil::date(year, 1, 1).with().day_of_year(day).build();
            let found = parse_any_date(format!("{year}-{day:03}").as_bytes());
            prop_assert_eq!(found.map(date_text), expected.ok().map(|date| date.to_string()));
            prop_assert_eq!(parse_any_date(format!("{year}{day:03}").as_bytes()), found);
        }
    }
}
