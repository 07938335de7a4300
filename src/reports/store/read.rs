//! Reads of items by key, by id, and by a scan.
//!
//! The tests are tests/pipeline and tests/chaos.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};
use futures::{Stream, StreamExt};

use crate::aws::error::{AwsError, Kind, aws_error};
use crate::aws::item::{Item, item, text};
use crate::calendar::date_text;
use crate::process::tasks;
use crate::reports::figures::{Key, Report};
use crate::reports::item::{key_fields, parse_key};
use crate::reports::store::Reports;

/// First pause before keys that a read left unprocessed are requested again; doubled each time.
const UNPROCESSED_PAUSE: Duration = Duration::from_millis(25);

impl Reports {
    /// Reads all items of one id, the latest day first.
    pub async fn days_of(&self, report: Report, id: &str) -> Result<Vec<Item>, AwsError> {
        let table = self.table(report);
        let query = self.client.query().table_name(&table).scan_index_forward(false);
        let query = query
            .key_condition_expression("#id = :id")
            .expression_attribute_names("#id", report.key_attribute())
            .expression_attribute_values(":id", text(id));
        let items: Result<Vec<Item>, _> = query.into_paginator().items().send().try_collect().await;
        items.map_err(aws_error("dynamodb:Query", table))
    }

    /// Finds every item of a report's day by a scan of the table, which reads all of it.
    pub fn scan(&self, report: Report, day: i32) -> impl Stream<Item = Result<Item, AwsError>> + use<> {
        let table = self.table(report);
        let mut items = self
            .client
            .scan()
            .table_name(&table)
            .filter_expression("report_date = :day AND total_listens > :none")
            .expression_attribute_values(":day", text(date_text(day)))
            .expression_attribute_values(":none", AttributeValue::N("0".to_owned()))
            .into_paginator()
            .items()
            .send();
        futures::stream::poll_fn(move |context| items.poll_next(context))
            .map(move |item| item.map_err(aws_error("dynamodb:Scan", table.clone())))
    }

    /// Reads at most [`READ_ITEMS`](crate::reports::store::READ_ITEMS) items with all attributes, strongly consistent.
    pub async fn read(&self, keys: &[&Key]) -> Result<HashMap<Key, Item>, AwsError> {
        let mut request: HashMap<String, KeysAndAttributes> = HashMap::new();
        for report in Report::ALL {
            let of_table = keys.iter().filter(|key| key.report == report);
            let of_table: Vec<Item> = of_table.map(|key| item(key_fields(key))).collect();
            if !of_table.is_empty() {
                let keys = KeysAndAttributes::builder().set_keys(Some(of_table)).consistent_read(true).build();
                request.extend(keys.ok().map(|keys| (self.table(report), keys)));
            }
        }
        let tables = request.keys().cloned().collect::<Vec<_>>().join(", ");
        let key = |(table, item): (String, Item)| {
            let report = Report::ALL.into_iter().find(|&report| self.table(report) == table);
            Some((parse_key(report?, &item)?, item))
        };
        Ok(self.read_all(request, &tables).await?.into_iter().filter_map(key).collect())
    }

    /// Reads items, and requests again those that a read leaves unprocessed. Returns each with its table.
    pub(super) async fn read_all(
        &self,
        mut request: HashMap<String, KeysAndAttributes>,
        tables: &str,
    ) -> Result<Vec<(String, Item)>, AwsError> {
        let explain_read = || aws_error("dynamodb:BatchGetItem", tables);
        let mut found = Vec::new();
        let mut pause = UNPROCESSED_PAUSE;
        while !request.is_empty() {
            let get = self.client.batch_get_item().set_request_items(Some(request));
            let output = tasks::apart("report items", async move { get.send().await }).await.map_err(explain_read())?;
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
