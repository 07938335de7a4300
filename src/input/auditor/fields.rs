//! Records of fields, byte by byte.

use std::sync::Arc;

use crate::definition::input::{Delimited, Header};
use crate::formats::csv::{MAX_RECORD_LINES, NotCsv, name_of};
use crate::formats::{BadFile, FileError, MAX_RECORD_BYTES, refuse_binary};
use crate::input::auditor::judge::Judge;
use crate::input::auditor::text::Text;
use crate::input::auditor::{Content, Record};
use crate::input::file::ReadError;

/// The records of a file with fields.
pub(super) struct Fields {
    text: Text,
    format: Delimited,
    /// The names of the columns.
    names: Option<Arc<Vec<Vec<u8>>>>,
    /// The line of the next byte.
    line: u64,
    record: Line,
    is_malformed: bool,
}

/// The record that was read last.
#[derive(Default)]
struct Line {
    number: u64,
    fields: Vec<Vec<u8>>,
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

impl Fields {
    /// Reads the header, if the format has one.
    pub(super) async fn open(text: Result<Text, FileError>, format: Delimited) -> Result<Self, ReadError> {
        let has_header = format.header == Header::FirstLine;
        let empty = || if has_header { NotCsv::NoHeader.into() } else { BadFile::Empty };
        let text = text.map_err(|error| match error {
            FileError::Bad(BadFile::Empty) => empty().into(),
            other => other,
        })?;
        let mut fields = Fields { text, format, names: None, line: 1, record: Line::default(), is_malformed: false };
        while fields.pass_line_end().await? {}
        if fields.text.peek().await?.is_none() {
            return Err(FileError::from(empty()).into());
        }
        if !has_header {
            // A log begins with comments that matter.
            while fields.format.header == Header::Missing && fields.pass_comment().await? {
                while fields.pass_line_end().await? {}
            }
            let window = fields.text.window().await?;
            let line = window.split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default();
            refuse_binary(line, name_of(&fields.format)).map_err(FileError::from)?;
        }
        if has_header {
            if !fields.read().await? {
                return Err(FileError::from(empty()).into());
            }
            fields.is_malformed = fields.record.is_malformed;
            fields.names = Some(Arc::new(std::mem::take(&mut fields.record.fields)));
        }
        Ok(fields)
    }

    /// Returns the names of the columns.
    pub(super) fn names(&self) -> Option<&[Vec<u8>]> {
        self.names.as_deref().map(Vec::as_slice)
    }

    /// Returns true if text follows a closing quote in the header.
    pub(super) fn is_malformed(&self) -> bool {
        self.is_malformed
    }

    /// Returns the next record. Names of columns on the way are checked.
    pub(super) async fn next(&mut self, judge: &Judge<'_>) -> Result<Option<Record>, ReadError> {
        let before = self.names.clone();
        if !self.read().await? {
            return Ok(None);
        }
        if self.format.header == Header::Directive {
            let Some(names) = &self.names else {
                return Err(NotCsv::NoFields { format: name_of(&self.format), line: self.record.number }.into());
            };
            if self.names != before {
                judge.check_names(names, false)?;
            }
        }
        let Line { number, fields, is_malformed } = std::mem::take(&mut self.record);
        let content = match is_malformed {
            true => Content::Bad("text follows the quote that closes a field".to_owned()),
            false => Content::Fields(self.names.clone()),
        };
        Ok(Some(Record { number, lines: self.line - number + 1, fields, content }))
    }

    /// Consumes a line end if one is next. Returns true if so.
    async fn pass_line_end(&mut self) -> Result<bool, FileError> {
        let Some(end @ (b'\n' | b'\r')) = self.text.peek().await? else { return Ok(false) };
        self.text.pass(1);
        if end == b'\r' && self.text.peek().await? == Some(b'\n') {
            self.text.pass(1);
        }
        self.line += 1;
        Ok(true)
    }

    /// Passes over a comment if one is next, and takes the names of columns from it. Returns true if so.
    async fn pass_comment(&mut self) -> Result<bool, FileError> {
        let comment = match self.format.header {
            Header::Directive => Some("#"),
            Header::FirstLine | Header::Missing => self.format.comment.as_deref(),
        };
        let Some(comment) = comment else { return Ok(false) };
        let window = self.text.window().await?;
        if !window.starts_with(comment.as_bytes()) {
            return Ok(false);
        }
        let length = window.iter().take_while(|byte| !matches!(byte, b'\n' | b'\r')).count();
        if length > MAX_RECORD_BYTES {
            return Err(NotCsv::LongRecord { format: name_of(&self.format), line: self.line }.into());
        }
        if self.format.header == Header::Directive
            && let Some(names) = window[..length].strip_prefix(b"#Fields:")
        {
            let names = names.split(|&byte| byte == b' ' || byte == b'\t').filter(|name| !name.is_empty());
            self.names = Some(Arc::new(names.map(<[u8]>::to_vec).collect()));
        }
        self.text.pass(length);
        Ok(true)
    }

    /// Reads the next record. Returns false at the end of the file.
    async fn read(&mut self) -> Result<bool, FileError> {
        while self.pass_line_end().await? || self.pass_comment().await? {}
        self.record = Line { number: self.line, ..Line::default() };
        if self.text.peek().await?.is_none() {
            return Ok(false);
        }
        let (format, number) = (name_of(&self.format), self.line);
        let (mut place, mut field) = (Place::FieldBegins, Vec::new());
        let (mut bytes, mut previous) = (0, 0);
        loop {
            let byte = match (self.text.peek().await?, place) {
                (Some(byte), _) => byte,
                (None, Place::InQuotes(line)) => return Err(NotCsv::EndsInQuotes { format, line }.into()),
                (None, _) => break,
            };
            let is_quoted = matches!(place, Place::InQuotes(_));
            let is_quote = self.format.quote == Some(byte);
            match place {
                Place::InQuotes(line) if is_quote => place = Place::AfterQuote(line),
                Place::InQuotes(_) => field.push(byte),
                Place::AfterQuote(line) if is_quote => {
                    field.push(byte);
                    place = Place::InQuotes(line);
                }
                Place::FieldBegins if is_quote => place = Place::InQuotes(self.line),
                _ if matches!(byte, b'\n' | b'\r') => break,
                _ if byte == self.format.delimiter => {
                    self.record.fields.push(std::mem::take(&mut field));
                    place = Place::FieldBegins;
                }
                _ => {
                    self.record.is_malformed |= matches!(place, Place::AfterQuote(_));
                    field.push(byte);
                    place = Place::InField;
                }
            }
            if is_quoted && (byte == b'\r' || byte == b'\n' && previous != b'\r') {
                self.line += 1;
                if self.line - number >= MAX_RECORD_LINES {
                    return Err(NotCsv::TallRecord { format, line: number }.into());
                }
            }
            self.text.pass(1);
            (bytes, previous) = (bytes + 1, byte);
            if bytes > MAX_RECORD_BYTES {
                return Err(NotCsv::LongRecord { format, line: number }.into());
            }
        }
        self.record.fields.push(field);
        Ok(true)
    }
}
