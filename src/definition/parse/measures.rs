//! Measures of a report.

use crate::definition::columns::Type;
use crate::definition::conditions::Condition;
use crate::definition::keys::figures::MEASURE;
use crate::definition::keys::limits::{MAX_DISTINCTS, MEASURES};
use crate::definition::keys::shape::list;
use crate::definition::parse::conditions::conditions;
use crate::definition::parse::fields::{Fields, Told, items};
use crate::definition::parse::names::{Known, Names, Origin};
use crate::definition::parse::tree::{Entry, Value};
use crate::definition::parse::values::{is_free, is_name};
use crate::definition::problems::{Found, Reported, instead, nearest};
use crate::definition::reports::{Aggregate, Measure, Unit};

/// A measure as far as it could be read before all of its report are known.
pub(super) struct MeasureDraft<'n> {
    pub(super) name: Told<&'n str>,
    named: Result<(), Reported>,
    /// The figure. Of a ratio without `places` they are those of its first part, which may not be known yet.
    pub(super) aggregate: Result<Aggregate, Reported>,
    conditions: Result<Vec<Condition>, Reported>,
    unit: Option<Unit>,
    /// Of a ratio the places of its parts' names, and `places`.
    ratio: Option<([Told<&'n str>; 2], Option<u8>)>,
}

/// Reads all measures of a report with this key.
pub(super) fn measures<'n>(
    entries: &'n [Entry],
    key: Option<&str>,
    names: &Names,
    found: &mut Found<'_>,
) -> Vec<MeasureDraft<'n>> {
    let drafts: Vec<MeasureDraft<'n>> = entries.iter().map(|entry| measure(entry, key, names, found)).collect();
    let mut distincts = drafts.iter().filter(|draft| matches!(draft.aggregate, Ok(Aggregate::Distinct { .. })));
    if let Some(draft) = distincts.nth(MAX_DISTINCTS) {
        let message =
            format!("more than {MAX_DISTINCTS} distinct counts: an item holds the sketch of each, up to 8 KiB");
        found.add(draft.name.at, message);
    }
    drafts
}

fn measure<'n>(entry: &'n Entry, key: Option<&str>, names: &Names, found: &mut Found<'_>) -> MeasureDraft<'n> {
    let named = is_name(&entry.key, entry.span, found).and_then(|()| is_free(&entry.key, entry.span, found));
    let mut draft = MeasureDraft {
        name: Told { value: entry.key.as_str(), at: entry.span },
        named,
        aggregate: Ok(Aggregate::Count),
        conditions: Ok(Vec::new()),
        unit: None,
        ratio: None,
    };
    let Value::Table(entries) = &entry.node.value else {
        draft.aggregate = is_count(entry, found).map(|()| Aggregate::Count);
        return draft;
    };
    let fields = Fields::read(&MEASURE, (format!("the measure '{}'", entry.key), entry.span), items(entries), found);
    let kind = kind(entry, entries, &fields, found);
    draft.conditions = conditions(fields.entries("where"), names, found);
    draft.aggregate = kind.and_then(|kind| aggregate(entry, kind, &fields, key, names, found));
    draft.aggregate = draft.aggregate.and_then(|aggregate| fields.all_good().map(|()| aggregate));
    draft.unit = match fields.text("unit") {
        Some(Told { value: "seconds", .. }) => Some(Unit::Seconds),
        Some(Told { value: "bytes", .. }) => Some(Unit::Bytes),
        _ => None,
    };
    if let &[of, by] = fields.texts("ratio").as_slice() {
        draft.ratio = Some(([of, by], fields.whole("places").map(|places| places as u8)));
    }
    draft
}

/// Checks a measure that is no table.
fn is_count(entry: &Entry, found: &mut Found<'_>) -> Result<(), Reported> {
    let text = entry.node.text().map(|text| text.value);
    if text == Some("count") {
        return Ok(());
    }
    let near = match text.and_then(|text| nearest(text, MEASURES)) {
        None => String::new(),
        Some("count") => "; write \"count\"".to_owned(),
        Some("ratio") => "; write { ratio = [\"…\", \"…\"] }".to_owned(),
        Some(kind) => format!("; write {{ {kind} = \"…\" }}"),
    };
    let message = format!("'{}' takes \"count\", or a table such as {{ sum = \"amount\" }}{near}", entry.key);
    Err(found.add(entry.node.span, message))
}

/// The kind of a measure: the one key that is there.
fn kind(
    entry: &Entry,
    entries: &[Entry],
    fields: &Fields<'_>,
    found: &mut Found<'_>,
) -> Result<&'static str, Reported> {
    let is_there = |kind: &&str| entries.iter().any(|entry| entry.key == *kind);
    let kinds: Vec<&'static str> = MEASURES.into_iter().filter(is_there).collect();
    let message = match kinds.as_slice() {
        [kind] => return Ok(kind),
        [] => {
            // An unknown key was meant to be one, and has a message.
            fields.all_good()?;
            format!("'{}' is to have one of {}", entry.key, list(MEASURES.map(str::to_owned), "and"))
        }
        several => {
            let several = list(several.iter().map(ToString::to_string), "and");
            format!("'{}' has {several}; write a measure of its own for each", entry.key)
        }
    };
    Err(found.add(entry.span, message))
}

