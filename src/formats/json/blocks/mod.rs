//! Blocks: the text of a file cut into pieces of whole records, which can be parsed independently of each other.

#[cfg(test)]
mod tests;

use memchr::{memchr, memchr_iter};
use tokio::io::AsyncRead;

use crate::formats::body::{BLOCK_BYTES, BYTE_ORDER_MARK, MAX_RECORD_BYTES, refuse_binary};
use crate::formats::json::envelope::Envelope;
use crate::formats::json::grammar::{Stop, blanks, lone_value, value};
use crate::formats::json::{NotJson, shown};
use crate::formats::{BadFile, Body, Compression, FileError};

/// A file that is being read block by block.
pub struct Blocks<'a> {
    body: Body<'a>,
    /// Text read, of which that before `at` was returned.
    text: Vec<u8>,
    at: usize,
    /// The line of what is at `at`, from 1.
    line: u64,
    has_ended: bool,
    /// A record or a bracket was met on that line, and any record in the file.
    has_begun_line: bool,
    has_begun: bool,
    /// The file begins with a bracket; the last byte that was no blank.
    begins_list: bool,
    last: u8,
    envelope: Option<Envelope>,
}

/// A piece of a block's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    start: usize,
    end: usize,
    /// The line of the file on which it begins, from 1.
    pub line: u64,
    /// Its records.
    pub holds: Pieces,
}

/// The records that a piece holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pieces {
    /// Records, with what may stand between two of them. If one is broken, what follows it in the piece is part of it.
    Records,
    /// One broken record.
    Broken,
    /// A value that is no object, in the place of a record.
    NoObject,
    /// The end of a document without the list that should have the records.
    NoList,
}

/// Whole records of a file.
#[derive(Debug)]
pub struct Block {
    text: Vec<u8>,
    pieces: Vec<Piece>,
}

impl Block {
    /// Returns the pieces, in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Returns the text of all pieces.
    pub fn whole_text(&self) -> &[u8] {
        &self.text
    }

    /// Returns the text of a piece.
    pub fn text(&self, piece: &Piece) -> &[u8] {
        &self.text[piece.start..piece.end]
    }

    /// Returns the length of all its text.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// Returns true if it has no text.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

/// The part of a text that was walked through: whole records, and what stands between them.
#[derive(Debug)]
pub(super) struct Walked {
    /// The place that was reached, relative to the beginning of the unread text.
    pub(super) at: usize,
    pub(super) line: u64,
    pub(super) has_begun_line: bool,
    pub(super) pieces: Vec<Piece>,
}

impl<'a> Blocks<'a> {
    /// Reads the beginning of a file. `limit_bytes` bounds the text. With `records`, each object is a document that has
    /// a list of records under this key.
    pub async fn open(
        file: impl AsyncRead + Send + Unpin + 'a,
        limit_bytes: u64,
        records: Option<&str>,
    ) -> Result<Self, FileError> {
        let mut blocks = Blocks {
            body: Body::open(file, limit_bytes).await?,
            text: Vec::new(),
            at: 0,
            line: 1,
            has_ended: false,
            has_begun_line: false,
            has_begun: false,
            begins_list: false,
            last: 0,
            envelope: records.map(Envelope::of),
        };
        blocks.more().await?;
        if blocks.text.starts_with(BYTE_ORDER_MARK) {
            blocks.at = BYTE_ORDER_MARK.len();
        }
        loop {
            blocks.pass(blanks(&blocks.text, blocks.at) - blocks.at);
            match blocks.text.get(blocks.at) {
                Some(&first) => {
                    blocks.begins_list = first == b'[';
                    refuse_binary(&blocks.text[blocks.at..], "JSON")?;
                    return Ok(blocks);
                }
                None if blocks.has_ended => return Err(BadFile::Empty.into()),
                None => blocks.more().await?,
            }
        }
    }

    /// The compression that was recognized.
    pub fn compression(&self) -> Option<Compression> {
        self.body.compression()
    }

    /// Returns true if the file begins with a list.
    pub fn begins_list(&self) -> bool {
        self.begins_list
    }

