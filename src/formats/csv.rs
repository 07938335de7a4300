//! CSV, as listening files and the catalogue have it: from the bytes of a file to blocks of whole records, and from a block to its
//! records.
//!
//! Streams, and never has a file in memory whole. Plain or gzip, told apart by the first two bytes; a byte-order mark is passed over.
//! A line ends as in an editor: with LF, CRLF or CR. A record ends with a line, unless that line ends within quotes, and an empty line
//! is no record. [`Blocks`] only looks for where records end; what their fields are is said by csv-async ([`Records`]), block by block,
//! and so on any core.
//!
//! Nothing is swallowed. A quote that is never closed would take every later record with it, and one that is closed by the next stray
//! quote takes those between: so a file is refused that ends within quotes, or has a record of more than [`MAX_RECORD_LINES`] lines or
//! [`MAX_RECORD_BYTES`] bytes. Text behind a closing quote makes a record malformed, which its [`Line`] says.

use std::io::Cursor;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_compression::tokio::bufread::GzipDecoder;
use csv_async::{AsyncReader, AsyncReaderBuilder, ByteRecord};
use futures::FutureExt;
use memchr::{memchr, memchr_iter, memchr2, memchr2_iter, memchr3, memrchr};
use tokio::io::{AsyncRead, AsyncReadExt, BufReader, Chain, ReadBuf};

use crate::aws::error::AwsError;

/// Text of a block: large enough that handing it over costs nothing, small enough for a core's cache.
pub const BLOCK_BYTES: usize = 256 << 10;
/// Longest record, in bytes without the end of its last line.
pub const MAX_RECORD_BYTES: usize = 2 << 20;
/// Most lines of a record. No field that is needed ever has more than one; a text that somebody wrote, in another column, may.
pub const MAX_RECORD_LINES: u64 = 100;
/// What some programs put before UTF-8.
pub const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// Characters of a header that an error shows.
const SHOWN_CHARS: usize = 200;
/// The first two bytes of gzip: <https://www.rfc-editor.org/rfc/rfc1952#section-2.3.1>.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// What the decompressor takes at a time.
const GZIP_BUFFER_BYTES: usize = 64 << 10;

/// Why bytes are not CSV that can be read to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCsv {
    /// No byte in it.
    #[error("the file is empty: not even a header")]
    Empty,
    /// A record without an end.
    #[error(
        "the file is not CSV: the record at line {line} is longer than {MAX_RECORD_BYTES} bytes (an unclosed quote?)"
    )]
    LongRecord {
        /// Line of the record's beginning.
        line: u64,
    },
    /// A record of too many lines.
    #[error(
        "the file is not CSV: the record at line {line} is longer than {MAX_RECORD_LINES} lines (an unclosed quote?)"
    )]
    TallRecord {
        /// Line of the record's beginning.
        line: u64,
    },
    /// The last record has no end.
    #[error(
        "the file is not CSV: it ends within the quotes that line {line} opens, and every line after that is inside them"
    )]
    EndsInQuotes {
        /// Line of the quote that is not closed.
        line: u64,
    },
    /// The compressed stream stops in the middle.
    #[error("the gzip stream is cut off")]
    TruncatedGzip,
    /// The compressed stream is damaged.
    #[error("the gzip stream is damaged: {0}")]
    DamagedGzip(String),
    /// Larger than allowed.
    #[error("the file is larger than the limit of {limit_bytes} bytes (--max-object-size)")]
    TooLarge {
        /// The limit, before or after decompression.
        limit_bytes: u64,
    },
}

/// Why a file could not be read on.
#[derive(Debug, thiserror::Error)]
pub enum CsvError {
    /// It is not CSV.
    #[error(transparent)]
    Bad(#[from] NotCsv),
    /// Its bytes could not be had, which says nothing about the file.
    #[error(transparent)]
    Body(AwsError),
}

impl From<std::io::Error> for CsvError {
    fn from(error: std::io::Error) -> Self {
        // What the bucket and the body say travels inside; anything else is said by the decompressor.
        let error = match error.downcast::<AwsError>() {
            Ok(error) => return CsvError::Body(error),
            Err(error) => error,
        };
        CsvError::Bad(match error.downcast::<NotCsv>() {
            Ok(bad) => bad,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => NotCsv::TruncatedGzip,
            Err(error) => NotCsv::DamagedGzip(error.to_string()),
        })
    }
}

/// The text of a file: decompressed and bounded.
pub(crate) struct Body<'a> {
    inner: Pin<Box<dyn AsyncRead + Send + 'a>>,
    delivered: u64,
    limit_bytes: u64,
}

