//! The heartbeat of a batch.

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::batch::Worker;
use crate::process::tasks;
use crate::protocol::BatchNumber;

/// Beats within one lease.
const BEATS_PER_LEASE: u32 = 4;

impl Worker {
    pub(super) fn beat(&self, batch: BatchNumber) -> Heartbeat {
        let evicted = CancellationToken::new();
        let (ledger, lease, told) = (self.roll_forward.ledger.clone(), self.lease, evicted.clone());
        let beating = tasks::spawn("heart", async move {
            loop {
                tokio::time::sleep(lease / BEATS_PER_LEASE).await;
                // A beat that hangs must not take the place of the next.
                match tokio::time::timeout(lease / BEATS_PER_LEASE, ledger.beat(batch)).await {
                    Ok(Ok(true)) => {}
                    Ok(Ok(false)) => return told.cancel(),
                    Ok(Err(error)) => tracing::warn!(batch, "{error}; trying again"),
                    Err(_) => tracing::warn!(batch, "a beat was not answered in time; trying again"),
                }
            }
        });
        Heartbeat { evicted, _beating: AbortOnDropHandle::new(beating) }
    }
}

/// Beats for a batch until it is dropped.
pub(super) struct Heartbeat {
    /// The batch is no longer this consumer's.
    pub(super) evicted: CancellationToken,
    pub(super) _beating: AbortOnDropHandle<()>,
}
