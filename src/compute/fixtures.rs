//! Rows and definitions for tests: values by the definition's columns, as no reader of files is needed for them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;

use crate::compute::names::Dictionary;
use crate::compute::rows::Rows;
use crate::definition::columns::{Attribute, Column, Place, Source, TimeFormat, Type};
use crate::definition::input::{Delimited, Header, Input};
use crate::definition::reports::{Key, Period, Report};
use crate::definition::{Definition, Reference};
use crate::input::parsed::{NewIds, Parsed};
use crate::plan::{NO_CODE, NO_NUMBER, Plan};
use crate::reference::References;
use crate::reference::keys::Keys;

/// A value of a row.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Cell {
    None,
    Text(String),
    Number(i64),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::Text(text.to_owned())
    }
}

impl From<i64> for Cell {
    fn from(number: i64) -> Self {
        Cell::Number(number)
    }
}

/// A row: a value for each column of the definition, in its order. Joins are made, so that theirs are ignored.
pub(crate) type Cells = Vec<Cell>;

/// Makes a block of these rows.
pub(crate) fn block(plan: &Plan, references: &References, rows: &[Cells]) -> Parsed {
    let mut parsed = Parsed::of(plan);
    parsed.rows = rows.len() as u64;
    let mut known: Vec<HashMap<Cell, u32>> = plan.codes.iter().map(|_| HashMap::new()).collect();
    for row in rows {
        let joined = |column: &Column| match &column.source {
            Source::Join { columns, with } => {
                let parts: Option<Vec<&str>> = columns
                    .iter()
                    .map(|name| {
                        let place = plan.definition.columns.iter().position(|it| it.name == *name).unwrap();
                        match &row[place] {
                            Cell::Text(text) => Some(text.as_str()),
                            _ => None,
                        }
                    })
                    .collect();
                parts.map(|parts| Cell::Text(parts.join(with)))
            }
            _ => None,
        };
        for (index, column) in plan.definition.columns.iter().enumerate() {
            let is_join = matches!(column.source, Source::Join { .. });
            let cell = if is_join { joined(column).unwrap_or(Cell::None) } else { row[index].clone() };
            let places = plan.columns[index];
            if places.is_time {
                let Cell::Number(time) = cell else { panic!("a row without a time") };
                parsed.times.push(time);
            }
            if let Some(int) = places.int {
                parsed.ints[int].push(if let Cell::Number(number) = cell { number } else { NO_NUMBER });
            }
            if let Some(code) = places.code {
                let new = &mut parsed.new_ids[code];
                let found = code_of(&cell, references.keys(code), &mut known[code], new);
                parsed.codes[code].push(found);
            }
        }
    }
    parsed
}

/// Returns the code of a cell, of a new id if neither the keys nor the block have it.
fn code_of(cell: &Cell, keys: &Keys, known: &mut HashMap<Cell, u32>, new: &mut NewIds) -> u32 {
    let found = match (cell, keys) {
        (Cell::None, _) => return NO_CODE,
        (Cell::Text(text), Keys::Texts(keys)) => keys.find(text.as_bytes()),
        (Cell::Number(number), Keys::Numbers(keys)) => keys.find(*number),
        _ => panic!("a value of another type: {cell:?}"),
    };
    found.or_else(|| known.get(cell).copied()).unwrap_or_else(|| {
        let code = Parsed::new_code(known.len());
        known.insert(cell.clone(), code);
        match (cell, new) {
            (Cell::Text(text), NewIds::Texts(new)) => new.push(Arc::from(text.as_str())),
            (Cell::Number(number), NewIds::Numbers(new)) => new.push(*number),
            _ => panic!("a value of another type: {cell:?}"),
        }
        code
    })
}

/// Makes rows in codes of a dictionary.
pub(crate) fn rows(dictionary: &mut Dictionary, cells: &[Cells]) -> Rows {
    let names = dictionary.names().clone();
    let source = dictionary.add_source("incoming/a.csv");
    let mut rows = Rows::with_capacity(names.plan(), cells.len());
    rows.append(&block(names.plan(), names.references(), cells), source, dictionary);
    rows
}

