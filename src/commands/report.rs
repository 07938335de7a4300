//! `music-streams report`: top lists, and a track's items day by day. Covered by tests/pipeline/cli.rs.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use crate::aws::Clients;
use crate::aws::error::AwsError;
use crate::aws::item::{Item, text};
use crate::calendar::{date_text, parse_day};
use crate::commands::format::{Format, printable, table};
use crate::reports::figures::{Report, parse_seconds};
use crate::reports::item::is_empty;
use crate::reports::store::Reports;
use crate::reports::top_lists::{ListKey, MAX_ENTRIES, TopList};
use crate::telemetry::progress::Progress;

/// The arguments of `music-streams report`.
#[derive(Debug, Args)]
pub struct Query {
    #[command(subcommand)]
    question: Question,

    /// Put before the name of every table
    #[arg(long, env = "MUSIC_STREAMS_TABLE_PREFIX", value_name = "TEXT", default_value = "", global = true)]
    table_prefix: String,

    /// Table for people or JSON for programs
    #[arg(long, value_enum, default_value_t = Format::Table, global = true)]
    format: Format,
}

#[derive(Debug, Args)]
struct Selection {
    /// Day (UTC)
    #[arg(long, value_parser = parse_day, value_name = "YYYY-MM-DD")]
    date: i32,
    /// Number of entries
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "COUNT")]
    top: u16,
}

#[derive(Debug, Subcommand)]
enum Question {
    /// The most listened tracks of a day, of one genre or of all
    Tracks {
        #[command(flatten)]
        list: Selection,
        /// Genre; all of them if not given
        #[arg(long)]
        genre: Option<String>,
    },
    /// The most listened genres of a day
    Genres(Selection),
    /// The busiest listeners of a day
    Listeners(Selection),
    /// One track, day by day
    Track {
        /// Track id
        id: String,
    },
}

/// Attributes of an answer in the order they are shown, with their headings.
const TRACK_COLUMNS: [(&str, &str); 8] = [
    ("track_id", "TRACK ID"),
    ("track_name", "TRACK"),
    ("artists", "ARTISTS"),
    ("track_genre", "GENRES"),
    ("total_listens", "LISTENS"),
    ("unique_users", "LISTENERS"),
    ("total_listening_time", "TIME"),
    ("avg_listening_time_per_user", "TIME/LISTENER"),
];
/// The day in place of the id, which is the same in every line.
const TRACK_DAY_COLUMNS: [(&str, &str); 8] = {
    let mut columns = TRACK_COLUMNS;
    columns[0] = ("report_date", "DAY");
    columns
};
const GENRE_COLUMNS: [(&str, &str); 5] = [
    ("track_genre", "GENRE"),
    ("total_listens", "LISTENS"),
    ("unique_users", "LISTENERS"),
    ("total_listening_time", "TIME"),
    ("avg_listening_time_per_user", "TIME/LISTENER"),
];
const LISTENER_COLUMNS: [(&str, &str); 5] = [
    ("user_id", "LISTENER"),
    ("user_country", "COUNTRY"),
    ("total_listens", "LISTENS"),
    ("unique_tracks", "TRACKS"),
    ("total_listening_time", "TIME"),
];

