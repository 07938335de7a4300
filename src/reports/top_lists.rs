//! Top lists: the greatest items of a period by one measure, of all and under each value of some labels, kept as one
//! item each.
//!
//! Pure. After a batch has written its report items, it offers each list the entries that it touched. A list keeps the
//! best of all offers, as many as the report says. The measure only grows, so an entry that was cut off can come back
//! only by a change of its own item, which is offered when it happens: a list is exact whatever the order and
//! repetition of offers.
//!
//! * An entry carries its item's version, and the higher one wins.
//! * A rebuild may lower figures. It replaces the items, then empties the lists and raises their **epoch**, then offers
//!   all items anew. An offer counts only in the epoch that was seen before its item was read; else the item is read
//!   again.
//!
//! Format of an item (keys `list`, `report_date`): `columns` (the names of the attributes of the report item that
//! people read, and `version`), `entries` (a list of lists of their values, an empty text for an attribute that an item
//! lacks), `version`, `epoch`, and `rebuilding` while a rebuild has not offered everything yet. Names stand once and
//! not in each entry: they would be more than half of it, and each write of a list is paid by its size.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::aws::item::{Fields, Item, number, text, text_of, whole};
use crate::plan::Plan;
use crate::plan::period::Period;
use crate::plan::reports::{Figure, Report};
use crate::reports::figures::{Key, Labels, parse_decimal};
use crate::reports::item::{ReportItem, visible_fields};

/// The sort key of the table of top lists: it has days and hours.
pub const PERIOD_ATTRIBUTE: &str = "report_date";
/// The table of top lists, without the prefix.
pub const TOP_LISTS_TABLE: &str = "top_lists";
/// Characters of a label in an entry, if it has one text: more than people read.
const MAX_LABEL_CHARS: usize = 256;

/// The key of a list.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListKey {
    /// `REPORT`, or `REPORT#LABEL#TEXT` for the items with this text in a label.
    pub list: String,
    /// The day or hour.
    pub period: Period,
}

impl ListKey {
    /// The list of all items of a report's period.
    pub fn of_all(report: &Report, period: Period) -> Self {
        ListKey { list: report.name.clone(), period }
    }

    /// The list of a report's items with this text in a label.
    pub fn under(report: &Report, label: &str, text: &str, period: Period) -> Self {
        ListKey { list: format!("{}#{label}#{text}", report.name), period }
    }

    /// The lists that an item with these labels belongs to.
    pub fn of_item(report: &Report, period: Period, labels: &Labels) -> Vec<Self> {
        let Some(top) = &report.top else { return Vec::new() };
        let mut lists = vec![ListKey::of_all(report, period)];
        for &label in &top.under {
            let name = &report.labels[label].name;
            lists.extend(labels.texts(label).map(|text| ListKey::under(report, name, text, period)));
        }
        lists
    }

    /// The report whose items the list has, as a number of the plan; `None` if the plan has no such list.
    pub fn report(&self, plan: &Plan) -> Option<usize> {
        let name = self.list.split_once('#').map_or(self.list.as_str(), |(name, _)| name);
        plan.report_named(name).filter(|&report| plan.reports[report].top.is_some())
    }

    /// The key attributes of its item.
    pub fn fields(&self) -> Fields<'static> {
        vec![("list", text(&self.list)), (PERIOD_ATTRIBUTE, text(self.period.to_string()))]
    }

    /// Reads the key of an item; `None` where it is not one.
    pub fn parse(item: &Item) -> Option<Self> {
        Some(ListKey { list: text_of(item, "list")?, period: Period::parse(&text_of(item, PERIOD_ATTRIBUTE)?)? })
    }
}

/// An entry of a list, or the offer of one.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The id of the report item.
    pub id: String,
    /// Its figure, by which a list is ordered; `None` if it does not belong into a list, having no rows or no figure.
    pub figure: Option<i64>,
    /// The version of the report item that it was made of.
    pub version: u64,
    /// The values that people read, in the order of the list's columns.
    pub shown: Vec<AttributeValue>,
}

/// The columns of a report's entries that people read; the first is the id.
fn columns(report: &Report) -> impl Iterator<Item = &str> {
    let measures = report.measures.iter().map(|measure| measure.name.as_str());
    let labels = report.labels.iter().map(|label| label.name.as_str());
    std::iter::once(report.key_attribute.as_str()).chain(measures).chain(labels)
}

/// The column of the version, after those.
const VERSION: &str = "version";

/// The value of an attribute that a report item lacks. One that it has may be NULL.
fn lacking() -> AttributeValue {
    AttributeValue::S(String::new())
}

