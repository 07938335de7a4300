//! The report tables: adding the deltas of a committed batch, each exactly once, and reading items.
//!
//! Each report item is read, merged with its delta and written on condition that its version is unchanged, 25 items to
//! a request ([`crate::aws::statements`]); a conflict means that another batch was faster, and the merge is
//! repeated with what that batch wrote. Then the items are offered to the [top lists](crate::reports::top_lists). The
//! item itself records the batches in it ([`crate::protocol::Applied`]), so applying a delta again, by anyone, at any
//! time, changes nothing.
//!
//! Throttling slows this down and does not fail it: the rate is limited beforehand ([`governor`]), and a throttled
//! write is retried after a growing pause. An item that is refused, because it is not this program's or DynamoDB does
//! not accept it, is reported as such and affects no other item.
//!
//! * `mod.rs`: the tables, their check, and the two kinds of changes
//! * `change.rs`: the read, merge and conditional write behind both
//! * `lists.rs`: the top lists
//! * `look_up.rs`: reads for people, eventually consistent, with their cost
//! * `offering.rs`: the epochs and offers of one pass over a batch's items
//! * `read.rs`: reads and queries
//!
//! The tests are tests/pipeline (figures, replay) and tests/chaos.

mod change;
mod lists;
mod look_up;
mod offering;
mod read;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_dynamodb::types::AttributeValue;
use governor::DefaultDirectRateLimiter;
use tokio_util::sync::CancellationToken;

use crate::aws::error::{AwsError, Kind};
use crate::aws::item::Fields;
use crate::aws::pace::rate_limiter;
use crate::aws::retry::retry_until;
use crate::aws::statements::{Expected, ItemWrite, write_items};
use crate::plan::Plan;
use crate::plan::period::Period;
use crate::plan::reports::Report;
use crate::protocol::BatchNumber;
use crate::reports::figures::{Delta, Key};
use crate::reports::item::{Replacement, ReportItem, key_fields, optional_attributes};
use crate::reports::top_lists::ListKey;
use crate::telemetry::progress::Progress;

pub use lists::{Offered, Restarted};
pub use look_up::ReadCost;
pub use offering::Offering;

/// Items in one read: <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html>.
pub const READ_ITEMS: usize = 100;
/// Requests to write one group of [`READ_ITEMS`] under way at once.
const REQUESTS_PER_GROUP: usize = 4;

/// The report tables.
#[derive(Debug, Clone)]
pub struct Reports {
    client: aws_sdk_dynamodb::Client,
    plan: Arc<Plan>,
    /// Attributes that not every item has, by report.
    optional: Arc<[Vec<String>]>,
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
    /// Left as it is, because the change would move it down in a top list or take it out of one.
    WouldLower,
    /// Refused, for this reason: it was not written by this program, or DynamoDB refuses the new item.
    Refused(String),
}

impl Reports {
    /// The tables with this prefix. `concurrency` bounds the writes at a time, rounded up to a multiple of 100.
    /// Each item is reported to `progress`.
    pub fn new(
        client: aws_sdk_dynamodb::Client,
        plan: Arc<Plan>,
        table_prefix: String,
        concurrency: usize,
        max_writes_per_second: Option<NonZeroU32>,
        progress: Progress,
    ) -> Self {
        let (groups, writes) = (concurrency.div_ceil(READ_ITEMS), rate_limiter(max_writes_per_second));
        let optional = plan.reports.iter().map(optional_attributes).collect();
        Reports { client, plan, optional, table_prefix, groups, writes, progress }
    }

    /// The tables of another plan's reports, with the same prefix and limits.
    #[must_use]
    pub fn of_plan(&self, plan: Arc<Plan>) -> Self {
        let optional = plan.reports.iter().map(optional_attributes).collect();
        Reports { plan, optional, ..self.clone() }
    }

    /// The plan whose reports these are.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The report of a key.
    pub fn report(&self, key: &Key) -> &Report {
        &self.plan.reports[key.report]
    }

    /// The full name of a report's table.
    pub fn table(&self, report: usize) -> String {
        self.prefixed(&self.plan.reports[report].table)
    }

    /// The full name of a table.
    fn prefixed(&self, table: &str) -> String {
        format!("{}{table}", self.table_prefix)
    }

