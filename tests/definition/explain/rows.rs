//! Rows and files that are looked up, for any definition: values that its conditions ask for, and others.

use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use music_streams::definition::columns::{Attribute, Column, Place, Source, TimeFormat, Type};
use music_streams::definition::conditions::{Condition, Test, Values};
use music_streams::definition::input::Input;
use music_streams::definition::reports::Aggregate;
use music_streams::definition::{Definition, Field};
use music_streams::reports::figures::decimal_text;
use serde_json::{Map, Value, json};

/// Numbers that look random, by a linear congruential generator.
pub struct Random(pub u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % limit
    }

    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

/// The definition of the same rows and reports, whose files are lines of JSON with a key for each column, and whose
/// times are numbers.
pub fn of_json(mut definition: Definition) -> Definition {
    definition.input = Input::Json { records: None };
    (definition.earliest, definition.future) = (10_957, std::time::Duration::from_secs(86_400));
    for column in &mut definition.columns {
        if !matches!(column.source, Source::Join { .. }) {
            column.source = Source::Places(vec![Place::Path(vec![column.name.clone()])]);
        }
        if let Type::Time { format, zone } = &mut column.type_ {
            (*format, *zone) = (TimeFormat::UnixMicros, TimeZone::UTC);
        }
    }
    for reference in &mut definition.references {
        reference.file = format!("{}.csv", reference.name);
        reference.format.delimiter = b',';
        reference.format.quote = Some(b'"');
        reference.format.header = music_streams::definition::input::Header::FirstLine;
        reference.key_from = Place::Name("its_key".to_owned());
        for attribute in &mut reference.attributes {
            attribute.place = Place::Name(attribute.name.clone());
        }
    }
    let canonical = definition.canonical();
    Definition::parse(canonical.as_bytes()).unwrap_or_else(|it| panic!("{}\n{canonical}", it.describe("it")))
}

/// The conditions of rows and measures.
fn conditions(definition: &Definition) -> impl Iterator<Item = &Condition> {
    let measures = definition.reports.iter().flat_map(|report| &report.measures);
    definition.conditions.iter().chain(measures.flat_map(|measure| &measure.conditions))
}

/// Greatest of numbers that are summed, but where a definition has only greater ones. Sums of both signs that come to
/// the end of 64 bits on their way depend on the order of the rows.
const SUMMED: u64 = 1_000_000_000_000_000;

fn is_summed(name: &str, definition: &Definition) -> bool {
    let mut measures = definition.reports.iter().flat_map(|report| &report.measures);
    measures.any(|measure| matches!(&measure.aggregate, Aggregate::Sum { of, .. } if of == name))
}

/// Texts of a value, as a file has them: some of which conditions speak, and others.
fn texts(name: &str, type_: &Type, definition: &Definition) -> Vec<String> {
    let mut texts = BTreeSet::new();
    let mut numbers = vec![0, 1, -1, 2, 7, 40, -300, 1_234, 56_789];
    for Condition { test, .. } in conditions(definition).filter(|it| it.column == *name) {
        match test {
            Test::In(Values::Texts(values)) | Test::NotIn(Values::Texts(values)) => texts.extend(values.clone()),
            Test::In(Values::Numbers(values)) | Test::NotIn(Values::Numbers(values)) => numbers.extend(values),
            Test::Within { min, max } => {
                numbers.extend(min.iter().chain(max).flat_map(|it| [it.saturating_sub(1), *it, it.saturating_add(1)]));
            }
            Test::Present(_) => {}
        }
    }
    if is_summed(name, definition) {
        numbers.retain(|number| number.unsigned_abs() < SUMMED);
    }
    match type_ {
        Type::Id { .. } => texts.extend(["a", "b", "'", "\"", "~"].map(str::to_owned)),
        Type::Text { max_bytes, .. } => {
            let all = ["a", "b", "'", "\"", "\\", "é", "'; --", "語 語", "\t"];
            texts.extend(all.iter().filter(|text| text.len() <= *max_bytes).map(|&text| text.to_owned()));
        }
        Type::Integer { min, max } => {
            texts.extend(numbers.into_iter().map(|it| it.clamp((*min).max(-i64::MAX), *max).to_string()));
        }
        Type::Decimal { places, min, max } => {
            texts.extend(numbers.into_iter().map(|it| decimal_text(it.clamp(*min, *max).into(), *places)));
        }
        Type::Time { .. } => {}
    }
    texts.into_iter().collect()
}

