//! A receiver of OTLP that remembers what it gets.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use music_streams::telemetry::metrics::TABLE;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{metric, number_data_point};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::support::*;

/// A receiver of OTLP, over gRPC or HTTP.
#[derive(Clone, Default)]
pub struct Receiver {
    metrics: Arc<Mutex<Vec<ExportMetricsServiceRequest>>>,
    traces: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.metrics.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.traces.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

pub async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

/// A metric's name with the labels of one of its series.
pub type Series = (String, BTreeMap<String, String>);

/// The last state of a series: a counter's or gauge's value, or a histogram's sum and the number of its recordings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    pub value: f64,
    pub count: u64,
}

pub fn labels(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let value = |attribute: &KeyValue| match attribute.value.clone().unwrap().value.unwrap() {
        any_value::Value::StringValue(text) => text,
        any_value::Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    attributes.iter().map(|attribute| (attribute.key.clone(), value(attribute))).collect()
}

impl Receiver {
    pub async fn over_grpc(&self) -> String {
        let (listener, url) = listen().await;
        let server = tonic::transport::Server::builder()
            .add_service(MetricsServiceServer::new(self.clone()))
            .add_service(TraceServiceServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        url
    }

    pub async fn over_http(&self) -> String {
        let (listener, url) = listen().await;
        let (of_metrics, of_traces) = (self.clone(), self.clone());
        let routes = Router::new()
            .route(
                "/v1/metrics",
                post(async move |body: Bytes| {
                    of_metrics.metrics.lock().unwrap().push(ExportMetricsServiceRequest::decode(body).unwrap());
                }),
            )
            .route(
                "/v1/traces",
                post(async move |body: Bytes| {
                    of_traces.traces.lock().unwrap().push(ExportTraceServiceRequest::decode(body).unwrap());
                }),
            );
        tokio::spawn(async { axum::serve(listener, routes).await });
        url
    }

    pub fn resource(&self) -> BTreeMap<String, String> {
        let requests = self.metrics.lock().unwrap();
        labels(&requests.last().unwrap().resource_metrics[0].resource.as_ref().unwrap().attributes)
    }

    /// Returns every series as it was last exported.
    pub fn readings(&self) -> BTreeMap<Series, Reading> {
        let mut readings = BTreeMap::new();
        let number = |value: number_data_point::Value| match value {
            number_data_point::Value::AsDouble(value) => value,
            number_data_point::Value::AsInt(value) => value as f64,
        };
        for request in self.metrics.lock().unwrap().iter() {
            let scopes = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
            for exported in scopes.flat_map(|scope| &scope.metrics) {
                let known = TABLE.iter().find(|known| known.name == exported.name).unwrap();
                assert_eq!((known.unit, known.meaning), (exported.unit.as_str(), exported.description.as_str()));
                let points: Vec<_> = match exported.data.as_ref().unwrap() {
                    metric::Data::Gauge(gauge) if known.kind == "gauge" => gauge.data_points.iter().collect(),
                    metric::Data::Sum(sum) if known.kind == "counter" => {
                        assert!(sum.is_monotonic);
                        sum.data_points.iter().collect()
                    }
                    metric::Data::Histogram(histogram) if known.kind == "histogram" => {
                        for point in &histogram.data_points {
                            let reading = Reading { value: point.sum.unwrap(), count: point.count };
                            readings.insert((exported.name.clone(), labels(&point.attributes)), reading);
                        }
                        continue;
                    }
                    other => panic!("{} is not a {}: {other:?}", exported.name, known.kind),
                };
                for point in points {
                    let reading = Reading { value: number(point.value.unwrap()), count: 0 };
                    readings.insert((exported.name.clone(), labels(&point.attributes)), reading);
                }
            }
        }
        readings
    }

    /// Returns the sum of all series of a metric that have at least these labels.
    pub fn sum(&self, name: &str, of: &[(&str, &str)]) -> Reading {
        let has = |labels: &BTreeMap<String, String>| {
            of.iter().all(|(label, value)| labels.get(*label).is_some_and(|found| found == value))
        };
        let readings = self.readings();
        let of_name: Vec<_> = readings.iter().filter(|((found, labels), _)| found == name && has(labels)).collect();
        assert!(!of_name.is_empty(), "{name} {of:?} is not exported: {:?}", readings.keys());
        of_name.iter().fold(Reading { value: 0.0, count: 0 }, |sum, (_, reading)| Reading {
            value: sum.value + reading.value,
            count: sum.count + reading.count,
        })
    }

    pub fn spans(&self) -> Vec<Span> {
        let requests = self.traces.lock().unwrap();
        let scopes = requests.iter().flat_map(|request| &request.resource_spans).flat_map(|it| &it.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    pub async fn reads(&self, name: &str, of: &[(&str, &str)], value: f64) {
        eventually_some(format!("{name} {of:?} is {value}"), Duration::from_secs(30), async || {
            if self.sum(name, of).value == value { Ok(()) } else { Err(format!("{:?}", self.readings())) }
        })
        .await
    }
}
