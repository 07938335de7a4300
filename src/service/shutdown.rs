//! The shutdown: signals, and the deadline for a stop.
//!
//! The tests are tests/process.rs and tests/pipeline.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::process::tasks;
use crate::service::StartError;

/// The two steps by which the process is asked to end.
#[derive(Debug, Clone)]
pub struct Shutdown {
    /// Cancelled when the process is to stop: nothing new is begun, and what is not committed is abandoned.
    pub requested: CancellationToken,
    /// Cancelled when the time to stop is up: what is committed is left to the next consumer.
    pub(super) deadline: CancellationToken,
}

impl Shutdown {
    /// Waits for signals. The first SIGTERM or Ctrl-C requests the stop; a second one, or the time limit, is the
    /// deadline.
    pub fn on_signals(limit: Duration) -> Result<Self, StartError> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signals)?;
        let shutdown = Shutdown { requested: CancellationToken::new(), deadline: CancellationToken::new() };
        let Shutdown { requested, deadline } = shutdown.clone();
        tasks::spawn("signals", async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = requested.cancelled() => {}
            }
            requested.cancel();
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = tokio::time::sleep(limit) => {}
            }
            deadline.cancel();
        });
        Ok(shutdown)
    }
}
