//! All metrics, in one table.
//!
//! The rows of the table generate the OpenTelemetry instruments as well as [`TABLE`], against which
//! `tests/documents.rs` checks `docs/metrics.md`. Names follow the [semantic
//! conventions](https://opentelemetry.io/docs/specs/semconv/) where they define one. No label has an unbounded set of
//! values: never a key, an id or a batch's number.
//!
//! While nothing is exported ([`crate::telemetry::export`]), recording has no effect. `tests/pipeline/telemetry.rs`
//! covers what is recorded.

use std::sync::LazyLock;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter};

/// A label's name and its values.
pub type Label = (&'static str, &'static [&'static str]);

/// The description of a metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its unit, in [UCUM](https://ucum.org).
    pub unit: &'static str,
    /// Counter, gauge or histogram.
    pub kind: &'static str,
    /// Its labels, each with its values; an empty list if they are too many to name.
    pub labels: &'static [Label],
    /// Its meaning, for people.
    pub meaning: &'static str,
}

impl Metric {
    const fn of<I: Instrument>(
        name: &'static str,
        unit: &'static str,
        labels: &'static [Label],
        meaning: &'static str,
    ) -> Self {
        Metric { name, unit, kind: I::KIND, labels, meaning }
    }
}

/// Upper bounds of the histograms' buckets in seconds: from a round trip to a day.
const SECONDS: [f64; 20] = [
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 420.0, 600.0, 1200.0, 1800.0, 3600.0,
    21_600.0, 86_400.0,
];

trait Instrument {
    const KIND: &'static str;
    fn build(meter: &Meter, metric: &Metric) -> Self;
    /// Has the instrument exported before anything is recorded.
    fn begin(&self, _labels: &[KeyValue]) {}
}

impl Instrument for Counter<u64> {
    const KIND: &'static str = "counter";
    fn build(meter: &Meter, metric: &Metric) -> Self {
        meter.u64_counter(metric.name).with_unit(metric.unit).with_description(metric.meaning).build()
    }
    fn begin(&self, labels: &[KeyValue]) {
        self.add(0, labels);
    }
}

impl Instrument for Gauge<u64> {
    const KIND: &'static str = "gauge";
    fn build(meter: &Meter, metric: &Metric) -> Self {
        meter.u64_gauge(metric.name).with_unit(metric.unit).with_description(metric.meaning).build()
    }
}

impl Instrument for Gauge<f64> {
    const KIND: &'static str = "gauge";
    fn build(meter: &Meter, metric: &Metric) -> Self {
        meter.f64_gauge(metric.name).with_unit(metric.unit).with_description(metric.meaning).build()
    }
}

impl Instrument for Histogram<f64> {
    const KIND: &'static str = "histogram";
    fn build(meter: &Meter, metric: &Metric) -> Self {
        let histogram = meter.f64_histogram(metric.name).with_unit(metric.unit).with_description(metric.meaning);
        histogram.with_boundaries(SECONDS.to_vec()).build()
    }
}

macro_rules! metrics {
    ($(
        $field:ident: $instrument:ty = $name:literal, $unit:literal,
        [$(($label:literal, [$($value:literal),*])),*], $meaning:literal;
    )*) => {
        /// The descriptions of all metrics.
        pub const TABLE: &[Metric] =
            &[$(Metric::of::<$instrument>($name, $unit, &[$(($label, &[$($value),*])),*], $meaning)),*];

        /// The instruments of all metrics.
        #[derive(Debug)]
        pub struct Metrics {
            $(#[doc = $meaning] pub $field: $instrument,)*
        }

        impl Metrics {
            fn new(meter: &Meter) -> Self {
                Metrics {
                    $($field: <$instrument>::build(
                        meter,
                        &Metric::of::<$instrument>($name, $unit, &[$(($label, &[$($value),*])),*], $meaning),
                    ),)*
                }
            }

            /// Exports every counter from zero on, so that its first increase is visible as one.
            pub fn begin(&self) {
                $(for labels in combinations(&[$(($label, &[$($value),*])),*]) {
                    self.$field.begin(&labels);
                })*
            }
        }
    };
}

metrics! {
    queue_messages: Gauge<u64> = "music_streams.queue.messages", "{message}",
        [("state", ["waiting", "in_flight", "delayed"])],
        "Approximate number of messages in the queue, as SQS counts them. Those waiting are the backlog.";
    in_flight_share: Gauge<f64> = "music_streams.queue.in_flight_share", "1", [],
        "Messages in flight, as a share of the 120,000 at which SQS stops delivering.";
    oldest_message_age: Gauge<f64> = "music_streams.queue.oldest_message_age", "s", [],
        "Time for which the oldest message that this consumer holds has been in the queue; 0 when it holds none.";
    messages_received: Counter<u64> = "messaging.client.consumed.messages", "{message}",
        [("messaging.system", ["aws_sqs"]), ("messaging.operation.name", ["receive"])],
        "Messages received; each receive of a message counts.";
    events: Counter<u64> = "music_streams.events", "{event}",
        [("outcome", ["accepted", "ignored", "refused", "unreadable"])],
        "Events in the messages received, each receive counted, by outcome: accepted; ignored, because they announce \
         no new object; refused, because their object is no file under the incoming prefix; unreadable, and left for \
         the dead-letter queue.";
    window_objects: Gauge<u64> = "music_streams.window.objects", "{object}", [],
        "Objects in the window that is being filled.";
    window_fill: Gauge<f64> = "music_streams.window.fill", "1", [],
        "Fill level of the window: the largest of its shares of the maximum objects, bytes and messages. At 1 it \
         closes early.";
    stage_duration: Histogram<f64> = "music_streams.batch.stage.duration", "s",
        [("stage", ["claim", "transform", "commit", "upsert", "publish", "archive"])],
        "Duration of a stage of a batch.";
    batches: Counter<u64> = "music_streams.batches", "{batch}", [("outcome", ["done", "failed"])],
        "Batches that finished, and attempts at a batch that failed and are repeated.";
    recoveries: Counter<u64> = "music_streams.ledger.recoveries", "{batch}", [("what", ["abandoned", "adopted"])],
        "Batches of silent consumers that were abandoned because they were open, or finished because they were \
         committed.";
    unfinished_batches: Gauge<u64> = "music_streams.ledger.unfinished_batches", "{batch}", [],
        "Unfinished batches of all consumers.";
    oldest_unfinished: Gauge<u64> = "music_streams.ledger.oldest_unfinished_batch", "s", [],
        "Time since the oldest unfinished batch was opened; 0 when there is none.";
    aside: Gauge<u64> = "music_streams.aside", "{thing}", [],
        "Entries that music-streams aside lists as set aside, of all consumers, up to a thousand.";
    set_aside: Counter<u64> = "music_streams.set_aside", "{thing}",
        [("what", ["object", "report_item", "original", "upload", "batch"])],
        "Things that were set aside, each occasion counted: files that cannot be read, report items that cannot be \
         written, counted files that cannot be moved, files that cannot be published, batches that cannot be carried \
         out.";
    table_lag: Gauge<u64> = "music_streams.table.lag", "{batch}", [],
        "Finished batches that the table of the curated files is not known to have; analysts do not see their rows.";
    compacted_files: Counter<u64> = "music_streams.table.compacted_files", "{file}", [],
        "Small curated files whose rows were written to a larger one.";
    catalogue_refused: Gauge<u64> = "music_streams.catalogue.refused", "1", [],
        "1 while the catalogue in the bucket is refused, and the last good one stays in use.";
    suspect_files: Counter<u64> = "music_streams.files.suspect", "{file}", [],
        "Files that were counted although they have no good row, or more than a tenth of their rows was rejected.";
    freshness: Histogram<f64> = "music_streams.freshness", "s", [],
        "Time from the creation of an object until its rows are in the reports, for each counted object.";
    rows_read: Counter<u64> = "music_streams.rows.read", "{row}", [],
        "Rows of the counted files, good or not.";
    rows_passed_over: Counter<u64> = "music_streams.rows.passed_over", "{row}", [],
        "Rows that the definition does not mean, by its conditions: neither counted nor rejected.";
    rows_curated: Counter<u64> = "music_streams.rows.curated", "{row}", [],
        "Good rows: those in the curated files and in the reports.";
    rows_rejected: Counter<u64> = "music_streams.rows.rejected", "{row}",
        [("reason", [])],
        "Rows that cannot be counted, by reason.";
    objects: Counter<u64> = "music_streams.objects", "{object}",
        [("outcome", ["archived", "quarantined", "superseded", "duplicate"])],
        "Objects by outcome: counted and archived; quarantined, because they cannot be counted; deleted or replaced \
         before they were read; counted before.";
    object_bytes: Counter<u64> = "music_streams.objects.size", "By", [],
        "Bytes of the objects in batches, as announced.";
    report_items: Counter<u64> = "music_streams.report_items.written", "{item}",
        [("report", [])],
        "Report items written: each is a write request that DynamoDB charges for.";
    conflicts: Counter<u64> = "music_streams.report_items.conflicts", "{conflict}", [],
        "Writes of report items that were repeated, because another batch had written the item meanwhile.";
    requests: Counter<u64> = "music_streams.aws.requests", "{request}",
        [("rpc.service", ["SQS", "S3", "DynamoDB"]), ("rpc.method", []),
            ("outcome", ["ok", "refused", "throttled", "failed"])],
        "Requests sent to AWS by operation, each attempt counted, as AWS bills them. Refused: a condition that did not \
         hold, or a client error; failed: no answer, or a fault of the service.";
    retries: Counter<u64> = "music_streams.aws.retries", "{request}", [("rpc.service", ["SQS", "S3", "DynamoDB"])],
        "Requests sent to AWS that repeat a throttled or failed one.";
    sweep_objects: Counter<u64> = "music_streams.sweep.objects", "{object}", [("finding", ["found", "left_over"])],
        "Objects that a sweep found: not announced by a message, and taken up; or counted before and put again.";
    memory: Gauge<u64> = "process.memory.usage", "By", [],
        "Resident memory of the process.";
    serve_requests: Counter<u64> = "music_streams.serve.requests", "{request}",
        [("status", ["2xx", "3xx", "4xx", "5xx"])],
        "Requests that `serve` answered, by the class of their status.";
    serve_duration: Histogram<f64> = "music_streams.serve.duration", "s", [],
        "Time from a request to its answer.";
    serve_read_units: Counter<u64> = "music_streams.serve.read_units", "{unit}", [],
        "Read units of DynamoDB that answers cost, rounded up for each.";
}

/// Returns every combination of the labels' values; none if the values of a label are not named.
fn combinations(labels: &[Label]) -> Vec<Vec<KeyValue>> {
    labels.iter().fold(vec![Vec::new()], |combinations, (name, values)| {
        let with = |value: &'static str| {
            combinations.iter().map(move |labels| [labels.as_slice(), &[KeyValue::new(*name, value)]].concat())
        };
        values.iter().flat_map(|value| with(value).collect::<Vec<_>>()).collect()
    })
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics::new(&opentelemetry::global::meter("music-streams")));

/// Returns the instruments. The first call binds them to the exporter that is installed at that time.
pub fn metrics() -> &'static Metrics {
    &METRICS
}

/// Makes the list of one label.
pub fn label(name: &'static str, value: impl Into<opentelemetry::Value>) -> [KeyValue; 1] {
    [KeyValue::new(name, value)]
}
