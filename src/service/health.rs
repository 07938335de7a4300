//! Health: is the consumer ready for work, and is it live or should it be replaced?
//!
//! * **Ready**: queue, bucket, tables and catalogue have answered, the consumer is not stopping, it can use the
//!   definition in force, and no service has failed for long.
//! * **Live**: the consumer has started, and no batch at work stands still. A batch may stand still while a service
//!   fails, because a new process would meet the same failure.
//!
//! Both are answered over HTTP (`/ready` and `/live`: 200, or 503 with the reason), and by `music-streams health`,
//! which needs neither a shell nor `curl` in the container. The tests below are of the rules; tests/pipeline/health.rs
//! asks over HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::aws::requests::Requests;
use crate::process::tasks;
use crate::service::StartError;
use crate::telemetry::progress::Progress;

/// The consumer's health.
#[derive(Debug, Clone)]
pub struct Health {
    requests: Requests,
    /// Receives the progress of batches.
    pub progress: Progress,
    started: Arc<AtomicBool>,
    shutdown: CancellationToken,
    unready_after: Duration,
    stuck_after: Duration,
}

impl Health {
    /// The health of a consumer that is starting. It will be unready once a service has failed for `unready_after`, and
    /// not live once a batch has stood still for `stuck_after`.
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

    /// Notes that every resource has answered.
    pub fn started(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    /// Returns `Ok` if the consumer is ready for work, else the reason.
    pub fn ready(&self) -> Result<(), String> {
        self.has_started()?;
        if self.shutdown.is_cancelled() {
            return Err("stopping".to_owned());
        }
        if let Some(obstacle) = self.progress.obstacle() {
            return Err(obstacle);
        }
        let failing = self.requests.failing_for(self.unready_after, self.unready_after);
        if failing.is_empty() {
            return Ok(());
        }
        let text =
            |(service, duration): &(String, Duration)| format!("{service} has failed for {}", seconds(*duration));
        Err(failing.iter().map(text).collect::<Vec<_>>().join(", "))
    }

    fn has_started(&self) -> Result<(), String> {
        if self.started.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err("starting: queue, bucket, tables and catalogue have not all answered yet".to_owned())
    }

    /// Returns `Ok` if the consumer is live, else the reason.
    pub fn live(&self) -> Result<(), String> {
        self.has_started()?;
        let standstill = self.progress.stalled_for();
        if standstill < self.stuck_after || !self.requests.failing_for(Duration::ZERO, self.stuck_after).is_empty() {
            return Ok(());
        }
        Err(format!("a batch has stood still for {}", seconds(standstill)))
    }

    /// Starts to answer over HTTP at the address, if there is one, until the handle is dropped.
    pub async fn listen(&self, address: Option<SocketAddr>) -> Result<Option<AbortOnDropHandle<()>>, StartError> {
        let Some(address) = address else { return Ok(None) };
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|error| StartError::HealthAddress { address, error })?;
        Ok(Some(AbortOnDropHandle::new(tasks::spawn("health", self.clone().answer(listener)))))
    }

    async fn answer(self, listener: TcpListener) {
        let (of_live, of_ready) = (self.clone(), self);
        let routes = Router::new()
            .route("/live", get(async move || answer(of_live.live(), "live")))
            .route("/ready", get(async move || answer(of_ready.ready(), "ready")));
        let ended = axum::serve(listener, routes).await;
        tasks::end(&format!("the HTTP server for health ended: {ended:?}"));
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
        health.progress.set_obstacle(Some("the definition is of tomorrow".to_owned()));
        assert_eq!(health.ready().unwrap_err(), "the definition is of tomorrow");
        health.progress.set_obstacle(None);
        assert!(health.ready().is_ok());
        shutdown.cancel();
        assert_eq!(health.ready().unwrap_err(), "stopping");
    }
}
