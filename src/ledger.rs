//! The ledger: one DynamoDB table that says which batch has which object, and where every batch stands.
//!
//! The only module that knows the ledger's items. What is decided is in [`crate::protocol`]; here it is made to hold, each by
//! one conditional write: the registry by compare-and-swap, a claim by a put where nothing is yet. Items (keys `pk`, `sk`):
//!
//! | item | keys | attributes |
//! |---|---|---|
//! | registry | `registry`, `registry` | `version` N, `last` N, `batches` M: number → `state`, `owner`, `beat`, `since` |
//! | claim | `object#s3://BUCKET/KEY`, `version#…` or `etag#…` | `batch` N, `claimed_at`, `expires_at`, `renewed` |
//! | sweep | `sweep`, `sweep` | `started_at` N, `by`, `finished_at` N, `found` N, `left_over` N |
//! | record | `batch#000000000042`, `record` | `state` (`done`, `abandoned`), `summary`, `finished_at`, `expires_at` |
//!
//! Claims and records expire (`expires_at`, DynamoDB's time to live), claims after SQS can no longer repeat their message,
//! records after the claims that refer to them.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::aws::{AwsError, Item, Kind, explain, number, text, text_of};
use crate::event::{ObjectId, Version};
use crate::manifest::Counts;
use crate::protocol::{BatchNumber, Change, Contest, Entry, Registry, State, contest};

/// The ledger's table, without the prefix.
pub const LEDGER_TABLE: &str = "music_streams_ledger";
/// A claim outlives SQS's longest retention, 14 days, so that every repetition of its message meets it.
const CLAIM_DAYS: u64 = 15;
/// A record outlives every claim of its batch.
const RECORD_DAYS: u64 = 31;
/// Tries of a conditional write before giving up: each failure means that another consumer got through.
const ATTEMPTS: usize = 100;

/// What a claim came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The object is this batch's.
    Won,
    /// It is finished already.
    Duplicate,
    /// Another batch is at it.
    Left,
}

/// What a sweep came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Swept {
    /// Objects that nobody had announced or finished.
    pub found: u64,
    /// Objects that lie there although their content was finished before under the same key: put again, unchanged.
    pub left_over: u64,
}

/// When it was last swept, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LastSweep {
    /// When it began.
    pub started_at: jiff::Timestamp,
    /// By which consumer.
    pub by: String,
    /// When the last one ended that came to its end: the same, or the one before.
    pub finished_at: Option<jiff::Timestamp>,
    /// What that one came to.
    #[serde(flatten)]
    pub swept: Swept,
}

/// The record that a batch left.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Record {
    /// Which batch.
    pub batch: BatchNumber,
    /// Done or abandoned.
    pub state: State,
    /// Since when.
    pub finished_at: jiff::Timestamp,
    /// What it did.
    #[serde(flatten)]
    pub counts: Counts,
}

/// Which batch has one content of an object.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ClaimRecord {
    /// Which content.
    pub version: Version,
    /// The batch.
    pub batch: BatchNumber,
    /// Since when.
    pub claimed_at: jiff::Timestamp,
}

/// The registry as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredRegistry {
    /// The registry.
    pub registry: Registry,
    /// Counts the writes; 0 where there is no item.
    pub version: u64,
}

/// Who has a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holder {
    batch: BatchNumber,
    /// The object was seen to be finished, and still to lie there.
    renewed: bool,
}

/// The ledger.
#[derive(Debug, Clone)]
pub struct Ledger {
    client: aws_sdk_dynamodb::Client,
    table: String,
    owner: String,
}

impl Ledger {
    /// The ledger in `table`, as seen by the consumer `owner`.
    pub fn new(client: aws_sdk_dynamodb::Client, table: String, owner: String) -> Self {
        Ledger { client, table, owner }
    }

    /// The name of this consumer in the ledger.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Reads the registry, strongly consistent.
    pub async fn registry(&self) -> Result<Registry, AwsError> {
        Ok(self.stored_registry().await?.registry)
    }

    /// Takes the next number and lists the batch as open, in one write.
    pub async fn open(&self) -> Result<BatchNumber, AwsError> {
        let since = epoch_seconds();
        let mut taken = None;
        self.change(|registry| {
            // The answer to a write that did happen may have been lost.
            let is_mine =
                |number: &BatchNumber| registry.batches.get(number).is_some_and(|entry| entry.owner == self.owner);
            if taken.as_ref().is_some_and(is_mine) {
                return Change::Already;
            }
            let (number, next) = registry.open(&self.owner, since);
            taken = Some(number);
            Change::To(next)
        })
        .await?;
        Ok(taken.unwrap_or_default())
    }

