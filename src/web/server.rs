//! The server: connections, limits, and the way from a request to a reply; and the same in Lambda.
//!
//! `axum::serve` has no timer, so that a client may send its headers for ever
//! (<https://github.com/tokio-rs/axum/issues/2741>); hence the loop of its own. Covered by tests/pipeline/reading.rs
//! and tests/lambda.rs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body as HttpBody;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::process::tasks;
use crate::telemetry::metrics::{label, metrics};
use crate::web::app::{App, Asked, Reply};
use crate::web::guard::{Auth, CONTENT_SECURITY_POLICY, Guard};
use crate::web::problem::Problem;

/// The longest time for the headers of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest time for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections at a time: a browser has six.
const MAX_CONNECTIONS: usize = 1024;
/// The time that requests have to end when the server stops.
const STOP: Duration = Duration::from_secs(10);
/// Bytes of headers and of the buffer of a connection.
const MAX_HEADER_BYTES: usize = 32 * 1024;

/// A server of the application.
#[derive(Debug, Clone)]
pub struct Server {
    app: App,
    guard: Guard,
    /// The requests at work.
    at_work: Arc<Semaphore>,
    max_requests: usize,
}

impl Server {
    /// A server that answers so many requests at a time.
    pub fn new(app: App, guard: Guard, max_requests: usize) -> Self {
        Server { app, guard, at_work: Arc::new(Semaphore::new(max_requests)), max_requests }
    }

    /// Binds the address.
    pub async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
        let socket = TcpListener::bind(address).await;
        socket.map_err(|error| format!("cannot serve at {address}: {error}; choose another --address"))
    }

    /// Answers requests until the stop is requested, and then those that are at work.
    pub async fn run(self, socket: TcpListener, stop: CancellationToken) {
        let router = self.router();
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MAX_HEADER_BYTES);
        let (graceful, connections) = (GracefulShutdown::new(), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
        loop {
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { break };
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                () = stop.cancelled() => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Too many open files, say: it passes.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let connection =
                graceful.watch(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone())));
            tasks::spawn("connection", async move {
                // A client that goes away is no error of the server.
                let _ = connection.await;
                drop(permit);
            });
        }
        let _ = tokio::time::timeout(STOP, graceful.shutdown()).await;
    }

    /// Answers the events of Lambda, for ever.
    pub async fn run_in_lambda(self) -> Result<(), String> {
        lambda_http::run(self.router()).await.map_err(|error| format!("Lambda's runtime API: {error}"))
    }

    fn router(&self) -> Router {
        Router::new().fallback(answer).with_state(self.clone())
    }

    async fn reply(&self, request: &Parts) -> Reply {
        let (path, query) = (request.uri.path(), request.uri.query().unwrap_or_default());
        let (accept, base) = (text_of(&request.headers, header::ACCEPT), base_of(&request.headers));
        let asked = Asked { path, query, accept, base: &base, stands_alone: false };
        let checked = match path {
            // A load balancer asks by its own name, and without a token.
            "/live" | "/ready" => Ok(()),
            _ => self.guard.check(&request.method, path.len() + query.len(), &request.headers),
        };
        match checked {
            Err(problem) => App::refused(&problem).await,
            Ok(()) => match self.at_work.try_acquire() {
                Err(_) => App::refused(&self.too_many()).await,
                Ok(_permit) => match tokio::time::timeout(ANSWER_TIMEOUT, self.app.reply(asked)).await {
                    Ok(reply) => reply,
                    Err(_) => App::refused(&too_slow()).await,
                },
            },
        }
    }

    fn too_many(&self) -> Problem {
        let detail = format!("{} requests are at work already", self.max_requests);
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests at a time", detail);
        Problem { retry_after: Some(1), ..problem }
    }
}

/// A header as text; an empty one without it.
fn text_of(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The address of this server as the client knows it.
fn base_of(headers: &HeaderMap) -> String {
    let scheme = match text_of(headers, header::HeaderName::from_static("x-forwarded-proto")) {
        "https" => "https",
        _ => "http",
    };
    format!("{scheme}://{}", text_of(headers, header::HOST))
}

fn too_slow() -> Problem {
    let detail = format!("no answer within {} s; ask for fewer days or rows", ANSWER_TIMEOUT.as_secs());
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "the answer takes too long", detail)
}

/// What a client can take, and what it has.
#[derive(Debug)]
struct Asking {
    takes_gzip: bool,
    has: String,
    is_head: bool,
}

