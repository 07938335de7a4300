//! The changes from one definition to another, and what each of them means for figures that are there already.
//!
//! A batch is prepared under one definition, so no batch has figures of two meanings. An item has those of many
//! batches: a change that would have it add up two meanings is refused. Reports are the same if their tables are.

use serde::Serialize;

use crate::definition::columns::Type;
use crate::definition::reports::{Measure, Period, Report, Top};
use crate::definition::{Definition, Field, Reference};

/// A change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The part of the definition that is another.
    pub part: String,
    /// The consequence for what is there already.
    pub class: Class,
    /// The change, its meaning, and what to do about it.
    pub meaning: &'static str,
}

/// The consequence of a change for what is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// It holds from the next batch on, and what was counted before stays right.
    Compatible,
    /// Days that were counted before stay as they are, and mean something else than later ones, until they are rebuilt.
    OldDaysStay,
    /// It would add up figures of two meanings, so it cannot be made.
    Refused,
}

/// The meaning of a change in the way that files are read.
const READ_ANEW: &str = "it holds from the next batch on; files that were counted stay as they are, and a rebuild of a \
                         day reads them anew";

/// Returns the changes from one definition to another.
pub fn changes(old: &Definition, new: &Definition) -> Vec<Change> {
    let mut changes = Changes { old, new, found: Vec::new() };
    changes.rows();
    changes.fields();
    changes.references();
    changes.reports();
    changes.found
}

struct Changes<'d> {
    old: &'d Definition,
    new: &'d Definition,
    found: Vec<Change>,
}

impl Changes<'_> {
    fn add(&mut self, class: Class, part: impl Into<String>, meaning: &'static str) {
        self.found.push(Change { part: part.into(), class, meaning });
    }

    fn add_if(&mut self, is_other: bool, class: Class, part: impl Into<String>, meaning: &'static str) {
        if is_other {
            self.add(class, part, meaning);
        }
    }

    /// The sections that say which rows there are.
    fn rows(&mut self) {
        use Class::{Compatible, OldDaysStay};
        let (old, new) = (self.old, self.new);
        self.add_if(old.name != new.name, Compatible, "name", "it is another in messages and metrics");
        self.add_if(old.time != new.time, OldDaysStay, "time", "rows to come have the day of another column");
        self.add_if(old.zone != new.zone, OldDaysStay, "zone", "rows to come have the days of another zone");
        self.add_if(old.earliest != new.earliest, Compatible, "earliest", READ_ANEW);
        self.add_if(old.future != new.future, Compatible, "future", READ_ANEW);
        self.add_if(old.input != new.input, Compatible, "input", READ_ANEW);
        self.add_if(old.conditions != new.conditions, Compatible, "where", READ_ANEW);
    }

    /// Columns and attributes.
    fn fields(&mut self) {
        let (old, new) = (self.old, self.new);
        for field in old.fields().filter(|field| new.field(field.name()).is_none()) {
            self.add(Class::Compatible, part(field), "it is gone: curated files to come do not have it");
        }
        for field in new.fields() {
            match old.field(field.name()) {
                None => self.add(Class::Compatible, part(field), "it is new: curated files to come have it"),
                Some(before) if is_same(before, field) => {}
                Some(before) => {
                    let (class, meaning) = of_field(before, field);
                    self.add(class, part(field), meaning);
                }
            }
        }
    }

    fn references(&mut self) {
        for reference in &self.new.references {
            let of_name = |other: &&Reference| other.name == reference.name;
            let Some(before) = self.old.references.iter().find(of_name) else { continue };
            let read = |of: &Reference| (of.file.clone(), of.format.clone(), of.key.clone(), of.key_from.clone());
            let part = format!("references.{}", reference.name);
            self.add_if(read(before) != read(reference), Class::Compatible, part, READ_ANEW);
        }
    }

    fn reports(&mut self) {
        let of_table = |reports: &[Report], table: &str| reports.iter().position(|report| report.table == table);
        let (old, new) = (self.old, self.new);
        for report in old.reports.iter().filter(|report| of_table(&new.reports, &report.table).is_none()) {
            let meaning = "it is gone: its table stays as it is, and nothing more is written to it";
            self.add(Class::Compatible, format!("reports.{}", report.name), meaning);
        }
        for report in &new.reports {
            match of_table(&old.reports, &report.table) {
                Some(before) => self.report(&old.reports[before], report),
                None => {
                    let meaning = "it is new: it counts from the next whole period on, once its table is there; a \
                                   rebuild fills the past";
                    self.add(Class::Compatible, format!("reports.{}", report.name), meaning);
                }
            }
        }
    }

    /// A report whose table is there already.
    fn report(&mut self, before: &Report, report: &Report) {
        use Class::{Compatible, OldDaysStay, Refused};
        let part = format!("reports.{}", report.name);
        let is_of_another_zone = report.every == Period::Day && self.old.zone != self.new.zone;
        self.add_if(before.key != report.key, Refused, &part, "its items have another key; give it another table");
        self.add_if(
            before.every != report.every,
            Refused,
            &part,
            "its items are of other periods; give it another table",
        );
        self.add_if(is_of_another_zone, Refused, &part, "its days are those of another zone; give it another table");
        self.add_if(before.name != report.name, OldDaysStay, &part, "its top lists have another name, and begin anew");
        let labels = "an item shows them from its next change on";
        self.add_if(before.attributes != report.attributes, Compatible, format!("{part}.attributes"), labels);
        let shown = "pages, the API and policies show it in another way; give the template's stack the new policies";
        self.add_if(before.is_personal != report.is_personal, Compatible, format!("{part}.personal"), shown);
        let orders = |top: &Option<Top>| top.as_ref().map(|top| (top.by.clone(), top.under.clone()));
        let lists = "its top lists are whole from the next period on; a rebuild fills those of the past";
        self.add_if(orders(&before.top) != orders(&report.top), OldDaysStay, format!("{part}.top"), lists);
        for measure in before.measures.iter().filter(|measure| report.measure(&measure.name).is_none()) {
            let meaning = "it is gone: items keep the figure that they have, so its name cannot be used again";
            self.add(Compatible, format!("{part}.measures.{}", measure.name), meaning);
        }
        // What a measure follows from is in it, but for the digits of its column.
        let meaning = |of: &Definition, measure: &Measure| {
            (Measure { unit: None, ..measure.clone() }, measure.aggregate.places(of))
        };
        for measure in &report.measures {
            let part = format!("{part}.measures.{}", measure.name);
            match before.measure(&measure.name) {
                None => self.add(Compatible, part, "it is new: items that are there get it by a rebuild"),
                Some(other) if meaning(self.old, other) == meaning(self.new, measure) => {
                    self.add_if(other.unit != measure.unit, Compatible, part, "pages show it in another unit");
                }
                Some(_) => self.add(Refused, part, "it means something else now; give it another name"),
            }
        }
    }
}

