//! `music-streams aside`: the list of what a service refused permanently and was set aside, and the way back for each
//! kind.
//!
//! | kind | way back |
//! |---|---|
//! | file that cannot be read | its pause ends and it is announced again; the next batch claims it |
//! | report item | gets the figures that all finished batches of its day recorded for it |
//! | counted file that cannot be moved | is moved, which is all that is left to do |
//! | file to publish | is published, or its day is rebuilt |
//! | batch | is published and its files are moved, and its days are rebuilt |
//!
//! A retry may be repeated and may run beside consumers; nothing is ever counted twice. What is still refused stays on
//! the list. Covered by tests/pipeline/refusals.rs and tests/chaos.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::aws::Clients;
use crate::aws::error::AwsError;
use crate::aws::s3::Upload;
use crate::aws::sqs::Queue;
use crate::batch::manifest::Manifest;
use crate::batch::roll_forward::RollForward;
use crate::calendar::{parse_date, time_text};
use crate::commands::format::{Format, print, print_retried, printable, table};
use crate::commands::replay::{Replay, ReplayError, ReplayLimits};
use crate::commands::resources::{Resources, Tables};
use crate::intake::notification::announcement;
use crate::lake::Lake;
use crate::layout;
use crate::ledger::Ledger;
use crate::ledger::aside::{Aside, What};
use crate::object::{ObjectEvent, ObjectId};
use crate::plan::Plan;
use crate::protocol::{BatchNumber, State};
use crate::reports::figures::Key;
use crate::telemetry::progress::Progress;

/// The answer for an empty list.
const NOTHING: &str = "nothing is set aside";

/// The arguments of `music-streams aside`.
#[derive(Debug, Args)]
pub struct AsideQuery {
    /// Bring back everything that is no longer refused
    ///
    /// Needs the permissions of ReplayPolicy. The exit status is 1 if anything is still refused.
    #[arg(long)]
    retry: bool,

    /// URL of the queue that announces created objects, where files are announced again
    #[arg(long, env = "MUSIC_STREAMS_QUEUE_URL", value_name = "URL", required_if_eq("retry", "true"))]
    queue_url: Option<String>,

    /// Bucket that the consumers read
    #[arg(long, env = "MUSIC_STREAMS_BUCKET", value_name = "NAME", required_if_eq("retry", "true"))]
    bucket: Option<String>,

    #[command(flatten)]
    tables: Tables,

    /// Number of entries to show, at most
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..), value_name = "COUNT")]
    limit: u32,

    #[command(flatten)]
    limits: ReplayLimits,

    /// Table for people or JSON for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// An error of `music-streams aside`.
