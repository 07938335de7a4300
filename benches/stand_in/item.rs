//! DynamoDB's attribute values as they travel, and the sizes by which they are paid.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An attribute value in DynamoDB's JSON; bytes stay in base64.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Value {
    S(String),
    N(String),
    B(String),
    Bool(bool),
    Null(bool),
    Ss(Vec<String>),
    Ns(Vec<String>),
    L(Vec<Value>),
    M(Item),
}

/// An item, by attribute name.
pub type Item = BTreeMap<String, Value>;

impl Value {
    pub fn text(&self) -> Option<&str> {
        match self {
            Value::S(text) => Some(text),
            _ => None,
        }
    }

    pub fn number(&self) -> Option<i128> {
        match self {
            Value::N(digits) => digits.parse().ok(),
            _ => None,
        }
    }

    /// Bytes of the value:
    /// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html>.
    fn bytes(&self) -> usize {
        let number = |digits: &str| {
            let digits = digits.trim_matches(|sign| sign == '-' || sign == '0' || sign == '.');
            digits.bytes().filter(u8::is_ascii_digit).count().div_ceil(2) + 1
        };
        match self {
            Value::S(text) => text.len(),
            Value::N(digits) => number(digits),
            Value::B(base64) => base64.trim_end_matches('=').len() * 3 / 4,
            Value::Bool(_) | Value::Null(_) => 1,
            Value::Ss(texts) => texts.iter().map(String::len).sum(),
            Value::Ns(numbers) => numbers.iter().map(|digits| number(digits)).sum(),
            Value::L(values) => 3 + values.iter().map(|value| 1 + value.bytes()).sum::<usize>(),
            Value::M(fields) => 3 + fields.len() + bytes(fields),
        }
    }
}

/// Bytes of an item.
pub fn bytes(item: &Item) -> usize {
    item.iter().map(|(name, value)| name.len() + value.bytes()).sum()
}

/// Write units of an item of so many bytes: one for each started KB, and at least one.
pub fn write_units(bytes: usize) -> u64 {
    bytes.div_ceil(1024).max(1) as u64
}

/// Read units, in halves, of an item of so many bytes: two for each started 4 KB when strongly consistent, else one.
pub fn half_read_units(bytes: usize, is_consistent: bool) -> u64 {
    bytes.div_ceil(4096).max(1) as u64 * if is_consistent { 2 } else { 1 }
}
