//! `music-streams report`: figures over any days, for people and programs. Covered by tests/pipeline/cli.rs.
//!
//! Without a report it shows the last day at a glance; with one its greatest items; with an id that item. The answers
//! are those of [`crate::reading`], as the API's and the page's are.
//!
//! * `mod.rs`: the arguments, and what they ask
//! * `text.rs`: answers as tables, and as the items that programs read
//! * `watch.rs`: the same again, whenever it changes

pub(super) mod text;
mod watch;

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::aws::Clients;
use crate::aws::error::AwsError;
use crate::calendar::{date_text, parse_day};
use crate::commands::resources::Tables;
use crate::definition::reports::ALL;
use crate::plan::Plan;
use crate::plan::period::Period;
use crate::plan::reports::Report;
use crate::reading::answer::{AsOf, Series, SeriesQuestion, Top, TopQuestion};
use crate::reading::moment::Moment;
use crate::reading::questions::periods_of;
use crate::reading::range::{Against, Range};
use crate::reading::reader::{Reader, ReadingError};
use crate::reading::shape;
use crate::reports::store::ReadCost;
use crate::web::question::{MAX_DAYS, are_few, most_days};

/// Memory for figures while a question is watched.
const KEPT_BYTES: u64 = 64 << 20;
/// Rows of each list at a glance.
const GLANCE: usize = 5;

/// The arguments of `music-streams report`.
#[derive(Debug, Args)]
pub struct Query {
    /// Name of the report; the last day at a glance if not given
    report: Option<String>,

    /// Id of an item, which is shown day by day; the greatest items if not given
    #[arg(value_name = "KEY")]
    key: Option<String>,

    /// Day, or hour (UTC) of a report by the hour, as YYYY-MM-DD or YYYY-MM-DDTHH [default: the last day with rows]
    #[arg(long, value_parser = parse_period, value_name = "DATE", conflicts_with_all = ["days", "from", "to"])]
    date: Option<Period>,

    /// Number of days, up to --to or from --from on
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_DAYS)), value_name = "COUNT")]
    days: Option<u16>,

    /// First day, as YYYY-MM-DD
    #[arg(long, value_parser = parse_day, value_name = "DATE")]
    from: Option<i32>,

    /// Last day, included [default: the last day with rows]
    #[arg(long, value_parser = parse_day, value_name = "DATE")]
    to: Option<i32>,

    /// Days to compare with: as many before, the same of the year before, or none
    #[arg(long, value_enum, default_value_t = Against::Previous)]
    against: Against,

    /// The items with this value only: VALUE of the attribute that the report has lists under, or ATTRIBUTE=VALUE
    #[arg(long, value_name = "VALUE", conflicts_with = "key", requires = "report")]
    under: Option<String>,

    /// Number of entries
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "COUNT")]
    top: u16,

    #[command(flatten)]
    tables: Tables,

    /// Table for people; JSON, lines of JSON or CSV for programs
    #[arg(long, value_enum, default_value_t = Form::Table)]
    format: Form,

    /// Show it again whenever it changes, until Ctrl-C: on a terminal in place, else as a line of JSON
    #[arg(long, value_name = "INTERVAL", num_args = 0..=1, default_missing_value = "10s")]
    #[arg(value_parser = humantime::parse_duration)]
    watch: Option<Duration>,

    /// Leave out the last line, which says how exact and how fresh the figures are and what it cost to read them
    #[arg(long, short)]
    quiet: bool,
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people.
    Table,
    /// A list.
    Json,
    /// A line for each item.
    Ndjson,
    /// With a header, by RFC 4180.
    Csv,
}

