//! The last sweep, and whose turn the next one is.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::aws::error::{AwsError, aws_error};
use crate::aws::item::{number, text, text_of};
use crate::ledger::{Ledger, count, epoch_seconds, happened};

/// How far apart the clocks of consumers may be without one of them being taken for wrong.
const CLOCKS_APART_SECONDS: u64 = 60;

/// What a sweep came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Swept {
    /// Objects that nobody had announced or finished.
    pub found: u64,
    /// Objects that lie there although their content was finished before under the same key: put again, unchanged.
    pub left_over: u64,
}

/// When it was last swept, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LastSweep {
    /// When it began.
    pub started_at: jiff::Timestamp,
    /// By which consumer.
    pub by: String,
    /// When the last one ended that came to its end: the same, or the one before.
    pub finished_at: Option<jiff::Timestamp>,
    /// What that one came to.
    #[serde(flatten)]
    pub swept: Swept,
}

impl Ledger {
    /// Begins a sweep, unless any consumer began one within the interval. By the consumers' clocks: what depends on it is how
    /// much is listed, and nothing else.
    pub async fn take_sweep_turn(&self, interval: Duration) -> Result<bool, AwsError> {
        let now = epoch_seconds();
        let update = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("pk", text("sweep"))
            .key("sk", text("sweep"))
            .update_expression("SET started_at = :now, #by = :me")
            // A time that is yet to come is a clock that was wrong.
            .condition_expression("attribute_not_exists(started_at) OR started_at <= :due OR started_at > :soon")
            .expression_attribute_names("#by", "by")
            .expression_attribute_values(":now", AttributeValue::N(now.to_string()))
            .expression_attribute_values(":due", count(now.saturating_sub(interval.as_secs())))
            .expression_attribute_values(":soon", count(now.saturating_add(CLOCKS_APART_SECONDS)))
            .expression_attribute_values(":me", text(&self.owner));
        happened(update.send().await.map_err(aws_error("dynamodb:UpdateItem", format!("{}/sweep", self.table))))
    }

    /// Writes down what a sweep came to.
    pub async fn end_sweep(&self, swept: Swept) -> Result<(), AwsError> {
        self.client
            .update_item()
            .table_name(&self.table)
            .key("pk", text("sweep"))
            .key("sk", text("sweep"))
            .update_expression("SET finished_at = :now, #found = :found, left_over = :left_over")
            .expression_attribute_names("#found", "found")
            .expression_attribute_values(":now", AttributeValue::N(epoch_seconds().to_string()))
            .expression_attribute_values(":found", AttributeValue::N(swept.found.to_string()))
            .expression_attribute_values(":left_over", AttributeValue::N(swept.left_over.to_string()))
            .send()
            .await
            .map(drop)
            .map_err(aws_error("dynamodb:UpdateItem", format!("{}/sweep", self.table)))
    }

    /// When it was last swept, and what came of it.
    pub async fn last_sweep(&self) -> Result<Option<LastSweep>, AwsError> {
        let Some(item) = self.get("sweep", "sweep").await? else { return Ok(None) };
        let time = |name| jiff::Timestamp::from_second(i64::try_from(number(&item, name)?).ok()?).ok();
        let count = |name| number(&item, name).unwrap_or(0);
        Ok(time("started_at").map(|started_at| LastSweep {
            started_at,
            by: text_of(&item, "by").unwrap_or_default(),
            finished_at: time("finished_at"),
            swept: Swept { found: count("found"), left_over: count("left_over") },
        }))
    }
}
