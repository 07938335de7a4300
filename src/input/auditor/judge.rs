//! The judgement of a record by the definition.

use crate::calendar::{MICROS_PER_DAY, date_text};
use crate::definition::Definition;
use crate::definition::columns::{Column, KeyPart, MAX_VALUE_BYTES, Place, Source, TimeFormat, Type};
use crate::definition::conditions::{Test, Values};
use crate::definition::input::Input;
use crate::formats::csv::name_of;
use crate::formats::{BadFile, FileError};
use crate::input::auditor::json::{Object, members, text_of};
use crate::input::auditor::{Content, Judgement, Value};
use crate::input::file::{BadObject, ReadError};
use crate::layout::INCOMING;
use crate::values::time;
use crate::values::zone::Zone;

/// Most columns of a file.
const MAX_COLUMNS: usize = 4096;

/// The judge of a file's records.
pub(super) struct Judge<'d> {
    definition: &'d Definition,
    key: String,
    earliest: i64,
    latest: i64,
}

/// The outcome of reading a column: a value or none, or the reason why there is none, behind the column's name.
type Read = Result<Option<Value>, String>;

impl<'d> Judge<'d> {
    pub(super) fn new(definition: &'d Definition, judged_at: jiff::Timestamp, key: &str) -> Result<Self, ReadError> {
        let midnight = i64::from(definition.earliest) * MICROS_PER_DAY;
        let future = i64::try_from(definition.future.as_micros()).unwrap_or(i64::MAX);
        let judge = Judge {
            definition,
            key: key.to_owned(),
            earliest: Zone::of(&definition.zone).beginning_of(midnight),
            latest: judged_at.as_microsecond().saturating_add(future),
        };
        for column in &definition.columns {
            let Source::Key(part) = &column.source else { continue };
            let found = judge.part(part).unwrap_or_default();
            let problem = match judge.read(column, &Content::Fields(None), &[]) {
                Ok(None) if !column.is_optional => "is not there".to_owned(),
                Err(_) => format!("is {found:?}, which it does not accept"),
                Ok(_) => continue,
            };
            let part = match part {
                KeyPart::Number(number) => format!("part {number} of the key"),
                KeyPart::Name(name) => format!("the part {name}= of the key"),
            };
            let name = &column.name;
            return Err(BadObject::Key(format!("{part}, from which the column {name} is read, {problem}")).into());
        }
        Ok(judge)
    }

