//! The decisions of the exactly-once protocol, as pure functions.
//!
//! [`crate::ledger`] stores them and [`crate::batch`] carries them out. The whole protocol:
//!
//! * A batch is *open* until one conditional write makes it *committed* or *abandoned*. Only a committed batch is ever
//!   applied, by any consumer, any number of times.
//! * The registry lists every unfinished batch. Numbers only grow, and the write that takes a number also lists its
//!   batch, so a batch with a number below every listed one will never be applied again.
//! * The registry is bounded: while it lists [`MAX_UNFINISHED`] batches, none is opened.
//! * A claim ties an object to a batch. A conditional write decides which batch holds it; [`resolve`] decides what
//!   another batch that wants the object does.
//! * The registry names the definition in force. A batch is opened and committed only under the one that its consumer
//!   knows, so no batch mixes two, and changing it needs no stop.
//! * A report item records the batches that it contains: [`Applied`].
//! * What is refused permanently is set aside and blocks nothing else: an object by an unassigned claim that may not be
//!   taken over until a later time ([`pause_before_retry`]), a committed batch that cannot be carried out by
//!   [`State::Aside`].
//!
//! Covered by its unit tests, and by `tests/model`, which explores every interleaving of a few consumers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Number of a batch; the first is 1.
pub type BatchNumber = u64;

/// Upper bound of the batches in the registry. An entry takes some 120 bytes: the item stays at a sixteenth of
/// DynamoDB's 400 KB, and a write of it at some 25 units. Consumers process far fewer; the bound is reached when
/// batches cannot be finished.
pub const MAX_UNFINISHED: usize = 200;
/// Number of consumers that died with an object in their batch after which the object gets a batch of its own.
pub const DEATHS_BEFORE_ALONE: u32 = 3;
/// Number of deaths after which the object is set aside: as many again, in batches of its own.
pub const DEATHS_BEFORE_ASIDE: u32 = 2 * DEATHS_BEFORE_ALONE;
/// Shortest and longest time for which an object is set aside.
const ASIDE: (Duration, Duration) = (Duration::from_secs(1800), Duration::from_secs(86_400));

/// The state of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// In preparation: nothing that it wrote is visible.
    Open,
    /// Decided: its deltas, files and archive moves will all happen.
    Committed,
    /// Abandoned by its owner before it was committed: nothing of it will ever be visible.
    Abandoned,
    /// Abandoned by another consumer, because its owner fell silent before it was committed: nothing of it will ever be
    /// visible.
    Lost,
    /// Committed, but impossible to carry out, because its manifest is gone or damaged. It blocks nothing, and keeps
    /// the claims on its objects until an operator resolves it.
    Aside,
    /// Carried out completely.
    Done,
}

impl State {
    /// The state's name in the ledger.
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

    /// Returns true if nothing of the batch will ever be visible.
    pub fn is_abandoned(self) -> bool {
        matches!(self, State::Abandoned | State::Lost)
    }

    /// Finds a state by its [`State::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        use State::{Abandoned, Aside, Committed, Done, Lost, Open};
        [Open, Committed, Abandoned, Lost, Aside, Done].into_iter().find(|state| state.name() == name)
    }
}

/// A batch in the registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Open, committed, abandoned or lost; a batch that is done or set aside has left the registry.
    pub state: State,
    /// The consumer that processes the batch.
    pub owner: String,
    /// A counter that the owner increments to renew its lease.
    pub beat: u64,
    /// The time at which the batch was opened, in seconds since the Unix epoch. For people only; no decision depends on
    /// it.
    pub since: u64,
}

/// The definition in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, serde::Serialize)]
pub struct InForce {
    /// The number of changes so far.
    pub change: u64,
    /// The digest of the definition; `None` for the built-in one.
    pub digest: Option<String>,
    /// The first period that a report counts, by the report's table. Others count all.
    pub since: BTreeMap<String, String>,
    /// The first period that it counted before a rebuild of the past, by table: from that back to `since` the rebuild
    /// has not ended.
    pub filling: BTreeMap<String, String>,
    /// Measures that were taken away, as `TABLE.MEASURE`: items still have the figures that they had.
    pub gone: BTreeSet<String>,
}

/// The outcome of a proposed registry change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The change applies: the registry is to become this one.
    To(Registry),
    /// The registry already is as wanted: an earlier attempt succeeded and its answer was lost.
    Already,
    /// The batch is not, or no longer, in a state that permits the change.
    Refused,
}

/// The outcome of the wish to open a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// The batch takes this number: the registry is to become this one.
    To(BatchNumber, Registry),
    /// Too many batches are listed.
    Full,
    /// Another definition is in force than the consumer knows.
    Redefined,
}

/// All unfinished batches, the last number taken, and the definition in force.
///
/// Its methods are all changes that exist. Each is carried out by one compare-and-swap of the whole registry, so it
/// replaces exactly the registry that the method saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Registry {
    /// The last number taken.
    pub last: BatchNumber,
    /// The unfinished batches.
    pub batches: BTreeMap<BatchNumber, Entry>,
    /// The definition in force.
    pub definition: InForce,
}

