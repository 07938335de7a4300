//! Parsing: the files of all references, line by line.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use foldhash::fast::RandomState;
use tokio::io::AsyncRead;

use crate::definition::columns::{Attribute, JOINED, Source, Type};
use crate::definition::{Definition, Reference};
use crate::memory::{allocated, table_bytes};
use crate::plan::{NO_CODE, NO_NUMBER, Plan};
use crate::reference::error::CatalogueError;
use crate::reference::keys::Keys;
use crate::reference::lines::{Lines, Table};
use crate::reference::values::{Lists, Values};
use crate::reference::{References, file_key};
use crate::values::number::{NotDecimal, decimal, integer};
use crate::values::text::{NotText, id, text};

/// Most values of a key in an attribute with many. Each one is counted on its own for every row; further ones are
/// skipped.
pub const MAX_MANY: usize = 50;
/// Number of lines with the same problem that the log names.
const NAMED_LINES: usize = 5;
/// Lines between two looks at the memory.
const LINES_PER_LOOK: u64 = 16;

impl References {
    /// Parses the files of a plan's references, in the definition's order, without a bound on memory.
    pub async fn parse<F: AsyncRead + Unpin + Send>(plan: &Plan, files: Vec<F>) -> Result<Self, CatalogueError> {
        Self::parse_within(usize::MAX, plan, files).await
    }

    /// Parses them within `limit_bytes` of memory. Unusable lines are counted and skipped.
    pub async fn parse_within<F: AsyncRead + Unpin + Send>(
        limit_bytes: usize,
        plan: &Plan,
        files: Vec<F>,
    ) -> Result<Self, CatalogueError> {
        let mut references = References::empty(plan);
        for ((index, reference), file) in plan.definition.references.iter().enumerate().zip(files) {
            Parser::new(plan, &mut references, index, reference, limit_bytes).parse(file).await?;
        }
        for keys in &mut references.keys {
            keys.complete();
        }
        Ok(references)
    }
}

/// A value of a line.
enum Value<'l> {
    None,
    Text(&'l str),
    Number(i64),
}

/// The parser of one reference's file.
struct Parser<'p> {
    plan: &'p Plan,
    references: &'p mut References,
    index: usize,
    reference: &'p Reference,
    key_type: &'p Type,
    /// The code column that is the key, and the plan's number of the first attribute.
    code: usize,
    first_attribute: usize,
    limit_bytes: usize,
    interned: Vec<Interned>,
}

/// The codes of an attribute's values, and the values of each key in an attribute with many.
#[derive(Default)]
struct Interned {
    codes: HashMap<Box<str>, u32, RandomState>,
    /// Equal values need not have one code, and so many differ that it is not worth while.
    is_given_up: bool,
    is_compared: bool,
    of_key: Vec<Vec<u32>>,
    small_bytes: usize,
}

/// Values after which it shows if many are equal.
const TRIED_VALUES: usize = 4096;

impl Interned {
    fn of(values: &Values, is_compared: bool) -> Self {
        let codes = values.unknown.iter().map(|&[code]| (values.text(code).into(), code));
        Interned { codes: codes.collect(), is_compared, ..Interned::default() }
    }

    /// Returns the code of a value, a new one for a new value.
    fn code_of(&mut self, value: &str, values: &mut Values) -> u32 {
        if self.is_given_up {
            return values.texts.push(value);
        }
        if let Some(&code) = self.codes.get(value) {
            return code;
        }
        let code = values.texts.push(value);
        if !self.is_compared && self.codes.len() == TRIED_VALUES && 2 * TRIED_VALUES > values.codes.len() {
            *self = Interned { is_given_up: true, of_key: std::mem::take(&mut self.of_key), ..Interned::default() };
            return code;
        }
        self.small_bytes += allocated(value.len());
        self.codes.insert(value.into(), code);
        code
    }

    fn memory_bytes(&self) -> usize {
        let lists = self.of_key.capacity() * std::mem::size_of::<Vec<u32>>();
        table_bytes::<Box<str>, u32>(self.codes.capacity()) + lists + self.small_bytes
    }
}

fn key_type<'d>(definition: &'d Definition, reference: &Reference) -> &'d Type {
    match definition.column(&reference.key) {
        Some(column) if !matches!(column.source, Source::Join { .. }) => &column.type_,
        _ => &JOINED,
    }
}

impl<'p> Parser<'p> {
    fn new(
        plan: &'p Plan,
        references: &'p mut References,
        index: usize,
        reference: &'p Reference,
        limit_bytes: usize,
    ) -> Self {
        let first = plan.attributes.iter().position(|attribute| attribute.reference.0 == index);
        let first_attribute = first.unwrap_or(plan.attributes.len());
        // The value in place of none is there already.
        let own = first_attribute..first_attribute + reference.attributes.len();
        let interned = own.map(|it| Interned::of(&references.values[it], plan.attributes[it].is_compared)).collect();
        Parser {
            plan,
            references,
            index,
            reference,
            key_type: key_type(&plan.definition, reference),
            code: plan.references[index],
            first_attribute,
            limit_bytes,
            interned,
        }
    }

