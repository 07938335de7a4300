//! The names of columns and attributes, with the types and origins that other sections are checked against.

use crate::definition::columns::Type;
use crate::definition::conditions::Condition;
use crate::definition::keys::limits::MAX_COLUMNS;
use crate::definition::parse::fields::Told;
use crate::definition::problems::{Found, Reported, Span, instead};

/// A column or an attribute, also one with problems of its own: those are not to cause others.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) name: String,
    pub(super) at: Span,
    pub(super) origin: Origin,
    pub(super) type_: Result<Type, Reported>,
    /// True if a row may have no value as far as the column itself goes.
    pub(super) is_optional: bool,
    pub(super) has_unknown: bool,
}

/// The origin of a value.
#[derive(Debug)]
pub(super) enum Origin {
    /// A place in the row.
    Column,
    /// The columns that are joined, with the places of their names there.
    Join(Vec<(String, Span)>),
    /// A reference.
    Attribute {
        /// The reference's name.
        reference: String,
        /// The column that it looks up.
        key: String,
        /// True if a row may have several values.
        is_many: bool,
    },
}

/// All columns and attributes.
pub(super) struct Names {
    known: Vec<Known>,
    /// The columns that `[where]` asks for.
    asked_for: Vec<String>,
    /// The proof that some are missing because of a problem, so that a name that is not here may be one of them.
    incomplete: Option<Reported>,
}

impl Known {
    /// The type of value, in words: `an id`.
    pub(super) fn kind(&self) -> &'static str {
        self.type_.as_ref().map_or("a value", kind)
    }

    /// True for the types that a report counts by: ids, texts and integers; and for a type with a problem, which causes
    /// no other.
    pub(super) fn is_code(&self) -> bool {
        !matches!(self.type_, Ok(Type::Decimal { .. } | Type::Time { .. }))
    }
}

/// The type of value, in words: `an id`.
pub(super) fn kind(type_: &Type) -> &'static str {
    match type_ {
        Type::Id { .. } => "an id",
        Type::Text { .. } => "a text",
        Type::Integer { .. } => "an integer",
        Type::Decimal { .. } => "a decimal",
        Type::Time { .. } => "a time",
    }
}

impl Names {
    /// Gathers all names. Each may be there once.
    pub(super) fn new(all: impl Iterator<Item = Known>, incomplete: Option<Reported>, found: &mut Found<'_>) -> Self {
        let mut names = Names { known: Vec::new(), asked_for: Vec::new(), incomplete };
        for known in all {
            if let Some(other) = names.get(&known.name) {
                let other = other.described();
                let message = format!(
                    "'{}' is {other} already; columns and attributes are columns of the curated files, each under a \
                     name of its own",
                    known.name
                );
                found.add(known.at, message);
            } else if names.known.len() == MAX_COLUMNS {
                found.add(known.at, format!("more than {MAX_COLUMNS} columns and attributes"));
                break;
            } else {
                names.known.push(known);
            }
        }
        names.resolve_joins(found);
        names
    }

    /// Notes that no row lacks these columns: it would not meet `[where]`.
    pub(super) fn ask_for(&mut self, conditions: &[Condition]) {
        let asked_for = conditions.iter().filter(|condition| condition.test.asks_for_value());
        self.asked_for.extend(asked_for.map(|condition| condition.column.clone()));
    }

    /// True if the attributes of a reference that looks up `of` follow from `key`. What a reference looks up may have a
    /// problem of its own; then it is not known what follows.
    pub(super) fn follows(&self, of: &str, key: &str) -> bool {
        of == key || !self.get(of).is_some_and(Known::is_code)
    }

    /// True if a row may have no value.
    pub(super) fn may_lack(&self, known: &Known) -> bool {
        match &known.origin {
            Origin::Attribute { .. } => true,
            Origin::Column => known.is_optional && !self.asked_for.contains(&known.name),
            Origin::Join(parts) => parts
                .iter()
                .filter_map(|(part, _)| self.get(part))
                .any(|part| matches!(part.origin, Origin::Column) && self.may_lack(part)),
        }
    }

    /// Checks the columns of each join. It may have no value if one of them may have none.
    fn resolve_joins(&mut self, found: &mut Found<'_>) {
        for index in 0..self.known.len() {
            let Known { origin: Origin::Join(parts), .. } = &self.known[index] else { continue };
            let mut is_optional = false;
            for (part, at) in parts {
                let told = Told { value: part.as_str(), at: *at };
                let Ok(column) = self.column(&format!("'{part}'"), told, found) else { continue };
                is_optional |= column.is_optional;
                match (&column.origin, &column.type_) {
                    (Origin::Join(_), _) => {
                        found.add(*at, format!("'{part}' is a join; write the columns that it is made of"));
                    }
                    (_, Ok(Type::Integer { .. } | Type::Decimal { .. } | Type::Time { .. })) => {
                        let kind = column.kind();
                        found.add(*at, format!("'{part}' is {kind}; a join is of ids and texts"));
                    }
                    _ => {}
                }
            }
            self.known[index].is_optional = is_optional;
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Known> {
        self.known.iter().find(|known| known.name == name)
    }

    /// The type of a column or attribute, if it is known.
    pub(super) fn type_of(&self, name: &str) -> Option<&Type> {
        self.get(name).and_then(|known| known.type_.as_ref().ok())
    }

    /// Finds a column or attribute, or says that it is none. `subject` begins the message, as in `the key 'x'`.
    pub(super) fn field(&self, subject: &str, name: Told<&str>, found: &mut Found<'_>) -> Result<&Known, Reported> {
        if let Some(known) = self.get(name.value) {
            return Ok(known);
        }
        let all = self.known.iter().map(|known| known.name.as_str());
        self.is_none(name, format!("{subject} is no column or attribute{}", instead(name.value, all)), found)
    }

    /// Finds a column, or says that it is none.
    pub(super) fn column(&self, subject: &str, name: Told<&str>, found: &mut Found<'_>) -> Result<&Known, Reported> {
        match self.get(name.value) {
            Some(Known { origin: Origin::Attribute { reference, .. }, .. }) => {
                let message = format!("{subject} is an attribute of the reference '{reference}', and no column");
                Err(found.add(name.at, message))
            }
            Some(known) => Ok(known),
            None => {
                let columns = self.known.iter().filter(|known| !matches!(known.origin, Origin::Attribute { .. }));
                let advice = instead(name.value, columns.map(|known| known.name.as_str()));
                self.is_none(name, format!("{subject} is no column{advice}"), found)
            }
        }
    }

    /// Notes that there is no such name, unless it may be one that has a problem.
    fn is_none<T>(&self, name: Told<&str>, message: String, found: &mut Found<'_>) -> Result<T, Reported> {
        Err(self.incomplete.unwrap_or_else(|| found.add(name.at, message)))
    }
}

impl Known {
    fn described(&self) -> String {
        match &self.origin {
            Origin::Attribute { reference, .. } => format!("an attribute of the reference '{reference}'"),
            Origin::Column | Origin::Join(_) => "a column".to_owned(),
        }
    }
}
