//! Conditions and updates, in the part of DynamoDB's expression language that the program writes.

use std::collections::HashMap;

use serde::Deserialize;

use super::item::{Item, Value};

/// The names and values that an expression refers to.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Terms {
    expression_attribute_names: HashMap<String, String>,
    expression_attribute_values: HashMap<String, Value>,
}

/// The reason for which an expression cannot be read.
pub type Unreadable = String;

/// Returns true if a condition holds for an item, or for its absence.
pub fn holds(condition: &str, terms: &Terms, item: Option<&Item>) -> Result<bool, Unreadable> {
    let none = Item::new();
    let mut reader = Reader { tokens: tokens(condition), place: 0, terms, item: item.unwrap_or(&none) };
    let holds = reader.any()?;
    reader.end()?;
    Ok(holds)
}

/// Changes an item by an update expression.
pub fn update(expression: &str, terms: &Terms, item: &mut Item) -> Result<(), Unreadable> {
    let before = item.clone();
    let mut reader = Reader { tokens: tokens(expression), place: 0, terms, item: &before };
    while let Some(clause) = reader.next() {
        loop {
            let name = reader.name()?;
            match clause.as_str() {
                "SET" => {
                    reader.expect("=")?;
                    item.insert(name, reader.operand()?.ok_or("nothing to set")?);
                }
                "REMOVE" => drop(item.remove(&name)),
                "ADD" => {
                    let sum = sum(item.get(&name), reader.operand()?.ok_or("nothing to add")?)?;
                    item.insert(name, sum);
                }
                _ => return Err(format!("unknown clause {clause}")),
            }
            if !reader.takes(",") {
                break;
            }
        }
    }
    Ok(())
}

/// Adds a number to a number, or texts to a set.
fn sum(there: Option<&Value>, more: Value) -> Result<Value, Unreadable> {
    match (there, more) {
        (None, more) => Ok(more),
        (Some(Value::Ss(texts)), Value::Ss(mut more)) => {
            more.extend(texts.iter().cloned());
            more.sort_unstable();
            more.dedup();
            Ok(Value::Ss(more))
        }
        (Some(there), more) => {
            let sum = there.number().zip(more.number()).and_then(|(one, other)| one.checked_add(other));
            Ok(Value::N(sum.ok_or("no number to add")?.to_string()))
        }
    }
}

/// Returns the names in a projection.
pub fn projected(expression: &str, terms: &Terms) -> Vec<String> {
    let name = |name: &str| terms.expression_attribute_names.get(name).cloned().unwrap_or_else(|| name.to_owned());
    expression.split(',').map(|part| name(part.trim())).collect()
}

/// Returns the one value of a key condition, `name = :value`, and what else must hold of an item.
pub fn key_condition(condition: &str, terms: &Terms) -> Result<(Value, Option<String>), Unreadable> {
    let (first, rest) = match condition.split_once(" AND ") {
        Some((first, rest)) => (first, Some(rest.to_owned())),
        None => (condition, None),
    };
    let (_, value) = first.split_once('=').ok_or("no key in the condition")?;
    let value = terms.expression_attribute_values.get(value.trim()).ok_or("no value of the key")?;
    Ok((value.clone(), rest))
}

/// Splits an expression into names, values, comparisons and brackets.
pub fn tokens(expression: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut rest = expression.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_word = |char: char| char.is_alphanumeric() || "_#:.".contains(char);
        let length = match first {
            '"' | '\'' => rest[1..].find(first).map_or(rest.len(), |end| end + 2),
            '<' | '>' if rest[1..].starts_with(['=', '>']) => 2,
            char if is_word(char) => rest.find(|char| !is_word(char)).unwrap_or(rest.len()),
            char => char.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token.to_owned());
        rest = after.trim_start();
    }
    tokens
}

/// Compares two values, both numbers or both texts.
pub fn compare(one: &Value, comparison: &str, other: &Value) -> Result<bool, Unreadable> {
    let order = match (one, other) {
        (Value::S(one), Value::S(other)) => one.cmp(other),
        (Value::N(_), Value::N(_)) => {
            one.number().ok_or("not a whole number")?.cmp(&other.number().ok_or("not a whole number")?)
        }
        _ => return Ok(comparison == "<>"),
    };
    match comparison {
        "=" => Ok(order.is_eq()),
        "<>" => Ok(order.is_ne()),
        "<" => Ok(order.is_lt()),
        "<=" => Ok(order.is_le()),
        ">" => Ok(order.is_gt()),
        ">=" => Ok(order.is_ge()),
        _ => Err(format!("unknown comparison {comparison}")),
    }
}

/// An expression that is being read, and carried out on the way.
struct Reader<'a> {
    tokens: Vec<String>,
    place: usize,
    terms: &'a Terms,
    item: &'a Item,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<String> {
        self.place += 1;
        self.tokens.get(self.place - 1).cloned()
    }

    fn takes(&mut self, token: &str) -> bool {
        let is_next = self.tokens.get(self.place).is_some_and(|next| next == token);
        self.place += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, token: &str) -> Result<(), Unreadable> {
        if self.takes(token) { Ok(()) } else { Err(format!("no {token} in {}", self.tokens.join(" "))) }
    }

    fn end(&self) -> Result<(), Unreadable> {
        if self.place == self.tokens.len() { Ok(()) } else { Err(format!("unread: {}", self.tokens.join(" "))) }
    }

    fn name(&mut self) -> Result<String, Unreadable> {
        let name = self.next().ok_or("no name")?;
        Ok(self.terms.expression_attribute_names.get(&name).cloned().unwrap_or(name))
    }

    fn any(&mut self) -> Result<bool, Unreadable> {
        let mut holds = self.all()?;
        while self.takes("OR") {
            holds |= self.all()?;
        }
        Ok(holds)
    }

    fn all(&mut self) -> Result<bool, Unreadable> {
        let mut holds = self.one()?;
        while self.takes("AND") {
            holds &= self.one()?;
        }
        Ok(holds)
    }

    fn one(&mut self) -> Result<bool, Unreadable> {
        if self.takes("(") {
            let holds = self.any()?;
            self.expect(")")?;
            return Ok(holds);
        }
        for (function, is_there) in [("attribute_exists", true), ("attribute_not_exists", false)] {
            if self.takes(function) {
                self.expect("(")?;
                let name = self.name()?;
                self.expect(")")?;
                return Ok(self.item.contains_key(&name) == is_there);
            }
        }
        let one = self.operand()?;
        let comparison = self.next().ok_or("no comparison")?;
        let other = self.operand()?;
        match (one, other) {
            (Some(one), Some(other)) => compare(&one, &comparison, &other),
            _ => Ok(false),
        }
    }

    /// A value, an attribute, or one of the two; `None` for an attribute that is not there.
    fn operand(&mut self) -> Result<Option<Value>, Unreadable> {
        if self.takes("if_not_exists") {
            self.expect("(")?;
            let there = self.operand()?;
            self.expect(",")?;
            let otherwise = self.operand()?;
            self.expect(")")?;
            return Ok(there.or(otherwise));
        }
        let token = self.tokens.get(self.place).ok_or("no operand")?;
        if token.starts_with(':') {
            let value = self.terms.expression_attribute_values.get(token).cloned();
            self.place += 1;
            return value.map(Some).ok_or_else(|| "a value is missing".to_owned());
        }
        let name = self.name()?;
        Ok(self.item.get(&name).cloned())
    }
}
