//! Integers and decimals. A number is digits, with a minus before them if it is negative; there is no plus, no exponent
//! and no separator. Leading zeros are ignored.

/// Most places of a decimal, and most digits of all: those of Parquet's DECIMAL in 64 bits
/// (<https://github.com/apache/parquet-format/blob/master/LogicalTypes.md#decimal>).
pub const MAX_PLACES: u32 = 9;
const MAX_DECIMAL: i64 = 999_999_999_999_999_999;

/// A reason why a text is no decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotDecimal {
    /// It is no number, or one of more than 18 digits.
    Number,
    /// It has too many digits after the point.
    Places,
}

/// Parses an integer of 64 bits. Zeros after a point are ignored, as some tools write integers like this.
#[inline]
pub fn integer(field: &[u8]) -> Option<i64> {
    if let Some(value) = short_digits(field) {
        return Some(value);
    }
    let (is_negative, digits, places) = parts(field)?;
    if places.iter().any(|&digit| digit != b'0') {
        return None;
    }
    signed(is_negative, digits.iter())
}

/// Parses a decimal to a number of units of the last of its `places`, of which there are at most [`MAX_PLACES`].
/// `12.50` with 2 places becomes 1250. Zeros at the end may be more; nothing is rounded.
#[inline]
pub fn decimal(field: &[u8], places: u32) -> Result<i64, NotDecimal> {
    let (is_negative, digits, after) = parts(field).ok_or(NotDecimal::Number)?;
    let places = places.min(MAX_PLACES) as usize;
    let (kept, beyond) = after.split_at(after.len().min(places));
    if beyond.iter().any(|&digit| digit != b'0') {
        return Err(NotDecimal::Places);
    }
    let zeros = std::iter::repeat_n(&b'0', places - kept.len());
    let value = signed(is_negative, digits.iter().chain(kept).chain(zeros)).ok_or(NotDecimal::Number)?;
    (-MAX_DECIMAL..=MAX_DECIMAL).contains(&value).then_some(value).ok_or(NotDecimal::Number)
}

/// Parses 1 to 18 digits and nothing else, which never overflow: nearly every number is written like this.
#[inline]
fn short_digits(field: &[u8]) -> Option<i64> {
    if field.is_empty() || field.len() > 18 {
        return None;
    }
    let mut value = 0_i64;
    for byte in field {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.wrapping_mul(10).wrapping_add(i64::from(digit));
    }
    Some(value)
}

/// Splits a number into its sign, the digits before the point and those after it.
fn parts(field: &[u8]) -> Option<(bool, &[u8], &[u8])> {
    let (is_negative, number) = match field {
        [b'-', number @ ..] => (true, number),
        number => (false, number),
    };
    let (digits, places) = match memchr::memchr(b'.', number) {
        Some(point) => (&number[..point], &number[point + 1..]),
        None => (number, &b"0"[..]),
    };
    let are_digits = |digits: &[u8]| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    (are_digits(digits) && are_digits(places)).then_some((is_negative, digits, places))
}

/// Returns the number that digits make, if it has at most 64 bits.
fn signed<'a>(is_negative: bool, mut digits: impl Iterator<Item = &'a u8>) -> Option<i64> {
    // The least integer has no positive counterpart, so that a negative number grows downwards.
    let sign = if is_negative { -1 } else { 1 };
    digits.try_fold(0_i64, |value, digit| value.checked_mul(10)?.checked_add(sign * i64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An independent reading of a number, in 128 bits: the digits of its text without point, times a power of ten.
    fn expected(text: &str, places: u32) -> Result<i128, NotDecimal> {
        let number = text.strip_prefix('-').unwrap_or(text);
        let (before, after) = number.split_once('.').unwrap_or((number, "0"));
        if before.is_empty() || after.is_empty() || !(before.to_owned() + after).chars().all(|c| c.is_ascii_digit()) {
            return Err(NotDecimal::Number);
        }
        let after = after.trim_end_matches('0');
        if after.len() > places as usize {
            return Err(NotDecimal::Places);
        }
        let units: i128 = format!("{before}{after}").parse().map_err(|_| NotDecimal::Number)?;
        let units = units.checked_mul(10_i128.pow(places - after.len() as u32)).ok_or(NotDecimal::Number)?;
        Ok(if text.starts_with('-') { -units } else { units })
    }

    fn number() -> impl Strategy<Value = String> {
        prop_oneof![
            8 => "-?[0-9]{0,20}(\\.[0-9]{0,3}0{0,4})?",
            1 => "-?0{0,30}[0-9]{0,3}(\\.0{0,12})?",
            1 => "[-+.0-9eE x]{0,6}",
            1 => prop::sample::select(vec![
                "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809",
                "9223372036854775807.0", "999999999999999999", "1000000000000000000", "-999999999999999999",
                "999999999.999999999", "1e3", "+1", "0x1", "١", "1_000", " 1", "1 ", "", "-", ".", "-.", "1.", ".1",
            ]).prop_map(str::to_owned),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn integers_agree_with_an_independent_reading(text in number()) {
            let expected = expected(&text, 0).ok().and_then(|value| i64::try_from(value).ok());
            prop_assert_eq!(integer(text.as_bytes()), expected);
        }

        #[test]
        fn decimals_agree_with_an_independent_reading(text in number(), places in 1..=MAX_PLACES) {
            let expected = expected(&text, places).and_then(|value| match i64::try_from(value) {
                Ok(value) if value.abs() < 1_000_000_000_000_000_000 => Ok(value),
                _ => Err(NotDecimal::Number),
            });
            prop_assert_eq!(decimal(text.as_bytes(), places), expected);
        }
    }

    #[test]
    fn nothing_is_rounded() {
        assert_eq!(decimal(b"9.999", 2), Err(NotDecimal::Places));
        assert_eq!(decimal(b"9.990", 2), Ok(999));
        assert_eq!(decimal(b"-0.5", 1), Ok(-5));
        assert_eq!(integer(b"305000.0"), Some(305_000));
        assert_eq!(integer(b"305000.5"), None);
    }
}
