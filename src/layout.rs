//! The layout of the bucket: prefixes and keys.
//!
//! Pure. The date in a key is the batch's, except for curated files, whose date is that of their rows. Every key that a
//! batch writes contains the batch's number, so no two batches ever write to the same key, whatever their files are
//! called.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use crate::calendar::parse_date;
use crate::protocol::BatchNumber;

/// The prefix of incoming files, the only ones that are counted.
pub const INCOMING: &str = "incoming/";
/// The prefix of published curated Parquet files.
pub const CURATED: &str = "curated/";
/// The prefix of the log of the curated table.
pub const CURATED_LOG: &str = "curated/_delta_log/";
/// The prefix of curated files that have the rows of several batches.
pub const COMPACTED: &str = "curated/compacted/";
/// The prefix of curated files of batches, up to their day.
pub const CURATED_DAYS: &str = "curated/report_date=";
/// The prefix of files that were counted.
pub const ARCHIVE: &str = "archive/";
/// The prefix of rejected rows.
pub const QUARANTINED_ROWS: &str = "quarantine/rows/";
/// The prefix of files that cannot be counted.
pub const QUARANTINED_OBJECTS: &str = "quarantine/objects/";
/// The prefix of manifests and delta files, which a roll forward needs.
pub const BATCHES: &str = "batches/";

/// Length of the longest key, in bytes: <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html>.
pub const MAX_KEY_BYTES: usize = 1024;
/// Suffix that turns a quarantined file's key into that of the reason beside it.
pub const REASON_SUFFIX: &str = ".reason.json";

/// Returns the name of a batch within keys.
pub fn batch_name(batch: BatchNumber) -> String {
    format!("batch-{batch:012}")
}

/// Returns the key of a curated file: the rows of one day from one batch. `part` is 1 except in batches of very many
/// days.
pub fn curated_key(day: &str, batch: BatchNumber, part: usize) -> String {
    let part = if part == 1 { String::new() } else { format!("-{part}") };
    format!("{}{}{part}.parquet", curated_prefix(day), batch_name(batch))
}

/// Returns the prefix of a day's curated files.
pub fn curated_prefix(day: &str) -> String {
    format!("{CURATED_DAYS}{day}/")
}

/// Returns the day of a curated file, as YYYY-MM-DD.
pub fn date_of_curated(key: &str) -> Option<&str> {
    key.strip_prefix(CURATED_DAYS)?.split('/').next()
}

/// Returns the key of a curated file that has the rows of several batches of a day.
pub fn compacted_key(day: &str, name: &str) -> String {
    format!("{COMPACTED}report_date={day}/{name}.parquet")
}

/// Returns the batch that wrote a curated file, by its key, or by its place below the prefix. `None` for any other
/// file.
pub fn batch_of_curated(key: &str) -> Option<BatchNumber> {
    let place = key.strip_prefix(CURATED).unwrap_or(key);
    let (day, name) = place.strip_prefix("report_date=")?.split_once('/')?;
    let number = name.strip_prefix("batch-")?.strip_suffix(".parquet")?;
    let (number, part) = number.split_once('-').unwrap_or((number, "1"));
    let (batch, part) = (number.parse().ok()?, part.parse().ok()?);
    let is_own = parse_date(day).is_some() && curated_key(day, batch, part).strip_prefix(CURATED) == Some(place);
    is_own.then_some(batch)
}

/// Returns the key of a batch's rejected rows.
pub fn rejected_rows_key(date: &str, batch: BatchNumber) -> String {
    format!("{QUARANTINED_ROWS}{date}/{}.jsonl", batch_name(batch))
}

/// Returns true if this batch wrote the key.
pub fn is_of_batch(key: &str, batch: BatchNumber) -> bool {
    key.contains(&format!("/{}", batch_name(batch)))
}

/// Returns the prefix of a batch's manifest and delta files.
pub fn batch_prefix(batch: BatchNumber) -> String {
    format!("{BATCHES}{}/", batch_name(batch))
}

/// Returns a key that sorts after everything under a batch's [`batch_prefix`], and before that of later batches.
pub fn key_after_batch(batch: BatchNumber) -> String {
    format!("{BATCHES}{}0", batch_name(batch))
}

/// Returns the batch in the name of a folder of a key: the folder that has `parents` folders above it.
pub fn batch_of_folder(key: &str, parents: usize) -> Option<BatchNumber> {
    key.split('/').nth(parents)?.strip_prefix("batch-")?.parse().ok()
}

/// Returns the key of a batch's manifest: its objects, uploads and delta files.
pub fn manifest_key(batch: BatchNumber) -> String {
    format!("{}manifest.json", batch_prefix(batch))
}

