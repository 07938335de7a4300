//! Names: the values and files of a batch as numbers, and back.
//!
//! Pure. The codes of a column are those of its references' keys, followed by those of the values that these lack. A
//! value has exactly one code in a batch, and a code one value; the fold relies on it to produce one delta per report
//! item ([`crate::compute::fold`]). A column that may have no value has a code for that too.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::input::learned::Learned;
use crate::input::parsed;
use crate::memory::{allocated, table_bytes};
use crate::plan::columns::{Coded, Kind};
use crate::plan::{NO_CODE, Plan};
use crate::reference::References;
use crate::reference::keys::Keys;
use crate::reports::distinct::Member;

/// The number of texts that must have come again before they are published.
const MANY_AGAIN: usize = 64;

/// The meaning of a batch's codes. Clones share their content and see later additions.
#[derive(Debug, Clone)]
pub struct Names {
    plan: Arc<Plan>,
    references: Arc<References>,
    columns: Arc<[ColumnNames]>,
    learned: Arc<[Learned]>,
    sources: Arc<boxcar::Vec<String>>,
}

/// The codes of a code column that mean something.
#[derive(Debug)]
struct ColumnNames {
    /// The number of its references' keys: the code of the first learned value.
    known: u32,
    /// The code of no value, and of the value that reports have in its place.
    no_value: Option<u32>,
    unknown: Option<u32>,
}

/// A value that a code stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Of a column of texts.
    Text(&'a str),
    /// Of a column of integers.
    Number(i64),
}

impl<'a> Value<'a> {
    /// The value as text.
    pub fn text(self) -> Cow<'a, str> {
        match self {
            Value::Text(text) => Cow::Borrowed(text),
            Value::Number(number) => Cow::Owned(number.to_string()),
        }
    }

    /// The value as a member of a distinct count.
    pub(super) fn member(self) -> Member {
        match self {
            Value::Text(text) => Member::of_text(text),
            Value::Number(number) => Member::of_number(number),
        }
    }
}

impl Names {
    /// Returns the plan.
    #[inline]
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Returns the references.
    #[inline]
    pub fn references(&self) -> &Arc<References> {
        &self.references
    }

    /// Returns the values that no reference has, by code column.
    #[inline]
    pub fn learned(&self) -> &[Learned] {
        &self.learned
    }

    /// Returns the key of a source file.
    pub fn source(&self, code: u32) -> &str {
        self.sources.get(code as usize).map_or("", String::as_str)
    }

    /// Returns the value of a code of a column; of the code of no value an empty one.
    pub fn value(&self, column: usize, code: u32) -> Value<'_> {
        let learned = code.checked_sub(self.columns[column].known);
        match (&self.learned[column], learned, self.references.keys(column)) {
            (Learned::Texts(learned), Some(number), _) => Value::Text(learned.get(number)),
            (Learned::Numbers(learned), Some(number), _) => {
                Value::Number(learned.get(number as usize).copied().unwrap_or(0))
            }
            (_, None, Keys::Texts(keys)) => Value::Text(keys.get(code)),
            (_, None, Keys::Numbers(keys)) => Value::Number(keys.get(code)),
        }
    }

    /// Returns the code of no value, if the column may have none.
    #[inline]
    pub fn no_value(&self, column: usize) -> Option<u32> {
        self.columns[column].no_value
    }

    /// Returns the code under which reports count this one: the same, but for that of no value.
    #[inline]
    pub(super) fn counted_under(&self, column: usize, code: u32) -> u32 {
        let names = &self.columns[column];
        if names.no_value == Some(code) { names.unknown.unwrap_or(code) } else { code }
    }

    /// Returns the text that stands for no value, of its own code: an integer's unknown may be none.
    fn unknown_of(&self, column: usize, code: u32) -> Option<&str> {
        if self.no_value(column) == Some(code) { self.plan.codes[column].unknown.as_deref() } else { None }
    }

    /// Returns the number of codes of a column.
    pub(super) fn codes(&self, column: usize) -> usize {
        self.columns[column].known as usize + self.learned[column].count()
    }

    /// Returns the id of a report item: the text of the value that it stands for.
    pub fn key_text(&self, key: Option<Coded>, code: u32) -> Cow<'_, str> {
        match key {
            None => Cow::Borrowed(crate::definition::reports::ALL.1),
            Some(Coded::Column(column)) => match self.unknown_of(column, code) {
                Some(unknown) => Cow::Borrowed(unknown),
                None => self.value(column, code).text(),
            },
            Some(Coded::Attribute(attribute)) => Cow::Borrowed(self.references.values(attribute).text(code)),
        }
    }

    /// Returns the bytes of the texts that follow from a code: its own and those of its attributes.
    pub(super) fn text_bytes(&self, column: usize, code: u32) -> usize {
        let learned = code.checked_sub(self.columns[column].known);
        let own = match (&self.learned[column], learned, self.references.keys(column)) {
            (Learned::Texts(learned), Some(number), _) => learned.get(number).len(),
            (_, None, Keys::Texts(keys)) => keys.text_len(code),
            _ => self.unknown_of(column, code).map_or(0, str::len),
        };
        let attributes = self.plan.attributes.iter().enumerate();
        let of_code = attributes.filter(|(_, attribute)| attribute.code == column && attribute.has_codes);
        own + of_code.map(|(index, _)| self.references.values(index).whole_len(code)).sum::<usize>()
    }

    /// Returns an upper bound of the bytes of all texts, were each written once for each code that it follows from.
    pub(super) fn most_text_bytes(&self) -> usize {
        let of_learned = |column: usize| match &self.learned[column] {
            learned @ Learned::Texts(_) => learned.count().saturating_mul(self.plan.codes[column].max_bytes),
            Learned::Numbers(_) => 0,
        };
        (0..self.columns.len()).map(of_learned).fold(self.references.text_bytes(), usize::saturating_add)
    }
}