    /// Returns the next block, or `None` at the end of the file. Blocks that came before an error must not be used: a
    /// file counts as a whole or not at all.
    pub async fn next(&mut self) -> Result<Option<Block>, FileError> {
        self.fill().await?;
        loop {
            let walked = match self.lines() {
                Some(lines) => lines,
                None => self.walk()?,
            };
            let (length, has_records) = (walked.at, !walked.pieces.is_empty());
            (self.line, self.has_begun_line) = (walked.line, walked.has_begun_line);
            self.has_begun |= has_records;
            let mut from_last = self.text[self.at..self.at + length].iter().rev();
            self.last = from_last.find(|byte| !is_blank(byte)).copied().unwrap_or(self.last);
            if has_records {
                return Ok(Some(self.take(length, walked.pieces)));
            }
            self.at += length;
            if length == 0 {
                if self.has_ended {
                    return self.end().map(|()| None);
                }
                self.more().await?;
            }
        }
    }

    /// Reads on, at least the size of a block, and forgets what was returned.
    async fn more(&mut self) -> Result<(), FileError> {
        self.text.drain(..self.at);
        self.at = 0;
        let wanted = self.text.len() + BLOCK_BYTES;
        self.has_ended = self.body.fill(&mut self.text, wanted).await?;
        Ok(())
    }

    /// Reads until there is a block's worth of text.
    async fn fill(&mut self) -> Result<(), FileError> {
        if self.text.len() - self.at < BLOCK_BYTES && !self.has_ended {
            self.text.drain(..self.at);
            self.at = 0;
            self.has_ended = self.body.fill(&mut self.text, BLOCK_BYTES).await?;
        }
        Ok(())
    }

    /// Passes over blanks.
    fn pass(&mut self, length: usize) {
        self.line += line_feeds(&self.text[self.at..self.at + length]);
        self.at += length;
    }

    fn take(&mut self, length: usize, pieces: Vec<Piece>) -> Block {
        let end = self.at + length;
        let text = if self.at == 0 {
            let mut rest = Vec::with_capacity(BLOCK_BYTES);
            rest.extend_from_slice(&self.text[end..]);
            self.text.truncate(end);
            std::mem::replace(&mut self.text, rest)
        } else {
            let text = self.text[self.at..end].to_vec();
            self.at = end;
            text
        };
        Block { text, pieces }
    }

    /// Checks the end of the file: whatever it began has ended.
    fn end(&self) -> Result<(), FileError> {
        let is_open_list = self.begins_list && self.last != b']';
        if is_open_list || self.envelope.as_ref().is_some_and(Envelope::is_open) {
            return Err(NotJson::CutOff.into());
        }
        Ok(())
    }

    /// Returns the lines at the start of the text that are known to hold whole records: each begins and ends with a
    /// brace, and another line that begins with one follows. `None` if the first one is not like this.
    fn lines(&self) -> Option<Walked> {
        if self.envelope.is_some() {
            return None;
        }
        let text = &self.text[self.at..];
        let (mut at, mut line, mut pieces) = (0, self.line, Vec::new());
        for end in memchr_iter(b'\n', text) {
            let length = without_blanks_behind(&text[at..end]);
            let is_whole = text[at] == b'{' && text[at + length - 1] == b'}' && length <= MAX_RECORD_BYTES;
            if !is_whole || text.get(end + 1) != Some(&b'{') {
                break;
            }
            pieces.push(Piece { start: at, end: at + length, line, holds: Pieces::Records });
            at = end + 1;
            line += 1;
        }
        (!pieces.is_empty()).then_some(Walked { at, line, has_begun_line: false, pieces })
    }

    /// Walks through the records that are whole.
    fn walk(&mut self) -> Result<Walked, FileError> {
        let text = &self.text[self.at..];
        let mut walked = Walked { at: 0, line: self.line, has_begun_line: self.has_begun_line, pieces: Vec::new() };
        if let Some(envelope) = &mut self.envelope {
            envelope.walk(text, self.has_ended, &mut walked)?;
            return Ok(walked);
        }
        loop {
            walked.pass_separators(text);
            if walked.at == text.len() {
                return Ok(walked);
            }
            let rest = &text[walked.at..];
            // A file that begins otherwise may be of another format.
            let has_records = self.begins_list || self.has_begun || !walked.pieces.is_empty();
            let next = match record(rest) {
                Err(Stop::Broken) if has_records => no_object(rest, self.has_ended).map(|it| (it, Pieces::NoObject)),
                found => found.map(|length| (length, Pieces::Records)),
            };
            match next {
                Ok((length, holds)) => walked.take(text, length, holds),
                Err(Stop::More) if !self.has_ended && text.len() - walked.at <= MAX_RECORD_BYTES => return Ok(walked),
                Err(_) => match self.broken(text, &walked)? {
                    Some(length) => walked.take(text, length, Pieces::Broken),
                    None => return Ok(walked),
                },
            }
        }
    }

