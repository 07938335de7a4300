//! Third step of a roll forward: moving the batch's objects to the archive or to quarantine.
//!
//! The tests are tests/pipeline/refusals.rs and tests/chaos.

use std::sync::Mutex;

use fail::fail_point;
use futures::StreamExt;

use crate::aws::error::AwsError;
use crate::aws::retry::{Backoff, retry_until};
use crate::aws::s3::{CONCURRENT_OBJECTS, Copied};
use crate::batch::manifest::{Fate, Manifest, ManifestObject, Note};
use crate::batch::roll_forward::RollForward;
use crate::layout;
use crate::ledger::aside::{Aside, What};
use crate::object::ObjectId;
use crate::protocol::BatchNumber;

/// Attempts at a move that is refused, before the object is left where it is.
const MOVE_ATTEMPTS: usize = 3;

impl RollForward {
    /// Puts away every object that can be put away. Returns those that are settled, and the first error of those that
    /// an outage prevents.
    pub async fn put_all_away(&self, manifest: &Manifest, is_repeated: bool) -> (Vec<ObjectId>, Result<(), AwsError>) {
        // Once there is an outage, the remaining objects need not find that out one by one.
        let outage = Mutex::new(None);
        let is_out = || outage.lock().is_ok_and(|outage| outage.is_some());
        let settled = futures::stream::iter(&manifest.objects)
            .map(async |object| {
                if is_out() {
                    return None;
                }
                match self.put_away(manifest.batch, object, is_repeated).await {
                    Ok(()) => Some(object.object.clone()),
                    Err(error) => {
                        if let Ok(mut outage) = outage.lock() {
                            outage.get_or_insert(error);
                        }
                        None
                    }
                }
            })
            .buffer_unordered(CONCURRENT_OBJECTS)
            .filter_map(std::future::ready)
            .collect()
            .await;
        let outage = outage.into_inner().unwrap_or(None);
        (settled, outage.map_or(Ok(()), Err))
    }

    /// Moves one object to the archive or to quarantine; one that cannot be moved is left where it is and set aside.
    async fn put_away(&self, batch: BatchNumber, object: &ManifestObject, is_repeated: bool) -> Result<(), AwsError> {
        let ManifestObject { object, size, fate, .. } = object;
        self.progress.made();
        let (to, reason) = match fate {
            Fate::Archived { to, .. } => (to, None),
            Fate::Quarantined { to, reason } => (to, Some(reason)),
            Fate::Gone => return retry_until(&self.deadline, async || self.ledger.release(object, batch).await).await,
        };
        let mut backoff = Backoff::default();
        let mut refusal = None;
        for attempt in 1..=MOVE_ATTEMPTS {
            match self.move_away(batch, object, *size, to, reason, is_repeated || attempt > 1).await {
                Ok(()) => return Ok(()),
                Err(error) if error.kind.is_transient() || !error.kind.may_concern_one_resource() => return Err(error),
                Err(error) => refusal = Some(error),
            }
            if !backoff.pause(&self.deadline).await {
                break;
            }
        }
        let Some(refusal) = refusal else { return Ok(()) };
        if self.deadline.is_cancelled() {
            return Err(refusal);
        }
        // If S3 works otherwise, the object is at fault.
        retry_until(&self.deadline, async || self.bucket.probe(self.ledger.owner()).await).await?;
        let (object, to, quarantined) = (object.clone(), to.clone(), reason.cloned());
        let what = What::Original { object, size: *size, to, quarantined };
        self.set_aside(vec![Aside::new(what, batch, &refusal.to_string())]).await
    }

    /// Moves an object to its place, with the reason beside it if it goes to quarantine. May be repeated.
    pub async fn move_away(
        &self,
        batch: BatchNumber,
        object: &ObjectId,
        size: u64,
        to: &str,
        reason: Option<&String>,
        is_repeated: bool,
    ) -> Result<(), AwsError> {
        let deadline = &self.deadline;
        if let Some(reason) = reason {
            // If this was completed before, what lies there now was put there again since, and belongs to another
            // batch.
            if is_repeated && !retry_until(deadline, async || self.ledger.is_held_by(object, batch).await).await? {
                return Ok(());
            }
            let note = Note { object: object.clone(), size, batch, reason: reason.clone() };
            let key = format!("{to}{}", layout::REASON_SUFFIX);
            let note = serde_json::json!(note).to_string().into_bytes();
            retry_until(deadline, async || self.bucket.put(&key, note.clone(), "application/json").await).await?;
        }
        let made_progress = || self.progress.made();
        let mut may_be_there = is_repeated;
        let copied = retry_until(deadline, async || {
            let copied = self.bucket.copy_exactly(object, size, to, may_be_there, &made_progress).await;
            may_be_there = true;
            copied
        });
        match copied.await? {
            Copied::There => {
                fail_point!("copied");
                retry_until(deadline, async || self.bucket.delete_exactly(object).await).await?;
                fail_point!("deleted");
            }
            Copied::Moved => {}
            Copied::Lost => tracing::warn!(
                batch,
                object = object.key,
                "was replaced or deleted by its owner between reading and moving"
            ),
        }
        if reason.is_some() {
            retry_until(deadline, async || self.ledger.release_quarantined(object, batch).await).await?;
        }
        Ok(())
    }
}
