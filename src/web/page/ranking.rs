//! Panels of the greatest items of a report: who, how much, how many, and more or less than before. The last line says
//! how exact that is.

use maud::{Markup, html};

use crate::plan::period::Period;
use crate::plan::reports::{Figure, Label, Report};
use crate::reading::answer::{Exactness, Row, Top};
use crate::web::chart::{share, sparkline};
use crate::web::page::Under;
use crate::web::page::figure::not_before;
use crate::web::page::links::View;
use crate::web::page::text::{Change, estimate, outside, percent, phrase, safe, title, value, value_text};
use crate::web::page::tiles::plain;

/// Days from which on a row has its line.
const LINE_FROM_DAYS: usize = 8;
/// Most texts of a label with many that a row shows.
const MOST_TEXTS: usize = 3;
/// Most points of a row's line.
const MOST_POINTS: usize = 40;
/// Most rows of a list as a file.
const MOST_ROWS: usize = 1_000;

/// The measures that a panel shows: that of the ranking, and the first other one worth a column.
fn second_measure(report: &Report, first: usize) -> Option<usize> {
    let of = |wanted: fn(&Figure) -> bool| {
        let mut others = report.measures.iter().enumerate().filter(|(index, _)| *index != first);
        others.find(|(_, measure)| wanted(&measure.figure)).map(|(index, _)| index)
    };
    of(|figure| matches!(figure, Figure::Distinct { .. }))
        .or_else(|| of(|figure| matches!(figure, Figure::Number { .. })))
}

/// The label that is an item's name, if there is one: an id is shown where none is.
pub fn name_label(report: &Report) -> Option<usize> {
    let is_name = |label: &Label| {
        let name = label.name.as_str();
        label.many.is_none() && ["name", "title"].iter().any(|it| name == *it || name.ends_with(&format!("_{it}")))
    };
    report.labels.iter().position(is_name)
}

/// The panel of a ranking.
pub fn ranking(view: &View, top: &Top, under: Option<&Under>) -> Markup {
    let report = top.report();
    let id = format!("top-{}", report.name);
    let measure = top.measure();
    let second = second_measure(report, measure);
    let greatest = top.rows.first().map_or(0.0, |row| amount(row, measure));
    let has_line = top.question.range.days() >= LINE_FROM_DAYS;
    let is_compared = top.against.is_some();
    html! {
        section.panel id=(id) aria-labelledby={ (id) "-title" } {
            div.panel-head {
                h2 id={ (id) "-title" } { (heading(top)) }
                (files(view, top))
            }
            @if let (Some(under), None) = (under, &top.question.under) {
                p.note { "Of all, not only of " (outside(&under.text)) "." }
            }
            @if top.rows.is_empty() {
                p.nothing { "Nothing in these days." }
            } @else {
                table.ranking {
                    thead { tr {
                        th.rank scope="col" { span.hidden { "Rank" } span aria-hidden="true" { "#" } }
                        th scope="col" { (title(name_column(report))) }
                        th.number scope="col" { (title(&report.measures[measure].name)) }
                        @if let Some(second) = second {
                            th.number.second scope="col" { (title(&report.measures[second].name)) }
                        }
                        @if is_compared || has_line {
                            th.number.trend scope="col" { @if has_line { "Trend" } @else { "Change" } }
                        }
                    } }
                    tbody {
                        @for (index, row) in top.rows.iter().enumerate() {
                            @let part = amount(row, measure) / greatest.max(1e-9);
                            tr {
                                td.rank { (index + 1) }
                                th scope="row" { (who(view, top, row, part)) }
                                (numbers(report, row, measure, second))
                                @if is_compared || has_line { td.number.trend { (trend(view, top, row, has_line)) } }
                            }
                        }
                    }
                }
            }
            (exactness(top))
            (late(top))
        }
    }
}

/// The name of the column that names items.
fn name_column(report: &Report) -> &str {
    name_label(report).map_or(&report.key_attribute, |label| &report.labels[label].name)
}

/// The value of a row as a number.
fn amount(row: &Row, measure: usize) -> f64 {
    plain(row.values.get(measure).copied().flatten()).unwrap_or(0.0)
}

fn heading(top: &Top) -> Markup {
    let report = top.report();
    html! {
        (title(&report.name))
        @if let Some((label, text)) = &top.question.under {
            span.of {
                " of " @if let Some(label) = report.labels.get(*label) { (phrase(&label.name)) " " }
                (outside(text))
            }
        }
    }
}

/// The list as a file.
fn files(view: &View, top: &Top) -> Markup {
    let report = top.report();
    let name = title(&report.name);
    let limit = report.top.as_ref().map_or(MOST_ROWS, |top| top.keep.min(MOST_ROWS)).to_string();
    let under = top
        .question
        .under
        .as_ref()
        .and_then(|(label, text)| report.labels.get(*label).map(|label| format!("{}:{text}", label.name)));
    let mut query = vec![("limit", limit.as_str())];
    query.extend(under.as_deref().map(|under| ("under", under)));
    html! {
        @if !view.frame.is_standalone {
            p.files {
                a href=(view.data("top", &report.name, &query, "csv")) { "CSV" span.hidden { ": " (name) } }
                " "
                a href=(view.data("top", &report.name, &query, "json")) { "JSON" span.hidden { ": " (name) } }
            }
        }
    }
}

