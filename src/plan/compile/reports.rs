//! Reports: measures to slots and sketches, and what is to be gathered and sorted for them.

use crate::definition::Field;
use crate::definition::columns::{Column, Source as Origin, Type};
use crate::definition::conditions::{Condition as WrittenCondition, Test, Values};
use crate::definition::reports::{ALL, Aggregate, Key, Measure as WrittenMeasure, Period, Report as WrittenReport};
use crate::plan::columns::{Coded, Condition, Mask, Number, Operand, Places};
use crate::plan::compile::{Compiler, no_field};
use crate::plan::folding::{Base, Count, Folding, SlotSource, Sort, Source, Target};
use crate::plan::reports::{
    Figure, Label, LabelSource, LatestValue, Measure, Merge, ROWS_ATTRIBUTE, Report, SKETCH_ATTRIBUTE, Sketch, Slot,
    Top,
};

impl Compiler<'_> {
    /// Compiles a report, and adds its work to that of its kind of period.
    pub(super) fn report(
        &mut self,
        written: &WrittenReport,
        index: usize,
        folding: &mut Folding,
    ) -> Result<Report, String> {
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
            let figure = self.figure(measure, written, &mut report, &mut target, (folding, base))?;
            report.measures.push(Measure { name: measure.name.clone(), figure, unit: measure.unit });
        }
        if let [only] = report.sketches.as_mut_slice() {
            SKETCH_ATTRIBUTE.clone_into(&mut only.attribute);
        }
        folding.bases[base].targets.push(target);
        report.top = self.top(written, &report)?;
        Ok(report)
    }

    /// Compiles a measure, and adds its work to that of the report's base.
    fn figure(
        &mut self,
        measure: &WrittenMeasure,
        written: &WrittenReport,
        report: &mut Report,
        target: &mut Target,
        (folding, base): (&mut Folding, usize),
    ) -> Result<Figure, String> {
        let mask = self.mask(&measure.conditions)?;
        match &measure.aggregate {
            Aggregate::Distinct { of } => {
                let (report_index, spread, sketch) = (target.report, target.spread, report.sketches.len());
                let (measure, attribute) = (measure.name.clone(), Sketch::attribute_of(&measure.name));
                report.sketches.push(Sketch { measure, attribute });
                let count = Count { report: report_index, spread, sketch };
                add_sort(&mut folding.sorts, folding.bases[base].code, self.coded(of)?, mask, count);
                Ok(Figure::Distinct { sketch })
            }
            Aggregate::Ratio { of, by, places } => {
                let place = |name: &str| written.measures.iter().position(|measure| measure.name == *name);
                let (of, by) = (place(of).ok_or_else(|| no_field(of))?, place(by).ok_or_else(|| no_field(by))?);
                Ok(Figure::Ratio { of, by, places: *places })
            }
            Aggregate::Count if mask.is_none() => {
                report.rows_attribute.clone_from(&measure.name);
                Ok(Figure::Number { slot: 0, places: 0 })
            }
            _ => self.gathered(measure, mask, &mut folding.bases[base], target, report),
        }
    }

    /// Adds a slot to a report, and what is to be gathered for it to its base.
    fn gathered(
        &self,
        WrittenMeasure { name, aggregate, .. }: &WrittenMeasure,
        mask: Option<usize>,
        base: &mut Base,
        target: &mut Target,
        report: &mut Report,
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
        let under = top.under.iter().map(label).collect::<Result<_, _>>()?;
        let key = match &written.key {
            Key::All => None,
            Key::Field(name) => self.definition.field(name),
        };
        let label_bytes = written.label_bytes(key.map_or(0, |key| key.type_().most_bytes()), top.keep);
        Ok(Some(Top { measure, under, keep: top.keep, label_bytes }))
    }
}

fn is_time(field: Field<'_>) -> bool {
    matches!(field.type_(), Type::Time { .. })
        && !matches!(field, Field::Column(Column { source: Origin::Join { .. }, .. }))
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
