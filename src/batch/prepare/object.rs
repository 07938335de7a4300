//! Reading one object into a preparation.
//!
//! The tests are tests/pipeline and tests/hostile/files.rs.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use futures::TryStreamExt;
use tokio::io::AsyncRead;

use crate::aws::error::{AwsError, Kind};
use crate::batch::prepare::rejects::{Listing, MAX_REJECT_BYTES};
use crate::batch::prepare::{Destination, Preparation, PrepareError};
use crate::compute::{self, ComputeError};
use crate::formats::BadFile;
use crate::input::file::Blocks;
use crate::input::file::{BadObject, ReadError};
use crate::object::ObjectEvent;

/// Rows for which the rate limiter is asked at a time.
const ROWS_PER_CHECK: u32 = 4096;

/// The outcome of reading an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectOutcome {
    /// Counted in the batch.
    Counted {
        /// Rows of the file, without the header.
        rows: u64,
        /// Rows among them that were rejected.
        rejected: u64,
        /// Other rows, which the definition does not mean.
        passed_over: u64,
    },
    /// Unusable, and bound for quarantine.
    Bad(BadObject),
    /// Deleted or replaced before it was read; the object that replaced it has its own event.
    Gone,
    /// Not returned by the service: no permission, a storage class that cannot be read, a lost key, or failures that
    /// lasted as long as reading is tried. The text is the service's error. Nothing of the object is in the batch, and
    /// it stays where it is.
    Unreadable(String),
}

/// The place where the current object begins in the buffers in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    pub(super) rows: usize,
    pub(super) rejects: usize,
    /// True if part of the object has left memory.
    pub(super) spilled: bool,
}

/// The error that kept an object from being read completely.
enum Failure {
    Bad(BadObject),
    /// Reading its body failed, as opposed to writing for the batch, which says nothing about the object.
    Body(AwsError),
    Prepare(PrepareError),
}

impl From<PrepareError> for Failure {
    fn from(error: PrepareError) -> Self {
        Failure::Prepare(error)
    }
}

impl From<ComputeError> for Failure {
    fn from(error: ComputeError) -> Self {
        Failure::Prepare(error.into())
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Bad(bad) => Failure::Bad(bad),
            ReadError::Body(error) => Failure::Body(error),
        }
    }
}

impl<D: Destination> Preparation<D> {
    /// Adds an object, whose content is read from `body`. It counts whole or not at all: with any outcome but `Counted`
    /// nothing of it is in the batch, and the next one can be added. Transient and permanent read errors have the same
    /// outcome, as reading has been tried for long by then.
    ///
    /// If rows of the object have been used already, these outcomes come as [`PrepareError::Spoiled`], with `position`
    /// as the object's name. The batch must then be prepared again without it.
    pub async fn add(
        &mut self,
        position: usize,
        event: &ObjectEvent,
        body: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<ObjectOutcome, PrepareError> {
        if event.size > self.limits.object_bytes {
            return Ok(ObjectOutcome::Bad(BadFile::TooLarge { limit_bytes: self.limits.object_bytes }.into()));
        }
        let mut mark = Mark { rows: self.rows.len(), rejects: self.rejects.len(), spilled: false };
        let failure = match self.read(event, body, &mut mark).await {
            Ok(outcome) => return Ok(outcome),
            Err(failure) => failure,
        };
        let outcome = match failure {
            Failure::Bad(bad) => ObjectOutcome::Bad(bad),
            Failure::Body(error) => match error.kind {
                Kind::NotFound | Kind::Condition => ObjectOutcome::Gone,
                _ => ObjectOutcome::Unreadable(error.to_string()),
            },
            Failure::Prepare(error) => return Err(error),
        };
        if mark.spilled {
            return Err(PrepareError::Spoiled { object: position, outcome });
        }
        self.rows.truncate(mark.rows);
        self.rejects.truncate(mark.rejects);
        Ok(outcome)
    }

    async fn read(
        &mut self,
        event: &ObjectEvent,
        body: impl AsyncRead + Send + Unpin + 'static,
        mark: &mut Mark,
    ) -> Result<ObjectOutcome, Failure> {
        let (limit_bytes, judged_at) = (self.limits.object_bytes, self.subject.opened_at);
        let blocks = Blocks::open(body, limit_bytes, judged_at, self.plan(), &event.object.key).await?;
        self.destination.opened(&blocks);
        let blocks = futures::stream::try_unfold(blocks, async |mut blocks| {
            Ok::<_, Failure>(blocks.next().await?.map(|block| (block, blocks)))
        });
        let mut parsed = std::pin::pin!(compute::parse(blocks, self.dictionary.names().clone(), self.limits.memory));
        let source = self.dictionary.add_source(&event.object.key);
        let (mut rows, mut passed_over, mut rejected) = (0_u64, 0_u64, BTreeMap::<String, u64>::new());
        let mut listing = Listing::default();
        while let Some(block) = parsed.try_next().await? {
            rows += block.rows;
            passed_over += block.passed_over;
            for (kind, count) in &block.rejected {
                *rejected.entry(kind.clone()).or_default() += count;
            }
            self.rows.append(&block, source, &mut self.dictionary);
            if self.subject.scope.lists_rejects() {
                listing.add(&block, &event.object, &mut self.rejects);
            }
            if self.rows.len() >= self.row_group_rows() || self.rejects.len() >= MAX_REJECT_BYTES {
                self.relieve(mark).await?;
            }
            self.progress.made();
            self.check_limits(block.rows + block.passed_over).await?;
        }
        if self.subject.scope.lists_rejects() {
            listing.end(&rejected, &event.object, &mut self.rejects);
        }
        for (kind, count) in &rejected {
            *self.rejected.entry(kind.clone()).or_default() += count;
        }
        Ok(ObjectOutcome::Counted { rows, rejected: rejected.into_values().sum(), passed_over })
    }

    /// Checks the bounds of the batch, and waits until the next `rows` rows may be read.
    async fn check_limits(&self, rows: u64) -> Result<(), PrepareError> {
        if self.shutdown.is_cancelled() {
            return Err(PrepareError::Cancelled);
        }
        // This includes the names of objects that turned out bad, whose rows do not count.
        if self.dictionary.new_keys() > self.limits.report_items {
            return Err(self.too_many_items());
        }
        if self.folded_bytes > self.fold_limit_bytes() {
            return Err(self.too_much_memory());
        }
        let Some(limiter) = &self.limits.rows else { return Ok(()) };
        let mut left = u32::try_from(rows).unwrap_or(u32::MAX);
        while let Some(step) = NonZeroU32::new(left.min(ROWS_PER_CHECK)) {
            // A limiter whose burst is below the step would never let it pass; the configuration excludes that.
            let _ = self.shutdown.run_until_cancelled(limiter.until_n_ready(step)).await;
            left -= step.get();
        }
        Ok(())
    }
}
