//! Report items: their attributes, and how a delta changes an item.
//!
//! Pure, and the only module that builds and parses report items. Beside the attributes that people read, an item has
//! those that the protocol needs: the sketch of the distinct count, the version, and the batches in it ([`Applied`]).
//!
//! A day's items with the most listens are also in [top lists](crate::reports::top_lists).

use std::collections::BTreeSet;
use std::fmt;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;

use crate::aws::item::{Fields, Item, item, number, text, text_of};
use crate::calendar::date_text;
use crate::protocol::{Applied, BatchNumber};
use crate::reports::distinct::Distinct;
use crate::reports::figures::{self, Attributes, Delta, Figures, Key, LIST_SEPARATOR, Report};

/// A report item as it is stored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReportItem {
    /// Its figures.
    pub figures: Figures,
    /// Its names.
    pub attributes: Attributes,
    /// The batches in it.
    pub applied: Applied,
    /// The number of writes, raised at times; 0 if there is no item.
    pub version: u64,
}

impl ReportItem {
    /// Returns the item with a delta added, or `None` if it has the batch already. `through` is the registry's
    /// watermark.
    #[must_use]
    pub fn with(&self, delta: &Delta, batch: BatchNumber, through: BatchNumber) -> Option<Self> {
        if self.applied.contains(batch) {
            return None;
        }
        let mut next = self.clone();
        next.figures.merge(&delta.figures);
        if self.applied.is_newest(batch) {
            next.attributes.update(delta.attributes.clone());
        } else {
            next.attributes.complete(delta.attributes.clone());
        }
        next.applied = self.applied.with(batch, through);
        next.version += 1;
        Some(next)
    }

    /// Returns true if other figures would take the item out of a top list, or move it down in one: what was cut off of
    /// that list before could belong there then.
    pub fn would_leave_lists(&self, other: &Delta) -> bool {
        other.figures.listens < self.figures.listens || !other.attributes.genres.is_superset(&self.attributes.genres)
    }

    /// Returns the item with its figures replaced, or `None` if it has a batch that the new figures lack and that would
    /// be lost. Afterwards no straggler can add one of their batches again. The version is above every one that the
    /// item had.
    #[must_use]
    pub fn replaced(&self, figures: Figures, attributes: Attributes, of: Replacement) -> Option<Self> {
        if self.applied.newest() > of.through {
            return None;
        }
        let applied = Applied { through: of.last, listed: BTreeSet::new() };
        Some(ReportItem { figures, attributes, applied, version: of.now_ms.max(self.version + 1) })
    }
}

/// The batches behind the figures that replace those of items.
#[derive(Debug, Clone, Copy)]
pub struct Replacement {
    /// The number up to which every batch is finished, and is in the figures if it has rows of the day.
    pub through: BatchNumber,
    /// The last batch that has rows of the day. Only the ledger knows later numbers, and it may lose them.
    pub last: BatchNumber,
    /// Milliseconds since the Unix epoch: a version that no item reaches by counting.
    pub now_ms: u64,
    /// Figures may fall, and genres go. The top lists of the day must be filled anew afterwards.
    pub may_lower: bool,
}

/// Returns true if an item has no listens: a replay has emptied it because it should not exist. It stays,
/// so that no straggler brings it back, and is never shown.
pub fn is_empty(item: &Item) -> bool {
    number(item, "total_listens") == Some(0)
}

/// The attributes of a report item's key.
pub fn key_fields(key: &Key) -> Fields {
    vec![(key.report.key_attribute(), text(&key.id)), ("report_date", text(date_text(key.day)))]
}

/// Parses the key of an item of this report.
pub fn parse_key(report: Report, item: &Item) -> Option<Key> {
    let id = item.get(report.key_attribute())?.as_s().ok()?.clone();
    let day = crate::calendar::parse_date(item.get("report_date")?.as_s().ok()?)?;
    Some(Key { report, id, day })
}

/// The attributes that people read, without the key.
pub(super) fn visible_fields(report: Report, stored: &ReportItem) -> Fields {
    let ReportItem { figures, attributes, .. } = stored;
    let PublishedFigures { listens, listening_ms, distinct, average_ms } = PublishedFigures::of(report, figures);
    let mut fields = Vec::with_capacity(12);
    fields.push(("total_listens", AttributeValue::N(listens.to_string())));
    fields.push(("total_listening_time", AttributeValue::N(figures::seconds_text(listening_ms))));
    fields.push((report.distinct_attribute(), AttributeValue::N(distinct.to_string())));
    if let Some(average_ms) = average_ms {
        fields.push(("avg_listening_time_per_user", AttributeValue::N(figures::seconds_text(average_ms))));
    }
    let Attributes { track_name, artists, user_country, genres } = attributes;
    let labels = [("track_name", track_name), ("artists", artists), ("user_country", user_country)];
    fields.extend(labels.into_iter().filter_map(|(name, label)| Some((name, text(label.as_ref()?)))));
    if report == Report::Track {
        let genres: Vec<&str> = genres.iter().map(String::as_str).collect();
        fields.push(("track_genre", text(genres.join(&LIST_SEPARATOR.to_string()))));
    }
    fields
}

