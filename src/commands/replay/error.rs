//! The errors of a replay.

use crate::aws::error::AwsError;
use crate::batch::manifest::DeltaFileError;
use crate::batch::prepare::PrepareError;
use crate::lake::LakeError;
use crate::protocol::BatchNumber;
use crate::reference::CatalogueError;

/// An error that ends a replay. Everything written before it is right, and the replay can be run again.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A call failed.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The table of the curated files cannot be read or written.
    #[error(transparent)]
    Table(#[from] LakeError),
    /// The catalogue is missing.
    #[error("{0} (upload it under reference/ of the bucket)")]
    Catalogue(#[from] CatalogueError),
    /// Another definition came into force.
    #[error("another definition has come into force meanwhile; run this again")]
    Redefined,
    /// The definition in force cannot be used.
    #[error("{0}")]
    Plan(String),
    /// Archived files could not be read or encoded.
    #[error(transparent)]
    Prepare(PrepareError),
    /// A batch's delta file changed while it was read.
    #[error(transparent)]
    DeltaFile(#[from] DeltaFileError),
    /// Report items cannot be written.
    #[error("{count} report items were refused, the others are right; the first: {first}")]
    Refused {
        /// The number of refused items.
        count: usize,
        /// The reason for the first one.
        first: String,
    },
    /// A curated file that its batch published is missing.
    #[error(
        "the curated file {key} of batch {batch} is missing, which would show that the batch has rows of the day; \
         add --batch {batch}"
    )]
    LostFile {
        /// The batch.
        batch: BatchNumber,
        /// The file.
        key: String,
    },
    /// An archived file differs from what its batch counted.
    #[error("{place} {problem}; restore it from a backup or an older version, then run this again")]
    Archive {
        /// The file's key in the archive.
        place: String,
        /// The difference.
        problem: String,
    },
    /// The archive lacks rows of a batch whose manifest has expired.
    #[error(
        "batch {batch} has {curated} curated rows of the day, but its archived files have {archived}: some of these \
         are lost or changed. Restore them from a backup or older versions, then run this again; or, if the curated \
         files are wrong, delete those and use --rebuild --batch {batch}"
    )]
    Incomplete {
        /// The batch.
        batch: BatchNumber,
        /// Rows of the day in its curated files.
        curated: u64,
        /// Rows of the day in its archived files.
        archived: u64,
    },
    /// A batch has neither a manifest nor a folder in the archive.
    #[error(
        "batch {0} has curated rows of the day, but no manifest and no folder in the archive; restore the folder, then \
         run this again"
    )]
    NoArchive(BatchNumber),
    /// Consumers are or were at work, or left a batch unfinished.
    #[error(
        "batches are or were at work meanwhile ({0:?}), and the first thing that a consumer writes to an item hides \
         what the item has lost: stop the consumers once music-streams status shows no batch at work, or use \
         --rebuild, which may run beside them"
    )]
    AtWork(Vec<BatchNumber>),
    /// Batches do not finish.
    #[error("batches {0:?} do not finish; run this again when music-streams status no longer shows them at work")]
    Unfinished(Vec<BatchNumber>),
    /// The ledger was lost, or restored to an earlier time.
    #[error(
        "the bucket has curated files of batch {0}, which the ledger does not know; start a consumer once, which \
         repairs the ledger, then run this again"
    )]
    Forgotten(BatchNumber),
    /// The figures exceed the memory.
    #[error(
        "the figures of the day do not fit into the memory of {0} bytes; provide more memory, and set --max-memory"
    )]
    TooMuchMemory(u64),
    /// The report items exceed their limit.
    #[error("the day has more than {0} report items; set a higher --max-report-items")]
    TooManyItems(u32),
    /// Consumers kept changing the same items.
    #[error(
        "{0} items got new batches again and again and are as consumers left them; run this again when fewer \
         files arrive"
    )]
    Changing(usize),
}
