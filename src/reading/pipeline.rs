//! The state of the pipeline: its queue, sweep, lag and batches. Covered by tests/pipeline/operators.rs.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt};
use serde::Serialize;

use crate::aws::error::AwsError;
use crate::aws::sqs::{Backlog, MAX_IN_FLIGHT_MESSAGES, Queue};
use crate::ledger::{CatalogueState, LastSweep, Ledger, Record};
use crate::protocol::{BatchNumber, InForce, Registry, State};

/// The number of entries set aside that are counted.
const SHOWN_ASIDE: usize = 1000;
/// The number of records that are read at the same time.
const CONCURRENT_READS: usize = 16;

/// The state of the pipeline.
#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    /// The messages of the queue.
    pub queue: Backlog,
    /// The share of messages in flight in the most that a queue can have.
    pub in_flight_share: f64,
    /// The number of messages in the dead-letter queue; `None` without such a queue.
    pub dead_letters: Option<u64>,
    /// The time from the creation of the oldest object of the last finished batch to the end of that batch, in seconds.
    pub lag_s: Option<i64>,
    /// The last search for objects that no message announced.
    pub last_sweep: Option<LastSweep>,
    /// The definition in force.
    pub definition: InForce,
    /// The catalogue of the consumers.
    pub catalogue: Option<CatalogueState>,
    /// The batches at work.
    pub unfinished_batches: Vec<Unfinished>,
    /// The number of entries set aside, by kind.
    pub aside: BTreeMap<&'static str, u64>,
    /// True if there are more entries than those.
    pub more_aside: bool,
    /// Finished batches, the latest first.
    pub recent_batches: Vec<Record>,
}

/// A batch at work.
#[derive(Debug, Clone, Serialize)]
pub struct Unfinished {
    /// Its number.
    pub batch: BatchNumber,
    /// Open or committed.
    pub state: State,
    /// The consumer that has it.
    pub owner: String,
    /// The time at which it was opened.
    pub opened_at: Option<jiff::Timestamp>,
}

impl Overview {
    /// Reads the state, with so many of the batches that were finished last.
    pub async fn read(queue: &Queue, ledger: &Ledger, recent: u16) -> Result<Self, AwsError> {
        let backlog = queue.backlog().await?;
        let dead_letters = match queue.dead_letter_queue().await? {
            Some(queue) => Some(queue.backlog().await?.waiting),
            None => None,
        };
        let registry = ledger.registry().await?;
        let recent_batches: Vec<Record> = futures::stream::iter(finished(&registry).take(usize::from(recent)))
            .map(|batch| ledger.record(batch))
            .buffered(CONCURRENT_READS)
            .try_filter_map(|record| std::future::ready(Ok(record)))
            .try_collect::<Vec<_>>()
            .await?;
        let (entries, more_aside) = ledger.aside(SHOWN_ASIDE).await?;
        let mut aside = BTreeMap::new();
        for (_, entry) in entries {
            *aside.entry(entry.what.name()).or_default() += 1;
        }
        let done = recent_batches.iter().find(|record| record.state == State::Done);
        Ok(Overview {
            queue: backlog,
            in_flight_share: backlog.in_flight as f64 / MAX_IN_FLIGHT_MESSAGES as f64,
            dead_letters,
            lag_s: done.and_then(lag_of),
            last_sweep: ledger.last_sweep().await?,
            definition: registry.definition.clone(),
            catalogue: ledger.catalogue().await?,
            unfinished_batches: registry.batches.iter().map(unfinished).collect(),
            aside,
            more_aside,
            recent_batches,
        })
    }
}

fn unfinished((&batch, entry): (&BatchNumber, &crate::protocol::Entry)) -> Unfinished {
    let opened_at = i64::try_from(entry.since).ok().and_then(|since| jiff::Timestamp::from_second(since).ok());
    Unfinished { batch, state: entry.state, owner: entry.owner.clone(), opened_at }
}

/// Returns the numbers of batches that have left the registry, the latest first.
fn finished(registry: &Registry) -> impl Iterator<Item = BatchNumber> {
    (1..=registry.last).rev().filter(|batch| !registry.batches.contains_key(batch))
}

/// The time from the creation of the oldest object of a batch to the end of the batch, in seconds.
pub fn lag_of(record: &Record) -> Option<i64> {
    let oldest = record.counts.oldest_created_at.filter(|_| record.state == State::Done)?;
    Some(record.finished_at.as_second() - oldest.as_second())
}
