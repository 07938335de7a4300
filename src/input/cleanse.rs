//! Cleansing: which rows of a listening file are good, and why the others are not.
//!
//! Pure. A row is good when it has as many fields as the header, `user_id` is a positive integer, `track_id` is 1 to 64
//! visible ASCII characters, and `listen_time` is a time of ISO 8601 from 2000-01-01 to a day in the future. Nothing is trimmed,
//! guessed or repaired: a row that is not good is rejected with its reason, and the original file is kept.

use std::fmt;

use crate::calendar::{MICROS_PER_DAY, civil_from_days, days_from_civil, days_of, exact_days, two_digits};
use crate::formats::csv::find_columns;

/// Longest track id, in characters.
pub const MAX_TRACK_ID_CHARS: usize = 64;

/// How far `listen_time` may lie in the future: clocks of players are wrong, by time zones more often than by years.
pub const MAX_FUTURE_MICROS: i64 = MICROS_PER_DAY;

/// 2000-01-01T00:00:00Z in microseconds since the Unix epoch: no listening event is older.
pub const EARLIEST_MICROS: i64 = 946_684_800 * 1_000_000;

/// Most columns of a listening file: every one of them takes memory for each row.
pub const MAX_COLUMNS: usize = 4096;

/// The columns that a listening file must have, in the order of [`Columns`]' indices.
pub const REQUIRED_COLUMNS: [&str; 3] = ["user_id", "track_id", "listen_time"];

/// A good row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    /// The listener; positive.
    pub user_id: i64,
    /// The track, visible ASCII.
    pub track_id: &'a str,
    /// When it was listened to, in microseconds since the Unix epoch, UTC.
    pub listen_time: i64,
}

/// Why a row is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// The number of fields differs from the header's.
    WrongWidth {
        /// Fields found.
        fields: usize,
        /// Fields of the header.
        expected: usize,
    },
    /// Text stands behind the quote that closes a field.
    Quotes,
    /// A required field is empty.
    Missing(&'static str),
    /// `user_id` is not a positive integer of at most 63 bits.
    UserId,
    /// `track_id` is not 1 to 64 visible ASCII characters.
    TrackId,
    /// `listen_time` is neither `YYYY-MM-DD HH:MM:SS` nor ISO 8601, or no such time exists.
    ListenTime,
    /// `listen_time` lies before 2000-01-01 or more than a day in the future.
    ListenTimeRange,
}

impl Rejection {
    /// What is wrong, in a word: the label of a metric.
    pub fn kind(&self) -> &'static str {
        match self {
            Rejection::WrongWidth { .. } => "width",
            Rejection::Quotes => "quotes",
            Rejection::Missing(_) => "missing",
            Rejection::UserId => "user_id",
            Rejection::TrackId => "track_id",
            Rejection::ListenTime => "listen_time",
            Rejection::ListenTimeRange => "listen_time_range",
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rejection::WrongWidth { fields, expected } => write!(f, "{fields} fields, the header has {expected}"),
            Rejection::Quotes => f.write_str("text stands behind the quote that closes a field"),
            Rejection::Missing(field) => write!(f, "{field} is empty"),
            Rejection::UserId => f.write_str("user_id is not a positive integer"),
            Rejection::TrackId => f.write_str("track_id is not 1 to 64 visible ASCII characters"),
            Rejection::ListenTime => {
                f.write_str("listen_time is not a time like 2024-06-25 17:43:13 or 2024-06-25T17:43:13Z")
            }
            Rejection::ListenTimeRange => {
                f.write_str("listen_time is before 2000-01-01 or more than a day in the future")
            }
        }
    }
}

/// Where the required columns stand in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns {
    indices: [usize; 3],
    width: usize,
}

