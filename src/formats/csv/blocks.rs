//! Blocks: the text of a file cut into pieces of whole records, which can be parsed independently of each other.

use memchr::{memchr_iter, memrchr};
use tokio::io::AsyncRead;

use crate::formats::csv::body::Body;
use crate::formats::csv::header::Header;
use crate::formats::csv::records::{Records, empty_lines, first_record, is_plain, known, line_ends};
use crate::formats::csv::{BLOCK_BYTES, BYTE_ORDER_MARK, CsvError, MAX_RECORD_BYTES, NotCsv};

/// A file that is being read block by block.
pub struct Blocks<'a> {
    body: Body<'a>,
    /// Text read but not yet returned, from the beginning of a record on, and the line on which that record begins.
    text: Vec<u8>,
    line: u64,
    has_ended: bool,
}

impl<'a> Blocks<'a> {
    /// Reads the header, which is the first record. `limit_bytes` bounds the text. Nothing after the header is checked
    /// yet: a file that is no CSV at all is recognized by its header.
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
                let header = Header::new(records.record, is_malformed);
                text.drain(..extent.length);
                return Ok((Blocks { body, text, line: line + extent.lines, has_ended: false }, header));
            }
        }
    }

    /// Returns the next block, or `None` at the end of the file. Blocks that came before an error must not be used: a
    /// file counts as a whole or not at all.
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
            // The record is longer than a block.
            wanted = self.text.len() + BLOCK_BYTES;
        };
        if length == 0 {
            return Ok(None);
        }
        let mut rest = Vec::with_capacity(BLOCK_BYTES);
        rest.extend_from_slice(&self.text[length..]);
        self.text.truncate(length);
        let block = Block { text: std::mem::replace(&mut self.text, rest), first_line: self.line, is_plain };
        // Without carriage returns only line feeds need counting, which takes a third of the time.
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
    /// Returns the text.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Returns the line of the file on which the text begins, from 1.
    pub fn first_line(&self) -> u64 {
        self.first_line
    }

    /// Returns true if the text can be split at commas and line feeds alone.
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Returns the records.
    pub fn records(&self) -> Records<'_> {
        Records::of(&self.text, self.first_line)
    }

    #[cfg(test)]
    pub(crate) fn of(text: Vec<u8>, first_line: u64) -> Self {
        let is_plain = is_plain(&text);
        Block { text, first_line, is_plain }
    }
}

/// Returns the length of the whole records at the start of a text, and true if they are plain. The text begins on
/// `line`; more of it may follow unless it `has_ended`.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::csv::Line;

    /// Returns the header's fields, and of each record after it the line, the number of lines and whether it is
    /// malformed.
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
        assert!(header.find(&["ab"]).unwrap_err().to_string().contains("follows the quote"));
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
}
