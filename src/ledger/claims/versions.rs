//! The claims on all contents of one key. Covered by `tests/pipeline` (`edges.rs`, `operators.rs`).

use std::collections::BTreeSet;

use crate::aws::error::AwsError;
use crate::aws::item::{Item, number, text, text_of};
use crate::ledger::claims::{claims_key, expires_soon};
use crate::ledger::{Ledger, QUERY, timestamp};
use crate::object::{ObjectEvent, ObjectId, Version};
use crate::protocol::BatchNumber;

/// Upper bound of the claims that are read where a few suffice: a key that is reused regularly has very many.
const SOME_CLAIMS: i32 = 50;
/// Pages of claims on the keys of one request that are read. A page has 10 claims where keys are given as a list, so
/// that a request's own claims take three:
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ql-operators.html>.
const SIMILAR_PAGES: usize = 5;
const SELECT: &str = "dynamodb:PartiQLSelect";

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

    /// Finds, for each of the objects of one request to claim them, a batch that claimed another content of its key and
    /// size: such an object is often repeated by mistake. May miss a batch where a key is reused very often.
    pub async fn find_similar_claims(&self, events: &[&ObjectEvent]) -> Result<Vec<Option<BatchNumber>>, AwsError> {
        let keys: BTreeSet<String> = events.iter().map(|event| key_of(event)).collect();
        let statement = format!(
            "SELECT \"pk\", \"sk\", \"batch\", \"size\" FROM \"{}\" WHERE \"pk\" IN [{}]",
            self.table,
            vec!["?"; keys.len()].join(", ")
        );
        let select = self.client.execute_statement().statement(statement).consistent_read(true);
        let select = select.set_parameters(Some(keys.into_iter().map(text).collect()));
        let (mut claims, mut next) = (Vec::new(), None);
        for _ in 0..SIMILAR_PAGES {
            let page = select.clone().set_next_token(next).send().await.map_err(self.error(SELECT, "object#…"))?;
            claims.extend(page.items.unwrap_or_default());
            next = page.next_token;
            if next.is_none() {
                break;
            }
        }
        let similar_to = |event: &&ObjectEvent| {
            let is_similar = |claim: &&Item| {
                text_of(claim, "pk").is_some_and(|pk| pk == key_of(event))
                    && number(claim, "size") == Some(event.size)
                    && version_of(claim).is_some_and(|version| version != event.object.version)
            };
            claims.iter().filter(is_similar).filter_map(|claim| number(claim, "batch")).next_back()
        };
        Ok(events.iter().map(similar_to).collect())
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

/// Partition key of the claims on all contents of an event's key.
fn key_of(event: &ObjectEvent) -> String {
    claims_key(&event.object.bucket, &event.object.key)
}

fn claim_record(item: &Item) -> Option<ClaimRecord> {
    let version = version_of(item)?;
    let claimed_at = text_of(item, "claimed_at")?.parse().ok()?;
    let aside_until = number(item, "aside_until").and_then(timestamp);
    let (batch, quarantined_by) = (number(item, "batch"), number(item, "quarantined_by"));
    let (size, expires_at) = (number(item, "size"), number(item, "expires_at").unwrap_or(0));
    let created_at = text_of(item, "created_at").and_then(|time| time.parse().ok());
    Some(ClaimRecord { version, batch, quarantined_by, size, created_at, expires_at, claimed_at, aside_until })
}

/// The content that a claim is on.
fn version_of(item: &Item) -> Option<Version> {
    let sk = text_of(item, "sk")?;
    let (kind, id) = sk.split_once('#')?;
    Some(if kind == "version" { Version::Id(id.to_owned()) } else { Version::ETag(id.to_owned()) })
}
