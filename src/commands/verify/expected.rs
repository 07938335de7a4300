//! The sums of a day's curated rows: a plain fold that has only its result in common with the batch's.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::compute::curated::CuratedRow;
use crate::reports::distinct::Member;
use crate::reports::figures::{Figures, Key, LIST_SEPARATOR, Report, UNKNOWN};
use crate::reports::item::PublishedFigures;

use super::hash;

/// The number of partitions that a day is split into, at most.
const MAX_PARTITIONS: u64 = 1 << 20;

/// The items that are folded at a time.
#[derive(Debug, Clone)]
pub(super) enum Partition {
    /// The items whose hash leaves this remainder.
    Part { modulus: u64, remainder: u64 },
    /// These items.
    Only(HashSet<Key>),
}

impl Partition {
    /// Returns true if the item belongs to the partition.
    pub(super) fn has(&self, report: Report, id: &str, day: i32) -> bool {
        match self {
            Partition::Part { modulus: 1, .. } => true,
            Partition::Part { modulus, remainder } => hash(id) % modulus == *remainder,
            Partition::Only(keys) => keys.contains(&Key { report, id: id.to_owned(), day }),
        }
    }

    /// Splits off and returns half of the partition; `None` if it cannot be split any further.
    pub(super) fn split(&mut self) -> Option<Partition> {
        match self {
            // Ids that are still together have the same hash.
            Partition::Part { modulus: MAX_PARTITIONS.., .. } | Partition::Only(_) => None,
            Partition::Part { modulus, remainder } => {
                *modulus *= 2;
                Some(Partition::Part { modulus: *modulus, remainder: *remainder + *modulus / 2 })
            }
        }
    }
}

/// The sums of a day's curated rows.
#[derive(Debug, Default)]
pub(super) struct Expected {
    pub(super) tracks: HashMap<String, ExpectedTrack>,
    pub(super) genres: HashMap<String, Figures>,
    pub(super) listeners: HashMap<i64, Figures>,
}

#[derive(Debug, Default)]
pub(super) struct ExpectedTrack {
    pub(super) figures: Figures,
    /// Its genres, in whose lists it may be.
    pub(super) genres: BTreeSet<String>,
}

impl Expected {
    /// Returns the number of items.
    pub(super) fn len(&self) -> usize {
        self.tracks.len() + self.genres.len() + self.listeners.len()
    }

    /// Adds a row to those of its items that belong to the partition.
    pub(super) fn add(&mut self, row: &CuratedRow<'_>, partition: &Partition, day: i32) {
        let listening_ms = u64::from(row.duration_ms.unwrap_or(0).unsigned_abs());
        let genres = || row.track_genre.unwrap_or(UNKNOWN).split(LIST_SEPARATOR);
        let count = |figures: &mut Figures, member| {
            figures.listens += 1;
            figures.listening_ms += listening_ms;
            figures.distinct.insert(member);
        };
        let (user, track) = (Member::of_user(row.user_id), Member::of_track(row.track_id));
        if partition.has(Report::Track, row.track_id, day) {
            let expected = match self.tracks.get_mut(row.track_id) {
                Some(expected) => expected,
                None => self.tracks.entry(row.track_id.to_owned()).or_default(),
            };
            count(&mut expected.figures, user);
            for genre in genres().filter(|genre| !expected.genres.contains(*genre)).collect::<Vec<_>>() {
                expected.genres.insert(genre.to_owned());
            }
        }
        for genre in genres().filter(|genre| partition.has(Report::Genre, genre, day)) {
            let figures = match self.genres.get_mut(genre) {
                Some(figures) => figures,
                None => self.genres.entry(genre.to_owned()).or_default(),
            };
            count(figures, user);
        }
        if partition.has(Report::Listener, &row.user_id.to_string(), day) {
            count(self.listeners.entry(row.user_id).or_default(), track);
        }
    }

    /// Drops all items outside the partition.
    pub(super) fn keep(&mut self, partition: &Partition, day: i32) {
        self.tracks.retain(|id, _| partition.has(Report::Track, id, day));
        self.genres.retain(|id, _| partition.has(Report::Genre, id, day));
        self.listeners.retain(|id, _| partition.has(Report::Listener, &id.to_string(), day));
    }

    /// Returns the figures that an item must show. They are returned once: the item counts as seen afterwards.
    pub(super) fn see(&mut self, key: &Key) -> Option<PublishedFigures> {
        let figures = match key.report {
            Report::Track => self.tracks.remove(&key.id)?.figures,
            Report::Genre => self.genres.remove(&key.id)?,
            Report::Listener => self.listeners.remove(&key.id.parse().ok()?)?,
        };
        Some(PublishedFigures::of(key.report, &figures))
    }

    /// Returns true if the item is expected and was not seen.
    pub(super) fn has(&self, key: &Key) -> bool {
        match key.report {
            Report::Track => self.tracks.contains_key(&key.id),
            Report::Genre => self.genres.contains_key(&key.id),
            Report::Listener => key.id.parse().is_ok_and(|id: i64| self.listeners.contains_key(&id)),
        }
    }

    /// Returns the keys of a report's items that were not seen.
    pub(super) fn unseen(&self, report: Report, day: i32) -> Vec<Key> {
        let ids: Vec<String> = match report {
            Report::Track => self.tracks.keys().cloned().collect(),
            Report::Genre => self.genres.keys().cloned().collect(),
            Report::Listener => self.listeners.keys().map(ToString::to_string).collect(),
        };
        ids.into_iter().map(|id| Key { report, id, day }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_that_are_split_have_every_item_once() {
        let mut partitions = vec![Partition::Part { modulus: 1, remainder: 0 }];
        for _ in 0..4 {
            let halves: Vec<_> = partitions.iter_mut().filter_map(Partition::split).collect();
            partitions.extend(halves);
        }
        assert_eq!(partitions.len(), 16);
        for id in 0..1000 {
            let has = |partition: &&Partition| partition.has(Report::Track, &id.to_string(), 7);
            assert_eq!(partitions.iter().filter(has).count(), 1, "{id}");
        }
        let mut smallest = Partition::Part { modulus: MAX_PARTITIONS, remainder: 5 };
        assert!(smallest.split().is_none());
    }
}
