//! Any definition within the rules, for properties.

use std::time::Duration;

use jiff::tz::{TimeZone, TimeZoneDatabase};
use music_streams::definition::columns::{Attribute, Column, JOINED, KeyPart, Place, Source, TimeFormat, Type};
use music_streams::definition::conditions::{Condition, Test, Values};
use music_streams::definition::input::{Delimited, Header, Input};
use music_streams::definition::reports::{Aggregate, Key, Measure, Period, Report, Top, Unit};
use music_streams::definition::{Definition, Reference};
use proptest::prelude::*;
use proptest::sample::select;

/// A text that needs escapes, and has no character that is forbidden anywhere.
fn text(bytes: usize) -> impl Strategy<Value = String> {
    let char = prop_oneof![Just('"'), Just('\\'), Just('\''), Just('\u{7f}'), Just('é'), Just('{'), any::<char>()];
    prop::collection::vec(char, 1..8).prop_map(move |chars| {
        let mut text: String = chars.into_iter().collect();
        text.truncate(text.floor_char_boundary(bytes));
        if text.is_empty() { "x".to_owned() } else { text }
    })
}

fn zone() -> impl Strategy<Value = TimeZone> {
    const NAMES: [&str; 4] = ["UTC", "Europe/Lisbon", "Asia/Kathmandu", "America/St_Johns"];
    select(&NAMES[..]).prop_map(|name| TimeZoneDatabase::bundled().get(name).unwrap())
}

/// Any number within bounds, however far apart they are.
fn within(least: i64, greatest: i64) -> impl Strategy<Value = i64> + Clone {
    any::<i64>().prop_map(move |number| number.clamp(least, greatest))
}

fn bounds(least: i64, greatest: i64) -> impl Strategy<Value = (i64, i64)> {
    let bound = prop_oneof![Just(least), Just(greatest), within(least, greatest), -1000..1000_i64];
    let bound = bound.prop_map(move |bound| bound.clamp(least, greatest));
    (bound.clone(), bound).prop_map(|(one, other)| (one.min(other), one.max(other)))
}

/// A type but for times.
fn value_type() -> impl Strategy<Value = Type> {
    const DECIMAL: i64 = 999_999_999_999_999_999;
    prop_oneof![
        (1..=1024_usize).prop_map(|max_bytes| Type::Id { max_bytes }),
        (1..=1024_usize, any::<bool>()).prop_map(|(max_bytes, is_cut)| Type::Text { max_bytes, is_cut }),
        bounds(i64::MIN, i64::MAX).prop_map(|(min, max)| Type::Integer { min, max }),
        (1..=9_u8, bounds(-DECIMAL, DECIMAL)).prop_map(|(places, (min, max))| Type::Decimal { places, min, max }),
    ]
}

fn time_type() -> impl Strategy<Value = Type> {
    let pattern = select(&["%Y-%m-%d", "%d/%b/%Y:%H:%M", "\"%Y%m%d\" %H"][..]);
    let zoned = prop_oneof![Just(TimeFormat::Iso), pattern.prop_map(|it| TimeFormat::Pattern(it.to_owned()))];
    let numbers = select(&[TimeFormat::Unix, TimeFormat::UnixMillis, TimeFormat::UnixMicros][..]);
    prop_oneof![
        (zoned, zone()).prop_map(|(format, zone)| Type::Time { format, zone }),
        numbers.prop_map(|format| Type::Time { format, zone: TimeZone::UTC }),
    ]
}

fn input() -> impl Strategy<Value = Input> {
    let header = prop_oneof![Just(Header::FirstLine), Just(Header::Missing), Just(Header::Directive)];
    let characters = (select(&b",;| \t"[..]), prop_oneof![Just(None), Just(Some(b'"')), Just(Some(b'\''))]);
    let comment = prop::option::of(select(&["#", "//", "é"][..]));
    let null = prop_oneof![Just(vec![String::new()]), prop::collection::vec(text(8), 0..3)];
    prop_oneof![
        prop::option::of(text(20)).prop_map(|records| Input::Json { records }),
        (header, characters, comment, null).prop_map(|(header, (delimiter, quote), comment, null)| {
            // A file of the W3C has neither.
            let is_plain = header == Header::Directive;
            let quote = quote.filter(|_| !is_plain);
            let comment = comment.filter(|_| !is_plain).map(str::to_owned);
            Input::Delimited(Delimited { delimiter, quote, header, comment, null })
        }),
    ]
}

