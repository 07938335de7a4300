//! Changes of items: read, merge, and write on condition that the version is unchanged, 25 items to a request.
//!
//! The tests are tests/pipeline and tests/chaos.

use std::collections::{BTreeSet, HashMap};

use futures::{StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use crate::aws::error::{AwsError, Kind};
use crate::aws::item::Item;
use crate::aws::retry::{Backoff, retry_until};
use crate::protocol::BatchNumber;
use crate::reports::figures::{Delta, Key};
use crate::reports::item::{ReportItem, item_of, key_item, parse_item};
use crate::reports::statements::{Expected, ItemWrite, Written, requests, write_items};
use crate::reports::store::{Offering, READ_ITEMS, REQUESTS_PER_GROUP, Reports, WriteOutcome};
use crate::reports::top_lists::ListKey;
use crate::telemetry::metrics::{label, metrics};

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
        loop {
            let items = retry_until(deadline, async || self.read(keys).await).await?;
            let Some(offering) = offering else { return Ok(items) };
            let mut unseen: BTreeSet<ListKey> = BTreeSet::new();
            for (key, item) in &items {
                unseen.extend(offering.unseen_of(self.report(key), key, item).await);
            }
            if unseen.is_empty() {
                return Ok(items);
            }
            // A label has at most 200 texts, so this ends.
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
                            offering.offer(self.report(&delta.key), &delta.key, &stored).await;
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
        let written = self.write(writes, deadline).await?;
        let (mut conflicts, mut unread) = (Vec::new(), Vec::new());
        for ((delta, next), written) in merged.into_iter().zip(written) {
            match written {
                Ok(Written::Yes) => {
                    metrics().report_items.add(1, &label("report", self.report(&delta.key).name.clone()));
                    if let Some(offering) = offering {
                        offering.offer(self.report(&delta.key), &delta.key, &next).await;
                    }
                    outcomes.push((delta.key.clone(), WriteOutcome::Changed));
                }
                // Another batch was faster, or an earlier try of this write did happen.
                Ok(Written::Conflict(newer)) => {
                    metrics().conflicts.add(1, &[]);
                    match (newer, offering) {
                        (Some(newer), None) => conflicts.push((Some(newer), delta)),
                        (Some(newer), Some(offering))
                            if offering.unseen_of(self.report(&delta.key), &delta.key, &newer).await.is_empty() =>
                        {
                            conflicts.push((Some(newer), delta));
                        }
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
    ) -> Result<Vec<Result<Written, AwsError>>, AwsError> {
        futures::stream::iter(requests(writes))
            .map(|request| self.write_request(request, deadline))
            .buffered(REQUESTS_PER_GROUP)
            .try_concat()
            .await
    }

    /// Carries out the writes of a request, and what fails for now again, alone, after growing pauses.
    async fn write_request(
        &self,
        request: Vec<ItemWrite>,
        deadline: &CancellationToken,
    ) -> Result<Vec<Result<Written, AwsError>>, AwsError> {
        let mut outcomes: Vec<Option<Result<Written, AwsError>>> = request.iter().map(|_| None).collect();
        let mut open: Vec<usize> = (0..request.len()).collect();
        let mut backoff = Backoff::default();
        // A request that is refused as a whole is taken apart, as one of its statements is the reason.
        let mut at_once = open.len();
        while !open.is_empty() {
            let now: Vec<usize> = open.drain(..at_once.min(open.len())).collect();
            let writes: Vec<ItemWrite> = now.iter().map(|&index| request[index].clone()).collect();
            self.pace(writes.len()).await;
            self.progress.made();
            let written = match retry_until(deadline, async || write_items(&self.client, &writes).await).await {
                Err(error) if error.kind == Kind::Refused && writes.len() > 1 => {
                    open.splice(..0, now);
                    at_once = 1;
                    continue;
                }
                Err(error) if error.kind == Kind::Refused => vec![Err(error)],
                written => written?,
            };
            fail::fail_point!("item written");
            let mut delayed = None;
            for (index, outcome) in now.into_iter().zip(written) {
                match outcome {
                    Err(error) if error.kind.is_transient() => {
                        open.push(index);
                        delayed = Some(error);
                    }
                    Err(error) if error.kind != Kind::Refused => return Err(error),
                    outcome => outcomes[index] = Some(outcome),
                }
            }
            if let Some(error) = delayed
                && !backoff.pause(deadline).await
            {
                return Err(error);
            }
        }
        Ok(outcomes.into_iter().flatten().collect())
    }

    fn item_write(&self, key: &Key, stored: &ReportItem, old_version: u64) -> ItemWrite {
        let expected = if old_version == 0 { Expected::Absent } else { Expected::Version(old_version) };
        let (report, optional) = (self.report(key), &self.optional[key.report]);
        let (table, item) = (self.table(key.report), item_of(report, key, stored));
        ItemWrite::new(table, key_item(report, key), item, optional, expected)
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
        parse_item(self.report(key), &item).map_err(|reason| {
            let (table, Key { id, period, .. }) = (self.table(key.report), key);
            format!(
                "the item {id} of {period} in {table} is not what this program writes ({reason}); repair or delete it"
            )
        })
    }
}
