//! The canonical form of a definition: the one text of its meaning, and its digest.
//!
//! It has no comments and no defaults, and one way to write each thing. Two files with the same canonical form mean the
//! same, whatever else differs; parsing it gives the same definition again.

use std::fmt::{Display, Write};

use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};

use crate::calendar::date_text;
use crate::definition::columns::{Attribute, Column, KeyPart, MAX_VALUE_BYTES, Place, Source, TimeFormat, Type};
use crate::definition::conditions::{Condition, Test, Values};
use crate::definition::input::{Delimited, Header, Input};
use crate::definition::keys::limits::{ID_BYTES, KEPT, MAX_DECIMAL};
use crate::definition::reports::{ALL, Aggregate, Key, Measure, Period, Report, Top};
use crate::definition::{Definition, EARLIEST, FUTURE, Reference};

impl Definition {
    /// Writes the canonical form: TOML, with a line end at the end.
    pub fn canonical(&self) -> String {
        let mut text = String::new();
        let mut line = |line: String| {
            text.push_str(&line);
            text.push('\n');
        };
        self.top().into_iter().for_each(&mut line);
        line("\n[input]".to_owned());
        input(&self.input).into_iter().for_each(&mut line);
        line("\n[columns]".to_owned());
        self.columns.iter().map(|it| format!("{} = {}", it.name, column(it))).for_each(&mut line);
        if !self.conditions.is_empty() {
            line("\n[where]".to_owned());
            self.conditions_of(&self.conditions).into_iter().for_each(&mut line);
        }
        for it in &self.references {
            line(format!("\n[references.{}]", it.name));
            reference(it).into_iter().for_each(&mut line);
            line(format!("[references.{}.columns]", it.name));
            it.attributes.iter().map(|it| format!("{} = {}", it.name, attribute(it))).for_each(&mut line);
        }
        for it in &self.reports {
            line(format!("\n[reports.{}]", it.name));
            report(it).into_iter().for_each(&mut line);
            line(format!("[reports.{}.measures]", it.name));
            it.measures.iter().map(|measure| self.measure(it, measure)).for_each(&mut line);
        }
        text
    }

    /// Returns the SHA-256 digest of the canonical form, in hexadecimal digits. It stands for the definition in the
    /// ledger and in manifests.
    pub fn digest(&self) -> String {
        format!("{:x}", Sha256::digest(self.canonical()))
    }

    fn top(&self) -> Vec<String> {
        let mut lines = vec![assign("name", quoted(&self.name)), assign("time", quoted(&self.time))];
        if let Some(zone) = zone(&self.zone) {
            lines.push(assign("zone", quoted(zone)));
        }
        if self.earliest != EARLIEST {
            lines.push(assign("earliest", quoted(&date_text(self.earliest))));
        }
        if self.future != FUTURE {
            lines.push(assign("future", quoted(&format!("{}s", self.future.as_secs()))));
        }
        lines
    }

    fn measure(&self, report: &Report, measure: &Measure) -> String {
        let mut fields = match &measure.aggregate {
            Aggregate::Count if measure.conditions.is_empty() => return assign(&measure.name, "\"count\""),
            Aggregate::Count => vec![assign("count", true)],
            Aggregate::Sum { of, divide: 1 } => vec![assign("sum", quoted(of))],
            Aggregate::Sum { of, divide } => vec![assign("sum", quoted(of)), assign("divide", divide)],
            Aggregate::Min { of } => vec![assign("min", quoted(of))],
            Aggregate::Max { of } => vec![assign("max", quoted(of))],
            Aggregate::Distinct { of } => vec![assign("distinct", quoted(of))],
            Aggregate::Ratio { of, by, places } => {
                let mut fields = vec![assign("ratio", list([of, by].map(|part| quoted(part))))];
                let default = report.measure(of).map(|first| first.aggregate.places(self));
                fields.extend((default != Some(*places)).then(|| assign("places", places)));
                fields
            }
        };
        fields.extend(measure.unit.map(|unit| assign("unit", quoted(unit.name()))));
        if !measure.conditions.is_empty() {
            fields.push(assign("where", table(self.conditions_of(&measure.conditions))));
        }
        assign(&measure.name, table(fields))
    }

    /// Writes conditions, those of one column together.
    fn conditions_of(&self, conditions: &[Condition]) -> Vec<String> {
        let of_column = conditions.chunk_by(|one, next| one.column == next.column);
        let written = of_column.map(|conditions| {
            let column = &conditions[0].column;
            let places = self.column(column).map_or(0, |column| column.type_.places());
            match conditions {
                [Condition { test: Test::In(these), .. }] => assign(column, values(these, places)),
                several => assign(column, table(several.iter().flat_map(|it| test(&it.test, places)))),
            }
        });
        written.collect()
    }
}

