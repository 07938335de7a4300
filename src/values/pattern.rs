//! Patterns of times, in the words of strptime: `%d/%b/%Y:%H:%M:%S %z`.
//!
//! A pattern is compiled once and takes some 30 ns a time; jiff's own strptime, which the tests compare it with, reads
//! the pattern each time and takes half a microsecond. Whatever is no conversion stands for itself, blanks too. Names
//! of months and days are English, in any letter case.

use std::fmt;

use crate::calendar::{MICROS_PER_DAY, days_from_civil, exact_days};
use crate::values::iso::{parse_fraction_digits, parse_offset};
use crate::values::zone::Reading;

/// A part of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Byte(u8),
    /// Four digits.
    Year,
    /// Two digits: 1969 to 2068.
    ShortYear,
    Month,
    MonthName(Names),
    Day,
    DayOfYear,
    WeekdayName(Names),
    Hour,
    /// An hour from 1 to 12, to which a half of the day belongs.
    HourOfHalf,
    Half,
    Minute,
    Second,
    Fraction,
    /// A point and a fraction, or nothing.
    PointFraction,
    Offset,
    /// Seconds since the Unix epoch.
    Epoch,
}

/// The way in which a name is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Short,
    Full,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// The epoch was a Thursday.
const WEEKDAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
/// The conversions, as an error lists them.
const KNOWN: &str = "%Y %y %m %b %B %d %e %j %a %A %H %k %I %l %p %M %S %f %.f %z %:z %s %F %T %R %D %%";

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    text: String,
    steps: Vec<Step>,
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The parts of a time that were found so far.
#[derive(Default)]
struct Parts {
    year: i64,
    month: i64,
    day: i64,
    day_of_year: i64,
    weekday: Option<i32>,
    hour: i64,
    minute: i64,
    second: i64,
    fraction: i64,
    is_afternoon: Option<bool>,
    offset: Option<i64>,
    epoch: Option<i64>,
}

impl Pattern {
    /// Compiles a pattern. The error names the problem.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        let mut rest = text.as_bytes();
        while let [first, others @ ..] = rest {
            if *first != b'%' {
                steps.push(Step::Byte(*first));
                rest = others;
                continue;
            }
            let length = if matches!(others, [b'.', b'f', ..] | [b':', b'z', ..]) { 2 } else { 1 };
            let Some((conversion, others)) = others.split_at_checked(length) else {
                return Err(format!("the pattern '{text}' ends with a single %; write %% for that sign"));
            };
            let Some(made) = steps_of(conversion) else {
                let conversion = String::from_utf8_lossy(conversion);
                return Err(format!("the pattern '{text}' has %{conversion}; known are {KNOWN}"));
            };
            steps.extend_from_slice(made);
            rest = others;
        }
        check(&steps).map_err(|problem| format!("the pattern '{text}' {problem}"))?;
        Ok(Pattern { text: text.to_owned(), steps })
    }

    /// Parses a time that is written in this pattern, from the first byte to the last.
    pub(super) fn parse(&self, field: &[u8]) -> Option<Reading> {
        let (mut parts, mut rest) = (Parts::default(), field);
        for step in &self.steps {
            rest = parts.take(*step, rest)?;
        }
        if rest.is_empty() { parts.reading() } else { None }
    }
}

/// Returns the steps of a conversion, if it is known.
fn steps_of(conversion: &[u8]) -> Option<&'static [Step]> {
    use Step::{Byte, Day, Hour, Minute, Month, Second, ShortYear, Year};
    const COLON: Step = Byte(b':');
    Some(match conversion {
        b"%" => &[Byte(b'%')],
        b"Y" => &[Year],
        b"y" => &[ShortYear],
        b"m" => &[Month],
        b"b" | b"h" => &[Step::MonthName(Names::Short)],
        b"B" => &[Step::MonthName(Names::Full)],
        b"d" | b"e" => &[Day],
        b"j" => &[Step::DayOfYear],
        b"a" => &[Step::WeekdayName(Names::Short)],
        b"A" => &[Step::WeekdayName(Names::Full)],
        b"H" | b"k" => &[Hour],
        b"I" | b"l" => &[Step::HourOfHalf],
        b"p" | b"P" => &[Step::Half],
        b"M" => &[Minute],
        b"S" => &[Second],
        b"f" => &[Step::Fraction],
        b".f" => &[Step::PointFraction],
        b"z" | b":z" => &[Step::Offset],
        b"s" => &[Step::Epoch],
        b"F" => &[Year, Byte(b'-'), Month, Byte(b'-'), Day],
        b"D" => &[Month, Byte(b'/'), Day, Byte(b'/'), ShortYear],
        b"T" => &[Hour, COLON, Minute, COLON, Second],
        b"R" => &[Hour, COLON, Minute],
        _ => return None,
    })
}

