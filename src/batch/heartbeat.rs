//! The heartbeat: renews the lease of the batch at work, and notices when the batch has been taken away.
//!
//! The tests are tests/chaos (paused consumers) and tests/pipeline.

use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::batch::Worker;
use crate::process::tasks;
use crate::protocol::BatchNumber;

/// Heartbeats within one lease.
const HEARTBEATS_PER_LEASE: u32 = 4;

/// Renews a batch's lease until it is dropped.
pub(super) struct Heartbeat {
    /// Cancelled when the batch is no longer this consumer's.
    pub(super) evicted: CancellationToken,
    _task: AbortOnDropHandle<()>,
}

impl Worker {
    /// Starts to renew the lease of a batch.
    pub(super) fn start_heartbeat(&self, batch: BatchNumber) -> Heartbeat {
        let evicted = CancellationToken::new();
        let (ledger, lease, cancel) = (self.roll_forward.ledger.clone(), self.lease, evicted.clone());
        let task = tasks::spawn("heartbeat", async move {
            let interval = lease / HEARTBEATS_PER_LEASE;
            loop {
                tokio::time::sleep(interval).await;
                // One that hangs must not delay the next.
                match tokio::time::timeout(interval, ledger.renew_lease(batch)).await {
                    Ok(Ok(true)) => {}
                    Ok(Ok(false)) => return cancel.cancel(),
                    Ok(Err(error)) => tracing::warn!(batch, "{error}; trying again"),
                    Err(_) => tracing::warn!(batch, "a heartbeat was not answered in time; trying again"),
                }
            }
        });
        Heartbeat { evicted, _task: AbortOnDropHandle::new(task) }
    }
}
