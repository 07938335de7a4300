//! Records of JSON, taken apart by serde_json.

use serde::de::IgnoredAny;
use serde_json::{Deserializer, Value as Any};

use crate::formats::json::{MAX_DEPTH, NotJson};
use crate::formats::{BadFile, FileError, MAX_RECORD_BYTES, refuse_binary};
use crate::input::auditor::text::Text;
use crate::input::auditor::{Content, Record};

/// The members of an object: each key, and its value as it is written.
pub(super) type Object = Vec<(Vec<u8>, Vec<u8>)>;

/// The records of a file of JSON.
pub(super) struct Json {
    text: Text,
    /// The key of the list of records in a document.
    key: Option<String>,
    place: Place,
    line: u64,
    /// A record was met in the file, and on the line.
    has_begun: bool,
    has_begun_line: bool,
    begins_list: bool,
    last: u8,
}

/// A place in a file whose records are in documents; without documents all is outside.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Outside,
    /// In a document: the list was there, and a comma is needed before the next member.
    Document {
        has_list: bool,
        needs_comma: bool,
    },
    /// In the list, within so many brackets of it.
    List(u32),
}

/// The result of a step through the file.
enum Step {
    Record(Record),
    Passed,
    End,
}

/// Returns the length of the value at the start of a text.
fn length_of(text: &[u8]) -> Option<usize> {
    let mut values = Deserializer::from_slice(text).into_iter::<IgnoredAny>();
    values.next()?.ok()?;
    Some(values.byte_offset())
}

/// Returns true if a text ends before the value that it begins.
fn goes_on(text: &[u8]) -> bool {
    let is_open = |text: &[u8]| {
        let mut values = Deserializer::from_slice(text).into_iter::<IgnoredAny>();
        values.next().is_none_or(|value| value.is_err_and(|error| error.is_eof()))
    };
    // A number that ends with its sign or point is an error of its own.
    is_open(text) || is_open(&[text, b"0"].concat())
}

/// Returns the length of the object at the start of a text, if it is one that is read.
fn object(text: &[u8]) -> Option<usize> {
    let length = Some(text).filter(|text| text[0] == b'{').and_then(|text| length_within(text, MAX_DEPTH))?;
    (length <= MAX_RECORD_BYTES && length_of(&text[..length]) == Some(length)).then_some(length)
}

/// Returns the length of the value at the start of a text, if it is no object and stands alone.
fn other_value(text: &[u8]) -> Option<usize> {
    let length = Some(text).filter(|text| text[0] != b'{').and_then(length_of)?;
    let is_end = text.get(length).is_none_or(|&byte| is_blank(byte) || b",[]{".contains(&byte));
    (length <= MAX_RECORD_BYTES && is_end).then_some(length)
}

/// Returns the length of an object or a list, if none of its values is within more brackets and braces than `most`. Of
/// another text than JSON any length may be returned. Each line of a text may open a bracket that no line closes; it is
/// not read to its end for each of them.
fn length_within(text: &[u8], most: u32) -> Option<usize> {
    let (mut depth, mut in_text, mut is_escaped) = (0, false, false);
    for (index, &byte) in text.iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'{' | b'[' if depth == most => return None,
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth <= 1 => return Some(index + 1),
            b'}' | b']' => depth -= 1,
            _ => {}
        }
    }
    None
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Returns the members of an object.
pub(super) fn members(object: &[u8]) -> Object {
    let mut members = Object::new();
    let mut at = 1;
    let blanks = |at: usize| object[at..].iter().take_while(|&&byte| is_blank(byte) || byte == b',').count();
    loop {
        at += blanks(at);
        let Some(key) = object.get(at).filter(|&&byte| byte == b'"').and_then(|_| length_of(&object[at..])) else {
            return members;
        };
        let name = text_of(&object[at..at + key]);
        at += key;
        at += object[at..].iter().take_while(|&&byte| is_blank(byte) || byte == b':').count();
        let Some(length) = length_of(&object[at..]) else { return members };
        members.push((name, object[at..at + length].trim_ascii().to_vec()));
        at += length;
    }
}

/// Returns the bytes of a text between its quotes, without escapes if these can be resolved.
pub(super) fn text_of(quoted: &[u8]) -> Vec<u8> {
    let inner = &quoted[1..quoted.len() - 1];
    if !inner.contains(&b'\\') {
        return inner.to_vec();
    }
    // What is not UTF-8, or a surrogate that stands alone, is the text of no value and no key.
    match serde_json::from_slice::<Any>(quoted) {
        Ok(Any::String(text)) => text.into_bytes(),
        _ => vec![0xff],
    }
}

