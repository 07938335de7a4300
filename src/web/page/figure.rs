//! A figure by day or by hour, for every eye and ear: a chart, the same as a sentence, and as a table.
//!
//! The script makes the chart a slider. Its words are those of the table's rows.

use maud::{Markup, html};

use crate::plan::period::Period;
use crate::plan::reports::{Figure, Report};
use crate::reading::answer::{Point, Series};
use crate::reading::range::Against;
use crate::web::chart::{Bar, BarState, Scale, bars, label_places};
use crate::web::page::links::View;
use crate::web::page::text::{
    chart_unit, date_words, day_text, full_day, period_text, short, title, told, value, value_text,
};
use crate::web::page::tiles::{MOST_TILES, is_number, plain};

/// Most labels below a chart.
const MOST_LABELS: usize = 8;

/// The number of the measure of this name that a chart can have; the first one without.
pub fn charted(series: &Series, name: Option<&str>) -> Option<usize> {
    let report = series.report();
    let named = report.measures.iter().position(|measure| Some(&*measure.name) == name);
    named.into_iter().chain(0..report.measures.len()).find(|&measure| is_number(report, measure))
}

/// A panel in place of an answer that there is not. It says whether others stand.
pub fn failed(id: &str, name: &str, reason: &str, others: bool) -> Markup {
    html! {
        section.panel.failed id=(id) aria-labelledby={ (id) "-title" } {
            h2 id={ (id) "-title" } { (name) }
            p.why { span.sign aria-hidden="true" {} strong { "This could not be read. " } (told(reason)) }
            p.note { @if others { "The other figures stand. " } "This page tries again by itself." }
        }
    }
}

/// The panel of one measure by day or hour.
pub fn figure(view: &View, series: &Series, measure: usize) -> Markup {
    let report = series.report();
    let unit = if report.is_hourly { "hour" } else { "day" };
    let greatest = series.points.iter().chain(&series.before).filter_map(|point| value_of(point, measure));
    let (divide, in_unit) = chart_unit(report.measures[measure].unit, greatest.fold(0.0, f64::max));
    let name = format!("{} by {unit}{in_unit}", title(&report.measures[measure].name));
    let value = |point: &Point| value_of(point, measure).map(|value| value / divide);
    let values = |points: &[Point]| points.iter().map(value).collect::<Vec<_>>();
    let (own, before) = (values(&series.points), values(&series.before));
    let is_whole = divide == 1.0 && report.measures[measure].figure.places() == 0;
    let scale = Scale::of(own.iter().chain(&before).flatten().copied(), is_whole);
    let chart: Vec<Bar> =
        own.iter().enumerate().map(|(at, &value)| Bar { value, state: state(&series.points, at) }).collect();
    // The words below the chart are those of the latest point that has begun.
    let latest = chart.iter().rposition(|bar| bar.state != BarState::Ahead);
    let sentence = sentence(series, measure);
    let id = report.key.map(|_| ("id", &*series.question.id));
    let csv = view.data("series", &report.name, id.as_slice(), "csv");
    html! {
        section #chart.panel.figure aria-labelledby="chart-title" {
            div.panel-head {
                h2 #chart-title { (name) }
                (legend(series, &chart))
                @if !view.frame.is_standalone { p.files { a href=(csv) { "CSV" span.hidden { ": " (name) } } } }
            }
            div.chart {
                div.axis aria-hidden="true" {
                    @for tick in scale.ticks().iter().rev() { span { (short(*tick)) } }
                }
                div #plot.plot-room role="img" aria-label={ (name) ". " (sentence) } data-name=(name) data-at=[latest] {
                    (bars(&chart, &before, &scale, &labels(&series.points)))
                }
            }
            @if let Some(at) = latest { p #readout.readout { (readout(series, measure, at)) } }
            @if !sentence.is_empty() { p.sentence { (sentence) } }
            (uncounted(series))
            (table(series, measure, unit))
        }
    }
}

/// The state of a point. Of those that are not over, only the first has begun.
fn state(points: &[Point], at: usize) -> BarState {
    let is_over = |at: usize| points[at].is_whole;
    match points[at].is_counted {
        false => BarState::Uncounted,
        true if is_over(at) => BarState::Whole,
        true if at == 0 || is_over(at - 1) || !points[at - 1].is_counted => BarState::Open,
        true => BarState::Ahead,
    }
}

fn value_of(point: &Point, measure: usize) -> Option<f64> {
    plain(point.values.get(measure).copied().flatten()).filter(|_| point.is_counted)
}

/// The labels below the chart.
fn labels(points: &[Point]) -> Vec<(usize, String)> {
    let text = |point: &Point| match point.period {
        Period::Hour(_) => period_text(point.period),
        Period::Day(day) if points.len() <= MOST_LABELS => day_text(day),
        Period::Day(day) => date_words(day),
    };
    let is_round = |point: &Point| point.period.date_and_hour().1.is_some_and(|hour| hour % 3 == 0);
    let places = match points.first().map(|point| point.period) {
        Some(Period::Hour(_)) if (20..=30).contains(&points.len()) => {
            (0..points.len()).filter(|&at| is_round(&points[at])).collect()
        }
        _ => label_places(points.len(), MOST_LABELS),
    };
    places.into_iter().map(|at| (at, text(&points[at]))).collect()
}

/// The words for what a chart is compared with.
fn against_text(series: &Series) -> String {
    let is_one = series.question.range.days() == 1;
    match (series.question.against, is_one) {
        (Against::Year, _) => "the year before".to_owned(),
        (_, true) => "the day before".to_owned(),
        (_, false) => "the days before".to_owned(),
    }
}

