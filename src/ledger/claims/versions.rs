//! The claims on all contents of one key. Covered by `tests/pipeline` (`edges.rs`, `operators.rs`).

use crate::aws::error::AwsError;
use crate::aws::item::{Item, number, text_of};
use crate::ledger::claims::{claims_key, expires_soon};
use crate::ledger::{Ledger, QUERY, timestamp};
use crate::object::{ObjectEvent, ObjectId, Version};
use crate::protocol::BatchNumber;

/// Upper bound of the claims that are read where a few suffice: a key that is reused regularly has very many.
const SOME_CLAIMS: i32 = 50;

/// The claim on one content of an object.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ClaimRecord {
    /// The content.
    pub version: Version,
    /// The batch that holds the claim; `None` when the object is set aside or was handed back.
    pub batch: Option<BatchNumber>,
    /// The batch that put the object into quarantine last.
    pub quarantined_by: Option<BatchNumber>,
    /// Size of the object in bytes, as announced.
    pub size: Option<u64>,
    /// The time at which the object was created, as announced.
    pub created_at: Option<jiff::Timestamp>,
    /// The time at which the claim expires, in seconds since the Unix epoch.
    pub expires_at: u64,
    /// The time at which the claim was made or last taken over.
    pub claimed_at: jiff::Timestamp,
    /// The time until which the object is set aside.
    pub aside_until: Option<jiff::Timestamp>,
}

impl Ledger {
    /// Reads the claims on all contents of a key.
    pub async fn claims(&self, bucket: &str, key: &str) -> Result<Vec<ClaimRecord>, AwsError> {
        let pk = claims_key(bucket, key);
        let query = self.query(&pk).consistent_read(true).into_paginator().items().send();
        let items = query.try_collect().await.map_err(self.error(QUERY, &pk))?;
        Ok(items.iter().filter_map(claim_record).collect())
    }

    /// Reads the claims on the first [`SOME_CLAIMS`] contents of a key.
    async fn some_claims(&self, bucket: &str, key: &str) -> Result<Vec<ClaimRecord>, AwsError> {
        let pk = claims_key(bucket, key);
        let query = self.query(&pk).consistent_read(true).limit(SOME_CLAIMS);
        let output = query.send().await.map_err(self.error(QUERY, &pk))?;
        Ok(output.items().iter().filter_map(claim_record).collect())
    }

    /// Finds a batch that claimed another content of the same key and size: such an object is often repeated by
    /// mistake.
    pub async fn find_similar_claim(&self, event: &ObjectEvent) -> Result<Option<BatchNumber>, AwsError> {
        let ObjectId { bucket, key, version } = &event.object;
        let claims = self.some_claims(bucket, key).await?;
        let is_similar = |claim: &&ClaimRecord| claim.version != *version && claim.size == Some(event.size);
        Ok(claims.iter().filter(is_similar).filter_map(|claim| claim.batch).next_back())
    }

    /// Returns true if an unclaimed object was overwritten by one that a batch claimed. On a bucket with versioning,
    /// the older one becomes current again when the newer one is moved away. The claim that proves this is kept from
    /// expiring while the object remains.
    pub async fn is_overwritten(&self, event: &ObjectEvent) -> Result<bool, AwsError> {
        let ObjectId { bucket, key, version } = &event.object;
        let Some(created_at) = event.created_at else { return Ok(false) };
        let claims = self.some_claims(bucket, key).await?;
        // An object with a claim of its own is judged by that claim.
        if claims.iter().any(|claim| claim.version == *version) {
            return Ok(false);
        }
        let claimed_by = |claim: &ClaimRecord| claim.batch.or(claim.quarantined_by);
        // Without versioning no older object becomes current again. Lists give times in whole seconds.
        let is_later = |claim: &ClaimRecord| {
            matches!(claim.version, Version::Id(_))
                && claimed_by(claim).is_some()
                && claim.created_at.is_some_and(|at| at.as_second() > created_at.as_second())
        };
        let Some(latest) = claims.into_iter().filter(is_later).max_by_key(|claim| claim.created_at) else {
            return Ok(false);
        };
        if let (Some(batch), true) = (claimed_by(&latest), expires_soon(latest.expires_at)) {
            let object = ObjectId { bucket: bucket.clone(), key: key.clone(), version: latest.version };
            self.renew_claim(&object, batch).await?;
        }
        Ok(true)
    }
}

fn claim_record(item: &Item) -> Option<ClaimRecord> {
    let sk = text_of(item, "sk")?;
    let (kind, id) = sk.split_once('#')?;
    let version = if kind == "version" { Version::Id(id.to_owned()) } else { Version::ETag(id.to_owned()) };
    let claimed_at = text_of(item, "claimed_at")?.parse().ok()?;
    let aside_until = number(item, "aside_until").and_then(timestamp);
    let (batch, quarantined_by) = (number(item, "batch"), number(item, "quarantined_by"));
    let (size, expires_at) = (number(item, "size"), number(item, "expires_at").unwrap_or(0));
    let created_at = text_of(item, "created_at").and_then(|time| time.parse().ok());
    Some(ClaimRecord { version, batch, quarantined_by, size, created_at, expires_at, claimed_at, aside_until })
}
