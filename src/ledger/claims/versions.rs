//! The claims on all contents of one key.

use crate::aws::error::{AwsError, aws_error};
use crate::aws::item::{Item, number, text_of};
use crate::ledger::Ledger;
use crate::ledger::claims::{claims_key, is_near};
use crate::object::{ObjectEvent, ObjectId, Version};
use crate::protocol::BatchNumber;

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

impl Ledger {
    /// The batch that had another content of the same name and size, if any had: a repetition that nobody meant, more often than not.
    pub async fn had_its_like(&self, event: &ObjectEvent) -> Result<Option<BatchNumber>, AwsError> {
        let ObjectId { bucket, key, version } = &event.object;
        let claims = self.some_claims(bucket, key).await?;
        let is_like = |claim: &&ClaimRecord| claim.version != *version && claim.size == Some(event.size);
        Ok(claims.iter().filter(is_like).filter_map(|claim| claim.batch).next_back())
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

    /// Which batches have some of the contents that there were of an object: a name that is used all the time has very many.
    pub(in crate::ledger) async fn some_claims(&self, bucket: &str, key: &str) -> Result<Vec<ClaimRecord>, AwsError> {
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