impl Registry {
    /// Returns the number up to which every batch is finished: no batch at or below it will be applied by a consumer
    /// that may.
    pub fn applied_through(&self) -> BatchNumber {
        self.batches
            .iter()
            .find(|(_, entry)| matches!(entry.state, State::Open | State::Committed))
            .map_or(self.last, |(&lowest, _)| lowest - 1)
    }

    /// Takes the next number and lists the batch as open, unless `most` batches are listed, or another definition
    /// is in force than the one that is `known`.
    #[must_use]
    pub fn open(&self, owner: &str, since: u64, most: usize, known: &InForce) -> Opening {
        if self.definition != *known {
            return Opening::Redefined;
        }
        if self.batches.len() >= most {
            return Opening::Full;
        }
        let mut next = self.clone();
        next.last += 1;
        next.batches.insert(next.last, Entry { state: State::Open, owner: owner.to_owned(), beat: 0, since });
        Opening::To(next.last, next)
    }

    /// Renews the owner's lease on its batch. Refused if the batch is no longer its own.
    pub fn renew_lease(&self, number: BatchNumber, owner: &str) -> Change {
        self.change_own(number, owner, |entry| match entry.state {
            State::Open | State::Committed => Some(Entry { beat: entry.beat.wrapping_add(1), ..entry.clone() }),
            State::Abandoned | State::Lost | State::Aside | State::Done => None,
        })
    }

    /// Commits the owner's open batch, which was prepared under a definition: all of it will be carried out. Refused if
    /// it was abandoned meanwhile, or another definition is in force.
    pub fn commit(&self, number: BatchNumber, owner: &str, under: &InForce) -> Change {
        self.change_own(number, owner, |entry| match entry.state {
            State::Committed => Some(entry.clone()),
            State::Open if self.definition == *under => Some(Entry { state: State::Committed, ..entry.clone() }),
            State::Open | State::Abandoned | State::Lost | State::Aside | State::Done => None,
        })
    }

    /// Puts another definition, or other periods, in force. Refused if what is in force is no longer `seen`.
    pub fn redefine(&self, seen: &InForce, next: InForce) -> Change {
        if self.definition == next {
            return Change::Already;
        }
        if self.definition != *seen || next.change != seen.change + 1 {
            return Change::Refused;
        }
        Change::To(Registry { definition: next, ..self.clone() })
    }

    /// Abandons the owner's open batch: none of it will be carried out. Refused if it is committed.
    pub fn abandon_own(&self, number: BatchNumber, owner: &str) -> Change {
        self.change_own(number, owner, |entry| match entry.state {
            State::Open | State::Abandoned => Some(Entry { state: State::Abandoned, ..entry.clone() }),
            State::Committed | State::Lost | State::Aside | State::Done => None,
        })
    }

    /// Abandons the open batch of a silent owner: none of it will be carried out. Refused if its entry no longer equals
    /// `seen`.
    pub fn abandon(&self, number: BatchNumber, seen: &Entry) -> Change {
        match self.batches.get(&number) {
            Some(entry) if entry == seen && entry.state == State::Open => {
                self.with(number, Entry { state: State::Lost, ..seen.clone() })
            }
            _ => Change::Refused,
        }
    }

    /// Makes the committed batch of a silent owner the batch of `owner`. Refused if its entry no longer equals `seen`.
    pub fn adopt(&self, number: BatchNumber, seen: &Entry, owner: &str) -> Change {
        match self.batches.get(&number) {
            Some(entry) if entry == seen && entry.state == State::Committed => {
                self.with(number, Entry { owner: owner.to_owned(), beat: seen.beat.wrapping_add(1), ..seen.clone() })
            }
            _ => Change::Refused,
        }
    }

    /// Reserves all batch numbers up to `number`. After the ledger is restored from a backup, numbers issued since then
    /// must not be reused: report items would mistake the new batch for the old one.
    pub fn skip_to(&self, number: BatchNumber) -> Change {
        if number <= self.last {
            return Change::Already;
        }
        Change::To(Registry { last: number, ..self.clone() })
    }

    /// Makes the open batch of a silent owner the batch of `owner`, and committed, as it was before the ledger was
    /// restored from a backup. Refused if its entry no longer equals `seen`.
    pub fn commit_again(&self, number: BatchNumber, seen: &Entry, owner: &str) -> Change {
        match self.batches.get(&number) {
            Some(entry) if entry == seen && entry.state == State::Open => {
                let entry = Entry { state: State::Committed, owner: owner.to_owned(), ..seen.clone() };
                self.with(number, Entry { beat: seen.beat.wrapping_add(1), ..entry })
            }
            _ => Change::Refused,
        }
    }

