//! Health: whether the consumer should get work, and whether it should be replaced.
//!
//! * **Ready**: queue, bucket, tables and catalogue have answered, it is not stopping, and no service has failed for
//!   long.
//! * **Live**: it has started, and no batch at work stands still. While a service fails that is not held against it: a
//!   new process would meet the same.
//!
//! Both are answered over HTTP (`/ready` and `/live`: 200, or 503 with the reason), and by `music-streams health`,
//! which needs no shell and no `curl` in the container.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::aws::requests::Requests;
use crate::process::tasks;
use crate::telemetry::progress::Progress;

/// The consumer's health.
#[derive(Debug, Clone)]
pub struct Health {
    requests: Requests,
    /// Where a batch's progress is told.
    pub progress: Progress,
    started: Arc<AtomicBool>,
    shutdown: CancellationToken,
    unready_after: Duration,
    stuck_after: Duration,
}

impl Health {
    /// Of a consumer that is starting. It is unready when a service fails for `unready_after`, and dead when a batch
    /// stands still for `stuck_after`.
    pub fn new(
        requests: Requests,
        shutdown: CancellationToken,
        unready_after: Duration,
        stuck_after: Duration,
    ) -> Self {
        Health {
            requests,
            progress: Progress::default(),
            started: Arc::default(),
            shutdown,
            unready_after,
            stuck_after,
        }
    }

    /// Everything that it needs has answered.
    pub fn started(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    /// Whether it should get work; else why not.
    pub fn ready(&self) -> Result<(), String> {
        self.has_started()?;
        if self.shutdown.is_cancelled() {
            return Err("stopping".to_owned());
        }
        let failing = self.requests.failing_for(self.unready_after, self.unready_after);
        if failing.is_empty() {
            return Ok(());
        }
        let say = |(service, duration): &(String, Duration)| format!("{service} has failed for {}", seconds(*duration));
        Err(failing.iter().map(say).collect::<Vec<_>>().join(", "))
    }

    fn has_started(&self) -> Result<(), String> {
        if self.started.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err("starting: queue, bucket, tables and catalogue have not all answered yet".to_owned())
    }

    /// Whether it should go on; else why not.
    pub fn live(&self) -> Result<(), String> {
        self.has_started()?;
        let standing = self.progress.stalled_for();
        if standing < self.stuck_after || !self.requests.failing_for(Duration::ZERO, self.stuck_after).is_empty() {
            return Ok(());
        }
        Err(format!("a batch has stood still for {}", seconds(standing)))
    }

    /// Answers whoever asks there, for ever.
    pub async fn answer(self, listener: TcpListener) {
        let (of_live, of_ready) = (self.clone(), self);
        let routes = Router::new()
            .route("/live", get(async move || answer(of_live.live(), "live")))
            .route("/ready", get(async move || answer(of_ready.ready(), "ready")));
        let ended = axum::serve(listener, routes).await;
        tasks::end(&format!("the answers about health came to an end: {ended:?}"));
    }
}

fn answer(verdict: Result<(), String>, word: &str) -> (StatusCode, String) {
    match verdict {
        Ok(()) => (StatusCode::OK, format!("{word}\n")),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not {word}: {reason}\n")),
    }
}

fn seconds(duration: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(duration.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_stands_still_ends_life() {
        let health =
            Health::new(Requests::default(), CancellationToken::new(), Duration::MAX, Duration::from_millis(200));
        assert!(health.live().unwrap_err().starts_with("starting"));
        health.started();
        assert!(health.live().is_ok(), "no batch");
        health.progress.made();
        assert!(health.live().is_ok());
        std::thread::sleep(Duration::from_millis(210));
        assert!(health.live().unwrap_err().contains("stood still"));
        health.progress.made();
        assert!(health.live().is_ok());
        health.progress.clear();
        std::thread::sleep(Duration::from_millis(210));
        assert!(health.live().is_ok(), "the batch is done");
    }

    #[test]
    fn it_is_ready_between_start_and_stop() {
        let shutdown = CancellationToken::new();
        let health = Health::new(Requests::default(), shutdown.clone(), Duration::MAX, Duration::MAX);
        assert!(health.ready().unwrap_err().starts_with("starting"));
        health.started();
        assert!(health.ready().is_ok());
        shutdown.cancel();
        assert_eq!(health.ready().unwrap_err(), "stopping");
    }
}
