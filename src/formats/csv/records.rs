//! Records.

use csv_async::{AsyncReader, AsyncReaderBuilder, ByteRecord};
use futures::FutureExt;
use memchr::{memchr, memchr2, memchr2_iter, memchr3};
use tokio::io::{AsyncReadExt, Chain};

use crate::formats::csv::{MAX_RECORD_BYTES, MAX_RECORD_LINES, NotCsv};

/// Where a record stands in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// The line on which it begins, from 1, as an editor counts.
    pub number: u64,
    /// How many lines it spans.
    pub lines: u64,
    /// Text stands behind a closing quote, so that nobody can say what the field is.
    pub is_malformed: bool,
}

/// The records of a text, one after the other.
pub struct Records<'a> {
    text: &'a [u8],
    at: usize,
    line: u64,
    reader: AsyncReader<Chain<&'static [u8], &'a [u8]>>,
    pub(super) record: ByteRecord,
}

impl<'a> Records<'a> {
    /// The records of a text that begins on this line.
    pub(super) fn of(text: &'a [u8], line: u64) -> Self {
        let mut builder = AsyncReaderBuilder::new();
        let builder = builder.has_headers(false).flexible(true);
        // Of what it believes to be the beginning of a file, the reader would take away what looks like a byte-order mark.
        let reader = builder.create_reader((&b"\n"[..]).chain(text));
        Records { text, at: 0, line, reader, record: ByteRecord::new() }
    }

    /// Goes to the next record, and tells where it stands.
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
        // A text in memory is always ready, and of any bytes the reader makes some record.
        if !matches!(self.reader.read_byte_record(&mut self.record).now_or_never(), Some(Ok(true))) {
            self.record.clear();
            line.is_malformed = true;
        }
        Some(line)
    }

    /// The fields of the record.
    pub fn record(&self) -> &ByteRecord {
        &self.record
    }
}

/// Whether text can be split at its commas and line feeds alone.
pub fn is_plain(text: &[u8]) -> bool {
    memchr2(b'"', b'\r', text).is_none()
}

/// How many lines end in a text, with LF, CRLF or CR.
pub(super) fn line_ends(text: &[u8]) -> u64 {
    let ends = memchr2_iter(b'\n', b'\r', text);
    ends.filter(|&at| text[at] == b'\n' || text.get(at + 1) != Some(&b'\n')).count() as u64
}

/// A text without a carriage return at its end, whose line feed may be yet to come.
pub(super) fn known(text: &[u8], has_ended: bool) -> &[u8] {
    if has_ended { text } else { text.strip_suffix(b"\r").unwrap_or(text) }
}

/// Bytes of the empty lines that a text begins with.
pub(super) fn empty_lines(text: &[u8]) -> usize {
    text.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count()
}

/// The record that a text begins with, if that is there to its end.
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

/// The record that a text begins with, as far as the text goes. An empty one is an empty line.
pub(super) struct Extent {
    /// Its bytes, without and with the end of its last line.
    content: usize,
    pub(super) length: usize,
    /// The lines that it spans.
    pub(super) lines: u64,
    is_malformed: bool,
    /// Its last line has an end.
    is_ended: bool,
    /// Quotes that are not closed, by how many lines after the record's first they are opened.
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
            // Only at the beginning of a field does a quote mean more than itself.
            let opens = at == 0 || text[at - 1] == b',';
            at += 1;
            if opens && !extent.pass_quoted(text, &mut at) {
                break;
            }
        }
        extent
    }

    /// Goes from behind an opening quote to behind the closing one, if there is one.
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
