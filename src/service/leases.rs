//! The lease watch: finds batches whose owners are silent, and logs the state of the pipeline.
//!
//! The tests are tests/chaos and tests/pipeline/telemetry.rs.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::ledger::Ledger;
use crate::protocol::{BatchNumber, Entry, LeaseWatch, Registry};
use crate::service::unix_time;
use crate::telemetry::metrics::metrics;

/// Looks at the registry within one lease.
const LOOKS_PER_LEASE: u32 = 4;
/// Interval at which the state of the pipeline is logged, for alarms.
const STATE_INTERVAL: Duration = Duration::from_secs(300);

/// Looks for batches whose owners are silent, and passes them on.
pub(super) async fn watch_leases(
    ledger: Ledger,
    lease: Duration,
    overdue: mpsc::Sender<(BatchNumber, Entry)>,
    shutdown: CancellationToken,
) {
    let mut watch = LeaseWatch::new(lease);
    let mut logged_at: Option<Instant> = None;
    while shutdown.run_until_cancelled(tokio::time::sleep(lease / LOOKS_PER_LEASE)).await.is_some() {
        match ledger.registry().await {
            Ok(registry) => {
                for (batch, entry) in watch.observe(&registry, Instant::now()) {
                    // If there is no room, it is still overdue at the next look.
                    if overdue.try_send((batch, entry)).is_ok() {
                        watch.recovering(batch, Instant::now());
                    }
                }
                if logged_at.is_none_or(|logged_at| logged_at.elapsed() >= STATE_INTERVAL) {
                    logged_at = Some(Instant::now());
                    log_state(&ledger, &registry).await;
                }
            }
            Err(error) => tracing::warn!("{error}; looking again"),
        }
    }
}

/// Logs and records the state of the pipeline, from which alarms are made.
async fn log_state(ledger: &Ledger, registry: &Registry) {
    let aside = match ledger.count_aside().await {
        Ok(aside) => aside,
        Err(error) => return tracing::warn!("{error}; the state of the pipeline is not logged this time"),
    };
    let oldest = registry.batches.values().map(|entry| entry.since).min();
    let oldest_unfinished_s = oldest.map_or(0, |since| unix_time().as_secs().saturating_sub(since));
    let unfinished_batches = registry.batches.len() as u64;
    metrics().unfinished_batches.record(unfinished_batches, &[]);
    metrics().oldest_unfinished.record(oldest_unfinished_s, &[]);
    metrics().aside.record(aside, &[]);
    tracing::info!(unfinished_batches, oldest_unfinished_s, aside, "state of the pipeline");
}
