//! Forwarding to a service, so that it has latency and its requests are counted.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::{Body, Bytes};
use axum::http::request::Parts;
use axum::http::{Response, StatusCode};
use memchr::memmem;

/// The service that answers.
pub struct Upstream {
    url: String,
    client: reqwest::Client,
    failed_conditions: AtomicU64,
}

impl Upstream {
    pub fn new(url: String) -> Self {
        Upstream { url, client: reqwest::Client::new(), failed_conditions: AtomicU64::new(0) }
    }

    /// Conditions of single statements and writes that did not hold.
    pub fn failed_conditions(&self) -> u64 {
        self.failed_conditions.load(Ordering::Relaxed)
    }

    pub fn reset(&self) {
        self.failed_conditions.store(0, Ordering::Relaxed);
    }

    pub async fn answer(&self, parts: &Parts, body: Bytes) -> Response<Body> {
        match self.forward(parts, body).await {
            Ok(answer) => answer,
            Err(error) => {
                let answer = Response::builder().status(StatusCode::BAD_GATEWAY);
                answer.body(Body::from(error.to_string())).unwrap_or_default()
            }
        }
    }

    async fn forward(&self, parts: &Parts, body: Bytes) -> Result<Response<Body>, reqwest::Error> {
        let url = format!("{}{}", self.url, parts.uri);
        let mut headers = parts.headers.clone();
        headers.remove("content-length");
        let request = self.client.request(parts.method.clone(), url).headers(headers).body(body);
        let answer = request.send().await?;
        let mut forwarded = Response::builder().status(answer.status());
        for (name, value) in answer.headers() {
            if name != "transfer-encoding" && name != "connection" {
                forwarded = forwarded.header(name, value);
            }
        }
        let body = answer.bytes().await?;
        let failed = [&b"ConditionalCheckFailed"[..], b"DuplicateItem"];
        let failed = failed.into_iter().map(|code| memmem::find_iter(&body, code).count()).sum::<usize>();
        self.failed_conditions.fetch_add(failed as u64, Ordering::Relaxed);
        Ok(forwarded.body(Body::from(body)).unwrap_or_default())
    }
}
