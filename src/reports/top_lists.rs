//! Top lists: the items of a day with the most listens, of all and of each genre, kept as one item each.
//!
//! Pure. After a batch has written its report items, it offers each list the entries that it touched. A list keeps the
//! best [`MAX_ENTRIES`] of all offers. Listens only grow, so an entry that was cut off can come back only by a change
//! of its own item, which is offered when it happens: a list is exact whatever the order and repetition of offers.
//!
//! * An entry carries its item's version, and the higher one wins.
//! * A rebuild may lower listens. It replaces the items, then empties the lists and raises their **epoch**, then offers
//!   all items anew. An offer counts only in the epoch that was seen before its item was read; else the item is read
//!   again.
//!
//! Format of an item (keys `list`, `report_date`): `entries` (a list of maps: the attributes of the report item that
//! people read, and `version`), `version`, `epoch`, and `rebuilding` while a rebuild has not offered everything yet.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::aws::item::{Item, number, text, text_of};
use crate::calendar::{date_text, parse_date};
use crate::reports::figures::{Key, LIST_SEPARATOR, Report};
use crate::reports::item::{ReportItem, visible_attributes};

/// The table of top lists, without the prefix.
pub const TOP_LISTS_TABLE: &str = "top_lists";
/// Entries of a list.
pub const MAX_ENTRIES: usize = 100;
/// Characters of a name in an entry, and bytes of its genres: a hundred entries must stay below DynamoDB's 400 KB.
const MAX_LABEL_CHARS: usize = 256;
const MAX_GENRES_BYTES: usize = 1024;

/// The key of a list.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListKey {
    /// `tracks`, `genres`, `listeners`, or `tracks#track_genre#GENRE`.
    pub list: String,
    /// The day, in days since the Unix epoch (UTC).
    pub day: i32,
}

impl ListKey {
    /// The list of all items of a report's day.
    pub fn of_report(report: Report, day: i32) -> Self {
        let list = match report {
            Report::Track => "tracks",
            Report::Genre => "genres",
            Report::Listener => "listeners",
        };
        ListKey { list: list.to_owned(), day }
    }

    /// The list of a genre's tracks.
    pub fn of_genre(genre: &str, day: i32) -> Self {
        ListKey { list: format!("tracks#track_genre#{genre}"), day }
    }

    /// The lists that an item with these genres belongs to.
    pub fn of_item<'a>(key: &Key, genres: impl IntoIterator<Item = &'a String>) -> Vec<Self> {
        let mut lists = vec![ListKey::of_report(key.report, key.day)];
        if key.report == Report::Track {
            lists.extend(genres.into_iter().map(|genre| ListKey::of_genre(genre, key.day)));
        }
        lists
    }

    /// The report whose items the list has.
    pub fn report(&self) -> Report {
        match self.list.as_str() {
            "genres" => Report::Genre,
            "listeners" => Report::Listener,
            _ => Report::Track,
        }
    }

    /// The key attributes of its item.
    pub fn item(&self) -> Item {
        HashMap::from([("list".to_owned(), text(&self.list)), ("report_date".to_owned(), text(date_text(self.day)))])
    }

    /// Reads the key of an item; `None` where it is not one.
    pub fn parse(item: &Item) -> Option<Self> {
        Some(ListKey { list: text_of(item, "list")?, day: parse_date(&text_of(item, "report_date")?)? })
    }
}

/// An entry of a list, or the offer of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The track id, genre or user id.
    pub id: String,
    /// Its listens, by which a list is ordered.
    pub listens: u64,
    /// The version of the report item that it was made of.
    pub version: u64,
    /// The attributes that people read.
    pub shown: Item,
}

impl Entry {
    /// The entry of a report item.
    pub fn of(key: &Key, stored: &ReportItem) -> Self {
        let mut shown = visible_attributes(key, stored);
        shown.remove("report_date");
        for name in ["track_name", "artists", "user_country"] {
            if let Some(AttributeValue::S(label)) = shown.get_mut(name)
                && let Some((end, _)) = label.char_indices().nth(MAX_LABEL_CHARS)
            {
                label.truncate(end);
                label.push('…');
            }
        }
        if let Some(AttributeValue::S(genres)) = shown.get_mut("track_genre")
            && genres.len() > MAX_GENRES_BYTES
        {
            let end = genres.floor_char_boundary(MAX_GENRES_BYTES);
            let end = genres[..end].rfind(LIST_SEPARATOR).unwrap_or(end);
            genres.truncate(end);
            genres.push_str(";…");
        }
        Entry { id: key.id.clone(), listens: stored.figures.listens, version: stored.version, shown }
    }

    fn rank(&self) -> (Reverse<u64>, &str) {
        (Reverse(self.listens), &self.id)
    }
}

