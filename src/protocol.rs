//! The exactly-once protocol's decisions, as pure functions.
//!
//! [`crate::ledger`] stores what is decided here, [`crate::batch`] carries it out. The whole of it, in one place:
//!
//! * A batch is *open* until one conditional write makes it *committed* or *abandoned*. Only a committed batch is ever
//!   applied, by whoever gets to it, any number of times.
//! * The registry lists every batch that is not finished. Numbers only grow, and a batch is listed by the same write that
//!   takes its number, so a number below every listed one will never be applied again.
//! * The registry is bounded: with [`MAX_UNFINISHED`] batches in it, none is opened until some are finished.
//! * A claim ties an object to a batch. Which batch has it is decided by a conditional write; what that means for another
//!   batch that wants it is [`resolve`].
//! * A report item remembers which batches it has in it: [`Applied`].
//! * What is refused for good is set aside and holds nothing else: an object by a claim that is nobody's until a later
//!   time ([`pause_before_retry`]), a committed batch that cannot be carried out by [`State::Aside`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Number of a batch; the first is 1.
pub type BatchNumber = u64;

/// Batches that the registry lists at the most. An entry takes some 120 bytes: the item stays at a sixteenth of DynamoDB's
/// 400 KB, and a write of it at some 25 units. Far more than consumers work on; reached when batches cannot be finished.
pub const MAX_UNFINISHED: usize = 200;
/// Consumers that died with an object in their batch, from which on it is worked on alone.
pub const DEATHS_BEFORE_ALONE: u32 = 3;
/// Deaths from which on it is set aside: as many again, while it was alone.
pub const DEATHS_BEFORE_ASIDE: u32 = 2 * DEATHS_BEFORE_ALONE;
/// Shortest and longest time for which an object is set aside.
const ASIDE: (Duration, Duration) = (Duration::from_secs(1800), Duration::from_secs(86_400));
/// Longest pause between two recoveries of a batch by one consumer.
const LONGEST_RECOVERY_PAUSE: Duration = Duration::from_secs(3600);

/// Where a batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Preparing: nothing it wrote can be seen.
    Open,
    /// Decided: its deltas, files and archive moves will all happen.
    Committed,
    /// Given up by its owner before it was committed: nothing of it will ever be seen.
    Abandoned,
    /// Abandoned by others, because its owner fell silent before it was committed: nothing of it will ever be seen.
    Lost,
    /// Committed, and cannot be carried out, because its manifest is gone or damaged. It holds nothing up, and its objects
    /// stay its own, until an operator brings it to its end.
    Aside,
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
            State::Lost => "lost",
            State::Aside => "aside",
            State::Done => "done",
        }
    }

    /// Whether nothing of the batch will ever be seen.
    pub fn is_given_up(self) -> bool {
        matches!(self, State::Abandoned | State::Lost)
    }

    /// Finds it by [`State::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        use State::{Abandoned, Aside, Committed, Done, Lost, Open};
        [Open, Committed, Abandoned, Lost, Aside, Done].into_iter().find(|state| state.name() == name)
    }
}

/// A batch in the registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Open, committed or given up; a batch that is done or set aside has left the registry.
    pub state: State,
    /// Which consumer works on it.
    pub owner: String,
    /// Counts up while the owner lives.
    pub beat: u64,
    /// When the batch was opened, in seconds since the Unix epoch: for people only, nothing is decided by it.
    pub since: u64,
}

/// What a consumer that wants to change the registry is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The registry becomes this.
    To(Registry),
    /// It already is as wanted: an earlier try got through and its answer was lost.
    Already,
    /// The batch is not, or no longer, where this change may be made.
    Refused,
}

