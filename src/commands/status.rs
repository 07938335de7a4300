//! `music-streams status`: what the pipeline is doing, and what became of a file.
//!
//! Reads the queue's counts, the ledger and manifests, and changes nothing.

use std::collections::BTreeMap;

use clap::Args;
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;

use crate::aws::Clients;
use crate::aws::error::AwsError;
use crate::aws::s3::Bucket;
use crate::aws::sqs::{Backlog, MAX_IN_FLIGHT_MESSAGES, Queue};
use crate::batch::manifest::{Fate, Manifest};
use crate::calendar::time_text;
use crate::commands::format::{Format, printable, table};
use crate::counts::Counts;
use crate::layout;
use crate::ledger::{CatalogueState, ClaimRecord, LEDGER_TABLE, LastSweep, Ledger, Record};
use crate::object::Version;
use crate::protocol::{BatchNumber, Registry, State};

/// Things set aside that are counted one by one.
const SHOWN_ASIDE: usize = 1000;
/// Reads of the ledger under way at once.
const CONCURRENT_READS: usize = 16;

/// What to show, and how.
#[derive(Debug, Args)]
pub struct StatusQuery {
    /// Tell the story of this object instead: by which batch it was claimed and when, and what became of it
    #[arg(long, value_name = "s3://BUCKET/KEY", value_parser = parse_url)]
    object: Option<Url>,

    /// URL of the queue that announces created objects
    #[arg(long, env = "MUSIC_STREAMS_QUEUE_URL", value_name = "URL", required_unless_present = "object")]
    queue_url: Option<String>,

    /// Put before the name of every table
    #[arg(long, env = "MUSIC_STREAMS_TABLE_PREFIX", value_name = "TEXT", default_value = "")]
    table_prefix: String,

    /// How many of the finished batches to show
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=1000), value_name = "COUNT")]
    recent: u16,

    /// A table for people or JSON for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Where an object lies or lay.
#[derive(Debug, Clone)]
struct Url {
    bucket: String,
    key: String,
}

fn parse_url(text: &str) -> Result<Url, String> {
    match text.strip_prefix("s3://").and_then(|path| path.split_once('/')) {
        Some((bucket, key)) if !bucket.is_empty() && key.starts_with(layout::INCOMING) => {
            Ok(Url { bucket: bucket.to_owned(), key: key.to_owned() })
        }
        _ => Err(format!("give the place that the file was put at, as s3://BUCKET/{}…", layout::INCOMING)),
    }
}

impl StatusQuery {
    /// Looks, and gives what to print.
    pub async fn answer(&self, clients: Clients) -> Result<String, AwsError> {
        let table = format!("{}{LEDGER_TABLE}", self.table_prefix);
        let ledger = Ledger::new(clients.dynamodb, table, String::new());
        if let Some(Url { bucket, key }) = &self.object {
            let bucket = Bucket::new(clients.s3, bucket.clone());
            let story = ObjectHistory::of(key, &bucket, &ledger).await?;
            return Ok(match self.format {
                Format::Table => story.told(),
                Format::Json => as_json(&story),
            });
        }
        // Nothing is changed, so no message is ever hidden.
        let hidden = std::time::Duration::ZERO;
        let queue = Queue::new(clients.sqs, self.queue_url.clone().unwrap_or_default(), hidden);
        let overview = Overview::of(&queue, &ledger, self.recent).await?;
        Ok(match self.format {
            Format::Table => overview.shown(),
            Format::Json => as_json(&overview),
        })
    }
}

fn as_json(value: &impl Serialize) -> String {
    format!("{:#}", serde_json::json!(value))
}

// ---------------------------------------------------------------------------------------------- overview

/// What the pipeline is doing.
#[derive(Debug, Serialize)]
struct Overview {
    queue: Backlog,
    /// Messages in flight, of those that a queue can have.
    in_flight_share: f64,
    /// Messages in the dead-letter queue, where there is one.
    dead_letters: Option<u64>,
    /// From the creation of the oldest object of the last finished batch to the end of that batch, in seconds.
    lag_s: Option<i64>,
    last_sweep: Option<LastSweep>,
    /// What consumers look tracks and listeners up in.
    catalogue: Option<CatalogueState>,
    unfinished_batches: Vec<Unfinished>,
    /// Things that are set aside, by kind.
    aside: BTreeMap<&'static str, u64>,
    /// There are more than those.
    more_aside: bool,
    /// The latest first.
    recent_batches: Vec<Record>,
}

#[derive(Debug, Serialize)]
struct Unfinished {
    batch: BatchNumber,
    state: State,
    owner: String,
    opened_at: Option<jiff::Timestamp>,
}

