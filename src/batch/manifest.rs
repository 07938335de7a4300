//! The manifest: the record of what a batch decided, and its counts.
//!
//! It is written before the commit, and is all that any consumer needs for the roll forward. Afterwards it records the
//! fate of each object, for as long as it is kept ([`crate::layout::BATCHES`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::aws::error::{AwsError, Kind};
use crate::aws::s3::{Bucket, Upload};
use crate::compute::deltas;
use crate::counts::Counts;
use crate::formats::delta::schema::Column;
use crate::formats::delta::stats::Stats;
use crate::formats::parquet::ParquetError;
use crate::layout::{self, hexadecimal_sha256};
use crate::object::ObjectId;
use crate::plan::Plan;
use crate::protocol::BatchNumber;
use crate::reports::figures::Delta;

/// The decisions of a batch, with everything needed to carry them out: `batches/batch-…/manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// The batch's number.
    pub batch: BatchNumber,
    /// The time at which it was opened: its date, and the time against which the times of rows are checked.
    pub opened_at: jiff::Timestamp,
    /// The digest of the definition by which it read its objects. A batch of the version before definitions has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    /// Its objects, each with its fate.
    pub objects: Vec<ManifestObject>,
    /// Uploads to complete: curated files and rejected rows.
    pub uploads: Vec<Upload>,
    /// The curated files among the uploads, as the curated table is to have them. The version before that table wrote
    /// none.
    #[serde(default)]
    pub curated: Vec<CuratedFile>,
    /// The columns of the curated files.
    #[serde(default)]
    pub columns: Vec<Column>,
    /// Delta files to apply.
    pub delta_files: Vec<DeltaFile>,
    /// The number of rejected rows for each reason.
    #[serde(default)]
    pub rejected: BTreeMap<String, u64>,
    /// The context of its trace ([`crate::telemetry::batch_trace`]), if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

impl Manifest {
    /// Reads the manifest of a batch. `None` if it is gone, or cannot be read by this version.
    pub async fn find(bucket: &Bucket, batch: BatchNumber) -> Result<Option<Self>, AwsError> {
        match bucket.read_all(&layout::manifest_key(batch)).await {
            Ok(json) => Ok(serde_json::from_slice(&json).ok()),
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Counts the objects and rows of the batch.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for object in &self.objects {
            counts.objects += 1;
            counts.bytes += object.size;
            counts.oldest_created_at = [counts.oldest_created_at, object.created_at].into_iter().flatten().min();
            match &object.fate {
                Fate::Archived { rows, rejected, passed_over, .. } => {
                    counts.archived += 1;
                    counts.passed_over += passed_over;
                    counts.rows += rows;
                    counts.rejected += rejected;
                    counts.suspect += u64::from(object.fate.is_suspect());
                }
                Fate::Quarantined { .. } => counts.quarantined += 1,
                Fate::Gone => counts.gone += 1,
            }
        }
        counts
    }
}

/// A curated file: the rows of one day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CuratedFile {
    /// Its key, which has the day.
    pub key: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The number of its rows, and the bounds of some columns.
    pub stats: Stats,
}

/// A delta file, with the hash of the bytes that were written: no other bytes are ever decoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaFile {
    /// Its key.
    pub key: String,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
}

impl DeltaFile {
    /// Describes a file of these bytes.
    pub fn new(key: String, bytes: &[u8]) -> Self {
        DeltaFile { key, sha256: hexadecimal_sha256(bytes) }
    }

    /// The error for a file that no longer exists.
    pub fn gone(&self) -> DeltaFileError {
        DeltaFileError { key: self.key.clone(), problem: Problem::Gone }
    }

    /// Returns true if these bytes are those that were written.
    pub fn is_whole(&self, bytes: &[u8]) -> bool {
        self.sha256 == hexadecimal_sha256(bytes)
    }

    /// Decodes the deltas in these bytes, if they are those that were written.
    pub fn decode(&self, bytes: &[u8], plan: &Plan) -> Result<Vec<Delta>, DeltaFileError> {
        let decoded = match self.is_whole(bytes) {
            true => deltas::decode(bytes, plan).map_err(Problem::Unreadable),
            false => Err(Problem::Bytes),
        };
        decoded.map_err(|problem| DeltaFileError { key: self.key.clone(), problem })
    }
}

