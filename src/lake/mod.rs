//! The lake: the curated files as one Delta table, which analysts query while batches come in.
//!
//! A reader of the table sees whole batches, each once, and never half of a compaction. The table is a function of the
//! batches that are done, so any consumer may add any of them, any number of times ([`Lake::advance`]); nothing else of
//! the pipeline waits for it, and a failure leaves a lag that the next look makes up for. Small files of a day become
//! larger ones ([`compact`]), which changes no row. Files of batches stay where they are: they are what `verify` and
//! `replay` read.
//!
//! | file | content |
//! |---|---|
//! | [`snapshot`] | the table up to an entry, and the entries that may follow: every decision, pure |
//! | `log.rs` | the log in the bucket: entries and checkpoints, read and written |
//! | `advance.rs` | from finished batches to an entry |
//! | `arrivals.rs` | the files that a batch has |
//! | [`batches`] | the batches whose rows a file has |
//! | [`compact`] | files of a day that become one |
//! | `rebuild.rs` | files of batches that are replaced in place |
//! | `vacuum.rs` | what no reader needs any more |
//!
//! The tests are tests/pipeline/table.rs (with other readers and writers), tests/model/table.rs and tests/chaos.

mod advance;
mod arrivals;
pub mod batches;
pub mod compact;
mod log;
mod rebuild;
pub mod snapshot;
mod vacuum;

use std::collections::BTreeSet;

use crate::aws::error::AwsError;
use crate::aws::s3::Bucket;
use crate::compute::ComputeError;
use crate::formats::delta::DeltaError;
use crate::formats::parquet::ParquetError;
use crate::layout::CURATED_LOG;
use crate::ledger::Ledger;
use crate::protocol::BatchNumber;

pub use snapshot::Snapshot;

/// An error of the table. Nothing else of the pipeline fails with it.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// A call failed.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The log cannot be read, or must not be written by this program.
    #[error("the table of the curated files: {0}")]
    Delta(#[from] DeltaError),
    /// A file cannot be read or written.
    #[error("{key}: {error}")]
    File {
        /// Its key.
        key: String,
        /// The fault.
        error: ParquetError,
    },
    /// A computation did not finish.
    #[error(transparent)]
    Compute(#[from] ComputeError),
    /// A temporary file cannot be written.
    #[error("a temporary file cannot be written ({0}); set TMPDIR to a folder with room for the largest curated file")]
    TemporaryFile(std::io::Error),
    /// The entry was written by others, again and again.
    #[error("the table's log was changed by others {0} times in a row; trying again later")]
    Contended(usize),
    /// A day has files whose batches are not known.
    #[error(
        "{0} was written by another program, which does not say which batches it has; stop the consumers, delete \
         {CURATED_LOG}, and start them: they make the table anew from the files of batches"
    )]
    Foreign(String),
    /// Files cannot take the place of others.
    #[error("files of the table cannot be replaced: {0}")]
    Overtaken(#[from] snapshot::Overtaken),
}

/// The table of a pipeline's curated files, as one process knows it.
#[derive(Debug)]
pub struct Lake {
    bucket: Bucket,
    ledger: Ledger,
    snapshot: Snapshot,
    /// The time at which the snapshot was the last one, in milliseconds since the Unix epoch; `None` before it was
    /// loaded.
    refreshed_ms: Option<i64>,
    /// The number up to which every batch was looked at, and is in the table or will not be.
    settled: BatchNumber,
    /// Batches above it that have nothing for the table, and never will.
    without_files: BTreeSet<BatchNumber>,
    /// Batches that are left out, as was said.
    left_out: BTreeSet<BatchNumber>,
}

impl Lake {
    /// Names the table of a pipeline. Nothing is read yet.
    pub fn new(bucket: Bucket, ledger: Ledger) -> Self {
        Lake {
            bucket,
            ledger,
            snapshot: Snapshot::default(),
            refreshed_ms: None,
            settled: 0,
            without_files: BTreeSet::new(),
            left_out: BTreeSet::new(),
        }
    }

    /// The table, as far as it was read.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }
}

/// Milliseconds since the Unix epoch.
fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
