//! Questions about figures, and their answers: what the command line, the API and the page show alike.
//!
//! Data only. Values stand in the order of a report's measures; [`crate::reading::shape`] gives them their names.

use std::sync::Arc;

use serde::Serialize;

use crate::plan::Plan;
use crate::plan::period::Period;
use crate::plan::reports::Report;
use crate::protocol::BatchNumber;
use crate::reading::range::{Against, Range};
use crate::reports::figures::{Labels, Shown};

/// A question about one item of a report over days.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SeriesQuestion {
    /// The report, as a number of the plan.
    pub report: usize,
    /// The id of the item.
    pub id: String,
    /// The days.
    pub range: Range,
    /// The days that they are compared with.
    pub against: Against,
}

/// A question about the greatest items of a report over days.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TopQuestion {
    /// The report, as a number of the plan. It keeps top lists.
    pub report: usize,
    /// Only the items with this text in one of the labels that have lists: the label's number and the text.
    pub under: Option<(usize, String)>,
    /// The days.
    pub range: Range,
    /// The days that they are compared with.
    pub against: Against,
    /// Most rows of the answer.
    pub limit: usize,
}

/// Values of a report's measures, in the order of the measures. `None` where not all of the rows behind it have the
/// measure, as the definition gained it later.
pub type Values = Vec<Option<Shown>>;

/// The state of the figures when they were read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AsOf {
    /// The last finished batch; `None` before the first.
    pub batch: Option<BatchNumber>,
    /// The time at which it was finished.
    pub at: Option<jiff::Timestamp>,
    /// A batch is being counted: some items may have it already, and others not yet.
    pub updating: bool,
}

/// The figures of one period of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// The day or hour.
    pub period: Period,
    /// Its values: those of no row if there is no item.
    pub values: Values,
    /// False if it is not over yet.
    pub is_whole: bool,
    /// False if the report did not count it: it is from before the report.
    pub is_counted: bool,
}

/// The answer to a [`SeriesQuestion`].
#[derive(Debug, Clone)]
pub struct Series {
    /// The plan that its numbers belong to.
    pub plan: Arc<Plan>,
    /// The question.
    pub question: SeriesQuestion,
    /// The days that they are compared with.
    pub against: Option<Range>,
    /// The state of the figures.
    pub as_of: AsOf,
    /// The labels of the latest item.
    pub labels: Labels,
    /// Each day or hour, the earliest first.
    pub points: Vec<Point>,
    /// The figures of all of them together; distinct counts are of one union.
    pub totals: Values,
    /// The bounds of each distinct count in `totals` (95 %), in the order of the measures.
    pub between: Vec<Option<[u64; 2]>>,
    /// Each day or hour of the comparison.
    pub before: Vec<Point>,
    /// Their figures together.
    pub before_totals: Option<Values>,
    /// The change of each measure, as a fraction of the one before. Only points that are over are compared, with as
    /// many of those before.
    pub change: Vec<Option<f64>>,
    /// The number of points that are over.
    pub whole: usize,
}

/// The certainty of a ranking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exactness {
    /// It has the greatest items, in their order.
    Exact,
    /// An item that it lacks may have this much more than the last one in it, in the measure by which it is ordered.
    MissingAtMost(Shown),
    /// A list of these days is being rebuilt and is not complete.
    Rebuilding,
}

/// A row of a ranking.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The id of the item.
    pub id: String,
    /// Its labels.
    pub labels: Labels,
    /// Its values over the days.
    pub values: Values,
    /// The bounds of each distinct count (95 %), in the order of the measures.
    pub between: Vec<Option<[u64; 2]>>,
    /// The measure of the ranking by day or hour, in the smallest unit; 0 without rows.
    pub points: Vec<i64>,
    /// The change of the measure of the ranking, over days that are over.
    pub change: Option<f64>,
    /// Its share of the whole that the ranking is of, in the measure of the ranking; `None` if that is not known.
    pub share: Option<f64>,
}

/// The answer to a [`TopQuestion`].
#[derive(Debug, Clone)]
pub struct Top {
    /// The plan that its numbers belong to.
    pub plan: Arc<Plan>,
    /// The question.
    pub question: TopQuestion,
    /// The days that they are compared with.
    pub against: Option<Range>,
    /// The state of the figures.
    pub as_of: AsOf,
    /// The certainty of the ranking.
    pub exactness: Exactness,
    /// There are more items than the rows.
    pub truncated: bool,
    /// The greatest first.
    pub rows: Vec<Row>,
}

impl Series {
    /// The report.
    pub fn report(&self) -> &Report {
        &self.plan.reports[self.question.report]
    }
}

impl Top {
    /// The report.
    pub fn report(&self) -> &Report {
        &self.plan.reports[self.question.report]
    }

    /// The measure by which it is ordered, as a number of the report's measures.
    pub fn measure(&self) -> usize {
        self.report().top.as_ref().map_or(0, |top| top.measure)
    }
}
