//! Measures of a report.

use crate::definition::columns::Type;
use crate::definition::keys::figures::MEASURE;
use crate::definition::keys::limits::{MAX_DISTINCTS, MEASURES};
use crate::definition::keys::shape::list;
use crate::definition::parse::conditions::conditions;
use crate::definition::parse::fields::{Fields, Told, items};
use crate::definition::parse::names::{Known, Names, Origin};
use crate::definition::parse::tree::{Entry, Value};
use crate::definition::parse::values::{is_free, is_name};
use crate::definition::problems::{Found, Reported, instead, nearest};
use crate::definition::reports::{Aggregate, Measure};

/// A measure as far as it could be read.
pub(super) struct MeasureDraft<'n> {
    name: Told<&'n str>,
    kind: Kind,
    /// The parts of a ratio.
    parts: Vec<Told<&'n str>>,
    fields: Option<Fields<'n>>,
    /// All of it, but for the parts of a ratio.
    made: Result<Measure, Reported>,
}

/// A kind of measure, as far as other sections need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Count,
    /// Of values with this many digits after the point, some of which may be negative.
    Sum {
        of: String,
        places: u8,
        may_fall: bool,
    },
    Min,
    Max,
    Distinct,
    Ratio,
    /// It has a problem.
    Unknown,
}

/// Reads all measures of a report with this key.
pub(super) fn measures<'n>(
    entries: &'n [Entry],
    key: Option<&str>,
    names: &Names,
    found: &mut Found<'_>,
) -> Vec<MeasureDraft<'n>> {
    let drafts: Vec<MeasureDraft<'n>> = entries.iter().map(|entry| measure(entry, key, names, found)).collect();
    let distincts = drafts.iter().filter(|draft| draft.kind == Kind::Distinct);
    if let Some(draft) = distincts.into_iter().nth(MAX_DISTINCTS) {
        let message =
            format!("more than {MAX_DISTINCTS} distinct counts: an item holds the sketch of each, up to 8 KiB");
        found.add(draft.name.at, message);
    }
    drafts
}

fn measure<'n>(entry: &'n Entry, key: Option<&str>, names: &Names, found: &mut Found<'_>) -> MeasureDraft<'n> {
    let named = is_name(&entry.key, entry.span, found).and_then(|()| is_free(&entry.key, entry.span, found));
    let name = Told { value: entry.key.as_str(), at: entry.span };
    let of = |kind, aggregate: Result<Aggregate, Reported>| {
        let measure = |aggregate| Measure { name: entry.key.clone(), aggregate, conditions: Vec::new() };
        let made = named.and_then(|()| aggregate.map(measure));
        MeasureDraft { name, kind, parts: Vec::new(), fields: None, made }
    };
    let Value::Table(entries) = &entry.node.value else {
        return match entry.node.text() {
            Some(text) if text.value == "count" => of(Kind::Count, Ok(Aggregate::Count)),
            _ => {
                let near = entry.node.text().and_then(|text| nearest(text.value, MEASURES));
                let near = near.map(|near| format!("; write {}", example(near))).unwrap_or_default();
                let message =
                    format!("'{}' takes \"count\", or a table such as {{ sum = \"amount\" }}{near}", entry.key);
                of(Kind::Unknown, Err(found.add(entry.node.span, message)))
            }
        };
    };
    let kinds: Vec<&'static str> =
        MEASURES.into_iter().filter(|kind| entries.iter().any(|entry| entry.key == *kind)).collect();
    let what = format!("the measure '{}'", entry.key);
    let fields = Fields::read(&MEASURE, (what, entry.span), items(entries), found);
    let &[kind] = kinds.as_slice() else {
        let message = match kinds.as_slice() {
            [] if fields.all_good().is_err() => None,
            [] => Some(format!("'{}' is to have one of {}", entry.key, list(MEASURES.map(str::to_owned), "and"))),
            several => {
                let several = list(several.iter().map(ToString::to_string), "and");
                Some(format!("'{}' has {several}; write a measure of its own for each", entry.key))
            }
        };
        let reported = match message {
            Some(message) => Err(found.add(entry.span, message)),
            None => fields.all_good().map(|()| Aggregate::Count),
        };
        return of(Kind::Unknown, reported);
    };
    let conditions = conditions(fields.entries("where"), names, found);
    let (kind, aggregate) = aggregate(entry, kind, &fields, key, names, found);
    let made = named
        .and_then(|()| fields.all_good())
        .and_then(|()| Ok(Measure { name: entry.key.clone(), aggregate: aggregate?, conditions: conditions? }));
    let parts = fields.texts("ratio");
    MeasureDraft { name, kind, parts, fields: Some(fields), made }
}

