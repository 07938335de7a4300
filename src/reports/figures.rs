//! Figures: the contents of report items, and how two sets of figures become one.
//!
//! Pure. A [`Delta`] is one batch's contribution to one report item. Merging is commutative and associative, so neither
//! the order of rows nor that of batches changes a figure. Figures are integers, their slots, and sketches of distinct
//! counts ([`crate::reports::distinct`]); [`crate::plan::reports`] says what a report's slots are.
//!
//! An item shows a measure only if all its batches have it: where one side of a merge lacks it, so does the result. A
//! measure that a definition gained is so whole or absent.

use std::collections::BTreeSet;

use crate::plan::NO_NUMBER;
use crate::plan::period::Period;
use crate::plan::reports::{Figure, Report};
use crate::reports::distinct::Distinct;

/// The most values that a label with many keeps. A key has at most [`crate::reference::MAX_MANY`] at a time, and gets
/// others when the catalogue changes. The item names all of them and must stay far below DynamoDB's 400 KB, and it is
/// offered to the top list of each.
pub const MAX_VALUES: usize = 200;

/// The key of one report item.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The report, as a number of the plan.
    pub report: usize,
    /// The value that the item stands for, as text.
    pub id: String,
    /// Its day or hour.
    pub period: Period,
}

/// Labels of a report item, in the order of the report's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(pub Vec<Label>);

/// The text, or the texts, of a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Label {
    /// The newest text, if there is one.
    One(Option<String>),
    /// All texts so far, up to [`MAX_VALUES`].
    Many(BTreeSet<String>),
}

impl Labels {
    /// Takes over the labels of a newer batch. Of a label with many, texts are only added, as the item was listed under
    /// each of them.
    pub fn update(&mut self, newer: Labels) {
        self.merge(newer, |own, newer| newer.or(own));
    }

    /// Takes over the labels of an older batch where none are known, and adds the texts of a label with many.
    pub fn complete(&mut self, older: Labels) {
        self.merge(older, |own, older| own.or(older));
    }

    fn merge(&mut self, other: Labels, one: impl Fn(Option<String>, Option<String>) -> Option<String>) {
        if self.0.is_empty() {
            *self = other;
            return;
        }
        for (own, other) in self.0.iter_mut().zip(other.0) {
            match (own, other) {
                (Label::One(own), Label::One(other)) => *own = one(own.take(), other),
                (Label::Many(own), Label::Many(other)) => add(own, other),
                // Labels of one report are of one form.
                (Label::One(_), Label::Many(_)) | (Label::Many(_), Label::One(_)) => {}
            }
        }
    }

    /// Returns the texts of a label.
    pub fn texts(&self, label: usize) -> impl Iterator<Item = &str> {
        let (one, many) = match self.0.get(label) {
            None => (None, None),
            Some(Label::One(text)) => (text.as_deref(), None),
            Some(Label::Many(texts)) => (None, Some(texts)),
        };
        one.into_iter().chain(many.into_iter().flatten().map(String::as_str))
    }
}

/// Adds texts as far as there is room. Existing ones stay, as the item is in their top lists.
fn add(own: &mut BTreeSet<String>, other: BTreeSet<String>) {
    for text in other {
        if own.len() >= MAX_VALUES {
            return;
        }
        own.insert(text);
    }
}

/// The additive part of a report item. Figures without any slot are those of no row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// The slots of the report: first the number of rows. `None` if the item lacks the measure.
    pub slots: Vec<Option<i64>>,
    /// The sketches of the report's distinct counts. `None` if the item lacks the measure.
    pub distinct: Vec<Option<Distinct>>,
}

impl Figures {
    /// The figures of no row, as a report has them.
    pub fn of_none(report: &Report) -> Self {
        Figures {
            slots: report.slots.iter().map(|slot| Some(slot.merge.neutral())).collect(),
            distinct: report.sketches.iter().map(|_| Some(Distinct::default())).collect(),
        }
    }

    /// The number of rows, if it is known.
    pub fn rows(&self) -> Option<i64> {
        self.slots.first().copied().unwrap_or(Some(0))
    }

    /// The figure by which the report's top lists are ordered; `None` if there is none, or no row.
    pub fn top(&self, report: &Report) -> Option<i64> {
        let figure = self.slots.get(report.top_slot()?).copied().flatten();
        figure.filter(|&figure| figure != NO_NUMBER && self.rows() != Some(0))
    }

    /// Adds other figures of the report. The operation is commutative and associative.
    pub fn merge(&mut self, other: &Figures, report: &Report) {
        if self.slots.is_empty() {
            return self.clone_from(other);
        }
        if other.slots.is_empty() {
            return;
        }
        self.merge_slots(other, report);
        for (own, other) in self.distinct.iter_mut().zip(&other.distinct) {
            match (own.as_mut(), other) {
                (Some(own), Some(other)) => own.merge(other),
                _ => *own = None,
            }
        }
    }

