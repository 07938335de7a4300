//! Tries and the pauses between them.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::aws::error::AwsError;

/// First and longest pause between tries of what must not be given up.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(20));
/// The same after a conditional write that another was faster with.
const RACE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// Longest pause between tries at one object, which others wait for.
const ONE_OBJECT: Duration = Duration::from_secs(3);

/// Pauses between tries: doubled each time up to a bound, and jittered so that consumers do not move in step.
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
    /// For who lost a race to another: short pauses, so that the next is run apart.
    pub fn for_contention() -> Self {
        Backoff { next: RACE.0, longest: RACE.1 }
    }

    /// For one object of many, whose tries must not hold up the others for long.
    pub fn for_one_object() -> Self {
        Backoff { next: BACKOFF.0, longest: ONE_OBJECT }
    }

    /// Waits for the next pause: for short retries that need not be called off.
    pub async fn pause_uncancelled(&mut self) {
        self.pause(&CancellationToken::new()).await;
    }

    /// Waits for the next pause. `false` when `cancel` came first.
    pub async fn pause(&mut self, cancel: &CancellationToken) -> bool {
        let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0) % 1000;
        let pause = self.next.mul_f64(0.5 + random as f64 / 2000.0);
        self.next = (self.next * 2).min(self.longest);
        cancel.run_until_cancelled(tokio::time::sleep(pause)).await.is_some()
    }
}

/// Tries `call` until it succeeds, fails for good, or `cancel` comes: for what must not be given up, such as a committed
/// batch. Failures are logged as they grow old, not each.
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
