//! Upsert: the deltas of a committed batch into the report tables, each exactly once.
//!
//! The only module that knows the report items. Each is read, merged with its delta and written on condition that its
//! version is unchanged; a conflict means another batch was faster, and the merge is done again on what it wrote. The item
//! itself remembers the batches in it ([`Applied`]), so applying a delta again, by anybody, at any time, changes nothing.
//!
//! Beside a track's item stands one listing per genre ([`LISTINGS_TABLE`]): a copy of its figures under `genre#date`, kept
//! here because a DynamoDB index lists an item only once and a track may have several genres. A listing carries its
//! item's version and is never replaced by an older one.
//!
//! Throttling slows this down and does not fail it: the pace is bounded beforehand ([`governor`]), and a throttled write is
//! tried again after a growing pause.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, ReturnValuesOnConditionCheckFailure};
use futures::{StreamExt, TryStreamExt};
use governor::DefaultDirectRateLimiter;
use tokio_util::sync::CancellationToken;

use crate::aws::{AwsError, Item, Kind, explain, number, persist, text};
use crate::protocol::{Applied, BatchNumber};
use crate::report::{self, Attributes, Delta, Distinct, Figures, Key, LIST_SEPARATOR, Report};
use crate::row::date_text;

/// The table of listings, without the prefix.
pub const LISTINGS_TABLE: &str = "genre_track_listings";

/// Index of every table by `total_listens`.
pub const BY_LISTENS: &str = "by_listens";

/// A day's tracks and listeners are spread over so many index partitions, each of which takes some 1,000 writes a second:
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html>.
pub const DATE_SHARDS: u32 = 8;

/// Items of one read: <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html>.
const READ_ITEMS: usize = 100;
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
}

/// A report item as it is stored.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stored {
    /// Its figures.
    pub figures: Figures,
    /// Its names.
    pub attributes: Attributes,
    /// The batches in it.
    pub applied: Applied,
    /// Counts the writes; 0 where there is no item.
    pub version: u64,
}

