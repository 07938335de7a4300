//! Conditions of rows and measures.

use crate::definition::columns::Type;
use crate::definition::conditions::{Condition, Test, Values};
use crate::definition::keys::files::CONDITION;
use crate::definition::keys::limits::MAX_VALUES;
use crate::definition::parse::fields::{Fields, Told, items};
use crate::definition::parse::names::{Known, Names, Origin, kind};
use crate::definition::parse::tree::{Entry, Node, Value};
use crate::definition::parse::values::units;
use crate::definition::problems::{Found, Reported, quoted};

/// Reads all conditions of a table.
pub(super) fn conditions(entries: &[Entry], names: &Names, found: &mut Found<'_>) -> Result<Vec<Condition>, Reported> {
    let tests: Vec<Result<Vec<Condition>, Reported>> = entries
        .iter()
        .map(|entry| {
            let column = readable(entry, names, found)?;
            let tests = tests(entry, column, found)?;
            Ok(tests.into_iter().map(|test| Condition { column: entry.key.clone(), test }).collect())
        })
        .collect();
    Ok(tests.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// Finds the column of a condition: one that is read from the file.
fn readable<'k>(entry: &Entry, names: &'k Names, found: &mut Found<'_>) -> Result<&'k Known, Reported> {
    let name = Told { value: entry.key.as_str(), at: entry.span };
    let known = names.column(&format!("'{}'", entry.key), name, found)?;
    match &known.origin {
        Origin::Join(parts) => {
            let parts = quoted(parts.iter().map(|(part, _)| part.as_str()), "and");
            Err(found.add(entry.span, format!("'{}' is a join; write conditions of {parts}", entry.key)))
        }
        _ => Ok(known),
    }
}

fn tests(entry: &Entry, column: &Known, found: &mut Found<'_>) -> Result<Vec<Test>, Reported> {
    let name = &entry.key;
    let type_ = column.type_.as_ref().map_err(|reported| *reported)?;
    let Value::Table(entries) = &entry.node.value else {
        return Ok(vec![Test::In(values(name, type_, &entry.node, found)?)]);
    };
    let fields = Fields::read(&CONDITION, (format!("the condition of '{name}'"), entry.span), items(entries), found);
    let mut tests = Vec::new();
    if fields.number("min").is_some() || fields.number("max").is_some() {
        tests.push(within(name, type_, &fields, found));
    }
    if let Some(node) = fields.node("not") {
        tests.push(values(name, type_, node, found).map(Test::NotIn));
    }
    if let Some(is_present) = fields.flag("present") {
        tests.push(match column.is_optional {
            true => Ok(Test::Present(is_present)),
            false => Err(found.add(entry.span, format!("every row has a '{name}': 'present' is for optional columns"))),
        });
    }
    fields.all_good()?;
    if tests.is_empty() {
        return Err(
            found.add(entry.node.span, format!("the condition of '{name}' is empty; write min, max, not or present"))
        );
    }
    tests.into_iter().collect()
}

fn within(name: &str, type_: &Type, fields: &Fields<'_>, found: &mut Found<'_>) -> Result<Test, Reported> {
    let mut bound = |key| {
        fields.number(key).map(|number| match type_ {
            Type::Integer { .. } => in_units(name, 0, number, found),
            Type::Decimal { places, .. } => in_units(name, *places, number, found),
            Type::Time { .. } => Err(found.add(number.at, times(name))),
            other => {
                Err(found.add(number.at, format!("'{name}' is {}; '{key}' is for integers and decimals", kind(other))))
            }
        })
    };
    let (min, max) = (bound("min").transpose(), bound("max").transpose());
    match (min?, max?, fields.number("min")) {
        (Some(min), Some(max), Some(number)) if min > max => Err(found.add(number.at, "'min' is above 'max'")),
        (min, max, _) => Ok(Test::Within { min, max }),
    }
}

fn in_units(name: &str, places: u8, number: Told<&str>, found: &mut Found<'_>) -> Result<i64, Reported> {
    units(number.value, places).map_err(|reason| {
        let kind = if places == 0 { "an integer" } else { "a decimal" };
        found.add(number.at, format!("'{name}' is {kind}, and {} {reason}", number.value))
    })
}

fn times(name: &str) -> String {
    format!("'{name}' is a time; 'earliest' and 'future' bound times, conditions only ask whether one is present")
}

/// Reads a value, or a list of values.
fn values(name: &str, type_: &Type, node: &Node, found: &mut Found<'_>) -> Result<Values, Reported> {
    let nodes = match &node.value {
        Value::List(nodes) if (1..=MAX_VALUES).contains(&nodes.len()) => nodes.as_slice(),
        Value::List(_) => return Err(found.add(node.span, format!("a condition has 1 to {MAX_VALUES} values"))),
        _ => std::slice::from_ref(node),
    };
    match type_ {
        Type::Id { .. } | Type::Text { .. } => {
            each(nodes, found, |node, found| text(name, type_, node, found)).map(Values::Texts)
        }
        Type::Integer { .. } | Type::Decimal { .. } => {
            each(nodes, found, |node, found| number(name, type_, node, found)).map(Values::Numbers)
        }
        Type::Time { .. } => Err(found.add(node.span, times(name))),
    }
}

/// Reads all values, each of which may be there once.
fn each<T: PartialEq>(
    nodes: &[Node],
    found: &mut Found<'_>,
    read: impl Fn(&Node, &mut Found<'_>) -> Result<T, Reported>,
) -> Result<Vec<T>, Reported> {
    let mut values = Vec::new();
    let mut bad = None;
    for node in nodes {
        match read(node, found) {
            Ok(value) if values.contains(&value) => bad = Some(found.add(node.span, "this value is there twice")),
            Ok(value) => values.push(value),
            Err(reported) => bad = Some(reported),
        }
    }
    bad.map_or(Ok(values), Err)
}

fn text(name: &str, type_: &Type, node: &Node, found: &mut Found<'_>) -> Result<String, Reported> {
    let kind = kind(type_);
    let message = match (&node.value, type_) {
        (Value::Text(text), _) if text.is_empty() => {
            format!("'{name}' is never empty; of rows without it write {{ present = false }}")
        }
        (Value::Text(text), Type::Id { max_bytes } | Type::Text { max_bytes, .. }) if text.len() > *max_bytes => {
            format!("'{name}' has at most {max_bytes} bytes, so no row has this value")
        }
        (Value::Text(text), Type::Id { .. }) if !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            format!("'{name}' is an id of visible ASCII characters, so no row has this value")
        }
        (Value::Text(text), _) => return Ok(text.clone()),
        (Value::Number(number), _) => format!("'{name}' is {kind}, whose values are texts: write \"{number}\""),
        (Value::Flag(flag), _) => format!("'{name}' is {kind}, whose values are texts: write \"{flag}\""),
        (other, _) => format!("'{name}' is {kind}, so its value is no {}", bare(other)),
    };
    Err(found.add(node.span, message))
}

fn number(name: &str, type_: &Type, node: &Node, found: &mut Found<'_>) -> Result<i64, Reported> {
    let (places, min, max) = match *type_ {
        Type::Decimal { places, min, max } => (places, min, max),
        Type::Integer { min, max } => (0, min, max),
        _ => (0, i64::MIN, i64::MAX),
    };
    let kind = kind(type_);
    let message = match &node.value {
        Value::Number(number) => {
            let value = in_units(name, places, Told { value: number, at: node.span }, found)?;
            if (min..=max).contains(&value) {
                return Ok(value);
            }
            format!("'{name}' is never {number}, by its own 'min' and 'max'")
        }
        Value::Text(text) if units(text, places).is_ok() => format!("'{name}' is {kind}: write {text} without quotes"),
        other => format!("'{name}' is {kind}, so its value is no {}", bare(other)),
    };
    Err(found.add(node.span, message))
}

/// The kind of a value without its article.
fn bare(value: &Value) -> &'static str {
    value.kind().trim_start_matches("a ")
}
