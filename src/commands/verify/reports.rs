//! The comparison of report items with the sums of a day's curated rows.

use std::collections::HashSet;
use std::pin::pin;

use futures::StreamExt;

use crate::aws::item::Item;
use crate::calendar::date_text;
use crate::protocol::BatchNumber;
use crate::reports::figures::{Key, Report};
use crate::reports::item::{PublishedFigures, applied_of, is_empty, parse_key};
use crate::reports::store::READ_ITEMS;

use super::expected::{Expected, Partition};
use super::{Auditor, VerifyError};

/// A comparison of the items of a day with its curated rows.
pub(super) struct Comparison<'a> {
    pub(super) auditor: &'a mut Auditor,
    pub(super) day: i32,
    pub(super) through: BatchNumber,
    pub(super) partition: Partition,
    pub(super) expected: Expected,
    /// Items to compare with the table, with the expected figures.
    pub(super) suspects: Vec<(Key, Option<PublishedFigures>)>,
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
                for report in Report::ALL {
                    self.compare_items(report).await?;
                }
            }
        }
        self.check_suspects().await
    }

    async fn compare_items(&mut self, report: Report) -> Result<(), VerifyError> {
        if self.auditor.scan {
            let reports = self.auditor.reports.clone();
            let mut items = pin!(reports.scan(report, self.day));
            while let Some(item) = items.next().await.transpose()? {
                if let Some(key) = parse_key(report, &item)
                    && self.partition.has(report, &key.id, key.day)
                    && !self.expected.has(&key)
                {
                    self.suspect(key, None).await?;
                }
            }
        }
        for key in self.expected.unseen(report, self.day) {
            let expected = self.expected.see(&key);
            self.suspect(key, expected).await?;
        }
        Ok(())
    }

    async fn suspect(&mut self, key: Key, expected: Option<PublishedFigures>) -> Result<(), VerifyError> {
        self.suspects.push((key, expected));
        if self.suspects.len() >= READ_ITEMS { self.check_suspects().await } else { Ok(()) }
    }

    /// Compares items with the table.
    async fn check_suspects(&mut self) -> Result<(), VerifyError> {
        let suspects = std::mem::take(&mut self.suspects);
        let items = self.auditor.reports.read(&suspects.iter().map(|(key, _)| key).collect::<Vec<_>>()).await?;
        for (key, expected) in &suspects {
            let item = items.get(key).filter(|item| !is_empty(item));
            let found = item.and_then(|item| PublishedFigures::read(key.report, item));
            if item.is_some() == expected.is_some() && found == *expected {
                self.auditor.findings.items += u64::from(item.is_some());
            } else if has_changed(item, self.through) {
                self.changing.insert(key.clone());
            } else {
                let about =
                    format!("{} of {} in {}", key.id, date_text(key.day), self.auditor.reports.table(key.report));
                let found = match item {
                    Some(_) => found
                        .map_or("an item in a form that this program does not write".to_owned(), |it| it.to_string()),
                    None => "no item".to_owned(),
                };
                self.auditor.findings.difference(about, shown(*expected, "no item"), found);
            }
        }
        Ok(())
    }
}

/// Returns true if an item has a batch above `through`: one that was not finished when the curated files were listed.
pub(super) fn has_changed(item: Option<&Item>, through: BatchNumber) -> bool {
    item.and_then(applied_of).is_some_and(|applied| applied.newest() > through)
}

fn shown(visible: Option<PublishedFigures>, none: &str) -> String {
    visible.map_or(none.to_owned(), |visible| visible.to_string())
}