impl Columns {
    /// Finds the columns by name, in any order and letter case, among others. The error names what is missing or doubled.
    pub fn from_header<'a>(header: impl Iterator<Item = &'a [u8]> + Clone) -> Result<Self, String> {
        Columns::new(find_columns(header.clone(), REQUIRED_COLUMNS)?, header.count())
    }

    /// The required columns stand at these places of so many.
    pub fn new(indices: [usize; 3], width: usize) -> Result<Self, String> {
        if width > MAX_COLUMNS {
            return Err(format!("the header has {width} columns, and {MAX_COLUMNS} at the most are read"));
        }
        Ok(Columns { indices, width })
    }

    /// How many columns there are.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Whether the file has exactly the required columns, in their usual order.
    pub fn are_the_required_ones(&self) -> bool {
        (self.indices, self.width) == ([0, 1, 2], 3)
    }

    /// Judges one record; `now` in microseconds since the Unix epoch.
    pub fn cleanse<'a>(
        &self,
        fields: usize,
        field: impl Fn(usize) -> &'a [u8],
        now: i64,
    ) -> Result<Row<'a>, Rejection> {
        if fields != self.width {
            return Err(Rejection::WrongWidth { fields, expected: self.width });
        }
        let [user_id, track_id, listen_time] = self.indices.map(field);
        for (value, name) in [user_id, track_id, listen_time].into_iter().zip(REQUIRED_COLUMNS) {
            if value.is_empty() {
                return Err(Rejection::Missing(name));
            }
        }
        let user_id = parse_user_id(user_id).ok_or(Rejection::UserId)?;
        let track_id = parse_track_id(track_id).ok_or(Rejection::TrackId)?;
        let listen_time = parse_time(listen_time).ok_or(Rejection::ListenTime)?;
        if !is_in_range(listen_time, now) {
            return Err(Rejection::ListenTimeRange);
        }
        Ok(Row { user_id, track_id, listen_time })
    }
}

/// Whether a listening event can have happened at this time, as seen from `now`.
pub fn is_in_range(listen_time: i64, now: i64) -> bool {
    (EARLIEST_MICROS..=now.saturating_add(MAX_FUTURE_MICROS)).contains(&listen_time)
}

/// Microseconds since midnight of `HH:MM:SS`.
pub fn time_of_day(text: &[u8; 8]) -> Option<i64> {
    let digits = [0, 1, 3, 4, 6, 7].map(|index| text[index].wrapping_sub(b'0'));
    let [hour, minute, second] = [0, 2, 4].map(|index| i64::from(digits[index]) * 10 + i64::from(digits[index + 1]));
    let well_formed = digits.iter().all(|&digit| digit <= 9) & (text[2] == b':') & (text[5] == b':');
    (well_formed & (hour <= 23) & (minute <= 59) & (second <= 59))
        .then_some((hour * 3600 + minute * 60 + second) * 1_000_000)
}

/// A positive integer of at most 63 bits. Leading zeros, however many, mean nothing.
pub(crate) fn parse_user_id(field: &[u8]) -> Option<i64> {
    let zeros = field.iter().take_while(|&&digit| digit == b'0').count();
    let digits = &field[zeros..];
    if digits.len() > 19 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value =
        digits.iter().try_fold(0_i64, |value, digit| value.checked_mul(10)?.checked_add(i64::from(digit - b'0')))?;
    (value > 0).then_some(value)
}

pub(crate) fn parse_track_id(field: &[u8]) -> Option<&str> {
    if field.len() > MAX_TRACK_ID_CHARS || !field.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    std::str::from_utf8(field).ok()
}

/// Microseconds since the Unix epoch of a date and a time of ISO 8601:2004, with a space or a `T` between them. UTC if no zone is given;
/// digits past the microsecond are cut off.
///
/// * The date: `2024-06-25`, `2024-W26-2` (week) or `2024-177` (day of the year), each also without its hyphens.
/// * The time: `17:43:13` with 1 to 9 digits of a second after a dot or comma, or `17:43`, each also without its colons; `24:00` is
///   the midnight after, and the leap second `23:59:60` (UTC) the second after it.
/// * The zone: `Z`, `+02:00`, `+0200`, `+02`.
pub(crate) fn parse_time(field: &[u8]) -> Option<i64> {
    parse_usual_time(field).or_else(|| parse_other_time(field))
}

/// The same of `2024-06-25 17:43:13`, and what may follow it: as nearly all are written.
fn parse_usual_time(field: &[u8]) -> Option<i64> {
    let (date, rest) = (field.get(..10)?, field.get(10..19)?);
    if !matches!(rest[0], b' ' | b'T' | b't') {
        return None;
    }
    let time_of_day = time_of_day(rest[1..].first_chunk()?)?;
    let (fraction_micros, zone) = parse_fraction(&field[19..])?;
    let midnight = i64::from(days_of(date)?) * MICROS_PER_DAY;
    Some(midnight + time_of_day - parse_zone(zone)? * 1_000_000 + fraction_micros)
}

