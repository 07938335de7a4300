//! A listening file: from the bytes of an object to its rows, good and rejected.
//!
//! Streams, and never has a file in memory whole. Plain or gzip, told apart by the first two bytes; then CSV with a header.
//! Whatever the bytes are, the answer is rows or a [`BadObject`]: nothing panics, and neither a record without an end nor
//! a stream that inflates without end takes memory or time beyond the limits. What the rows are depends on the bytes, the
//! limit and `judged_at` alone, so that whoever reads the file again later finds the same rows.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use async_compression::tokio::bufread::GzipDecoder;
use csv_async::{AsyncReader, ByteRecord};
use tokio::io::{AsyncRead, BufReader, ReadBuf};

use crate::aws::AwsError;
use crate::csv::{self, Peeked};
use crate::row::{Columns, Rejection, Row};

/// Longest record, in bytes. Beyond it a file is not CSV but something with an unclosed quote.
pub const MAX_RECORD_BYTES: u64 = 4 << 20;
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

/// A file that is being read.
pub struct ListeningFile {
    reader: AsyncReader<Peeked<Guard>>,
    record: ByteRecord,
    columns: Columns,
    judged_at: i64,
    progress: Arc<Progress>,
}

impl ListeningFile {
    /// Reads the header. `judged_at` is what "the future" is measured from; `limit_bytes` bounds the decompressed file.
    pub async fn open(
        body: impl AsyncRead + Send + Unpin + 'static,
        limit_bytes: u64,
        judged_at: jiff::Timestamp,
    ) -> Result<Self, ReadError> {
        let (magic, body) = csv::peek(body, GZIP_MAGIC.len()).await?;
        if magic.is_empty() {
            return Err(ReadError::Bad(BadObject::Empty));
        }
        let body: Pin<Box<dyn AsyncRead + Send>> = if magic == GZIP_MAGIC {
            let mut decoder = GzipDecoder::new(BufReader::with_capacity(GZIP_BUFFER_BYTES, body));
            decoder.multiple_members(true);
            Box::pin(decoder)
        } else {
            Box::pin(body)
        };
        let progress = Arc::new(Progress::default());
        let guarded = Guard { inner: body, delivered: 0, limit_bytes, progress: Arc::clone(&progress) };
        let mut reader = csv::reader(guarded).await?;
        let mut record = ByteRecord::new();
        if !reader.read_byte_record(&mut record).await? {
            return Err(ReadError::Bad(BadObject::Empty));
        }
        let columns = Columns::from_header(record.iter()).map_err(|reason| {
            let binary = record.as_slice().contains(&0) || std::str::from_utf8(record.as_slice()).is_err();
            ReadError::Bad(if binary { BadObject::Binary } else { BadObject::Header(reason) })
        })?;
        Ok(ListeningFile { reader, record, columns, judged_at: judged_at.as_microsecond(), progress })
    }

    /// The next row; `None` at the end of the file. Rows that came before an error are not to be used: a file counts whole or
    /// not at all.
    pub async fn next(&mut self) -> Result<Option<Line<'_>>, ReadError> {
        let position = self.reader.position();
        let line = position.line();
        self.progress.parsed.store(position.byte(), Ordering::Relaxed);
        self.progress.line.store(line, Ordering::Relaxed);
        if !self.reader.read_byte_record(&mut self.record).await? {
            return Ok(None);
        }
        let record = &self.record;
        let row = self.columns.cleanse(record.len(), |index| record.get(index).unwrap_or_default(), self.judged_at);
        Ok(Some(Line { number: record.position().map_or(line, csv_async::Position::line), row, record }))
    }
}

/// How far the CSV reader is.
#[derive(Debug, Default)]
struct Progress {
    parsed: AtomicU64,
    line: AtomicU64,
}

/// Bounds what goes into the CSV reader: the object's size after decompression, and the length of one record, which the
/// reader would otherwise collect without end.
struct Guard {
    inner: Pin<Box<dyn AsyncRead + Send>>,
    delivered: u64,
    limit_bytes: u64,
    progress: Arc<Progress>,
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
