//! Claims: each ties one content of an object to the batch that counts it.
//!
//! A claim is made by an insert on condition that there is none, many in a request and each with an outcome of its own;
//! it is taken over by an update on condition of its present holder.
//!
//! | file | content |
//! |---|---|
//! | `mod.rs` | making, taking over and renewing claims |
//! | [`judge`] | the status of a claim, by the state of the batch that holds it |
//! | [`release`] | handing back, setting aside and releasing claims |
//! | [`versions`] | the claims on all contents of one key |
//!
//! Covered by `tests/pipeline` and `tests/chaos`; [`crate::protocol`] makes the decisions, which `tests/model`
//! explores.

pub mod judge;
pub mod release;
pub mod versions;

use aws_sdk_dynamodb::types::builders::UpdateBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, Update};

use crate::aws::bulk::Outcomes;
use crate::aws::error::AwsError;
use crate::aws::item::{number, text};
use crate::aws::retry::Backoff;
use crate::aws::statements::{Expected, ItemWrite, MAX_STATEMENTS, Written, write_items};
use crate::ledger::aside::AsideKey;
use crate::ledger::aside_list::ListChange;
use crate::ledger::claims::judge::ClaimJudge;
use crate::ledger::{ATTEMPTS, CLAIM_DAYS, DAY_SECONDS, Ledger, UPDATE, count, epoch_seconds, expiry, now_text};
use crate::object::{ObjectEvent, ObjectId, Version};
use crate::protocol::{BatchNumber, ClaimConflict};

/// Claims that are made in one request. None is larger than 4 KiB.
pub const CLAIMS_PER_REQUEST: usize = MAX_STATEMENTS;
/// The claim on an object that remains under the incoming prefix is renewed when it has fewer days left.
const RENEWED_WITHIN_DAYS: u64 = 7;

/// The outcome of an attempt to claim an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The batch holds the claim.
    Won {
        /// Consumers that fell silent while they had the object in a batch.
        deaths: u32,
    },
    /// The object is finished already.
    Duplicate,
    /// Another batch holds the claim and is unfinished.
    Left,
    /// The object is set aside for now.
    Aside,
}

/// The status of an object for a batch that wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimStatus {
    /// It follows from the claim and the state of the batch that holds it.
    Held(ClaimConflict),
    /// The object is set aside, and not yet to be tried again.
    Aside,
}

/// The part of a claim that decisions depend on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Holder {
    /// The batch that holds the claim; `None` after it was handed back or its object set aside.
    batch: Option<BatchNumber>,
    /// The object is finished, and remained under the incoming prefix when the claim was renewed.
    renewed: bool,
    /// Consumers that fell silent while they had the object in a batch.
    deaths: u32,
    times_aside: u32,
    /// The time until which the object is set aside, in seconds since the Unix epoch. The consumers' clocks decide;
    /// they influence only how often the object is tried.
    aside_until: Option<u64>,
    expires_at: u64,
}

impl Ledger {
    /// Makes the claims of a batch on objects, at most [`CLAIMS_PER_REQUEST`]: each one that there is none of yet. May
    /// be repeated. An object whose claim is there already is to be [contested](Ledger::contest), even if it may be the
    /// batch's own.
    pub async fn make_claims(
        &self,
        events: &[&ObjectEvent],
        batch: BatchNumber,
    ) -> Result<Outcomes<Written>, AwsError> {
        let writes: Vec<ItemWrite> = events.iter().map(|event| self.new_claim(event, batch)).collect();
        let written = write_items(&self.client, &writes.iter().collect::<Vec<_>>()).await;
        fail::fail_point!("claims written");
        written
    }

    fn new_claim(&self, event: &ObjectEvent, batch: BatchNumber) -> ItemWrite {
        let (pk, sk) = claim_key(&event.object);
        // An event without a time of creation counts from the time at which it is processed.
        let created_at = event.created_at.unwrap_or_else(jiff::Timestamp::now);
        let attributes = vec![
            ("batch", count(batch)),
            ("size", count(event.size)),
            ("created_at", text(created_at.to_string())),
            ("claimed_at", now_text()),
            ("expires_at", expiry(CLAIM_DAYS)),
        ];
        ItemWrite {
            table: self.table.clone(),
            name: pk.clone(),
            key: vec![("pk", text(pk)), ("sk", text(sk))],
            attributes,
            removed: Vec::new(),
            expected: Expected::Absent,
        }
    }

