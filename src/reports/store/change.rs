//! Changes of items: read, merge, and write on condition that the version is unchanged, 25 items to a request.
//!
//! The tests are tests/pipeline and tests/chaos.

use std::collections::{BTreeSet, HashMap};

use futures::{StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use crate::aws::bulk::{Outcomes, settle_each};
use crate::aws::error::{AwsError, Kind};
use crate::aws::item::Item;
use crate::aws::retry::{Backoff, retry_until};
use crate::aws::statements::{Expected, ItemWrite, Written, requests, write_items};
use crate::calendar::date_text;
use crate::protocol::BatchNumber;
use crate::reports::figures::{Delta, Key};
use crate::reports::item::{ReportItem, fields_of, key_fields, parse_item};
use crate::reports::store::{Offering, READ_ITEMS, REQUESTS_PER_GROUP, Reports, WriteOutcome};
use crate::reports::top_lists::ListKey;
use crate::telemetry::metrics::{label, metrics};

/// Attributes that not every item of a report has.
const OPTIONAL: [&str; 4] = ["applied", "artists", "track_name", "user_country"];

/// An item as it is there, and the delta that is to go into it.
type Pending<'a> = (Option<Item>, &'a Delta);

/// Returns the place among `count` items or lists at which a batch begins. Batches that end at the same moment write
/// the same items; in the same order, they would meet at each of them.
pub(super) fn beginning(batch: BatchNumber, count: usize) -> usize {
    // The golden section spreads successive numbers.
    let place = batch.wrapping_mul(0x9e37_79b9_7f4a_7c15) % u64::try_from(count.max(1)).unwrap_or(1);
    usize::try_from(place).unwrap_or(0)
}

/// The error of changes that others were faster with until the time to stop was up.
pub(super) fn contended(resource: String) -> AwsError {
    let cause = "other consumers changed the same items until it was time to stop".to_owned();
    AwsError { operation: "dynamodb:PartiQLUpdate", resource, kind: Kind::Transient, cause }
}

impl Reports {
    /// Changes items, several at a time, from one of them on that depends on the batch.
    pub(super) async fn change_all(
        &self,
        deltas: &[Delta],
        batch: BatchNumber,
        change: &impl Fn(&ReportItem, &Delta) -> Result<ReportItem, WriteOutcome>,
        offering: Option<&Offering>,
        deadline: &CancellationToken,
    ) -> Result<Vec<(Key, WriteOutcome)>, AwsError> {
        let (behind, ahead) = deltas.split_at(beginning(batch, deltas.len()));
        futures::stream::iter(ahead.chunks(READ_ITEMS).chain(behind.chunks(READ_ITEMS)))
            .map(|group| self.change_group(group.iter().collect(), change, offering, deadline))
            .buffer_unordered(self.groups)
            .try_concat()
            .await
    }

    async fn change_group(
        &self,
        group: Vec<&Delta>,
        change: &impl Fn(&ReportItem, &Delta) -> Result<ReportItem, WriteOutcome>,
        offering: Option<&Offering>,
        deadline: &CancellationToken,
    ) -> Result<Vec<(Key, WriteOutcome)>, AwsError> {
        let mut outcomes = Vec::with_capacity(group.len());
        let mut pending = match self.read_pending(group.clone(), offering, deadline).await {
            // One key that no table can have takes the whole read with it.
            Err(error) if error.kind == Kind::Refused && group.len() > 1 => {
                let singles = group.into_iter().map(|delta| self.change_group(vec![delta], change, offering, deadline));
                let singles = futures::stream::iter(singles).buffer_unordered(REQUESTS_PER_GROUP);
                return Box::pin(singles.try_concat()).await;
            }
            Err(error) if error.kind == Kind::Refused => {
                let refused = |delta: &Delta| (delta.key.clone(), WriteOutcome::Refused(error.to_string()));
                return Ok(group.into_iter().map(refused).collect());
            }
            read => read?,
        };
        let mut race = Backoff::for_contention();
        loop {
            pending = self.change_once(pending, change, offering, &mut outcomes, deadline).await?;
            if pending.is_empty() {
                self.progress.made();
                return Ok(outcomes);
            }
            if !race.pause(deadline).await {
                return Err(contended(self.table(group[0].key.report)));
            }
        }
    }

