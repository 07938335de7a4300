//! Preparation: reading the objects of a batch, and writing everything that the batch is going to publish.
//!
//! Streams each object once, never whole in memory. Rows are judged, looked up, encoded and folded; what cannot be used
//! is set aside with its reason. What leaves the memory goes to a [`Destination`]. That of a batch is the bucket, where
//! everything is written invisibly ([`Uploads`]), so that a preparation can be abandoned at any point. Whoever tries a
//! definition on local files prepares them by the same code, for another destination.
//!
//! An object counts whole or not at all. Its rows stay in memory until its end is reached, so that a file which turns
//! out bad at its last byte leaves no trace. A file with more rows than fit there is used as it arrives; if it turns
//! out bad afterwards, the preparation ends with [`PrepareError::Spoiled`] and the batch is prepared again without it.
//!
//! * `mod.rs`: the preparation, its bounds and its errors
//! * `object.rs`: reading one object
//! * `rejects.rs`: the list of rejected rows
//! * `relief.rs`: folding and encoding rows, and making room in memory
//! * `finish.rs`: the delta files, and the end of a preparation
//! * `destination.rs`: the destination of what leaves the memory
//! * `uploads.rs`: uploads to the bucket
//!
//! The tests are tests/pipeline, tests/hostile/files.rs and tests/parquet.rs.

mod destination;
mod finish;
mod object;
mod rejects;
mod relief;
mod uploads;

use std::collections::BTreeMap;
use std::sync::Arc;

use governor::DefaultDirectRateLimiter;
use tokio_util::sync::CancellationToken;

use crate::aws::error::AwsError;
use crate::aws::s3::{Bucket, Upload};
use crate::batch::manifest::{CuratedFile, DeltaFile};
pub use crate::batch::prepare::destination::Destination;
pub use crate::batch::prepare::finish::{DELTAS_PER_FILE, Folded};
pub use crate::batch::prepare::object::ObjectOutcome;
pub use crate::batch::prepare::uploads::Uploads;
use crate::compute::{Compute, ComputeError, Dictionary, Rows, Scope};
use crate::formats::parquet::ParquetError;
use crate::input::file::BadObject;
use crate::memory::Memory;
use crate::plan::Plan;
use crate::protocol::BatchNumber;
use crate::reference::References;
use crate::telemetry::progress::Progress;

/// The error that kept a batch from being prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A call failed.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// Encoding failed.
    #[error(transparent)]
    Columnar(#[from] ParquetError),
    /// A computation did not finish.
    #[error(transparent)]
    Compute(#[from] ComputeError),
    /// The process is about to stop.
    #[error("stopped by request")]
    Cancelled,
    /// An object cannot be in the batch: it turned out unusable after rows of it were used.
    #[error("object {object} turned out unusable late")]
    Spoiled {
        /// Its position among those given to [`Preparation::add`].
        object: usize,
        /// Its outcome.
        outcome: ObjectOutcome,
    },
    /// The objects together touch more report items than a batch may touch, or than memory can hold. The reason applies
    /// to an object that does so alone.
    #[error("too much for one batch")]
    TooLarge(BadObject),
}

/// The subject of a preparation.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    /// The batch that the files carry in their names.
    pub batch: BatchNumber,
    /// The time at which it was opened, against which the times of rows are checked.
    pub opened_at: jiff::Timestamp,
    /// The rows that are wanted; others are read and ignored.
    pub scope: Scope,
}

/// Bounds of a preparation.
#[derive(Debug, Clone)]
pub struct PreparationLimits {
    /// Bytes of the largest object, before and after decompression.
    pub object_bytes: u64,
    /// Report items that a batch may touch.
    pub report_items: usize,
    /// Memory of the process, which the names and report items of a batch share with its catalogue.
    pub memory: Memory,
    /// Limiter of the rows read per second, if they are limited.
    pub rows: Option<Arc<DefaultDirectRateLimiter>>,
}

