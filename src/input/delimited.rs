//! Records of fields: plain lines, split at their delimiters, and those that csv-async splits.
//!
//! Pure. Covered by the tests of [`crate::input`].

use memchr::{memchr, memchr_iter};

use crate::definition::input::Delimited;
use crate::formats::Raw;
use crate::formats::csv::{Block, Line, comment_of};
use crate::input::block::Parser;
use crate::input::layout::Fields;
use crate::input::rejection::Rejection;

impl Parser<'_> {
    /// Takes the records of a block.
    pub(super) fn delimited(&mut self, block: &Block) {
        let layout = self.layout;
        let Some(fields) = &layout.fields else { return };
        if block.is_plain() {
            self.plain(block, fields);
        } else {
            self.records(block, fields);
        }
    }

    fn records(&mut self, block: &Block, fields: &Fields) {
        let mut records = block.records();
        while let Some(line) = records.advance() {
            let record = records.record();
            let raw = |place| match fields.of_place(place).and_then(|field| record.get(field)) {
                Some(field) => fields.raw(field),
                None => Raw::Nothing,
            };
            let judged = if line.is_malformed { Err(Rejection::Quotes) } else { fields.check_width(record.len()) };
            match judged {
                Ok(()) => self.add(|| line, raw, record.iter()),
                Err(rejection) => self.reject(line, rejection, record.iter()),
            }
        }
    }

    fn plain(&mut self, block: &Block, fields: &Fields) {
        let (text, format) = (block.text(), block.format());
        // The first lines tell how many there may be.
        let sample = &text[..text.len().min(SAMPLE_BYTES)];
        self.reserve(text.len() / (sample.len() / (1 + memchr_iter(b'\n', sample).count())).max(1));
        let mut raw = vec![Raw::Nothing; self.layout.rules.places()];
        let (mut at, mut line) = (0, block.first_line());
        while at < text.len() {
            let canonical = fields.canonical.and_then(|columns| self.canonical(columns, &text[at..]));
            at += canonical.unwrap_or_else(|| {
                let rest = &text[at..];
                let length = memchr(b'\n', rest).unwrap_or(rest.len());
                self.line(&rest[..length], line, format, fields, &mut raw);
                length + 1
            });
            line += 1;
        }
    }

    /// Splits a plain line.
    #[inline]
    fn line<'t>(&mut self, line: &'t [u8], number: u64, format: &Delimited, fields: &Fields, raw: &mut [Raw<'t>]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // An empty line is no record, as in every CSV, and neither is a comment.
        if line.is_empty() || comment_of(format).is_some_and(|comment| line.starts_with(comment)) {
            return;
        }
        let (mut field, mut start) = (0, 0);
        let mut wanted = fields.wanted.iter();
        let mut next = wanted.next();
        raw.fill(Raw::Nothing);
        let mut ends = memchr_iter(format.delimiter, line);
        let mut has_ended = false;
        while let Some(&(wanted_field, place)) = next {
            // Past fields that are not wanted, and then to the end of the wanted one.
            while field < wanted_field && !has_ended {
                match ends.next() {
                    Some(end) => (field, start) = (field + 1, end + 1),
                    None => has_ended = true,
                }
            }
            if has_ended {
                break;
            }
            let end = ends.next();
            let text = &line[start..end.unwrap_or(line.len())];
            raw[place] = fields.raw(text);
            next = wanted.next();
            // Another place may be the same field.
            while let Some(&(same, place)) = next
                && same == field
            {
                raw[place] = fields.raw(text);
                next = wanted.next();
            }
            match end {
                Some(end) => (field, start) = (field + 1, end + 1),
                None => {
                    has_ended = true;
                    break;
                }
            }
        }
        // Of the other fields only the number is needed.
        let count = if has_ended { field + 1 } else { field + 1 + ends.count() };
        let place = Line { number, lines: 1, is_malformed: false };
        let shown = line.split(|&byte| byte == format.delimiter);
        match fields.check_width(count) {
            Ok(()) => self.add(|| place, |place| raw[place], shown),
            Err(rejection) => self.reject(place, rejection, shown),
        }
    }
}

/// Bytes of a block that tell the length of its lines.
const SAMPLE_BYTES: usize = 4 << 10;
