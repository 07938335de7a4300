//! A figure by day or by hour, for every eye and ear: a chart, the same as a sentence, and as a table.
//!
//! The script makes the chart a slider. Its words are those of the table's rows.

use maud::{Markup, html};

use crate::plan::period::Period;
use crate::plan::reports::Figure;
use crate::reading::answer::{Point, Series};
use crate::reading::range::Against;
use crate::web::chart::{Bar, BarState, Scale, bars, label_places};
use crate::web::page::links::View;
use crate::web::page::text::{date_words, day_text, full_day, period_text, short, title, told, value, value_text};
use crate::web::page::tiles::{MOST_TILES, is_number, plain};

/// Most labels below a chart.
const MOST_LABELS: usize = 8;

/// The number of the measure of this name that a chart can have; the first one without.
pub fn charted(series: &Series, name: Option<&str>) -> Option<usize> {
    let report = series.report();
    let named = report.measures.iter().position(|measure| Some(&*measure.name) == name);
    named.into_iter().chain(0..report.measures.len()).find(|&measure| is_number(report, measure))
}

/// A panel in place of an answer that there is not. The others stand.
pub fn failed(id: &str, name: &str, reason: &str) -> Markup {
    html! {
        section.panel.failed id=(id) aria-labelledby={ (id) "-title" } {
            h2 id={ (id) "-title" } { (name) }
            p.why { span.sign aria-hidden="true" {} strong { "This could not be read. " } (told(reason)) }
            p.note { "The other figures stand. This page tries again by itself." }
        }
    }
}

/// The panel of one measure by day or hour.
pub fn figure(view: &View, series: &Series, measure: usize) -> Markup {
    let report = series.report();
    let unit = if report.is_hourly { "hour" } else { "day" };
    let name = format!("{} by {unit}", title(&report.measures[measure].name));
    let values = |points: &[Point]| points.iter().map(|point| value_of(point, measure)).collect::<Vec<_>>();
    let (own, before) = (values(&series.points), values(&series.before));
    let is_whole = report.measures[measure].figure.places() == 0;
    let scale = Scale::of(own.iter().chain(&before).flatten().copied(), is_whole);
    let state = |point: &Point| match (point.is_counted, point.is_whole) {
        (false, _) => BarState::Uncounted,
        (true, true) => BarState::Whole,
        (true, false) => BarState::Open,
    };
    let chart: Vec<Bar> =
        series.points.iter().zip(&own).map(|(point, &value)| Bar { value, state: state(point) }).collect();
    let sentence = sentence(series, measure);
    let csv = match &*series.question.id {
        "*" => view.data("series", &report.name, &[], "csv"),
        id => view.data("series", &report.name, &[("id", id)], "csv"),
    };
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
                div #plot.plot-room role="img" aria-label={ (name) ". " (sentence) } data-name=(name) {
                    (bars(&chart, &before, &scale, &labels(&series.points)))
                }
            }
            @if let Some(last) = series.points.len().checked_sub(1) {
                p #readout.readout { (readout(series, measure, last)) }
            }
            @if !sentence.is_empty() { p.sentence { (sentence) } }
            (uncounted(series))
            (table(series, measure, unit))
        }
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
    label_places(points.len(), MOST_LABELS).into_iter().map(|at| (at, text(&points[at]))).collect()
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
    html! {
        ul.legend {
            @if series.against.is_some() && !series.before.is_empty() {
                li { span.key.bar-key aria-hidden="true" {} "these days" }
                li { span.key.before-key aria-hidden="true" {} (against_text(series)) }
            }
            @if is_open { li { span.key.open-key aria-hidden="true" {} "so far" } }
        }
    }
}

/// The words of one point: *Tue 25 Jun: 119,675 so far; the days before: 217,189*.
fn readout(series: &Series, measure: usize, at: usize) -> Markup {
    let point = &series.points[at];
    let before = series.before.get(at);
    html! {
        strong { (period_text(point.period)) ": " (shown(point, measure)) }
        @if let Some(before) = before {
            span.before-words { " · " (against_text(series)) ": " (shown(before, measure)) }
        }
    }
}

/// The value of a point in words.
fn shown(point: &Point, measure: usize) -> String {
    let text = value_text(point.values.get(measure).copied().flatten());
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
            let text = |(point, _): &(&Point, f64)| format!("{} {on} {}", shown(point, measure), period_text(point.period));
            format!("Highest {}, lowest {}.", text(highest), text(lowest))
        }
        (Some((_, value)), _) if known.len() > 1 => match *value == 0.0 {
            true => "Nothing at all.".to_owned(),
            false => format!("Always {}.", shown(known[0].0, measure)),
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
                            (row(point, series.before.get(at), &columns, measure, !series.before.is_empty()))
                        }
                    }
                }
            }
        }
    }
}

fn row(point: &Point, before: Option<&Point>, columns: &[usize], measure: usize, has_before: bool) -> Markup {
    let cell = |point: &Point, column: usize| {
        html! {
            @if point.is_counted {
                (value(point.values.get(column).copied().flatten()))
                @if !point.is_whole { " so far" }
            } @else { "not counted" }
        }
    };
    html! {
        tr {
            th scope="row" { (period_text(point.period)) }
            @for (index, &column) in columns.iter().enumerate() {
                td.number { (cell(point, column)) }
                @if index == 0 && has_before {
                    td.number {
                        @if let Some(before) = before { (cell(before, measure)) } @else { "–" }
                    }
                }
            }
        }
    }
}

