//! Claims: tying the objects of an attempt to its batch, and setting those aside that cannot be in one.
//!
//! The tests are tests/pipeline/refusals.rs and tests/chaos.

use futures::StreamExt;

use crate::aws::bulk::{Outcomes, is_throttled, settle_each};
use crate::aws::error::{AwsError, Kind};
use crate::aws::retry::retry_until;
use crate::aws::s3::CONCURRENT_OBJECTS;
use crate::aws::statements::Written;
use crate::batch::attempt::{BatchError, Work};
use crate::batch::roll_forward::RollForward;
use crate::batch::{Disposition, LOGGED_ASIDE, Worker};
use crate::ledger::aside::{Aside, What};
use crate::ledger::{CLAIMS_PER_REQUEST, Claim, ClaimJudge};
use crate::object::{ObjectEvent, ObjectId};
use crate::protocol::{BatchNumber, DEATHS_BEFORE_ALONE, DEATHS_BEFORE_ASIDE};
use crate::telemetry::metrics::{label, metrics};

/// Requests that make claims under way at once: 400 claims. Some 20 ms each, that is 10,000 in half a second.
const CONCURRENT_REQUESTS: usize = 16;
/// Claims of one request that are contested at the same time.
const CONCURRENT_CONTESTS: usize = 8;

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
        let mut claims = futures::stream::iter(work.positions.chunks(CLAIMS_PER_REQUEST))
            .map(async |group| (group, self.claim_group(batch, work, group, &judge).await))
            .buffered(CONCURRENT_REQUESTS);
        let (mut won, mut unusable) = (Vec::new(), Vec::new());
        while let Some((group, claims)) = claims.next().await {
            for (&position, claim) in group.iter().zip(claims?) {
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
        }
        Ok((won, unusable))
    }

    /// Claims the objects of one request, in two steps: those that nobody has claimed together, the others each by
    /// itself.
    async fn claim_group(
        &self,
        batch: BatchNumber,
        work: Work<'_>,
        group: &[usize],
        judge: &ClaimJudge<'_>,
    ) -> Result<Outcomes<Claim>, AwsError> {
        let (ledger, shutdown) = (&self.roll_forward.ledger, &self.shutdown);
        let events: Vec<&ObjectEvent> = group.iter().map(|&position| &work.events[position]).collect();
        let made = settle_each(&events, shutdown, async |events| {
            let events: Vec<&ObjectEvent> = events.iter().map(|&&event| event).collect();
            self.roll_forward.progress.made();
            self.claims.call_of_many(ledger.make_claims(&events, batch), |made| made.iter().any(is_throttled)).await
        });
        let claims: Outcomes<Claim> = futures::stream::iter(events.iter().zip(made.await?))
            .map(async |(event, made)| match made? {
                Written::Yes => Ok(Claim::Won { deaths: 0 }),
                Written::Conflict(_) => {
                    let contest = async || self.claims.call(ledger.contest(event, batch, judge)).await;
                    retry_until(shutdown, contest).await
                }
            })
            .buffered(CONCURRENT_CONTESTS)
            .collect()
            .await;
        let won = events.iter().zip(&claims).filter(|(_, claim)| matches!(claim, Ok(Claim::Won { .. })));
        self.warn_of_repeated(batch, &won.map(|(&event, _)| event).collect::<Vec<_>>()).await;
        Ok(claims)
    }

    /// Warns of objects of which other content of the same name and size was counted before. They count all the same:
    /// their name or their version says that they are new.
    async fn warn_of_repeated(&self, batch: BatchNumber, events: &[&ObjectEvent]) {
        if events.is_empty() {
            return;
        }
        // A warning is not worth a retry.
        let similar = self.claims.call(self.roll_forward.ledger.find_similar_claims(events)).await;
        for (event, earlier) in events.iter().zip(similar.unwrap_or_default()) {
            let (Some(earlier), ObjectId { key, version, .. }) = (earlier, &event.object) else { continue };
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
