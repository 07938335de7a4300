//! Transform and aggregate: from the objects of a batch to everything the batch is going to publish.
//!
//! Streams each object once, never whole in memory: plain or gzip, CSV with a header. Rows are cleansed, enriched, encoded
//! and folded; what cannot be used is set aside with its reason. Everything is written invisibly ([`Bucket::upload`]), so
//! that giving up at any point costs nothing.
//!
//! An object counts whole or not at all. Its rows wait in memory until its end is reached, so that a file which turns out
//! bad at its last byte leaves no trace. A file with more rows than fit there is used as it comes; should it turn out bad
//! afterwards, preparation ends with [`PrepareError::Spoiled`] and the batch is prepared again without it.

use std::collections::BTreeMap;
mod curated;
mod deltas;
mod object;
mod rejects;

use std::sync::Arc;

use governor::DefaultDirectRateLimiter;
use tokio_util::sync::CancellationToken;

use crate::aws::error::AwsError;
use crate::aws::s3::{Bucket, PendingUpload, Upload};
use crate::batch::manifest::DeltaFile;
use crate::batch::prepare::curated::CuratedFile;
pub use crate::batch::prepare::deltas::DELTAS_PER_FILE;
pub use crate::batch::prepare::object::Outcome;
use crate::compute::aggregate::{Dictionary, Rows};
use crate::compute::columnar::ColumnarError;
use crate::compute::{Compute, ComputeError, Scope};
use crate::input::file::BadObject;
use crate::memory::Memory;
use crate::protocol::BatchNumber;
use crate::reference::catalogue::Catalogue;
use crate::telemetry::progress::Progress;

/// Bytes of memory that a finished upload takes, in the manifest too: keys, eTags, and S3's id.
const UPLOAD_BYTES: usize = 2 << 10;

/// Why a batch could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A call failed.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// Encoding failed.
    #[error(transparent)]
    Columnar(#[from] ColumnarError),
    /// A computation did not come to its end.
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
        /// What it turned out to be.
        outcome: Outcome,
    },
    /// The objects together touch more report items than a batch may, or than there is memory for. The reason is that of an object
    /// which does so alone.
    #[error("too much for one batch")]
    TooLarge(BadObject),
}

/// What is prepared.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The batch that the files carry in their names.
    pub batch: BatchNumber,
    /// When it was opened: what rows' times are judged by.
    pub opened_at: jiff::Timestamp,
    /// What of the rows is wanted; the others are read and left.
    pub scope: Scope,
}

/// Bounds of a preparation.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest object, before and after decompression.
    pub object_bytes: u64,
    /// Report items that a batch may touch.
    pub report_items: usize,
    /// Memory of the process, which the names and report items of a batch share with its catalogue.
    pub memory: Memory,
    /// Pace of reading, if it is limited.
    pub rows: Option<Arc<DefaultDirectRateLimiter>>,
}

/// Everything that a batch is going to publish.
#[derive(Debug)]
pub struct Prepared {
    /// Uploads to complete.
    pub uploads: Vec<Upload>,
    /// The delta files.
    pub delta_files: Vec<DeltaFile>,
    /// Report items in them.
    pub report_items: usize,
    /// Rejected rows of the objects that count, by [`Rejection::kind`](crate::input::cleanse::Rejection::kind).
    pub rejected: BTreeMap<String, u64>,
}

/// A batch in preparation.
pub struct Preparation {
    bucket: Bucket,
    plan: Plan,
    limits: Limits,
    shutdown: CancellationToken,
    dictionary: Dictionary,
    /// Rows that are neither folded nor encoded yet.
    rows: Rows,
    compute: Compute,
    files: BTreeMap<i32, CuratedFile>,
    parts: BTreeMap<i32, usize>,
    finished: Vec<Upload>,
    /// Rejected rows that are not with the upload yet.
    rejects: Vec<u8>,
    rejects_upload: Option<PendingUpload>,
    /// What the rows that are folded take in memory.
    folded_bytes: usize,
    rejected: BTreeMap<&'static str, u64>,
    progress: Progress,
}

impl Preparation {
    /// Nothing yet.
    pub fn new(
        bucket: Bucket,
        catalogue: Arc<Catalogue>,
        plan: Plan,
        limits: Limits,
        shutdown: CancellationToken,
        progress: Progress,
    ) -> Self {
        let dictionary = Dictionary::of(catalogue);
        let compute = Compute::new(dictionary.names().clone(), plan.scope);
        Preparation {
            bucket,
            plan,
            shutdown,
            dictionary,
            rows: Rows::with_capacity(room(limits.memory.row_group_rows())),
            compute,
            files: BTreeMap::new(),
            parts: BTreeMap::new(),
            finished: Vec::new(),
            rejects: Vec::new(),
            rejects_upload: None,
            folded_bytes: 0,
            rejected: BTreeMap::new(),
            progress,
            limits,
        }
    }

    /// Whether anything of it may have been written.
    pub fn has_written(&self) -> bool {
        self.rejects_upload.is_some() || !self.files.is_empty() || !self.finished.is_empty()
    }

    pub(super) fn row_group_rows(&self) -> usize {
        self.limits.memory.row_group_rows()
    }

    pub(super) fn too_many_items(&self) -> PrepareError {
        PrepareError::TooLarge(BadObject::TooManyItems { limit: self.limits.report_items })
    }

    pub(super) fn too_much_memory(&self) -> PrepareError {
        PrepareError::TooLarge(BadObject::TooMuchMemory { limit_bytes: self.limits.memory.bytes() })
    }

    /// Bytes of memory that report items may take: what everything else that lasts leaves them.
    pub(super) fn fold_limit_bytes(&self) -> usize {
        let others = self.dictionary.names().catalogue().memory_bytes()
            + self.dictionary.memory_bytes()
            + self.finished.len() * UPLOAD_BYTES;
        self.limits.memory.lasting().saturating_sub(others)
    }
}

/// Rows that there is room for from the start: a row group, and the block that fills it.
pub fn room(row_group_rows: usize) -> usize {
    row_group_rows + 32 * 1024
}
