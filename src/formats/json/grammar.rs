//! The grammar: the end of a value. The tests compare it with serde_json.
//!
//! Texts need not be UTF-8 here, and a surrogate may stand alone: it is the wanted values that must be text.

use crate::formats::MAX_RECORD_BYTES;
use crate::formats::json::MAX_DEPTH;

/// A reason why the end of a value was not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The text ends before the value.
    More,
    /// The text is no JSON, or nested too deep.
    Broken,
}

/// Returns the place after the blanks at this one.
#[inline]
pub(super) fn blanks(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = text.get(at) {
        at += 1;
    }
    at
}

/// Returns the place after the text whose quote is at this one, and true if it has escapes.
#[inline]
pub(super) fn string(text: &[u8], at: usize) -> Result<(usize, bool), Stop> {
    let (mut at, mut has_escapes) = (at + 1, false);
    loop {
        at = plain(text, at);
        match text.get(at) {
            Some(b'"') => return Ok((at + 1, has_escapes)),
            Some(b'\\') => {
                at = escape(text, at + 1)?;
                has_escapes = true;
            }
            Some(_) => return Err(Stop::Broken),
            None => return Err(Stop::More),
        }
    }
}

/// Returns the place of the first quote, backslash or control character, eight bytes at a time.
#[inline]
fn plain(text: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    // A byte of zero, or below 32, has its highest bit set; bytes after such a one may too.
    let zero = |bytes: u64| bytes.wrapping_sub(ONES) & !bytes & HIGH;
    while let Some(bytes) = text.get(at..at + 8).and_then(|bytes| bytes.first_chunk()) {
        let bytes = u64::from_le_bytes(*bytes);
        let control = bytes.wrapping_sub(ONES * 0x20) & !bytes & HIGH;
        let found = zero(bytes ^ (ONES * u64::from(b'"'))) | zero(bytes ^ (ONES * u64::from(b'\\'))) | control;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while text.get(at).is_some_and(|&byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        at += 1;
    }
    at
}

/// Returns the place after the escape whose backslash is before this one.
fn escape(text: &[u8], at: usize) -> Result<usize, Stop> {
    match text.get(at) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 1),
        Some(b'u') => {
            let digits = &text[at + 1..text.len().min(at + 5)];
            match digits.iter().all(u8::is_ascii_hexdigit) {
                true if digits.len() == 4 => Ok(at + 5),
                true => Err(Stop::More),
                false => Err(Stop::Broken),
            }
        }
        Some(_) => Err(Stop::Broken),
        None => Err(Stop::More),
    }
}

/// Returns the place of the value that follows a key, whose end is at this place.
#[inline]
pub(super) fn colon(text: &[u8], at: usize) -> Result<usize, Stop> {
    let at = blanks(text, at);
    match text.get(at) {
        Some(b':') => Ok(blanks(text, at + 1)),
        Some(_) => Err(Stop::Broken),
        None => Err(Stop::More),
    }
}

/// Returns the place after the number, `true`, `false` or `null` at this one. After a number there must be another
/// byte, as it might go on.
#[inline]
pub(super) fn scalar(text: &[u8], at: usize) -> Result<usize, Stop> {
    let word = |word: &[u8]| {
        let there = &text[at..text.len().min(at + word.len())];
        if there == word {
            Ok(at + word.len())
        } else {
            Err(if word.starts_with(there) { Stop::More } else { Stop::Broken })
        }
    };
    match text.get(at) {
        Some(b't') => word(b"true"),
        Some(b'f') => word(b"false"),
        Some(b'n') => word(b"null"),
        Some(b'-' | b'0'..=b'9') => number(text, at),
        Some(_) => Err(Stop::Broken),
        None => Err(Stop::More),
    }
}

