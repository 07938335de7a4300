//! The comparison of a day's report tables with its curated files.

use std::collections::HashSet;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use jiff::tz::TimeZone;

use super::batches::Digest;
use super::expected::{Expected, Partition};
use super::lists::ExpectedLists;
use super::reports::Comparison;
use super::row::{AuditedRow, curated_columns};
use super::{Auditor, VerifyError};
use crate::aws::error::AwsError;
use crate::calendar::{date_text, parse_date};
use crate::compute::curated;
use crate::layout;
use crate::ledger::aside::{Aside, What};
use crate::plan::Plan;
use crate::protocol::{BatchNumber, Registry};

/// The number of attempts at items that change during the audit.
const ATTEMPTS: usize = 3;

/// A curated file of a day, as listed.
#[derive(Debug, Clone)]
pub(super) struct ListedFile {
    pub(super) key: String,
    pub(super) bytes: u64,
    /// Its batch; `None` for a file of several.
    pub(super) batch: Option<BatchNumber>,
    /// Its batch is not finished: the report items may have its rows or not.
    pub(super) is_unfinished: bool,
}

impl Auditor {
    /// Compares the report tables with the curated files of a day.
    pub(super) async fn verify_day(&mut self, day: i32) -> Result<(), VerifyError> {
        let mut changing = HashSet::new();
        for attempt in 0..ATTEMPTS {
            let partition = match attempt {
                0 => Partition::Part { modulus: 1, remainder: 0 },
                _ if changing.is_empty() => return Ok(()),
                _ => Partition::Only(std::mem::take(&mut changing)),
            };
            // Batches up to here were finished before the files are listed, so the files have all their rows.
            let registry = self.ledger.registry().await?;
            let through = registry.applied_through();
            let files = match self.from_table {
                true => self.files_in_table(day, &registry).await?,
                false => self.curated_files(day, &registry, attempt == 0).await?,
            };
            let mut partitions = vec![partition];
            let mut is_first_pass = attempt == 0;
            let mut lists = ExpectedLists::default();
            while let Some(mut partition) = partitions.pop() {
                let plan = Arc::clone(&self.plan);
                let pass = (day, is_first_pass);
                let expected = self.fold(&plan, &files, pass, &mut partition, &mut partitions).await?;
                is_first_pass = false;
                if attempt == 0 {
                    lists.add(&expected, &plan);
                }
                Comparison {
                    auditor: self,
                    day,
                    through,
                    partition,
                    expected,
                    suspects: Vec::new(),
                    changing: &mut changing,
                }
                .run()
                .await?;
            }
            if attempt == 0 {
                self.verify_lists(day, lists, through).await?;
                if !self.from_table {
                    self.verify_table(day, &registry).await?;
                }
            }
        }
        if !changing.is_empty() {
            let (count, day) = (changing.len(), date_text(day));
            self.findings.note(format!("{count} items of {day} kept changing and were not judged; verify again later"));
        }
        Ok(())
    }

    /// Reports everything of a day that is set aside as a difference, whatever the tables show.
    pub(super) fn report_aside(&mut self, day: i32, aside: &[Aside]) {
        for entry in aside {
            let is_of_day = match &entry.what {
                What::ReportItem { .. } => {
                    let key = entry.report_item(&self.plan);
                    key.is_some_and(|key| self.plan.day_of(key.period) == day)
                }
                What::TopList { .. } => entry.top_list_key().is_some_and(|key| self.plan.day_of(key.period) == day),
                What::Upload { upload } => layout::date_of_curated(&upload.key).and_then(parse_date) == Some(day),
                // The days of its rows are unknown.
                What::Batch { .. } => true,
                What::Object { .. } | What::Original { .. } => false,
            };
            if is_of_day {
                let [kind, name, way_back] = entry.describe();
                let found = format!("set aside: {} ({way_back})", entry.reason);
                self.findings.difference(format!("{kind} {name}"), "in its place", found);
            }
        }
    }

    /// Lists the curated files of a day. Reports files of other names if `report` is true.
    async fn curated_files(
        &mut self,
        day: i32,
        registry: &Registry,
        report: bool,
    ) -> Result<Vec<ListedFile>, VerifyError> {
        let mut files = Vec::new();
        for (key, bytes) in self.bucket.list(&layout::curated_prefix(&date_text(day))).await? {
            match layout::batch_of_curated(&key) {
                Some(batch) => {
                    let is_unfinished = registry.batches.contains_key(&batch);
                    files.push(ListedFile { key, bytes, batch: Some(batch), is_unfinished });
                }
                None if report => self.findings.difference(key, "files of batches only", "a file of another name"),
                None => {}
            }
        }
        Ok(files)
    }

    /// Folds the rows of a day. While the partition has too many items, half of it is moved to `later`.
    async fn fold<'p>(
        &mut self,
        plan: &'p Plan,
        files: &[ListedFile],
        (day, is_first_pass): (i32, bool),
        partition: &mut Partition,
        later: &mut Vec<Partition>,
    ) -> Result<Expected<'p>, VerifyError> {
        let definition = &plan.definition;
        let columns = curated_columns(definition);
        self.findings.begin(format!("{} reports", date_text(day)), files.iter().map(|file| file.bytes).sum());
        let mut expected = Expected::new(definition, &plan.since);
        let bucket = self.bucket.clone();
        let mut downloads = futures::stream::iter(files)
            .map(|file| {
                let bucket = bucket.clone();
                async move { Ok::<_, VerifyError>((file, bucket.download(&file.key).await.map_err(failed_download)?)) }
            })
            .buffered(2);
        while let Some((file, content)) = downloads.try_next().await? {
            self.findings.progress.inc(file.bytes);
            let Some(content) = content else {
                self.findings.difference(&file.key, "a file that stays", "it was deleted during the audit");
                continue;
            };
            let mut digest = Digest::default();
            let mut strays = 0_u64;
            let read = curated::read_rows(content, &columns, |values| {
                let row = AuditedRow { definition, values };
                digest.add(row.of_file());
                strays += u64::from(day_in(&definition.zone, row.time()) != day);
                // An item that has them has a batch above `through`, and is not judged.
                if !file.is_unfinished {
                    expected.add(row, partition, day);
                }
                while expected.len() > self.max_items
                    && let Some(other) = partition.split()
                {
                    later.push(other);
                    expected.keep(partition);
                }
            });
            if !is_first_pass {
                continue;
            }
            if let Err(error) = read {
                self.findings.difference(&file.key, "a readable curated file", error.to_string());
            }
            if strays > 0 {
                self.findings.difference(&file.key, "rows of its day", format!("{strays} of other days"));
            }
            self.findings.curated_rows += digest.rows;
            if let Some(batch) = file.batch {
                self.published.entry(batch).or_default().entry(day).or_default().merge(digest);
            }
        }
        Ok(expected)
    }
}

/// The day that a clock in a zone shows at a time in microseconds, in days since the Unix epoch.
pub(super) fn day_in(zone: &TimeZone, micros: i64) -> i32 {
    let date = jiff::Timestamp::from_microsecond(micros).map(|time| zone.to_datetime(time).date()).unwrap_or_default();
    let since_epoch = date.since((jiff::Unit::Day, jiff::civil::date(1970, 1, 1)));
    since_epoch.map_or(0, |span| span.get_days())
}

/// The error of a copy to disk: of a call, or of the disk.
fn failed_download(error: std::io::Error) -> VerifyError {
    match std::io::Error::downcast::<AwsError>(error) {
        Ok(error) => error.into(),
        Err(error) => VerifyError::TemporaryFile(error),
    }
}
