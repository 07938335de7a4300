//! The observer: metrics that no other task updates.
//!
//! The tests are in tests/pipeline/telemetry.rs.

use std::time::Duration;

use crate::aws::sqs::{Backlog, MAX_IN_FLIGHT_MESSAGES, Queue};
use crate::telemetry::metrics::{label, metrics};

/// Periodically records metrics that no other task updates: memory and queue depth.
pub(super) async fn observe(queue: Queue, interval: Duration) {
    let mut tick = tokio::time::interval(interval);
    loop {
        tick.tick().await;
        metrics().memory.record(resident_bytes().unwrap_or(0), &[]);
        match queue.backlog().await {
            Ok(Backlog { waiting, in_flight, delayed }) => {
                for (state, messages) in [("waiting", waiting), ("in_flight", in_flight), ("delayed", delayed)] {
                    metrics().queue_messages.record(messages, &label("state", state));
                }
                metrics().in_flight_share.record(in_flight as f64 / MAX_IN_FLIGHT_MESSAGES as f64, &[]);
            }
            Err(error) => tracing::warn!("{error}; the backlog is not recorded"),
        }
    }
}

/// The resident memory of the process: <https://man7.org/linux/man-pages/man5/proc_pid_status.5.html>.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
}
