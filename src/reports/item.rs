//! Report items: their attributes, and how a delta changes an item.
//!
//! Pure, and the only module that builds and parses report items. Beside the attributes that people read, an item has
//! those that the protocol needs: the sketches of distinct counts, the version, and the batches in it ([`Applied`]).
//!
//! The greatest items of a period are also in [top lists](crate::reports::top_lists).

use std::collections::BTreeSet;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;

use crate::aws::item::{Fields, Item, item, number, text, text_of};
use crate::plan::NO_NUMBER;
use crate::plan::period::Period;
use crate::plan::reports::{Figure, Merge, ROWS_ATTRIBUTE, Report, SKETCH_ATTRIBUTE, Sketch};
use crate::protocol::{Applied, BatchNumber};
use crate::reports::distinct::Distinct;
use crate::reports::figures::{Delta, Figures, Key, Label, Labels, Shown, decimal_text, parse_decimal, shown};

/// A report item as it is stored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReportItem {
    /// Its figures.
    pub figures: Figures,
    /// Its labels.
    pub labels: Labels,
    /// The batches in it.
    pub applied: Applied,
    /// The number of writes, raised at times; 0 if there is no item.
    pub version: u64,
}

impl ReportItem {
    /// Returns the item with a delta added, or `None` if it has the batch already. `through` is the registry's
    /// watermark.
    #[must_use]
    pub fn with(&self, delta: &Delta, report: &Report, batch: BatchNumber, through: BatchNumber) -> Option<Self> {
        if self.applied.contains(batch) {
            return None;
        }
        let mut next = self.clone();
        next.figures.merge(&delta.figures, report);
        if self.applied.is_newest(batch) {
            next.labels.update(delta.labels.clone());
        } else {
            next.labels.complete(delta.labels.clone());
        }
        next.applied = self.applied.with(batch, through);
        next.version += 1;
        Some(next)
    }

    /// Returns true if other figures would take the item out of a top list, or move it down in one: what was cut off of
    /// that list before could belong there then.
    pub fn would_leave_lists(&self, other: &Delta, report: &Report) -> bool {
        let Some(top) = &report.top else { return false };
        let is_gone = |label: usize, text| other.labels.texts(label).all(|kept| kept != text);
        other.figures.top(report) < self.figures.top(report)
            || top.under.iter().any(|&label| self.labels.texts(label).any(|text| is_gone(label, text)))
    }

    /// Returns the item with its figures replaced, or `None` if it has a batch that the new figures lack and that would
    /// be lost. Afterwards no straggler can add one of their batches again. The version is above every one that the
    /// item had.
    #[must_use]
    pub fn replaced(&self, figures: Figures, labels: Labels, report: &Report, of: Replacement) -> Option<Self> {
        if self.applied.newest() > of.through {
            return None;
        }
        let figures = if figures.slots.is_empty() { Figures::of_none(report) } else { figures };
        let applied = Applied { through: of.last, listed: BTreeSet::new() };
        Some(ReportItem { figures, labels, applied, version: of.now_ms.max(self.version + 1) })
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
    /// Figures may fall, and texts of labels go. The top lists of the day must be filled anew afterwards.
    pub may_lower: bool,
}

/// Returns true if an item has no rows: a replay has emptied it because it should not exist. It stays, so that no
/// straggler brings it back, and is never shown.
pub fn is_empty(report: &Report, item: &Item) -> bool {
    number(item, &report.rows_attribute) == Some(0)
}

/// The attributes of a report item's key.
pub fn key_fields<'n>(report: &'n Report, key: &Key) -> Fields<'n> {
    vec![(&report.key_attribute, text(&key.id)), (key.period.attribute(), text(key.period.to_string()))]
}

/// Parses the key of an item of a report, whose number is `index`.
pub fn parse_key(report: &Report, index: usize, item: &Item) -> Option<Key> {
    let id = item.get(&report.key_attribute)?.as_s().ok()?.clone();
    let attribute = report.period_attribute();
    let period = Period::parse(item.get(attribute)?.as_s().ok()?)?;
    Some(Key { report: index, id, period }).filter(|key| key.period.attribute() == attribute)
}

