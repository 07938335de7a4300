//! DynamoDB items, and access to their attributes. Covered by the unit tests of `reports/item.rs` and by
//! `tests/hostile`.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

/// A DynamoDB item: attribute values by name.
pub type Item = HashMap<String, AttributeValue>;

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
    item.get(name)?.as_n().ok()?.parse().ok()
}
