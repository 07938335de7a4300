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
//! Format of an item (keys `list`, `report_date`): `columns` (the names of the attributes of the report item that
//! people read, and `version`), `entries` (a list of lists of their values, NULL for an attribute that an item lacks),
//! `version`, `epoch`, and `rebuilding` while a rebuild has not offered everything yet. Names stand once and not in
//! each entry: they would be more than half of it, and each write of a list is paid by its size.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::aws::item::{Fields, Item, number, text, text_of, whole};
use crate::calendar::{date_text, parse_date};
use crate::reports::figures::{Key, LIST_SEPARATOR, Report};
use crate::reports::item::{ReportItem, visible_fields};

/// The table of top lists, without the prefix.
pub const TOP_LISTS_TABLE: &str = "top_lists";
/// Entries of a list.
pub const MAX_ENTRIES: usize = 100;
/// Characters of a name in an entry, and bytes of its genres: a hundred entries must stay below DynamoDB's 400 KB.
const MAX_LABEL_CHARS: usize = 256;
const MAX_GENRES_BYTES: usize = 1024;

/// The columns that all entries have: the id and the listens are the first of those that people read.
const ID: usize = 0;
const LISTENS: usize = 1;
const VERSION: &str = "version";

/// The columns of a report's entries that people read.
fn columns(report: Report) -> &'static [&'static str] {
    const AVERAGE: &str = "avg_listening_time_per_user";
    match report {
        Report::Track => &[
            "track_id",
            "total_listens",
            "total_listening_time",
            "unique_users",
            AVERAGE,
            "track_name",
            "artists",
            "track_genre",
        ],
        Report::Genre => &["track_genre", "total_listens", "total_listening_time", "unique_users", AVERAGE],
        Report::Listener => &["user_id", "total_listens", "total_listening_time", "unique_tracks", "user_country"],
    }
}

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
    pub fn fields(&self) -> Fields {
        vec![("list", text(&self.list)), ("report_date", text(date_text(self.day)))]
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
    /// The values that people read, in the order of the list's columns.
    pub shown: Vec<AttributeValue>,
}

impl Entry {
    /// The entry of a report item.
    pub fn of(key: &Key, stored: &ReportItem) -> Self {
        let mut fields = visible_fields(key.report, stored);
        for (name, value) in &mut fields {
            let AttributeValue::S(label) = value else { continue };
            if *name == "track_genre" && label.len() > MAX_GENRES_BYTES {
                let end = label.floor_char_boundary(MAX_GENRES_BYTES);
                label.truncate(label[..end].rfind(LIST_SEPARATOR).unwrap_or(end));
                label.push_str(";…");
            } else if *name != "track_genre"
                && let Some((end, _)) = label.char_indices().nth(MAX_LABEL_CHARS)
            {
                label.truncate(end);
                label.push('…');
            }
        }
        fields.push((key.report.key_attribute(), text(&key.id)));
        let shown = columns(key.report).iter().map(|column| {
            let field = fields.iter_mut().find(|(name, _)| name == column);
            taken(field.map(|(_, value)| value))
        });
        let (listens, version) = (stored.figures.listens, stored.version);
        Entry { id: key.id.clone(), listens, version, shown: shown.collect() }
    }

    /// The attributes that people read, by name, as they are in the report item.
    pub fn attributes(&self, report: Report) -> Item {
        let named = columns(report).iter().zip(&self.shown).filter(|(_, value)| !value.is_null());
        named.map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    /// Reads an entry; `None` where it is not one. The list has a value of each column, and of the version after them,
    /// at these places.
    fn parse(places: &[Option<usize>], value: AttributeValue) -> Option<Self> {
        let AttributeValue::L(mut values) = value else { return None };
        let mut shown: Vec<AttributeValue> =
            places.iter().map(|place| taken(place.and_then(|place| values.get_mut(place)))).collect();
        let version = whole(&shown.pop()?)?;
        let id = shown.get(ID)?.as_s().ok()?.clone();
        Some(Entry { id, listens: whole(shown.get(LISTENS)?)?, version, shown })
    }

    fn rank(&self) -> (Reverse<u64>, &str) {
        rank(self.listens, &self.id)
    }
}

/// Takes a value, and leaves NULL; NULL where there is none.
fn taken(value: Option<&mut AttributeValue>) -> AttributeValue {
    value.map_or(AttributeValue::Null(true), |value| std::mem::replace(value, AttributeValue::Null(true)))
}

/// The place of an item in a list: the lower, the better.
fn rank(listens: u64, id: &str) -> (Reverse<u64>, &str) {
    (Reverse(listens), id)
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
    pub fn fields(&self, report: Report) -> Fields {
        let columns = columns(report).iter().chain([&VERSION]).map(|&name| text(name));
        let entries = self.entries.iter().map(|entry| {
            let mut values = Vec::with_capacity(entry.shown.len() + 1);
            values.extend_from_slice(&entry.shown);
            values.push(AttributeValue::N(entry.version.to_string()));
            AttributeValue::L(values)
        });
        vec![
            ("columns", AttributeValue::L(columns.collect())),
            ("entries", AttributeValue::L(entries.collect())),
            ("version", AttributeValue::N(self.version.to_string())),
            ("epoch", AttributeValue::N(self.epoch.to_string())),
            ("rebuilding", AttributeValue::Bool(self.rebuilding)),
        ]
    }

    /// Reads a list; `None` where the item is not what this program writes.
    pub fn parse(report: Report, mut item: Item) -> Option<Self> {
        let AttributeValue::L(names) = item.remove("columns")? else { return None };
        let names: Vec<&str> = names.iter().map(|name| name.as_s().ok().map(String::as_str)).collect::<Option<_>>()?;
        let columns = columns(report).iter().chain([&VERSION]);
        let places: Vec<Option<usize>> = columns.map(|column| names.iter().position(|name| name == column)).collect();
        let AttributeValue::L(entries) = item.remove("entries")? else { return None };
        let entries = entries.into_iter().map(|entry| Entry::parse(&places, entry).map(Arc::new));
        Some(TopList {
            entries: entries.collect::<Option<_>>()?,
            version: number(&item, "version").filter(|version| (1..u64::MAX).contains(version))?,
            epoch: number(&item, "epoch").filter(|epoch| *epoch < u64::MAX)?,
            rebuilding: item.get("rebuilding").and_then(|value| value.as_bool().ok()).copied().unwrap_or(false),
        })
    }
}

/// Offers to lists, each with the best of its entries. More than that of one batch cannot come into a list.
#[derive(Debug, Default)]
pub struct Offers(BTreeMap<ListKey, Best>);

/// The best entries for one list.
#[derive(Debug, Default)]
struct Best {
    entries: Vec<Arc<Entry>>,
    /// The last of the best [`MAX_ENTRIES`], once there were twice as many.
    last: Option<Arc<Entry>>,
}

impl Offers {
    /// Offers an item to those of its lists that `is_known`.
    pub fn add(&mut self, key: &Key, stored: &ReportItem, is_known: impl Fn(&ListKey) -> bool) {
        let mut entry: Option<Arc<Entry>> = None;
        for list in ListKey::of_item(key, &stored.attributes.genres).into_iter().filter(|list| is_known(list)) {
            let best = self.0.entry(list).or_default();
            // Most items of a large batch are in no list, and an entry is made only for those that may be.
            if best.last.as_ref().is_none_or(|last| rank(stored.figures.listens, &key.id) < last.rank()) {
                best.add(Arc::clone(entry.get_or_insert_with(|| Arc::new(Entry::of(key, stored)))));
            }
        }
    }