/// Returns the key of a batch's delta file, numbered from 1: what the batch adds to the reports.
pub fn deltas_key(batch: BatchNumber, file: usize) -> String {
    format!("{}deltas-{file}.parquet", batch_prefix(batch))
}

/// Returns the SHA-256 of `bytes` in hexadecimal.
pub fn hexadecimal_sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Allocates keys in the archive and the quarantine to the files of one batch: in the batch's folder, under their
/// original names.
#[derive(Debug)]
pub struct KeyAllocator {
    date: String,
    batch: BatchNumber,
    taken: HashSet<String>,
}

impl KeyAllocator {
    /// Creates the allocator of a batch of this date.
    pub fn new(date: String, batch: BatchNumber) -> Self {
        KeyAllocator { date, batch, taken: HashSet::new() }
    }

    /// Allocates a key in the archive.
    pub fn archive(&mut self, key: &str) -> String {
        self.allocate(ARCHIVE, key)
    }

    /// Allocates a key in the quarantine.
    pub fn quarantine(&mut self, key: &str) -> String {
        self.allocate(QUARANTINED_OBJECTS, key)
    }

    fn allocate(&mut self, prefix: &str, key: &str) -> String {
        let folder = format!("{prefix}{}/{}", self.date, batch_name(self.batch));
        let name = key.strip_prefix(INCOMING).unwrap_or(key);
        let mut wanted = format!("{folder}/{name}");
        if wanted.len() > MAX_KEY_BYTES - REASON_SUFFIX.len() - 8 {
            // A name that no longer fits is replaced by its hash; the manifest has the original.
            wanted = format!("{folder}/{}", hexadecimal_sha256(name.as_bytes()));
        }
        // Two versions of one key in one batch have the same name.
        let mut free = wanted.clone();
        let mut copy = 1;
        // The key of the reason is taken too, or a file of that name would overwrite it.
        while self.taken.contains(&free) || self.taken.contains(&format!("{free}{REASON_SUFFIX}")) {
            copy += 1;
            free = format!("{wanted}~{copy}");
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
        let mut keys = KeyAllocator::new("2026-01-02".into(), 42);
        assert_eq!(keys.archive("incoming/a/ü b.csv"), "archive/2026-01-02/batch-000000000042/a/ü b.csv");
        assert_eq!(keys.archive("incoming/a/ü b.csv"), "archive/2026-01-02/batch-000000000042/a/ü b.csv~2");
        assert_eq!(keys.quarantine("incoming/x"), "quarantine/objects/2026-01-02/batch-000000000042/x");
    }

    #[test]
    fn a_file_named_like_a_reason_does_not_meet_one() {
        for names in [["incoming/x", "incoming/x.reason.json"], ["incoming/x.reason.json", "incoming/x"]] {
            let mut keys = KeyAllocator::new("2026-01-02".into(), 42);
            let [first, second] = names.map(|name| keys.quarantine(name));
            let reasons = [format!("{first}{REASON_SUFFIX}"), format!("{second}{REASON_SUFFIX}")];
            assert!(first != second && !reasons.contains(&first) && !reasons.contains(&second), "{first} {second}");
        }
    }

    #[test]
    fn the_longest_keys_fit_and_stay_apart() {
        let mut keys = KeyAllocator::new("2026-01-02".into(), u64::MAX);
        let (a, b) = (format!("incoming/{}a", "x".repeat(1014)), format!("incoming/{}b", "x".repeat(1014)));
        let (a, b) = (keys.quarantine(&a), keys.quarantine(&b));
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
        assert_eq!(batch_of_curated("report_date=2026-01-02/batch-000000000042.parquet"), Some(42));
        for other in [
            "curated/report_date=2026-01-02/part-0.parquet",
            "curated/report_date=2026-01-02/batch-000000000042-copy.parquet",
            "curated/report_date=2026-01-02/batch-42.parquet",
            "curated/report_date=2026-01-02/old/batch-000000000042.parquet",
            "curated/report_date=2026-13-02/batch-000000000042.parquet",
            "compacted/report_date=2026-01-02/from-000000000042-0.parquet",
        ] {
            assert_eq!(batch_of_curated(other), None, "{other}");
        }
        assert_eq!(batch_of_folder(&manifest_key(42), 1), Some(42));
        assert_eq!(batch_of_folder("archive/2026-01-02/batch-000000000042/batch-7/x", 2), Some(42));
        assert!(deltas_key(42, 9) < key_after_batch(42) && key_after_batch(42) < deltas_key(43, 1));
    }
}
