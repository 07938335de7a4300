//! The lease watch.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::ledger::Ledger;
use crate::protocol::{BatchNumber, Entry, LeaseWatch, Registry};
use crate::telemetry::metrics::metrics;

use crate::service::unix_time;

/// Looks at the registry within one lease.
const LOOKS_PER_LEASE: u32 = 4;
/// How often the log is told how the pipeline stands, for alarms.
const STATE_INTERVAL: Duration = Duration::from_secs(300);

/// Looks for batches whose owners are silent and passes them on.
pub(super) async fn watch_leases(
    ledger: Ledger,
    lease: Duration,
    overdue: mpsc::Sender<(BatchNumber, Entry)>,
    shutdown: CancellationToken,
) {
    let mut watch = LeaseWatch::new(lease);
    let mut told_at: Option<Instant> = None;
    while shutdown.run_until_cancelled(tokio::time::sleep(lease / LOOKS_PER_LEASE)).await.is_some() {
        match ledger.registry().await {
            Ok(registry) => {
                for (batch, entry) in watch.observe(&registry, Instant::now()) {
                    // No place: it is still overdue at the next look.
                    if overdue.try_send((batch, entry)).is_ok() {
                        watch.recovering(batch, Instant::now());
                    }
                }
                if told_at.is_none_or(|told_at| told_at.elapsed() >= STATE_INTERVAL) {
                    told_at = Some(Instant::now());
                    tell_state(&ledger, &registry).await;
                }
            }
            Err(error) => tracing::warn!("{error}; looking again"),
        }
    }
}

/// Says how the pipeline stands: what alarms are made of.
pub(super) async fn tell_state(ledger: &Ledger, registry: &Registry) {
    let aside = match ledger.count_aside().await {
        Ok(aside) => aside,
        Err(error) => return tracing::warn!("{error}; what is set aside is not told"),
    };
    let oldest = registry.batches.values().map(|entry| entry.since).min();
    let oldest_unfinished_s = oldest.map_or(0, |since| unix_time().as_secs().saturating_sub(since));
    let unfinished_batches = registry.batches.len() as u64;
    metrics().unfinished_batches.record(unfinished_batches, &[]);
    metrics().oldest_unfinished.record(oldest_unfinished_s, &[]);
    metrics().aside.record(aside, &[]);
    tracing::info!(unfinished_batches, oldest_unfinished_s, aside, "state of the pipeline");
}
