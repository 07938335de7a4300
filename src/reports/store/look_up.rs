//! Reads for people: eventually consistent, which costs half, and with a count of what they cost.
//!
//! Covered by tests/pipeline/reading.rs.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_dynamodb::operation::batch_get_item::BatchGetItemOutput;
use aws_sdk_dynamodb::types::ReturnConsumedCapacity;

use crate::aws::error::{AwsError, aws_error};
use crate::aws::item::{Item, item_bytes, text, text_of};
use crate::definition::reports::ALL;
use crate::plan::period::Period;
use crate::reports::figures::Key;
use crate::reports::store::Reports;
use crate::reports::top_lists::{ListKey, PERIOD_ATTRIBUTE, TopList};

/// Bytes of an item that half a read unit pays for:
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html>.
const HALF_UNIT_BYTES: usize = 4096;

/// The cost of reads: calls, and read units.
#[derive(Debug, Default)]
pub struct ReadCost {
    calls: AtomicU64,
    half_units: AtomicU64,
}

impl ReadCost {
    /// The number of calls.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// The number of halves of a read unit.
    pub fn half_units(&self) -> u64 {
        self.half_units.load(Ordering::Relaxed)
    }

    /// Counts a call and its half units.
    pub fn count(&self, half_units: u64) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.half_units.fetch_add(half_units, Ordering::Relaxed);
    }

    /// Adds a call for so many keys: the units that the service names, or what they are by the sizes of the items
    /// where a local stack names none.
    pub(super) fn add(&self, asked: usize, output: &BatchGetItemOutput) {
        let named: f64 = output.consumed_capacity().iter().filter_map(|of_table| of_table.capacity_units()).sum();
        let by_size = || {
            let items = || output.responses.iter().flat_map(HashMap::values).flatten();
            let missing = asked.saturating_sub(items().count());
            missing + items().map(|item| item_bytes(item).div_ceil(HALF_UNIT_BYTES)).sum::<usize>()
        };
        self.count(if named > 0.0 { (named * 2.0).round() as u64 } else { by_size() as u64 });
    }
}

impl Reports {
    /// Reads at most [`READ_ITEMS`](super::READ_ITEMS) items with all attributes.
    pub async fn look_up(&self, keys: &[Key], cost: &ReadCost) -> Result<HashMap<Key, Item>, AwsError> {
        self.read_keys(keys.iter(), Some(cost)).await
    }

    /// Reads at most [`READ_ITEMS`](super::READ_ITEMS) lists; one that is not there is empty. The error of a list tells
    /// that somebody else wrote it.
    pub async fn look_up_lists(
        &self,
        lists: &[ListKey],
        cost: &ReadCost,
    ) -> Result<BTreeMap<ListKey, Result<TopList, String>>, AwsError> {
        Ok(self.parsed_lists(lists, self.read_list_items(lists, false, Some(cost)).await?))
    }

    /// Finds the last, or the first, period of all rows of a report, or of its list of all items; `None` if there is no
    /// such item, or no list either.
    pub async fn edge(&self, report: usize, is_last: bool, cost: &ReadCost) -> Result<Option<Period>, AwsError> {
        let of_report = &self.plan.reports[report];
        let (table, key, id, sort) = match (&of_report.key, &of_report.top) {
            (None, _) => {
                let (_, all) = ALL;
                (self.table(report), of_report.key_attribute.as_str(), all, of_report.period_attribute())
            }
            (Some(_), Some(_)) => (self.lists_table(), "list", of_report.name.as_str(), PERIOD_ATTRIBUTE),
            (Some(_), None) => return Ok(None),
        };
        let query = self.client.query().table_name(&table).scan_index_forward(!is_last).limit(1);
        let query = query
            .key_condition_expression("#id = :id")
            .projection_expression("#period")
            .expression_attribute_names("#id", key)
            .expression_attribute_names("#period", sort)
            .expression_attribute_values(":id", text(id))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let output = query.send().await.map_err(aws_error("dynamodb:Query", table))?;
        let units = output.consumed_capacity().and_then(|of_table| of_table.capacity_units()).unwrap_or(0.5);
        cost.count((units * 2.0).round().max(1.0) as u64);
        Ok(output.items().first().and_then(|item| Period::parse(&text_of(item, sort)?)))
    }
}
