//! From the definition to the plan: names become indices, and equal work is done once.

use std::collections::HashSet;

use crate::calendar::MICROS_PER_DAY;
use crate::definition::columns::{Column, Source as Origin, TimeFormat as WrittenFormat, Type};
use crate::definition::conditions::{Condition as WrittenCondition, Test, Values};
use crate::definition::reports::{ALL, Aggregate, Key, Period, Report as WrittenReport};
use crate::definition::{Definition, Field};
use crate::formats::parquet;
use crate::plan::Plan;
use crate::plan::columns::{
    Attribute, CodeColumn, Coded, Condition, CuratedColumn, CuratedValues, IntColumn, Kind, Mask, Number, Operand,
    Places,
};
use crate::plan::folding::{Base, Count, Folding, SlotSource, Sort, Source, Target};
use crate::plan::reports::{
    Figure, Label, LabelSource, LatestValue, Measure, Merge, ROWS_ATTRIBUTE, Report, Slot, Top,
};
use crate::plan::zone::Zone;
use crate::values;
use crate::values::time::TimeFormat;

/// The column of a curated file that has the key of the row's file.
const SOURCE_COLUMN: &str = "source_key";

pub(super) fn plan_of(definition: Definition) -> Result<Plan, String> {
    let zone = Zone::of(definition.zone.clone());
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
    if !hours.bases.is_empty() && !zone.days_are_whole_hours(i64::from(definition.earliest) * MICROS_PER_DAY) {
        return Err("there is a report by the hour, and days of the zone do not begin with an hour of UTC".to_owned());
    }
    let curated = compiler.curated();
    let Compiler { columns, codes, ints, references, attributes, masks, .. } = compiler;
    Ok(Plan { columns, codes, ints, references, attributes, curated, masks, reports, days, hours, zone, times, earliest, definition })
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

    /// Returns the mask of some conditions: the same for the same ones.
    fn mask(&mut self, conditions: &[WrittenCondition]) -> Result<Option<usize>, String> {
        if conditions.is_empty() {
            return Ok(None);
        }
        let compiled = conditions.iter().map(|WrittenCondition { column, test }| {
            let places = self.places(column).ok_or_else(|| no_field(column))?;
            let of = match (test, places) {
                (_, Places { is_time: true, .. }) => Operand::Time,
                (Test::In(Values::Texts(_)) | Test::NotIn(Values::Texts(_)), Places { code: Some(code), .. })
                | (Test::Present(_), Places { code: Some(code), .. }) => Operand::Code(code),
                (_, Places { int: Some(int), .. }) => Operand::Int(int),
                _ => return Err(no_field(column)),
            };
            Ok(Condition { of, test: test.clone() })
        });
        let mask = Mask(compiled.collect::<Result<_, String>>()?);
        let place = self.masks.iter().position(|known| *known == mask).unwrap_or_else(|| {
            self.masks.push(mask);
            self.masks.len() - 1
        });
        Ok(Some(place))
    }

    fn report(&mut self, written: &WrittenReport, index: usize, folding: &mut Folding) -> Result<Report, String> {
        let key = match &written.key {
            Key::All => None,
            Key::Field(name) => Some(self.coded(name)?),
        };
        let code = key.map(|key| self.base_of(key));
        let spread = match key {
            Some(Coded::Attribute(attribute)) => Some(attribute),
            Some(Coded::Column(_)) | None => None,
        };
        let base = folding.bases.iter().position(|base| base.code == code).unwrap_or_else(|| {
            folding.bases.push(Base { code, ..Base::default() });
            folding.bases.len() - 1
        });
        let labels = self.labels(written, key, &mut folding.bases[base])?;
        let mut report = Report {
            name: written.name.clone(),
            table: written.table.clone(),
            key_attribute: match &written.key {
                Key::All => ALL.0.to_owned(),
                Key::Field(name) => name.clone(),
            },
            key,
            is_hourly: written.every == Period::Hour,
            slots: vec![Slot { name: "rows".to_owned(), merge: Merge::Add }],
            rows_attribute: ROWS_ATTRIBUTE.to_owned(),
            sketches: Vec::new(),
            measures: Vec::new(),
            labels,
            top: None,
        };
        let mut target = Target { report: index, spread, slots: vec![SlotSource::Rows] };
        for measure in &written.measures {
            let mask = self.mask(&measure.conditions)?;
            let figure = match &measure.aggregate {
                Aggregate::Distinct { of } => {
                    let count = Count { report: index, spread, sketch: report.sketches.len() };
                    report.sketches.push(measure.name.clone());
                    add_sort(&mut folding.sorts, code, self.coded(of)?, mask, count);
                    Figure::Distinct { sketch: count.sketch }
                }
                Aggregate::Ratio { of, by, places } => {
                    let place = |name: &str| written.measures.iter().position(|measure| measure.name == *name);
                    let (of, by) = (place(of).ok_or_else(|| no_field(of))?, place(by).ok_or_else(|| no_field(by))?);
                    Figure::Ratio { of, by, places: *places }
                }
                Aggregate::Count if mask.is_none() => {
                    report.rows_attribute.clone_from(&measure.name);
                    Figure::Number { slot: 0, places: 0 }
                }
                gathered => {
                    self.gathered(gathered, mask, &mut folding.bases[base], &mut target, &mut report, &measure.name)?
                }
            };
            report.measures.push(Measure { name: measure.name.clone(), figure });
        }
        folding.bases[base].targets.push(target);
        report.top = self.top(written, &report)?;
        Ok(report)
    }

    /// Adds a slot to a report, and what is to be gathered for it to its base.
    fn gathered(
        &self,
        aggregate: &Aggregate,
        mask: Option<usize>,
        base: &mut Base,
        target: &mut Target,
        report: &mut Report,
        name: &str,
    ) -> Result<Figure, String> {
        let (of, merge) = match aggregate {
            Aggregate::Sum { of, .. } => (Some(of), Merge::Add),
            Aggregate::Min { of } => (Some(of), Merge::Least),
            Aggregate::Max { of } => (Some(of), Merge::Greatest),
            Aggregate::Count | Aggregate::Distinct { .. } | Aggregate::Ratio { .. } => (None, Merge::Add),
        };
        let number = of.map(|name| self.number(name)).transpose()?;
        let source = match number {
            // It is the same for all rows of a code.
            Some(Number::Attribute(attribute))
                if mask.is_none() && base.code == Some(self.attributes[attribute].code) =>
            {
                if merge == Merge::Add {
                    SlotSource::RowsTimes(attribute)
                } else {
                    SlotSource::Attribute(attribute)
                }
            }
            _ => {
                let source = Source { of: number, merge, mask };
                SlotSource::Gathered(base.sources.iter().position(|known| *known == source).unwrap_or_else(|| {
                    base.sources.push(source);
                    base.sources.len() - 1
                }))
            }
        };
        let slot = report.slots.len();
        report.slots.push(Slot { name: name.to_owned(), merge });
        target.slots.push(source);
        let is_time = of.and_then(|name| self.definition.field(name)).is_some_and(is_time);
        Ok(match is_time {
            true => Figure::Time { slot },
            false => Figure::Number { slot, places: aggregate.places(self.definition) },
        })
    }

    fn labels(&self, written: &WrittenReport, key: Option<Coded>, base: &mut Base) -> Result<Vec<Label>, String> {
        let under = written.top.iter().flat_map(|top| &top.under).filter(|name| !written.attributes.contains(name));
        let label = |name: &String| {
            let field = self.definition.field(name).ok_or_else(|| no_field(name))?;
            let (unknown, mut many) = (field.unknown().map(str::to_owned), None);
            let source = match (self.attribute(name), key) {
                (Some(attribute), Some(Coded::Column(code))) if self.attributes[attribute].code == code => {
                    many = self.attributes[attribute].many;
                    LabelSource::OfKey(attribute)
                }
                (Some(_), _) => return Err(no_field(name)),
                (None, _) => {
                    let value = self.latest(field)?;
                    LabelSource::Latest(base.latest.iter().position(|known| *known == value).unwrap_or_else(|| {
                        base.latest.push(value);
                        base.latest.len() - 1
                    }))
                }
            };
            Ok(Label { name: name.clone(), source, many, unknown })
        };
        written.attributes.iter().chain(under).map(label).collect()
    }

    fn latest(&self, field: Field<'_>) -> Result<LatestValue, String> {
        match (field.type_(), is_time(field)) {
            (Type::Decimal { places, .. }, _) => Ok(LatestValue::Number(self.number(field.name())?, *places)),
            (_, true) => Ok(LatestValue::Time(self.number(field.name())?)),
            _ => match self.code(field.name()) {
                Some(code) => Ok(LatestValue::Code(code)),
                None => Ok(LatestValue::Number(self.number(field.name())?, 0)),
            },
        }
    }

    fn top(&self, written: &WrittenReport, report: &Report) -> Result<Option<Top>, String> {
        let Some(top) = &written.top else { return Ok(None) };
        let is_slot = |figure: Figure| matches!(figure, Figure::Number { .. } | Figure::Time { .. });
        let measure = report.measures.iter().position(|it| it.name == top.by && is_slot(it.figure));
        let measure = measure.ok_or_else(|| no_field(&top.by))?;
        let label = |name: &String| {
            let place = report.labels.iter().position(|label| label.name == *name);
            place.ok_or_else(|| no_field(name))
        };
        Ok(Some(Top { measure, under: top.under.iter().map(label).collect::<Result<_, _>>()?, keep: top.keep }))
    }

    /// Returns the columns of the curated files.
    fn curated(&self) -> Vec<CuratedColumn> {
        let of_columns = self.definition.columns.iter().zip(&self.columns).map(|(column, places)| {
            let values = match places {
                Places { is_time: true, .. } => CuratedValues::Time,
                Places { code: Some(code), .. } => CuratedValues::Code(*code),
                Places { int, .. } => CuratedValues::Int(int.unwrap_or_default()),
            };
            (column.name.as_str(), &column.type_, column.is_optional, values)
        });
        let attributes = self.definition.references.iter().flat_map(|reference| &reference.attributes);
        let of_attributes = attributes.enumerate().map(|(index, attribute)| {
            (attribute.name.as_str(), &attribute.type_, true, CuratedValues::Attribute(index))
        });
        let mut curated: Vec<CuratedColumn> = of_columns
            .chain(of_attributes)
            .map(|(name, type_, is_nullable, values)| {
                let type_ = curated_type(type_);
                CuratedColumn { column: parquet::Column { name: name.to_owned(), type_, is_nullable }, values }
            })
            .collect();
        let source = parquet::Column::required(SOURCE_COLUMN, parquet::Type::Text);
        curated.push(CuratedColumn { column: source, values: CuratedValues::Source });
        curated
    }
}

