//! The lease watch: finds batches whose owners are silent, and logs the state of the pipeline.
//!
//! The tests are tests/chaos and tests/pipeline/telemetry.rs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::ledger::Ledger;
use crate::protocol::{BatchNumber, Entry, Registry};
use crate::service::unix_time;
use crate::telemetry::metrics::metrics;

/// Looks at the registry within one lease.
pub(super) const LOOKS_PER_LEASE: u32 = 4;
/// Longest pause between two recoveries of a batch by one consumer.
const LONGEST_RECOVERY_PAUSE: Duration = Duration::from_secs(3600);
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

/// Detects batches whose owners stopped renewing their leases. It relies only on this observer's clock: a batch is
/// overdue when its entry has not changed for the whole lease under observation. The observer's own batches are
/// included: the one in progress is renewed, and one whose recovery failed is not. Each recovery doubles the time until
/// the next one of the same batch, up to an hour, so that a batch that cannot be finished does not delay the others.
#[derive(Debug)]
struct LeaseWatch {
    lease: Duration,
    seen: BTreeMap<BatchNumber, Observation>,
}

/// The first observation of a batch's present entry.
#[derive(Debug)]
struct Observation {
    entry: Entry,
    since: Instant,
    /// Recoveries of the batch that this observer started.
    recoveries: u32,
}

impl LeaseWatch {
    /// Creates a watch that allows each owner `lease` between two renewals.
    fn new(lease: Duration) -> Self {
        LeaseWatch { lease, seen: BTreeMap::new() }
    }

    /// Observes the registry, and returns the overdue batches.
    fn observe(&mut self, registry: &Registry, now: Instant) -> Vec<(BatchNumber, Entry)> {
        self.seen.retain(|number, _| registry.batches.contains_key(number));
        let mut overdue = Vec::new();
        for (&number, entry) in &registry.batches {
            let new = || Observation { entry: entry.clone(), since: now, recoveries: 0 };
            let observation = self.seen.entry(number).or_insert_with(new);
            if observation.entry != *entry {
                (observation.entry, observation.since) = (entry.clone(), now);
            } else {
                let longest = self.lease.max(LONGEST_RECOVERY_PAUSE);
                let wait = self.lease.saturating_mul(1 << observation.recoveries.min(16)).min(longest);
                if now.saturating_duration_since(observation.since) >= wait {
                    overdue.push((number, entry.clone()));
                }
            }
        }
        overdue
    }

    /// Records that an overdue batch is being recovered.
    fn recovering(&mut self, number: BatchNumber, now: Instant) {
        if let Some(observation) = self.seen.get_mut(&number) {
            observation.since = now;
            observation.recoveries = observation.recoveries.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::State;

    fn entry(state: State, beat: u64) -> Entry {
        Entry { state, owner: "other".into(), beat, since: 0 }
    }

    #[test]
    fn recoveries_of_one_batch_become_rare() {
        let (lease, start) = (Duration::from_secs(60), Instant::now());
        let mut watch = LeaseWatch::new(lease);
        let registry =
            Registry { last: 1, batches: BTreeMap::from([(1, entry(State::Committed, 5))]), ..Registry::default() };
        let mut recoveries = Vec::new();
        for second in 0..24 * 3600 {
            let now = start + Duration::from_secs(second);
            for (number, _) in watch.observe(&registry, now) {
                watch.recovering(number, now);
                recoveries.push(second);
            }
        }
        assert_eq!(recoveries[..4], [60, 180, 420, 900]);
        assert!(recoveries.len() < 32, "{recoveries:?}");
        assert!(recoveries.windows(2).all(|two| two[1] - two[0] <= 3600), "never abandoned");
    }

    #[test]
    fn an_owner_is_overdue_only_after_a_whole_lease_without_a_renewal_under_observation() {
        let (lease, start) = (Duration::from_secs(60), Instant::now());
        let mut watch = LeaseWatch::new(lease);
        let registry = |beat| Registry {
            last: 1,
            batches: BTreeMap::from([(1, entry(State::Open, beat))]),
            ..Registry::default()
        };
        assert!(watch.observe(&registry(5), start).is_empty());
        assert!(watch.observe(&registry(5), start + lease / 2).is_empty());
        assert!(watch.observe(&registry(6), start + lease).is_empty(), "it was renewed");
        assert!(watch.observe(&registry(6), start + lease * 3 / 2).is_empty());
        assert_eq!(watch.observe(&registry(6), start + lease * 2).len(), 1);
        assert!(watch.observe(&Registry::default(), start + lease * 9).is_empty());
        assert!(watch.observe(&registry(6), start + lease * 9).is_empty(), "a new observation starts anew");
    }
}
