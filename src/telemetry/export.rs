//! The export of metrics and traces over OTLP (gRPC or HTTP), configured by OpenTelemetry's standard `OTEL_*`
//! variables.
//!
//! <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>. In one point it differs from the
//! specification: nothing is exported, and no connection made, unless an endpoint is given. Covered by
//! `tests/pipeline/telemetry.rs`.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, MetricExporter, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;

use crate::process::ecs;
use crate::telemetry::metrics::metrics;

/// Default interval between exports of metrics:
/// <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#periodic-exporting-metricreader>.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);
/// Shortest interval between observations of the queue.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// Upper bound of the last export's duration when the process ends.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// The running exporters.
#[derive(Debug, Default)]
pub struct Telemetry {
    metrics: Option<SdkMeterProvider>,
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Starts the exporters that the environment configures. Must be called before the first metric is recorded.
    pub async fn start() -> Result<Self, ExporterBuildError> {
        let (has_metrics, has_traces) = (is_wanted("METRICS"), is_wanted("TRACES"));
        if !has_metrics && !has_traces {
            return Ok(Telemetry::default());
        }
        let resource = Resource::builder()
            .with_attributes(ecs::resource_attributes().await)
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        // The name is a default, which OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES replace.
        let has_name = ["OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"].iter().any(|name| {
            variable(name).is_some_and(|value| *name == "OTEL_SERVICE_NAME" || value.contains("service.name="))
        });
        let resource = if has_name { resource } else { resource.with_service_name("music-streams") }.build();
        let mut telemetry = Telemetry::default();
        if has_metrics {
            let exporter = MetricExporter::builder().build()?;
            let provider =
                SdkMeterProvider::builder().with_resource(resource.clone()).with_periodic_exporter(exporter).build();
            opentelemetry::global::set_meter_provider(provider.clone());
            telemetry.metrics = Some(provider);
            metrics().begin();
        }
        if has_traces {
            let exporter = SpanExporter::builder().build()?;
            let provider = SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter).build();
            opentelemetry::global::set_tracer_provider(provider.clone());
            telemetry.traces = Some(provider);
        }
        Ok(telemetry)
    }

    /// The interval between exports of metrics; `None` if they are not exported. Observations that only feed metrics
    /// are made at the same interval.
    pub fn interval(&self) -> Option<Duration> {
        let milliseconds = variable("OTEL_METRIC_EXPORT_INTERVAL").and_then(|text| text.parse().ok());
        self.metrics.as_ref().map(|_| milliseconds.map_or(DEFAULT_INTERVAL, Duration::from_millis).max(MIN_INTERVAL))
    }

    /// Exports what is left, within a few seconds.
    pub async fn shutdown(self) {
        let export = tokio::task::spawn_blocking(move || {
            let metrics = self.metrics.map(|provider| provider.shutdown_with_timeout(STOP_TIMEOUT));
            let traces = self.traces.map(|provider| provider.shutdown_with_timeout(STOP_TIMEOUT));
            [metrics, traces].into_iter().flatten().try_for_each(|done| done)
        });
        match tokio::time::timeout(STOP_TIMEOUT, export).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!("the last metrics and traces were not exported: {error}"),
            Ok(Err(_)) | Err(_) => tracing::warn!("the last metrics and traces were not exported in time"),
        }
    }
}

/// Returns true if a signal is to be exported: an endpoint is given, and the signal is not turned off.
fn is_wanted(signal: &str) -> bool {
    let is_off = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || variable(&format!("OTEL_{signal}_EXPORTER")).is_some_and(|value| value == "none");
    let endpoints = ["OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")];
    !is_off && endpoints.iter().any(|name| variable(name).is_some())
}

/// Returns a variable of the environment. An empty one counts as unset.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
