//! The frame around every page: head, header with the sentence of freshness, footer.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::web::page::text::{clock, counted, duration, safe, time_of, title, told};
use crate::web::page::{Frame, Freshness, Problem, STYLESHEET};

/// Seconds from a file to its figures from which on they are late.
const LATE_SECONDS: i64 = 900;

/// The pages that the header leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tab {
    /// All rows.
    Overview,
    /// The pipeline.
    Pipeline,
    /// The API.
    Api,
    /// Another page.
    None,
}

/// A whole document.
pub fn document(frame: &Frame, tab: Tab, name: &str, main: &Markup) -> String {
    let root = &frame.root;
    let refresh = (!frame.is_standalone).then_some(frame.refresh_seconds);
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (safe(name)) " · " (title(&frame.plan.definition.name)) }
                @if frame.is_standalone {
                    style { (PreEscaped(STYLESHEET)) }
                } @else {
                    link rel="icon" type="image/svg+xml" href={ (root) (frame.assets.icon) };
                    link rel="stylesheet" href={ (root) (frame.assets.stylesheet) };
                    script src={ (root) (frame.assets.script) } defer {}
                }
            }
            body data-refresh=[refresh] {
                a.skip href="#main" { "To the figures" }
                header.top {
                    (navigation(frame, tab))
                    (freshness(frame))
                    p #gone.fresh.amber role="status" {}
                }
                main #main tabindex="-1" { (main) }
                (footer(frame))
            }
        }
    };
    document.into_string()
}

fn navigation(frame: &Frame, tab: Tab) -> Markup {
    let root = &frame.root;
    let name = title(&frame.plan.definition.name);
    let link = |of: Tab, path: &str, text: &str| {
        html! { li { a href={ (root) (path) } aria-current=[(tab == of).then_some("page")] { (text) } } }
    };
    html! {
        div.bar {
            @if frame.is_standalone { span.brand { (name) } }
            @else {
                a.brand href=(root) { (name) }
                nav aria-label="Pages" {
                    ul {
                        (link(Tab::Overview, "", "Overview"))
                        @if frame.has_pipeline { (link(Tab::Pipeline, "pipeline", "Pipeline")) }
                        (link(Tab::Api, "api", "API"))
                    }
                }
            }
        }
    }
}

/// The state of the figures, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Wrong,
    Late,
    Well,
}

impl Freshness {
    /// The state, and the sentence that says it.
    fn judged(&self) -> (Health, String) {
        if self.problem.is_some() {
            return (Health::Wrong, "The state of the pipeline cannot be read.".to_owned());
        }
        let dead = self.dead_letters.filter(|&dead| dead > 0).map(|dead| counted(dead, "dead letter"));
        let aside = (self.aside > 0).then(|| counted(self.aside, "thing") + " set aside");
        let wrong: Vec<String> = dead.into_iter().chain(aside).collect();
        if !wrong.is_empty() {
            return (Health::Wrong, format!("Something is missing: {}.", wrong.join(" and ")));
        }
        if let Some(lag) = self.lag_seconds.filter(|&lag| lag >= LATE_SECONDS) {
            return (Health::Late, format!("Late: the last files took {}.", duration(lag)));
        }
        if self.as_of.at.is_none() {
            return (Health::Late, "No batch is finished yet.".to_owned());
        }
        (Health::Well, "All is well.".to_owned())
    }

    /// The rest of the sentence: as of when, and what is on its way.
    fn on_its_way(&self) -> String {
        let mut parts = Vec::new();
        match self.waiting {
            Some(0) => parts.push("nothing waits".to_owned()),
            Some(1) => parts.push("1 message waits".to_owned()),
            Some(many) => parts.push(counted(many, "message") + " wait"),
            None => {}
        }
        match (self.as_of.updating, self.at_work) {
            (true, _) => parts.push("a batch is being counted".to_owned()),
            (false, 0) => {}
            (false, 1) => parts.push("1 batch is at work".to_owned()),
            (false, many) => parts.push(counted(many as u64, "batch") + " are at work"),
        }
        let text = parts.join(", ");
        let mut chars = text.chars();
        chars.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), chars.as_str()))
    }
}

/// The sentence that says how fresh the figures are.
fn freshness(frame: &Frame) -> Markup {
    let freshness = &frame.freshness;
    let (health, sentence) = freshness.judged();
    let has_help = health == Health::Wrong && freshness.problem.is_none();
    let has_help = has_help && frame.has_pipeline && !frame.is_standalone;
    let class = match health {
        Health::Wrong => "red",
        Health::Late => "amber",
        Health::Well => "green",
    };
    // A day is named only if it is another one: the clock is what moves.
    let at = freshness.as_of.at.map(|at| match crate::calendar::day_of(at.as_microsecond()) == frame.today {
        true => format!("{} UTC", clock(at)),
        false => time_of(at),
    });
    html! {
        p #fresh.fresh.(class) data-as-of=[at.as_deref()] {
            span.sign aria-hidden="true" {}
            span {
                @if let Some(at) = &at { "Figures of " strong { (at) } ". " }
                (sentence) " "
                @match &freshness.problem {
                    Some(problem) => (told(problem)),
                    None => (freshness.on_its_way()),
                }
                @if has_help { " " a href={ (frame.root) "pipeline" } { "What to do" } }
            }
        }
    }
}

fn footer(frame: &Frame) -> Markup {
    let zone = frame.plan.definition.zone.iana_name().unwrap_or("UTC");
    html! {
        footer {
            p {
                @if zone == "UTC" { "Days, hours and times are UTC." }
                @else { "Days are those of " (zone) "; hours and times are UTC." }
                " Counts behind ≈ are estimates, and right within the share beside them 19 times in 20."
                " Changes are over periods that are over."
            }
            @if !frame.is_standalone { (keys()) }
            p { "music-streams " (frame.version) }
        }
    }
}

/// The keys. They are shown only where the script runs that makes them work.
fn keys() -> Markup {
    let keys: [(&[&str], &str); 7] = [
        (&["←", "→"], "earlier, later"),
        (&["d", "w", "m", "q"], "a day, 7, 28, 91 days"),
        (&["x"], "comparison on or off"),
        (&["f"], "filter"),
        (&["Esc"], "all again"),
        (&["/"], "look up an item"),
        (&["?"], "these keys"),
    ];
    html! {
        details #keys.keys {
            summary data-key="?" { "Keys" }
            dl {
                @for (keys, text) in keys {
                    div {
                        dt { @for key in keys { kbd { (key) } } }
                        dd { (text) }
                    }
                }
            }
        }
    }
}

/// A page that says what is wrong.
pub fn problem(frame: &Frame, problem: &Problem) -> String {
    let main = html! {
        section.problem {
            p.status { (problem.status) }
            h1 { (safe(&problem.title)) }
            p { (told(&problem.detail)) }
            @if let Some(remedy) = &problem.remedy { p.remedy { (told(remedy)) } }
            @if !frame.is_standalone {
                p {
                    a href=(frame.root) { "To the overview" }
                    @if problem.status >= 500 { " · this page tries again by itself" }
                }
            }
        }
    };
    document(frame, Tab::None, &problem.title, &main)
}
