//! The progress of a batch: reported by the code that processes it, read by the health check.
//!
//! Covered by the unit tests of `service/health.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The time of the last progress on a batch. Clones share it.
#[derive(Debug, Clone)]
pub struct Progress {
    since: Instant,
    /// Milliseconds after `since`; [`NO_BATCH`] while no batch is being processed.
    last: Arc<AtomicU64>,
}

const NO_BATCH: u64 = u64::MAX;

impl Default for Progress {
    fn default() -> Self {
        Progress { since: Instant::now(), last: Arc::new(AtomicU64::new(NO_BATCH)) }
    }
}

impl Progress {
    /// Records that a step of a batch is done: an object, a block of rows, a report item.
    pub fn made(&self) {
        self.last.store(self.since.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Records that no batch is being processed.
    pub fn clear(&self) {
        self.last.store(NO_BATCH, Ordering::Relaxed);
    }

    /// Returns the time since the last progress; zero while no batch is being processed.
    pub fn stalled_for(&self) -> Duration {
        match self.last.load(Ordering::Relaxed) {
            NO_BATCH => Duration::ZERO,
            last => self.since.elapsed().saturating_sub(Duration::from_millis(last)),
        }
    }
}