/// All attributes but the key: those that people read, and those that the protocol needs.
pub fn fields_of(report: Report, stored: &ReportItem) -> Fields {
    let mut fields = visible_fields(report, stored);
    fields.push(("sketch", AttributeValue::B(Blob::new(stored.figures.distinct.to_bytes()))));
    fields.push(("version", AttributeValue::N(stored.version.to_string())));
    fields.push(("applied_through", AttributeValue::N(stored.applied.through.to_string())));
    if !stored.applied.listed.is_empty() {
        fields.push(("applied", AttributeValue::Ns(stored.applied.listed.iter().map(ToString::to_string).collect())));
    }
    fields
}

/// The whole item.
pub fn item_of(key: &Key, stored: &ReportItem) -> Item {
    item([key_fields(key), fields_of(key.report, stored)].concat())
}

/// Parses an item. The error names the attribute that is wrong.
pub fn parse_item(report: Report, item: &Item) -> Result<ReportItem, String> {
    let needed = |name: &str| number(item, name).ok_or_else(|| format!("no whole number in {name}"));
    let optional = |name: &str| text_of(item, name);
    let listening_ms =
        seconds(item, "total_listening_time").ok_or("no seconds with at most three places in total_listening_time")?;
    let sketch = item.get("sketch").and_then(|value| value.as_b().ok()).ok_or("no bytes in sketch")?;
    let genres = if report == Report::Track { optional("track_genre").unwrap_or_default() } else { String::new() };
    Ok(ReportItem {
        figures: Figures {
            listens: needed("total_listens")?,
            listening_ms,
            distinct: Distinct::from_bytes(sketch.as_ref())?,
        },
        attributes: Attributes {
            track_name: optional("track_name"),
            artists: optional("artists"),
            genres: genres.split(LIST_SEPARATOR).filter(|genre| !genre.is_empty()).map(str::to_owned).collect(),
            user_country: optional("user_country"),
        },
        applied: applied_of(item).ok_or("no batch numbers in applied_through or applied")?,
        version: number(item, "version")
            .filter(|version| (1..u64::MAX).contains(version))
            .ok_or("no whole number in version")?,
    })
}

/// The published figures of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishedFigures {
    /// Rows counted.
    pub listens: u64,
    /// Sum of the tracks' durations, in milliseconds.
    pub listening_ms: u64,
    /// Distinct listeners or tracks.
    pub distinct: u64,
    /// Milliseconds per listener, if the report has that.
    pub average_ms: Option<u64>,
}

impl PublishedFigures {
    /// The published form of figures.
    pub fn of(report: Report, figures: &Figures) -> Self {
        let distinct = figures.distinct.count();
        let average_ms = (report != Report::Listener).then(|| figures::average_ms(figures.listening_ms, distinct));
        PublishedFigures { listens: figures.listens, listening_ms: figures.listening_ms, distinct, average_ms }
    }

    /// Parses an item; `None` if it was not written by this program.
    pub fn read(report: Report, item: &Item) -> Option<Self> {
        Some(PublishedFigures {
            listens: number(item, "total_listens")?,
            listening_ms: seconds(item, "total_listening_time")?,
            distinct: number(item, report.distinct_attribute())?,
            average_ms: match report {
                Report::Listener => None,
                Report::Track | Report::Genre => Some(seconds(item, "avg_listening_time_per_user")?),
            },
        })
    }
}

impl fmt::Display for PublishedFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = figures::seconds_text(self.listening_ms);
        write!(f, "{} listens of {time} s, {} distinct", self.listens, self.distinct)?;
        match self.average_ms {
            Some(average_ms) => write!(f, ", {} s each", figures::seconds_text(average_ms)),
            None => Ok(()),
        }
    }
}

fn seconds(item: &Item, name: &str) -> Option<u64> {
    figures::parse_seconds(item.get(name)?.as_n().ok()?)
}