fn parse_other_time(field: &[u8]) -> Option<i64> {
    let between = field.iter().position(|byte| matches!(byte, b' ' | b'T' | b't'))?;
    let midnight = i64::from(parse_any_date(&field[..between])?) * 86_400;
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
    let (second, (fraction_micros, zone)) = match seconds {
        Some(time) => (two_digits(time.get(..2)?)?, parse_fraction(&time[2..])?),
        None => (0, (0, time)),
    };
    let seconds = midnight + hour * 3600 + minute * 60 + second - parse_zone(zone)?;
    let exists = match (hour, minute, second) {
        (24, 0, 0) => fraction_micros == 0,
        // The second after it is the first of a day, or it is no leap second.
        (0..=23, 0..=59, 60) => seconds.rem_euclid(86_400) == 0,
        (0..=23, 0..=59, 0..=59) => true,
        _ => false,
    };
    exists.then_some(seconds * 1_000_000 + fraction_micros)
}

/// Days since the Unix epoch of a calendar date, week date or ordinal date, with or without hyphens.
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

/// Days since the Unix epoch of a day, from 1 for Monday, of a week of ISO 8601: the first one of a year is the one with January 4.
fn days_of_week(year: i32, week: i32, day: i32) -> Option<i32> {
    // The epoch was a Thursday.
    let first_monday = |year| {
        let january_4 = days_from_civil(year, 1, 4);
        january_4 - (january_4 + 3).rem_euclid(7)
    };
    let days = first_monday(year) + (week - 1) * 7 + day - 1;
    ((1..=7).contains(&day) && week >= 1 && days < first_monday(year + 1)).then_some(days)
}

/// Microseconds of `.123456789` or `,123456789`, and what follows it.
fn parse_fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let [b'.' | b',', digits @ ..] = text else { return Some((0, text)) };
    let length = digits.iter().take_while(|digit| digit.is_ascii_digit()).count();
    if !(1..=9).contains(&length) {
        return None;
    }
    let micros =
        (0..6).fold(0, |micros, index| micros * 10 + if index < length { i64::from(digits[index] - b'0') } else { 0 });
    Some((micros, &digits[length..]))
}