fn assign(key: &str, value: impl Display) -> String {
    format!("{key} = {value}")
}

fn table(fields: impl IntoIterator<Item = String>) -> String {
    format!("{{ {} }}", fields.into_iter().collect::<Vec<_>>().join(", "))
}

fn list(values: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", values.into_iter().collect::<Vec<_>>().join(", "))
}

/// Writes a text within quotes, with the escapes of TOML: <https://toml.io/en/v1.0.0#string>.
fn quoted(text: &str) -> String {
    let mut written = String::from("\"");
    for char in text.chars() {
        match char {
            '"' => written.push_str("\\\""),
            '\\' => written.push_str("\\\\"),
            '\n' => written.push_str("\\n"),
            '\t' => written.push_str("\\t"),
            '\r' => written.push_str("\\r"),
            char if char.is_control() => {
                let _ = write!(written, "\\u{:04X}", u32::from(char));
            }
            char => written.push(char),
        }
    }
    written + "\""
}

/// Writes a number of units of 10^-`places`, without zeros at the end.
fn number(units: i64, places: u8) -> String {
    let digits = format!("{:0width$}", units.unsigned_abs(), width = usize::from(places) + 1);
    let (before, after) = digits.split_at(digits.len() - usize::from(places));
    let (sign, after) = (if units < 0 { "-" } else { "" }, after.trim_end_matches('0'));
    if after.is_empty() { format!("{sign}{before}") } else { format!("{sign}{before}.{after}") }
}

/// The name of a zone, if it is not the default.
fn zone(zone: &TimeZone) -> Option<&str> {
    zone.iana_name().filter(|name| *name != "UTC")
}

fn input(input: &Input) -> Vec<String> {
    let delimited = match input {
        Input::Json { records } => {
            let records = records.iter().map(|records| assign("records", quoted(records)));
            return std::iter::once(assign("format", quoted("json"))).chain(records).collect();
        }
        Input::Delimited(delimited) => delimited,
    };
    let Delimited { delimiter, quote, header, comment, null } = delimited;
    let format = match (header, delimiter, quote) {
        (Header::Directive, ..) => "w3c",
        (_, b'\t', None) => "tsv",
        _ => "csv",
    };
    let mut lines = vec![assign("format", quoted(format))];
    let character = |byte: u8| quoted(&char::from(byte).to_string());
    if *delimiter != if format == "csv" { b',' } else { b'\t' } {
        lines.push(assign("delimiter", character(*delimiter)));
    }
    if format == "csv" && *quote != Some(b'"') {
        lines.push(assign("quote", quote.map_or("\"\"".to_owned(), character)));
    }
    if *header == Header::Missing {
        lines.push(assign("header", false));
    }
    lines.extend(comment.iter().map(|comment| assign("comment", quoted(comment))));
    if null != &[""] {
        lines.push(assign("null", list(null.iter().map(|text| quoted(text)))));
    }
    lines
}

fn column(column: &Column) -> String {
    if let Source::Join { columns, with } = &column.source {
        let mut fields = vec![assign("join", list(columns.iter().map(|column| quoted(column))))];
        fields.extend((with != "|").then(|| assign("with", quoted(with))));
        fields.extend(column.unknown.iter().map(|unknown| assign("unknown", quoted(unknown))));
        return table(fields);
    }
    let from = match &column.source {
        Source::Places(places) => match places.as_slice() {
            [one] => place(one, &column.name),
            several => Some(list(several.iter().map(written_place))),
        },
        Source::Key(KeyPart::Number(number)) => Some(quoted(&format!("@key.{number}"))),
        Source::Key(KeyPart::Name(name)) => Some(quoted(&format!("@key.{name}"))),
        Source::Join { .. } => None,
    };
    typed(&column.type_, from, column.is_optional, column.unknown.as_deref(), None)
}

fn attribute(attribute: &Attribute) -> String {
    let Attribute { name, type_, place: at, is_optional, unknown, many } = attribute;
    typed(type_, place(at, name), *is_optional, unknown.as_deref(), *many)
}

/// Writes a type alone, or a table with it.
fn typed(type_: &Type, from: Option<String>, is_optional: bool, unknown: Option<&str>, many: Option<u8>) -> String {
    let (name, settings) = settings(type_);
    let mut fields: Vec<String> = from.map(|from| assign("from", from)).into_iter().collect();
    fields.extend(is_optional.then(|| assign("optional", true)));
    fields.extend(unknown.map(|unknown| assign("unknown", quoted(unknown))));
    fields.extend(settings);
    fields.extend(many.map(|many| assign("many", quoted(&char::from(many).to_string()))));
    if fields.is_empty() {
        return quoted(name);
    }
    fields.insert(0, assign("type", quoted(name)));
    table(fields)
}

