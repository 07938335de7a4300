//! `music-streams verify`: the audit of a day. Recomputes its reports from what was published, and compares all
//! accounts.
//!
//! For each day, three independent accounts of the same rows must agree: the archived originals, the curated
//! Parquet, and the report tables.
//!
//! * Every report item shows the fold of the curated rows, and every top list the best of them (I2). With `--scan`,
//!   there is no other item.
//! * Every batch with rows of the day was carried out. Its archived files, read and cleansed again, give exactly its
//!   curated rows of the day, and as many rejected rows as are listed. Its deltas add up to the curated rows (I3,
//!   I4).
//! * The table of the curated files has each batch of the day once, and as many rows. With `--table`, the reports are
//!   recomputed from its files.
//! * Every object of such a batch lies in the one place that the batch gave it, and was counted by one batch (I1).
//!
//! The fold here is a plain one of the definition as it is written, and has no code in common with the batch's. The
//! audit may run beside consumers at work: items that change in the meantime are compared again, and those that keep
//! changing are named and not judged. Memory is bounded: if a day has too many items, a half, a quarter and so on of
//! them are folded at a time, and the files are read that often. Writes nothing. Covered by
//! tests/pipeline/operators.rs.
//!
//! | file | contents |
//! |---|---|
//! | `day` | the report tables compared with a day's curated files |
//! | `expected` | the fold of the curated rows, by partitions of the items |
//! | `row` | curated rows with their definition |
//! | `reports` | the comparison of items with that fold |
//! | `lists` | the comparison of top lists with it |
//! | `batches` | the batches compared with what they archived |
//! | `table` | the table of the curated files compared with them |
//! | `findings` | differences, notes and the summary |

mod batches;
mod day;
mod expected;
mod findings;
mod lists;
mod reports;
mod row;
mod table;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use clap::Args;
use foldhash::quality::FixedState;

use crate::aws::Clients;
use crate::aws::error::AwsError;
use crate::aws::s3::Bucket;
use crate::calendar::parse_day;
use crate::commands::format::Format;
use crate::commands::resources::{Resources, Tables};
use crate::lake::{Lake, LakeError};
use crate::ledger::Ledger;
use crate::ledger::aside::Aside;
use crate::plan::Plan;
use crate::protocol::BatchNumber;
use crate::reports::store::Reports;

use batches::Digest;
pub use expected::recounted;
use findings::Findings;

/// The arguments of `music-streams verify`.
#[derive(Debug, Args)]
pub struct VerifyQuery {
    /// Day to verify, in the definition's zone; may be given several times
    #[arg(long = "date", required = true, value_parser = parse_day, value_name = "YYYY-MM-DD")]
    days: Vec<i32>,

    #[command(flatten)]
    resources: Resources,

    /// Report items in memory at a time; with more, the curated files are read several times
    ///
    /// An item takes some 500 bytes if it counts few ids, and at most 8 KiB for each distinct count.
    #[arg(long, default_value_t = 250_000, value_parser = clap::value_parser!(u32).range(1..), value_name = "COUNT")]
    max_report_items: u32,

    /// Also look through the whole report tables for items of the day that no row explains
    ///
    /// A scan reads every item of every day, and is charged for that.
    #[arg(long)]
    scan: bool,

    /// Recompute the reports from the table of the curated files, as its log has it
    ///
    /// Otherwise they are recomputed from the files of batches, with which the archived files are compared as well.
    #[arg(long)]
    table: bool,

    /// Lines for people, or JSON Lines for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// An error of `music-streams verify`.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A call failed.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// A curated file cannot be copied to disk.
    #[error(
        "a temporary file cannot be written ({0}); set TMPDIR to a folder with room for the three largest curated files"
    )]
    TemporaryFile(std::io::Error),
    /// The table of the curated files cannot be read.
    #[error(transparent)]
    Table(#[from] LakeError),
    /// There is no table.
    #[error("there is no table of the curated files yet; a consumer that runs makes it")]
    NoTable,
    /// Accounts differ.
    #[error("{0} differences")]
    Differences(u64),
}

impl VerifyQuery {
    /// The pipeline's tables.
    pub fn tables(&self) -> &Tables {
        self.resources.tables()
    }

    /// Verifies the days, and prints each finding at once.
    pub async fn run(mut self, clients: Clients, plan: Arc<Plan>) -> Result<(), VerifyError> {
        self.days.sort_unstable();
        self.days.dedup();
        let ledger = self.resources.tables.ledger(&clients, "");
        let at_the_start = ledger.registry().await?;
        let mut auditor = Auditor {
            ledger: ledger.clone(),
            bucket: self.resources.bucket(&clients),
            reports: self.resources.tables.reports(&clients, &plan, 1, None),
            plan,
            max_items: self.max_report_items as usize,
            scan: self.scan,
            from_table: self.table,
            lake: Lake::new(self.resources.bucket(&clients), ledger.clone()),
            has_changed_definition: at_the_start.definition.change > 0,
            findings: Findings::new(self.format),
            published: BTreeMap::new(),
        };
        let (aside, _) = auditor.ledger.aside(usize::MAX).await?;
        let aside: Vec<Aside> = aside.into_iter().map(|(_, entry)| entry).collect();
        for &day in &self.days {
            auditor.verify_day(day).await?;
            auditor.report_aside(day, &aside);
        }
        auditor.verify_batches(&self.days, &at_the_start, &aside).await?;
        auditor.findings.conclude()
    }
}

/// An audit under way.
struct Auditor {
    ledger: Ledger,
    bucket: Bucket,
    reports: Reports,
    plan: Arc<Plan>,
    max_items: usize,
    /// Look for items that should not be there.
    scan: bool,
    /// Read the table's files, and not those of batches.
    from_table: bool,
    lake: Lake,
    /// Another definition was in force before, so that items may lack what this one gained.
    has_changed_definition: bool,
    findings: Findings,
    /// The curated rows of each batch and verified day.
    published: BTreeMap<BatchNumber, BTreeMap<i32, Digest>>,
}

/// Returns a hash that is the same in every process.
fn hash(value: impl Hash) -> u64 {
    FixedState::default().hash_one(value)
}