impl<'a> Body<'a> {
    /// Looks at what the file begins with. `limit_bytes` bounds the text.
    pub(crate) async fn open(mut file: impl AsyncRead + Send + Unpin + 'a, limit_bytes: u64) -> Result<Self, CsvError> {
        let mut magic = Vec::with_capacity(GZIP_MAGIC.len());
        (&mut file).take(GZIP_MAGIC.len() as u64).read_to_end(&mut magic).await?;
        if magic.is_empty() {
            return Err(NotCsv::Empty.into());
        }
        let is_gzip = magic == GZIP_MAGIC;
        let file = Cursor::new(magic).chain(file);
        let inner: Pin<Box<dyn AsyncRead + Send + 'a>> = if is_gzip {
            let mut decoder = GzipDecoder::new(BufReader::with_capacity(GZIP_BUFFER_BYTES, file));
            decoder.multiple_members(true);
            Box::pin(decoder)
        } else {
            Box::pin(file)
        };
        Ok(Body { inner, delivered: 0, limit_bytes })
    }

    /// Reads until there are `wanted` bytes; tells whether the text has ended.
    pub(crate) async fn fill(&mut self, text: &mut Vec<u8>, wanted: usize) -> Result<bool, CsvError> {
        while text.len() < wanted {
            text.reserve(wanted - text.len());
            if self.read_buf(text).await? == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl AsyncRead for Body<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let ready = self.inner.as_mut().poll_read(context, buffer);
        self.delivered += (buffer.filled().len() - before) as u64;
        if self.delivered > self.limit_bytes {
            let bad = NotCsv::TooLarge { limit_bytes: self.limit_bytes };
            return Poll::Ready(Err(std::io::Error::other(bad)));
        }
        ready
    }
}

/// A file that is being read block by block.
pub struct Blocks<'a> {
    body: Body<'a>,
    /// What was read and not given out, from the beginning of a record on, and the line on which that is.
    text: Vec<u8>,
    line: u64,
    has_ended: bool,
}

impl<'a> Blocks<'a> {
    /// Reads the header: the first record. Nothing behind it is judged yet, as what is not CSV at all is seen in the header.
    /// `limit_bytes` bounds the text.
    pub async fn open(file: impl AsyncRead + Send + Unpin + 'a, limit_bytes: u64) -> Result<(Self, Header), CsvError> {
        let mut body = Body::open(file, limit_bytes).await?;
        let (mut text, mut line, mut is_beginning) = (Vec::new(), 1, true);
        loop {
            let wanted = text.len() + BLOCK_BYTES;
            let has_ended = body.fill(&mut text, wanted).await?;
            if std::mem::take(&mut is_beginning) && text.starts_with(BYTE_ORDER_MARK) {
                text.drain(..BYTE_ORDER_MARK.len());
            }
            let empty = empty_lines(known(&text, has_ended));
            line += line_ends(&text[..empty]);
            text.drain(..empty);
            if text.is_empty() && has_ended {
                return Err(NotCsv::Empty.into());
            }
            let known = known(&text, has_ended);
            if known.is_empty() {
                continue;
            }
            if let Some(extent) = first_record(known, line, has_ended)? {
                let mut records = Records::of(&text, line);
                let is_malformed = records.advance().is_some_and(|line| line.is_malformed);
                let header = Header { record: records.record, is_malformed };
                text.drain(..extent.length);
                return Ok((Blocks { body, text, line: line + extent.lines, has_ended: false }, header));
            }
        }
    }

