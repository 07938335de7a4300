//! First step of a roll forward: the batch's figures into the reports.
//!
//! The tests are tests/pipeline/refusals.rs and tests/chaos.

use std::sync::Arc;

use crate::aws::error::{AwsError, Kind};
use crate::aws::retry::retry_until;
use crate::batch::manifest::{DeltaFile, DeltaFileError, Manifest};
use crate::batch::roll_forward::{RollForward, RollForwardError};
use crate::ledger::DefinitionError;
use crate::ledger::aside::{Aside, What};
use crate::protocol::BatchNumber;
use crate::reports::figures::{Delta, Key};
use crate::reports::store::{Offered, Offering, WriteOutcome};

/// Number of items of one report, all of them refused, from which on the table must be at fault and not the items.
const REFUSED_BY_THE_TABLE: usize = 20;

impl RollForward {
    /// Applies the batch's delta files, and sets refused items aside.
    pub(super) async fn report(&self, manifest: &Manifest) -> Result<(), RollForwardError> {
        self.under_definition_of(manifest).await?.apply_deltas(manifest).await
    }

    /// The same with the reports of the definition by which a batch was prepared. It may be another one than is in
    /// force now: what the batch has counted is as its own definition says.
    async fn under_definition_of(&self, manifest: &Manifest) -> Result<RollForward, RollForwardError> {
        let digest = manifest.definition.as_deref();
        if digest == Some(self.reports.plan().digest.as_str()) {
            return Ok(self.clone());
        }
        let plan = retry_until(&self.deadline, async || match self.ledger.plan_of(digest).await {
            Err(DefinitionError::Aws(error)) => Err(error),
            plan => Ok(plan),
        });
        let plan = plan.await?.map_err(|error| RollForwardError::Definition(error.to_string()))?;
        Ok(RollForward { reports: self.reports.of_plan(Arc::new(plan)), ..self.clone() })
    }

    async fn apply_deltas(&self, manifest: &Manifest) -> Result<(), RollForwardError> {
        let (batch, deadline) = (manifest.batch, &self.deadline);
        let registry = retry_until(deadline, async || self.ledger.registry().await).await?;
        let through = registry.applied_through().min(batch - 1);
        loop {
            let (offering, mut is_stale) = (Offering::default(), false);
            for file in &manifest.delta_files {
                match self.deltas(file).await? {
                    Ok(deltas) => {
                        let items = self.reports.apply((batch, through), 0, &deltas, &offering, deadline).await?;
                        self.set_refused_items_aside(batch, items).await?;
                    }
                    Err(error) => {
                        let what = What::Batch { key: file.key.clone() };
                        self.set_aside(vec![Aside::new(what, batch, &error.to_string())]).await?;
                    }
                }
                if offering.is_large().await {
                    is_stale |= self.offer(batch, &offering).await?;
                }
            }
            is_stale |= self.offer(batch, &offering).await?;
            if !is_stale {
                return Ok(());
            }
            // A rebuild of a day has come between: all items are read and offered again. None is counted again.
        }
    }

    /// Makes offers to the top lists, and sets aside the lists that are refused. Returns true if the offers are stale.
    async fn offer(&self, batch: BatchNumber, offering: &Offering) -> Result<bool, AwsError> {
        let Offered { is_stale, refused, .. } = self.reports.offer(batch, offering, &self.deadline).await?;
        let entries = refused.iter().map(|(list, reason)| Aside::top_list(list, batch, reason));
        self.set_aside(entries.collect()).await?;
        Ok(is_stale)
    }

    /// Reads the deltas of a file. The inner error is that of a file that is gone or damaged.
    pub async fn deltas(&self, file: &DeltaFile) -> Result<Result<Vec<Delta>, DeltaFileError>, AwsError> {
        match retry_until(&self.deadline, async || self.bucket.read_all(&file.key).await).await {
            Ok(bytes) => Ok(file.decode(&bytes, self.reports.plan())),
            Err(error) if error.kind == Kind::NotFound => Ok(Err(file.gone())),
            Err(error) => Err(error),
        }
    }

    async fn set_refused_items_aside(
        &self,
        batch: BatchNumber,
        outcomes: Vec<(Key, WriteOutcome)>,
    ) -> Result<(), RollForwardError> {
        for report in 0..self.reports.plan().reports.len() {
            let of_report = outcomes.iter().filter(|(key, _)| key.report == report);
            let (mut refused, mut count) = (Vec::new(), 0);
            for (key, outcome) in of_report {
                count += 1;
                if let WriteOutcome::Refused(reason) = outcome {
                    refused.push((key, reason));
                }
            }
            if let [(_, reason), ..] = refused[..]
                && refused.len() == count
                && count >= REFUSED_BY_THE_TABLE
            {
                let table = self.reports.table(report);
                return Err(RollForwardError::TableRefuses { table, count, reason: reason.clone() });
            }
            let entries =
                refused.into_iter().map(|(key, reason)| Aside::item(key, self.reports.plan(), batch, reason)).collect();
            self.set_aside(entries).await?;
        }
        Ok(())
    }
}
