//! The overview, and the page of one item.

use maud::{Markup, html};

use crate::reading::answer::{Series, Top};
use crate::reports::figures::Shown;
use crate::web::page::controls::{days_line, filtered, form, nothing, nothing_yet, periods};
use crate::web::page::figure::{charted, failed, figure};
use crate::web::page::frame::{Tab, document};
use crate::web::page::links::View;
use crate::web::page::ranking::{item_name, label_list, ranking};
use crate::web::page::text::{outside, phrase, range_text, title};
use crate::web::page::tiles::{plain, tiles};
use crate::web::page::{Answer, Frame, Item, Overview, Under};

/// The page of all rows.
pub fn overview(frame: &Frame, overview: &Overview) -> String {
    let Overview { days, under, choices, measure, totals, hours, tops } = overview;
    let view = View::of(frame, days, measure.as_deref());
    let view = view.under(under.as_ref());
    let name = range_text(days.range);
    if days.last.is_none() {
        return document(frame, Tab::Overview, "Nothing is counted yet", &nothing_yet(&view));
    }
    let has_rows = has_rows(totals.as_ref(), tops);
    let main = html! {
        div #head.head {
            div.title { h1 { (name) } (periods(&view, days)) }
            (days_line(&view, days))
            (form(&view, days, choices, under.as_ref()))
            (filtered(&view, under.as_ref()))
        }
        @if !has_rows { (nothing(&view, days)) }
        @if let Some(totals) = totals {
            (series(&view, totals, hours.as_ref().filter(|_| has_rows), tops.iter().any(|(_, top)| top.is_ok())))
        }
        @if has_rows { (panels(&view, tops, under.as_ref(), totals.as_ref().is_some_and(Result::is_ok))) }
        (look_up(&view, tops))
    };
    document(frame, Tab::Overview, &name, &main)
}

/// The page of one item of a report.
pub fn item(frame: &Frame, item: &Item) -> String {
    let Item { days, report, id, measure, series: answer, tops } = item;
    let of = &frame.plan.reports[*report];
    let all = View::of(frame, days, None);
    let view = View { measure: measure.as_deref(), ..all.item(&of.name, id) };
    let name = match answer {
        Ok(series) => item_name(of, &series.labels, id),
        Err(_) => crate::web::page::text::safe(id),
    };
    let main = html! {
        div #head.head {
            @if !frame.is_standalone {
                p.path { a href=(all.href()) { (title(&of.name)) } span aria-hidden="true" { " ›" } }
            }
            div.title { h1.item { (outside(&name)) } (periods(&view, days)) }
            p.days-line { strong { (range_text(days.range)) } }
            (days_line(&view, days))
            dl.labels-of-item { div { dt { (title(&of.key_attribute)) } dd { code { (outside(id)) } } } }
            @if let Ok(series) = answer { (label_list(of, &series.labels, &all)) }
            (form(&view, days, &[], None))
        }
        @if has_rows(Some(answer), tops) {
            (series(&view, answer, None, !tops.is_empty()))
            (panels(&view, tops, None, answer.is_ok()))
        } @else {
            (nothing(&view, days))
            p.note { "An item is looked up by its " (phrase(&of.key_attribute)) ", as it is written in the files." }
        }
    };
    document(frame, Tab::None, &name, &main)
}

/// Returns true if there is any row in the days, or if that is not known.
fn has_rows(totals: Option<&Answer<Series>>, tops: &[(usize, Answer<Top>)]) -> bool {
    let has_value = |series: &Series| {
        series.totals.iter().any(|value| match value {
            Some(Shown::Nothing) => false,
            Some(Shown::Time(_)) | None => true,
            Some(Shown::Number(..)) => plain(*value) != Some(0.0),
        })
    };
    totals.is_some_and(|totals| totals.as_ref().map_or(true, has_value))
        || tops.iter().any(|(_, top)| top.as_ref().map_or(true, |top| !top.rows.is_empty()))
}

/// The tiles and the chart of a series: of its hours, if they are given.
fn series(view: &View, answer: &Answer<Series>, hours: Option<&Answer<Series>>, others: bool) -> Markup {
    let by_hour = hours.and_then(|hours| hours.as_ref().ok());
    let chart = by_hour.or(answer.as_ref().ok());
    html! {
        @match answer {
            Err(reason) => (failed("tiles", "Figures of the period", reason, others)),
            Ok(series) => @if let Some(measure) = charted(series, view.measure) {
                (tiles(view, series, by_hour, measure))
            }
        }
        // A chart of one bar says no more than the tile.
        @if let Some(series) = chart.filter(|series| series.points.len() > 1) {
            @if let Some(measure) = charted(series, view.measure) { (figure(view, series, measure)) }
        }
        @if let Some(Err(reason)) = hours { (failed("hours", "By hour", reason, answer.is_ok())) }
    }
}

/// The rankings. One that cannot be read says so in its place.
fn panels(view: &View, tops: &[(usize, Answer<Top>)], under: Option<&Under>, others: bool) -> Markup {
    let others = others || tops.iter().any(|(_, top)| top.is_ok());
    let name = |report: usize| &*view.frame.plan.reports[report].name;
    html! {
        @if !tops.is_empty() {
            div #panels.panels.one[tops.len() == 1] {
                @for (report, top) in tops {
                    @match top {
                        Ok(top) => (ranking(view, top, under)),
                        Err(reason) => {
                            (failed(&format!("top-{}", name(*report)), &title(name(*report)), reason, others))
                        }
                    }
                }
            }
        }
    }
}

/// The way to an item whose id is known.
fn look_up(view: &View, tops: &[(usize, Answer<Top>)]) -> Markup {
    let name = |report: usize| &*view.frame.plan.reports[report].name;
    html! {
        @if !view.frame.is_standalone && !tops.is_empty() {
            form #look-up.choose.look-up method="get" action={ (view.frame.root) "item" } aria-label="Look up an item" {
                label { span { "Look up" }
                    select name="report" {
                        @for (report, _) in tops { option value=(name(*report)) { (title(name(*report))) } }
                    }
                }
                label { span { "ID" }
                    input type="text" name="id" required maxlength="2048" autocomplete="off" data-key="/";
                }
                button type="submit" { "Open" }
            }
        }
    }
}
