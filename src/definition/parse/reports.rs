//! `[reports.NAME]`: keys, tables, attributes and top lists.

use crate::definition::columns::Type;
use crate::definition::keys::figures::{REPORT, TOP_LIST};
use crate::definition::keys::limits::{KEPT, RESERVED_TABLES};
use crate::definition::parse::fields::{Fields, Told, items_or};
use crate::definition::parse::measures::{MeasureDraft, finish, measure_of, measures};
use crate::definition::parse::names::{Known, Names, Origin};
use crate::definition::parse::tree::{Entry, Node};
use crate::definition::parse::values::is_name;
use crate::definition::problems::{Found, Reported};
use crate::definition::reports::{ALL, Aggregate, Key, Period, Report, Top};

/// The condition of the measures that order top lists.
const NEVER_FALLS: &str =
    "top lists are ordered by what never falls: a count, a max, or a sum of a column with a 'min' of 0 or more";

/// Reads all reports.
pub(super) fn reports(entries: &[Entry], names: &Names, found: &mut Found<'_>) -> Result<Vec<Report>, Reported> {
    let mut tables: Vec<(String, String)> = Vec::new();
    let reports: Vec<Result<Report, Reported>> =
        entries.iter().map(|entry| report(entry, names, &mut tables, found)).collect();
    reports.into_iter().collect()
}

fn report(
    entry: &Entry,
    names: &Names,
    tables: &mut Vec<(String, String)>,
    found: &mut Found<'_>,
) -> Result<Report, Reported> {
    let named = is_name(&entry.key, entry.span, found);
    let fields = Fields::of_entry(&REPORT, format!("the report '{}'", entry.key), entry, found);
    // A name that is none makes no table either.
    let table = match (named, fields.text("table")) {
        (Err(reported), None) => Err(reported),
        _ => table(entry, &fields, tables, found),
    };
    let key = fields.needed_text("key", found).and_then(|key| report_key(key, names, found));
    // What follows from a key with a problem is not known.
    let key_name = fields.text("key").map(|key| key.value).filter(|_| key.is_ok());
    let attributes = attributes(&fields, key_name, names, found);
    let drafts = measures(fields.entries("measures"), key_name, names, found);
    are_apart(&fields, &drafts, found);
    let top = fields.node("top").map(|node| top(node, key_name, &drafts, names, found)).transpose();
    let measures = finish(drafts, names, found);
    named?;
    fields.all_good()?;
    let key_bytes = key_name.and_then(|key| names.type_of(key)).map_or(0, Type::most_bytes);
    let every = match fields.text("every") {
        Some(Told { value: "hour", .. }) => Period::Hour,
        _ => Period::Day,
    };
    let report = Report {
        name: entry.key.clone(),
        key: key?,
        every,
        table: table?,
        attributes: attributes?,
        top: top?,
        is_personal: fields.flag("personal").unwrap_or(false),
        measures: measures?,
    };
    let most = report.most_kept(key_bytes);
    match (&report.top, fields.node("top")) {
        (Some(Top { keep, .. }), Some(node)) if *keep > most => {
            let message = format!(
                "{keep} entries with keys of up to {key_bytes} bytes may be more than an item of DynamoDB holds, 400 \
                 KB; write keep = {most}, or a smaller 'max' of the key"
            );
            Err(found.add(node.span, message))
        }
        _ => Ok(report),
    }
}

fn report_key(key: Told<&str>, names: &Names, found: &mut Found<'_>) -> Result<Key, Reported> {
    let name = key.value;
    if name == ALL.1 {
        return Ok(Key::All);
    }
    let known = names.field(&format!("the key '{name}'"), key, found)?;
    let message = if !known.is_code() {
        format!("the key '{name}' is {}; items are of ids, texts and integers", known.kind())
    } else if names.may_lack(known) && !known.has_unknown {
        format!("a row may have no '{name}'; say what it is counted under: unknown = \"unknown\" in the column")
    } else {
        return Ok(Key::Field(name.to_owned()));
    };
    Err(found.add(key.at, message))
}

/// Returns the table, which no other report and nothing else has.
fn table(
    entry: &Entry,
    fields: &Fields<'_>,
    tables: &mut Vec<(String, String)>,
    found: &mut Found<'_>,
) -> Result<String, Reported> {
    let (table, at) = fields.text("table").map_or((entry.key.as_str(), entry.span), |table| (table.value, table.at));
    let is_written = fields.text("table").is_some();
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let other = tables.iter().find(|(other, _)| other == table).map(|(_, report)| report.clone());
    let message = if !(3..=200).contains(&table.len()) || !table.bytes().all(is_good) {
        let advice = if is_written { String::new() } else { format!("; write table = \"{table}_report\"") };
        format!("'{table}' is no table of DynamoDB: 3 to 200 of a to z, A to Z, 0 to 9, _, . and -{advice}")
    } else if RESERVED_TABLES.contains(&table) {
        format!("'{table}' is a table of the pipeline itself; take another")
    } else if let Some(report) = other {
        format!("the report '{report}' has the table '{table}' already; take another")
    } else {
        tables.push((table.to_owned(), entry.key.clone()));
        return Ok(table.to_owned());
    };
    Err(found.add(at, message))
}