/// The error for a delta file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the delta file {key} {problem}")]
pub struct DeltaFileError {
    key: String,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("is gone; restore it, and the operation resumes")]
    Gone,
    #[error("is not as its batch wrote it; restore that version of it, and the operation resumes")]
    Bytes,
    #[error("cannot be read by this version of the program: {0}")]
    Unreadable(ParquetError),
}

/// One object of a batch.
#[derive(Debug, Serialize, Deserialize)]
pub struct ManifestObject {
    /// The object.
    pub object: ObjectId,
    /// Its size in bytes, as announced.
    pub size: u64,
    /// The time at which it was created, as announced.
    pub created_at: Option<jiff::Timestamp>,
    /// Its fate.
    #[serde(flatten)]
    pub fate: Fate,
}

/// The fate of an object: what its batch decided to do with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "fate")]
pub enum Fate {
    /// Counted, and moved to the archive.
    Archived {
        /// Its place in the archive.
        to: String,
        /// Rows of the file, without the header.
        rows: u64,
        /// Rows among them that were rejected.
        rejected: u64,
        /// Other rows, which the definition does not mean.
        #[serde(default, skip_serializing_if = "is_zero")]
        passed_over: u64,
    },
    /// Not counted, and moved to quarantine with the reason beside it.
    Quarantined {
        /// Its place in the quarantine.
        to: String,
        /// The reason.
        reason: String,
    },
    /// Deleted or replaced before it was read.
    Gone,
}

impl Fate {
    /// Returns true for a counted file in which nothing was read, or more than a tenth of whose rows were rejected.
    /// Probably its producer has changed the format.
    pub fn is_suspect(&self) -> bool {
        match self {
            Fate::Archived { rows, rejected, passed_over, .. } => {
                (rows == rejected && *passed_over == 0) || rejected.saturating_mul(10) > *rows
            }
            Fate::Quarantined { .. } | Fate::Gone => false,
        }
    }

    /// Returns the place to which the object is moved, and the reason if that is in quarantine.
    pub fn destination(&self) -> Option<(&str, Option<&String>)> {
        match self {
            Fate::Archived { to, .. } => Some((to, None)),
            Fate::Quarantined { to, reason } => Some((to, Some(reason))),
            Fate::Gone => None,
        }
    }
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The note that lies beside a quarantined file.
#[derive(Debug, Serialize, Deserialize)]
pub struct Note {
    /// The object as it came in.
    pub object: ObjectId,
    /// Its size in bytes, as announced.
    pub size: u64,
    /// The batch that put it there.
    pub batch: BatchNumber,
    /// The reason why it could not be counted.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_gives_little_is_suspect() {
        let is_suspect =
            |rows, rejected| Fate::Archived { to: String::new(), rows, rejected, passed_over: 0 }.is_suspect();
        let suspect = [(0, 0), (1, 1), (10, 2), (1000, 101)].map(|(rows, rejected)| is_suspect(rows, rejected));
        let sound = [(1, 0), (10, 1), (1000, 100)].map(|(rows, rejected)| is_suspect(rows, rejected));
        assert_eq!((suspect, sound), ([true; 4], [false; 3]));
    }

    /// Consumers of two versions run together during an upgrade, and may finish each other's batches.
    #[test]
    fn other_versions_are_read() {
        let before =
            r#"{"batch": 7, "opened_at": "2026-01-02T03:04:05Z", "objects": [], "uploads": [], "delta_files": []}"#;
        let manifest: Manifest = serde_json::from_str(before).unwrap();
        assert_eq!((manifest.batch, manifest.rejected.len(), manifest.traceparent), (7, 0, None));
        let after = before.replace("{\"batch\"", "{\"something_new\": [1], \"batch\"");
        assert_eq!(serde_json::from_str::<Manifest>(&after).unwrap().batch, 7);
    }
}
