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

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use clap::Args;
use futures::{StreamExt, TryStreamExt};
use governor::{Quota, RateLimiter};
use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use crate::aws::Clients;
use crate::aws::error::{AwsError, Kind};
use crate::aws::s3::{Bucket, Upload};
use crate::batch::manifest::{DeltaFile, DeltaFileError, Fate, Manifest, ManifestObject};
use crate::batch::prepare::{ObjectOutcome, Plan, Preparation, PreparationLimits, PrepareError};
use crate::calendar::{date_text, parse_day};
use crate::commands::format::say;
use crate::compute::Scope;
use crate::compute::columnar;
use crate::input::file::BadObject;
use crate::layout;
use crate::ledger::aside::Aside;
use crate::ledger::{LEDGER_TABLE, Ledger};
use crate::memory::Memory;
use crate::object::{ObjectEvent, ObjectId, Version};
use crate::protocol::{BatchNumber, State};
use crate::reference::catalogue::{self, Catalogue, CatalogueError};
use crate::reports::figures::{Attributes, Delta, Figures, Key, Report};
use crate::reports::item::{Replacement, parse_key};
use crate::reports::store::{Reports, WriteOutcome};
use crate::telemetry::progress::Progress;

/// Last bytes of a curated file that nearly always have its whole footer, and those that always have it.
const END_BYTES: [usize; 2] = [64 * 1024, 64 * 1024 * 1024];
/// Archived files that are opened ahead.
const OPEN_AHEAD: usize = 16;
/// Records and manifests that are read at the same time.
const CONCURRENT_READS: usize = 32;
/// Looks at items that consumers changed meanwhile, before they are left as they are.
const LOOKS: usize = 3;
/// Bytes of memory that the figures of an item take, with their key and names, in a table with room for more, besides their sketch.
const FIGURES_BYTES: usize = 1024;
/// How long batches at work are waited for.
const PATIENCE: Duration = Duration::from_secs(900);
/// Between two looks at whether they are finished.
const PAUSE: Duration = Duration::from_millis(500);

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

/// Why it did not come to its end. What was written until then is right, and it may be begun again.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A call failed.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// There is no catalogue to read the files with.
    #[error("{0} (upload it under reference/ of the bucket)")]
    Catalogue(#[from] CatalogueError),
    /// Files could not be read or encoded.
    #[error(transparent)]
    Prepare(PrepareError),
    /// What a batch applied is not there as it was.
    #[error(transparent)]
    DeltaFile(#[from] DeltaFileError),
    /// Report items that cannot be written.
    #[error("{count} report items were refused, the others are right; the first: {first}")]
    Refused {
        /// How many.
        count: usize,
        /// What was said of the first.
        first: String,
    },
    /// A curated file that its batch published is not there.
    #[error(
        "the curated file {key} of batch {batch} is gone, and with it what tells that the batch has rows of the day; add --batch {batch}"
    )]
    LostFile {
        /// The batch.
        batch: BatchNumber,
        /// The file.
        key: String,
    },
    /// An archived file is not what its batch counted.
    #[error("{place} {problem}; restore it from a backup or an older version, then begin again")]
    Archive {
        /// Where it lies, or should.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The archive lacks rows of a batch whose manifest has expired.
    #[error(
        "batch {batch} has {curated} curated rows of the day, and its archived files have {archived}: some of these are lost or changed; \
         restore them from a backup or older versions, then begin again; or, if it is the curated files that are wrong, delete those and \
         use --rebuild --batch {batch}"
    )]
    Incomplete {
        /// The batch.
        batch: BatchNumber,
        /// Rows of the day in its curated files.
        curated: u64,
        /// Rows of the day in its archived files.
        archived: u64,
    },
    /// The files of a batch are nowhere in the archive.
    #[error(
        "batch {0} has curated rows of the day, and no manifest and no folder in the archive; restore the folder, then begin again"
    )]
    NoArchive(BatchNumber),
    /// A consumer is at work, or was and left something.
    #[error(
        "batches are or were at work meanwhile ({0:?}), and the first thing that a consumer writes to an item hides what it has lost: \
         stop the consumers once music-streams status shows no batch at work, or use --rebuild, which may run beside them"
    )]
    AtWork(Vec<BatchNumber>),
    /// Batches stay at work.
    #[error("batches {0:?} do not come to their end; begin again when music-streams status shows that they have")]
    Unfinished(Vec<BatchNumber>),
    /// The ledger was restored to an earlier time, or lost.
    #[error(
        "the bucket has curated files of batch {0}, which the ledger does not know; start a consumer once, which mends that, then begin again"
    )]
    Forgotten(BatchNumber),
    /// More figures than the memory is for.
    #[error(
        "the figures of the day do not fit into the memory of {0} bytes; give a higher --max-memory, and the memory for it"
    )]
    TooMuchMemory(u64),
    /// More report items than were allowed.
    #[error("the day has more than {0} report items; give a higher --max-report-items")]
    TooManyItems(u32),
    /// Consumers kept changing the same items.
    #[error("{0} items got new batches again and again and are as consumers left them; begin again when less comes in")]
    Changing(usize),
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

