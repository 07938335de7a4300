//! The moment at which figures are read: the definition in force, the last finished batch, and the marks of days.
//!
//! Figures change when a batch is carried out, when a definition is put in force, and when somebody restores or
//! rebuilds them. The ledger shows each of these: batches and definition in the registry, the others in
//! [`Ledger::touched`](crate::ledger::Ledger::touched). What is read between two looks at an unchanged ledger therefore
//! holds until the ledger changes.
//!
//! A day's **mark** is the version of its item in the report of all rows, which every batch with a row of the day
//! raises. A definition without such a report has no marks, and each change of the ledger concerns all days.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use crate::plan::Plan;
use crate::plan::period::Period;
use crate::protocol::{BatchNumber, Registry, State};
use crate::reading::answer::AsOf;

/// What the ledger says about figures; equal as long as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledgered {
    last: BatchNumber,
    /// The unfinished batches. True for one that is being carried out.
    batches: BTreeMap<BatchNumber, bool>,
    /// The number of changes of the definition.
    change: u64,
    /// The number of restorations and rebuilds.
    touched: u64,
}

impl Ledgered {
    /// Takes what concerns figures from a registry: leases and owners do not.
    pub fn of(registry: &Registry, touched: u64) -> Self {
        let batches = registry.batches.iter().map(|(&batch, entry)| (batch, entry.state == State::Committed));
        let (last, change) = (registry.last, registry.definition.change);
        Ledgered { last, batches: batches.collect(), change, touched }
    }

    /// True while a batch is being carried out: items have it one after the other.
    pub fn is_updating(&self) -> bool {
        self.batches.values().any(|&is_committed| is_committed)
    }

    /// True if the definition is another than at the other moment.
    pub fn is_redefined(&self, other: &Self) -> bool {
        self.change != other.change
    }

    /// True if somebody has restored or rebuilt figures since the other moment.
    pub fn is_touched(&self, other: &Self) -> bool {
        self.touched != other.touched
    }

    /// The numbers of batches that are finished, the last one first.
    pub fn finished(&self) -> impl Iterator<Item = BatchNumber> {
        (1..=self.last).rev().filter(|batch| !self.batches.contains_key(batch))
    }
}

/// The version of each day's item of all rows, as far as they were read.
pub type Marks = HashMap<i32, u64>;

/// The moment at which figures are read.
#[derive(Debug)]
pub struct Moment {
    /// What the ledger says.
    pub ledgered: Ledgered,
    /// Another number for each other state of the figures.
    pub number: u64,
    /// The plan of the definition in force.
    pub plan: Arc<Plan>,
    /// The state of the figures, for people.
    pub as_of: AsOf,
    /// The last time at which the ledger said so.
    pub seen: Instant,
    /// False while a batch is carried out, and just after a change, when reads may still show what was before it.
    pub is_settled: bool,
    /// The report whose versions mark days, if the definition has one.
    pub marking: Option<usize>,
    /// Today, in the definition's zone.
    pub today: i32,
    /// This hour, UTC.
    pub this_hour: Period,
}

impl Moment {
    /// True if a day or an hour is over.
    pub fn is_over(&self, period: Period) -> bool {
        match period {
            Period::Day(day) => day < self.today,
            Period::Hour(_) => period < self.this_hour,
        }
    }
}

/// The report of all rows by day, which marks days: `None` if the definition has none.
pub fn marking(plan: &Plan) -> Option<usize> {
    plan.reports.iter().position(|report| report.key.is_none() && !report.is_hourly)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Change;

    fn next(change: Change) -> Registry {
        match change {
            Change::To(registry) => registry,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn figures_change_with_commits_ends_and_definitions_and_not_with_leases() {
        let mut open = Registry { last: 1, ..Registry::default() };
        open.batches.insert(1, crate::protocol::Entry { state: State::Open, owner: "a".to_owned(), beat: 1, since: 1 });
        let seen = Ledgered::of(&open, 0);
        assert!(!seen.is_updating());
        let beating = next(open.renew_lease(1, "a"));
        assert_eq!(Ledgered::of(&beating, 0), seen);
        let committed = next(beating.commit(1, "a", &beating.definition));
        assert!(Ledgered::of(&committed, 0).is_updating());
        assert_eq!(Ledgered::of(&committed, 0).finished().next(), None);
        let closed = next(committed.close(1));
        assert_eq!(Ledgered::of(&closed, 0).finished().next(), Some(1));
        assert_ne!(Ledgered::of(&closed, 1), Ledgered::of(&closed, 0), "somebody has rebuilt a day");
        let mut definition = closed.definition.clone();
        definition.change += 1;
        let redefined = next(closed.redefine(&closed.definition, definition));
        assert!(Ledgered::of(&redefined, 0).is_redefined(&Ledgered::of(&closed, 0)));
    }
}
