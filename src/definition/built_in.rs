//! The built-in definition.

use std::time::Duration;

use jiff::tz::TimeZone;

use crate::calendar::days_from_civil;
use crate::definition::columns::{Attribute, Column, Place, Source, TimeFormat, Type};
use crate::definition::input::{Delimited, Header, Input};
use crate::definition::reports::{Aggregate, Key, Measure, Period, Report, Top};
use crate::definition::{Definition, Reference};

fn csv() -> Delimited {
    Delimited {
        delimiter: b',',
        quote: Some(b'"'),
        header: Header::FirstLine,
        comment: None,
        null: vec![String::new()],
    }
}

fn column(name: &str, type_: Type) -> Column {
    let source = Source::Places(vec![Place::Name(name.to_owned())]);
    Column { name: name.to_owned(), type_, source, is_optional: false, unknown: None }
}

fn attribute(name: &str, type_: Type, is_optional: bool) -> Attribute {
    let place = Place::Name(name.to_owned());
    Attribute { name: name.to_owned(), type_, place, is_optional, unknown: None, many: None }
}

fn measure(name: &str, aggregate: Aggregate) -> Measure {
    Measure { name: name.to_owned(), aggregate, conditions: Vec::new() }
}

fn report(name: &str, table: &str, key: &str, attributes: &[&str], under: &[&str], measures: Vec<Measure>) -> Report {
    let texts = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    Report {
        name: name.to_owned(),
        key: Key::Field(key.to_owned()),
        every: Period::Day,
        table: table.to_owned(),
        attributes: texts(attributes),
        top: Some(Top { by: "total_listens".to_owned(), under: texts(under), keep: 100 }),
        measures,
    }
}

/// Returns the built-in definition.
pub fn definition() -> Definition {
    let text = |max_bytes, is_cut| Type::Text { max_bytes, is_cut };
    let time = || measure("total_listening_time", Aggregate::Sum { of: "duration_ms".to_owned(), divide: 1000 });
    let distinct = |name: &str, of: &str| measure(name, Aggregate::Distinct { of: of.to_owned() });
    let ratio = || {
        let (of, by) = ("total_listening_time".to_owned(), "unique_users".to_owned());
        measure("avg_listening_time_per_user", Aggregate::Ratio { of, by, places: 3 })
    };
    let count = || measure("total_listens", Aggregate::Count);
    let of_key = || vec![count(), distinct("unique_users", "user_id"), time(), ratio()];
    let unknown = || Some("unknown".to_owned());
    Definition {
        name: "music".to_owned(),
        time: "listen_time".to_owned(),
        zone: TimeZone::UTC,
        earliest: days_from_civil(2000, 1, 1),
        future: Duration::from_secs(86_400),
        input: Input::Delimited(csv()),
        columns: vec![
            column("user_id", Type::Integer { min: 1, max: i64::MAX }),
            column("track_id", Type::Id { max_bytes: 64 }),
            column("listen_time", Type::Time { format: TimeFormat::Iso, zone: TimeZone::UTC }),
        ],
        conditions: Vec::new(),
        references: vec![
            Reference {
                name: "songs".to_owned(),
                file: "songs.csv".to_owned(),
                format: csv(),
                key: "track_id".to_owned(),
                key_from: Place::Name("track_id".to_owned()),
                attributes: vec![
                    attribute("track_name", text(512, true), true),
                    attribute("artists", text(512, true), true),
                    Attribute {
                        many: Some(b';'),
                        unknown: unknown(),
                        ..attribute("track_genre", text(128, false), true)
                    },
                    attribute("duration_ms", Type::Integer { min: 0, max: 2_147_483_647 }, false),
                ],
            },
            Reference {
                name: "users".to_owned(),
                file: "users.csv".to_owned(),
                format: csv(),
                key: "user_id".to_owned(),
                key_from: Place::Name("user_id".to_owned()),
                attributes: vec![Attribute { unknown: unknown(), ..attribute("user_country", text(128, false), true) }],
            },
        ],
        reports: vec![
            report(
                "tracks",
                "track_level_reports",
                "track_id",
                &["track_name", "artists", "track_genre"],
                &["track_genre"],
                of_key(),
            ),
            report("genres", "genre_level_reports", "track_genre", &[], &[], of_key()),
            report(
                "listeners",
                "listener_level_reports",
                "user_id",
                &["user_country"],
                &[],
                vec![count(), time(), distinct("unique_tracks", "track_id")],
            ),
        ],
    }
}
