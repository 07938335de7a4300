//! The auditor's reader: a listening file row by row, parsed byte by byte.
//!
//! It is slower than [`crate::input::file::Blocks`] and shares only decompression, the search for columns and the rules
//! for rows with it, so that one can be checked against the other: `music-streams verify` does so, and so do the tests
//! of [`crate::input`].

use csv_async::ByteRecord;
use tokio::io::AsyncRead;

use crate::formats::csv::{Header, MAX_RECORD_LINES, NotCsv};
use crate::formats::{BLOCK_BYTES, BYTE_ORDER_MARK, BadFile, Body, FileError, MAX_RECORD_BYTES};
use crate::input::cleanse::{Columns, Rejection, Row};
use crate::input::file::{ReadError, columns};

const FORMAT: &str = "CSV";

/// A row of the file, judged.
#[derive(Debug)]
pub struct JudgedRow<'a> {
    /// The line of the file on which its record begins, from 1.
    pub number: u64,
    /// The number of lines that its record spans.
    pub lines: u64,
    /// Its values, or the reason for its rejection.
    pub row: Result<Row<'a>, Rejection>,
    /// All its fields, unchanged.
    pub record: &'a ByteRecord,
}

/// A file that is read row by row.
pub struct InputFile {
    records: Records,
    columns: Columns,
    judged_at: i64,
}

impl InputFile {
    /// Reads the header, as [`crate::input::file::Blocks::open`] does.
    pub async fn open(
        body: impl AsyncRead + Send + Unpin + 'static,
        limit_bytes: u64,
        judged_at: jiff::Timestamp,
    ) -> Result<Self, ReadError> {
        let mut records = Records::open(body, limit_bytes).await?;
        if !records.next().await? {
            return Err(NotCsv::NoHeader.into());
        }
        let columns = columns(&Header::new(records.record.clone(), records.is_malformed))?;
        Ok(InputFile { records, columns, judged_at: judged_at.as_microsecond() })
    }

    /// Returns the next row, or `None` at the end of the file. Rows that came before an error must not be used: a file
    /// counts as a whole or not at all.
    pub async fn next(&mut self) -> Result<Option<JudgedRow<'_>>, ReadError> {
        if !self.records.next().await? {
            return Ok(None);
        }
        let Records { record, number, line, is_malformed, .. } = &self.records;
        let field = |index| record.get(index).unwrap_or_default();
        let row = match is_malformed {
            true => Err(Rejection::Quotes),
            false => self.columns.cleanse(record.len(), field, self.judged_at),
        };
        Ok(Some(JudgedRow { number: *number, lines: line - number + 1, row, record }))
    }
}

/// The records of a file, parsed byte by byte.
struct Records {
    body: Body<'static>,
    text: Vec<u8>,
    at: usize,
    /// The line of the next byte, and the line on which the record begins.
    line: u64,
    number: u64,
    record: ByteRecord,
    is_malformed: bool,
}

/// The position of a byte within a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    FieldBegins,
    InField,
    /// Within quotes that were opened on this line.
    InQuotes(u64),
    /// After a quote within quotes, which either closes them or is the first of two.
    AfterQuote(u64),
}

impl Records {
    async fn open(body: impl AsyncRead + Send + Unpin + 'static, limit_bytes: u64) -> Result<Self, ReadError> {
        let mut body = Body::open(body, limit_bytes).await.map_err(|error| match error {
            FileError::Bad(BadFile::Empty) => NotCsv::NoHeader.into(),
            other => ReadError::from(other),
        })?;
        let mut text = Vec::new();
        body.fill(&mut text, BYTE_ORDER_MARK.len()).await?;
        let at = if text.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        Ok(Records { body, text, at, line: 1, number: 1, record: ByteRecord::new(), is_malformed: false })
    }

    /// Returns the next byte without consuming it.
    async fn peek(&mut self) -> Result<Option<u8>, ReadError> {
        if self.at == self.text.len() {
            self.text.clear();
            self.at = 0;
            self.body.fill(&mut self.text, BLOCK_BYTES).await?;
        }
        Ok(self.text.get(self.at).copied())
    }

    /// Consumes a line end if one is next. Returns true if so.
    async fn pass_line_end(&mut self) -> Result<bool, ReadError> {
        let Some(end @ (b'\n' | b'\r')) = self.peek().await? else { return Ok(false) };
        self.at += 1;
        if end == b'\r' && self.peek().await? == Some(b'\n') {
            self.at += 1;
        }
        Ok(true)
    }

    /// Moves to the next record. Returns false at the end of the file.
    async fn next(&mut self) -> Result<bool, ReadError> {
        while self.pass_line_end().await? {
            self.line += 1;
        }
        self.number = self.line;
        self.is_malformed = false;
        self.record.clear();
        if self.peek().await?.is_none() {
            return Ok(false);
        }
        let (mut place, mut field) = (Place::FieldBegins, Vec::new());
        let (mut bytes, mut previous) = (0, 0);
        loop {
            // Nearly every byte is in memory already.
            let next = match self.text.get(self.at) {
                Some(&byte) => Some(byte),
                None => self.peek().await?,
            };
            let byte = match (next, place) {
                (Some(byte), _) => byte,
                (None, Place::InQuotes(line)) => return Err(NotCsv::EndsInQuotes { format: FORMAT, line }.into()),
                (None, _) => break,
            };
            let is_quoted = matches!(place, Place::InQuotes(_));
            match (place, byte) {
                (Place::InQuotes(line), b'"') => place = Place::AfterQuote(line),
                (Place::InQuotes(_), _) => field.push(byte),
                (Place::AfterQuote(line), b'"') => {
                    field.push(byte);
                    place = Place::InQuotes(line);
                }
                (Place::FieldBegins, b'"') => place = Place::InQuotes(self.line),
                (_, b'\n' | b'\r') => break,
                (_, b',') => {
                    self.record.push_field(&field);
                    field.clear();
                    place = Place::FieldBegins;
                }
                _ => {
                    self.is_malformed |= matches!(place, Place::AfterQuote(_));
                    field.push(byte);
                    place = Place::InField;
                }
            }
            if is_quoted && (byte == b'\r' || byte == b'\n' && previous != b'\r') {
                self.line += 1;
                if self.line - self.number >= MAX_RECORD_LINES {
                    return Err(NotCsv::TallRecord { format: FORMAT, line: self.number }.into());
                }
            }
            (self.at, bytes, previous) = (self.at + 1, bytes + 1, byte);
            if bytes > MAX_RECORD_BYTES {
                return Err(NotCsv::LongRecord { format: FORMAT, line: self.number }.into());
            }
        }
        self.record.push_field(&field);
        Ok(true)
    }
}