/// Seconds east of UTC.
fn parse_zone(zone: &[u8]) -> Option<i64> {
    let (sign, digits) = match zone {
        [] | [b'Z' | b'z'] => return Some(0),
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
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 3600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use crate::calendar::date_text;

    const NOW: i64 = 1_767_225_600_000_000; // 2026-01-01T00:00:00Z

    fn header(names: &[&str]) -> Result<Columns, String> {
        Columns::from_header(names.iter().map(|name| name.as_bytes()))
    }

    fn cleanse<'a>(fields: &[&'a str]) -> Result<Row<'a>, Rejection> {
        header(&REQUIRED_COLUMNS).unwrap().cleanse(fields.len(), |index| fields[index].as_bytes(), NOW)
    }

    #[test]
    fn columns_are_found_by_name() {
        assert_eq!(
            header(&["listen_time", "x", "User_ID", " track_id "]).unwrap(),
            Columns { indices: [2, 3, 0], width: 4 }
        );
        assert_eq!(header(&["user_id", "x"]).unwrap_err(), "the header lacks the columns track_id, listen_time");
        assert_eq!(header(&["user_id", "track_id", "track_id"]).unwrap_err(), "the header names column track_id twice");
    }

    #[test]
    fn good_rows() {
        let row = Row { user_id: 7, track_id: "abc", listen_time: 1_719_337_393_000_000 };
        assert_eq!(cleanse(&["7", "abc", "2024-06-25 17:43:13"]), Ok(row));
        for same in [
            "2024-06-25T17:43:13",
            "2024-06-25T17:43:13Z",
            "2024-06-25T17:43:13.000Z",
            "2024-06-25T19:43:13+02:00",
            "2024-06-25T10:13:13-0730",
            "2024-06-26T00:43:13+07",
            "2024-06-25 17:43:13.000000999",
            "2024-06-25T17:43:13,0Z",
            "20240625T174313Z",
            "20240625 17:43:13",
            "2024-W26-2T17:43:13Z",
            "2024W262T174313Z",
            "2024-177T17:43:13Z",
            "2024177T194313+0200",
        ] {
            assert_eq!(cleanse(&["7", "abc", same]), Ok(row), "{same}");
        }
        for (text, same) in [
            ("2024-06-25T17:43Z", "2024-06-25 17:43:00"),
            ("2024-06-25 1743", "2024-06-25 17:43:00"),
            ("2024-06-25T24:00:00Z", "2024-06-26 00:00:00"),
            ("2024-06-25T24:00+01:00", "2024-06-25 23:00:00"),
            ("2016-12-31T23:59:60Z", "2017-01-01 00:00:00"),
            ("2017-01-01T00:59:60.25+01:00", "2017-01-01 00:00:00.25"),
            ("2020-W53-7T00:00Z", "2021-01-03 00:00:00"),
            ("2024-366T00:00Z", "2024-12-31 00:00:00"),
        ] {
            assert_eq!(cleanse(&["7", "abc", text]), cleanse(&["7", "abc", same]), "{text}");
            assert!(cleanse(&["7", "abc", text]).is_ok(), "{text}");
        }
        assert_eq!(cleanse(&["7", "abc", "2024-06-25 17:43:13.5"]).unwrap().listen_time, row.listen_time + 500_000);
        for zeros in [1, 12, 18, 19, 300] {
            assert_eq!(
                cleanse(&[&format!("{}7", "0".repeat(zeros)), "abc", "2024-06-25 17:43:13"]),
                Ok(row),
                "{zeros}"
            );
        }
        let longest = "x".repeat(MAX_TRACK_ID_CHARS);
        assert_eq!(cleanse(&["9223372036854775807", &longest, "2000-01-01 00:00:00"]).unwrap().user_id, i64::MAX);
        assert!(cleanse(&["7", "abc", "2026-01-02 00:00:00"]).is_ok());
    }

    #[test]
    fn bad_rows_say_why() {
        let time = "2024-06-25 17:43:13";
        assert_eq!(cleanse(&["7", "abc"]), Err(Rejection::WrongWidth { fields: 2, expected: 3 }));
        assert_eq!(cleanse(&["", "abc", time]), Err(Rejection::Missing("user_id")));
        assert_eq!(cleanse(&["7", "", time]), Err(Rejection::Missing("track_id")));
        assert_eq!(cleanse(&["7", "abc", ""]), Err(Rejection::Missing("listen_time")));
        for user_id in ["0", "000", "-1", "+1", "1.0", " 1", "x", "9223372036854775808", "99999999999999999999", "0x7"]
        {
            assert_eq!(cleanse(&[user_id, "abc", time]), Err(Rejection::UserId), "{user_id}");
        }
        let too_long = "x".repeat(MAX_TRACK_ID_CHARS + 1);
        for track_id in ["a b", "ä", "a\tb", "\u{7f}", &too_long] {
            assert_eq!(cleanse(&["7", track_id, time]), Err(Rejection::TrackId), "{track_id}");
        }
        for time in [
            "2024-06-25",
            "25.06.2024 17:43:13",
            "2024-02-30 00:00:00",
            "2023-02-29 00:00:00",
            "2024-13-01 00:00:00",
            "2024-06-25 24:00:01",
            "2024-06-25 24:00:00.5",
            "2024-06-25 25:00:00",
            "2024-06-25 23:60:00",
            "2024-06-25 23:58:60",
            "2024-06-25 17:59:60",
            "2024-06-25 23:59:61",
            "2024-06-25 17",
            "2024-06-25 17:4",
            "2024-06-25 17:4313",
            "2024-06-25 1743:13",
            "2024-W54-1 00:00:00",
            "2024-W53-1 00:00:00",
            "2024-W26-8 00:00:00",
            "2024-W00-1 00:00:00",
            "2023-366 00:00:00",
            "2024-000 00:00:00",
            "20240230 00:00:00",
            "2024-0625 00:00:00",
            "202406-25 00:00:00",
            "24-06-25 00:00:00",
            "1719337393",
            "2024-06-25 17:43:13.",
            "2024-06-25 17:43:13.1234567890",
            "2024-06-25 17:43:13+2",
            "2024-06-25 17:43:13 UTC",
            "2024-06-25 17:43:13+25:00",
            "2024/06/25 17:43:13",
            "+024-06-25 17:43:13",
        ] {
            assert_eq!(cleanse(&["7", "abc", time]), Err(Rejection::ListenTime), "{time}");
        }
        for time in ["1999-12-31 23:59:59", "2026-01-02 00:00:01", "0001-01-01 00:00:00", "9999-12-31 23:59:59"] {
            assert_eq!(cleanse(&["7", "abc", time]), Err(Rejection::ListenTimeRange), "{time}");
        }
    }

    proptest! {
        #[test]
        fn times_agree_with_an_independent_calendar(seconds in -62_135_596_800..253_402_300_799_i64, micros in 0..1_000_000_i64) {
            let time = jiff::Timestamp::from_microsecond(seconds * 1_000_000 + micros).unwrap();
            prop_assert_eq!(parse_time(time.to_string().as_bytes()), Some(time.as_microsecond()));
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

        #[test]
        fn no_field_panics(field in prop::collection::vec(any::<u8>(), 0..40)) {
            let fields = [b"7".as_slice(), b"abc", &field];
            let _ = header(&REQUIRED_COLUMNS).unwrap().cleanse(3, |index| fields[index], NOW);
            parse_user_id(&field);
        }
    }
}
