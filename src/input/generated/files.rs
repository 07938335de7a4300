//! Generated files: mostly rows that a definition accepts, with every oddity that a file may have.

use jiff::tz::TimeZone;

use crate::definition::Definition;
use crate::definition::columns::{Place, Source, TimeFormat, Type};
use crate::definition::input::{Delimited, Header, Input};
use crate::formats::BLOCK_BYTES;
use crate::input::generated::Random;

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
pub(in crate::input) fn file(definition: &Definition, random: &mut Random) -> (Vec<u8>, String) {
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

/// Values in the place of a record, and what is nearly one.
const NO_OBJECTS: [&str; 16] = [
    "null",
    "1",
    "true",
    "-0.5e3",
    "\"a\"",
    "\"\\u0041{[]},\"",
    "nul",
    "01",
    "1x",
    "1\"a\":1}",
    "\"a",
    "\"a\":1",
    "-",
    "5.",
    "1 2",
    "[3,null]",
];

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
                0 => text.extend_from_slice(random.pick(&["{\"at\":", "{\"a\":\"", "{]", "{\"a\":tru}"]).as_bytes()),
                1 | 2 => text.extend_from_slice(random.pick(&NO_OBJECTS).as_bytes()),
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
    fn set(&mut self, path: &[String], value: String) {
        let Some((first, others)) = path.split_first() else { return };
        if others.is_empty() {
            self.0.push((first.clone(), Err(value)));
            return;
        }
        let known = self.0.iter_mut().find(|(name, tree)| name == first && tree.is_ok());
        match known {
            Some((_, Ok(tree))) => tree.set(others, value),
            _ => {
                let mut tree = Tree::default();
                tree.set(others, value);
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
            tree.set(&path, value.clone());
        }
        tree.set(&path, value);
        if random.once_in(4) {
            let value = random.pick(&["1.5e3", "[{\"at\":1},[]]", "\"\\\\\"", "false"]);
            tree.set(&["\"other\"".to_owned()], value.to_owned());
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
