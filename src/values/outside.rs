//! Text from outside, made fit to be shown: harmless, and not too long.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Makes control characters, and those that change the direction of writing, visible in a text from outside.
pub fn printable(text: &str) -> String {
    text.chars().map(|char| if is_harmful(char) { '\u{fffd}' } else { char }).collect()
}

/// Returns true for a control character, and for one that changes the direction of writing.
pub fn is_harmful(char: char) -> bool {
    char.is_control() || matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Cuts a text that takes more than `most` columns, and marks its end.
pub fn cut(text: &str, most: usize) -> String {
    if text.width() <= most {
        return text.to_owned();
    }
    let (mut kept, mut columns) = (String::new(), 1);
    for char in text.chars() {
        columns += char.width().unwrap_or(0);
        if columns > most {
            break;
        }
        kept.push(char);
    }
    kept + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_move_the_cursor_or_turn_the_line() {
        assert_eq!(printable("a\u{1b}[2Jü\nb\u{202e}c.csv"), "a\u{fffd}[2Jü\u{fffd}b\u{fffd}c.csv");
    }
}
