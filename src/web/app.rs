//! The application: from a path and a query to a reply, over HTTP, in Lambda, or once.
//!
//! A reply is kept for the moment that it is of, with its ETag and its compressed form, and made once for all who ask
//! for it at the same time. Its ETag is that of the figures: an answer about days that no batch has touched keeps it,
//! whatever else was counted.

use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_compression::tokio::write::GzipEncoder;
use axum::http::StatusCode;
use bytes::Bytes;
use moka::future::Cache;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use crate::aws::sqs::Queue;
use crate::calendar::date_text;
use crate::reading::moment::Moment;
use crate::reading::pipeline::Overview;
use crate::reading::reader::{Reader, ReadingError};
use crate::reading::shape;
use crate::reports::store::ReadCost;
use crate::web::openapi;
use crate::web::problem::{PROBLEM_JSON, Problem};
use crate::web::question::{Form, Parameters};
use crate::web::route::{Route, visible};
use crate::web::view;

/// Bodies shorter than this are not worth compressing.
const COMPRESSED_FROM: usize = 512;
/// The time for which the state of the pipeline is kept.
const PIPELINE_AGE: Duration = Duration::from_secs(5);
/// Finished batches in the state of the pipeline.
const RECENT_BATCHES: u16 = 20;

/// The settings of the application.
#[derive(Debug, Clone)]
pub struct Options {
    /// Reports with figures of persons are shown.
    pub personal: bool,
    /// The time after which a page asks again.
    pub refresh: Duration,
    /// Bytes of replies and figures that are kept.
    pub cache_bytes: u64,
    /// The longest time for which they are kept.
    pub max_age: Duration,
}

/// The application. Clones share what is kept.
#[derive(Debug, Clone)]
pub struct App(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    reader: Reader,
    queue: Option<Queue>,
    options: Options,
    bodies: Cache<BodyKey, Arc<Body>>,
    /// The state of the pipeline, with a number that is another for another state.
    pipeline: Cache<(), (u64, Arc<Overview>)>,
}

/// The key of a body: what is asked, in which form, and the moment that it is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct BodyKey {
    path: String,
    /// Of pages, the address of this server and the number of the pipeline's state.
    beside: Option<(String, Option<u64>)>,
    stands_alone: bool,
    parameters: Parameters,
    form: Form,
    moment: u64,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The path of the URL.
    pub path: &'a str,
    /// Its query, without the question mark.
    pub query: &'a str,
    /// The header `Accept`; empty without one.
    pub accept: &'a str,
    /// The address of this server, as its clients know it.
    pub base: &'a str,
    /// The page stands alone: its style is within, and it has no script.
    pub stands_alone: bool,
}

/// A body with what belongs to it.
#[derive(Debug)]
pub struct Body {
    /// The media type.
    pub content_type: &'static str,
    /// The ETag, of the figures; empty for none.
    pub etag: String,
    /// The text.
    pub text: Bytes,
    /// The text, compressed.
    pub gzip: Option<Bytes>,
    /// It has figures of persons: nobody between may keep it.
    pub personal: bool,
    /// Something in it could not be read: it is not kept.
    pub is_partial: bool,
}

/// An answer to what is asked.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The body.
    pub body: Arc<Body>,
    /// What it cost to read, and how long it took.
    pub cost: ReadCost,
    /// The time that it took.
    pub took: Duration,
    /// Seconds for which a client may keep it unasked.
    pub max_age: u32,
    /// Seconds after which to ask again, if that helps.
    pub retry_after: Option<u32>,
    /// The route, for metrics: never a value.
    pub route: &'static str,
}

/// The route of what is nowhere.
const UNKNOWN: &str = "unknown";
/// Seconds for which a client may keep an answer unasked.
const FRESH: u32 = 5;
/// Seconds for which it may keep an asset, whose name changes with it.
const FOREVER: u32 = 31_536_000;

