//! The problems of a definition, each with its place in the file, and the words for it.
//!
//! ```text
//! broken.toml:38:23: orders is the distinct of 'orderid', which is no column or attribute; write 'order_id'
//!      38 | orders = { distinct = "orderid" }
//!         |                        ^^^^^^^
//! ```

use std::fmt::Write;

use serde::Serialize;
use unicode_width::UnicodeWidthChar;

/// Most problems that are kept; there may be one for each character of a file that is something else.
const MAX_PROBLEMS: usize = 100;
/// Most bytes of a message, which may name what the file has.
const MAX_MESSAGE_BYTES: usize = 500;
/// Most characters of a line that are shown. A longer one is shown around its problem.
const MAX_LINE_CHARS: usize = 120;
/// Most characters of a word that another is suggested for.
const MAX_WORD_CHARS: usize = 64;

/// All problems of a definition, in the order of the file. There is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    /// The first of them, in the order of the file.
    pub shown: Vec<Problem>,
    /// The number of all.
    pub all: usize,
}

/// A problem of a definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The number of the line, from 1.
    pub line: usize,
    /// The number of the character in the line, from 1.
    pub column: usize,
    /// The problem, and what to write instead. It may contain text from the file.
    pub message: String,
    /// The line, or a part of it, with blanks in place of tabs.
    pub text: String,
    /// Columns of a terminal before the marked part of the text, and of it.
    #[serde(skip)]
    mark: (usize, usize),
}

impl Problems {
    /// Writes all problems as people read them, under the name of the file.
    pub fn describe(&self, file: &str) -> String {
        let mut described = String::new();
        for problem in &self.shown {
            let Problem { line, column, message, text, mark: (before, width) } = problem;
            let _ = writeln!(described, "{file}:{line}:{column}: {message}");
            let _ = writeln!(described, "{line:>7} | {text}");
            let _ = writeln!(described, "{:>7} | {:before$}{}", "", "", "^".repeat(*width));
        }
        if self.all > self.shown.len() {
            let _ = writeln!(described, "… and {} more", self.all - self.shown.len());
        }
        described.trim_end().to_owned()
    }
}

/// A part of the file, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The proof that a problem was found and noted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reported(());

/// The problems that were found so far.
pub(super) struct Found<'t> {
    text: &'t str,
    problems: Vec<(Span, String)>,
    all: usize,
}

impl<'t> Found<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Found { text, problems: Vec::new(), all: 0 }
    }

    /// Notes a problem.
    pub(super) fn add(&mut self, at: Span, message: impl Into<String>) -> Reported {
        let mut message: String = message.into();
        if message.len() > MAX_MESSAGE_BYTES {
            message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
            message.push('…');
        }
        let problem = (at, message);
        if !self.problems.contains(&problem) {
            self.all += 1;
            if self.problems.len() < MAX_PROBLEMS {
                self.problems.push(problem);
            }
        }
        Reported(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all == 0
    }

    /// Returns the problems in the order of the file.
    pub(super) fn into_problems(mut self) -> Problems {
        self.problems.sort();
        let shown = self.problems.into_iter().map(|(at, message)| Problem::at(self.text, at, message)).collect();
        Problems { shown, all: self.all }
    }
}

impl Problem {
    fn at(text: &str, at: Span, message: String) -> Self {
        let start = text.floor_char_boundary(at.start);
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        let line = text[line_start..].split('\n').next().unwrap_or_default();
        let line = line.strip_suffix('\r').unwrap_or(line);
        let from = before[line_start..].chars().count();
        let marked = text.get(start..at.end).unwrap_or_default().chars().count();
        let chars: Vec<char> = line.chars().map(|char| if char == '\t' { ' ' } else { char }).collect();
        // A part of a long line begins in its middle, with the problem within it.
        let first = if chars.len() <= MAX_LINE_CHARS { 0 } else { from.saturating_sub(MAX_LINE_CHARS / 2) };
        let last = chars.len().min(first + MAX_LINE_CHARS);
        let shown = |from: usize, to: usize| chars.get(from..to).unwrap_or_default().iter().collect::<String>();
        let (cut_before, cut_after) = (if first > 0 { "…" } else { "" }, if last < chars.len() { "…" } else { "" });
        let marked = shown(from, (from + marked).min(last));
        let before = format!("{cut_before}{}", shown(first, from.min(last)));
        Problem {
            line: 1 + text[..line_start].matches('\n').count(),
            column: 1 + from,
            message,
            text: format!("{cut_before}{}{cut_after}", shown(first, last)),
            mark: (width(&before), width(&marked).max(1)),
        }
    }
}

