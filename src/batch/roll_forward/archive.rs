//! Third step of a roll forward: moving the batch's objects to the archive or to quarantine.
//!
//! Objects are copied one by one, and those that are copied are deleted together, each on condition of its content and
//! with an outcome of its own. A refusal costs the object that it is about: it is left where it is and set aside. The
//! tests are tests/pipeline/refusals.rs and tests/chaos.

use std::sync::{Mutex, PoisonError};

use fail::fail_point;
use futures::{StreamExt, TryStreamExt};

use crate::aws::bulk::settle_each;
use crate::aws::error::AwsError;
use crate::aws::retry::{Backoff, retry_until};
use crate::aws::s3::{CONCURRENT_OBJECTS, Copied, DELETES_PER_REQUEST};
use crate::batch::manifest::{Fate, Manifest, ManifestObject, Note};
use crate::batch::roll_forward::RollForward;
use crate::layout;
use crate::ledger::aside::{Aside, What};
use crate::object::ObjectId;
use crate::protocol::BatchNumber;

/// Attempts at a step of a move that is refused, before the object is left where it is.
const MOVE_ATTEMPTS: usize = 3;
/// Groups of copied objects that are deleted at the same time, while others are being copied.
const CONCURRENT_DELETES: usize = 4;

/// Objects whose move is refused, each with the refusal.
type Refused<'a> = Vec<(&'a ManifestObject, AwsError)>;

/// An object after the attempt to copy it.
struct Handled<'a> {
    object: &'a ManifestObject,
    /// True if it is at its place, and left to be deleted where it was. Otherwise nothing is left to do.
    is_copied: bool,
}

impl RollForward {
    /// Puts away every object that can be put away. Returns those that are settled, and the first error of those that
    /// an outage prevents.
    pub async fn put_all_away(&self, manifest: &Manifest, is_repeated: bool) -> (Vec<ObjectId>, Result<(), AwsError>) {
        let (batch, outage) = (manifest.batch, Outage::default());
        let settled = futures::stream::iter(&manifest.objects)
            .map(async |object| {
                // Once there is an outage, the remaining objects need not find that out one by one.
                if outage.is_known() { None } else { outage.note(self.copy_away(batch, object, is_repeated).await) }
            })
            .buffer_unordered(CONCURRENT_OBJECTS)
            .filter_map(std::future::ready)
            .chunks(DELETES_PER_REQUEST)
            .map(async |group| outage.note(self.take_away(batch, &group).await).unwrap_or_default())
            .buffer_unordered(CONCURRENT_DELETES)
            .concat()
            .await;
        (settled, outage.into_result())
    }