/// A list as it is stored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TopList {
    /// Its entries, best first. An item's entry is shared by all lists that it is offered to.
    pub entries: Vec<Arc<Entry>>,
    /// The number of writes; 0 where there is no item.
    pub version: u64,
    /// The time of the last rebuild in milliseconds; 0 before the first.
    pub epoch: u64,
    /// A rebuild has not offered everything yet.
    pub rebuilding: bool,
}

impl TopList {
    /// Returns the list with these offers in it, of at most `most` entries; `None` where they change nothing.
    #[must_use]
    pub fn with(&self, offers: &[Arc<Entry>], most: usize) -> Option<Self> {
        let mut newest: BTreeMap<&str, &Arc<Entry>> = BTreeMap::new();
        for entry in self.entries.iter().chain(offers) {
            match newest.get(entry.id.as_str()) {
                Some(known) if known.version >= entry.version => {}
                _ => {
                    newest.insert(&entry.id, entry);
                }
            }
        }
        let mut entries: Vec<&Arc<Entry>> = newest.into_values().filter(|entry| entry.listens > 0).collect();
        entries.sort_by(|one, other| one.rank().cmp(&other.rank()));
        entries.truncate(most);
        if entries.iter().copied().eq(&self.entries) {
            return None;
        }
        let entries = entries.into_iter().cloned().collect();
        Some(TopList { entries, version: self.version + 1, ..*self })
    }

    /// Returns the list as a rebuild marks it before it changes any item.
    #[must_use]
    pub fn marked(&self) -> Self {
        TopList { version: self.version + 1, rebuilding: true, ..self.clone() }
    }

    /// Returns the list empty and in a new epoch, which is a time in milliseconds, so that none comes again when a list
    /// was deleted.
    #[must_use]
    pub fn restarted(&self, now_ms: u64) -> Self {
        let epoch = now_ms.max(self.epoch + 1);
        TopList { entries: Vec::new(), version: self.version + 1, epoch, rebuilding: true }
    }

    /// Returns the list as a rebuild leaves it.
    #[must_use]
    pub fn completed(&self) -> Self {
        TopList { version: self.version + 1, rebuilding: false, ..self.clone() }
    }

    /// Its attributes, without the key.
    pub fn attributes(&self) -> Item {
        let entries = self.entries.iter().map(|entry| {
            let mut shown = entry.shown.clone();
            shown.insert("version".to_owned(), AttributeValue::N(entry.version.to_string()));
            AttributeValue::M(shown)
        });
        HashMap::from([
            ("entries".to_owned(), AttributeValue::L(entries.collect())),
            ("version".to_owned(), AttributeValue::N(self.version.to_string())),
            ("epoch".to_owned(), AttributeValue::N(self.epoch.to_string())),
            ("rebuilding".to_owned(), AttributeValue::Bool(self.rebuilding)),
        ])
    }

    /// Reads a list; `None` where the item is not what this program writes.
    pub fn parse(report: Report, item: &Item) -> Option<Self> {
        let entry = |value: &AttributeValue| {
            let mut shown = value.as_m().ok()?.clone();
            let version = number(&shown, "version")?;
            shown.remove("version");
            let id = text_of(&shown, report.key_attribute())?;
            Some(Arc::new(Entry { id, listens: number(&shown, "total_listens")?, version, shown }))
        };
        Some(TopList {
            entries: item.get("entries")?.as_l().ok()?.iter().map(entry).collect::<Option<_>>()?,
            version: number(item, "version").filter(|version| (1..u64::MAX).contains(version))?,
            epoch: number(item, "epoch").filter(|epoch| *epoch < u64::MAX)?,
            rebuilding: item.get("rebuilding").and_then(|value| value.as_bool().ok()).copied().unwrap_or(false),
        })
    }
}

/// Offers to lists, each with the best of its entries. More than that of one batch cannot come into a list.
#[derive(Debug, Default)]
pub struct Offers(BTreeMap<ListKey, Vec<Arc<Entry>>>);

impl Offers {
    /// Offers an item to those of its lists that `is_known`.
    pub fn add(&mut self, key: &Key, stored: &ReportItem, is_known: impl Fn(&ListKey) -> bool) {
        let entry = Arc::new(Entry::of(key, stored));
        for list in ListKey::of_item(key, &stored.attributes.genres).into_iter().filter(|list| is_known(list)) {
            let entries = self.0.entry(list).or_default();
            entries.push(Arc::clone(&entry));
            if entries.len() >= 2 * MAX_ENTRIES {
                entries.sort_by(|one, other| one.rank().cmp(&other.rank()));
                entries.truncate(MAX_ENTRIES);
            }
        }
    }

    /// Returns the number of entries in all lists.
    pub fn entries(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Returns the offers by list.
    pub fn into_lists(self) -> BTreeMap<ListKey, Vec<Arc<Entry>>> {
        self.0
    }
}