    /// The next block; `None` at the end of the file. Blocks that came before an error are not to be used: a file counts whole or
    /// not at all.
    pub async fn next(&mut self) -> Result<Option<Block>, CsvError> {
        if self.has_ended {
            return Ok(None);
        }
        let mut wanted = BLOCK_BYTES;
        let (length, is_plain) = loop {
            self.has_ended = self.body.fill(&mut self.text, wanted).await?;
            let (length, is_plain) = whole_records(&self.text, self.line, self.has_ended)?;
            if length > 0 || self.has_ended {
                break (length, is_plain);
            }
            // A record longer than a block.
            wanted = self.text.len() + BLOCK_BYTES;
        };
        if length == 0 {
            return Ok(None);
        }
        let mut rest = Vec::with_capacity(BLOCK_BYTES);
        rest.extend_from_slice(&self.text[length..]);
        self.text.truncate(length);
        let block = Block { text: std::mem::replace(&mut self.text, rest), first_line: self.line, is_plain };
        // Without a carriage return there is one thing to count, which takes a third of the time.
        self.line += if is_plain { memchr_iter(b'\n', &block.text).count() as u64 } else { line_ends(&block.text) };
        Ok(Some(block))
    }
}

/// Whole records of a file.
#[derive(Debug)]
pub struct Block {
    text: Vec<u8>,
    first_line: u64,
    is_plain: bool,
}

impl Block {
    /// Its text.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The line of the file with which its text begins, from 1.
    pub fn first_line(&self) -> u64 {
        self.first_line
    }

    /// Whether its text can be split at commas and line feeds alone.
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Its records.
    pub fn records(&self) -> Records<'_> {
        Records::of(&self.text, self.first_line)
    }

    #[cfg(test)]
    pub(crate) fn of(text: Vec<u8>, first_line: u64) -> Self {
        let is_plain = is_plain(&text);
        Block { text, first_line, is_plain }
    }
}

/// Why a file's first record is not the header that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotHeader {
    /// It is no text: what it is.
    #[error("the file is not CSV: its first line is {0}")]
    Binary(&'static str),
    /// What is wrong with it, and what it is.
    #[error("{0}")]
    Text(String),
}

/// The first record of a file, which names its columns.
#[derive(Debug)]
pub struct Header {
    record: ByteRecord,
    is_malformed: bool,
}

impl Header {
    /// The header that is this record.
    pub(crate) fn new(record: ByteRecord, is_malformed: bool) -> Self {
        Header { record, is_malformed }
    }

    /// How many columns there are.
    pub fn width(&self) -> usize {
        self.record.len()
    }

    /// Finds columns by name, in any order and letter case, among others. The error says what is wrong with the header and what it is.
    pub fn find<const N: usize>(&self, columns: [&str; N]) -> Result<[usize; N], NotHeader> {
        let found = match find_columns(self.record.iter(), columns) {
            Ok(_) if self.is_malformed => {
                Err("text stands behind the quote that closes a field of the header".to_owned())
            }
            found => found,
        };
        found.map_err(|problem| {
            let text = self.record.iter().collect::<Vec<_>>().join(&b',');
            match kind_of(&text) {
                Some(kind) => NotHeader::Binary(kind),
                None => {
                    let text = String::from_utf8_lossy(&text);
                    let shown: String = text.chars().take(SHOWN_CHARS).collect();
                    let more = if shown.len() < text.len() { " and more" } else { "" };
                    NotHeader::Text(format!("{problem}; the header is {shown:?}{more}"))
                }
            }
        })
    }
}

/// Finds columns in a header by name. The error names those that are missing or doubled.
pub(crate) fn find_columns<'a, const N: usize>(
    header: impl Iterator<Item = &'a [u8]>,
    columns: [&str; N],
) -> Result<[usize; N], String> {
    let mut found = [None; N];
    for (index, name) in header.enumerate() {
        let name = name.trim_ascii();
        for (place, column) in found.iter_mut().zip(columns) {
            if name.eq_ignore_ascii_case(column.as_bytes()) && place.replace(index).is_some() {
                return Err(format!("the header names column {column} twice"));
            }
        }
    }
    let missing: Vec<_> =
        found.iter().zip(columns).filter(|(place, _)| place.is_none()).map(|(_, name)| name).collect();
    match missing.as_slice() {
        [] => Ok(found.map(Option::unwrap_or_default)),
        [one] => Err(format!("the header lacks the column {one}")),
        several => Err(format!("the header lacks the columns {}", several.join(", "))),
    }
}

