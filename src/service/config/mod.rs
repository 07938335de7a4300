//! Configuration: every limit, rate and name, each with its default and its reason.
//!
//! The same settings can be given as flags, the usual way for people, and as environment variables, the usual way for
//! containers. Values carry their units. [`Settings::problems`] (`problems.rs`) checks them before anything starts, and
//! [`resolved()`] (`resolved.rs`) shows where each value comes from. Settings of AWS (region, credentials, endpoint)
//! come from the standard `AWS_*` variables.
//!
//! The help texts are also the table in docs/configuration.md, which tests/documents.rs compares.

mod problems;
mod resolved;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;

pub use crate::service::config::resolved::{Resolved, resolved};

/// Compaction of the table of the curated files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Compact {
    /// By consumers, between batches.
    Auto,
    /// By the command alone.
    Never,
}

/// Settings of the consumer.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// URL of the queue that announces created objects
    #[arg(long, env = "MUSIC_STREAMS_QUEUE_URL", value_name = "URL", help_heading = "Resources")]
    pub queue_url: String,

    /// Bucket that the objects are in, with the catalogue under reference/
    #[arg(long, env = "MUSIC_STREAMS_BUCKET", value_name = "NAME", help_heading = "Resources")]
    pub bucket: String,

    /// Prefix of the name of every table
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
    /// Longer windows mean fewer and larger files and fewer writes per item; shorter ones mean fresher reports.
    #[arg(
        long,
        env = "MUSIC_STREAMS_WINDOW",
        value_name = "DURATION",
        default_value = "5m",
        value_parser = humantime::parse_duration,
        help_heading = "Window"
    )]
    pub window: Duration,

    /// Time after the clock at which windows end [default: by itself]
    ///
    /// By default, windows end on the clock while one consumer has the queue to itself, and each consumer's at a moment
    /// of its own, derived from its name, while several share it: otherwise they would write the same report items in
    /// the same seconds.
    #[arg(
        long,
        env = "MUSIC_STREAMS_WINDOW_OFFSET",
        value_name = "DURATION",
        value_parser = humantime::parse_duration,
        help_heading = "Window"
    )]
    pub window_offset: Option<Duration>,

    /// Close a window early at this number of objects
    ///
    /// Bounds the work that is repeated when a batch fails, and the manifest of a batch to a few megabytes.
    #[arg(
        long,
        env = "MUSIC_STREAMS_MAX_OBJECTS",
        value_name = "COUNT",
        default_value_t = 10_000,
        help_heading = "Window"
    )]
    pub max_objects: usize,

    /// Close a window early at this number of announced bytes
    ///
    /// Bounds the rows of a batch, and so its duration and the work that is repeated when it fails. For compressed
    /// objects these are the compressed bytes.
    #[arg(
        long,
        env = "MUSIC_STREAMS_MAX_BYTES",
        value_name = "SIZE",
        default_value = "128MiB",
        help_heading = "Window"
    )]
    pub max_bytes: ByteSize,

    /// Close a window early at this number of messages
    ///
    /// A queue allows 120,000 messages in flight for all its consumers, and beyond that returns none, without an error.
    /// A consumer can hold this number twice, as one window fills while another one is processed. With the default, two
    /// consumers always fit, and more as long as their windows are not full.
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
    /// Each receives at most 10 messages per call; four keep up with several thousand messages per second.
    #[arg(long, env = "MUSIC_STREAMS_RECEIVERS", value_name = "COUNT", default_value_t = 4, help_heading = "Queue")]
    pub receivers: usize,

    /// Time that a poll waits for messages, at most 20s
    ///
    /// A stop waits for polls under way, because their messages would otherwise stay hidden from all consumers.
    #[arg(
        long,
        env = "MUSIC_STREAMS_POLL_WAIT",
        value_name = "DURATION",
        default_value = "5s",
        value_parser = humantime::parse_duration,
        help_heading = "Queue"
    )]
    pub poll_wait: Duration,

    /// Time that a received message stays hidden unless extended
    ///
    /// It is extended at half of this time for as long as the message is held. After a crash the messages come back
    /// within this time.
    #[arg(
        long,
        env = "MUSIC_STREAMS_VISIBILITY_TIMEOUT",
        value_name = "DURATION",
        default_value = "2m",
        value_parser = humantime::parse_duration,
        help_heading = "Queue"
    )]
    pub visibility_timeout: Duration,

    /// Time that a consumer may be silent before others finish its batches
    ///
    /// A consumer renews its lease four times within this time. With a shorter lease, batches are recovered sooner, but
    /// a slow consumer is also taken for dead sooner, which costs work but never correctness.
    #[arg(
        long,
        env = "MUSIC_STREAMS_LEASE",
        value_name = "DURATION",
        default_value = "1m",
        value_parser = humantime::parse_duration,
        help_heading = "Batch"
    )]
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

    /// Interval at which the incoming prefix is searched for files that no message announced; 0s for never
    ///
    /// Finds files from before the deployment and files whose notification was lost. Several consumers take turns.
    /// Costs one list request for each thousand files there, and some reads of the ledger for each of them.
    #[arg(
        long,
        env = "MUSIC_STREAMS_SWEEP_INTERVAL",
        value_name = "DURATION",
        default_value = "10m",
        value_parser = humantime::parse_duration,
        help_heading = "Queue"
    )]
    pub sweep_interval: Duration,

    /// Age from which on such a file is processed
    ///
    /// Younger files are left to their notifications. Set it above the time a window and its batch take; otherwise
    /// files are checked twice (but never counted twice).
    #[arg(
        long,
        env = "MUSIC_STREAMS_SWEEP_AGE",
        value_name = "DURATION",
        default_value = "15m",
        value_parser = humantime::parse_duration,
        help_heading = "Queue"
    )]
    pub sweep_age: Duration,

    /// Make large files of small ones in the table of the curated files
    ///
    /// Happens between batches, once there are 24 small files of a day that are older than an hour, and takes about two
    /// seconds for a million rows. Files that no reader needs any more are deleted after a week. With never, both are
    /// left to the command compact.
    #[arg(long, env = "MUSIC_STREAMS_COMPACT", value_enum, default_value_t = Compact::Auto, help_heading = "Table")]
    pub compact: Compact,

    /// Memory that the process may take [default: the limit of its container, or 2GiB]
    ///
    /// A batch whose report items do not fit is split, and a file that does not fit even alone goes to quarantine. The
    /// catalogue may take a quarter of it. The smallest Fargate task has 512MiB.
    #[arg(long, env = "MUSIC_STREAMS_MAX_MEMORY", value_name = "SIZE", help_heading = "Process")]
    pub max_memory: Option<ByteSize>,

    /// Report items that a batch may touch; with more, it is split
    ///
    /// Bounds the writes that are repeated when a batch is repeated. Their memory is bounded by --max-memory.
    #[arg(
        long,
        env = "MUSIC_STREAMS_MAX_REPORT_ITEMS",
        value_name = "COUNT",
        default_value_t = 1_000_000,
        help_heading = "Batch"
    )]
    pub max_report_items: usize,

    /// Rows read per second [default: as fast as possible]
    #[arg(long, env = "MUSIC_STREAMS_MAX_ROWS_PER_SECOND", value_name = "COUNT", help_heading = "Batch")]
    pub max_rows_per_second: Option<NonZeroU32>,

    /// Report items written per second [default: as fast as the tables accept them]
    ///
    /// An on-demand table accepts 4,000 writes per second at first, and doubles that as needed; a provisioned one
    /// accepts its provisioned capacity.
    #[arg(long, env = "MUSIC_STREAMS_MAX_WRITES_PER_SECOND", value_name = "COUNT", help_heading = "Batch")]
    pub max_writes_per_second: Option<NonZeroU32>,

    /// Report items written at the same time, rounded up to a multiple of 100
    #[arg(
        long,
        env = "MUSIC_STREAMS_WRITE_CONCURRENCY",
        value_name = "COUNT",
        default_value_t = 400,
        help_heading = "Batch"
    )]
    pub write_concurrency: usize,

    /// Time that a stop may take; batches that are committed and not finished by then are left to the next consumer
    ///
    /// Keep it below the stop timeout of the container: 30 s by default on ECS, at most 120 s on Fargate.
    #[arg(
        long,
        env = "MUSIC_STREAMS_SHUTDOWN_TIMEOUT",
        value_name = "DURATION",
        default_value = "25s",
        value_parser = humantime::parse_duration,
        help_heading = "Process"
    )]
    pub shutdown_timeout: Duration,

    /// Address for health checks over HTTP: /live and /ready [default: none]
    ///
    /// The container image has 127.0.0.1:8080, which music-streams health asks; with 0.0.0.0:8080 an orchestrator can
    /// ask.
    #[arg(long, env = "MUSIC_STREAMS_HEALTH_ADDRESS", value_name = "ADDRESS", help_heading = "Process")]
    pub health_address: Option<SocketAddr>,

    /// Not ready when an AWS service has failed for this time
    #[arg(
        long,
        env = "MUSIC_STREAMS_UNREADY_AFTER",
        value_name = "DURATION",
        default_value = "5m",
        value_parser = humantime::parse_duration,
        help_heading = "Process"
    )]
    pub unready_after: Duration,

    /// Not live when a batch has stood still for this time, although AWS answers
    #[arg(
        long,
        env = "MUSIC_STREAMS_STUCK_AFTER",
        value_name = "DURATION",
        default_value = "15m",
        value_parser = humantime::parse_duration,
        help_heading = "Process"
    )]
    pub stuck_after: Duration,

    /// Stop by itself after this time without any message or batch [default: never]
    #[arg(
        long,
        env = "MUSIC_STREAMS_EXIT_WHEN_IDLE",
        value_name = "DURATION",
        value_parser = humantime::parse_duration,
        help_heading = "Process"
    )]
    pub exit_when_idle: Option<Duration>,
}