/// A place that fits an input.
fn place(input: &Input) -> BoxedStrategy<Place> {
    let number = (1..=4096_usize).prop_map(Place::Number);
    let name = prop_oneof![Just("c1".to_owned()), text(20)]
        .prop_filter("a part of the key", |name| !name.starts_with("@key"))
        .prop_map(Place::Name);
    match input {
        Input::Json { .. } => {
            let key = prop_oneof![Just("c1".to_owned()), "[a-z@]{1,4}"];
            prop::collection::vec(key, 1..4)
                .prop_filter("a part of the key", |path| path[0] != "@key")
                .prop_map(Place::Path)
                .boxed()
        }
        Input::Delimited(Delimited { header: Header::FirstLine, .. }) => prop_oneof![number, name].boxed(),
        Input::Delimited(Delimited { header: Header::Missing, .. }) => number.boxed(),
        Input::Delimited(Delimited { header: Header::Directive, .. }) => name.boxed(),
    }
}

fn column(input: &Input, index: usize) -> impl Strategy<Value = Column> + use<> {
    let place = place(input);
    let source = prop_oneof![
        4 => prop::collection::vec(place, 1..=4).prop_map(Source::Places),
        1 => (1..=32_usize).prop_map(|number| Source::Key(KeyPart::Number(number))),
        1 => "[a-z]{1,5}".prop_map(|name| Source::Key(KeyPart::Name(name))),
    ];
    let type_ = prop_oneof![4 => value_type(), 1 => time_type()];
    // Of integers it may be a number, or only look like one.
    let unknown = prop_oneof![2 => text(64), 1 => select(&["0", "7", "007", "+7"][..]).prop_map(str::to_owned)];
    (type_, source, prop::option::of(unknown)).prop_map(move |(type_, mut source, unknown)| {
        if let (Type::Id { .. } | Type::Integer { .. } | Type::Decimal { .. }, Source::Places(places)) =
            (&type_, &mut source)
        {
            places.truncate(1);
        }
        let unknown = unknown.filter(|_| is_code(&type_));
        Column { name: format!("c{index}"), is_optional: unknown.is_some(), unknown, type_, source }
    })
}

fn is_code(type_: &Type) -> bool {
    matches!(type_, Type::Id { .. } | Type::Text { .. } | Type::Integer { .. })
}

fn is_text(type_: &Type) -> bool {
    matches!(type_, Type::Id { .. } | Type::Text { .. })
}

fn attribute(index: usize) -> impl Strategy<Value = Attribute> {
    let place = prop_oneof![(1..=9_usize).prop_map(Place::Number), text(9).prop_map(Place::Name)];
    let many = prop::option::of(select(&b";|,"[..]));
    (value_type(), place, any::<bool>(), text(64), many).prop_map(move |(type_, place, is_optional, unknown, many)| {
        let unknown = is_code(&type_).then_some(unknown);
        let many = many.filter(|_| is_text(&type_));
        let is_one = |unknown: &String| many.is_none_or(|many| !unknown.contains(char::from(many)));
        let unknown = unknown.map(|unknown| if is_one(&unknown) { unknown } else { "none".to_owned() });
        Attribute { name: format!("a{index}"), type_, place, is_optional, unknown, many }
    })
}

/// A condition of a column, if its type has some.
fn condition(column: &Column) -> Option<BoxedStrategy<Condition>> {
    let name = column.name.clone();
    let test = match &column.type_ {
        Type::Id { .. } | Type::Text { .. } => {
            let values = prop_oneof![Just(vec!["x".to_owned()]), Just(vec!["y".to_owned(), "\"".to_owned()])];
            let values = values.prop_map(Values::Texts).prop_filter("fits", {
                let max = match column.type_ {
                    Type::Id { max_bytes } | Type::Text { max_bytes, .. } => max_bytes,
                    _ => 0,
                };
                move |_| max >= 1
            });
            prop_oneof![values.clone().prop_map(Test::In), values.prop_map(Test::NotIn)].boxed()
        }
        &(Type::Integer { min, max } | Type::Decimal { min, max, .. }) => {
            let values = within(min, max).prop_map(|value| Values::Numbers(vec![value]));
            let range = bounds(min, max).prop_map(|(min, max)| Test::Within { min: Some(min), max: Some(max) });
            let least = within(min, max).prop_map(|min| Test::Within { min: Some(min), max: None });
            prop_oneof![values.clone().prop_map(Test::In), values.prop_map(Test::NotIn), range, least].boxed()
        }
        Type::Time { .. } => return None,
    };
    Some(test.prop_map(move |test| Condition { column: name.clone(), test }).boxed())
}

