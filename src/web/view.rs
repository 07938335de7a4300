//! The pages' answers: what each page shows is asked here, and made into HTML by [`crate::web::page`].
//!
//! Each panel is an answer of its own: where one fails, the others stand.

use std::sync::{Arc, OnceLock};

use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use crate::plan::Plan;
use crate::plan::period::Period;
use crate::reading::answer::{AsOf, Series, SeriesQuestion, Top, TopQuestion};
use crate::reading::moment::Moment;
use crate::reading::range::{Against, Range};
use crate::reports::store::ReadCost;
use crate::web::app::{App, Asked, Body};
use crate::web::openapi;
use crate::web::page::{self, Answer, Assets, Days, Frame, Freshness, Under};
use crate::web::problem::Problem;
use crate::web::question::{Asks, MAX_DAYS, Parameters, most_days};
use crate::web::route::visible;

/// The media type of a page.
pub const HTML: &str = "text/html; charset=utf-8";
/// Days of a page that is asked for none: each day of the week as often as the others.
const DEFAULT_DAYS: u16 = 28;
/// Rows of a ranking on a page.
const ROWS: usize = 10;
/// Rows of the ranking that a page is about.
const MORE_ROWS: usize = 25;
/// Most days for which rows are compared with the days before; for more, each has a line of its own.
const COMPARED_DAYS: usize = 7;
/// Texts to choose a filter from.
const CHOICES: usize = 100;

/// A page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    /// Everything at a glance.
    Overview,
    /// One item of a report.
    Item,
    /// The state of the pipeline.
    Pipeline,
    /// The API.
    Api,
}

impl Page {
    /// Returns the page at a path.
    pub fn at(path: &str) -> Option<Self> {
        let pages = [Page::Overview, Page::Item, Page::Pipeline, Page::Api];
        pages.into_iter().find(|page| page.path() == path)
    }

    /// Its path.
    pub fn path(&self) -> &'static str {
        match self {
            Page::Overview => "/",
            Page::Item => "/item",
            Page::Pipeline => "/pipeline",
            Page::Api => "/api",
        }
    }

    /// What its query may ask, and the parameters beside.
    pub fn asks(&self) -> Option<(Asks, &'static [&'static str])> {
        match self {
            Page::Overview => Some((Asks::Overview, &[])),
            Page::Item => Some((Asks::Overview, &["report", "id"])),
            Page::Pipeline | Page::Api => None,
        }
    }
}

/// The files that pages need: name, kind, media type and text.
const FILES: [(&str, &str, &str, &str); 3] = [
    ("page", "css", "text/css; charset=utf-8", page::STYLESHEET),
    ("page", "js", "text/javascript; charset=utf-8", page::SCRIPT),
    ("icon", "svg", "image/svg+xml", page::ICON),
];

/// Their paths below the root, which change with their texts.
fn paths() -> &'static [String; 3] {
    static PATHS: OnceLock<[String; 3]> = OnceLock::new();
    PATHS.get_or_init(|| {
        FILES.map(|(name, kind, _, text)| {
            let hash: String = Sha256::digest(text.as_bytes())[..6].iter().map(|byte| format!("{byte:02x}")).collect();
            format!("assets/{name}.{hash}.{kind}")
        })
    })
}

/// Returns the file at a path, if there is one.
pub async fn asset(path: &str) -> Option<Arc<Body>> {
    static BODIES: [OnceCell<Arc<Body>>; 3] = [const { OnceCell::const_new() }; 3];
    let place = paths().iter().position(|file| path.strip_prefix('/') == Some(file))?;
    let (_, _, media, text) = FILES[place];
    let made = async || Arc::new(Body::new(media, text.to_owned(), text.as_bytes()).await);
    Some(Arc::clone(BODIES[place].get_or_init(made).await))
}

