//! `[columns]`: columns, joins and their places.

use crate::definition::columns::{Column, JOINED, KeyPart, Place, Source, Type};
use crate::definition::input::{Delimited, Header, Input};
use crate::definition::keys::files::{COLUMN, JOIN};
use crate::definition::keys::limits::{MAX_FIELD, MAX_PATH};
use crate::definition::parse::fields::{Fields, Told, items_or};
use crate::definition::parse::names::{Known, Origin};
use crate::definition::parse::tree::{Entry, Node, Value};
use crate::definition::parse::types::Typed;
use crate::definition::parse::values::{is_free, is_name, whole};
use crate::definition::problems::{Found, Reported, Span};

/// Longest name of a field in a header, in bytes.
const MAX_PLACE_BYTES: usize = 256;

/// The way in which the values of a file are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    /// By names in the header, or by numbers.
    Header,
    /// By numbers.
    Numbers,
    /// By names in `#Fields:`.
    Directive,
    /// By paths into JSON.
    Paths,
}

impl Lookup {
    pub(super) fn of(input: &Input) -> Self {
        match input {
            Input::Json { .. } => Lookup::Paths,
            Input::Delimited(Delimited { header, .. }) => match header {
                Header::FirstLine => Lookup::Header,
                Header::Missing => Lookup::Numbers,
                Header::Directive => Lookup::Directive,
            },
        }
    }
}

/// A column or attribute: what the other sections need of it, and all of it if it has no problem.
pub(super) type Draft<T> = (Known, Result<T, Reported>);

/// Reads a column or a join. Of an input with problems the lookup is not known.
pub(super) fn column(entry: &Entry, lookup: Option<Lookup>, found: &mut Found<'_>) -> Draft<Column> {
    match &entry.node.value {
        Value::Table(entries) if entries.iter().any(|entry| entry.key == "join") => join(entry, found),
        _ => place_column(entry, lookup, found),
    }
}

/// Checks the name of a column or attribute.
pub(super) fn is_field_name(entry: &Entry, found: &mut Found<'_>) -> Result<(), Reported> {
    is_name(&entry.key, entry.span, found).and_then(|()| is_free(&entry.key, entry.span, found))
}

fn place_column(entry: &Entry, lookup: Option<Lookup>, found: &mut Found<'_>) -> Draft<Column> {
    let named = is_field_name(entry, found);
    let typed = Typed::read(&COLUMN, format!("the column '{}'", entry.key), entry, found);
    let source = match typed.fields.node("from") {
        Some(node) => source(node, lookup, &typed.type_, found),
        None => default_place(entry, lookup, found).map(|place| Source::Places(vec![place])),
    };
    if let Some(unknown) = typed.fields.text("unknown")
        && !typed.is_optional()
    {
        let advice = "'unknown' is for what may be missing: write optional = true";
        found.add(unknown.at, format!("a row without '{}' is rejected; {advice}", entry.key));
    }
    let known = typed.known(entry, Origin::Column);
    (known, made(entry, named, typed, source))
}

fn made(
    entry: &Entry,
    named: Result<(), Reported>,
    typed: Typed<'_>,
    source: Result<Source, Reported>,
) -> Result<Column, Reported> {
    named?;
    typed.fields.all_good()?;
    let (is_optional, unknown) = (typed.is_optional(), typed.unknown());
    Ok(Column { name: entry.key.clone(), type_: typed.type_?, source: source?, is_optional, unknown })
}

/// Reads a join. [`Names`](super::names::Names) checks its columns, when all are known.
fn join(entry: &Entry, found: &mut Found<'_>) -> Draft<Column> {
    let named = is_field_name(entry, found);
    let what = format!("the join '{}'", entry.key);
    let fields = Fields::read(&JOIN, (what, entry.span), items_or(&entry.node, "join"), found);
    let parts = fields.texts("join");
    let known = Known {
        name: entry.key.clone(),
        at: entry.span,
        origin: Origin::Join(parts.iter().map(|part| (part.value.to_owned(), part.at)).collect()),
        type_: Ok(JOINED),
        is_optional: false,
        has_unknown: fields.text("unknown").is_some(),
    };
    let source = Source::Join {
        columns: parts.iter().map(|part| part.value.to_owned()).collect(),
        with: fields.text("with").map_or("|", |with| with.value).to_owned(),
    };
    let unknown = fields.text("unknown").map(|unknown| unknown.value.to_owned());
    let column = Column { name: entry.key.clone(), type_: JOINED, source, is_optional: false, unknown };
    (known, named.and_then(|()| fields.all_good()).map(|()| column))
}