    /// Returns an error unless every table is there, and may be read and written.
    pub async fn check(&self) -> Result<(), AwsError> {
        for (index, report) in self.plan.reports.iter().enumerate() {
            let period = if report.is_hourly { Period::Hour(0) } else { Period::Day(0) };
            let key = Key { report: index, id: "check".to_owned(), period };
            self.read(&[&key]).await?;
            let unwritable = key_fields(report, &Key { id: String::new(), ..key.clone() });
            self.check_writes(self.table(index), key_fields(report, &key), unwritable).await?;
        }
        if self.plan.reports.iter().all(|report| report.top.is_none()) {
            return Ok(());
        }
        let check = ListKey { list: "check".to_owned(), period: Period::Day(0) };
        self.epochs(std::slice::from_ref(&check)).await?;
        let unwritable = ListKey { list: String::new(), ..check.clone() }.fields();
        self.check_writes(self.lists_table(), check.fields(), unwritable).await
    }

    /// Tries an update whose condition never holds, and an insert whose key no item can have: nothing is written, and
    /// the right to do so is seen.
    async fn check_writes(&self, table: String, key: Fields<'_>, unwritable: Fields<'_>) -> Result<(), AwsError> {
        let version = vec![("version", AttributeValue::N("0".to_owned()))];
        let (name, expected) = ("check".to_owned(), Expected::Below(0));
        let update = ItemWrite { table, name, key, attributes: version, removed: Vec::new(), expected };
        let insert = ItemWrite { key: unwritable, expected: Expected::Absent, ..update.clone() };
        for write in [update, insert] {
            // A request may be refused as a whole for its key; that it came so far is what is asked.
            match write_items(&self.client, &[&write]).await {
                Err(error) if error.kind != Kind::Refused => return Err(error),
                Err(_) => {}
                Ok(outcomes) => {
                    for outcome in outcomes {
                        if let Err(error) = outcome
                            && error.kind != Kind::Refused
                        {
                            return Err(error);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Applies deltas of a committed batch, and notes in `offering` what they touch. Returns the outcome of each item.
    /// May be repeated, and carried out by several at a time. Ends early only at the deadline, or when the service
    /// refuses.
    ///
    /// `through` is the registry's watermark. Raises each written item's version to at least `min_version`: pass 0
    /// normally; a replay passes a value above any earlier version.
    pub async fn apply(
        &self,
        (batch, through): (BatchNumber, BatchNumber),
        min_version: u64,
        deltas: &[Delta],
        offering: &Offering,
        deadline: &CancellationToken,
    ) -> Result<Vec<(Key, WriteOutcome)>, AwsError> {
        let change = |stored: &ReportItem, delta: &Delta| {
            let next = stored.with(delta, self.report(&delta.key), batch, through).ok_or(WriteOutcome::HadIt)?;
            Ok(ReportItem { version: next.version.max(min_version), ..next })
        };
        // Before any item is read: an offer counts only in the epoch that was seen before.
        let lists_of = |delta: &Delta| ListKey::of_item(self.report(&delta.key), delta.key.period, &delta.labels);
        let lists: BTreeSet<ListKey> = deltas.iter().flat_map(lists_of).collect();
        let unseen = offering.unseen(lists, offering.now().await).await;
        offering.learn(retry_until(deadline, async || self.epochs(&unseen).await).await?).await;
        self.change_all(deltas, batch, &change, Some(offering), deadline).await
    }

    /// Gives items other figures, as far as `of` allows. Returns the outcome of each, and the lists that they belonged
    /// to before or belong to now.
    pub async fn replace(
        &self,
        of: Replacement,
        items: &[Delta],
        deadline: &CancellationToken,
    ) -> Result<(Vec<(Key, WriteOutcome)>, BTreeSet<ListKey>), AwsError> {
        let lists = Mutex::new(BTreeSet::new());
        let change = |stored: &ReportItem, delta: &Delta| {
            let (report, period) = (self.report(&delta.key), delta.key.period);
            let of_labels = [&stored.labels, &delta.labels].map(|labels| ListKey::of_item(report, period, labels));
            lists.lock().unwrap_or_else(PoisonError::into_inner).extend(of_labels.into_iter().flatten());
            if stored.version == 0 && delta.figures.rows() == Some(0) {
                return Err(WriteOutcome::HadIt);
            }
            if !of.may_lower && stored.would_leave_lists(delta, report) {
                return Err(WriteOutcome::WouldLower);
            }
            let Delta { figures, labels, .. } = delta.clone();
            stored.replaced(figures, labels, report, of).ok_or(WriteOutcome::HasLater)
        };
        let outcomes = self.change_all(items, 0, &change, None, deadline).await?;
        Ok((outcomes, lists.into_inner().unwrap_or_else(PoisonError::into_inner)))
    }
}
