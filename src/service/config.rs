//! Configuration: every limit, rate and name, each with its default and why.
//!
//! A container is configured by its environment, a person by flags; both name the same settings. Values carry their units.
//! [`Settings::problems`] checks them before anything starts. What AWS needs (region, credentials,
//! endpoint) comes from the standard `AWS_*` variables.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use bytesize::ByteSize;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command};

use crate::aws::sqs::{MAX_IN_FLIGHT_MESSAGES, MAX_IN_FLIGHT_TIME};
use crate::memory::{self, Memory};

/// Longest wait of a poll: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html>.
const MAX_POLL_WAIT: Duration = Duration::from_secs(20);
/// Longest stop timeout of a Fargate task:
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html>.
const MAX_SHUTDOWN: Duration = Duration::from_secs(120);
/// What a batch is allowed to take after its window, when both must fit into SQS's longest time in flight.
const BATCH_ALLOWANCE: Duration = Duration::from_secs(3600);
/// Rows between two looks at the pace of reading: a slower limit could not be kept.
const MIN_ROWS_PER_SECOND: u32 = 4096;

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

impl Settings {
    /// What is wrong with the settings, each with its remedy; empty when nothing is.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut expect = |holds: bool, problem: String| {
            if !holds {
                problems.push(problem);
            }
        };
        let show = |duration: Duration| humantime::format_duration(duration).to_string();
        let is_url = self.queue_url.starts_with("https://") || self.queue_url.starts_with("http://");
        expect(
            is_url,
            format!("--queue-url {:?} is not a URL; take QueueUrl from the outputs of the stack", self.queue_url),
        );
        expect(
            (3..=63).contains(&self.bucket.len()) && !self.bucket.contains('/'),
            format!("--bucket {:?} is not the name of a bucket; give it without s3:// and without a path", self.bucket),
        );
        expect(
            self.window >= Duration::from_secs(1),
            format!("--window {} is too short; give at least 1s", show(self.window)),
        );
        expect(
            self.window + BATCH_ALLOWANCE <= MAX_IN_FLIGHT_TIME,
            format!(
                "--window {} is longer than visibility allows: SQS lets a message stay in flight for {} and no longer, and the \
                 batch needs some of that; give at most {}",
                show(self.window),
                show(MAX_IN_FLIGHT_TIME),
                show(MAX_IN_FLIGHT_TIME - BATCH_ALLOWANCE)
            ),
        );
        expect(
            (Duration::from_secs(5)..=MAX_IN_FLIGHT_TIME).contains(&self.visibility_timeout),
            format!("--visibility-timeout {} is out of range; give 5s to 12h", show(self.visibility_timeout)),
        );
        expect(
            self.poll_wait <= MAX_POLL_WAIT,
            format!(
                "--poll-wait {} is longer than SQS allows; give at most {}",
                show(self.poll_wait),
                show(MAX_POLL_WAIT)
            ),
        );
        expect(
            (Duration::from_secs(2)..=Duration::from_secs(3600)).contains(&self.lease),
            format!("--lease {} is out of range; give 2s to 1h", show(self.lease)),
        );
        expect(
            (Duration::from_secs(1)..=MAX_SHUTDOWN).contains(&self.shutdown_timeout),
            format!(
                "--shutdown-timeout {} is out of range; give 1s to {}",
                show(self.shutdown_timeout),
                show(MAX_SHUTDOWN)
            ),
        );
        expect(
            self.sweep_interval.is_zero() || self.sweep_interval >= Duration::from_secs(1),
            format!("--sweep-interval {} is too short; give at least 1s, or 0s for never", show(self.sweep_interval)),
        );
        expect(
            (1..=64).contains(&self.receivers),
            format!("--receivers {} is out of range; give 1 to 64", self.receivers),
        );
        expect(
            (1..=100_000).contains(&self.max_objects),
            format!("--max-objects {} is out of range; give 1 to 100000", self.max_objects),
        );
        expect(
            (1..=MAX_IN_FLIGHT_MESSAGES / 2).contains(&self.max_messages),
            format!(
                "--max-messages {} is out of range; two windows must fit into the {MAX_IN_FLIGHT_MESSAGES} messages that a \
                 queue has in flight, so give 1 to {}",
                self.max_messages,
                MAX_IN_FLIGHT_MESSAGES / 2
            ),
        );
        expect(
            self.max_bytes >= ByteSize::mib(1),
            format!("--max-bytes {} is too small; give at least 1MiB", self.max_bytes),
        );
        expect(
            (ByteSize::kib(1)..=ByteSize::tib(5)).contains(&self.max_object_size),
            format!("--max-object-size {} is out of range; give 1KiB to 5TiB", self.max_object_size),
        );
        let memory = Memory::of(self.max_memory).bytes();
        expect(
            memory >= memory::MIN_BYTES,
            format!(
                "--max-memory {} is too small, whether it was set or is what the container may have; give at least {}",
                ByteSize(memory),
                ByteSize(memory::MIN_BYTES)
            ),
        );
        expect(
            self.max_report_items >= 1000,
            format!("--max-report-items {} is too small; give at least 1000", self.max_report_items),
        );
        expect(
            (1..=1024).contains(&self.write_concurrency),
            format!("--write-concurrency {} is out of range; give 1 to 1024", self.write_concurrency),
        );
        expect(
            self.max_rows_per_second.is_none_or(|rows| rows.get() >= MIN_ROWS_PER_SECOND),
            format!("--max-rows-per-second is too small; give at least {MIN_ROWS_PER_SECOND}"),
        );
        problems
    }
}

