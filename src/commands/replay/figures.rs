//! The sums of deltas by item, within their limits, and the items that were refused.

use std::collections::{HashMap, HashSet};

use super::{Replay, ReplayError};
use crate::plan::Plan;
use crate::reports::figures::{Delta, Figures, Key, Labels};
use crate::reports::store::WriteOutcome;
use crate::reports::top_lists::ListKey;

/// Bytes of memory for an item's figures, key and labels in a hash table that is partly empty. Its sketch is counted
/// apart.
const FIGURES_BYTES: usize = 1024;

/// The items that the tables refused, each once.
#[derive(Debug, Default)]
pub(super) struct Refused {
    pub(super) keys: HashSet<Key>,
    pub(super) items: Vec<(Key, String)>,
    /// Top lists that the table refused, with the reason of each.
    pub(super) lists: Vec<(ListKey, String)>,
}

impl Refused {
    /// Notes an item if it was refused.
    pub(super) fn note(&mut self, key: Key, outcome: WriteOutcome) {
        if let WriteOutcome::Refused(reason) = outcome
            && self.keys.insert(key.clone())
        {
            self.items.push((key, reason));
        }
    }

    /// Notes top lists that were refused.
    pub(super) fn note_lists(&mut self, lists: Vec<(ListKey, String)>) {
        for (list, reason) in lists {
            if self.lists.iter().all(|(known, _)| *known != list) {
                self.lists.push((list, reason));
            }
        }
    }

    /// Notes the refused items, and returns those that have a later batch.
    pub(super) fn take_changing(&mut self, outcomes: Vec<(Key, WriteOutcome)>) -> HashSet<Key> {
        let mut changing = HashSet::new();
        for (key, outcome) in outcomes {
            match outcome {
                WriteOutcome::HasLater => drop(changing.insert(key)),
                outcome => self.note(key, outcome),
            }
        }
        changing
    }

    /// Returns an error if any item was refused.
    pub(super) fn into_result(self) -> Result<(), ReplayError> {
        let count = self.items.len() + self.lists.len();
        let items = self.items.into_iter().map(|(_, reason)| reason);
        match items.chain(self.lists.into_iter().map(|(_, reason)| reason)).next() {
            Some(first) => Err(ReplayError::Refused { count, first }),
            None => Ok(()),
        }
    }
}

/// The sums of deltas by item, and the memory that they take.
#[derive(Debug, Default)]
pub(super) struct Sums {
    pub(super) figures: HashMap<Key, (Figures, Labels)>,
    pub(super) bytes: usize,
}

impl Sums {
    /// Adds the deltas of the items in `only`, or of all items.
    pub(super) fn add(&mut self, deltas: Vec<Delta>, only: Option<&HashSet<Key>>, plan: &Plan) {
        for Delta { key, figures: added, labels } in deltas {
            if only.is_none_or(|only| only.contains(&key)) {
                let report = &plan.reports[key.report];
                let (sum, own) = self.entry(key);
                let before = sum.sketch_bytes();
                sum.merge(&added, report);
                own.update(labels);
                let grown = sum.sketch_bytes().saturating_sub(before);
                self.bytes = self.bytes.saturating_add(grown);
            }
        }
    }

    /// Returns an item's sum, zero at first.
    pub(super) fn entry(&mut self, key: Key) -> &mut (Figures, Labels) {
        let bytes = FIGURES_BYTES + key.id.len();
        let total = &mut self.bytes;
        self.figures.entry(key).or_insert_with(|| {
            *total = total.saturating_add(bytes);
            Default::default()
        })
    }
}

impl Replay {
    /// Returns an error if the sums exceed a limit of the replay.
    pub(super) fn check_limits(&self, sums: &Sums) -> Result<(), ReplayError> {
        if sums.figures.len() > self.max_report_items as usize {
            return Err(ReplayError::TooManyItems(self.max_report_items));
        }
        if sums.bytes > self.memory.lasting().saturating_sub(self.catalogue.memory_bytes()) {
            return Err(ReplayError::TooMuchMemory(self.memory.bytes()));
        }
        Ok(())
    }
}
