//! The sweep: finds objects in the bucket that no message announces.
//!
//! It is the second way into the window, beside the queue. Files from before the deployment, and files whose
//! notification was lost, are found by listing the incoming prefix, at the start and every [`Sweeper::interval`]. They
//! take the same way as announced files, including the claim, so a file that is both found and announced counts once.
//!
//! Objects that are set aside are skipped until their next attempt is due. Claims on objects that are still there are
//! kept from expiring, whatever the state of their batch, so that nothing counts twice.
//!
//! A sweep lists page by page and passes on a few objects at a time, only when there is room for them: its memory does
//! not grow with the number of files. Several consumers take turns. The tests are in tests/pipeline and tests/chaos.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::aws::error::{AwsError, Kind};
use crate::aws::s3::Bucket;
use crate::aws::sqs::BATCH_ENTRIES;
use crate::intake::custody::Custody;
use crate::intake::notification::{Notification, admit};
use crate::intake::window::Message;
use crate::layout::INCOMING;
use crate::ledger::{ClaimStatus, Ledger, Swept};
use crate::object::ObjectEvent;
use crate::protocol::ClaimConflict;
use crate::telemetry::metrics::{label, metrics};

/// Requests to the ledger under way at once.
const CONCURRENT_LOOKS: usize = 16;
/// The claim status of an object that a batch must look at.
const UNCLAIMED: ClaimStatus = ClaimStatus::Held(ClaimConflict::TakeOver { died: false });

/// A task that looks for objects that no message announces.
pub struct Sweeper {
    /// The bucket.
    pub bucket: Bucket,
    /// The ledger.
    pub ledger: Ledger,
    /// Names objects that came without a message.
    pub custody: Custody,
    /// Receives the objects found, together with the announced ones.
    pub messages: mpsc::Sender<Vec<Message>>,
    /// The time between two sweeps, whichever consumers make them.
    pub interval: Duration,
    /// The age up to which an object is left to its notification.
    pub age: Duration,
    /// Cancelled when the process is to stop.
    pub shutdown: CancellationToken,
}

impl Sweeper {
    /// Sweeps until the process stops.
    pub async fn run(self) {
        loop {
            let sweep = async {
                if self.ledger.begin_sweep(self.interval).await? {
                    let swept = self.sweep().await?;
                    self.ledger.end_sweep(swept).await?;
                    metrics().sweep_objects.add(swept.found, &label("finding", "found"));
                    metrics().sweep_objects.add(swept.left_over, &label("finding", "left_over"));
                    if swept != Swept::default() {
                        tracing::info!(found = swept.found, left_over = swept.left_over, "swept the incoming prefix");
                    }
                }
                Ok::<(), AwsError>(())
            };
            match self.shutdown.run_until_cancelled(sweep).await {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::warn!("the sweep did not finish: {error}; sweeping again later"),
                None => return,
            }
            if self.shutdown.run_until_cancelled(tokio::time::sleep(self.interval)).await.is_none() {
                return;
            }
        }
    }

    async fn sweep(&self) -> Result<Swept, AwsError> {
        let mut swept = Swept::default();
        let mut next = Some(None);
        while let Some(from) = next {
            let (listed, following) = self.bucket.list_current(INCOMING, from).await?;
            next = following.map(Some);
            let judge = self.ledger.judge();
            let looks = self.old_enough(listed).into_iter().map(|event| async {
                let status = match self.ledger.claim_status(&event.object, &judge).await {
                    // A claim that this version cannot read: a batch that meets it lists it as set aside.
                    Err(error) if error.kind == Kind::Refused => UNCLAIMED,
                    status => status?,
                };
                match status {
                    UNCLAIMED if self.ledger.is_overwritten(&event).await? => {
                        Ok((ClaimStatus::Held(ClaimConflict::Leave), event))
                    }
                    status => Ok((status, event)),
                }
            });
            let looked: Vec<_> =
                futures::stream::iter(looks).buffer_unordered(CONCURRENT_LOOKS).try_collect::<Vec<_>>().await?;
            let mut found = Vec::new();
            for (status, event) in looked {
                match status {
                    ClaimStatus::Held(ClaimConflict::TakeOver { .. }) => found.push(event),
                    ClaimStatus::Held(ClaimConflict::Duplicate) => swept.left_over += 1,
                    ClaimStatus::Held(ClaimConflict::Leave) | ClaimStatus::Aside => {}
                }
            }
            fail::fail_point!("swept");
            swept.found += found.len() as u64;
            for some in found.chunks(BATCH_ENTRIES) {
                let message =
                    |event: &ObjectEvent| Message { id: self.custody.untracked_id(), events: vec![event.clone()] };
                // The send fails only when the consumer stops.
                let _ = self.messages.send(some.iter().map(message).collect()).await;
            }
        }
        Ok(swept)
    }

    /// Selects the objects to look at. Younger ones are left to their notifications, which are on their way or in a
    /// window.
    fn old_enough(&self, listed: Vec<ObjectEvent>) -> Vec<ObjectEvent> {
        let latest = jiff::Timestamp::now().as_second() - i64::try_from(self.age.as_secs()).unwrap_or(i64::MAX);
        let is_old = |event: &ObjectEvent| event.created_at.is_none_or(|created| created.as_second() <= latest);
        let events = listed.into_iter().filter(is_old).collect();
        admit(Notification { events, ..Notification::default() }, self.bucket.name()).events
    }
}
