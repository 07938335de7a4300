//! Conditional writes of items, up to 25 in one request.
//!
//! `BatchExecuteStatement` carries out PartiQL statements that each have a condition and an outcome of their own; it
//! is no
//! transaction. A statement's text is made of the names of tables and attributes, never of data: values are parameters.
//! An item that is not there yet is inserted; one that is there is updated, if it still has the version that was read.
//!
//! Formats and limits:
//! <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchExecuteStatement.html>,
//! <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ql-reference.html>.

use std::collections::HashSet;
use std::fmt::Write as _;

use aws_sdk_dynamodb::operation::batch_execute_statement::BatchExecuteStatementOutput;
use aws_sdk_dynamodb::types::{
    AttributeValue, BatchStatementError, BatchStatementErrorCodeEnum, BatchStatementRequest,
    ReturnValuesOnConditionCheckFailure,
};

use crate::aws::error::{AwsError, Kind, aws_error};
use crate::aws::item::{Item, item_bytes, number};

/// Statements of one request.
const MAX_STATEMENTS: usize = 25;
/// The bytes of items from which on a request takes no further one: 25 items of 400 KB would be 10 MB.
const REQUEST_BYTES: usize = 1 << 20;

/// The version that an item must have to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// There is no item.
    Absent,
    /// The item has this version.
    Version(u64),
    /// The item has a lower version than this one.
    Below(u64),
}

/// A write of one item.
#[derive(Debug, Clone)]
pub struct ItemWrite {
    /// The table's name.
    pub table: String,
    /// The item's key.
    pub key: Item,
    /// Its other attributes.
    pub attributes: Item,
    /// Attributes that an earlier version of the item may have, and that this one lacks.
    pub removed: Vec<String>,
    /// The condition of the write.
    pub expected: Expected,
}

/// The outcome of a conditional write.
#[derive(Debug)]
pub enum Written {
    /// The item was written.
    Yes,
    /// The condition does not hold. The item that is there, where the service told it.
    Conflict(Option<Item>),
}

impl ItemWrite {
    /// The write of a whole item, whose attributes may include those of its key. `optional` names those that an earlier
    /// version of it may have had.
    pub fn new(table: String, key: Item, item: Item, optional: &[String], expected: Expected) -> Self {
        let removed = optional.iter().filter(|name| !item.contains_key(*name)).cloned().collect();
        let attributes = item.into_iter().filter(|(name, _)| !key.contains_key(name)).collect();
        ItemWrite { table, key, attributes, removed, expected }
    }

    /// The version that the item will have.
    pub fn version(&self) -> u64 {
        number(&self.attributes, "version").unwrap_or(0)
    }

    fn bytes(&self) -> usize {
        item_bytes(&self.key) + item_bytes(&self.attributes)
    }

    /// The statement with its parameters.
    fn statement(&self) -> (String, Vec<AttributeValue>) {
        let sorted = |item: &'_ Item| {
            let mut fields: Vec<(String, AttributeValue)> =
                item.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
            fields.sort_by(|one, other| one.0.cmp(&other.0));
            fields
        };
        let (key, attributes) = (sorted(&self.key), sorted(&self.attributes));
        let mut text = String::with_capacity(512);
        let mut parameters = Vec::with_capacity(key.len() + attributes.len() + 1);
        // Writing to a string cannot fail.
        if self.expected == Expected::Absent {
            let _ = write!(text, "INSERT INTO \"{}\" VALUE {{", self.table);
            for (index, (name, value)) in key.into_iter().chain(attributes).enumerate() {
                let comma = if index == 0 { "" } else { ", " };
                let _ = write!(text, "{comma}'{name}': ?");
                parameters.push(value);
            }
            text.push('}');
            return (text, parameters);
        }
        let _ = write!(text, "UPDATE \"{}\"", self.table);
        for (name, value) in attributes {
            let _ = write!(text, " SET \"{name}\" = ?");
            parameters.push(value);
        }
        for name in &self.removed {
            let _ = write!(text, " REMOVE \"{name}\"");
        }
        for (index, (name, value)) in key.into_iter().enumerate() {
            let _ = write!(text, " {} \"{name}\" = ?", if index == 0 { "WHERE" } else { "AND" });
            parameters.push(value);
        }
        let (comparison, version) = match self.expected {
            Expected::Version(version) => ("=", version),
            Expected::Below(version) => ("<", version),
            Expected::Absent => ("=", 0),
        };
        let _ = write!(text, " AND \"version\" {comparison} ?");
        parameters.push(AttributeValue::N(version.to_string()));
        (text, parameters)
    }

    fn request(&self) -> Result<BatchStatementRequest, AwsError> {
        let (statement, parameters) = self.statement();
        let request = BatchStatementRequest::builder()
            .statement(statement)
            .set_parameters(Some(parameters))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        request.build().map_err(|error| self.error(Kind::Refused, error.to_string()))
    }

    /// The identity of the item: two statements of one request must not be about the same.
    fn identity(&self) -> String {
        let mut key: Vec<String> = self.key.values().map(|value| format!("{value:?}")).collect();
        key.sort_unstable();
        format!("{} {}", self.table, key.join(" "))
    }

    fn operation(&self) -> &'static str {
        if self.expected == Expected::Absent { "dynamodb:PartiQLInsert" } else { "dynamodb:PartiQLUpdate" }
    }

    fn error(&self, kind: Kind, cause: String) -> AwsError {
        let id =
            self.key.iter().filter(|(name, _)| !name.starts_with("report_")).find_map(|(_, value)| value.as_s().ok());
        let resource = format!("{}/{}", self.table, id.map_or("", String::as_str));
        AwsError { operation: self.operation(), resource, kind, cause }
    }

    fn outcome(&self, error: Option<BatchStatementError>) -> Result<Written, AwsError> {
        let Some(BatchStatementError { code, message, item, .. }) = error else { return Ok(Written::Yes) };
        let kind = match &code {
            Some(BatchStatementErrorCodeEnum::ConditionalCheckFailed | BatchStatementErrorCodeEnum::DuplicateItem) => {
                return Ok(Written::Conflict(item));
            }
            Some(
                BatchStatementErrorCodeEnum::ProvisionedThroughputExceeded
                | BatchStatementErrorCodeEnum::RequestLimitExceeded
                | BatchStatementErrorCodeEnum::ThrottlingError,
            ) => Kind::Throttled,
            Some(
                BatchStatementErrorCodeEnum::InternalServerError | BatchStatementErrorCodeEnum::TransactionConflict,
            ) => Kind::Transient,
            Some(BatchStatementErrorCodeEnum::AccessDenied) => Kind::Denied,
            Some(BatchStatementErrorCodeEnum::ResourceNotFound) => Kind::MissingResource,
            _ => Kind::Refused,
        };
        let code = code.as_ref().map_or("no code", BatchStatementErrorCodeEnum::as_str);
        Err(self.error(kind, format!("{code}: {}", message.unwrap_or_default())))
    }
}

