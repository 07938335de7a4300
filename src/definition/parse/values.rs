//! Single values: numbers in units, names, zones, days, and patterns of times.

use jiff::fmt::strtime::{self, BrokenDownTime};
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::definition::columns::TimeFormat;
use crate::definition::keys::limits::{MAX_DECIMAL, MAX_NAME_CHARS, RESERVED_BEGINNINGS, RESERVED_NAMES, TIME_FORMATS};
use crate::definition::parse::fields::Told;
use crate::definition::problems::{Found, Reported, Span, instead, nearest};
use crate::values::time;
use crate::values::zone::Zone;

/// Returns a whole number.
pub(super) fn whole(number: &str) -> Option<i64> {
    units(number, 0).ok()
}

/// Returns a number in units of 10^-`places`, or the reason for which it is none.
pub(super) fn units(number: &str, places: u8) -> Result<i64, String> {
    let (sign, digits) = match number.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, number.strip_prefix('+').unwrap_or(number)),
    };
    let (before, after) = digits.split_once('.').unwrap_or((digits, ""));
    let after = after.trim_end_matches('0');
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if before.is_empty() || !is_digits(before) || !is_digits(after) {
        return Err("is to be written with digits, and a point at most".to_owned());
    }
    if after.len() > usize::from(places) {
        return Err(match places {
            0 => "is no whole number".to_owned(),
            places => format!("has more than {places} digits after the point"),
        });
    }
    let zeros = usize::from(places) - after.len();
    let units = format!("{before}{after}{}", "0".repeat(zeros)).parse::<i128>().ok();
    let units = units.and_then(|units| i64::try_from(sign * units).ok());
    match units {
        Some(units) if places == 0 || (-MAX_DECIMAL..=MAX_DECIMAL).contains(&units) => Ok(units),
        _ if places == 0 => Err("is beyond 64 bits".to_owned()),
        _ => Err("has more than 18 digits".to_owned()),
    }
}

/// Checks a name that the file gives, of a column or a measure, say.
pub(super) fn is_name(name: &str, at: Span, found: &mut Found<'_>) -> Result<(), Reported> {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if begins && name.len() <= MAX_NAME_CHARS && name.bytes().all(is_inner) {
        return Ok(());
    }
    let better = better_name(name, '_');
    let message = format!("'{name}' is no name: a to z, 0 to 9 and _, with a letter first, {MAX_NAME_CHARS} at most");
    Err(found.add(at, message + &better))
}

/// Says which name to write instead: one with `filler` in place of other characters.
pub(super) fn better_name(name: &str, filler: char) -> String {
    let better = name.chars().map(|char| if char.is_ascii_alphanumeric() { char.to_ascii_lowercase() } else { filler });
    let better: String = better.skip_while(|char| !char.is_ascii_lowercase()).take(MAX_NAME_CHARS).collect();
    if better.is_empty() { String::new() } else { format!("; write '{better}'") }
}

/// Checks that a name of a curated column or an item's attribute is not one of the program's.
pub(super) fn is_free(name: &str, at: Span, found: &mut Found<'_>) -> Result<(), Reported> {
    let begins = RESERVED_BEGINNINGS.iter().find(|beginning| name.starts_with(**beginning));
    let message = match begins {
        Some(beginning) => format!("names that begin with '{beginning}' are the program's own; take another"),
        None if RESERVED_NAMES.contains(&name) => format!("'{name}' is a name of the program's own; take another"),
        None => return Ok(()),
    };
    Err(found.add(at, message))
}

/// Returns a time zone by its IANA name.
pub(super) fn zone(name: Told<&str>, found: &mut Found<'_>) -> Result<TimeZone, Reported> {
    let zones = TimeZoneDatabase::bundled();
    if let Ok(zone) = zones.get(name.value) {
        return Ok(zone);
    }
    let names: Vec<String> = zones.available().map(|zone| zone.to_string()).collect();
    let advice = match nearest(name.value, names.iter().map(String::as_str)) {
        Some(near) => format!("write '{near}'"),
        None => "write one such as 'Europe/Lisbon': offsets change with summer time, names do not".to_owned(),
    };
    Err(found.add(name.at, format!("'{}' is no IANA name of a time zone; {advice}", name.value)))
}

/// Returns the way in which times are written, and true if such a time states its zone.
pub(super) fn time_format(format: Told<&str>, found: &mut Found<'_>) -> Result<(TimeFormat, bool), Reported> {
    match format.value {
        "iso" => Ok((TimeFormat::Iso, false)),
        "unix" => Ok((TimeFormat::Unix, true)),
        "unix_ms" => Ok((TimeFormat::UnixMillis, true)),
        "unix_us" => Ok((TimeFormat::UnixMicros, true)),
        pattern if pattern.contains('%') => match carried_out(pattern) {
            Ok(states_zone) => Ok((TimeFormat::Pattern(pattern.to_owned()), states_zone)),
            Err(reason) => Err(found.add(format.at, reason)),
        },
        other => {
            let advice = instead(other, TIME_FORMATS);
            Err(found.add(format.at, format!("'{other}' is no format of times{advice}, or a pattern such as %Y-%m-%d")))
        }
    }
}

/// Checks that a pattern is one of times, and has only what is read. Returns true if it states its zone.
fn carried_out(pattern: &str) -> Result<bool, String> {
    let states_zone = reads_back(pattern).map_err(|reason| format!("'{pattern}' is no pattern of times: {reason}"))?;
    time::TimeFormat::new(pattern, Zone::UTC).map(|_| states_zone)
}

/// Writes a time by a pattern and reads it again. Returns true if it states its zone.
fn reads_back(pattern: &str) -> Result<bool, String> {
    let example = jiff::civil::date(2024, 6, 25).at(17, 43, 13, 0).in_tz("UTC").map_err(|error| error.to_string())?;
    let written = strtime::format(pattern, &example).map_err(|error| error.to_string())?;
    let read = BrokenDownTime::parse(pattern, &written).map_err(|error| error.to_string())?;
    read.to_date().map_err(|_| "it has no date of year, month and day".to_owned())?;
    Ok(read.offset().is_some() || read.iana_time_zone().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_exact() {
        assert_eq!(units("9.99", 2), Ok(999));
        assert_eq!(units("-0.05", 2), Ok(-5));
        assert_eq!(units("7", 3), Ok(7000));
        assert_eq!(units("1.500", 1), Ok(15));
        assert_eq!(units("-9223372036854775808", 0), Ok(i64::MIN));
        assert_eq!(units("999999999.999999999", 9), Ok(999_999_999_999_999_999));
        assert_eq!(units("1234.0", 0), Ok(1234));
        for (number, places) in [("1.5", 0), ("9.999", 2), ("1e3", 2), ("inf", 0), ("nan", 1), ("", 0), (".5", 1)] {
            assert!(units(number, places).is_err(), "{number}");
        }
        for (number, places) in [("9223372036854775808", 0), ("1000000000", 9), (&*"9".repeat(60), 0)] {
            assert!(units(number, places).is_err(), "{number}");
        }
    }

    #[test]
    fn patterns_are_read_as_they_are_written() {
        assert_eq!(reads_back("[%d/%b/%Y:%H:%M:%S %z]"), Ok(true));
        assert_eq!(reads_back("%d %b %Y %H:%M"), Ok(false));
        assert_eq!(reads_back("%Y%m%d"), Ok(false));
        assert!(reads_back("%b %d %H:%M:%S").is_err());
        assert!(reads_back("%Q %!").is_err());
    }
}
