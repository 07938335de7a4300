//! Blocks: the text of a file cut into pieces of whole records, which can be parsed independently of each other.

use std::sync::Arc;

use memchr::{memchr_iter, memrchr};
use tokio::io::AsyncRead;

use crate::definition::input::{Delimited, Header as Names};
use crate::formats::body::{BLOCK_BYTES, BYTE_ORDER_MARK, MAX_RECORD_BYTES, refuse_binary};
use crate::formats::csv::directives::{Directive, first_directive};
use crate::formats::csv::header::Header;
use crate::formats::csv::records::{
    Extent, Records, empty_lines, first_record, is_plain, known, line_ends, passed_over,
};
use crate::formats::csv::{NotCsv, comment_of, name_of};
use crate::formats::{BadFile, Body, FileError};

/// Most bytes of the beginning of a comment.
const MAX_COMMENT_BYTES: usize = 16;

/// A file that is being read block by block.
pub struct Blocks<'a> {
    pub(super) body: Body<'a>,
    pub(super) format: Arc<Delimited>,
    header: Option<Arc<Header>>,
    /// Text read, of which that before `at` was returned. From there on it has whole records up to `whole`.
    pub(super) text: Vec<u8>,
    pub(super) at: usize,
    whole: usize,
    /// The whole records are plain.
    is_plain: bool,
    /// The line that begins at `at`.
    line: u64,
    has_ended: bool,
}

impl<'a> Blocks<'a> {
    /// Reads the header, if the format has one. `limit_bytes` bounds the text. Nothing after the header is checked yet:
    /// a file that is no CSV at all is recognized by its header.
    pub async fn open(
        file: impl AsyncRead + Send + Unpin + 'a,
        limit_bytes: u64,
        format: Arc<Delimited>,
    ) -> Result<Self, FileError> {
        let has_header = format.header == Names::FirstLine;
        let empty = || if has_header { NotCsv::NoHeader.into() } else { BadFile::Empty };
        let body = Body::open(file, limit_bytes).await.map_err(|error| match error {
            FileError::Bad(BadFile::Empty) => empty().into(),
            other => other,
        })?;
        let (text, at, whole) = (Vec::new(), 0, 0);
        let mut blocks =
            Blocks { body, format, header: None, text, at, whole, is_plain: false, line: 1, has_ended: false };
        blocks.more().await?;
        if blocks.text.starts_with(BYTE_ORDER_MARK) {
            blocks.at = BYTE_ORDER_MARK.len();
        }
        let is_blank = blocks.has_ended && empty_lines(&blocks.text[blocks.at..]) == blocks.text.len() - blocks.at;
        let has_record = blocks.seek_record().await?;
        if is_blank || has_header && !has_record {
            return Err(empty().into());
        }
        match blocks.format.header {
            Names::FirstLine => blocks.take_header().await?,
            Names::Missing | Names::Directive => {
                let text = &blocks.text[blocks.at..];
                refuse_binary(&text[..Extent::of_line(text).content], name_of(&blocks.format))?;
            }
        }
        blocks.whole = blocks.at;
        Ok(blocks)
    }

    /// Returns the names of the columns, if the format has them in the first record.
    pub fn header(&self) -> Option<&Arc<Header>> {
        self.header.as_ref()
    }

