//! The shutdown.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::process::tasks;

use crate::service::StartError;

/// How the process is asked to end.
#[derive(Debug)]
pub struct Stopping {
    /// It is about to stop: nothing new is begun, and what is not committed is given up.
    pub shutdown: CancellationToken,
    /// The time to stop is up: what is committed is left to the next consumer.
    pub(super) deadline: CancellationToken,
}

impl Stopping {
    /// The first SIGTERM or Ctrl-C asks to stop; a second one, or the time limit, ends the wait for a committed batch.
    pub fn on_signals(limit: Duration) -> Result<Self, StartError> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signals)?;
        let stopping = Stopping { shutdown: CancellationToken::new(), deadline: CancellationToken::new() };
        let (shutdown, deadline) = (stopping.shutdown.clone(), stopping.deadline.clone());
        tasks::spawn("signals", async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = shutdown.cancelled() => {}
            }
            shutdown.cancel();
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = tokio::time::sleep(limit) => {}
            }
            deadline.cancel();
        });
        Ok(stopping)
    }
}