/// An item: its name as a link, its other labels, and behind them a bar of its part of the greatest.
fn who(view: &View, top: &Top, row: &Row, part: f64) -> Markup {
    let report = top.report();
    let label = name_label(report);
    let name = label.and_then(|label| row.labels.texts(label).next()).filter(|text| !text.trim().is_empty());
    let others: Vec<usize> = (0..report.labels.len())
        .filter(|&other| Some(other) != label && row.labels.texts(other).next().is_some())
        .collect();
    html! {
        div.who {
            (share(part))
            span.name {
                @let text = outside(name.unwrap_or(&row.id));
                @if view.frame.is_standalone { (text) }
                @else { a href=(view.item(&report.name, &row.id).href()) { (text) } }
            }
            @if !others.is_empty() {
                span.labels {
                    @for (index, &other) in others.iter().enumerate() {
                        @if index > 0 { span aria-hidden="true" { " · " } }
                        (texts(view, report, row, other))
                    }
                }
            }
        }
    }
}

/// The texts of a label. Those that have lists lead to them.
fn texts(view: &View, report: &Report, row: &Row, label: usize) -> Markup {
    let has_lists = report.top.as_ref().is_some_and(|top| top.under.contains(&label)) && !view.frame.is_standalone;
    let all = row.labels.texts(label).count();
    html! {
        @for (index, text) in row.labels.texts(label).take(MOST_TEXTS).enumerate() {
            @if index > 0 { ", " }
            @if has_lists { a href=(view.with(&report.labels[label].name, text).href()) { (outside(text)) } }
            @else { (outside(text)) }
        }
        @if all > MOST_TEXTS { ", " (all - MOST_TEXTS) " more" }
    }
}

fn numbers(report: &Report, row: &Row, measure: usize, second: Option<usize>) -> Markup {
    let of = |measure: usize| row.values.get(measure).copied().flatten();
    html! {
        td.number {
            (value(of(measure), report.measures[measure].unit))
            @if let Some(share) = row.share.filter(|share| share.is_finite()) {
                span.small { (percent(share)) span.hidden { " of all" } }
            }
        }
        @if let Some(second) = second {
            td.number.second {
                @if estimate(of(second), row.between.get(second).copied().flatten()).is_some() {
                    span.about { span aria-hidden="true" { "≈ " } span.hidden { "about " } }
                }
                (value(of(second), report.measures[second].unit))
            }
        }
    }
}

/// The change of an item; over many days also its line.
fn trend(view: &View, top: &Top, row: &Row, has_line: bool) -> Markup {
    let values: Vec<f64> = row.points.iter().map(|&value| value as f64).collect();
    // What is not over is at the end.
    let open = usize::try_from(i64::from(top.question.range.to) - i64::from(view.frame.today) + 1).unwrap_or(0);
    let open = if top.report().is_hourly { 0 } else { open.min(values.len()) };
    let change = row.change.filter(|change| change.is_finite()).map_or(Change::Unknown, Change::By);
    html! {
        @if has_line { (sparkline(&values, open, MOST_POINTS)) }
        @if top.against.is_some() { span.small[has_line] { (change.shown()) } }
    }
}

/// The line that says how exact the ranking is.
fn exactness(top: &Top) -> Markup {
    let measure = &top.report().measures[top.measure()];
    let (name, unit) = (phrase(&measure.name), measure.unit);
    html! {
        p.note.exactness {
            @match top.exactness {
                Exactness::Exact => {
                    "Exact" @if top.truncated { ": the first " (top.rows.len()) ", there are more" } "."
                }
                Exactness::MissingAtMost(most) => {
                    span.sign.amber aria-hidden="true" {}
                    "May lack one: an item that is missing here has at most "
                    (value_text(Some(most), unit)) " " (name) " more than the last one."
                }
                Exactness::Rebuilding => {
                    span.sign.amber aria-hidden="true" {}
                    "Being rebuilt: this list is not complete yet."
                }
            }
        }
    }
}

/// The sentence for a report that counts only some of the days.
fn late(top: &Top) -> Markup {
    let since = top.plan.since.get(top.question.report).copied().flatten();
    let first = since.map(|period: Period| top.plan.day_of(period));
    html! {
        @if first.is_some_and(|first| first > top.question.range.from) { (not_before(since)) }
    }
}

/// The texts of an item's labels, for the page of the item.
pub fn label_list(report: &Report, labels: &crate::reports::figures::Labels, view: &View) -> Markup {
    let has_texts = |label: &usize| labels.texts(*label).next().is_some();
    let shown: Vec<usize> = (0..report.labels.len()).filter(has_texts).collect();
    html! {
        dl.labels-of-item {
            @for label in shown {
                @let has_lists = report.top.as_ref().is_some_and(|top| top.under.contains(&label));
                div {
                    dt { (title(&report.labels[label].name)) }
                    dd {
                        @for (index, text) in labels.texts(label).enumerate() {
                            @if index > 0 { ", " }
                            @if has_lists && !view.frame.is_standalone {
                                a href=(view.with(&report.labels[label].name, text).href()) { (outside(text)) }
                            } @else { (outside(text)) }
                        }
                    }
                }
            }
        }
    }
}

/// The name of an item: its label that is a name, or its id.
pub fn item_name(report: &Report, labels: &crate::reports::figures::Labels, id: &str) -> String {
    let name = name_label(report).and_then(|label| labels.texts(label).next());
    safe(name.filter(|text| !text.trim().is_empty()).unwrap_or(id))
}