/// Returns a page for a problem.
pub async fn problem(app: &App, problem: &Problem, asked: Asked<'_>) -> String {
    let cost = ReadCost::default();
    let moment = app.reader().moment(&cost).await.ok();
    let plan = moment.as_ref().map(|moment| Arc::clone(&moment.plan)).or_else(|| Plan::built_in().ok());
    let Some(plan) = plan else { return problem.detail.clone() };
    let as_of = moment.as_ref().map_or(AsOf { batch: None, at: None, updating: false }, |moment| moment.as_of.clone());
    let today = moment.as_ref().map_or(0, |moment| moment.today);
    let why = moment.is_none().then(|| problem.detail.clone());
    let frame = frame(app, plan, today, as_of, why, asked);
    let shown = page::Problem {
        status: problem.status.as_u16(),
        title: problem.title.to_owned(),
        detail: problem.detail.clone(),
        remedy: None,
    };
    page::problem(&frame, &shown)
}

fn frame(app: &App, plan: Arc<Plan>, today: i32, as_of: AsOf, problem: Option<String>, asked: Asked<'_>) -> Frame {
    let [stylesheet, script, icon] = paths().clone();
    Frame {
        plan,
        freshness: Freshness {
            as_of,
            waiting: None,
            at_work: 0,
            dead_letters: None,
            aside: 0,
            lag_seconds: None,
            problem,
        },
        today,
        refresh_seconds: u32::try_from(app.options().refresh.as_secs()).unwrap_or(u32::MAX).max(1),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        has_pipeline: app.has_pipeline(),
        root: root_of(asked.path),
        assets: Assets { stylesheet, script, icon },
        is_standalone: asked.stands_alone,
    }
}

/// The way from a path to the root.
fn root_of(path: &str) -> String {
    match path.matches('/').count() {
        0 | 1 => "./".to_owned(),
        deeper => "../".repeat(deeper - 1),
    }
}

/// The frame with the state of the pipeline, as far as it can be seen.
async fn whole_frame(app: &App, moment: &Moment, asked: Asked<'_>, cost: &ReadCost) -> Frame {
    let mut frame = frame(app, Arc::clone(&moment.plan), moment.today, moment.as_of.clone(), None, asked);
    match app.pipeline(cost).await {
        Ok(None) => {}
        Ok(Some(overview)) => {
            frame.freshness.waiting = Some(overview.queue.waiting + overview.queue.delayed + overview.queue.in_flight);
            frame.freshness.at_work = overview.unfinished_batches.len();
            frame.freshness.dead_letters = overview.dead_letters;
            frame.freshness.aside = overview.aside.values().sum();
            frame.freshness.lag_seconds = overview.lag_s;
        }
        Err(problem) => frame.freshness.problem = Some(problem.detail),
    }
    frame
}

/// Asks what a page shows, and returns the page, and true if a part of it could not be read.
pub async fn render(
    app: &App,
    page: &Page,
    parameters: &Parameters,
    moment: &Moment,
    last: i32,
    asked: Asked<'_>,
    cost: &ReadCost,
) -> Result<(String, bool), Problem> {
    let frame = whole_frame(app, moment, asked, cost).await;
    let is_unknown = frame.freshness.problem.is_some();
    let view = View { app, moment, cost };
    match page {
        Page::Overview => {
            let overview = view.overview(parameters, last).await?;
            let series = overview.totals.iter().chain(&overview.hours).any(Result::is_err);
            let is_partial = series || overview.tops.iter().any(|(_, top)| top.is_err());
            Ok((page::overview(&frame, &overview), is_partial || is_unknown))
        }
        Page::Item => {
            let item = view.item(parameters, last).await?;
            let is_partial = item.series.is_err() || item.tops.iter().any(|(_, top)| top.is_err());
            Ok((page::item(&frame, &item), is_partial || is_unknown))
        }
        Page::Pipeline => {
            let overview = app.pipeline(cost).await?.ok_or_else(crate::web::app::no_queue)?;
            Ok((page::pipeline(&frame, &Ok((*overview).clone())), is_unknown))
        }
        Page::Api => {
            let document = openapi::document(&moment.plan, app.options().personal);
            Ok((page::api(&frame, &document, asked.base), is_unknown))
        }
    }
}

struct View<'a> {
    app: &'a App,
    moment: &'a Moment,
    cost: &'a ReadCost,
}

