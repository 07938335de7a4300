//! `music-streams aside`: what was refused for good and set aside, and the way back for each kind of it.
//!
//! | what | the way back |
//! |---|---|
//! | file that cannot be read | its pause ends and it is announced anew; the next batch claims it |
//! | report item | gets what all finished batches of its day have written down for it |
//! | counted file that cannot be moved | is moved; nothing else is left to do for it |
//! | file to publish | is published, or its day is rebuilt |
//! | batch | is published and put away, and its days are rebuilt |
//!
//! All of it may be repeated, beside consumers at work, and nothing can be counted twice by it. What is refused still stays on
//! the list.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use clap::Args;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::aws::Clients;
use crate::aws::error::AwsError;
use crate::aws::s3::{Bucket, Upload};
use crate::aws::sqs::Queue;
use crate::batch::manifest::Manifest;
use crate::batch::roll_forward::RollForward;
use crate::calendar::parse_date;
use crate::calendar::time_text;
use crate::commands::format::{Format, printable, say, table};
use crate::commands::replay::{Replay, ReplayError, ReplayLimits};
use crate::intake::notification::announcement;
use crate::layout;
use crate::ledger::aside::{Aside, What};
use crate::ledger::{LEDGER_TABLE, Ledger};
use crate::object::{ObjectEvent, ObjectId};
use crate::protocol::{BatchNumber, State};
use crate::reports::figures::Key;
use crate::reports::store::Reports;
use crate::telemetry::progress::Progress;

/// What to do with what is set aside, and how to show it.
#[derive(Debug, Args)]
pub struct AsideQuery {
    /// Bring all of it back, as far as what refused it is mended
    ///
    /// Needs the permissions of ReplayPolicy. The exit status is 1 if some of it is refused still.
    #[arg(long)]
    retry: bool,

    /// URL of the queue that announces created objects, where files are announced anew
    #[arg(long, env = "MUSIC_STREAMS_QUEUE_URL", value_name = "URL", required_if_eq("retry", "true"))]
    queue_url: Option<String>,

    /// Bucket that the consumers read
    #[arg(long, env = "MUSIC_STREAMS_BUCKET", value_name = "NAME", required_if_eq("retry", "true"))]
    bucket: Option<String>,

    /// Put before the name of every table
    #[arg(long, env = "MUSIC_STREAMS_TABLE_PREFIX", value_name = "TEXT", default_value = "")]
    table_prefix: String,

    /// How many to show at the most
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..), value_name = "COUNT")]
    limit: u32,

    #[command(flatten)]
    limits: ReplayLimits,

    /// A table for people or JSON for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Why it did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum AsideError {
    /// A call failed.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// Some things are set aside still.
    #[error("{0} things are set aside still; each line says why")]
    Still(usize),
}

/// An entry of the list.
#[derive(Debug, Serialize)]
struct Listed {
    since: jiff::Timestamp,
    #[serde(flatten)]
    entry: Aside,
}

impl AsideQuery {
    /// Lists, or brings back, and says what there is or what came of it.
    pub async fn run(&self, clients: Clients) -> Result<(), AsideError> {
        let name = format!("{}{LEDGER_TABLE}", self.table_prefix);
        let owner = format!("aside-{}", std::process::id());
        let ledger = Ledger::new(clients.dynamodb.clone(), name, owner);
        if self.retry {
            return self.bring_back(clients, ledger).await;
        }
        let (entries, has_more) = ledger.aside(usize::try_from(self.limit).unwrap_or(usize::MAX)).await?;
        let listed: Vec<_> = entries.into_iter().map(|(since, entry)| Listed { since, entry }).collect();
        say(&match self.format {
            Format::Json => format!("{:#}", serde_json::json!(listed)),
            Format::Table if listed.is_empty() => "nothing is set aside".to_owned(),
            Format::Table => {
                let row = |Listed { since, entry }: &Listed| {
                    let [kind, name, way_back] = entry.describe();
                    let (name, reason) = (printable(&name), printable(&entry.reason));
                    vec![kind, name, time_text(*since), entry.batch.to_string(), reason, printable(&way_back)]
                };
                let headings = ["WHAT", "WHICH", "SINCE", "BATCH", "WHY", "THE WAY BACK"];
                let shown = table(&headings, &[false, false, false, true], listed.iter().map(row));
                if has_more { format!("{shown}\n… and more: give a higher --limit") } else { shown }
            }
        });
        Ok(())
    }

