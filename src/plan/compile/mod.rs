//! From the definition to the plan: names become indices, and equal work is done once.

mod curated;
mod reports;

use std::collections::HashSet;
use std::sync::Arc;

use crate::calendar::MICROS_PER_DAY;
use crate::definition::Definition;
use crate::definition::columns::{Column, Source as Origin, TimeFormat as WrittenFormat, Type};
use crate::definition::reports::{Aggregate, Key, Period};
use crate::plan::Plan;
use crate::plan::columns::{Attribute, CodeColumn, Coded, IntColumn, Kind, Mask, Number, Places};
use crate::plan::folding::Folding;
use crate::plan::zone::Zone;
use crate::values;
use crate::values::time::TimeFormat;

pub(super) fn plan_of(definition: Definition) -> Result<Plan, String> {
    let (zone, digest) = (Zone::of(definition.zone.clone()), definition.digest());
    let times = definition.columns.iter().map(notation_of).collect::<Result<_, _>>()?;
    let midnight = i64::from(definition.earliest) * MICROS_PER_DAY;
    let earliest = values::zone::Zone::of(&definition.zone).beginning_of(midnight);
    let needs = Needs::of(&definition);
    let mut compiler = Compiler::new(&definition, &needs)?;
    let mut reports = Vec::with_capacity(definition.reports.len());
    let (mut days, mut hours) = (Folding::default(), Folding::default());
    for (index, report) in definition.reports.iter().enumerate() {
        let folding = if report.every == Period::Hour { &mut hours } else { &mut days };
        reports.push(compiler.report(report, index, folding)?);
    }
    if !hours.bases.is_empty() && !zone.days_are_whole_hours(midnight) {
        return Err("there is a report by the hour, and days of the zone do not begin with an hour of UTC".to_owned());
    }
    let curated = compiler.curated();
    let Compiler { columns, codes, ints, references, attributes, masks, .. } = compiler;
    Ok(Plan {
        since: vec![None; reports.len()],
        columns,
        codes,
        ints,
        references,
        attributes,
        curated,
        masks,
        reports,
        days,
        hours,
        zone,
        times,
        earliest,
        digest,
        definition: Arc::new(definition),
    })
}

/// Returns the notation of a column that is a time.
fn notation_of(column: &Column) -> Result<Option<TimeFormat>, String> {
    let Type::Time { format, zone } = &column.type_ else { return Ok(None) };
    let name = match format {
        WrittenFormat::Iso => "iso",
        WrittenFormat::Unix => "unix",
        WrittenFormat::UnixMillis => "unix_ms",
        WrittenFormat::UnixMicros => "unix_us",
        WrittenFormat::Pattern(pattern) => pattern,
    };
    let notation = TimeFormat::new(name, values::zone::Zone::of(zone));
    notation.map(Some).map_err(|problem| format!("{}: {problem}", column.name))
}

/// The fields of the definition that are used in some way, by name.
#[derive(Default)]
struct Needs<'d> {
    /// As a key, counted or listed under: they need codes.
    codes: HashSet<&'d str>,
    /// Summed, compared or shown: they need numbers.
    numbers: HashSet<&'d str>,
}

impl<'d> Needs<'d> {
    fn of(definition: &'d Definition) -> Self {
        let mut needs = Needs::default();
        needs.codes.extend(definition.references.iter().map(|reference| reference.key.as_str()));
        for report in &definition.reports {
            if let Key::Field(name) = &report.key {
                needs.codes.insert(name);
            }
            needs.codes.extend(report.top.iter().flat_map(|top| top.under.iter().map(String::as_str)));
            needs.numbers.extend(report.attributes.iter().map(String::as_str));
            for measure in &report.measures {
                needs.numbers.extend(measure.conditions.iter().map(|condition| condition.column.as_str()));
                match &measure.aggregate {
                    Aggregate::Distinct { of } => drop(needs.codes.insert(of)),
                    Aggregate::Sum { of, .. } | Aggregate::Min { of } | Aggregate::Max { of } => {
                        needs.numbers.insert(of);
                    }
                    Aggregate::Count | Aggregate::Ratio { .. } => {}
                }
            }
        }
        needs
    }
}

struct Compiler<'d> {
    definition: &'d Definition,
    columns: Vec<Places>,
    codes: Vec<CodeColumn>,
    ints: Vec<IntColumn>,
    references: Vec<usize>,
    attributes: Vec<Attribute>,
    masks: Vec<Mask>,
}