/// Items that were refused.
#[derive(Debug, Default)]
struct Refused {
    keys: HashSet<Key>,
    items: Vec<(Key, String)>,
}

impl Refused {
    fn note(&mut self, key: Key, outcome: WriteOutcome) {
        if let WriteOutcome::Refused(reason) = outcome
            && self.keys.insert(key.clone())
        {
            self.items.push((key, reason));
        }
    }

    /// Notes those that were refused, and gives those that got a later batch meanwhile.
    fn take_changing(&mut self, outcomes: Vec<(Key, WriteOutcome)>) -> HashSet<Key> {
        let mut changing = HashSet::new();
        for (key, outcome) in outcomes {
            match outcome {
                WriteOutcome::HasLater => drop(changing.insert(key)),
                outcome => self.note(key, outcome),
            }
        }
        changing
    }

    fn conclude(self) -> Result<(), ReplayError> {
        let count = self.items.len();
        match self.items.into_iter().next() {
            Some((_, first)) => Err(ReplayError::Refused { count, first }),
            None => Ok(()),
        }
    }
}

/// What items add up to, and the bytes of memory that this takes.
#[derive(Debug, Default)]
struct Sums {
    figures: HashMap<Key, (Figures, Attributes)>,
    bytes: usize,
}

impl Sums {
    /// Adds deltas, of these items or of all.
    fn add_up(&mut self, deltas: Vec<Delta>, only: Option<&HashSet<Key>>) {
        for Delta { key, figures: added, attributes } in deltas {
            if only.is_none_or(|only| only.contains(&key)) {
                let (sum, names) = self.entry(key);
                let before = sum.distinct.memory_bytes();
                sum.merge(&added);
                names.update(attributes);
                let grown = sum.distinct.memory_bytes().saturating_sub(before);
                self.bytes = self.bytes.saturating_add(grown);
            }
        }
    }

