//! Records: their extent in a text, and their fields. Covered by the tests of `blocks` and of [`crate::input`], which
//! compare it with a second parser.

use csv_async::{AsyncReader, AsyncReaderBuilder, ByteRecord};
use futures::FutureExt;
use memchr::{memchr, memchr2, memchr2_iter, memchr3};
use tokio::io::{AsyncReadExt, Chain};

use crate::formats::csv::{MAX_RECORD_BYTES, MAX_RECORD_LINES, NotCsv};

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

/// The records of a text, in order.
pub struct Records<'a> {
    text: &'a [u8],
    at: usize,
    line: u64,
    reader: AsyncReader<Chain<&'static [u8], &'a [u8]>>,
    pub(super) record: ByteRecord,
}

impl<'a> Records<'a> {
    /// Returns the records of a text that begins on this line.
    pub(super) fn of(text: &'a [u8], line: u64) -> Self {
        let mut builder = AsyncReaderBuilder::new();
        let builder = builder.has_headers(false).flexible(true);
        // At the supposed beginning of a file the reader would strip bytes that look like a byte-order mark.
        let reader = builder.create_reader((&b"\n"[..]).chain(text));
        Records { text, at: 0, line, reader, record: ByteRecord::new() }
    }

    /// Moves to the next record and returns its position, or `None` at the end of the text.
    pub fn advance(&mut self) -> Option<Line> {
        let rest = &self.text[self.at..];
        let empty = empty_lines(rest);
        self.line += line_ends(&rest[..empty]);
        let rest = &rest[empty..];
        if rest.is_empty() {
            self.at = self.text.len();
            return None;
        }
        let extent = Extent::of(rest);
        let mut line = Line { number: self.line, lines: extent.lines, is_malformed: extent.is_malformed };
        self.at += empty + extent.length;
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

/// Returns true if the text can be split at its commas and line feeds alone.
pub fn is_plain(text: &[u8]) -> bool {
    memchr2(b'"', b'\r', text).is_none()
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

/// Returns the record at the start of a text, or `None` if its end is not there yet.
pub(super) fn first_record(text: &[u8], line: u64, has_ended: bool) -> Result<Option<Extent>, NotCsv> {
    let extent = Extent::of(text);
    if extent.lines > MAX_RECORD_LINES {
        return Err(NotCsv::TallRecord { line });
    }
    if extent.content > MAX_RECORD_BYTES {
        return Err(NotCsv::LongRecord { line });
    }
    match extent.open_quote {
        Some(within) if has_ended => Err(NotCsv::EndsInQuotes { line: line + within }),
        _ => Ok((extent.is_ended || has_ended).then_some(extent)),
    }
}

/// The record at the start of a text, as far as the text goes. An empty one is an empty line.
pub(super) struct Extent {
    /// Its bytes, without and with its final line end.
    content: usize,
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
    fn of(text: &[u8]) -> Self {
        let (content, length) = (text.len(), text.len());
        let mut extent = Extent { content, length, lines: 1, is_malformed: false, is_ended: false, open_quote: None };
        let mut at = 0;
        while let Some(found) = memchr3(b'"', b'\n', b'\r', &text[at..]) {
            at += found;
            if text[at] != b'"' {
                extent.content = at;
                extent.length = at + if text[at..].starts_with(b"\r\n") { 2 } else { 1 };
                extent.is_ended = true;
                break;
            }
            // A quote has a special meaning at the beginning of a field only.
            let opens = at == 0 || text[at - 1] == b',';
            at += 1;
            if opens && !extent.pass_quoted(text, &mut at) {
                break;
            }
        }
        extent
    }

    /// Moves from an opening quote past the closing one. Returns false if there is none.
    fn pass_quoted(&mut self, text: &[u8], at: &mut usize) -> bool {
        let opened = self.lines - 1;
        while let Some(length) = memchr(b'"', &text[*at..]) {
            self.lines += line_ends(&text[*at..*at + length]);
            *at += length + 1;
            match text.get(*at) {
                Some(b'"') => *at += 1,
                following => {
                    self.is_malformed |= !matches!(following, None | Some(b',' | b'\n' | b'\r'));
                    return true;
                }
            }
        }
        self.lines += line_ends(&text[*at..]);
        self.open_quote = Some(opened);
        false
    }
}