impl Body {
    /// Makes a body. `of` is what its ETag is made of.
    pub async fn new(content_type: &'static str, text: String, of: &[u8]) -> Self {
        let mut etag = String::from("W/\"");
        for byte in &Sha256::digest(of)[..12] {
            let _ = write!(etag, "{byte:02x}");
        }
        etag.push('"');
        let gzip = if text.len() < COMPRESSED_FROM { None } else { compressed(text.as_bytes()).await };
        Body { content_type, etag, text: text.into(), gzip, personal: false, is_partial: false }
    }

    fn bytes(&self) -> u32 {
        let bytes = 256 + self.text.len() + self.gzip.as_ref().map_or(0, Bytes::len);
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }
}

async fn compressed(text: &[u8]) -> Option<Bytes> {
    let mut encoder = GzipEncoder::new(Vec::new());
    encoder.write_all(text).await.ok()?;
    encoder.shutdown().await.ok()?;
    Some(encoder.into_inner().into())
}

impl App {
    /// The application for the figures of a reader. Without a queue it cannot tell what waits.
    pub fn new(reader: Reader, queue: Option<Queue>, options: Options) -> Self {
        let weigh = |_: &BodyKey, body: &Arc<Body>| body.bytes();
        let bodies = Cache::builder().weigher(weigh).max_capacity(options.cache_bytes / 4);
        let bodies = bodies.time_to_live(options.max_age).build();
        let pipeline = Cache::builder().max_capacity(1).time_to_live(PIPELINE_AGE).build();
        App(Arc::new(Inner { reader, queue, options, bodies, pipeline }))
    }

    /// The reader.
    pub fn reader(&self) -> &Reader {
        &self.0.reader
    }

    /// True if it can tell what waits.
    pub fn has_pipeline(&self) -> bool {
        self.0.queue.is_some()
    }

    /// The settings.
    pub fn options(&self) -> &Options {
        &self.0.options
    }

    /// Answers what is asked. Errors are replies too.
    pub async fn reply(&self, asked: Asked<'_>) -> Reply {
        let (began, cost) = (Instant::now(), ReadCost::default());
        if matches!(asked.path, "/live" | "/ready") {
            return self.health(asked, began, cost).await;
        }
        if let Some(asset) = view::asset(asked.path).await {
            let (status, took) = (StatusCode::OK, began.elapsed());
            return Reply { status, body: asset, cost, took, max_age: FOREVER, retry_after: None, route: "/assets" };
        }
        let mut route = UNKNOWN;
        let (status, body, retry_after) = match self.answer_named(asked, &cost, &mut route).await {
            Ok(body) => (StatusCode::OK, body, None),
            Err(problem) => (problem.status, Arc::new(self.problem(asked, &problem).await), problem.retry_after),
        };
        Reply { status, body, cost, took: began.elapsed(), max_age: FRESH, retry_after, route }
    }

    /// Returns the reply to what is not answered: without a page around it, which tells of the figures.
    pub async fn refused(problem: &Problem) -> Reply {
        let text = format!("{:#}\n", problem.json());
        let body = Arc::new(Body { etag: String::new(), ..Body::new(PROBLEM_JSON, text, &[]).await });
        let (status, retry_after, cost) = (problem.status, problem.retry_after, ReadCost::default());
        Reply { status, body, cost, took: Duration::ZERO, max_age: 0, retry_after, route: UNKNOWN }
    }

    /// Says whether the server lives, and whether the tables answer.
    async fn health(&self, asked: Asked<'_>, began: Instant, cost: ReadCost) -> Reply {
        let (status, text) = match asked.path {
            "/live" => (StatusCode::OK, "live\n".to_owned()),
            _ => match self.0.reader.moment(&cost).await {
                Ok(_) => (StatusCode::OK, "ready\n".to_owned()),
                Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {error}\n")),
            },
        };
        let body = Body { etag: String::new(), ..Body::new("text/plain; charset=utf-8", text, &[]).await };
        let (body, took) = (Arc::new(body), began.elapsed());
        Reply { status, body, cost, took, max_age: 0, retry_after: None, route: "/live" }
    }

