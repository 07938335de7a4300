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
mod day;
mod expected;
mod findings;
mod reports;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash};

use clap::Args;
use foldhash::quality::FixedState;

use crate::aws::Clients;
use crate::aws::error::AwsError;
use crate::aws::s3::Bucket;
use crate::calendar::parse_day;
use crate::commands::format::Format;
use crate::ledger::aside::Aside;
use crate::ledger::{LEDGER_TABLE, Ledger};
use crate::protocol::BatchNumber;
use crate::reports::store::Reports;
use crate::telemetry::progress::Progress;

use batches::Digest;
use findings::Findings;

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

struct Auditor {
    ledger: Ledger,
    bucket: Bucket,
    reports: Reports,
    max_items: usize,
    findings: Findings,
    /// The curated rows of each batch and verified day.
    published: BTreeMap<BatchNumber, BTreeMap<i32, Digest>>,
}

fn hash(value: impl Hash) -> u64 {
    FixedState::default().hash_one(value)
}
