//! Checks of the settings, before anything starts.

use std::time::Duration;

use bytesize::ByteSize;

use crate::aws::sqs::{MAX_IN_FLIGHT_MESSAGES, MAX_IN_FLIGHT_TIME};
use crate::memory::{self, Memory};
use crate::service::config::Settings;

/// Longest wait of a poll:
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html>.
const MAX_POLL_WAIT: Duration = Duration::from_secs(20);
/// Longest stop timeout of a Fargate task:
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html>.
const MAX_SHUTDOWN: Duration = Duration::from_secs(120);
/// Time that a batch may take after its window, when both must fit into SQS's longest time in flight.
const BATCH_ALLOWANCE: Duration = Duration::from_secs(3600);
/// Rows between two checks of the rate of reading: a lower limit could not be kept.
const MIN_ROWS_PER_SECOND: u32 = 4096;

/// The result of one check: it holds, or the problem with its remedy.
type Check = (bool, String);

impl Settings {
    /// Checks the settings. Returns the problems, each with its remedy; empty if there are none.
    pub fn problems(&self) -> Vec<String> {
        let checks = [
            self.resource_checks().to_vec(),
            self.window_checks().to_vec(),
            self.time_checks().to_vec(),
            self.size_checks().to_vec(),
        ];
        checks.concat().into_iter().filter(|(holds, _)| !holds).map(|(_, problem)| problem).collect()
    }

    fn resource_checks(&self) -> [Check; 2] {
        [
            (
                self.queue_url.starts_with("https://") || self.queue_url.starts_with("http://"),
                format!("--queue-url {:?} is not a URL; take QueueUrl from the outputs of the stack", self.queue_url),
            ),
            (
                (3..=63).contains(&self.bucket.len()) && !self.bucket.contains('/'),
                format!(
                    "--bucket {:?} is not the name of a bucket; give it without s3:// and without a path",
                    self.bucket
                ),
            ),
        ]
    }

    fn window_checks(&self) -> [Check; 6] {
        let offset = self.window_offset.unwrap_or_default();
        [
            (
                self.window >= Duration::from_secs(1),
                format!("--window {} is too short; give at least 1s", show(self.window)),
            ),
            (
                self.window + BATCH_ALLOWANCE <= MAX_IN_FLIGHT_TIME,
                format!(
                    "--window {} is longer than visibility allows: SQS lets a message stay in flight for at most {}, \
                     and the batch needs some of that; give at most {}",
                    show(self.window),
                    show(MAX_IN_FLIGHT_TIME),
                    show(MAX_IN_FLIGHT_TIME - BATCH_ALLOWANCE)
                ),
            ),
            (
                offset.is_zero() || offset < self.window,
                format!(
                    "--window-offset {} is not shorter than --window {}; give less, or leave it out",
                    show(offset),
                    show(self.window)
                ),
            ),
            (
                (1..=100_000).contains(&self.max_objects),
                format!("--max-objects {} is out of range; give 1 to 100000", self.max_objects),
            ),
            (
                (1..=MAX_IN_FLIGHT_MESSAGES / 2).contains(&self.max_messages),
                format!(
                    "--max-messages {} is out of range; two windows must fit into the {MAX_IN_FLIGHT_MESSAGES} \
                     messages that a queue allows in flight, so give 1 to {}",
                    self.max_messages,
                    MAX_IN_FLIGHT_MESSAGES / 2
                ),
            ),
            (
                self.max_bytes >= ByteSize::mib(1),
                format!("--max-bytes {} is too small; give at least 1MiB", self.max_bytes),
            ),
        ]
    }

    fn time_checks(&self) -> [Check; 5] {
        [
            (
                (Duration::from_secs(5)..=MAX_IN_FLIGHT_TIME).contains(&self.visibility_timeout),
                format!("--visibility-timeout {} is out of range; give 5s to 12h", show(self.visibility_timeout)),
            ),
            (
                self.poll_wait <= MAX_POLL_WAIT,
                format!(
                    "--poll-wait {} is longer than SQS allows; give at most {}",
                    show(self.poll_wait),
                    show(MAX_POLL_WAIT)
                ),
            ),
            (
                (Duration::from_secs(2)..=Duration::from_secs(3600)).contains(&self.lease),
                format!("--lease {} is out of range; give 2s to 1h", show(self.lease)),
            ),
            (
                (Duration::from_secs(1)..=MAX_SHUTDOWN).contains(&self.shutdown_timeout),
                format!(
                    "--shutdown-timeout {} is out of range; give 1s to {}",
                    show(self.shutdown_timeout),
                    show(MAX_SHUTDOWN)
                ),
            ),
            (
                self.sweep_interval.is_zero() || self.sweep_interval >= Duration::from_secs(1),
                format!(
                    "--sweep-interval {} is too short; give at least 1s, or 0s for never",
                    show(self.sweep_interval)
                ),
            ),
        ]
    }

    fn size_checks(&self) -> [Check; 6] {
        let memory = Memory::of(self.max_memory).bytes();
        [
            (
                (1..=64).contains(&self.receivers),
                format!("--receivers {} is out of range; give 1 to 64", self.receivers),
            ),
            (
                (ByteSize::kib(1)..=ByteSize::tib(5)).contains(&self.max_object_size),
                format!("--max-object-size {} is out of range; give 1KiB to 5TiB", self.max_object_size),
            ),
            (
                memory >= memory::MIN_BYTES,
                format!(
                    "--max-memory {} is too small, whether it was set or is the limit of the container; give at \
                     least {}",
                    ByteSize(memory),
                    ByteSize(memory::MIN_BYTES)
                ),
            ),
            (
                self.max_report_items >= 1000,
                format!("--max-report-items {} is too small; give at least 1000", self.max_report_items),
            ),
            (
                (1..=1024).contains(&self.write_concurrency),
                format!("--write-concurrency {} is out of range; give 1 to 1024", self.write_concurrency),
            ),
            (
                self.max_rows_per_second.is_none_or(|rows| rows.get() >= MIN_ROWS_PER_SECOND),
                format!("--max-rows-per-second is too small; give at least {MIN_ROWS_PER_SECOND}"),
            ),
        ]
    }
}

fn show(duration: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(duration)
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
            ("--window-offset", "5m"),
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