impl Json {
    pub(super) async fn open(mut text: Text, key: Option<String>) -> Result<Self, FileError> {
        let mut line = 1;
        while let Some(byte) = text.peek().await?.filter(|&byte| is_blank(byte)) {
            line += u64::from(byte == b'\n');
            text.pass(1);
        }
        let begins_list = match text.peek().await? {
            None => return Err(BadFile::Empty.into()),
            Some(first) => first == b'[',
        };
        refuse_binary(text.window().await?, "JSON")?;
        let place = Place::Outside;
        Ok(Json { text, key, place, line, has_begun: false, has_begun_line: false, begins_list, last: 0 })
    }

    /// Returns the next record.
    pub(super) async fn next(&mut self) -> Result<Option<Record>, FileError> {
        loop {
            let step = match (self.key.clone(), self.place) {
                (None, _) => self.record().await?,
                (Some(_), Place::Outside) => self.document().await?,
                (Some(_), Place::List(brackets)) => self.element(brackets).await?,
                (Some(key), Place::Document { has_list, needs_comma }) => {
                    self.member(&key, has_list, needs_comma).await?
                }
            };
            match step {
                Step::Record(record) => return Ok(Some(record)),
                Step::Passed => {}
                Step::End if self.place != Place::Outside || self.begins_list && self.last != b']' => {
                    return Err(NotJson::CutOff.into());
                }
                Step::End => return Ok(None),
            }
        }
    }

    /// Passes over blanks and these bytes.
    async fn pass_over(&mut self, others: &[u8]) -> Result<(), FileError> {
        while let Some(byte) = self.text.peek().await?.filter(|&byte| is_blank(byte) || others.contains(&byte)) {
            if byte == b'\n' {
                self.line += 1;
                self.has_begun_line = false;
            }
            if !is_blank(byte) {
                self.last = byte;
            }
            self.text.pass(1);
        }
        Ok(())
    }

    /// Consumes bytes, which are in the window.
    fn pass(&mut self, length: usize) {
        let bytes = self.text.next_bytes(length);
        let lines = bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
        let last = bytes.iter().rev().copied().find(|&byte| !is_blank(byte));
        self.line += lines;
        self.last = last.unwrap_or(self.last);
        self.text.pass(length);
    }

    /// Takes these bytes as a record.
    fn take(&mut self, bytes: Vec<u8>, content: Content) -> Step {
        let number = self.line;
        self.pass(bytes.len());
        (self.has_begun, self.has_begun_line) = (true, true);
        Step::Record(Record { number, lines: self.line - number + 1, fields: vec![bytes], content })
    }

    async fn record(&mut self) -> Result<Step, FileError> {
        self.pass_over(b",[]").await?;
        let window = self.text.window().await?;
        if window.is_empty() {
            return Ok(Step::End);
        }
        if let Some(length) = object(window) {
            let record = window[..length].to_vec();
            let content = Content::Object(members(&record));
            return Ok(self.take(record, content));
        }
        if let Some(length) = other_value(window).filter(|_| self.begins_list || self.has_begun) {
            let value = window[..length].to_vec();
            return Ok(self.take(value, no_object()));
        }
        // A broken record ends with its line, if the next one begins another.
        let line = self.line;
        let end = window.iter().position(|&byte| byte == b'\n').unwrap_or(window.len());
        let shown = || String::from_utf8_lossy(&window[..end.min(240)]).chars().take(60).collect();
        let next = window[end..].iter().copied().find(|&byte| !is_blank(byte));
        let is_rest = window.len() <= MAX_RECORD_BYTES;
        let is_last = next.is_none() && is_rest && self.has_begun && !self.has_begun_line;
        let is_long = || goes_on(window) || length_of(window).is_some_and(|length| length > MAX_RECORD_BYTES);
        if end > MAX_RECORD_BYTES {
            return Err(NotJson::LongRecord { line }.into());
        }
        if next == Some(b'{') || is_last {
            let blanks = window[..end].iter().rev().take_while(|&&byte| is_blank(byte)).count();
            let broken = window[..end - blanks].to_vec();
            return Ok(self.take(broken, Content::Bad("the record is not JSON".to_owned())));
        }
        Err(if !is_rest && window[0] == b'{' && is_long() {
            NotJson::LongRecord { line }.into()
        } else {
            NotJson::Broken { line, text: shown() }.into()
        })
    }