/// The assignment of codes to values that no reference has.
#[derive(Debug)]
pub struct Dictionary {
    names: Names,
    codes: Vec<Codes>,
    /// Bytes of the values and of the source files' keys.
    text_bytes: usize,
}

#[derive(Debug)]
enum Codes {
    /// With the number of texts that have come again although they were not published.
    Texts(HashMap<Arc<str>, u32, RandomState>, usize),
    Numbers(HashMap<i64, u32, RandomState>),
}

impl Dictionary {
    /// Returns a dictionary on top of references.
    pub fn of(plan: Arc<Plan>, references: Arc<References>) -> Self {
        let columns = (0..plan.codes.len()).map(|index| ColumnNames {
            known: references.keys(index).len() as u32,
            no_value: None,
            unknown: None,
        });
        let mut columns: Vec<ColumnNames> = columns.collect();
        let learned: Vec<Learned> = plan.codes.iter().map(|column| Learned::of(column.kind)).collect();
        let mut codes: Vec<Codes> = plan.codes.iter().map(|column| Codes::of(column.kind)).collect();
        let mut text_bytes = 0;
        for (index, column) in plan.codes.iter().enumerate().filter(|(_, column)| column.is_optional) {
            let (names, learned) = (&mut columns[index], &learned[index]);
            names.no_value = Some(names.known + learned.push_none());
            let unknown = column.unknown.as_deref();
            names.unknown = unknown.and_then(|unknown| match references.keys(index) {
                Keys::Texts(keys) => keys.find(unknown.as_bytes()).or_else(|| {
                    let number = codes[index].of_text(learned, &Arc::from(unknown), &mut text_bytes)?;
                    Some(names.known + number)
                }),
                Keys::Numbers(keys) => {
                    // A text that only reads as a number is none of the column's.
                    let unknown = unknown.parse::<i64>().ok().filter(|number| number.to_string() == unknown)?;
                    keys.find(unknown).or_else(|| Some(names.known + codes[index].of_number(learned, unknown)?))
                }
            });
        }
        let (columns, learned) = (columns.into(), learned.into());
        let names = Names { plan, references, columns, learned, sources: Arc::default() };
        Dictionary { names, codes, text_bytes }
    }

    /// Returns the names, which later additions extend.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Returns the number of values that no reference has, of those columns that are the key of a report: so many
    /// report items are new.
    pub fn new_keys(&self) -> usize {
        let is_key = |column: usize| self.names.plan.reports.iter().any(|it| it.key == Some(Coded::Column(column)));
        self.codes.iter().enumerate().filter(|(column, _)| is_key(*column)).map(|(_, codes)| codes.len()).sum()
    }

