//! From a path to a resource: parsed here and not by a router's patterns, so that the same answers come over HTTP, in
//! Lambda and once. Pure.

use axum::http::StatusCode;

use crate::plan::Plan;
use crate::web::problem::Problem;
use crate::web::question::Asks;
use crate::web::view;

/// The resources of the API and the pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// The reports that there are.
    Index,
    /// A report's items over days.
    Series(usize),
    /// A report's greatest items.
    Top(usize),
    /// The state of the pipeline.
    Pipeline,
    /// The last finished batch.
    Freshness,
    /// The description of the API.
    OpenApi,
    /// A page.
    Page(view::Page),
}

impl Route {
    /// Finds the resource at a path. The error says what there is instead.
    pub fn of(path: &str, plan: &Plan, personal: bool) -> Result<Self, Problem> {
        let report = |name: &str| {
            let known = || visible(plan, personal).map(|report| plan.reports[report].name.as_str());
            let found = visible(plan, personal).find(|&report| plan.reports[report].name == name);
            let detail =
                || format!("there is no report {name}; the reports are {}", known().collect::<Vec<_>>().join(", "));
            found.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "there is no such report", detail()))
        };
        let api = |rest: &str| match rest.split_once('/') {
            None if rest.is_empty() => Ok(Route::Index),
            None if rest == "pipeline" => Ok(Route::Pipeline),
            None if rest == "freshness" => Ok(Route::Freshness),
            None if rest == "openapi.json" => Ok(Route::OpenApi),
            Some(("series", name)) => report(name).map(Route::Series),
            Some(("top", name)) => {
                let report = report(name)?;
                let has_lists = plan.reports[report].top.is_some();
                let detail = || format!("{name} keeps no top list; ask for series/{name}?id=… instead");
                has_lists
                    .then_some(Route::Top(report))
                    .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "there is no such list", detail()))
            }
            _ => Err(nothing_at(path)),
        };
        match path.strip_prefix("/api/v1") {
            Some("") => Ok(Route::Index),
            Some(rest) if rest.starts_with('/') => api(&rest[1..]),
            _ => view::Page::at(path).map(Route::Page).ok_or_else(|| nothing_at(path)),
        }
    }

    /// Its name in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Route::Index => "/api/v1",
            Route::Series(_) => "/api/v1/series/{report}",
            Route::Top(_) => "/api/v1/top/{report}",
            Route::Pipeline => "/api/v1/pipeline",
            Route::Freshness => "/api/v1/freshness",
            Route::OpenApi => "/api/v1/openapi.json",
            Route::Page(page) => page.path(),
        }
    }

    /// What its query may ask, and the parameters beside.
    pub fn asks(&self) -> Option<(Asks, &'static [&'static str])> {
        match self {
            Route::Series(_) => Some((Asks::Series, &[])),
            Route::Top(_) => Some((Asks::Top, &[])),
            Route::Page(page) => page.asks(),
            Route::Index | Route::Pipeline | Route::Freshness | Route::OpenApi => None,
        }
    }
}

fn nothing_at(path: &str) -> Problem {
    let detail = format!("there is nothing at {path}; the API begins at /api/v1, and the page at /");
    Problem::new(StatusCode::NOT_FOUND, "there is nothing here", detail)
}

/// The reports that may be shown.
pub fn visible(plan: &Plan, personal: bool) -> impl Iterator<Item = usize> {
    let is_shown = move |&report: &usize| personal || !plan.definition.reports[report].is_personal;
    (0..plan.reports.len()).filter(is_shown)
}