/// The attributes that people read, without the key.
pub(super) fn visible_fields<'n>(report: &'n Report, stored: &ReportItem) -> Fields<'n> {
    let mut fields = Vec::with_capacity(report.measures.len() + report.labels.len() + report.sketches.len() + 4);
    for (measure, value) in report.measures.iter().zip(shown(&stored.figures, report)) {
        let value = match (value, measure.figure) {
            (Some(Shown::Number(number, places)), _) => AttributeValue::N(decimal_text(number, places)),
            (Some(Shown::Time(micros)), _) => text(time_text(micros)),
            (Some(Shown::Nothing), Figure::Ratio { .. }) | (None, _) => continue,
            (Some(Shown::Nothing), _) => AttributeValue::Null(true),
        };
        fields.push((measure.name.as_str(), value));
    }
    for (label, value) in report.labels.iter().zip(&stored.labels.0) {
        let value = match value {
            Label::One(value) => value.clone(),
            Label::Many(texts) => (!texts.is_empty()).then(|| {
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                texts.join(&label.many.map(String::from).unwrap_or_default())
            }),
        };
        fields.extend(value.map(|value| (label.name.as_str(), text(value))));
    }
    fields
}

/// All attributes but the key: those that people read, and those that the protocol needs.
pub fn fields_of<'n>(report: &'n Report, stored: &ReportItem) -> Fields<'n> {
    let mut fields = visible_fields(report, stored);
    for (sketch, distinct) in report.sketches.iter().zip(&stored.figures.distinct) {
        let distinct = distinct.as_ref().map(|distinct| AttributeValue::B(Blob::new(distinct.to_bytes())));
        fields.extend(distinct.map(|distinct| (sketch.attribute.as_str(), distinct)));
    }
    // Otherwise a measure is the number of rows.
    if let Some(rows) = stored.figures.rows().filter(|_| report.rows_attribute == ROWS_ATTRIBUTE) {
        fields.push((ROWS_ATTRIBUTE, AttributeValue::N(rows.to_string())));
    }
    fields.push(("version", AttributeValue::N(stored.version.to_string())));
    fields.push(("applied_through", AttributeValue::N(stored.applied.through.to_string())));
    if !stored.applied.listed.is_empty() {
        fields.push(("applied", AttributeValue::Ns(stored.applied.listed.iter().map(ToString::to_string).collect())));
    }
    fields
}

/// The whole item.
pub fn item_of(report: &Report, key: &Key, stored: &ReportItem) -> Item {
    item([key_fields(report, key), fields_of(report, stored)].concat())
}

/// Returns the attributes that not every item of a report has.
pub fn optional_attributes(report: &Report) -> Vec<String> {
    let labels = report.labels.iter().map(|label| label.name.clone());
    let measures = report.measures.iter().map(|measure| measure.name.clone());
    let sketches = report.sketches.iter().map(|sketch| Sketch::attribute_of(&sketch.measure));
    labels.chain(measures).chain(sketches).chain([SKETCH_ATTRIBUTE.to_owned(), "applied".to_owned()]).collect()
}

/// Parses an item. The error names the attribute that is wrong.
pub fn parse_item(report: &Report, item: &Item) -> Result<ReportItem, String> {
    let mut slots = vec![None; report.slots.len()];
    slots[0] = slot(item, &report.rows_attribute, 0, Merge::Add)?;
    if slots[0].is_some_and(|rows| rows < 0) {
        return Err(format!("a negative number in {}", report.rows_attribute));
    }
    for measure in &report.measures {
        match measure.figure {
            Figure::Number { slot: 0, .. } | Figure::Distinct { .. } | Figure::Ratio { .. } => {}
            Figure::Number { slot: place, places } => {
                slots[place] = slot(item, &measure.name, places, report.slots[place].merge)?;
            }
            Figure::Time { slot: place } => slots[place] = time_slot(item, &measure.name, report.slots[place].merge)?,
        }
    }
    let distinct = report.sketches.iter().map(|sketch| sketch_of(report, sketch, item));
    Ok(ReportItem {
        figures: Figures { slots, distinct: distinct.collect::<Result<_, _>>()? },
        labels: Labels(report.labels.iter().map(|label| label_of(label, item)).collect()),
        applied: applied_of(item).ok_or("no batch numbers in applied_through or applied")?,
        version: number(item, "version")
            .filter(|version| (1..u64::MAX).contains(version))
            .ok_or("no whole number in version")?,
    })
}

