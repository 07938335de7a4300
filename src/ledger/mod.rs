//! The ledger: one DynamoDB table that says which batch has which object, and where every batch stands.
//!
//! The only module that knows the ledger's items. What is decided is in [`crate::protocol`]; here it is made to hold, each by
//! one conditional write: the registry by compare-and-swap, a claim by a put where nothing is yet. Items (keys `pk`, `sk`):
//!
//! | item | keys | attributes |
//! |---|---|---|
//! | registry | `registry`, `registry` | `version` N, `last` N, `batches` M: number → `state`, `owner`, `beat`, `since` |
//! | claim | `object#s3://BUCKET/KEY`, `version#…` or `etag#…` | `batch` N (none: nobody's), `quarantined_by` N, `size` N, `created_at`, `claimed_at`, `expires_at`, `renewed`, `deaths` N, `times_aside` N, `aside_until` N |
//! | set aside | `aside`, by what it is | `entry` (JSON of [`Aside`]), `since` |
//! | sweep | `sweep`, `sweep` | `started_at` N, `by`, `finished_at` N, `found` N, `left_over` N |
//! | catalogue | `catalogue`, `catalogue` | `songs` N, `users` N, `loaded_at`, `refused`, `refused_at`, `refused_files` |
//! | record | `batch#000000000042`, `record` | `state` (`done`, `abandoned`, `lost`, `aside`), `summary`, `finished_at`, `expires_at` |
//!
//! Claims and records expire (`expires_at`, DynamoDB's time to live), claims after SQS can no longer repeat their message,
//! records after the claims that refer to them. A claim is renewed for as long as its object lies there, and the record of a
//! batch that is set aside does not expire.

pub mod aside;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::builders::UpdateBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, Delete, Select, TransactWriteItem, Update};
use tokio::sync::Mutex;

use crate::aws::error::{AwsError, Kind, aws_error};
use crate::aws::item::{Item, number, text, text_of};
use crate::aws::retry::Backoff;
use crate::counts::Counts;
use crate::ledger::aside::{Aside, AsideKey, What};
use crate::object::{ObjectEvent, ObjectId, Version};
use crate::protocol::{
    BatchNumber, Change, ClaimConflict, DEATHS_BEFORE_ASIDE, Entry, MAX_UNFINISHED, Registry, State,
    pause_before_retry, resolve,
};

/// The ledger's table, without the prefix.
pub const LEDGER_TABLE: &str = "music_streams_ledger";
/// A claim outlives SQS's longest retention, 14 days, so that every repetition of its message meets it.
pub const CLAIM_DAYS: u64 = 15;
/// A claim on an object that still lies there is renewed when it has fewer days left.
const RENEWED_WITHIN_DAYS: u64 = 7;
/// A record outlives every claim of its batch.
const RECORD_DAYS: u64 = 31;
const DAY_SECONDS: u64 = 86_400;
/// How far apart the clocks of consumers may be without one of them being taken for wrong.
const CLOCKS_APART_SECONDS: u64 = 60;
/// Partition of everything that is set aside.
const ASIDE: &str = "aside";
/// Keys of the catalogue's state.
const CATALOGUE: &str = "catalogue";
/// Up to how many things that are set aside are counted.
pub const COUNTED_ASIDE: i32 = 1000;
/// Tries of a conditional write before giving up: each failure means that another consumer got through.
const ATTEMPTS: usize = 100;

/// What a claim came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The object is this batch's.
    Won {
        /// Consumers that fell silent while they had it in a batch.
        deaths: u32,
    },
    /// It is finished already.
    Duplicate,
    /// Another batch is at it.
    Left,
    /// It is set aside for a while yet.
    Aside,
}

/// How an object stands with the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimStatus {
    /// As its claim and the state of the batch that has it say.
    Held(ClaimConflict),
    /// It is set aside, and not to be tried again yet.
    Aside,
}

/// A write to the list of what is set aside.
enum Listing {
    Added(Aside),
    Removed(AsideKey),
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

/// The catalogue that consumers use.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct CatalogueState {
    /// Tracks in it.
    pub songs: u64,
    /// Listeners in it.
    pub users: u64,
    /// Since when it is in use.
    pub loaded_at: Option<jiff::Timestamp>,
    /// A later one was refused: why, and since when.
    pub refused: Option<(String, jiff::Timestamp)>,
    /// Which files those were.
    pub refused_files: Option<String>,
}

/// The record that a batch left.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Record {
    /// Which batch.
    pub batch: BatchNumber,
    /// Done, given up, or set aside.
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
    /// The batch; none when it is nobody's, since its object is set aside or was handed back.
    pub batch: Option<BatchNumber>,
    /// The batch that put it into quarantine last.
    pub quarantined_by: Option<BatchNumber>,
    /// Its size in bytes, as announced, and when it was created.
    pub size: Option<u64>,
    /// See there.
    pub created_at: Option<jiff::Timestamp>,
    /// When the claim expires, in seconds since the Unix epoch.
    pub expires_at: u64,
    /// Since when.
    pub claimed_at: jiff::Timestamp,
    /// Until when the object is set aside.
    pub aside_until: Option<jiff::Timestamp>,
}

