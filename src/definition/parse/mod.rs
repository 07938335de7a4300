//! The way from a file to a [`Definition`]: TOML, then section by section, then the rules between sections.
//!
//! All problems are found at once. A value with a problem is known by name, so that it causes no others.
//!
//! | file | contents |
//! |---|---|
//! | [`tree`] | TOML as a tree with positions |
//! | [`fields`] | a section, read by the table of its keys |
//! | [`values`] | numbers, names, zones and patterns |
//! | [`types`], [`columns`], [`references`] | columns and attributes |
//! | [`names`] | all of their names, for the sections behind |
//! | [`input`], [`conditions`], [`reports`], [`measures`] | the other sections |

mod columns;
mod conditions;
mod fields;
mod input;
mod measures;
mod names;
mod references;
mod reports;
mod tree;
mod types;
mod values;

use std::time::Duration;

use jiff::tz::TimeZone;

use crate::calendar::parse_date;
use crate::definition::columns::{Column, Source, Type};
use crate::definition::keys::TOP;
use crate::definition::keys::limits::{MAX_FILE_BYTES, MAX_FUTURE_DAYS};
use crate::definition::parse::columns::Lookup;
use crate::definition::parse::fields::{Fields, Told, items};
use crate::definition::parse::names::{Known, Names};
use crate::definition::parse::references::ReferenceDraft;
use crate::definition::problems::{Found, Problems, Reported, Span};
use crate::definition::{Definition, EARLIEST, FUTURE, Reference};

impl Definition {
    /// Parses a definition, and checks every rule that can be checked without anything else.
    pub fn parse(file: &[u8]) -> Result<Self, Problems> {
        let beginning = Span { start: 0, end: 0 };
        if file.len() > MAX_FILE_BYTES {
            let mut found = Found::new("");
            found.add(beginning, format!("a definition has at most {MAX_FILE_BYTES} bytes, not {}", file.len()));
            return Err(found.into_problems());
        }
        let text = match std::str::from_utf8(file) {
            Ok(text) => text,
            Err(error) => {
                let good = String::from_utf8_lossy(file.get(..error.valid_up_to()).unwrap_or_default());
                let mut found = Found::new(&good);
                let at = Span { start: good.len(), end: good.len() };
                found.add(at, "this is no UTF-8, from here on");
                return Err(found.into_problems());
            }
        };
        let mut found = Found::new(text);
        let entries = tree::read(text, &mut found);
        if !found.is_empty() {
            return Err(found.into_problems());
        }
        let fields = Fields::read(&TOP, ("the definition".to_owned(), beginning), items(&entries), &mut found);
        match definition(&fields, &mut found) {
            Ok(definition) if found.is_empty() => Ok(definition),
            _ => Err(found.into_problems()),
        }
    }
}

fn definition(fields: &Fields<'_>, found: &mut Found<'_>) -> Result<Definition, Reported> {
    let name = fields.needed_text("name", found).and_then(|name| pipeline(name, found));
    let input = fields.item("input", found).and_then(|item| input::input(item, found));
    let lookup = input.as_ref().ok().map(Lookup::of);
    let (known, columns): (Vec<Known>, Vec<Result<Column, Reported>>) =
        fields.entries("columns").iter().map(|entry| columns::column(entry, lookup, found)).unzip();
    let (attributes, references): (Vec<Vec<Known>>, Vec<ReferenceDraft<'_>>) =
        fields.entries("references").iter().map(|entry| references::reference(entry, found)).unzip();
    let lost = references.iter().find_map(ReferenceDraft::lost);
    let lost = fields.lost("columns").or(fields.lost("references")).or(lost);
    let known = known.into_iter().chain(attributes.into_iter().flatten());
    let mut names = Names::new(known, lost, found);
    let conditions = conditions::conditions(fields.entries("where"), &names, found);
    names.ask_for(conditions.as_deref().unwrap_or_default());
    let time = fields.needed_text("time", found).and_then(|time| time_column(time, &names, found));
    let zone = fields.text("zone").map(|zone| values::zone(zone, found)).transpose();
    let earliest = fields.text("earliest").map(|day| earliest(day, found)).transpose();
    let future = fields.text("future").map(|time| future(time, found)).transpose();
    let references: Vec<Result<Reference, Reported>> =
        references.into_iter().map(|draft| draft.finish(&names, found)).collect();
    let reports = reports::reports(fields.entries("reports"), &names, found);
    fields.all_good()?;
    let mut columns = columns.into_iter().collect::<Result<Vec<Column>, _>>()?;
    for column in columns.iter_mut().filter(|column| matches!(column.source, Source::Join { .. })) {
        column.is_optional = names.get(&column.name).is_some_and(|known| known.is_optional);
    }
    Ok(Definition {
        name: name?,
        time: time?,
        zone: zone?.unwrap_or(TimeZone::UTC),
        earliest: earliest?.unwrap_or(EARLIEST),
        future: future?.unwrap_or(FUTURE),
        input: input?,
        columns,
        conditions: conditions?,
        references: references.into_iter().collect::<Result<_, _>>()?,
        reports: reports?,
    })
}

/// Checks the pipeline's name.
fn pipeline(name: Told<&str>, found: &mut Found<'_>) -> Result<String, Reported> {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.value.bytes().all(is_inner) && name.value.starts_with(|first: char| first.is_ascii_lowercase()) {
        return Ok(name.value.to_owned());
    }
    let better = values::better_name(name.value, '-');
    let message = format!("'{}' is no name of a pipeline: a to z, 0 to 9 and -, with a letter first", name.value);
    Err(found.add(name.at, message + &better))
}

/// Finds the column that says when.
fn time_column(time: Told<&str>, names: &Names, found: &mut Found<'_>) -> Result<String, Reported> {
    let name = time.value;
    let known = names.column(&format!("'{name}'"), time, found)?;
    let type_ = known.type_.as_ref().map_err(|reported| *reported)?;
    if !matches!(type_, Type::Time { .. }) {
        return Err(found.add(time.at, format!("'{name}' is {}; the column that says when is a time", known.kind())));
    }
    if known.is_optional {
        let message = format!("every row has a time: '{name}' says when, so it is not optional");
        return Err(found.add(time.at, message));
    }
    Ok(name.to_owned())
}

fn earliest(day: Told<&str>, found: &mut Found<'_>) -> Result<i32, Reported> {
    let message = format!("'{}' is no day of the calendar, YYYY-MM-DD", day.value);
    parse_date(day.value).ok_or_else(|| found.add(day.at, message))
}

fn future(time: Told<&str>, found: &mut Found<'_>) -> Result<Duration, Reported> {
    let most = Duration::from_secs(MAX_FUTURE_DAYS * 86_400);
    let duration = humantime::parse_duration(time.value).ok();
    duration.filter(|duration| *duration <= most && duration.subsec_nanos() == 0).ok_or_else(|| {
        let message =
            format!("'{}' is no time such as 90m, 12h or 2d, of whole seconds and at most 366 days", time.value);
        found.add(time.at, message)
    })
}