impl Asking {
    fn of(headers: &HeaderMap, is_head: bool) -> Self {
        let is_gzip = |coding: &str| {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
            matches!(name.trim(), "gzip" | "*") && !matches!(weight.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000")
        };
        let takes_gzip = text_of(headers, header::ACCEPT_ENCODING).split(',').any(is_gzip);
        Asking { takes_gzip, has: text_of(headers, header::IF_NONE_MATCH).to_owned(), is_head }
    }

    /// True if the client has what this ETag is of.
    fn has(&self, etag: &str) -> bool {
        let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        !etag.is_empty() && self.has.split(',').any(|tag| tag.trim() == "*" || opaque(tag) == opaque(etag))
    }
}

async fn answer(State(server): State<Server>, request: Request) -> Response<HttpBody> {
    // A body, if there is one, is not read.
    let (request, _) = request.into_parts();
    let asking = Asking::of(&request.headers, request.method == Method::HEAD);
    let reply = server.reply(&request).await;
    let response = response(&reply, &asking, &server.guard.auth);
    let (status, took) = (response.status().as_u16(), reply.took);
    metrics().serve_requests.add(1, &label("status", format!("{}xx", status / 100)));
    metrics().serve_duration.record(took.as_secs_f64(), &[]);
    metrics().serve_read_units.add(reply.cost.half_units().div_ceil(2), &[]);
    let calls = reply.cost.calls();
    // Path and query may hold the id of a person.
    match status {
        ..400 => tracing::debug!(status, route = reply.route, ?took, calls, "answered"),
        _ => tracing::info!(status, route = reply.route, ?took, calls, "answered"),
    }
    response
}

fn response(reply: &Reply, asking: &Asking, auth: &Auth) -> Response<HttpBody> {
    let body = &reply.body;
    let is_known = reply.status == StatusCode::OK && asking.has(&body.etag);
    let (text, is_gzip) = match &body.gzip {
        Some(gzip) if asking.takes_gzip => (gzip.clone(), true),
        _ => (body.text.clone(), false),
    };
    let mut response = Response::new(HttpBody::empty());
    let headers = response.headers_mut();
    let mut put = |name: header::HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    put(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    put(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    put(header::REFERRER_POLICY, "no-referrer");
    put(header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    put(header::VARY, "accept, accept-encoding");
    let (calls, units) = (reply.cost.calls(), reply.cost.half_units() as f64 / 2.0);
    let took = reply.took.as_secs_f64() * 1000.0;
    put(
        header::HeaderName::from_static("server-timing"),
        &format!("dynamodb;dur={took:.1};desc=\"{calls} calls, {units} units\""),
    );
    match (reply.status, reply.max_age) {
        (StatusCode::OK, seconds) if seconds > 3600 => {
            put(header::CACHE_CONTROL, &format!("public, max-age={seconds}, immutable"));
        }
        (StatusCode::OK, _) if body.personal => put(header::CACHE_CONTROL, "no-store"),
        (StatusCode::OK, seconds) => put(header::CACHE_CONTROL, &format!("private, max-age={seconds}")),
        _ => put(header::CACHE_CONTROL, "no-store"),
    }
    if let Some(seconds) = reply.retry_after {
        put(header::RETRY_AFTER, &seconds.to_string());
    }
    if reply.status == StatusCode::UNAUTHORIZED && matches!(auth, Auth::Token(_)) {
        put(header::WWW_AUTHENTICATE, "Basic realm=\"music-streams\", charset=\"UTF-8\"");
    }
    if reply.status == StatusCode::METHOD_NOT_ALLOWED {
        put(header::ALLOW, "GET, HEAD");
    }
    if !body.etag.is_empty() {
        put(header::ETAG, &body.etag);
    }
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    put(header::CONTENT_TYPE, body.content_type);
    put(header::CONTENT_LENGTH, &text.len().to_string());
    if is_gzip {
        put(header::CONTENT_ENCODING, "gzip");
    }
    *response.status_mut() = reply.status;
    if !asking.is_head {
        *response.body_mut() = HttpBody::from(text);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(encoding: &str, has: &str) -> Asking {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, encoding.parse().unwrap());
        headers.insert(header::IF_NONE_MATCH, has.parse().unwrap());
        Asking::of(&headers, false)
    }

    #[test]
    fn a_client_says_what_it_takes_and_has() {
        for (encoding, takes) in [("gzip, br", true), ("br;q=1, gzip;q=0.5", true), ("gzip;q=0", false), ("br", false)]
        {
            assert_eq!(asking(encoding, "").takes_gzip, takes, "{encoding}");
        }
        for (has, known) in
            [("W/\"a\"", true), ("\"a\"", true), ("\"b\", W/\"a\"", true), ("*", true), ("\"b\"", false)]
        {
            assert_eq!(asking("", has).has("W/\"a\""), known, "{has}");
        }
        assert!(!asking("", "").has(""), "a problem has no ETag");
    }
}
