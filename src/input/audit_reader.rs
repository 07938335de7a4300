//! The auditor's reader.

use csv_async::ByteRecord;
use tokio::io::AsyncRead;

use crate::formats::csv::{BLOCK_BYTES, BYTE_ORDER_MARK, Body, Header, MAX_RECORD_BYTES, MAX_RECORD_LINES, NotCsv};
use crate::input::cleanse::{Columns, Rejection, Row};
use crate::input::file::{ReadError, columns};

/// A row of the file, judged.
#[derive(Debug)]
pub struct Line<'a> {
    /// The line of the file on which its record begins, from 1.
    pub number: u64,
    /// How many lines its record spans.
    pub lines: u64,
    /// Its values, or why it is rejected.
    pub row: Result<Row<'a>, Rejection>,
    /// All its fields, as they came.
    pub record: &'a ByteRecord,
}

/// A file that is being read row by row.
pub struct InputFile {
    records: Records,
    columns: Columns,
    judged_at: i64,
}

impl InputFile {
    /// Reads the header, as [`Blocks::open`] does.
    pub async fn open(
        body: impl AsyncRead + Send + Unpin + 'static,
        limit_bytes: u64,
        judged_at: jiff::Timestamp,
    ) -> Result<Self, ReadError> {
        let mut records = Records::open(body, limit_bytes).await?;
        if !records.next().await? {
            return Err(NotCsv::Empty.into());
        }
        let columns = columns(&Header::new(records.record.clone(), records.is_malformed))?;
        Ok(InputFile { records, columns, judged_at: judged_at.as_microsecond() })
    }

    /// The next row; `None` at the end of the file. Rows that came before an error are not to be used: a file counts whole or
    /// not at all.
    pub async fn next(&mut self) -> Result<Option<Line<'_>>, ReadError> {
        if !self.records.next().await? {
            return Ok(None);
        }
        let Records { record, number, line, is_malformed, .. } = &self.records;
        let field = |index| record.get(index).unwrap_or_default();
        let row = match is_malformed {
            true => Err(Rejection::Quotes),
            false => self.columns.cleanse(record.len(), field, self.judged_at),
        };
        Ok(Some(Line { number: *number, lines: line - number + 1, row, record }))
    }
}

/// The records of a file, made byte by byte.
struct Records {
    body: Body<'static>,
    text: Vec<u8>,
    at: usize,
    /// The line of the next byte, and of the beginning of the record.
    line: u64,
    number: u64,
    record: ByteRecord,
    is_malformed: bool,
}

/// Where in a record a byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    FieldBegins,
    InField,
    /// Within the quotes that were opened on this line.
    InQuotes(u64),
    /// Behind a quote within quotes, which closes them or is the first of two.
    BehindQuote(u64),
}

impl Records {
    async fn open(body: impl AsyncRead + Send + Unpin + 'static, limit_bytes: u64) -> Result<Self, ReadError> {
        let mut body = Body::open(body, limit_bytes).await?;
        let mut text = Vec::new();
        body.fill(&mut text, BYTE_ORDER_MARK.len()).await?;
        let at = if text.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        Ok(Records { body, text, at, line: 1, number: 1, record: ByteRecord::new(), is_malformed: false })
    }

    /// The next byte, which stays the next one.
    async fn peek(&mut self) -> Result<Option<u8>, ReadError> {
        if self.at == self.text.len() {
            self.text.clear();
            self.at = 0;
            self.body.fill(&mut self.text, BLOCK_BYTES).await?;
        }
        Ok(self.text.get(self.at).copied())
    }

    /// Goes past the end of a line, if that is next.
    async fn pass_line_end(&mut self) -> Result<bool, ReadError> {
        let Some(end @ (b'\n' | b'\r')) = self.peek().await? else { return Ok(false) };
        self.at += 1;
        if end == b'\r' && self.peek().await? == Some(b'\n') {
            self.at += 1;
        }
        Ok(true)
    }

    /// Goes to the next record; `false` at the end of the file.
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
            // Nearly every byte is there already.
            let next = match self.text.get(self.at) {
                Some(&byte) => Some(byte),
                None => self.peek().await?,
            };
            let byte = match (next, place) {
                (Some(byte), _) => byte,
                (None, Place::InQuotes(line)) => return Err(NotCsv::EndsInQuotes { line }.into()),
                (None, _) => break,
            };
            let is_quoted = matches!(place, Place::InQuotes(_));
            match (place, byte) {
                (Place::InQuotes(line), b'"') => place = Place::BehindQuote(line),
                (Place::InQuotes(_), _) => field.push(byte),
                (Place::BehindQuote(line), b'"') => {
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
                    self.is_malformed |= matches!(place, Place::BehindQuote(_));
                    field.push(byte);
                    place = Place::InField;
                }
            }
            if is_quoted && (byte == b'\r' || byte == b'\n' && previous != b'\r') {
                self.line += 1;
                if self.line - self.number >= MAX_RECORD_LINES {
                    return Err(NotCsv::TallRecord { line: self.number }.into());
                }
            }
            (self.at, bytes, previous) = (self.at + 1, bytes + 1, byte);
            if bytes > MAX_RECORD_BYTES {
                return Err(NotCsv::LongRecord { line: self.number }.into());
            }
        }
        self.record.push_field(&field);
        Ok(true)
    }
}
