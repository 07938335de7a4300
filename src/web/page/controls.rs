//! The head of a page: its days, the way to others, the filter and the comparison. All of it are links, and a form that
//! needs no script.

use maud::{Markup, html};

use crate::calendar::date_text;
use crate::reading::range::{Against, Range};
use crate::web::page::links::View;
use crate::web::page::text::{counted, days_text, full_day, is_harmless, outside, phrase, range_text, safe, title};
use crate::web::page::{Days, Under};

/// The periods of one click: days, key and text.
const PERIODS: [(u16, &str, &str); 4] =
    [(1, "d", "Day"), (7, "w", "7 days"), (28, "m", "28 days"), (91, "q", "91 days")];

/// The days in words, below the title: how many, which are not over, what they are compared with.
pub fn days_line(view: &View, days: &Days) -> Markup {
    let today = view.frame.today;
    let against = days.range.against(days.against);
    let with = match (days.against, days.range.days()) {
        (Against::Year, _) => "the same days of the year before",
        (_, 1) => "the day before",
        _ => "as many days before",
    };
    html! {
        p.days-line {
            (days_text(days.range.days()))
            @if days.range.from == days.range.to && days.range.to == today { ", so far" }
            @else if (days.range.from..days.range.to).contains(&today) { ", some of them still to come" }
            @else if days.range.to == today { ", today not over yet" }
            @if let Some(against) = against {
                " · compared with " (with) ", " (range_text(against))
                @if let Some(first) = days.first.filter(|&first| first > against.from) {
                    ", though figures begin on " (full_day(first))
                }
            }
            @if days.is_default && days.last.is_some_and(|last| last < today) {
                " · opened on the last day with figures"
            }
        }
    }
}

/// The links to other days.
pub fn periods(view: &View, days: &Days) -> Markup {
    let range = days.range;
    let step = i32::try_from(range.days()).unwrap_or(1);
    let end = days.default_to(view.frame.today);
    let before = range.moved(-step);
    // The last step forward ends with the last day, and not beyond it.
    let after = range.moved(step.min(end.saturating_sub(range.to)));
    let has_before = days.first.is_none_or(|first| before.to >= first);
    html! {
        @if !view.frame.is_standalone {
            nav #periods.periods aria-label="Period" {
                (step_link(has_before.then(|| view.over(before).href()), "prev", "ArrowLeft", "←", "Earlier"))
                @for (number, key, text) in PERIODS {
                    @let is_current = range.days() == usize::from(number);
                    a.on[is_current] href=(view.over(Range::ending(range.to, number)).href()) data-key=(key)
                        aria-keyshortcuts=(key) aria-current=[is_current.then_some("true")] { (text) }
                }
                (step_link((range.to < end).then(|| view.over(after).href()), "next", "ArrowRight", "→", "Later"))
            }
        }
    }
}

/// The link to the days before or after, if there are any.
fn step_link(href: Option<String>, rel: &str, key: &str, mark: &str, text: &str) -> Markup {
    html! {
        @match href {
            Some(href) => a.step href=(href) rel=(rel) data-key=(key) aria-keyshortcuts=(key) aria-label=(text) {
                span aria-hidden="true" { (mark) }
            },
            None => span.step.off { span aria-hidden="true" { (mark) } span.hidden { (text) ": there is nothing" } },
        }
    }
}

/// The form: any days, the filter, the comparison.
pub fn form(view: &View, days: &Days, choices: &[(String, Vec<String>)], under: Option<&Under>) -> Markup {
    let field = |name: &str, text: &str, day: i32| {
        html! {
            label { span { (text) }
                input type="date" name=(name) value=(date_text(day)) required
                    min=[days.first.map(|first| date_text(first.min(day)))] max=(date_text(view.frame.today.max(day)));
            }
        }
    };
    let comparisons =
        [(Against::Previous, "the days before"), (Against::Year, "the year before"), (Against::None, "nothing")];
    let choices: Vec<(&str, Vec<&str>)> = choices.iter().map(|(label, texts)| (&**label, harmless(texts))).collect();
    html! {
        @if !view.frame.is_standalone && view.item.is_none_or(|(_, id)| is_harmless(id)) {
            form #choose.choose method="get" action=(view.path()) aria-label="Days, filter and comparison" {
                @if let Some((report, id)) = view.item {
                    input type="hidden" name="report" value=(report);
                    input type="hidden" name="id" value=(id);
                }
                @if let Some(measure) = view.measure { input type="hidden" name="measure" value=(measure); }
                (field("from", "From", days.range.from))
                (field("to", "To", days.range.to))
                @if !choices.is_empty() { (filter(&choices, under)) }
                label { span { "Compared with" }
                    select #against name="against" {
                        @for (against, text) in comparisons {
                            option value=(against.name()) selected[against == days.against] { (text) }
                        }
                    }
                }
                button type="submit" { "Show" }
            }
        }
        @if !view.frame.is_standalone { (switch(view, days)) }
    }
}

