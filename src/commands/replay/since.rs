//! The past of reports that are new: a rebuild of days before a report begins lets it begin earlier.
//!
//! A report counts whole periods only. So it begins with the earliest of the days, and all later ones before its
//! present beginning are rebuilt too, those that have rows. The change is that of the definition in force: batches that
//! were opened before are prepared again, and count these days from then on. Until all of these days are rebuilt, the
//! registry says so, and each rebuild goes on with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Replay, ReplayError};
use crate::calendar::date_text;
use crate::commands::format::print;
use crate::layout;
use crate::plan::period::Period;
use crate::protocol::InForce;

impl Replay {
    /// Lets reports that begin later begin with the first of these days. Returns the days that are to be rebuilt too:
    /// also those of an earlier rebuild that did not end.
    pub(super) async fn count_from(&mut self, days: &[i32]) -> Result<Vec<i32>, ReplayError> {
        let Some(&first) = days.iter().min() else { return Ok(Vec::new()) };
        let in_force = self.ledger.registry().await?.definition;
        let (mut since, mut filling) = (in_force.since.clone(), in_force.filling.clone());
        for (index, report) in self.plan.reports.iter().enumerate() {
            let Some(begins) = self.plan.since[index] else { continue };
            if let Some(earlier) = self.plan.periods_of(report, first).first().filter(|earlier| **earlier < begins) {
                print(&format!("{} counts from {earlier} on, and no longer from {begins}", report.with_table()));
                since.insert(report.table.clone(), earlier.to_string());
                filling.entry(report.table.clone()).or_insert(begins.to_string());
            }
        }
        if since != in_force.since {
            self.redefine(&in_force, InForce { since, filling: filling.clone(), ..in_force.clone() }).await?;
        }
        let mut others = Vec::new();
        for (index, report) in self.plan.reports.iter().enumerate() {
            let until = filling.get(&report.table).and_then(|period| Period::parse(period));
            let (Some(from), Some(until)) = (self.plan.since[index], until) else { continue };
            for day in self.plan.day_of(from)..=self.plan.day_of(until) {
                if !self.bucket.list(&layout::curated_prefix(&date_text(day))).await?.is_empty() {
                    others.push(day);
                }
            }
        }
        Ok(others)
    }

    /// Records that the past of all reports is rebuilt, back to where they begin.
    pub(super) async fn end_filling(&mut self) -> Result<(), ReplayError> {
        let in_force = self.ledger.registry().await?.definition;
        if in_force.filling.is_empty() {
            return Ok(());
        }
        self.redefine(&in_force, InForce { filling: BTreeMap::new(), ..in_force.clone() }).await
    }

    async fn redefine(&mut self, seen: &InForce, next: InForce) -> Result<(), ReplayError> {
        let next = InForce { change: seen.change + 1, ..next };
        if !self.ledger.redefine(seen, &next).await? {
            return Err(ReplayError::Redefined);
        }
        let plan = self.ledger.plan_in_force(&next).await;
        self.plan = plan.map_err(|error| ReplayError::Plan(error.to_string()))?;
        self.reports = self.reports.of_plan(Arc::clone(&self.plan));
        Ok(())
    }
}
