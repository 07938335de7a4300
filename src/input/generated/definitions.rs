//! Generated definitions.

use std::time::Duration;

use jiff::tz::TimeZoneDatabase;

use crate::definition::Definition;
use crate::definition::columns::{Column, KeyPart, Place, Source, TimeFormat, Type};
use crate::definition::conditions::{Condition, Test, Values};
use crate::definition::input::{Delimited, Header, Input};
use crate::definition::reports::{Aggregate, Key, Measure, Period, Report};
use crate::input::generated::Random;

fn report(name: &str, key: Key) -> Report {
    let measures =
        vec![Measure { name: "rows".to_owned(), aggregate: Aggregate::Count, conditions: Vec::new(), unit: None }];
    let (every, attributes) = (Period::Day, Vec::new());
    Report {
        name: name.to_owned(),
        key,
        every,
        table: name.to_owned(),
        attributes,
        top: None,
        is_personal: false,
        measures,
    }
}

fn column(name: &str, type_: Type) -> Column {
    let source = Source::Places(vec![Place::Name(name.to_owned())]);
    Column { name: name.to_owned(), type_, source, is_optional: false, unknown: None }
}

/// The built-in definition.
pub(in crate::input) fn music() -> Definition {
    Definition::built_in().unwrap()
}

fn input(random: &mut Random) -> Input {
    if random.once_in(2) {
        return Input::Json { records: random.once_in(6).then(|| "Records".to_owned()) };
    }
    let delimiter = *random.pick(&[&b',', &b',', &b'\t', &b';', &b' ']);
    let quote = *random.pick(&[&Some(b'"'), &Some(b'"'), &None, &Some(b'\'')]);
    let header = *random.pick(&[&Header::FirstLine, &Header::FirstLine, &Header::Missing, &Header::Directive]);
    // Logs have no quotes.
    let quote = quote.filter(|_| header != Header::Directive);
    let comment = random.pick(&[&None, &None, &Some("#"), &Some("//")]).map(str::to_owned);
    let null = random.pick(&[&[""][..], &[""], &["-"], &["-", ""], &[]]).iter().map(|&text| text.to_owned()).collect();
    Input::Delimited(Delimited { delimiter, quote, header, comment, null })
}

fn type_of(random: &mut Random) -> Type {
    match random.below(8) {
        0 | 1 => Type::Id { max_bytes: *random.pick(&[&64, &64, &22, &3]) },
        2 | 3 => Type::Text { max_bytes: *random.pick(&[&1024, &1024, &8, &1]), is_cut: random.once_in(2) },
        4 | 5 => {
            let (min, max) = *random.pick(&[&(1, i64::MAX), &(i64::MIN, i64::MAX), &(-5, 5), &(0, 999)]);
            Type::Integer { min, max }
        }
        6 => {
            const MOST: i64 = 999_999_999_999_999_999;
            let (min, max) = *random.pick(&[&(0, MOST), &(-MOST, MOST), &(-150, 15_000)]);
            Type::Decimal { places: *random.pick(&[&1, &2, &9]), min, max }
        }
        _ => time(random),
    }
}

fn time(random: &mut Random) -> Type {
    let pattern = |text: &str| TimeFormat::Pattern(text.to_owned());
    let format = match random.below(8) {
        0 => TimeFormat::Unix,
        1 => TimeFormat::UnixMillis,
        2 => TimeFormat::UnixMicros,
        3 => pattern("%d/%b/%Y:%H:%M:%S %z"),
        4 => pattern("%Y%m%d"),
        _ => TimeFormat::Iso,
    };
    let zone = *random.pick(&[&"UTC", &"UTC", &"Europe/Berlin", &"Asia/Kolkata"]);
    Type::Time { format, zone: TimeZoneDatabase::bundled().get(zone).unwrap() }
}