    /// Shows that the owner lives. `false` when the batch is no longer this consumer's.
    pub async fn beat(&self, number: BatchNumber) -> Result<bool, AwsError> {
        self.change(|registry| registry.beat(number, &self.owner)).await
    }

    /// Flips this consumer's batch from open to committed. `false` when it was abandoned meanwhile.
    pub async fn commit(&self, number: BatchNumber) -> Result<bool, AwsError> {
        self.change(|registry| registry.commit(number, &self.owner)).await
    }

    /// Flips a batch from open to abandoned, if it still is as `seen`. `false` when it is not.
    pub async fn abandon(&self, number: BatchNumber, seen: &Entry) -> Result<bool, AwsError> {
        self.change(|registry| registry.abandon(number, seen)).await
    }

    /// Makes another consumer's committed batch this consumer's, if it still is as `seen`. `false` when it is not.
    pub async fn adopt(&self, number: BatchNumber, seen: &Entry) -> Result<bool, AwsError> {
        self.change(|registry| registry.adopt(number, seen, &self.owner)).await
    }

    /// Makes another consumer's open batch this consumer's and committed, which it was before, if it still is as `seen`. `false` when
    /// it is not.
    pub async fn commit_again(&self, number: BatchNumber, seen: &Entry) -> Result<bool, AwsError> {
        self.change(|registry| registry.commit_again(number, seen, &self.owner)).await
    }

    /// Gives up this consumer's own open batch. `false` when it is committed or somebody else did so.
    pub async fn abandon_own(&self, number: BatchNumber) -> Result<bool, AwsError> {
        self.change(|registry| registry.abandon_own(number, &self.owner)).await
    }

    /// Takes no number up to this one any more.
    pub async fn skip_to(&self, number: BatchNumber) -> Result<(), AwsError> {
        self.change(|registry| registry.skip_to(number)).await.map(drop)
    }

    /// Writes the record of a finished batch, then takes it off the registry. In this order, so that its state can be
    /// found at any time; both may be repeated.
    pub async fn close(&self, number: BatchNumber, state: State, summary: &str) -> Result<(), AwsError> {
        self.client
            .put_item()
            .table_name(&self.table)
            .item("pk", text(record_key(number)))
            .item("sk", text("record"))
            .item("state", text(state.name()))
            .item("summary", text(summary))
            .item("finished_at", text(jiff::Timestamp::now().to_string()))
            .item("expires_at", expiry(RECORD_DAYS))
            .send()
            .await
            .map_err(explain("dynamodb:PutItem", format!("{}/{}", self.table, record_key(number))))?;
        fail::fail_point!("recorded");
        self.change(|registry| registry.close(number)).await.map(drop)
    }

