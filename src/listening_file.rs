//! A listening file: from the bytes of an object to its records.
//!
//! Streams, and never has a file in memory whole. Plain or gzip, told apart by the first two bytes; then CSV with a header.
//! [`Blocks`] gives it in blocks, for a batch; [`ListeningFile`] row by row, for whoever is not in a hurry.
//! Whatever the bytes are, the answer is rows or a [`BadObject`]: nothing panics, and neither a record without an end nor
//! a stream that inflates without end takes memory or time beyond the limits. What the rows are depends on the bytes, the
//! limit and `judged_at` alone, so that whoever reads the file again later finds the same rows.

use std::io::Cursor;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use async_compression::tokio::bufread::GzipDecoder;
use csv_async::ByteRecord;
use memchr::{memchr, memchr_iter, memrchr};
use tokio::io::{AsyncRead, AsyncReadExt, BufReader, Chain, ReadBuf};

use crate::aws::AwsError;
use crate::block::{self, BLOCK_BYTES, Block, Record};
use crate::csv::{self, Peeked};
use crate::row::{Columns, Rejection, Row};

/// Longest record, in bytes. Beyond it a file is not CSV but something with an unclosed quote.
pub const MAX_RECORD_BYTES: u64 = 1 << 20;
/// The first two bytes of gzip: <https://www.rfc-editor.org/rfc/rfc1952#section-2.3.1>.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// What the decompressor takes at a time.
const GZIP_BUFFER_BYTES: usize = 64 << 10;

/// Why an object cannot be counted. It goes to quarantine with this reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadObject {
    /// No byte in it.
    #[error("the file is empty: not even a header")]
    Empty,
    /// Not text.
    #[error("the file is not CSV: its first line is binary")]
    Binary,
    /// A header, but not that of a listening file.
    #[error("the file is not a listening file: {0}")]
    Header(String),
    /// A record without an end.
    #[error(
        "the file is not CSV: the record at line {line} is longer than {MAX_RECORD_BYTES} bytes (an unclosed quote?)"
    )]
    EndlessRecord {
        /// Line of the record's beginning.
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
    /// It touches more report items than a batch may.
    #[error("the file alone touches more than {limit} report items (--max-report-items)")]
    TooManyItems {
        /// The limit.
        limit: usize,
    },
    /// What it touches does not fit into the memory.
    #[error(
        "the report items that the file alone touches do not fit into the memory of {limit_bytes} bytes (--max-memory); give more, or put \
         the file there in parts"
    )]
    TooMuchMemory {
        /// All the memory of the process.
        limit_bytes: u64,
    },
}

/// Why a file could not be read on.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not a listening file.
    #[error(transparent)]
    Bad(BadObject),
    /// Its bytes could not be had, which says nothing about the file.
    #[error(transparent)]
    Body(AwsError),
}

impl From<std::io::Error> for ReadError {
    fn from(error: std::io::Error) -> Self {
        // What the bucket and the guard say travels inside; anything else is said by the decompressor.
        let error = match error.downcast::<AwsError>() {
            Ok(error) => return ReadError::Body(error),
            Err(error) => error,
        };
        ReadError::Bad(match error.downcast::<BadObject>() {
            Ok(bad) => bad,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => BadObject::TruncatedGzip,
            Err(error) => BadObject::DamagedGzip(error.to_string()),
        })
    }
}

impl From<csv_async::Error> for ReadError {
    fn from(error: csv_async::Error) -> Self {
        match error.into_kind() {
            csv_async::ErrorKind::Io(error) => error.into(),
            // A reader of byte records with flexible lengths meets no other error.
            kind => ReadError::Bad(BadObject::Header(format!("{kind:?}"))),
        }
    }
}

/// A row of the file, judged.
#[derive(Debug)]
pub struct Line<'a> {
    /// The line of the file on which its record begins, from 1.
    pub number: u64,
    /// Its values, or why it is rejected.
    pub row: Result<Row<'a>, Rejection>,
    /// All its fields, as they came.
    pub record: &'a ByteRecord,
}

/// A file that is being read row by row.
pub struct ListeningFile {
    records: Records,
    columns: Columns,
    judged_at: i64,
}

impl ListeningFile {
    /// Reads the header. `judged_at` is what "the future" is measured from; `limit_bytes` bounds the decompressed file.
    pub async fn open(
        body: impl AsyncRead + Send + Unpin + 'static,
        limit_bytes: u64,
        judged_at: jiff::Timestamp,
    ) -> Result<Self, ReadError> {
        let body = Guard::open(body, limit_bytes).await?;
        let mut records = Records::begin(Vec::new(), body, 0).await?;
        if records.next().await?.is_none() {
            return Err(ReadError::Bad(BadObject::Empty));
        }
        let columns = columns(records.record.iter())?;
        Ok(ListeningFile { records, columns, judged_at: judged_at.as_microsecond() })
    }

