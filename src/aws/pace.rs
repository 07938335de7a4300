//! An adaptive bound on the number of concurrent calls: it falls when a service asks to slow down, and slowly rises
//! again as the service answers. Repeating a throttled call later leaves the load as it was; only fewer concurrent
//! calls relieve an overloaded service. Beside it, [`rate_limiter`] makes the fixed limits that the settings give.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::Semaphore;

use crate::aws::error::{AwsError, Kind};

/// Lower limit of the bound.
const FEWEST: usize = 2;
/// Shortest time between two halvings: the calls that were under way at the first one say nothing new.
const HALVING_PAUSE: Duration = Duration::from_millis(200);

/// Bounds the number of concurrent calls to one service. Clones share the bound.
#[derive(Debug, Clone)]
pub struct Pace(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: usize,
    permits: Semaphore,
    state: Mutex<State>,
    /// A copy of the present bound that can be read without the lock.
    bound: AtomicUsize,
}

#[derive(Debug)]
struct State {
    bound: usize,
    /// Permits to be removed when their calls end.
    owed: usize,
    /// Answers since the bound last changed.
    answers: usize,
    halved_at: Option<Instant>,
}

impl Pace {
    /// Creates a pace of at most `most` concurrent calls.
    pub fn new(most: usize) -> Self {
        let state = State { bound: most, owed: 0, answers: 0, halved_at: None };
        let (permits, bound) = (Semaphore::new(most), AtomicUsize::new(most));
        Pace(Arc::new(Shared { most, permits, state: Mutex::new(state), bound }))
    }

    /// The number of concurrent calls that is permitted at present.
    pub fn bound(&self) -> usize {
        self.0.bound.load(Ordering::Relaxed)
    }

    /// Waits for a permit and makes one call. Pass a single attempt: a pause between attempts must not hold a permit.
    pub async fn call<T>(&self, call: impl Future<Output = Result<T, AwsError>>) -> Result<T, AwsError> {
        self.call_of_many(call, |_| false).await
    }

    /// The same for a call about many items, whose answer tells if one of them is throttled.
    pub async fn call_of_many<T>(
        &self,
        call: impl Future<Output = Result<T, AwsError>>,
        is_throttled: impl Fn(&T) -> bool,
    ) -> Result<T, AwsError> {
        // The semaphore is never closed.
        let permit = self.0.permits.acquire().await;
        let result = call.await;
        let is_throttled = match &result {
            Ok(answer) => is_throttled(answer),
            Err(error) => error.kind == Kind::Throttled,
        };
        if self.0.settle(is_throttled)
            && let Ok(permit) = permit
        {
            permit.forget();
        }
        result
    }
}

impl Shared {
    /// Adjusts the bound to a call's result. Returns true if the call's permit is to be removed.
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
            // One more for each round of answers: additive increase, as in TCP's congestion control.
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

/// Returns a limiter of this many units per second, if there is a limit.
pub fn rate_limiter(rate: Option<NonZeroU32>) -> Option<Arc<DefaultDirectRateLimiter>> {
    rate.map(|rate| Arc::new(RateLimiter::direct(Quota::per_second(rate))))
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
    async fn one_throttled_item_slows_down_calls_about_many() {
        let pace = Pace::new(8);
        let answers = pace.call_of_many(async { Ok([false, true, false]) }, |answers| answers.contains(&true)).await;
        assert_eq!((answers.unwrap(), pace.bound()), ([false, true, false], 4));
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
