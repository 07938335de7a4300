//! Generated definitions and files, for the tests of [`crate::input`].

use std::time::Duration;

use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::definition::Definition;
use crate::definition::columns::{Column, KeyPart, Place, Source, TimeFormat, Type};
use crate::definition::conditions::{Condition, Test, Values};
use crate::definition::input::{Delimited, Header, Input};
use crate::definition::reports::{Aggregate, Key, Measure, Period, Report};
use crate::formats::BLOCK_BYTES;
use crate::plan::Plan;
use crate::reference::References;

/// A generator of numbers: SplitMix64, <https://prng.di.unimi.it/splitmix64.c>.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Returns true once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

/// The keys that references have: by code column, none, some or all of these.
const KEYS: [&str; 5] = ["5SuOikwiRyPMVoIQDJUgSV", "0000000000000000000000", "short", "x", "a – b"];
const NUMBERS: [i64; 4] = [7, 8, 0, -3];

/// Returns references with some keys of a plan's columns.
pub(super) fn references(plan: &Plan, seed: u64) -> References {
    let mut random = Random(seed);
    References::with_keys(plan, |_| {
        let few = random.below(KEYS.len() + 1);
        (KEYS[..few].to_vec(), NUMBERS[..few.min(NUMBERS.len())].to_vec())
    })
}

fn report(name: &str, key: Key) -> Report {
    let measures = vec![Measure { name: "rows".to_owned(), aggregate: Aggregate::Count, conditions: Vec::new() }];
    let (every, attributes) = (Period::Day, Vec::new());
    Report { name: name.to_owned(), key, every, table: name.to_owned(), attributes, top: None, measures }
}

fn column(name: &str, type_: Type) -> Column {
    let source = Source::Places(vec![Place::Name(name.to_owned())]);
    Column { name: name.to_owned(), type_, source, is_optional: false, unknown: None }
}