/// Every batch that is not finished, and the last number taken.
///
/// Its methods are every change there is. Each is carried out by one compare-and-swap of the whole registry, so what a
/// method saw is what it changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
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

    /// Takes the next number and lists the batch as open; `None` while `most` batches are listed.
    #[must_use]
    pub fn open(&self, owner: &str, since: u64, most: usize) -> Option<(BatchNumber, Registry)> {
        if self.batches.len() >= most {
            return None;
        }
        let mut next = self.clone();
        next.last += 1;
        next.batches.insert(next.last, Entry { state: State::Open, owner: owner.to_owned(), beat: 0, since });
        Some((next.last, next))
    }

    /// Shows that the owner lives. Refused when the batch is no longer its own.
    pub fn renew_lease(&self, number: BatchNumber, owner: &str) -> Change {
        self.change_own(number, owner, |entry| match entry.state {
            State::Open | State::Committed => Some(Entry { beat: entry.beat.wrapping_add(1), ..entry.clone() }),
            State::Abandoned | State::Lost | State::Aside | State::Done => None,
        })
    }

    /// Decides the owner's open batch: all of it will happen. Refused when it was abandoned meanwhile.
    pub fn commit(&self, number: BatchNumber, owner: &str) -> Change {
        self.change_own(number, owner, |entry| match entry.state {
            State::Open | State::Committed => Some(Entry { state: State::Committed, ..entry.clone() }),
            State::Abandoned | State::Lost | State::Aside | State::Done => None,
        })
    }

    /// Decides the owner's open batch: none of it will happen. Refused when it is committed.
    pub fn abandon_own(&self, number: BatchNumber, owner: &str) -> Change {
        self.change_own(number, owner, |entry| match entry.state {
            State::Open | State::Abandoned => Some(Entry { state: State::Abandoned, ..entry.clone() }),
            State::Committed | State::Lost | State::Aside | State::Done => None,
        })
    }

    /// Decides the open batch of an owner who is silent: none of it will happen. Refused when the batch changed since it was
    /// `seen`.
    pub fn abandon(&self, number: BatchNumber, seen: &Entry) -> Change {
        match self.batches.get(&number) {
            Some(entry) if entry == seen && entry.state == State::Open => {
                self.with(number, Entry { state: State::Lost, ..seen.clone() })
            }
            _ => Change::Refused,
        }
    }

    /// Makes the committed batch of an owner who is silent one's own. Refused when the batch changed since it was `seen`.
    pub fn adopt(&self, number: BatchNumber, seen: &Entry, owner: &str) -> Change {
        match self.batches.get(&number) {
            Some(entry) if entry == seen && entry.state == State::Committed => {
                self.with(number, Entry { owner: owner.to_owned(), beat: seen.beat.wrapping_add(1), ..seen.clone() })
            }
            _ => Change::Refused,
        }
    }

    /// Takes no number up to this one any more. A ledger that was restored to an earlier time has forgotten the numbers since, and
    /// items that have those batches in them would take a new batch of the same number for one of them.
    pub fn skip_to(&self, number: BatchNumber) -> Change {
        if number <= self.last {
            return Change::Already;
        }
        Change::To(Registry { last: number, batches: self.batches.clone() })
    }

    /// Makes the open batch of an owner who is silent one's own and committed again, as it is known to have been before the ledger was
    /// restored to an earlier time. Refused when the batch changed since it was `seen`.
    pub fn commit_again(&self, number: BatchNumber, seen: &Entry, owner: &str) -> Change {
        match self.batches.get(&number) {
            Some(entry) if entry == seen && entry.state == State::Open => {
                let entry = Entry { state: State::Committed, owner: owner.to_owned(), ..seen.clone() };
                self.with(number, Entry { beat: seen.beat.wrapping_add(1), ..entry })
            }
            _ => Change::Refused,
        }
    }

    /// Takes a finished batch off the list.
    pub fn close(&self, number: BatchNumber) -> Change {
        let mut next = self.clone();
        match next.batches.remove(&number) {
            Some(_) => Change::To(next),
            None => Change::Already,
        }
    }

    fn change_own(&self, number: BatchNumber, owner: &str, change: impl Fn(&Entry) -> Option<Entry>) -> Change {
        match self.batches.get(&number).filter(|entry| entry.owner == owner) {
            Some(entry) => change(entry).map_or(Change::Refused, |next| self.with(number, next)),
            None => Change::Refused,
        }
    }

    fn with(&self, number: BatchNumber, entry: Entry) -> Change {
        if self.batches.get(&number) == Some(&entry) {
            return Change::Already;
        }
        let mut next = self.clone();
        next.batches.insert(number, entry);
        Change::To(next)
    }
}

