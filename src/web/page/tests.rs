use super::*;
use crate::aws::sqs::Backlog;
use crate::calendar::parse_date;
use crate::counts::Counts;
use crate::ledger::Record;
use crate::plan::period::Period;
use crate::plan::reports::LabelSource;
use crate::protocol::{InForce, State};
use crate::reading::answer::{Exactness, Point, Row, SeriesQuestion, TopQuestion, Values};
use crate::reports::figures::{Label, Labels, Shown};

/// Texts that want to be more than text.
const HOSTILE: [&str; 6] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "\u{202e}turned\u{2066} \0 \u{1b}[2J",
    "a/b?c#d%e&f=1",
    "   ",
    "=cmd|' /C calc'!A0",
];

fn day(text: &str) -> i32 {
    parse_date(text).unwrap()
}

fn at() -> AsOf {
    AsOf { batch: Some(7), at: Some("2024-06-25T12:05:31Z".parse().unwrap()), updating: false }
}

fn frame() -> Frame {
    let freshness = Freshness {
        as_of: at(),
        waiting: Some(3),
        at_work: 0,
        dead_letters: Some(0),
        aside: 0,
        lag_seconds: Some(47),
        problem: None,
    };
    let assets =
        Assets { stylesheet: "assets/a.css".into(), script: "assets/a.js".into(), icon: "assets/a.svg".into() };
    Frame {
        plan: Plan::built_in().unwrap(),
        freshness,
        today: day("2024-06-25"),
        refresh_seconds: 10,
        version: "1.2.3".into(),
        has_pipeline: true,
        root: "./".into(),
        assets,
        is_standalone: false,
    }
}

fn days(from: &str, to: &str) -> Days {
    let range = Range { from: day(from), to: day(to) };
    let (first, last) = (Some(day("2024-01-01")), Some(day("2024-06-25")));
    Days { range, against: Against::Previous, first, last, is_default: false }
}

/// So many rows by a fifth as many of another column.
fn values(rows: i128) -> Values {
    vec![
        Some(Shown::Number(rows, 0)),
        Some(Shown::Number(rows / 5, 0)),
        Some(Shown::Number(rows * 203_500, 3)),
        Some(if rows == 0 { Shown::Nothing } else { Shown::Number(1_017_500, 3) }),
    ]
}

/// A series of the genre with this id. The last of its days is not over.
fn series(frame: &Frame, days: &Days, id: &str, rows: i128) -> Series {
    let report = frame.plan.report_named("genres").unwrap();
    let point = |day: i32| Point {
        period: Period::Day(day),
        values: values(rows * i128::from(1 + day.rem_euclid(7))),
        is_whole: day < frame.today,
        is_counted: true,
    };
    let against = days.range.against(days.against);
    Series {
        plan: frame.plan.clone(),
        question: SeriesQuestion { report, id: id.into(), range: days.range, against: days.against },
        against,
        as_of: at(),
        labels: Labels::default(),
        points: days.range.each().map(point).collect(),
        totals: values(rows * 4 * days.range.days() as i128),
        between: vec![None, (rows > 0).then(|| [rows as u64 * 20, rows as u64 * 24]), None, None],
        before: against.into_iter().flat_map(|range| range.each().map(point)).collect(),
        before_totals: against.map(|_| values(rows)),
        change: vec![Some(0.25), Some(0.01), Some(-0.5), None],
        whole: days.range.days() - 1,
    }
}

fn top(frame: &Frame, days: &Days, report: &str, ids: &[&str]) -> Top {
    let report = frame.plan.report_named(report).unwrap();
    let label = |text: &str, is_many: bool| match is_many {
        true => Label::Many(HOSTILE.iter().map(|it| (*it).to_owned()).collect()),
        false => Label::One(Some(text.to_owned())),
    };
    let labels = &frame.plan.reports[report].labels;
    assert!(labels.iter().all(|label| !matches!(label.source, LabelSource::OfKey(usize::MAX))));
    let row = |(index, id): (usize, &&str)| Row {
        id: (*id).to_owned(),
        labels: Labels(labels.iter().map(|it| label(id, it.many.is_some())).collect()),
        values: values(1_000 - index as i128),
        between: vec![None; 4],
        points: days.range.each().map(|day| i64::from(day % 7)).collect(),
        change: Some(-0.125),
        share: Some(0.5),
    };
    Top {
        plan: frame.plan.clone(),
        question: TopQuestion { report, under: None, range: days.range, against: days.against, limit: 10 },
        against: days.range.against(days.against),
        as_of: at(),
        exactness: Exactness::Exact,
        truncated: true,
        rows: ids.iter().enumerate().map(row).collect(),
    }
}

