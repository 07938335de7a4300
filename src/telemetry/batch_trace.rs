//! The stages of a batch and their durations: for its summary line, a metric, and a trace.
//!
//! A batch's trace has a span for all of it and one for each stage. Its context goes into the manifest ([W3C Trace
//! Context](https://www.w3.org/TR/trace-context/)), so that a consumer that finishes another's batch continues the same
//! trace.
//!
//! Covered by `tests/pipeline/telemetry.rs`.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Span, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue, global};
use opentelemetry_sdk::propagation::TraceContextPropagator;

use crate::telemetry::metrics::{label, metrics};

/// The key under which the propagator stores the context.
const TRACEPARENT: &str = "traceparent";

/// The durations of a batch's stages, and its trace.
pub struct BatchTrace {
    last: (Instant, SystemTime),
    ended: Vec<(&'static str, Duration)>,
    trace: Context,
}

impl BatchTrace {
    /// Begins the trace and the first stage. `origin` is the [`BatchTrace::traceparent`] of the consumer that began the
    /// batch.
    pub fn begin(name: &'static str, origin: Option<&str>) -> Self {
        let carrier: HashMap<_, _> =
            origin.map(|origin| (TRACEPARENT.to_owned(), origin.to_owned())).into_iter().collect();
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
        let tracer = global::tracer("music-streams");
        let span = tracer.span_builder(name).with_kind(SpanKind::Consumer).start_with_context(&tracer, &parent);
        BatchTrace { last: (Instant::now(), SystemTime::now()), ended: Vec::new(), trace: parent.with_span(span) }
    }

    /// Ends a stage and begins the next one.
    pub fn end(&mut self, stage: &'static str) {
        let (now, time) = (Instant::now(), SystemTime::now());
        let duration = now - self.last.0;
        metrics().stage_duration.record(duration.as_secs_f64(), &label("stage", stage));
        let tracer = global::tracer("music-streams");
        let span = tracer.span_builder(stage).with_start_time(self.last.1);
        span.start_with_context(&tracer, &self.trace).end_with_timestamp(time);
        self.ended.push((stage, duration));
        self.last = (now, time);
    }

    /// Sets an attribute of the batch's span.
    pub fn note(&self, name: &'static str, value: u64) {
        self.trace.span().set_attribute(KeyValue::new(name, i64::try_from(value).unwrap_or(i64::MAX)));
    }

    /// Marks the batch's span as failed.
    pub fn failed(&self, error: &impl fmt::Display) {
        self.trace.span().set_status(Status::error(error.to_string()));
    }

    /// Returns the context for a consumer that continues this trace, as a W3C `traceparent`.
    pub fn traceparent(&self) -> Option<String> {
        let mut carrier = HashMap::new();
        TraceContextPropagator::new().inject_context(&self.trace, &mut carrier);
        carrier.remove(TRACEPARENT)
    }

    /// Returns the span for log lines that belong to this trace; a disabled span if the trace is not sampled.
    pub fn log_span(&self) -> tracing::Span {
        let span = self.trace.span();
        let context = span.span_context();
        if !context.is_sampled() {
            return tracing::Span::none();
        }
        tracing::info_span!("batch", trace_id = %context.trace_id(), span_id = %context.span_id())
    }
}

impl Drop for BatchTrace {
    fn drop(&mut self) {
        self.trace.span().end();
    }
}

impl fmt::Display for BatchTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (stage, duration)) in self.ended.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{stage} {:.3}", duration.as_secs_f64())?;
        }
        Ok(())
    }
}