    /// Reads the items of deltas, each after the epochs of the lists that it belongs to.
    async fn read_pending<'a>(
        &self,
        deltas: Vec<&'a Delta>,
        offering: Option<&Offering>,
        deadline: &CancellationToken,
    ) -> Result<Vec<Pending<'a>>, AwsError> {
        let keys: Vec<&Key> = deltas.iter().map(|delta| &delta.key).collect();
        let mut items = self.read_seen(&keys, offering, deadline).await?;
        Ok(deltas.into_iter().map(|delta| (items.remove(&delta.key), delta)).collect())
    }

    /// Reads items, each after the epochs of the lists that it belongs to.
    pub(super) async fn read_seen(
        &self,
        keys: &[&Key],
        offering: Option<&Offering>,
        deadline: &CancellationToken,
    ) -> Result<HashMap<Key, Item>, AwsError> {
        let Some(offering) = offering else { return retry_until(deadline, async || self.read(keys).await).await };
        loop {
            let now = offering.now().await;
            let items = retry_until(deadline, async || self.read(keys).await).await?;
            let mut unseen: BTreeSet<ListKey> = BTreeSet::new();
            for (key, item) in &items {
                unseen.extend(offering.unseen_of(key, item, now).await);
            }
            if unseen.is_empty() {
                return Ok(items);
            }
            // An item has at most 200 genres, so this ends.
            let unseen: Vec<ListKey> = unseen.into_iter().collect();
            offering.learn(retry_until(deadline, async || self.epochs(&unseen).await).await?).await;
        }
    }

    /// Merges and writes items once. Returns those that another batch was faster with, as it left them.
    async fn change_once<'a>(
        &self,
        pending: Vec<Pending<'a>>,
        change: &impl Fn(&ReportItem, &Delta) -> Result<ReportItem, WriteOutcome>,
        offering: Option<&Offering>,
        outcomes: &mut Vec<(Key, WriteOutcome)>,
        deadline: &CancellationToken,
    ) -> Result<Vec<Pending<'a>>, AwsError> {
        let (mut merged, mut writes) = (Vec::new(), Vec::new());
        for (item, delta) in pending {
            match self.parse(&delta.key, item) {
                Err(foreign) => outcomes.push((delta.key.clone(), WriteOutcome::Refused(foreign))),
                Ok(stored) => match change(&stored, delta) {
                    Err(unchanged) => {
                        if let Some(offering) = offering {
                            offering.offer(&delta.key, &stored).await;
                        }
                        outcomes.push((delta.key.clone(), unchanged));
                    }
                    Ok(next) => {
                        writes.push(self.item_write(&delta.key, &next, stored.version));
                        merged.push((delta, next));
                    }
                },
            }
        }
        let now = match offering {
            Some(offering) => Some((offering, offering.now().await)),
            None => None,
        };
        let written = self.write(writes, deadline).await?;
        let (mut conflicts, mut unread) = (Vec::new(), Vec::new());
        for ((delta, next), written) in merged.into_iter().zip(written) {
            match written {
                Ok(Written::Yes) => {
                    metrics().report_items.add(1, &label("report", delta.key.report.name()));
                    if let Some(offering) = offering {
                        offering.offer(&delta.key, &next).await;
                    }
                    outcomes.push((delta.key.clone(), WriteOutcome::Changed));
                }
                // Another batch was faster, or an earlier try of this write did happen.
                Ok(Written::Conflict(newer)) => {
                    metrics().conflicts.add(1, &[]);
                    let unseen = match (&newer, now) {
                        (Some(newer), Some((offering, now))) => offering.unseen_of(&delta.key, newer, now).await,
                        _ => Vec::new(),
                    };
                    match newer {
                        Some(newer) if unseen.is_empty() => conflicts.push((Some(newer), delta)),
                        _ => unread.push(delta),
                    }
                }
                Err(error) => outcomes.push((delta.key.clone(), WriteOutcome::Refused(error.to_string()))),
            }
        }
        if !unread.is_empty() {
            conflicts.extend(self.read_pending(unread, offering, deadline).await?);
        }
        Ok(conflicts)
    }

    /// Carries out writes, several requests at a time. Returns the outcome of each; an error only for one that is
    /// refused.
    pub(super) async fn write(
        &self,
        writes: Vec<ItemWrite>,
        deadline: &CancellationToken,
    ) -> Result<Outcomes<Written>, AwsError> {
        futures::stream::iter(requests(writes))
            .map(|request| self.write_request(request, deadline))
            .buffered(REQUESTS_PER_GROUP)
            .try_concat()
            .await
    }

    async fn write_request(
        &self,
        request: Vec<ItemWrite>,
        deadline: &CancellationToken,
    ) -> Result<Outcomes<Written>, AwsError> {
        let written = settle_each(&request, deadline, async |writes| {
            self.pace(writes.len()).await;
            let written = write_items(&self.client, writes).await;
            if written.as_ref().is_ok_and(|outcomes| outcomes.iter().any(Result::is_ok)) {
                self.progress.made();
            }
            fail::fail_point!("item written");
            written
        });
        let (written, denied): (Vec<_>, Vec<_>) = written
            .await?
            .into_iter()
            .partition(|written| written.as_ref().map_or_else(|error| error.kind == Kind::Refused, |_| true));
        // What is not permitted is not permitted for any item of the table.
        denied.into_iter().find_map(Result::err).map_or(Ok(written), Err)
    }

    fn item_write(&self, key: &Key, stored: &ReportItem, old_version: u64) -> ItemWrite {
        let attributes = fields_of(key.report, stored);
        let is_there = |wanted: &str| attributes.iter().any(|(name, _)| *name == wanted);
        ItemWrite {
            table: self.table(key.report),
            name: key.id.clone(),
            key: key_fields(key),
            removed: OPTIONAL.into_iter().filter(|name| !is_there(name)).collect(),
            expected: if old_version == 0 { Expected::Absent } else { Expected::Version(old_version) },
            attributes,
        }
    }

    /// Waits until so many items may be written.
    async fn pace(&self, items: usize) {
        for _ in 0..items {
            if let Some(writes) = &self.writes {
                writes.until_ready().await;
            }
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
