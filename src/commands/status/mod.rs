//! `music-streams status`: what the pipeline is doing, and what became of a file.
//!
//! Reads the queue's counts, the ledger and manifests, and changes nothing.

mod history;
mod overview;

use clap::Args;
use serde::Serialize;

use crate::aws::Clients;
use crate::aws::error::AwsError;
use crate::aws::s3::Bucket;
use crate::aws::sqs::Queue;
use crate::commands::format::Format;
use crate::layout;
use crate::ledger::{LEDGER_TABLE, Ledger};

use history::ObjectHistory;
use overview::Overview;

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