    async fn parse(mut self, file: impl AsyncRead + Unpin + Send) -> Result<(), CatalogueError> {
        let mut table = Table::open(self.reference, file).await?;
        while let Some(block) = table.next().await? {
            let mut lines = table.lines(&block);
            while let Some((number, usable)) = lines.advance() {
                let count = &mut self.references.lines[self.index];
                *count += 1;
                if count.is_multiple_of(LINES_PER_LOOK) {
                    self.check_memory(number)?;
                }
                if let Err(problem) = usable {
                    self.remark(number, problem, true);
                } else if let Err(problem) = self.take(number, &lines) {
                    self.remark(number, &problem, true);
                }
            }
        }
        self.check_memory(table.last_line)?;
        self.complete();
        self.check_memory(table.last_line)
    }

    fn check_memory(&self, line: u64) -> Result<(), CatalogueError> {
        let interned = self.interned.iter().map(Interned::memory_bytes).sum::<usize>();
        if self.references.memory_bytes() + interned > self.limit_bytes {
            let (key, limit_bytes) = (file_key(self.reference), self.limit_bytes);
            return Err(CatalogueError::TooLarge { key, line, limit_bytes });
        }
        Ok(())
    }

    fn remark(&mut self, line: u64, problem: &str, is_skipped: bool) {
        let remark = self.references.remarks.entry((self.index, problem.to_owned())).or_default();
        remark.lines += 1;
        remark.is_skipped = is_skipped;
        if remark.first.len() < NAMED_LINES {
            remark.first.push(line);
        }
    }

    fn is_null(&self, field: &[u8]) -> bool {
        self.reference.format.null.iter().any(|null| null.as_bytes() == field)
    }

    /// Takes a line. Nothing of it is used if the key or one of its values is no value of its type.
    fn take(&mut self, line: u64, lines: &Lines<'_>) -> Result<(), String> {
        let reference = self.reference;
        let singles = || reference.attributes.iter().enumerate().filter(|(_, attribute)| attribute.many.is_none());
        for (place, attribute) in singles() {
            let (_, is_cut) = self.single(attribute, lines.field(place + 1))?;
            if is_cut {
                self.remark(line, &format!("{} is too long and was cut", attribute.name), false);
            }
        }
        let key = lines.field(0);
        let key = if self.is_null(key) { Value::None } else { value(&reference.key, self.key_type, key)?.0 };
        let (key, is_new) = self.key(&key)?;
        for (place, attribute) in singles().filter(|_| is_new) {
            let (value, _) = self.single(attribute, lines.field(place + 1))?;
            self.set(place, key, &value);
        }
        for (place, attribute) in reference.attributes.iter().enumerate() {
            if let Some(separator) = attribute.many {
                self.add(line, place, attribute, separator, key, lines.field(place + 1));
            }
        }
        Ok(())
    }

