//! The comparison of a day in the table of the curated files with the files of its batches.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::day::ListedFile;
use super::{Auditor, VerifyError};
use crate::calendar::date_text;
use crate::formats::delta::action::Add;
use crate::formats::delta::stats::Stats;
use crate::lake::batches::{batches_of, ranges};
use crate::layout;
use crate::protocol::{BatchNumber, Registry};

/// Looks for batches that were finished a moment ago, and the pause between two.
const LOOKS: usize = 15;
const PAUSE: Duration = Duration::from_secs(1);

impl Auditor {
    /// Reads the table, and waits until it has what was finished a moment ago. Returns false if there is no table.
    async fn read_table(&mut self, registry: &Registry) -> Result<bool, VerifyError> {
        for _ in 0..LOOKS {
            let is_there = self.lake.refresh().await?;
            if is_there && self.lake.late(registry).await? == 0 {
                return Ok(true);
            }
            tokio::time::sleep(PAUSE).await;
        }
        let is_there = self.lake.snapshot().version.is_some();
        if is_there {
            let late = self.lake.late(registry).await?;
            self.findings.difference("the table of the curated files", "every finished batch", format!("{late} fewer"));
        }
        Ok(is_there)
    }

    /// Returns the files of a day in the table, with their sizes.
    pub(super) async fn files_in_table(
        &mut self,
        day: i32,
        registry: &Registry,
    ) -> Result<Vec<ListedFile>, VerifyError> {
        if !self.read_table(registry).await? {
            return Err(VerifyError::NoTable);
        }
        let file = |add: &Add| {
            let batch = layout::batch_of_curated(&add.path);
            ListedFile {
                key: format!("{}{}", layout::CURATED, add.path),
                bytes: add.size,
                batch,
                is_unfinished: batch.is_some_and(|batch| registry.batches.contains_key(&batch)),
            }
        };
        Ok(self.lake.snapshot().files_of(&date_text(day)).map(file).collect())
    }

    /// Compares the table with the curated files of a day, which were read before.
    pub(super) async fn verify_table(&mut self, day: i32, registry: &Registry) -> Result<(), VerifyError> {
        if !self.read_table(registry).await? {
            if !self.published.is_empty() {
                self.findings.note("there is no table of the curated files yet; a consumer that runs makes it");
            }
            return Ok(());
        }
        let day_text = date_text(day);
        // Later ones may have come since the files were listed.
        let (applied, through) = (self.lake.snapshot().applied(), registry.applied_through());
        let rows_of: BTreeMap<BatchNumber, u64> = self
            .published
            .range(..=through)
            .filter_map(|(&batch, days)| Some((batch, days.get(&day)?.rows)))
            .filter(|(batch, _)| applied.contains(*batch))
            .collect();
        let about = |what: &str| format!("{what} of {day_text} in the table");
        let adds: Vec<_> = self.lake.snapshot().files_of(&day_text).cloned().collect();
        let (mut seen, mut whole, mut rows) = (BTreeSet::new(), BTreeSet::new(), 0);
        for add in &adds {
            let batches = batches_of(add);
            if batches.is_empty() {
                self.findings.difference(about(&add.path), "files of this program only", "a file of another writer");
            }
            // Several files of a batch, of very many days, have no tag.
            for &batch in batches.iter().filter(|batch| !seen.insert(**batch) && add.tags.is_some()) {
                self.findings.difference(about(&format!("rows of batch {batch}")), "once", "in several files");
            }
            if batches.iter().all(|&batch| batch <= through) {
                rows += Stats::rows_of(add.stats.as_deref()).unwrap_or(0);
                whole.extend(batches);
            }
            let written = self.bucket.written(&format!("{}{}", layout::CURATED, add.path)).await?;
            match written {
                Some(written) if written.bytes == add.size => {}
                Some(written) => self.findings.difference(
                    about(&add.path),
                    format!("{} bytes", add.size),
                    format!("{} bytes", written.bytes),
                ),
                None => self.findings.difference(about(&add.path), "a file that is there", "none"),
            }
        }
        seen.retain(|&batch| batch <= through);
        let expected: BTreeSet<BatchNumber> = rows_of.keys().copied().collect();
        if seen != expected {
            let (expected, seen) = (ranges(&expected), ranges(&seen));
            self.findings.difference(about("batches"), expected, seen);
        }
        let expected: u64 = whole.iter().filter_map(|batch| rows_of.get(batch)).sum();
        if rows != expected {
            self.findings.difference(about("rows"), expected.to_string(), rows.to_string());
        }
        Ok(())
    }
}
