//! The sections on references, which are looked up, and on reports.

use crate::definition::columns::MAX_VALUE_BYTES;
use crate::definition::keys::limits::{ATTRIBUTE_TYPES, KEPT, MAX_COLUMNS, MAX_MEASURES, MAX_SHOWN, MAX_UNDER};
use crate::definition::keys::shape::{Entry, Missing, Section, Shape};
use crate::definition::keys::{A_NAME, CONDITIONS, entries, key, of, pattern, text};

/// `[references.NAME]`.
pub const REFERENCE: Section = Section {
    name: "reference",
    place: "[references.NAME]",
    example: "[references.products]",
    variant: None,
    keys: &[
        key(
            "file",
            pattern(200, "^[^/].*\\.(csv|tsv)(\\.gz|\\.zst)?$"),
            Missing::Required,
            "Its key below `reference/`. It is CSV or TSV, as its name says.",
        ),
        key("header", Shape::Flag, Missing::Value("true"), "True if the first line names the columns."),
        key(
            "key",
            A_NAME,
            Missing::Required,
            "The column of the rows that is looked up. Of several lines with one key the first counts.",
        ),
        key(
            "key_from",
            Shape::Place { or_several: false },
            Missing::Words("the key's name"),
            "The place of the key in the file.",
        ),
        key("columns", entries(Entry::Attribute, 1, MAX_COLUMNS), Missing::Required, "The attributes, by name."),
    ],
};

/// An attribute of a reference.
pub const ATTRIBUTE: Section = Section {
    name: "attribute",
    place: "a column of a reference",
    example: "[references.products.columns]",
    variant: Some("type"),
    keys: &[
        key(
            "type",
            Shape::OneOf(&ATTRIBUTE_TYPES),
            Missing::Required,
            "The type, as of a column. Lines with a value that it does not take are skipped and counted.",
        ),
        key(
            "from",
            Shape::Place { or_several: false },
            Missing::Words("the attribute's name"),
            "The place: a name in the header, in any letter case, or a number from 1.",
        ),
        key(
            "optional",
            Shape::Flag,
            Missing::Value("false"),
            "True if a line may have no value. A row whose key the file lacks has none in any case.",
        ),
        key("unknown", text(1, MAX_VALUE_BYTES), Missing::Nothing, "The value that reports have in place of none."),
        of(&["integer", "decimal"], "min", Shape::Number, Missing::Words("as of a column"), "The least value."),
        of(
            &["id", "text", "integer", "decimal"],
            "max",
            Shape::Number,
            Missing::Words("as of a column"),
            "The greatest value, or the most bytes.",
        ),
        of(&["text"], "cut", Shape::Flag, Missing::Value("false"), "True if a longer text is cut."),
        of(&["decimal"], "places", Shape::Whole { min: 1, max: 9 }, Missing::Required, "The digits after the point."),
        of(
            &["id", "text"],
            "many",
            text(1, 1),
            Missing::Nothing,
            "The character between several values of a line. A key has the values of all its lines.",
        ),
    ],
};

/// `[reports.NAME]`.
pub const REPORT: Section = Section {
    name: "report",
    place: "[reports.NAME]",
    example: "[reports.products]",
    variant: None,
    keys: &[
        key(
            "key",
            Shape::Name { or_all: true },
            Missing::Required,
            "The column or attribute that has an item for each of its values and each day or hour; `*` for one \
             item of all rows. If a row may have no value, the column needs `unknown`.",
        ),
        key(
            "every",
            Shape::OneOf(&["day", "hour"]),
            Missing::Value("\"day\""),
            "The period of an item: a day of `zone`, or an hour of UTC.",
        ),
        key(
            "table",
            pattern(200, "^[A-Za-z0-9_.-]{3,200}$"),
            Missing::Words("the report's name"),
            "The DynamoDB table, without the prefix of all tables.",
        ),
        key(
            "attributes",
            Shape::Names { min: 1, max: MAX_SHOWN },
            Missing::Nothing,
            "The fields that are shown beside the figures: attributes of the key; of columns the value of the \
             key's latest row.",
        ),
        key("top", Shape::Section(&TOP_LIST), Missing::Nothing, "The top lists."),
        key(
            "personal",
            Shape::Flag,
            Missing::Value("false"),
            "Its keys are of persons: pages, the API and the policy of those who read show it only where that is asked \
             for.",
        ),
        key(
            "measures",
            entries(Entry::Measure, 1, MAX_MEASURES),
            Missing::Required,
            "The figures, by name; 4 distinct counts at most.",
        ),
    ],
};

/// The top lists of a report.
pub const TOP_LIST: Section = Section {
    name: "top",
    place: "'top' of a report",
    example: "top = { by = \"revenue\" }",
    variant: None,
    keys: &[
        key(
            "by",
            A_NAME,
            Missing::Required,
            "The measure that orders them, which never falls: a count, a max, or a sum of a column with a `min` \
             of 0 or more.",
        ),
        key(
            "under",
            Shape::Names { min: 1, max: MAX_UNDER },
            Missing::Nothing,
            "Attributes of the key with a list under each of their values.",
        ),
        key("keep", Shape::Whole { min: 1, max: KEPT.0 }, Missing::Value("100"), "The most entries of a list."),
    ],
};

/// A measure.
pub const MEASURE: Section = Section {
    name: "measure",
    place: "a measure",
    example: "[reports.products.measures]",
    variant: None,
    keys: &[
        of(
            &["count"],
            "count",
            Shape::True,
            Missing::Required,
            "The number of rows. Without a condition it may be written as `\"count\"`.",
        ),
        of(&["sum"], "sum", A_NAME, Missing::Required, "The sum of an integer or a decimal; no value adds nothing."),
        of(&["min"], "min", A_NAME, Missing::Required, "The least value of an integer, a decimal or a time."),
        of(&["max"], "max", A_NAME, Missing::Required, "The greatest value of an integer, a decimal or a time."),
        of(
            &["distinct"],
            "distinct",
            A_NAME,
            Missing::Required,
            "The number of different values of an id, a text or an integer, by a sketch.",
        ),
        of(
            &["ratio"],
            "ratio",
            Shape::Names { min: 2, max: 2 },
            Missing::Required,
            "Two measures, the first divided by the second. Each is a count, a sum or a distinct count.",
        ),
        of(
            &["sum"],
            "divide",
            Shape::WholeOf(&[10, 100, 1000, 1_000_000]),
            Missing::Nothing,
            "The number by which the sum is divided, exactly, when it is shown: milliseconds as seconds, say.",
        ),
        of(
            &["ratio"],
            "places",
            Shape::Whole { min: 0, max: 9 },
            Missing::Words("those of the first measure"),
            "The digits after the point to which it is rounded.",
        ),
        of(
            &["sum", "min", "max", "ratio"],
            "unit",
            Shape::OneOf(&["seconds", "bytes"]),
            Missing::Nothing,
            "The unit of the figure, by which pages show it: as hours and minutes, or as KiB to TiB.",
        ),
        of(
            &["count", "sum", "min", "max", "distinct"],
            "where",
            CONDITIONS,
            Missing::Nothing,
            "The rows that it takes, as in `[where]`.",
        ),
    ],
};