    /// The next row; `None` at the end of the file. Rows that came before an error are not to be used: a file counts whole or
    /// not at all.
    pub async fn next(&mut self) -> Result<Option<Line<'_>>, ReadError> {
        let Some(number) = self.records.next().await? else { return Ok(None) };
        let record = &self.records.record;
        let row = self.columns.cleanse(record.len(), |index| record.get(index).unwrap_or_default(), self.judged_at);
        Ok(Some(Line { number, row, record }))
    }
}

/// A file that is being read block by block. As long as its text is plain, its blocks are cut at line feeds; from the first
/// quote or carriage return on, csv-async makes the records.
pub struct Blocks {
    source: Source,
    columns: Columns,
    judged_at: i64,
}

enum Source {
    /// Text that was read and not given out, and the line it begins on.
    Plain {
        body: Guard,
        text: Vec<u8>,
        line: u64,
    },
    Records(Box<Records>),
    Ended,
}

impl Blocks {
    /// Reads the header, as [`ListeningFile::open`] does.
    pub async fn open(
        body: impl AsyncRead + Send + Unpin + 'static,
        limit_bytes: u64,
        judged_at: jiff::Timestamp,
    ) -> Result<Self, ReadError> {
        let mut body = Guard::open(body, limit_bytes).await?;
        let mut text = Vec::new();
        let ended = fill(&mut body, &mut text, BLOCK_BYTES).await?;
        let unmarked = text.strip_prefix(csv::BYTE_ORDER_MARK).unwrap_or(&text);
        let start = text.len() - unmarked.len() + unmarked.iter().take_while(|&&byte| byte == b'\n').count();
        let header = &text[start..];
        let header_end = memchr(b'\n', header).or(ended.then_some(header.len()));
        let judged_at = judged_at.as_microsecond();
        match header_end.map(|end| &header[..end]).filter(|header| !header.is_empty() && block::is_plain(header)) {
            Some(header) => {
                let columns = columns(header.split(|&byte| byte == b','))?;
                let line = 2 + memchr_iter(b'\n', &text[..start]).count() as u64;
                let passed = (start + header.len() + 1).min(text.len());
                body.progress.parsed.store(passed as u64, Ordering::Relaxed);
                text.drain(..passed);
                Ok(Blocks { source: Source::Plain { body, text, line }, columns, judged_at })
            }
            None => {
                let mut records = Records::begin(text, body, 0).await?;
                if records.next().await?.is_none() {
                    return Err(ReadError::Bad(BadObject::Empty));
                }
                let columns = columns(records.record.iter())?;
                Ok(Blocks { source: Source::Records(Box::new(records)), columns, judged_at })
            }
        }
    }

    /// The next block; `None` at the end of the file. Blocks that came before an error are not to be used: a file counts whole
    /// or not at all.
    pub async fn next(&mut self) -> Result<Option<Block>, ReadError> {
        loop {
            match std::mem::replace(&mut self.source, Source::Ended) {
                Source::Ended => return Ok(None),
                Source::Plain { mut body, mut text, line } => {
                    body.progress.line.store(line, Ordering::Relaxed);
                    let mut ended = fill(&mut body, &mut text, BLOCK_BYTES).await?;
                    let length = loop {
                        match memrchr(b'\n', &text) {
                            _ if ended => break text.len(),
                            Some(last) => break last + 1,
                            // A line longer than a block: the guard says when it is too long.
                            None => {
                                let wanted = text.len() + BLOCK_BYTES;
                                ended = fill(&mut body, &mut text, wanted).await?;
                            }
                        }
                    };
                    if !block::is_plain(&text[..length]) {
                        self.source = Source::Records(Box::new(Records::begin(text, body, line - 1).await?));
                        continue;
                    }
                    if length == 0 {
                        return Ok(None);
                    }
                    let mut rest = Vec::with_capacity(BLOCK_BYTES);
                    rest.extend_from_slice(&text[length..]);
                    text.truncate(length);
                    body.progress.parsed.fetch_add(length as u64, Ordering::Relaxed);
                    let next_line = line + memchr_iter(b'\n', &text).count() as u64;
                    self.source = Source::Plain { body, text: rest, line: next_line };
                    return Ok(Some(Block::plain(text, line, self.columns, self.judged_at)));
                }
                Source::Records(mut records) => {
                    let (mut block, mut bytes) = (Vec::new(), 0);
                    while bytes < BLOCK_BYTES {
                        let Some(line) = records.next().await? else { break };
                        let record = Record::of(&records.record, line, &self.columns);
                        bytes += record.memory_bytes();
                        block.push(record);
                    }
                    if block.is_empty() {
                        return Ok(None);
                    }
                    self.source = Source::Records(records);
                    return Ok(Some(Block::records(block, self.columns, self.judged_at)));
                }
            }
        }
    }
}