/// Names what a file is that begins with these bytes; `None` when they may well be text.
fn kind_of(head: &[u8]) -> Option<&'static str> {
    const UTF_16: &str = "binary (text in UTF-16; write it in UTF-8)";
    // The first bytes of what is mistaken for CSV.
    const KINDS: [(&[u8], &str); 9] = [
        (b"\xFF\xFE", UTF_16),
        (b"\xFE\xFF", UTF_16),
        (&GZIP_MAGIC, "binary (gzip within gzip; compress it once)"),
        (b"\x28\xB5\x2F\xFD", "binary (compressed with zstd; use gzip)"),
        (b"BZh", "binary (compressed with bzip2; use gzip)"),
        (b"PK\x03\x04", "binary (a ZIP archive or a spreadsheet)"),
        (b"PAR1", "binary (Parquet)"),
        (b"Obj\x01", "binary (Avro)"),
        (b"ORC", "binary (ORC)"),
    ];
    let known = KINDS.iter().find(|(magic, _)| head.starts_with(magic)).map(|&(_, kind)| kind);
    // Without a mark, UTF-16 has a zero in every other byte of what is ASCII.
    let is_wide = head.len() > 3 && head.chunks_exact(2).take(8).all(|pair| (pair[0] == 0) != (pair[1] == 0));
    let unknown = || (head.contains(&0) || std::str::from_utf8(head).is_err()).then_some("binary");
    known.or(is_wide.then_some(UTF_16)).or_else(unknown)
}

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
    record: ByteRecord,
}

