//! `music-streams status`: the state of the pipeline, or the history of one object.
//!
//! Reads the queue's counts, the ledger and manifests, and changes nothing. `overview` has the state of the pipeline,
//! `table` that of the curated files, and `history` that of an object. Covered by tests/pipeline/operators.rs.

mod history;
mod overview;
mod table;

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::aws::Clients;
use crate::aws::s3::Bucket;
use crate::aws::sqs::Queue;
use crate::commands::format::Format;
use crate::commands::resources::Tables;
use crate::lake::LakeError;
use crate::layout;
use crate::reading::pipeline::Overview;

use history::ObjectHistory;
use table::TableState;

/// The arguments of `music-streams status`.
#[derive(Debug, Args)]
pub struct StatusQuery {
    /// Show the history of this object instead: the batch that claimed it, the time, and the outcome
    #[arg(long, value_name = "s3://BUCKET/KEY", value_parser = parse_url)]
    object: Option<Url>,

    /// URL of the queue that announces created objects
    #[arg(long, env = "MUSIC_STREAMS_QUEUE_URL", value_name = "URL", required_unless_present = "object")]
    queue_url: Option<String>,

    /// Bucket that the consumers read: with it, the table of the curated files is shown too
    #[arg(long, env = "MUSIC_STREAMS_BUCKET", value_name = "NAME")]
    bucket: Option<String>,

    #[command(flatten)]
    tables: Tables,

    /// Number of finished batches to show
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=1000), value_name = "COUNT")]
    recent: u16,

    /// Table for people or JSON for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// The place of an object, present or past.
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
    /// Reads the state, and returns the text to print.
    pub async fn answer(&self, clients: Clients) -> Result<String, LakeError> {
        let ledger = self.tables.ledger(&clients, "");
        if let Some(Url { bucket, key }) = &self.object {
            let bucket = Bucket::new(clients.s3, bucket.clone());
            let history = ObjectHistory::read(key, &bucket, &ledger).await?;
            return Ok(match self.format {
                Format::Table => history.as_text(),
                Format::Json => as_json(&history),
            });
        }
        // No message is received, so no visibility timeout is needed.
        let queue = Queue::new(clients.sqs, self.queue_url.clone().unwrap_or_default(), Duration::ZERO);
        let overview = Overview::read(&queue, &ledger, self.recent).await?;
        let table = match &self.bucket {
            Some(bucket) => TableState::read(Bucket::new(clients.s3, bucket.clone()), ledger).await?,
            None => None,
        };
        Ok(match self.format {
            Format::Table => overview.as_text(table.as_ref()),
            Format::Json => as_json(&State { overview, table }),
        })
    }
}

/// The state of the pipeline, and of the table of its curated files.
#[derive(Serialize)]
struct State {
    #[serde(flatten)]
    overview: Overview,
    table: Option<TableState>,
}

fn as_json(value: &impl Serialize) -> String {
    format!("{:#}", serde_json::json!(value))
}
