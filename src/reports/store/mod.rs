//! Upsert: the deltas of a committed batch into the report tables, each exactly once.
//!
//! Each report item is read, merged with its delta and written on condition that its version is unchanged; a conflict means
//! another batch was faster, and the merge is done again on what it wrote. The item itself remembers the batches in it
//! ([`crate::protocol::Applied`]), so applying a delta again, by anybody, at any time, changes nothing.
//!
//! Throttling slows this down and does not fail it: the pace is bounded beforehand ([`governor`]), and a throttled write is
//! tried again after a growing pause. An item that is refused, since somebody else wrote it or DynamoDB does not take it, is
//! told, and costs no other item anything.

use std::collections::HashMap;
mod change;
mod listings;
mod read;

use std::sync::Arc;

use governor::DefaultDirectRateLimiter;
use tokio_util::sync::CancellationToken;

use crate::aws::error::{AwsError, Kind, aws_error};
use crate::aws::item::{Item, text};
use crate::protocol::BatchNumber;
use crate::reports::figures::{Delta, Key, Report};
use crate::reports::item::{LISTINGS_TABLE, Replacement, ReportItem, key_item};
use crate::telemetry::progress::Progress;

/// Items of one read: <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html>.
pub const READ_ITEMS: usize = 100;
/// Writes of one group of [`READ_ITEMS`] under way at once.
const WRITES_PER_GROUP: usize = 16;

/// The report tables.
#[derive(Debug, Clone)]
pub struct Reports {
    client: aws_sdk_dynamodb::Client,
    table_prefix: String,
    groups: usize,
    writes: Option<Arc<DefaultDirectRateLimiter>>,
    progress: Progress,
}

/// What became of an item that was to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It was written.
    Changed,
    /// It had what it should have.
    HadIt,
    /// It has a batch in it that would be lost, and stays as it is.
    HasLater,
    /// It cannot be written, for this reason: somebody else wrote it, or DynamoDB refuses it as it would be.
    Refused(String),
}

impl Reports {
    /// The tables of this prefix, written by at most `concurrency` calls at a time and at the given pace; each item is progress.
    pub fn new(
        client: aws_sdk_dynamodb::Client,
        table_prefix: String,
        concurrency: usize,
        writes: Option<Arc<DefaultDirectRateLimiter>>,
        progress: Progress,
    ) -> Self {
        Reports { client, table_prefix, groups: concurrency.div_ceil(WRITES_PER_GROUP), writes, progress }
    }

    /// A table's full name.
    pub fn table(&self, report: Report) -> String {
        format!("{}{}", self.table_prefix, report.table())
    }

    /// The full name of the table of listings.
    pub fn listings_table(&self) -> String {
        format!("{}{LISTINGS_TABLE}", self.table_prefix)
    }

    /// Whether every table is there, and may be read and written.
    pub async fn check(&self) -> Result<(), AwsError> {
        for report in Report::ALL {
            let key = Key { report, id: "check".to_owned(), day: 0 };
            self.read(&[&key]).await?;
            // Refused by its condition, whatever is there: nothing is written, and the right to do so is seen.
            self.try_write(&self.table(report), key_item(&key)).await?;
        }
        let table = self.listings_table();
        let key = HashMap::from([("genre_date".to_owned(), text("check")), ("track_id".to_owned(), text("check"))]);
        self.read_listings(vec![key.clone()]).await?;
        self.try_write(&table, key).await
    }

    async fn try_write(&self, table: &str, key: Item) -> Result<(), AwsError> {
        let put = self.client.put_item().table_name(table).set_item(Some(key));
        let put = put.condition_expression("attribute_exists(never_there)").send().await;
        match put.map_err(aws_error("dynamodb:PutItem", table)) {
            Err(error) if error.kind == Kind::Condition => Ok(()),
            done => done.map(drop),
        }
    }

    /// Applies deltas of a committed batch, and tells what became of each item. May be repeated, and carried out by several at a
    /// time. Ends early only when `halt` comes or the service refuses. An item that is written gets at least the
    /// `version`: 0, or one beyond every one that there was where items may have lost what their listings have kept.
    pub async fn apply(
        &self,
        batch: BatchNumber,
        through: BatchNumber,
        version: u64,
        deltas: Vec<Delta>,
        deadline: &CancellationToken,
    ) -> Result<Vec<(Key, WriteOutcome)>, AwsError> {
        let change = |stored: &ReportItem, delta: &Delta| {
            let next = stored.with(delta, batch, through).ok_or(WriteOutcome::HadIt)?;
            Ok(ReportItem { version: next.version.max(version), ..next })
        };
        self.change_all(deltas, &change, deadline).await
    }

    /// Gives items other figures, whatever they had, and tells what became of each.
    pub async fn replace(
        &self,
        of: Replacement,
        items: Vec<Delta>,
        deadline: &CancellationToken,
    ) -> Result<Vec<(Key, WriteOutcome)>, AwsError> {
        let change = |stored: &ReportItem, delta: &Delta| {
            if stored.version == 0 && delta.figures.listens == 0 {
                return Err(WriteOutcome::HadIt);
            }
            let Delta { figures, attributes, .. } = delta.clone();
            stored.replaced(figures, attributes, of).ok_or(WriteOutcome::HasLater)
        };
        self.change_all(items, &change, deadline).await
    }
}
