//! The calendar: days since the Unix epoch, and dates and times as text, all in UTC.
//!
//! Pure. A day is an `i32`, which holds any day of an `i64` in microseconds.

/// Microseconds in a day.
pub const MICROS_PER_DAY: i64 = 86_400 * 1_000_000;

/// Returns the day of a time in microseconds since the Unix epoch: the report date.
pub fn day_of(micros: i64) -> i32 {
    // Every i64 of microseconds lies within some 107 million days of the epoch.
    micros.div_euclid(MICROS_PER_DAY) as i32
}

/// Formats a day as `YYYY-MM-DD`.
pub fn date_text(day: i32) -> String {
    let (year, month, day) = civil_from_days(day);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Formats the day of a point in time (UTC) as `YYYY-MM-DD`.
pub fn date_of(time: jiff::Timestamp) -> String {
    date_text(day_of(time.as_microsecond()))
}

/// Parses a day from `YYYY-MM-DD`.
pub fn parse_date(text: &str) -> Option<i32> {
    let date = text.as_bytes();
    (date.len() == 10).then(|| days_of(date)).flatten()
}

/// Parses a day from an argument of the command line. The error says what is expected.
pub fn parse_day(text: &str) -> Result<i32, String> {
    parse_date(text).ok_or_else(|| "give a day as YYYY-MM-DD".to_owned())
}

/// Formats a point in time (UTC), to the second.
pub fn time_text(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// Parses a day from the ten bytes `YYYY-MM-DD`.
pub(crate) fn days_of(date: &[u8]) -> Option<i32> {
    if date[4] != b'-' || date[7] != b'-' {
        return None;
    }
    let year = (two_digits(&date[..2])? * 100 + two_digits(&date[2..4])?) as i32;
    exact_days(year, two_digits(&date[5..7])? as i32, two_digits(&date[8..10])? as i32)
}

/// Returns the day of a date; `None` if the calendar has no such date.
pub(crate) fn exact_days(year: i32, month: i32, day: i32) -> Option<i32> {
    if !(1..=12).contains(&month) || day < 1 {
        return None;
    }
    let days = days_from_civil(year, month, day);
    // A day that the month does not have is converted back to another date.
    (civil_from_days(days) == (year, month, day)).then_some(days)
}

/// Returns the day of a date that exists. Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms",
/// <https://howardhinnant.github.io/date_algorithms.html>.
pub(crate) fn days_from_civil(year: i32, month: i32, day: i32) -> i32 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Returns year, month and day of the month of a day. Source: as [`days_from_civil`].
pub(crate) fn civil_from_days(days: i32) -> (i32, i32, i32) {
    let days = i64::from(days) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year as i32, month as i32, day as i32)
}

/// Parses a number of exactly two digits.
pub(crate) fn two_digits(text: &[u8]) -> Option<i64> {
    match text {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => Some(i64::from(tens - b'0') * 10 + i64::from(ones - b'0')),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_in_utc() {
        assert_eq!(time_text(jiff::Timestamp::from_second(1_719_337_393).unwrap()), "2024-06-25 17:43:13Z");
    }

    proptest! {
        #[test]
        fn days_agree_with_an_independent_calendar(seconds in -62_135_596_800..253_402_300_799_i64) {
            let time = jiff::Timestamp::from_second(seconds).unwrap();
            let date = time.to_string()[..10].to_owned();
            prop_assert_eq!(date_text(day_of(time.as_microsecond())), date.clone());
            prop_assert_eq!(parse_date(&date), Some(day_of(time.as_microsecond())));
        }

        #[test]
        fn exactly_the_dates_of_the_calendar_exist(year in 0..10_000_i16, month in 0..14_i8, day in 0..33_i8) {
            let text = format!("{year:04}-{month:02}-{day:02}");
            prop_assert_eq!(parse_date(&text).is_some(), jiff::civil::Date::new(year, month, day).is_ok());
        }
    }
}