/// An error of `music-streams report`.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A call failed.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The figures cannot be read.
    #[error(transparent)]
    Reading(#[from] ReadingError),
    /// The definition has no such report.
    #[error("there is no report {name}; the reports are {known}")]
    NoReport {
        /// The name that was given.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// The question cannot be asked.
    #[error("{0}")]
    Question(String),
}

fn parse_period(text: &str) -> Result<Period, String> {
    Period::parse(text).ok_or_else(|| "give a day as YYYY-MM-DD, or an hour as YYYY-MM-DDTHH".to_owned())
}

/// An answer, in the form that is asked for.
#[derive(Debug)]
struct Said {
    text: String,
    /// The figures alone, to see whether they have changed.
    figures: Value,
    /// What the last line says of them.
    remark: String,
}

impl Query {
    /// Reads the answer from the tables, and prints it; again and again where it is watched.
    pub async fn run(&self, clients: Clients) -> Result<(), ReportError> {
        let max_age = Duration::from_secs(300);
        let reader = Reader::new(clients, self.tables.prefix().to_owned(), KEPT_BYTES, max_age);
        match self.watch {
            Some(interval) => watch::watch(self, &reader, interval).await,
            None => {
                let said = self.answer(&reader).await?;
                watch::print_once(&said, self.quiet);
                Ok(())
            }
        }
    }

    async fn answer(&self, reader: &Reader) -> Result<Said, ReportError> {
        let (began, cost) = (Instant::now(), ReadCost::default());
        let moment = reader.moment(&cost).await?;
        let said = match &self.report {
            None => self.glance(reader, &moment, &cost).await?,
            Some(name) => {
                let report = report_of(&moment.plan, name)?;
                match (&self.key, self.has_days()) {
                    (Some(id), false) => self.whole_item(reader, &moment, report, id, &cost).await?,
                    (Some(id), true) => self.item(reader, &moment, report, id, &cost).await?,
                    (None, _) if moment.plan.reports[report].key.is_none() => {
                        self.item(reader, &moment, report, ALL.1, &cost).await?
                    }
                    (None, _) => self.ranking(reader, &moment, report, &cost).await?,
                }
            }
        };
        let remark = format!("{}{}", said.remark, freshness(&moment.as_of, &cost, began));
        Ok(Said { remark, ..said })
    }

    fn has_days(&self) -> bool {
        self.date.is_some() || self.days.is_some() || self.from.is_some() || self.to.is_some()
    }

    /// The days that are asked for.
    async fn range(
        &self,
        reader: &Reader,
        moment: &Moment,
        report: &Report,
        cost: &ReadCost,
    ) -> Result<Range, ReportError> {
        if let Some(date) = self.date {
            let day = moment.plan.day_of(date);
            return Ok(Range { from: day, to: day });
        }
        let last = match Range::ends_with_last(self.from.is_some(), self.to.is_some(), self.days.is_some()) {
            true => reader.edge(moment, true, cost).await?.map_or(moment.today, |last| last.min(moment.today)),
            false => moment.today,
        };
        let too_many = || ReportError::Question("--from and --to say which days; leave out --days".to_owned());
        let range = Range::asked(self.from, self.to, self.days, last, 1).ok_or_else(too_many)?;
        let most = most_days(report);
        if range.from > range.to || range.days() > usize::from(most) {
            let problem = format!("{range}: give 1 to {most} days, the first before the last");
            return Err(ReportError::Question(problem));
        }
        Ok(range)
    }

    /// All items of one id, the latest first.
    async fn whole_item(
        &self,
        reader: &Reader,
        moment: &Moment,
        report: usize,
        id: &str,
        cost: &ReadCost,
    ) -> Result<Said, ReportError> {
        let mut items = reader.reports(&moment.plan).items_of(report, id).await?;
        cost.count(1);
        let of_report = &moment.plan.reports[report];
        items.retain(|item| text::is_shown(&moment.plan, report, item));
        Ok(text::items(self.format, of_report, &items))
    }

    /// One item over days.
    async fn item(
        &self,
        reader: &Reader,
        moment: &Moment,
        report: usize,
        id: &str,
        cost: &ReadCost,
    ) -> Result<Said, ReportError> {
        let range = self.range(reader, moment, &moment.plan.reports[report], cost).await?;
        let question = SeriesQuestion { report, id: id.to_owned(), range, against: self.against };
        let mut series = reader.series(moment, question, cost).await?;
        if let Some(hour @ Period::Hour(_)) = self.date {
            series.points.retain(|point| point.period == hour);
        }
        Ok(text::series(self.format, &series, self.is_one_period()))
    }

    /// True if one day or hour is asked for.
    fn is_one_period(&self) -> bool {
        self.date.is_some() || !self.has_days() && self.key.is_some()
    }

    /// The greatest items of a report.
    async fn ranking(
        &self,
        reader: &Reader,
        moment: &Moment,
        report: usize,
        cost: &ReadCost,
    ) -> Result<Said, ReportError> {
        let of_report = &moment.plan.reports[report];
        let name = &of_report.name;
        let Some(top) = &of_report.top else {
            return Err(ReportError::Question(format!(
                "{name} keeps no top list; give the {}",
                of_report.key_attribute
            )));
        };
        let under = self.under_of(of_report)?;
        if let (Some(Period::Day(_)), true) = (self.date, of_report.is_hourly) {
            return Err(ReportError::Question(format!("{name} needs an hour as YYYY-MM-DDTHH, or --days")));
        }
        if let (Some(Period::Hour(_)), false) = (self.date, of_report.is_hourly) {
            return Err(ReportError::Question(format!("{name} needs a day as YYYY-MM-DD")));
        }
        let range = self.range(reader, moment, of_report, cost).await?;
        let periods = periods_of(&moment.plan, of_report, range).len();
        are_few(usize::from(self.top), periods).map_err(ReportError::Question)?;
        let since = moment.plan.since[report];
        if let Some(since) = since.filter(|&since| moment.plan.day_of(since) > range.to) {
            return Err(ReportError::Question(format!(
                "{name} counts from {since} on; music-streams replay --rebuild lets it begin earlier"
            )));
        }
        let against = if matches!(self.date, Some(Period::Hour(_))) { Against::None } else { self.against };
        let question = TopQuestion { report, under, range, against, limit: usize::from(self.top) };
        let answer = match self.date {
            Some(hour @ Period::Hour(_)) => reader.top_of(moment, question, vec![hour], cost).await?,
            _ => reader.top(moment, question, cost).await?,
        };
        let remark =
            (answer.rows.len() == top.keep && usize::from(self.top) > top.keep && range.days() == 1).then(|| {
                format!(
                    "a list has {} entries; the others are in the report's table, by id, and in the curated files",
                    top.keep
                )
            });
        Ok(text::ranking(self.format, &answer, self.date, remark))
    }

    /// The label and the text that items are asked for under.
    fn under_of(&self, report: &Report) -> Result<Option<(usize, String)>, ReportError> {
        let Some(under) = &self.under else { return Ok(None) };
        let labels: &[usize] = report.top.as_ref().map_or(&[], |top| &top.under);
        let place = |name: &str| labels.iter().copied().find(|&label| report.labels[label].name == name);
        let named = under.split_once('=').and_then(|(name, text)| Some((place(name)?, text.to_owned())));
        match (named, labels.first()) {
            (Some(named), _) => Ok(Some(named)),
            (None, Some(&label)) => Ok(Some((label, under.clone()))),
            (None, None) => {
                Err(ReportError::Question(format!("{} keeps one list only, of all its items", report.name)))
            }
        }
    }

    /// The last day: all rows, and the greatest items of each report.
    async fn glance(&self, reader: &Reader, moment: &Moment, cost: &ReadCost) -> Result<Said, ReportError> {
        let plan = &moment.plan;
        let daily = |report: &&usize| !plan.reports[**report].is_hourly;
        let all: Vec<usize> = (0..plan.reports.len()).collect();
        let Some(&first) = all.iter().find(daily) else {
            let problem = "this definition has reports by the hour only; give the name of one".to_owned();
            return Err(ReportError::Question(problem));
        };
        let range = self.range(reader, moment, &plan.reports[first], cost).await?;
        let (mut totals, mut tops): (Option<Series>, Vec<Top>) = (None, Vec::new());
        if let Some(report) = moment.marking {
            let question = SeriesQuestion { report, id: ALL.1.to_owned(), range, against: self.against };
            totals = Some(reader.series(moment, question, cost).await?);
        }
        for &report in all.iter().filter(daily).filter(|&&report| plan.reports[report].top.is_some()) {
            let question = TopQuestion { report, under: None, range, against: self.against, limit: GLANCE };
            tops.push(reader.top(moment, question, cost).await?);
        }
        Ok(text::glance(self.format, range, totals.as_ref(), &tops))
    }
}

/// Finds a report by its name, which may be given in the singular.
fn report_of(plan: &Plan, name: &str) -> Result<usize, ReportError> {
    let plural = || plan.report_named(&format!("{name}s"));
    let in_ies = || plan.report_named(&format!("{}ies", name.strip_suffix('y')?));
    plan.report_named(name).or_else(plural).or_else(in_ies).ok_or_else(|| {
        let known = plan.reports.iter().map(|report| report.name.as_str()).collect::<Vec<_>>().join(", ");
        ReportError::NoReport { name: name.to_owned(), known }
    })
}

/// The state of the figures, and what it cost to read them.
fn freshness(as_of: &AsOf, cost: &ReadCost, began: Instant) -> String {
    let of = match as_of.at {
        Some(at) => {
            let (date, time) = (date_text(crate::calendar::day_of(at.as_microsecond())), &at.to_string()[11..19]);
            format!("figures of {date} {time} UTC")
        }
        None => "no batch was counted yet".to_owned(),
    };
    let updating = if as_of.updating { ", a batch is being counted" } else { "" };
    let units = cost.half_units() as f64 / 2.0;
    format!("{of}{updating} · {} calls, {units} read units, {} ms", cost.calls(), began.elapsed().as_millis())
}

/// The rows of an answer of the API, without what only pages and the API have.
fn lines(list: &[Value]) -> String {
    list.iter().map(Value::to_string).collect::<Vec<_>>().join("\n")
}

/// A form of an answer for programs, if one is asked for.
fn for_programs(format: Form, items: Vec<Value>, csv: impl FnOnce() -> String) -> Option<String> {
    match format {
        Form::Table => None,
        Form::Json => Some(format!("{:#}", Value::Array(items))),
        Form::Ndjson => Some(lines(&items)),
        Form::Csv => Some(csv().replace("\r\n", "\n").trim_end().to_owned()),
    }
}

impl Said {
    fn of_series(text: String, series: &Series, remark: String) -> Self {
        Said { text, figures: shape::figures_of(shape::series_json(series)), remark }
    }

    fn of_top(text: String, top: &Top, remark: String) -> Self {
        Said { text, figures: shape::figures_of(shape::top_json(top)), remark }
    }
}
