//! The comparison of report items with the sums of a day's curated rows.

use std::collections::HashSet;
use std::pin::pin;

use futures::StreamExt;

use crate::aws::item::Item;
use crate::definition::reports::Report;
use crate::protocol::BatchNumber;
use crate::reports::figures::Key;
use crate::reports::item::{applied_of, is_empty, parse_key};
use crate::reports::store::READ_ITEMS;

use aws_sdk_dynamodb::types::AttributeValue;

use super::expected::{Expected, Partition, Published};
use super::{Auditor, VerifyError};

/// A comparison of the items of a day with its curated rows.
pub(super) struct Comparison<'a> {
    pub(super) auditor: &'a mut Auditor,
    pub(super) day: i32,
    pub(super) through: BatchNumber,
    pub(super) partition: Partition,
    pub(super) expected: Expected<'a>,
    /// Items to compare with the table, with the expected figures.
    pub(super) suspects: Vec<(Key, Option<Published>)>,
    /// Items that changed in the meantime.
    pub(super) changing: &'a mut HashSet<Key>,
}

impl Comparison<'_> {
    pub(super) async fn run(mut self) -> Result<(), VerifyError> {
        match self.partition.clone() {
            Partition::Only(keys) => {
                for key in keys {
                    let expected = self.expected.see(&key);
                    self.suspect(key, expected).await?;
                }
            }
            Partition::Part { .. } => {
                for report in 0..self.auditor.plan.reports.len() {
                    self.compare_items(report).await?;
                }
            }
        }
        self.check_suspects().await
    }

    async fn compare_items(&mut self, report: usize) -> Result<(), VerifyError> {
        if self.auditor.scan {
            let reports = self.auditor.reports.clone();
            let mut items = pin!(reports.scan(report, self.day));
            while let Some(item) = items.next().await.transpose()? {
                if let Some(key) = parse_key(&self.auditor.plan.reports[report], report, &item)
                    && self.auditor.plan.day_of(key.period) == self.day
                    && self.partition.has(report, &key.id, key.period)
                    && !self.expected.has(&key)
                {
                    self.suspect(key, None).await?;
                }
            }
        }
        for key in self.expected.unseen(report) {
            let expected = self.expected.see(&key);
            self.suspect(key, expected).await?;
        }
        Ok(())
    }

    async fn suspect(&mut self, key: Key, expected: Option<Published>) -> Result<(), VerifyError> {
        // Of an earlier definition, whose report had the same table.
        if !self.auditor.plan.counts(key.report, key.period) {
            return Ok(());
        }
        self.suspects.push((key, expected));
        if self.suspects.len() >= READ_ITEMS { self.check_suspects().await } else { Ok(()) }
    }

    /// Compares items with the table.
    async fn check_suspects(&mut self) -> Result<(), VerifyError> {
        let suspects = std::mem::take(&mut self.suspects);
        let items = self.auditor.reports.read(&suspects.iter().map(|(key, _)| key).collect::<Vec<_>>()).await?;
        for (key, expected) in suspects {
            let report = &self.auditor.plan.reports[key.report];
            let item = items.get(&key).filter(|item| !is_empty(report, item));
            let written = &self.auditor.plan.definition.reports[key.report];
            let found = item.map(|item| published_of(written, item));
            if self.auditor.agree(expected.as_ref(), found.as_ref()) {
                self.auditor.findings.items += u64::from(item.is_some());
            } else if has_changed(item, self.through) {
                self.changing.insert(key);
            } else {
                let about = format!("{} of {} in {}", key.id, key.period, self.auditor.reports.table(key.report));
                let (expected, found) = (shown(written, expected), shown(written, found));
                self.auditor.findings.difference(about, expected, found);
            }
        }
        Ok(())
    }
}

impl Auditor {
    /// Returns true if an item, or an entry of a list, shows what it must. Once the definition has changed, it may lack
    /// a measure that its first batches did not have.
    pub(super) fn agree(&self, expected: Option<&Published>, found: Option<&Published>) -> bool {
        match (expected, found) {
            (Some(expected), Some(found)) if self.has_changed_definition => {
                expected.len() == found.len()
                    && expected.iter().zip(found).all(|(expected, found)| found.is_none() || expected == found)
                    && found.iter().any(Option::is_some)
            }
            _ => expected == found,
        }
    }
}

/// Returns the figures that an item shows.
pub(super) fn published_of(report: &Report, item: &Item) -> Published {
    let text = |value: &AttributeValue| match value {
        AttributeValue::N(number) => number.clone(),
        AttributeValue::S(text) => text.clone(),
        AttributeValue::Null(_) => "NULL".to_owned(),
        _ => "a value of another type".to_owned(),
    };
    report.measures.iter().map(|measure| item.get(&measure.name).map(text)).collect()
}

/// Returns true if an item has a batch above `through`: one that was not finished when the curated files were listed.
pub(super) fn has_changed(item: Option<&Item>, through: BatchNumber) -> bool {
    item.and_then(applied_of).is_some_and(|applied| applied.newest() > through)
}

/// Formats figures for people.
pub(super) fn shown(report: &Report, published: Option<Published>) -> String {
    let Some(published) = published else { return "no item".to_owned() };
    let figures = report.measures.iter().zip(published);
    let text = figures.map(|(measure, value)| format!("{} {}", measure.name, value.as_deref().unwrap_or("missing")));
    text.collect::<Vec<_>>().join(", ")
}
