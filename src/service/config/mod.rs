//! Configuration: every limit, rate and name, each with its default and why.
//!
//! A container is configured by its environment, a person by flags; both name the same settings. Values carry their units.
//! [`Settings::problems`] checks them before anything starts. What AWS needs (region, credentials,
//! endpoint) comes from the standard `AWS_*` variables.

mod problems;
mod resolved;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;

/// Longest wait of a poll: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html>.
pub use crate::service::config::resolved::{Resolved, resolved};

/// Settings of the consumer.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// URL of the queue that announces created objects
    #[arg(long, env = "MUSIC_STREAMS_QUEUE_URL", value_name = "URL", help_heading = "Resources")]
    pub queue_url: String,

    /// Bucket that the objects are in, with the catalogue under reference/
    #[arg(long, env = "MUSIC_STREAMS_BUCKET", value_name = "NAME", help_heading = "Resources")]
    pub bucket: String,

    /// Put before the name of every table
    #[arg(
        long,
        env = "MUSIC_STREAMS_TABLE_PREFIX",
        value_name = "TEXT",
        default_value = "",
        help_heading = "Resources"
    )]
    pub table_prefix: String,

    /// Length of a micro-batch window, aligned to the clock
    ///
    /// Longer windows make fewer and larger files and fewer writes an item; shorter ones make fresher reports. Each consumer's close a few
    /// seconds later, by its name: a 20th of the window and 5 s at the most.
    #[arg(long, env = "MUSIC_STREAMS_WINDOW", value_name = "DURATION", default_value = "5m", value_parser = humantime::parse_duration, help_heading = "Window")]
    pub window: Duration,

    /// Close a window early at so many objects
    ///
    /// Bounds what is repeated when a batch fails, and the manifest of a batch to a few megabytes.
    #[arg(
        long,
        env = "MUSIC_STREAMS_MAX_OBJECTS",
        value_name = "COUNT",
        default_value_t = 10_000,
        help_heading = "Window"
    )]
    pub max_objects: usize,

    /// Close a window early at so many announced bytes
    ///
    /// Bounds the rows of a batch, and so how long it takes and what is repeated when it fails. Of compressed objects these are the
    /// compressed bytes.
    #[arg(
        long,
        env = "MUSIC_STREAMS_MAX_BYTES",
        value_name = "SIZE",
        default_value = "128MiB",
        help_heading = "Window"
    )]
    pub max_bytes: ByteSize,

    /// Close a window early at so many messages
    ///
    /// A queue has at most 120,000 messages in flight, for all its consumers, and falls silent at that point without an
    /// error. A window that fills while another one runs takes this number twice: with the default, two consumers
    /// fit with certainty, and more as long as their windows are not full.
    #[arg(
        long,
        env = "MUSIC_STREAMS_MAX_MESSAGES",
        value_name = "COUNT",
        default_value_t = 20_000,
        help_heading = "Window"
    )]
    pub max_messages: usize,

    /// Receivers that poll the queue at the same time
    ///
    /// Each takes at most 10 messages a call; four keep up with some thousand messages a second.
    #[arg(long, env = "MUSIC_STREAMS_RECEIVERS", value_name = "COUNT", default_value_t = 4, help_heading = "Queue")]
    pub receivers: usize,

    /// How long a poll waits for messages, at most 20s
    ///
    /// A stop waits for polls that are under way, because messages they bring would otherwise be hidden from everybody.
    #[arg(long, env = "MUSIC_STREAMS_POLL_WAIT", value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration, help_heading = "Queue")]
    pub poll_wait: Duration,

    /// How long a received message stays hidden unless extended
    ///
    /// It is extended at half of this time for as long as it is held. After a crash its messages come back within this time.
    #[arg(long, env = "MUSIC_STREAMS_VISIBILITY_TIMEOUT", value_name = "DURATION", default_value = "2m", value_parser = humantime::parse_duration, help_heading = "Queue")]
    pub visibility_timeout: Duration,

    /// How long a consumer may be silent before others finish its batches
    ///
    /// It beats four times within this time. Shorter recovers sooner, and takes a slow consumer for a dead one sooner, which
    /// costs work but never correctness.
    #[arg(long, env = "MUSIC_STREAMS_LEASE", value_name = "DURATION", default_value = "1m", value_parser = humantime::parse_duration, help_heading = "Batch")]
    pub lease: Duration,

    /// Largest object, before and after decompression; larger ones go to quarantine
    #[arg(
        long,
        env = "MUSIC_STREAMS_MAX_OBJECT_SIZE",
        value_name = "SIZE",
        default_value = "5GiB",
        help_heading = "Batch"
    )]
    pub max_object_size: ByteSize,

    /// How often the incoming prefix is searched for files that nobody announced; 0s for never
    ///
    /// Finds files from before the deployment and those whose notification was lost. Several consumers take turns. Costs a
    /// list request for each thousand files that wait, and some reads of the ledger for each of them.
    #[arg(long, env = "MUSIC_STREAMS_SWEEP_INTERVAL", value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration, help_heading = "Queue")]
    pub sweep_interval: Duration,

    /// How old such a file must be
    ///
    /// Younger files are left to their notifications. Longer than a window and its batch take, or files are looked at twice;
    /// none ever counts twice.
    #[arg(long, env = "MUSIC_STREAMS_SWEEP_AGE", value_name = "DURATION", default_value = "15m", value_parser = humantime::parse_duration, help_heading = "Queue")]
    pub sweep_age: Duration,

    /// Memory that the process may take [default: what its container may have, or 2GiB]
    ///
    /// A batch whose report items do not fit is split, a file that does not fit alone goes to quarantine, and the catalogue may
    /// take a quarter of it. The smallest Fargate task has 512MiB.
    #[arg(long, env = "MUSIC_STREAMS_MAX_MEMORY", value_name = "SIZE", help_heading = "Process")]
    pub max_memory: Option<ByteSize>,

    /// Report items that a batch may touch; with more, it is split
    ///
    /// Bounds what is written again when a batch is repeated. What memory they take, --max-memory bounds.
    #[arg(
        long,
        env = "MUSIC_STREAMS_MAX_REPORT_ITEMS",
        value_name = "COUNT",
        default_value_t = 1_000_000,
        help_heading = "Batch"
    )]
    pub max_report_items: usize,

    /// Rows read a second [default: as fast as possible]
    #[arg(long, env = "MUSIC_STREAMS_MAX_ROWS_PER_SECOND", value_name = "COUNT", help_heading = "Batch")]
    pub max_rows_per_second: Option<NonZeroU32>,

    /// Report items written a second [default: as fast as the tables take them]
    ///
    /// A table on demand takes 4,000 writes a second at first and doubles that as needed; a provisioned one what was paid for.
    #[arg(long, env = "MUSIC_STREAMS_MAX_WRITES_PER_SECOND", value_name = "COUNT", help_heading = "Batch")]
    pub max_writes_per_second: Option<NonZeroU32>,

    /// Report items written at the same time, rounded up to a multiple of 16
    #[arg(
        long,
        env = "MUSIC_STREAMS_WRITE_CONCURRENCY",
        value_name = "COUNT",
        default_value_t = 64,
        help_heading = "Batch"
    )]
    pub write_concurrency: usize,

    /// How long a stop may take; what is committed and not finished by then is left to the next consumer
    ///
    /// Keep it below the stop timeout of the container: 30 s by default on ECS, 120 s at the most on Fargate.
    #[arg(long, env = "MUSIC_STREAMS_SHUTDOWN_TIMEOUT", value_name = "DURATION", default_value = "25s", value_parser = humantime::parse_duration, help_heading = "Process")]
    pub shutdown_timeout: Duration,

    /// Answer questions about health there, over HTTP: /live and /ready [default: nowhere]
    ///
    /// The container image has 127.0.0.1:8080, where music-streams health asks; 0.0.0.0:8080 lets an orchestrator ask.
    #[arg(long, env = "MUSIC_STREAMS_HEALTH_ADDRESS", value_name = "ADDRESS", help_heading = "Process")]
    pub health_address: Option<SocketAddr>,

    /// Not ready when an AWS service has failed for so long
    #[arg(long, env = "MUSIC_STREAMS_UNREADY_AFTER", value_name = "DURATION", default_value = "5m", value_parser = humantime::parse_duration, help_heading = "Process")]
    pub unready_after: Duration,

    /// Not live when a batch has stood still for so long, although AWS answers
    #[arg(long, env = "MUSIC_STREAMS_STUCK_AFTER", value_name = "DURATION", default_value = "15m", value_parser = humantime::parse_duration, help_heading = "Process")]
    pub stuck_after: Duration,

    /// Stop by itself after so long without any message or batch [default: never]
    #[arg(long, env = "MUSIC_STREAMS_EXIT_WHEN_IDLE", value_name = "DURATION", value_parser = humantime::parse_duration, help_heading = "Process")]
    pub exit_when_idle: Option<Duration>,
}
