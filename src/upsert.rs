//! Upsert: the deltas of a committed batch into the report tables, each exactly once.
//!
//! Each report item is read, merged with its delta and written on condition that its version is unchanged; a conflict means
//! another batch was faster, and the merge is done again on what it wrote. The item itself remembers the batches in it
//! ([`crate::protocol::Applied`]), so applying a delta again, by anybody, at any time, changes nothing.
//!
//! Throttling slows this down and does not fail it: the pace is bounded beforehand ([`governor`]), and a throttled write is
//! tried again after a growing pause.

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

use crate::aws::{AwsError, Item, Kind, explain, persist, text};
use crate::health::Progress;
use crate::metrics::{label, metrics};
use crate::protocol::BatchNumber;
use crate::report::{Delta, Key, Report};
use crate::row::date_text;
use crate::tables::{
    BY_LISTENS, DATE_SHARDS, LISTINGS_TABLE, Replacement, Stored, date_shard, genre_date, is_empty, item_of, key_item,
    listing_of, parse_item, parse_key,
};

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

/// A stored item cannot be understood, or a call failed.
#[derive(Debug, thiserror::Error)]
pub enum UpsertError {
    /// A call failed.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// Somebody else wrote the item.
    #[error(
        "the item {key:?} of {table} is not what this program writes ({reason}); repair or delete it, then restart"
    )]
    Foreign {
        /// The table.
        table: String,
        /// The item.
        key: Key,
        /// What is wrong with it.
        reason: String,
    },
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

    /// Whether every table is there and readable.
    pub async fn check(&self) -> Result<(), AwsError> {
        for report in Report::ALL {
            self.read(&[&Key { report, id: "check".to_owned(), day: 0 }]).await?;
        }
        let table = self.listings_table();
        let get =
            self.client.get_item().table_name(&table).key("genre_date", text("check")).key("track_id", text("check"));
        get.send().await.map(drop).map_err(explain("dynamodb:GetItem", table))
    }

    /// Applies deltas of a committed batch, and tells how many items did not have them yet. May be repeated, and carried out by
    /// several at a time. Ends early only when `halt` comes or a call fails for good. An item that is written gets at least the
    /// `version`: 0, or one beyond every one that there was where items may have lost what their listings have kept.
    pub async fn apply(
        &self,
        batch: BatchNumber,
        through: BatchNumber,
        version: u64,
        deltas: Vec<Delta>,
        halt: &CancellationToken,
    ) -> Result<usize, UpsertError> {
        let change = |stored: &Stored, delta: &Delta| {
            let next = stored.with(delta, batch, through).ok_or(Unchanged::HasIt)?;
            Ok(Stored { version: next.version.max(version), ..next })
        };
        let changed = self.change_all(deltas, &change, halt).await?;
        Ok(changed.iter().filter(|(_, changed)| changed.is_ok()).count())
    }

    /// Gives items other figures, whatever they had. The ones that have a later batch in them stay as they are and are given back.
    pub async fn replace(
        &self,
        of: Replacement,
        items: Vec<Delta>,
        halt: &CancellationToken,
    ) -> Result<Vec<Key>, UpsertError> {
        let change = |stored: &Stored, delta: &Delta| {
            if stored.version == 0 && delta.figures.listens == 0 {
                return Err(Unchanged::HasIt);
            }
            let Delta { figures, attributes, .. } = delta.clone();
            stored.replaced(figures, attributes, of).ok_or(Unchanged::HasLater)
        };
        let changed = self.change_all(items, &change, halt).await?;
        Ok(changed
            .into_iter()
            .filter(|(_, changed)| *changed == Err(Unchanged::HasLater))
            .map(|(key, _)| key)
            .collect())
    }

    /// Changes items, several at a time.
    async fn change_all(
        &self,
        deltas: Vec<Delta>,
        change: &impl Fn(&Stored, &Delta) -> Result<Stored, Unchanged>,
        halt: &CancellationToken,
    ) -> Result<Vec<(Key, Result<(), Unchanged>)>, UpsertError> {
        let mut groups = Vec::new();
        let mut deltas = deltas.into_iter().peekable();
        while deltas.peek().is_some() {
            groups.push(deltas.by_ref().take(READ_ITEMS).collect::<Vec<_>>());
        }
        futures::stream::iter(groups)
            .map(|group| self.change_group(group, change, halt))
            .buffer_unordered(self.groups)
            .try_concat()
            .await
    }

    async fn change_group(
        &self,
        group: Vec<Delta>,
        change: &impl Fn(&Stored, &Delta) -> Result<Stored, Unchanged>,
        halt: &CancellationToken,
    ) -> Result<Vec<(Key, Result<(), Unchanged>)>, UpsertError> {
        let keys: Vec<&Key> = group.iter().map(|delta| &delta.key).collect();
        let mut stored = persist(halt, async || self.read(&keys).await).await?;
        let writes: Vec<_> = group.into_iter().map(|delta| (stored.remove(&delta.key), delta)).collect();
        futures::stream::iter(writes)
            .map(async |(item, delta)| {
                let changed = self.change_one(&delta, item, change, halt).await?;
                Ok((delta.key, changed))
            })
            .buffer_unordered(WRITES_PER_GROUP)
            .try_collect()
            .await
    }

    async fn change_one(
        &self,
        delta: &Delta,
        item: Option<Item>,
        change: &impl Fn(&Stored, &Delta) -> Result<Stored, Unchanged>,
        halt: &CancellationToken,
    ) -> Result<Result<(), Unchanged>, UpsertError> {
        let mut stored = self.parse(&delta.key, item)?;
        let changed = loop {
            let next = match change(&stored, delta) {
                Ok(next) => next,
                Err(unchanged) => break Err(unchanged),
            };
            match persist(halt, async || self.write(&delta.key, &next, stored.version).await).await? {
                Written::Yes => {
                    fail::fail_point!("item written");
                    metrics().report_items.add(1, &label("report", delta.key.report.name()));
                    stored = next;
                    break Ok(());
                }
                // Another batch was faster, or an earlier try of this write did happen.
                Written::Conflict(newer) => {
                    metrics().conflicts.add(1, &[]);
                    stored = self.parse(&delta.key, newer)?;
                }
            }
        };
        if delta.key.report == Report::Track {
            for genre in &stored.attributes.genres {
                persist(halt, async || self.write_listing(&delta.key, genre, &stored).await).await?;
            }
        }
        self.progress.made();
        Ok(changed)
    }

    /// Empties the listings of a genre's day whose tracks do not have the genre any more, or are not there. May be repeated.
    pub async fn empty_stale_listings(
        &self,
        genre: &str,
        day: i32,
        of: Replacement,
        halt: &CancellationToken,
    ) -> Result<(), UpsertError> {
        let mut groups = pin!(self.listings(genre, day).try_chunks(READ_ITEMS));
        while let Some(listings) = groups.next().await {
            let listings = listings.map_err(|broken| broken.1)?;
            let is_shown = |item: &Item| (!is_empty(item)).then(|| parse_key(Report::Track, item)).flatten();
            let keys: Vec<Key> = listings.iter().filter_map(is_shown).collect();
            let mut items = persist(halt, async || self.read(&keys.iter().collect::<Vec<_>>()).await).await?;
            for key in keys {
                let mut stored = self.parse(&key, items.remove(&key))?;
                if stored.version == 0 {
                    // Its item must be behind the listing, or the next one of the track would not get past it.
                    stored.applied.through = of.last;
                    stored.version = of.now_ms;
                    if let Written::Conflict(newer) = persist(halt, async || self.write(&key, &stored, 0).await).await?
                    {
                        stored = self.parse(&key, newer)?;
                    }
                }
                if !stored.attributes.genres.contains(genre) {
                    persist(halt, async || self.write_listing(&key, genre, &stored.emptied()).await).await?;
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
        let explain_read = || explain("dynamodb:BatchGetItem", tables.clone());
        let mut found = HashMap::new();
        let mut pause = UNPROCESSED_PAUSE;
        while !request.is_empty() {
            let output =
                self.client.batch_get_item().set_request_items(Some(request)).send().await.map_err(explain_read())?;
            for (table, items) in output.responses.unwrap_or_default() {
                for item in items {
                    let report = Report::ALL.into_iter().find(|&report| self.table(report) == table);
                    let key = report.and_then(|report| parse_key(report, &item));
                    found.extend(key.map(|key| (key, item)));
                }
            }
            request = output.unprocessed_keys.unwrap_or_default();
            if !request.is_empty() {
                if pause > UNPROCESSED_PAUSE * 64 {
                    let (operation, cause) = ("dynamodb:BatchGetItem", "keys stay unprocessed".to_owned());
                    return Err(AwsError { operation, resource: tables, kind: Kind::Throttled, cause });
                }
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        }
        Ok(found)
    }

    async fn write(&self, key: &Key, stored: &Stored, old_version: u64) -> Result<Written, AwsError> {
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
            Err(error) => Err(explain("dynamodb:PutItem", format!("{table}/{}", key.id))(error)),
        }
    }

    async fn write_listing(&self, key: &Key, genre: &str, stored: &Stored) -> Result<(), AwsError> {
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
        match put.map_err(explain("dynamodb:PutItem", format!("{table}/{}", key.id))) {
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

    fn parse(&self, key: &Key, item: Option<Item>) -> Result<Stored, UpsertError> {
        let Some(item) = item else { return Ok(Stored::default()) };
        parse_item(key.report, &item).map_err(|reason| UpsertError::Foreign {
            table: self.table(key.report),
            key: key.clone(),
            reason,
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
        .map(move |item| item.map_err(explain("dynamodb:Query", resource.clone())))
}

/// Why an item stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unchanged {
    /// It has what it should have.
    HasIt,
    /// It has a batch in it that would be lost.
    HasLater,
}

/// What a conditional write came to.
enum Written {
    Yes,
    /// The item that stood in the way.
    Conflict(Option<Item>),
}