    fn merge_slots(&mut self, other: &Figures, report: &Report) {
        for ((own, other), slot) in self.slots.iter_mut().zip(&other.slots).zip(&report.slots) {
            match (own.as_mut(), other) {
                (Some(own), Some(other)) => slot.merge.merge(own, *other),
                _ => *own = None,
            }
        }
    }

    /// The figures of several items together. Equal to merging one after the other, with one union for each distinct
    /// count.
    pub fn of_all<'f>(parts: impl Iterator<Item = &'f Figures> + Clone, report: &Report) -> Self {
        let parts = parts.filter(|part| !part.slots.is_empty());
        let mut all = Figures::of_none(report);
        for part in parts.clone() {
            all.merge_slots(part, report);
        }
        for (index, own) in all.distinct.iter_mut().enumerate() {
            let sets = parts.clone().map(|part| part.distinct.get(index).and_then(Option::as_ref));
            *own = sets.clone().all(|set| set.is_some()).then(|| Distinct::union(sets.flatten()));
        }
        all
    }

    /// Bytes of memory of the sketches.
    pub fn sketch_bytes(&self) -> usize {
        self.distinct.iter().flatten().map(Distinct::memory_bytes).sum()
    }
}

/// One batch's contribution to one report item.
#[derive(Debug, Clone, PartialEq)]
pub struct Delta {
    /// The item.
    pub key: Key,
    /// The figures to add.
    pub figures: Figures,
    /// The labels at the time of the batch.
    pub labels: Labels,
}

/// The value of a measure, as it is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// A number in units of 10^-places.
    Number(i128, u8),
    /// A time in microseconds since the Unix epoch.
    Time(i64),
    /// There is no value: the least or greatest of none, or a division by 0.
    Nothing,
}

/// Returns the value of each of a report's measures; `None` where the figures lack it.
pub fn shown(figures: &Figures, report: &Report) -> Vec<Option<Shown>> {
    let mut values: Vec<Option<Shown>> = report
        .measures
        .iter()
        .map(|measure| match measure.figure {
            Figure::Number { slot, places } => value_of(figures, report, slot)
                .map(|it| it.map_or(Shown::Nothing, |it| Shown::Number(it.into(), places))),
            Figure::Time { slot } => value_of(figures, report, slot).map(|it| it.map_or(Shown::Nothing, Shown::Time)),
            Figure::Distinct { sketch } => {
                let distinct = figures.distinct.get(sketch).and_then(Option::as_ref);
                distinct.map(|distinct| Shown::Number(distinct.count().into(), 0))
            }
            Figure::Ratio { .. } => None,
        })
        .collect();
    for (index, measure) in report.measures.iter().enumerate() {
        if let Figure::Ratio { of, by, places } = measure.figure
            && let (Some(of), Some(by)) = (values[of], values[by])
        {
            values[index] = Some(ratio(of, by, places));
        }
    }
    values
}

/// Returns the value of a slot: the outer one is `None` if the figures lack it, the inner one if there was no value.
fn value_of(figures: &Figures, report: &Report, slot: usize) -> Option<Option<i64>> {
    let value = (*figures.slots.get(slot)?)?;
    Some((value != NO_NUMBER).then(|| report.slots[slot].merge.slot_of(value)))
}

/// Divides, and rounds to the nearest, half away from zero.
fn ratio(of: Shown, by: Shown, places: u8) -> Shown {
    let (Shown::Number(of, of_places), Shown::Number(by, by_places)) = (of, by) else { return Shown::Nothing };
    let exponent = i32::from(places) + i32::from(by_places) - i32::from(of_places);
    let power = 10_i128.pow(exponent.unsigned_abs());
    let scaled = if exponent < 0 { (Some(of), by.checked_mul(power)) } else { (of.checked_mul(power), Some(by)) };
    // A quotient of more than 38 digits is not shown.
    let (Some(of), Some(by)) = scaled else { return Shown::Nothing };
    if by == 0 {
        return Shown::Nothing;
    }
    let (of, by) = if by < 0 { (-of, -by) } else { (of, by) };
    let rounded = (of.abs() + by / 2) / by;
    Shown::Number(if of < 0 { -rounded } else { rounded }, places)
}