impl<'a> Records<'a> {
    /// The records of a text that begins on this line.
    fn of(text: &'a [u8], line: u64) -> Self {
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
fn line_ends(text: &[u8]) -> u64 {
    let ends = memchr2_iter(b'\n', b'\r', text);
    ends.filter(|&at| text[at] == b'\n' || text.get(at + 1) != Some(&b'\n')).count() as u64
}

/// Length of the whole records that a text begins with, and whether they are plain. The text begins on `line`, and may go on unless
/// it `has_ended`.
fn whole_records(text: &[u8], line: u64, has_ended: bool) -> Result<(usize, bool), NotCsv> {
    let last = if has_ended { text.len() } else { memrchr(b'\n', text).map_or(0, |last| last + 1) };
    if text.len() <= MAX_RECORD_BYTES && is_plain(&text[..last]) && (last > 0 || has_ended) {
        return Ok((last, true));
    }
    let known = known(text, has_ended);
    let (mut at, mut line) = (0, line);
    while at < known.len()
        && let Some(record) = first_record(&known[at..], line, has_ended)?
    {
        at += record.length;
        line += record.lines;
    }
    Ok((at, is_plain(&text[..at])))
}

/// A text without a carriage return at its end, whose line feed may be yet to come.
fn known(text: &[u8], has_ended: bool) -> &[u8] {
    if has_ended { text } else { text.strip_suffix(b"\r").unwrap_or(text) }
}

/// Bytes of the empty lines that a text begins with.
fn empty_lines(text: &[u8]) -> usize {
    text.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count()
}

/// The record that a text begins with, if that is there to its end.
fn first_record(text: &[u8], line: u64, has_ended: bool) -> Result<Option<Extent>, NotCsv> {
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
struct Extent {
    /// Its bytes, without and with the end of its last line.
    content: usize,
    length: usize,
    /// The lines that it spans.
    lines: u64,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The header's fields, and the records behind it with where they stand; or why it is not CSV.
    async fn read(text: &[u8]) -> Result<(Vec<String>, Vec<(u64, u64, bool)>), NotCsv> {
        let bad = |error| match error {
            CsvError::Bad(bad) => bad,
            CsvError::Body(error) => panic!("there is no network here: {error}"),
        };
        let mut found = Vec::new();
        let (mut blocks, header) = Blocks::open(text, u64::MAX).await.map_err(bad)?;
        while let Some(block) = blocks.next().await.map_err(bad)? {
            let mut records = block.records();
            while let Some(Line { number, lines, is_malformed }) = records.advance() {
                found.push((number, lines, is_malformed));
            }
        }
        Ok((header.record.iter().map(|field| String::from_utf8_lossy(field).into_owned()).collect(), found))
    }

    #[tokio::test]
    async fn nothing_is_swallowed() {
        let many = |lines: usize| format!("h\na,\"{}\"\nb,c\n", "x\n".repeat(lines - 1));
        for (text, expected) in [
            ("h\na,\"open\nb,c\n", Err(NotCsv::EndsInQuotes { line: 2 })),
            ("h\na,\"open", Err(NotCsv::EndsInQuotes { line: 2 })),
            ("h\r\n\r\na,\"open\r\nb,\"\"\"\r\nc", Ok(vec![(3, 2), (5, 1)])),
            ("h\n\"closed\n\",\"open\n", Err(NotCsv::EndsInQuotes { line: 3 })),
            ("\n\n\"", Err(NotCsv::EndsInQuotes { line: 3 })),
            ("h\n\"\"", Ok(vec![(2, 1)])),
            ("\"h\r\ni\"\ra\"b\n\n\"c\n\"\nd", Ok(vec![(3, 1), (5, 2), (7, 1)])),
            (&many(100), Ok(vec![(2, 100), (102, 1)])),
            (&many(101), Err(NotCsv::TallRecord { line: 2 })),
            (&format!("h\n{}\n", "x".repeat(MAX_RECORD_BYTES)), Ok(vec![(2, 1)])),
            (&format!("h\n{}\n", "x".repeat(MAX_RECORD_BYTES + 1)), Err(NotCsv::LongRecord { line: 2 })),
            (&format!("h\n\"{}\"\n", "x".repeat(MAX_RECORD_BYTES)), Err(NotCsv::LongRecord { line: 2 })),
            (&format!("{}\n", "x".repeat(MAX_RECORD_BYTES + 1)), Err(NotCsv::LongRecord { line: 1 })),
            ("", Err(NotCsv::Empty)),
            ("\n\r\n", Err(NotCsv::Empty)),
            ("\u{feff}", Err(NotCsv::Empty)),
        ] {
            let found = read(text.as_bytes()).await.map(|(_, found)| found);
            let found = found.map(|records| records.iter().map(|&(number, lines, _)| (number, lines)).collect());
            assert_eq!(found, expected, "{:?}", &text[..text.len().min(40)]);
        }
    }

    #[tokio::test]
    async fn text_behind_a_closing_quote_is_no_other_value() {
        for (text, is_malformed) in [
            ("\"a\"b,c\n", true),
            ("c,\"a\" \n", true),
            ("\"a\"b,\"c\nd\"\n", true),
            ("\"a\"\"b\",c\n", false),
            ("a\"b\",c\n", false),
            ("\"a\",\"\"\r\n", false),
            ("\"a\"", false),
        ] {
            let (_, found) = read(format!("h\n{text}").as_bytes()).await.unwrap();
            assert_eq!((found.len(), found[0].2), (1, is_malformed), "{text:?}");
        }
        let (blocks, header) = Blocks::open(&b"\"a\"b,c\n"[..], u64::MAX).await.unwrap();
        drop(blocks);
        assert!(header.find(["ab"]).unwrap_err().to_string().contains("behind the quote"));
    }

    #[tokio::test]
    async fn a_byte_order_mark_hides_nothing() {
        for (text, first) in [
            ("\u{feff}\"a\",b\n", "a"),
            ("\"a\",b\n", "a"),
            ("\u{feff}a\n", "a"),
            ("ab", "ab"),
            ("\u{feff}\u{feff}a", "\u{feff}a"),
        ] {
            assert_eq!(read(text.as_bytes()).await.unwrap().0[0], first, "{text:?}");
        }
    }

    #[test]
    fn what_is_not_text_is_named() {
        let utf_16: Vec<u8> = "user_id,track_id".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (head, kind) in [
            (&[&b"\xFF\xFE"[..], &utf_16].concat()[..], "UTF-16"),
            (&utf_16, "UTF-16"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"PAR1\x15\x04", "Parquet"),
            (b"\0\0\0\x01\xFF", "binary"),
        ] {
            let header = Header::new(ByteRecord::from(vec![head]), false);
            let told = header.find(["user_id"]).unwrap_err().to_string();
            assert!(told.contains(kind), "{told}");
        }
        let told = Header::new(ByteRecord::from(vec!["a", "b"]), false).find(["a", "c"]).unwrap_err();
        assert_eq!(told.to_string(), "the header lacks the column c; the header is \"a,b\"");
    }
}