fn part(field: Field<'_>) -> String {
    match field {
        Field::Column(column) => format!("columns.{}", column.name),
        Field::Attribute(reference, attribute) => format!("references.{}.columns.{}", reference.name, attribute.name),
    }
}

fn is_same(one: Field<'_>, other: Field<'_>) -> bool {
    match (one, other) {
        (Field::Column(one), Field::Column(other)) => one == other,
        (Field::Attribute(_, one), Field::Attribute(_, other)) => one == other,
        _ => false,
    }
}

/// The consequence of a column or attribute that is another.
fn of_field(before: Field<'_>, field: Field<'_>) -> (Class, &'static str) {
    let is_optional = |field: Field<'_>| match field {
        Field::Column(column) => column.is_optional,
        Field::Attribute(_, attribute) => attribute.is_optional,
    };
    match width(before.type_(), field.type_()) {
        Width::Other => {
            (Class::Refused, "its type is another, and a column of curated files has one; give it another name")
        }
        Width::Narrower => (Class::OldDaysStay, "its type is narrower: values are refused that were taken before"),
        _ if is_optional(before) && !is_optional(field) => {
            (Class::OldDaysStay, "it has to be there: rows are rejected that were counted before")
        }
        _ if before.unknown() != field.unknown() => {
            (Class::OldDaysStay, "what has no value is counted under another one")
        }
        _ => (Class::Compatible, READ_ANEW),
    }
}

/// Returns true if curated files have integers of this range in 32 bits.
pub fn fit_32_bits(min: i64, max: i64) -> bool {
    i32::try_from(min).and(i32::try_from(max)).is_ok()
}

/// The values of a type, compared with those of another.
#[derive(Debug, PartialEq, Eq)]
enum Width {
    /// It takes at least the same.
    Same,
    /// It does not take all of them.
    Narrower,
    /// It is stored in another way.
    Other,
}

fn width(before: &Type, type_: &Type) -> Width {
    let takes_all = match (before, type_) {
        (Type::Id { max_bytes: before }, Type::Id { max_bytes } | Type::Text { max_bytes, .. }) => max_bytes >= before,
        (Type::Text { .. }, Type::Id { .. }) => false,
        (Type::Text { max_bytes: before, is_cut: was_cut }, Type::Text { max_bytes, is_cut }) => {
            max_bytes >= before && is_cut >= was_cut
        }
        (Type::Integer { min: from, max: to }, Type::Integer { min, max })
            if fit_32_bits(*from, *to) != fit_32_bits(*min, *max) =>
        {
            return Width::Other;
        }
        (Type::Integer { min: from, max: to }, Type::Integer { min, max }) => min <= from && max >= to,
        (Type::Decimal { places: before, .. }, Type::Decimal { places, .. }) if before != places => {
            return Width::Other;
        }
        (Type::Decimal { min: from, max: to, .. }, Type::Decimal { min, max, .. }) => min <= from && max >= to,
        (Type::Time { .. }, Type::Time { .. }) => true,
        _ => return Width::Other,
    };
    if takes_all { Width::Same } else { Width::Narrower }
}