    async fn document(&mut self) -> Result<Step, FileError> {
        self.pass_over(b",[]").await?;
        match self.text.peek().await? {
            None => return Ok(Step::End),
            Some(b'{') => self.pass(1),
            Some(_) => return Err(self.bad_document("").await?),
        }
        self.place = Place::Document { has_list: false, needs_comma: false };
        Ok(Step::Passed)
    }

    async fn member(&mut self, key: &str, has_list: bool, needs_comma: bool) -> Result<Step, FileError> {
        self.pass_over(b"").await?;
        let mut after_comma = false;
        if needs_comma && self.text.peek().await? == Some(b',') {
            self.pass(1);
            self.pass_over(b"").await?;
            after_comma = true;
        }
        let window = self.text.window().await?;
        match window.first() {
            None => return Ok(Step::End),
            Some(b'}') if !after_comma => {
                self.place = Place::Outside;
                if has_list {
                    self.pass(1);
                    return Ok(Step::Passed);
                }
                let content = Content::Bad("the document has no list of records".to_owned());
                return Ok(self.take(b"}".to_vec(), content));
            }
            Some(b'"') if after_comma || !needs_comma => {}
            Some(_) => return Err(broken_document(self.line, window)),
        }
        let blanks = |at: usize| at + window[at..].iter().take_while(|&&byte| is_blank(byte)).count();
        let name = length_of(window);
        let value = name.map(blanks).filter(|&at| window.get(at) == Some(&b':')).map(|at| blanks(at + 1));
        let (Some(name), Some(value)) = (name, value) else { return Err(self.bad_document("{").await?) };
        let rest = &window[value..];
        if text_of(&window[..name]) == key.as_bytes() && rest.first() == Some(&b'[') {
            if has_list {
                return Err(broken_document(self.line, window));
            }
            self.pass(value + 1);
            self.place = Place::List(1);
            return Ok(Step::Passed);
        }
        // A number at the end of the window may go on.
        let is_whole = |length: usize| length < rest.len() || !rest[length - 1].is_ascii_digit();
        let Some(length) = length_of(rest).filter(|&length| is_whole(length)) else {
            return Err(self.bad_document("{").await?);
        };
        // The value is within the document's brace.
        if matches!(rest[0], b'{' | b'[') && length_within(&rest[..length], MAX_DEPTH - 1).is_none() {
            return Err(broken_document(self.line, window));
        }
        self.pass(value + length);
        self.place = Place::Document { has_list, needs_comma: true };
        Ok(Step::Passed)
    }

    async fn element(&mut self, brackets: u32) -> Result<Step, FileError> {
        self.pass_over(b",").await?;
        let window = self.text.window().await?;
        match window.first() {
            None => Ok(Step::End),
            Some(b'[') => {
                self.pass(1);
                self.place = Place::List(brackets + 1);
                Ok(Step::Passed)
            }
            Some(b']') => {
                self.pass(1);
                self.place = match brackets {
                    1 => Place::Document { has_list: true, needs_comma: true },
                    _ => Place::List(brackets - 1),
                };
                Ok(Step::Passed)
            }
            Some(_) => match (object(window), other_value(window)) {
                (Some(length), _) => {
                    let record = window[..length].to_vec();
                    let content = Content::Object(members(&record));
                    Ok(self.take(record, content))
                }
                (None, Some(length)) => {
                    let value = window[..length].to_vec();
                    Ok(self.take(value, no_object()))
                }
                (None, None) => Err(self.bad_document("").await?),
            },
        }
    }

    /// Returns the error of a document that is broken here, or cut off: there is no more of what begins with `begun`
    /// and goes on here.
    async fn bad_document(&mut self, begun: &str) -> Result<FileError, FileError> {
        let line = self.line;
        let window = self.text.window().await?;
        let whole = [begun.as_bytes(), window].concat();
        let goes_on = whole[0] == b'{' && goes_on(&whole);
        Ok(match (goes_on, window.len() > MAX_RECORD_BYTES) {
            (true, true) => NotJson::LongRecord { line }.into(),
            (true, false) => NotJson::CutOff.into(),
            (false, _) => broken_document(line, window),
        })
    }
}

fn no_object() -> Content {
    Content::Bad("the record is not an object".to_owned())
}

fn broken_document(line: u64, text: &[u8]) -> FileError {
    let text = String::from_utf8_lossy(&text[..text.len().min(240)]).chars().take(60).collect();
    NotJson::Document { line, text }.into()
}
