//! The past of reports that are new: a rebuild of days before a report begins lets it begin earlier.
//!
//! A report counts whole periods only. So it begins with the earliest of the days, and all later ones before its
//! present beginning are rebuilt too, those that have rows. The change is that of the definition in force: batches that
//! were opened before are prepared again, and count these days from then on.

use std::sync::Arc;

use super::{Replay, ReplayError};
use crate::calendar::date_text;
use crate::commands::format::print;
use crate::layout;
use crate::protocol::InForce;

impl Replay {
    /// Lets reports that begin later begin with the first of these days. Returns the days that are to be rebuilt too.
    pub(super) async fn count_from(&mut self, days: &[i32]) -> Result<Vec<i32>, ReplayError> {
        let Some(&first) = days.iter().min() else { return Ok(Vec::new()) };
        let in_force = self.ledger.registry().await?.definition;
        let (mut since, mut last) = (in_force.since.clone(), first);
        for (index, report) in self.plan.reports.iter().enumerate() {
            let Some(begins) = self.plan.since[index] else { continue };
            let begins_on = self.plan.day_of(begins);
            if let Some(earlier) = self.plan.periods_of(report, first).first().filter(|earlier| **earlier < begins) {
                print(&format!("{} counts from {earlier} on, and no longer from {begins}", report.name));
                since.insert(report.table.clone(), earlier.to_string());
                last = last.max(begins_on);
            }
        }
        if since == in_force.since {
            return Ok(Vec::new());
        }
        let next = InForce { change: in_force.change + 1, since, ..in_force.clone() };
        if !self.ledger.redefine(&in_force, &next).await? {
            return Err(ReplayError::Redefined);
        }
        self.plan = Arc::new(self.plan.since(&next.since).map_err(|error| ReplayError::Plan(error.to_string()))?);
        self.reports = self.reports.of_plan(Arc::clone(&self.plan));
        let mut others = Vec::new();
        for day in first..=last {
            if !self.bucket.list(&layout::curated_prefix(&date_text(day))).await?.is_empty() {
                others.push(day);
            }
        }
        Ok(others)
    }
}