    /// Checks the names of a file's columns.
    pub(super) fn check_names(&self, names: &[Vec<u8>], is_malformed: bool) -> Result<(), ReadError> {
        let bad = |problem: String| Err(ReadError::from(BadObject::Header(problem)));
        let (mut missing, mut repeated, mut greatest) = (Vec::new(), None, 0);
        let places = |column: &Column| match &column.source {
            Source::Places(places) => places.clone(),
            Source::Key(_) | Source::Join { .. } => Vec::new(),
        };
        let all = self
            .definition
            .columns
            .iter()
            .flat_map(|column| places(column).into_iter().map(move |place| (place, column.is_optional)));
        let is_name = |name: &[u8], wanted: &str| name.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes());
        for (place, is_optional) in all {
            match place {
                Place::Number(number) => greatest = greatest.max(number),
                Place::Path(_) => {}
                Place::Name(wanted) => {
                    let found: Vec<usize> = (0..names.len()).filter(|&at| is_name(&names[at], &wanted)).collect();
                    match found.as_slice() {
                        [] if !is_optional && !missing.contains(&wanted) => missing.push(wanted),
                        [_, second, ..] if repeated.as_ref().is_none_or(|(at, _)| second < at) => {
                            repeated = Some((*second, wanted));
                        }
                        _ => {}
                    }
                }
            }
        }
        let problem = match (repeated, missing.as_slice()) {
            (Some((_, name)), _) => format!("the header names column {name} twice"),
            (None, [one]) => format!("the header lacks the column {one}"),
            (None, [_, ..]) => format!("the header lacks the columns {}", missing.join(", ")),
            (None, []) if is_malformed => "text follows the quote that closes a field of the header".to_owned(),
            (None, []) if names.len() > MAX_COLUMNS => {
                return bad(format!("the header has {} columns, and at most {MAX_COLUMNS} are read", names.len()));
            }
            (None, []) if greatest > names.len() => {
                return bad(format!("the header has {} columns, and field {greatest} is read", names.len()));
            }
            (None, []) => return Ok(()),
        };
        let header = names.join(&b',');
        if let Some(kind) = crate::formats::binary_kind(&header)
            && let Input::Delimited(format) = &self.definition.input
        {
            return Err(FileError::from(BadFile::Binary { expected: name_of(format), kind }).into());
        }
        let header = String::from_utf8_lossy(&header);
        let shown: String = header.chars().take(200).collect();
        let more = if shown.len() < header.len() { " and more" } else { "" };
        bad(format!("{problem}; the header is {shown:?}{more}"))
    }

    /// Judges a record.
    pub(super) fn judge(&self, content: &Content, fields: &[Vec<u8>]) -> Judgement {
        let rejected = |reason: String| Judgement::Rejected(reason);
        match content {
            Content::Bad(reason) => return rejected(reason.clone()),
            Content::Fields(Some(names)) if names.len() != fields.len() => {
                return rejected(format!("{} fields, the header has {}", fields.len(), names.len()));
            }
            Content::Fields(_) => {
                let numbers = self.definition.columns.iter().flat_map(|column| match &column.source {
                    Source::Places(places) => places.as_slice(),
                    Source::Key(_) | Source::Join { .. } => &[],
                });
                let numbers = numbers.map(|place| if let Place::Number(number) = place { *number } else { 0 });
                let needed = numbers.max().unwrap_or(0);
                if fields.len() < needed {
                    return rejected(format!("{} fields, and field {needed} is read", fields.len()));
                }
            }
            Content::Object(object) if self.repeats_a_key(object) => {
                return rejected("a key that is read is there twice".to_owned());
            }
            Content::Object(_) => {}
        }
        let columns = &self.definition.columns;
        let read: Vec<Read> = columns.iter().map(|column| self.read(column, content, fields)).collect();
        for condition in &self.definition.conditions {
            let value = columns.iter().position(|column| column.name == condition.column).map(|column| &read[column]);
            if let Some(Ok(value)) = value
                && !meets(&condition.test, value.as_ref())
            {
                return Judgement::PassedOver;
            }
        }
        let is_join = |column: &Column| matches!(column.source, Source::Join { .. });
        for (column, value) in columns.iter().zip(&read) {
            if *value == Ok(None) && !column.is_optional && !is_join(column) {
                return rejected(format!("{} is empty", column.name));
            }
        }
        let mut values = Vec::new();
        for (column, value) in columns.iter().zip(read) {
            match value {
                Err(reason) => return rejected(format!("{} {reason}", column.name)),
                Ok(Some(Value::Number(time)))
                    if column.name == self.definition.time && !(self.earliest..=self.latest).contains(&time) =>
                {
                    return rejected(self.out_of_range());
                }
                Ok(value) => values.push(value),
            }
        }
        self.join(values)
    }

    /// Adds the joins to the values of the other columns.
    fn join(&self, mut values: Vec<Option<Value>>) -> Judgement {
        for (index, column) in self.definition.columns.iter().enumerate() {
            let Source::Join { columns, with } = &column.source else { continue };
            let part = |name: &String| {
                let place = self.definition.columns.iter().position(|column| column.name == *name)?;
                match values[place].as_ref()? {
                    Value::Text(text) => Some(text.clone()),
                    Value::Number(number) => Some(number.to_string()),
                }
            };
            let parts: Option<Vec<String>> = columns.iter().map(part).collect();
            let joined = parts.map(|parts| parts.join(with));
            if joined.as_ref().is_some_and(|text| text.len() > MAX_VALUE_BYTES) {
                return Judgement::Rejected(format!("{} is longer than {MAX_VALUE_BYTES} bytes", column.name));
            }
            values[index] = joined.map(Value::Text);
        }
        Judgement::Good(values)
    }

    fn out_of_range(&self) -> String {
        let Definition { time, earliest, future, .. } = self.definition;
        let day = u128::try_from(MICROS_PER_DAY).unwrap_or_default();
        let future = match future.as_micros() == day {
            true => "a day".to_owned(),
            false => humantime::format_duration(*future).to_string(),
        };
        format!("{time} is before {} or more than {future} in the future", date_text(*earliest))
    }

    /// Returns true if an object has a key twice that is on the way to a column's value.
    fn repeats_a_key(&self, object: &Object) -> bool {
        let paths = self.definition.columns.iter().flat_map(|column| match &column.source {
            Source::Places(places) => places.as_slice(),
            Source::Key(_) | Source::Join { .. } => &[],
        });
        paths.filter_map(|place| if let Place::Path(keys) = place { Some(keys) } else { None }).any(|keys| {
            let mut object = object.clone();
            for key in keys {
                let with_key: Vec<_> = object.iter().filter(|(name, _)| *name == key.as_bytes()).collect();
                match with_key.as_slice() {
                    [(_, value)] if value.starts_with(b"{") => object = members(value),
                    several => return several.len() > 1,
                }
            }
            false
        })
    }

    /// Returns the bytes at a place of a record, as long as they are a single value.
    fn at(&self, place: &Place, content: &Content, fields: &[Vec<u8>]) -> Result<Option<Vec<u8>>, String> {
        let field = match (place, content) {
            (Place::Number(number), _) => fields.get(number - 1).cloned(),
            (Place::Name(wanted), Content::Fields(Some(names))) => {
                let is_it = |name: &Vec<u8>| name.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes());
                names.iter().position(is_it).and_then(|at| fields.get(at).cloned())
            }
            (Place::Path(keys), Content::Object(object)) => return at_path(object, keys),
            _ => None,
        };
        let is_null = |field: &Vec<u8>| match &self.definition.input {
            Input::Delimited(format) => format.null.iter().any(|null| null.as_bytes() == field),
            Input::Json { .. } => false,
        };
        Ok(field.filter(|field| !is_null(field)))
    }

    fn read(&self, column: &Column, content: &Content, fields: &[Vec<u8>]) -> Read {
        let bytes = match &column.source {
            Source::Join { .. } => return Ok(None),
            Source::Key(part) => self.part(part).filter(|part| !part.is_empty()).map(|part| part.into_bytes()),
            Source::Places(places) => {
                let mut parts = Vec::new();
                for place in places {
                    match self.at(place, content, fields)? {
                        Some(part) => parts.push(part),
                        None => return Ok(None),
                    }
                }
                Some(parts.join(&b' '))
            }
        };
        bytes.map(|bytes| value_of(&column.type_, &bytes)).transpose()
    }

    fn part(&self, part: &KeyPart) -> Option<String> {
        let below = self.key.strip_prefix(INCOMING).unwrap_or(&self.key);
        let parts: Vec<&str> = below.split('/').collect();
        match part {
            KeyPart::Number(number) => parts.get(number - 1).map(|part| (*part).to_owned()),
            KeyPart::Name(name) => {
                let named = parts.iter().filter_map(|part| part.split_once('='));
                named.clone().find(|(key, _)| key == name).map(|(_, value)| value.to_owned())
            }
        }
    }
}

