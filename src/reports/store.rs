//! Upsert: the deltas of a committed batch into the report tables, each exactly once.
//!
//! Each report item is read, merged with its delta and written on condition that its version is unchanged; a conflict means
//! another batch was faster, and the merge is done again on what it wrote. The item itself remembers the batches in it
//! ([`crate::protocol::Applied`]), so applying a delta again, by anybody, at any time, changes nothing.
//!
//! Throttling slows this down and does not fail it: the pace is bounded beforehand ([`governor`]), and a throttled write is
//! tried again after a growing pause. An item that is refused, since somebody else wrote it or DynamoDB does not take it, is
//! told, and costs no other item anything.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};
use futures::{Stream, StreamExt, TryStreamExt};
use governor::DefaultDirectRateLimiter;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::aws::error::{AwsError, Kind, aws_error};
use crate::aws::item::{Item, text};
use crate::aws::retry::{Backoff, retry_until};
use crate::calendar::date_text;
use crate::protocol::BatchNumber;
use crate::reports::figures::{Delta, Key, Report};
use crate::reports::item::{Replacement, ReportItem, item_of, key_item, parse_item, parse_key};
use crate::reports::statements::{Expected, ItemWrite, Written, requests, write_items};
use crate::reports::top_lists::{ListKey, MAX_ENTRIES, Offers};
use crate::telemetry::metrics::{label, metrics};
use crate::telemetry::progress::Progress;

/// Items of one read: <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html>.
pub const READ_ITEMS: usize = 100;
/// First pause before asking again for keys that a read left unprocessed; doubled each time.
const UNPROCESSED_PAUSE: Duration = Duration::from_millis(25);
/// Requests to write a group of [`READ_ITEMS`] under way at once.
const REQUESTS_PER_GROUP: usize = 4;

/// The report tables.
#[derive(Debug, Clone)]
pub struct Reports {
    pub(super) client: aws_sdk_dynamodb::Client,
    table_prefix: String,
    groups: usize,
    writes: Option<Arc<DefaultDirectRateLimiter>>,
    list_length: usize,
    progress: Progress,
}

/// The outcome of changes.
#[derive(Debug, Default)]
pub struct Changes {
    /// The outcome of each item.
    pub items: Vec<(Key, Outcome)>,
    /// Top lists that cannot be written, each with the reason.
    pub refused_lists: Vec<(ListKey, String)>,
}