    async fn bring_back(&self, clients: Clients, ledger: Ledger) -> Result<(), AsideError> {
        let (entries, _) = ledger.aside(usize::MAX).await?;
        let bucket = Bucket::new(clients.s3.clone(), self.bucket.clone().unwrap_or_default());
        let queue = self.queue_url.clone().unwrap_or_default();
        let queue = Queue::new(clients.sqs.clone(), queue, std::time::Duration::ZERO);
        let progress = Progress::default();
        let reports = Reports::new(clients.dynamodb.clone(), self.table_prefix.clone(), 1, None, progress.clone());
        let roll_forward = RollForward { ledger, bucket, reports, progress, deadline: CancellationToken::new() };
        let mut back =
            BringBack { query: self, clients, roll_forward, queue, items: BTreeMap::new(), told: Told::default() };
        for (_, entry) in entries {
            back.one(entry).await;
        }
        back.report_items().await;
        back.told.conclude(self.format)
    }
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Told {
    back: Vec<String>,
    still: Vec<String>,
}

impl Told {
    fn note(&mut self, entry: &Aside, done: Result<(), String>) {
        let [kind, name, _] = entry.describe();
        match done {
            Ok(()) => self.back.push(format!("{kind} {name}")),
            Err(reason) => self.still.push(format!("{kind} {name}: {reason}")),
        }
    }

    fn conclude(self, format: Format) -> Result<(), AsideError> {
        match format {
            Format::Json => say(&format!("{:#}", serde_json::json!(self))),
            Format::Table => {
                self.back.iter().for_each(|what| say(&printable(&format!("back: {what}"))));
                self.still.iter().for_each(|what| say(&printable(&format!("still set aside: {what}"))));
                if self.back.is_empty() && self.still.is_empty() {
                    say("nothing is set aside");
                }
            }
        }
        if self.still.is_empty() { Ok(()) } else { Err(AsideError::Still(self.still.len())) }
    }
}

struct BringBack<'a> {
    query: &'a AsideQuery,
    clients: Clients,
    roll_forward: RollForward,
    queue: Queue,
    /// Report items, which are brought back day by day.
    items: BTreeMap<i32, Vec<(Key, Aside)>>,
    told: Told,
}