    /// Returns the length of the broken record at the place that was reached: to the end of its line, blanks aside.
    /// `None` if more text is needed; an error if the file is bad.
    fn broken(&self, text: &[u8], walked: &Walked) -> Result<Option<usize>, FileError> {
        // The answer must not depend on the amount of text that happens to be there.
        let rest = within_a_record(&text[walked.at..]);
        let end = memchr(b'\n', rest).unwrap_or(rest.len());
        let (line, has_more) = (walked.line, !self.has_ended && rest.len() <= MAX_RECORD_BYTES);
        let begins_line = !walked.has_begun_line && (self.has_begun || !walked.pieces.is_empty());
        match rest.get(blanks(rest, end)) {
            _ if end > MAX_RECORD_BYTES => Err(NotJson::LongRecord { line }.into()),
            Some(b'{') => Ok(Some(without_blanks_behind(&rest[..end]))),
            None if has_more => Ok(None),
            None if self.has_ended && rest.len() <= MAX_RECORD_BYTES && begins_line => {
                Ok(Some(without_blanks_behind(&rest[..end])))
            }
            _ if rest.len() > MAX_RECORD_BYTES && record(rest) == Err(Stop::More) => {
                Err(NotJson::LongRecord { line }.into())
            }
            _ => Err(NotJson::Broken { line, text: shown(&rest[..end]) }.into()),
        }
    }
}

impl Walked {
    /// Passes over what may stand between two records.
    pub(super) fn pass_separators(&mut self, text: &[u8]) {
        while let Some(byte @ (b' ' | b'\t' | b'\r' | b'\n' | b',' | b'[' | b']')) = text.get(self.at) {
            if *byte == b'\n' {
                self.line += 1;
                self.has_begun_line = false;
            }
            self.at += 1;
        }
    }

    /// Takes the next bytes as a piece.
    pub(super) fn take(&mut self, text: &[u8], length: usize, holds: Pieces) {
        self.pieces.push(Piece { start: self.at, end: self.at + length, line: self.line, holds });
        self.pass(text, length);
        self.has_begun_line = true;
    }

    /// Passes over the next bytes.
    pub(super) fn pass(&mut self, text: &[u8], length: usize) {
        self.line += line_feeds(&text[self.at..self.at + length]);
        self.at += length;
    }
}

/// Returns the length of the record at the start of a text.
pub(super) fn record(text: &[u8]) -> Result<usize, Stop> {
    let text = within_a_record(text);
    if text[0] != b'{' {
        return Err(Stop::Broken);
    }
    match value(text, 0, 0) {
        Ok(length) if length > MAX_RECORD_BYTES => Err(Stop::More),
        found => found,
    }
}

/// Returns the length of the value at the start of a text that stands in the place of a record, and is no object.
pub(super) fn no_object(text: &[u8], has_ended: bool) -> Result<usize, Stop> {
    lone_value(within_a_record(text), has_ended || text.len() > MAX_RECORD_BYTES)
}

/// Returns as much of a text as a record may have, and one byte by which it shows that there is more.
pub(super) fn within_a_record(text: &[u8]) -> &[u8] {
    &text[..text.len().min(MAX_RECORD_BYTES + 1)]
}

fn line_feeds(text: &[u8]) -> u64 {
    memchr_iter(b'\n', text).count() as u64
}

/// Returns the length of a text without the blanks at its end.
fn without_blanks_behind(text: &[u8]) -> usize {
    text.len() - text.iter().rev().take_while(|byte| is_blank(byte)).count()
}

fn is_blank(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}