impl Query {
    /// Reads the answer from the tables, and returns it as text.
    pub async fn answer(&self, clients: &Clients) -> Result<String, AwsError> {
        let (client, prefix) = (clients.dynamodb.clone(), self.table_prefix.clone());
        let reports = Reports::new(client, prefix, 1, None, Progress::default());
        let (columns, key, top): (&[_], _, _) = match &self.question {
            Question::Tracks { list, genre: Some(genre) } => {
                (&TRACK_COLUMNS, ListKey::of_genre(genre, list.date), list.top)
            }
            Question::Tracks { list, genre: None } => {
                (&TRACK_COLUMNS, ListKey::of_report(Report::Track, list.date), list.top)
            }
            Question::Genres(list) => (&GENRE_COLUMNS, ListKey::of_report(Report::Genre, list.date), list.top),
            Question::Listeners(list) => (&LISTENER_COLUMNS, ListKey::of_report(Report::Listener, list.date), list.top),
            Question::Track { id } => {
                let mut items = reports.days_of(Report::Track, id).await?;
                items.retain(|item| !is_empty(item));
                return Ok(self.formatted(&items, &TRACK_DAY_COLUMNS, None));
            }
        };
        let list = reports.list(&key).await?;
        let (top, date) = (usize::from(top), date_text(key.day));
        let remark = remark_on(&list, top);
        let with_date = |mut item: Item| {
            item.insert("report_date".to_owned(), text(&date));
            item
        };
        let entries = list.entries.iter().take(top);
        let items: Vec<Item> = entries.map(|entry| with_date(entry.attributes(key.report()))).collect();
        Ok(self.formatted(&items, columns, remark))
    }

    fn formatted(&self, items: &[Item], columns: &[(&str, &str)], remark: Option<String>) -> String {
        match (self.format, remark) {
            (Format::Table, Some(remark)) => format!("{}\n{remark}", as_table(items, columns)),
            (Format::Table, None) => as_table(items, columns),
            (Format::Json, _) => as_json(items),
        }
    }
}

/// Returns a remark on a list that does not have everything that was asked for.
fn remark_on(list: &TopList, top: usize) -> Option<String> {
    if list.rebuilding {
        return Some("the list is being rebuilt and is not complete yet".to_owned());
    }
    (list.entries.len() == MAX_ENTRIES && top > MAX_ENTRIES).then(|| {
        format!(
            "a list has {MAX_ENTRIES} entries; the others are in the report's table, by id, and in the curated files"
        )
    })
}

fn as_table(items: &[Item], columns: &[(&str, &str)]) -> String {
    if items.is_empty() {
        return "no listens".to_owned();
    }
    // A column that no item fills is left out.
    let columns: Vec<_> =
        columns.iter().filter(|(attribute, _)| items.iter().any(|item| item.contains_key(*attribute))).collect();
    let headings: Vec<&str> = columns.iter().map(|(_, heading)| *heading).collect();
    let is_number =
        |attribute: &str| items.iter().any(|item| matches!(item.get(attribute), Some(AttributeValue::N(_))));
    let numbers: Vec<bool> = columns.iter().map(|(attribute, _)| is_number(attribute)).collect();
    let row = |item: &Item| columns.iter().map(|(attribute, _)| shown(attribute, item.get(*attribute))).collect();
    table(&headings, &numbers, items.iter().map(row))
}

/// Formats a value for people: seconds as hours, minutes and seconds.
fn shown(attribute: &str, value: Option<&AttributeValue>) -> String {
    match value {
        Some(AttributeValue::N(number)) if attribute.contains("time") => match parse_seconds(number) {
            Some(milliseconds) => {
                let seconds = (milliseconds + 500) / 1000;
                format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
            }
            None => number.clone(),
        },
        Some(AttributeValue::N(text)) => text.clone(),
        Some(AttributeValue::S(text)) => printable(text),
        _ => String::new(),
    }
}

/// Formats the visible attributes: all but the sketch and those of the protocol.
fn as_json(items: &[Item]) -> String {
    let hidden = ["sketch", "version", "applied", "applied_through"];
    let objects = items.iter().map(|item| {
        let visible: HashMap<_, _> = item.iter().filter(|(name, _)| !hidden.contains(&name.as_str())).collect();
        let mut fields: Vec<_> = visible.into_iter().collect();
        fields.sort_by_key(|(name, _)| name.as_str());
        let values = fields.into_iter().map(|(name, value)| {
            let value = match value {
                AttributeValue::N(number) => serde_json::from_str(number).unwrap_or(Value::Null),
                AttributeValue::S(text) => Value::String(text.clone()),
                _ => Value::Null,
            };
            (name.clone(), value)
        });
        Value::Object(values.collect::<Map<_, _>>())
    });
    format!("{:#}", Value::Array(objects.collect()))
}