impl Entry {
    /// The entry of a report item.
    pub fn of(report: &Report, key: &Key, stored: &ReportItem) -> Self {
        let mut fields = visible_fields(report, stored);
        for (name, value) in &mut fields {
            let Some(label) = report.labels.iter().find(|label| label.name == *name) else { continue };
            let AttributeValue::S(text) = value else { continue };
            // All entries together have to fit into an item.
            let end = text.floor_char_boundary(report.top.as_ref().map_or(0, |top| top.label_bytes));
            match label.many {
                None => {
                    let end = text[..end].char_indices().nth(MAX_LABEL_CHARS).map_or(end, |(end, _)| end);
                    if end < text.len() {
                        text.truncate(end);
                        text.push('…');
                    }
                }
                Some(separator) if end < text.len() => {
                    text.truncate(text[..end].rfind(separator).unwrap_or(end));
                    text.extend([separator, '…']);
                }
                Some(_) => {}
            }
        }
        fields.push((&report.key_attribute, text(&key.id)));
        let shown = columns(report).map(|column| {
            let field = fields.iter_mut().find(|(name, _)| *name == column);
            taken(field.map(|(_, value)| value))
        });
        let shown = shown.collect();
        Entry { id: key.id.clone(), figure: stored.figures.top(report), version: stored.version, shown }
    }

    /// The attributes that people read, by name, as they are in the report item.
    pub fn attributes(&self, report: &Report) -> Item {
        let named = columns(report).zip(&self.shown).filter(|(_, value)| **value != lacking());
        named.map(|(name, value)| (name.to_owned(), value.clone())).collect()
    }

    /// Reads an entry; `None` where it is not one. The list has a value of each column, and of the version after them,
    /// at these places.
    fn parse(report: &Report, places: &[Option<usize>], value: AttributeValue) -> Option<Self> {
        let AttributeValue::L(mut values) = value else { return None };
        let mut shown: Vec<AttributeValue> =
            places.iter().map(|place| taken(place.and_then(|place| values.get_mut(place)))).collect();
        let version = whole(&shown.pop()?)?;
        let id = shown.first()?.as_s().ok().filter(|id| !id.is_empty())?.clone();
        let figure = Some(top_figure(report, shown.get(1 + report.top.as_ref()?.measure)?)?);
        // The version before wrote NULL for a label that an item lacks.
        for label in shown.iter_mut().skip(1 + report.measures.len()).filter(|label| label.is_null()) {
            *label = lacking();
        }
        Some(Entry { id, figure, version, shown })
    }

    fn rank(&self) -> Rank<'_> {
        rank(self.figure, &self.id)
    }
}

/// Takes a value, and leaves the one of a lacking attribute, which is also what there is where there is none.
fn taken(value: Option<&mut AttributeValue>) -> AttributeValue {
    value.map_or_else(lacking, |value| std::mem::replace(value, lacking()))
}

/// The place of an item in a list: the lower, the better.
type Rank<'i> = (Reverse<Option<i64>>, &'i str);

fn rank(figure: Option<i64>, id: &str) -> Rank<'_> {
    (Reverse(figure), id)
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
        let mut entries: Vec<&Arc<Entry>> = newest.into_values().filter(|entry| entry.figure.is_some()).collect();
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
    pub fn fields(&self, report: &Report) -> Fields<'static> {
        let columns = columns(report).chain([VERSION]).map(text);
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
    pub fn parse(report: &Report, mut item: Item) -> Option<Self> {
        let AttributeValue::L(names) = item.remove("columns")? else { return None };
        let names: Vec<&str> = names.iter().map(|name| name.as_s().ok().map(String::as_str)).collect::<Option<_>>()?;
        let columns = columns(report).chain([VERSION]);
        let places: Vec<Option<usize>> = columns.map(|column| names.iter().position(|name| *name == column)).collect();
        let AttributeValue::L(entries) = item.remove("entries")? else { return None };
        let entries = entries.into_iter().map(|entry| Entry::parse(report, &places, entry).map(Arc::new));
        Some(TopList {
            entries: entries.collect::<Option<_>>()?,
            version: number(&item, "version").filter(|version| (1..u64::MAX).contains(version))?,
            epoch: number(&item, "epoch").filter(|epoch| *epoch < u64::MAX)?,
            rebuilding: item.get("rebuilding").and_then(|value| value.as_bool().ok()).copied().unwrap_or(false),
        })
    }
}

