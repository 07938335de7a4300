//! `music-streams report`: the report tables, queried by their keys and indexes. Covered by tests/pipeline/cli.rs.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use clap::{Args, Subcommand};
use futures::{StreamExt, TryStreamExt};
use serde_json::{Map, Value};

use crate::aws::error::{AwsError, aws_error};
use crate::aws::item::{Item, number, text};
use crate::calendar::{date_text, parse_date};
use crate::commands::format::{Format, printable, table};
use crate::reports::figures::{Report, parse_seconds};
use crate::reports::item::{BY_LISTENS, DATE_SHARDS, LISTINGS_TABLE, date_shard, genre_date, is_empty};

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

/// A day, as the tables have it: `YYYY-MM-DD`.
#[derive(Debug, Clone)]
struct ReportDate(String);

fn parse_report_date(text: &str) -> Result<ReportDate, String> {
    parse_date(text).map(|day| ReportDate(date_text(day))).ok_or_else(|| "give a day as YYYY-MM-DD".to_owned())
}

#[derive(Debug, Args)]
struct TopList {
    /// Day (UTC)
    #[arg(long, value_parser = parse_report_date, value_name = "YYYY-MM-DD")]
    date: ReportDate,
    /// Number of entries
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "COUNT")]
    top: u16,
}

#[derive(Debug, Subcommand)]
enum Question {
    /// The most listened tracks of a day, of one genre or of all
    Tracks {
        #[command(flatten)]
        list: TopList,
        /// Genre; all of them if not given
        #[arg(long)]
        genre: Option<String>,
    },
    /// The most listened genres of a day
    Genres(TopList),
    /// The busiest listeners of a day
    Listeners(TopList),
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
    /// Queries the tables, and returns the text to print.
    pub async fn answer(&self, client: &aws_sdk_dynamodb::Client) -> Result<String, AwsError> {
        let tables = Tables { client, prefix: &self.table_prefix };
        let (items, columns): (Vec<Item>, &[(&str, &str)]) = match &self.question {
            Question::Tracks { list: TopList { date, top }, genre: Some(genre) } => {
                let partitions = vec![genre_date(genre, &date.0)];
                (tables.top(LISTINGS_TABLE, "genre_date", partitions, *top).await?, &TRACK_COLUMNS)
            }
            Question::Tracks { list: TopList { date, top }, genre: None } => {
                (tables.top(Report::Track.table(), "date_shard", shards(date), *top).await?, &TRACK_COLUMNS)
            }
            Question::Genres(TopList { date, top }) => {
                (tables.top(Report::Genre.table(), "report_date", vec![date.0.clone()], *top).await?, &GENRE_COLUMNS)
            }
            Question::Listeners(TopList { date, top }) => {
                (tables.top(Report::Listener.table(), "date_shard", shards(date), *top).await?, &LISTENER_COLUMNS)
            }
            Question::Track { id } => (tables.days(id).await?, &TRACK_DAY_COLUMNS),
        };
        Ok(match self.format {
            Format::Table => as_table(&items, columns),
            Format::Json => as_json(&items),
        })
    }
}

fn shards(date: &ReportDate) -> Vec<String> {
    (0..DATE_SHARDS).map(|shard| date_shard(&date.0, shard)).collect()
}

struct Tables<'a> {
    client: &'a aws_sdk_dynamodb::Client,
    prefix: &'a str,
}

impl Tables<'_> {
    /// Returns the `top` items with the most listens in some partitions of the index.
    async fn top(&self, table: &str, key: &str, partitions: Vec<String>, top: u16) -> Result<Vec<Item>, AwsError> {
        let table = format!("{}{table}", self.prefix);
        let mut items: Vec<Item> = futures::stream::iter(partitions)
            .map(|partition| {
                let query = self
                    .client
                    .query()
                    .table_name(&table)
                    .index_name(BY_LISTENS)
                    .key_condition_expression("#key = :partition AND total_listens > :none")
                    .expression_attribute_names("#key", key)
                    .expression_attribute_values(":partition", text(partition))
                    .expression_attribute_values(":none", AttributeValue::N("0".to_owned()))
                    .scan_index_forward(false)
                    .limit(i32::from(top));
                let explain_query = aws_error("dynamodb:Query", format!("{table}/index/{BY_LISTENS}"));
                // `top` items are far smaller than a page of one megabyte, so one page has them all.
                async move { query.send().await.map(|page| page.items.unwrap_or_default()).map_err(explain_query) }
            })
            .buffered(DATE_SHARDS as usize)
            .try_concat()
            .await?;
        // Ties are in the order of their ids, so that the answer is the same each time.
        let name = |item: &Item| {
            ["track_id", "user_id", "track_genre"].iter().find_map(|name| item.get(*name)?.as_s().ok()).cloned()
        };
        items.sort_by_key(|item| (std::cmp::Reverse(number(item, "total_listens")), name(item)));
        items.truncate(usize::from(top));
        Ok(items)
    }

    /// Returns a track's items, the latest first.
    async fn days(&self, track_id: &str) -> Result<Vec<Item>, AwsError> {
        let table = format!("{}{}", self.prefix, Report::Track.table());
        let items: Result<Vec<_>, _> = self
            .client
            .query()
            .table_name(&table)
            .key_condition_expression("track_id = :id")
            .expression_attribute_values(":id", text(track_id))
            .scan_index_forward(false)
            .into_paginator()
            .items()
            .send()
            .try_collect()
            .await;
        let mut items = items.map_err(aws_error("dynamodb:Query", table))?;
        items.retain(|item| !is_empty(item));
        Ok(items)
    }
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
    let hidden = ["sketch", "version", "applied", "applied_through", "date_shard", "genre_date"];
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