/// The registry as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredRegistry {
    /// The registry.
    pub registry: Registry,
    /// Counts the writes; 0 where there is no item.
    pub version: u64,
}

/// What a claim says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Holder {
    /// Who has it; nobody when it was handed back, or its object set aside.
    batch: Option<BatchNumber>,
    /// The object was seen to be finished, and still to lie there.
    renewed: bool,
    /// Consumers that fell silent while they had it.
    deaths: u32,
    times_aside: u32,
    /// Until when the object is set aside, in seconds since the Unix epoch. By the consumers' clocks: what depends on it is how often
    /// it is tried, and nothing else.
    aside_until: Option<u64>,
    expires_at: u64,
}

/// Judges claims by the states of the batches that have them, each of which is read once: the registry is one item, and a
/// thousand contested claims must not be a thousand reads of it. What it knows may be old. A state that was final stays, and
/// of one that was not, the worst that is said is to leave the object for now.
pub struct ClaimJudge<'a> {
    ledger: &'a Ledger,
    registry: Mutex<Option<Registry>>,
    records: Mutex<HashMap<BatchNumber, Option<State>>>,
}

impl ClaimJudge<'_> {
    async fn standing_of(&self, holder: Option<Holder>) -> Result<ClaimStatus, AwsError> {
        Ok(match holder {
            Some(Holder { aside_until: Some(until), batch: None, .. }) if until > epoch_seconds() => ClaimStatus::Aside,
            Some(Holder { renewed: true, .. }) => ClaimStatus::Held(ClaimConflict::Duplicate),
            Some(Holder { batch: Some(batch), .. }) => ClaimStatus::Held(resolve(self.state_of(batch).await?)),
            Some(Holder { batch: None, .. }) | None => ClaimStatus::Held(resolve(None)),
        })
    }

    async fn state_of(&self, batch: BatchNumber) -> Result<Option<State>, AwsError> {
        {
            let mut registry = self.registry.lock().await;
            let known = match registry.take() {
                // A batch that was not there yet.
                Some(known) if known.last >= batch => known,
                _ => self.ledger.registry().await?,
            };
            let entry = registry.insert(known).batches.get(&batch);
            if let Some(entry) = entry {
                return Ok(Some(entry.state));
            }
        }
        // It has left the registry, for ever, and so after its record was written.
        let mut records = self.records.lock().await;
        if let Some(&state) = records.get(&batch) {
            return Ok(state);
        }
        let state = self.ledger.recorded_state(batch).await?;
        records.insert(batch, state);
        Ok(state)
    }
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

    /// A judge of claims, for one attempt or one look.
    pub fn judge(&self) -> ClaimJudge<'_> {
        ClaimJudge { ledger: self, registry: Mutex::default(), records: Mutex::default() }
    }

    /// Reads the registry, strongly consistent.
    pub async fn registry(&self) -> Result<Registry, AwsError> {
        Ok(self.stored_registry().await?.registry)
    }

    /// Takes the next number and lists the batch as open, in one write; `None` while too many batches are not finished.
    pub async fn open(&self) -> Result<Option<BatchNumber>, AwsError> {
        let since = epoch_seconds();
        let mut taken = None;
        self.change(|registry| {
            // The answer to a write that did happen may have been lost.
            let is_mine =
                |number: &BatchNumber| registry.batches.get(number).is_some_and(|entry| entry.owner == self.owner);
            if taken.as_ref().is_some_and(is_mine) {
                return Change::Already;
            }
            match registry.open(&self.owner, since, MAX_UNFINISHED) {
                Some((number, next)) => {
                    taken = Some(number);
                    Change::To(next)
                }
                None => Change::Refused,
            }
        })
        .await
        .map(|is_open| taken.filter(|_| is_open))
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
        // A batch that is set aside has its objects until an operator brings it to its end.
        let expires_at = (state != State::Aside).then(|| expiry(RECORD_DAYS));
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .item("pk", text(record_key(number)))
            .item("sk", text("record"))
            .item("state", text(state.name()))
            .item("summary", text(summary))
            .item("finished_at", text(jiff::Timestamp::now().to_string()));
        let put = match expires_at {
            Some(expires_at) => put.item("expires_at", expires_at),
            None => put,
        };
        put.send().await.map_err(aws_error("dynamodb:PutItem", format!("{}/{}", self.table, record_key(number))))?;
        fail::fail_point!("recorded");
        self.change(|registry| registry.close(number)).await.map(drop)
    }

    /// Claims an object for a batch. `judge` is shared by the claims of an attempt.
    pub async fn claim(
        &self,
        event: &ObjectEvent,
        batch: BatchNumber,
        judge: &ClaimJudge<'_>,
    ) -> Result<Claim, AwsError> {
        let object = &event.object;
        let (pk, sk) = claim_key(object);
        let resource = || format!("{}/{pk}", self.table);
        // Without one, the object is as old as the time at which anybody heard of it.
        let created_at = event.created_at.unwrap_or_else(jiff::Timestamp::now);
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .item("pk", text(&pk))
            .item("sk", text(&sk))
            .item("batch", count(batch))
            .item("size", count(event.size))
            .item("created_at", text(created_at.to_string()))
            .item("claimed_at", text(jiff::Timestamp::now().to_string()))
            .item("expires_at", expiry(CLAIM_DAYS))
            .condition_expression("attribute_not_exists(pk)")
            .send()
            .await;
        match put.map_err(aws_error("dynamodb:PutItem", resource())) {
            Ok(_) => return Ok(Claim::Won { deaths: 0 }),
            Err(error) if error.kind == Kind::Condition => {}
            Err(error) => return Err(error),
        }
        let mut holder = self.holder(&pk, &sk).await?;
        let mut backoff = Backoff::after_a_race();
        for _ in 0..ATTEMPTS {
            if let Some(holder) = holder.filter(|holder| holder.batch == Some(batch)) {
                return Ok(Claim::Won { deaths: holder.deaths });
            }
            let died = match judge.standing_of(holder).await? {
                ClaimStatus::Held(ClaimConflict::Leave) => return Ok(Claim::Left),
                ClaimStatus::Aside => return Ok(Claim::Aside),
                ClaimStatus::Held(ClaimConflict::Duplicate) => {
                    // Before it was done, the batch may have released its claim on an object that was gone.
                    let confirmed = self.holder(&pk, &sk).await?;
                    if confirmed == holder {
                        return Ok(Claim::Duplicate);
                    }
                    holder = confirmed;
                    continue;
                }
                ClaimStatus::Held(ClaimConflict::TakeOver { died }) => died,
            };
            match self.take_over(object, batch, holder, died).await {
                Ok(deaths) => return Ok(Claim::Won { deaths }),
                // Another consumer was faster: judge its claim.
                Err(error) if error.kind == Kind::Condition => {
                    backoff.pause_uncancelled().await;
                    holder = self.holder(&pk, &sk).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(Self::contended("dynamodb:UpdateItem", resource()))
    }

    /// Makes a claim that nobody has any more this batch's, if it still is as judged. What it says of earlier attempts stays;
    /// that the object was set aside does not. Returns how many consumers have died with the object.
    async fn take_over(
        &self,
        object: &ObjectId,
        batch: BatchNumber,
        holder: Option<Holder>,
        died: bool,
    ) -> Result<u32, AwsError> {
        let (pk, sk) = claim_key(object);
        let deaths = holder.map_or(0, |holder| holder.deaths).saturating_add(u32::from(died));
        let set = "SET #batch = :batch, claimed_at = :claimed_at, expires_at = :expires_at, deaths = :deaths";
        let condition = match holder {
            Some(Holder { batch: Some(_), .. }) => "#batch = :holder",
            // Nobody's: free, or not there any more, since it has expired.
            Some(Holder { batch: None, .. }) | None => "attribute_not_exists(#batch)",
        };
        let update = Update::builder()
            .table_name(&self.table)
            .key("pk", text(&pk))
            .key("sk", text(&sk))
            .update_expression(format!("{set} REMOVE aside_until"))
            .condition_expression(condition)
            .expression_attribute_names("#batch", "batch")
            .expression_attribute_values(":batch", count(batch))
            .expression_attribute_values(":claimed_at", text(jiff::Timestamp::now().to_string()))
            .expression_attribute_values(":expires_at", expiry(CLAIM_DAYS))
            .expression_attribute_values(":deaths", count(u64::from(deaths)));
        let update = match holder.and_then(|holder| holder.batch) {
            Some(holder) => update.expression_attribute_values(":holder", count(holder)),
            None => update,
        };
        let resource = format!("{}/{pk}", self.table);
        let is_listed = holder.is_some_and(|holder| holder.aside_until.is_some());
        let listing = is_listed.then(|| AsideKey::of_object(object));
        self.write_with_listing("dynamodb:UpdateItem", resource, update, listing.map(Listing::Removed)).await?;
        Ok(deaths)
    }

    /// Hands a claim of this batch back: nobody's, and with what it says of earlier attempts. May be repeated.
    pub async fn hand_back(&self, object: &ObjectId, batch: BatchNumber) -> Result<(), AwsError> {
        self.free(object, batch, None).await.map(drop)
    }

    /// Sets an object of this batch aside: its claim is nobody's, and nobody takes it over for a while, which is longer each time.
    /// It is listed as set aside until somebody does. May be repeated. Returns until when; `None` when the object is another
    /// batch's by now.
    pub async fn set_aside(
        &self,
        event: &ObjectEvent,
        batch: BatchNumber,
        reason: &str,
    ) -> Result<Option<jiff::Timestamp>, AwsError> {
        let (pk, sk) = claim_key(&event.object);
        let holder = self.holder(&pk, &sk).await?.unwrap_or_default();
        let times = holder.times_aside;
        let until = epoch_seconds().saturating_add(pause_before_retry(times).as_secs());
        let until = i64::try_from(until).ok().and_then(|until| jiff::Timestamp::from_second(until).ok());
        let until = until.unwrap_or(jiff::Timestamp::MAX);
        let ObjectEvent { object, size, created_at } = event.clone();
        let what = What::Object { object, size, created_at, until, times: times.saturating_add(1) };
        let entry = Aside::new(what, batch, reason);
        // Should it be deaths that set it aside, it gets one more try each time.
        let deaths = holder.deaths.min(DEATHS_BEFORE_ASIDE - 1);
        if self.free(&event.object, batch, Some((until, deaths, entry))).await? {
            return Ok(Some(until));
        }
        // Set aside before, when the answer was lost; or this batch was taken for dead, and the object is another's.
        let until = self.holder(&pk, &sk).await?.and_then(|holder| holder.aside_until);
        let until = until.and_then(|until| i64::try_from(until).ok());
        Ok(until.and_then(|until| jiff::Timestamp::from_second(until).ok()))
    }

    async fn free(
        &self,
        object: &ObjectId,
        batch: BatchNumber,
        aside: Option<(jiff::Timestamp, u32, Aside)>,
    ) -> Result<bool, AwsError> {
        let (pk, sk) = claim_key(object);
        let mut update = Update::builder()
            .table_name(&self.table)
            .key("pk", text(&pk))
            .key("sk", text(&sk))
            .condition_expression("#batch = :batch")
            .expression_attribute_names("#batch", "batch")
            .expression_attribute_values(":batch", count(batch))
            .expression_attribute_values(":expires_at", expiry(CLAIM_DAYS));
        update = match &aside {
            None => update.update_expression("SET expires_at = :expires_at REMOVE #batch"),
            Some((until, deaths, _)) => update
                .update_expression(
                    "SET expires_at = :expires_at, aside_until = :until, deaths = :deaths ADD times_aside :one \
                     REMOVE #batch",
                )
                .expression_attribute_values(":deaths", count(u64::from(*deaths)))
                .expression_attribute_values(":until", count(until.as_second().unsigned_abs()))
                .expression_attribute_values(":one", count(1)),
        };
        let resource = format!("{}/{pk}", self.table);
        let listing = aside.map(|(_, _, entry)| Listing::Added(entry));
        // Where it does not hold: done before, and perhaps claimed anew.
        happened(self.write_with_listing("dynamodb:UpdateItem", resource, update, listing).await)
    }

    /// Writes a claim, and what is listed of its object, both or neither.
    async fn write_with_listing(
        &self,
        operation: &'static str,
        resource: String,
        claim: UpdateBuilder,
        listing: Option<Listing>,
    ) -> Result<(), AwsError> {
        let unbuildable = |error: BuildError| AwsError {
            operation,
            resource: resource.clone(),
            kind: Kind::Refused,
            cause: error.to_string(),
        };
        let claim = claim.build().map_err(unbuildable)?;
        let mut writes = vec![TransactWriteItem::builder().update(claim).build()];
        match listing {
            Some(Listing::Added(entry)) => {
                let put = self.listing(&entry).build().map_err(unbuildable)?;
                writes.push(TransactWriteItem::builder().update(put).build());
            }
            Some(Listing::Removed(key)) => {
                let delete = Delete::builder().table_name(&self.table).key("pk", text(ASIDE)).key("sk", text(key.0));
                writes.push(TransactWriteItem::builder().delete(delete.build().map_err(unbuildable)?).build());
            }
            None => {}
        }
        self.transact(operation, resource, writes).await
    }

    /// Carries out writes, all or none.
    async fn transact(
        &self,
        operation: &'static str,
        resource: String,
        writes: Vec<TransactWriteItem>,
    ) -> Result<(), AwsError> {
        let write = self.client.transact_write_items().set_transact_items(Some(writes)).send().await;
        match write {
            Ok(_) => Ok(()),
            Err(error) => {
                // The reasons stand beside the error: a condition that does not hold, or another write at the same moment.
                let reasons = error.as_service_error().and_then(|error| match error {
                    TransactWriteItemsError::TransactionCanceledException(cancelled) => {
                        let codes = cancelled.cancellation_reasons().iter().filter_map(|reason| reason.code());
                        Some(codes.map(str::to_owned).collect::<Vec<_>>())
                    }
                    _ => None,
                });
                let mut error = aws_error(operation, resource)(error);
                if let Some(codes) = reasons {
                    let has = |code: &str| codes.iter().any(|it| it == code);
                    error.kind = if has("ConditionalCheckFailed") {
                        Kind::Condition
                    } else if has("TransactionConflict") {
                        Kind::Transient
                    } else if has("ThrottlingError") || has("ProvisionedThroughputExceeded") {
                        Kind::Throttled
                    } else {
                        Kind::Refused
                    };
                }
                Err(error)
            }
        }
    }

    /// Who has a claim. One that is not what this program writes is an error: taken for none, its object could count again.
    async fn holder(&self, pk: &str, sk: &str) -> Result<Option<Holder>, AwsError> {
        let Some(item) = self.get(pk, sk).await? else { return Ok(None) };
        let small = |name| number(&item, name).map_or(0, |count| u32::try_from(count).unwrap_or(u32::MAX));
        let batch = number(&item, "batch");
        // An attribute that is there and is no number, or nothing that is known: somebody else wrote it.
        if (batch.is_none() && item.contains_key("batch")) || !item.contains_key("expires_at") {
            return Err(self.foreign(pk));
        }
        Ok(Some(Holder {
            batch,
            renewed: item.contains_key("renewed"),
            deaths: small("deaths"),
            times_aside: small("times_aside"),
            aside_until: number(&item, "aside_until"),
            expires_at: number(&item, "expires_at").unwrap_or(0),
        }))
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
            .expression_attribute_values(":batch", count(batch));
        // Where it does not hold: released before, and perhaps claimed anew.
        happened(delete.send().await.map_err(aws_error("dynamodb:DeleteItem", format!("{}/{pk}", self.table))))
            .map(drop)
    }

    /// Releases the claim on an object that went to quarantine: nothing of it was counted, and should it come back, it is judged anew.
    /// The claim goes on to say who had it. Must happen before the batch is done, and after the object was moved. May be repeated.
    pub async fn release_quarantined(&self, object: &ObjectId, batch: BatchNumber) -> Result<(), AwsError> {
        let (pk, sk) = claim_key(object);
        let update = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("pk", text(&pk))
            .key("sk", text(&sk))
            .update_expression("SET quarantined_by = :batch REMOVE #batch")
            .condition_expression("#batch = :batch")
            .expression_attribute_names("#batch", "batch")
            .expression_attribute_values(":batch", count(batch));
        // Where it does not hold: released before, and perhaps claimed anew.
        happened(update.send().await.map_err(aws_error("dynamodb:UpdateItem", format!("{}/{pk}", self.table))))
            .map(drop)
    }

    /// Whether the claim on an object is this batch's.
    pub async fn is_held_by(&self, object: &ObjectId, batch: BatchNumber) -> Result<bool, AwsError> {
        let (pk, sk) = claim_key(object);
        Ok(self.holder(&pk, &sk).await?.is_some_and(|holder| holder.batch == Some(batch)))
    }

    /// The batch that had another content of the same name and size, if any had: a repetition that nobody meant, more often than not.
    pub async fn had_its_like(&self, event: &ObjectEvent) -> Result<Option<BatchNumber>, AwsError> {
        let ObjectId { bucket, key, version } = &event.object;
        let claims = self.some_claims(bucket, key).await?;
        let is_like = |claim: &&ClaimRecord| claim.version != *version && claim.size == Some(event.size);
        Ok(claims.iter().filter(is_like).filter_map(|claim| claim.batch).next_back())
    }

    /// What a batch that wanted this object would do about it, as things stand. A claim that nobody may take over is kept from
    /// expiring, as the object still lies there: it must not count again, nor anew while its batch is not finished.
    pub async fn look_at(&self, object: &ObjectId, judge: &ClaimJudge<'_>) -> Result<ClaimStatus, AwsError> {
        let (pk, sk) = claim_key(object);
        let holder = self.holder(&pk, &sk).await?;
        let standing = judge.standing_of(holder).await?;
        if let (Some(holder), ClaimStatus::Held(resolve @ (ClaimConflict::Duplicate | ClaimConflict::Leave))) =
            (holder, standing)
            && is_near(holder.expires_at)
        {
            self.renew(object, holder, resolve == ClaimConflict::Duplicate).await?;
        }
        Ok(standing)
    }

    /// Whether an object that nobody has was overwritten by one that a batch had: with versioning it shows again when that one is put
    /// away. What says so is kept from expiring for as long as the object lies there.
    pub async fn is_history(&self, event: &ObjectEvent) -> Result<bool, AwsError> {
        let ObjectId { bucket, key, version } = &event.object;
        let Some(created_at) = event.created_at else { return Ok(false) };
        let claims = self.some_claims(bucket, key).await?;
        // One that a batch had before is what it is, and without versioning nothing shows again.
        if claims.iter().any(|claim| claim.version == *version) {
            return Ok(false);
        }
        let had_by = |claim: &ClaimRecord| claim.batch.or(claim.quarantined_by);
        // A list tells when to the second.
        let is_later = |claim: &ClaimRecord| {
            matches!(claim.version, Version::Id(_))
                && had_by(claim).is_some()
                && claim.created_at.is_some_and(|at| at.as_second() > created_at.as_second())
        };
        let Some(latest) = claims.into_iter().filter(is_later).max_by_key(|claim| claim.created_at) else {
            return Ok(false);
        };
        if let (Some(batch), true) = (had_by(&latest), is_near(latest.expires_at)) {
            let object = ObjectId { bucket: bucket.clone(), key: key.clone(), version: latest.version };
            self.renew_own(&object, batch).await?;
        }
        Ok(true)
    }

    /// Keeps the claims of a batch that is not finished for as long again. May be repeated.
    pub async fn renew_own(&self, object: &ObjectId, batch: BatchNumber) -> Result<(), AwsError> {
        let holder = Holder { batch: Some(batch), ..Holder::default() };
        self.renew(object, holder, false).await
    }

    /// Keeps a claim for as long again, if it still is its holder's; of a finished object without need of its batch's record.
    async fn renew(&self, object: &ObjectId, holder: Holder, is_finished: bool) -> Result<(), AwsError> {
        let (pk, sk) = claim_key(object);
        let Some(batch) = holder.batch else { return Ok(()) };
        let update = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("pk", text(&pk))
            .key("sk", text(&sk))
            .condition_expression(if is_finished {
                "#batch = :holder"
            } else {
                "#batch = :holder OR (attribute_not_exists(#batch) AND quarantined_by = :holder)"
            })
            .expression_attribute_names("#batch", "batch")
            .expression_attribute_values(":holder", count(batch))
            .expression_attribute_values(":expires_at", expiry(CLAIM_DAYS));
        let update = if is_finished {
            update
                .update_expression("SET renewed = :yes, expires_at = :expires_at")
                .expression_attribute_values(":yes", AttributeValue::Bool(true))
        } else {
            update.update_expression("SET expires_at = :expires_at")
        };
        // Where it does not hold: it expired this moment, or is another batch's by now.
        happened(update.send().await.map_err(aws_error("dynamodb:UpdateItem", format!("{}/{pk}", self.table))))
            .map(drop)
    }

    // ------------------------------------------------------------------------------------------ set aside

    /// Lists something as set aside; what is listed before is brought up to date. May be repeated.
    pub async fn list_aside(&self, entry: &Aside) -> Result<(), AwsError> {
        let update = self.listing(entry).build().ok();
        let resource = format!("{}/{ASIDE}", self.table);
        let Some(update) = update else { return Err(self.foreign(ASIDE)) };
        let write = TransactWriteItem::builder().update(update).build();
        self.transact("dynamodb:UpdateItem", resource, vec![write]).await
    }

    fn listing(&self, entry: &Aside) -> UpdateBuilder {
        Update::builder()
            .table_name(&self.table)
            .key("pk", text(ASIDE))
            .key("sk", text(entry.key().0))
            .update_expression("SET entry = :entry, since = if_not_exists(since, :since)")
            .expression_attribute_values(":entry", text(serde_json::json!(entry).to_string()))
            .expression_attribute_values(":since", text(jiff::Timestamp::now().to_string()))
    }

    /// Takes something off the list that came back, unless it was set aside anew since it was seen there. May be repeated.
    pub async fn unlist_aside(&self, entry: &Aside) -> Result<(), AwsError> {
        let key = entry.key();
        let delete = self.client.delete_item().table_name(&self.table).key("pk", text(ASIDE)).key("sk", text(key.0));
        let delete = delete.condition_expression("entry = :entry OR attribute_not_exists(pk)");
        let delete = delete.expression_attribute_values(":entry", text(serde_json::json!(entry).to_string()));
        happened(delete.send().await.map_err(aws_error("dynamodb:DeleteItem", format!("{}/{ASIDE}", self.table))))
            .map(drop)
    }

    /// Everything that is set aside, `most` of it, with since when; and whether there is more.
    pub async fn aside(&self, most: usize) -> Result<(Vec<(jiff::Timestamp, Aside)>, bool), AwsError> {
        let resource = || format!("{}/{ASIDE}", self.table);
        let mut items = self
            .client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .key_condition_expression("pk = :pk")
            .expression_attribute_values(":pk", text(ASIDE))
            .into_paginator()
            .items()
            .send();
        let mut found = Vec::new();
        while let Some(item) = items.try_next().await.map_err(aws_error("dynamodb:Query", resource()))? {
            if found.len() == most {
                return Ok((found, true));
            }
            let parse = || {
                let entry = serde_json::from_str(&text_of(&item, "entry")?).ok()?;
                Some((text_of(&item, "since")?.parse().ok()?, entry))
            };
            found.push(parse().ok_or_else(|| self.foreign(ASIDE))?);
        }
        Ok((found, false))
    }

    /// How many things are set aside, up to [`COUNTED_ASIDE`].
    pub async fn count_aside(&self) -> Result<u64, AwsError> {
        let query = self
            .client
            .query()
            .table_name(&self.table)
            .key_condition_expression("pk = :pk")
            .expression_attribute_values(":pk", text(ASIDE))
            .select(Select::Count)
            .limit(COUNTED_ASIDE);
        let output = query.send().await.map_err(aws_error("dynamodb:Query", format!("{}/{ASIDE}", self.table)))?;
        Ok(u64::try_from(output.count).unwrap_or(0))
    }

    /// Lets an object that is set aside be taken up by the next batch that meets it. `false` when it is not set aside any more.
    pub async fn end_pause(&self, object: &ObjectId) -> Result<bool, AwsError> {
        let (pk, sk) = claim_key(object);
        let update = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("pk", text(&pk))
            .key("sk", text(&sk))
            .update_expression("SET aside_until = :now, times_aside = :none, deaths = :none")
            .condition_expression("attribute_exists(aside_until)")
            .expression_attribute_values(":now", count(epoch_seconds()))
            .expression_attribute_values(":none", count(0));
        happened(update.send().await.map_err(aws_error("dynamodb:UpdateItem", format!("{}/{pk}", self.table))))
    }

    /// Whether everything that is done to the ledger is allowed.
    pub async fn check(&self) -> Result<(), AwsError> {
        let key = format!("check#{}", self.owner);
        let resource = || format!("{}/{key}", self.table);
        let put = self.client.put_item().table_name(&self.table).item("pk", text(&key)).item("sk", text("check"));
        put.item("expires_at", expiry(1)).send().await.map_err(aws_error("dynamodb:PutItem", resource()))?;
        let update = self.client.update_item().table_name(&self.table).key("pk", text(&key)).key("sk", text("check"));
        let update = update.update_expression("SET expires_at = :soon").expression_attribute_values(":soon", expiry(1));
        update.send().await.map_err(aws_error("dynamodb:UpdateItem", resource()))?;
        self.get(&key, "check").await?;
        let delete = self.client.delete_item().table_name(&self.table).key("pk", text(&key)).key("sk", text("check"));
        delete.send().await.map_err(aws_error("dynamodb:DeleteItem", resource()))?;
        self.count_aside().await.map(drop)
    }

    // ------------------------------------------------------------------------------------------ sweeps

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
            // A time that is yet to come is a clock that was wrong.
            .condition_expression("attribute_not_exists(started_at) OR started_at <= :due OR started_at > :soon")
            .expression_attribute_names("#by", "by")
            .expression_attribute_values(":now", AttributeValue::N(now.to_string()))
            .expression_attribute_values(":due", count(now.saturating_sub(interval.as_secs())))
            .expression_attribute_values(":soon", count(now.saturating_add(CLOCKS_APART_SECONDS)))
            .expression_attribute_values(":me", text(&self.owner));
        happened(update.send().await.map_err(aws_error("dynamodb:UpdateItem", format!("{}/sweep", self.table))))
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
            .map_err(aws_error("dynamodb:UpdateItem", format!("{}/sweep", self.table)))
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

    // --------------------------------------------------------------------------------------- catalogue

    /// Writes down which catalogue is in use.
    pub async fn accept_catalogue(&self, state: &CatalogueState) -> Result<(), AwsError> {
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .item("pk", text(CATALOGUE))
            .item("sk", text(CATALOGUE))
            .item("songs", count(state.songs))
            .item("users", count(state.users))
            .item("loaded_at", text(jiff::Timestamp::now().to_string()));
        put.send().await.map(drop).map_err(aws_error("dynamodb:PutItem", format!("{}/{CATALOGUE}", self.table)))
    }

    /// Writes down why a later one is not in use.
    pub async fn refuse_catalogue(&self, reason: &str, files: &str) -> Result<(), AwsError> {
        let update = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("pk", text(CATALOGUE))
            .key("sk", text(CATALOGUE))
            .update_expression("SET refused = :reason, refused_at = :now, refused_files = :files")
            .expression_attribute_values(":files", text(files))
            .expression_attribute_values(":reason", text(reason))
            .expression_attribute_values(":now", text(jiff::Timestamp::now().to_string()));
        update.send().await.map(drop).map_err(aws_error("dynamodb:UpdateItem", format!("{}/{CATALOGUE}", self.table)))
    }

    /// The catalogue that was in use last; `None` before the first.
    pub async fn catalogue(&self) -> Result<Option<CatalogueState>, AwsError> {
        let Some(item) = self.get(CATALOGUE, CATALOGUE).await? else { return Ok(None) };
        let time = |name| text_of(&item, name).and_then(|time| time.parse().ok());
        Ok(Some(CatalogueState {
            songs: number(&item, "songs").unwrap_or(0),
            users: number(&item, "users").unwrap_or(0),
            loaded_at: time("loaded_at"),
            refused: text_of(&item, "refused").zip(time("refused_at")),
            refused_files: text_of(&item, "refused_files"),
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

    fn query_of(&self, pk: &str) -> QueryFluentBuilder {
        let query = self.client.query().table_name(&self.table).consistent_read(true);
        query.key_condition_expression("pk = :pk").expression_attribute_values(":pk", text(pk))
    }

    /// Which batches have some of the contents that there were of an object: a name that is used all the time has very many.
    async fn some_claims(&self, bucket: &str, key: &str) -> Result<Vec<ClaimRecord>, AwsError> {
        const SOME: i32 = 50;
        let pk = claims_key(bucket, key);
        let query = self.query_of(&pk).limit(SOME).send().await;
        let output = query.map_err(aws_error("dynamodb:Query", format!("{}/{pk}", self.table)))?;
        Ok(output.items().iter().filter_map(claim_record).collect())
    }

    /// Which batches have the contents that there were of an object.
    pub async fn claims(&self, bucket: &str, key: &str) -> Result<Vec<ClaimRecord>, AwsError> {
        let pk = claims_key(bucket, key);
        let query = self.query_of(&pk).into_paginator().items().send();
        let items = query.try_collect().await.map_err(aws_error("dynamodb:Query", format!("{}/{pk}", self.table)))?;
        Ok(items.iter().filter_map(claim_record).collect())
    }

    /// Where a batch stands; `None` when nothing is known of it any more.
    pub async fn state_of(&self, number: BatchNumber) -> Result<Option<State>, AwsError> {
        // The registry first: a batch leaves it only after its record is written.
        if let Some(entry) = self.registry().await?.batches.get(&number) {
            return Ok(Some(entry.state));
        }
        self.recorded_state(number).await
    }

    async fn recorded_state(&self, number: BatchNumber) -> Result<Option<State>, AwsError> {
        let Some(record) = self.get(&record_key(number), "record").await? else { return Ok(None) };
        let state = text_of(&record, "state").and_then(|state| State::from_name(&state));
        // Taken for none, its objects would count again.
        state.map(Some).ok_or_else(|| self.foreign(&record_key(number)))
    }

    /// Changes the registry by compare-and-swap, until the change is made, or turns out to be made already or refused
    /// (`false`).
    async fn change(&self, mut change: impl FnMut(&Registry) -> Change) -> Result<bool, AwsError> {
        let mut backoff = Backoff::after_a_race();
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
            // Who lost a race runs the next one apart from the others.
            backoff.pause_uncancelled().await;
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
        happened(put.send().await.map_err(aws_error("dynamodb:PutItem", format!("{}/registry", self.table))))
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
            .map_err(aws_error("dynamodb:GetItem", format!("{}/{pk}", self.table)))?;
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

/// Whether a conditional write happened, or its condition did not hold.
fn happened<T>(written: Result<T, AwsError>) -> Result<bool, AwsError> {
    match written {
        Ok(_) => Ok(true),
        Err(error) if error.kind == Kind::Condition => Ok(false),
        Err(error) => Err(error),
    }
}

fn claim_record(item: &Item) -> Option<ClaimRecord> {
    let sk = text_of(item, "sk")?;
    let (kind, id) = sk.split_once('#')?;
    let version = if kind == "version" { Version::Id(id.to_owned()) } else { Version::ETag(id.to_owned()) };
    let claimed_at = text_of(item, "claimed_at")?.parse().ok()?;
    let until = number(item, "aside_until").and_then(|until| i64::try_from(until).ok());
    let aside_until = until.and_then(|until| jiff::Timestamp::from_second(until).ok());
    let (batch, quarantined_by) = (number(item, "batch"), number(item, "quarantined_by"));
    let (size, expires_at) = (number(item, "size"), number(item, "expires_at").unwrap_or(0));
    let created_at = text_of(item, "created_at").and_then(|time| time.parse().ok());
    Some(ClaimRecord { version, batch, quarantined_by, size, created_at, expires_at, claimed_at, aside_until })
}

fn claims_key(bucket: &str, key: &str) -> String {
    format!("object#s3://{bucket}/{key}")
}

fn record_key(number: BatchNumber) -> String {
    format!("batch#{number:012}")
}

fn expiry(days: u64) -> AttributeValue {
    count(epoch_seconds() + days * DAY_SECONDS)
}

/// Whether a claim expires soon enough to be renewed.
fn is_near(expires_at: u64) -> bool {
    expires_at < epoch_seconds() + RENEWED_WITHIN_DAYS * DAY_SECONDS
}

fn count(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
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