impl Overview {
    async fn of(queue: &Queue, ledger: &Ledger, recent: u16) -> Result<Self, AwsError> {
        let backlog = queue.backlog().await?;
        let dead_letters = match queue.dead_letter_queue().await? {
            Some(queue) => Some(queue.backlog().await?.waiting),
            None => None,
        };
        let registry = ledger.registry().await?;
        let recent_batches: Vec<Record> = futures::stream::iter(finished(&registry).take(usize::from(recent)))
            .map(|batch| ledger.record(batch))
            .buffered(CONCURRENT_READS)
            .try_filter_map(|record| std::future::ready(Ok(record)))
            .try_collect::<Vec<_>>()
            .await?;
        let (entries, more_aside) = ledger.aside(SHOWN_ASIDE).await?;
        let mut aside = BTreeMap::new();
        for (_, entry) in entries {
            *aside.entry(entry.what.name()).or_default() += 1;
        }
        let done = recent_batches.iter().find(|record| record.state == State::Done);
        Ok(Overview {
            queue: backlog,
            in_flight_share: backlog.in_flight as f64 / MAX_IN_FLIGHT_MESSAGES as f64,
            dead_letters,
            lag_s: done.and_then(lag_of),
            last_sweep: ledger.last_sweep().await?,
            catalogue: ledger.catalogue().await?,
            unfinished_batches: registry.batches.iter().map(unfinished).collect(),
            aside,
            more_aside,
            recent_batches,
        })
    }

    fn shown(&self) -> String {
        let Backlog { waiting, in_flight, delayed } = self.queue;
        let dead_letters = self.dead_letters.map_or("no queue for dead letters".to_owned(), |count| {
            format!("{count} dead {}", if count == 1 { "letter" } else { "letters" })
        });
        let share = self.in_flight_share * 100.0;
        let mut lines = vec![
            format!(
                "queue      {waiting} waiting, {delayed} delayed, {in_flight} in flight ({share:.1} % of a queue's limit), {dead_letters}"
            ),
            match &self.last_sweep {
                Some(LastSweep { started_at, by, finished_at, swept }) => format!(
                    "sweep      began {} by {}{}; found {}, left over {}",
                    time_text(*started_at),
                    printable(by),
                    finished_at.map_or(String::new(), |at| format!(", last ended {}", time_text(at))),
                    swept.found,
                    swept.left_over
                ),
                None => "sweep      never".to_owned(),
            },
            match self.lag_s {
                Some(seconds) => format!("lag        {seconds} s from the oldest file of the last batch to its end"),
                None => "lag        unknown: no batch was done of late".to_owned(),
            },
            self.catalogue_shown(),
            self.rejected_shown(),
            if self.aside.is_empty() {
                "aside      nothing".to_owned()
            } else {
                let kind = |(kind, count): (&&str, &u64)| format!("{count} {}", kind.replace('_', " "));
                let more = if self.more_aside { " and more" } else { "" };
                let kinds: Vec<_> = self.aside.iter().map(kind).collect();
                format!("aside      {}{more}: music-streams aside lists them", kinds.join(", "))
            },
            String::new(),
        ];
        lines.push(if self.unfinished_batches.is_empty() {
            "No batch is at work.".to_owned()
        } else {
            let row = |Unfinished { batch, state, owner, opened_at }: &Unfinished| {
                let opened_at = opened_at.map_or(String::new(), time_text);
                vec![batch.to_string(), state.name().to_owned(), opened_at, printable(owner)]
            };
            let rows = self.unfinished_batches.iter().map(row);
            format!("At work\n{}", table(&["BATCH", "STATE", "OPENED", "CONSUMER"], &[true], rows))
        });
        if !self.recent_batches.is_empty() {
            let headings =
                ["BATCH", "STATE", "ENDED", "LAG S", "FILES", "QUARANTINED", "GONE", "ROWS", "REJECTED", "BYTES"];
            let numbers = [true, false, false, true, true, true, true, true, true, true];
            let row = |record: &Record| {
                let counts = &record.counts;
                let lag = lag_of(record).map_or(String::new(), |lag| lag.to_string());
                let mut row =
                    vec![record.batch.to_string(), record.state.name().to_owned(), time_text(record.finished_at)];
                row.push(lag);
                let counts =
                    [counts.objects, counts.quarantined, counts.gone, counts.rows, counts.rejected, counts.bytes];
                row.extend(counts.iter().map(ToString::to_string));
                row
            };
            let rows = self.recent_batches.iter().map(row);
            lines.push(format!("\nFinished\n{}", table(&headings, &numbers, rows)));
        }
        lines.join("\n")
    }
}