    fn single<'l>(&self, attribute: &Attribute, field: &'l [u8]) -> Result<(Value<'l>, bool), String> {
        if !self.is_null(field) {
            value(&attribute.name, &attribute.type_, field)
        } else if attribute.is_optional {
            Ok((Value::None, false))
        } else {
            Err(format!("{} has no value", attribute.name))
        }
    }

    /// Returns the code of a key, and true if no line of this file had it before.
    fn key(&mut self, key: &Value<'_>) -> Result<(u32, bool), String> {
        let keys = &mut self.references.keys[self.code];
        let code = match (keys, key) {
            (Keys::Texts(keys), Value::Text(key)) => keys.find(key.as_bytes()).unwrap_or_else(|| keys.add(key)),
            (Keys::Numbers(keys), Value::Number(key)) => keys.find(*key).unwrap_or_else(|| keys.add(*key)),
            (_, Value::None) => return Err(format!("{} has no value", self.reference.key)),
            _ => return Err(format!("{} is of another type", self.reference.key)),
        };
        let has = &mut self.references.has[self.index];
        if has.len() <= code as usize {
            has.resize(code as usize + 1, false);
        }
        Ok((code, !std::mem::replace(&mut has[code as usize], true)))
    }

    fn set(&mut self, place: usize, key: u32, value: &Value<'_>) {
        let attribute = self.first_attribute + place;
        let values = &mut self.references.values[attribute];
        let has_codes = self.plan.attributes[attribute].has_codes;
        match value {
            Value::None => {}
            Value::Text(text) => {
                let code = self.interned[place].code_of(text, values);
                put(&mut values.codes, key, NO_CODE, code);
            }
            Value::Number(number) => {
                put(&mut values.numbers, key, NO_NUMBER, *number);
                if has_codes {
                    let code = self.interned[place].code_of(&number.to_string(), values);
                    put(&mut values.codes, key, NO_CODE, code);
                }
            }
        }
    }

    /// Adds the values of a field to those of an attribute with many.
    fn add(&mut self, line: u64, place: usize, attribute: &Attribute, separator: u8, key: u32, field: &[u8]) {
        if self.is_null(field) {
            return;
        }
        for field in field.split(|&byte| byte == separator).map(<[u8]>::trim_ascii).filter(|field| !field.is_empty()) {
            let text = match value(&attribute.name, &attribute.type_, field) {
                Ok((Value::Text(text), is_cut)) => {
                    if is_cut {
                        self.remark(line, &format!("{} is too long and was cut", attribute.name), false);
                    }
                    text
                }
                Ok(_) => continue,
                Err(problem) => {
                    self.remark(line, &format!("{problem} and was passed over"), false);
                    continue;
                }
            };
            let interned = &mut self.interned[place];
            let code = interned.code_of(text, &mut self.references.values[self.first_attribute + place]);
            if interned.of_key.len() <= key as usize {
                interned.of_key.resize_with(key as usize + 1, Vec::new);
            }
            let of_key = &mut interned.of_key[key as usize];
            if of_key.contains(&code) {
                continue;
            }
            if of_key.len() == MAX_MANY {
                let problem = format!("the key has {MAX_MANY} values of {} already", attribute.name);
                self.remark(line, &format!("{problem} and this one was passed over"), false);
                continue;
            }
            let before = of_key.capacity();
            of_key.push(code);
            interned.small_bytes += allocated(4 * of_key.capacity()) - allocated(4 * before);
        }
    }

    /// Makes lists of the values of keys that may have several, and gives back memory.
    fn complete(&mut self) {
        for (place, interned) in std::mem::take(&mut self.interned).into_iter().enumerate() {
            let attribute = &self.plan.attributes[self.first_attribute + place];
            let values = &mut self.references.values[self.first_attribute + place];
            if let Some(separator) = attribute.many {
                list(values, &interned.of_key, separator);
            }
            values.complete();
        }
    }
}

/// Parses a field that has a value, and tells if it was cut. The error describes the values that are taken.
fn value<'l>(name: &str, type_: &Type, field: &'l [u8]) -> Result<(Value<'l>, bool), String> {
    let within = |number: i64, (min, max): (i64, i64)| (min..=max).contains(&number) && number != NO_NUMBER;
    match type_ {
        Type::Id { max_bytes } => id(field, *max_bytes)
            .map(|id| (Value::Text(id), false))
            .ok_or_else(|| format!("{name} is not 1 to {max_bytes} visible ASCII characters")),
        Type::Text { max_bytes, is_cut } => match text(field, *max_bytes, *is_cut) {
            Ok(text) => Ok((Value::Text(text), text.len() < field.len())),
            Err(NotText::Long) => Err(format!("{name} is longer than {max_bytes} bytes")),
            Err(NotText::Utf8) => Err(format!("{name} is not UTF-8")),
        },
        Type::Integer { min, max } => integer(field)
            .filter(|&number| within(number, (*min, *max)))
            .map(|number| (Value::Number(number), false))
            .ok_or_else(|| format!("{name} is not a whole number from {min} to {max}")),
        Type::Decimal { places, min, max } => match decimal(field, u32::from(*places)) {
            Ok(number) if within(number, (*min, *max)) => Ok((Value::Number(number), false)),
            Err(NotDecimal::Places) => Err(format!("{name} has more than {places} decimal places")),
            Ok(_) | Err(NotDecimal::Number) => Err(format!("{name} is not a number in its range")),
        },
        Type::Time { .. } => Err(format!("{name} is a time, which no reference has")),
    }
}

/// Puts a value at a place of a list, whose other new places have none.
fn put<T: Copy>(list: &mut Vec<T>, place: u32, none: T, value: T) {
    let place = place as usize;
    if list.len() <= place {
        list.resize(place + 1, none);
    }
    list[place] = value;
}

/// Gives each key the number of the list of its values; keys with the same values in the same order share one.
fn list(values: &mut Values, of_key: &[Vec<u32>], separator: char) {
    let (mut lists, mut numbers) = (Lists::default(), HashMap::<&[u32], u32, RandomState>::default());
    for (key, of_key) in of_key.iter().enumerate().filter(|(_, of_key)| !of_key.is_empty()) {
        let list = *numbers.entry(of_key).or_insert_with(|| {
            let texts: Vec<&str> = of_key.iter().map(|&code| values.texts.get(code)).collect();
            lists.values.extend_from_slice(of_key);
            lists.ends.push(lists.values.len() as u32);
            lists.texts.push(&texts.join(&separator.to_string()))
        });
        put(&mut values.codes, key as u32, NO_CODE, list);
    }
    values.lists = Some(lists);
}