fn legend(series: &Series, chart: &[Bar]) -> Markup {
    let is_open = chart.iter().any(|bar| bar.state == BarState::Open && bar.value.is_some_and(|value| value != 0.0));
    let is_compared = series.before.iter().any(|point| point.is_counted);
    html! {
        ul.legend {
            @if is_compared {
                @let is_one = series.question.range.days() == 1;
                li { span.key.bar-key aria-hidden="true" {} @if is_one { "this day" } @else { "these days" } }
                li { span.key.before-key aria-hidden="true" {} (against_text(series)) }
            }
            @if is_open { li { span.key.open-key aria-hidden="true" {} "so far" } }
        }
    }
}

/// The words of one point: *Tue 25 Jun: 119,675 so far; the days before: 217,189*.
fn readout(series: &Series, measure: usize, at: usize) -> Markup {
    let point = &series.points[at];
    let before = series.before.get(at).filter(|before| before.is_counted);
    html! {
        strong { (period_text(point.period)) ": " (shown(series, point, measure)) }
        @if let Some(before) = before {
            span.before-words { " · " (against_text(series)) ": " (shown(series, before, measure)) }
        }
    }
}

/// The value of a point in words.
fn shown(series: &Series, point: &Point, measure: usize) -> String {
    let text = value_text(point.values.get(measure).copied().flatten(), series.report().measures[measure].unit);
    match (point.is_counted, point.is_whole) {
        (false, _) => "not counted".to_owned(),
        (true, true) => text,
        (true, false) => text + " so far",
    }
}

/// The greatest and the least of the points that are over.
fn sentence(series: &Series, measure: usize) -> String {
    let whole = series.points.iter().filter(|point| point.is_whole);
    let known: Vec<(&Point, f64)> = whole.filter_map(|point| Some((point, value_of(point, measure)?))).collect();
    let by_value = |a: &&(&Point, f64), b: &&(&Point, f64)| a.1.total_cmp(&b.1);
    // Of equal ones, the first.
    let (highest, lowest) = (known.iter().rev().max_by(by_value), known.iter().min_by(by_value));
    match (highest, lowest) {
        (Some(highest), Some(lowest)) if known.len() > 1 && highest.1 > lowest.1 => {
            let on = if series.report().is_hourly { "at" } else { "on" };
            let text = |(point, _): &(&Point, f64)| {
                format!("{} {on} {}", shown(series, point, measure), period_text(point.period))
            };
            format!("Highest {}, lowest {}.", text(highest), text(lowest))
        }
        (Some((_, value)), _) if known.len() > 1 => match *value == 0.0 {
            true => "Nothing at all.".to_owned(),
            false => format!("Always {}.", shown(series, known[0].0, measure)),
        },
        _ => String::new(),
    }
}

/// The sentence for days that the report did not count.
fn uncounted(series: &Series) -> Markup {
    let counted = series.points.iter().chain(&series.before).any(|point| !point.is_counted);
    let since = series.plan.since.get(series.question.report).copied().flatten();
    html! {
        @if counted { (not_before(since)) }
    }
}

/// The sentence for a report that counts since some day only.
pub fn not_before(since: Option<Period>) -> Markup {
    html! {
        p.warning {
            span.sign aria-hidden="true" {}
            span {
                @match since {
                    Some(period) => { "Not counted before " (full_day(period.date_and_hour().0)) ". " }
                    None => { "Not all of these days were counted. " }
                }
                code { "music-streams replay --rebuild" } " brings the days before."
            }
        }
    }
}

/// The columns of the table: the measure of the chart, then the others that tiles show.
fn columns(series: &Series, measure: usize) -> Vec<usize> {
    let others = (0..series.report().measures.len().min(MOST_TILES)).filter(|&other| other != measure);
    std::iter::once(measure).chain(others).collect()
}

fn table(series: &Series, measure: usize, unit: &str) -> Markup {
    let report = series.report();
    let columns = columns(series, measure);
    let is_estimate = |measure: usize| matches!(report.measures[measure].figure, Figure::Distinct { .. });
    html! {
        details #chart-table.table {
            summary { "The same as a table" }
            div.scroll tabindex="0" role="group" aria-label="Table" {
                table {
                    thead { tr {
                        th scope="col" { (title(unit)) }
                        @for (index, &column) in columns.iter().enumerate() {
                            th.number scope="col" {
                                (title(&report.measures[column].name)) @if is_estimate(column) { " ≈" }
                            }
                            @if index == 0 && !series.before.is_empty() {
                                th.number scope="col" { (title(&against_text(series))) }
                            }
                        }
                    } }
                    tbody {
                        @for (at, point) in series.points.iter().enumerate() {
                            @let is_ahead = state(&series.points, at) == BarState::Ahead;
                            @let before = (!series.before.is_empty()).then(|| series.before.get(at));
                            (row(report, point, is_ahead, before, &columns))
                        }
                    }
                }
            }
        }
    }
}

/// A row of the table. What has not begun has no values; what is compared may lack a point, as a day with fewer hours
/// does.
fn row(report: &Report, point: &Point, is_ahead: bool, before: Option<Option<&Point>>, columns: &[usize]) -> Markup {
    let cell = |point: &Point, column: usize| {
        html! {
            @if is_ahead && !point.is_whole { "to come" }
            @else if point.is_counted {
                (value(point.values.get(column).copied().flatten(), report.measures[column].unit))
                @if !point.is_whole { " so far" }
            } @else { "not counted" }
        }
    };
    html! {
        tr {
            th scope="row" { (period_text(point.period)) }
            @for (index, &column) in columns.iter().enumerate() {
                td.number { (cell(point, column)) }
                @match before {
                    Some(Some(before)) if index == 0 => td.number { (cell(before, column)) },
                    Some(None) if index == 0 => td.number { "–" },
                    _ => {}
                }
            }
        }
    }
}
