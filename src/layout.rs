//! Where everything lies in the bucket.
//!
//! Pure. The date in a key is the batch's own, except for curated files, whose date is that of their rows. Every key that
//! a batch writes carries the batch's number, so no two batches ever write to the same place, whatever the files are
//! called.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use crate::protocol::BatchNumber;

/// Where listening files land; the only prefix that is read.
pub const INCOMING: &str = "incoming/";
/// Where curated Parquet is published.
pub const CURATED: &str = "curated/";
/// Where raw files are kept after they were counted.
pub const ARCHIVE: &str = "archive/";
/// Where rejected rows go.
pub const QUARANTINED_ROWS: &str = "quarantine/rows/";
/// Where files that cannot be counted go.
pub const QUARANTINED_OBJECTS: &str = "quarantine/objects/";
/// Where batches keep what a roll forward needs.
pub const BATCHES: &str = "batches/";

/// Longest key, in bytes: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html>.
pub const MAX_KEY_BYTES: usize = 1024;
/// What is appended to a quarantined file's key for the reason beside it.
pub const REASON_SUFFIX: &str = ".reason.json";

/// The name of a batch within keys.
pub fn batch_name(batch: BatchNumber) -> String {
    format!("batch-{batch:012}")
}

/// A curated file: the rows of one day from one batch. `part` is 1 but for batches that span very many days.
pub fn curated_key(day: &str, batch: BatchNumber, part: usize) -> String {
    let part = if part == 1 { String::new() } else { format!("-{part}") };
    format!("{}{}{part}.parquet", curated_prefix(day), batch_name(batch))
}

/// The prefix of a day's curated files.
pub fn curated_prefix(day: &str) -> String {
    format!("{CURATED}report_date={day}/")
}

/// The day of a curated file, as YYYY-MM-DD.
pub fn date_of_curated(key: &str) -> Option<&str> {
    key.strip_prefix(CURATED)?.strip_prefix("report_date=")?.split('/').next()
}

/// The batch that wrote a curated file.
pub fn batch_of_curated(key: &str) -> Option<BatchNumber> {
    let name = key.rsplit('/').next()?.strip_prefix("batch-")?.strip_suffix(".parquet")?;
    name.split('-').next()?.parse().ok()
}

/// The rejected rows of a batch.
pub fn rejected_rows_key(date: &str, batch: BatchNumber) -> String {
    format!("{QUARANTINED_ROWS}{date}/{}.jsonl", batch_name(batch))
}

/// Whether a key was written by this batch.
pub fn is_of_batch(key: &str, batch: BatchNumber) -> bool {
    key.contains(&format!("/{}", batch_name(batch)))
}

/// The prefix of what a batch keeps for its roll forward.
pub fn batch_prefix(batch: BatchNumber) -> String {
    format!("{BATCHES}{}/", batch_name(batch))
}

/// Sorts behind everything that a batch keeps, and before what later ones do.
pub fn key_after_batch(batch: BatchNumber) -> String {
    format!("{BATCHES}{}0", batch_name(batch))
}

/// The batch in the name of a folder, which is the one after `parents` of them in the key.
pub fn batch_of_folder(key: &str, parents: usize) -> Option<BatchNumber> {
    key.split('/').nth(parents)?.strip_prefix("batch-")?.parse().ok()
}

/// What a batch decided: objects, uploads, delta files.
pub fn manifest_key(batch: BatchNumber) -> String {
    format!("{}manifest.json", batch_prefix(batch))
}

/// What a batch adds to the reports, in files numbered from 1.
pub fn deltas_key(batch: BatchNumber, file: usize) -> String {
    format!("{}deltas-{file}.parquet", batch_prefix(batch))
}

/// SHA-256 in hexadecimal.
pub fn hexadecimal_sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Gives the files of one batch their places in the archive or the quarantine: below the batch's own folder under the name
/// they came with.
#[derive(Debug)]
pub struct KeyAllocator {
    date: String,
    batch: BatchNumber,
    taken: HashSet<String>,
}

impl KeyAllocator {
    /// KeyAllocator for a batch of this date.
    pub fn new(date: String, batch: BatchNumber) -> Self {
        KeyAllocator { date, batch, taken: HashSet::new() }
    }

