//! From a URL's query to a question: every error names the parameter and says what to write.
//!
//! Pure. [`PARAMETERS`] is the one table of them: what is read, what the errors say, what the OpenAPI document has.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::calendar::{date_text, parse_date};
use crate::plan::Plan;
use crate::plan::reports::Report;
use crate::reading::answer::{SeriesQuestion, TopQuestion};
use crate::reading::range::{Against, Range};
use crate::web::problem::Problem;

/// Most days of a question.
pub const MAX_DAYS: u16 = 400;
/// Most days of a question about a report by the hour.
pub const MAX_DAYS_BY_HOUR: u16 = 31;
/// Most rows of a ranking.
pub const MAX_LIMIT: u16 = 1000;
/// Most items that a ranking may ask for: its rows times its days or hours.
pub const MAX_ITEMS: usize = 10_000;

/// Most characters of an id or a value, and most bytes: the key of an item of DynamoDB has no more.
const MAX_TEXT: usize = 1024;
const MAX_TEXT_BYTES: usize = 2000;

/// A parameter of a query.
#[derive(Debug)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Its meaning, for people.
    pub about: &'static str,
    /// The JSON schema of its value.
    pub schema: fn() -> Value,
    /// The questions that have it.
    pub of: &'static [Asks],
}

/// The kind of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// One item over days.
    Series,
    /// The greatest items over days.
    Top,
    /// The page of everything.
    Overview,
}

const EVERYTHING: &[Asks] = &[Asks::Series, Asks::Top, Asks::Overview];

fn date() -> Value {
    json!({ "type": "string", "format": "date" })
}

fn text() -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": MAX_TEXT })
}

/// Every parameter.
pub const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: "days",
        about: "Number of days, up to `to` or from `from` on. Default: 1 for the API, 28 for pages.",
        schema: || json!({ "type": "integer", "minimum": 1, "maximum": MAX_DAYS }),
        of: EVERYTHING,
    },
    Parameter {
        name: "from",
        about: "First day, YYYY-MM-DD, of the definition's time zone.",
        schema: date,
        of: EVERYTHING,
    },
    Parameter {
        name: "to",
        about: "Last day, YYYY-MM-DD, included. Default: the last day that has rows, but not after today.",
        schema: date,
        of: EVERYTHING,
    },
    Parameter {
        name: "against",
        about: "The days to compare with: as many days before, the same days of the year before, or none.",
        schema: || json!({ "type": "string", "enum": ["previous", "year", "none"], "default": "previous" }),
        of: EVERYTHING,
    },
    Parameter {
        name: "under",
        about: "Only the items with this value: ATTRIBUTE:VALUE, of an attribute that the report has lists under.",
        schema: text,
        of: &[Asks::Top, Asks::Overview],
    },
    Parameter {
        name: "limit",
        about: "Most rows. A report keeps so many that there may be fewer; `truncated` says if there are others.",
        schema: || json!({ "type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": 10 }),
        of: &[Asks::Top],
    },
    Parameter {
        name: "id",
        about: "The id of the item. Default: `*`, for a report of all rows.",
        schema: text,
        of: &[Asks::Series],
    },
    Parameter {
        name: "measure",
        about: "The measure of the chart. Default: the first one.",
        schema: text,
        of: &[Asks::Overview],
    },
    Parameter {
        name: "format",
        about: "json, csv (RFC 4180), or ndjson: a line of JSON for each row. Default: what `Accept` names, or json.",
        schema: || json!({ "type": "string", "enum": ["json", "csv", "ndjson"] }),
        of: &[Asks::Series, Asks::Top],
    },
];

/// The form of an answer of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// JSON with everything.
    Json,
    /// CSV of the rows.
    Csv,
    /// A line of JSON for each row.
    Lines,
}

/// The parameters of a query, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Parameters(BTreeMap<String, String>);