    /// Claims an object for a batch.
    pub async fn claim(&self, object: &ObjectId, batch: BatchNumber) -> Result<Claim, AwsError> {
        let (pk, sk) = claim_key(object);
        let resource = || format!("{}/{pk}", self.table);
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .item("pk", text(&pk))
            .item("sk", text(&sk))
            .item("batch", AttributeValue::N(batch.to_string()))
            .item("claimed_at", text(jiff::Timestamp::now().to_string()))
            .item("expires_at", expiry(CLAIM_DAYS))
            .condition_expression("attribute_not_exists(pk)")
            .send()
            .await;
        match put.map_err(explain("dynamodb:PutItem", resource())) {
            Ok(_) => return Ok(Claim::Won),
            Err(error) if error.kind == Kind::Condition => {}
            Err(error) => return Err(error),
        }
        let mut holder = self.holder(&pk, &sk).await?;
        for _ in 0..ATTEMPTS {
            if holder.is_some_and(|holder| holder.batch == batch) {
                return Ok(Claim::Won);
            }
            match self.judge(holder).await? {
                Contest::Leave => return Ok(Claim::Left),
                Contest::Duplicate => {
                    // Before it was done, the batch may have released its claim on an object that was gone.
                    let confirmed = self.holder(&pk, &sk).await?;
                    if confirmed == holder {
                        return Ok(Claim::Duplicate);
                    }
                    holder = confirmed;
                }
                Contest::TakeOver => {
                    let update = self
                        .client
                        .update_item()
                        .table_name(&self.table)
                        .key("pk", text(&pk))
                        .key("sk", text(&sk))
                        .update_expression("SET #batch = :batch, claimed_at = :claimed_at, expires_at = :expires_at")
                        .condition_expression("#batch = :holder OR attribute_not_exists(pk)")
                        .expression_attribute_names("#batch", "batch")
                        .expression_attribute_values(":batch", AttributeValue::N(batch.to_string()))
                        .expression_attribute_values(
                            ":holder",
                            AttributeValue::N(holder.map_or(0, |holder| holder.batch).to_string()),
                        )
                        .expression_attribute_values(":claimed_at", text(jiff::Timestamp::now().to_string()))
                        .expression_attribute_values(":expires_at", expiry(CLAIM_DAYS));
                    match update.send().await.map_err(explain("dynamodb:UpdateItem", resource())) {
                        Ok(_) => return Ok(Claim::Won),
                        // Another consumer was faster: judge its claim.
                        Err(error) if error.kind == Kind::Condition => holder = self.holder(&pk, &sk).await?,
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Err(Self::contended("dynamodb:UpdateItem", resource()))
    }

    /// Who has a claim.
    async fn holder(&self, pk: &str, sk: &str) -> Result<Option<Holder>, AwsError> {
        let item = self.get(pk, sk).await?;
        Ok(item.and_then(|item| Some(Holder { batch: number(&item, "batch")?, renewed: item.contains_key("renewed") })))
    }

    /// What a claim means for a batch that wants its object.
    async fn judge(&self, holder: Option<Holder>) -> Result<Contest, AwsError> {
        Ok(match holder {
            Some(Holder { renewed: true, .. }) => Contest::Duplicate,
            Some(Holder { batch, .. }) => contest(self.state_of(batch).await?),
            None => contest(None),
        })
    }

    /// Releases the claim on an object that was gone before it was read: should the same content come back, it is new. Must
    /// happen before the batch is done. May be repeated.
    pub async fn release(&self, object: &ObjectId, batch: BatchNumber) -> Result<(), AwsError> {
        let (pk, sk) = claim_key(object);
        let delete = self
            .client
            .delete_item()
            .table_name(&self.table)
            .key("pk", text(&pk))
            .key("sk", text(&sk))
            .condition_expression("#batch = :batch")
            .expression_attribute_names("#batch", "batch")
            .expression_attribute_values(":batch", AttributeValue::N(batch.to_string()));
        match delete.send().await.map_err(explain("dynamodb:DeleteItem", format!("{}/{pk}", self.table))) {
            Ok(_) => Ok(()),
            // Released before, and perhaps claimed anew.
            Err(error) if error.kind == Kind::Condition => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What a batch that wanted this object would do about it, as things stand.
    pub async fn standing(&self, object: &ObjectId) -> Result<Contest, AwsError> {
        let (pk, sk) = claim_key(object);
        self.judge(self.holder(&pk, &sk).await?).await
    }

    /// Keeps the claim on an object that is finished for as long again, and without need of its batch's record: its content
    /// still lies there, and must not count when both have expired. May be repeated.
    pub async fn renew(&self, object: &ObjectId) -> Result<(), AwsError> {
        let (pk, sk) = claim_key(object);
        let update = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("pk", text(&pk))
            .key("sk", text(&sk))
            .update_expression("SET renewed = :yes, expires_at = :expires_at")
            .condition_expression("attribute_exists(pk)")
            .expression_attribute_values(":yes", AttributeValue::Bool(true))
            .expression_attribute_values(":expires_at", expiry(CLAIM_DAYS))
            .send();
        match update.await.map_err(explain("dynamodb:UpdateItem", format!("{}/{pk}", self.table))) {
            Ok(_) => Ok(()),
            // It expired this moment.
            Err(error) if error.kind == Kind::Condition => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Begins a sweep, unless any consumer began one within the interval. By the consumers' clocks: what depends on it is how
    /// much is listed, and nothing else.
    pub async fn take_sweep_turn(&self, interval: Duration) -> Result<bool, AwsError> {
        let now = epoch_seconds();
        let update = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("pk", text("sweep"))
            .key("sk", text("sweep"))
            .update_expression("SET started_at = :now, #by = :me")
            .condition_expression("attribute_not_exists(started_at) OR started_at <= :due")
            .expression_attribute_names("#by", "by")
            .expression_attribute_values(":now", AttributeValue::N(now.to_string()))
            .expression_attribute_values(":due", AttributeValue::N(now.saturating_sub(interval.as_secs()).to_string()))
            .expression_attribute_values(":me", text(&self.owner));
        match update.send().await.map_err(explain("dynamodb:UpdateItem", format!("{}/sweep", self.table))) {
            Ok(_) => Ok(true),
            Err(error) if error.kind == Kind::Condition => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes down what a sweep came to.
    pub async fn end_sweep(&self, swept: Swept) -> Result<(), AwsError> {
        self.client
            .update_item()
            .table_name(&self.table)
            .key("pk", text("sweep"))
            .key("sk", text("sweep"))
            .update_expression("SET finished_at = :now, #found = :found, left_over = :left_over")
            .expression_attribute_names("#found", "found")
            .expression_attribute_values(":now", AttributeValue::N(epoch_seconds().to_string()))
            .expression_attribute_values(":found", AttributeValue::N(swept.found.to_string()))
            .expression_attribute_values(":left_over", AttributeValue::N(swept.left_over.to_string()))
            .send()
            .await
            .map(drop)
            .map_err(explain("dynamodb:UpdateItem", format!("{}/sweep", self.table)))
    }

    /// When it was last swept, and what came of it.
    pub async fn last_sweep(&self) -> Result<Option<LastSweep>, AwsError> {
        let Some(item) = self.get("sweep", "sweep").await? else { return Ok(None) };
        let time = |name| jiff::Timestamp::from_second(i64::try_from(number(&item, name)?).ok()?).ok();
        let count = |name| number(&item, name).unwrap_or(0);
        Ok(time("started_at").map(|started_at| LastSweep {
            started_at,
            by: text_of(&item, "by").unwrap_or_default(),
            finished_at: time("finished_at"),
            swept: Swept { found: count("found"), left_over: count("left_over") },
        }))
    }

    /// The record that a batch left; `None` before that, and after the record has expired.
    pub async fn record(&self, batch: BatchNumber) -> Result<Option<Record>, AwsError> {
        let Some(item) = self.get(&record_key(batch), "record").await? else { return Ok(None) };
        let parse = || {
            let state = State::from_name(&text_of(&item, "state")?)?;
            let finished_at = text_of(&item, "finished_at")?.parse().ok()?;
            let counts = serde_json::from_str(&text_of(&item, "summary")?).unwrap_or_default();
            Some(Record { batch, state, finished_at, counts })
        };
        Ok(parse())
    }

    /// Which batches have the contents that there were of an object.
    pub async fn claims(&self, bucket: &str, key: &str) -> Result<Vec<ClaimRecord>, AwsError> {
        let pk = claims_key(bucket, key);
        let query = self
            .client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .key_condition_expression("pk = :pk")
            .expression_attribute_values(":pk", text(&pk))
            .into_paginator()
            .items()
            .send();
        let items = query.try_collect().await.map_err(explain("dynamodb:Query", format!("{}/{pk}", self.table)))?;
        let parse = |item: &Item| {
            let sk = text_of(item, "sk")?;
            let (kind, id) = sk.split_once('#')?;
            let version = if kind == "version" { Version::Id(id.to_owned()) } else { Version::ETag(id.to_owned()) };
            let claimed_at = text_of(item, "claimed_at")?.parse().ok()?;
            Some(ClaimRecord { version, batch: number(item, "batch")?, claimed_at })
        };
        Ok(items.iter().filter_map(parse).collect())
    }

    /// Where a batch stands; `None` when nothing is known of it any more.
    pub async fn state_of(&self, number: BatchNumber) -> Result<Option<State>, AwsError> {
        // The registry first: a batch leaves it only after its record is written.
        if let Some(entry) = self.registry().await?.batches.get(&number) {
            return Ok(Some(entry.state));
        }
        let Some(record) = self.get(&record_key(number), "record").await? else { return Ok(None) };
        let state = text_of(&record, "state").and_then(|state| State::from_name(&state));
        // Taken for none, its objects would count again.
        state.map(Some).ok_or_else(|| self.foreign(&record_key(number)))
    }

    /// Changes the registry by compare-and-swap, until the change is made, or turns out to be made already or refused
    /// (`false`).
    async fn change(&self, mut change: impl FnMut(&Registry) -> Change) -> Result<bool, AwsError> {
        for _ in 0..ATTEMPTS {
            let stored = self.stored_registry().await?;
            let next = match change(&stored.registry) {
                Change::To(next) => next,
                Change::Already => return Ok(true),
                Change::Refused => return Ok(false),
            };
            if self.swap(stored.version, &next).await? {
                return Ok(true);
            }
        }
        Err(Self::contended("dynamodb:PutItem", format!("{}/registry", self.table)))
    }

    fn contended(operation: &'static str, resource: String) -> AwsError {
        let cause = format!("other consumers changed it {ATTEMPTS} times meanwhile");
        AwsError { operation, resource, kind: Kind::Throttled, cause }
    }

    fn foreign(&self, pk: &str) -> AwsError {
        AwsError {
            operation: "dynamodb:GetItem",
            resource: format!("{}/{pk}", self.table),
            kind: Kind::Refused,
            cause: "the item is not what this version writes; restore it, or run the version that wrote it".to_owned(),
        }
    }

    async fn stored_registry(&self) -> Result<StoredRegistry, AwsError> {
        let Some(item) = self.get("registry", "registry").await? else { return Ok(StoredRegistry::default()) };
        // What is not understood would be lost by the next swap.
        parse_registry(&item).ok_or_else(|| self.foreign("registry"))
    }

    /// Replaces the registry if it still has the version that was read. Whether it did.
    async fn swap(&self, version: u64, next: &Registry) -> Result<bool, AwsError> {
        let put = self.client.put_item().table_name(&self.table).set_item(Some(registry_item(next, version + 1)));
        let put = if version == 0 {
            put.condition_expression("attribute_not_exists(pk)")
        } else {
            put.condition_expression("version = :version")
                .expression_attribute_values(":version", AttributeValue::N(version.to_string()))
        };
        match put.send().await.map_err(explain("dynamodb:PutItem", format!("{}/registry", self.table))) {
            Ok(_) => Ok(true),
            Err(error) if error.kind == Kind::Condition => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn get(&self, pk: &str, sk: &str) -> Result<Option<Item>, AwsError> {
        let output = self
            .client
            .get_item()
            .table_name(&self.table)
            .key("pk", text(pk))
            .key("sk", text(sk))
            .consistent_read(true)
            .send()
            .await
            .map_err(explain("dynamodb:GetItem", format!("{}/{pk}", self.table)))?;
        Ok(output.item)
    }
}

fn claim_key(object: &ObjectId) -> (String, String) {
    let pk = claims_key(&object.bucket, &object.key);
    let sk = match &object.version {
        Version::Id(id) => format!("version#{id}"),
        Version::ETag(etag) => format!("etag#{etag}"),
    };
    (pk, sk)
}

fn claims_key(bucket: &str, key: &str) -> String {
    format!("object#s3://{bucket}/{key}")
}

fn record_key(number: BatchNumber) -> String {
    format!("batch#{number:012}")
}

fn expiry(days: u64) -> AttributeValue {
    AttributeValue::N((epoch_seconds() + days * 86_400).to_string())
}

fn epoch_seconds() -> u64 {
    jiff::Timestamp::now().as_second().unsigned_abs()
}

/// The registry's item.
pub fn registry_item(registry: &Registry, version: u64) -> Item {
    let number = |value: u64| AttributeValue::N(value.to_string());
    let batches = registry.batches.iter().map(|(batch, entry)| {
        let entry = HashMap::from([
            ("state".to_owned(), text(entry.state.name())),
            ("owner".to_owned(), text(&entry.owner)),
            ("beat".to_owned(), number(entry.beat)),
            ("since".to_owned(), number(entry.since)),
        ]);
        (batch.to_string(), AttributeValue::M(entry))
    });
    HashMap::from([
        ("pk".to_owned(), text("registry")),
        ("sk".to_owned(), text("registry")),
        ("version".to_owned(), number(version)),
        ("last".to_owned(), number(registry.last)),
        ("batches".to_owned(), AttributeValue::M(batches.collect())),
    ])
}

/// Reads the registry's item back; `None` when it is not what this program writes.
pub fn parse_registry(item: &Item) -> Option<StoredRegistry> {
    let parse = |(name, entry): (&String, &AttributeValue)| {
        let entry = entry.as_m().ok()?;
        let state = State::from_name(entry.get("state")?.as_s().ok()?)?;
        let owner = entry.get("owner")?.as_s().ok()?.clone();
        let (beat, since) = (number(entry, "beat")?, number(entry, "since")?);
        Some((name.parse().ok()?, Entry { state, owner, beat, since }))
    };
    let batches = item.get("batches")?.as_m().ok()?.iter().map(parse).collect::<Option<BTreeMap<_, _>>>()?;
    // Both count up, and neither has come to its end.
    let count = |name| number(item, name).filter(|&count| count < u64::MAX);
    let registry = Registry { last: count("last")?, batches };
    let is_whole = registry.batches.keys().all(|number| (1..=registry.last).contains(number));
    is_whole.then_some(StoredRegistry { registry, version: count("version")? })
}
