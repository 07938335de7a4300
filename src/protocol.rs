//! The exactly-once protocol's decisions, as pure functions.
//!
//! [`crate::ledger`] stores what is decided here, [`crate::batch`] carries it out. The whole of it, in one place:
//!
//! * A batch is *open* until one conditional write makes it *committed* or *abandoned*. Only a committed batch is ever
//!   applied, by whoever gets to it, any number of times.
//! * The registry lists every batch that is not finished. Numbers only grow, and a batch is listed by the same write that
//!   takes its number, so a number below every listed one will never be applied again.
//! * A claim ties an object to a batch. Which batch has it is decided by a conditional write; what that means for another
//!   batch that wants it is [`contest`].
//! * A report item remembers which batches it has in it: [`Applied`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Number of a batch; the first is 1.
pub type BatchNumber = u64;

/// Where a batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Preparing: nothing it wrote can be seen.
    Open,
    /// Decided: its deltas, files and archive moves will all happen.
    Committed,
    /// Given up before it was committed: nothing of it will ever be seen.
    Abandoned,
    /// Everything it decided has happened.
    Done,
}

impl State {
    /// Its name in the ledger.
    pub fn name(self) -> &'static str {
        match self {
            State::Open => "open",
            State::Committed => "committed",
            State::Abandoned => "abandoned",
            State::Done => "done",
        }
    }

    /// Finds it by [`State::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        [State::Open, State::Committed, State::Abandoned, State::Done].into_iter().find(|state| state.name() == name)
    }
}

/// A batch in the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Open, committed or abandoned; a done batch has left the registry.
    pub state: State,
    /// Which consumer works on it.
    pub owner: String,
    /// Counts up while the owner lives.
    pub beat: u64,
}

/// Every batch that is not finished, and the last number taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registry {
    /// The last number taken.
    pub last: BatchNumber,
    /// The batches that are not finished.
    pub batches: BTreeMap<BatchNumber, Entry>,
}

impl Registry {
    /// Up to where every batch is finished: no number at or below it will be applied by anybody who may.
    pub fn applied_through(&self) -> BatchNumber {
        self.batches
            .iter()
            .find(|(_, entry)| matches!(entry.state, State::Open | State::Committed))
            .map_or(self.last, |(&lowest, _)| lowest - 1)
    }
}

/// What a batch does about an object that another batch has claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contest {
    /// The object is finished: the announcement is a duplicate and can be acknowledged.
    Duplicate,
    /// Another batch is at it: leave it, and look again when the announcement comes back.
    Leave,
    /// The other batch was abandoned: the object is free.
    TakeOver,
}

/// Judges a claim held by another batch, by that batch's state: from the registry, or from its record once it has left.
/// A record outlives every claim, so a batch without either never got as far as leaving one behind.
pub fn contest(holder: Option<State>) -> Contest {
    match holder {
        Some(State::Done) => Contest::Duplicate,
        Some(State::Open | State::Committed) => Contest::Leave,
        Some(State::Abandoned) | None => Contest::TakeOver,
    }
}

/// Which batches a report item has in it: all up to a watermark, and the listed ones above.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Every batch up to here that will ever be applied to this item has been.
    pub through: BatchNumber,
    /// Batches above the watermark that have been applied.
    pub listed: BTreeSet<BatchNumber>,
}

impl Applied {
    /// Whether the item already has the batch in it, or must never get it.
    pub fn contains(&self, batch: BatchNumber) -> bool {
        batch <= self.through || self.listed.contains(&batch)
    }

    /// Whether the batch is newer than every one that was applied.
    pub fn is_newest(&self, batch: BatchNumber) -> bool {
        self.listed.last().is_none_or(|&last| batch > last)
    }

    /// The item after the batch: listed, and the watermark moved up to `through`, which shortens the list.
    #[must_use]
    pub fn with(&self, batch: BatchNumber, through: BatchNumber) -> Self {
        let through = self.through.max(through);
        let mut listed = self.listed.clone();
        listed.insert(batch);
        listed.retain(|&listed| listed > through);
        Applied { through, listed }
    }
}

