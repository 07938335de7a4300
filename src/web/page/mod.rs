//! The page: answers as HTML.
//!
//! Pure functions, which ask nothing. A page works without scripts; its URL is its state. Nothing here knows a
//! definition: titles are made of names.
//!
//! | file | contents |
//! |---|---|
//! | `frame` | the frame around every page, and the sentence that says how fresh the figures are |
//! | `links` | addresses: of the same page over other days, of an item, of a list as a file |
//! | `controls` | the days, the filter and the comparison |
//! | `overview` | all rows, and the greatest items of each report; one item |
//! | `tiles` | figures of a period at a glance |
//! | `figure` | a figure by day or hour: chart, sentence and table |
//! | `ranking` | the greatest items of a report |
//! | `pipeline` | queue, batches and what is set aside |
//! | `api` | the API, out of its OpenAPI document |
//! | `text` | words and numbers |

mod api;
mod controls;
mod figure;
mod frame;
mod links;
mod overview;
mod pipeline;
mod ranking;
#[cfg(test)]
mod tests;
mod text;
mod tiles;

use std::sync::Arc;

use crate::plan::Plan;
use crate::reading::answer::{AsOf, Series, Top};
use crate::reading::range::{Against, Range};

pub use api::api;
pub use frame::problem;
pub use overview::{item, overview};
pub use pipeline::pipeline;

/// The stylesheet.
pub const STYLESHEET: &str = include_str!("../assets/page.css");
/// The script.
pub const SCRIPT: &str = include_str!("../assets/page.js");
/// The icon.
pub const ICON: &str = include_str!("../assets/icon.svg");

/// An answer, or the reason for which there is none.
pub type Answer<T> = Result<T, String>;

/// Everything that is around a page.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The plan in force: its definition's name is the pages' title, its zone that of their days.
    pub plan: Arc<Plan>,
    /// The state of the figures.
    pub freshness: Freshness,
    /// The day that it is in the definition's zone. It is not over.
    pub today: i32,
    /// Seconds from one look for new figures to the next.
    pub refresh_seconds: u32,
    /// The program's version.
    pub version: String,
    /// True if there is a page of the pipeline.
    pub has_pipeline: bool,
    /// The way from the page to the root: `./`, and `../` for each further slash in the page's path.
    pub root: String,
    /// The paths of stylesheet, script and icon below the root, with a hash of their contents.
    pub assets: Assets,
    /// True for a page that stands alone: the stylesheet is inside, and there are neither scripts nor links.
    pub is_standalone: bool,
}

/// Paths of the files that a page needs.
#[derive(Debug, Clone)]
pub struct Assets {
    /// Of [`STYLESHEET`].
    pub stylesheet: String,
    /// Of [`SCRIPT`].
    pub script: String,
    /// Of [`ICON`].
    pub icon: String,
}

/// The state of the figures, and of the pipeline behind them.
#[derive(Debug, Clone)]
pub struct Freshness {
    /// The last finished batch.
    pub as_of: AsOf,
    /// Messages in the queue, if the queue is known.
    pub waiting: Option<u64>,
    /// Batches at work.
    pub at_work: usize,
    /// Messages in the dead-letter queue, if there is one and it is known.
    pub dead_letters: Option<u64>,
    /// Entries set aside.
    pub aside: u64,
    /// Seconds from the creation of the oldest file of the last batch to the end of that batch.
    pub lag_seconds: Option<i64>,
    /// The reason for which the state could not be read.
    pub problem: Option<String>,
}

/// The days of a page.
#[derive(Debug, Clone)]
pub struct Days {
    /// The days.
    pub range: Range,
    /// The days that they are compared with.
    pub against: Against,
    /// The first day with rows, if it is known.
    pub first: Option<i32>,
    /// The last day with rows; `None` before the first row.
    pub last: Option<i32>,
    /// True if no days were asked for, so that they end with the last one with rows, or today.
    pub is_default: bool,
}

impl Days {
    /// The last day of a page that is asked for none: the last one with rows, but not after today.
    pub fn default_to(&self, today: i32) -> i32 {
        self.last.map_or(today, |last| last.min(today))
    }
}

/// A filter: only the items with a text in a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Under {
    /// The name of the label.
    pub label: String,
    /// Its text.
    pub text: String,
}

/// All rows of some days, and the greatest items of each report.
#[derive(Debug, Clone)]
pub struct Overview {
    /// The days.
    pub days: Days,
    /// The filter in force.
    pub under: Option<Under>,
    /// The texts that can be chosen, by label: those of the greatest items of the label's own report.
    pub choices: Vec<(String, Vec<String>)>,
    /// The measure of the chart, by its name; the first one without.
    pub measure: Option<String>,
    /// The figures of all rows, or of those under the filter, by day. `None` without a report that has them.
    pub totals: Option<Answer<Series>>,
    /// The same by hour, for one day.
    pub hours: Option<Answer<Series>>,
    /// The greatest items of each report that keeps lists.
    pub tops: Vec<(usize, Answer<Top>)>,
}

/// One item of a report over some days.
#[derive(Debug, Clone)]
pub struct Item {
    /// The days.
    pub days: Days,
    /// The report.
    pub report: usize,
    /// The id of the item.
    pub id: String,
    /// The measure of the chart, by its name; the first one without.
    pub measure: Option<String>,
    /// Its figures by day.
    pub series: Answer<Series>,
    /// The greatest items under it, of the reports that have lists under its key.
    pub tops: Vec<(usize, Answer<Top>)>,
}

/// A problem that takes the place of a page.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The status of the response.
    pub status: u16,
    /// The problem in few words.
    pub title: String,
    /// The problem.
    pub detail: String,
    /// The way out of it, if one is known.
    pub remedy: Option<String>,
}