impl Stored {
    /// The item after a delta, or `None` when it has it already. `through` is the registry's watermark.
    #[must_use]
    pub fn with(&self, delta: &Delta, batch: BatchNumber, through: BatchNumber) -> Option<Self> {
        if self.applied.contains(batch) {
            return None;
        }
        let mut next = self.clone();
        next.figures.merge(&delta.figures);
        if self.applied.is_newest(batch) {
            next.attributes.update(delta.attributes.clone());
        } else {
            // What an older batch knows gives way to what is there.
            let mut attributes = delta.attributes.clone();
            attributes.update(next.attributes);
            next.attributes = attributes;
        }
        next.applied = self.applied.with(batch, through);
        next.version += 1;
        Some(next)
    }
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
    /// The tables of this prefix, written by at most `concurrency` calls at a time and at the given pace.
    pub fn new(
        client: aws_sdk_dynamodb::Client,
        table_prefix: String,
        concurrency: usize,
        writes: Option<Arc<DefaultDirectRateLimiter>>,
    ) -> Self {
        Reports { client, table_prefix, groups: concurrency.div_ceil(WRITES_PER_GROUP), writes }
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

    /// Applies deltas of a committed batch. May be repeated, and carried out by several at a time. Ends early only when
    /// `halt` comes or a call fails for good.
    pub async fn apply(
        &self,
        batch: BatchNumber,
        through: BatchNumber,
        deltas: Vec<Delta>,
        halt: &CancellationToken,
    ) -> Result<(), UpsertError> {
        let mut groups = Vec::new();
        let mut deltas = deltas.into_iter().peekable();
        while deltas.peek().is_some() {
            groups.push(deltas.by_ref().take(READ_ITEMS).collect::<Vec<_>>());
        }
        futures::stream::iter(groups)
            .map(|group| self.apply_group(batch, through, group, halt))
            .buffer_unordered(self.groups)
            .try_collect()
            .await
    }

    async fn apply_group(
        &self,
        batch: BatchNumber,
        through: BatchNumber,
        group: Vec<Delta>,
        halt: &CancellationToken,
    ) -> Result<(), UpsertError> {
        let keys: Vec<&Key> = group.iter().map(|delta| &delta.key).collect();
        let mut stored = persist(halt, async || self.read(&keys).await).await?;
        let writes: Vec<_> = group.iter().map(|delta| (delta, stored.remove(&delta.key))).collect();
        futures::stream::iter(writes)
            .map(|(delta, item)| self.apply_one(batch, through, delta, item, halt))
            .buffer_unordered(WRITES_PER_GROUP)
            .try_collect()
            .await
    }

    async fn apply_one(
        &self,
        batch: BatchNumber,
        through: BatchNumber,
        delta: &Delta,
        item: Option<Item>,
        halt: &CancellationToken,
    ) -> Result<(), UpsertError> {
        let mut stored = self.parse(&delta.key, item)?;
        while let Some(next) = stored.with(delta, batch, through) {
            match persist(halt, async || self.write(&delta.key, &next, stored.version).await).await? {
                Written::Yes => {
                    fail::fail_point!("item written");
                    stored = next;
                    break;
                }
                // Another batch was faster, or an earlier try of this write did happen.
                Written::Conflict(newer) => stored = self.parse(&delta.key, newer)?,
            }
        }
        if delta.key.report == Report::Track {
            for genre in &stored.attributes.genres {
                persist(halt, async || self.write_listing(&delta.key, genre, &stored).await).await?;
            }
        }
        Ok(())
    }

    async fn read(&self, keys: &[&Key]) -> Result<HashMap<Key, Item>, AwsError> {
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
        let mut item = visible_attributes(key, stored);
        item.insert("genre_date".to_owned(), text(genre_date(genre, &date_text(key.day))));
        item.insert("version".to_owned(), AttributeValue::N(stored.version.to_string()));
        let put = self
            .client
            .put_item()
            .table_name(&table)
            .set_item(Some(item))
            .condition_expression("attribute_not_exists(version) OR version < :version")
            .expression_attribute_values(":version", AttributeValue::N(stored.version.to_string()))
            .send()
            .await;
        match put.map_err(explain("dynamodb:PutItem", format!("{table}/{}", key.id))) {
            Ok(_) => Ok(()),
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

/// What a conditional write came to.
enum Written {
    Yes,
    /// The item that stood in the way.
    Conflict(Option<Item>),
}

/// Partition key of listings.
pub fn genre_date(genre: &str, date: &str) -> String {
    format!("{genre}#{date}")
}

/// The shard of an item's day in the index.
pub fn date_shard(date: &str, shard: u32) -> String {
    format!("{date}#{shard}")
}

/// Which shard an id belongs to: FNV-1a, the same on every machine and for ever.
fn shard_of(id: &str) -> u32 {
    id.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)) % DATE_SHARDS
}

fn key_item(key: &Key) -> Item {
    HashMap::from([
        (key.report.key_attribute().to_owned(), text(&key.id)),
        ("report_date".to_owned(), text(date_text(key.day))),
    ])
}

fn parse_key(report: Report, item: &Item) -> Option<Key> {
    let id = item.get(report.key_attribute())?.as_s().ok()?.clone();
    let day = crate::row::parse_date(item.get("report_date")?.as_s().ok()?)?;
    Some(Key { report, id, day })
}

/// The attributes that people read.
fn visible_attributes(key: &Key, stored: &Stored) -> Item {
    let Stored { figures, attributes, .. } = stored;
    let distinct = figures.distinct.count();
    let mut item = key_item(key);
    let mut add = |name: &str, value| item.insert(name.to_owned(), value);
    add("total_listens", AttributeValue::N(figures.listens.to_string()));
    add("total_listening_time", AttributeValue::N(report::seconds_text(figures.listening_ms)));
    add(key.report.distinct_attribute(), AttributeValue::N(distinct.to_string()));
    if key.report != Report::Listener {
        let average_ms = report::average_ms(figures.listening_ms, distinct);
        add("avg_listening_time_per_user", AttributeValue::N(report::seconds_text(average_ms)));
    }
    if let Some(name) = &attributes.track_name {
        add("track_name", text(name));
    }
    if let Some(artists) = &attributes.artists {
        add("artists", text(artists));
    }
    if let Some(country) = &attributes.user_country {
        add("user_country", text(country));
    }
    if key.report == Report::Track {
        let genres: Vec<&str> = attributes.genres.iter().map(String::as_str).collect();
        add("track_genre", text(genres.join(&LIST_SEPARATOR.to_string())));
    }
    item
}

/// The whole item: what people read, and what the protocol needs.
fn item_of(key: &Key, stored: &Stored) -> Item {
    let mut item = visible_attributes(key, stored);
    let mut add = |name: &str, value| item.insert(name.to_owned(), value);
    add("sketch", AttributeValue::B(Blob::new(stored.figures.distinct.to_bytes())));
    add("version", AttributeValue::N(stored.version.to_string()));
    add("applied_through", AttributeValue::N(stored.applied.through.to_string()));
    if !stored.applied.listed.is_empty() {
        add("applied", AttributeValue::Ns(stored.applied.listed.iter().map(ToString::to_string).collect()));
    }
    if key.report != Report::Genre {
        add("date_shard", text(date_shard(&date_text(key.day), shard_of(&key.id))));
    }
    item
}

fn parse_item(report: Report, item: &Item) -> Result<Stored, String> {
    let needed = |name: &str| number(item, name).ok_or_else(|| format!("no whole number in {name}"));
    let optional = |name: &str| item.get(name).and_then(|value| value.as_s().ok()).cloned();
    let listening_ms = item
        .get("total_listening_time")
        .and_then(|value| report::parse_seconds(value.as_n().ok()?))
        .ok_or("no seconds with at most three places in total_listening_time")?;
    let sketch = item.get("sketch").and_then(|value| value.as_b().ok()).ok_or("no bytes in sketch")?;
    let listed = match item.get("applied") {
        Some(AttributeValue::Ns(numbers)) => numbers.iter().map(|number| number.parse()).collect::<Result<_, _>>(),
        _ => Ok(BTreeSet::new()),
    };
    let genres = if report == Report::Track { optional("track_genre").unwrap_or_default() } else { String::new() };
    Ok(Stored {
        figures: Figures {
            listens: needed("total_listens")?,
            listening_ms,
            distinct: Distinct::from_bytes(sketch.as_ref())?,
        },
        attributes: Attributes {
            track_name: optional("track_name"),
            artists: optional("artists"),
            genres: genres.split(LIST_SEPARATOR).filter(|genre| !genre.is_empty()).map(str::to_owned).collect(),
            user_country: optional("user_country"),
        },
        applied: Applied {
            through: needed("applied_through")?,
            listed: listed.map_err(|_| "no batch numbers in applied".to_owned())?,
        },
        version: needed("version")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Member;
    use proptest::prelude::*;

    fn delta(users: &[i64], genres: &[&str], name: &str) -> Delta {
        let mut figures =
            Figures { listens: users.len() as u64, listening_ms: 1500 * users.len() as u64, ..Figures::default() };
        users.iter().for_each(|&user| figures.distinct.insert(Member::of_user(user)));
        let attributes = Attributes {
            track_name: Some(name.to_owned()),
            genres: genres.iter().map(|&genre| genre.to_owned()).collect(),
            ..Attributes::default()
        };
        Delta { key: Key { report: Report::Track, id: "t1".into(), day: 20_000 }, figures, attributes }
    }

    #[test]
    fn names_follow_the_newest_batch_and_genres_are_kept() {
        let first = Stored::default().with(&delta(&[1], &["pop"], "old"), 4, 3).unwrap();
        let second = first.with(&delta(&[2], &["rock"], "new"), 6, 3).unwrap();
        let late = second.with(&delta(&[3], &["pop"], "older"), 5, 3).unwrap();
        assert_eq!(late.attributes.track_name.as_deref(), Some("new"));
        assert_eq!(late.attributes.genres.iter().collect::<Vec<_>>(), ["pop", "rock"]);
        assert_eq!((late.figures.listens, late.version), (3, 3));
        assert_eq!(late.with(&delta(&[3], &["pop"], "older"), 5, 3), None);
        assert_eq!(late.with(&delta(&[3], &["pop"], "older"), 2, 3), None, "below the watermark");
    }

    #[test]
    fn an_item_of_somebody_else_is_refused_with_the_reason() {
        let stored = Stored::default().with(&delta(&[1], &["pop"], "x"), 4, 3).unwrap();
        let good = item_of(&delta(&[], &[], "").key, &stored);
        for name in ["sketch", "total_listens", "total_listening_time", "version", "applied_through"] {
            let mut item = good.clone();
            item.insert(name.to_owned(), text("x"));
            assert!(parse_item(Report::Track, &item).unwrap_err().contains(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn items_survive_the_table(users in prop::collection::vec(1..90_i64, 1..60), batch in 5..9_u64, through in 0..4_u64) {
            let delta = delta(&users, &["a", "b"], "name");
            let stored = Stored::default().with(&delta, batch, through).unwrap();
            let item = item_of(&delta.key, &stored);
            prop_assert_eq!(parse_key(Report::Track, &item), Some(delta.key.clone()));
            prop_assert_eq!(parse_item(Report::Track, &item).unwrap(), stored);
        }
    }
}