/// Reads the fields that are shown beside the figures. Those of a reference follow from the key.
fn attributes(
    fields: &Fields<'_>,
    key: Option<&str>,
    names: &Names,
    found: &mut Found<'_>,
) -> Result<Vec<String>, Reported> {
    let mut shown: Vec<String> = Vec::new();
    let mut bad = None;
    for told in fields.texts("attributes") {
        let name = told.value;
        let message = match (names.field(&format!("'{name}'"), told, found), key) {
            (Err(reported), _) => {
                bad = Some(reported);
                continue;
            }
            (_, Some("*")) => "a report of all rows has no attributes".to_owned(),
            (_, Some(key)) if key == name => format!("'{name}' is the key, which every item has"),
            (Ok(Known { origin: Origin::Attribute { key: of, .. }, .. }), Some(key)) if !names.follows(of, key) => {
                format!("'{name}' follows from '{of}', not from this report's key '{key}'")
            }
            _ if shown.iter().any(|other| other == name) => format!("'{name}' is there twice"),
            _ => {
                shown.push(name.to_owned());
                continue;
            }
        };
        bad = Some(found.add(told.at, message));
    }
    bad.map_or(Ok(shown), Err)
}

/// Checks that measures have other names than the key and the attributes, which are in the same items.
fn are_apart(fields: &Fields<'_>, drafts: &[MeasureDraft<'_>], found: &mut Found<'_>) {
    let attributes = fields.texts("attributes");
    let key = fields.text("key").map(|key| if key.value == ALL.1 { ALL.0 } else { key.value });
    for name in drafts.iter().map(|draft| draft.name) {
        let message = if key == Some(name.value) {
            format!("'{}' is the key of the items; give the measure another name", name.value)
        } else if attributes.iter().any(|attribute| attribute.value == name.value) {
            format!("'{}' is an attribute of this report; give the measure another name", name.value)
        } else {
            continue;
        };
        found.add(name.at, message);
    }
}

fn top(
    node: &Node,
    key: Option<&str>,
    drafts: &[MeasureDraft<'_>],
    names: &Names,
    found: &mut Found<'_>,
) -> Result<Top, Reported> {
    let fields = Fields::read(&TOP_LIST, ("'top'".to_owned(), node.span), items_or(node, ""), found);
    let by = fields
        .needed_text("by", found)
        .and_then(|by| never_falls(by, drafts, names, found).map(|()| by.value.to_owned()));
    let mut under: Vec<String> = Vec::new();
    let mut bad = None;
    for told in fields.texts("under") {
        match is_under(told, key, names, found) {
            Ok(()) if under.iter().any(|other| other == told.value) => {
                bad = Some(found.add(told.at, format!("'{}' is there twice", told.value)));
            }
            Ok(()) => under.push(told.value.to_owned()),
            Err(reported) => bad = Some(reported),
        }
    }
    if key == Some(ALL.1) {
        bad = Some(found.add(node.span, "a report of all rows has one item, and no top list"));
    }
    let keep = fields.whole("keep").unwrap_or(KEPT.1).unsigned_abs() as usize;
    fields.all_good()?;
    bad.map_or(Ok(()), Err)?;
    Ok(Top { by: by?, under, keep })
}

fn never_falls(
    by: Told<&str>,
    drafts: &[MeasureDraft<'_>],
    names: &Names,
    found: &mut Found<'_>,
) -> Result<(), Reported> {
    let may_be_negative = |of: &str| names.type_of(of).is_some_and(Type::may_be_negative);
    let reason = match measure_of(by, drafts, found)? {
        Aggregate::Distinct { .. } => "a distinct count, whose estimate may fall by a little".to_owned(),
        Aggregate::Ratio { .. } => "a ratio, which may fall".to_owned(),
        Aggregate::Min { .. } => "a min, which may fall".to_owned(),
        Aggregate::Sum { of, .. } if may_be_negative(of) => format!("a sum of '{of}', which may be negative"),
        _ => return Ok(()),
    };
    Err(found.add(by.at, format!("'{}' is {reason}; {NEVER_FALLS}", by.value)))
}

/// Checks that there may be lists under each value of a field: an attribute of the report's key.
fn is_under(under: Told<&str>, key: Option<&str>, names: &Names, found: &mut Found<'_>) -> Result<(), Reported> {
    let name = under.value;
    let known = names.field(&format!("'{name}'"), under, found)?;
    let follows = match (&known.origin, key) {
        (Origin::Attribute { key: of, .. }, Some(key)) => names.follows(of, key),
        (_, None) => true,
        _ => false,
    };
    let message = if !follows {
        format!(
            "'{name}' does not follow from this report's key '{}': the figures under each of its values would be \
             others, which is a report of its own",
            key.unwrap_or_default()
        )
    } else if !known.is_code() {
        format!("'{name}' is {}; lists are under ids, texts and integers", known.kind())
    } else {
        return Ok(());
    };
    Err(found.add(under.at, message))
}
