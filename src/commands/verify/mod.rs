//! `music-streams verify`: the auditor. Recomputes a day's reports from what was published, and holds everything against
//! everything else.
//!
//! For each day, three independent accounts of the same listens must agree: the archived originals, the curated Parquet,
//! and the report tables.
//!
//! * Every report item and every listing shows the fold of the curated rows, and there is no other item (I2).
//! * Every batch with rows of the day did happen; its archived files, read and cleansed anew, give exactly its curated rows
//!   of the day and as many rejected rows as are listed; its track deltas sum up to the curated rows (I3, I4).
//! * Every object of such a batch lies in the one place that the batch gave it, and was counted by one batch (I1).
//!
//! The fold here is a plain one and shares nothing with the batch's. It may run beside consumers at work: what changes
//! during the audit is looked at again, and what does not settle is said and not judged. Memory is bounded: when the items
//! are too many, those of a half, a quarter and so on are folded at a time, which reads the files as often. Writes nothing.

mod batches;
mod expected;
mod reports;

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, Hash};

use clap::Args;
use foldhash::quality::FixedState;
use futures::{StreamExt, TryStreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::io::AsyncWriteExt;

use crate::aws::Clients;
use crate::aws::error::AwsError;
use crate::aws::s3::Bucket;
use crate::calendar::{date_text, day_of, parse_date, parse_day};
use crate::commands::format::{Format, printable, say};
use crate::compute::curated;
use crate::layout;
use crate::ledger::aside::{Aside, What};
use crate::ledger::{LEDGER_TABLE, Ledger};
use crate::protocol::BatchNumber;
use crate::reports::store::Reports;
use crate::telemetry::progress::Progress;

use batches::Digest;
use expected::{Expected, Partition};
use reports::Comparison;

/// Looks at items that changed during the audit, before they are left unjudged.
const LOOKS: usize = 3;

/// What to verify.
#[derive(Debug, Args)]
pub struct VerifyQuery {
    /// Day (UTC) to verify; may be given several times
    #[arg(long = "date", required = true, value_parser = parse_day, value_name = "YYYY-MM-DD")]
    days: Vec<i32>,

    /// Bucket with the curated, archived and quarantined files
    #[arg(long, env = "MUSIC_STREAMS_BUCKET", value_name = "NAME")]
    bucket: String,

    /// Put before the name of every table
    #[arg(long, env = "MUSIC_STREAMS_TABLE_PREFIX", value_name = "TEXT", default_value = "")]
    table_prefix: String,

    /// Report items in memory at a time; with more, the curated files are read several times
    ///
    /// Some 500 bytes each where listeners are few, 8 KiB at the most.
    #[arg(long, default_value_t = 250_000, value_parser = clap::value_parser!(u32).range(1..), value_name = "COUNT")]
    max_report_items: u32,

    /// Lines for people, or JSON Lines for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Why the audit did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A call failed.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// A curated file cannot be kept on disk while it is read.
    #[error(
        "a temporary file cannot be written ({0}); set TMPDIR to a folder with room for three of the largest curated files"
    )]
    TemporaryFile(std::io::Error),
    /// There is something wrong with the figures.
    #[error("{0} differences")]
    Differences(u64),
}

impl VerifyQuery {
    /// Verifies, and prints what it finds as it finds it.
    pub async fn run(mut self, clients: Clients) -> Result<(), VerifyError> {
        self.days.sort_unstable();
        self.days.dedup();
        let ledger = format!("{}{LEDGER_TABLE}", self.table_prefix);
        let ledger = Ledger::new(clients.dynamodb.clone(), ledger, String::new());
        let at_the_start = ledger.registry().await?;
        let mut auditor = Auditor {
            ledger,
            bucket: Bucket::new(clients.s3, self.bucket.clone()),
            reports: Reports::new(clients.dynamodb, self.table_prefix.clone(), 1, None, Progress::default()),
            max_items: self.max_report_items as usize,
            findings: Findings { format: self.format, ..Findings::new() },
            published: BTreeMap::new(),
        };
        let (aside, _) = auditor.ledger.aside(usize::MAX).await?;
        let aside: Vec<Aside> = aside.into_iter().map(|(_, entry)| entry).collect();
        for &day in &self.days {
            auditor.verify_day(day).await?;
            auditor.tell_aside(day, &aside);
        }
        auditor.verify_batches(&self.days, &at_the_start, &aside).await?;
        auditor.findings.conclude()
    }
}

