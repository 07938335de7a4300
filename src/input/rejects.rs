//! Rejected rows: the list of them that a batch publishes.

use crate::formats::csv::Line;
use crate::input::cleanse::Rejection;
use crate::object::ObjectId;

/// Bytes of a field that the list shows of a rejected row, and number of fields.
pub(super) const SHOWN: (usize, usize) = (256, 32);
/// Number of an object's rejected rows that are listed, and bytes of the list.
pub const MAX_LISTED: (usize, usize) = (10_000, 4 << 20);

/// Rejected rows with their reasons and their unchanged fields.
#[derive(Debug, Default)]
pub struct Rejects {
    rows: Vec<Reject>,
    /// The end of each field in the text.
    ends: Vec<usize>,
    text: Vec<u8>,
}

#[derive(Debug)]
struct Reject {
    line: Line,
    rejection: Rejection,
    /// The end of its fields among those of all rows.
    last_field: usize,
}

impl Rejects {
    pub(super) fn add<'r>(&mut self, line: Line, rejection: Rejection, fields: impl Iterator<Item = &'r [u8]>) {
        if self.rows.len() >= MAX_LISTED.0 || self.text.len() >= MAX_LISTED.1 {
            return;
        }
        for field in fields.take(SHOWN.1) {
            self.text.extend_from_slice(&field[..field.len().min(SHOWN.0)]);
            self.ends.push(self.text.len());
        }
        self.rows.push(Reject { line, rejection, last_field: self.ends.len() });
    }

    /// Returns each row as a line of JSON with its reason.
    pub fn lines(&self, object: &ObjectId) -> impl Iterator<Item = (Rejection, Vec<u8>)> {
        let (mut field, mut start) = (0, 0);
        self.rows.iter().map(move |&Reject { line, rejection, last_field }| {
            let fields: Vec<_> = self.ends[field..last_field]
                .iter()
                .map(|&end| String::from_utf8_lossy(&self.text[std::mem::replace(&mut start, end)..end]))
                .collect();
            field = last_field;
            let mut reject = serde_json::json!({
                "object": object.key, "version": object.version, "line": line.number, "reason": rejection.to_string(),
                "fields": fields,
            });
            if line.lines > 1 {
                reject["lines"] = line.lines.into();
            }
            (rejection, format!("{reject}\n").into_bytes())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::block::tests::parse;
    use crate::input::file::Blocks;
    use crate::input::tests::{NOW, catalogue, listed};
    use crate::plan::Plan;
    use std::io::Cursor;

    /// A block's rejected rows take no more memory than those that may be listed, whatever their number.
    #[tokio::test]
    async fn a_block_keeps_no_more_rejected_rows_than_are_listed() {
        let (plan, catalogue) = (Plan::built_in().unwrap(), catalogue().await);
        for (line, most) in
            [("x\n", MAX_LISTED.0), (",\n", MAX_LISTED.0), (&format!("{}\n", "y".repeat(5000)), MAX_LISTED.0)]
        {
            let parsed = parse(&line.repeat(200_000), &plan, &catalogue);
            let Rejects { rows, ends, text } = &parsed.rejects;
            assert_eq!((parsed.rows, parsed.rejected["width"], rows.len()), (200_000, 200_000, most));
            assert!(rows.len() * 64 + ends.len() * 8 + text.len() < 4 << 20, "{} {}", ends.len(), text.len());
        }
        let wide = format!("{}\n", format!("{},", "z".repeat(300)).repeat(100)).repeat(2000);
        let Rejects { text, .. } = parse(&wide, &plan, &catalogue).rejects;
        assert!(text.len() < MAX_LISTED.1 + SHOWN.0 * SHOWN.1, "{}", text.len());
    }

    /// Of a line of commas only the first fields are shown.
    #[tokio::test]
    async fn a_rejected_row_shows_its_first_fields() {
        for quote in ["", "\""] {
            let commas = ",".repeat(1 << 19);
            let text = format!("user_id,track_id,listen_time\n{quote}7{quote},short,2024-06-25 17:43:13\n{commas}\n");
            let now = jiff::Timestamp::from_second(NOW).unwrap();
            let mut blocks = Blocks::open(Cursor::new(text.into_bytes()), u64::MAX, now).await.unwrap();
            let mut rows = Vec::new();
            while let Some(block) = blocks.next().await.unwrap() {
                rows.extend(listed(&block.parse(&Plan::built_in().unwrap(), &catalogue().await)));
            }
            assert_eq!(rows[0]["reason"], format!("{} fields, the header has 3", (1 << 19) + 1));
            assert_eq!(rows[0]["fields"].as_array().unwrap().len(), SHOWN.1);
        }
    }
}
