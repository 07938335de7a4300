//! Periods: the days and hours of report items.
//!
//! Pure. A day is one of the definition's zone, an hour is one of UTC.

use std::fmt;

use crate::calendar::{date_text, parse_date};

/// A day or an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Period {
    /// Days since the Unix epoch.
    Day(i32),
    /// Hours since the Unix epoch, UTC.
    Hour(i32),
}

/// Microseconds in an hour.
pub const MICROS_PER_HOUR: i64 = 3_600 * 1_000_000;

impl Period {
    /// The hour of a time in microseconds since the Unix epoch.
    pub fn hour_of(micros: i64) -> Self {
        // Every i64 of microseconds lies within some 2,562 million hours of the epoch; the rows of a definition lie
        // within a few hundred thousand.
        Period::Hour(micros.div_euclid(MICROS_PER_HOUR).clamp(i32::MIN.into(), i32::MAX.into()) as i32)
    }

    /// The sort key of a report's table: the attribute that has the period.
    pub fn attribute(self) -> &'static str {
        match self {
            Period::Day(_) => "report_date",
            Period::Hour(_) => "report_hour",
        }
    }

    /// Parses `2024-06-25` or `2024-06-25T17`.
    pub fn parse(text: &str) -> Option<Self> {
        let Some((date, hour)) = text.split_once('T') else { return parse_date(text).map(Period::Day) };
        let hour =
            (hour.len() == 2 && hour.bytes().all(|digit| digit.is_ascii_digit())).then(|| hour.parse().ok())??;
        let day = parse_date(date).filter(|_| (0..24).contains(&hour))?;
        Some(Period::Hour(day.checked_mul(24)?.checked_add(hour)?))
    }

    /// The day of an hour in UTC and the hour's number in it; the day itself and none.
    pub fn date_and_hour(self) -> (i32, Option<i32>) {
        match self {
            Period::Day(day) => (day, None),
            Period::Hour(hour) => (hour.div_euclid(24), Some(hour.rem_euclid(24))),
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.date_and_hour() {
            (day, None) => f.write_str(&date_text(day)),
            (day, Some(hour)) => write!(f, "{}T{hour:02}", date_text(day)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn periods_are_read_as_they_are_shown(day in -700_000..2_900_000_i32, hour in -16_000_000..60_000_000_i32) {
            for period in [Period::Day(day), Period::Hour(hour)] {
                prop_assert_eq!(Period::parse(&period.to_string()), Some(period));
            }
        }

        #[test]
        fn hours_agree_with_an_independent_calendar(second in -62_135_596_800..253_402_300_799_i64) {
            let time = jiff::Timestamp::from_second(second).unwrap();
            prop_assert_eq!(Period::hour_of(time.as_microsecond()).to_string(), &time.to_string()[..13]);
        }
    }

    #[test]
    fn other_texts_are_no_periods() {
        for text in ["", "2024-06-25T", "2024-06-25T24", "2024-06-25T7", "2024-06-25T+7", "2024-06-31", "2024-06-25 17"]
        {
            assert_eq!(Period::parse(text), None, "{text}");
        }
    }
}
