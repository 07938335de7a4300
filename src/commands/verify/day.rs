//! The report tables of a day, held against its curated files.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt};
use tokio::io::AsyncWriteExt;

use super::batches::Digest;
use super::expected::{Expected, Partition};
use super::reports::Comparison;
use super::{Auditor, VerifyError};
use crate::aws::error::AwsError;
use crate::aws::s3::Bucket;
use crate::calendar::{date_text, day_of, parse_date};
use crate::compute::columnar;
use crate::layout;
use crate::ledger::aside::{Aside, What};
use crate::protocol::BatchNumber;

/// Looks at items that changed during the audit, before they are left unjudged.
const LOOKS: usize = 3;

/// A curated file of a day.
#[derive(Debug, Clone)]
struct CuratedFile {
    key: String,
    bytes: u64,
    batch: BatchNumber,
}
impl Auditor {
    /// Holds the report tables against the curated files of a day.
    pub(super) async fn verify_day(&mut self, day: i32) -> Result<(), VerifyError> {
        let mut changing = HashSet::new();
        for look in 0..LOOKS {
            let share = match look {
                0 => Partition::Part { modulus: 1, remainder: 0 },
                _ if changing.is_empty() => return Ok(()),
                _ => Partition::Only(std::mem::take(&mut changing)),
            };
            // Batches up to here were finished before the files are listed: all their rows are in them.
            let through = self.ledger.registry().await?.applied_through();
            let files = self.curated_files(day, look == 0).await?;
            let mut shares = vec![share];
            let mut is_first_pass = look == 0;
            while let Some(mut share) = shares.pop() {
                let expected = self.fold(day, &files, &mut share, &mut shares, is_first_pass).await?;
                is_first_pass = false;
                Comparison {
                    auditor: self,
                    day,
                    through,
                    share,
                    expected,
                    suspects: Vec::new(),
                    changing: &mut changing,
                }
                .run()
                .await?;
            }
        }
        if !changing.is_empty() {
            let (count, day) = (changing.len(), date_text(day));
            self.findings.note(format!("{count} items of {day} kept changing and were not judged; verify again later"));
        }
        Ok(())
    }

    /// What is set aside of a day's figures and files is a difference, whatever the tables show.
    pub(super) fn tell_aside(&mut self, day: i32, aside: &[Aside]) {
        for entry in aside {
            let is_of_day = match &entry.what {
                What::ReportItem { .. } => entry.report_item().is_some_and(|key| key.day == day),
                What::Upload { upload } => layout::date_of_curated(&upload.key).and_then(parse_date) == Some(day),
                // Of which days it has rows, nobody knows.
                What::Batch { .. } => true,
                What::Object { .. } | What::Original { .. } => false,
            };
            if is_of_day {
                let [kind, name, way_back] = entry.told();
                let found = format!("set aside: {} ({way_back})", entry.reason);
                self.findings.difference(format!("{kind} {name}"), "in its place", found);
            }
        }
    }

    async fn curated_files(&mut self, day: i32, say: bool) -> Result<Vec<CuratedFile>, VerifyError> {
        let mut files = Vec::new();
        for (key, bytes) in self.bucket.list(&layout::curated_prefix(&date_text(day))).await? {
            match layout::batch_of_curated(&key) {
                Some(batch) => files.push(CuratedFile { key, bytes, batch }),
                None if say => self.findings.difference(key, "files of batches only", "a file of another name"),
                None => {}
            }
        }
        Ok(files)
    }

    /// Folds the rows of a day. Gives away halves of the share, to be folded later, while it holds too many items.
    async fn fold(
        &mut self,
        day: i32,
        files: &[CuratedFile],
        share: &mut Partition,
        later: &mut Vec<Partition>,
        is_first_pass: bool,
    ) -> Result<Expected, VerifyError> {
        self.findings.begin(format!("{} reports", date_text(day)), files.iter().map(|file| file.bytes).sum());
        let mut expected = Expected::default();
        let bucket = self.bucket.clone();
        let mut downloads = futures::stream::iter(files)
            .map(|file| {
                let bucket = bucket.clone();
                async move { Ok::<_, VerifyError>((file, download(&bucket, &file.key).await?)) }
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
            let read = columnar::read_curated(content, |row| {
                digest.add(row.user_id, row.track_id, row.listen_time, row.source_key);
                strays += u64::from(day_of(row.listen_time) != day);
                expected.add(&row, share, day);
                while expected.len() > self.max_items
                    && let Some(other) = share.split()
                {
                    later.push(other);
                    expected.keep(share, day);
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
            self.published.entry(file.batch).or_default().entry(day).or_default().merge(digest);
        }
        Ok(expected)
    }
}

/// Keeps an object of our own on disk, where it can be read in any order. `None` when it is not there.
async fn download(bucket: &Bucket, key: &str) -> Result<Option<std::fs::File>, VerifyError> {
    let Some(object) = bucket.find(key).await? else { return Ok(None) };
    let copy = async {
        let mut file = tokio::fs::File::from_std(tempfile::tempfile()?);
        tokio::io::copy(&mut bucket.read(&object), &mut file).await?;
        file.flush().await?;
        let mut file = file.into_std().await;
        std::io::Seek::rewind(&mut file)?;
        Ok(file)
    };
    match copy.await {
        Ok(file) => Ok(Some(file)),
        Err(error) => Err(match std::io::Error::downcast::<AwsError>(error) {
            Ok(error) => error.into(),
            Err(error) => VerifyError::TemporaryFile(error),
        }),
    }
}
