//! Claims that end: handed back, set aside for a while, or released.

use aws_sdk_dynamodb::error::BuildError;
use aws_sdk_dynamodb::types::builders::UpdateBuilder;
use aws_sdk_dynamodb::types::{Delete, TransactWriteItem, Update};

use crate::aws::error::{AwsError, Kind, aws_error};
use crate::aws::item::text;
use crate::ledger::aside::{Aside, What};
use crate::ledger::aside_list::{ASIDE, Listing};
use crate::ledger::claims::claim_key;
use crate::ledger::{CLAIM_DAYS, Ledger, count, epoch_seconds, expiry, happened};
use crate::object::{ObjectEvent, ObjectId};
use crate::protocol::{BatchNumber, DEATHS_BEFORE_ASIDE, pause_before_retry};

impl Ledger {
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
    pub(in crate::ledger) async fn write_with_listing(
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
}
