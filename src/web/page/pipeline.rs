//! The page of the pipeline: its queue, its batches, what was set aside, and what to do about it.

use maud::{Markup, html};

use crate::aws::sqs::Backlog;
use crate::ledger::{CatalogueState, LastSweep, Record};
use crate::protocol::{InForce, State};
use crate::reading::pipeline::{Overview, lag_of};
use crate::web::chart::{Bar, BarState, Scale, bars, label_places};
use crate::web::page::figure::failed;
use crate::web::page::frame::{Tab, document};
use crate::web::page::text::{counted, duration, grouped, outside, percent, short, time_of, told};
use crate::web::page::{Answer, Frame};

/// Most labels below the chart.
const MOST_LABELS: usize = 8;
/// The share of a queue's messages in flight from which on it is near its limit.
const NEAR_LIMIT: f64 = 0.8;

/// The page of the pipeline.
pub fn pipeline(frame: &Frame, answer: &Answer<Overview>) -> String {
    let main = html! {
        div #head.head {
            div.title { h1 { "Pipeline" } }
            p.days-line { "From files to figures: what waits, what is at work, what went wrong." }
        }
        @match answer {
            Err(reason) => (failed("pipeline", "The state of the pipeline", reason, false)),
            Ok(state) => {
                (todo(state))
                (numbers(state))
                (lags(state))
                (at_work(state))
                (finished(state))
                (details(state))
            }
        }
    };
    document(frame, Tab::Pipeline, "Pipeline", &main)
}

/// The things that somebody has to look at, with the command that begins it. None if all is well.
fn todo(state: &Overview) -> Markup {
    let aside: u64 = state.aside.values().sum();
    let quarantined: u64 = state.recent_batches.iter().map(|record| record.counts.quarantined).sum();
    let rejected: u64 = state.recent_batches.iter().map(|record| record.counts.rejected).sum();
    let suspect: u64 = state.recent_batches.iter().map(|record| record.counts.suspect).sum();
    let refused = state.catalogue.as_ref().and_then(|catalogue| catalogue.refused.as_ref());
    let mut things: Vec<(&str, String, &str)> = Vec::new();
    if let Some(dead) = state.dead_letters.filter(|&dead| dead > 0) {
        let text = "Their messages could not be handled, again and again. Their files are not counted.";
        things.push(("music-streams dead-letters", format!("{}. {text}", counted(dead, "dead letter")), "red"));
    }
    if aside > 0 {
        let kinds: Vec<String> =
            state.aside.iter().map(|(kind, count)| counted(*count, &kind.replace('_', " "))).collect();
        let more = if state.more_aside { " and more" } else { "" };
        let text = format!("Set aside: {}{more}. A service refused them permanently.", kinds.join(", "));
        things.push(("music-streams aside", text, "red"));
    }
    if let Some((reason, at)) = refused {
        let text = format!("A catalogue was refused on {}: {}. The one before stays.", time_of(*at), told(reason));
        things.push(("music-streams status", text, "red"));
    }
    if state.in_flight_share >= NEAR_LIMIT {
        let text = format!("{} of the messages that a queue can have are in flight.", percent(state.in_flight_share));
        things.push(("music-streams status", text, "amber"));
    }
    if quarantined + rejected > 0 {
        let suspect = match suspect {
            0 => String::new(),
            many => format!(" {} gave no row, or lost more than a tenth of them.", counted(many, "file")),
        };
        let text = format!(
            "{} and {} of the last {} could not be counted.{suspect}",
            counted(rejected, "row"),
            counted(quarantined, "file"),
            counted(state.recent_batches.len() as u64, "batch")
        );
        things.push(("music-streams quarantine", text, "amber"));
    }
    html! {
        @if !things.is_empty() {
            section #todo.panel.todo aria-labelledby="todo-title" {
                h2 #todo-title { "To look at" }
                ul {
                    @for (command, text, class) in &things {
                        li {
                            span.sign.(class) aria-hidden="true" {}
                            span { (text) " " code { (command) } " says more." }
                        }
                    }
                }
            }
        }
    }
}

/// Numbers at a glance.
fn numbers(state: &Overview) -> Markup {
    let aside: u64 = state.aside.values().sum();
    let tile = |name: &str, value: String, note: String| {
        html! { li.tile { h2 { (name) } p.value { (value) } p.note { (note) } } }
    };
    let flight = |queue: &Backlog| {
        format!("{} in flight, {} delayed", grouped(&queue.in_flight.to_string()), grouped(&queue.delayed.to_string()))
    };
    let number = |number: Option<u64>| number.map_or("–".to_owned(), |number| grouped(&number.to_string()));
    html! {
        ul #numbers.tiles aria-label="The pipeline at a glance" {
            (tile("Messages that wait", number(Some(state.queue.waiting)),
                flight(&state.queue)))
            (tile("Batches at work", number(Some(state.unfinished_batches.len() as u64)),
                state.recent_batches.first().map_or(String::new(), |last| format!("the last was {}", last.batch))))
            (tile("Lag", state.lag_s.map_or("–".to_owned(), duration), "from the oldest file to its figures".into()))
            (tile("Dead letters, set aside", format!("{}, {aside}", number(state.dead_letters)), "0 is well".into()))
        }
    }
}