/// Noon of a day of this century, in microseconds.
pub(crate) const NOON: i64 = 20_000 * 86_400_000_000 + 43_200_000_000;

fn csv() -> Delimited {
    let null = vec![String::new()];
    Delimited { delimiter: b',', quote: Some(b'"'), header: Header::FirstLine, comment: None, null }
}

fn column(name: &str, type_: Type, unknown: Option<&str>, is_optional: bool) -> Column {
    let source = Source::Places(vec![Place::Name(name.to_owned())]);
    Column { name: name.to_owned(), type_, source, is_optional, unknown: unknown.map(str::to_owned) }
}

fn attribute(name: &str, type_: Type, unknown: Option<&str>, many: Option<u8>) -> Attribute {
    let (place, unknown) = (Place::Name(name.to_owned()), unknown.map(str::to_owned));
    Attribute { name: name.to_owned(), type_, place, is_optional: true, unknown, many }
}

/// A definition with columns and attributes of every type, some optional, and these reports.
pub(crate) fn definition(reports: Vec<Report>, zone: &str) -> Definition {
    let text = || Type::Text { max_bytes: 100, is_cut: false };
    let integer = || Type::Integer { min: i64::MIN, max: i64::MAX };
    let reference = |name: &str, key: &str, attributes| Reference {
        name: name.to_owned(),
        file: format!("{name}.csv"),
        format: csv(),
        key: key.to_owned(),
        key_from: Place::Name(key.to_owned()),
        attributes,
    };
    let join = Source::Join { columns: vec!["shop".to_owned(), "item".to_owned()], with: "/".to_owned() };
    Definition {
        name: "orders".to_owned(),
        time: "at".to_owned(),
        zone: TimeZone::get(zone).unwrap(),
        earliest: 10_957,
        future: Duration::from_secs(86_400),
        input: Input::Delimited(csv()),
        columns: vec![
            column("item", Type::Id { max_bytes: 64 }, None, false),
            column("at", Type::Time { format: TimeFormat::Iso, zone: TimeZone::UTC }, None, false),
            column("shop", text(), Some("nowhere"), true),
            column("buyer", integer(), Some("nobody"), true),
            column("pieces", Type::Integer { min: -1000, max: 1000 }, None, true),
            column("price", Type::Decimal { places: 2, min: -99_999, max: 99_999 }, None, false),
            column("paid", Type::Time { format: TimeFormat::Unix, zone: TimeZone::UTC }, None, true),
            Column { source: join, ..column("place", text(), Some("nothing"), true) },
        ],
        conditions: Vec::new(),
        references: vec![
            reference(
                "items",
                "item",
                vec![
                    attribute("title", text(), None, None),
                    attribute("kind", text(), Some("other"), Some(b'|')),
                    attribute("weight", Type::Decimal { places: 1, min: 0, max: 1000 }, None, None),
                    attribute("level", integer(), Some("0"), None),
                ],
            ),
            reference("buyers", "buyer", vec![attribute("land", text(), Some("nowhere"), None)]),
        ],
        reports,
    }
}

/// The references of [`definition`].
pub(crate) async fn references(plan: &Plan) -> References {
    let items =
        "item,title,kind,weight,level\ni1,One,a|b,1.5,1\ni2,Two,,2,2\ni3,,b,,\ni1,Other,c,9,9\ni4,Four,other,0.1,1\n";
    let buyers = "buyer,land\n1,x\n2,y\n3,\n0,z\n";
    References::parse(plan, vec![items.as_bytes(), buyers.as_bytes()]).await.unwrap()
}

/// A report of these parts, without lists.
pub(crate) fn report(name: &str, key: Key, every: Period) -> Report {
    Report {
        name: name.to_owned(),
        key,
        every,
        table: name.to_owned(),
        attributes: Vec::new(),
        top: None,
        is_personal: false,
        measures: Vec::new(),
    }
}
