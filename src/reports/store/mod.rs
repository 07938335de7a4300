//! The report tables: adding the deltas of a committed batch, each exactly once, and reading items.
//!
//! Each report item is read, merged with its delta and written on condition that its version is unchanged; a conflict
//! means that another batch was faster, and the merge is repeated with what that batch wrote. The item itself records
//! the batches in it ([`crate::protocol::Applied`]), so applying a delta again, by anyone, at any time, changes
//! nothing.
//!
//! Throttling slows this down and does not fail it: the rate is limited beforehand ([`governor`]), and a throttled
//! write is retried after a growing pause. An item that is refused, because it is not this program's or DynamoDB does
//! not accept it, is reported as such and affects no other item.
//!
//! * `mod.rs`: the tables, their check, and the two kinds of changes
//! * `change.rs`: the read, merge and conditional write behind both
//! * `listings.rs`: the copies of track items under each of their genres
//! * `read.rs`: reads and queries
//!
//! The tests are tests/pipeline (figures, replay) and tests/chaos.

mod change;
mod listings;
mod read;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::DefaultDirectRateLimiter;
use tokio_util::sync::CancellationToken;

use crate::aws::error::{AwsError, Kind, aws_error};
use crate::aws::item::{Item, text};
use crate::aws::pace::rate_limiter;
use crate::protocol::BatchNumber;
use crate::reports::figures::{Delta, Key, Report};
use crate::reports::item::{LISTINGS_TABLE, Replacement, ReportItem, key_item};
use crate::telemetry::progress::Progress;

/// Items in one read: <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html>.
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

/// The outcome of a change of one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteOutcome {
    /// Written.
    Changed,
    /// Up to date already.
    HadIt,
    /// Left as it is, because the change would lose a batch that is in it.
    HasLater,
    /// Refused, for this reason: it was not written by this program, or DynamoDB refuses the new item.
    Refused(String),
}

impl Reports {
    /// The tables with this prefix. `concurrency` bounds the writes at a time, rounded up to a multiple of 16.
    /// Each item is reported to `progress`.
    pub fn new(
        client: aws_sdk_dynamodb::Client,
        table_prefix: String,
        concurrency: usize,
        max_writes_per_second: Option<NonZeroU32>,
        progress: Progress,
    ) -> Self {
        let (groups, writes) = (concurrency.div_ceil(WRITES_PER_GROUP), rate_limiter(max_writes_per_second));
        Reports { client, table_prefix, groups, writes, progress }
    }

    /// The full name of a report's table.
    pub fn table(&self, report: Report) -> String {
        format!("{}{}", self.table_prefix, report.table())
    }

    /// The full name of the table of listings.
    pub fn listings_table(&self) -> String {
        format!("{}{LISTINGS_TABLE}", self.table_prefix)
    }

    /// Checks that every table exists, and may be read and written.
    pub async fn check(&self) -> Result<(), AwsError> {
        for report in Report::ALL {
            let key = Key { report, id: "check".to_owned(), day: 0 };
            self.read(&[&key]).await?;
            // Its condition never holds, so nothing is written, but DynamoDB checks the permission first.
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

    /// Applies deltas of a committed batch, and returns the outcome for each item. May be repeated, and may run in
    /// several consumers at a time. Returns early only at the `deadline`, or if the service refuses.
    ///
    /// `through` is the registry's watermark. Raises each written item's version to at least `min_version`. Pass 0
    /// normally; a replay passes a value above any earlier version, because a listing may have a higher version than a
    /// restored item.
    pub async fn apply(
        &self,
        batch: BatchNumber,
        through: BatchNumber,
        min_version: u64,
        deltas: Vec<Delta>,
        deadline: &CancellationToken,
    ) -> Result<Vec<(Key, WriteOutcome)>, AwsError> {
        let change = |stored: &ReportItem, delta: &Delta| {
            let next = stored.with(delta, batch, through).ok_or(WriteOutcome::HadIt)?;
            Ok(ReportItem { version: next.version.max(min_version), ..next })
        };
        self.change_all(deltas, &change, deadline).await
    }

    /// Replaces the figures of items, and returns the outcome for each.
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