impl View<'_> {
    fn plan(&self) -> &Arc<Plan> {
        &self.moment.plan
    }

    async fn days(&self, parameters: &Parameters, last: i32, most: u16) -> Result<Days, Problem> {
        let range = parameters.range(DEFAULT_DAYS, last, most)?;
        let edges = [self.app.edge(self.moment, false, self.cost), self.app.edge(self.moment, true, self.cost)];
        let [first, last] = <[_; 2]>::try_from(futures::future::join_all(edges).await).unwrap_or([Ok(None), Ok(None)]);
        let is_default = ["days", "from", "to"].iter().all(|name| parameters.get(name).is_none());
        Ok(Days { range, against: parameters.against()?, first: first?, last: last?, is_default })
    }

    async fn overview(&self, parameters: &Parameters, last: i32) -> Result<page::Overview, Problem> {
        let days = self.days(parameters, last, MAX_DAYS).await?;
        let under = self.under(parameters)?;
        let shown: Vec<usize> = visible(self.plan(), self.app.options().personal).collect();
        let is_listed = |&report: &usize| {
            let of_report = &self.plan().reports[report];
            of_report.top.is_some() && !of_report.is_hourly
        };
        let ranked: Vec<usize> = shown.iter().copied().filter(is_listed).collect();
        let compared = days.range.against(days.against).into_iter().flat_map(|range| range.each());
        // Panels fail each by itself: what fails here fails there again.
        let _ = self.app.reader().prepare(self.moment, days.range.each().chain(compared), self.cost).await;
        let tops = ranked.iter().map(|&report| self.top(report, &days, under.as_ref(), ROWS));
        let (totals, hours, tops, choices) = futures::join!(
            self.totals(&days, under.as_ref(), &shown),
            self.hours(&days, under.is_some(), &shown),
            futures::future::join_all(tops),
            self.choices(&days, &ranked),
        );
        let tops = ranked.iter().copied().zip(tops).filter_map(|(report, top)| Some((report, top?))).collect();
        let measure = parameters.get("measure").map(str::to_owned);
        Ok(page::Overview { days, under, choices, measure, totals, hours, tops })
    }

    /// The filter that is asked for. The label is one that some report has lists under.
    fn under(&self, parameters: &Parameters) -> Result<Option<Under>, Problem> {
        let Some(text) = parameters.get("under") else { return Ok(None) };
        let labels = self.labels();
        let found = text.split_once(':').filter(|(label, text)| labels.contains(label) && !text.is_empty());
        match found {
            Some((label, text)) => Ok(Some(Under { label: label.to_owned(), text: text.to_owned() })),
            None if labels.is_empty() => Err(Problem::parameter("under", "no report has lists under an attribute")),
            None => {
                let detail = format!("under is {text}; write {}:VALUE", labels.join(":VALUE or "));
                Err(Problem::parameter("under", detail))
            }
        }
    }

    /// The labels that reports have lists under.
    fn labels(&self) -> Vec<&str> {
        let mut labels: Vec<&str> = Vec::new();
        for report in visible(self.plan(), self.app.options().personal).map(|report| &self.plan().reports[report]) {
            for &label in report.top.iter().flat_map(|top| &top.under) {
                let name = report.labels[label].name.as_str();
                if !labels.contains(&name) {
                    labels.push(name);
                }
            }
        }
        labels
    }

    /// The report by day whose key is a label, if there is one.
    fn report_of(&self, label: &str, shown: &[usize]) -> Option<usize> {
        let is_it = |&&report: &&usize| {
            let report = &self.plan().reports[report];
            report.key.is_some() && !report.is_hourly && report.key_attribute == label
        };
        shown.iter().find(is_it).copied()
    }

    /// The figures of all rows, or of those under the filter.
    async fn totals(&self, days: &Days, under: Option<&Under>, shown: &[usize]) -> Option<Answer<Series>> {
        let (report, id) = match under {
            Some(Under { label, text }) => (self.report_of(label, shown)?, text.clone()),
            None => (self.moment.marking?, crate::definition::reports::ALL.1.to_owned()),
        };
        Some(self.series(report, id, days.range, days.against).await)
    }

    /// The figures of all rows by hour, of one day.
    async fn hours(&self, days: &Days, is_filtered: bool, shown: &[usize]) -> Option<Answer<Series>> {
        let is_it = |&&report: &&usize| {
            let report = &self.plan().reports[report];
            report.key.is_none() && report.is_hourly
        };
        let report = shown.iter().find(is_it).copied().filter(|_| days.range.days() == 1 && !is_filtered)?;
        Some(self.series(report, crate::definition::reports::ALL.1.to_owned(), days.range, days.against).await)
    }

    async fn series(&self, report: usize, id: String, range: Range, against: Against) -> Answer<Series> {
        let question = SeriesQuestion { report, id, range, against };
        let answer = self.app.reader().series(self.moment, question, self.cost).await;
        answer.map_err(|error| error.to_string())
    }

    /// The greatest items of a report, of those under the filter if it has lists under the label.
    async fn top(&self, report: usize, days: &Days, under: Option<&Under>, limit: usize) -> Option<Answer<Top>> {
        let of_report = &self.plan().reports[report];
        let labels = || of_report.top.iter().flat_map(|top| &top.under);
        let under = match under {
            None => None,
            Some(Under { label, text }) => {
                let place = labels().copied().find(|&place| of_report.labels[place].name == *label)?;
                Some((place, text.clone()))
            }
        };
        let against = if days.range.days() <= COMPARED_DAYS { days.against } else { Against::None };
        let question = TopQuestion { report, under, range: days.range, against, limit };
        let answer = self.app.reader().top(self.moment, question, self.cost).await;
        Some(answer.map_err(|error| error.to_string()))
    }

    /// The texts that the filter can have: those of the greatest items of the last day, by label.
    async fn choices(&self, days: &Days, ranked: &[usize]) -> Vec<(String, Vec<String>)> {
        let mut choices = Vec::new();
        for label in self.labels() {
            let Some(report) = self.report_of(label, ranked) else { continue };
            let range = Range { from: days.range.to, to: days.range.to };
            let key = crate::reports::top_lists::ListKey::of_all(
                &self.plan().reports[report],
                Period::Day(days.last.map_or(range.to, |last| last.min(range.to))),
            );
            let lists = self.app.reader().lists(self.moment, vec![key], self.cost).await.unwrap_or_default();
            let mut texts: Vec<String> =
                lists.values().flat_map(|list| &list.entries).take(CHOICES).map(|entry| entry.id.clone()).collect();
            texts.sort();
            choices.push((label.to_owned(), texts));
        }
        choices
    }

    async fn item(&self, parameters: &Parameters, last: i32) -> Result<page::Item, Problem> {
        let name = parameters.get("report").ok_or_else(|| Problem::parameter("report", "say which report"))?;
        let shown: Vec<usize> = visible(self.plan(), self.app.options().personal).collect();
        let report = shown.iter().copied().find(|&report| self.plan().reports[report].name == name);
        let report = report.ok_or_else(|| Problem::parameter("report", format!("there is no report {name}")))?;
        let of_report = &self.plan().reports[report];
        let days = self.days(parameters, last, most_days(of_report)).await?;
        let id = match (parameters.get("id"), &of_report.key) {
            (Some(id), _) => id.to_owned(),
            (None, None) => crate::definition::reports::ALL.1.to_owned(),
            (None, Some(_)) => {
                return Err(Problem::parameter("id", format!("give the {} of an item", of_report.key_attribute)));
            }
        };
        let series = self.series(report, id.clone(), days.range, days.against).await;
        // The reports that have lists under what this report's items are.
        let under = Under { label: of_report.key_attribute.clone(), text: id.clone() };
        let mut tops = Vec::new();
        for &other in shown.iter().filter(|&&other| !self.plan().reports[other].is_hourly) {
            if let Some(top) = self.top(other, &days, Some(&under), MORE_ROWS).await {
                tops.push((other, top));
            }
        }
        Ok(page::Item { days, report, id, measure: parameters.get("measure").map(str::to_owned), series, tops })
    }
}