/// What a batch does about an object that another batch has claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimConflict {
    /// The object is finished: the announcement is a duplicate and can be acknowledged.
    Duplicate,
    /// Another batch is at it: leave it, and look again when the announcement comes back.
    Leave,
    /// The other batch was given up: the object is free. Whether its consumer died with it is counted.
    TakeOver {
        /// The other batch's owner fell silent.
        died: bool,
    },
}

/// Judges a claim held by another batch, by that batch's state: from the registry, or from its record once it has left.
/// A record outlives every claim, so a batch without either never got as far as leaving one behind.
pub fn resolve(holder: Option<State>) -> ClaimConflict {
    match holder {
        Some(State::Done) => ClaimConflict::Duplicate,
        Some(State::Open | State::Committed | State::Aside) => ClaimConflict::Leave,
        Some(State::Lost) => ClaimConflict::TakeOver { died: true },
        Some(State::Abandoned) | None => ClaimConflict::TakeOver { died: false },
    }
}

/// For how long an object is set aside that has been set aside so often before: twice as long each time, up to a day.
pub fn pause_before_retry(times_before: u32) -> Duration {
    ASIDE.0.saturating_mul(1 << times_before.min(16)).min(ASIDE.1)
}

/// Which batches a report item has in it: all up to a watermark, and the listed ones above.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
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

    /// The newest batch that it may have in it.
    pub fn newest(&self) -> BatchNumber {
        self.listed.last().copied().unwrap_or(0).max(self.through)
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
/// that is worked on beats, and one whose recovery failed does not. Each recovery doubles the time until the next of the
/// same batch, up to an hour, so that one that cannot be finished costs the others nothing.
#[derive(Debug)]
pub struct LeaseWatch {
    lease: Duration,
    seen: BTreeMap<BatchNumber, Sight>,
}

/// A batch as it was first seen in its present state.
#[derive(Debug)]
struct Sight {
    entry: Entry,
    since: Instant,
    /// Recoveries of the batch that this observer asked for.
    recoveries: u32,
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
            let new = || Sight { entry: entry.clone(), since: now, recoveries: 0 };
            let sight = self.seen.entry(number).or_insert_with(new);
            if sight.entry != *entry {
                (sight.entry, sight.since) = (entry.clone(), now);
            } else {
                let longest = self.lease.max(LONGEST_RECOVERY_PAUSE);
                let wait = self.lease.saturating_mul(1 << sight.recoveries.min(16)).min(longest);
                if now.saturating_duration_since(sight.since) >= wait {
                    overdue.push((number, entry.clone()));
                }
            }
        }
        overdue
    }

    /// Learns that an overdue batch is being recovered.
    pub fn recovering(&mut self, number: BatchNumber, now: Instant) {
        if let Some(sight) = self.seen.get_mut(&number) {
            sight.since = now;
            sight.recoveries = sight.recoveries.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(state: State, beat: u64) -> Entry {
        Entry { state, owner: "other".into(), beat, since: 0 }
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
    fn no_batch_is_opened_while_too_many_are_unfinished() {
        let mut registry = Registry::default();
        for expected in 1..=MAX_UNFINISHED as u64 {
            let (number, next) = registry.open("me", 0, MAX_UNFINISHED).unwrap();
            assert_eq!(number, expected);
            registry = next;
        }
        assert_eq!(registry.open("me", 0, MAX_UNFINISHED), None);
        let Change::To(registry) = registry.close(7) else { panic!("it was listed") };
        assert!(registry.open("me", 0, MAX_UNFINISHED).is_some(), "one was finished");
    }

    #[test]
    fn an_object_is_set_aside_for_longer_each_time_and_never_for_more_than_a_day() {
        assert_eq!(pause_before_retry(0), ASIDE.0);
        assert_eq!(pause_before_retry(2), 4 * ASIDE.0);
        assert_eq!(pause_before_retry(u32::MAX), ASIDE.1);
    }

    #[test]
    fn recoveries_of_one_batch_become_rare() {
        let (lease, start) = (Duration::from_secs(60), Instant::now());
        let mut watch = LeaseWatch::new(lease);
        let registry = Registry { last: 1, batches: BTreeMap::from([(1, entry(State::Committed, 5))]) };
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
        assert!(recoveries.windows(2).all(|two| two[1] - two[0] <= 3600), "never given up");
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
