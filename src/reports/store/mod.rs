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
//! * `offering.rs`: the epochs and offers of one pass over a batch's items
//! * `read.rs`: reads and queries
//!
//! The tests are tests/pipeline (figures, replay) and tests/chaos.

mod change;
mod lists;
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
use crate::protocol::BatchNumber;
use crate::reports::figures::{Delta, Key, Report};
use crate::reports::item::{Replacement, ReportItem, key_fields};
use crate::reports::top_lists::ListKey;
use crate::telemetry::progress::Progress;

pub use lists::{Offered, Restarted};
pub use offering::Offering;

/// Items in one read: <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html>.
pub const READ_ITEMS: usize = 100;
/// Requests to write one group of [`READ_ITEMS`] under way at once.
const REQUESTS_PER_GROUP: usize = 4;

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
    /// Left as it is, because the change would lower its listens or take it out of a top list.
    WouldLower,
    /// Refused, for this reason: it was not written by this program, or DynamoDB refuses the new item.
    Refused(String),
}

impl Reports {
    /// The tables with this prefix. `concurrency` bounds the writes at a time, rounded up to a multiple of 100.
    /// Each item is reported to `progress`.
    pub fn new(
        client: aws_sdk_dynamodb::Client,
        table_prefix: String,
        concurrency: usize,
        max_writes_per_second: Option<NonZeroU32>,
        progress: Progress,
    ) -> Self {
        let (groups, writes) = (concurrency.div_ceil(READ_ITEMS), rate_limiter(max_writes_per_second));
        Reports { client, table_prefix, groups, writes, progress }
    }

    /// The full name of a report's table.
    pub fn table(&self, report: Report) -> String {
        format!("{}{}", self.table_prefix, report.table())
    }

    /// The full name of a table.
    fn prefixed(&self, table: &str) -> String {
        format!("{}{table}", self.table_prefix)
    }

    /// Returns an error unless every table is there, and may be read and written.
    pub async fn check(&self) -> Result<(), AwsError> {
        for report in Report::ALL {
            let key = Key { report, id: "check".to_owned(), day: 0 };
            self.read(&[&key]).await?;
            let unwritable = key_fields(&Key { id: String::new(), ..key.clone() });
            self.check_writes(self.table(report), key_fields(&key), unwritable).await?;
        }
        let check = ListKey { list: "check".to_owned(), day: 0 };
        self.epochs(std::slice::from_ref(&check)).await?;
        let unwritable = ListKey { list: String::new(), ..check.clone() }.fields();
        self.check_writes(self.lists_table(), check.fields(), unwritable).await
    }

    /// Tries an update whose condition never holds, and an insert whose key no item can have: nothing is written, and
    /// the right to do so is seen.
    async fn check_writes(&self, table: String, key: Fields, unwritable: Fields) -> Result<(), AwsError> {
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
            let next = stored.with(delta, batch, through).ok_or(WriteOutcome::HadIt)?;
            Ok(ReportItem { version: next.version.max(min_version), ..next })
        };
        // Before any item is read: an offer counts only in the epoch that was seen before.
        let lists: BTreeSet<ListKey> =
            deltas.iter().flat_map(|delta| ListKey::of_item(&delta.key, &delta.attributes.genres)).collect();
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
            let genres = stored.attributes.genres.iter().chain(&delta.attributes.genres);
            lists.lock().unwrap_or_else(PoisonError::into_inner).extend(ListKey::of_item(&delta.key, genres));
            if stored.version == 0 && delta.figures.listens == 0 {
                return Err(WriteOutcome::HadIt);
            }
            if !of.may_lower && stored.would_leave_lists(delta) {
                return Err(WriteOutcome::WouldLower);
            }
            let Delta { figures, attributes, .. } = delta.clone();
            stored.replaced(figures, attributes, of).ok_or(WriteOutcome::HasLater)
        };
        let outcomes = self.change_all(items, 0, &change, None, deadline).await?;
        Ok((outcomes, lists.into_inner().unwrap_or_else(PoisonError::into_inner)))
    }
}
