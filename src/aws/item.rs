//! DynamoDB items, and access to their attributes. Covered by the unit tests of `reports/item.rs` and by
//! `tests/hostile`.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

/// A DynamoDB item: attribute values by name.
pub type Item = HashMap<String, AttributeValue>;

/// Attributes whose names are known beforehand: an item in the making, in an order of its own.
pub type Fields<'n> = Vec<(&'n str, AttributeValue)>;

/// Makes an item of its attributes.
pub fn item(fields: Fields<'_>) -> Item {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Makes a text attribute.
pub fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

/// Returns a text attribute of an item; `None` if it is absent or not text.
pub fn text_of(item: &Item, name: &str) -> Option<String> {
    item.get(name)?.as_s().ok().cloned()
}

/// Returns a number attribute of an item; `None` if it is absent or not a whole number.
pub fn number(item: &Item, name: &str) -> Option<u64> {
    whole(item.get(name)?)
}

/// Returns a whole number; `None` if the attribute is another.
pub fn whole(value: &AttributeValue) -> Option<u64> {
    value.as_n().ok()?.parse().ok()
}

/// The size of attributes in bytes, as DynamoDB counts it, or a little more: names, texts, bytes, and digits of
/// numbers. Source:
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html>.
pub fn field_bytes(fields: &[(&str, AttributeValue)]) -> usize {
    fields.iter().map(|(name, value)| name.len() + value_bytes(value)).sum()
}

/// The size of an item in bytes, as [`field_bytes`] counts it.
pub fn item_bytes(item: &Item) -> usize {
    item.iter().map(|(name, value)| name.len() + value_bytes(value)).sum()
}

fn value_bytes(value: &AttributeValue) -> usize {
    match value {
        AttributeValue::S(text) => text.len(),
        AttributeValue::N(number) => number.len().div_ceil(2) + 1,
        AttributeValue::B(bytes) => bytes.as_ref().len(),
        AttributeValue::Ss(texts) => texts.iter().map(String::len).sum(),
        AttributeValue::Ns(numbers) => numbers.iter().map(|number| number.len().div_ceil(2) + 1).sum(),
        AttributeValue::M(fields) => {
            3 + fields.iter().map(|(name, value)| 1 + name.len() + value_bytes(value)).sum::<usize>()
        }
        AttributeValue::L(values) => 3 + values.iter().map(|value| 1 + value_bytes(value)).sum::<usize>(),
        _ => 1,
    }
}
