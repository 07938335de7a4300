//! Ids and texts.

/// Length of an id in characters if a definition names none.
pub const DEFAULT_ID_CHARS: usize = 64;
/// Greatest length of an id and of a text, in bytes: report items have them as keys, and DynamoDB allows 2,048 bytes
/// (<https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html>).
pub const MAX_BYTES: usize = 1024;

/// A reason why bytes are no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotText {
    /// They are not UTF-8.
    Utf8,
    /// They are too many.
    Long,
}

/// Parses an id: 1 to `max` visible ASCII characters.
#[inline]
pub fn id(field: &[u8], max: usize) -> Option<&str> {
    if field.is_empty() || field.len() > max || !field.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    std::str::from_utf8(field).ok()
}

/// Parses a text of at most `max` bytes. If it may be `cut`, it is shortened to as many whole characters as fit.
#[inline]
pub fn text(field: &[u8], max: usize, cut: bool) -> Result<&str, NotText> {
    let text = std::str::from_utf8(field).map_err(|_| NotText::Utf8)?;
    match text.len() <= max {
        true => Ok(text),
        false if cut => Ok(&text[..text.floor_char_boundary(max)]),
        false => Err(NotText::Long),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_are_visible_ascii() {
        for (field, expected) in [
            ("abc", Some("abc")),
            ("~!x", Some("~!x")),
            ("12345678", Some("12345678")),
            ("123456789", None),
            ("", None),
            ("a b", None),
            ("a\tb", None),
            ("a\u{7f}", None),
            ("ä", None),
        ] {
            assert_eq!(id(field.as_bytes(), 8), expected, "{field:?}");
        }
        assert_eq!(id(b"\xff", 8), None);
    }

    proptest! {
        /// Of a text the longest beginning of whole characters is kept, found here by trying each.
        #[test]
        fn a_text_is_cut_between_characters(text in "[a-zäß€🎵]{0,12}", max in 1..20_usize) {
            let beginnings = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            let longest = beginnings.filter(|&at| at <= max).max().unwrap();
            prop_assert_eq!(super::text(text.as_bytes(), max, true), Ok(&text[..longest]));
            let whole = if text.len() <= max { Ok(text.as_str()) } else { Err(NotText::Long) };
            prop_assert_eq!(super::text(text.as_bytes(), max, false), whole);
        }

        #[test]
        fn only_utf_8_is_text(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            let expected = String::from_utf8(bytes.clone()).map_err(|_| NotText::Utf8);
            prop_assert_eq!(super::text(&bytes, 100, false).map(str::to_owned), expected);
        }
    }
}
