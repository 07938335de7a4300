//! The keeper of the table: brings finished batches into the table of the curated files, and decides when small files
//! become larger ones. It is the task that knows the table; nothing waits for it.
//!
//! It looks after every batch of its own consumer, and whenever the lease watch would. A look without news costs one
//! read of the ledger. The files of a compaction are read and written by the flow, between batches, so that both never
//! take memory at the same time; their entry in the log is this task's.
//!
//! The tests are tests/pipeline/table.rs and tests/chaos.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, oneshot};

use crate::lake::compact::{Compaction, Merged};
use crate::lake::{Lake, LakeError};
use crate::ledger::Ledger;
use crate::telemetry::metrics::metrics;

/// The turns at work that one consumer does for all, and the time between two.
const COMPACTION_TURN: (&str, Duration) = ("compaction", Duration::from_secs(60));
const VACUUM_TURN: (&str, Duration) = ("vacuum", Duration::from_secs(86_400));
/// The interval at which a consumer asks whether the vacuum is due.
const VACUUM_INTERVAL: Duration = Duration::from_secs(3600);
/// The time for which a day is left alone whose compaction has failed.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(3600);
/// Interval at which the state of the table is logged, for alarms.
const STATE_INTERVAL: Duration = Duration::from_secs(300);

/// A compaction that the flow carries out, and the way back of its files.
pub(super) struct Commission {
    pub(super) compaction: Compaction,
    pub(super) done: oneshot::Sender<Result<Vec<Merged>, LakeError>>,
}

/// The flow's side of the keeper, which ends when this is dropped.
pub(super) struct OfTable {
    /// Compactions to carry out.
    pub(super) commissions: mpsc::Receiver<Commission>,
    /// Notified after each batch.
    pub(super) batch_ended: Arc<Notify>,
}

/// The keeper of the table.
pub(super) struct TableKeeper {
    pub(super) lake: Lake,
    pub(super) ledger: Ledger,
    /// Notified after each batch.
    pub(super) batch_ended: Arc<Notify>,
    /// The longest time between two looks.
    pub(super) interval: Duration,
    /// Takes compactions, and is closed when the last batch has ended.
    pub(super) commissions: mpsc::Sender<Commission>,
    /// False if compaction is switched off, and vacuum with it.
    pub(super) compacts: bool,
    /// Days whose compaction has begun, or has failed: another day comes first.
    pub(super) tried: BTreeMap<String, Instant>,
}

impl TableKeeper {
    /// Keeps the table until the last batch has ended, and is in it.
    pub(super) async fn run(mut self) {
        let mut merging: Option<oneshot::Receiver<Result<Vec<Merged>, LakeError>>> = None;
        let (mut logged_at, mut vacuumed_at): (Option<Instant>, Option<Instant>) = (None, None);
        loop {
            let merged = tokio::select! {
                () = self.commissions.closed() => return self.look(&mut logged_at).await,
                () = self.batch_ended.notified() => None,
                () = tokio::time::sleep(self.interval) => None,
                merged = received(&mut merging) => Some(merged),
            };
            if let Some(merged) = merged {
                merging = None;
                // The flow has dropped it, as the process stops.
                let Some(merged) = merged else { continue };
                if let Err(error) = self.replace(merged).await {
                    tracing::warn!("the files of a day were not compacted: {error}; trying again later");
                }
            }
            self.look(&mut logged_at).await;
            let is_due = |at: Option<Instant>| at.is_none_or(|at| at.elapsed() >= unless_at_once(VACUUM_INTERVAL));
            if self.compacts && is_due(vacuumed_at) {
                vacuumed_at = Some(Instant::now());
                if let Err(error) = self.vacuum().await {
                    tracing::warn!("the table was not vacuumed: {error}; trying again later");
                }
            }
            if self.compacts && merging.is_none() {
                merging = self.commission().await.unwrap_or_else(|error| {
                    tracing::warn!("no file of the table was compacted: {error}; trying again later");
                    None
                });
            }
        }
    }

    /// Brings finished batches into the table, and records what it lacks.
    async fn look(&mut self, logged_at: &mut Option<Instant>) {
        let registry = match self.ledger.registry().await {
            Ok(registry) => registry,
            Err(error) => return tracing::warn!("{error}; looking again"),
        };
        match self.lake.advance(&registry).await {
            Ok(0) => {}
            Ok(batches) => {
                let version = self.lake.snapshot().version.unwrap_or(0);
                tracing::debug!(batches, version, "added to the table");
            }
            Err(error) => tracing::warn!("batches are not in the table: {error}; trying again"),
        }
        let lag = self.lake.lag(&registry) as u64;
        metrics().table_lag.record(lag, &[]);
        if logged_at.is_none_or(|at| at.elapsed() >= STATE_INTERVAL) {
            *logged_at = Some(Instant::now());
            let version = self.lake.snapshot().version.unwrap_or(0);
            tracing::info!(lag, version, "state of the table");
        }
    }

    /// Passes a compaction on to the flow, if there is one and it is this consumer's turn.
    async fn commission(&mut self) -> Result<Option<oneshot::Receiver<Result<Vec<Merged>, LakeError>>>, LakeError> {
        self.tried.retain(|_, at| at.elapsed() < PAUSE_AFTER_FAILURE);
        let is_worth = self.lake.worth_compacting(|day| self.tried.contains_key(day))?.is_some();
        if !is_worth || !self.ledger.take_turn(COMPACTION_TURN.0, COMPACTION_TURN.1).await? {
            return Ok(None);
        }
        // Another consumer may have done it.
        self.lake.refresh().await?;
        let compaction = self.lake.worth_compacting(|day| self.tried.contains_key(day))?;
        let Some(compaction) = compaction else { return Ok(None) };
        self.tried.insert(compaction.day.clone(), Instant::now());
        let (done, merging) = oneshot::channel();
        // There is room, as there is one at a time; else the flow has ended.
        Ok(self.commissions.try_send(Commission { compaction, done }).is_ok().then_some(merging))
    }

    async fn replace(&mut self, merged: Result<Vec<Merged>, LakeError>) -> Result<(), LakeError> {
        let merged = merged?;
        for merged in &merged {
            self.tried.remove(&merged.file.day);
        }
        let files: usize = merged.iter().map(|merged| merged.of.len()).sum();
        let (into, bytes) = (merged.len(), merged.iter().map(|merged| merged.file.bytes).sum::<u64>());
        if self.lake.replace(merged).await? {
            metrics().compacted_files.add(files as u64, &[]);
            tracing::info!(files, into, bytes, "compacted files of the table");
        }
        Ok(())
    }

    async fn vacuum(&mut self) -> Result<(), LakeError> {
        if self.ledger.take_turn(VACUUM_TURN.0, unless_at_once(VACUUM_TURN.1)).await? {
            let vacuumed = self.lake.vacuum().await?;
            tracing::info!(files = vacuumed.files, entries = vacuumed.entries, "vacuumed the table");
        }
        Ok(())
    }
}

/// The time between two vacuums; tests do not wait for so long.
fn unless_at_once(pause: Duration) -> Duration {
    fail::fail_point!("vacuum at once", |_| Duration::ZERO);
    pause
}

/// Waits for the files of a compaction, if one is under way. `None` if it was dropped.
async fn received<T>(merging: &mut Option<oneshot::Receiver<T>>) -> Option<T> {
    match merging {
        Some(merging) => merging.await.ok(),
        None => std::future::pending().await,
    }
}
