//! Retries and the pauses between them. Covered by `tests/chaos`.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::aws::error::AwsError;

/// First and longest pause between attempts at a call that must eventually succeed.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(20));
/// First and longest pause after a conditional write that lost to another.
const RACE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// Longest pause between attempts at one object, for which others wait.
const ONE_OBJECT: Duration = Duration::from_secs(3);

/// Exponential backoff: pauses that double up to a bound, with jitter so that consumers do not act in step.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { next: BACKOFF.0, longest: BACKOFF.1 }
    }
}

impl Backoff {
    /// Creates a backoff for conditional writes that compete with others: short pauses that separate the writers.
    pub fn for_contention() -> Self {
        Backoff { next: RACE.0, longest: RACE.1 }
    }

    /// Creates a backoff for one object of many, whose attempts must not delay the others for long.
    pub fn for_one_object() -> Self {
        Backoff { next: BACKOFF.0, longest: ONE_OBJECT }
    }

    /// Waits for the next pause. For short retries that need not be cancelled.
    pub async fn pause_uncancelled(&mut self) {
        self.pause(&CancellationToken::new()).await;
    }

    /// Waits for the next pause. Returns false if `cancel` came first.
    pub async fn pause(&mut self, cancel: &CancellationToken) -> bool {
        let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0) % 1000;
        let pause = self.next.mul_f64(0.5 + random as f64 / 2000.0);
        self.next = (self.next * 2).min(self.longest);
        cancel.run_until_cancelled(tokio::time::sleep(pause)).await.is_some()
    }
}

/// Repeats `call` until it succeeds, fails permanently, or is cancelled. For calls that must eventually succeed, such
/// as those of a committed batch. Logs the first failure, the second, the fourth, and so on.
pub async fn retry_until<T>(
    cancel: &CancellationToken,
    mut call: impl AsyncFnMut() -> Result<T, AwsError>,
) -> Result<T, AwsError> {
    let mut backoff = Backoff::default();
    let mut failures = 0_u32;
    loop {
        match call().await {
            Err(error) if error.kind.is_transient() => {
                failures += 1;
                if failures.is_power_of_two() {
                    tracing::warn!(failures, "{error}; trying again");
                }
                if !backoff.pause(cancel).await {
                    return Err(error);
                }
            }
            done => return done,
        }
    }
}
