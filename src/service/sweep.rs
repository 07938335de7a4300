//! Sweep: objects that lie in the bucket and that no message announces.
//!
//! The second way into the window, beside the queue. Files from before the deployment and files whose notification was
//! lost are found by listing the incoming prefix, at start and every [`Sweeper::interval`]. What is found goes the same way
//! as what is announced, with a claim and all, so a file that is found and announced counts once.
//!
//! What is set aside is passed over until it is to be tried again. Claims on objects that still lie there are kept from
//! expiring, whatever has become of their batch, so that nothing counts again.
//!
//! A sweep lists page by page and hands on a few objects at a time, only when there is a place for them: memory does not
//! grow with what lies there. Several consumers take turns.

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

/// Questions to the ledger under way at once.
const CONCURRENT_LOOKS: usize = 16;
/// How an object stands that a batch is to look at.
const UNCLAIMED: ClaimStatus = ClaimStatus::Held(ClaimConflict::TakeOver { died: false });

/// Looks for objects that nobody announced.
pub struct Sweeper {
    /// The bucket.
    pub bucket: Bucket,
    /// The ledger.
    pub ledger: Ledger,
    /// Names what came without a message.
    pub custody: Custody,
    /// Where found objects go: where announced ones do.
    pub messages: mpsc::Sender<Vec<Message>>,
    /// Time between two sweeps, of whichever consumers.
    pub interval: Duration,
    /// How long an object is left to its notification.
    pub age: Duration,
    /// The process is about to stop.
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
                Some(Err(error)) => tracing::warn!("the sweep did not come to its end: {error}; sweeping again later"),
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
                let standing = match self.ledger.claim_status(&event.object, &judge).await {
                    // A claim that nobody understands: a batch that meets it lists it as set aside.
                    Err(error) if error.kind == Kind::Refused => UNCLAIMED,
                    standing => standing?,
                };
                match standing {
                    UNCLAIMED if self.ledger.is_overwritten(&event).await? => {
                        Ok((ClaimStatus::Held(ClaimConflict::Leave), event))
                    }
                    standing => Ok((standing, event)),
                }
            });
            let looked: Vec<_> =
                futures::stream::iter(looks).buffer_unordered(CONCURRENT_LOOKS).try_collect::<Vec<_>>().await?;
            let mut found = Vec::new();
            for (standing, event) in looked {
                match standing {
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
                // The consumer stops when nobody receives any more.
                let _ = self.messages.send(some.iter().map(message).collect()).await;
            }
        }
        Ok(swept)
    }

    /// Younger objects are left to their notifications, which are on their way or in a window.
    fn old_enough(&self, listed: Vec<ObjectEvent>) -> Vec<ObjectEvent> {
        let latest = jiff::Timestamp::now().as_second() - i64::try_from(self.age.as_secs()).unwrap_or(i64::MAX);
        let is_old = |event: &ObjectEvent| event.created_at.is_none_or(|created| created.as_second() <= latest);
        let events = listed.into_iter().filter(is_old).collect();
        admit(Notification { events, ..Notification::default() }, self.bucket.name()).events
    }
}
