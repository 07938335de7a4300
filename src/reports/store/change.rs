//! Changes of items: read, merge, and write on condition that the version is unchanged.
//!
//! The tests are tests/pipeline and tests/chaos.

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use futures::{StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use crate::aws::error::{AwsError, Kind, aws_error};
use crate::aws::item::Item;
use crate::aws::retry::{Backoff, retry_until};
use crate::calendar::date_text;
use crate::reports::figures::{Delta, Key};
use crate::reports::item::{ReportItem, item_of, parse_item};
use crate::reports::store::{READ_ITEMS, Reports, WRITES_PER_GROUP, WriteOutcome};
use crate::telemetry::metrics::{label, metrics};

impl Reports {
    /// Changes items, several at a time.
    pub(super) async fn change_all(
        &self,
        deltas: Vec<Delta>,
        change: &impl Fn(&ReportItem, &Delta) -> Result<ReportItem, WriteOutcome>,
        deadline: &CancellationToken,
    ) -> Result<Vec<(Key, WriteOutcome)>, AwsError> {
        let mut groups = Vec::new();
        let mut deltas = deltas.into_iter().peekable();
        while deltas.peek().is_some() {
            groups.push(deltas.by_ref().take(READ_ITEMS).collect::<Vec<_>>());
        }
        futures::stream::iter(groups)
            .map(|group| self.change_group(group, change, deadline))
            .buffer_unordered(self.groups)
            .try_concat()
            .await
    }

    async fn change_group(
        &self,
        group: Vec<Delta>,
        change: &impl Fn(&ReportItem, &Delta) -> Result<ReportItem, WriteOutcome>,
        deadline: &CancellationToken,
    ) -> Result<Vec<(Key, WriteOutcome)>, AwsError> {
        let keys: Vec<&Key> = group.iter().map(|delta| &delta.key).collect();
        let mut stored = match retry_until(deadline, async || self.read(&keys).await).await {
            // One key that DynamoDB cannot accept fails the whole read, so each item is read alone.
            Err(error) if error.kind == Kind::Refused && group.len() > 1 => {
                let singles = group.into_iter().map(|delta| self.change_single(delta, change, deadline));
                return futures::stream::iter(singles).buffer_unordered(WRITES_PER_GROUP).try_collect().await;
            }
            Err(error) if error.kind == Kind::Refused => {
                return Ok(group
                    .into_iter()
                    .map(|delta| (delta.key, WriteOutcome::Refused(error.to_string())))
                    .collect());
            }
            read => read?,
        };
        let writes: Vec<_> = group.into_iter().map(|delta| (stored.remove(&delta.key), delta)).collect();
        let changed: Vec<(Key, WriteOutcome, ReportItem)> = futures::stream::iter(writes)
            .map(async |(item, delta)| {
                let (outcome, stored) = self.change_one(&delta, item, change, deadline).await?;
                Ok::<_, AwsError>((delta.key, outcome, stored))
            })
            .buffer_unordered(WRITES_PER_GROUP)
            .try_collect()
            .await?;
        self.update_listings(changed, deadline).await
    }

    async fn change_single(
        &self,
        delta: Delta,
        change: &impl Fn(&ReportItem, &Delta) -> Result<ReportItem, WriteOutcome>,
        deadline: &CancellationToken,
    ) -> Result<(Key, WriteOutcome), AwsError> {
        let key = delta.key.clone();
        let changed = Box::pin(self.change_group(vec![delta], change, deadline)).await?;
        Ok(changed.into_iter().next().unwrap_or((key, WriteOutcome::HadIt)))
    }

    async fn change_one(
        &self,
        delta: &Delta,
        item: Option<Item>,
        change: &impl Fn(&ReportItem, &Delta) -> Result<ReportItem, WriteOutcome>,
        deadline: &CancellationToken,
    ) -> Result<(WriteOutcome, ReportItem), AwsError> {
        let mut item = item;
        let mut race = Backoff::for_contention();
        self.progress.made();
        loop {
            let stored = match self.parse(&delta.key, item.take()) {
                Ok(stored) => stored,
                Err(foreign) => return Ok((WriteOutcome::Refused(foreign), ReportItem::default())),
            };
            let next = match change(&stored, delta) {
                Ok(next) => next,
                Err(unchanged) => return Ok((unchanged, stored)),
            };
            match retry_until(deadline, async || self.write(&delta.key, &next, stored.version).await).await {
                Ok(Written::Yes) => {
                    fail::fail_point!("item written");
                    metrics().report_items.add(1, &label("report", delta.key.report.name()));
                    return Ok((WriteOutcome::Changed, next));
                }
                // Another batch was faster, or an earlier attempt at this write has succeeded.
                Ok(Written::Conflict(newer)) => {
                    metrics().conflicts.add(1, &[]);
                    race.pause(deadline).await;
                    item = newer;
                }
                Err(error) if error.kind == Kind::Refused => {
                    return Ok((WriteOutcome::Refused(error.to_string()), stored));
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) async fn write(&self, key: &Key, stored: &ReportItem, old_version: u64) -> Result<Written, AwsError> {
        self.pace().await;
        let table = self.table(key.report);
        let put = self.client.put_item().table_name(&table).set_item(Some(item_of(key, stored)));
        let put = if old_version == 0 {
            put.condition_expression("attribute_not_exists(report_date)")
        } else {
            put.condition_expression("version = :version")
                .expression_attribute_values(":version", AttributeValue::N(old_version.to_string()))
        };
        match put.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld).send().await {
            Ok(_) => Ok(Written::Yes),
            Err(SdkError::ServiceError(service)) if service.err().is_conditional_check_failed_exception() => {
                if let PutItemError::ConditionalCheckFailedException(failed) = service.into_err()
                    && let Some(item) = failed.item
                {
                    return Ok(Written::Conflict(Some(item)));
                }
                // Some emulators do not return the item that failed the condition.
                Ok(Written::Conflict(self.read(&[key]).await?.remove(key)))
            }
            Err(error) => Err(aws_error("dynamodb:PutItem", format!("{table}/{}", key.id))(error)),
        }
    }

    pub(super) async fn pace(&self) {
        if let Some(writes) = &self.writes {
            writes.until_ready().await;
        }
    }

    pub(super) fn parse(&self, key: &Key, item: Option<Item>) -> Result<ReportItem, String> {
        let Some(item) = item else { return Ok(ReportItem::default()) };
        parse_item(key.report, &item).map_err(|reason| {
            let (table, Key { id, day, .. }) = (self.table(key.report), key);
            let date = date_text(*day);
            format!(
                "the item {id} of {date} in {table} is not what this program writes ({reason}); repair or delete it"
            )
        })
    }
}

/// The outcome of a conditional write.
pub(super) enum Written {
    Yes,
    /// The version has changed: the item as it is now.
    Conflict(Option<Item>),
}