    /// Judges the claim that was there before, and takes it over if it is free. It is the batch's own if the answer to
    /// an earlier request was lost. The claims of one attempt share a `judge`.
    pub async fn contest(
        &self,
        event: &ObjectEvent,
        batch: BatchNumber,
        judge: &ClaimJudge<'_>,
    ) -> Result<Claim, AwsError> {
        let object = &event.object;
        let mut holder = self.holder(object).await?;
        let mut backoff = Backoff::for_contention();
        for _ in 0..ATTEMPTS {
            if let Some(holder) = holder.filter(|holder| holder.batch == Some(batch)) {
                return Ok(Claim::Won { deaths: holder.deaths });
            }
            let died = match judge.status(holder).await? {
                ClaimStatus::Held(ClaimConflict::Leave) => return Ok(Claim::Left),
                ClaimStatus::Aside => return Ok(Claim::Aside),
                ClaimStatus::Held(ClaimConflict::Duplicate) => {
                    // Before it was done, the batch may have released its claim on an object that was gone.
                    let confirmed = self.holder(object).await?;
                    if confirmed == holder {
                        return Ok(Claim::Duplicate);
                    }
                    holder = confirmed;
                    continue;
                }
                ClaimStatus::Held(ClaimConflict::TakeOver { died }) => died,
            };
            if let Some(deaths) = self.take_over(object, batch, holder, died).await? {
                return Ok(Claim::Won { deaths });
            }
            // Another consumer was faster: judge its claim.
            backoff.pause_uncancelled().await;
            holder = self.holder(object).await?;
        }
        Err(self.contended(UPDATE, &claim_key(object).0))
    }

    /// Makes a claim that no batch holds any more this batch's, if it still is as judged. Its counts of earlier
    /// attempts stay; its pause and its place in the list of what is set aside do not. Returns the number of consumers
    /// that have died with the object, or `None` if the claim has changed.
    async fn take_over(
        &self,
        object: &ObjectId,
        batch: BatchNumber,
        holder: Option<Holder>,
        died: bool,
    ) -> Result<Option<u32>, AwsError> {
        let deaths = holder.map_or(0, |holder| holder.deaths).saturating_add(u32::from(died));
        let set = "SET #batch = :batch, claimed_at = :claimed_at, expires_at = :expires_at, deaths = :deaths";
        let update = self
            .claim_update(object, batch)
            .update_expression(format!("{set} REMOVE aside_until"))
            .expression_attribute_values(":claimed_at", now_text())
            .expression_attribute_values(":deaths", count(u64::from(deaths)));
        let update = match holder.and_then(|holder| holder.batch) {
            Some(holder) => {
                update.condition_expression("#batch = :holder").expression_attribute_values(":holder", count(holder))
            }
            // Unassigned, or absent because it has expired.
            None => update.condition_expression("attribute_not_exists(#batch)"),
        };
        let is_listed = holder.is_some_and(|holder| holder.aside_until.is_some());
        let change = is_listed.then(|| ListChange::Remove(AsideKey::of_object(object)));
        let (pk, _) = claim_key(object);
        Ok(self.update_claim(&pk, update, change).await?.then_some(deaths))
    }

    /// Begins an update, within a transaction, of the claim on an object: `#batch` is the attribute, `:batch` the
    /// batch, and `:expires_at` a new time of expiry, all of which its expressions have to use.
    fn claim_update(&self, object: &ObjectId, batch: BatchNumber) -> UpdateBuilder {
        let (pk, sk) = claim_key(object);
        Update::builder()
            .table_name(&self.table)
            .key("pk", text(pk))
            .key("sk", text(sk))
            .expression_attribute_names("#batch", "batch")
            .expression_attribute_values(":batch", count(batch))
            .expression_attribute_values(":expires_at", expiry(CLAIM_DAYS))
    }