/// Everything that a batch is going to publish.
#[derive(Debug)]
pub struct Prepared {
    /// Uploads to complete.
    pub uploads: Vec<Upload>,
    /// The curated files among them.
    pub curated: Vec<CuratedFile>,
    /// The delta files.
    pub delta_files: Vec<DeltaFile>,
    /// Report items in them.
    pub report_items: usize,
    /// Rejected rows of the objects that count, by their reason in a word.
    pub rejected: BTreeMap<String, u64>,
}

/// A batch in preparation.
pub struct Preparation<D> {
    subject: Subject,
    limits: PreparationLimits,
    shutdown: CancellationToken,
    dictionary: Dictionary,
    /// Rows that are neither folded nor encoded yet.
    rows: Rows,
    compute: Compute,
    /// Lines about rejected rows that are not at the destination yet.
    rejects: Vec<u8>,
    destination: D,
    /// Bytes of memory taken by the rows that are folded.
    folded_bytes: usize,
    rejected: BTreeMap<String, u64>,
    progress: Progress,
}

impl Preparation<Uploads> {
    /// Starts the preparation of a batch, without objects.
    pub fn new(
        bucket: Bucket,
        plan: Arc<Plan>,
        references: Arc<References>,
        subject: Subject,
        limits: PreparationLimits,
        shutdown: CancellationToken,
        progress: Progress,
    ) -> Self {
        let (of_uploads, cancelled) = (Arc::clone(&plan), shutdown.clone());
        let uploads = Uploads::new(bucket, of_uploads, subject, limits.memory, cancelled, progress.clone());
        Preparation::for_destination(uploads, plan, references, subject, limits, shutdown, progress)
    }

    /// Returns true if anything of it may have been written.
    pub fn has_written(&self) -> bool {
        self.destination.has_written()
    }
}

impl<D: Destination> Preparation<D> {
    /// Starts a preparation for a destination, without objects.
    pub fn for_destination(
        destination: D,
        plan: Arc<Plan>,
        references: Arc<References>,
        subject: Subject,
        limits: PreparationLimits,
        shutdown: CancellationToken,
        progress: Progress,
    ) -> Self {
        let rows = Rows::with_capacity(&plan, room(limits.memory.row_group_rows(plan.row_bytes())));
        let dictionary = Dictionary::of(plan, references);
        let compute = Compute::new(dictionary.names().clone(), subject.scope);
        let (rejects, folded_bytes, rejected) = (Vec::new(), 0, BTreeMap::new());
        Preparation {
            subject,
            limits,
            shutdown,
            dictionary,
            rows,
            compute,
            rejects,
            destination,
            folded_bytes,
            rejected,
            progress,
        }
    }

    /// The destination, and what it has seen so far.
    pub fn destination(&mut self) -> &mut D {
        &mut self.destination
    }

    fn plan(&self) -> &Arc<Plan> {
        self.dictionary.names().plan()
    }

    fn row_group_rows(&self) -> usize {
        self.limits.memory.row_group_rows(self.plan().row_bytes())
    }

    fn too_many_items(&self) -> PrepareError {
        PrepareError::TooLarge(BadObject::TooManyItems { limit: self.limits.report_items })
    }

    fn too_much_memory(&self) -> PrepareError {
        PrepareError::TooLarge(BadObject::TooMuchMemory { limit_bytes: self.limits.memory.bytes() })
    }

    /// Bytes of memory that report items may take: those that everything else of the same lifetime leaves over.
    fn fold_limit_bytes(&self) -> usize {
        let others = self.dictionary.names().references().memory_bytes()
            + self.dictionary.memory_bytes()
            + self.destination.lasting_bytes();
        self.limits.memory.lasting().saturating_sub(others)
    }
}

/// The number of rows to allocate memory for at the start: a row group, and the block that fills it.
fn room(row_group_rows: usize) -> usize {
    row_group_rows + 32 * 1024
}
