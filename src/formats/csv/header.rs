//! Headers: columns found by name.

use csv_async::ByteRecord;

use crate::formats::binary_kind;

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

/// The names of a file's columns.
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
        let found = self.find_some(columns, |_| false)?;
        Ok(found.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// Returns the same, but `None` for a column that the header lacks if it is optional.
    pub fn find_some(
        &self,
        columns: &[&str],
        is_optional: impl Fn(usize) -> bool,
    ) -> Result<Vec<Option<usize>>, NotHeader> {
        let found = match find_columns(self.record.iter(), columns, is_optional) {
            Ok(_) if self.is_malformed => Err("text follows the quote that closes a field of the header".to_owned()),
            found => found,
        };
        found.map_err(|problem| {
            let text = self.record.iter().collect::<Vec<_>>().join(&b',');
            match binary_kind(&text) {
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

/// Returns the positions of columns in a header. The error names repeated columns, and missing ones that are not
/// optional.
fn find_columns<'a>(
    header: impl Iterator<Item = &'a [u8]>,
    columns: &[&str],
    is_optional: impl Fn(usize) -> bool,
) -> Result<Vec<Option<usize>>, String> {
    let mut found = vec![None; columns.len()];
    for (index, name) in header.enumerate() {
        let name = name.trim_ascii();
        for (place, column) in found.iter_mut().zip(columns) {
            if name.eq_ignore_ascii_case(column.as_bytes()) && place.replace(index).is_some() {
                return Err(format!("the header names column {column} twice"));
            }
        }
    }
    let is_missing = |&index: &usize| found[index].is_none() && !is_optional(index);
    let missing: Vec<_> = (0..columns.len()).filter(is_missing).map(|index| columns[index]).collect();
    match missing.as_slice() {
        [] => Ok(found),
        [one] => Err(format!("the header lacks the column {one}")),
        several => Err(format!("the header lacks the columns {}", several.join(", "))),
    }
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

    #[test]
    fn an_optional_column_may_be_missing() {
        let header = Header::new(ByteRecord::from(vec!["b", "A"]), false);
        assert_eq!(header.find_some(&["a", "c"], |index| index == 1), Ok(vec![Some(1), None]));
        assert!(header.find_some(&["a", "c"], |index| index == 0).is_err());
    }
}
