//! Directives: the lines `#Fields: date time …` of logs, which name the columns of the lines after them. Covered by the
//! tests of `blocks`.
//!
//! Source: W3C, "Extended Log File Format", <https://www.w3.org/TR/WD-logfile.html>. Names have blanks between them,
//! whatever the delimiter of the fields is; some writers use tabs.

use csv_async::ByteRecord;
use memchr::memmem::Finder;

use crate::formats::csv::header::Header;
use crate::formats::csv::records::Extent;

const FIELDS: &[u8] = b"#Fields:";

/// A line that names columns.
pub(super) struct Directive {
    /// Its place in the text, and its length with its line end.
    pub(super) at: usize,
    pub(super) length: usize,
    pub(super) header: Header,
}

/// Returns the first line of a text that names other columns than the `current` ones. The text begins with a line.
pub(super) fn first_directive(text: &[u8], current: Option<&Header>) -> Option<Directive> {
    let finder = Finder::new(FIELDS);
    let begins_line = |at: &usize| *at == 0 || matches!(text[*at - 1], b'\n' | b'\r');
    finder.find_iter(text).filter(begins_line).find_map(|at| {
        let line = Extent::of_line(&text[at..]);
        let names = &text[at + FIELDS.len()..at + line.content];
        let names = names.split(|byte| matches!(byte, b' ' | b'\t')).filter(|name| !name.is_empty());
        let record: ByteRecord = names.collect();
        let is_other = current.is_none_or(|header| header.record != record);
        is_other.then(|| Directive { at, length: line.length, header: Header::new(record, false) })
    })
}
