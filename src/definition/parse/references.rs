//! `[references.NAME]`: files that are looked up.

use crate::definition::Reference;
use crate::definition::columns::Attribute;
use crate::definition::input::{Delimited, Header};
use crate::definition::keys::figures::{ATTRIBUTE, REFERENCE};
use crate::definition::parse::columns::{Draft, Lookup, default_place, is_field_name, named_place, place};
use crate::definition::parse::fields::{Fields, Told};
use crate::definition::parse::names::{Known, Names, Origin};
use crate::definition::parse::tree::Entry;
use crate::definition::parse::types::Typed;
use crate::definition::parse::values::is_name;
use crate::definition::problems::{Found, Reported};

/// A reference as far as it could be read before all columns are known.
pub(super) struct ReferenceDraft<'n> {
    fields: Fields<'n>,
    attributes: Vec<Result<Attribute, Reported>>,
    made: Result<Reference, Reported>,
}

/// Reads a reference. Returns its attributes' names beside it.
pub(super) fn reference<'n>(entry: &'n Entry, found: &mut Found<'_>) -> (Vec<Known>, ReferenceDraft<'n>) {
    let named = is_name(&entry.key, entry.span, found);
    let fields = Fields::of_entry(&REFERENCE, format!("the reference '{}'", entry.key), entry, found);
    let has_header = fields.flag("header").unwrap_or(true);
    let lookup = Some(if has_header { Lookup::Header } else { Lookup::Numbers });
    let file = fields.needed_text("file", found).and_then(|file| file_format(file, has_header, found));
    let key = fields.needed_text("key", found);
    let key_from = match fields.node("key_from") {
        Some(node) => place(node, lookup, found),
        None => key.and_then(|key| named_place(key.value, key.at, lookup, "key_from", found)),
    };
    let key = key.map_or("", |key| key.value);
    let attribute = |it, found: &mut Found<'_>| attribute(it, &entry.key, key, lookup, found);
    let (known, attributes) = fields.entries("columns").iter().map(|it| attribute(it, found)).unzip();
    let made = named.and_then(|()| fields.all_good()).and_then(|()| {
        let ((file, format), key_from) = (file?, key_from?);
        let (name, key) = (entry.key.clone(), key.to_owned());
        Ok(Reference { name, file, format, key, key_from, attributes: Vec::new() })
    });
    (known, ReferenceDraft { fields, attributes, made })
}

impl ReferenceDraft<'_> {
    /// The proof of a problem, if all attributes are lost by it.
    pub(super) fn lost(&self) -> Option<Reported> {
        self.fields.lost("columns")
    }

    /// Checks the key, and returns the reference.
    pub(super) fn finish(self, names: &Names, found: &mut Found<'_>) -> Result<Reference, Reported> {
        if let Some(key) = self.fields.text("key") {
            let known = names.column(&format!("'{}'", key.value), key, found)?;
            if !known.is_code() {
                let message = format!("'{}' is {}; ids, texts and integers are looked up", key.value, known.kind());
                found.add(key.at, message);
            }
        }
        let attributes = self.attributes.into_iter().collect::<Result<_, _>>()?;
        Ok(Reference { attributes, ..self.made? })
    }
}

/// Returns the format that a file's name says.
fn file_format(file: Told<&str>, has_header: bool, found: &mut Found<'_>) -> Result<(String, Delimited), Reported> {
    let name = file.value;
    let plain = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(name);
    let (delimiter, quote) = match plain {
        _ if name.starts_with('/') || name.split('/').any(|part| part.is_empty() || part == "..") => (0, None),
        _ if name.chars().any(char::is_control) => (0, None),
        _ if plain.ends_with(".csv") => (b',', Some(b'"')),
        _ if plain.ends_with(".tsv") => (b'\t', None),
        _ => (0, None),
    };
    if delimiter == 0 {
        let message = "a reference is a file below reference/ whose name ends with .csv or .tsv, or with .gz or .zst \
                       behind that";
        return Err(found.add(file.at, message));
    }
    let header = if has_header { Header::FirstLine } else { Header::Missing };
    Ok((name.to_owned(), Delimited { delimiter, quote, header, comment: None, null: vec![String::new()] }))
}

fn attribute(
    entry: &Entry,
    reference: &str,
    key: &str,
    lookup: Option<Lookup>,
    found: &mut Found<'_>,
) -> Draft<Attribute> {
    let named = is_field_name(entry, found);
    let typed = Typed::read(&ATTRIBUTE, format!("the attribute '{}'", entry.key), entry, found);
    let place = match typed.fields.node("from") {
        Some(node) => place(node, lookup, found),
        None => default_place(entry, lookup, found),
    };
    let many = typed.fields.text("many").map(|many| match many.value.as_bytes() {
        [byte] if byte.is_ascii_graphic() && *byte != b'"' => Ok(*byte),
        _ => Err(found.add(many.at, "'many' takes a visible ASCII character other than a quote, such as \";\"")),
    });
    let many = many.transpose();
    if let (Ok(Some(many)), Some(unknown)) = (many, typed.fields.text("unknown"))
        && unknown.value.contains(char::from(many))
    {
        let problem = format!("'unknown' is one value, and '{}' is between two of them", char::from(many));
        found.add(unknown.at, problem);
    }
    let is_many = typed.fields.text("many").is_some();
    let known = typed.known(entry, Origin::Attribute { reference: reference.to_owned(), key: key.to_owned(), is_many });
    let made = named.and_then(|()| typed.fields.all_good()).and_then(|()| {
        let (is_optional, unknown) = (typed.is_optional(), typed.unknown());
        let (type_, place, many) = (typed.type_?, place?, many?);
        Ok(Attribute { name: entry.key.clone(), type_, place, is_optional, unknown, many })
    });
    (known, made)
}