/// What became of an item that was to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
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
        let groups = concurrency.div_ceil(READ_ITEMS);
        Reports { client, table_prefix, groups, writes, list_length: MAX_ENTRIES, progress }
    }

    /// A table's full name.
    pub fn table(&self, report: Report) -> String {
        format!("{}{}", self.table_prefix, report.table())
    }

    /// The full name of a table.
    pub(super) fn prefixed(&self, table: &str) -> String {
        format!("{}{table}", self.table_prefix)
    }

    /// Entries of a top list.
    pub(super) fn list_length(&self) -> usize {
        self.list_length
    }

    /// Returns an error unless every table is there, and may be read and written.
    pub async fn check(&self) -> Result<(), AwsError> {
        for report in Report::ALL {
            let key = Key { report, id: "check".to_owned(), day: 0 };
            self.read(&[&key]).await?;
            let unwritable = key_item(&Key { id: String::new(), ..key.clone() });
            self.check_writes(self.table(report), key_item(&key), unwritable).await?;
        }
        let check = ListKey { list: "check".to_owned(), day: 0 };
        self.epochs(std::slice::from_ref(&check)).await?;
        let unwritable = ListKey { list: String::new(), ..check.clone() }.item();
        self.check_writes(self.lists_table(), check.item(), unwritable).await
    }

    /// Tries an update whose condition never holds, and an insert whose key no item can have: nothing is written, and the right to do
    /// so is seen.
    async fn check_writes(&self, table: String, key: Item, unwritable: Item) -> Result<(), AwsError> {
        let version = Item::from([("version".to_owned(), AttributeValue::N("0".to_owned()))]);
        let update = ItemWrite { table, key, attributes: version, removed: Vec::new(), expected: Expected::Below(0) };
        let insert = ItemWrite { key: unwritable, expected: Expected::Absent, ..update.clone() };
        for outcome in write_items(&self.client, &[update, insert]).await? {
            match outcome {
                Err(error) if error.kind != Kind::Refused => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Applies deltas of a committed batch, and offers what they touch to the top lists. Returns the outcome of each item. May be
    /// repeated, and carried out by several at a time. Ends early only at the deadline, or when the service refuses. Raises each written
    /// item's version to at least `min_version`: pass 0 normally.
    pub async fn apply(
        &self,
        batch: BatchNumber,
        through: BatchNumber,
        min_version: u64,
        deltas: &[Delta],
        deadline: &CancellationToken,
    ) -> Result<Changes, AwsError> {
        let change = |stored: &ReportItem, delta: &Delta| {
            let next = stored.with(delta, batch, through).ok_or(Outcome::HadIt)?;
            Ok(ReportItem { version: next.version.max(min_version), ..next })
        };
        let mut first: Option<Vec<(Key, Outcome)>> = None;
        loop {
            // Before any item is read: an offer counts only in the epoch that was seen before.
            let lists: BTreeSet<ListKey> =
                deltas.iter().flat_map(|delta| ListKey::of_item(&delta.key, &delta.attributes.genres)).collect();
            let lists: Vec<ListKey> = lists.into_iter().collect();
            let seen = Seen::default();
            seen.learn(retry_until(deadline, async || self.epochs(&lists).await).await?).await;
            // Where batches write the same items in the same order, they meet at each of them.
            let items = self.change_all(deltas, batch as usize, &change, Some(&seen), deadline).await?;
            let items = first.take().unwrap_or(items);
            let (epochs, offers) = seen.into_inner();
            let offered = self.offer(offers, &epochs, deadline).await?;
            if !offered.is_stale {
                return Ok(Changes { items, refused_lists: offered.refused });
            }
            first = Some(items);
        }
    }

    /// Gives items other figures, whatever they had. Returns the outcome of each, and the lists that they belonged to before or
    /// belong to now, which are to be filled anew.
    pub async fn replace(
        &self,
        of: Replacement,
        items: &[Delta],
        deadline: &CancellationToken,
    ) -> Result<(Vec<(Key, Outcome)>, BTreeSet<ListKey>), AwsError> {
        let lists = std::sync::Mutex::new(BTreeSet::new());
        let change = |stored: &ReportItem, delta: &Delta| {
            if let Ok(mut lists) = lists.lock() {
                let genres = stored.attributes.genres.iter().chain(&delta.attributes.genres);
                lists.extend(ListKey::of_item(&delta.key, genres));
            }
            if stored.version == 0 && delta.figures.listens == 0 {
                return Err(Outcome::HadIt);
            }
            let Delta { figures, attributes, .. } = delta.clone();
            stored.replaced(figures, attributes, of).ok_or(Outcome::HasLater)
        };
        let outcomes = self.change_all(items, 0, &change, None, deadline).await?;
        Ok((outcomes, lists.into_inner().unwrap_or_default()))
    }

    /// Changes items, several at a time, from one of them on that is chosen by `rotation`.
    async fn change_all(
        &self,
        deltas: &[Delta],
        rotation: usize,
        change: &impl Fn(&ReportItem, &Delta) -> Result<ReportItem, Outcome>,
        seen: Option<&Seen>,
        deadline: &CancellationToken,
    ) -> Result<Vec<(Key, Outcome)>, AwsError> {
        // A number of no common pattern with the groups: its golden section.
        let begin = (rotation as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) % (deltas.len().max(1) as u64);
        let (behind, ahead) = deltas.split_at(begin as usize);
        futures::stream::iter(ahead.chunks(READ_ITEMS).chain(behind.chunks(READ_ITEMS)))
            .map(|group| self.change_group(group.iter().collect(), change, seen, deadline))
            .buffer_unordered(self.groups)
            .try_concat()
            .await
    }

    async fn change_group(
        &self,
        group: Vec<&Delta>,
        change: &impl Fn(&ReportItem, &Delta) -> Result<ReportItem, Outcome>,
        seen: Option<&Seen>,
        deadline: &CancellationToken,
    ) -> Result<Vec<(Key, Outcome)>, AwsError> {
        let mut outcomes = Vec::with_capacity(group.len());
        let mut pending = match self.read_pending(group.clone(), seen, deadline).await {
            // One key that no table can have takes the whole read with it.
            Err(error) if error.kind == Kind::Refused && group.len() > 1 => {
                let singles = group.into_iter().map(|delta| self.change_group(vec![delta], change, seen, deadline));
                let singles = futures::stream::iter(singles).buffer_unordered(REQUESTS_PER_GROUP);
                return Box::pin(singles.try_concat()).await;
            }
            Err(error) if error.kind == Kind::Refused => {
                let refused = |delta: &Delta| (delta.key.clone(), Outcome::Refused(error.to_string()));
                return Ok(group.into_iter().map(refused).collect());
            }
            read => read?,
        };
        let mut race = Backoff::after_a_race();
        loop {
            pending = self.change_once(pending, change, seen, &mut outcomes, deadline).await?;
            if pending.is_empty() {
                return Ok(outcomes);
            }
            race.pause(deadline).await;
        }
    }

    /// Reads the items of deltas, each after the epochs of the lists that it belongs to.
    async fn read_pending<'a>(
        &self,
        deltas: Vec<&'a Delta>,
        seen: Option<&Seen>,
        deadline: &CancellationToken,
    ) -> Result<Vec<Pending<'a>>, AwsError> {
        let keys: Vec<&Key> = deltas.iter().map(|delta| &delta.key).collect();
        let mut items = self.read_seen(&keys, seen, deadline).await?;
        Ok(deltas.into_iter().map(|delta| (items.remove(&delta.key), delta)).collect())
    }

    /// Reads items, each after the epochs of the lists that it belongs to.
    pub(super) async fn read_seen(
        &self,
        keys: &[&Key],
        seen: Option<&Seen>,
        deadline: &CancellationToken,
    ) -> Result<HashMap<Key, Item>, AwsError> {
        let mut items = retry_until(deadline, async || self.read(keys).await).await?;
        if let Some(seen) = seen {
            let mut unseen: BTreeSet<ListKey> = BTreeSet::new();
            for (key, item) in &items {
                unseen.extend(seen.unseen(key, item).await);
            }
            if !unseen.is_empty() {
                let unseen: Vec<ListKey> = unseen.into_iter().collect();
                let epochs = retry_until(deadline, async || self.epochs(&unseen).await).await?;
                seen.learn(epochs).await;
                items = retry_until(deadline, async || self.read(keys).await).await?;
            }
        }
        Ok(items)
    }

    /// Merges and writes items once. Returns those that another batch was faster with, as it left them.
    async fn change_once<'a>(
        &self,
        pending: Vec<Pending<'a>>,
        change: &impl Fn(&ReportItem, &Delta) -> Result<ReportItem, Outcome>,
        seen: Option<&Seen>,
        outcomes: &mut Vec<(Key, Outcome)>,
        deadline: &CancellationToken,
    ) -> Result<Vec<Pending<'a>>, AwsError> {
        let (mut merged, mut writes) = (Vec::new(), Vec::new());
        for (item, delta) in pending {
            match self.parse(&delta.key, item) {
                Err(foreign) => outcomes.push((delta.key.clone(), Outcome::Refused(foreign))),
                Ok(stored) => match change(&stored, delta) {
                    Err(unchanged) => {
                        if let Some(seen) = seen {
                            seen.offer(&delta.key, &stored).await;
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
                    metrics().report_items.add(1, &label("report", delta.key.report.name()));
                    if let Some(seen) = seen {
                        seen.offer(&delta.key, &next).await;
                    }
                    outcomes.push((delta.key.clone(), Outcome::Changed));
                }
                // Another batch was faster, or an earlier try of this write did happen.
                Ok(Written::Conflict(newer)) => {
                    metrics().conflicts.add(1, &[]);
                    match (newer, seen) {
                        (Some(newer), None) => conflicts.push((Some(newer), delta)),
                        (Some(newer), Some(seen)) if seen.unseen(&delta.key, &newer).await.is_empty() => {
                            conflicts.push((Some(newer), delta));
                        }
                        _ => unread.push(delta),
                    }
                }
                Err(error) => outcomes.push((delta.key.clone(), Outcome::Refused(error.to_string()))),
            }
        }
        if !unread.is_empty() {
            conflicts.extend(self.read_pending(unread, seen, deadline).await?);
        }
        Ok(conflicts)
    }

    /// Carries out writes, several requests at a time. Returns the outcome of each; an error only for one that is refused.
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

    /// Reads items whole, at most [`READ_ITEMS`], strongly consistent.
    pub async fn read(&self, keys: &[&Key]) -> Result<HashMap<Key, Item>, AwsError> {
        let mut request: HashMap<String, KeysAndAttributes> = HashMap::new();
        for report in Report::ALL {
            let of_table = keys.iter().filter(|key| key.report == report).map(|key| key_item(key)).collect::<Vec<_>>();
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

    /// Reads items, and asks again for what a read leaves unprocessed. Gives each with its table.
    pub(super) async fn read_all(
        &self,
        mut request: HashMap<String, KeysAndAttributes>,
        tables: &str,
    ) -> Result<Vec<(String, Item)>, AwsError> {
        let explain_read = || aws_error("dynamodb:BatchGetItem", tables);
        let mut found = Vec::new();
        let mut pause = UNPROCESSED_PAUSE;
        while !request.is_empty() {
            let output =
                self.client.batch_get_item().set_request_items(Some(request)).send().await.map_err(explain_read())?;
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

    fn item_write(&self, key: &Key, stored: &ReportItem, old_version: u64) -> ItemWrite {
        let expected = if old_version == 0 { Expected::Absent } else { Expected::Version(old_version) };
        ItemWrite::new(self.table(key.report), key_item(key), item_of(key, stored), expected)
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

/// An item as it is there, and the delta that is to go into it.
type Pending<'a> = (Option<Item>, &'a Delta);

/// Epochs that were seen before items were read, and the offers made of those items.
#[derive(Debug, Default)]
pub(super) struct Seen {
    epochs: Mutex<HashMap<ListKey, u64>>,
    offers: Mutex<Offers>,
}

impl Seen {
    /// The lists that an item belongs to and whose epochs were not seen before it was read.
    async fn unseen(&self, key: &Key, item: &Item) -> Vec<ListKey> {
        let Ok(stored) = parse_item(key.report, item) else { return Vec::new() };
        let epochs = self.epochs.lock().await;
        let lists = ListKey::of_item(key, &stored.attributes.genres);
        lists.into_iter().filter(|list| !epochs.contains_key(list)).collect()
    }

    /// Keeps the first epoch of each list: items were read after that.
    async fn learn(&self, epochs: HashMap<ListKey, u64>) {
        let mut known = self.epochs.lock().await;
        for (list, epoch) in epochs {
            known.entry(list).or_insert(epoch);
        }
    }

    /// Offers an item to those of its lists whose epochs were seen before it was read.
    pub(super) async fn offer(&self, key: &Key, stored: &ReportItem) {
        if stored.version > 0 {
            let epochs = self.epochs.lock().await;
            self.offers.lock().await.add(key, stored, |list| epochs.contains_key(list));
        }
    }

    /// Returns the epochs and the offers.
    pub(super) fn into_inner(self) -> (HashMap<ListKey, u64>, Offers) {
        (self.epochs.into_inner(), self.offers.into_inner())
    }
}