impl Parameters {
    /// Reads a query. An empty value counts as none, as forms send it.
    pub fn parse(query: &str, of: Asks, beside: &[&str]) -> Result<Self, Problem> {
        let mut found = BTreeMap::new();
        let is_known = |parameter: &&Parameter| parameter.of.contains(&of);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            if !PARAMETERS.iter().filter(is_known).any(|known| known.name == name) && !beside.contains(&name.as_ref()) {
                let known: Vec<&str> =
                    beside.iter().copied().chain(PARAMETERS.iter().filter(is_known).map(|known| known.name)).collect();
                let detail = format!("there is no parameter {name}; the parameters are {}", known.join(", "));
                return Err(Problem::parameter(&name, detail));
            }
            if value.is_empty() {
                continue;
            }
            if value.len() > MAX_TEXT_BYTES || value.chars().count() > MAX_TEXT {
                let detail = format!("{name} has {} bytes; no key has more than {MAX_TEXT_BYTES}", value.len());
                return Err(Problem::parameter(&name, detail));
            }
            if found.insert(name.clone().into_owned(), value.into_owned()).is_some() {
                return Err(Problem::parameter(&name, format!("{name} is given twice; give it once")));
            }
        }
        Ok(Parameters(found))
    }

    /// Returns a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn number(&self, name: &str, most: u16) -> Result<Option<u16>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| is_digits && (1..=most).contains(number));
        let wrong = || Problem::parameter(name, format!("{name} is {text}; write a whole number from 1 to {most}"));
        number.map(Some).ok_or_else(wrong)
    }

    fn day(&self, name: &str) -> Result<Option<i32>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let wrong = || Problem::parameter(name, format!("{name} is {text}; write a day as YYYY-MM-DD"));
        parse_date(text).map(Some).ok_or_else(wrong)
    }

    /// Returns true if the last day of the question depends on which days have rows.
    pub fn needs_last_day(&self) -> bool {
        let [from, to, days] = ["from", "to", "days"].map(|name| self.get(name).is_some());
        Range::ends_with_last(from, to, days)
    }

    /// Returns the days that are asked for. `last` is the last day that has rows.
    pub fn range(&self, default_days: u16, last: i32, most: u16) -> Result<Range, Problem> {
        let (days, from, to) = (self.number("days", most)?, self.day("from")?, self.day("to")?);
        let range = Range::asked(from, to, days, last, default_days.min(most))
            .ok_or_else(|| Problem::parameter("days", "from and to say which days; leave out days"))?;
        if range.from > range.to {
            let [from, to] = [range.from, range.to].map(date_text);
            return Err(Problem::parameter("from", format!("from is {from}, which is after to, {to}")));
        }
        if range.days() > usize::from(most) {
            return Err(Problem::parameter("from", format!("these are {} days; ask for at most {most}", range.days())));
        }
        Ok(range)
    }

    /// Returns what the days are compared with.
    pub fn against(&self) -> Result<Against, Problem> {
        let Some(text) = self.get("against") else { return Ok(Against::default()) };
        let all = [Against::Previous, Against::Year, Against::None];
        let wrong = || Problem::parameter("against", format!("against is {text}; write previous, year or none"));
        all.into_iter().find(|against| against.name() == text).ok_or_else(wrong)
    }

    /// Returns the label and the text that the items of a report are asked for under.
    pub fn under(&self, report: &Report) -> Result<Option<(usize, String)>, Problem> {
        let Some(text) = self.get("under") else { return Ok(None) };
        under_of(report, text).map(Some).map_err(|detail| Problem::parameter("under", detail))
    }

    /// Returns the form of the answer.
    pub fn form(&self, accept: &str) -> Result<Form, Problem> {
        match self.get("format") {
            Some("json") => Ok(Form::Json),
            Some("csv") => Ok(Form::Csv),
            Some("ndjson") => Ok(Form::Lines),
            Some(other) => Err(Problem::parameter("format", format!("format is {other}; write json, csv or ndjson"))),
            None if accept.contains("text/csv") => Ok(Form::Csv),
            None if accept.contains("ndjson") => Ok(Form::Lines),
            None => Ok(Form::Json),
        }
    }

    /// Returns a question about one item of a report.
    pub fn series(&self, plan: &Plan, report: usize, last: i32, default_days: u16) -> Result<SeriesQuestion, Problem> {
        let of_report = &plan.reports[report];
        let (_, all) = crate::definition::reports::ALL;
        let id = match (self.get("id"), &of_report.key) {
            (Some(id), Some(_)) => id.to_owned(),
            (None, None) => all.to_owned(),
            (Some(id), None) if id == all => all.to_owned(),
            (Some(_), None) => {
                return Err(Problem::parameter("id", format!("{} is of all rows; leave out id", of_report.name)));
            }
            (None, Some(_)) => {
                let detail = format!("give the {} of an item of {}", of_report.key_attribute, of_report.name);
                return Err(Problem::parameter("id", detail));
            }
        };
        let range = self.range(default_days, last, most_days(of_report))?;
        Ok(SeriesQuestion { report, id, range, against: self.against()? })
    }

    /// Returns a question about the greatest items of a report.
    pub fn top(&self, plan: &Plan, report: usize, last: i32, default_days: u16) -> Result<TopQuestion, Problem> {
        let of_report = &plan.reports[report];
        let range = self.range(default_days, last, most_days(of_report))?;
        let limit = usize::from(self.number("limit", MAX_LIMIT)?.unwrap_or(10));
        let periods = range.days() * if of_report.is_hourly { 24 } else { 1 };
        are_few(limit, periods).map_err(|detail| Problem::parameter("limit", detail))?;
        Ok(TopQuestion { report, under: self.under(of_report)?, range, against: self.against()?, limit })
    }
}