/// A definition of some columns.
pub(in crate::input) fn definition(random: &mut Random) -> Definition {
    if random.once_in(8) {
        return Definition { future: Duration::from_secs(3600), ..music() };
    }
    let input = input(random);
    let mut columns = Vec::new();
    let time_at = random.below(3);
    for index in 0..2 + random.below(5) {
        let is_time = index == time_at;
        let type_ = if is_time { time(random) } else { type_of(random) };
        let mut column = column(&format!("c{index}"), type_);
        if is_time {
            column.name = "at".to_owned();
        }
        column.is_optional = !is_time && random.once_in(3);
        column.source = source(&column, &input, random);
        columns.push(column);
    }
    if columns.iter().all(|column| column.name != "at") {
        let mut column = column("at", time(random));
        column.source = source(&column, &input, random);
        columns.push(column);
    }
    add_join(&mut columns, random);
    let conditions = conditions(&columns, random);
    // Integers that are keys have codes.
    let is_key = |column: &&Column| matches!(column.type_, Type::Integer { .. }) && !column.is_optional;
    let mut reports = vec![report("all", Key::All)];
    let keys = columns.iter().filter(is_key).filter(|_| random.once_in(2));
    reports.extend(keys.map(|column| report(&column.name, Key::Field(column.name.clone()))));
    let zone = *random.pick(&[&"UTC", &"Europe/Berlin"]);
    Definition {
        name: "generated".to_owned(),
        time: "at".to_owned(),
        zone: TimeZoneDatabase::bundled().get(zone).unwrap(),
        input,
        columns,
        conditions,
        references: Vec::new(),
        reports,
        ..music()
    }
}

fn source(column: &Column, input: &Input, random: &mut Random) -> Source {
    if column.name != "at" && random.once_in(10) {
        return Source::Key(if random.once_in(2) {
            KeyPart::Number(1 + random.below(3))
        } else {
            KeyPart::Name("k".to_owned())
        });
    }
    let is_joined = matches!(column.type_, Type::Text { .. } | Type::Time { .. }) && random.once_in(5);
    let place = |random: &mut Random, name: &str| match input {
        Input::Json { .. } => {
            let path = match random.below(5) {
                0 => vec!["o".to_owned(), name.to_owned()],
                1 => vec!["o".to_owned(), "p".to_owned(), name.to_owned()],
                _ => vec![name.to_owned()],
            };
            Place::Path(path)
        }
        Input::Delimited(Delimited { header: Header::Missing, .. }) => Place::Number(1 + random.below(8)),
        Input::Delimited(_) if random.once_in(8) => Place::Number(1 + random.below(4)),
        Input::Delimited(_) => Place::Name(name.to_uppercase()),
    };
    match is_joined {
        true => Source::Places(vec![
            place(random, &format!("{}a", column.name)),
            place(random, &format!("{}b", column.name)),
        ]),
        false => Source::Places(vec![place(random, &column.name)]),
    }
}

fn add_join(columns: &mut Vec<Column>, random: &mut Random) {
    let is_part = |column: &&Column| matches!(column.type_, Type::Id { .. } | Type::Text { .. });
    let parts: Vec<Column> = columns.iter().filter(is_part).take(2 + random.below(3)).cloned().collect();
    if parts.len() < 2 || random.once_in(3) {
        return;
    }
    let mut join = column("joined", crate::definition::columns::JOINED);
    join.is_optional = parts.iter().any(|part| part.is_optional);
    join.source = Source::Join {
        columns: parts.into_iter().map(|part| part.name).collect(),
        with: random.pick(&[" – ", "|", "x"]).to_owned(),
    };
    columns.insert(random.below(columns.len() + 1), join);
}

fn conditions(columns: &[Column], random: &mut Random) -> Vec<Condition> {
    let mut conditions = Vec::new();
    for column in columns.iter().filter(|column| !matches!(column.source, Source::Join { .. })) {
        if !random.once_in(6) {
            continue;
        }
        let texts = |random: &mut Random| {
            Values::Texts(vec![random.pick(&["x", "short", "7", "true"]).to_owned(), "a".to_owned()])
        };
        let numbers = |random: &mut Random| Values::Numbers(vec![*random.pick(&[&7, &0, &-3]), 100]);
        let within = Test::Within { min: Some(0), max: random.once_in(2).then_some(500) };
        let test = match (&column.type_, random.below(4)) {
            (_, 0) => Test::Present(!random.once_in(3)),
            (Type::Id { .. } | Type::Text { .. }, 1) => Test::In(texts(random)),
            (Type::Id { .. } | Type::Text { .. }, _) => Test::NotIn(texts(random)),
            (Type::Time { .. }, _) => Test::Within { min: Some(1_700_000_000_000_000), max: None },
            (_, 1) => Test::In(numbers(random)),
            (_, 2) => Test::NotIn(numbers(random)),
            _ => within,
        };
        conditions.push(Condition { column: column.name.clone(), test });
    }
    conditions
}
