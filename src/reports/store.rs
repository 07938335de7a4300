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

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, ReturnValuesOnConditionCheckFailure};
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
use crate::telemetry::metrics::{label, metrics};
use crate::telemetry::progress::Progress;

/// Items of one read: <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html>.
pub const READ_ITEMS: usize = 100;
/// First pause before asking again for keys that a read left unprocessed; doubled each time.
const UNPROCESSED_PAUSE: Duration = Duration::from_millis(25);
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
                return futures::stream::iter(singles).buffer_unordered(WRITES_PER_GROUP).try_collect().await;
            }
            Err(error) if error.kind == Kind::Refused => {
                return Ok(group.into_iter().map(|delta| (delta.key, Outcome::Refused(error.to_string()))).collect());
            }
            read => read?,
        };
        let writes: Vec<_> = group.into_iter().map(|delta| (stored.remove(&delta.key), delta)).collect();
        let changed: Vec<(Key, Outcome, ReportItem)> = futures::stream::iter(writes)
            .map(async |(item, delta)| {
                let (outcome, stored) = self.change_one(&delta, item, change, deadline).await?;
                Ok::<_, AwsError>((delta.key, outcome, stored))
            })
            .buffer_unordered(WRITES_PER_GROUP)
            .try_collect()
            .await?;
        self.bring_listings_up_to_date(changed, deadline).await
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

    async fn change_one(
        &self,
        delta: &Delta,
        item: Option<Item>,
        change: &impl Fn(&ReportItem, &Delta) -> Result<ReportItem, Outcome>,
        deadline: &CancellationToken,
    ) -> Result<(Outcome, ReportItem), AwsError> {
        let mut item = item;
        let mut race = Backoff::for_contention();
        self.progress.made();
        loop {
            let stored = match self.parse(&delta.key, item.take()) {
                Ok(stored) => stored,
                Err(foreign) => return Ok((Outcome::Refused(foreign), ReportItem::default())),
            };
            let next = match change(&stored, delta) {
                Ok(next) => next,
                Err(unchanged) => return Ok((unchanged, stored)),
            };
            match retry_until(deadline, async || self.write(&delta.key, &next, stored.version).await).await {
                Ok(Written::Yes) => {
                    fail::fail_point!("item written");
                    metrics().report_items.add(1, &label("report", delta.key.report.name()));
                    return Ok((Outcome::Changed, next));
                }
                // Another batch was faster, or an earlier try of this write did happen.
                Ok(Written::Conflict(newer)) => {
                    metrics().conflicts.add(1, &[]);
                    race.pause(deadline).await;
                    item = newer;
                }
                Err(error) if error.kind == Kind::Refused => return Ok((Outcome::Refused(error.to_string()), stored)),
                Err(error) => return Err(error),
            }
        }
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
        futures::stream::iter(changed)
            .map(async |(key, mut outcome, stored)| {
                if key.report == Report::Track && matches!(outcome, Outcome::Changed | Outcome::HadIt) {
                    for genre in &stored.attributes.genres {
                        let place = parse_listing_key(&listing_key(&key, genre));
                        let there = place.and_then(|place| versions.get(&place).copied()).unwrap_or(0);
                        if outcome == Outcome::HadIt && there >= stored.version {
                            continue;
                        }
                        match retry_until(deadline, async || self.write_listing(&key, genre, &stored).await).await {
                            Err(error) if error.kind == Kind::Refused => outcome = Outcome::Refused(error.to_string()),
                            written => written?,
                        }
                    }
                }
                self.progress.made();
                Ok((key, outcome))
            })
            .buffer_unordered(WRITES_PER_GROUP)
            .try_collect()
            .await
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
            for key in keys {
                // An item that somebody else wrote was told of when it was to be replaced.
                let Ok(mut stored) = self.parse(&key, items.remove(&key)) else { continue };
                if stored.version == 0 {
                    // Its item must be behind the listing, or the next one of the track would not get past it.
                    stored.applied.through = of.last;
                    stored.version = of.now_ms;
                    if let Written::Conflict(newer) =
                        retry_until(deadline, async || self.write(&key, &stored, 0).await).await?
                    {
                        let Ok(newer) = self.parse(&key, newer) else { continue };
                        stored = newer;
                    }
                }
                if !stored.attributes.genres.contains(genre) {
                    retry_until(deadline, async || self.write_listing(&key, genre, &stored.emptied()).await).await?;
                }
            }
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

    async fn write(&self, key: &Key, stored: &ReportItem, old_version: u64) -> Result<Written, AwsError> {
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
                // Some emulators do not return the item that stood in the way.
                Ok(Written::Conflict(self.read(&[key]).await?.remove(key)))
            }
            Err(error) => Err(aws_error("dynamodb:PutItem", format!("{table}/{}", key.id))(error)),
        }
    }

    async fn write_listing(&self, key: &Key, genre: &str, stored: &ReportItem) -> Result<(), AwsError> {
        self.pace().await;
        let table = self.listings_table();
        let put = self
            .client
            .put_item()
            .table_name(&table)
            .set_item(Some(listing_of(key, genre, stored)))
            .condition_expression("attribute_not_exists(version) OR version < :version")
            .expression_attribute_values(":version", AttributeValue::N(stored.version.to_string()))
            .send()
            .await;
        match put.map_err(aws_error("dynamodb:PutItem", format!("{table}/{}", key.id))) {
            Ok(_) => {
                metrics().report_items.add(1, &label("report", "listing"));
                Ok(())
            }
            Err(error) if error.kind == Kind::Condition => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn pace(&self) {
        if let Some(writes) = &self.writes {
            writes.until_ready().await;
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

/// What a conditional write came to.
enum Written {
    Yes,
    /// The item that stood in the way.
    Conflict(Option<Item>),
}