/// Returns the bytes at a path of an object.
fn at_path(object: &Object, keys: &[String]) -> Result<Option<Vec<u8>>, String> {
    let Some((first, others)) = keys.split_first() else { return Ok(None) };
    let Some((_, value)) = object.iter().find(|(name, _)| name == first.as_bytes()) else { return Ok(None) };
    match (value.first(), others) {
        (Some(b'{'), [_, ..]) => at_path(&members(value), others),
        (_, [_, ..]) => Ok(None),
        (Some(b'{' | b'['), []) => Err("is an object or a list".to_owned()),
        (Some(b'"'), []) => Ok(Some(text_of(value)).filter(|text| !text.is_empty())),
        (_, []) if value == b"null" => Ok(None),
        (_, []) => Ok(Some(value.clone())),
    }
}

/// Returns true if a value meets a test.
fn meets(test: &Test, value: Option<&Value>) -> bool {
    let is_one_of = |values: &Values| match (values, value) {
        (Values::Texts(texts), Some(Value::Text(text))) => texts.contains(text),
        (Values::Numbers(numbers), Some(Value::Number(number))) => numbers.contains(number),
        _ => false,
    };
    match (test, value) {
        (Test::In(values), _) => is_one_of(values),
        (Test::NotIn(values), _) => !is_one_of(values),
        (Test::Present(is_wanted), value) => value.is_some() == *is_wanted,
        (Test::Within { min, max }, Some(Value::Number(number))) => {
            min.unwrap_or(i64::MIN) <= *number && *number <= max.unwrap_or(i64::MAX)
        }
        (Test::Within { .. }, _) => false,
    }
}

