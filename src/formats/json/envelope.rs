//! Envelopes: documents that have their records in a list under a key.
//!
//! A document may be far longer than a record. It is therefore walked through member by member: the records of the list
//! are pieces of the text, and other members are passed over.

use crate::formats::MAX_RECORD_BYTES;
use crate::formats::json::blocks::{Pieces, Walked, no_object, record, within_a_record};
use crate::formats::json::grammar::{Stop, blanks, colon, string, value};
use crate::formats::json::text::unescaped;
use crate::formats::json::{NotJson, shown};

/// The documents of a file, and the place that was reached in one of them.
#[derive(Debug)]
pub(super) struct Envelope {
    /// The key of the list.
    key: Box<[u8]>,
    place: Place,
}

/// A place between two tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Between two documents.
    Outside,
    /// In a document, outside the list of records.
    Inside {
        expects: Expects,
        /// The list was there.
        has_list: bool,
    },
    /// In the list of records, and in so many brackets of it.
    List(u32),
}

/// The tokens that may follow in a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    KeyOrEnd,
    Key,
    CommaOrEnd,
}

impl Envelope {
    pub(super) fn of(key: &str) -> Self {
        Envelope { key: key.as_bytes().into(), place: Place::Outside }
    }

    /// Returns true within a document.
    pub(super) fn is_open(&self) -> bool {
        self.place != Place::Outside
    }

    /// Walks through the records that are whole, and what is around them.
    pub(super) fn walk(&mut self, text: &[u8], has_ended: bool, walked: &mut Walked) -> Result<(), NotJson> {
        loop {
            match self.place {
                Place::Outside => walked.pass_separators(text),
                Place::Inside { .. } | Place::List(_) => walked.pass(text, blanks(text, walked.at) - walked.at),
            }
            if walked.at == text.len() {
                return Ok(());
            }
            let rest = &text[walked.at..];
            let stepped = match self.place {
                Place::Outside => self.begin(rest, walked, text),
                Place::Inside { expects, has_list } => self.member(expects, has_list, rest, walked, text),
                Place::List(brackets) => self.element(brackets, rest, has_ended, walked, text),
            };
            match stepped {
                Ok(()) => {}
                Err(Stop::More) if !has_ended && rest.len() <= MAX_RECORD_BYTES => return Ok(()),
                Err(Stop::More) if has_ended && rest.len() <= MAX_RECORD_BYTES => return Err(NotJson::CutOff),
                Err(Stop::More) => return Err(NotJson::LongRecord { line: walked.line }),
                Err(Stop::Broken) => return Err(NotJson::Document { line: walked.line, text: shown(rest) }),
            }
        }
    }

    fn begin(&mut self, rest: &[u8], walked: &mut Walked, text: &[u8]) -> Result<(), Stop> {
        if rest[0] != b'{' {
            return Err(Stop::Broken);
        }
        walked.pass(text, 1);
        self.place = Place::Inside { expects: Expects::KeyOrEnd, has_list: false };
        Ok(())
    }

    /// Takes the next token of a document, or a whole member, or the beginning of the list.
    fn member(
        &mut self,
        expects: Expects,
        has_list: bool,
        rest: &[u8],
        walked: &mut Walked,
        text: &[u8],
    ) -> Result<(), Stop> {
        match (rest[0], expects) {
            (b'}', Expects::KeyOrEnd | Expects::CommaOrEnd) => {
                if has_list {
                    walked.pass(text, 1);
                } else {
                    walked.take(text, 1, Pieces::NoList);
                }
                self.place = Place::Outside;
            }
            (b',', Expects::CommaOrEnd) => {
                walked.pass(text, 1);
                self.place = Place::Inside { expects: Expects::Key, has_list };
            }
            (b'"', Expects::KeyOrEnd | Expects::Key) => {
                let rest = within_a_record(rest);
                let (end, has_escapes) = string(rest, 0)?;
                let place = colon(rest, end)?;
                let name = &rest[1..end - 1];
                let is_list = rest.get(place) == Some(&b'[')
                    && if has_escapes { unescaped(name).as_deref() == Some(&*self.key) } else { *name == *self.key };
                if is_list && has_list {
                    return Err(Stop::Broken);
                }
                if is_list {
                    walked.pass(text, place + 1);
                    self.place = Place::List(1);
                } else {
                    walked.pass(text, value(rest, place, 1)?);
                    self.place = Place::Inside { expects: Expects::CommaOrEnd, has_list };
                }
            }
            _ => return Err(Stop::Broken),
        }
        Ok(())
    }

    /// Takes the next record of the list, or what stands between two of them, or the end of the list.
    fn element(
        &mut self,
        brackets: u32,
        rest: &[u8],
        has_ended: bool,
        walked: &mut Walked,
        text: &[u8],
    ) -> Result<(), Stop> {
        match rest[0] {
            b',' => walked.pass(text, 1),
            b'[' => {
                walked.pass(text, 1);
                self.place = Place::List(brackets.saturating_add(1));
            }
            b']' => {
                walked.pass(text, 1);
                self.place = match brackets {
                    0 | 1 => Place::Inside { expects: Expects::CommaOrEnd, has_list: true },
                    _ => Place::List(brackets - 1),
                };
            }
            b'{' => walked.take(text, record(rest)?, Pieces::Records),
            _ => walked.take(text, no_object(rest, has_ended)?, Pieces::NoObject),
        }
        Ok(())
    }
}