/// An example of a kind of measure.
fn example(kind: &str) -> String {
    match kind {
        "count" => "\"count\"".to_owned(),
        "ratio" => "{ ratio = [\"a\", \"b\"] }".to_owned(),
        kind => format!("{{ {kind} = \"…\" }}"),
    }
}

fn aggregate(
    entry: &Entry,
    kind: &'static str,
    fields: &Fields<'_>,
    key: Option<&str>,
    names: &Names,
    found: &mut Found<'_>,
) -> (Kind, Result<Aggregate, Reported>) {
    let known = match kind {
        "count" => return (Kind::Count, Ok(Aggregate::Count)),
        // The parts are looked up when all measures are known.
        "ratio" => {
            let (of, by, places) = (String::new(), String::new(), 0);
            return (Kind::Ratio, Ok(Aggregate::Ratio { of, by, places }));
        }
        kind => fields.needed_text(kind, found).and_then(|of| {
            let known = names.field(&format!("{} is the {kind} of '{}', which", entry.key, of.value), of, found)?;
            is_measurable(entry, kind, known, of, key, found).map(|()| known)
        }),
    };
    let of = known.map(|known| known.name.clone());
    let places = match known.map(|known| &known.type_) {
        Ok(Ok(Type::Decimal { places, .. })) => *places,
        _ => 0,
    };
    match kind {
        "sum" => {
            let divide = fields.whole("divide").unwrap_or(1).unsigned_abs() as u32;
            let places = places + divide.checked_ilog10().unwrap_or(0) as u8;
            let may_fall = match known.map(|known| &known.type_) {
                Ok(Ok(Type::Integer { min, .. } | Type::Decimal { min, .. })) => *min < 0,
                _ => false,
            };
            let kind = Kind::Sum { of: of.clone().unwrap_or_default(), places, may_fall };
            (kind, of.map(|of| Aggregate::Sum { of, divide }))
        }
        "min" => (Kind::Min, of.map(|of| Aggregate::Min { of })),
        "max" => (Kind::Max, of.map(|of| Aggregate::Max { of })),
        _ => (Kind::Distinct, of.map(|of| Aggregate::Distinct { of })),
    }
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

impl<'n> MeasureDraft<'n> {
    pub(super) fn name(&self) -> Told<&'n str> {
        self.name
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }
}

/// Finds a measure of the report, or says that it is none.
pub(super) fn measure_of<'d, 'n>(
    name: Told<&str>,
    drafts: &'d [MeasureDraft<'n>],
    found: &mut Found<'_>,
) -> Result<&'d MeasureDraft<'n>, Reported> {
    drafts.iter().find(|draft| draft.name.value == name.value).ok_or_else(|| {
        let advice = instead(name.value, drafts.iter().map(|draft| draft.name.value));
        found.add(name.at, format!("'{}' is no measure of this report{advice}", name.value))
    })
}

/// Looks the parts of ratios up, and returns all measures.
pub(super) fn finish(drafts: Vec<MeasureDraft<'_>>, found: &mut Found<'_>) -> Result<Vec<Measure>, Reported> {
    let ratios: Vec<Result<Option<Aggregate>, Reported>> = drafts
        .iter()
        .map(|draft| if draft.kind == Kind::Ratio { ratio(draft, &drafts, found) } else { Ok(None) })
        .collect();
    let finished = drafts.into_iter().zip(ratios).map(|(draft, ratio)| {
        let (made, ratio) = (draft.made?, ratio?);
        Ok(Measure { aggregate: ratio.unwrap_or(made.aggregate), ..made })
    });
    finished.collect()
}

fn ratio(
    draft: &MeasureDraft<'_>,
    drafts: &[MeasureDraft<'_>],
    found: &mut Found<'_>,
) -> Result<Option<Aggregate>, Reported> {
    let &[of, by] = draft.parts.as_slice() else { return draft.made.as_ref().map(|_| None).map_err(|it| *it) };
    let mut part = |name: Told<&str>| {
        let kind = &measure_of(name, drafts, found)?.kind;
        let message = match kind {
            Kind::Ratio => format!("'{}' is a ratio itself; write the measures that it is made of", name.value),
            Kind::Min => format!("'{}' is a min; a ratio is of counts, sums and distinct counts", name.value),
            Kind::Max => format!("'{}' is a max; a ratio is of counts, sums and distinct counts", name.value),
            kind => return Ok(kind),
        };
        Err(found.add(name.at, message))
    };
    let (first, second) = (part(of), part(by));
    let (first, _) = (first?, second?);
    let default = if let Kind::Sum { places, .. } = first { *places } else { 0 };
    let places = draft.fields.as_ref().and_then(|fields| fields.whole("places")).map(|places| places as u8);
    let (of, by) = (of.value.to_owned(), by.value.to_owned());
    Ok(Some(Aggregate::Ratio { of, by, places: places.unwrap_or(default) }))
}
