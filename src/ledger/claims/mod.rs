//! Claims: which batch has which content of an object.
//!
//! A claim is made by a put where nothing is yet, and taken over by an update on condition of its present holder.
//!
//! | file | content |
//! |---|---|
//! | `mod.rs` | making, taking over and renewing claims |
//! | [`judge`] | the status of a claim, by the state of the batch that holds it |
//! | [`release`] | handing back, setting aside and releasing claims |
//! | [`versions`] | the claims on all contents of one key |
//!
//! Covered by `tests/pipeline` and `tests/chaos`; the decisions are those of [`crate::protocol`], which `tests/model` explores.

pub mod judge;
pub mod release;
pub mod versions;

use aws_sdk_dynamodb::types::{AttributeValue, Update};

use crate::aws::error::{AwsError, Kind, aws_error};
use crate::aws::item::{number, text};
use crate::aws::retry::Backoff;
use crate::ledger::aside::AsideKey;
use crate::ledger::aside_list::Listing;
use crate::ledger::claims::judge::ClaimJudge;
use crate::ledger::{ATTEMPTS, CLAIM_DAYS, DAY_SECONDS, Ledger, count, epoch_seconds, expiry, happened};
use crate::object::{ObjectEvent, ObjectId, Version};
use crate::protocol::{BatchNumber, ClaimConflict};

/// A claim on an object that still lies there is renewed when it has fewer days left.
const RENEWED_WITHIN_DAYS: u64 = 7;

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

/// What a claim says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::ledger) struct Holder {
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

impl Ledger {
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

    /// Who has a claim. One that is not what this program writes is an error: taken for none, its object could count again.
    pub(in crate::ledger) async fn holder(&self, pk: &str, sk: &str) -> Result<Option<Holder>, AwsError> {
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

    /// Whether the claim on an object is this batch's.
    pub async fn is_held_by(&self, object: &ObjectId, batch: BatchNumber) -> Result<bool, AwsError> {
        let (pk, sk) = claim_key(object);
        Ok(self.holder(&pk, &sk).await?.is_some_and(|holder| holder.batch == Some(batch)))
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

    /// Keeps the claims of a batch that is not finished for as long again. May be repeated.
    pub async fn renew_own(&self, object: &ObjectId, batch: BatchNumber) -> Result<(), AwsError> {
        let holder = Holder { batch: Some(batch), ..Holder::default() };
        self.renew(object, holder, false).await
    }

    /// Keeps a claim for as long again, if it still is its holder's; of a finished object without need of its batch's record.
    pub(in crate::ledger) async fn renew(
        &self,
        object: &ObjectId,
        holder: Holder,
        is_finished: bool,
    ) -> Result<(), AwsError> {
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
}

pub(in crate::ledger) fn claim_key(object: &ObjectId) -> (String, String) {
    let pk = claims_key(&object.bucket, &object.key);
    let sk = match &object.version {
        Version::Id(id) => format!("version#{id}"),
        Version::ETag(etag) => format!("etag#{etag}"),
    };
    (pk, sk)
}

pub(in crate::ledger) fn claims_key(bucket: &str, key: &str) -> String {
    format!("object#s3://{bucket}/{key}")
}

/// Whether a claim expires soon enough to be renewed.
pub(in crate::ledger) fn is_near(expires_at: u64) -> bool {
    expires_at < epoch_seconds() + RENEWED_WITHIN_DAYS * DAY_SECONDS
}