    /// Reads the claim on an object; `None` when there is none. A claim that this program did not write is an error:
    /// taken for none, its object could count again.
    async fn holder(&self, object: &ObjectId) -> Result<Option<Holder>, AwsError> {
        let (pk, sk) = claim_key(object);
        let Some(item) = self.get(&pk, &sk).await? else { return Ok(None) };
        let small = |name| number(&item, name).map_or(0, |count| u32::try_from(count).unwrap_or(u32::MAX));
        let batch = number(&item, "batch");
        if (batch.is_none() && item.contains_key("batch")) || !item.contains_key("expires_at") {
            return Err(self.unrecognized(&pk));
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

    /// Returns true if this batch holds the claim on an object.
    pub async fn is_held_by(&self, object: &ObjectId, batch: BatchNumber) -> Result<bool, AwsError> {
        Ok(self.holder(object).await?.is_some_and(|holder| holder.batch == Some(batch)))
    }

    /// Returns the present status of an object for a batch that wanted it. A claim that may not be taken over is kept
    /// from expiring, because the object remains: it must not be counted again, nor by a new batch while its own is
    /// unfinished.
    pub async fn claim_status(&self, object: &ObjectId, judge: &ClaimJudge<'_>) -> Result<ClaimStatus, AwsError> {
        let holder = self.holder(object).await?;
        let status = judge.status(holder).await?;
        if let (Some(holder), ClaimStatus::Held(conflict @ (ClaimConflict::Duplicate | ClaimConflict::Leave))) =
            (holder, status)
            && expires_soon(holder.expires_at)
            && let Some(batch) = holder.batch
        {
            self.renew(object, batch, conflict == ClaimConflict::Duplicate).await?;
        }
        Ok(status)
    }

    /// Extends the claim of an unfinished batch by its full lifetime. May be repeated.
    pub async fn renew_claim(&self, object: &ObjectId, batch: BatchNumber) -> Result<(), AwsError> {
        self.renew(object, batch, false).await
    }

    /// Extends a claim by its full lifetime if the batch still holds it. The claim on a finished object is marked, so
    /// that it no longer depends on its batch's record.
    async fn renew(&self, object: &ObjectId, batch: BatchNumber, is_finished: bool) -> Result<(), AwsError> {
        let (pk, sk) = claim_key(object);
        let update = self
            .update(&pk, &sk)
            .expression_attribute_names("#batch", "batch")
            .expression_attribute_values(":holder", count(batch))
            .expression_attribute_values(":expires_at", expiry(CLAIM_DAYS));
        let update = if is_finished {
            update
                .condition_expression("#batch = :holder")
                .update_expression("SET renewed = :yes, expires_at = :expires_at")
                .expression_attribute_values(":yes", AttributeValue::Bool(true))
        } else {
            update
                .condition_expression("#batch = :holder OR (attribute_not_exists(#batch) AND quarantined_by = :holder)")
                .update_expression("SET expires_at = :expires_at")
        };
        // The condition fails if the claim expired this moment, or belongs to another batch by now.
        self.conditional(UPDATE, &pk, update.send()).await.map(drop)
    }
}

/// Partition and sort key of the claim on one content.
fn claim_key(object: &ObjectId) -> (String, String) {
    let pk = claims_key(&object.bucket, &object.key);
    let sk = match &object.version {
        Version::Id(id) => format!("version#{id}"),
        Version::ETag(etag) => format!("etag#{etag}"),
    };
    (pk, sk)
}

/// Partition key of the claims on all contents of a key.
fn claims_key(bucket: &str, key: &str) -> String {
    format!("object#s3://{bucket}/{key}")
}

/// Returns true if a claim expires soon enough to be renewed.
fn expires_soon(expires_at: u64) -> bool {
    expires_at < epoch_seconds() + RENEWED_WITHIN_DAYS * DAY_SECONDS
}