/// The built-in definition.
pub(super) fn music() -> Definition {
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
pub(super) fn definition(random: &mut Random) -> Definition {
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

/// Texts of any kind of value, and of none.
const ODD: [&str; 30] = [
    "",
    "-",
    " ",
    "x",
    "7",
    "8",
    "0",
    "007",
    "-1",
    "-0",
    "7.0",
    "7.25",
    "1e3",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "5SuOikwiRyPMVoIQDJUgSV",
    "0000000000000000000000",
    "short",
    "0123456789012345678901",
    "5SuOikwiRyPMVoIQDJUgS",
    "ä",
    "a – b",
    "abcdefgh",
    "äöüäöü",
    "\0",
    "true",
    "#x",
    "//x",
    "2024-06-25 24:00:00",
];
const TIMES: [&str; 14] = [
    "2024-06-25 17:43:13",
    "2024-06-25T17:43:13Z",
    "2024-06-26 00:00:00",
    "2024-06-25T00:30+02",
    "2024-02-30 17:43:13",
    "1999-12-31 23:59:59",
    "2026-01-02 00:00:01",
    "2024-06-25 17:43:13.5",
    "2024-03-31 02:30:00",
    "2024-06-25 23:59:60",
    "20240625T174313",
    "2024-06-25 17:43:1",
    "2016-12-31 23:59:60",
    "2024-06-25",
];

/// A text that is mostly a value of the type.
fn text_of(type_: &Type, random: &mut Random) -> String {
    if random.once_in(30) {
        return random.pick(&ODD).to_owned();
    }
    match type_ {
        Type::Id { .. } => match random.below(4) {
            0 => random.pick(&["5SuOikwiRyPMVoIQDJUgSV", "0000000000000000000000"]).to_owned(),
            1 => format!("id{}", random.below(30)),
            _ => random.pick(&["x", "a", "b", "short"]).to_owned(),
        },
        Type::Text { .. } => random.pick(&["x", "a", "b", "ä", "long text", "a – b"]).to_owned(),
        Type::Integer { .. } => format!("{}", random.below(12) as i64 - 3),
        Type::Decimal { .. } => format!("{}.{}", random.below(200), random.below(130)),
        Type::Time { format, .. } => {
            let second = 1_719_300_000 + random.below(100_000);
            let time = jiff::Timestamp::from_second(second as i64).unwrap();
            match format {
                TimeFormat::Iso if random.once_in(6) => random.pick(&TIMES).to_owned(),
                TimeFormat::Iso => time.strftime("%Y-%m-%d %H:%M:%S").to_string(),
                TimeFormat::Unix => second.to_string(),
                TimeFormat::UnixMillis => format!("{second}000.5"),
                TimeFormat::UnixMicros => format!("{second}123456"),
                TimeFormat::Pattern(pattern) => time.to_zoned(TimeZone::UTC).strftime(pattern).to_string(),
            }
        }
    }
}

/// The places that are read, each with the type of a column that it is read for.
fn places(definition: &Definition) -> Vec<(Place, Type)> {
    let mut all: Vec<(Place, Type)> = Vec::new();
    for column in &definition.columns {
        let Source::Places(places) = &column.source else { continue };
        for place in places {
            if all.iter().all(|(known, _)| known != place) {
                all.push((place.clone(), column.type_.clone()));
            }
        }
    }
    all
}

/// A file that mostly fits the definition, and its key.
pub(super) fn file(definition: &Definition, random: &mut Random) -> (Vec<u8>, String) {
    let key =
        random.pick(&["incoming/7/x/a.csv", "incoming/a", "incoming/k=7/x", "incoming/k=x/y/z", "incoming/ä/k=/b"]);
    let mut text = match &definition.input {
        Input::Delimited(format) => delimited(definition, format, random),
        Input::Json { records } => json(definition, records.as_deref(), random),
    };
    if random.once_in(10) {
        text.splice(0..0, *b"\xEF\xBB\xBF");
    }
    if random.once_in(12) && !text.is_empty() {
        let at = random.below(text.len());
        match random.below(3) {
            0 => text.truncate(at),
            1 => text[at] = random.next() as u8,
            _ => drop(text.remove(at)),
        }
    }
    (text, key.to_owned())
}

fn delimited(definition: &Definition, format: &Delimited, random: &mut Random) -> Vec<u8> {
    let places = places(definition);
    let mut names: Vec<Option<(Place, Type)>> = places.iter().cloned().map(Some).collect();
    names.resize(names.len() + random.below(3), None);
    for index in (1..names.len()).rev() {
        names.swap(index, random.below(index + 1));
    }
    let mut text = Vec::new();
    let end: &[u8] = random.pick(&[&b"\n"[..], b"\n", b"\n", b"\r\n", b"\r"]);
    let header = |names: &[Option<(Place, Type)>], random: &mut Random| {
        let name = |(index, place): (usize, &Option<(Place, Type)>)| match place {
            Some((Place::Name(name), _)) => {
                if random.once_in(2) {
                    name.to_lowercase()
                } else {
                    name.clone()
                }
            }
            _ => format!("other{index}"),
        };
        names.iter().enumerate().map(name).collect::<Vec<_>>()
    };
    let delimiter = char::from(format.delimiter).to_string();
    match format.header {
        Header::FirstLine if !random.once_in(30) => {
            text.extend_from_slice(header(&names, random).join(&delimiter).as_bytes());
            text.extend_from_slice(end);
        }
        Header::Directive if !random.once_in(20) => {
            text.extend_from_slice(format!("#Version: 1\n#Fields: {}\n", header(&names, random).join(" ")).as_bytes());
        }
        Header::FirstLine | Header::Missing | Header::Directive => {}
    }
    let (rows, filler_at) = (random.below(14), random.once_in(40).then(|| random.below(14)));
    for row in 0..rows {
        if filler_at == Some(row) {
            let mut filler = record(&names, format, false, random);
            filler.push(b'\n');
            text.extend_from_slice(&filler.repeat(1 + BLOCK_BYTES / filler.len()));
        }
        if format.header == Header::Directive && random.once_in(5) {
            let at = random.below(names.len());
            names.swap(0, at);
            text.extend_from_slice(format!("#Fields: {}\n", header(&names, random).join(" ")).as_bytes());
        }
        match random.below(24) {
            0 => text.extend_from_slice(format!("{}note \"\n", format.comment.as_deref().unwrap_or("#")).as_bytes()),
            1 => text.extend_from_slice(b"\n\r\n"),
            2 => text.extend_from_slice(random.pick(&["x", "\"", "a\"b\",", "\"a\"b", "#"]).as_bytes()),
            _ => text.extend_from_slice(&record(&names, format, true, random)),
        }
        let other_end = [&b"\n"[..], b"\r", b"\r\n", b"\n\n"][random.below(4)];
        text.extend_from_slice(if random.once_in(20) { other_end } else { end });
    }
    if random.once_in(3) {
        text.pop();
    }
    text
}

fn record(names: &[Option<(Place, Type)>], format: &Delimited, is_odd: bool, random: &mut Random) -> Vec<u8> {
    let number_of = |place: &Place| if let Place::Number(number) = place { Some(*number) } else { None };
    let fields = names.iter().flatten().filter_map(|(place, _)| number_of(place)).max().unwrap_or(0).max(names.len());
    let mut record = Vec::new();
    for index in 0..fields {
        if index > 0 {
            record.push(format.delimiter);
        }
        let by_number = names.iter().flatten().find(|(place, _)| number_of(place) == Some(index + 1));
        let type_ = by_number.or_else(|| names.get(index)?.as_ref()).map(|(_, type_)| type_.clone());
        let mut field = match type_ {
            Some(type_) => text_of(&type_, random).into_bytes(),
            None => random.pick(&ODD).as_bytes().to_vec(),
        };
        if is_odd && random.once_in(80) {
            field.push(0xfc);
        }
        match format.quote {
            Some(quote) if is_odd && random.once_in(8) => {
                let more: &[u8] = random.pick(&[&b""[..], b"", b"", b"", b"", b"\n", b"\r\n"]);
                let quoted = field.iter().flat_map(|&byte| if byte == quote { vec![quote; 2] } else { vec![byte] });
                record.push(quote);
                record.extend(quoted);
                record.extend_from_slice(more);
                record.push(quote);
                if random.once_in(20) {
                    record.push(b'z');
                }
            }
            _ => record.extend(field.into_iter().filter(|&byte| byte != format.delimiter || random.once_in(9))),
        }
    }
    if is_odd && random.once_in(20) {
        record.push(format.delimiter);
    }
    record
}

fn json(definition: &Definition, envelope: Option<&str>, random: &mut Random) -> Vec<u8> {
    let places = places(definition);
    let is_pretty = random.once_in(4);
    let separator: &[u8] = random.pick(&[&b"\n"[..], b"\n", b"\n", b"", b",", b",\n", b" \n\n", b"\r\n"]);
    let is_list = envelope.is_some() || separator.starts_with(b",") || random.once_in(6);
    let mut text = Vec::new();
    let filler_at = random.once_in(40).then(|| random.below(14));
    let documents = if envelope.is_some() { 1 + random.below(3) } else { 1 };
    for document in 0..documents {
        match envelope {
            Some(_) if random.once_in(12) => {
                text.extend_from_slice(b"{\"other\":[{}]}\n");
                continue;
            }
            Some(key) => text.extend_from_slice(format!("{{\"n\":{document},\"{key}\" : [").as_bytes()),
            None if is_list => text.extend_from_slice(b"["),
            None => {}
        }
        let rows = random.below(14);
        for row in 0..rows {
            if row > 0 {
                text.extend_from_slice(separator);
            }
            if filler_at == Some(row) {
                let mut filler = object(&places, false, false, random);
                filler.extend_from_slice(if is_list { b",\n" } else { b"\n" });
                text.extend_from_slice(&filler.repeat(1 + BLOCK_BYTES / filler.len()));
            }
            match random.below(60) {
                0 => text.extend_from_slice(
                    random.pick(&["null", "{\"at\":", "{\"a\":\"", "1", "{]", "{\"a\":tru}"]).as_bytes(),
                ),
                _ => text.extend_from_slice(&object(&places, is_pretty, true, random)),
            }
        }
        if is_list {
            text.extend_from_slice(b"]");
        }
        if envelope.is_some() {
            text.extend_from_slice(b",\"more\":{\"Records\":1}}\n");
        }
    }
    if random.once_in(2) {
        text.push(b'\n');
    }
    text
}

/// A tree of keys, with texts of JSON as leaves.
#[derive(Default)]
struct Tree(Vec<(String, Result<Tree, String>)>);

impl Tree {
    fn set(&mut self, path: &[String], value: String, random: &mut Random) {
        let Some((first, others)) = path.split_first() else { return };
        if others.is_empty() {
            self.0.push((first.clone(), Err(value)));
            return;
        }
        let known = self.0.iter_mut().find(|(name, tree)| name == first && tree.is_ok());
        match known {
            Some((_, Ok(tree))) => tree.set(others, value, random),
            _ => {
                let mut tree = Tree::default();
                tree.set(others, value, random);
                self.0.push((first.clone(), Ok(tree)));
            }
        }
    }

    fn write(&self, is_pretty: bool, text: &mut Vec<u8>) {
        let blank: &[u8] = if is_pretty { b"\n  " } else { b"" };
        text.push(b'{');
        for (index, (name, value)) in self.0.iter().enumerate() {
            if index > 0 {
                text.push(b',');
            }
            text.extend_from_slice(blank);
            text.extend_from_slice(format!("{name}:").as_bytes());
            match value {
                Ok(tree) => tree.write(is_pretty, text),
                Err(leaf) => text.extend_from_slice(leaf.as_bytes()),
            }
        }
        text.extend_from_slice(blank);
        text.push(b'}');
    }
}

fn object(places: &[(Place, Type)], is_pretty: bool, is_odd: bool, random: &mut Random) -> Vec<u8> {
    let mut tree = Tree::default();
    let quoted = |name: &String, random: &mut Random| match name.chars().next() {
        Some(first) if is_odd && random.once_in(30) => {
            format!("\"\\u{:04x}{}\"", u32::from(first), &name[first.len_utf8()..])
        }
        _ => format!("\"{name}\""),
    };
    for (place, type_) in places {
        let Place::Path(path) = place else { continue };
        if is_odd && random.once_in(25) {
            continue;
        }
        let text = text_of(type_, random);
        let is_number = matches!(type_, Type::Integer { .. } | Type::Decimal { .. });
        let value = match random.below(30) {
            0 if is_odd => "null".to_owned(),
            1 if is_odd => {
                random.pick(&["{\"x\":[1]}", "[]", "true", "12.50", "1e2", "\"\\ud800\"", "\"a\\n\\u00e4\""]).to_owned()
            }
            _ if is_number
                && text.parse::<f64>().is_ok()
                && !text.starts_with(['0', '+', '.'])
                && !text.ends_with('.')
                && !text.starts_with("-0")
                && random.once_in(2) =>
            {
                text
            }
            _ => serde_json::json!(text).to_string(),
        };
        let path: Vec<String> = path.iter().map(|name| quoted(name, random)).collect();
        if is_odd && random.once_in(60) {
            tree.set(&path, value.clone(), random);
        }
        tree.set(&path, value, random);
        if random.once_in(4) {
            tree.set(
                &["\"other\"".to_owned()],
                random.pick(&["1.5e3", "[{\"at\":1},[]]", "\"\\\\\"", "false"]).to_owned(),
                random,
            );
        }
    }
    let mut text = Vec::new();
    tree.write(is_pretty, &mut text);
    if is_odd && random.once_in(60) {
        let at = random.below(text.len());
        text[at] = *random.pick(&[&b'"', &b'}', &b'{', &0xff, &b' ', &b'\n', &b'\\']);
    }
    text
}