fn aggregate(
    entry: &Entry,
    kind: &'static str,
    fields: &Fields<'_>,
    key: Option<&str>,
    names: &Names,
    found: &mut Found<'_>,
) -> Result<Aggregate, Reported> {
    match kind {
        "count" => return Ok(Aggregate::Count),
        "ratio" => {
            let part = |index: usize| fields.texts("ratio").get(index).map_or("", |part| part.value).to_owned();
            return Ok(Aggregate::Ratio { of: part(0), by: part(1), places: 0 });
        }
        _ => {}
    }
    let of = fields.needed_text(kind, found)?;
    let known = names.field(&format!("{} is the {kind} of '{}', which", entry.key, of.value), of, found)?;
    is_measurable(entry, kind, known, of, key, found)?;
    let of = of.value.to_owned();
    Ok(match kind {
        "sum" => Aggregate::Sum { of, divide: fields.whole("divide").unwrap_or(1).unsigned_abs() as u32 },
        "min" => Aggregate::Min { of },
        "max" => Aggregate::Max { of },
        _ => Aggregate::Distinct { of },
    })
}

/// Checks that a measure may be of a field.
fn is_measurable(
    entry: &Entry,
    kind: &str,
    known: &Known,
    of: Told<&str>,
    key: Option<&str>,
    found: &mut Found<'_>,
) -> Result<(), Reported> {
    let type_ = known.type_.as_ref().map_err(|reported| *reported)?;
    let (name, is) = (&entry.key, format!("'{}' is {}", of.value, known.kind()));
    let message = match (kind, type_, &known.origin) {
        ("sum", Type::Time { .. }, _) => format!("{name}: times are not added up; take min or max"),
        ("sum", Type::Id { .. } | Type::Text { .. }, _) => {
            format!("{name}: {is}; integers and decimals are added up")
        }
        ("min" | "max", Type::Id { .. } | Type::Text { .. }, _) => {
            format!("{name}: {is}; a {kind} is of integers, decimals and times")
        }
        ("distinct", Type::Decimal { .. } | Type::Time { .. }, _) => {
            format!("{name}: {is}; ids, texts and integers are counted as distinct")
        }
        ("distinct", _, Origin::Attribute { is_many: true, .. }) => {
            format!("{name}: a row may have several '{}'; make it the key of a report", of.value)
        }
        ("distinct", ..) if key == Some(of.value) => {
            format!("{name}: '{}' is the key, of which each item has one", of.value)
        }
        _ => return Ok(()),
    };
    Err(found.add(of.at, message))
}

/// Finds a measure of the report, or says that it is none.
pub(super) fn measure_of<'d>(
    name: Told<&str>,
    drafts: &'d [MeasureDraft<'_>],
    found: &mut Found<'_>,
) -> Result<&'d Aggregate, Reported> {
    match drafts.iter().find(|draft| draft.name.value == name.value) {
        Some(draft) => draft.aggregate.as_ref().map_err(|reported| *reported),
        None => {
            let advice = instead(name.value, drafts.iter().map(|draft| draft.name.value));
            Err(found.add(name.at, format!("'{}' is no measure of this report{advice}", name.value)))
        }
    }
}

/// Looks the parts of ratios up, and returns all measures.
pub(super) fn finish(
    drafts: Vec<MeasureDraft<'_>>,
    names: &Names,
    found: &mut Found<'_>,
) -> Result<Vec<Measure>, Reported> {
    let places: Vec<Result<Option<u8>, Reported>> =
        drafts.iter().map(|draft| draft.ratio.map(|ratio| places(ratio, &drafts, names, found)).transpose()).collect();
    let finished = drafts.into_iter().zip(places).map(|(draft, places_of_ratio)| {
        let mut aggregate = draft.aggregate?;
        if let (Aggregate::Ratio { places, .. }, Some(found)) = (&mut aggregate, places_of_ratio?) {
            *places = found;
        }
        draft.named?;
        let (name, unit) = (draft.name.value.to_owned(), draft.unit);
        Ok(Measure { name, aggregate, conditions: draft.conditions?, unit })
    });
    finished.collect()
}

/// Checks the parts of a ratio, and returns its digits after the point.
fn places(
    (parts, places): ([Told<&str>; 2], Option<u8>),
    drafts: &[MeasureDraft<'_>],
    names: &Names,
    found: &mut Found<'_>,
) -> Result<u8, Reported> {
    let checked = parts.map(|name| {
        let aggregate = measure_of(name, drafts, found)?;
        let kind = match aggregate {
            Aggregate::Ratio { .. } => {
                let message = format!("'{}' is a ratio itself; write the measures that it is made of", name.value);
                return Err(found.add(name.at, message));
            }
            Aggregate::Min { .. } => "min",
            Aggregate::Max { .. } => "max",
            _ => return Ok(aggregate),
        };
        let message = format!("'{}' is a {kind}; a ratio is of counts, sums and distinct counts", name.value);
        Err(found.add(name.at, message))
    });
    let [of, by] = checked;
    by?;
    Ok(places.unwrap_or(of?.places_by(|name| names.type_of(name))))
}