fn source(
    node: &Node,
    lookup: Option<Lookup>,
    type_: &Result<Type, Reported>,
    found: &mut Found<'_>,
) -> Result<Source, Reported> {
    if let Some(text) = node.text()
        && (text.value == "@key" || text.value.starts_with("@key."))
    {
        return key_part(text, found).map(Source::Key);
    }
    let Value::List(nodes) = &node.value else {
        return place(node, lookup, found).map(|place| Source::Places(vec![place]));
    };
    if let Ok(Type::Id { .. } | Type::Integer { .. } | Type::Decimal { .. }) = type_ {
        return Err(found.add(node.span, "several places are joined by a blank, which only texts and times have"));
    }
    let places: Vec<Result<Place, Reported>> = nodes.iter().map(|node| place(node, lookup, found)).collect();
    places.into_iter().collect::<Result<_, _>>().map(Source::Places)
}

fn key_part(text: Told<&str>, found: &mut Found<'_>) -> Result<KeyPart, Reported> {
    let part = text.value.strip_prefix("@key.").unwrap_or_default();
    match part.parse::<usize>() {
        Ok(number @ 1..=32) => Ok(KeyPart::Number(number)),
        Err(_) if !part.is_empty() && part.len() <= 64 && !part.contains(['/', '=']) => {
            Ok(KeyPart::Name(part.to_owned()))
        }
        _ => {
            let advice = "write '@key.1' to '@key.32' for a part of the key, or '@key.tenant' for that of tenant=…";
            Err(found.add(text.at, format!("'{}' is no part of an object's key; {advice}", text.value)))
        }
    }
}

/// Reads a single place.
pub(super) fn place(node: &Node, lookup: Option<Lookup>, found: &mut Found<'_>) -> Result<Place, Reported> {
    let message = match (&node.value, lookup) {
        (Value::Number(_), Some(Lookup::Paths)) => {
            "JSON has no numbered fields; write the path to the value".to_owned()
        }
        (Value::Number(_), Some(Lookup::Directive)) => "#Fields: names the fields; write the name".to_owned(),
        (Value::Number(number), _) => match whole(number).filter(|number| (1..=MAX_FIELD).contains(number)) {
            Some(number) => return Ok(Place::Number(number.unsigned_abs() as usize)),
            None => format!("fields have numbers from 1 to {MAX_FIELD}"),
        },
        (Value::Text(name), Some(Lookup::Numbers)) => {
            format!("the files have no header, so '{name}' cannot be found; write the number of the field, from 1")
        }
        (Value::Text(path), Some(Lookup::Paths)) => {
            let keys: Vec<String> = path.split('.').map(str::to_owned).collect();
            if keys.len() <= MAX_PATH && path.len() <= MAX_PLACE_BYTES && keys.iter().all(|key| !key.is_empty()) {
                return Ok(Place::Path(keys));
            }
            format!("a path is of 1 to {MAX_PATH} keys with a point between them, such as customer.id")
        }
        (Value::Text(name), _) if (1..=MAX_PLACE_BYTES).contains(&name.len()) => return Ok(Place::Name(name.clone())),
        _ => format!("a name in a header has 1 to {MAX_PLACE_BYTES} bytes"),
    };
    Err(found.add(node.span, message))
}

/// The place of a column or attribute that does not state it: under its own name.
pub(super) fn default_place(entry: &Entry, lookup: Option<Lookup>, found: &mut Found<'_>) -> Result<Place, Reported> {
    named_place(&entry.key, entry.span, lookup, "from", found)
}

/// The place of a value under a name, if the files have names. `key` is the one that takes a number.
pub(super) fn named_place(
    name: &str,
    at: Span,
    lookup: Option<Lookup>,
    key: &str,
    found: &mut Found<'_>,
) -> Result<Place, Reported> {
    match lookup {
        Some(Lookup::Numbers) => {
            let message = format!("the file has no header; say which field '{name}' is, from 1: {key} = 1");
            Err(found.add(at, message))
        }
        Some(Lookup::Paths) => Ok(Place::Path(vec![name.to_owned()])),
        _ => Ok(Place::Name(name.to_owned())),
    }
}
