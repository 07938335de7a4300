//! What a consumer tells about itself: metrics, traces, and the progress of its batch.

pub mod batch_trace;
pub mod export;
pub mod metrics;
pub mod progress;