/// Most days of a question about a report.
pub fn most_days(report: &Report) -> u16 {
    if report.is_hourly { MAX_DAYS_BY_HOUR } else { MAX_DAYS }
}

/// Checks that a ranking asks for no more than [`MAX_ITEMS`].
pub fn are_few(rows: usize, periods: usize) -> Result<(), String> {
    match rows * periods > MAX_ITEMS {
        true => Err(format!("{rows} rows over {periods} days or hours are too many; at most {MAX_ITEMS} together")),
        false => Ok(()),
    }
}

/// Finds the label of a report, and the text, in ATTRIBUTE:VALUE. The error says which labels have lists.
pub fn under_of(report: &Report, text: &str) -> Result<(usize, String), String> {
    let under: &[usize] = report.top.as_ref().map_or(&[], |top| &top.under);
    let names: Vec<&str> = under.iter().map(|&label| report.labels[label].name.as_str()).collect();
    if names.is_empty() {
        return Err(format!("{} keeps one list only, of all its items; leave out under", report.name));
    }
    let found = text.split_once(':').and_then(|(name, value)| {
        let place = names.iter().position(|one| *one == name)?;
        (!value.is_empty()).then(|| (under[place], value.to_owned()))
    });
    found.ok_or_else(|| format!("under is {text}; write {}:VALUE", names.join(":VALUE or ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(query: &str) -> Result<String, String> {
        let parameters = Parameters::parse(query, Asks::Top, &[]).map_err(|problem| problem.detail)?;
        let range = parameters.range(28, parse_date("2024-06-25").unwrap(), MAX_DAYS);
        range.map(|range| range.to_string()).map_err(|problem| format!("{:?}: {}", problem.parameter, problem.detail))
    }

    #[test]
    fn days_are_said_in_several_ways() {
        for (query, days) in [
            ("", "2024-05-29 to 2024-06-25"),
            ("days=1", "2024-06-25"),
            ("days=2&to=2024-03-01", "2024-02-29 to 2024-03-01"),
            ("from=2024-06-01&days=3", "2024-06-01 to 2024-06-03"),
            ("from=2024-06-01&to=2024-06-02", "2024-06-01 to 2024-06-02"),
            ("from=2024-06-01", "2024-06-01 to 2024-06-25"),
            ("from=2025-06-01", "2025-06-01"),
            ("from=&to=&days=7", "2024-06-19 to 2024-06-25"),
        ] {
            assert_eq!(range(query).as_deref(), Ok(days), "{query}");
        }
    }

    #[test]
    fn every_error_names_its_parameter() {
        for (query, name) in [
            ("days=0", "days"),
            ("days=401", "days"),
            ("days=+5", "days"),
            ("days=7&from=2024-01-01&to=2024-01-02", "days"),
            ("to=2024-02-30", "to"),
            ("from=x", "from"),
            ("from=2024-06-02&to=2024-06-01", "from"),
            ("from=2020-01-01&to=2024-06-01", "from"),
        ] {
            let error = range(query).unwrap_err();
            assert!(error.starts_with(&format!("Some({name:?})")), "{query}: {error}");
        }
        assert!(range("genre=jazz").unwrap_err().contains("the parameters are days, from, to"));
        assert!(range("days=1&days=2").unwrap_err().contains("twice"));
    }

    #[test]
    fn the_text_of_under_may_hold_colons() {
        let plan = Plan::built_in().unwrap();
        let report = |name| &plan.reports[plan.report_named(name).unwrap()];
        assert_eq!(under_of(report("tracks"), "track_genre:a:b").unwrap().1, "a:b");
        assert!(under_of(report("tracks"), "jazz").unwrap_err().contains("write track_genre:VALUE"));
        assert!(under_of(report("genres"), "track_genre:jazz").unwrap_err().contains("leave out under"));
    }

    proptest! {
        #[test]
        fn no_query_panics(query in "\\PC{0,60}|(days|from|to|under|limit|against|id|format)=[^&]{0,12}") {
            let plan = Plan::built_in().unwrap();
            for asks in [Asks::Series, Asks::Top, Asks::Overview] {
                if let Ok(parameters) = Parameters::parse(&query, asks, &[]) {
                    for report in 0..plan.reports.len() {
                        let _ = parameters.series(&plan, report, 20_000, 28);
                        let _ = parameters.top(&plan, report, 20_000, 28);
                        let _ = parameters.form("");
                    }
                }
            }
        }
    }
}
