//! The list of rejected rows, which is published beside the curated files.

use std::collections::BTreeMap;

use crate::input::parsed::Parsed;
use crate::input::rejects::MAX_LISTED;
use crate::object::ObjectId;

/// Bytes of lines about rejected rows that wait in memory for the end of their object. Twice what is listed of one
/// object, so that those of earlier objects can always make room.
pub(super) const MAX_REJECT_BYTES: usize = 2 * MAX_LISTED.1;

/// The list of one object's rejected rows. It has the lines of the first ones, up to [`MAX_LISTED`], and of the others
/// their number for each reason.
#[derive(Debug, Default)]
pub(super) struct Listing {
    rows: usize,
    bytes: usize,
    /// The records of the object's blocks so far.
    records: u64,
    of_kind: BTreeMap<String, u64>,
}

impl Listing {
    /// Lists the rejected rows of a block.
    pub(super) fn add(&mut self, block: &Parsed, object: &ObjectId, list: &mut Vec<u8>) {
        let before = self.records;
        self.records += block.rows + block.passed_over;
        for (kind, line) in block.rejects.lines(object, before) {
            if self.rows >= MAX_LISTED.0 || self.bytes >= MAX_LISTED.1 {
                return;
            }
            self.rows += 1;
            self.bytes += line.len();
            *self.of_kind.entry(kind).or_default() += 1;
            list.extend_from_slice(&line);
        }
    }

    /// Adds the number of the unlisted rows for each reason. `rejected` has the numbers of all.
    pub(super) fn end<'a>(self, rejected: &'a BTreeMap<String, u64>, object: &ObjectId, list: &mut Vec<u8>) {
        let unlisted = |(kind, &count): (&'a String, &u64)| {
            (kind.as_str(), count.saturating_sub(self.of_kind.get(kind).copied().unwrap_or(0)))
        };
        let reasons: BTreeMap<&str, u64> = rejected.iter().map(unlisted).filter(|&(_, count)| count > 0).collect();
        if reasons.is_empty() {
            return;
        }
        let unlisted: u64 = reasons.values().sum();
        let line = serde_json::json!({
            "object": object.key, "version": object.version, "unlisted": unlisted, "reasons": reasons,
        });
        list.extend_from_slice(format!("{line}\n").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::fixtures::parsed;
    use crate::object::Version;

    async fn list(lines: &str) -> (Vec<serde_json::Value>, usize) {
        let object = ObjectId {
            bucket: "b".to_owned(),
            key: format!("incoming/{}", "k".repeat(975)),
            version: Version::ETag("e".to_owned()),
        };
        let (mut listing, mut rejected, mut bytes) = (Listing::default(), BTreeMap::new(), Vec::new());
        for block in parsed(lines).await {
            block.rejected.iter().for_each(|(kind, count)| *rejected.entry(kind.clone()).or_default() += count);
            listing.add(&block, &object, &mut bytes);
        }
        listing.end(&rejected, &object, &mut bytes);
        let rows = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        (rows.map(|row| serde_json::from_slice(row).unwrap()).collect(), bytes.len())
    }

    #[tokio::test]
    async fn of_many_rejected_rows_the_first_are_listed_and_the_others_counted() {
        let bad_users = "x,t,2024-06-25 00:00:05\n".repeat(300);
        let (rows, bytes) = list(&format!("{bad_users}{}{bad_users}", "x\n".repeat(200_000))).await;
        let (last, listed) = rows.split_last().unwrap();
        assert!((2000..=MAX_LISTED.0).contains(&listed.len()), "{}", listed.len());
        assert!(bytes < MAX_LISTED.1 + (16 << 10), "{bytes}");
        assert!(listed.iter().zip(2..302).all(|(row, line)| row["line"] == line && row["fields"][0] == "x"));
        let unlisted = 200_600 - listed.len() as u64;
        assert_eq!(last["unlisted"], unlisted);
        assert_eq!(last["reasons"], serde_json::json!({"user_id": 300, "width": unlisted - 300}));
        assert_eq!(last["object"], listed[0]["object"]);
    }

    #[tokio::test]
    async fn of_few_rejected_rows_each_is_listed() {
        let (rows, _) = list("x\n7,t,2024-06-25 00:00:05\ny,z\n").await;
        let shown: Vec<_> = rows.iter().map(|row| (row["line"].as_u64(), row["fields"][0].as_str())).collect();
        assert_eq!(shown, [(Some(2), Some("x")), (Some(4), Some("y"))]);
    }
}
