//! Rejected rows: the list of them that a batch publishes.

use crate::formats::csv::Line;
use crate::object::ObjectId;

/// Bytes of a field that the list shows of a rejected row, and number of fields.
pub(super) const SHOWN: (usize, usize) = (256, 32);
/// Number of an object's rejected rows that are listed, and bytes of the list.
pub const MAX_LISTED: (usize, usize) = (10_000, 4 << 20);

/// Rejected rows with their reasons and their unchanged fields.
#[derive(Debug, Default)]
pub struct Rejects {
    rows: Vec<Reject>,
    /// The end of each text: for each row its reason in a word and in a sentence, and its fields.
    ends: Vec<usize>,
    text: Vec<u8>,
}

#[derive(Debug)]
struct Reject {
    line: Line,
    /// The number of its record in the block, from 1, where several records may be on a line.
    record: Option<u64>,
    /// The end of its texts among those of all rows.
    last_text: usize,
}

impl Rejects {
    /// Adds a row with its reason in a word and in a sentence, if there is room. `record` is its number among the
    /// records of the block, from 1, where several records may be on a line.
    pub(super) fn add<'r>(
        &mut self,
        (line, record): (Line, Option<u64>),
        kind: &str,
        reason: impl FnOnce() -> String,
        fields: impl Iterator<Item = &'r [u8]>,
    ) {
        if self.rows.len() >= MAX_LISTED.0 || self.text.len() >= MAX_LISTED.1 {
            return;
        }
        let shown = |field: &'r [u8]| &field[..field.len().min(SHOWN.0)];
        for text in [kind.as_bytes(), reason().as_bytes()] {
            self.add_text(text);
        }
        fields.take(SHOWN.1).map(shown).for_each(|field| self.add_text(field));
        self.rows.push(Reject { line, record, last_text: self.ends.len() });
    }

    fn add_text(&mut self, text: &[u8]) {
        self.text.extend_from_slice(text);
        self.ends.push(self.text.len());
    }

    /// Returns each row's reason in a word, and the row as a line of JSON. The object has so many records before the
    /// block.
    pub fn lines(&self, object: &ObjectId, records_before: u64) -> impl Iterator<Item = (String, Vec<u8>)> {
        let (mut first, mut start) = (0, 0);
        self.rows.iter().map(move |&Reject { line, record, last_text }| {
            let mut texts = self.ends[std::mem::replace(&mut first, last_text)..last_text]
                .iter()
                .map(|&end| String::from_utf8_lossy(&self.text[std::mem::replace(&mut start, end)..end]));
            let (kind, reason) = (texts.next().unwrap_or_default(), texts.next().unwrap_or_default());
            let mut reject = serde_json::json!({
                "object": object.key, "version": object.version, "line": line.number, "reason": reason,
                "fields": texts.collect::<Vec<_>>(),
            });
            if line.lines > 1 {
                reject["lines"] = line.lines.into();
            }
            if let Some(record) = record {
                reject["record"] = (records_before + record).into();
            }
            (kind.into_owned(), format!("{reject}\n").into_bytes())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::fixtures::parsed;
    use crate::object::Version;

    fn listed(rejects: &Rejects) -> Vec<serde_json::Value> {
        let version = Version::ETag("e".to_owned());
        let object = ObjectId { bucket: "b".to_owned(), key: "incoming/a.csv".to_owned(), version };
        rejects.lines(&object, 0).map(|(_, line)| serde_json::from_slice(&line).unwrap()).collect()
    }

    /// A block's rejected rows take no more memory than those that may be listed, whatever their number.
    #[tokio::test]
    async fn a_block_keeps_no_more_rejected_rows_than_are_listed() {
        for line in ["x\n", ",\n", &format!("{}\n", "y".repeat(5000))] {
            for block in parsed(&line.repeat(200_000)).await {
                let Rejects { rows, ends, text } = &block.rejects;
                assert_eq!(block.rejected["width"], block.rows);
                assert!(rows.len() <= MAX_LISTED.0);
                let bytes = rows.len() * 64 + ends.len() * 8 + text.len();
                assert!(bytes < 6 << 20, "{} {}", ends.len(), text.len());
            }
        }
        let wide = format!("{}\n", format!("{},", "z".repeat(300)).repeat(100)).repeat(2000);
        for block in parsed(&wide).await {
            assert!(block.rejects.text.len() < MAX_LISTED.1 + SHOWN.0 * (2 + SHOWN.1));
        }
    }

    /// Of a line of commas only the first fields are shown.
    #[tokio::test]
    async fn a_rejected_row_shows_its_first_fields() {
        for quote in ["", "\""] {
            let commas = ",".repeat(1 << 19);
            let blocks = parsed(&format!("{quote}7{quote},short,2024-06-25 17:43:13\n{commas}\n")).await;
            let rows: Vec<_> = blocks.iter().flat_map(|block| listed(&block.rejects)).collect();
            assert_eq!(rows[0]["reason"], format!("{} fields, the header has 3", (1 << 19) + 1));
            assert_eq!(rows[0]["fields"].as_array().unwrap().len(), SHOWN.1);
        }
    }
}
