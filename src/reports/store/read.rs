//! Reads of items by key, by id, and by a scan.
//!
//! The tests are tests/pipeline and tests/chaos.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, ReturnConsumedCapacity};
use futures::{Stream, StreamExt};

use crate::aws::error::{AwsError, Kind, aws_error};
use crate::aws::item::{Item, item, text};
use crate::plan::period::Period;
use crate::process::tasks;
use crate::reports::figures::Key;
use crate::reports::item::{key_fields, parse_key};
use crate::reports::store::{ReadCost, Reports};

/// First pause before keys that a read left unprocessed are requested again; doubled each time.
const UNPROCESSED_PAUSE: Duration = Duration::from_millis(25);

impl Reports {
    /// Reads all items of one id, the latest first.
    pub async fn items_of(&self, report: usize, id: &str) -> Result<Vec<Item>, AwsError> {
        let table = self.table(report);
        let query = self.client.query().table_name(&table).scan_index_forward(false);
        let query = query
            .key_condition_expression("#id = :id")
            .expression_attribute_names("#id", &self.plan.reports[report].key_attribute)
            .expression_attribute_values(":id", text(id));
        let items: Result<Vec<Item>, _> = query.into_paginator().items().send().try_collect().await;
        items.map_err(aws_error("dynamodb:Query", table))
    }

    /// Finds every item of a report's day, or of its hours, by a scan of the table, which reads all of it.
    pub fn scan(&self, report: usize, day: i32) -> impl Stream<Item = Result<Item, AwsError>> + use<> {
        let (table, of_report) = (self.table(report), &self.plan.reports[report]);
        let periods = self.plan.periods_of(of_report, day);
        let first = periods.first().copied().unwrap_or(Period::Day(day));
        let last = periods.last().copied().unwrap_or(first);
        let mut items = self
            .client
            .scan()
            .table_name(&table)
            .filter_expression("#period BETWEEN :first AND :last AND #rows > :none")
            .expression_attribute_names("#period", first.attribute())
            .expression_attribute_names("#rows", &of_report.rows_attribute)
            .expression_attribute_values(":first", text(first.to_string()))
            .expression_attribute_values(":last", text(last.to_string()))
            .expression_attribute_values(":none", AttributeValue::N("0".to_owned()))
            .into_paginator()
            .items()
            .send();
        futures::stream::poll_fn(move |context| items.poll_next(context))
            .map(move |item| item.map_err(aws_error("dynamodb:Scan", table.clone())))
    }

    /// Reads at most [`READ_ITEMS`](crate::reports::store::READ_ITEMS) items with all attributes, strongly consistent.
    pub async fn read(&self, keys: &[&Key]) -> Result<HashMap<Key, Item>, AwsError> {
        self.read_keys(keys.iter().copied(), None).await
    }

    /// Reads items: strongly consistent, or where the cost is counted, eventually.
    pub(super) async fn read_keys<'k>(
        &self,
        keys: impl Iterator<Item = &'k Key> + Clone,
        cost: Option<&ReadCost>,
    ) -> Result<HashMap<Key, Item>, AwsError> {
        let mut request: HashMap<String, KeysAndAttributes> = HashMap::new();
        for (report, of_report) in self.plan.reports.iter().enumerate() {
            let of_table = keys.clone().filter(|key| key.report == report);
            let of_table: Vec<Item> = of_table.map(|key| item(key_fields(of_report, key))).collect();
            if !of_table.is_empty() {
                let keys =
                    KeysAndAttributes::builder().set_keys(Some(of_table)).consistent_read(cost.is_none()).build();
                request.extend(keys.ok().map(|keys| (self.table(report), keys)));
            }
        }
        let tables = request.keys().cloned().collect::<Vec<_>>().join(", ");
        let key = |(table, item): (String, Item)| {
            let report = (0..self.plan.reports.len()).find(|&report| self.table(report) == table)?;
            Some((parse_key(&self.plan.reports[report], report, &item)?, item))
        };
        Ok(self.read_all(request, &tables, cost).await?.into_iter().filter_map(key).collect())
    }

    /// Reads items, and requests again those that a read leaves unprocessed. Returns each with its table.
    pub(super) async fn read_all(
        &self,
        mut request: HashMap<String, KeysAndAttributes>,
        tables: &str,
        cost: Option<&ReadCost>,
    ) -> Result<Vec<(String, Item)>, AwsError> {
        let explain_read = || aws_error("dynamodb:BatchGetItem", tables);
        let mut found = Vec::new();
        let mut pause = UNPROCESSED_PAUSE;
        while !request.is_empty() {
            let asked = request.values().map(|keys| keys.keys().len()).sum();
            let get = self.client.batch_get_item().set_request_items(Some(request));
            let get = get.set_return_consumed_capacity(cost.map(|_| ReturnConsumedCapacity::Total));
            let output = tasks::apart("report items", async move { get.send().await }).await.map_err(explain_read())?;
            if let Some(cost) = cost {
                cost.add(asked, &output);
            }
            for (table, items) in output.responses.unwrap_or_default() {
                found.extend(items.into_iter().map(|item| (table.clone(), item)));
            }
            request = output.unprocessed_keys.unwrap_or_default();
            if !request.is_empty() {
                if pause > UNPROCESSED_PAUSE * 64 {
                    let (operation, cause) = ("dynamodb:BatchGetItem", "keys stay unprocessed".to_owned());
                    let resource = tables.to_owned();
                    return Err(AwsError { operation, resource, kind: Kind::Throttled, cause });
                }
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        }
        Ok(found)
    }
}