/// Formats a number of units of 10^-places as an exact decimal: 1234 with 3 places is `1.234`, 1000 is `1`.
pub fn decimal_text(number: i128, places: u8) -> String {
    let unit = 10_u128.pow(u32::from(places.min(38)));
    let (sign, number) = (if number < 0 { "-" } else { "" }, number.unsigned_abs());
    let (whole, rest) = (number / unit, number % unit);
    if rest == 0 {
        return format!("{sign}{whole}");
    }
    let text = format!("{sign}{whole}.{rest:0width$}", width = usize::from(places));
    text.trim_end_matches('0').to_owned()
}

/// Parses a decimal with at most so many places into units of 10^-places: the inverse of [`decimal_text`].
pub fn parse_decimal(text: &str, places: u8) -> Option<i64> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let (is_negative, whole) = whole.strip_prefix('-').map_or((false, whole), |whole| (true, whole));
    let is_number = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_digit());
    if whole.is_empty() || rest.len() > usize::from(places) || !is_number(whole) || !is_number(rest) {
        return None;
    }
    let units: i128 = format!("{whole}{rest:0<width$}", width = usize::from(places)).parse().ok()?;
    i64::try_from(if is_negative { -units } else { units }).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::plan::reports::{Measure, Merge, Sketch, Slot};
    use crate::reports::distinct::Member;
    use proptest::prelude::*;

    /// A report with a slot of each kind and a sketch: `total`, `least`, `greatest`, `ids`, and `each` of total by ids.
    pub(crate) fn report() -> Report {
        let slot = |name: &str, merge| Slot { name: name.to_owned(), merge };
        let measure = |name: &str, figure| Measure { name: name.to_owned(), figure, unit: None };
        Report {
            name: "report".to_owned(),
            table: "table".to_owned(),
            key_attribute: "key".to_owned(),
            key: None,
            is_hourly: false,
            slots: vec![
                slot("rows", Merge::Add),
                slot("total", Merge::Add),
                slot("least", Merge::Least),
                slot("greatest", Merge::Greatest),
            ],
            rows_attribute: "count".to_owned(),
            sketches: vec![Sketch { measure: "ids".to_owned(), attribute: "sketch".to_owned() }],
            measures: vec![
                measure("count", Figure::Number { slot: 0, places: 0 }),
                measure("total", Figure::Number { slot: 1, places: 3 }),
                measure("least", Figure::Number { slot: 2, places: 0 }),
                measure("greatest", Figure::Time { slot: 3 }),
                measure("ids", Figure::Distinct { sketch: 0 }),
                measure("each", Figure::Ratio { of: 1, by: 4, places: 3 }),
            ],
            labels: Vec::new(),
            top: None,
        }
    }

    /// The figures of rows with an id and a value each.
    pub(crate) fn figures(rows: &[(i64, i64)]) -> Figures {
        let mut distinct = Distinct::default();
        rows.iter().for_each(|&(id, _)| distinct.insert(Member::of_number(id)));
        let values = || rows.iter().map(|&(_, value)| value);
        let slots = [
            rows.len() as i64,
            values().sum(),
            values().map(|value| -value).max().unwrap_or(NO_NUMBER),
            values().max().unwrap_or(NO_NUMBER),
        ];
        Figures { slots: slots.map(Some).to_vec(), distinct: vec![Some(distinct)] }
    }

    fn merged(parts: &[&Figures]) -> Figures {
        let mut all = Figures::default();
        parts.iter().for_each(|part| all.merge(part, &report()));
        all
    }

    fn rows() -> impl Strategy<Value = Vec<(i64, i64)>> {
        prop::collection::vec((1..500_i64, -70_000..70_000_i64), 0..300)
    }

    proptest! {
        #[test]
        fn merging_is_commutative_and_associative(a in rows(), b in rows(), c in rows()) {
            let visible = |figures: &Figures| shown(figures, &report());
            let (fa, fb, fc) = (figures(&a), figures(&b), figures(&c));
            let expected = visible(&figures(&[a, b, c].concat()));
            let right = merged(&[&fb, &fc]);
            let left = merged(&[&fa, &fb]);
            let orders = [vec![&fa, &fb, &fc], vec![&fc, &fa, &fb], vec![&fb, &fc, &fa]];
            let pairs = [vec![&fa, &right], vec![&left, &fc]];
            for parts in orders.into_iter().chain(pairs) {
                prop_assert_eq!(visible(&merged(&parts)), expected.clone());
            }
        }

        /// A measure is shown if all parts have it, in whatever order they come.
        #[test]
        fn what_one_part_lacks_the_whole_lacks(
            parts in prop::collection::vec((rows(), any::<[bool; 5]>()), 1..5), seed in any::<u64>(),
        ) {
            let part = |(rows, has): &(Vec<(i64, i64)>, [bool; 5])| {
                let mut figures = figures(rows);
                for (slot, _) in figures.slots.iter_mut().zip(has).filter(|(_, has)| !**has) {
                    *slot = None;
                }
                figures.distinct[0] = figures.distinct[0].take().filter(|_| has[4]);
                figures
            };
            let mut figures: Vec<Figures> = parts.iter().map(part).collect();
            let whole = merged(&figures.iter().collect::<Vec<_>>());
            for slot in 0..4 {
                prop_assert_eq!(whole.slots[slot].is_some(), parts.iter().all(|(_, has)| has[slot]));
            }
            prop_assert_eq!(whole.distinct[0].is_some(), parts.iter().all(|(_, has)| has[4]));
            let places = figures.len();
            figures.swap(0, seed as usize % places);
            prop_assert_eq!(shown(&merged(&figures.iter().collect::<Vec<_>>()), &report()), shown(&whole, &report()));
        }

        #[test]
        fn decimals_are_exact(number in i64::MIN + 1..i64::MAX, places in 0..16_u8) {
            prop_assert_eq!(parse_decimal(&decimal_text(number.into(), places), places), Some(number));
        }
    }

    #[test]
    fn large_sets_merge_in_any_order_to_one_estimate_within_two_per_cent() {
        let ids = |part: i64| (part * 15_000..part * 15_000 + 30_000).map(|id| (id + 1, 1)).collect::<Vec<_>>();
        let sets: Vec<_> = (0..4).map(|part| figures(&ids(part))).collect();
        let distinct = |figures: &Figures| figures.distinct[0].as_ref().unwrap().count();
        let forwards = merged(&sets.iter().collect::<Vec<_>>());
        let backwards = merged(&sets.iter().rev().collect::<Vec<_>>());
        assert_eq!(distinct(&forwards), distinct(&backwards));
        let expected = 75_000_f64;
        let error = (distinct(&forwards) as f64 - expected).abs() / expected;
        assert!(error < 0.02, "off by {error}");
        assert!(forwards.distinct[0].as_ref().unwrap().to_bytes().len() < 9_000);
    }

    #[test]
    fn the_figures_of_no_row_change_nothing() {
        let some = figures(&[(1, -5), (2, 7)]);
        let none = Figures::of_none(&report());
        assert_eq!(shown(&merged(&[&none, &some]), &report()), shown(&some, &report()));
        assert_eq!((none.rows(), Figures::default().rows()), (Some(0), Some(0)));
        let nothing =
            [Some(Shown::Number(0, 0)), Some(Shown::Number(0, 3)), Some(Shown::Nothing), Some(Shown::Nothing)];
        assert_eq!(shown(&none, &report())[..4], nothing);
        assert_eq!(shown(&none, &report())[5], Some(Shown::Nothing), "a division by 0");
    }

    #[test]
    fn a_label_with_many_keeps_the_texts_that_it_had_first() {
        let texts = |numbers: std::ops::Range<usize>| {
            Labels(vec![Label::Many(numbers.map(|number| format!("{number:04}")).collect())])
        };
        for take_over in [Labels::update, Labels::complete] {
            let mut labels = texts(1000..1150);
            take_over(&mut labels, texts(0..100));
            take_over(&mut labels, texts(2000..2100));
            let kept: Vec<&str> = labels.texts(0).collect();
            assert_eq!(kept.len(), MAX_VALUES);
            assert!(texts(1000..1150).texts(0).all(|text| kept.contains(&text)));
            assert!(kept.contains(&"0049") && !kept.contains(&"0050"));
        }
    }

    #[test]
    fn decimals_and_ratios() {
        assert_eq!(decimal_text(1_230, 3), "1.23");
        assert_eq!(decimal_text(60_000, 3), "60");
        assert_eq!(decimal_text(-5, 2), "-0.05");
        assert_eq!(parse_decimal("1.2345", 3), None);
        for text in ["", "-", ".5", "1e3", "+1", "9223372036854775808"] {
            assert_eq!(parse_decimal(text, 3), None, "{text}");
        }
        let of = |of, by, places| ratio(Shown::Number(of, 3), Shown::Number(by, 0), places);
        assert_eq!(of(10, 4, 3), Shown::Number(3, 3), "2.5 is rounded away from zero");
        assert_eq!(of(-10, 4, 3), Shown::Number(-3, 3));
        assert_eq!(of(10, -4, 3), Shown::Number(-3, 3));
        assert_eq!(of(10, 3, 3), Shown::Number(3, 3));
        assert_eq!(of(12_345, 1, 0), Shown::Number(12, 0));
        assert_eq!(of(10, 0, 3), Shown::Nothing);
        assert_eq!(ratio(Shown::Number(1, 0), Shown::Number(8, 2), 9), Shown::Number(12_500_000_000, 9));
    }
}