    /// Returns a problem as a body: a page for people, else JSON.
    pub async fn problem(&self, asked: Asked<'_>, problem: &Problem) -> Body {
        let is_page = !asked.path.starts_with("/api/") && !asked.accept.contains("json");
        let (content_type, text) = match is_page {
            true => (view::HTML, view::problem(self, problem, asked).await),
            false => (PROBLEM_JSON, format!("{:#}\n", problem.json())),
        };
        Body { etag: String::new(), ..Body::new(content_type, text, &[]).await }
    }

    /// Answers what is asked, or says why not.
    pub async fn answer(&self, asked: Asked<'_>, cost: &ReadCost) -> Result<Arc<Body>, Problem> {
        let mut route = UNKNOWN;
        self.answer_named(asked, cost, &mut route).await
    }

    async fn answer_named(
        &self,
        asked: Asked<'_>,
        cost: &ReadCost,
        name: &mut &'static str,
    ) -> Result<Arc<Body>, Problem> {
        let moment = self.0.reader.moment(cost).await?;
        let route = Route::of(asked.path, &moment.plan, self.0.options.personal)?;
        *name = route.name();
        let parameters = match route.asks() {
            Some((asks, beside)) => Parameters::parse(asked.query, asks, beside)?,
            None if asked.query.is_empty() => Parameters::default(),
            None => return Err(Problem::parameter(asked.query, "there are no parameters here; leave them out")),
        };
        let form = match route {
            Route::Series(_) | Route::Top(_) => parameters.form(asked.accept)?,
            _ => Form::Json,
        };
        let key = BodyKey {
            path: asked.path.to_owned(),
            // Pages tell the state of the pipeline, which changes without the figures, and the API its own address.
            beside: match route {
                Route::Pipeline | Route::Page(_) => {
                    let state = self.pipeline_state(cost).await.ok().flatten();
                    Some((asked.base.to_owned(), state.map(|(number, _)| number)))
                }
                _ => None,
            },
            stands_alone: asked.stands_alone,
            parameters: parameters.clone(),
            form,
            moment: moment.number,
        };
        let make = async { self.make(&route, &parameters, form, asked, &moment, cost).await.map(Arc::new) };
        let entry = self.0.bodies.entry(key.clone()).or_try_insert_with(make).await;
        let body = entry.map(moka::Entry::into_value).map_err(|problem: Arc<Problem>| (*problem).clone())?;
        if body.is_partial {
            self.0.bodies.invalidate(&key).await;
        }
        Ok(body)
    }

    async fn make(
        &self,
        route: &Route,
        parameters: &Parameters,
        form: Form,
        asked: Asked<'_>,
        moment: &Moment,
        cost: &ReadCost,
    ) -> Result<Body, Problem> {
        let last = match route.asks() {
            Some(_) if parameters.needs_last_day() => self.last_day(moment, cost).await?,
            _ => moment.today,
        };
        let reader = &self.0.reader;
        let is_personal = |report: usize| moment.plan.definition.reports[report].is_personal;
        match route {
            Route::Index => Ok(self.json(self.index(moment, cost).await?).await),
            Route::OpenApi => Ok(self.json(openapi::document(&moment.plan, self.0.options.personal)).await),
            Route::Pipeline => {
                let overview = self.pipeline(cost).await?.ok_or_else(no_queue)?;
                Ok(self.json(json!(*overview)).await)
            }
            Route::Freshness => Ok(self.json(json!(moment.as_of)).await),
            Route::Series(report) => {
                let question = parameters.series(&moment.plan, *report, last, 1)?;
                let series = reader.series(moment, question, cost).await?;
                let body = self.formed(form, shape::series_json(&series), || shape::series_csv(&series)).await;
                Ok(Body { personal: is_personal(*report), ..body })
            }
            Route::Top(report) => {
                let question = parameters.top(&moment.plan, *report, last, 1)?;
                let top = reader.top(moment, question, cost).await?;
                let body = self.formed(form, shape::top_json(&top), || shape::top_csv(&top)).await;
                Ok(Body { personal: is_personal(*report), ..body })
            }
            Route::Page(page) => {
                let (html, is_partial) = view::render(self, page, parameters, moment, last, asked, cost).await?;
                let of = html.clone().into_bytes();
                let personal = self.0.options.personal;
                Ok(Body { personal, is_partial, ..Body::new(view::HTML, html, &of).await })
            }
        }
    }