impl Overview {
    fn catalogue_shown(&self) -> String {
        let Some(CatalogueState { songs, users, loaded_at, refused, .. }) = &self.catalogue else {
            return "catalogue  none was loaded yet".to_owned();
        };
        let since = loaded_at.map_or(String::new(), |at| format!(" since {}", time_text(at)));
        let refused = refused.as_ref().map_or(String::new(), |(reason, at)| {
            format!("; a later one was REFUSED {}: {}", time_text(*at), printable(reason))
        });
        format!("catalogue  {songs} tracks, {users} listeners{since}{refused}")
    }

    /// What of the batches shown could not be counted.
    fn rejected_shown(&self) -> String {
        let sum =
            |count: fn(&Counts) -> u64| self.recent_batches.iter().map(|record| count(&record.counts)).sum::<u64>();
        let (rows, rejected) = (sum(|counts| counts.rows), sum(|counts| counts.rejected));
        let (quarantined, suspect) = (sum(|counts| counts.quarantined), sum(|counts| counts.suspect));
        let suspect = match suspect {
            0 => String::new(),
            1 => "; 1 FILE gave no row or lost more than a tenth of them".to_owned(),
            many => format!("; {many} FILES gave no row or lost more than a tenth of them"),
        };
        format!(
            "rejected   {rejected} of {rows} rows, {quarantined} files quarantined, in the last {} batches{suspect}",
            self.recent_batches.len()
        )
    }
}

fn unfinished((&batch, entry): (&BatchNumber, &crate::protocol::Entry)) -> Unfinished {
    let opened_at = i64::try_from(entry.since).ok().and_then(|since| jiff::Timestamp::from_second(since).ok());
    Unfinished { batch, state: entry.state, owner: entry.owner.clone(), opened_at }
}

/// The numbers of batches that have left the registry, the latest first.
fn finished(registry: &Registry) -> impl Iterator<Item = BatchNumber> {
    (1..=registry.last).rev().filter(|batch| !registry.batches.contains_key(batch))
}

fn lag_of(record: &Record) -> Option<i64> {
    let oldest = record.counts.oldest_created_at.filter(|_| record.state == State::Done)?;
    Some(record.finished_at.as_second() - oldest.as_second())
}

// ---------------------------------------------------------------------------------------------- one object

/// What became of an object.
#[derive(Debug, Serialize)]
struct ObjectHistory {
    object: String,
    /// Each content that there is or was of it, as far as anything is known.
    contents: Vec<VersionHistory>,
}

/// What became of one content.
#[derive(Debug, Serialize)]
struct VersionHistory {
    version: Version,
    /// Since when it lies there, if it does.
    incoming_since: Option<jiff::Timestamp>,
    /// Until when it is set aside, if it is.
    aside_until: Option<jiff::Timestamp>,
    claim: Option<Claimed>,
}

#[derive(Debug, Serialize)]
struct Claimed {
    batch: BatchNumber,
    claimed_at: jiff::Timestamp,
    /// Where the batch stands; `None` when it never came far enough to leave a trace.
    state: Option<State>,
    /// Who works on it.
    consumer: Option<String>,
    finished_at: Option<jiff::Timestamp>,
    /// What the batch decided about it, while its manifest is kept.
    decision: Option<Fate>,
    /// Where its rejected rows are listed, if it has any.
    rejected_rows: Option<String>,
}

impl ObjectHistory {
    async fn of(key: &str, bucket: &Bucket, ledger: &Ledger) -> Result<Self, AwsError> {
        let mut contents = Vec::new();
        for claim in ledger.claims(bucket.name(), key).await? {
            let Some(batch) = claim.batch.or(claim.quarantined_by.filter(|_| claim.aside_until.is_none())) else {
                let ClaimRecord { version, aside_until, .. } = claim;
                contents.push(VersionHistory { version, incoming_since: None, aside_until, claim: None });
                continue;
            };
            let entry = ledger.registry().await?.batches.remove(&batch);
            let record = match entry {
                Some(_) => None,
                None => ledger.record(batch).await?,
            };
            let manifest = Manifest::find(bucket, batch).await?;
            let decision = manifest.as_ref().and_then(|manifest| {
                let is_it = |id: &crate::object::ObjectId| id.key == key && id.version == claim.version;
                manifest.objects.iter().find(|object| is_it(&object.object)).map(|object| object.fate.clone())
            });
            let has_rejects = matches!(decision, Some(Fate::Archived { rejected: 1.., .. }));
            let rejected_rows = manifest.filter(|_| has_rejects).and_then(|manifest| {
                let rejects =
                    manifest.uploads.into_iter().find(|upload| upload.key.starts_with(layout::QUARANTINED_ROWS));
                rejects.map(|upload| upload.key)
            });
            contents.push(VersionHistory {
                version: claim.version,
                incoming_since: None,
                aside_until: None,
                claim: Some(Claimed {
                    batch,
                    claimed_at: claim.claimed_at,
                    state: entry.as_ref().map(|entry| entry.state).or(record.as_ref().map(|record| record.state)),
                    consumer: entry.map(|entry| entry.owner),
                    finished_at: record.map(|record| record.finished_at),
                    decision,
                    rejected_rows,
                }),
            });
        }
        // After the claims: what is archived meanwhile shows as archived, and not as lost.
        let (mut page, mut next) = bucket.list_current(key, None).await?;
        loop {
            let of_this_key = page.iter().filter(|event| event.object.key == key).count();
            for event in page.drain(..of_this_key) {
                let version = event.object.version;
                match contents.iter_mut().find(|chapter| chapter.version == version) {
                    Some(chapter) => chapter.incoming_since = event.created_at,
                    None => {
                        contents.push(VersionHistory {
                            version,
                            incoming_since: event.created_at,
                            aside_until: None,
                            claim: None,
                        });
                    }
                }
            }
            // Other keys that begin alike come after it.
            if !page.is_empty() || next.is_none() {
                break;
            }
            (page, next) = bucket.list_current(key, next).await?;
        }
        Ok(ObjectHistory { object: format!("s3://{}/{key}", bucket.name()), contents })
    }

