//! A table: items in memory, conditional writes, and what all of it would cost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::item::{Item, Value, bytes, half_read_units, write_units};

/// The failure of an operation on a table.
#[derive(Debug)]
pub enum Failure {
    /// The condition does not hold of the item that is there.
    Condition(Option<Arc<Item>>),
    /// The request is wrong, for this reason.
    Invalid(String),
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Failure::Invalid(reason)
    }
}

impl From<&str> for Failure {
    fn from(reason: &str) -> Self {
        Failure::Invalid(reason.to_owned())
    }
}

/// What a table has counted. Units are those of on-demand capacity.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Counts {
    /// Items that were written or deleted.
    pub writes: u64,
    /// Of these, items that were not there before.
    pub new_items: u64,
    pub write_units: u64,
    /// Write units of the indexes alone.
    pub index_units: u64,
    /// Writes whose condition did not hold. They are paid for the item that is there.
    pub failed: u64,
    pub failed_units: u64,
    pub items_read: u64,
    pub half_read_units: u64,
    /// Bytes of items written.
    pub written_bytes: u64,
    /// The time of the last write that succeeded, in milliseconds since the Unix epoch.
    pub last_write_ms: u64,
}

/// An index: its keys, and the attributes that are projected into it; all, if none are named.
#[derive(Debug, Clone)]
pub struct Index {
    pub hash: String,
    pub range: String,
    pub projected: Vec<String>,
}

/// Partition and sort key.
pub type Key = (String, String);

/// A table of items with a partition and a sort key, both text.
#[derive(Debug)]
pub struct Table {
    pub hash: String,
    pub range: String,
    pub indexes: Vec<Index>,
    items: BTreeMap<Key, Arc<Item>>,
    pub counts: Counts,
}

impl Table {
    pub fn new(hash: String, range: String, indexes: Vec<Index>) -> Self {
        Table { hash, range, indexes, items: BTreeMap::new(), counts: Counts::default() }
    }

    pub fn key_of(&self, item: &Item) -> Result<Key, Failure> {
        let part = |name: &String| match item.get(name).and_then(Value::text) {
            Some("") => Err(format!(
                "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an \
                 empty string value. Key: {name}"
            )),
            Some(text) => Ok(text.to_owned()),
            None => Err(format!("One or more parameter values were invalid: Missing the key {name} in the item")),
        };
        Ok((part(&self.hash)?, part(&self.range)?))
    }

    pub fn peek(&self, key: &Key) -> Option<Arc<Item>> {
        self.items.get(key).cloned()
    }

    /// Reads an item. One that is not there is paid as the smallest.
    pub fn read(&mut self, key: &Key, is_consistent: bool) -> Option<Arc<Item>> {
        let item = self.peek(key);
        self.count_read(item.as_deref(), is_consistent);
        item
    }

    fn count_read(&mut self, item: Option<&Item>, is_consistent: bool) {
        self.counts.items_read += u64::from(item.is_some());
        self.counts.half_read_units += half_read_units(item.map_or(0, bytes), is_consistent);
    }

    /// Reads items in the order of their keys, from the one after `after` on, of one partition or of all, up to a
    /// number or a megabyte. Returns whether there may be more.
    pub fn read_many(
        &mut self,
        partition: Option<&str>,
        after: Option<&Key>,
        most: usize,
        is_consistent: bool,
    ) -> (Vec<Arc<Item>>, bool) {
        let first = partition.map_or_else(Key::default, |hash| (hash.to_owned(), String::new()));
        let first = after.cloned().unwrap_or(first);
        let (mut found, mut size) = (Vec::new(), 0);
        let mut more = false;
        for (key, item) in self.items.range(first..) {
            if partition.is_some_and(|hash| key.0 != hash) {
                break;
            }
            if after == Some(key) {
                continue;
            }
            if found.len() == most || size > 1 << 20 {
                more = true;
                break;
            }
            size += bytes(item);
            found.push(item.clone());
        }
        self.counts.items_read += found.len() as u64;
        self.counts.half_read_units += half_read_units(size, is_consistent);
        (found, more)
    }

    /// Writes what `change` makes of the item that is there, or deletes it for `None`. `transactional` writes are paid
    /// twice.
    pub fn write(
        &mut self,
        key: &Key,
        transactional: bool,
        change: impl FnOnce(Option<&Arc<Item>>) -> Result<Option<Item>, Failure>,
    ) -> Result<(), Failure> {
        let before = self.items.get(key).cloned();
        let size = before.as_deref().map_or(0, bytes);
        let factor = if transactional { 2 } else { 1 };
        match change(before.as_ref()) {
            Ok(next) => {
                let next_size = next.as_ref().map_or(0, bytes);
                let counts = &mut self.counts;
                counts.writes += 1;
                counts.new_items += u64::from(before.is_none());
                counts.write_units += write_units(size.max(next_size)) * factor;
                counts.written_bytes += next_size as u64;
                counts.last_write_ms = now_ms();
                for index in &self.indexes {
                    self.counts.index_units += index.units(before.as_deref(), next.as_ref());
                }
                match next {
                    Some(next) => drop(self.items.insert(key.clone(), Arc::new(next))),
                    None => drop(self.items.remove(key)),
                }
                Ok(())
            }
            Err(Failure::Condition(_)) => {
                self.counts.failed += 1;
                self.counts.failed_units += write_units(size) * factor;
                Err(Failure::Condition(before))
            }
            Err(failure) => Err(failure),
        }
    }
}

impl Index {
    /// Write units of a change: one entry is written where the keys stay and the rest changes, and one is deleted and
    /// another written where the keys change.
    fn units(&self, before: Option<&Item>, next: Option<&Item>) -> u64 {
        let entry = |item: Option<&Item>| -> Option<Item> {
            let item = item.filter(|item| item.contains_key(&self.hash) && item.contains_key(&self.range))?;
            let is_projected = |name: &String| {
                self.projected.is_empty()
                    || self.projected.contains(name)
                    || [&self.hash, &self.range].contains(&name)
                    || name == "report_date"
                    || name.ends_with("_id")
                    || name == "track_genre"
            };
            Some(item.iter().filter(|(name, _)| is_projected(name)).map(|(k, v)| (k.clone(), v.clone())).collect())
        };
        let units = |entry: &Item| write_units(bytes(entry));
        match (entry(before), entry(next)) {
            (Some(before), Some(next)) if before == next => 0,
            (Some(before), Some(next))
                if before[&self.hash] == next[&self.hash] && before[&self.range] == next[&self.range] =>
            {
                units(&before).max(units(&next))
            }
            (before, next) => before.as_ref().map_or(0, units) + next.as_ref().map_or(0, units),
        }
    }
}

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}