    /// Removes a finished batch.
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

/// The decision of a batch about an object that another batch has claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimConflict {
    /// The object is finished: the announcement is a duplicate and can be acknowledged.
    Duplicate,
    /// The other batch is unfinished: leave the object, and check again when the announcement comes back.
    Leave,
    /// The other batch was abandoned: the object is free.
    TakeOver {
        /// True if the other batch's owner fell silent, which is counted.
        died: bool,
    },
}

/// Judges a claim held by another batch by that batch's state: from the registry, or from its record once it has left.
/// A record outlives every claim of its batch, so a batch with neither never finished.
pub fn resolve(holder: Option<State>) -> ClaimConflict {
    match holder {
        Some(State::Done) => ClaimConflict::Duplicate,
        Some(State::Open | State::Committed | State::Aside) => ClaimConflict::Leave,
        Some(State::Lost) => ClaimConflict::TakeOver { died: true },
        Some(State::Abandoned) | None => ClaimConflict::TakeOver { died: false },
    }
}

/// Returns the time for which an object is set aside that has been set aside `times_before` times: it doubles each
/// time, up to a day.
pub fn pause_before_retry(times_before: u32) -> Duration {
    ASIDE.0.saturating_mul(1 << times_before.min(16)).min(ASIDE.1)
}

/// The batches that a report item contains: all up to a watermark, and the listed ones above.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Applied {
    /// The watermark. Every batch up to it that will ever be applied to this item has been applied.
    pub through: BatchNumber,
    /// Batches above the watermark that have been applied.
    pub listed: BTreeSet<BatchNumber>,
}

impl Applied {
    /// Returns true if the item already contains the batch, or must never contain it.
    pub fn contains(&self, batch: BatchNumber) -> bool {
        batch <= self.through || self.listed.contains(&batch)
    }

    /// Returns true if the batch is newer than every listed one.
    pub fn is_newest(&self, batch: BatchNumber) -> bool {
        self.listed.last().is_none_or(|&last| batch > last)
    }

    /// Returns the newest batch that the item may contain.
    pub fn newest(&self) -> BatchNumber {
        self.listed.last().copied().unwrap_or(0).max(self.through)
    }

    /// Returns the state after the batch is applied: the batch is listed, and the watermark raised to `through`, which
    /// shortens the list.
    #[must_use]
    pub fn with(&self, batch: BatchNumber, through: BatchNumber) -> Self {
        let through = self.through.max(through);
        let mut listed = self.listed.clone();
        listed.insert(batch);
        listed.retain(|&listed| listed > through);
        Applied { through, listed }
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
        let mut registry = Registry { last: 7, ..Registry::default() };
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
            let Opening::To(number, next) = registry.open("me", 0, MAX_UNFINISHED, &InForce::default()) else {
                panic!("there is room")
            };
            assert_eq!(number, expected);
            registry = next;
        }
        assert_eq!(registry.open("me", 0, MAX_UNFINISHED, &InForce::default()), Opening::Full);
        let Change::To(registry) = registry.close(7) else { panic!("it was listed") };
        assert!(
            matches!(registry.open("me", 0, MAX_UNFINISHED, &InForce::default()), Opening::To(..)),
            "one was finished"
        );
    }

    #[test]
    fn a_batch_is_opened_and_committed_under_the_definition_in_force() {
        let of = |change| InForce { change, digest: Some(format!("digest {change}")), ..InForce::default() };
        let built_in = InForce::default();
        let redefined = |registry: &Registry| match registry.redefine(&built_in, of(1)) {
            Change::To(next) => next,
            other => panic!("{other:?}"),
        };
        let open = |registry: &Registry, known: &InForce| registry.open("me", 0, MAX_UNFINISHED, known);
        let Opening::To(batch, opened) = open(&Registry::default(), &built_in) else { panic!("it is empty") };
        let Change::To(committed) = opened.commit(batch, "me", &built_in) else { panic!("nothing has changed") };
        let later = redefined(&opened);
        assert_eq!(later.commit(batch, "me", &built_in), Change::Refused);
        assert_eq!(open(&later, &built_in), Opening::Redefined);
        assert!(matches!(open(&later, &of(1)), Opening::To(..)));
        // As many changes, but of a ledger that was restored to an earlier time.
        assert_eq!(open(&later, &InForce { digest: None, ..of(1) }), Opening::Redefined);
        // The answer was lost, and the definition has changed since.
        assert_eq!(redefined(&committed).commit(batch, "me", &built_in), Change::Already);
        // Somebody else was faster.
        assert_eq!(later.redefine(&built_in, InForce { digest: None, ..of(1) }), Change::Refused);
        assert_eq!(later.redefine(&built_in, of(1)), Change::Already);
    }

    #[test]
    fn an_object_is_set_aside_for_longer_each_time_and_never_for_more_than_a_day() {
        assert_eq!(pause_before_retry(0), ASIDE.0);
        assert_eq!(pause_before_retry(2), 4 * ASIDE.0);
        assert_eq!(pause_before_retry(u32::MAX), ASIDE.1);
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