    fn told(&self) -> String {
        let object = printable(&self.object);
        if self.contents.is_empty() {
            return format!(
                "{object}\n  nothing is known of it: it was never put there, or was deleted before it was read, or was finished \
                 more than 15 days ago"
            );
        }
        let mut lines = vec![object];
        for chapter in &self.contents {
            lines.push(format!("  {}", printable(&chapter.version.to_string())));
            lines.extend(chapter.told().into_iter().map(|line| format!("    {}", printable(&line))));
        }
        lines.join("\n")
    }
}

impl VersionHistory {
    fn told(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let since = self.incoming_since.map(|since| format!("lies there since {}", time_text(since)));
        let Some(claim) = &self.claim else {
            lines.extend(since);
            lines.push(match self.aside_until {
                Some(until) => format!(
                    "set aside: it could not be read, and is tried again from {} on; music-streams aside says why",
                    time_text(until)
                ),
                None => {
                    "no batch has it yet: its announcement waits in the queue, or the next sweep finds it".to_owned()
                }
            });
            return lines;
        };
        let Claimed { batch, claimed_at, state, consumer, finished_at, decision, rejected_rows } = claim;
        lines.push(format!("claimed {} by batch {batch}", time_text(*claimed_at)));
        let by = consumer.as_ref().map_or(String::new(), |consumer| format!(" by {consumer}"));
        let at = finished_at.map_or(String::new(), |at| format!(" at {}", time_text(at)));
        lines.push(match state {
            Some(State::Open) => format!("batch {batch} is open: it is being prepared{by}"),
            Some(State::Committed) => format!("batch {batch} is committed: it is being carried out{by}"),
            Some(State::Done) => format!("batch {batch} was done{at}"),
            Some(State::Aside) => {
                format!("batch {batch} is committed, and was set aside{at}: music-streams aside says why")
            }
            Some(State::Abandoned | State::Lost) | None => {
                format!("batch {batch} was abandoned{at}: the next batch that meets it takes it over")
            }
        });
        if matches!(state, Some(State::Committed | State::Aside | State::Done)) {
            let mood = if *state == Some(State::Done) { "" } else { "to be " };
            match decision {
                Some(Fate::Archived { to, rows, rejected }) => {
                    lines.push(format!("{mood}counted, and archived at {to}"));
                    lines.push(format!("{rows} rows, {rejected} of them rejected"));
                    lines.extend(rejected_rows.iter().map(|key| format!("rejected rows are listed in {key}")));
                }
                Some(Fate::Quarantined { to, reason }) => {
                    lines.push(format!("{mood}quarantined at {to}: {reason}"));
                }
                Some(Fate::Gone) => lines.push("was deleted or replaced before it could be read".to_owned()),
                None => lines.push("the manifest of that batch is no longer kept: look under archive/".to_owned()),
            }
        }
        let counted = matches!((state, decision), (Some(State::Done), Some(Fate::Archived { .. }) | None));
        if let (true, Some(since)) = (counted, &since) {
            lines.push(format!("{since}: the same content was put there again, which does not count twice"));
        } else if let (Some(State::Done), Some(since)) = (state, &since) {
            lines.push(format!("{since}: it was put there again, and the next batch that meets it judges it anew"));
        } else {
            lines.extend(since);
        }
        lines
    }
}
