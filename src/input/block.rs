//! Blocks of a file: text to rows in codes, integers and times. Every byte of input is read here.
//!
//! A block is a few hundred kilobytes of whole records. Blocks are independent of each other, so that several cores can
//! parse them at once.
//!
//! There are four ways through a block. They give the same rows for every input, which the tests of [`crate::input`]
//! check:
//!
//! 1. **Canonical lines** of one shape are recognized whole (`canonical`).
//! 2. **Plain lines**, in a block without quotes, are split at every delimiter (`delimited`).
//! 3. **Records** of fields with quotes are split by csv-async ([`crate::formats::csv`]).
//! 4. **Records of JSON** are scanned for the values that are wanted ([`crate::formats::json`]).
//!
//! docs/adr/0011-compute-path.md has the measurements.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::definition::columns::MAX_VALUE_BYTES;
use crate::definition::conditions::{Test, Values};
use crate::formats::Raw;
use crate::formats::csv::Line;
use crate::input::canonical::LastDate;
use crate::input::codes::{BlockTexts, Codes};
use crate::input::layout::Layout;
use crate::input::learned::Learned;
use crate::input::parsed::Parsed;
use crate::input::rejection::Rejection;
use crate::input::rules::{Format, Source};
use crate::input::value::{Value, read};
use crate::plan::{NO_CODE, NO_NUMBER};
use crate::reference::References;

/// A part of a file.
#[derive(Debug)]
pub struct Block {
    pub(super) text: Text,
    pub(super) layout: std::sync::Arc<Layout>,
}

/// The records of a block.
#[derive(Debug)]
pub(super) enum Text {
    Delimited(crate::formats::csv::Block),
    Json(crate::formats::json::Block),
}

impl Block {
    /// Judges every row and finds its codes. Values that no reference has are new in the block.
    pub fn parse(&self, references: &References) -> Parsed {
        self.parse_with(references, &[])
    }

    /// Judges every row and finds its codes. `learned` has, by code column, the values that earlier blocks had.
    pub fn parse_with(&self, references: &References, learned: &[Learned]) -> Parsed {
        let text = match &self.text {
            Text::Delimited(block) => block.text(),
            Text::Json(block) => block.whole_text(),
        };
        let mut parser = Parser::new(&self.layout, text, references, learned);
        match &self.text {
            Text::Delimited(block) => parser.delimited(block),
            Text::Json(block) => parser.json(block),
        }
        parser.finish()
    }
}

/// The parser of a block.
pub(super) struct Parser<'b> {
    pub(super) layout: &'b Layout,
    pub(super) parsed: Parsed,
    /// By code column.
    pub(super) codes: Vec<Codes<'b>>,
    texts: BlockTexts<'b>,
    /// The joins, each with the codes of its pairs.
    joins: Vec<Join<'b>>,
    /// Of the current row, by code column: the bytes of its text, and the new integers before it.
    bytes: Vec<Option<usize>>,
    numbers: Vec<usize>,
    pub(super) last_date: LastDate,
    scratch: Vec<u8>,
}

/// A column that is a join of others.
struct Join<'b> {
    column: usize,
    code: usize,
    /// The code columns of its parts.
    parts: Vec<usize>,
    with: &'b str,
    /// The codes of pairs: of the first two parts, of that and the third, and so on. All but the last are numbers of
    /// pairs, and the last are codes of the join.
    pairs: Vec<HashMap<(u32, u32), u32, RandomState>>,
}

impl<'b> Parser<'b> {
    fn new(layout: &'b Layout, text: &'b [u8], references: &'b References, learned: &'b [Learned]) -> Self {
        let rules = &layout.rules;
        let joins = rules.columns.iter().enumerate().filter_map(|(column, rule)| {
            let Source::Join { columns, with } = &rule.source else { return None };
            let parts: Vec<usize> = columns.iter().filter_map(|&part| rules.columns[part].places.code).collect();
            let pairs = vec![HashMap::default(); parts.len().saturating_sub(1)];
            Some(Join { column, code: rule.places.code?, parts, with, pairs })
        });
        Parser {
            layout,
            parsed: Parsed::of(&rules.plan),
            codes: (0..rules.plan.codes.len())
                .map(|column| Codes::of(references.keys(column), learned.get(column)))
                .collect(),
            texts: BlockTexts::of(text),
            joins: joins.collect(),
            bytes: vec![None; rules.plan.codes.len()],
            numbers: vec![0; rules.plan.codes.len()],
            last_date: LastDate::default(),
            scratch: Vec::new(),
        }
    }