/// The texts that a field of a form can have.
fn harmless(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).filter(|text| is_harmless(text)).collect()
}

/// The link that turns the comparison on and off. It is there for its key.
fn switch(view: &View, days: &Days) -> Markup {
    let (against, text) = match days.against {
        Against::None => (Against::Previous, "Compare with the days before"),
        Against::Previous | Against::Year => (Against::None, "Do not compare"),
    };
    let view = View { against, ..view.clone() };
    html! { a.hidden-link href=(view.href()) data-key="x" aria-keyshortcuts="x" { (text) } }
}

/// The choice of a filter.
fn filter(choices: &[(&str, Vec<&str>)], under: Option<&Under>) -> Markup {
    let under = under.filter(|under| is_harmless(&under.text));
    let is_chosen = |label: &str, text: &str| under.is_some_and(|under| under.label == label && under.text == text);
    let is_listed = under.is_none_or(|under| {
        choices.iter().any(|(label, texts)| *label == under.label && texts.contains(&&*under.text))
    });
    let name = match choices {
        [(label, _)] => title(label),
        _ => "Only".to_owned(),
    };
    html! {
        label { span { (name) }
            select #under name="under" data-key="f" aria-keyshortcuts="f" {
                option value="" { "all" }
                @if let (false, Some(under)) = (is_listed, under) {
                    option value={ (under.label) ":" (under.text) } selected { (safe(&under.text)) }
                }
                @for (label, texts) in choices {
                    @if choices.len() > 1 {
                        optgroup label=(title(label)) {
                            @for text in texts {
                                option value={ (label) ":" (text) } selected[is_chosen(label, text)] { (safe(text)) }
                            }
                        }
                    } @else {
                        @for text in texts {
                            option value={ (label) ":" (text) } selected[is_chosen(label, text)] { (safe(text)) }
                        }
                    }
                }
            }
        }
    }
}

/// The filter in force, and the way out of it.
pub fn filtered(view: &View, under: Option<&Under>) -> Markup {
    html! {
        @if let Some(under) = under {
            p #filter.chip {
                span { "Only " (phrase(&under.label)) " " strong { (outside(&under.text)) } }
                @if !view.frame.is_standalone {
                    a href=(view.under(None).href()) data-key="Escape" aria-keyshortcuts="Escape" {
                        span aria-hidden="true" { "×" } span.hidden { "Show all again" }
                    }
                }
            }
        }
    }
}

/// The page before the first row: where files go, and what is on its way.
pub fn nothing_yet(view: &View) -> Markup {
    html! {
        div #head.head {
            h1 { "Nothing is counted yet" }
            p.days-line { "Figures stand here a window after their files, by themselves." }
        }
        section #empty.notice aria-label="The first figures" {
            p { "Put files under " code { "incoming/" } " of the bucket." }
            @match view.frame.freshness.waiting {
                Some(0) => p { "No message waits in the queue." },
                Some(1) => p { strong { "1 message" } " waits in the queue." },
                Some(many) => p { strong { (counted(many, "message")) } " wait in the queue." },
                None => {}
            }
        }
    }
}

/// The sentence for days without any row, with the way to the last one that has some.
pub fn nothing(view: &View, days: &Days) -> Markup {
    let other = days.last.filter(|last| !(days.range.from..=days.range.to).contains(last));
    html! {
        section #empty.notice aria-label="No figures" {
            p {
                "Nothing " @if days.range.from == days.range.to { "on " } @else { "in " } (range_text(days.range)) "."
                @if let Some(last) = other {
                    " The last day with figures is "
                    @if view.frame.is_standalone { (full_day(last)) }
                    @else {
                        a href=(view.over(Range::ending(last, days.range.days().try_into().unwrap_or(1))).href()) {
                            (full_day(last))
                        }
                    }
                    "."
                }
            }
        }
    }
}