/// Reads until there are `wanted` bytes; tells whether the body has ended.
async fn fill(body: &mut Guard, text: &mut Vec<u8>, wanted: usize) -> Result<bool, ReadError> {
    while text.len() < wanted {
        text.reserve(wanted - text.len());
        if body.read_buf(text).await? == 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Finds the columns in a header.
fn columns<'a>(header: impl Iterator<Item = &'a [u8]> + Clone) -> Result<Columns, ReadError> {
    Columns::from_header(header.clone()).map_err(|reason| {
        let text = header.collect::<Vec<_>>().concat();
        let binary = text.contains(&0) || std::str::from_utf8(&text).is_err();
        ReadError::Bad(if binary { BadObject::Binary } else { BadObject::Header(reason) })
    })
}

/// The records that csv-async makes of a body, or of what is left of it.
struct Records {
    reader: csv::Reader<Peeked<Chain<Cursor<Vec<u8>>, Guard>>>,
    record: ByteRecord,
    progress: Arc<Progress>,
    /// Bytes and lines before the first record.
    passed: (u64, u64),
}

impl Records {
    /// Goes on after `passed_lines`, with text that has been read already.
    async fn begin(text: Vec<u8>, body: Guard, passed_lines: u64) -> Result<Self, ReadError> {
        let progress = Arc::clone(&body.progress);
        let passed = (body.delivered - text.len() as u64, passed_lines);
        let body = Cursor::new(text).chain(body);
        let reader = if passed_lines == 0 {
            csv::reader(body).await?
        } else {
            csv::reader_amid(Cursor::new(Vec::new()).chain(body))
        };
        Ok(Records { reader, record: ByteRecord::new(), progress, passed })
    }

    /// Reads the next record; gives the line on which it begins.
    async fn next(&mut self) -> Result<Option<u64>, ReadError> {
        let position = self.reader.position();
        self.progress.parsed.store(self.passed.0 + position.byte().saturating_sub(1), Ordering::Relaxed);
        self.progress.line.store(self.line(position), Ordering::Relaxed);
        let found = self.reader.read_byte_record(&mut self.record).await?;
        Ok(found.then(|| self.record.position().map_or(0, |position| self.line(position))))
    }

    /// The line of the file. The reader has seen one more than there is.
    fn line(&self, position: &csv_async::Position) -> u64 {
        self.passed.1 + position.line().saturating_sub(1).max(1)
    }
}

/// How far the text has been parsed.
#[derive(Debug, Default)]
struct Progress {
    parsed: AtomicU64,
    line: AtomicU64,
}

/// The decompressed body. Bounds what goes into the parser: the object's size after decompression, and the length of one
/// record, which would otherwise be collected without end.
struct Guard {
    inner: Pin<Box<dyn AsyncRead + Send>>,
    delivered: u64,
    limit_bytes: u64,
    progress: Arc<Progress>,
}

impl Guard {
    async fn open(body: impl AsyncRead + Send + Unpin + 'static, limit_bytes: u64) -> Result<Self, ReadError> {
        let (magic, body) = csv::peek(body, GZIP_MAGIC.len()).await?;
        if magic.is_empty() {
            return Err(ReadError::Bad(BadObject::Empty));
        }
        let inner: Pin<Box<dyn AsyncRead + Send>> = if magic == GZIP_MAGIC {
            let mut decoder = GzipDecoder::new(BufReader::with_capacity(GZIP_BUFFER_BYTES, body));
            decoder.multiple_members(true);
            Box::pin(decoder)
        } else {
            Box::pin(body)
        };
        Ok(Guard { inner, delivered: 0, limit_bytes, progress: Arc::default() })
    }
}

impl AsyncRead for Guard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let bad = |bad| Poll::Ready(Err(std::io::Error::other(bad)));
        let pending = self.delivered.saturating_sub(self.progress.parsed.load(Ordering::Relaxed));
        if pending > MAX_RECORD_BYTES + csv::BUFFER_BYTES as u64 {
            let line = self.progress.line.load(Ordering::Relaxed).max(1);
            return bad(BadObject::EndlessRecord { line });
        }
        let before = buffer.filled().len();
        let ready = self.inner.as_mut().poll_read(context, buffer);
        self.delivered += (buffer.filled().len() - before) as u64;
        if self.delivered > self.limit_bytes {
            return bad(BadObject::TooLarge { limit_bytes: self.limit_bytes });
        }
        ready
    }
}