/// Returns the length of the text, number, `true`, `false` or `null` at the start of a text, which stands alone: a
/// record, or what may stand between two of them, follows, or nothing. `is_whole` is true if no more text can follow.
pub fn lone_value(text: &[u8], is_whole: bool) -> Result<usize, Stop> {
    let ends = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b'[' | b']' | b'{');
    let is_text = text.first() == Some(&b'"');
    let length = match is_text {
        true => match string(text, 0) {
            Err(Stop::More) if is_whole => return Err(Stop::Broken),
            found => found?.0,
        },
        false => text.iter().position(ends).unwrap_or(text.len()),
    };
    match text.get(length) {
        None if !is_whole => Err(Stop::More),
        Some(byte) if !ends(byte) => Err(Stop::Broken),
        _ if length > MAX_RECORD_BYTES => Err(Stop::Broken),
        _ if is_text => Ok(length),
        // Behind a number there must be another byte.
        _ if scalar(&[&text[..length], b" "].concat(), 0) == Ok(length) => Ok(length),
        _ => Err(Stop::Broken),
    }
}

fn number(text: &[u8], at: usize) -> Result<usize, Stop> {
    let mut at = if text[at] == b'-' { at + 1 } else { at };
    at = match text.get(at) {
        Some(b'0') => at + 1,
        _ => digits(text, at)?,
    };
    if text.get(at) == Some(&b'.') {
        at = digits(text, at + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = text.get(at) {
            at += 1;
        }
        at = digits(text, at)?;
    }
    match text.get(at) {
        Some(byte) if !byte.is_ascii_digit() => Ok(at),
        Some(_) => Err(Stop::Broken),
        None => Err(Stop::More),
    }
}

/// Returns the place after the digits at this one, of which there must be at least one.
#[inline]
fn digits(text: &[u8], start: usize) -> Result<usize, Stop> {
    let mut at = start;
    while text.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    match text.get(start) {
        Some(_) if at == start => Err(Stop::Broken),
        Some(_) => Ok(at),
        None => Err(Stop::More),
    }
}

/// Returns the place after the value at this one, which is within `depth` others.
#[inline]
pub(super) fn value(text: &[u8], at: usize, depth: u32) -> Result<usize, Stop> {
    match text.get(at) {
        Some(b'"') => string(text, at).map(|(end, _)| end),
        Some(b'{' | b'[') => nested(text, at, depth),
        _ => scalar(text, at),
    }
}

/// Returns the place after the object or list at this one.
fn nested(text: &[u8], mut at: usize, outer_depth: u32) -> Result<usize, Stop> {
    // A bit for each level, the last one lowest: set for an object.
    let (mut levels, mut depth) = (0_u64, outer_depth);
    loop {
        // A value begins here.
        match text.get(at) {
            Some(&open @ (b'{' | b'[')) => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(Stop::Broken);
                }
                levels = levels << 1 | u64::from(open == b'{');
                at = blanks(text, at + 1);
                match (open, text.get(at)) {
                    (b'{', Some(b'}')) | (b'[', Some(b']')) => {}
                    (b'{', _) => {
                        at = key(text, at)?;
                        continue;
                    }
                    _ => continue,
                }
            }
            Some(b'"') => at = string(text, at)?.0,
            _ => at = scalar(text, at)?,
        }
        // A value has ended, or is about to.
        loop {
            at = blanks(text, at);
            let is_object = levels & 1 == 1;
            match text.get(at) {
                Some(b'}') if is_object => {}
                Some(b']') if !is_object => {}
                Some(b',') => {
                    at = blanks(text, at + 1);
                    if is_object {
                        at = key(text, at)?;
                    }
                    break;
                }
                Some(_) => return Err(Stop::Broken),
                None => return Err(Stop::More),
            }
            at += 1;
            levels >>= 1;
            depth -= 1;
            if depth == outer_depth {
                return Ok(at);
            }
        }
    }
}

