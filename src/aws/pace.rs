//! How many calls are under way at once: as many as were asked for, fewer once a service asks to slow down, and slowly more
//! again as it answers. A call that is throttled and only tried again later is as much load as before; what helps a service
//! that is overloaded is that fewer ask.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use std::sync::Mutex;
use tokio::sync::Semaphore;

use crate::aws::error::{AwsError, Kind};

/// Calls under way at once that are always left.
const FEWEST: usize = 2;
/// How soon the number is halved again: the calls that were under way at the first time say nothing new.
const HALVING_PAUSE: Duration = Duration::from_millis(200);

/// Bounds the calls under way at once to one service. Clones share the bound.
#[derive(Debug, Clone)]
pub struct Pace(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: usize,
    permits: Semaphore,
    state: Mutex<State>,
    /// The present bound, for whoever wants to see it.
    bound: AtomicUsize,
}

#[derive(Debug)]
struct State {
    bound: usize,
    /// Permits that are to vanish when their calls end.
    owed: usize,
    /// Answers since the bound last changed.
    answers: usize,
    halved_at: Option<Instant>,
}

impl Pace {
    /// At most so many calls at once.
    pub fn new(most: usize) -> Self {
        let state = State { bound: most, owed: 0, answers: 0, halved_at: None };
        let (permits, bound) = (Semaphore::new(most), AtomicUsize::new(most));
        Pace(Arc::new(Shared { most, permits, state: Mutex::new(state), bound }))
    }

    /// The calls that may be under way at once at present.
    pub fn bound(&self) -> usize {
        self.0.bound.load(Ordering::Relaxed)
    }

    /// Makes one call when there is a place for it. Hold it for one try only: a pause before the next must not keep the place.
    pub async fn call<T>(&self, call: impl Future<Output = Result<T, AwsError>>) -> Result<T, AwsError> {
        // The semaphore is never closed.
        let permit = self.0.permits.acquire().await;
        let result = call.await;
        let is_throttled = matches!(&result, Err(error) if error.kind == Kind::Throttled);
        if self.0.settle(is_throttled)
            && let Ok(permit) = permit
        {
            permit.forget();
        }
        result
    }
}

impl Shared {
    /// Changes the bound by what a call came to; whether its permit vanishes.
    fn settle(&self, is_throttled: bool) -> bool {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let now = Instant::now();
        if is_throttled {
            state.answers = 0;
            if state.halved_at.is_none_or(|at| now.duration_since(at) >= HALVING_PAUSE) && state.bound > FEWEST {
                let next = (state.bound / 2).max(FEWEST);
                state.owed += state.bound - next;
                (state.bound, state.halved_at) = (next, Some(now));
            }
        } else {
            state.answers += 1;
            // One more for each round of answers: what TCP does, for the same reason.
            if state.answers >= state.bound && state.bound < self.most {
                (state.bound, state.answers) = (state.bound + 1, 0);
                if state.owed > 0 { state.owed -= 1 } else { self.permits.add_permits(1) }
            }
        }
        self.bound.store(state.bound, Ordering::Relaxed);
        let vanishes = state.owed > 0;
        state.owed -= usize::from(vanishes);
        vanishes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttled() -> AwsError {
        AwsError { operation: "s3:GetObject", resource: "x".into(), kind: Kind::Throttled, cause: "SlowDown".into() }
    }

    #[tokio::test]
    async fn throttling_halves_and_answers_bring_it_back() {
        let pace = Pace::new(64);
        for _ in 0..10 {
            let _ = pace.call(async { Err::<(), _>(throttled()) }).await;
        }
        assert_eq!(pace.bound(), 32, "once for all calls that were under way");
        tokio::time::sleep(HALVING_PAUSE).await;
        let _ = pace.call(async { Err::<(), _>(throttled()) }).await;
        assert_eq!(pace.bound(), 16);
        for _ in 0..16 + 17 {
            pace.call(async { Ok(()) }).await.unwrap();
        }
        assert_eq!(pace.bound(), 18);
        for _ in 0..64 * 64 {
            pace.call(async { Ok(()) }).await.unwrap();
        }
        assert_eq!(pace.bound(), 64);
        assert_eq!(pace.0.permits.available_permits(), 64, "no permit is lost or won");
    }

    #[tokio::test]
    async fn never_more_than_the_bound_are_under_way() {
        let (pace, under_way, most) = (Pace::new(8), AtomicUsize::new(0), AtomicUsize::new(0));
        let call = async |number: usize| {
            let call = async {
                most.fetch_max(under_way.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                under_way.fetch_sub(1, Ordering::Relaxed);
                if number == 5 { Err(throttled()) } else { Ok(()) }
            };
            let _ = pace.call(call).await;
        };
        futures::future::join_all((0..9).map(call)).await;
        assert_eq!(pace.bound(), 4);
        most.store(0, Ordering::Relaxed);
        futures::future::join_all((20..24).map(call)).await;
        assert!(most.load(Ordering::Relaxed) <= 4, "{most:?}");
    }
}
