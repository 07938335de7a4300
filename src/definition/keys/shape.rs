//! The form in which the tables of keys are written: sections, keys, and shapes of values.

use crate::definition::keys::figures::{ATTRIBUTE, MEASURE, REFERENCE, REPORT};
use crate::definition::keys::files::{COLUMN, CONDITION, JOIN};

/// A table of the file.
#[derive(Debug)]
pub struct Section {
    /// Its name in messages and documents.
    pub name: &'static str,
    /// Its place in the file, as in "stands in …".
    pub place: &'static str,
    /// An example of it.
    pub example: &'static str,
    /// The key whose value is the section's variant: the type of a column, say. Without one the variant is the key that
    /// is there and that belongs to one variant only: the kind of a measure.
    pub variant: Option<&'static str>,
    /// Its keys.
    pub keys: &'static [Key],
}

/// A key of a section.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// The form of its value.
    pub shape: Shape,
    /// The value if it is not written.
    pub missing: Missing,
    /// The variants of the section that have it, such as types of columns; all if empty.
    pub only: &'static [&'static str],
    /// The meaning, in Markdown.
    pub meaning: &'static str,
}

/// The value of a key that is not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It has to be written.
    Required,
    /// There is none.
    Nothing,
    /// This, in words.
    Words(&'static str),
    /// This, as it would be written.
    Value(&'static str),
}

/// The form of a value.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// A name that the file gives elsewhere, or `*` where that is allowed.
    Name {
        /// True if `*` is allowed.
        or_all: bool,
    },
    /// A text of these many bytes.
    Text {
        /// The fewest.
        min: usize,
        /// The most.
        max: usize,
        /// The regular expression that it matches, for editors; the parser says what is wrong in words.
        pattern: Option<&'static str>,
    },
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
    /// `true`.
    True,
    /// A whole number within these bounds.
    Whole {
        /// The least.
        min: i64,
        /// The greatest.
        max: i64,
    },
    /// One of these whole numbers.
    WholeOf(&'static [i64]),
    /// A number, with or without a point.
    Number,
    /// A list of these many names.
    Names {
        /// The fewest.
        min: usize,
        /// The most.
        max: usize,
    },
    /// A list of these many texts.
    Texts {
        /// The fewest.
        min: usize,
        /// The most.
        max: usize,
        /// Most bytes of one.
        bytes: usize,
    },
    /// A place in a file: a name, a number or a path; or a list of them.
    Place {
        /// True if a list is allowed.
        or_several: bool,
    },
    /// A text or a number to compare with, or a list of them.
    Values,
    /// A table with these keys.
    Section(&'static Section),
    /// A table with names for keys.
    Entries {
        /// Its values.
        of: Entry,
        /// The fewest.
        min: usize,
        /// The most.
        max: usize,
    },
}

/// A value of a table with names for keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A type, or one of the sections [`COLUMN`] and [`JOIN`].
    Column,
    /// A type, or the section [`ATTRIBUTE`].
    Attribute,
    /// Values, or the section [`CONDITION`].
    Condition,
    /// The section [`REFERENCE`].
    Reference,
    /// The section [`REPORT`].
    Report,
    /// `"count"`, or the section [`MEASURE`].
    Measure,
}

impl Section {
    /// Returns the key of this name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

impl Key {
    /// True if this variant of the section has the key.
    pub fn is_for(&self, variant: &str) -> bool {
        self.only.is_empty() || self.only.contains(&variant)
    }
}

impl Shape {
    /// Describes the values, as in "takes …".
    pub fn described(&self) -> String {
        let count = |min: usize, max: usize, of: &str| match (min, max) {
            (min, max) if min == max => format!("{max} {of}"),
            (0, max) => format!("at most {max} {of}"),
            (min, max) => format!("{min} to {max} {of}"),
        };
        match *self {
            Shape::Name { or_all: false } => "a name in quotes".to_owned(),
            Shape::Name { or_all: true } => "a name in quotes, or \"*\"".to_owned(),
            Shape::Text { min, max, .. } if max == 1 && min == 1 => "one ASCII character in quotes".to_owned(),
            Shape::Text { min: 0, max: 1, .. } => "one ASCII character in quotes, or \"\" for none".to_owned(),
            Shape::Text { min, max, .. } => format!("a text in quotes of {}", count(min, max, "bytes")),
            Shape::OneOf(texts) => list(texts.iter().map(|text| format!("\"{text}\"")), "or"),
            Shape::Flag => "true or false".to_owned(),
            Shape::True => "true".to_owned(),
            Shape::Whole { min, max } => format!("a whole number from {min} to {max}"),
            Shape::WholeOf(numbers) => list(numbers.iter().map(ToString::to_string), "or"),
            Shape::Number => "a number without quotes".to_owned(),
            Shape::Names { min, max } => format!("a list of {}", count(min, max, "names")),
            Shape::Texts { min, max, bytes } => {
                format!("a list of {}, each of at most {bytes} bytes", count(min, max, "texts"))
            }
            Shape::Place { or_several: false } => "a name, or a number from 1".to_owned(),
            Shape::Place { or_several: true } => "a name, a number from 1, or a list of 2 to 4 of them".to_owned(),
            Shape::Values => "a text, a number, or a list of them".to_owned(),
            Shape::Section(section) => format!("a table: {}", section.example),
            Shape::Entries { of, .. } => of.described(),
        }
    }
}

impl Entry {
    /// The sections that a value may be.
    pub fn sections(self) -> &'static [&'static Section] {
        match self {
            Entry::Column => &[&COLUMN, &JOIN],
            Entry::Attribute => &[&ATTRIBUTE],
            Entry::Condition => &[&CONDITION],
            Entry::Reference => &[&REFERENCE],
            Entry::Report => &[&REPORT],
            Entry::Measure => &[&MEASURE],
        }
    }

    fn described(self) -> String {
        let example = self.sections().first().map_or("", |section| section.example);
        format!("a table of {}: {example}", self.plural())
    }

    /// The word for several of them.
    pub fn plural(self) -> &'static str {
        match self {
            Entry::Column => "columns",
            Entry::Attribute => "attributes",
            Entry::Condition => "conditions",
            Entry::Reference => "references",
            Entry::Report => "reports",
            Entry::Measure => "measures",
        }
    }
}

/// Joins words as people do: `a, b or c`.
pub fn list(words: impl IntoIterator<Item = String>, last: &str) -> String {
    let mut words: Vec<String> = words.into_iter().collect();
    match words.pop() {
        None => String::new(),
        Some(word) if words.is_empty() => word,
        Some(word) => format!("{} {last} {word}", words.join(", ")),
    }
}