#[derive(Debug, thiserror::Error)]
pub enum AsideError {
    /// A call failed.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// Some things are still set aside.
    #[error("{0} things are still set aside; each line says why")]
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
    /// The pipeline's tables.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Lists what is set aside, or brings it back and prints the result.
    pub async fn run(&self, clients: Clients, plan: Arc<Plan>) -> Result<(), AsideError> {
        let ledger = self.tables.ledger(&clients, format!("aside-{}", std::process::id()));
        if self.retry {
            return self.retry_all(clients, plan, ledger).await;
        }
        let (entries, has_more) = ledger.aside(usize::try_from(self.limit).unwrap_or(usize::MAX)).await?;
        let listed: Vec<_> = entries.into_iter().map(|(since, entry)| Listed { since, entry }).collect();
        print(&match self.format {
            Format::Json => format!("{:#}", serde_json::json!(listed)),
            Format::Table if listed.is_empty() => NOTHING.to_owned(),
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

    async fn retry_all(&self, clients: Clients, plan: Arc<Plan>, ledger: Ledger) -> Result<(), AsideError> {
        let (entries, _) = ledger.aside(usize::MAX).await?;
        // Both arguments are required with --retry.
        let resources = Resources::new(self.bucket.clone().unwrap_or_default(), self.tables.clone());
        let queue = self.queue_url.clone().unwrap_or_default();
        let mut retry = Retry {
            queue: Queue::new(clients.sqs.clone(), queue, Duration::ZERO),
            roll_forward: RollForward {
                ledger,
                bucket: resources.bucket(&clients),
                reports: resources.tables.reports(&clients, &plan, 1, None),
                progress: Progress::default(),
                deadline: CancellationToken::new(),
            },
            clients,
            plan,
            resources,
            limits: &self.limits,
            items: BTreeMap::new(),
            lists: BTreeMap::new(),
            result: Retried::default(),
        };
        for (_, entry) in entries {
            retry.bring_back(entry).await;
        }
        retry.restore_items().await;
        retry.rebuild_lists().await;
        retry.roll_forward.ledger.touch().await?;
        retry.result.print(self.format)
    }
}

/// The result of a retry.
#[derive(Debug, Default, Serialize)]
struct Retried {
    back: Vec<String>,
    still: Vec<String>,
}

impl Retried {
    fn note(&mut self, entry: &Aside, done: Result<(), String>) {
        let [kind, name, _] = entry.describe();
        match done {
            Ok(()) => self.back.push(format!("{kind} {name}")),
            Err(reason) => self.still.push(format!("{kind} {name}: {reason}")),
        }
    }

    fn print(self, format: Format) -> Result<(), AsideError> {
        print_retried(format, &self, [("back", &self.back), ("still set aside", &self.still)], NOTHING);
        if self.still.is_empty() { Ok(()) } else { Err(AsideError::Still(self.still.len())) }
    }
}

/// A retry under way.
struct Retry<'a> {
    clients: Clients,
    plan: Arc<Plan>,
    resources: Resources,
    limits: &'a ReplayLimits,
    roll_forward: RollForward,
    queue: Queue,
    /// Report items, which are restored day by day at the end.
    items: BTreeMap<i32, Vec<(Key, Aside)>>,
    /// Top lists, whose days are rebuilt at the end.
    lists: BTreeMap<i32, Vec<Aside>>,
    result: Retried,
}

impl Retry<'_> {
    /// Brings one entry back. A refusal is noted and does not stop the others.
    async fn bring_back(&mut self, entry: Aside) {
        let done = match &entry.what {
            What::Object { object, size, created_at, .. } => {
                let event = ObjectEvent { object: object.clone(), size: *size, created_at: *created_at };
                self.announce(event, &entry).await
            }
            What::ReportItem { .. } => match entry.report_item(&self.plan) {
                Some(key) => {
                    let day = self.plan.day_of(key.period);
                    return self.items.entry(day).or_default().push((key, entry));
                }
                None => Err("this version has no such report".to_owned()),
            },
            What::TopList { .. } => match entry.top_list_key() {
                Some(list) => {
                    let day = self.plan.day_of(list.period);
                    return self.lists.entry(day).or_default().push(entry);
                }
                None => Err("it has no day that can be read".to_owned()),
            },
            What::Original { object, size, to, quarantined } => {
                let moved = self.move_original(object, *size, to, quarantined.as_ref(), &entry).await;
                moved.map_err(|error| error.to_string())
            }
            What::Upload { upload } => self.publish(upload, &entry).await.map_err(|error| error.to_string()),
            What::Batch { .. } => self.finish_batch(&entry).await,
        };
        self.result.note(&entry, done);
    }

    /// Ends a file's pause and announces it again. The next batch that counts it removes it from the list.
    async fn announce(&self, event: ObjectEvent, entry: &Aside) -> Result<(), String> {
        let RollForward { ledger, .. } = &self.roll_forward;
        let announce = async {
            let is_aside = ledger.allow_retry(&event.object).await?;
            if let Some(body) = announcement(&event) {
                self.queue.send(body).await?;
            }
            // If it is not paused, a batch has claimed it meanwhile, or its claim has expired.
            if is_aside { Ok(()) } else { ledger.unlist_aside(entry).await }
        };
        announce.await.map_err(|error: AwsError| error.to_string())
    }

    /// Moves a counted file to its place.
    async fn move_original(
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

    /// Rebuilds each day that has top lists among the entries, which fills them anew. The rebuild removes those from
    /// the list of what is set aside that are right again.
    async fn rebuild_lists(&mut self) {
        for (day, entries) in std::mem::take(&mut self.lists) {
            let rebuilt = async { self.replay(BTreeSet::new()).await?.rebuild(day).await };
            let done = rebuilt.await.map(drop).map_err(|error| error.to_string());
            entries.iter().for_each(|entry| self.result.note(entry, done.clone()));
        }
    }

    /// Publishes a curated file, or rebuilds its day.
    async fn publish(&self, upload: &Upload, entry: &Aside) -> Result<(), ReplayError> {
        // A lost curated file is written again. A lost list of rejected rows is not: the archived files still have the
        // rows.
        let is_curated = layout::date_of_curated(&upload.key).is_some();
        let is_published = matches!(self.roll_forward.bucket.complete_upload(upload).await, Ok(true));
        if is_published && is_curated {
            let RollForward { bucket, ledger, .. } = &self.roll_forward;
            let mut lake = Lake::new(bucket.clone(), ledger.clone());
            lake.include(entry.batch, &ledger.registry().await?).await?;
        } else if !is_published && let Some(day) = layout::date_of_curated(&upload.key).and_then(parse_date) {
            self.replay(BTreeSet::from([entry.batch])).await?.rebuild(day).await?;
        }
        Ok(self.roll_forward.ledger.unlist_aside(entry).await?)
    }

    /// Finishes a batch whose manifest can be read again. Its figures come from the archived files.
    async fn finish_batch(&self, entry: &Aside) -> Result<(), String> {
        let RollForward { bucket, ledger, .. } = &self.roll_forward;
        let batch = entry.batch;
        let manifest = Manifest::find(bucket, batch).await.map_err(|error| error.to_string())?;
        let Some(manifest) = manifest else {
            return Err(format!("{} is missing or cannot be read", layout::manifest_key(batch)));
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
        Replay::open(&self.clients, Arc::clone(&self.plan), &self.resources, self.limits, lost).await
    }

    /// Restores the report items that were found, day by day.
    async fn restore_items(&mut self) {
        for (day, entries) in std::mem::take(&mut self.items) {
            let keys: HashSet<Key> = entries.iter().map(|(key, _)| key.clone()).collect();
            let restored = async { self.replay(BTreeSet::new()).await?.restore(day, keys).await };
            let refused = match restored.await {
                Ok(refused) => refused,
                Err(error) => {
                    let reason = error.to_string();
                    entries.iter().for_each(|(_, entry)| self.result.note(entry, Err(reason.clone())));
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
                self.result.note(&entry, done);
            }
        }
    }
}
