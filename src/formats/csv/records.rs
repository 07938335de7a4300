//! Records: their extent in a text, and their fields. Covered by the tests of `blocks` and of [`crate::input`], which
//! compare it with a second parser.

use std::borrow::Cow;
use std::io::Cursor;

use csv_async::{AsyncReader, AsyncReaderBuilder, ByteRecord};
use futures::FutureExt;
use memchr::{memchr, memchr2, memchr2_iter, memchr3};
use tokio::io::{AsyncReadExt, Chain};

use crate::definition::input::Delimited;
use crate::formats::MAX_RECORD_BYTES;
use crate::formats::csv::{MAX_RECORD_LINES, NotCsv, comment_of, name_of};

/// The position of a record in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// The line on which the record begins, from 1, as an editor counts.
    pub number: u64,
    /// The number of lines that it spans.
    pub lines: u64,
    /// Text follows a closing quote, so that the field's value is undefined.
    pub is_malformed: bool,
}

/// A text after a line end.
type AfterLineEnd<'a> = Chain<&'static [u8], Cursor<Cow<'a, [u8]>>>;

/// The records of a text, in order.
pub struct Records<'a> {
    text: &'a [u8],
    format: &'a Delimited,
    at: usize,
    line: u64,
    reader: AsyncReader<AfterLineEnd<'a>>,
    pub(super) record: ByteRecord,
}

impl<'a> Records<'a> {
    /// Returns the records of a text that begins on this line.
    pub(super) fn of(text: &'a [u8], line: u64, format: &'a Delimited) -> Self {
        let mut builder = AsyncReaderBuilder::new();
        let builder = builder.has_headers(false).flexible(true).delimiter(format.delimiter);
        let builder = match format.quote {
            Some(quote) => builder.quote(quote),
            None => builder.quoting(false),
        };
        // At the supposed beginning of a file the reader would strip bytes that look like a byte-order mark.
        let reader = builder.create_reader((&b"\n"[..]).chain(Cursor::new(without_comments(text, format))));
        Records { text, format, at: 0, line, reader, record: ByteRecord::new() }
    }

    /// Moves to the next record and returns its position, or `None` at the end of the text.
    pub fn advance(&mut self) -> Option<Line> {
        let passed = passed_over(&self.text[self.at..], self.format);
        self.line += line_ends(&self.text[self.at..self.at + passed]);
        self.at += passed;
        if self.at == self.text.len() {
            return None;
        }
        let extent = Extent::of(&self.text[self.at..], self.format);
        let mut line = Line { number: self.line, lines: extent.lines, is_malformed: extent.is_malformed };
        self.at += extent.length;
        self.line += extent.lines;
        // A text in memory is always ready, and the reader makes a record of any bytes.
        if !matches!(self.reader.read_byte_record(&mut self.record).now_or_never(), Some(Ok(true))) {
            self.record.clear();
            line.is_malformed = true;
        }
        Some(line)
    }

    /// Returns the fields of the current record.
    pub fn record(&self) -> &ByteRecord {
        &self.record
    }
}

/// Returns a text without its comments, which csv-async would take for records.
fn without_comments<'a>(text: &'a [u8], format: &Delimited) -> Cow<'a, [u8]> {
    if comment_of(format).is_none() {
        return Cow::Borrowed(text);
    }
    let (mut records, mut at) = (Vec::with_capacity(text.len()), 0);
    while at < text.len() {
        at += passed_over(&text[at..], format);
        let length = Extent::of(&text[at..], format).length;
        records.extend_from_slice(&text[at..at + length]);
        at += length;
    }
    Cow::Owned(records)
}

/// Returns true if the text can be split at its delimiters and line feeds alone: each carriage return is before one.
pub(super) fn is_plain(text: &[u8], format: &Delimited) -> bool {
    let is_odd = |at: usize| Some(text[at]) == format.quote || text.get(at + 1) != Some(&b'\n');
    match format.quote {
        Some(quote) => !memchr2_iter(quote, b'\r', text).any(is_odd),
        None => !memchr::memchr_iter(b'\r', text).any(is_odd),
    }
}

/// Returns the number of line ends in a text: LF, CRLF or CR.
pub(super) fn line_ends(text: &[u8]) -> u64 {
    let ends = memchr2_iter(b'\n', b'\r', text);
    ends.filter(|&at| text[at] == b'\n' || text.get(at + 1) != Some(&b'\n')).count() as u64
}