fn conditions(columns: &[Column]) -> BoxedStrategy<Vec<Condition>> {
    let all: Vec<_> =
        columns.iter().filter(|it| !matches!(it.source, Source::Join { .. })).filter_map(condition).collect();
    if all.is_empty() {
        Just(Vec::new()).boxed()
    } else {
        prop::sample::subsequence(all, 0..2).prop_flat_map(|them| them).boxed()
    }
}

/// The measures of a report: a count, and one for each column and attribute that has one.
fn measures(columns: &[Column], reference: Option<&Reference>) -> BoxedStrategy<Vec<Measure>> {
    let mut of_columns: Vec<(usize, Aggregate)> = Vec::new();
    for (index, column) in columns.iter().enumerate().skip(1).take(4) {
        let of = column.name.clone();
        of_columns.push((
            index,
            match &column.type_ {
                Type::Id { .. } | Type::Text { .. } => Aggregate::Distinct { of },
                Type::Integer { .. } => Aggregate::Sum { of, divide: [1, 10, 100, 1000, 1_000_000][index % 5] },
                Type::Decimal { .. } if index % 2 == 0 => Aggregate::Sum { of, divide: [1, 100, 1000][index % 3] },
                Type::Decimal { .. } => Aggregate::Min { of },
                Type::Time { .. } => Aggregate::Max { of },
            },
        ));
    }
    for (index, attribute) in reference.iter().flat_map(|it| &it.attributes).enumerate() {
        let of = attribute.name.clone();
        of_columns.extend(match &attribute.type_ {
            Type::Integer { .. } => Some((20 + index, Aggregate::Max { of })),
            Type::Decimal { .. } => Some((20 + index, Aggregate::Sum { of, divide: 10 })),
            _ => None,
        });
    }
    let parts: Vec<String> = of_columns
        .iter()
        .filter(|(_, aggregate)| matches!(aggregate, Aggregate::Sum { .. } | Aggregate::Distinct { .. }))
        .map(|(index, _)| format!("m{index}"))
        .chain(["rows".to_owned()])
        .collect();
    let count = conditions(columns).prop_map(|conditions| Measure {
        name: "rows".to_owned(),
        aggregate: Aggregate::Count,
        conditions,
        unit: None,
    });
    let others: Vec<_> = of_columns
        .into_iter()
        .map(|(index, aggregate)| {
            conditions(columns).prop_map(move |conditions| Measure {
                name: format!("m{index}"),
                // Figures that are no numbers of things may have a unit.
                unit: match aggregate {
                    Aggregate::Sum { .. } => Some(Unit::Seconds),
                    Aggregate::Max { .. } => Some(Unit::Bytes),
                    _ => None,
                },
                aggregate: aggregate.clone(),
                conditions,
            })
        })
        .collect();
    let ratio = prop::option::of((select(parts.clone()), select(parts), 0..=9_u8));
    (count, others, ratio)
        .prop_map(|(count, others, ratio)| {
            let mut measures = vec![count];
            measures.extend(others);
            let ratio = ratio.map(|(of, by, places)| Aggregate::Ratio { of, by, places });
            measures.extend(ratio.map(|aggregate| Measure {
                name: "ratio".to_owned(),
                aggregate,
                conditions: Vec::new(),
                unit: None,
            }));
            measures
        })
        .boxed()
}

