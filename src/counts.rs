//! The counts of a batch: how many objects and rows it had, and what became of them.

use serde::{Deserialize, Serialize};

/// The counts of a batch, for the log and for its record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Objects.
    pub objects: u64,
    /// Their bytes, as announced.
    pub bytes: u64,
    /// Objects that were counted.
    pub archived: u64,
    /// Objects that cannot be counted.
    pub quarantined: u64,
    /// Objects that were deleted or replaced before they were read.
    pub gone: u64,
    /// Rows read.
    pub rows: u64,
    /// Rows among them that were rejected.
    pub rejected: u64,
    /// Objects that were counted and are suspect (they gave no row, or more than a tenth of theirs was rejected).
    pub suspect: u64,
    /// When the oldest object was created.
    pub oldest_created_at: Option<jiff::Timestamp>,
}