    /// Copies one object to its place; one that cannot be copied is left where it is and set aside.
    async fn copy_away<'a>(
        &self,
        batch: BatchNumber,
        object: &'a ManifestObject,
        is_repeated: bool,
    ) -> Result<Handled<'a>, AwsError> {
        self.progress.made();
        let Some((to, reason)) = object.fate.destination() else {
            retry_until(&self.deadline, async || self.ledger.release(&object.object, batch).await).await?;
            return Ok(Handled { object, is_copied: false });
        };
        let copied = self.insist(async |is_again| {
            self.copy_to_place(batch, &object.object, object.size, to, reason, is_repeated || is_again).await
        });
        let is_copied = match copied.await? {
            Ok(is_copied) => is_copied,
            Err(refusal) => {
                self.leave(batch, vec![(object, refusal)]).await?;
                false
            }
        };
        Ok(Handled { object, is_copied })
    }

    /// Deletes the copied ones among objects where they were, and releases the claims on those in quarantine. Returns
    /// all of the objects, which are settled then.
    async fn take_away(&self, batch: BatchNumber, group: &[Handled<'_>]) -> Result<Vec<ObjectId>, AwsError> {
        let copied = group.iter().filter(|handled| handled.is_copied).map(|handled| handled.object);
        let (deleted, mut refused) = self.delete_copied(copied.collect()).await?;
        let quarantined = deleted.into_iter().filter(|object| matches!(object.fate, Fate::Quarantined { .. }));
        let released: Vec<_> = futures::stream::iter(quarantined)
            .map(async |object| {
                let released = self.insist(async |_| self.release_quarantined(batch, &object.object).await).await;
                released.map(|released| (object, released))
            })
            .buffer_unordered(CONCURRENT_OBJECTS)
            .try_collect()
            .await?;
        refused.extend(released.into_iter().filter_map(|(object, released)| Some((object, released.err()?))));
        self.leave(batch, refused).await?;
        Ok(group.iter().map(|handled| handled.object.object.clone()).collect())
    }

    /// Deletes objects where they were, up to [`MOVE_ATTEMPTS`] times those that are refused. Returns the deleted ones,
    /// and the refused ones.
    async fn delete_copied<'a>(
        &self,
        mut open: Vec<&'a ManifestObject>,
    ) -> Result<(Vec<&'a ManifestObject>, Refused<'a>), AwsError> {
        let (mut deleted, mut backoff) = (Vec::with_capacity(open.len()), Backoff::default());
        for attempt in 1.. {
            let objects: Vec<&ObjectId> = open.iter().map(|object| &object.object).collect();
            let outcomes = settle_each(&objects, &self.deadline, async |objects| {
                self.progress.made();
                self.bucket.delete_each(&objects.iter().map(|object| **object).collect::<Vec<_>>()).await
            });
            let mut refused = Vec::new();
            for (object, outcome) in open.into_iter().zip(outcomes.await?) {
                match outcome {
                    Ok(()) => deleted.push(object),
                    Err(refusal) => refused.push((object, refusal)),
                }
            }
            if refused.is_empty() || attempt == MOVE_ATTEMPTS || !backoff.pause(&self.deadline).await {
                return Ok((deleted, refused));
            }
            open = refused.into_iter().map(|(object, _)| object).collect();
        }
        Ok((deleted, Vec::new()))
    }

    /// Makes up to [`MOVE_ATTEMPTS`] attempts at a step that is refused; it is told if it was attempted before. The
    /// inner error is the last refusal, the outer one an outage.
    async fn insist<T>(
        &self,
        mut step: impl AsyncFnMut(bool) -> Result<T, AwsError>,
    ) -> Result<Result<T, AwsError>, AwsError> {
        let (mut attempts, mut backoff) = (0, Backoff::default());
        loop {
            match step(attempts > 0).await {
                Err(error) if error.kind.is_transient() || !error.kind.may_concern_one_resource() => return Err(error),
                Err(_) if attempts + 1 < MOVE_ATTEMPTS && backoff.pause(&self.deadline).await => attempts += 1,
                done => return Ok(done),
            }
        }
    }

    /// Leaves objects where they are, and sets them aside.
    async fn leave(&self, batch: BatchNumber, refused: Refused<'_>) -> Result<(), AwsError> {
        if refused.is_empty() {
            return Ok(());
        }
        // At the deadline there may have been too few attempts.
        if self.deadline.is_cancelled() {
            return refused.into_iter().try_for_each(|(_, refusal)| Err(refusal));
        }
        // If S3 works otherwise, the objects are at fault.
        retry_until(&self.deadline, async || self.bucket.probe(self.ledger.owner()).await).await?;
        let entry = |(object, refusal): (&ManifestObject, AwsError)| {
            let (to, reason) = object.fate.destination()?;
            let (to, quarantined, size) = (to.to_owned(), reason.cloned(), object.size);
            let what = What::Original { object: object.object.clone(), size, to, quarantined };
            Some(Aside::new(what, batch, &refusal.to_string()))
        };
        self.set_aside(refused.into_iter().filter_map(entry).collect()).await
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
        if !self.copy_to_place(batch, object, size, to, reason, is_repeated).await? {
            return Ok(());
        }
        retry_until(&self.deadline, async || self.bucket.delete_exactly(object).await).await?;
        if reason.is_some() { self.release_quarantined(batch, object).await } else { Ok(()) }
    }

    /// Copies an object to its place, with the reason beside it if it goes to quarantine. May be repeated. Returns true
    /// if the object is to be deleted where it was; otherwise nothing is left to do.
    async fn copy_to_place(
        &self,
        batch: BatchNumber,
        object: &ObjectId,
        size: u64,
        to: &str,
        reason: Option<&String>,
        is_repeated: bool,
    ) -> Result<bool, AwsError> {
        let deadline = &self.deadline;
        if let Some(reason) = reason {
            // If this was completed before, what lies there now was put there again since, and belongs to another
            // batch.
            if is_repeated && !retry_until(deadline, async || self.ledger.is_held_by(object, batch).await).await? {
                return Ok(false);
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
                return Ok(true);
            }
            Copied::Moved => {}
            Copied::Lost => tracing::warn!(
                batch,
                object = object.key,
                "was replaced or deleted by its owner between reading and moving"
            ),
        }
        if reason.is_some() {
            self.release_quarantined(batch, object).await?;
        }
        Ok(false)
    }

    async fn release_quarantined(&self, batch: BatchNumber, object: &ObjectId) -> Result<(), AwsError> {
        retry_until(&self.deadline, async || self.ledger.release_quarantined(object, batch).await).await
    }
}

/// The first error that is no single object's.
#[derive(Default)]
struct Outage(Mutex<Option<AwsError>>);

impl Outage {
    fn is_known(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Notes an error if it is the first. Returns what there is if there is none.
    fn note<T>(&self, result: Result<T, AwsError>) -> Option<T> {
        let note = |error| {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        };
        result.map_err(note).ok()
    }

    fn into_result(self) -> Result<(), AwsError> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}