fn whole(frame: &Frame, days: &Days, ids: &[&str]) -> Overview {
    let tops = ["tracks", "genres", "listeners"].map(|report| top(frame, days, report, ids));
    Overview {
        days: days.clone(),
        under: None,
        choices: vec![("track_genre".into(), ids.iter().map(|id| (*id).to_owned()).collect())],
        measure: None,
        totals: Some(Ok(series(frame, days, "all", 100))),
        hours: None,
        tops: tops.into_iter().map(|top| (top.question.report, Ok(top))).collect(),
    }
}

fn month() -> Days {
    days("2024-05-29", "2024-06-25")
}

/// Everything that a page must be, whatever is on it.
fn assert_sound(html: &str) {
    for forbidden in ["<script>", "<img", " style=", "javascript:", " onerror=\"", "http://", "https://"] {
        assert!(!html.contains(forbidden), "{forbidden} in {html}");
    }
    assert!(!html.chars().any(|char| crate::values::outside::is_harmful(char) && char != '\n'));
    let ids: Vec<&str> = html.split(" id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let different: std::collections::BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!(ids.len(), different.len(), "{ids:?}");
    for named in html.split("aria-labelledby=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(different.contains(named), "{named}");
    }
    assert_eq!(html.matches("<h1").count(), 1);
}

fn assert_says(html: &str, words: &[&str]) {
    let mut text = String::new();
    for part in html.split('<') {
        text += part.split_once('>').map_or(part, |(_, text)| text);
    }
    for words in words {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
}

#[test]
fn names_out_of_files_stay_text() {
    let (frame, days) = (frame(), month());
    let mut page = whole(&frame, &days, &HOSTILE);
    for text in HOSTILE {
        page.under = Some(Under { label: "track_genre".into(), text: text.into() });
        page.tops[1].1 = Err(text.into());
        let html = overview(&frame, &page);
        assert_sound(&html);
        assert!(html.contains("id=a%2Fb%3Fc%23d%25e%26f%3D1"), "an id is one value of a query");
        let of = Item {
            days: days.clone(),
            report: page.tops[0].0,
            id: text.into(),
            measure: Some(text.into()),
            series: Ok(series(&frame, &days, text, 9)),
            tops: vec![],
        };
        assert_sound(&item(&frame, &of));
        let of = Problem { status: 400, title: text.into(), detail: text.into(), remedy: Some(text.into()) };
        assert_sound(&problem(&frame, &of));
    }
}

#[test]
fn a_page_shows_the_answer() {
    let frame = frame();
    let html = overview(&frame, &whole(&frame, &month(), &["first", "second"]));
    assert_sound(&html);
    assert!(html.contains(r#"<data value="11200">11,200</data>"#), "the total");
    assert!(html.contains(r#"<data value="2279200">633 h</data>"#), "seconds as hours");
    assert_says(
        &html,
        &[
            "29 May – 25 Jun 2024",
            "compared with as many days before, 1 – 28 May 2024",
            "Total listens",
            "▲ 25.0 % more",
            "▼ 50.0 % less",
            "about as many",
            "total listening time ÷ unique users",
            "Total listens by day",
            "Tue 25 Jun: 600 so far",
            "the days before: ",
            "Highest 700 on Wed 29 May, lowest 100 on Thu 30 May.",
            "▼ 12.5 % less",
            "50.0 % of all",
            "Exact: the first 2, there are more.",
            "Figures of 12:05:31 UTC. All is well. 3 messages wait.",
        ],
    );
}

#[test]
fn every_state_has_words() {
    let frame = frame();
    let page = |days: &Days| whole(&frame, days, &["first"]);
    let mut empty = page(&month());
    empty.days.last = None;
    assert_says(&overview(&frame, &empty), &["Nothing is counted yet", "incoming/", "3 messages wait in the queue"]);

    let sunday = days("2024-06-30", "2024-06-30");
    let mut nothing = page(&sunday);
    nothing.totals = Some(Ok(series(&frame, &sunday, "all", 0)));
    nothing.tops.clear();
    let html = overview(&frame, &nothing);
    assert_says(&html, &["Nothing on Sun 30 Jun 2024. The last day with figures is Tue 25 Jun 2024."]);
    assert!(
        html.contains(r#"<a href="./?days=1">Tue 25 Jun 2024</a>"#) && html.contains(r#"<data value="0">0</data>"#)
    );

    let mut late = page(&month());
    let Some(Ok(series)) = &mut late.totals else { unreachable!() };
    series.points[0].is_counted = false;
    assert_says(&overview(&frame, &late), &["Not all of these days were counted. music-streams replay --rebuild"]);

    let mut failed = page(&month());
    failed.tops[0].1 = Err("the table is gone".into());
    for (exactness, (_, top)) in [Exactness::MissingAtMost(Shown::Number(1_234, 0)), Exactness::Rebuilding]
        .into_iter()
        .zip(&mut failed.tops[1..])
    {
        top.as_mut().unwrap().exactness = exactness;
    }
    let words = [
        "This could not be read. the table is gone",
        "The other figures stand.",
        "May lack one: an item that is missing here has at most 1,234 total listens more than the last one.",
        "Being rebuilt: this list is not complete yet.",
    ];
    assert_says(&overview(&frame, &failed), &words);
    failed.totals = Some(Err("all of it".into()));
    failed.tops.truncate(1);
    assert!(!overview(&frame, &failed).contains("The other figures stand"));
}

#[test]
fn the_first_sentence_says_how_fresh_and_how_well() {
    let says = |change: fn(&mut Frame), class: &str, words: &str| {
        let mut frame = frame();
        change(&mut frame);
        let html = overview(&frame, &whole(&frame, &month(), &[]));
        assert!(html.contains(&format!(r#"class="fresh {class}""#)), "{class}: {html}");
        assert_says(&html, &[words]);
    };
    says(|_| {}, "green", "All is well. 3 messages wait.");
    says(|frame| frame.freshness.as_of.updating = true, "green", "3 messages wait, a batch is being counted.");
    says(|frame| frame.freshness.waiting = None, "green", "All is well. ");
    says(|frame| frame.today += 1, "green", "Figures of Tue 25 Jun 2024, 12:05:31 UTC.");
    says(|frame| frame.freshness.lag_seconds = Some(7_800), "amber", "Late: the last files took 2 h 10 min.");
    says(|frame| frame.freshness.as_of.at = None, "amber", "No batch is finished yet.");
    says(|frame| frame.freshness.dead_letters = Some(2), "red", "Something is missing: 2 dead letters.");
    says(|frame| frame.freshness.aside = 1, "red", "Something is missing: 1 thing set aside.");
    says(|frame| frame.freshness.problem = Some("no way".into()), "red", "cannot be read. no way");
}

#[test]
fn the_address_is_the_state() {
    let frame = frame();
    let mut page = whole(&frame, &days("2024-05-22", "2024-06-18"), &["first"]);
    page.days.against = Against::Year;
    page.under = Some(Under { label: "track_genre".into(), text: "r&b".into() });
    page.measure = Some("unique_users".into());
    let html = overview(&frame, &page);
    let rest = "&amp;against=year&amp;under=track_genre:r%26b&amp;measure=unique_users";
    assert!(html.contains(&format!(r#"href="./?days=28&amp;to=2024-05-21{rest}" rel="prev""#)), "{html}");
    assert!(html.contains(&format!(r#"href="./?days=28{rest}" rel="next""#)), "the last step ends with the last day");
    assert!(html.contains(&format!(r#"href="./?days=7&amp;to=2024-06-18{rest}""#)));
    assert!(
        html.contains(
            "api/v1/top/tracks?limit=100&amp;from=2024-05-22&amp;to=2024-06-18&amp;against=year&amp;format=csv"
        )
    );
    assert!(
        html.contains(r#"href="./item?report=genres&amp;id=first&amp;days=28&amp;to=2024-06-18&amp;against=year""#)
    );
    assert_says(&html, &["Unique users by day", "Only track genre r&amp;b", "Of all, not only of r&amp;b."]);
}

#[test]
fn a_page_that_stands_alone_needs_nothing_else() {
    let frame = Frame { is_standalone: true, ..frame() };
    let html = overview(&frame, &whole(&frame, &month(), &["first"]));
    let body = html.split_once("<body").unwrap().1;
    assert!(html.contains("<style>") && !html.contains("<script") && !html.contains("<link"));
    assert_eq!(body.matches(" href=").count(), 1, "the way to the figures, for the keyboard");
    assert!(!body.contains("<form") && !html.contains("data-refresh"));
}

#[test]
fn nothing_on_a_page_comes_from_elsewhere() {
    for text in [STYLESHEET, SCRIPT] {
        assert!(!text.contains("//fonts") && !text.contains("http") && !text.contains("@import"));
    }
    assert!(!STYLESHEET.contains("url("));
    for word in ["eval(", "innerHTML", "document.write", "localStorage", "cookie"] {
        assert!(!SCRIPT.contains(word), "{word}");
    }
}

fn state() -> crate::reading::pipeline::Overview {
    let counts = Counts { quarantined: 1, rejected: 1_204, suspect: 1, rows: 250_000, ..Counts::default() };
    crate::reading::pipeline::Overview {
        queue: Backlog { waiting: 3, in_flight: 41, delayed: 0 },
        in_flight_share: 0.9,
        dead_letters: Some(2),
        lag_s: Some(47),
        last_sweep: None,
        definition: InForce::default(),
        catalogue: None,
        unfinished_batches: vec![crate::reading::pipeline::Unfinished {
            batch: 8,
            state: State::Open,
            owner: HOSTILE[0].into(),
            opened_at: None,
        }],
        aside: [("report_item", 2)].into(),
        more_aside: false,
        recent_batches: vec![Record { batch: 7, state: State::Done, finished_at: at().at.unwrap(), counts }],
    }
}

#[test]
fn the_page_of_the_pipeline_says_what_to_do() {
    let html = pipeline(&frame(), &Ok(state()));
    assert_sound(&html);
    let words = [
        "2 dead letters. Their messages could not be handled",
        "music-streams dead-letters",
        "Set aside: 2 report items.",
        "music-streams aside",
        "90.0 % of the messages that a queue can have are in flight.",
        "1,204 rows and 1 file of the last 1 batch could not be counted.",
        "41 in flight, 0 delayed",
        "the built-in one, change 0",
    ];
    assert_says(&html, &words);
    assert_says(&pipeline(&frame(), &Err("the ledger is gone".into())), &["could not be read. the ledger is gone"]);
}

#[test]
fn the_page_of_the_api_is_made_of_its_description() {
    let description = serde_json::json!({
        "components": {"parameters": {"days": {"name": "days", "in": "query", "description": "How many.", "example": 28,
            "schema": {"type": "integer", "minimum": 1, "maximum": 400, "default": 1}}}},
        "paths": {
            "/api/v1/top/{report}": {"get": {"summary": "The greatest", "parameters": [
                {"name": "report", "in": "path", "required": true, "schema": {"type": "string"}, "example": "a/b"},
                {"$ref": "#/components/parameters/days"},
            ]}},
            "/api/v1/series/{report}": {"get": {"summary": "One by day"}},
        },
    });
    let html = api(&frame(), &description, "http://127.0.0.1:8088/");
    assert_says(&html, &["curl 'http://127.0.0.1:8088/api/v1/top/a%2Fb?days=28'", "integer, 1 to 400", "default 1"]);
    assert!(html.contains(r#"href="./api/v1/top/a%2Fb?days=28""#));
    assert_says(&html, &["One by day"]);
    assert_eq!(html.matches("curl '").count(), 1, "a path without an example cannot be asked for");
    assert_sound(&html.replace("http://127.0.0.1:8088/", ""));
}
