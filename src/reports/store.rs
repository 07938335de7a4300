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
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes};
use futures::{Stream, StreamExt, TryStreamExt};
use governor::DefaultDirectRateLimiter;
use tokio_util::sync::CancellationToken;

use crate::aws::error::{AwsError, Kind, aws_error};
use crate::aws::item::{Item, number, text};
use crate::aws::retry::{Backoff, retry_until};
use crate::calendar::date_text;
use crate::protocol::BatchNumber;
use crate::reports::figures::{Delta, Key, Report};
use crate::reports::item::{
    BY_LISTENS, DATE_SHARDS, LISTINGS_TABLE, Replacement, ReportItem, date_shard, genre_date, is_empty, item_of,
    key_item, listing_key, listing_of, parse_item, parse_key, parse_listing_key,
};
use crate::reports::statements::{Expected, ItemWrite, Written, requests, write_items};
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
    client: aws_sdk_dynamodb::Client,
    table_prefix: String,
    groups: usize,
    writes: Option<Arc<DefaultDirectRateLimiter>>,
    progress: Progress,
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
        Reports { client, table_prefix, groups: concurrency.div_ceil(READ_ITEMS), writes, progress }
    }

    /// A table's full name.
    pub fn table(&self, report: Report) -> String {
        format!("{}{}", self.table_prefix, report.table())
    }

    /// The full name of the table of listings.
    pub fn listings_table(&self) -> String {
        format!("{}{LISTINGS_TABLE}", self.table_prefix)
    }

    /// Returns an error unless every table is there, and may be read and written.
    pub async fn check(&self) -> Result<(), AwsError> {
        for report in Report::ALL {
            let key = Key { report, id: "check".to_owned(), day: 0 };
            self.read(&[&key]).await?;
            let unwritable = key_item(&Key { id: String::new(), ..key.clone() });
            self.check_writes(self.table(report), key_item(&key), unwritable).await?;
        }
        let key = |id| HashMap::from([("genre_date".to_owned(), text("check")), ("track_id".to_owned(), text(id))]);
        self.read_listings(vec![key("check")]).await?;
        self.check_writes(self.listings_table(), key("check"), key("")).await
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
    ) -> Result<Vec<(Key, Outcome)>, AwsError> {
        let change = |stored: &ReportItem, delta: &Delta| {
            let next = stored.with(delta, batch, through).ok_or(Outcome::HadIt)?;
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
    ) -> Result<Vec<(Key, Outcome)>, AwsError> {
        let change = |stored: &ReportItem, delta: &Delta| {
            if stored.version == 0 && delta.figures.listens == 0 {
                return Err(Outcome::HadIt);
            }
            let Delta { figures, attributes, .. } = delta.clone();
            stored.replaced(figures, attributes, of).ok_or(Outcome::HasLater)
        };
        self.change_all(items, &change, deadline).await
    }

    /// Changes items, several at a time.
    async fn change_all(
        &self,
        deltas: Vec<Delta>,
        change: &impl Fn(&ReportItem, &Delta) -> Result<ReportItem, Outcome>,
        deadline: &CancellationToken,
    ) -> Result<Vec<(Key, Outcome)>, AwsError> {
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
        change: &impl Fn(&ReportItem, &Delta) -> Result<ReportItem, Outcome>,
        deadline: &CancellationToken,
    ) -> Result<Vec<(Key, Outcome)>, AwsError> {
        let keys: Vec<&Key> = group.iter().map(|delta| &delta.key).collect();
        let mut stored = match retry_until(deadline, async || self.read(&keys).await).await {
            // One key that no table can have takes the whole read with it.
            Err(error) if error.kind == Kind::Refused && group.len() > 1 => {
                let singles = group.into_iter().map(|delta| self.change_single(delta, change, deadline));
                return futures::stream::iter(singles).buffer_unordered(REQUESTS_PER_GROUP).try_collect().await;
            }
            Err(error) if error.kind == Kind::Refused => {
                return Ok(group.into_iter().map(|delta| (delta.key, Outcome::Refused(error.to_string()))).collect());
            }
            read => read?,
        };
        let mut pending: Vec<_> = group.into_iter().map(|delta| (stored.remove(&delta.key), delta)).collect();
        let mut changed = Vec::with_capacity(pending.len());
        let mut race = Backoff::after_a_race();
        loop {
            pending = self.change_once(pending, change, &mut changed, deadline).await?;
            if pending.is_empty() {
                return self.bring_listings_up_to_date(changed, deadline).await;
            }
            race.pause(deadline).await;
        }
    }

    /// Merges and writes items once. Returns those that another batch was faster with, as it left them.
    async fn change_once(
        &self,
        pending: Vec<(Option<Item>, Delta)>,
        change: &impl Fn(&ReportItem, &Delta) -> Result<ReportItem, Outcome>,
        changed: &mut Vec<(Key, Outcome, ReportItem)>,
        deadline: &CancellationToken,
    ) -> Result<Vec<(Option<Item>, Delta)>, AwsError> {
        let (mut merged, mut writes) = (Vec::new(), Vec::new());
        for (item, delta) in pending {
            match self.parse(&delta.key, item) {
                Err(foreign) => changed.push((delta.key, Outcome::Refused(foreign), ReportItem::default())),
                Ok(stored) => match change(&stored, &delta) {
                    Err(unchanged) => changed.push((delta.key, unchanged, stored)),
                    Ok(next) => {
                        writes.push(self.item_write(&delta.key, &next, stored.version));
                        merged.push((delta, next));
                    }
                },
            }
        }
        let outcomes = self.write(writes, deadline).await?;
        let (mut conflicts, mut unseen) = (Vec::new(), Vec::new());
        for ((delta, next), outcome) in merged.into_iter().zip(outcomes) {
            match outcome {
                Ok(Written::Yes) => {
                    metrics().report_items.add(1, &label("report", delta.key.report.name()));
                    changed.push((delta.key, Outcome::Changed, next));
                }
                // Another batch was faster, or an earlier try of this write did happen.
                Ok(Written::Conflict(newer)) => {
                    metrics().conflicts.add(1, &[]);
                    match newer {
                        Some(newer) => conflicts.push((Some(newer), delta)),
                        None => unseen.push(delta),
                    }
                }
                Err(error) => changed.push((delta.key, Outcome::Refused(error.to_string()), ReportItem::default())),
            }
        }
        if !unseen.is_empty() {
            let keys: Vec<&Key> = unseen.iter().map(|delta| &delta.key).collect();
            let mut found = retry_until(deadline, async || self.read(&keys).await).await?;
            conflicts.extend(unseen.into_iter().map(|delta| (found.remove(&delta.key), delta)));
        }
        Ok(conflicts)
    }

    /// Carries out writes, several requests at a time. Returns the outcome of each; an error only for one that is refused.
    async fn write(
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

    async fn change_single(
        &self,
        delta: Delta,
        change: &impl Fn(&ReportItem, &Delta) -> Result<ReportItem, Outcome>,
        deadline: &CancellationToken,
    ) -> Result<(Key, Outcome), AwsError> {
        let key = delta.key.clone();
        let changed = Box::pin(self.change_group(vec![delta], change, deadline)).await?;
        Ok(changed.into_iter().next().unwrap_or((key, Outcome::HadIt)))
    }

    /// Writes the listings of tracks that changed, and of those that had it already the ones that a crash has left behind.
    async fn bring_listings_up_to_date(
        &self,
        changed: Vec<(Key, Outcome, ReportItem)>,
        deadline: &CancellationToken,
    ) -> Result<Vec<(Key, Outcome)>, AwsError> {
        let listed = |key: &Key, stored: &ReportItem| -> Vec<Item> {
            stored.attributes.genres.iter().map(|genre| listing_key(key, genre)).collect()
        };
        let had_it = changed.iter().filter(|(key, outcome, stored)| {
            key.report == Report::Track && *outcome == Outcome::HadIt && stored.version > 0
        });
        let mut versions = HashMap::new();
        let looked_up: Vec<Item> = had_it.flat_map(|(key, _, stored)| listed(key, stored)).collect();
        for keys in looked_up.chunks(READ_ITEMS) {
            for item in retry_until(deadline, async || self.read_listings(keys.to_vec()).await).await? {
                let version = number(&item, "version").unwrap_or(0);
                versions.extend(parse_listing_key(&item).map(|place| (place, version)));
            }
        }
        let (mut tracks, mut writes) = (Vec::new(), Vec::new());
        for (position, (key, outcome, stored)) in changed.iter().enumerate() {
            if key.report != Report::Track || !matches!(outcome, Outcome::Changed | Outcome::HadIt) {
                continue;
            }
            for genre in &stored.attributes.genres {
                let place = parse_listing_key(&listing_key(key, genre));
                let there = place.and_then(|place| versions.get(&place).copied()).unwrap_or(0);
                if *outcome == Outcome::Changed || there < stored.version {
                    tracks.push(position);
                    writes.push(self.listing_write(key, genre, stored));
                }
            }
        }
        let outcomes = self.write_listings(writes, deadline).await?;
        let mut changed: Vec<(Key, Outcome)> = changed.into_iter().map(|(key, outcome, _)| (key, outcome)).collect();
        for (position, outcome) in tracks.into_iter().zip(outcomes) {
            if let Err(error) = outcome {
                changed[position].1 = Outcome::Refused(error.to_string());
            }
        }
        Ok(changed)
    }

    /// Writes listings that are older than these, or not there yet. Returns an error for each that is refused.
    async fn write_listings(
        &self,
        writes: Vec<ItemWrite>,
        deadline: &CancellationToken,
    ) -> Result<Vec<Result<(), AwsError>>, AwsError> {
        let mut outcomes: Vec<Result<(), AwsError>> = writes.iter().map(|_| Ok(())).collect();
        // Nearly all are either new with their item, or there. The other way is tried once where that is wrong; after that the listing
        // is there and as new.
        let mut open: Vec<(usize, ItemWrite)> = writes.into_iter().enumerate().collect();
        for _ in 0..2 {
            let written = self.write(open.iter().map(|(_, write)| write.clone()).collect(), deadline).await?;
            let mut again = Vec::new();
            for ((index, mut write), written) in open.into_iter().zip(written) {
                match written {
                    Ok(Written::Yes) => metrics().report_items.add(1, &label("report", "listing")),
                    Ok(Written::Conflict(Some(_))) if write.expected != Expected::Absent => {}
                    Ok(Written::Conflict(_)) => {
                        write.expected = match write.expected {
                            Expected::Absent => Expected::Below(write.version()),
                            _ => Expected::Absent,
                        };
                        again.push((index, write));
                    }
                    Err(error) => outcomes[index] = Err(error),
                }
            }
            open = again;
        }
        Ok(outcomes)
    }

    async fn read_listings(&self, keys: Vec<Item>) -> Result<Vec<Item>, AwsError> {
        let table = self.listings_table();
        let keys = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(true).build();
        let request: HashMap<_, _> = keys.ok().map(|keys| (table.clone(), keys)).into_iter().collect();
        let found = self.read_all(request, &table).await?;
        Ok(found.into_iter().map(|(_, item)| item).collect())
    }

    /// Empties the listings of a genre's day whose tracks do not have the genre any more, or are not there. May be repeated.
    pub async fn empty_stale_listings(
        &self,
        genre: &str,
        day: i32,
        of: Replacement,
        deadline: &CancellationToken,
    ) -> Result<(), AwsError> {
        let mut groups = pin!(self.listings(genre, day).try_chunks(READ_ITEMS));
        while let Some(listings) = groups.next().await {
            let listings = listings.map_err(|broken| broken.1)?;
            let is_shown = |item: &Item| (!is_empty(item)).then(|| parse_key(Report::Track, item)).flatten();
            let keys: Vec<Key> = listings.iter().filter_map(is_shown).collect();
            let mut items = retry_until(deadline, async || self.read(&keys.iter().collect::<Vec<_>>()).await).await?;
            let mut emptied = Vec::new();
            for key in keys {
                // An item that somebody else wrote was told of when it was to be replaced.
                let Ok(mut stored) = self.parse(&key, items.remove(&key)) else { continue };
                if stored.version == 0 {
                    // Its item must be behind the listing, or the next one of the track would not get past it.
                    stored.applied.through = of.last;
                    stored.version = of.now_ms;
                    let written = self.write(vec![self.item_write(&key, &stored, 0)], deadline).await?;
                    if let Some(Ok(Written::Conflict(_))) = written.first() {
                        let newer = retry_until(deadline, async || self.read(&[&key]).await).await?.remove(&key);
                        let Ok(newer) = self.parse(&key, newer) else { continue };
                        stored = newer;
                    }
                }
                if !stored.attributes.genres.contains(genre) {
                    emptied.push(self.listing_write(&key, genre, &stored.emptied()));
                }
            }
            self.write_listings(emptied, deadline).await?.into_iter().collect::<Result<(), AwsError>>()?;
        }
        Ok(())
    }

    /// Every item of a report's day, as the index has them: with the figures that people read, and eventually consistent.
    pub fn day(&self, report: Report, day: i32) -> impl Stream<Item = Result<Item, AwsError>> {
        let date = date_text(day);
        let (attribute, partitions) = match report {
            Report::Genre => ("report_date", vec![date]),
            Report::Track | Report::Listener => {
                ("date_shard", (0..DATE_SHARDS).map(|shard| date_shard(&date, shard)).collect())
            }
        };
        let table = self.table(report);
        let query = move |partition| {
            let query = self.client.query().table_name(&table).index_name(BY_LISTENS);
            let query = query
                .key_condition_expression("#key = :partition AND total_listens > :none")
                .expression_attribute_values(":none", AttributeValue::N("0".to_owned()));
            pages(query, attribute, partition, format!("{table}/index/{BY_LISTENS}"))
        };
        futures::stream::iter(partitions).flat_map(query)
    }

    /// Every listing of a genre's day, strongly consistent.
    pub fn listings(&self, genre: &str, day: i32) -> impl Stream<Item = Result<Item, AwsError>> {
        let table = self.listings_table();
        let query = self.client.query().table_name(&table).consistent_read(true);
        let query = query.key_condition_expression("#key = :partition");
        pages(query, "genre_date", genre_date(genre, &date_text(day)), table)
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
    async fn read_all(
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

    fn listing_write(&self, key: &Key, genre: &str, stored: &ReportItem) -> ItemWrite {
        let expected = if stored.version == 1 { Expected::Absent } else { Expected::Below(stored.version) };
        ItemWrite::new(self.listings_table(), listing_key(key, genre), listing_of(key, genre, stored), expected)
    }

    /// Waits until so many items may be written.
    async fn pace(&self, items: usize) {
        for _ in 0..items {
            if let Some(writes) = &self.writes {
                writes.until_ready().await;
            }
        }
    }

    fn parse(&self, key: &Key, item: Option<Item>) -> Result<ReportItem, String> {
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

/// All items of one partition, which is called so in the query.
fn pages(
    query: QueryFluentBuilder,
    attribute: &str,
    partition: String,
    resource: String,
) -> impl Stream<Item = Result<Item, AwsError>> + use<> {
    let mut items = query
        .expression_attribute_names("#key", attribute)
        .expression_attribute_values(":partition", text(partition))
        .into_paginator()
        .items()
        .send();
    futures::stream::poll_fn(move |context| items.poll_next(context))
        .map(move |item| item.map_err(aws_error("dynamodb:Query", resource.clone())))
}