impl BringBack<'_> {
    /// Brings one thing back. What is refused is told, and keeps none of the others.
    async fn one(&mut self, entry: Aside) {
        let done = match &entry.what {
            What::Object { object, size, created_at, .. } => {
                let event = ObjectEvent { object: object.clone(), size: *size, created_at: *created_at };
                self.object(event, &entry).await
            }
            What::ReportItem { .. } => match entry.report_item() {
                Some(key) => return self.items.entry(key.day).or_default().push((key, entry)),
                None => Err("this version has no such report".to_owned()),
            },
            What::Original { object, size, to, quarantined } => {
                self.original(object, *size, to, quarantined.as_ref(), &entry).await.map_err(|error| error.to_string())
            }
            What::Upload { upload } => self.upload(upload, &entry).await.map_err(|error| error.to_string()),
            What::Batch { .. } => self.batch(&entry).await,
        };
        self.told.note(&entry, done);
    }

    /// A file is tried again by the next batch, which takes it off the list.
    async fn object(&self, event: ObjectEvent, entry: &Aside) -> Result<(), String> {
        let RollForward { ledger, .. } = &self.roll_forward;
        let announce = async {
            let is_aside = ledger.allow_retry(&event.object).await?;
            if let Some(body) = announcement(&event) {
                self.queue.send(body).await?;
            }
            // Taken up meanwhile, or without a claim that would say so.
            if is_aside { Ok(()) } else { ledger.unlist_aside(entry).await }
        };
        announce.await.map_err(|error: AwsError| error.to_string())
    }

    async fn original(
        &self,
        object: &ObjectId,
        size: u64,
        to: &str,
        reason: Option<&String>,
        entry: &Aside,
    ) -> Result<(), AwsError> {
        self.roll_forward.move_away(entry.batch, object, size, to, reason, true).await?;
        self.roll_forward.ledger.unlist_aside(entry).await
    }

    async fn upload(&self, upload: &Upload, entry: &Aside) -> Result<(), ReplayError> {
        // What cannot be published is made anew; rejected rows can be read from the archived files alone.
        if !matches!(self.roll_forward.bucket.complete_upload(upload).await, Ok(true))
            && let Some(day) = layout::date_of_curated(&upload.key).and_then(parse_date)
        {
            self.replay(BTreeSet::from([entry.batch])).await?.rebuild(day).await?;
        }
        Ok(self.roll_forward.ledger.unlist_aside(entry).await?)
    }

    /// A batch whose manifest is there again does what is left to do; its figures come from the archived files.
    async fn batch(&self, entry: &Aside) -> Result<(), String> {
        let RollForward { bucket, ledger, .. } = &self.roll_forward;
        let batch = entry.batch;
        let manifest = Manifest::find(bucket, batch).await.map_err(|error| error.to_string())?;
        let Some(manifest) = manifest else {
            return Err(format!("{} is not there, or cannot be read", layout::manifest_key(batch)));
        };
        let finish = async {
            self.roll_forward.publish(&manifest).await?;
            self.roll_forward.put_all_away(&manifest, true).await.1?;
            let summary = serde_json::to_string(&manifest.counts()).unwrap_or_default();
            ledger.close(batch, State::Done, &summary).await?;
            let dates = manifest.uploads.iter().filter_map(|upload| layout::date_of_curated(&upload.key));
            let days: BTreeSet<i32> = dates.filter_map(parse_date).collect();
            let replay = self.replay(BTreeSet::from([batch])).await?;
            for day in days {
                replay.rebuild(day).await?;
            }
            Ok::<_, ReplayError>(ledger.unlist_aside(entry).await?)
        };
        finish.await.map_err(|error| error.to_string())
    }

    async fn replay(&self, lost: BTreeSet<BatchNumber>) -> Result<Replay, ReplayError> {
        let AsideQuery { table_prefix, limits, .. } = self.query;
        Replay::open(self.clients.clone(), self.roll_forward.bucket.name(), table_prefix, limits, lost).await
    }

    /// Brings back the report items that were found, day by day.
    async fn report_items(&mut self) {
        for (day, entries) in std::mem::take(&mut self.items) {
            let keys: HashSet<Key> = entries.iter().map(|(key, _)| key.clone()).collect();
            let restored = async { self.replay(BTreeSet::new()).await?.restore(day, keys).await };
            let refused = match restored.await {
                Ok(refused) => refused,
                Err(error) => {
                    let reason = error.to_string();
                    entries.iter().for_each(|(_, entry)| self.told.note(entry, Err(reason.clone())));
                    continue;
                }
            };
            for (key, entry) in entries {
                let done = match refused.iter().find(|(it, _)| *it == key) {
                    Some((_, reason)) => Err(reason.clone()),
                    None => {
                        let unlisted = self.roll_forward.ledger.unlist_aside(&entry).await;
                        unlisted.map_err(|error| error.to_string())
                    }
                };
                self.told.note(&entry, done);
            }
        }
    }
}