/// Splits writes into requests: at most 25 items, about 1 MiB, and no item twice.
pub fn requests(writes: Vec<ItemWrite>) -> Vec<Vec<ItemWrite>> {
    let mut requests: Vec<Vec<ItemWrite>> = Vec::new();
    let (mut bytes, mut items) = (0, HashSet::new());
    for write in writes {
        let fits = bytes < REQUEST_BYTES && items.len() < MAX_STATEMENTS && !items.contains(&write.identity());
        if !fits || requests.is_empty() {
            requests.push(Vec::new());
            (bytes, items) = (0, HashSet::new());
        }
        bytes += write.bytes();
        items.insert(write.identity());
        if let Some(request) = requests.last_mut() {
            request.push(write);
        }
    }
    requests
}

/// Carries out the writes of one request. Returns the outcome of each, in their order, or the error of the request as
/// a whole, after
/// which any of them may have happened.
pub async fn write_items(
    client: &aws_sdk_dynamodb::Client,
    writes: &[ItemWrite],
) -> Result<Vec<Result<Written, AwsError>>, AwsError> {
    let statements = writes.iter().map(ItemWrite::request).collect::<Result<Vec<_>, _>>()?;
    let tables = || {
        let tables: std::collections::BTreeSet<&str> = writes.iter().map(|write| write.table.as_str()).collect();
        tables.into_iter().collect::<Vec<_>>().join(", ")
    };
    let sent = client.batch_execute_statement().set_statements(Some(statements)).send().await;
    let output = sent.map_err(aws_error("dynamodb:BatchExecuteStatement", tables()))?;
    let BatchExecuteStatementOutput { responses, .. } = output;
    let responses = responses.unwrap_or_default();
    if responses.len() != writes.len() {
        let cause = format!("{} answers to {} statements", responses.len(), writes.len());
        let (operation, resource) = ("dynamodb:BatchExecuteStatement", tables());
        return Err(AwsError { operation, resource, kind: Kind::Transient, cause });
    }
    Ok(writes.iter().zip(responses).map(|(write, response)| write.outcome(response.error)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::item::text;

    fn write(id: &str, expected: Expected) -> ItemWrite {
        ItemWrite {
            table: "t".into(),
            key: Item::from([("track_id".into(), text(id)), ("report_date".into(), text("2024-01-01"))]),
            attributes: Item::from([
                ("version".into(), AttributeValue::N("3".into())),
                ("name".into(), text("it's \"x\" ?")),
            ]),
            removed: vec!["applied".into()],
            expected,
        }
    }

    #[test]
    fn values_are_parameters() {
        let (text, parameters) = write("a", Expected::Absent).statement();
        assert_eq!(text, "INSERT INTO \"t\" VALUE {'report_date': ?, 'track_id': ?, 'name': ?, 'version': ?}");
        assert_eq!(parameters.len(), 4);
        let (text, parameters) = write("a", Expected::Version(2)).statement();
        assert_eq!(
            text,
            "UPDATE \"t\" SET \"name\" = ? SET \"version\" = ? REMOVE \"applied\" \
             WHERE \"report_date\" = ? AND \"track_id\" = ? AND \"version\" = ?"
        );
        assert_eq!(parameters.last(), Some(&AttributeValue::N("2".into())));
        assert_eq!(parameters.len(), 5);
    }

    #[test]
    fn requests_are_bounded_in_items_and_bytes_and_have_no_item_twice() {
        let small = (0..60).map(|number| write(&number.to_string(), Expected::Absent)).collect();
        assert_eq!(requests(small).iter().map(Vec::len).collect::<Vec<_>>(), [25, 25, 10]);
        let large = |number: usize| ItemWrite {
            attributes: Item::from([("x".into(), text("y".repeat(400_000)))]),
            ..write(&number.to_string(), Expected::Absent)
        };
        assert_eq!(requests((0..7).map(large).collect()).iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1]);
        let twice = vec![write("a", Expected::Absent), write("b", Expected::Absent), write("a", Expected::Version(1))];
        assert_eq!(requests(twice).iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
    }
}
