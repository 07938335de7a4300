//! The progress of a batch, as whoever works on it reports it and the health check sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Shared by whoever makes progress on a batch.
#[derive(Debug, Clone)]
pub struct Progress {
    since: Instant,
    /// Milliseconds after `since`; [`NO_BATCH`] while none is at work.
    last: Arc<AtomicU64>,
}

const NO_BATCH: u64 = u64::MAX;

impl Default for Progress {
    fn default() -> Self {
        Progress { since: Instant::now(), last: Arc::new(AtomicU64::new(NO_BATCH)) }
    }
}

impl Progress {
    /// A step of a batch is done: an object, a block of rows, a report item.
    pub fn made(&self) {
        self.last.store(self.since.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// No batch is at work.
    pub fn clear(&self) {
        self.last.store(NO_BATCH, Ordering::Relaxed);
    }

    /// For how long a batch has stood still; zero when none is at work.
    pub fn stalled_for(&self) -> Duration {
        match self.last.load(Ordering::Relaxed) {
            NO_BATCH => Duration::ZERO,
            last => self.since.elapsed().saturating_sub(Duration::from_millis(last)),
        }
    }
}