fn report(columns: Vec<Column>, reference: Option<Reference>, index: usize) -> BoxedStrategy<Report> {
    let mut keys: Vec<Key> = vec![Key::All];
    // The first column says when, and the measures are of the four behind it.
    let counted = columns.iter().skip(5).filter(|it| is_code(&it.type_) && !matches!(it.source, Source::Join { .. }));
    keys.extend(counted.map(|column| Key::Field(column.name.clone())));
    let attributes = reference.iter().flat_map(|reference| &reference.attributes);
    keys.extend(attributes.filter(|it| it.unknown.is_some()).map(|it| Key::Field(it.name.clone())));
    let every = prop_oneof![Just(Period::Day), Just(Period::Hour)];
    let table = prop_oneof![Just(format!("r{index}0")), Just(format!("Table-{index}.x"))];
    let (keep, tops) = (prop_oneof![Just(100_usize), 1..=1000_usize], any::<(bool, bool)>());
    let shown = prop::sample::subsequence(
        columns.iter().map(|it| it.name.clone()).collect::<Vec<_>>(),
        0..=columns.len().min(4),
    );
    (select(keys), every, table, measures(&columns, reference.as_ref()), keep, tops, shown)
        .prop_map(move |(key, every, table, measures, keep, (has_top, is_personal), shown)| {
            let of_reference = |name: &str| reference.as_ref().filter(|reference| reference.key == name);
            let (attributes, top) = match &key {
                Key::All => (Vec::new(), None),
                Key::Field(name) => {
                    let follows = of_reference(name).map_or(Vec::new(), |it| it.attributes.iter().collect());
                    let under =
                        follows.iter().filter(|it| is_code(&it.type_)).take(2).map(|it| it.name.clone()).collect();
                    let top = Top { by: "rows".to_owned(), under, keep };
                    let follows = follows.iter().map(|it| it.name.clone());
                    // Of columns the value of the latest row.
                    let shown = shown.into_iter().filter(|column| column != name);
                    (follows.chain(shown).collect(), has_top.then_some(top))
                }
            };
            let name = format!("r{index}0");
            let mut report = Report { name, key, every, table, attributes, top, is_personal, measures };
            let most = report.most_kept(1024);
            report.top.iter_mut().for_each(|top| top.keep = top.keep.min(most));
            report
        })
        .boxed()
}

fn reference(columns: &[Column]) -> BoxedStrategy<Option<Reference>> {
    let keys: Vec<String> = columns.iter().filter(|it| is_code(&it.type_)).map(|it| it.name.clone()).collect();
    if keys.is_empty() {
        return Just(None).boxed();
    }
    let attributes: Vec<_> = (0..3).map(attribute).collect();
    let file = select(&[("a.csv", b',', Some(b'"')), ("b/c.tsv.zst", b'\t', None), ("d.csv.gz", b',', Some(b'"'))][..]);
    let made = (select(keys), file, prop_oneof![Just(Place::Number(2)), text(9).prop_map(Place::Name)], attributes);
    let made = made.prop_map(|(key, (file, delimiter, quote), key_from, attributes)| {
        let null = vec![String::new()];
        let format = Delimited { delimiter, quote, header: Header::FirstLine, comment: None, null };
        Reference { name: "things".to_owned(), file: file.to_owned(), format, key, key_from, attributes }
    });
    prop::option::of(made).boxed()
}

/// Any definition within the rules.
pub fn definition() -> impl Strategy<Value = Definition> {
    let rows = (input(), 0..8_usize).prop_flat_map(|(input, count)| {
        let time = (place(&input), time_type()).prop_map(|(place, type_)| Column {
            name: "c0".to_owned(),
            type_,
            source: Source::Places(vec![place]),
            is_optional: false,
            unknown: None,
        });
        let columns: Vec<_> = (1..=count).map(|index| column(&input, index)).collect();
        (Just(input), time, columns, prop::option::of(text(16)), any::<bool>())
    });
    let rows = rows.prop_map(|(input, time, others, with, is_known)| {
        let mut columns = vec![time];
        columns.extend(others);
        let texts: Vec<&Column> = columns.iter().filter(|column| is_text(&column.type_)).take(4).collect();
        if let (Some(with), [_, _, ..]) = (with, texts.as_slice()) {
            let unknown = is_known.then(|| "?".to_owned());
            let source = Source::Join { columns: texts.iter().map(|it| it.name.clone()).collect(), with };
            let is_optional = texts.iter().any(|column| column.is_optional);
            columns.push(Column { name: "joined".to_owned(), type_: JOINED, source, is_optional, unknown });
        }
        (input, columns)
    });
    let whole = rows.prop_flat_map(|(input, columns)| {
        let reference = reference(&columns);
        let conditions = conditions(&columns);
        (Just(input), Just(columns), reference, conditions)
    });
    let whole = whole.prop_flat_map(|(input, columns, reference, conditions)| {
        let reports: Vec<_> = (1..3).map(|index| report(columns.clone(), reference.clone(), index)).collect();
        let top = (zone(), -1000..100_000_i32, prop_oneof![Just(86_400_u64), 0..31_622_400_u64]);
        (Just(input), Just(columns), Just(reference), Just(conditions), reports, top)
    });
    whole.prop_map(|(input, columns, reference, conditions, reports, (zone, earliest, future))| Definition {
        name: "any-1".to_owned(),
        time: "c0".to_owned(),
        zone,
        earliest,
        future: Duration::from_secs(future),
        input,
        columns,
        conditions,
        references: reference.into_iter().collect(),
        reports,
    })
}