    /// Returns the number of entries in all lists.
    pub fn entries(&self) -> usize {
        self.0.values().map(|best| best.entries.len()).sum()
    }

    /// Returns the offers by list.
    pub fn into_lists(self) -> BTreeMap<ListKey, Vec<Arc<Entry>>> {
        self.0.into_iter().map(|(list, best)| (list, best.entries)).collect()
    }
}

impl Best {
    fn add(&mut self, entry: Arc<Entry>) {
        self.entries.push(entry);
        if self.entries.len() >= 2 * MAX_ENTRIES {
            self.entries.sort_by(|one, other| one.rank().cmp(&other.rank()));
            self.entries.truncate(MAX_ENTRIES);
            self.last = self.entries.last().cloned();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reports::figures::Figures;
    use proptest::prelude::*;

    #[test]
    fn an_entry_has_all_that_people_read_and_is_read_as_it_was_written() {
        for report in Report::ALL {
            let key = Key { report, id: "x".to_owned(), day: 0 };
            let mut stored = ReportItem { version: 7, ..ReportItem::default() };
            stored.figures = Figures { listens: 3, listening_ms: 4_500, ..Figures::default() };
            let bare = Entry::of(&key, &stored);
            match report {
                Report::Track => {
                    stored.attributes.track_name = Some("Name".to_owned());
                    stored.attributes.artists = Some("Artists".to_owned());
                    stored.attributes.genres = ["folk", "jazz"].map(str::to_owned).into();
                }
                Report::Genre => {}
                Report::Listener => stored.attributes.user_country = Some("Country".to_owned()),
            }
            let full = Entry::of(&key, &stored);
            let mut expected: Item = crate::aws::item::item(visible_fields(report, &stored));
            expected.insert(report.key_attribute().to_owned(), text("x"));
            assert_eq!(full.attributes(report), expected);

            let list = TopList { entries: vec![full.into(), bare.into()], version: 2, ..TopList::default() };
            let mut stored = crate::aws::item::item(list.fields(report));
            assert_eq!(TopList::parse(report, stored.clone()), Some(list.clone()));
            // In another order of columns, and with one that is not known.
            let AttributeValue::L(names) = stored.get_mut("columns").unwrap() else { panic!() };
            names.reverse();
            names.push(text("other"));
            let AttributeValue::L(entries) = stored.get_mut("entries").unwrap() else { panic!() };
            for entry in entries {
                let AttributeValue::L(values) = entry else { panic!() };
                values.reverse();
            }
            assert_eq!(TopList::parse(report, stored), Some(list));
        }
    }

    proptest! {
        #[test]
        fn offers_have_what_may_come_into_a_list(listens in prop::collection::vec(1..60_u64, 0..700)) {
            let list = ListKey::of_report(Report::Listener, 0);
            let mut offers = Offers::default();
            for (id, &listens) in listens.iter().enumerate() {
                let key = Key { report: Report::Listener, id: format!("{id:03}"), day: 0 };
                let figures = Figures { listens, ..Figures::default() };
                let stored = ReportItem { figures, version: 1, ..ReportItem::default() };
                offers.add(&key, &stored, |known| *known == list);
            }
            prop_assert!(offers.entries() < 2 * MAX_ENTRIES);
            let mut best: Vec<(u64, String)> =
                listens.iter().enumerate().map(|(id, &listens)| (listens, format!("{id:03}"))).collect();
            best.sort_by(|one, other| other.0.cmp(&one.0).then(one.1.cmp(&other.1)));
            best.truncate(MAX_ENTRIES);
            let offered = offers.into_lists().remove(&list).unwrap_or_default();
            let made = TopList::default().with(&offered, MAX_ENTRIES).unwrap_or_default();
            let made: Vec<(u64, String)> = made.entries.iter().map(|entry| (entry.listens, entry.id.clone())).collect();
            prop_assert_eq!(made, best);
        }
    }
}
