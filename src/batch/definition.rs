//! The definition in force: opening a batch under it, and taking up another one.
//!
//! The tests are tests/pipeline/definitions.rs, tests/chaos and tests/model.

use std::sync::Arc;

use crate::aws::retry::retry_until;
use crate::batch::Worker;
use crate::batch::attempt::BatchError;
use crate::ledger::{DefinitionError, Opened};
use crate::protocol::{BatchNumber, InForce};
use crate::reference::CatalogueSource;

impl Worker {
    /// Opens a batch under the definition in force, which is taken up first if it is another one.
    pub(super) async fn open(&mut self) -> Result<BatchNumber, BatchError> {
        let shutdown = self.shutdown.clone();
        loop {
            match retry_until(&shutdown, async || self.roll_forward.ledger.open(&self.definition).await).await? {
                Opened::Batch(batch) => return Ok(batch),
                Opened::Full => return Err(BatchError::TooManyUnfinished),
                Opened::Redefined(in_force) => {
                    let taken_up = self.take_up(in_force).await;
                    let obstacle = taken_up.as_ref().err().map(ToString::to_string);
                    self.roll_forward.progress.set_obstacle(obstacle);
                    taken_up?;
                }
            }
        }
    }

    /// Takes up a definition: its plan, tables and catalogue. Nothing is opened until that has succeeded.
    async fn take_up(&mut self, in_force: InForce) -> Result<(), BatchError> {
        let (ledger, bucket) = (self.roll_forward.ledger.clone(), self.roll_forward.bucket.clone());
        let plan = ledger.plan_in_force(&in_force).await.map_err(|error| match error {
            DefinitionError::Aws(error) => error.into(),
            error => BatchError::Definition(error.to_string()),
        })?;
        let reports = self.roll_forward.reports.of_plan(Arc::clone(&plan));
        reports.check().await.map_err(|error| BatchError::Definition(error.to_string()))?;
        let (name, digest) = (plan.definition.name.clone(), plan.digest.clone());
        let catalogue = CatalogueSource::load(bucket, plan, ledger, self.limits.memory.catalogue()).await;
        self.catalogue = catalogue.map_err(|error| BatchError::Definition(error.to_string()))?;
        self.roll_forward.reports = reports;
        self.definition = in_force;
        tracing::info!(name, digest, change = self.definition.change, "another definition is in force");
        Ok(())
    }
}