/// One setting as resolved.
#[derive(Debug, serde::Serialize)]
pub struct Resolved {
    /// Its flag.
    pub setting: String,
    /// Its value.
    pub value: String,
    /// Where the value comes from.
    pub source: String,
}

/// Every setting with its value and where that comes from, in the order of the help.
pub fn resolved(command: &Command, matches: &ArgMatches) -> Vec<Resolved> {
    let setting = |argument: &clap::Arg| {
        let flag = argument.get_long()?;
        let variable = argument.get_env()?.to_string_lossy().into_owned();
        let source = match matches.value_source(argument.get_id().as_str()) {
            Some(ValueSource::CommandLine) => format!("flag --{flag}"),
            Some(ValueSource::EnvVariable) => format!("environment {variable}"),
            Some(_) => "default".to_owned(),
            None if flag == "max-memory" => "what the container may have, or 2 GiB".to_owned(),
            None => "not set".to_owned(),
        };
        let value = match matches.get_raw(argument.get_id().as_str()) {
            Some(values) => values.map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(" "),
            None if flag == "max-memory" => ByteSize(Memory::of(None).bytes()).to_string(),
            None => String::new(),
        };
        Some(Resolved { setting: format!("--{flag}"), value, source })
    };
    let aws =
        ["AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL_DYNAMODB"]
            .into_iter()
            .filter_map(|name| {
                let value = std::env::var(name).ok()?;
                Some(Resolved { setting: name.to_owned(), value, source: "environment".to_owned() })
            });
    command.get_arguments().filter_map(setting).chain(aws).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    fn problems(arguments: &[&str]) -> Vec<String> {
        let fixed = ["x", "--queue-url", "https://q", "--bucket", "bucket"];
        Line::parse_from(fixed.iter().chain(arguments)).settings.problems()
    }

    #[test]
    fn defaults_are_sound() {
        assert_eq!(problems(&[]), Vec::<String>::new());
    }

    #[test]
    fn every_nonsense_value_is_named_with_its_remedy() {
        for (flag, value) in [
            ("--window", "0s"),
            ("--window", "12h"),
            ("--visibility-timeout", "1s"),
            ("--visibility-timeout", "13h"),
            ("--poll-wait", "21s"),
            ("--lease", "1s"),
            ("--shutdown-timeout", "3m"),
            ("--sweep-interval", "1ms"),
            ("--receivers", "0"),
            ("--max-objects", "0"),
            ("--max-messages", "60001"),
            ("--max-bytes", "1KiB"),
            ("--max-object-size", "1B"),
            ("--max-report-items", "1"),
            ("--max-memory", "255MiB"),
            ("--write-concurrency", "0"),
            ("--max-rows-per-second", "4095"),
        ] {
            let problems = problems(&[flag, value]);
            assert_eq!(problems.len(), 1, "{flag} {value}: {problems:?}");
            assert!(problems[0].contains(flag) && problems[0].contains("give"), "{problems:?}");
        }
        let lines = ["x", "--queue-url", "queue", "--bucket", "s3://b"];
        assert_eq!(Line::parse_from(lines).settings.problems().len(), 2);
    }

    #[test]
    fn a_window_longer_than_visibility_allows_is_explained() {
        assert!(problems(&["--window", "12h"])[0].contains("longer than visibility allows"));
    }
}
