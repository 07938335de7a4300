//! The keys of a definition's file, section by section, with their values, defaults and meanings.
//!
//! The parser reads by these tables, and the [schema for editors](crate::definition::schema) and the reference in
//! `docs/definition.md` are made of them: there is no second list of keys.
//!
//! | file | contents |
//! |---|---|
//! | [`shape`] | sections, keys, and the shapes of values |
//! | [`limits`] | limits, choices and reserved names |
//! | [`files`] | the sections on files and their columns |
//! | [`figures`] | the sections on references and reports |

pub mod figures;
pub mod files;
pub mod limits;
pub mod shape;

use crate::definition::keys::figures::{ATTRIBUTE, MEASURE, REFERENCE, REPORT, TOP_LIST};
use crate::definition::keys::files::{COLUMN, CONDITION, INPUT, JOIN};
use crate::definition::keys::limits::{MAX_COLUMNS, MAX_SECTIONS};
use crate::definition::keys::shape::{Entry, Key, Missing, Section, Shape};

/// All sections, in the order of the reference.
pub const SECTIONS: [&Section; 10] =
    [&TOP, &INPUT, &COLUMN, &JOIN, &CONDITION, &REFERENCE, &ATTRIBUTE, &REPORT, &TOP_LIST, &MEASURE];

/// The top of the file, above the first heading, and its sections.
pub const TOP: Section = Section {
    name: "the definition",
    place: "the top of the file, above the first heading",
    example: "name = \"orders\"",
    variant: None,
    keys: &[
        key(
            "name",
            pattern(63, "^[a-z][a-z0-9-]{0,62}$"),
            Missing::Required,
            "The pipeline's name, for messages, metrics and the ledger: `a` to `z`, digits and `-`.",
        ),
        key(
            "time",
            A_NAME,
            Missing::Required,
            "The column of type time that says when. Its day or hour is the row's; no row is ever late.",
        ),
        key(
            "zone",
            text(1, 64),
            Missing::Value("\"UTC\""),
            "The zone, by its IANA name, whose days reports and curated files have. Hours are always UTC's, so \
             that none is ambiguous.",
        ),
        key(
            "earliest",
            pattern(10, "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"),
            Missing::Value("\"2000-01-01\""),
            "The first day, in `zone`, that rows may have. Older ones are rejected.",
        ),
        key(
            "future",
            text(1, 32),
            Missing::Value("\"1d\""),
            "The time, such as `90m` or `2d`, by which rows may be ahead of the clock. Others are rejected. At \
             most 366 days.",
        ),
        key("input", Shape::Section(&INPUT), Missing::Required, "The format of the files."),
        key(
            "columns",
            entries(Entry::Column, 1, MAX_COLUMNS),
            Missing::Required,
            "The columns, by name. They and the attributes of references share one space of names, and are \
             columns of the curated files; 64 at most.",
        ),
        key(
            "where",
            CONDITIONS,
            Missing::Nothing,
            "The rows that are meant, by conditions of columns that all hold. Others are passed over: neither \
             reported, nor curated, nor rejected. These columns are read first: a row that is not meant is not \
             rejected for what it lacks.",
        ),
        key(
            "references",
            entries(Entry::Reference, 1, MAX_SECTIONS),
            Missing::Nothing,
            "Files that are looked up, by name.",
        ),
        key("reports", entries(Entry::Report, 1, MAX_SECTIONS), Missing::Required, "The reports, by name."),
    ],
};

/// A key of all variants.
pub(super) const fn key(name: &'static str, shape: Shape, missing: Missing, meaning: &'static str) -> Key {
    Key { name, shape, missing, only: &[], meaning }
}

/// A key of some variants.
pub(super) const fn of(
    only: &'static [&'static str],
    name: &'static str,
    shape: Shape,
    missing: Missing,
    meaning: &'static str,
) -> Key {
    Key { name, shape, missing, only, meaning }
}

/// A text of these many bytes.
pub(super) const fn text(min: usize, max: usize) -> Shape {
    Shape::Text { min, max, pattern: None }
}

/// A text that editors hold against a pattern.
pub(super) const fn pattern(max: usize, pattern: &'static str) -> Shape {
    Shape::Text { min: 1, max, pattern: Some(pattern) }
}

/// A table with these many names for keys.
pub(super) const fn entries(of: Entry, min: usize, max: usize) -> Shape {
    Shape::Entries { of, min, max }
}

/// A name of a column, or the like.
pub(super) const A_NAME: Shape = Shape::Name { or_all: false };
/// Conditions, by column.
pub(super) const CONDITIONS: Shape = entries(Entry::Condition, 1, MAX_COLUMNS);