/// Columns of a terminal. A control character takes one, as what is shown in its place does.
fn width(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.chars().map(|char| char.width().unwrap_or(1)).sum() }
}

/// Returns the word that was probably meant: the nearest one, if it is near.
pub(super) fn nearest<'w>(word: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let length = word.chars().count();
    if length > MAX_WORD_CHARS {
        return None;
    }
    let word = word.to_lowercase();
    let near = words.into_iter().map(|other| (strsim::osa_distance(&word, &other.to_lowercase()), other));
    // Of words of one letter every other is near.
    near.filter(|(distance, _)| *distance < length)
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= (length.div_ceil(3)))
        .map(|it| it.1)
}

/// Says which word to write instead, if one is near or if there are few.
pub(super) fn instead<'w>(word: &str, words: impl IntoIterator<Item = &'w str>) -> String {
    let words: Vec<&str> = words.into_iter().collect();
    match nearest(word, words.iter().copied()) {
        Some(near) => format!("; write '{near}'"),
        None if (1..=8).contains(&words.len()) => format!("; there is {}", quoted(words.iter().copied(), "and")),
        None => String::new(),
    }
}

/// Joins words in quotes: `'a', 'b' and 'c'`.
pub(super) fn quoted<'w>(words: impl IntoIterator<Item = &'w str>, last: &str) -> String {
    crate::definition::keys::shape::list(words.into_iter().map(|word| format!("'{word}'")), last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(text: &str, part: &str) -> String {
        let start = text.find(part).unwrap();
        let mut found = Found::new(text);
        found.add(Span { start, end: start + part.len() }, "wrong");
        found.into_problems().describe("f.toml")
    }

    #[test]
    fn the_mark_is_under_the_part() {
        assert_eq!(
            described("a\nb = 歌 \"ü\"\r\nc", "\"ü\""),
            "f.toml:2:7: wrong\n      2 | b = 歌 \"ü\"\n        |        ^^^"
        );
        assert_eq!(described("a\n\tb = 1", "1"), "f.toml:2:6: wrong\n      2 |  b = 1\n        |      ^");
        // A part of several lines is marked in its first, and one at the end of the file has a mark too.
        assert_eq!(described("a = [\n1]", "[\n1]"), "f.toml:1:5: wrong\n      1 | a = [\n        |     ^");
        assert_eq!(described("a = ", ""), "f.toml:1:1: wrong\n      1 | a = \n        | ^");
    }

    #[test]
    fn a_long_line_is_shown_around_its_problem() {
        let text = format!("{}bad{}", "x".repeat(500), "y".repeat(500));
        let x = "x".repeat(60);
        let y = "y".repeat(57);
        let mark = " ".repeat(61);
        assert_eq!(described(&text, "bad"), format!("f.toml:1:501: wrong\n      1 | …{x}bad{y}…\n        | {mark}^^^"));
    }

    #[test]
    fn many_problems_are_counted() {
        let text = "x\n".repeat(500);
        let mut found = Found::new(&text);
        for line in (0..500).rev() {
            found.add(Span { start: 2 * line, end: 2 * line + 1 }, "wrong");
        }
        let problems = found.into_problems();
        assert_eq!((problems.shown.len(), problems.all), (MAX_PROBLEMS, 500));
        assert!(problems.describe("f").ends_with("\n… and 400 more"));
    }

    #[test]
    fn the_nearest_word_is_near() {
        let names = ["user_id", "track_id", "listen_time"];
        assert_eq!(instead("userid", names), "; write 'user_id'");
        assert_eq!(instead("Track_ID", names), "; write 'track_id'");
        assert_eq!(instead("country", names), "; there is 'user_id', 'track_id' and 'listen_time'");
        assert_eq!(instead(&"x".repeat(1000), names), "; there is 'user_id', 'track_id' and 'listen_time'");
        assert_eq!(instead("x", []), "");
    }
}
