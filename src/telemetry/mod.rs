//! The telemetry of a consumer: metrics, traces, and the progress of its batch.
//!
//! [`metrics`] declares every metric, [`batch_trace`] times the stages of a batch, [`progress`] feeds the health check,
//! and [`export`] sends metrics and traces over OTLP. Without an endpoint, recording has no effect.

pub mod batch_trace;
pub mod export;
pub mod metrics;
pub mod progress;
