//! Items: the accumulators of a report's items of one period, in arrays.
//!
//! Pure. An item has a slot number, by which its figures lie in arrays one after the other. The slot of a key is found
//! in a table by code where the period has many of the keys, else in a hash table: memory grows with the items, not
//! with the codes.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::memory::table_bytes;
use crate::plan::reports::{Merge, Report};
use crate::reports::distinct::Members;

/// Marks a code without an item.
const NO_ITEM: u32 = u32::MAX;
/// Codes of the table by code for each item: a hash table would take about as much.
const CODES_OF_AN_ITEM: usize = 8;

/// The items of a report and period, by slot.
#[derive(Debug, Default)]
pub(super) struct Items {
    index: Index,
    /// The code of each item's key.
    pub(super) keys: Vec<u32>,
    /// The figures of each item, as many as the report has slots.
    pub(super) figures: Vec<i64>,
    /// The members of each item's distinct counts, as many as the report has sketches.
    pub(super) members: Vec<Members>,
    /// The time of each item's latest row, and the values of labels that it has; empty if the report has none of those.
    pub(super) latest_times: Vec<i64>,
    pub(super) latest: Vec<i64>,
}

/// The slots of keys.
#[derive(Debug)]
enum Index {
    Few(HashMap<u32, u32, RandomState>),
    Many(Vec<u32>),
}

impl Default for Index {
    fn default() -> Self {
        Index::Few(HashMap::default())
    }
}

impl Items {
    /// Returns the slot of a key's item.
    #[inline]
    pub(super) fn find(&self, key: u32) -> Option<usize> {
        match &self.index {
            Index::Few(slots) => slots.get(&key).map(|&slot| slot as usize),
            Index::Many(slots) => slots.get(key as usize).filter(|&&slot| slot != NO_ITEM).map(|&slot| slot as usize),
        }
    }

    /// Returns the slot of a key's item, of a new one if there was none. `codes` is the number of the keys' codes, and
    /// `latest` that of the values of a latest row.
    #[inline]
    pub(super) fn slot_of(&mut self, key: u32, report: &Report, latest: usize, codes: usize) -> usize {
        match self.find(key) {
            Some(slot) => slot,
            None => self.add(key, report, latest, codes),
        }
    }

    fn add(&mut self, key: u32, report: &Report, latest: usize, codes: usize) -> usize {
        let slot = self.keys.len();
        self.keys.push(key);
        self.figures.extend(report.slots.iter().map(|slot| slot.merge.neutral()));
        self.members.extend(report.sketches.iter().map(|_| Members::default()));
        if latest > 0 {
            self.latest_times.push(i64::MIN);
            self.latest.resize(self.latest.len() + latest, 0);
        }
        if let Index::Few(slots) = &mut self.index {
            slots.insert(key, slot as u32);
            if slots.len() * CODES_OF_AN_ITEM >= codes {
                let mut many = vec![NO_ITEM; codes.max(key as usize + 1)];
                slots.iter().for_each(|(&key, &slot)| many[key as usize] = slot);
                self.index = Index::Many(many);
            }
        } else if let Index::Many(slots) = &mut self.index {
            if slots.len() <= key as usize {
                slots.resize(codes.max(key as usize + 1), NO_ITEM);
            }
            slots[key as usize] = slot as u32;
        }
        slot
    }

    /// Merges figures into an item. They are in the order of the report's slots.
    #[inline]
    pub(super) fn merge(&mut self, slot: usize, merges: &[Merge], figures: impl Iterator<Item = i64>) {
        let first = slot * merges.len();
        let slots = &mut self.figures[first..first + merges.len()];
        for ((slot, merge), figure) in slots.iter_mut().zip(merges).zip(figures) {
            merge.merge(slot, figure);
        }
    }

    /// Takes over the values of a row, if it is later than the latest one so far, or as late.
    pub(super) fn see_row(&mut self, slot: usize, time: i64, values: impl ExactSizeIterator<Item = i64>) {
        if self.latest_times[slot] <= time {
            self.latest_times[slot] = time;
            let first = slot * values.len();
            self.latest[first..].iter_mut().zip(values).for_each(|(latest, value)| *latest = value);
        }
    }

    /// Bytes of the arrays and of the table, without those of the members' own.
    pub(super) fn table_bytes(&self) -> usize {
        let index = match &self.index {
            Index::Few(slots) => table_bytes::<u32, u32>(slots.capacity()),
            Index::Many(slots) => slots.capacity() * std::mem::size_of::<u32>(),
        };
        index
            + bytes(&self.keys)
            + bytes(&self.figures)
            + bytes(&self.members)
            + bytes(&self.latest_times)
            + bytes(&self.latest)
    }

    /// Returns the bytes that the arrays and the table may take in addition while they make room for `more` items.
    pub(super) fn growth_bytes(&self, more: usize, report: &Report, latest: usize, codes: usize) -> usize {
        let index = match &self.index {
            Index::Few(slots) if (slots.len() + more) * CODES_OF_AN_ITEM >= codes => {
                codes.max(more) * std::mem::size_of::<u32>()
            }
            Index::Few(slots) if slots.capacity() - slots.len() >= more => 0,
            Index::Few(slots) => table_bytes::<u32, u32>((2 * slots.capacity()).max(more)),
            Index::Many(slots) if slots.len() < codes => 2 * codes * std::mem::size_of::<u32>(),
            Index::Many(_) => 0,
        };
        index
            + growth(&self.keys, more)
            + growth(&self.figures, more * report.slots.len())
            + growth(&self.members, more * report.sketches.len())
            + growth(&self.latest_times, if latest > 0 { more } else { 0 })
            + growth(&self.latest, more * latest)
    }

    /// Bytes of the members' own, for tests.
    #[cfg(test)]
    pub(super) fn member_bytes(&self) -> usize {
        self.members.iter().map(Members::memory_bytes).sum()
    }
}

fn bytes<T>(list: &Vec<T>) -> usize {
    list.capacity() * std::mem::size_of::<T>()
}

/// Returns the bytes that a list takes in addition while it makes room for `more`; none if it has room.
fn growth<T>(list: &Vec<T>, more: usize) -> usize {
    let is_room = list.capacity() - list.len() >= more;
    if is_room { 0 } else { (2 * list.capacity()).max(list.len() + more) * std::mem::size_of::<T>() }
}