/// The name of a type, and its settings that are no defaults.
fn settings(type_: &Type) -> (&'static str, Vec<String>) {
    let bounds = |(min, max): (i64, i64), widest: (i64, i64), places: u8| {
        let min = (min != widest.0).then(|| assign("min", number(min, places)));
        let max = (max != widest.1).then(|| assign("max", number(max, places)));
        min.into_iter().chain(max)
    };
    match type_ {
        Type::Id { max_bytes } => {
            ("id", (*max_bytes != ID_BYTES).then(|| assign("max", max_bytes)).into_iter().collect())
        }
        Type::Text { max_bytes, is_cut } => {
            let max = (*max_bytes != MAX_VALUE_BYTES).then(|| assign("max", max_bytes));
            ("text", max.into_iter().chain(is_cut.then(|| assign("cut", true))).collect())
        }
        Type::Integer { min, max } => ("integer", bounds((*min, *max), (i64::MIN, i64::MAX), 0).collect()),
        Type::Decimal { places, min, max } => {
            let bounds = bounds((*min, *max), (-MAX_DECIMAL, MAX_DECIMAL), *places);
            ("decimal", std::iter::once(assign("places", places)).chain(bounds).collect())
        }
        Type::Time { format, zone: of_times } => {
            let format = match format {
                TimeFormat::Iso => None,
                TimeFormat::Unix => Some("unix"),
                TimeFormat::UnixMillis => Some("unix_ms"),
                TimeFormat::UnixMicros => Some("unix_us"),
                TimeFormat::Pattern(pattern) => Some(pattern.as_str()),
            };
            let format = format.map(|format| assign("format", quoted(format)));
            ("time", format.into_iter().chain(zone(of_times).map(|zone| assign("zone", quoted(zone)))).collect())
        }
    }
}

fn written_place(place: &Place) -> String {
    match place {
        Place::Name(name) => quoted(name),
        Place::Number(number) => number.to_string(),
        Place::Path(keys) => quoted(&keys.join(".")),
    }
}

/// Writes a place, if it is not the default: under this name.
fn place(place: &Place, name: &str) -> Option<String> {
    let is_default = match place {
        Place::Name(place) => place == name,
        Place::Number(_) => false,
        Place::Path(keys) => keys.as_slice() == [name],
    };
    (!is_default).then(|| written_place(place))
}

fn reference(reference: &Reference) -> Vec<String> {
    let mut lines = vec![assign("file", quoted(&reference.file))];
    if reference.format.header == Header::Missing {
        lines.push(assign("header", false));
    }
    lines.push(assign("key", quoted(&reference.key)));
    lines.extend(place(&reference.key_from, &reference.key).map(|from| assign("key_from", from)));
    lines
}

fn report(report: &Report) -> Vec<String> {
    let key = match &report.key {
        Key::All => ALL.1,
        Key::Field(name) => name,
    };
    let mut lines = vec![assign("key", quoted(key))];
    if report.every == Period::Hour {
        lines.push(assign("every", quoted("hour")));
    }
    if report.table != report.name {
        lines.push(assign("table", quoted(&report.table)));
    }
    let names = |names: &[String]| list(names.iter().map(|name| quoted(name)));
    if !report.attributes.is_empty() {
        lines.push(assign("attributes", names(&report.attributes)));
    }
    if let Some(Top { by, under, keep }) = &report.top {
        let mut fields = vec![assign("by", quoted(by))];
        fields.extend((!under.is_empty()).then(|| assign("under", names(under))));
        fields.extend((*keep != KEPT.1 as usize).then(|| assign("keep", keep)));
        lines.push(assign("top", table(fields)));
    }
    if report.is_personal {
        lines.push(assign("personal", true));
    }
    lines
}

fn values(values: &Values, places: u8) -> String {
    let written: Vec<String> = match values {
        Values::Texts(texts) => texts.iter().map(|text| quoted(text)).collect(),
        Values::Numbers(numbers) => numbers.iter().map(|value| number(*value, places)).collect(),
    };
    match written.as_slice() {
        [one] => one.clone(),
        _ => list(written),
    }
}

fn test(test: &Test, places: u8) -> Vec<String> {
    match test {
        Test::In(these) | Test::NotIn(these) => vec![assign("not", values(these, places))],
        Test::Within { min, max } => {
            let bound = |key: &str, bound: &Option<i64>| bound.map(|bound| assign(key, number(bound, places)));
            bound("min", min).into_iter().chain(bound("max", max)).collect()
        }
        Test::Present(is_present) => vec![assign("present", is_present)],
    }
}