    /// A place in the archive.
    pub fn archive(&mut self, key: &str) -> String {
        self.place(ARCHIVE, key)
    }

    /// A place in the quarantine.
    pub fn quarantine(&mut self, key: &str) -> String {
        self.place(QUARANTINED_OBJECTS, key)
    }

    fn place(&mut self, prefix: &str, key: &str) -> String {
        let folder = format!("{prefix}{}/{}", self.date, batch_name(self.batch));
        let name = key.strip_prefix(INCOMING).unwrap_or(key);
        let mut place = format!("{folder}/{name}");
        if place.len() > MAX_KEY_BYTES - REASON_SUFFIX.len() - 8 {
            // A name that no longer fits is replaced by its hash; the manifest tells which is which.
            place = format!("{folder}/{}", hexadecimal_sha256(name.as_bytes()));
        }
        // Two versions of one key in one batch have the same name.
        let mut free = place.clone();
        let mut copy = 1;
        // The place of the reason is taken with it, or another file of that name would meet it.
        while self.taken.contains(&free) || self.taken.contains(&format!("{free}{REASON_SUFFIX}")) {
            copy += 1;
            free = format!("{place}~{copy}");
        }
        self.taken.extend([format!("{free}{REASON_SUFFIX}"), free.clone()]);
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_its_name() {
        let mut places = KeyAllocator::new("2026-01-02".into(), 42);
        assert_eq!(places.archive("incoming/a/ü b.csv"), "archive/2026-01-02/batch-000000000042/a/ü b.csv");
        assert_eq!(places.archive("incoming/a/ü b.csv"), "archive/2026-01-02/batch-000000000042/a/ü b.csv~2");
        assert_eq!(places.quarantine("incoming/x"), "quarantine/objects/2026-01-02/batch-000000000042/x");
    }

    #[test]
    fn a_file_named_like_a_reason_does_not_meet_one() {
        for names in [["incoming/x", "incoming/x.reason.json"], ["incoming/x.reason.json", "incoming/x"]] {
            let mut places = KeyAllocator::new("2026-01-02".into(), 42);
            let [first, second] = names.map(|name| places.quarantine(name));
            let reasons = [format!("{first}{REASON_SUFFIX}"), format!("{second}{REASON_SUFFIX}")];
            assert!(first != second && !reasons.contains(&first) && !reasons.contains(&second), "{first} {second}");
        }
    }

    #[test]
    fn the_longest_keys_fit_and_stay_apart() {
        let mut places = KeyAllocator::new("2026-01-02".into(), u64::MAX);
        let (a, b) = (format!("incoming/{}a", "x".repeat(1014)), format!("incoming/{}b", "x".repeat(1014)));
        let (a, b) = (places.quarantine(&a), places.quarantine(&b));
        assert_ne!(a, b);
        assert!(a.len() + REASON_SUFFIX.len() <= MAX_KEY_BYTES);
    }

    #[test]
    fn a_batch_knows_its_keys() {
        assert!(is_of_batch(&curated_key("2026-01-02", 42, 1), 42));
        assert!(is_of_batch(&curated_key("2026-01-02", 42, 3), 42));
        assert!(is_of_batch(&rejected_rows_key("2026-01-02", 42), 42));
        assert!(!is_of_batch(&curated_key("2026-01-02", 420, 1), 42));
        assert!(!is_of_batch(&curated_key("2026-01-02", 4, 1), 42));
        assert_eq!(batch_of_curated(&curated_key("2026-01-02", 42, 1)), Some(42));
        assert_eq!(batch_of_curated(&curated_key("2026-01-02", 42, 3)), Some(42));
        assert_eq!(date_of_curated(&curated_key("2026-01-02", 42, 3)), Some("2026-01-02"));
        assert_eq!(date_of_curated(&rejected_rows_key("2026-01-02", 42)), None);
        assert_eq!(batch_of_curated("curated/report_date=2026-01-02/part-0.parquet"), None);
        assert_eq!(batch_of_folder(&manifest_key(42), 1), Some(42));
        assert_eq!(batch_of_folder("archive/2026-01-02/batch-000000000042/batch-7/x", 2), Some(42));
        assert!(deltas_key(42, 9) < key_after_batch(42) && key_after_batch(42) < deltas_key(43, 1));
    }
}
