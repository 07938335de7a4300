//! The tree of a TOML file, with the position of each key and value. Only this file knows the parser of TOML.

use toml::de::{DeTable, DeValue};

use crate::definition::problems::{Found, Span};

/// A value in its place.
#[derive(Debug)]
pub(super) struct Node {
    /// Its place; of a text that within its quotes.
    pub(super) span: Span,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    Text(String),
    /// A number as it is written, in decimal digits.
    Number(String),
    Flag(bool),
    /// A date or a time of TOML.
    Time,
    List(Vec<Node>),
    /// In the order of the file.
    Table(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) span: Span,
    pub(super) node: Node,
}

impl Value {
    /// The kind of value, in words.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a text",
            Value::Number(_) => "a number",
            Value::Flag(_) => "true or false",
            Value::Time => "a date",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }
}

/// Returns the entries of a file. Each fault of its syntax is a problem.
pub(super) fn read(text: &str, found: &mut Found<'_>) -> Vec<Entry> {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        found.add(Span { start: span.start, end: span.end }, format!("this is no TOML: {}", error.message()));
    }
    entries(text, table.get_ref())
}

fn entries(text: &str, table: &DeTable<'_>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().clone().into_owned(),
            span: unquoted(text, key.span()),
            node: node(text, value.get_ref(), value.span()),
        })
        .collect();
    entries.sort_by_key(|entry| entry.span);
    entries
}

fn node(text: &str, value: &DeValue<'_>, range: std::ops::Range<usize>) -> Node {
    let span = Span { start: range.start, end: range.end };
    match value {
        DeValue::String(string) => {
            Node { span: unquoted(text, range), value: Value::Text(string.clone().into_owned()) }
        }
        DeValue::Integer(integer) => {
            let decimal = i128::from_str_radix(integer.as_str(), integer.radix()).map(|number| number.to_string());
            Node { span, value: Value::Number(decimal.unwrap_or_else(|_| integer.as_str().to_owned())) }
        }
        DeValue::Float(float) => Node { span, value: Value::Number(float.as_str().to_owned()) },
        DeValue::Boolean(flag) => Node { span, value: Value::Flag(*flag) },
        DeValue::Datetime(_) => Node { span, value: Value::Time },
        DeValue::Array(list) => {
            let nodes = list.iter().map(|element| node(text, element.get_ref(), element.span()));
            Node { span, value: Value::List(nodes.collect()) }
        }
        DeValue::Table(table) => Node { span, value: Value::Table(entries(text, table)) },
    }
}

/// The part within the quotes, if there are some and anything is in them.
fn unquoted(text: &str, range: std::ops::Range<usize>) -> Span {
    let written = text.get(range.clone()).unwrap_or_default();
    let quotes = ["\"\"\"", "'''", "\"", "'"]
        .into_iter()
        .find(|quotes| written.len() > 2 * quotes.len() && written.starts_with(quotes) && written.ends_with(quotes));
    let quotes = quotes.map_or(0, str::len);
    Span { start: range.start + quotes, end: range.end - quotes }
}