/// Reads the figure by which a list is ordered.
fn top_figure(report: &Report, value: &AttributeValue) -> Option<i64> {
    match report.measures[report.top.as_ref()?.measure].figure {
        Figure::Number { places, .. } => parse_decimal(value.as_n().ok()?, places),
        Figure::Time { .. } => {
            let time: jiff::Timestamp = value.as_s().ok()?.parse().ok()?;
            Some(time.as_microsecond())
        }
        Figure::Distinct { .. } | Figure::Ratio { .. } => None,
    }
}

/// Offers to lists, each with the best of its entries. More than that of one batch cannot come into a list.
#[derive(Debug, Default)]
pub struct Offers(BTreeMap<ListKey, Best>);

/// The best entries for one list.
#[derive(Debug, Default)]
struct Best {
    entries: Vec<Arc<Entry>>,
    /// The last of those that a list keeps, once there were twice as many.
    last: Option<Arc<Entry>>,
}

impl Offers {
    /// Offers an item to those of its lists that `is_known`.
    pub fn add(&mut self, report: &Report, key: &Key, stored: &ReportItem, is_known: impl Fn(&ListKey) -> bool) {
        let Some(top) = &report.top else { return };
        let (mut entry, figure): (Option<Arc<Entry>>, _) = (None, stored.figures.top(report));
        for list in ListKey::of_item(report, key.period, &stored.labels).into_iter().filter(|list| is_known(list)) {
            let best = self.0.entry(list).or_default();
            // Most items of a large batch are in no list, and an entry is made only for those that may be.
            if best.last.as_ref().is_none_or(|last| rank(figure, &key.id) < last.rank()) {
                best.add(Arc::clone(entry.get_or_insert_with(|| Arc::new(Entry::of(report, key, stored)))), top.keep);
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
    fn add(&mut self, entry: Arc<Entry>, keep: usize) {
        self.entries.push(entry);
        if self.entries.len() >= 2 * keep {
            self.entries.sort_by(|one, other| one.rank().cmp(&other.rank()));
            self.entries.truncate(keep);
            self.last = self.entries.last().cloned();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::reports::Top;
    use crate::reports::distinct::Distinct;
    use crate::reports::figures::tests::{figures, report};
    use crate::reports::figures::{Figures, Label};
    use proptest::prelude::*;

    #[test]
    fn an_entry_has_all_that_people_read_and_is_read_as_it_was_written() {
        let plan = Plan::built_in().unwrap();
        for report in plan.reports.iter().filter(|report| report.top.is_some()) {
            let key = Key { report: 0, id: "x".to_owned(), period: Period::Day(0) };
            let one = |label: &crate::plan::reports::Label| match label.many {
                None => Label::One(Some("Name".to_owned())),
                Some(_) => Label::Many(["folk", "jazz"].map(str::to_owned).into()),
            };
            let figures = Figures {
                slots: report.slots.iter().map(|_| Some(3)).collect(),
                distinct: report.sketches.iter().map(|_| Some(Distinct::default())).collect(),
            };
            let bare = ReportItem { figures, version: 7, ..ReportItem::default() };
            let labels = Labels(report.labels.iter().map(one).collect());
            let full = ReportItem { labels, ..bare.clone() };
            let mut expected: Item = crate::aws::item::item(visible_fields(report, &full));
            expected.insert(report.key_attribute.clone(), text("x"));
            let (full, bare) = (Entry::of(report, &key, &full), Entry::of(report, &key, &bare));
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
        fn offers_have_what_may_come_into_a_list(
            totals in prop::collection::vec(1..60_i64, 0..700), keep in 1..120_usize,
        ) {
            let top = Top { measure: 1, under: Vec::new(), keep, label_bytes: 1024 };
            let report = Report { top: Some(top), ..report() };
            let list = ListKey::of_all(&report, Period::Day(0));
            let mut offers = Offers::default();
            for (id, &total) in totals.iter().enumerate() {
                let key = Key { report: 0, id: format!("{id:03}"), period: Period::Day(0) };
                let stored = ReportItem { figures: figures(&[(1, total)]), version: 1, ..ReportItem::default() };
                offers.add(&report, &key, &stored, |known| *known == list);
            }
            prop_assert!(offers.entries() < 2 * keep);
            let mut best: Vec<(i64, String)> =
                totals.iter().enumerate().map(|(id, &total)| (total, format!("{id:03}"))).collect();
            best.sort_by(|one, other| other.0.cmp(&one.0).then(one.1.cmp(&other.1)));
            best.truncate(keep);
            let offered = offers.into_lists().remove(&list).unwrap_or_default();
            let made = TopList::default().with(&offered, keep).unwrap_or_default();
            let made: Vec<(i64, String)> =
                made.entries.iter().map(|entry| (entry.figure.unwrap(), entry.id.clone())).collect();
            prop_assert_eq!(made, best);
        }
    }
}