    /// Returns the bytes of memory that the names take, without the references. Tables count as if they were about to
    /// grow, when the old and the new one exist.
    pub fn memory_bytes(&self) -> usize {
        let bytes = |(codes, learned): (&Codes, &Learned)| match (codes, learned) {
            // The lists double as well when they grow. Their entries have a flag by which they are marked as present.
            (Codes::Texts(codes, _), Learned::Texts(texts)) => {
                2 * codes.len() * std::mem::size_of::<(Arc<str>, bool)>()
                    + 3 * table_bytes::<Arc<str>, u32>(codes.capacity())
                    + 2 * texts.published().memory_bytes()
            }
            (Codes::Numbers(codes), _) => {
                2 * codes.len() * std::mem::size_of::<(i64, bool)>() + 3 * table_bytes::<i64, u32>(codes.capacity())
            }
            (Codes::Texts(..), Learned::Numbers(_)) => 0,
        };
        self.codes.iter().zip(self.names.learned.iter()).map(bytes).sum::<usize>() + self.text_bytes
    }

    /// Registers a source file and returns its code.
    pub fn add_source(&mut self, key: &str) -> u32 {
        self.text_bytes += 2 * std::mem::size_of::<String>() + allocated(key.len());
        self.names.sources.push(key.to_owned()) as u32
    }

    /// Adds the codes of a block's column, and assigns codes to its new ids.
    pub(super) fn append(&mut self, column: usize, of_block: &[u32], new: &parsed::NewIds, codes: &mut Vec<u32>) {
        let (names, learned) = (&self.names.columns[column], &self.names.learned[column]);
        let (numbers, text_bytes) = (&mut self.codes[column], &mut self.text_bytes);
        let code = |number: Option<u32>| number.map_or(NO_CODE, |number| names.known + number);
        let new: Vec<u32> = match new {
            parsed::NewIds::Texts(new) => {
                new.iter().map(|text| code(numbers.of_text(learned, text, text_bytes))).collect()
            }
            parsed::NewIds::Numbers(new) => {
                new.iter().map(|&number| code(numbers.of_number(learned, number))).collect()
            }
        };
        numbers.publish(learned);
        if new.is_empty() && names.no_value.is_none() {
            return codes.extend_from_slice(of_block);
        }
        let no_value = names.no_value.unwrap_or(NO_CODE);
        codes.extend(of_block.iter().map(|&code| match parsed::Parsed::new_position(code) {
            Some(position) => new[position],
            None if code == NO_CODE => no_value,
            None => code,
        }));
    }
}

impl Codes {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Text => Codes::Texts(HashMap::default(), 0),
            Kind::Number => Codes::Numbers(HashMap::default()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Codes::Texts(codes, _) => codes.len(),
            Codes::Numbers(codes) => codes.len(),
        }
    }

    /// Returns the number of a text among the learned ones; none in a column of integers.
    fn of_text(&mut self, learned: &Learned, text: &Arc<str>, text_bytes: &mut usize) -> Option<u32> {
        let (Codes::Texts(codes, again), Learned::Texts(texts)) = (self, learned) else { return None };
        if let Some(&number) = codes.get(text) {
            *again += 1;
            return Some(number);
        }
        // An Arc has two counters in addition to its text.
        *text_bytes += allocated(16 + text.len());
        let number = texts.push(Arc::clone(text));
        codes.insert(Arc::clone(text), number);
        Some(number)
    }

    /// Publishes the texts when as many as half of them have come again: all publications together cost no more than
    /// looking those up did.
    fn publish(&mut self, learned: &Learned) {
        let (Codes::Texts(codes, again), Learned::Texts(texts)) = (self, learned) else { return };
        if *again > MANY_AGAIN.max(codes.len() / 2) {
            *again = 0;
            texts.publish();
        }
    }

    /// Returns the number of an integer among the learned ones; none in a column of texts.
    fn of_number(&mut self, learned: &Learned, number: i64) -> Option<u32> {
        let (Codes::Numbers(codes), Learned::Numbers(numbers)) = (self, learned) else { return None };
        Some(*codes.entry(number).or_insert_with(|| numbers.push(number) as u32))
    }
}
