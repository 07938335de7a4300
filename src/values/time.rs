//! Times in the format that a definition names.

use crate::values::iso;
use crate::values::pattern::Pattern;
use crate::values::zone::Zone;

/// The way in which a column's times are written, and the zone of those that do not say theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeFormat {
    notation: Notation,
    zone: Zone,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Notation {
    Iso,
    /// A number of units of so many microseconds since the Unix epoch.
    Since(i64),
    Pattern(Pattern),
}

impl TimeFormat {
    /// Returns the format of this name: `iso`, `unix`, `unix_ms`, `unix_us`, or a pattern. The error names the problem.
    pub fn new(name: &str, zone: Zone) -> Result<Self, String> {
        let notation = match name {
            "iso" => Notation::Iso,
            "unix" => Notation::Since(1_000_000),
            "unix_ms" => Notation::Since(1000),
            "unix_us" => Notation::Since(1),
            pattern if pattern.contains('%') => Notation::Pattern(Pattern::new(pattern)?),
            other => {
                return Err(format!(
                    "'{other}' is no format of times; write iso, unix, unix_ms, unix_us, or a pattern like \
                     %d/%b/%Y:%H:%M:%S %z"
                ));
            }
        };
        Ok(TimeFormat { notation, zone })
    }

    /// Parses a time to microseconds since the Unix epoch, UTC. Digits past the microsecond are cut off.
    #[inline]
    pub fn parse(&self, field: &[u8]) -> Option<i64> {
        match &self.notation {
            Notation::Iso => iso::reading(field)?.in_zone(&self.zone),
            Notation::Since(unit) => parse_since(field, *unit),
            Notation::Pattern(pattern) => pattern.parse(field)?.in_zone(&self.zone),
        }
    }

    /// Returns true if a text is a date and a time that clocks in the zone never showed, as they were put forward past
    /// it.
    #[cold]
    pub fn is_skipped(&self, field: &[u8]) -> bool {
        let reading = match &self.notation {
            Notation::Iso => iso::reading(field),
            Notation::Since(_) => None,
            Notation::Pattern(pattern) => pattern.parse(field),
        };
        reading.is_some_and(|it| it.offset.is_none() && self.zone.utc_of(it.micros).is_none())
    }

    /// Returns true for ISO 8601, in UTC where a time does not say its zone.
    pub fn is_iso_in_utc(&self) -> bool {
        self.notation == Notation::Iso && self.zone == Zone::UTC
    }

    /// Returns an example of the format, or its pattern: the text that a rejected row is told to have.
    pub fn example(&self) -> String {
        match &self.notation {
            Notation::Iso => "2024-06-25 17:43:13 or 2024-06-25T17:43:13Z".to_owned(),
            Notation::Since(1_000_000) => "1719337393 (seconds since 1970)".to_owned(),
            Notation::Since(1000) => "1719337393000 (milliseconds since 1970)".to_owned(),
            Notation::Since(_) => "1719337393000000 (microseconds since 1970)".to_owned(),
            Notation::Pattern(pattern) => pattern.to_string(),
        }
    }
}

