//! `music-streams replay`: restores a day's reports from its archived files.
//!
//! The day's curated files identify the batches to replay; add a batch whose curated file is lost with `--batch`. Each
//! batch's source files come from its manifest, or from its archive folder once the manifest has expired. They are
//! read, cleansed and folded by the same code as in a batch.
//!
//! * **Replay** applies the figures of each batch again, by the same conditional writes as the batch itself: an item
//!   that has the batch stays as it is; one that has lost it, because it was deleted or restored to an earlier time,
//!   gets it back. While a batch's manifest is kept, its own delta files are applied.
//! * **Rebuild** ignores the figures of the items. Each item gets the figures of all finished batches, computed with
//!   the current catalogue, and the curated files are written again. It waits for batches at work, which may have begun
//!   with another catalogue. An item that gets a later batch in the meantime is left alone and tried again, so
//!   consumers are not disturbed.
//! * **Restore** ([`Replay::restore`]) gives selected items the figures that batches recorded for them: the way back
//!   for items that were set aside.
//!
//! All three may be interrupted at any time and repeated. An item that cannot be written is reported and does not stop
//! the others. Covered by tests/pipeline/replay.rs, and `restore` by tests/pipeline/refusals.rs.
//!
//! | file | contents |
//! |---|---|
//! | `apply` | replay: a day's batches, applied again |
//! | `rebuild` | rebuild: a day's items and curated files, replaced |
//! | `restore` | restore: selected items, replaced |
//! | `batches` | the batches that have rows of a day |
//! | `recorded` | the deltas that a batch recorded |
//! | `archive` | a batch's archived files and what they add up to |
//! | `figures` | sums and refusals |
//! | `error` | the errors |

mod apply;
mod archive;
mod batches;
mod error;
mod figures;
mod rebuild;
mod recorded;
mod restore;
mod since;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;

use bytesize::ByteSize;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::aws::Clients;
use crate::aws::s3::Bucket;
use crate::calendar::{date_text, parse_day};
use crate::commands::format::print;
use crate::commands::resources::{Resources, Tables};
use crate::ledger::Ledger;
use crate::memory::Memory;
use crate::plan::Plan;
use crate::protocol::BatchNumber;
use crate::reference::{self, References};
use crate::reports::store::Reports;

pub use error::ReplayError;

/// The number of attempts at items that consumers keep changing.
const ATTEMPTS: usize = 3;

/// The arguments of `music-streams replay`.
#[derive(Debug, Args)]
pub struct ReplayQuery {
    /// Day of the reports, in the definition's zone; may be given several times
    #[arg(long = "date", required = true, value_parser = parse_day, value_name = "YYYY-MM-DD")]
    days: Vec<i32>,

    /// Ignore the figures in the reports, and replace them by those of the archive and the current catalogue
    ///
    /// The curated files of the day are written again as well. Consumers may keep running.
    #[arg(long)]
    rebuild: bool,

    /// Also look through the whole report tables for items of the day that no row explains
    ///
    /// Without it, a rebuild finds such items where they are in a top list. A scan reads every item of every day, and
    /// is
    /// charged for that.
    #[arg(long, requires = "rebuild")]
    scan: bool,

    /// Include this batch, whose curated file of the day is lost; may be given several times
    ///
    /// Its number is in the name of the file, and of its folder in the archive. Only a rebuild restores the file
    /// itself.
    #[arg(long = "batch", value_name = "NUMBER")]
    lost: Vec<BatchNumber>,

    #[command(flatten)]
    resources: Resources,

    #[command(flatten)]
    limits: ReplayLimits,
}

/// Limits of a replay.
#[derive(Debug, Clone, Args)]
pub struct ReplayLimits {
    /// Memory that the process may use; a day whose figures need more is an error [default: the limit of its container,
    /// or 2GiB]
    #[arg(long, env = "MUSIC_STREAMS_MAX_MEMORY", value_name = "SIZE")]
    max_memory: Option<ByteSize>,

    /// Report items in memory at a time, those of a batch or of a rebuilt day; more are an error
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1000..))]
    max_report_items: u32,

    /// Report items written per second [default: no limit but that of the tables]
    #[arg(long, env = "MUSIC_STREAMS_MAX_WRITES_PER_SECOND", value_name = "COUNT")]
    max_writes_per_second: Option<NonZeroU32>,

    /// Report items written at the same time, rounded up to a multiple of 100
    #[arg(long, env = "MUSIC_STREAMS_WRITE_CONCURRENCY", value_name = "COUNT", default_value_t = 400)]
    write_concurrency: usize,
}

impl ReplayQuery {
    /// The pipeline's tables.
    pub fn tables(&self) -> &Tables {
        self.resources.tables()
    }

    /// Replays the days, and prints the result of each.
    pub async fn run(mut self, clients: Clients, plan: Arc<Plan>) -> Result<(), ReplayError> {
        self.days.sort_unstable();
        self.days.dedup();
        let lost = self.lost.iter().copied().collect();
        let mut replay = Replay::open(&clients, plan, &self.resources, &self.limits, lost).await?;
        replay.scan = self.scan;
        if self.rebuild {
            self.days.extend(replay.count_from(&self.days).await?);
            self.days.sort_unstable();
            self.days.dedup();
        }
        for &day in &self.days {
            let done = if self.rebuild { replay.rebuild(day).await } else { replay.apply_again(day).await };
            // Some figures may have changed even where others could not.
            replay.ledger.touch().await?;
            replay.progress.reset();
            print(&format!("{}: {}", date_text(day), done?));
        }
        if self.rebuild {
            replay.end_filling().await?;
        }
        replay.progress.finish_and_clear();
        Ok(())
    }
}

/// Returns the milliseconds since 1970, used as an item version above all that counting up has reached.
fn now_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}

fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:<24} [{bar:40}] {pos} of {len} batches, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}

/// A replay of one pipeline's days.
pub struct Replay {
    bucket: Bucket,
    ledger: Ledger,
    reports: Reports,
    catalogue: Arc<References>,
    plan: Arc<Plan>,
    /// Batches that have rows of the day though their curated file is lost.
    lost: BTreeSet<BatchNumber>,
    memory: Memory,
    max_report_items: u32,
    /// A rebuild scans the report tables.
    scan: bool,
    progress: ProgressBar,
}

impl Replay {
    /// Opens a pipeline's bucket and tables, and reads its catalogue.
    pub async fn open(
        clients: &Clients,
        plan: Arc<Plan>,
        resources: &Resources,
        limits: &ReplayLimits,
        lost: BTreeSet<BatchNumber>,
    ) -> Result<Self, ReplayError> {
        let bucket = resources.bucket(clients);
        let ledger = resources.tables.ledger(clients, "");
        let reports = resources.tables.reports(clients, &plan, limits.write_concurrency, limits.max_writes_per_second);
        reports.check().await?;
        let memory = Memory::of(limits.max_memory);
        let catalogue = Arc::new(reference::read_once(&bucket, &plan, memory.catalogue()).await?);
        let (max_report_items, progress) = (limits.max_report_items, progress_bar());
        Ok(Replay { bucket, ledger, reports, catalogue, plan, lost, memory, max_report_items, scan: false, progress })
    }

    /// Starts the progress bar for an operation on some batches.
    fn begin(&self, what: String, batches: usize) {
        self.progress.reset();
        self.progress.set_length(batches as u64);
        self.progress.set_message(what);
    }
}