/// The batches in an item.
pub fn applied_of(item: &Item) -> Option<Applied> {
    let listed = match item.get("applied") {
        Some(AttributeValue::Ns(numbers)) => {
            numbers.iter().map(|number| number.parse()).collect::<Result<_, _>>().ok()?
        }
        None => BTreeSet::new(),
        // If this counted as none, its batches could be applied again.
        Some(_) => return None,
    };
    Some(Applied { through: number(item, "applied_through")?, listed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reports::distinct::Member;
    use proptest::prelude::*;

    fn delta(users: &[i64], genres: &[&str], name: &str) -> Delta {
        let mut figures =
            Figures { listens: users.len() as u64, listening_ms: 1500 * users.len() as u64, ..Figures::default() };
        users.iter().for_each(|&user| figures.distinct.insert(Member::of_user(user)));
        let attributes = Attributes {
            track_name: Some(name.to_owned()),
            genres: genres.iter().map(|&genre| genre.to_owned()).collect(),
            ..Attributes::default()
        };
        Delta { key: Key { report: Report::Track, id: "t1".into(), day: 20_000 }, figures, attributes }
    }

    #[test]
    fn fewer_listens_or_a_genre_less_would_leave_lists() {
        let with = |delta: Delta| ReportItem::default().with(&delta, 1, 0).unwrap();
        let stored = with(delta(&[1, 2], &["pop", "rock"], "x"));
        for (users, genres, leaves) in [
            (&[1, 2][..], &["pop", "rock"][..], false),
            (&[1, 2, 3], &["jazz", "pop", "rock"], false),
            (&[1], &["pop", "rock"], true),
            (&[1, 2, 3], &["jazz", "pop"], true),
        ] {
            assert_eq!(stored.would_leave_lists(&delta(users, genres, "x")), leaves, "{users:?} {genres:?}");
        }
        assert!(!ReportItem::default().would_leave_lists(&delta(&[], &[], "x")));
    }

    #[test]
    fn names_follow_the_newest_batch_and_genres_are_kept() {
        let first = ReportItem::default().with(&delta(&[1], &["pop"], "old"), 4, 3).unwrap();
        let second = first.with(&delta(&[2], &["rock"], "new"), 6, 3).unwrap();
        let late = second.with(&delta(&[3], &["pop"], "older"), 5, 3).unwrap();
        assert_eq!(late.attributes.track_name.as_deref(), Some("new"));
        assert_eq!(late.attributes.genres.iter().collect::<Vec<_>>(), ["pop", "rock"]);
        assert_eq!((late.figures.listens, late.version), (3, 3));
        assert_eq!(late.with(&delta(&[3], &["pop"], "older"), 5, 3), None);
        assert_eq!(late.with(&delta(&[3], &["pop"], "older"), 2, 3), None, "below the watermark");
    }

    #[test]
    fn a_replaced_item_takes_later_batches_and_no_earlier_one() {
        let Delta { figures, attributes, .. } = delta(&[1, 2], &["pop"], "x");
        let stored = ReportItem::default().with(&delta(&[1], &["rock"], "old"), 4, 3).unwrap();
        let of = |through| Replacement { through, last: 6, now_ms: 1000, may_lower: true };
        assert_eq!(stored.replaced(figures.clone(), attributes.clone(), of(3)), None, "batch 4 would be lost");
        let replaced = stored.replaced(figures, attributes, of(7)).unwrap();
        assert_eq!((replaced.figures.listens, replaced.version), (2, 1000));
        assert_eq!(replaced.attributes.genres.iter().collect::<Vec<_>>(), ["pop"]);
        assert_eq!(replaced.with(&delta(&[1], &["rock"], "old"), 4, 3), None, "it has that");
        assert_eq!(replaced.with(&delta(&[3], &["pop"], "x"), 7, 6).unwrap().figures.listens, 3);
    }

    #[test]
    fn an_item_of_somebody_else_is_refused_with_the_reason() {
        let stored = ReportItem::default().with(&delta(&[1], &["pop"], "x"), 4, 3).unwrap();
        let good = item_of(&delta(&[], &[], "").key, &stored);
        for name in ["sketch", "total_listens", "total_listening_time", "version", "applied_through"] {
            let mut item = good.clone();
            item.insert(name.to_owned(), text("x"));
            assert!(parse_item(Report::Track, &item).unwrap_err().contains(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn items_survive_the_table(
            users in prop::collection::vec(1..90_i64, 1..60), batch in 5..9_u64, through in 0..4_u64,
        ) {
            let delta = delta(&users, &["a", "b"], "name");
            let stored = ReportItem::default().with(&delta, batch, through).unwrap();
            let item = item_of(&delta.key, &stored);
            prop_assert_eq!(parse_key(Report::Track, &item), Some(delta.key.clone()));
            prop_assert_eq!(parse_item(Report::Track, &item).unwrap(), stored);
        }
    }
}
