//! Claims: tying the objects of an attempt to its batch, and setting those aside that cannot be in one.
//!
//! The tests are tests/pipeline/refusals.rs and tests/chaos.

use futures::StreamExt;

use crate::aws::error::Kind;
use crate::aws::retry::retry_until;
use crate::aws::s3::CONCURRENT_OBJECTS;
use crate::batch::attempt::{BatchError, Work};
use crate::batch::roll_forward::RollForward;
use crate::batch::{Disposition, LOGGED_ASIDE, Worker};
use crate::ledger::Claim;
use crate::ledger::aside::{Aside, What};
use crate::object::{ObjectEvent, ObjectId};
use crate::protocol::{BatchNumber, DEATHS_BEFORE_ALONE, DEATHS_BEFORE_ASIDE};
use crate::telemetry::metrics::{label, metrics};

impl Worker {
    /// Claims the objects. Returns the positions of those that the batch has won, and of those to set aside, each with
    /// the reason; adds those to process alone to `alone`.
    pub(super) async fn claim(
        &self,
        batch: BatchNumber,
        work: Work<'_>,
        dispositions: &mut [Disposition],
        alone: &mut Vec<usize>,
    ) -> Result<(Vec<usize>, Vec<(usize, String)>), BatchError> {
        let (ledger, shutdown) = (&self.roll_forward.ledger, &self.shutdown);
        let judge = ledger.judge();
        let mut claims = futures::stream::iter(work.positions)
            .map(|&position| {
                let (event, judge) = (&work.events[position], &judge);
                let claim = async || self.claims.call(ledger.claim(event, batch, judge)).await;
                async move {
                    let claim = retry_until(shutdown, claim).await;
                    if let Ok(Claim::Won { .. }) = claim {
                        self.warn_if_repeated(batch, event).await;
                    }
                    (position, claim)
                }
            })
            .buffered(CONCURRENT_OBJECTS);
        let (mut won, mut unusable) = (Vec::new(), Vec::new());
        while let Some((position, claim)) = claims.next().await {
            match claim {
                Ok(Claim::Won { deaths }) if deaths >= DEATHS_BEFORE_ASIDE => {
                    let reason = format!(
                        "{deaths} consumers have died processing it, half of them while processing nothing else"
                    );
                    unusable.push((position, reason));
                }
                Ok(Claim::Won { deaths }) if deaths >= DEATHS_BEFORE_ALONE && work.positions.len() > 1 => {
                    let object = &work.events[position].object;
                    tracing::warn!(
                        batch,
                        object = object.key,
                        deaths,
                        "consumers have died processing it; it is processed alone"
                    );
                    retry_until(shutdown, async || ledger.hand_back(object, batch).await).await?;
                    alone.push(position);
                }
                Ok(Claim::Won { .. }) => won.push(position),
                Ok(Claim::Duplicate) => {
                    metrics().objects.add(1, &label("outcome", "duplicate"));
                    dispositions[position] = Disposition::Finished;
                }
                Ok(Claim::Aside) => dispositions[position] = Disposition::Finished,
                Ok(Claim::Left) => dispositions[position] = Disposition::Elsewhere,
                // The ledger cannot store this claim, or has one that this version cannot read.
                Err(error) if error.kind == Kind::Refused => unusable.push((position, error.to_string())),
                Err(error) => return Err(error.into()),
            }
        }
        Ok((won, unusable))
    }

    /// Warns if other content of the same name and size was counted before. The object counts all the same: its name or
    /// its version says that it is a new one.
    async fn warn_if_repeated(&self, batch: BatchNumber, event: &ObjectEvent) {
        let ledger = &self.roll_forward.ledger;
        // A warning is not worth a retry.
        if let Ok(Some(earlier)) = self.claims.call(ledger.find_similar_claim(event)).await {
            let ObjectId { key, version, .. } = &event.object;
            tracing::warn!(
                batch,
                object = key,
                size = event.size,
                "{key} comes again as {version}: batch {earlier} had other content of the same name and size. \
                 If it was written again by mistake, write with If-None-Match: *"
            );
        }
    }

    /// Checks that S3 works for this consumer, so that an object which cannot be read is itself at fault.
    pub(super) async fn see_s3_work(&self) -> Result<(), BatchError> {
        let RollForward { bucket, ledger, .. } = &self.roll_forward;
        bucket.probe(ledger.owner()).await.map_err(BatchError::Outage)
    }

    /// Sets aside claimed objects, given by their positions and reasons, that cannot be in the batch.
    pub(super) async fn set_aside(
        &self,
        batch: BatchNumber,
        work: Work<'_>,
        objects: Vec<(usize, String)>,
        dispositions: &mut [Disposition],
    ) -> Result<(), BatchError> {
        if objects.is_empty() {
            return Ok(());
        }
        // Checked after the last of them failed.
        self.see_s3_work().await?;
        let (ledger, shutdown, count) = (&self.roll_forward.ledger, &self.shutdown, objects.len());
        let mut done = futures::stream::iter(objects)
            .map(async |(position, reason)| {
                let event = &work.events[position];
                let until =
                    retry_until(shutdown, async || self.claims.call(ledger.set_aside(event, batch, &reason)).await);
                (position, until.await, reason)
            })
            .buffer_unordered(CONCURRENT_OBJECTS);
        let mut logged = 0;
        while let Some((position, until, reason)) = done.next().await {
            let object = &work.events[position].object;
            match until {
                // This consumer was taken for dead meanwhile, and another one has the object now.
                Ok(None) => {
                    dispositions[position] = Disposition::Elsewhere;
                    continue;
                }
                Ok(Some(until)) => {
                    if logged < LOGGED_ASIDE {
                        tracing::error!(
                            batch,
                            object = object.key,
                            %until,
                            "set aside: {reason} (music-streams aside lists it)"
                        );
                    }
                    logged += 1;
                    metrics().set_aside.add(1, &label("what", "object"));
                }
                // Its claim cannot be written, but it can be listed. The sweep finds it again as long as it is there.
                Err(error) if error.kind == Kind::Refused => {
                    let ObjectEvent { object, size, created_at } = work.events[position].clone();
                    let what = What::Object { object, size, created_at, until: jiff::Timestamp::now(), times: 1 };
                    self.roll_forward.set_aside(vec![Aside::new(what, batch, &reason)]).await?;
                }
                Err(error) => return Err(error.into()),
            }
            dispositions[position] = Disposition::Finished;
        }
        if count > LOGGED_ASIDE {
            tracing::error!(batch, "set aside: {} more (music-streams aside lists them)", count - LOGGED_ASIDE);
        }
        Ok(())
    }
}