/// Microseconds of three days, on one of which summer time begins in Europe.
fn time(random: &mut Random) -> i64 {
    const BEGIN: i64 = 1_711_756_800_000_000;
    let second = random.below(3 * 86_400) as i64;
    BEGIN + second * 1_000_000 + if random.once_in(2) { random.below(1_000_000) as i64 } else { 0 }
}

/// Lines of JSON, no two of one time.
pub fn rows(definition: &Definition, count: usize, random: &mut Random) -> Vec<u8> {
    let is_read = |column: &&Column| !matches!(column.source, Source::Join { .. });
    let columns: Vec<(&Column, Vec<String>)> = definition
        .columns
        .iter()
        .filter(is_read)
        .map(|column| (column, texts(&column.name, &column.type_, definition)))
        .collect();
    let (mut lines, mut times) = (Vec::new(), BTreeSet::new());
    while times.len() < count {
        let at = time(random);
        if !times.insert(at) {
            continue;
        }
        let mut row = Map::new();
        for (column, texts) in &columns {
            let value = match &column.type_ {
                _ if column.name == definition.time => json!(at),
                _ if column.is_optional && random.once_in(4) => Value::Null,
                Type::Time { .. } => json!(time(random)),
                _ => Value::String(random.pick(texts)),
            };
            row.insert(column.name.clone(), value);
        }
        lines.extend(format!("{}\n", Value::Object(row)).into_bytes());
    }
    lines
}

fn quoted(field: &str) -> String {
    format!("\"{}\"", field.replace('"', "\"\""))
}

/// The files that are looked up, which lack some keys and have some more than once.
pub fn references(definition: &Definition, random: &mut Random) -> Vec<Vec<u8>> {
    let of_reference = |reference: &music_streams::definition::Reference| {
        let names: Vec<String> = reference.attributes.iter().map(|attribute| quoted(&attribute.name)).collect();
        let mut file = format!("its_key,{}\n", names.join(","));
        let mut keys = match definition.field(&reference.key) {
            Some(Field::Column(Column { source: Source::Join { columns, with }, .. })) => {
                let of = |name: &String| texts(name, definition.field(name).unwrap().type_(), definition);
                let parts: Vec<Vec<String>> = columns.iter().map(of).collect();
                let joined =
                    |random: &mut Random| parts.iter().map(|texts| random.pick(texts)).collect::<Vec<_>>().join(with);
                (0..20).map(|_| joined(random)).collect()
            }
            Some(field) => texts(&reference.key, field.type_(), definition),
            None => Vec::new(),
        };
        keys.extend(keys.clone());
        for key in keys.iter().filter(|key| !key.is_empty()) {
            let values: Vec<String> =
                reference.attributes.iter().map(|it| quoted(&attribute(it, definition, random))).collect();
            if !random.once_in(3) {
                file += &format!("{},{}\n", quoted(key), values.join(","));
            }
        }
        // A file of no usable line would be refused.
        let first = keys.first().map_or(String::new(), |key| quoted(key));
        let needed: Vec<String> =
            reference.attributes.iter().map(|it| quoted(&texts(&it.name, &it.type_, definition)[0])).collect();
        file += &format!("{first},{}\n", needed.join(","));
        file.into_bytes()
    };
    definition.references.iter().map(of_reference).collect()
}

fn attribute(attribute: &Attribute, definition: &Definition, random: &mut Random) -> String {
    let texts = texts(&attribute.name, &attribute.type_, definition);
    match attribute.many {
        _ if attribute.is_optional && random.once_in(4) => String::new(),
        None => random.pick(&texts),
        Some(many) => {
            let values: Vec<String> = (0..1 + random.below(3)).map(|_| random.pick(&texts)).collect();
            values.join(&char::from(many).to_string())
        }
    }
}