/// Reads a slot. The inner one is `None` if the item lacks the measure.
fn slot(item: &Item, name: &str, places: u8, merge: Merge) -> Result<Option<i64>, String> {
    match item.get(name) {
        None => Ok(None),
        Some(AttributeValue::Null(_)) if merge != Merge::Add => Ok(Some(NO_NUMBER)),
        Some(value) => {
            let number = value.as_n().ok().and_then(|number| parse_decimal(number, places));
            let number = number.ok_or_else(|| format!("no number with at most {places} places in {name}"))?;
            Ok(Some(merge.slot_of(number)))
        }
    }
}

fn time_slot(item: &Item, name: &str, merge: Merge) -> Result<Option<i64>, String> {
    match item.get(name) {
        None => Ok(None),
        Some(AttributeValue::Null(_)) => Ok(Some(NO_NUMBER)),
        Some(value) => {
            let time = value.as_s().ok().and_then(|time| time.parse::<jiff::Timestamp>().ok());
            let time = time.ok_or_else(|| format!("no time in {name}"))?;
            Ok(Some(merge.slot_of(time.as_microsecond())))
        }
    }
}

/// Reads a sketch, `None` if the item lacks the measure. An item of a report that had one distinct count has it under
/// the plain name.
fn sketch_of(report: &Report, Sketch { measure, attribute }: &Sketch, item: &Item) -> Result<Option<Distinct>, String> {
    if !item.contains_key(measure) {
        return Ok(None);
    }
    let is_only = || report.sketches.iter().filter(|sketch| item.contains_key(&sketch.measure)).count() == 1;
    let as_only = || item.get(SKETCH_ATTRIBUTE).filter(|_| is_only());
    let value = item.get(attribute).or_else(|| item.get(&Sketch::attribute_of(measure))).or_else(as_only);
    let bytes = value.and_then(|value| value.as_b().ok()).ok_or_else(|| format!("no bytes in {attribute}"))?;
    Distinct::from_bytes(bytes.as_ref()).map(Some).map_err(|problem| format!("{attribute} is {problem}"))
}

fn label_of(label: &crate::plan::reports::Label, item: &Item) -> Label {
    let value = text_of(item, &label.name);
    match label.many {
        None => Label::One(value),
        Some(separator) => {
            let texts = value.unwrap_or_default();
            Label::Many(texts.split(separator).filter(|text| !text.is_empty()).map(str::to_owned).collect())
        }
    }
}

