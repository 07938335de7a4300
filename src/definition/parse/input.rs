//! `[input]`: the format of files.

use crate::definition::input::{Delimited, Header, Input};
use crate::definition::keys::files::INPUT;
use crate::definition::parse::fields::{Fields, Item, Told, items_or};
use crate::definition::problems::{Found, Reported};

/// Reads the section.
pub(super) fn input(section: Item<'_>, found: &mut Found<'_>) -> Result<Input, Reported> {
    let items = items_or(section.node, "format");
    let fields = Fields::read(&INPUT, ("[input]".to_owned(), section.span), items, found);
    let format = fields.text("format").map(|format| format.value);
    let (delimiter, quote) = characters(&fields, format, found)?;
    let comment = fields.text("comment").map(|comment| is_one_line(comment, found)).transpose()?;
    fields.all_good()?;
    if format == Some("json") {
        return Ok(Input::Json { records: fields.text("records").map(|records| records.value.to_owned()) });
    }
    let header = match (format, fields.flag("header").unwrap_or(true)) {
        (Some("w3c"), _) => Header::Directive,
        (_, true) => Header::FirstLine,
        (_, false) => Header::Missing,
    };
    let null = match fields.node("null") {
        Some(_) => fields.texts("null").iter().map(|text| text.value.to_owned()).collect(),
        None => vec![String::new()],
    };
    Ok(Input::Delimited(Delimited { delimiter, quote, header, comment, null }))
}

/// The characters between and around fields.
fn characters(fields: &Fields<'_>, format: Option<&str>, found: &mut Found<'_>) -> Result<(u8, Option<u8>), Reported> {
    let quote = match fields.text("quote") {
        Some(quote) => quote.value.bytes().next(),
        None => (format == Some("csv")).then_some(b'"'),
    };
    let delimiter = match fields.text("delimiter") {
        Some(delimiter) => delimiter.value.bytes().next().unwrap_or(b','),
        None if format == Some("csv") => b',',
        None => b'\t',
    };
    for (key, character) in [("delimiter", Some(delimiter)), ("quote", quote)] {
        if let (Some(told), Some(b'\n' | b'\r' | b'\0')) = (fields.text(key), character) {
            return Err(found.add(told.at, format!("'{key}' is no character that ends a line")));
        }
    }
    match fields.text("delimiter").or_else(|| fields.text("quote")) {
        Some(told) if quote == Some(delimiter) => Err(found.add(told.at, "'delimiter' and 'quote' are the same")),
        _ => Ok((delimiter, quote)),
    }
}

fn is_one_line(comment: Told<&str>, found: &mut Found<'_>) -> Result<String, Reported> {
    if comment.value.contains(['\n', '\r']) {
        return Err(found.add(comment.at, "'comment' is the beginning of one line"));
    }
    Ok(comment.value.to_owned())
}
