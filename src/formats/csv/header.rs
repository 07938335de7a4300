//! Headers: columns found by name, and files recognized that are no text.

use csv_async::ByteRecord;

use crate::formats::csv::body::GZIP_MAGIC;

/// Number of a header's characters that an error shows.
const SHOWN_CHARS: usize = 200;

/// A reason why a file's first record is not the expected header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotHeader {
    /// The file is not text: its actual kind.
    #[error("the file is not CSV: its first line is {0}")]
    Binary(&'static str),
    /// The problem, and the header as found.
    #[error("{0}")]
    Text(String),
}

/// The first record of a file, which names its columns.
#[derive(Debug)]
pub struct Header {
    pub(super) record: ByteRecord,
    is_malformed: bool,
}

impl Header {
    /// Wraps the first record of a file.
    pub(crate) fn new(record: ByteRecord, is_malformed: bool) -> Self {
        Header { record, is_malformed }
    }

    /// Returns the number of columns.
    pub fn width(&self) -> usize {
        self.record.len()
    }

    /// Returns the positions of columns by name, in any order and letter case, among others. The error names the
    /// problem and shows the header.
    pub fn find(&self, columns: &[&str]) -> Result<Vec<usize>, NotHeader> {
        let found = match find_columns(self.record.iter(), columns) {
            Ok(_) if self.is_malformed => Err("text follows the quote that closes a field of the header".to_owned()),
            found => found,
        };
        found.map_err(|problem| {
            let text = self.record.iter().collect::<Vec<_>>().join(&b',');
            match kind_of(&text) {
                Some(kind) => NotHeader::Binary(kind),
                None => {
                    let text = String::from_utf8_lossy(&text);
                    let shown: String = text.chars().take(SHOWN_CHARS).collect();
                    let more = if shown.len() < text.len() { " and more" } else { "" };
                    NotHeader::Text(format!("{problem}; the header is {shown:?}{more}"))
                }
            }
        })
    }
}

/// Returns the positions of columns in a header. The error names missing and repeated columns.
pub(crate) fn find_columns<'a>(header: impl Iterator<Item = &'a [u8]>, columns: &[&str]) -> Result<Vec<usize>, String> {
    let mut found = vec![None; columns.len()];
    for (index, name) in header.enumerate() {
        let name = name.trim_ascii();
        for (place, column) in found.iter_mut().zip(columns) {
            if name.eq_ignore_ascii_case(column.as_bytes()) && place.replace(index).is_some() {
                return Err(format!("the header names column {column} twice"));
            }
        }
    }
    let missing: Vec<_> =
        found.iter().zip(columns).filter(|(place, _)| place.is_none()).map(|(_, &name)| name).collect();
    match missing.as_slice() {
        [] => Ok(found.into_iter().map(Option::unwrap_or_default).collect()),
        [one] => Err(format!("the header lacks the column {one}")),
        several => Err(format!("the header lacks the columns {}", several.join(", "))),
    }
}

/// Returns the kind of a file that begins with these bytes, or `None` if they may be text.
fn kind_of(head: &[u8]) -> Option<&'static str> {
    const UTF_16: &str = "binary (text in UTF-16; write it in UTF-8)";
    // First bytes of formats that are mistaken for CSV.
    const KINDS: [(&[u8], &str); 9] = [
        (b"\xFF\xFE", UTF_16),
        (b"\xFE\xFF", UTF_16),
        (&GZIP_MAGIC, "binary (gzip within gzip; compress it once)"),
        (b"\x28\xB5\x2F\xFD", "binary (compressed with zstd; use gzip)"),
        (b"BZh", "binary (compressed with bzip2; use gzip)"),
        (b"PK\x03\x04", "binary (a ZIP archive or a spreadsheet)"),
        (b"PAR1", "binary (Parquet)"),
        (b"Obj\x01", "binary (Avro)"),
        (b"ORC", "binary (ORC)"),
    ];
    let known = KINDS.iter().find(|(magic, _)| head.starts_with(magic)).map(|&(_, kind)| kind);
    // Without a byte-order mark, ASCII in UTF-16 has a zero in every other byte.
    let is_wide = head.len() > 3 && head.chunks_exact(2).take(8).all(|pair| (pair[0] == 0) != (pair[1] == 0));
    let unknown = || (head.contains(&0) || std::str::from_utf8(head).is_err()).then_some("binary");
    known.or(is_wide.then_some(UTF_16)).or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_text_is_named() {
        let utf_16: Vec<u8> = "user_id,track_id".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (head, kind) in [
            (&[&b"\xFF\xFE"[..], &utf_16].concat()[..], "UTF-16"),
            (&utf_16, "UTF-16"),
            (b"\x1f\x8b\x08", "gzip"),
            (b"PAR1\x15\x04", "Parquet"),
            (b"\0\0\0\x01\xFF", "binary"),
        ] {
            let header = Header::new(ByteRecord::from(vec![head]), false);
            let told = header.find(&["user_id"]).unwrap_err().to_string();
            assert!(told.contains(kind), "{told}");
        }
        let told = Header::new(ByteRecord::from(vec!["a", "b"]), false).find(&["a", "c"]).unwrap_err();
        assert_eq!(told.to_string(), "the header lacks the column c; the header is \"a,b\"");
    }
}