/// Formats a time in microseconds since the Unix epoch by ISO 8601, in UTC.
pub fn time_text(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros).unwrap_or_default().to_string()
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
    use crate::plan::Plan;
    use crate::reports::distinct::Member;
    use crate::reports::figures::tests::{figures, report};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn plan() -> Arc<Plan> {
        Plan::built_in().unwrap()
    }

    fn tracks() -> Report {
        plan().reports[0].clone()
    }

    fn delta(users: &[i64], genres: &[&str], name: &str) -> Delta {
        let mut distinct = Distinct::default();
        users.iter().for_each(|&user| distinct.insert(Member::of_number(user)));
        let rows = users.len() as i64;
        let one = |text: &str| Label::One(Some(text.to_owned()));
        let genres = Label::Many(genres.iter().map(|&genre| genre.to_owned()).collect());
        Delta {
            key: Key { report: 0, id: "t1".into(), period: Period::Day(20_000) },
            figures: Figures { slots: vec![Some(rows), Some(1500 * rows)], distinct: vec![Some(distinct)] },
            labels: Labels(vec![one(name), Label::Many(BTreeSet::new()), genres]),
        }
    }

    fn genres(item: &ReportItem) -> Vec<&str> {
        item.labels.texts(2).collect()
    }

    #[test]
    fn fewer_rows_or_a_text_less_would_leave_lists() {
        let tracks = tracks();
        let with = |delta: Delta| ReportItem::default().with(&delta, &tracks, 1, 0).unwrap();
        let stored = with(delta(&[1, 2], &["pop", "rock"], "x"));
        for (users, genres, leaves) in [
            (&[1, 2][..], &["pop", "rock"][..], false),
            (&[1, 2, 3], &["jazz", "pop", "rock"], false),
            (&[1], &["pop", "rock"], true),
            (&[1, 2, 3], &["jazz", "pop"], true),
        ] {
            assert_eq!(stored.would_leave_lists(&delta(users, genres, "x"), &tracks), leaves, "{users:?} {genres:?}");
            let without = Report { top: None, ..tracks.clone() };
            assert!(!stored.would_leave_lists(&delta(users, genres, "x"), &without));
        }
        assert!(!ReportItem::default().would_leave_lists(&delta(&[], &[], "x"), &tracks));
    }

    #[test]
    fn labels_follow_the_newest_batch_and_those_of_many_are_kept() {
        let tracks = tracks();
        let first = ReportItem::default().with(&delta(&[1], &["pop"], "old"), &tracks, 4, 3).unwrap();
        let second = first.with(&delta(&[2], &["rock"], "new"), &tracks, 6, 3).unwrap();
        let late = second.with(&delta(&[3], &["pop"], "older"), &tracks, 5, 3).unwrap();
        assert_eq!(late.labels.texts(0).collect::<Vec<_>>(), ["new"]);
        assert_eq!(genres(&late), ["pop", "rock"]);
        assert_eq!((late.figures.rows(), late.version), (Some(3), 3));
        assert_eq!(late.with(&delta(&[3], &["pop"], "older"), &tracks, 5, 3), None);
        assert_eq!(late.with(&delta(&[3], &["pop"], "older"), &tracks, 2, 3), None, "below the watermark");
    }

    #[test]
    fn a_replaced_item_takes_later_batches_and_no_earlier_one() {
        let tracks = tracks();
        let Delta { figures, labels, .. } = delta(&[1, 2], &["pop"], "x");
        let stored = ReportItem::default().with(&delta(&[1], &["rock"], "old"), &tracks, 4, 3).unwrap();
        let of = |through| Replacement { through, last: 6, now_ms: 1000, may_lower: true };
        assert_eq!(stored.replaced(figures.clone(), labels.clone(), &tracks, of(3)), None, "batch 4 would be lost");
        let replaced = stored.replaced(figures, labels, &tracks, of(7)).unwrap();
        assert_eq!((replaced.figures.rows(), replaced.version), (Some(2), 1000));
        assert_eq!(genres(&replaced), ["pop"]);
        assert_eq!(replaced.with(&delta(&[1], &["rock"], "old"), &tracks, 4, 3), None, "it has that");
        assert_eq!(replaced.with(&delta(&[3], &["pop"], "x"), &tracks, 7, 6).unwrap().figures.rows(), Some(3));
        // Without rows, it is empty and has every figure.
        let emptied = stored.replaced(Figures::default(), Labels::default(), &tracks, of(7)).unwrap();
        let item = item_of(&tracks, &delta(&[], &[], "").key, &emptied);
        assert!(is_empty(&tracks, &item) && item.contains_key("unique_users"));
    }

    /// What a deployment of the version before has written.
    #[test]
    fn an_item_has_the_attributes_that_it_had_before_definitions() {
        let (tracks, delta) = (tracks(), delta(&[1, 2], &["rock", "pop"], "Song"));
        let stored = ReportItem::default().with(&delta, &tracks, 4, 3).unwrap();
        let item = item_of(&tracks, &delta.key, &stored);
        let mut shown: Vec<String> = item
            .iter()
            .filter(|(name, _)| *name != "sketch")
            .map(|(name, value)| format!("{name} {}", value.as_s().or(value.as_n()).map_or("set", String::as_str)))
            .collect();
        shown.sort();
        let expected = [
            "applied set",
            "applied_through 3",
            "avg_listening_time_per_user 1.5",
            "report_date 2024-10-04",
            "total_listening_time 3",
            "total_listens 2",
            "track_genre pop;rock",
            "track_id t1",
            "track_name Song",
            "unique_users 2",
            "version 1",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn an_item_of_somebody_else_is_refused_with_the_reason() {
        let tracks = tracks();
        let stored = ReportItem::default().with(&delta(&[1], &["pop"], "x"), &tracks, 4, 3).unwrap();
        let good = item_of(&tracks, &delta(&[], &[], "").key, &stored);
        for name in ["sketch", "total_listens", "total_listening_time", "version", "applied_through"] {
            let mut item = good.clone();
            item.insert(name.to_owned(), text("x"));
            assert!(parse_item(&tracks, &item).unwrap_err().contains(name), "{name}");
        }
        for name in ["sketch", "version", "applied_through"] {
            let mut item = good.clone();
            item.remove(name);
            assert!(parse_item(&tracks, &item).unwrap_err().contains(name), "{name}");
        }
    }

    #[test]
    fn a_measure_that_an_item_lacks_is_not_made_up() {
        let tracks = tracks();
        let stored = ReportItem::default().with(&delta(&[1], &["pop"], "x"), &tracks, 4, 3).unwrap();
        let mut item = item_of(&tracks, &delta(&[], &[], "").key, &stored);
        item.remove("total_listening_time");
        let next = parse_item(&tracks, &item).unwrap().with(&delta(&[2], &["pop"], "x"), &tracks, 5, 3).unwrap();
        let item = item_of(&tracks, &delta(&[], &[], "").key, &next);
        assert_eq!(item["total_listens"], AttributeValue::N("2".to_owned()));
        assert_eq!(
            ["total_listening_time", "avg_listening_time_per_user"].map(|name| item.contains_key(name)),
            [false; 2]
        );
    }

    #[test]
    fn a_sketch_is_found_after_another_distinct_count_came() {
        let (one, mut two) = (report(), report());
        two.sketches[0].attribute = "sketch_ids".to_owned();
        two.sketches.push(Sketch { measure: "more".to_owned(), attribute: "sketch_more".to_owned() });
        two.measures.push(crate::plan::reports::Measure {
            name: "more".to_owned(),
            figure: Figure::Distinct { sketch: 1 },
            unit: None,
        });
        let key = Key { report: 0, id: "*".to_owned(), period: Period::Day(1) };
        let stored = ReportItem { figures: figures(&[(1, 1), (2, 1)]), version: 1, ..ReportItem::default() };
        let found = parse_item(&two, &item_of(&one, &key, &stored)).unwrap();
        assert_eq!(found.figures.distinct[0].as_ref().map(Distinct::count), Some(2));
        assert_eq!(found.figures.distinct[1], None);
    }

    proptest! {
        #[test]
        fn items_survive_the_table(
            users in prop::collection::vec(1..90_i64, 1..60), batch in 5..9_u64, through in 0..4_u64,
            rows in prop::collection::vec((1..9_i64, -5_000_000_000..5_000_000_000_i64), 0..9),
        ) {
            let (tracks, delta) = (tracks(), delta(&users, &["a", "b"], "name"));
            let stored = ReportItem::default().with(&delta, &tracks, batch, through).unwrap();
            let item = item_of(&tracks, &delta.key, &stored);
            prop_assert_eq!(parse_key(&tracks, 0, &item), Some(delta.key.clone()));
            prop_assert_eq!(parse_item(&tracks, &item).unwrap(), stored);

            let (report, key) = (report(), Key { report: 3, id: "*".to_owned(), period: Period::Day(1) });
            let stored = ReportItem { figures: figures(&rows), version: 1, ..ReportItem::default() };
            let item = item_of(&report, &key, &stored);
            prop_assert_eq!(parse_key(&report, 3, &item), Some(key));
            prop_assert_eq!(parse_item(&report, &item).unwrap(), stored);
        }
    }
}