/// Parses a number of units since the Unix epoch, with 1 to 9 digits after a point or none, to microseconds.
fn parse_since(field: &[u8], unit: i64) -> Option<i64> {
    let (sign, number) = match field {
        [b'-', number @ ..] => (-1, number),
        number => (1, number),
    };
    let (whole, fraction) = match number.iter().position(|&byte| byte == b'.') {
        Some(point) => (&number[..point], &number[point + 1..]),
        None => (number, &b"0"[..]),
    };
    let are_digits = |digits: &[u8], most| (1..=most).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    // 18 digits never overflow.
    if !are_digits(whole, 18) || !are_digits(fraction, 9) {
        return None;
    }
    let number = |digits: &[u8]| digits.iter().fold(0_i64, |number, digit| number * 10 + i64::from(digit - b'0'));
    let of_unit = 10_i64.pow(fraction.len() as u32);
    let fraction = i128::from(number(fraction)) * i128::from(unit) / i128::from(of_unit);
    let micros = number(whole).checked_mul(unit)?.checked_add(i64::try_from(fraction).ok()?)?;
    Some(sign * micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn format(name: &str) -> TimeFormat {
        TimeFormat::new(name, Zone::UTC).unwrap()
    }

    #[test]
    fn numbers_since_1970() {
        for (name, field, expected) in [
            ("unix", "1719337393", Some(1_719_337_393_000_000)),
            ("unix", "1719337393.25", Some(1_719_337_393_250_000)),
            ("unix", "1719337393.123456999", Some(1_719_337_393_123_456)),
            ("unix", "-1.5", Some(-1_500_000)),
            ("unix", "0", Some(0)),
            ("unix", "9223372036854", Some(9_223_372_036_854_000_000)),
            ("unix", "9223372036855", None),
            ("unix", "999999999999999999", None),
            ("unix_ms", "1719337393000", Some(1_719_337_393_000_000)),
            ("unix_ms", "1719337393000.0", Some(1_719_337_393_000_000)),
            ("unix_ms", "1719337393000.5", Some(1_719_337_393_000_500)),
            ("unix_us", "1719337393000001.9", Some(1_719_337_393_000_001)),
            ("unix", "", None),
            ("unix", "-", None),
            ("unix", "1.", None),
            ("unix", ".5", None),
            ("unix", "1e9", None),
            ("unix", "+1", None),
            ("unix", " 1", None),
            ("unix", "2024-06-25 17:43:13", None),
        ] {
            assert_eq!(format(name).parse(field.as_bytes()), expected, "{name} {field}");
        }
    }

    #[test]
    fn times_without_a_zone_are_in_the_column_s() {
        let berlin = Zone::named("Europe/Berlin").unwrap();
        let iso = TimeFormat::new("iso", berlin.clone()).unwrap();
        let utc = |text: &str| format("iso").parse(text.as_bytes());
        for (text, expected) in [
            ("2024-06-25 17:43:13", utc("2024-06-25 15:43:13")),
            ("2024-06-25 17:43:13Z", utc("2024-06-25 17:43:13")),
            ("2024-06-25 17:43:13-07", utc("2024-06-26 00:43:13")),
            ("2024-01-01 24:00", utc("2024-01-01 23:00")),
            ("2017-01-01 00:59:60", utc("2017-01-01 00:00:00")),
            ("2016-12-31 23:59:60", None),
            ("2024-10-27 02:30", utc("2024-10-27 00:30")),
            ("2024-03-31 02:30", None),
        ] {
            assert_eq!(iso.parse(text.as_bytes()), expected, "{text}");
        }
        let skipped = |text: &str| iso.is_skipped(text.as_bytes());
        assert!(skipped("2024-03-31 02:30") && skipped("2024-03-31T02:00:00"));
        for text in ["2024-03-31 02:30Z", "2024-03-31 03:00", "2024-10-27 02:30", "2016-12-31 23:59:60", "x"] {
            assert!(!skipped(text), "{text}");
        }
        let pattern = TimeFormat::new("%d.%m.%Y %R", berlin).unwrap();
        assert!(pattern.is_skipped(b"31.03.2024 02:59") && !pattern.is_skipped(b"31.03.2024 01:59"));
        assert_eq!(pattern.parse(b"25.06.2024 17:43"), utc("2024-06-25 15:43"));
    }

    #[test]
    fn formats_have_names() {
        let told = TimeFormat::new("rfc3339", Zone::UTC).unwrap_err();
        assert!(told.starts_with("'rfc3339' is no format of times; write iso, unix"), "{told}");
        assert_eq!(format("%Y%m%d").example(), "%Y%m%d");
    }

    proptest! {
        #[test]
        fn numbers_since_1970_agree_with_the_library(micros in 0..4_000_000_000_000_000_i64) {
            let time = jiff::Timestamp::from_microsecond(micros).unwrap();
            let text = format!("{}.{:06}", time.as_second(), time.subsec_microsecond());
            prop_assert_eq!(format("unix").parse(text.as_bytes()), Some(micros));
            prop_assert_eq!(format("unix_us").parse(micros.to_string().as_bytes()), Some(micros));
            let millis = format!("{}.{:03}", micros / 1000, micros % 1000);
            prop_assert_eq!(format("unix_ms").parse(millis.as_bytes()), Some(micros));
        }

        #[test]
        fn no_field_panics(field in prop::collection::vec(any::<u8>(), 0..40)) {
            for name in ["iso", "unix", "unix_ms", "unix_us", "%d/%b/%Y:%H:%M:%S %z"] {
                let _ = format(name).parse(&field);
            }
        }
    }
}