/// Checks that the steps say a date, and nothing twice.
fn check(steps: &[Step]) -> Result<(), &'static str> {
    let count = |which: &[Step]| steps.iter().filter(|step| which.contains(step)).count();
    let year = count(&[Step::Year, Step::ShortYear]);
    let month = count(&[Step::Month, Step::MonthName(Names::Short), Step::MonthName(Names::Full)]);
    let weekday = count(&[Step::WeekdayName(Names::Short), Step::WeekdayName(Names::Full)]);
    let hours = (count(&[Step::Hour]), count(&[Step::HourOfHalf]), count(&[Step::Half]));
    let single = [Step::Day, Step::DayOfYear, Step::Minute, Step::Second, Step::Offset, Step::Epoch];
    let fraction = count(&[Step::Fraction, Step::PointFraction]);
    if year > 1 || month > 1 || weekday > 1 || fraction > 1 || single.iter().any(|step| count(&[*step]) > 1) {
        return Err("says a part of the time twice");
    }
    if !matches!(hours, (0 | 1, 0, 0) | (0, 1, 1)) {
        return Err("has hours of half a day (%I) without %p, or the reverse, or hours twice");
    }
    let date = (year, month, count(&[Step::Day]), count(&[Step::DayOfYear]));
    match (count(&[Step::Epoch]), date) {
        (0, (1, 1, 1, 0) | (1, 0, 0, 1)) => Ok(()),
        (1, (0, 0, 0, 0)) if weekday + hours.0 + hours.1 + count(&[Step::Minute, Step::Second, Step::Offset]) == 0 => {
            Ok(())
        }
        _ => Err("does not say a date: it needs year, month and day, or year and day of the year, or %s alone"),
    }
}

impl Parts {
    /// Takes what a step stands for from the start of the text. Returns the rest.
    fn take<'a>(&mut self, step: Step, text: &'a [u8]) -> Option<&'a [u8]> {
        let rest;
        match step {
            Step::Byte(byte) => return text.split_first().filter(|(first, _)| **first == byte).map(|(_, rest)| rest),
            Step::Year => (self.year, rest) = digits(text, 4, 4)?,
            Step::ShortYear => {
                (self.year, rest) = digits(text, 2, 2)?;
                self.year += if self.year < 69 { 2000 } else { 1900 };
            }
            Step::Month => (self.month, rest) = digits(text, 1, 2)?,
            Step::MonthName(names) => {
                let (index, after) = name(text, &MONTHS, names)?;
                (self.month, rest) = (index as i64 + 1, after);
            }
            // A day below ten may have a blank in place of the zero.
            Step::Day => (self.day, rest) = digits(text.strip_prefix(b" ").unwrap_or(text), 1, 2)?,
            Step::DayOfYear => (self.day_of_year, rest) = digits(text, 1, 3)?,
            Step::WeekdayName(names) => {
                let (index, after) = name(text, &WEEKDAYS, names)?;
                (self.weekday, rest) = (Some(index as i32), after);
            }
            Step::Hour => (self.hour, rest) = digits(text.strip_prefix(b" ").unwrap_or(text), 1, 2)?,
            Step::HourOfHalf => {
                (self.hour, rest) = digits(text.strip_prefix(b" ").unwrap_or(text), 1, 2)?;
                if !(1..=12).contains(&self.hour) {
                    return None;
                }
            }
            Step::Half => {
                let (half, after) = text.split_at_checked(2)?;
                let is = |wanted: &[u8]| half.eq_ignore_ascii_case(wanted);
                (self.is_afternoon, rest) = (Some(is(b"pm")), after);
                if !is(b"am") && !is(b"pm") {
                    return None;
                }
            }
            Step::Minute => (self.minute, rest) = digits(text, 1, 2)?,
            Step::Second => (self.second, rest) = digits(text, 1, 2)?,
            Step::Fraction => (self.fraction, rest) = parse_fraction_digits(text)?,
            Step::PointFraction => match text {
                [b'.', text @ ..] => (self.fraction, rest) = parse_fraction_digits(text)?,
                _ => rest = text,
            },
            Step::Offset => {
                let is_part = |byte: &&u8| matches!(byte, b'0'..=b'9' | b':');
                let end = 1 + text.iter().skip(1).take(5).take_while(is_part).count();
                let (offset, after) = text.split_at_checked(if text.first() == Some(&b'Z') { 1 } else { end })?;
                (self.offset, rest) = (Some(parse_offset(offset)??), after);
            }
            Step::Epoch => {
                let (seconds, after) = digits(text.strip_prefix(b"-").unwrap_or(text), 1, 12)?;
                (self.epoch, rest) = (Some(if text.starts_with(b"-") { -seconds } else { seconds }), after);
            }
        }
        Some(rest)
    }

    fn reading(&self) -> Option<Reading> {
        if let Some(seconds) = self.epoch {
            return Some(Reading {
                micros: seconds * 1_000_000 + self.fraction,
                offset: Some(0),
                is_leap_second: false,
            });
        }
        let year = self.year as i32;
        let days = match self.day_of_year {
            0 => exact_days(year, self.month as i32, self.day as i32)?,
            day => {
                let first = days_from_civil(year, 1, 1);
                let days = first + day as i32 - 1;
                if days >= days_from_civil(year + 1, 1, 1) {
                    return None;
                }
                days
            }
        };
        if self.weekday.is_some_and(|weekday| weekday != days.rem_euclid(7)) {
            return None;
        }
        let hour = match self.is_afternoon {
            Some(is_afternoon) => self.hour % 12 + if is_afternoon { 12 } else { 0 },
            None => self.hour,
        };
        let of_day = Reading::of_day(hour, self.minute, self.second, self.fraction)?;
        Some(Reading { micros: i64::from(days) * MICROS_PER_DAY + of_day.micros, offset: self.offset, ..of_day })
    }
}