// ---------------------------------------------------------------------------------------------- findings

/// What was looked at, and what was found.
struct Findings {
    format: Format,
    progress: ProgressBar,
    differences: u64,
    curated_rows: u64,
    items: u64,
    listings: u64,
    batches: u64,
    archived_files: u64,
}

impl Findings {
    fn new() -> Self {
        let style = ProgressStyle::with_template("{msg:<24} [{bar:40}] {bytes} of {total_bytes}, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        Findings {
            format: Format::Table,
            progress: ProgressBar::new(0).with_style(style),
            differences: 0,
            curated_rows: 0,
            items: 0,
            listings: 0,
            batches: 0,
            archived_files: 0,
        }
    }

    fn begin(&self, what: String, bytes: u64) {
        self.progress.reset();
        self.progress.set_length(bytes);
        self.progress.set_message(what);
    }

    fn print(&self, line: &str) {
        self.progress.suspend(|| say(line));
    }

    /// Two accounts disagree.
    fn difference(&mut self, about: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) {
        self.differences += 1;
        let (about, expected, found) = (about.into(), expected.into(), found.into());
        self.print(&match self.format {
            Format::Table => printable(&format!("DIFFERENCE {about}: expected {expected}; found {found}")),
            Format::Json => {
                serde_json::json!({"difference": {"about": about, "expected": expected, "found": found}}).to_string()
            }
        });
    }

    /// Something that could not be judged.
    fn note(&self, note: impl Into<String>) {
        let note = note.into();
        self.print(&match self.format {
            Format::Table => printable(&format!("note: {note}")),
            Format::Json => serde_json::json!({ "note": note }).to_string(),
        });
    }

    fn conclude(self) -> Result<(), VerifyError> {
        self.progress.finish_and_clear();
        let Findings { differences, curated_rows, items, listings, batches, archived_files, .. } = self;
        match self.format {
            Format::Table => say(&format!(
                "{curated_rows} curated rows, {items} report items, {listings} listings, {archived_files} archived files of {batches} \
                 batches: {}",
                if differences == 0 { "all agree".to_owned() } else { format!("{differences} differences") }
            )),
            Format::Json => say(&serde_json::json!({"summary": {
                "curated_rows": curated_rows, "report_items": items, "listings": listings, "batches": batches,
                "archived_files": archived_files, "differences": differences,
            }})
            .to_string()),
        }
        if differences == 0 { Ok(()) } else { Err(VerifyError::Differences(differences)) }
    }
}

// ---------------------------------------------------------------------------------------------- the audit

/// A curated file of a day.
#[derive(Debug, Clone)]
struct CuratedFile {
    key: String,
    bytes: u64,
    batch: BatchNumber,
}

struct Auditor {
    ledger: Ledger,
    bucket: Bucket,
    reports: Reports,
    max_items: usize,
    findings: Findings,
    /// The curated rows of each batch and verified day.
    published: BTreeMap<BatchNumber, BTreeMap<i32, Digest>>,
}

impl Auditor {
    /// Holds the report tables against the curated files of a day.
    async fn verify_day(&mut self, day: i32) -> Result<(), VerifyError> {
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
    fn tell_aside(&mut self, day: i32, aside: &[Aside]) {
        for entry in aside {
            let is_of_day = match &entry.what {
                What::ReportItem { .. } => entry.report_item().is_some_and(|key| key.day == day),
                What::Upload { upload } => layout::date_of_curated(&upload.key).and_then(parse_date) == Some(day),
                // Of which days it has rows, nobody knows.
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
            let read = curated::read_rows(content, |row| {
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

fn hash(value: impl Hash) -> u64 {
    FixedState::default().hash_one(value)
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
