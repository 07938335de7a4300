//! The counts of a batch: its objects and rows, and their outcomes. Data only; `tests/pipeline` checks the figures.

use serde::{Deserialize, Serialize};

/// The counts of a batch, for the log and the batch's record.
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
    /// Other rows, which the definition does not mean.
    pub passed_over: u64,
    /// Objects that were counted but are suspect: they have no good row, or more than a tenth of their rows was
    /// rejected.
    pub suspect: u64,
    /// The time at which the oldest object was created.
    pub oldest_created_at: Option<jiff::Timestamp>,
}
