//! Definitions of files of every format, for tests of hostile input and for benchmarks.

use std::time::Duration;

use jiff::tz::TimeZone;
use music_streams::definition::Definition;
use music_streams::definition::columns::{Column, KeyPart, Place, Source, TimeFormat, Type};
use music_streams::definition::conditions::{Condition, Test};
use music_streams::definition::input::{Delimited, Header, Input};
use music_streams::definition::reports::{Aggregate, Key, Measure, Period, Report};

/// The built-in definition, but with listeners that are texts.
#[allow(dead_code, reason = "each user takes a part of it")]
pub fn text_ids() -> Definition {
    let mut definition = Definition::built_in().unwrap();
    definition.columns[0].type_ = Type::Id { max_bytes: 64 };
    definition
}

/// Tabs, quotes that are plain characters, no header, comments, and a join: listening history.
#[allow(dead_code, reason = "each user takes a part of it")]
pub fn history() -> Definition {
    let number = |name: &str, type_, number| column(name, type_, Source::Places(vec![Place::Number(number)]));
    let text = || Type::Text { max_bytes: 1024, is_cut: false };
    let id = || Type::Id { max_bytes: 64 };
    let song = Source::Join { columns: vec!["artist".to_owned(), "track".to_owned()], with: " – ".to_owned() };
    definition(
        Input::Delimited(Delimited {
            delimiter: b'\t',
            quote: None,
            header: Header::Missing,
            comment: Some("#".to_owned()),
            null: vec![String::new()],
        }),
        vec![
            number("user_id", id(), 1),
            number("at", iso(), 2),
            optional(number("artist_id", id(), 3)),
            number("artist", text(), 4),
            optional(number("track_id", id(), 5)),
            number("track", text(), 6),
            column("song", text(), song),
        ],
        Vec::new(),
        "user_id",
    )
}

/// The access log of a content delivery network, whose columns `#Fields:` names.
#[allow(dead_code, reason = "each user takes a part of it")]
pub fn access_log() -> Definition {
    let id = || Type::Id { max_bytes: 64 };
    let named = |name: &str, type_, place: &str| column(name, type_, named_places(&[place]));
    let decimal = Type::Decimal { places: 3, min: 0, max: 999_999_999_999_999_999 };
    definition(
        Input::Delimited(Delimited {
            delimiter: b'\t',
            quote: None,
            header: Header::Directive,
            comment: None,
            null: vec!["-".to_owned()],
        }),
        vec![
            column("at", iso(), named_places(&["date", "time"])),
            named("edge", id(), "x-edge-location"),
            named("client", id(), "c-ip"),
            named("host", Type::Text { max_bytes: 1024, is_cut: false }, "x-host-header"),
            named("path", Type::Text { max_bytes: 512, is_cut: true }, "cs-uri-stem"),
            named("status", Type::Integer { min: 0, max: 999 }, "sc-status"),
            named("result", id(), "x-edge-result-type"),
            named("bytes", Type::Integer { min: 0, max: i64::MAX }, "sc-bytes"),
            named("seconds", decimal, "time-taken"),
        ],
        Vec::new(),
        "path",
    )
}

/// JSON: the history of a player, in which the listener is a part of the object's key and podcasts are passed over.
#[allow(dead_code, reason = "each user takes a part of it")]
pub fn player_history(records: Option<&str>) -> Definition {
    let at = |path: &str| Source::Places(vec![Place::Path(path.split('.').map(str::to_owned).collect())]);
    let text = || Type::Text { max_bytes: 1024, is_cut: false };
    let id = || Type::Id { max_bytes: 64 };
    let is_track = Condition { column: "track_uri".to_owned(), test: Test::Present(true) };
    definition(
        Input::Json { records: records.map(str::to_owned) },
        vec![
            column("listener", id(), Source::Key(KeyPart::Number(1))),
            column("at", iso(), at("ts")),
            optional(column("track_uri", id(), at("spotify_track_uri"))),
            optional(column("track", text(), at("master_metadata_track_name"))),
            optional(column("artist", text(), at("master_metadata_album_artist_name"))),
            optional(column("album", text(), at("master_metadata_album_album_name"))),
            column("ms_played", Type::Integer { min: 0, max: i64::MAX }, at("ms_played")),
            optional(column("country", id(), at("conn_country"))),
            optional(column("platform", text(), at("device.platform"))),
            optional(column("skipped", id(), at("skipped"))),
        ],
        vec![is_track],
        "listener",
    )
}

/// Lines of a time in this pattern, and nothing else.
#[allow(dead_code, reason = "each user takes a part of it")]
pub fn times(pattern: &str) -> Definition {
    let format = TimeFormat::Pattern(pattern.to_owned());
    let time = Type::Time { format, zone: TimeZone::get("Europe/Berlin").unwrap_or(TimeZone::UTC) };
    let (header, comment, null) = (Header::Missing, None, Vec::new());
    definition(
        Input::Delimited(Delimited { delimiter: b'\x01', quote: None, header, comment, null }),
        vec![column("at", time, Source::Places(vec![Place::Number(1)]))],
        Vec::new(),
        "",
    )
}

fn named_places(names: &[&str]) -> Source {
    Source::Places(names.iter().map(|&name| Place::Name(name.to_owned())).collect())
}

fn iso() -> Type {
    Type::Time { format: TimeFormat::Iso, zone: TimeZone::UTC }
}

fn column(name: &str, type_: Type, source: Source) -> Column {
    Column { name: name.to_owned(), type_, source, is_optional: false, unknown: None }
}

fn optional(column: Column) -> Column {
    Column { is_optional: true, ..column }
}

/// A definition whose rows are counted by a column, or all of them.
fn definition(input: Input, columns: Vec<Column>, conditions: Vec<Condition>, key: &str) -> Definition {
    let report = Report {
        name: "rows".to_owned(),
        key: if key.is_empty() { Key::All } else { Key::Field(key.to_owned()) },
        every: Period::Day,
        table: "rows".to_owned(),
        attributes: Vec::new(),
        top: None,
        is_personal: false,
        measures: vec![Measure {
            name: "rows".to_owned(),
            aggregate: Aggregate::Count,
            conditions: Vec::new(),
            unit: None,
        }],
    };
    Definition {
        name: "test".to_owned(),
        time: "at".to_owned(),
        zone: TimeZone::UTC,
        earliest: 10_957,
        future: Duration::from_secs(86_400),
        input,
        columns,
        conditions,
        references: Vec::new(),
        reports: vec![report],
    }
}
