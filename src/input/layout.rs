//! The layout of a file: the rules of reading, with the places in its records and the values that all its rows share.
//!
//! A log may name other columns on the way; the lines after that have another layout.

use std::sync::Arc;

use crate::definition::columns::{KeyPart, Place};
use crate::definition::input::Delimited;
use crate::formats::csv::{Header, NotHeader, name_of};
use crate::formats::{BadFile, Raw};
use crate::input::canonical::Canonical;
use crate::input::file::BadObject;
use crate::input::rejection::Rejection;
use crate::input::rules::{Format, Rules, Source};
use crate::input::value::{Value, value_of};
use crate::layout::INCOMING;

/// Most columns of a file: each of them takes memory for each row.
const MAX_COLUMNS: usize = 4096;

/// The layout of a file.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) rules: Arc<Rules>,
    /// The last time that a row may have, in microseconds since the Unix epoch.
    pub(super) latest: i64,
    /// By column: the value that all rows share, if it comes from the file's key.
    pub(super) constants: Vec<Constant>,
    /// The fields that are read, of a file with fields.
    pub(super) fields: Option<Fields>,
}

/// A value that all rows of a file share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Constant {
    Nothing,
    Text(String),
    Number(i64),
}

/// The fields of a record that are read.
#[derive(Debug)]
pub(super) struct Fields {
    /// The number of each field that is read, from 0, with its place, in the order of the fields.
    pub(super) wanted: Vec<(usize, usize)>,
    /// The field of each place; none if the file lacks it.
    of_place: Vec<Option<usize>>,
    width: Width,
    nulls: Nulls,
    /// The columns of a file whose lines may be canonical.
    pub(super) canonical: Option<Canonical>,
}

/// The number of fields of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Exactly(usize),
    AtLeast(usize),
}

/// The texts that mean no value.
#[derive(Debug)]
struct Nulls {
    has_empty: bool,
    others: Vec<Box<[u8]>>,
}

impl Layout {
    /// Returns the layout of a file under this key, before its header is known. Times are judged from `judged_at`.
    pub(super) fn of_file(rules: &Arc<Rules>, key: &str, judged_at: jiff::Timestamp) -> Result<Self, BadObject> {
        let rules = Arc::clone(rules);
        let latest = judged_at.as_microsecond().saturating_add(rules.future);
        let constants = rules.columns.iter().map(|column| {
            let Source::Key(part) = &column.source else { return Ok(Constant::Nothing) };
            let bad = |problem: &str| {
                let name = &column.name;
                BadObject::Key(format!("{}, from which the column {name} is read, {problem}", part_text(part)))
            };
            let part = part_of(key, part).unwrap_or_default();
            if part.is_empty() {
                return if column.is_optional { Ok(Constant::Nothing) } else { Err(bad("is not there")) };
            }
            match value_of(&column.accepts, part.as_bytes()) {
                Ok(Value::Nothing) => Ok(Constant::Nothing),
                Ok(Value::Text(text)) => Ok(Constant::Text(text.to_owned())),
                Ok(Value::Number(number)) => Ok(Constant::Number(number)),
                Err(_) => Err(bad(&format!("is {part:?}, which it does not accept"))),
            }
        });
        let constants = constants.collect::<Result<_, _>>()?;
        Ok(Layout { rules, latest, constants, fields: None })
    }

    /// Checks that a column has a value if it needs one, and that the rows' time is one that a row may have.
    #[inline]
    pub(super) fn check<'v>(&self, column: usize, value: Value<'v>) -> Result<Value<'v>, Rejection> {
        let Layout { rules, latest, .. } = self;
        let rule = &rules.columns[column];
        match value {
            Value::Nothing if !rule.is_optional => Err(Rejection::Missing(column)),
            Value::Number(time) if rule.places.is_time && !(rules.plan.earliest..=*latest).contains(&time) => {
                Err(Rejection::TimeRange)
            }
            value => Ok(value),
        }
    }

    /// Returns the same for records with these columns, or without names of columns.
    pub(super) fn with_header(&self, header: Option<&Header>) -> Result<Self, BadObject> {
        let rules = Arc::clone(&self.rules);
        let fields = match &rules.format {
            Format::Delimited { format, .. } => Some(Fields::of(&rules, format, header)?),
            Format::Json { .. } => None,
        };
        Ok(Layout { rules, latest: self.latest, constants: self.constants.clone(), fields })
    }
}