/// The kind of a type's values.
fn kind_of(type_: &Type) -> Kind {
    match type_ {
        Type::Id { .. } | Type::Text { .. } => Kind::Text,
        Type::Integer { .. } | Type::Decimal { .. } | Type::Time { .. } => Kind::Number,
    }
}

fn no_field(name: &str) -> String {
    format!("there is no column or attribute {name} of that use")
}

impl<'d> Compiler<'d> {
    fn new(definition: &'d Definition, needs: &Needs<'_>) -> Result<Self, String> {
        let mut compiler = Compiler {
            definition,
            columns: Vec::new(),
            codes: Vec::new(),
            ints: Vec::new(),
            references: Vec::new(),
            attributes: Vec::new(),
            masks: Vec::new(),
        };
        for (index, column) in definition.columns.iter().enumerate() {
            let places = compiler.places_of(index, column, needs);
            compiler.columns.push(places);
        }
        for (index, reference) in definition.references.iter().enumerate() {
            let code = compiler.code(&reference.key).ok_or_else(|| no_field(&reference.key))?;
            compiler.references.push(code);
            for (place, attribute) in reference.attributes.iter().enumerate() {
                let kind = kind_of(&attribute.type_);
                compiler.attributes.push(Attribute {
                    name: attribute.name.clone(),
                    reference: (index, place),
                    code,
                    kind,
                    places: match attribute.type_ {
                        Type::Decimal { places, .. } => places,
                        _ => 0,
                    },
                    has_codes: kind == Kind::Text || needs.codes.contains(attribute.name.as_str()),
                    is_compared: needs.codes.contains(attribute.name.as_str()),
                    many: attribute.many.map(char::from),
                    unknown: attribute.unknown.clone(),
                });
            }
        }
        Ok(compiler)
    }

    fn places_of(&mut self, index: usize, column: &Column, needs: &Needs<'_>) -> Places {
        let name = column.name.as_str();
        let is_time = *name == self.definition.time;
        let kind = match column.source {
            Origin::Join { .. } => Kind::Text,
            Origin::Places(_) | Origin::Key(_) => kind_of(&column.type_),
        };
        let code = (kind == Kind::Text || needs.codes.contains(name)).then(|| {
            self.codes.push(CodeColumn {
                name: name.to_owned(),
                column: index,
                kind,
                max_bytes: match column.type_ {
                    Type::Id { max_bytes } | Type::Text { max_bytes, .. } => max_bytes,
                    Type::Integer { .. } | Type::Decimal { .. } | Type::Time { .. } => 0,
                },
                is_optional: column.is_optional,
                unknown: column.unknown.clone(),
            });
            self.codes.len() - 1
        });
        let needs_int = code.is_none() || needs.numbers.contains(name);
        let int = (kind == Kind::Number && !is_time && needs_int).then(|| {
            self.ints.push(IntColumn { name: name.to_owned(), column: index });
            self.ints.len() - 1
        });
        Places { code, int, is_time }
    }

    fn places(&self, name: &str) -> Option<Places> {
        let index = self.definition.columns.iter().position(|column| column.name == name)?;
        self.columns.get(index).copied()
    }

    fn code(&self, name: &str) -> Option<usize> {
        self.places(name)?.code
    }

    fn attribute(&self, name: &str) -> Option<usize> {
        self.attributes.iter().position(|attribute| attribute.name == name)
    }

    fn coded(&self, name: &str) -> Result<Coded, String> {
        let of_attribute = || self.attribute(name).filter(|&index| self.attributes[index].has_codes);
        self.code(name)
            .map(Coded::Column)
            .or_else(|| of_attribute().map(Coded::Attribute))
            .ok_or_else(|| no_field(name))
    }

    fn number(&self, name: &str) -> Result<Number, String> {
        let of_places = |places: Places| if places.is_time { Some(Number::Time) } else { places.int.map(Number::Int) };
        let of_attribute = || self.attribute(name).filter(|&index| self.attributes[index].kind == Kind::Number);
        let found = self.places(name).and_then(of_places).or_else(|| of_attribute().map(Number::Attribute));
        found.ok_or_else(|| no_field(name))
    }

    /// The code column whose codes a key's items follow from.
    fn base_of(&self, key: Coded) -> usize {
        match key {
            Coded::Column(code) => code,
            Coded::Attribute(attribute) => self.attributes[attribute].code,
        }
    }
}
