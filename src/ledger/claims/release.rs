//! The ends of a claim: handed back, set aside for a while, or released.
//!
//! Every write is conditional on the batch's claim. The condition fails where the write was carried out before, and the
//! object perhaps claimed again since. Covered by `tests/pipeline` (`refusals.rs`) and `tests/chaos`.

use crate::aws::error::AwsError;
use crate::ledger::aside::{Aside, What};
use crate::ledger::aside_list::ListChange;
use crate::ledger::claims::claim_key;
use crate::ledger::{DELETE, Ledger, UPDATE, count, epoch_seconds, timestamp};
use crate::object::{ObjectEvent, ObjectId};
use crate::protocol::{BatchNumber, DEATHS_BEFORE_ASIDE, pause_before_retry};

/// The condition of a write by the batch that holds the claim.
const IS_OWN: &str = "#batch = :batch";

impl Ledger {
    /// Hands a claim of this batch back: it becomes unassigned, and keeps its counts of earlier attempts. May be
    /// repeated.
    pub async fn hand_back(&self, object: &ObjectId, batch: BatchNumber) -> Result<(), AwsError> {
        let (pk, _) = claim_key(object);
        let update = self.claim_update(object, batch).condition_expression(IS_OWN);
        let update = update.update_expression("SET expires_at = :expires_at REMOVE #batch");
        self.update_claim(&pk, update, None).await.map(drop)
    }

    /// Sets an object of this batch aside: its claim becomes unassigned, and no batch takes it over for a while, which
    /// is longer each time. The object is listed as set aside until a batch does. May be repeated. Returns the end of
    /// the pause; `None` when another batch holds the claim by now.
    pub async fn set_aside(
        &self,
        event: &ObjectEvent,
        batch: BatchNumber,
        reason: &str,
    ) -> Result<Option<jiff::Timestamp>, AwsError> {
        let (pk, _) = claim_key(&event.object);
        let holder = self.holder(&event.object).await?.unwrap_or_default();
        let times = holder.times_aside;
        let until = epoch_seconds().saturating_add(pause_before_retry(times).as_secs());
        let until = timestamp(until).unwrap_or(jiff::Timestamp::MAX);
        let ObjectEvent { object, size, created_at } = event.clone();
        let what = What::Object { object, size, created_at, until, times: times.saturating_add(1) };
        let entry = Aside::new(what, batch, reason);
        // If consumers' deaths are the reason, the object gets one more attempt each time.
        let deaths = holder.deaths.min(DEATHS_BEFORE_ASIDE - 1);
        let update = self
            .claim_update(&event.object, batch)
            .condition_expression(IS_OWN)
            .update_expression(
                "SET expires_at = :expires_at, aside_until = :until, deaths = :deaths ADD times_aside :one \
                 REMOVE #batch",
            )
            .expression_attribute_values(":deaths", count(u64::from(deaths)))
            .expression_attribute_values(":until", count(until.as_second().unsigned_abs()))
            .expression_attribute_values(":one", count(1));
        if self.update_claim(&pk, update, Some(ListChange::Add(entry))).await? {
            return Ok(Some(until));
        }
        // An earlier attempt was carried out and its answer lost; or this batch was abandoned, and another took the
        // claim over.
        let holder = self.holder(&event.object).await?;
        Ok(holder.and_then(|holder| holder.aside_until).and_then(timestamp))
    }

    /// Ends the pause of an object that is set aside: the next batch that meets it may claim it. Returns false if the
    /// object is not set aside any more.
    pub async fn allow_retry(&self, object: &ObjectId) -> Result<bool, AwsError> {
        let (pk, sk) = claim_key(object);
        let update = self
            .update(&pk, &sk)
            .update_expression("SET aside_until = :now, times_aside = :none, deaths = :none")
            .condition_expression("attribute_exists(aside_until)")
            .expression_attribute_values(":now", count(epoch_seconds()))
            .expression_attribute_values(":none", count(0));
        self.conditional(UPDATE, &pk, update.send()).await
    }

    /// Releases the claim on an object that was gone before it was read: if the same content comes back, it is new.
    /// Must happen before the batch is done. May be repeated.
    pub async fn release(&self, object: &ObjectId, batch: BatchNumber) -> Result<(), AwsError> {
        let (pk, sk) = claim_key(object);
        let delete = self
            .delete(&pk, &sk)
            .condition_expression(IS_OWN)
            .expression_attribute_names("#batch", "batch")
            .expression_attribute_values(":batch", count(batch));
        self.conditional(DELETE, &pk, delete.send()).await.map(drop)
    }

    /// Releases the claim on an object that was quarantined: none of its rows were counted, and if it comes back, it is
    /// judged again. The claim continues to name the batch that had it. Must happen before the batch is done, and after
    /// the object was moved. May be repeated.
    pub async fn release_quarantined(&self, object: &ObjectId, batch: BatchNumber) -> Result<(), AwsError> {
        let (pk, sk) = claim_key(object);
        let update = self
            .update(&pk, &sk)
            .update_expression("SET quarantined_by = :batch REMOVE #batch")
            .condition_expression(IS_OWN)
            .expression_attribute_names("#batch", "batch")
            .expression_attribute_values(":batch", count(batch));
        self.conditional(UPDATE, &pk, update.send()).await.map(drop)
    }
}
