//! A stand-in for AWS that keeps up: S3, SQS and DynamoDB in memory, with conditional writes, on one port. It counts
//! requests, and what they would cost, and gives each call the latency of a network. The benchmarks measure the
//! program against it, because a local stack answers some hundred requests a second and would be what is measured.
//!
//! `stand_in --serve [--latency-ms N] [--before URL]` prints its address. With `--before` it has no tables of its own
//! but forwards to a service, and so gives latency and counts to a local stack.
//!
//! `GET /_stand_in/counts` answers with the counts since `POST /_stand_in/reset`; `POST /_stand_in/latency/N` sets the
//! milliseconds of a call. Operations are those that the program uses; of expressions and PartiQL, what it writes.
//! Signatures and permissions are not checked, and nothing is throttled.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a tool of the benchmarks")]

mod dynamodb;
mod expression;
mod forward;
mod item;
mod s3;
mod sqs;
mod statement;
mod table;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Request, Response, StatusCode};
use serde_json::{Value as Json, json};
use tokio::time::{Instant, sleep_until};

use dynamodb::DynamoDb;
use forward::Upstream;
use s3::S3;
use sqs::Sqs;

/// As in the program itself.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The services, and the counts of their requests.
#[derive(Default)]
struct StandIn {
    dynamodb: DynamoDb,
    s3: S3,
    sqs: Sqs,
    upstream: Option<Upstream>,
    latency_us: AtomicU64,
    requests: Mutex<BTreeMap<String, u64>>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let argument = |name: &str| {
        let place = arguments.iter().position(|argument| argument == name)?;
        arguments.get(place + 1).cloned()
    };
    // `cargo bench` calls every benchmark; this is none.
    if !arguments.iter().any(|argument| argument == "--serve") {
        return;
    }
    let stand_in = StandIn { upstream: argument("--before").map(Upstream::new), ..StandIn::default() };
    stand_in.set_latency(&argument("--latency-ms").unwrap_or_default());
    let stand_in = Arc::new(stand_in);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("http://{}", listener.local_addr().unwrap());
        let answer = move |request| {
            let stand_in = stand_in.clone();
            async move { stand_in.answer(request).await }
        };
        axum::serve(listener, axum::Router::new().fallback(answer)).await.unwrap();
    });
}

impl StandIn {
    fn set_latency(&self, milliseconds: &str) {
        let milliseconds: f64 = milliseconds.parse().unwrap_or(0.0);
        self.latency_us.store((milliseconds * 1000.0) as u64, Ordering::Relaxed);
    }

    /// Half of the latency passes before a call is carried out, and half after it.
    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        if let Some(what) = request.uri().path().strip_prefix("/_stand_in/") {
            return self.control(what);
        }
        let latency = Duration::from_micros(self.latency_us.load(Ordering::Relaxed));
        let began = Instant::now();
        let (parts, body) = request.into_parts();
        let Ok(body) = to_bytes(body, usize::MAX).await else { return refused(StatusCode::BAD_REQUEST, &json!({})) };
        if !latency.is_zero() {
            sleep_until(began + latency / 2).await;
        }
        let target = parts.headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
        let (service, operation) = target.split_once('.').unwrap_or_default();
        self.count(name_of(service, operation, &parts, &body));
        let answer = if let Some(upstream) = &self.upstream {
            upstream.answer(&parts, body).await
        } else if service.starts_with("DynamoDB") {
            match self.dynamodb.answer(operation, &body) {
                Ok(answer) => json_answer(StatusCode::OK, answer),
                Err(error) => refused(StatusCode::BAD_REQUEST, &error),
            }
        } else if service == "AmazonSQS" {
            match self.sqs.answer(operation, &body).await {
                Ok(answer) => json_answer(StatusCode::OK, answer.to_string()),
                Err(error) => refused(StatusCode::BAD_REQUEST, &error),
            }
        } else {
            self.s3.answer(&parts.method, &parts.uri, &parts.headers, body, &self.sqs)
        };
        if !latency.is_zero() {
            sleep_until(began + latency).await;
        }
        answer
    }

    fn count(&self, name: String) {
        *self.requests.lock().unwrap().entry(name).or_default() += 1;
    }

    fn control(&self, what: &str) -> Response<Body> {
        match what.split_once('/').unwrap_or((what, "")) {
            ("latency", milliseconds) => self.set_latency(milliseconds),
            ("reset", _) => {
                self.dynamodb.reset();
                self.requests.lock().unwrap().clear();
                if let Some(upstream) = &self.upstream {
                    upstream.reset();
                }
            }
            _ => {}
        }
        let counts = json!({
            "requests": *self.requests.lock().unwrap(),
            "tables": self.dynamodb.counts(),
            "failed_conditions": self.upstream.as_ref().map(Upstream::failed_conditions),
        });
        json_answer(StatusCode::OK, counts.to_string())
    }
}

/// The name under which a request is counted: its operation, and for DynamoDB whether it is the ledger's, the lists' or
/// the reports'.
fn name_of(service: &str, operation: &str, parts: &axum::http::request::Parts, body: &[u8]) -> String {
    let names = |table: &[u8]| memchr::memmem::find(body, table).is_some();
    if service.starts_with("DynamoDB") {
        let of = match () {
            () if names(b"music_streams_ledger") => "ledger",
            () if names(b"top_lists") => "top lists",
            () => "reports",
        };
        return format!("{of} {operation}");
    }
    if service == "AmazonSQS" {
        return format!("SQS {operation}");
    }
    let what = match parts.uri.query().unwrap_or_default() {
        _ if parts.headers.contains_key("x-amz-copy-source") => "copy",
        query if query.contains("list-type") => "list",
        query if query.starts_with("delete") => "DeleteObjects",
        query if query.contains("upload") => "upload",
        _ => "",
    };
    format!("S3 {} {what}", parts.method).trim_end().to_owned()
}

fn json_answer(status: StatusCode, body: String) -> Response<Body> {
    let answer = Response::builder().status(status).header("content-type", "application/x-amz-json-1.0");
    answer.body(Body::from(Bytes::from(body))).unwrap()
}

fn refused(status: StatusCode, error: &Json) -> Response<Body> {
    json_answer(status, error.to_string())
}
