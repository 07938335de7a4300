//! The sections on files: their format, their columns, and conditions of columns.

use crate::definition::columns::MAX_VALUE_BYTES;
use crate::definition::keys::limits::{FORMATS, MAX_JOINED, TYPES};
use crate::definition::keys::shape::{Missing, Section, Shape};
use crate::definition::keys::{key, of, text};

/// `[input]`.
pub const INPUT: Section = Section {
    name: "input",
    place: "[input]",
    example: "[input]",
    variant: Some("format"),
    keys: &[
        key(
            "format",
            Shape::OneOf(&FORMATS),
            Missing::Required,
            "`csv`; `tsv`: tabs between fields, quotes are plain characters; `w3c`: `#Fields:` names the columns, \
             wherever it stands and as often as it does, and other lines with `#` are comments; `json`: values \
             with blanks, commas or nothing between them, where an array stands for its elements. gzip and zstd \
             are recognized by their first bytes.",
        ),
        of(
            &["csv", "w3c"],
            "delimiter",
            text(1, 1),
            Missing::Words("`\",\"`; of w3c a tab"),
            "The character between two fields.",
        ),
        of(
            &["csv"],
            "quote",
            text(0, 1),
            Missing::Value("\"\\\"\""),
            "The character around a field that may contain delimiters, line ends and, doubled, itself. Empty: \
             every character is plain.",
        ),
        of(
            &["csv", "tsv"],
            "header",
            Shape::Flag,
            Missing::Value("true"),
            "True if the first line names the columns. If not, columns are given by number.",
        ),
        of(&["csv", "tsv"], "comment", text(1, 16), Missing::Nothing, "The beginning of lines that are passed over."),
        of(
            &["csv", "tsv", "w3c"],
            "null",
            Shape::Texts { min: 0, max: 16, bytes: 64 },
            Missing::Value("[\"\"]"),
            "The texts of a field that mean no value. Without \"\" among them an empty field is a text.",
        ),
        of(
            &["json"],
            "records",
            text(1, 256),
            Missing::Nothing,
            "The key under which each value has the list of its records, such as `Records` in CloudTrail's files.",
        ),
    ],
};

/// A column.
pub const COLUMN: Section = Section {
    name: "column",
    place: "a column",
    example: "[columns]",
    variant: Some("type"),
    keys: &[
        key(
            "type",
            Shape::OneOf(&TYPES),
            Missing::Required,
            "The type. A column with nothing else may be written as its type alone: `sku = \"id\"`.",
        ),
        key(
            "from",
            Shape::Place { or_several: true },
            Missing::Words("the column's name"),
            "The place: a name in the header, in any letter case; the number of a field, from 1; a path into a \
             record of JSON (`customer.id`). Several places of a text or a time are joined by a blank. `@key.1` \
             is the first part of the object's key below the prefix, `@key.tenant` the value of its part \
             `tenant=…`.",
        ),
        key(
            "optional",
            Shape::Flag,
            Missing::Value("false"),
            "True if a row may have no value. Otherwise it is rejected.",
        ),
        key("unknown", text(1, MAX_VALUE_BYTES), Missing::Nothing, "The value that reports have in place of none."),
        of(
            &["integer", "decimal"],
            "min",
            Shape::Number,
            Missing::Words("the least of 64 bits, or of 18 digits"),
            "The least value. Rows with others are rejected, here and below.",
        ),
        of(
            &["id", "text", "integer", "decimal"],
            "max",
            Shape::Number,
            Missing::Words("64 of an id, 1024 of a text; the greatest of 64 bits, or of 18 digits"),
            "The greatest value; of an id and a text the most bytes, up to 1024.",
        ),
        of(
            &["text"],
            "cut",
            Shape::Flag,
            Missing::Value("false"),
            "True if a longer text is cut, and its row not rejected.",
        ),
        of(
            &["decimal"],
            "places",
            Shape::Whole { min: 1, max: 9 },
            Missing::Required,
            "The digits after the point, zeros at the end aside. Nothing is ever rounded: rows with more are \
             rejected.",
        ),
        of(
            &["time"],
            "format",
            text(1, 128),
            Missing::Value("\"iso\""),
            "The way it is written: `iso`; `unix`, `unix_ms`, `unix_us`; or a pattern such as `%d/%b/%Y:%H:%M:%S \
             %z`.",
        ),
        of(&["time"], "zone", text(1, 64), Missing::Value("\"UTC\""), "The zone of times that do not state theirs."),
    ],
};

/// A column that is made of others.
pub const JOIN: Section = Section {
    name: "join",
    place: "a join",
    example: "{ join = [\"street\", \"town\"] }",
    variant: None,
    keys: &[
        key(
            "join",
            Shape::Names { min: 2, max: MAX_JOINED },
            Missing::Required,
            "The ids and texts that are joined to a text, in this order. A row without one of them has none.",
        ),
        key("with", text(1, 16), Missing::Value("\"|\""), "The text between two of them."),
        key("unknown", text(1, MAX_VALUE_BYTES), Missing::Nothing, "The value that reports have in place of none."),
    ],
};

/// A condition of a column.
pub const CONDITION: Section = Section {
    name: "condition",
    place: "a condition",
    example: "status = { min = 500 }",
    variant: None,
    keys: &[
        key("min", Shape::Number, Missing::Nothing, "The least number."),
        key("max", Shape::Number, Missing::Nothing, "The greatest number."),
        key(
            "not",
            Shape::Values,
            Missing::Nothing,
            "The value, or a list of values, that it is not. A row without a value meets this.",
        ),
        key(
            "present",
            Shape::Flag,
            Missing::Nothing,
            "True if there has to be a value, false if there may be none. A row without a value meets no other \
             condition but `not`.",
        ),
    ],
};