/// The lag of each of the last batches.
fn lags(state: &Overview) -> Markup {
    let done: Vec<(&Record, i64)> =
        state.recent_batches.iter().rev().filter_map(|record| Some((record, lag_of(record)?))).collect();
    let bar = |(_, lag): &(&Record, i64)| Bar { value: Some(*lag as f64), state: BarState::Whole };
    let chart: Vec<Bar> = done.iter().map(bar).collect();
    let scale = Scale::of(done.iter().map(|(_, lag)| *lag as f64), true);
    let labels = label_places(done.len(), MOST_LABELS).into_iter().map(|at| (at, done[at].0.batch.to_string()));
    let most = done.iter().max_by_key(|(_, lag)| *lag);
    html! {
        @if let Some((slowest, most)) = most.filter(|_| done.len() > 1) {
            @let sentence = format!("The slowest was batch {} with {}.", slowest.batch, duration(*most));
            section #lag.panel.figure.low aria-labelledby="lag-title" {
                div.panel-head { h2 #lag-title { "Lag of the last " (done.len()) " batches, in seconds" } }
                div.chart {
                    div.axis aria-hidden="true" { @for tick in scale.ticks().iter().rev() { span { (short(*tick)) } } }
                    div.plot-room role="img" aria-label={ "Lag of the last batches. " (sentence) } {
                        (bars(&chart, &[], &scale, &labels.collect::<Vec<_>>()))
                    }
                }
                p.sentence { (sentence) }
            }
        }
    }
}

fn at_work(state: &Overview) -> Markup {
    html! {
        section #at-work.panel aria-labelledby="at-work-title" {
            h2 #at-work-title { "At work" }
            @if state.unfinished_batches.is_empty() { p.nothing { "No batch is at work." } }
            @else {
                div.scroll tabindex="0" role="group" aria-label="Batches at work" {
                    table {
                        thead { tr {
                            th.number scope="col" { "Batch" } th scope="col" { "State" }
                            th scope="col" { "Opened" } th scope="col" { "Consumer" }
                        } }
                        tbody {
                            @for batch in &state.unfinished_batches {
                                tr {
                                    th.number scope="row" { (batch.batch) }
                                    td { (batch.state.name()) }
                                    td.when { (batch.opened_at.map_or("–".to_owned(), time_of)) }
                                    td { (outside(&batch.owner)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn finished(state: &Overview) -> Markup {
    let headings = ["Lag", "Files", "Quarantined", "Gone", "Rows", "Rejected"];
    html! {
        @if !state.recent_batches.is_empty() {
            section #finished.panel aria-labelledby="finished-title" {
                h2 #finished-title { "Finished" }
                div.scroll tabindex="0" role="group" aria-label="Finished batches" {
                    table {
                        thead { tr {
                            th.number scope="col" { "Batch" } th scope="col" { "State" } th scope="col" { "Ended" }
                            @for heading in headings { th.number scope="col" { (heading) } }
                        } }
                        tbody { @for record in &state.recent_batches { (record_row(record)) } }
                    }
                }
            }
        }
    }
}

fn record_row(record: &Record) -> Markup {
    let counts = &record.counts;
    html! {
        tr {
            th.number scope="row" { (record.batch) }
            td { @if record.state == State::Done { "done" } @else { strong { (record.state.name()) } } }
            td.when { (time_of(record.finished_at)) }
            td.number { (lag_of(record).map_or("–".to_owned(), duration)) }
            @for (count, is_bad) in [(counts.objects, false), (counts.quarantined, true), (counts.gone, false),
                (counts.rows, false), (counts.rejected, true)] {
                td.number.bad[is_bad && count > 0] { (grouped(&count.to_string())) }
            }
        }
    }
}

/// The definition, the catalogue and the sweep.
fn details(state: &Overview) -> Markup {
    let InForce { change, digest, since, filling, .. } = &state.definition;
    html! {
        section #details.panel aria-labelledby="details-title" {
            h2 #details-title { "Behind it" }
            dl.facts {
                div {
                    dt { "Definition" }
                    dd {
                        @match digest {
                            None => "the built-in one",
                            Some(digest) => code { (outside(digest.get(..16).unwrap_or(digest))) },
                        }
                        ", change " (change)
                        @for (table, period) in since {
                            "; " (outside(table)) " counts from " (outside(period))
                            @if filling.contains_key(table) {
                                ", and " strong { "its past is incomplete" } ": a rebuild did not end"
                            }
                        }
                    }
                }
                div { dt { "Catalogue" } dd { (catalogue(state.catalogue.as_ref())) } }
                div { dt { "Sweep" } dd { (sweep(state.last_sweep.as_ref())) } }
            }
        }
    }
}

fn catalogue(state: Option<&CatalogueState>) -> Markup {
    html! {
        @match state {
            None => "none was loaded yet",
            Some(state) if state.keys.is_empty() => "no file is looked up",
            Some(state) => {
                @for (index, (file, keys)) in state.keys.iter().enumerate() {
                    @if index > 0 { ", " }
                    (counted(*keys, "key")) " in " (outside(file))
                }
                @if let Some(at) = state.loaded_at { " since " (time_of(at)) }
            }
        }
    }
}

fn sweep(state: Option<&LastSweep>) -> Markup {
    html! {
        @match state {
            None => "never",
            Some(sweep) => {
                "began " (time_of(sweep.started_at)) " by " (outside(&sweep.by))
                @if let Some(at) = sweep.finished_at { ", last ended " (time_of(at)) }
                "; found " (sweep.swept.found) ", left over " (sweep.swept.left_over)
            }
        }
    }
}
