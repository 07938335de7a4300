//! Why a replay did not come to its end.

use crate::aws::error::AwsError;
use crate::batch::manifest::DeltaFileError;
use crate::batch::prepare::PrepareError;
use crate::protocol::BatchNumber;
use crate::reference::catalogue::CatalogueError;

/// Why it did not come to its end. What was written until then is right, and it may be begun again.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A call failed.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// There is no catalogue to read the files with.
    #[error("{0} (upload it under reference/ of the bucket)")]
    Catalogue(#[from] CatalogueError),
    /// Files could not be read or encoded.
    #[error(transparent)]
    Prepare(PrepareError),
    /// What a batch applied is not there as it was.
    #[error(transparent)]
    DeltaFile(#[from] DeltaFileError),
    /// Report items that cannot be written.
    #[error("{count} report items were refused, the others are right; the first: {first}")]
    Refused {
        /// How many.
        count: usize,
        /// What was said of the first.
        first: String,
    },
    /// A curated file that its batch published is not there.
    #[error(
        "the curated file {key} of batch {batch} is gone, and with it what tells that the batch has rows of the day; add --batch {batch}"
    )]
    LostFile {
        /// The batch.
        batch: BatchNumber,
        /// The file.
        key: String,
    },
    /// An archived file is not what its batch counted.
    #[error("{place} {problem}; restore it from a backup or an older version, then begin again")]
    Archive {
        /// Where it lies, or should.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The archive lacks rows of a batch whose manifest has expired.
    #[error(
        "batch {batch} has {curated} curated rows of the day, and its archived files have {archived}: some of these are lost or changed; \
         restore them from a backup or older versions, then begin again; or, if it is the curated files that are wrong, delete those and \
         use --rebuild --batch {batch}"
    )]
    Incomplete {
        /// The batch.
        batch: BatchNumber,
        /// Rows of the day in its curated files.
        curated: u64,
        /// Rows of the day in its archived files.
        archived: u64,
    },
    /// The files of a batch are nowhere in the archive.
    #[error(
        "batch {0} has curated rows of the day, and no manifest and no folder in the archive; restore the folder, then begin again"
    )]
    NoArchive(BatchNumber),
    /// A consumer is at work, or was and left something.
    #[error(
        "batches are or were at work meanwhile ({0:?}), and the first thing that a consumer writes to an item hides what it has lost: \
         stop the consumers once music-streams status shows no batch at work, or use --rebuild, which may run beside them"
    )]
    AtWork(Vec<BatchNumber>),
    /// Batches stay at work.
    #[error("batches {0:?} do not come to their end; begin again when music-streams status shows that they have")]
    Unfinished(Vec<BatchNumber>),
    /// The ledger was restored to an earlier time, or lost.
    #[error(
        "the bucket has curated files of batch {0}, which the ledger does not know; start a consumer once, which mends that, then begin again"
    )]
    Forgotten(BatchNumber),
    /// More figures than the memory is for.
    #[error(
        "the figures of the day do not fit into the memory of {0} bytes; give a higher --max-memory, and the memory for it"
    )]
    TooMuchMemory(u64),
    /// More report items than were allowed.
    #[error("the day has more than {0} report items; give a higher --max-report-items")]
    TooManyItems(u32),
    /// Consumers kept changing the same items.
    #[error("{0} items got new batches again and again and are as consumers left them; begin again when less comes in")]
    Changing(usize),
}