/// Returns the text without a final carriage return, whose line feed may still follow.
pub(super) fn known(text: &[u8], has_ended: bool) -> &[u8] {
    if has_ended { text } else { text.strip_suffix(b"\r").unwrap_or(text) }
}

/// Returns the length of the empty lines at the start of a text.
pub(super) fn empty_lines(text: &[u8]) -> usize {
    text.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count()
}

/// Returns the length of what is no record at the start of a text: empty lines and comments, with their line ends as
/// far as these are there.
pub(super) fn passed_over(text: &[u8], format: &Delimited) -> usize {
    let mut at = empty_lines(text);
    let Some(comment) = comment_of(format) else { return at };
    while text[at..].starts_with(comment) {
        at += memchr2(b'\n', b'\r', &text[at..]).unwrap_or(text.len() - at);
        at += empty_lines(&text[at..]);
    }
    at
}

/// Returns the record at the start of a text, or `None` if its end is not there yet. A comment is taken for a record
/// without quotes.
pub(super) fn first_record(
    text: &[u8],
    line: u64,
    has_ended: bool,
    format: &Delimited,
) -> Result<Option<Extent>, NotCsv> {
    let extent = match comment_of(format) {
        Some(comment) if text.starts_with(comment) => Extent::of_line(text),
        _ => Extent::of(text, format),
    };
    let format = name_of(format);
    if extent.lines > MAX_RECORD_LINES {
        return Err(NotCsv::TallRecord { format, line });
    }
    if extent.content > MAX_RECORD_BYTES {
        return Err(NotCsv::LongRecord { format, line });
    }
    match extent.open_quote {
        Some(within) if has_ended => Err(NotCsv::EndsInQuotes { format, line: line + within }),
        _ => Ok((extent.is_ended || has_ended).then_some(extent)),
    }
}

/// The record at the start of a text, as far as the text goes. An empty one is an empty line.
pub(super) struct Extent {
    /// Its bytes, without and with its final line end.
    pub(super) content: usize,
    pub(super) length: usize,
    /// The lines that it spans.
    pub(super) lines: u64,
    is_malformed: bool,
    /// Its final line end is in the text.
    is_ended: bool,
    /// The line of quotes that are never closed, counted from the record's first line.
    open_quote: Option<u64>,
}

impl Extent {
    fn open(text: &[u8]) -> Self {
        let (content, length) = (text.len(), text.len());
        Extent { content, length, lines: 1, is_malformed: false, is_ended: false, open_quote: None }
    }

    /// Returns the line at the start of a text.
    pub(super) fn of_line(text: &[u8]) -> Self {
        let mut extent = Extent::open(text);
        if let Some(end) = memchr2(b'\n', b'\r', text) {
            extent.end(text, end);
        }
        extent
    }

    fn of(text: &[u8], format: &Delimited) -> Self {
        let Some(quote) = format.quote else { return Extent::of_line(text) };
        let mut extent = Extent::open(text);
        let mut at = 0;
        while let Some(found) = memchr3(quote, b'\n', b'\r', &text[at..]) {
            at += found;
            if text[at] != quote {
                extent.end(text, at);
                break;
            }
            // A quote has a special meaning at the beginning of a field only.
            let opens = at == 0 || text[at - 1] == format.delimiter;
            at += 1;
            if opens && !extent.pass_quoted(text, &mut at, quote, format.delimiter) {
                break;
            }
        }
        extent
    }

    fn end(&mut self, text: &[u8], at: usize) {
        self.content = at;
        self.length = at + if text[at..].starts_with(b"\r\n") { 2 } else { 1 };
        self.is_ended = true;
    }

    /// Moves from an opening quote past the closing one. Returns false if there is none.
    fn pass_quoted(&mut self, text: &[u8], at: &mut usize, quote: u8, delimiter: u8) -> bool {
        let opened = self.lines - 1;
        while let Some(length) = memchr(quote, &text[*at..]) {
            self.lines += line_ends(&text[*at..*at + length]);
            *at += length + 1;
            match text.get(*at) {
                Some(&following) if following == quote => *at += 1,
                Some(&following) => {
                    self.is_malformed |= following != delimiter && !matches!(following, b'\n' | b'\r');
                    return true;
                }
                None => return true,
            }
        }
        self.lines += line_ends(&text[*at..]);
        self.open_quote = Some(opened);
        false
    }
}
