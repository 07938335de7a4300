//! Groups: the objects of a window that go into one attempt, and into the next one after a failure.
//!
//! Pure. Nearly always a window is one group. It becomes several when its objects are too much for one batch, when one
//! of them is faulty, or when one must be processed alone.

use std::collections::HashMap;

use crate::batch::prepare::ObjectOutcome;
use crate::input::file::BadObject;

/// Objects of a window that are to be in one batch.
#[derive(Debug)]
pub(super) struct Group {
    /// Positions among the window's objects.
    pub(super) positions: Vec<usize>,
    /// The last attempt's failure, if an object may have caused it.
    failure: Option<String>,
}

impl Group {
    fn of(positions: Vec<usize>) -> Self {
        Group { positions, failure: None }
    }
}

/// The groups of a window that have not been attempted yet, or must be attempted again.
#[derive(Debug)]
pub(super) struct Groups {
    /// The next group is the last of these.
    pub(super) pending: Vec<Group>,
    /// Outcomes, known from earlier attempts, of objects that cannot be counted or read.
    pub(super) unusable: HashMap<usize, ObjectOutcome>,
}

impl Groups {
    /// All objects of a window in one group.
    pub(super) fn of_all(objects: usize) -> Self {
        Groups { pending: vec![Group::of((0..objects).collect())], unusable: HashMap::new() }
    }

    /// Adds a group for each of these objects.
    pub(super) fn add_alone(&mut self, positions: Vec<usize>) {
        self.pending.extend(positions.into_iter().map(|position| Group::of(vec![position])));
    }

    /// Attempts the group again with the outcome of one of its objects known.
    pub(super) fn retry_without(&mut self, group: Group, position: usize, outcome: ObjectOutcome) {
        self.unusable.insert(position, outcome);
        self.pending.push(group);
    }

    /// Attempts the halves of a group that was too large. A single object is bad for the given reason.
    pub(super) fn retry_smaller(&mut self, group: Group, reason: BadObject) {
        match group.positions[..] {
            [single] => self.retry_without(group, single, ObjectOutcome::Bad(reason)),
            _ => self.add_halves(&group),
        }
    }

    /// Attempts a group again after a failure, which is given if an object may have caused it. When that happens a
    /// second time it is no outage, so the group is halved until the faulty object is left.
    pub(super) fn retry_after(&mut self, mut group: Group, failure: Option<String>) {
        match (failure, &group.positions[..]) {
            (Some(failure), &[single]) if group.failure.is_some() => {
                group.failure = None;
                self.retry_without(group, single, ObjectOutcome::Unreadable(failure));
            }
            (Some(_), _) if group.failure.is_some() => self.add_halves(&group),
            (failure, _) => {
                group.failure = failure;
                self.pending.push(group);
            }
        }
    }

    fn add_halves(&mut self, group: &Group) {
        let (first, second) = group.positions.split_at(group.positions.len() / 2);
        self.pending.extend([second, first].map(|half| Group::of(half.to_vec())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_that_repeats_is_narrowed_down_to_one_object() {
        for faulty in 0..7 {
            let (mut groups, mut attempts, mut done) = (Groups::of_all(7), 0, Vec::new());
            while let Some(group) = groups.pending.pop() {
                attempts += 1;
                assert!(attempts < 20);
                let is_known = groups.unusable.contains_key(&faulty);
                if group.positions.contains(&faulty) && !is_known {
                    groups.retry_after(group, Some("refused".to_owned()));
                } else {
                    done.extend(group.positions);
                }
            }
            assert_eq!(done, (0..7).collect::<Vec<_>>(), "each object in one successful attempt");
            assert_eq!(
                groups.unusable.into_iter().collect::<Vec<_>>(),
                [(faulty, ObjectOutcome::Unreadable("refused".to_owned()))]
            );
        }
    }

    #[test]
    fn an_outage_splits_nothing() {
        let mut groups = Groups::of_all(2);
        for failure in [None, Some("refused".to_owned()), None, Some("refused".to_owned())] {
            let group = groups.pending.pop().unwrap();
            assert_eq!(group.positions, [0, 1]);
            groups.retry_after(group, failure);
        }
        assert!(groups.unusable.is_empty());
    }
}