/// Watches batches for owners that stopped beating. Only this observer's own clock is used: a batch is overdue when its
/// entry has not changed for the whole lease while this observer was looking. One's own batches are watched too: the one
/// that is worked on beats, and one whose recovery failed does not.
#[derive(Debug)]
pub struct LeaseWatch {
    lease: Duration,
    seen: BTreeMap<BatchNumber, (Entry, Instant)>,
}

impl LeaseWatch {
    /// A watch that allows each owner `lease` between two beats.
    pub fn new(lease: Duration) -> Self {
        LeaseWatch { lease, seen: BTreeMap::new() }
    }

    /// Takes a look at the registry, and gives the batches that are overdue.
    pub fn observe(&mut self, registry: &Registry, now: Instant) -> Vec<(BatchNumber, Entry)> {
        self.seen.retain(|number, _| registry.batches.contains_key(number));
        let mut overdue = Vec::new();
        for (&number, entry) in &registry.batches {
            let (seen, since) = self.seen.entry(number).or_insert_with(|| (entry.clone(), now));
            if seen != entry {
                (*seen, *since) = (entry.clone(), now);
            } else if now.saturating_duration_since(*since) >= self.lease {
                overdue.push((number, entry.clone()));
            }
        }
        overdue
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(state: State, beat: u64) -> Entry {
        Entry { state, owner: "other".into(), beat }
    }

    #[test]
    fn the_watermark_stays_below_every_batch_that_may_still_be_applied() {
        let mut registry = Registry { last: 7, batches: BTreeMap::new() };
        assert_eq!(registry.applied_through(), 7);
        registry.batches.insert(6, entry(State::Committed, 0));
        registry.batches.insert(4, entry(State::Open, 0));
        registry.batches.insert(2, entry(State::Abandoned, 0));
        assert_eq!(registry.applied_through(), 3);
    }

    #[test]
    fn an_owner_is_overdue_only_after_a_whole_lease_without_a_beat_under_observation() {
        let (lease, start) = (Duration::from_secs(60), Instant::now());
        let mut watch = LeaseWatch::new(lease);
        let registry = |beat| Registry { last: 1, batches: BTreeMap::from([(1, entry(State::Open, beat))]) };
        assert!(watch.observe(&registry(5), start).is_empty());
        assert!(watch.observe(&registry(5), start + lease / 2).is_empty());
        assert!(watch.observe(&registry(6), start + lease).is_empty(), "it has beaten");
        assert!(watch.observe(&registry(6), start + lease * 3 / 2).is_empty());
        assert_eq!(watch.observe(&registry(6), start + lease * 2).len(), 1);
        assert!(watch.observe(&Registry::default(), start + lease * 9).is_empty());
        assert!(watch.observe(&registry(6), start + lease * 9).is_empty(), "a new sight starts anew");
    }

    proptest! {
        /// Batches are applied in any order, repeatedly, by consumers that see old registries; each counts once.
        #[test]
        fn each_batch_is_applied_once(attempts in prop::collection::vec((1..8_u64, 0..8_u64), 0..40)) {
            let mut applied = Applied::default();
            let mut counted = BTreeSet::new();
            let mut finished = BTreeSet::new();
            for (batch, wanted) in attempts {
                // A watermark is only ever below a batch that is not finished.
                let through = (1..=wanted).take_while(|number| finished.contains(number)).count() as u64;
                if !applied.contains(batch) {
                    prop_assert!(counted.insert(batch), "batch {batch} was counted twice");
                    applied = applied.with(batch, through.min(batch - 1));
                }
                finished.insert(batch);
                prop_assert!(counted.iter().all(|&batch| applied.contains(batch)));
                prop_assert!(applied.listed.iter().all(|&listed| listed > applied.through));
            }
        }
    }
}