/// Returns the place of the value whose key is at this one.
#[inline]
fn key(text: &[u8], at: usize) -> Result<usize, Stop> {
    match text.get(at) {
        Some(b'"') => colon(text, string(text, at)?.0),
        Some(_) => Err(Stop::Broken),
        None => Err(Stop::More),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

    /// The same by serde_json.
    fn by_serde(text: &[u8]) -> Result<usize, Stop> {
        let mut values = serde_json::Deserializer::from_slice(text).into_iter::<IgnoredAny>();
        match values.next() {
            Some(Ok(_)) => Ok(values.byte_offset()),
            Some(Err(error)) if error.is_eof() => Err(Stop::More),
            Some(Err(_)) => Err(Stop::Broken),
            None => Err(Stop::More),
        }
    }

    /// Texts that are objects, nearly.
    pub(in crate::formats::json) fn nearly_json() -> impl Strategy<Value = Vec<u8>> {
        let scalar = prop::sample::select(vec![
            "1",
            "-1",
            "0",
            "01",
            "-",
            "1.5",
            "1.",
            ".5",
            "1e3",
            "1E+3",
            "1e",
            "true",
            "false",
            "null",
            "nul",
            "tru e",
            "\"a\"",
            "\"\"",
            "\"a\\\"b\"",
            "\"\\u00e4\"",
            "\"\\ud800\"",
            "\"\\uD83C\\uDFB5\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"ä\"",
            "\"a\nb\"",
            "\"a\tb\"",
            "\"{}[],:\"",
            "\"long enough for eight bytes at a time\"",
            "\"open",
            "NaN",
            "1e999",
            "''",
            "12345678901234567890",
        ]);
        let leaf = scalar.prop_map(|text| text.as_bytes().to_vec());
        let value = leaf.prop_recursive(4, 24, 5, |inner| {
            let blank = || prop::sample::select(vec!["", "", "", " ", "\n", "\r\n\t"]);
            let key = prop::sample::select(vec!["\"a\"", "\"b\"", "\"\\u0061\"", "\"\"", "\"a", "a", "1"]);
            let member = (key, blank(), inner.clone(), blank()).prop_map(|(key, one, value, other)| {
                [key.as_bytes(), one.as_bytes(), b":", other.as_bytes(), &value].concat()
            });
            let separator = || prop::sample::select(vec![",", ",", ",", ",", ", ", "\n,", "", ",,"]);
            prop_oneof![
                (prop::collection::vec(member, 0..4), separator(), blank()).prop_map(|(members, separator, blank)| {
                    [b"{", blank.as_bytes(), &members.join(separator.as_bytes()), b"}"].concat()
                }),
                (prop::collection::vec(inner, 0..4), separator())
                    .prop_map(|(values, separator)| { [b"[", &values.join(separator.as_bytes())[..], b"]"].concat() }),
            ]
        });
        let change = (any::<prop::sample::Index>(), prop::option::weighted(0.3, any::<u8>()));
        (value, prop::option::weighted(0.3, change)).prop_map(|(mut text, change)| {
            if let Some((at, change)) = change
                && !text.is_empty()
            {
                let at = at.index(text.len());
                match change {
                    Some(byte) => text[at] = byte,
                    None => text.truncate(at),
                }
            }
            text
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(6000))]

        #[test]
        fn the_end_of_a_value_is_where_serde_finds_it(text in nearly_json(), after in "[ ,}\n]?") {
            let text = [&text[..], after.as_bytes()].concat();
            let expected = by_serde(&text);
            // Serde is also particular about what follows a scalar.
            if let Some(b'{' | b'[') = text.first() {
                let found = value(&text, 0, 0);
                prop_assert_eq!(found.ok(), expected.ok(), "{:?} {:?}", String::from_utf8_lossy(&text), found);
                // A text that goes on is broken at no place before its end.
                for length in 0..found.unwrap_or(0) {
                    prop_assert_eq!(value(&text[..length], 0, 0), Err(Stop::More), "{}", length);
                }
            }
        }

        #[test]
        fn no_text_panics(text in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = (value(&text, 0, 0), by_serde(&text));
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let deepest = MAX_DEPTH as usize;
        assert_eq!(value(nested(deepest).as_bytes(), 0, 0), Ok(2 * deepest));
        assert_eq!(value(nested(deepest + 1).as_bytes(), 0, 0), Err(Stop::Broken));
        assert_eq!(value(nested(deepest).as_bytes(), 0, 1), Err(Stop::Broken));
        let keys = "{\"a\":".repeat(deepest) + "1" + &"}".repeat(deepest);
        assert_eq!(value(keys.as_bytes(), 0, 0), Ok(keys.len()));
    }
}