    /// Returns the next block, or `None` at the end of the file. Blocks that came before an error must not be used: a
    /// file counts as a whole or not at all.
    pub async fn next(&mut self) -> Result<Option<Block>, FileError> {
        loop {
            if self.at == self.whole && !self.read_whole_records().await? {
                return Ok(None);
            }
            let mut end = self.whole;
            if self.format.header == Names::Directive {
                match first_directive(&self.text[self.at..end], self.header.as_deref()) {
                    Some(Directive { at: 0, length, header }) => {
                        self.header = Some(Arc::new(header));
                        self.pass(length);
                        continue;
                    }
                    Some(Directive { at, .. }) => end = self.at + at,
                    None => {}
                }
                let text = &self.text[self.at..end];
                let passed = passed_over(text, &self.format);
                // Columns that no record has do not matter.
                if passed == text.len() {
                    self.pass(passed);
                    continue;
                }
                if self.header.is_none() {
                    let line = self.line + line_ends(&text[..passed]);
                    return Err(NotCsv::NoFields { format: name_of(&self.format), line }.into());
                }
            }
            return Ok(Some(self.take(end)));
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

    /// Moves to the next record, past empty lines and comments. Returns false at the end of the file.
    async fn seek_record(&mut self) -> Result<bool, FileError> {
        loop {
            let text = known(&self.text[self.at..], self.has_ended);
            let empty = empty_lines(text);
            let (passed, text) = text.split_at(empty);
            self.line += line_ends(passed);
            self.at += empty;
            match comment_of(&self.format) {
                Some(comment) if text.starts_with(comment) && self.format.header != Names::Directive => {
                    if let Some(extent) = first_record(text, self.line, self.has_ended, &self.format)? {
                        self.at += extent.length;
                        self.line += 1;
                        continue;
                    }
                }
                _ if self.has_ended || text.len() >= MAX_COMMENT_BYTES => return Ok(!text.is_empty()),
                _ => {}
            }
            self.more().await?;
        }
    }

    /// Takes the next record for the header.
    async fn take_header(&mut self) -> Result<(), FileError> {
        loop {
            let text = known(&self.text[self.at..], self.has_ended);
            if let Some(extent) = first_record(text, self.line, self.has_ended, &self.format)? {
                let mut records = Records::of(&text[..extent.length], self.line, &self.format);
                let is_malformed = records.advance().is_some_and(|line| line.is_malformed);
                self.header = Some(Arc::new(Header::new(records.record, is_malformed)));
                self.at += extent.length;
                self.line += extent.lines;
                return Ok(());
            }
            self.more().await?;
        }
    }

    /// Reads until there is a whole record. Returns false at the end of the file.
    async fn read_whole_records(&mut self) -> Result<bool, FileError> {
        while !(self.has_ended && self.at == self.text.len()) {
            self.fill().await?;
            let text = &self.text[self.at..];
            let (length, is_plain) = whole_records(text, self.line, self.has_ended, &self.format)?;
            (self.whole, self.is_plain) = (self.at + length, is_plain);
            if length > 0 {
                return Ok(true);
            }
            // The record is longer than a block.
            self.more().await?;
        }
        Ok(false)
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

    /// Returns the lines of the next `length` bytes, which are whole ones.
    fn lines_of(&self, length: usize) -> u64 {
        let text = &self.text[self.at..self.at + length];
        // Plain text has no carriage return of its own, and counting line feeds takes a third of the time.
        if self.is_plain { memchr_iter(b'\n', text).count() as u64 } else { line_ends(text) }
    }

    fn pass(&mut self, length: usize) {
        self.line += self.lines_of(length);
        self.at += length;
    }

    /// Takes the text up to this place as a block.
    fn take(&mut self, end: usize) -> Block {
        let (first_line, lines) = (self.line, self.lines_of(end - self.at));
        let text = if self.at == 0 && end == self.whole {
            let mut rest = Vec::with_capacity(BLOCK_BYTES);
            rest.extend_from_slice(&self.text[end..]);
            self.text.truncate(end);
            self.whole = 0;
            std::mem::replace(&mut self.text, rest)
        } else {
            let text = self.text[self.at..end].to_vec();
            self.at = end;
            text
        };
        self.line += lines;
        let (format, header) = (Arc::clone(&self.format), self.header.clone());
        Block { text, first_line, is_plain: self.is_plain, format, header }
    }
}

/// Whole records of a file, all of the same columns.
#[derive(Debug)]
pub struct Block {
    text: Vec<u8>,
    first_line: u64,
    is_plain: bool,
    format: Arc<Delimited>,
    header: Option<Arc<Header>>,
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

    /// Returns true if the text can be split at delimiters and line feeds alone. A line may have a carriage return
    /// before its line feed, or begin like a comment.
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Returns the format.
    pub fn format(&self) -> &Delimited {
        &self.format
    }

    /// Returns the names of the columns, if there are any.
    pub fn header(&self) -> Option<&Arc<Header>> {
        self.header.as_ref()
    }

    /// Returns the records.
    pub fn records(&self) -> Records<'_> {
        Records::of(&self.text, self.first_line, &self.format)
    }
}

/// Returns the length of the whole records at the start of a text, and true if they are plain. The text begins on
/// `line`; more of it may follow unless it `has_ended`.
fn whole_records(text: &[u8], line: u64, has_ended: bool, format: &Delimited) -> Result<(usize, bool), NotCsv> {
    let last = if has_ended { text.len() } else { memrchr(b'\n', text).map_or(0, |last| last + 1) };
    if text.len() <= MAX_RECORD_BYTES && is_plain(&text[..last], format) && (last > 0 || has_ended) {
        return Ok((last, true));
    }
    let known = known(text, has_ended);
    let (mut at, mut line) = (0, line);
    while at < known.len()
        && let Some(record) = first_record(&known[at..], line, has_ended, format)?
    {
        at += record.length;
        line += record.lines;
    }
    Ok((at, is_plain(&text[..at], format)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::csv::{Line, plain_csv};

    const FORMAT: &str = "CSV";

    fn format(change: impl FnOnce(&mut Delimited)) -> Arc<Delimited> {
        let mut format = plain_csv();
        change(&mut format);
        Arc::new(format)
    }

    fn bad(error: FileError) -> BadFile {
        match error {
            FileError::Bad(bad) => bad,
            FileError::Body(error) => panic!("there is no network here: {error}"),
        }
    }

    /// Returns the header's fields, and of each record after it the line, the number of lines and whether it is
    /// malformed.
    async fn read(text: &[u8]) -> Result<(Vec<String>, Vec<(u64, u64, bool)>), BadFile> {
        let mut found = Vec::new();
        let mut blocks = Blocks::open(text, u64::MAX, format(|_| {})).await.map_err(bad)?;
        while let Some(block) = blocks.next().await.map_err(bad)? {
            let mut records = block.records();
            while let Some(Line { number, lines, is_malformed }) = records.advance() {
                found.push((number, lines, is_malformed));
            }
        }
        let header = blocks.header().unwrap();
        Ok((header.record.iter().map(|field| String::from_utf8_lossy(field).into_owned()).collect(), found))
    }

    #[tokio::test]
    async fn nothing_is_swallowed() {
        let many = |lines: usize| format!("h\na,\"{}\"\nb,c\n", "x\n".repeat(lines - 1));
        let (long, tall) = (
            |line| Err(NotCsv::LongRecord { format: FORMAT, line }),
            |line| Err(NotCsv::TallRecord { format: FORMAT, line }),
        );
        let open = |line| Err(NotCsv::EndsInQuotes { format: FORMAT, line });
        for (text, expected) in [
            ("h\na,\"open\nb,c\n", open(2)),
            ("h\na,\"open", open(2)),
            ("h\r\n\r\na,\"open\r\nb,\"\"\"\r\nc", Ok(vec![(3, 2), (5, 1)])),
            ("h\n\"closed\n\",\"open\n", open(3)),
            ("\n\n\"", open(3)),
            ("h\n\"\"", Ok(vec![(2, 1)])),
            ("\"h\r\ni\"\ra\"b\n\n\"c\n\"\nd", Ok(vec![(3, 1), (5, 2), (7, 1)])),
            (&many(100), Ok(vec![(2, 100), (102, 1)])),
            (&many(101), tall(2)),
            (&format!("h\n{}\n", "x".repeat(MAX_RECORD_BYTES)), Ok(vec![(2, 1)])),
            (&format!("h\n{}\n", "x".repeat(MAX_RECORD_BYTES + 1)), long(2)),
            (&format!("h\n\"{}\"\n", "x".repeat(MAX_RECORD_BYTES)), long(2)),
            (&format!("{}\n", "x".repeat(MAX_RECORD_BYTES + 1)), long(1)),
            ("", Err(NotCsv::NoHeader)),
            ("\n\r\n", Err(NotCsv::NoHeader)),
            ("\u{feff}", Err(NotCsv::NoHeader)),
        ] {
            let found = read(text.as_bytes()).await.map(|(_, found)| found);
            let found = found.map(|records| records.iter().map(|&(number, lines, _)| (number, lines)).collect());
            assert_eq!(found, expected.map_err(BadFile::Csv), "{:?}", &text[..text.len().min(40)]);
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
        let blocks = Blocks::open(&b"\"a\"b,c\n"[..], u64::MAX, format(|_| {})).await.unwrap();
        assert!(blocks.header().unwrap().find(&["ab"]).unwrap_err().to_string().contains("follows the quote"));
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

    /// Returns the records of a file, each as its line, the names of its columns and its fields.
    async fn records(text: &str, format: Arc<Delimited>) -> Result<Vec<String>, BadFile> {
        let mut found = Vec::new();
        let mut blocks = Blocks::open(text.as_bytes(), u64::MAX, format).await.map_err(bad)?;
        while let Some(block) = blocks.next().await.map_err(bad)? {
            let join = |record: &csv_async::ByteRecord| {
                record.iter().map(|field| String::from_utf8_lossy(field).into_owned()).collect::<Vec<_>>().join("|")
            };
            let names = block.header().map(|header| join(&header.record)).unwrap_or_default();
            let mut records = block.records();
            while let Some(line) = records.advance() {
                found.push(format!("{} {names}: {}", line.number, join(records.record())));
            }
        }
        Ok(found)
    }

    #[tokio::test]
    async fn comments_are_passed_over_and_quotes_hide_them() {
        let with = |comment: &str| format(|format| format.comment = Some(comment.to_owned()));
        let text = "# a \"quote\n\n#\nh,i\r\n#x\r\na,#b\n\"c\n#d\",e\n#f";
        let expected = ["6 h|i: a|#b", "7 h|i: c\n#d|e"];
        assert_eq!(records(text, with("#")).await.unwrap(), expected);
        assert_eq!(
            records(&text.replace('#', "//-"), with("//-")).await.unwrap(),
            expected.map(|it| it.replace('#', "//-"))
        );
        assert_eq!(records("#\n#", with("#")).await, Err(NotCsv::NoHeader.into()));
        let many = "#".repeat(MAX_COMMENT_BYTES);
        let text = format!("{}{}\nh\n{many}\nx\n", many, "y".repeat(3 * BLOCK_BYTES));
        assert_eq!(records(&text, with(&many)).await.unwrap(), ["4 h: x"]);
        let text = format!("#{}\nh\n", "y".repeat(MAX_RECORD_BYTES));
        assert_eq!(records(&text, with("#")).await, Err(NotCsv::LongRecord { format: FORMAT, line: 1 }.into()));
    }

    #[tokio::test]
    async fn a_file_may_have_other_delimiters_and_quotes_or_none_and_no_header() {
        let tsv = format(|format| (format.delimiter, format.quote, format.header) = (b'\t', None, Names::Missing));
        let text = "a\t\"b\r\n\n\"c\"\td\te\r\rf";
        assert_eq!(records(text, Arc::clone(&tsv)).await.unwrap(), ["1 : a|\"b", "3 : \"c\"|d|e", "5 : f"]);
        assert_eq!(records("\n", Arc::clone(&tsv)).await, Err(BadFile::Empty));
        let comments = format(|format| (format.comment, format.header) = (Some("#".to_owned()), Names::Missing));
        assert_eq!(records("#\n#", comments).await.unwrap(), [""; 0]);
        let odd = format(|format| (format.delimiter, format.quote) = (b';', Some(b'\'')));
        assert_eq!(records("h;i\n'a;\n''b';\"c\n", odd).await.unwrap(), ["2 h|i: a;\n'b|\"c"]);
        let told = records("PAR1\u{15}", tsv).await.unwrap_err().to_string();
        assert_eq!(told, "the file is not TSV: its first line is binary (Parquet)");
    }

    #[tokio::test]
    async fn directives_name_the_columns_of_the_lines_after_them() {
        let w3c = format(|format| {
            (format.delimiter, format.quote, format.header) = (b'\t', None, Names::Directive);
        });
        let text = "#Version: 1.0\n#Fields: a b\nx\ty\n#Fields:  a\tb \n#Date: now\n#fields: q\n\nz\t#w\r\n\
                    #Fields: c\r\n1\n#Fields: c\n2\n#Fields: d\n#Fields: e\n3";
        let expected = ["3 a|b: x|y", "8 a|b: z|#w", "10 c: 1", "12 c: 2", "15 e: 3"];
        assert_eq!(records(text, Arc::clone(&w3c)).await.unwrap(), expected);
        let (no_fields, format) = (records("#Version: 1.0\n\nx\n#Fields: a\n", Arc::clone(&w3c)).await, "a W3C log");
        assert_eq!(no_fields, Err(NotCsv::NoFields { format, line: 3 }.into()));
        assert_eq!(records("#Version: 1.0\n", Arc::clone(&w3c)).await.unwrap(), [""; 0]);
        // Each changes the columns: blocks are as small as their lines, and take no more memory or time than that.
        let text = "#Fields: a\nx\n#Fields: b\nx\n".repeat(10_000);
        assert_eq!(records(&text, w3c).await.unwrap().len(), 20_000);
    }
}