    fn finish(mut self) -> Parsed {
        for (own, codes) in self.codes.iter_mut().zip(&mut self.parsed.codes) {
            own.look_up(&self.texts, codes);
        }
        self.join();
        self.parsed.new_ids = self.codes.into_iter().map(Codes::into_new).collect();
        self.parsed
    }

    /// Makes room for rows.
    pub(super) fn reserve(&mut self, rows: usize) {
        self.parsed.codes.iter_mut().for_each(|codes| codes.reserve(rows));
        self.parsed.ints.iter_mut().for_each(|ints| ints.reserve(rows));
        self.parsed.times.reserve(rows);
    }

    /// Takes a record, whose places are `raw`. `line` and `shown`, its fields, are for the list of rejected rows.
    #[inline]
    pub(super) fn add<'t, 's>(
        &mut self,
        line: impl FnOnce() -> Line,
        raw: impl Fn(usize) -> Raw<'t>,
        shown: impl Iterator<Item = &'s [u8]>,
    ) {
        if !self.layout.rules.conditions.is_empty() && self.is_passed_over(&raw) {
            self.parsed.passed_over += 1;
            return;
        }
        match self.push(&raw) {
            Ok(()) => self.parsed.rows += 1,
            Err(rejection) => self.reject(line(), rejection, shown),
        }
    }

