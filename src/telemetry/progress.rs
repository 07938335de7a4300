//! The progress of a batch: reported by the code that processes it, read by the health check.
//!
//! Covered by the unit tests of `service/health.rs`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The time of the last progress on a batch. Clones share it.
#[derive(Debug, Clone)]
pub struct Progress {
    since: Instant,
    /// Milliseconds after `since`; [`NO_BATCH`] while no batch is being processed.
    last: Arc<AtomicU64>,
    /// The reason why no batch can be opened at all, if there is one.
    obstacle: Arc<Mutex<Option<String>>>,
}

const NO_BATCH: u64 = u64::MAX;

impl Default for Progress {
    fn default() -> Self {
        Progress { since: Instant::now(), last: Arc::new(AtomicU64::new(NO_BATCH)), obstacle: Arc::default() }
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

    /// Records the reason why no batch can be opened, or that there is none.
    pub fn set_obstacle(&self, obstacle: Option<String>) {
        *self.obstacle.lock().unwrap_or_else(PoisonError::into_inner) = obstacle;
    }

    /// Returns the reason why no batch can be opened.
    pub fn obstacle(&self) -> Option<String> {
        self.obstacle.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the time since the last progress; zero while no batch is being processed.
    pub fn stalled_for(&self) -> Duration {
        match self.last.load(Ordering::Relaxed) {
            NO_BATCH => Duration::ZERO,
            last => self.since.elapsed().saturating_sub(Duration::from_millis(last)),
        }
    }
}
