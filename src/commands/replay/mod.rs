//! `music-streams replay`: a day's reports from its archived files, once more.
//!
//! Which batches have rows of the day, its curated files tell (and who lost one of those); which files those batches counted, their manifests, or their folders in
//! the archive once the manifests have expired. The files are read, cleansed and folded by what batches do it with.
//!
//! * **Replay** applies the figures of each batch again, by the same conditional writes as the batch itself: an item that has the batch
//!   stays as it is, and one that has lost it, because it was deleted or restored to an earlier time, gets it back. While a batch's
//!   manifest is kept, its own delta files are applied.
//! * **Rebuild** takes nothing from the items. Each gets the figures of all finished batches, with the catalogue as it is now, and the
//!   curated files are written anew with it. It begins once the batches at work are finished, which may have begun with another
//!   catalogue. An item that gets a later batch meanwhile is left, and looked at again afterwards, so that consumers are not in the way.
//!
//! * **Restore** ([`Replay::restore`]) is a rebuild of some items, with what batches wrote down of them: the way back of items that were
//!   set aside.
//!
//! All may be repeated, and broken off at any time. An item that cannot be written is told, and costs the others nothing.

mod again;
mod archive;
mod batches;
mod error;
mod figures;
mod rebuild;
mod restore;
mod written;

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;

use bytesize::ByteSize;
use clap::Args;
use governor::{Quota, RateLimiter};
use indicatif::{ProgressBar, ProgressStyle};

use crate::aws::Clients;
use crate::aws::s3::Bucket;
use crate::calendar::{date_text, parse_day};
use crate::commands::format::say;
use crate::ledger::{LEDGER_TABLE, Ledger};
use crate::memory::Memory;
use crate::protocol::BatchNumber;
use crate::reference::catalogue::{self, Catalogue};
use crate::reports::store::Reports;
use crate::telemetry::progress::Progress;

pub use error::ReplayError;

/// Looks at items that consumers changed meanwhile, before they are left as they are.
const LOOKS: usize = 3;

/// What to replay.
#[derive(Debug, Args)]
pub struct ReplayQuery {
    /// Day (UTC) of the reports; may be given several times
    #[arg(long = "date", required = true, value_parser = parse_day, value_name = "YYYY-MM-DD")]
    days: Vec<i32>,

    /// Do not trust the reports: give every item of the day the figures that the archive and today's catalogue give
    ///
    /// The curated files of the day are written anew as well. Consumers may go on.
    #[arg(long)]
    rebuild: bool,

    /// Also this batch, whose curated file of the day is lost; may be given several times
    ///
    /// Its number is in the name of the file, and of its folder in the archive. Only a rebuild brings the file itself back.
    #[arg(long = "batch", value_name = "NUMBER")]
    lost: Vec<BatchNumber>,

    /// Bucket with the archived and curated files and the catalogue
    #[arg(long, env = "MUSIC_STREAMS_BUCKET", value_name = "NAME")]
    bucket: String,

    /// Put before the name of every table
    #[arg(long, env = "MUSIC_STREAMS_TABLE_PREFIX", value_name = "TEXT", default_value = "")]
    table_prefix: String,

    #[command(flatten)]
    limits: ReplayLimits,
}

/// Bounds of a replay.
#[derive(Debug, Clone, Args)]
pub struct ReplayLimits {
    /// Memory that the process may take; a day whose figures need more ends it [default: what its container may have, or 2GiB]
    #[arg(long, env = "MUSIC_STREAMS_MAX_MEMORY", value_name = "SIZE")]
    max_memory: Option<ByteSize>,

    /// Report items in memory at a time: those of a batch, or of a day that is rebuilt; with more, it ends
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1000..), value_name = "COUNT")]
    max_report_items: u32,

    /// Report items written a second [default: as fast as the tables take them]
    #[arg(long, env = "MUSIC_STREAMS_MAX_WRITES_PER_SECOND", value_name = "COUNT")]
    max_writes_per_second: Option<NonZeroU32>,

    /// Report items written at the same time, rounded up to a multiple of 16
    #[arg(long, env = "MUSIC_STREAMS_WRITE_CONCURRENCY", value_name = "COUNT", default_value_t = 64)]
    write_concurrency: usize,
}

impl ReplayQuery {
    /// Replays, and tells what came of it.
    pub async fn run(mut self, clients: Clients) -> Result<(), ReplayError> {
        self.days.sort_unstable();
        self.days.dedup();
        let lost = self.lost.iter().copied().collect();
        let replay = Replay::open(clients, &self.bucket, &self.table_prefix, &self.limits, lost).await?;
        for &day in &self.days {
            let done = if self.rebuild { replay.rebuild(day).await } else { replay.apply_again(day).await };
            replay.progress.reset();
            say(&format!("{}: {}", date_text(day), done?));
        }
        replay.progress.finish_and_clear();
        Ok(())
    }
}

/// A version of items that no counting gets to.
fn now_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0)
}

fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:<24} [{bar:40}] {pos} of {len} batches, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}

/// Brings reports back.
pub struct Replay {
    bucket: Bucket,
    ledger: Ledger,
    reports: Reports,
    catalogue: Arc<Catalogue>,
    /// Batches that are known to have rows of the day, though their curated file is lost.
    lost: BTreeSet<BatchNumber>,
    memory: Memory,
    max_report_items: u32,
    progress: ProgressBar,
}

impl Replay {
    /// Of a pipeline's bucket and tables.
    pub async fn open(
        clients: Clients,
        bucket: &str,
        table_prefix: &str,
        limits: &ReplayLimits,
        lost: BTreeSet<BatchNumber>,
    ) -> Result<Self, ReplayError> {
        let bucket = Bucket::new(clients.s3, bucket.to_owned());
        let ledger = Ledger::new(clients.dynamodb.clone(), format!("{table_prefix}{LEDGER_TABLE}"), String::new());
        let writes = limits.max_writes_per_second.map(|rate| Arc::new(RateLimiter::direct(Quota::per_second(rate))));
        let (prefix, concurrency) = (table_prefix.to_owned(), limits.write_concurrency);
        let reports = Reports::new(clients.dynamodb, prefix, concurrency, writes, Progress::default());
        reports.check().await?;
        let memory = Memory::of(limits.max_memory);
        let catalogue = Arc::new(catalogue::read_once(&bucket, memory.catalogue()).await?);
        let (max_report_items, progress) = (limits.max_report_items, progress_bar());
        Ok(Replay { bucket, ledger, reports, catalogue, lost, memory, max_report_items, progress })
    }

    fn begin(&self, what: String, batches: usize) {
        self.progress.reset();
        self.progress.set_length(batches as u64);
        self.progress.set_message(what);
    }
}
