//! Conditional writes of items, up to 25 in one request.
//!
//! `BatchExecuteStatement` carries out PartiQL statements that each have a condition and an outcome of their own; it is
//! no transaction. A statement's text is made of the names of tables and attributes, never of data: values are
//! parameters. An item that is not there yet is inserted; one that is there is updated, if it still has the version
//! that was read.
//!
//! Formats and limits:
//! <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchExecuteStatement.html>,
//! <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ql-reference.html>.

use std::collections::{BTreeSet, HashSet};

use aws_sdk_dynamodb::types::{
    AttributeValue, BatchStatementError, BatchStatementErrorCodeEnum, BatchStatementRequest,
    ReturnValuesOnConditionCheckFailure,
};

use crate::aws::bulk::Outcomes;
use crate::aws::error::{AwsError, Kind, aws_error};
use crate::aws::item::{Fields, Item, field_bytes};
use crate::process::tasks;

/// Statements of one request.
pub const MAX_STATEMENTS: usize = 25;
/// The bytes of items from which on a request takes no further one: 25 items of 400 KB would be 10 MB.
const REQUEST_BYTES: usize = 1 << 20;

/// The `version` that an item must have to be written.
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
    /// The item's name in errors.
    pub name: String,
    /// The item's key: texts.
    pub key: Fields,
    /// Its other attributes.
    pub attributes: Fields,
    /// Attributes that an earlier version of the item may have, and that this one lacks.
    pub removed: Vec<&'static str>,
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
    fn bytes(&self) -> usize {
        field_bytes(&self.key) + field_bytes(&self.attributes)
    }

    /// The statement's text. There is no data in it.
    fn text(&self) -> String {
        let mut text = String::with_capacity(512);
        let comparison = match self.expected {
            Expected::Absent => {
                text.extend(["INSERT INTO \"", &self.table, "\" VALUE {"]);
                for (index, (name, _)) in self.key.iter().chain(&self.attributes).enumerate() {
                    text.extend([if index == 0 { "'" } else { ", '" }, name, "': ?"]);
                }
                text.push('}');
                return text;
            }
            Expected::Version(_) => "=",
            Expected::Below(_) => "<",
        };
        text.extend(["UPDATE \"", &self.table, "\""]);
        for (name, _) in &self.attributes {
            text.extend([" SET \"", name, "\" = ?"]);
        }
        for name in &self.removed {
            text.extend([" REMOVE \"", name, "\""]);
        }
        for (index, (name, _)) in self.key.iter().enumerate() {
            text.extend([if index == 0 { " WHERE \"" } else { " AND \"" }, name, "\" = ?"]);
        }
        text.extend([" AND \"version\" ", comparison, " ?"]);
        text
    }

    /// The statement's parameters, in the order of its text. They are copied, as the write may have to be repeated.
    fn parameters(&self) -> Vec<AttributeValue> {
        let (first, second, version) = match self.expected {
            Expected::Absent => (&self.key, &self.attributes, None),
            Expected::Version(version) | Expected::Below(version) => (&self.attributes, &self.key, Some(version)),
        };
        let version = version.map(|version| AttributeValue::N(version.to_string()));
        first.iter().chain(second).map(|(_, value)| value.clone()).chain(version).collect()
    }

    fn request(&self) -> Result<BatchStatementRequest, AwsError> {
        let request = BatchStatementRequest::builder()
            .statement(self.text())
            .set_parameters(Some(self.parameters()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        request.build().map_err(|error| self.error(Kind::Refused, error.to_string()))
    }

    /// The identity of the item: two statements of one request must not be about the same.
    fn identity(&self) -> (&str, Vec<&str>) {
        (&self.table, self.key.iter().filter_map(|(_, value)| Some(value.as_s().ok()?.as_str())).collect())
    }

    fn operation(&self) -> &'static str {
        if self.expected == Expected::Absent { "dynamodb:PartiQLInsert" } else { "dynamodb:PartiQLUpdate" }
    }

    fn error(&self, kind: Kind, cause: String) -> AwsError {
        AwsError { operation: self.operation(), resource: format!("{}/{}", self.table, self.name), kind, cause }
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
    let mut lengths: Vec<usize> = Vec::new();
    let (mut bytes, mut items) = (0, HashSet::new());
    for write in &writes {
        let fits = bytes < REQUEST_BYTES && items.len() < MAX_STATEMENTS && !items.contains(&write.identity());
        match lengths.last_mut() {
            Some(length) if fits => *length += 1,
            _ => {
                lengths.push(1);
                (bytes, items) = (0, HashSet::new());
            }
        }
        bytes += write.bytes();
        items.insert(write.identity());
    }
    let mut writes = writes.into_iter();
    lengths.into_iter().map(|length| writes.by_ref().take(length).collect()).collect()
}

/// Carries out the writes of one request. Returns the outcome of each, in their order, or the error of the request as
/// a whole, after which any of them may have happened.
pub async fn write_items(
    client: &aws_sdk_dynamodb::Client,
    writes: &[&ItemWrite],
) -> Result<Outcomes<Written>, AwsError> {
    let statements = writes.iter().map(|write| write.request()).collect::<Result<Vec<_>, _>>()?;
    let tables = || {
        let tables: BTreeSet<&str> = writes.iter().map(|write| write.table.as_str()).collect();
        tables.into_iter().collect::<Vec<_>>().join(", ")
    };
    let request = client.batch_execute_statement().set_statements(Some(statements));
    let sent = tasks::apart("conditional writes", async move { request.send().await }).await;
    let output = sent.map_err(aws_error("dynamodb:BatchExecuteStatement", tables()))?;
    let responses = output.responses.unwrap_or_default();
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
        let key = vec![("track_id", text(id)), ("report_date", text("2024-01-01"))];
        let attributes = vec![("name", text("it's \"x\" ?")), ("version", AttributeValue::N("3".into()))];
        ItemWrite { table: "t".into(), name: id.into(), key, attributes, removed: vec!["applied"], expected }
    }

    #[test]
    fn values_are_parameters() {
        let insert = write("a", Expected::Absent);
        assert_eq!(insert.text(), "INSERT INTO \"t\" VALUE {'track_id': ?, 'report_date': ?, 'name': ?, 'version': ?}");
        let (id, date) = (text("a"), text("2024-01-01"));
        let (name, version) = (text("it's \"x\" ?"), AttributeValue::N("3".into()));
        assert_eq!(insert.parameters(), [&id, &date, &name, &version].map(Clone::clone));
        let update = write("a", Expected::Version(2));
        assert_eq!(
            update.text(),
            "UPDATE \"t\" SET \"name\" = ? SET \"version\" = ? REMOVE \"applied\" \
             WHERE \"track_id\" = ? AND \"report_date\" = ? AND \"version\" = ?"
        );
        assert_eq!(update.parameters(), [name, version, id, date, AttributeValue::N("2".into())]);
        assert!(write("a", Expected::Below(2)).text().ends_with(" AND \"version\" < ?"));
    }

    #[test]
    fn requests_are_bounded_in_items_and_bytes_and_have_no_item_twice() {
        let small = (0..60).map(|number| write(&number.to_string(), Expected::Absent)).collect();
        assert_eq!(requests(small).iter().map(Vec::len).collect::<Vec<_>>(), [25, 25, 10]);
        let large = |number: usize| ItemWrite {
            attributes: vec![("x", text("y".repeat(400_000)))],
            ..write(&number.to_string(), Expected::Absent)
        };
        assert_eq!(requests((0..7).map(large).collect()).iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1]);
        let twice = vec![write("a", Expected::Absent), write("b", Expected::Absent), write("a", Expected::Version(1))];
        assert_eq!(requests(twice).iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
    }
}
