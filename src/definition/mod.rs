//! The definition of a pipeline: the shape of its files, the references that are looked up, and the reports.
//!
//! Data and nothing else: everything is as it was written, with defaults filled in, and whoever holds a [`Definition`]
//! may rely on its rules. A name refers to what it should, a type fits its use, and each count and length is within its
//! limit. Names are kept as text here; the batch resolves them to numbers once.
//!
//! | file | contents |
//! |---|---|
//! | [`input`] | the format of the files |
//! | [`columns`] | columns and attributes, their types and the places they are read from |
//! | [`conditions`] | the conditions of rows and measures |
//! | [`reports`] | reports, their measures and top lists |

pub mod built_in;
pub mod columns;
pub mod conditions;
pub mod input;
pub mod reports;

use std::time::Duration;

use jiff::tz::TimeZone;

use crate::definition::columns::{Attribute, Column, Place, Type};
use crate::definition::conditions::Condition;
use crate::definition::input::{Delimited, Input};
use crate::definition::reports::Report;

/// The definition of a pipeline.
///
/// Columns, references, attributes, reports and measures have the order in which they were written. Names are
/// `[a-z][a-z0-9_]{0,62}`, and columns and attributes share one space of them: each is a column of the curated files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// The pipeline's name, for messages, metrics and the ledger: `[a-z][a-z0-9-]{0,62}`.
    pub name: String,
    /// The column of type time that says when; its day or hour is the row's. It is not optional.
    pub time: String,
    /// The zone whose days the reports and curated files have. Its name is [`TimeZone::iana_name`]. Hours are UTC's.
    pub zone: TimeZone,
    /// The first day that rows may have, in days since the Unix epoch, of `zone`.
    pub earliest: i32,
    /// The time by which a row may be ahead of the clock.
    pub future: Duration,
    /// The format of the files.
    pub input: Input,
    /// The columns of the rows: at most 64.
    pub columns: Vec<Column>,
    /// The conditions of the rows that are meant, all of which hold. Other rows are passed over: neither reported nor
    /// curated nor rejected. The columns named here are read before all others, so that a row that is not meant is
    /// never rejected for what it lacks.
    pub conditions: Vec<Condition>,
    /// The files that are looked up: at most 16.
    pub references: Vec<Reference>,
    /// The reports: at least one, at most 16.
    pub reports: Vec<Report>,
}

/// A file under `reference/` whose lines add attributes to the rows.
///
/// Of several lines with the same key the first counts, but an attribute with [`Attribute::many`] has the values of all
/// of them. A line with a field that its type does not take is skipped and counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// Its key below `reference/`: a name with `.csv` or `.tsv`, with or without `.gz` or `.zst`.
    pub file: String,
    /// Its format, which follows from the file's name and from `header`.
    pub format: Delimited,
    /// The column of the rows that is looked up: an id, a text, an integer or a join. The file's keys have its type.
    pub key: String,
    /// The place of the key in the file's lines.
    pub key_from: Place,
    /// The attributes: at least one. Together with the columns there are at most 64.
    pub attributes: Vec<Attribute>,
}

/// A value that each row has, or may have: a column of the curated files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field<'d> {
    /// A column of the rows.
    Column(&'d Column),
    /// An attribute of the value that a reference's key has.
    Attribute(&'d Reference, &'d Attribute),
}

impl<'d> Field<'d> {
    /// Its name.
    pub fn name(self) -> &'d str {
        match self {
            Field::Column(column) => &column.name,
            Field::Attribute(_, attribute) => &attribute.name,
        }
    }

    /// The type of its values. A join's is [`columns::JOINED`].
    pub fn type_(self) -> &'d Type {
        match self {
            Field::Column(column) => &column.type_,
            Field::Attribute(_, attribute) => &attribute.type_,
        }
    }

    /// The value that reports have in place of none.
    pub fn unknown(self) -> Option<&'d str> {
        match self {
            Field::Column(column) => column.unknown.as_deref(),
            Field::Attribute(_, attribute) => attribute.unknown.as_deref(),
        }
    }

    /// True if a row may have no value. Of an attribute that is always so: the reference may lack the row's key.
    pub fn may_lack(self) -> bool {
        match self {
            Field::Column(column) => column.is_optional,
            Field::Attribute(..) => true,
        }
    }
}

impl Definition {
    /// Returns the column of this name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Returns the column or attribute of this name.
    pub fn field(&self, name: &str) -> Option<Field<'_>> {
        self.fields().find(|field| field.name() == name)
    }

    /// Returns all columns and then all attributes: the columns of the curated files, in their order there.
    pub fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        let attributes = self.references.iter().flat_map(|reference| {
            reference.attributes.iter().map(move |attribute| Field::Attribute(reference, attribute))
        });
        self.columns.iter().map(Field::Column).chain(attributes)
    }
}