impl Fields {
    fn of(rules: &Rules, format: &Delimited, header: Option<&Header>) -> Result<Self, BadObject> {
        let Format::Delimited { places, .. } = &rules.format else { return Err(BadObject::Header(String::new())) };
        let bad = |problem: String| BadObject::Header(problem);
        let names: Vec<(usize, &str)> = places
            .iter()
            .enumerate()
            .filter_map(|(number, place)| match &place.place {
                Place::Name(name) => Some((number, name.as_str())),
                Place::Number(_) | Place::Path(_) => None,
            })
            .collect();
        let mut of_place: Vec<Option<usize>> = places
            .iter()
            .map(|place| match place.place {
                Place::Number(number) => number.checked_sub(1),
                Place::Name(_) | Place::Path(_) => None,
            })
            .collect();
        let greatest = of_place.iter().flatten().max().map_or(0, |&field| field + 1);
        let width = match header {
            None => Width::AtLeast(greatest),
            Some(header) => {
                let columns: Vec<&str> = names.iter().map(|&(_, name)| name).collect();
                let is_optional = |index: usize| places[names[index].0].is_optional;
                let found = header.find_some(&columns, is_optional).map_err(|problem| match problem {
                    NotHeader::Binary(kind) => BadFile::Binary { expected: name_of(format), kind }.into(),
                    NotHeader::Text(problem) => bad(problem),
                })?;
                names.iter().zip(found).for_each(|(&(number, _), field)| of_place[number] = field);
                let width = header.width();
                if width > MAX_COLUMNS {
                    return Err(bad(format!("the header has {width} columns, and at most {MAX_COLUMNS} are read")));
                }
                if greatest > width {
                    return Err(bad(format!("the header has {width} columns, and field {greatest} is read")));
                }
                Width::Exactly(width)
            }
        };
        let mut wanted: Vec<(usize, usize)> =
            of_place.iter().enumerate().filter_map(|(place, field)| Some(((*field)?, place))).collect();
        wanted.sort_unstable();
        let canonical = Canonical::of(rules, format, &of_place, width);
        Ok(Fields { wanted, of_place, width, nulls: Nulls::of(&format.null), canonical })
    }

    /// Returns the value of a field.
    #[inline]
    pub(super) fn raw<'t>(&self, field: &'t [u8]) -> Raw<'t> {
        let is_null = field.is_empty() && self.nulls.has_empty || self.nulls.others.iter().any(|null| **null == *field);
        if is_null { Raw::Nothing } else { Raw::Text(field) }
    }

    /// Returns the field of a place.
    #[inline]
    pub(super) fn of_place(&self, place: usize) -> Option<usize> {
        self.of_place[place]
    }

    /// Checks the number of a record's fields.
    #[inline]
    pub(super) fn check_width(&self, fields: usize) -> Result<(), Rejection> {
        match self.width {
            Width::Exactly(expected) if fields != expected => Err(Rejection::Width { fields, expected }),
            Width::AtLeast(needed) if fields < needed => Err(Rejection::Narrow { fields, needed }),
            _ => Ok(()),
        }
    }
}

impl Nulls {
    fn of(texts: &[String]) -> Self {
        let others = texts.iter().filter(|text| !text.is_empty()).map(|text| text.as_bytes().into());
        Nulls { has_empty: texts.iter().any(String::is_empty), others: others.collect() }
    }
}

/// Returns a part of an object's key, counted from the prefix of incoming files. The name of the file is the last part.
fn part_of<'k>(key: &'k str, part: &KeyPart) -> Option<&'k str> {
    let mut parts = key.strip_prefix(INCOMING).unwrap_or(key).split('/');
    match part {
        KeyPart::Number(number) => parts.nth(number.checked_sub(1)?),
        KeyPart::Name(name) => parts.find_map(|part| part.strip_prefix(name.as_str())?.strip_prefix('=')),
    }
}

fn part_text(part: &KeyPart) -> String {
    match part {
        KeyPart::Number(number) => format!("part {number} of the key"),
        KeyPart::Name(name) => format!("the part {name}= of the key"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_key_have_numbers_and_names() {
        let (number, name) = (KeyPart::Number, |name: &str| KeyPart::Name(name.to_owned()));
        for (key, part, expected) in [
            ("incoming/alice/2024/a.json", number(1), Some("alice")),
            ("incoming/alice/2024/a.json", number(3), Some("a.json")),
            ("incoming/alice/2024/a.json", number(4), None),
            ("incoming/tenant=x/y=1/tenant=z", name("tenant"), Some("x")),
            ("incoming/tenants=x/tenant=/a", name("tenant"), Some("")),
            ("incoming/a.json", name("tenant"), None),
        ] {
            assert_eq!(part_of(key, &part), expected, "{key} {part:?}");
        }
    }
}