fn is_time(field: Field<'_>) -> bool {
    matches!(field.type_(), Type::Time { .. })
        && !matches!(field, Field::Column(Column { source: Origin::Join { .. }, .. }))
}

/// The type of a column of the curated files.
fn curated_type(type_: &Type) -> parquet::Type {
    match type_ {
        Type::Id { .. } | Type::Text { .. } => parquet::Type::Text,
        Type::Integer { min, max } => match i32::try_from(*min).and(i32::try_from(*max)) {
            Ok(_) => parquet::Type::Int32,
            Err(_) => parquet::Type::Int64,
        },
        Type::Decimal { places, .. } => parquet::Type::Decimal { places: *places },
        Type::Time { .. } => parquet::Type::Timestamp,
    }
}

/// Counts pairs by a sort that finds them anyway, or by a new one.
fn add_sort(sorts: &mut Vec<Sort>, first: Option<usize>, second: Coded, mask: Option<usize>, count: Count) {
    if let Some(sort) = sorts.iter_mut().find(|it| (it.first, it.second, it.mask) == (first, second, mask)) {
        return sort.counts.push(count);
    }
    let swapped = |sort: &&mut Sort| {
        let (Some(one), Some(other)) = (first, sort.first) else { return false };
        sort.mask == mask && sort.second == Coded::Column(one) && second == Coded::Column(other)
    };
    if let Some(sort) = sorts.iter_mut().find(swapped) {
        return sort.reverse.push(count);
    }
    sorts.push(Sort { first, second, mask, counts: vec![count], reverse: Vec::new() });
}