    /// Returns an answer in its form. Its ETag is of the figures alone.
    async fn formed(&self, form: Form, answer: Value, csv: impl FnOnce() -> String) -> Body {
        match form {
            Form::Json => self.json(answer).await,
            Form::Csv => {
                let text = csv();
                let of = text.clone().into_bytes();
                Body::new("text/csv; charset=utf-8; header=present", text, &of).await
            }
            Form::Lines => {
                let text = shape::lines(&answer);
                let of = text.clone().into_bytes();
                Body::new("application/x-ndjson", text, &of).await
            }
        }
    }

    async fn json(&self, answer: Value) -> Body {
        let text = format!("{answer:#}\n");
        Body::new("application/json", text, shape::figures_of(answer).to_string().as_bytes()).await
    }

    async fn index(&self, moment: &Moment, cost: &ReadCost) -> Result<Value, Problem> {
        let plan = &moment.plan;
        let reports: Vec<Value> = visible(plan, self.0.options.personal)
            .map(|index| {
                let (report, name) = (&plan.reports[index], &plan.reports[index].name);
                json!({
                    "report": name,
                    "key": report.key_attribute,
                    "every": if report.is_hourly { "hour" } else { "day" },
                    "measures": report.measures.iter().map(|measure| &measure.name).collect::<Vec<_>>(),
                    "labels": report.labels.iter().map(|label| &label.name).collect::<Vec<_>>(),
                    "series": format!("/api/v1/series/{name}"),
                    "top": report.top.as_ref().map(|_| format!("/api/v1/top/{name}")),
                })
            })
            .collect();
        let (first, last) = (self.edge(moment, false, cost).await?, self.edge(moment, true, cost).await?);
        Ok(json!({
            "name": plan.definition.name,
            "version": env!("CARGO_PKG_VERSION"),
            "definition": plan.digest,
            "zone": plan.definition.zone.iana_name(),
            "first_day": first.map(date_text),
            "last_day": last.map(date_text),
            "reports": reports,
            "openapi": "/api/v1/openapi.json",
            "as_of": moment.as_of,
        }))
    }

    /// The last day that has rows, but not after today.
    pub async fn last_day(&self, moment: &Moment, cost: &ReadCost) -> Result<i32, Problem> {
        Ok(self.edge(moment, true, cost).await?.map_or(moment.today, |last| last.min(moment.today)))
    }

    /// The first day that has rows, or the last.
    pub async fn edge(&self, moment: &Moment, is_last: bool, cost: &ReadCost) -> Result<Option<i32>, Problem> {
        Ok(self.0.reader.edge(moment, is_last, cost).await?)
    }

    /// The state of the pipeline; `None` without a queue.
    pub async fn pipeline(&self, cost: &ReadCost) -> Result<Option<Arc<Overview>>, Problem> {
        Ok(self.pipeline_state(cost).await?.map(|(_, overview)| overview))
    }

    async fn pipeline_state(&self, cost: &ReadCost) -> Result<Option<(u64, Arc<Overview>)>, Problem> {
        let Some(queue) = &self.0.queue else { return Ok(None) };
        let read = async {
            cost.count(2);
            let overview = Overview::read(queue, self.0.reader.ledger(), RECENT_BATCHES).await;
            let overview = overview.map_err(|error| Problem::from(ReadingError::from(error)))?;
            let mut hasher = DefaultHasher::new();
            format!("{overview:?}").hash(&mut hasher);
            Ok((hasher.finish(), Arc::new(overview)))
        };
        let entry = self.0.pipeline.entry(()).or_try_insert_with(read).await;
        entry.map(|entry| Some(entry.into_value())).map_err(|problem: Arc<Problem>| (*problem).clone())
    }
}

/// The problem of a server that sees no pipeline.
pub fn no_queue() -> Problem {
    let detail = "this server was started without --queue-url, and cannot see the pipeline";
    Problem::new(StatusCode::NOT_FOUND, "the pipeline is not shown here", detail)
}