    /// Rejects a row.
    #[cold]
    pub(super) fn reject<'s>(&mut self, line: Line, rejection: Rejection, shown: impl Iterator<Item = &'s [u8]>) {
        let rules = &self.layout.rules;
        let kind = rejection.kind(rules);
        self.parsed.rows += 1;
        let record = matches!(rules.format, Format::Json { .. }).then(|| self.parsed.rows + self.parsed.passed_over);
        self.parsed.rejects.add((line, record), &kind, || rejection.words(rules), shown);
        *self.parsed.rejected.entry(kind).or_default() += 1;
    }

    /// Returns true if a condition is not met. A value that its column does not accept meets every condition: the row
    /// is rejected for it.
    fn is_passed_over<'t>(&mut self, raw: &impl Fn(usize) -> Raw<'t>) -> bool {
        let Layout { rules, constants, .. } = self.layout;
        rules.conditions.iter().any(|(column, test)| {
            let value = read(&rules.columns[*column], &constants[*column], raw, &mut self.scratch);
            value.is_ok_and(|value| !holds(test, value))
        })
    }

    /// Adds a row, or returns the reason why it is not good.
    #[inline]
    fn push<'t>(&mut self, raw: &impl Fn(usize) -> Raw<'t>) -> Result<(), Rejection> {
        let Layout { rules, constants, .. } = self.layout;
        let row = self.parsed.times.len();
        for (column, (rule, constant)) in rules.columns.iter().zip(constants).enumerate() {
            if let Source::Join { .. } = rule.source {
                continue;
            }
            let value = read(rule, constant, raw, &mut self.scratch).map_err(|problem| problem.of_column(column));
            let Ok(value) = value.and_then(|value| self.layout.check(column, value)) else {
                self.take_back(row);
                return Err(self.reason(raw));
            };
            let places = rule.places;
            if let Some(code) = places.code {
                let codes = &mut self.codes[code];
                self.numbers[code] = codes.new_numbers();
                self.bytes[code] = None;
                self.parsed.codes[code].push(match value {
                    Value::Text(text) => {
                        self.bytes[code] = Some(text.len());
                        codes.note(row, self.texts.place(text));
                        NO_CODE
                    }
                    Value::Number(number) => codes.number(number),
                    Value::Nothing => NO_CODE,
                });
            }
            let number = if let Value::Number(number) = value { number } else { NO_NUMBER };
            if let Some(int) = places.int {
                self.parsed.ints[int].push(number);
            }
            if places.is_time {
                self.parsed.times.push(number);
            }
        }
        let is_too_long = |join: &&Join<'_>| {
            let bytes: Option<usize> = join.parts.iter().map(|&part| self.bytes[part]).sum();
            bytes.is_some_and(|bytes| bytes + join.with.len() * (join.parts.len() - 1) > MAX_VALUE_BYTES)
        };
        match self.joins.iter().find(is_too_long).map(|join| join.column) {
            Some(column) => {
                self.take_back(row);
                Err(Rejection::Long(column))
            }
            None => Ok(()),
        }
    }

    /// Takes back what was added of a row.
    #[cold]
    fn take_back(&mut self, row: usize) {
        for (code, codes) in self.parsed.codes.iter_mut().enumerate().filter(|(_, codes)| codes.len() > row) {
            codes.truncate(row);
            self.codes[code].take_back(row, self.numbers[code]);
        }
        self.parsed.ints.iter_mut().for_each(|ints| ints.truncate(row));
        self.parsed.times.truncate(row);
    }

    /// Returns the reason why a row is not good: a column without its value, or else the first bad value.
    #[cold]
    fn reason<'t>(&mut self, raw: &impl Fn(usize) -> Raw<'t>) -> Rejection {
        let Layout { rules, constants, .. } = self.layout;
        let mut first = None;
        for (column, (rule, constant)) in rules.columns.iter().zip(constants).enumerate() {
            if let Source::Join { .. } = rule.source {
                continue;
            }
            let value = read(rule, constant, raw, &mut self.scratch).map_err(|problem| problem.of_column(column));
            match value.and_then(|value| self.layout.check(column, value)) {
                Err(missing @ Rejection::Missing(_)) => return missing,
                Err(rejection) => first = first.or(Some(rejection)),
                Ok(_) => {}
            }
        }
        // One of them is bad.
        first.unwrap_or(Rejection::Json)
    }

    /// Adds the joins, once the codes of their parts are there.
    fn join(&mut self) {
        let Parser { joins, parsed, codes, .. } = self;
        for Join { code, parts, with, pairs, .. } in joins {
            let Some((&first, others)) = parts.split_first() else { continue };
            let last = pairs.len().saturating_sub(1);
            for row in 0..parsed.times.len() {
                let mut joined = parsed.codes[first][row];
                for (index, (pairs, &part)) in pairs.iter_mut().zip(others).enumerate() {
                    let pair = (joined, parsed.codes[part][row]);
                    if pair.0 == NO_CODE || pair.1 == NO_CODE {
                        joined = NO_CODE;
                        break;
                    }
                    let number = pairs.len() as u32;
                    joined = match pairs.get(&pair) {
                        Some(&known) => known,
                        None if index < last => *pairs.entry(pair).or_insert(number),
                        None => {
                            // The text is made when the pair is new. Other parts may make the same text.
                            let text = |&part: &usize| codes[part].text_of(parsed.codes[part][row]);
                            let text = parts.iter().map(text).collect::<Vec<_>>().join(with);
                            *pairs.entry(pair).or_insert(codes[*code].text(&text))
                        }
                    };
                }
                parsed.codes[*code].push(joined);
            }
        }
    }
}

/// Returns true if a value meets a test.
fn holds(test: &Test, value: Value<'_>) -> bool {
    let is_among = |values: &Values| match (values, value) {
        (Values::Texts(texts), Value::Text(text)) => texts.iter().any(|known| known == text),
        (Values::Numbers(numbers), Value::Number(number)) => numbers.contains(&number),
        _ => false,
    };
    match test {
        Test::In(values) => is_among(values),
        Test::NotIn(values) => !is_among(values),
        Test::Within { min, max } => match value {
            Value::Number(number) => min.is_none_or(|min| number >= min) && max.is_none_or(|max| number <= max),
            Value::Nothing | Value::Text(_) => false,
        },
        Test::Present(is_present) => *is_present == (value != Value::Nothing),
    }
}