    fn entry(&mut self, key: Key) -> &mut (Figures, Attributes) {
        let bytes = FIGURES_BYTES + key.id.len();
        let total = &mut self.bytes;
        self.figures.entry(key).or_insert_with(|| {
            *total = total.saturating_add(bytes);
            Default::default()
        })
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

/// What there is of a batch in the archive.
struct Archived {
    opened_at: jiff::Timestamp,
    files: Vec<ArchivedFile>,
}

struct ArchivedFile {
    place: String,
    /// The key that it came with.
    source: String,
    /// Its rows, and those of them that were rejected, while the manifest tells.
    counts: Option<(u64, u64)>,
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

    // -------------------------------------------------------------------------------------- replay

    /// Applies every batch of a day again.
    async fn apply_again(&self, day: i32) -> Result<String, ReplayError> {
        let registry = self.ledger.registry().await?;
        if !registry.batches.is_empty() {
            return Err(ReplayError::AtWork(registry.batches.into_keys().collect()));
        }
        let batches = self.batches(day, registry.last).await?;
        let (mut items, mut lacked) = (0, 0);
        self.begin(format!("{} replay", date_text(day)), batches.len());
        let mut refused = Refused::default();
        // In their order: an item that has a batch is taken to have all of its day's batches before it.
        for (&batch, curated) in &batches {
            let mut deltas = pin!(self.written_down(batch, curated, day).await?);
            while let Some(deltas) = deltas.try_next().await? {
                items += deltas.len();
                let never = CancellationToken::new();
                for (key, outcome) in self.reports.apply(batch, batch - 1, now_ms(), deltas, &never).await? {
                    lacked += usize::from(outcome == WriteOutcome::Changed);
                    refused.note(key, outcome);
                }
            }
            self.progress.inc(1);
        }
        let after = self.ledger.registry().await?;
        if after.last != registry.last || !after.batches.is_empty() {
            return Err(ReplayError::AtWork((registry.last + 1..=after.last).collect()));
        }
        refused.conclude()?;
        let had = items - lacked;
        Ok(format!(
            "{} batches with {items} figures: {lacked} were lacking and are back, {had} were there",
            batches.len()
        ))
    }

    // -------------------------------------------------------------------------------------- rebuild

    /// Gives every item of a day the figures that its archived files add up to. What is listed as set aside of the day comes off the
    /// list, as it is right again.
    pub async fn rebuild(&self, day: i32) -> Result<String, ReplayError> {
        let (mut batches, mut items) = (0, 0);
        let mut genres = BTreeSet::new();
        let mut refused = Refused::default();
        // As it is before: what is set aside from now on may not be in the figures.
        let (listed, _) = self.ledger.aside(usize::MAX).await?;
        // What is to be replaced; `None` for everything.
        let mut only: Option<HashSet<Key>> = None;
        for look in 0..LOOKS {
            let is_first = look == 0;
            let through = self.finished(day).await?;
            let (mut sums, last) = self.fold(day, through, only.as_ref(), is_first, &mut batches).await?;
            let of = Replacement { through, last, now_ms: now_ms() };
            self.progress.set_message(format!("{} writing", date_text(day)));
            if is_first {
                self.add_items_without_rows(day, &mut sums).await?;
                items = sums.figures.len();
                genres.extend(sums.figures.keys().filter(|key| key.report == Report::Genre).map(|key| key.id.clone()));
            }
            for key in only.into_iter().flatten() {
                sums.entry(key);
            }
            let deltas =
                sums.figures.into_iter().map(|(key, (figures, attributes))| Delta { key, figures, attributes });
            // The item of a genre that nothing has any more tells where to look for stale listings, so it goes last.
            let (genres_without_rows, first): (Vec<_>, Vec<_>) =
                deltas.partition(|delta| delta.key.report == Report::Genre && delta.figures.listens == 0);
            let never = CancellationToken::new();
            let mut outcomes = self.reports.replace(of, first, &never).await?;
            for genre in &genres {
                self.reports.empty_stale_listings(genre, day, of, &never).await?;
            }
            outcomes.extend(self.reports.replace(of, genres_without_rows, &never).await?);
            let changing = refused.take_changing(outcomes);
            if changing.is_empty() {
                self.unlist(day, listed, &refused.keys).await?;
                refused.conclude()?;
                return Ok(format!("rebuilt {items} report items and the curated files of {batches} batches"));
            }
            only = Some(changing);
        }
        Err(ReplayError::Changing(only.map_or(0, |only| only.len())))
    }

    /// Takes a day's report items off the list of what is set aside, but for those that are refused still.
    async fn unlist(
        &self,
        day: i32,
        listed: Vec<(jiff::Timestamp, Aside)>,
        refused: &HashSet<Key>,
    ) -> Result<(), ReplayError> {
        for (_, entry) in listed {
            if entry.report_item().is_some_and(|key| key.day == day && !refused.contains(&key)) {
                self.ledger.unlist_aside(&entry).await?;
            }
        }
        Ok(())
    }

    // -------------------------------------------------------------------------------------- restore

    /// Gives some items of a day the figures that all finished batches have written down for them. Returns those that are refused
    /// still, each with the reason.
    pub async fn restore(&self, day: i32, keys: HashSet<Key>) -> Result<Vec<(Key, String)>, ReplayError> {
        let mut refused = Refused::default();
        let mut keys = keys;
        for _ in 0..LOOKS {
            let through = self.finished(day).await?;
            let batches = self.batches(day, through).await?;
            let last = batches.keys().next_back().copied().unwrap_or(0);
            self.begin(format!("{} restore", date_text(day)), batches.len());
            let mut sums = Sums::default();
            for (batch, curated) in batches {
                let mut deltas = pin!(self.written_down(batch, &curated, day).await?);
                while let Some(deltas) = deltas.try_next().await? {
                    sums.add_up(deltas, Some(&keys));
                    self.bound(&sums)?;
                }
                self.progress.inc(1);
            }
            let items = sums.figures.into_iter().map(|(key, (figures, attributes))| Delta { key, figures, attributes });
            let of = Replacement { through, last, now_ms: now_ms() };
            let outcomes = self.reports.replace(of, items.collect(), &CancellationToken::new()).await?;
            keys = refused.take_changing(outcomes);
            if keys.is_empty() {
                self.progress.finish_and_clear();
                return Ok(refused.items);
            }
        }
        Err(ReplayError::Changing(keys.len()))
    }

    /// What a batch added to a day's items, as it wrote it down itself while that is kept and whole, and else from its archived files.
    async fn written_down(
        &self,
        batch: BatchNumber,
        curated: &[String],
        day: i32,
    ) -> Result<impl futures::Stream<Item = Result<Vec<Delta>, ReplayError>>, ReplayError> {
        let mut files = Vec::new();
        if let Some(manifest) = Manifest::find(&self.bucket, batch).await? {
            for file in &manifest.delta_files {
                match self.bucket.read_all(&file.key).await {
                    Ok(bytes) if file.is_whole(&bytes) => files.push(file.clone()),
                    Err(error) if error.kind != Kind::NotFound => return Err(error.into()),
                    _ => {
                        files.clear();
                        break;
                    }
                }
            }
        }
        if files.is_empty() {
            let (_, deltas) = self.prepare(batch, curated, Scope::FiguresOf(day), 0).await?;
            return Ok(deltas.map_err(|error| self.explained(error)).left_stream());
        }
        let read = move |file: DeltaFile| async move {
            let mut deltas = file.decode(&self.bucket.read_all(&file.key).await?)?;
            deltas.retain(|delta| delta.key.day == day);
            Ok(deltas)
        };
        Ok(futures::stream::iter(files).then(read).right_stream())
    }

    /// Waits until every batch is finished that there is now, and gives the number up to which all are: nothing can be added to what
    /// they published, and nothing of them is under way.
    async fn finished(&self, day: i32) -> Result<BatchNumber, ReplayError> {
        let last = self.ledger.registry().await?.last;
        let begun = Instant::now();
        loop {
            let registry = self.ledger.registry().await?;
            let through = registry.applied_through();
            if through >= last {
                return Ok(through);
            }
            if begun.elapsed() > PATIENCE {
                return Err(ReplayError::Unfinished(
                    registry.batches.into_keys().filter(|&batch| batch <= last).collect(),
                ));
            }
            self.progress.set_message(format!("{} waiting for batches at work", date_text(day)));
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// What the archived files of finished batches add up to, and the last of these. At the first look, curated files are published
    /// from them.
    async fn fold(
        &self,
        day: i32,
        through: BatchNumber,
        only: Option<&HashSet<Key>>,
        is_first: bool,
        count: &mut usize,
    ) -> Result<(Sums, BatchNumber), ReplayError> {
        let batches = self.batches(day, through).await?;
        let last = batches.keys().next_back().copied().unwrap_or(0);
        *count = batches.len();
        self.begin(format!("{} rebuild", date_text(day)), batches.len());
        let mut sums = Sums::default();
        for (batch, curated) in batches {
            let scope = if is_first { Scope::Day(day) } else { Scope::FiguresOf(day) };
            let prepared = self.prepare(batch, &curated, scope, sums.bytes).await;
            if prepared.is_err() && is_first {
                // What it had begun to upload, nobody will complete. That it failed is what counts.
                let prefix = layout::curated_prefix(&date_text(day));
                let _ = self.bucket.abort_uploads(&prefix, |key| layout::is_of_batch(key, batch)).await;
            }
            let (uploads, deltas) = prepared?;
            let mut deltas = pin!(deltas);
            while let Some(deltas) = deltas.try_next().await.map_err(|error| self.explained(error))? {
                sums.add_up(deltas, only);
                self.bound(&sums)?;
            }
            if is_first {
                self.publish(&uploads, &curated).await?;
            }
            self.progress.inc(1);
        }
        Ok((sums, last))
    }

    fn bound(&self, sums: &Sums) -> Result<(), ReplayError> {
        if sums.figures.len() > self.max_report_items as usize {
            return Err(ReplayError::TooManyItems(self.max_report_items));
        }
        if sums.bytes > self.memory.lasting().saturating_sub(self.catalogue.memory_bytes()) {
            return Err(ReplayError::TooMuchMemory(self.memory.bytes()));
        }
        Ok(())
    }

    /// Puts the curated files of a batch and day in the place of those that there are.
    async fn publish(&self, uploads: &[Upload], before: &[String]) -> Result<(), ReplayError> {
        for upload in uploads {
            self.bucket.complete_upload(upload).await?;
        }
        // Of a batch of very many days there are several files a day, whose rows are all in the first now.
        for key in before.iter().filter(|key| uploads.iter().all(|upload| upload.key != **key)) {
            self.bucket.delete_prefix(key).await?;
        }
        Ok(())
    }

    /// Items that the tables have and no row explains are to have no listens.
    async fn add_items_without_rows(&self, day: i32, sums: &mut Sums) -> Result<(), ReplayError> {
        for report in Report::ALL {
            let mut items = pin!(self.reports.day(report, day));
            while let Some(item) = items.try_next().await? {
                if let Some(key) = parse_key(report, &item) {
                    sums.entry(key);
                }
                self.bound(sums)?;
            }
        }
        Ok(())
    }

    // -------------------------------------------------------------------------------------- archive

    fn begin(&self, what: String, batches: usize) {
        self.progress.reset();
        self.progress.set_length(batches as u64);
        self.progress.set_message(what);
    }

    /// The finished batches that have rows of a day, each with its curated files of that day.
    async fn batches(&self, day: i32, through: BatchNumber) -> Result<BTreeMap<BatchNumber, Vec<String>>, ReplayError> {
        let lost = self.lost.iter().filter(|&&batch| (1..=through).contains(&batch));
        let mut batches: BTreeMap<BatchNumber, Vec<String>> = lost.map(|&batch| (batch, Vec::new())).collect();
        let published = self.published(day, through).await?;
        let curated = self.bucket.list(&layout::curated_prefix(&date_text(day))).await?;
        // Read after the listing: whatever is listed, the ledger has known before.
        let known = self.ledger.registry().await?.last;
        for (key, _) in curated {
            match layout::batch_of_curated(&key) {
                Some(batch) if batch <= through => batches.entry(batch).or_default().push(key),
                Some(batch) if batch > known => return Err(ReplayError::Forgotten(batch)),
                _ => {}
            }
        }
        // A file that is gone would be taken for a batch without rows of the day.
        for (batch, key) in published {
            let is_there = batches.get(&batch).is_some_and(|keys| self.lost.contains(&batch) || keys.contains(&key));
            if !is_there {
                return Err(ReplayError::LostFile { batch, key });
            }
        }
        Ok(batches)
    }

    /// The curated files of the day that finished batches have published, by their manifests, as far as these are kept.
    async fn published(&self, day: i32, through: BatchNumber) -> Result<Vec<(BatchNumber, String)>, ReplayError> {
        let folders = self.bucket.folders(layout::BATCHES).await?;
        let batches = folders.iter().filter_map(|folder| layout::batch_of_folder(folder, 1));
        let prefix = layout::curated_prefix(&date_text(day));
        let manifests = futures::stream::iter(batches.filter(|&batch| batch <= through))
            .map(async |batch| {
                // Of a batch that was given up, remains may be left.
                let is_done = self.ledger.record(batch).await?.is_some_and(|record| record.state == State::Done);
                if is_done { Manifest::find(&self.bucket, batch).await } else { Ok(None) }
            })
            .buffer_unordered(CONCURRENT_READS);
        let manifests: Vec<Manifest> =
            manifests.try_filter_map(|manifest| std::future::ready(Ok(manifest))).try_collect().await?;
        let mut published = Vec::new();
        for manifest in manifests {
            let keys = manifest.uploads.into_iter().map(|upload| upload.key).filter(|key| key.starts_with(&prefix));
            published.extend(keys.map(|key| (manifest.batch, key)));
        }
        Ok(published)
    }

    /// Reads a batch's archived files as the batch did, and does not go on with fewer rows than it counted. So many bytes of figures
    /// are in memory already.
    async fn prepare(
        &self,
        batch: BatchNumber,
        curated: &[String],
        scope: Scope,
        lasting_bytes: usize,
    ) -> Result<(Vec<Upload>, impl futures::Stream<Item = Result<Vec<Delta>, PrepareError>>), ReplayError> {
        let Archived { opened_at, files } = self.archived(batch).await?;
        let limits = PreparationLimits {
            object_bytes: u64::MAX,
            report_items: self.max_report_items as usize,
            memory: self.memory.without(lasting_bytes),
            rows: None,
        };
        let (bucket, catalogue) = (self.bucket.clone(), Arc::clone(&self.catalogue));
        let (plan, shutdown) = (Plan { batch, opened_at, scope }, CancellationToken::new());
        let mut preparation = Preparation::new(bucket, catalogue, plan, limits, shutdown, Progress::default());
        let mut bodies = futures::stream::iter(&files)
            .map(async |file| {
                let body = self.bucket.find(&file.place).await?.map(|object| self.bucket.read(&object));
                Ok::<_, AwsError>((file, body))
            })
            .buffered(OPEN_AHEAD);
        while let Some((ArchivedFile { place, source, counts }, body)) = bodies.try_next().await? {
            let problem = |problem: String| ReplayError::Archive { place: place.clone(), problem };
            let Some(body) = body else { return Err(problem("is not there".to_owned())) };
            let object = ObjectId {
                bucket: self.bucket.name().to_owned(),
                key: source.clone(),
                version: Version::ETag(String::new()),
            };
            let event = ObjectEvent { object, size: 0, created_at: None };
            let outcome = match preparation.add(0, &event, body).await {
                Ok(outcome) | Err(PrepareError::Spoiled { outcome, .. }) => outcome,
                Err(error) => return Err(self.explained(error)),
            };
            match outcome {
                ObjectOutcome::Counted { rows, rejected } => match counts {
                    Some(counted) if *counted != (rows, rejected) => {
                        let (had, had_rejected) = counted;
                        return Err(problem(format!(
                            "has {rows} rows, {rejected} of them bad, and its batch counted {had}, {had_rejected} of them bad"
                        )));
                    }
                    _ => {}
                },
                ObjectOutcome::Bad(bad) => return Err(problem(format!("cannot be read: {bad}"))),
                ObjectOutcome::Unreadable(reason) => return Err(problem(format!("cannot be read: {reason}"))),
                ObjectOutcome::Gone => return Err(problem("was replaced while it was read".to_owned())),
            }
        }
        let (uploads, rows, deltas) = preparation.finish_unwritten().await.map_err(|error| self.explained(error))?;
        // No manifest tells what each file had. The curated files tell of the day, unless they are what is to be mended.
        if files.iter().any(|file| file.counts.is_none()) {
            let mut before = 0;
            for key in curated {
                before += self.rows_in(key).await?;
            }
            if rows < before {
                return Err(ReplayError::Incomplete { batch, curated: before, archived: rows });
            }
        }
        Ok((uploads, deltas))
    }

    /// The rows of a curated file; none when it is damaged.
    async fn rows_in(&self, key: &str) -> Result<u64, ReplayError> {
        for bytes in END_BYTES {
            let end = self.bucket.read_end(key, bytes).await?;
            match columnar::footer_bytes(&end) {
                Some(footer) if footer <= end.len() => return Ok(columnar::count_rows(&end).unwrap_or(0)),
                Some(_) => {}
                None => break,
            }
        }
        Ok(0)
    }

    fn explained(&self, error: PrepareError) -> ReplayError {
        match error {
            PrepareError::TooLarge(BadObject::TooMuchMemory { .. }) => ReplayError::TooMuchMemory(self.memory.bytes()),
            PrepareError::TooLarge(_) => ReplayError::TooManyItems(self.max_report_items),
            error => ReplayError::Prepare(error),
        }
    }

    /// The files that a batch counted, and when it did.
    async fn archived(&self, batch: BatchNumber) -> Result<Archived, ReplayError> {
        if let Some(manifest) = Manifest::find(&self.bucket, batch).await? {
            let place = |object: ManifestObject| match object.fate {
                Fate::Archived { to, rows, rejected } => {
                    Some(ArchivedFile { place: to, source: object.object.key, counts: Some((rows, rejected)) })
                }
                Fate::Quarantined { .. } | Fate::Gone => None,
            };
            return Ok(Archived {
                opened_at: manifest.opened_at,
                files: manifest.objects.into_iter().filter_map(place).collect(),
            });
        }
        for date in self.bucket.folders(layout::ARCHIVE).await? {
            let folder = format!("{date}{}/", layout::batch_name(batch));
            let files = self.bucket.list(&folder).await?;
            if !files.is_empty() {
                let file = |(place, _): (String, u64)| {
                    let source = format!("{}{}", layout::INCOMING, place.strip_prefix(&folder).unwrap_or(&place));
                    ArchivedFile { place, source, counts: None }
                };
                // The end of its date: a row that was less than a day in the future then is no further from it.
                let date = date.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
                let opened_at = format!("{date}T23:59:59Z").parse();
                let opened_at = opened_at.map_err(|_| ReplayError::NoArchive(batch))?;
                return Ok(Archived { opened_at, files: files.into_iter().map(file).collect() });
            }
        }
        Err(ReplayError::NoArchive(batch))
    }
}