/// Returns the value of a type that bytes are, or the reason why they are none, behind the column's name.
fn value_of(type_: &Type, bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes);
    match type_ {
        Type::Id { max_bytes } => match text {
            Ok(id) if (1..=*max_bytes).contains(&id.len()) && id.chars().all(|c| ('!'..='~').contains(&c)) => {
                Ok(Value::Text(id.to_owned()))
            }
            _ => Err(format!("is not 1 to {max_bytes} visible ASCII characters")),
        },
        Type::Text { max_bytes, is_cut } => {
            let text = text.map_err(|_| "is not UTF-8".to_owned())?;
            let mut kept = text.to_owned();
            while *is_cut && kept.len() > *max_bytes {
                kept.pop();
            }
            match kept.len() {
                0 => Err(format!("is not a text of 1 to {max_bytes} bytes")),
                length if length > *max_bytes => Err(format!("is longer than {max_bytes} bytes")),
                _ => Ok(Value::Text(kept)),
            }
        }
        Type::Integer { min, max } => {
            let number = text.ok().and_then(|text| units(text, 0).ok());
            let number = number.filter(|number| (*min..=*max).contains(number) && *number > i64::MIN);
            number.map(Value::Number).ok_or_else(|| format!("is not {}", integers(*min, *max)))
        }
        Type::Decimal { places, min, max } => {
            const MOST: i64 = 999_999_999_999_999_999;
            let number = text.map_err(|_| false).and_then(|text| units(text, *places));
            match number {
                Ok(number) if (*min..=*max).contains(&number) && number.abs() <= MOST => Ok(Value::Number(number)),
                Err(true) if *places == 1 => Err("has more than 1 decimal place".to_owned()),
                Err(true) => Err(format!("has more than {places} decimal places")),
                Ok(_) | Err(false) => Err(format!("is not {}", decimals(*places, *min, *max))),
            }
        }
        Type::Time { format, zone } => {
            let (name, example) = match format {
                TimeFormat::Iso => ("iso", "2024-06-25 17:43:13 or 2024-06-25T17:43:13Z"),
                TimeFormat::Unix => ("unix", "1719337393 (seconds since 1970)"),
                TimeFormat::UnixMillis => ("unix_ms", "1719337393000 (milliseconds since 1970)"),
                TimeFormat::UnixMicros => ("unix_us", "1719337393000000 (microseconds since 1970)"),
                TimeFormat::Pattern(pattern) => (pattern.as_str(), pattern.as_str()),
            };
            let format = time::TimeFormat::new(name, Zone::of(zone)).ok();
            let is_skipped = || format.as_ref().is_some_and(|format| format.is_skipped(bytes));
            match format.as_ref().and_then(|format| format.parse(bytes)) {
                Some(time) => Ok(Value::Number(time)),
                None if is_skipped() => {
                    Err("is a time that its zone does not have: clocks were put forward past it".to_owned())
                }
                None => Err(format!("is not a time like {example}")),
            }
        }
    }
}

/// Returns a number in units of its last place. The error is true if it has more places.
fn units(text: &str, places: u8) -> Result<i64, bool> {
    let bare = text.strip_prefix('-').unwrap_or(text);
    let (whole, after) = bare.split_once('.').unwrap_or((bare, "0"));
    let are_digits = |digits: &str| !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
    if !are_digits(whole) || !are_digits(after) {
        return Err(false);
    }
    let after = after.trim_end_matches('0');
    if after.len() > usize::from(places) {
        return Err(true);
    }
    let digits = format!("{}{after:0<width$}", whole.trim_start_matches('0'), width = usize::from(places));
    let number: i128 = if digits.is_empty() { 0 } else { digits.parse().map_err(|_| false)? };
    i64::try_from(if text.starts_with('-') { -number } else { number }).map_err(|_| false)
}

fn integers(min: i64, max: i64) -> String {
    match (min, max) {
        (1, i64::MAX) => "a positive integer".to_owned(),
        (min, i64::MAX) if min <= -i64::MAX => "an integer".to_owned(),
        (min, i64::MAX) => format!("an integer from {min} on"),
        (min, max) if min <= -i64::MAX => format!("an integer up to {max}"),
        (min, max) => format!("an integer from {min} to {max}"),
    }
}

fn decimals(places: u8, min: i64, max: i64) -> String {
    const MOST: i64 = 999_999_999_999_999_999;
    let shown = |units: i64| {
        let unit = 10_i64.pow(u32::from(places));
        let digits = format!("{}.{:0width$}", (units / unit).abs(), (units % unit).abs(), width = usize::from(places));
        format!("{}{}", if units < 0 { "-" } else { "" }, digits.trim_end_matches('0').trim_end_matches('.'))
    };
    match (min, max) {
        (min, MOST) if min == -MOST => "a decimal number".to_owned(),
        (min, MOST) => format!("a decimal number from {} on", shown(min)),
        (min, max) if min == -MOST => format!("a decimal number up to {}", shown(max)),
        (min, max) => format!("a decimal number from {} to {}", shown(min), shown(max)),
    }
}