/// Takes a number of `least` to `most` digits, as many as there are. Returns it and the rest of the text.
fn digits(text: &[u8], least: usize, most: usize) -> Option<(i64, &[u8])> {
    let length = text.iter().take(most).take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at(length);
    let number = digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
    (length >= least).then_some((number, rest))
}

/// Takes a name, in any letter case. Returns its place among the names and the rest of the text.
fn name<'a>(text: &'a [u8], all: &[&str], names: Names) -> Option<(usize, &'a [u8])> {
    let length = |name: &str| if names == Names::Short { 3 } else { name.len() };
    all.iter().enumerate().find_map(|(index, name)| {
        let (found, rest) = text.split_at_checked(length(name))?;
        found.eq_ignore_ascii_case(&name.as_bytes()[..length(name)]).then_some((index, rest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::zone::Zone;
    use jiff::fmt::strtime::BrokenDownTime;
    use jiff::tz::TimeZone;
    use proptest::prelude::*;

    fn parse(pattern: &str, text: &str) -> Option<i64> {
        Pattern::new(pattern).unwrap().parse(text.as_bytes())?.in_zone(&Zone::UTC)
    }

    /// The same by the library.
    fn by_the_library(pattern: &str, text: &str) -> Option<i64> {
        let time = BrokenDownTime::parse(pattern, text).ok()?;
        let time = match time.offset().is_some() || time.timestamp().is_some() {
            true => time.to_timestamp().ok()?,
            false => time
                .to_datetime()
                .or_else(|_| Ok::<_, jiff::Error>(time.to_date()?.at(0, 0, 0, 0)))
                .ok()?
                .to_zoned(TimeZone::UTC)
                .ok()?
                .timestamp(),
        };
        Some(time.as_microsecond())
    }

    const PATTERNS: [&str; 14] = [
        "%d/%b/%Y:%H:%M:%S %z",
        "[%d/%b/%Y:%H:%M:%S %z]",
        "%Y-%m-%d %H:%M:%S",
        "%Y-%m-%dT%H:%M:%S%.f%:z",
        "%a, %d %b %Y %T %z",
        "%A, %B %e, %Y at %I:%M:%S %p",
        "%m/%d/%y %R",
        "%Y%m%d",
        "%Y%m%d%H%M%S",
        "%Y %j %T",
        "%s",
        "%F %T.%f",
        "%D %l:%M:%S%P",
        "100%% %d.%m.%Y %k:%M:%S",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        /// What the library writes is read as the time that it was written for, as far as the pattern says it.
        #[test]
        fn a_time_that_is_written_in_a_pattern_is_read_back(
            pattern in prop::sample::select(PATTERNS.to_vec()), second in 0..3_100_000_000_i64,
            micros in 0..1_000_000_i64, hours in -12..14_i8,
        ) {
            let zone = jiff::tz::Offset::constant(if pattern.contains('z') { hours } else { 0 }).to_time_zone();
            let time = jiff::Timestamp::from_microsecond(second * 1_000_000 + micros).unwrap().to_zoned(zone);
            let text = time.strftime(pattern).to_string();
            let time = time.timestamp().as_microsecond();
            let said = match pattern {
                "%Y%m%d" => time - time.rem_euclid(MICROS_PER_DAY),
                "%m/%d/%y %R" => time - time.rem_euclid(60_000_000),
                _ if pattern.contains('f') => time,
                _ => time - time.rem_euclid(1_000_000),
            };
            prop_assert_eq!(parse(pattern, &text), Some(said), "{}", text);
        }

        /// Of any other text, what is read is what the library reads, which reads more.
        #[test]
        fn what_is_read_is_what_the_library_reads(
            pattern in prop::sample::select(PATTERNS.to_vec()), second in 0..3_100_000_000_i64,
            changes in prop::collection::vec((0..40_usize, prop::option::of(prop::char::range(' ', 'z'))), 1..3),
        ) {
            let time = jiff::Timestamp::from_second(second).unwrap();
            let mut text: Vec<char> = time.to_zoned(TimeZone::UTC).strftime(pattern).to_string().chars().collect();
            for (at, change) in changes {
                let at = at % text.len().max(1);
                match change {
                    Some(other) if at < text.len() => text[at] = other,
                    _ if at < text.len() => drop(text.remove(at)),
                    _ => {}
                }
            }
            let text: String = text.into_iter().collect();
            // The library takes a leap second for the one before it, and knows no Z and no hours alone in %z.
            if let Some(found) = parse(pattern, &text) && !text.contains("60") && !text.contains('Z') {
                let theirs = by_the_library(pattern, &text);
                prop_assert!(theirs.map_or(pattern.contains('z'), |it| it == found), "{} {:?}", text, theirs);
            }
        }

        #[test]
        fn no_text_panics(
            pattern in prop::sample::select(PATTERNS.to_vec()), text in "[0-9A-Za-z :/,.+-]{0,40}",
        ) {
            let _ = parse(pattern, &text);
        }

        #[test]
        fn no_pattern_panics(pattern in "[%YymbBdejaAHkIlpMSfzsFTRD:. ]{0,12}", text in "[0-9a-z :/+-]{0,20}") {
            if let Ok(pattern) = Pattern::new(&pattern) {
                let _ = pattern.parse(text.as_bytes());
            }
        }
    }

    #[test]
    fn a_time_must_exist_and_be_written_like_the_pattern() {
        let log = "[%d/%b/%Y:%H:%M:%S %z]";
        assert_eq!(parse(log, "[06/Feb/2019:00:00:38 +0000]"), Some(1_549_411_238_000_000));
        assert_eq!(parse(log, "[6/feb/2019:00:00:38 +01:00]"), Some(1_549_407_638_000_000));
        assert_eq!(parse("%Y-%m-%d %T", "2016-12-31 23:59:60"), parse("%Y-%m-%d %T", "2017-01-01 00:00:00"));
        for text in [
            "[06/Feb/2019:00:00:38 +0000",
            "[06/Feb/2019:00:00:38 +0000]]",
            "[30/Feb/2019:00:00:38 +0000]",
            "[06/Foo/2019:00:00:38 +0000]",
            "[06/Feb/2019:24:00:38 +0000]",
            "[06/Feb/2019:00:60:38 +0000]",
            "[06/Feb/2019:00:00:60 +0000]",
            "[06/Feb/19:00:00:38 +0000]",
            "[06/Feb/2019:00:00:38  +0000]",
            "[06/Feb/2019:00:00:38 +2500]",
            "[06/Feb/2019:00:00:38 ]",
            "",
            "[",
        ] {
            assert_eq!(parse(log, text), None, "{text}");
        }
        assert_eq!(parse("%a %d %b %Y", "Tue 25 Jun 2024"), Some(1_719_273_600_000_000));
        assert_eq!(parse("%a %d %b %Y", "Mon 25 Jun 2024"), None);
        assert_eq!(parse("%Y %j", "2024 366"), Some(1_735_603_200_000_000));
        assert_eq!(parse("%Y %j", "2023 366"), None);
        assert_eq!(parse("%Y-%m-%d %I:%M %p", "2024-06-25 12:30 AM"), parse("%Y-%m-%d %R", "2024-06-25 00:30"));
        assert_eq!(parse("%Y-%m-%d %I:%M %p", "2024-06-25 13:30 AM"), None);
    }

    #[test]
    fn a_pattern_says_a_date() {
        for (pattern, problem) in [
            ("%H:%M:%S", "the pattern '%H:%M:%S' does not say a date"),
            ("%Y-%m", "the pattern '%Y-%m' does not say a date"),
            ("%Y-%m-%d %d", "the pattern '%Y-%m-%d %d' says a part of the time twice"),
            ("%Y-%m-%d %I:%M", "the pattern '%Y-%m-%d %I:%M' has hours of half a day (%I) without %p"),
            ("%Y-%m-%d %q", "the pattern '%Y-%m-%d %q' has %q; known are %Y"),
            ("%Y-%m-%d %", "the pattern '%Y-%m-%d %' ends with a single %"),
            ("%s %H", "the pattern '%s %H' does not say a date"),
            ("", "the pattern '' does not say a date"),
        ] {
            let told = Pattern::new(pattern).unwrap_err();
            assert!(told.starts_with(problem), "{told}");
        }
    }
}
