//! Waiting: the one loop that asks again until something holds, with a limit and a message that names what did not happen.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Waits until `holds` returns true. Panics after `limit` with `what` did not happen.
pub async fn eventually(what: impl Display, limit: Duration, mut holds: impl AsyncFnMut() -> bool) {
    eventually_some(what, limit, async || holds().await.then_some(()).ok_or("it does not hold")).await;
}

/// Waits until `look` returns a value, and returns it. Panics after `limit` with `what` did not happen and the last error.
pub async fn eventually_some<T, E: Display>(
    what: impl Display,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let started = Instant::now();
    loop {
        match look().await {
            Ok(value) => return value,
            Err(found) => assert!(started.elapsed() < limit, "not within {limit:?}: {what}; {found}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Does the same without a runtime.
pub fn eventually_blocking<T>(what: impl Display, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(PAUSE / 5);
    }
}
