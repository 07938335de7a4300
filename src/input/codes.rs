//! Codes: the values of a column in a block, as numbers.
//!
//! Pure. A value that the references lack is numbered within the block ([`Parsed::new_code`]). Covered by the tests of
//! [`crate::input`].

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::input::learned::{Index, Learned, LearnedTexts};
use crate::input::parsed::{NewIds, Parsed};
use crate::reference::keys::{Keys, NumberKeys, TextKeys};

/// The codes of a column's values.
pub(super) enum Codes<'r> {
    Texts(TextCodes<'r>),
    Numbers(NumberCodes<'r>),
}

/// The codes of texts.
pub(super) struct TextCodes<'r> {
    pub(super) keys: &'r TextKeys,
    /// The number of keys, which is the code of the first learned text.
    known: u32,
    learned: Option<(&'r LearnedTexts, Arc<Index>)>,
    codes: HashMap<Arc<str>, u32, RandomState>,
    new: Vec<Arc<str>>,
}

/// The codes of integers.
pub(super) struct NumberCodes<'r> {
    keys: &'r NumberKeys,
    codes: HashMap<i64, u32, RandomState>,
    new: Vec<i64>,
}

impl<'r> Codes<'r> {
    pub(super) fn of(keys: &'r Keys, learned: Option<&'r Learned>) -> Self {
        let known = keys.len() as u32;
        match keys {
            Keys::Texts(keys) => {
                let learned = match learned {
                    Some(Learned::Texts(texts)) => Some((texts, texts.published())),
                    _ => None,
                };
                let learned = learned.filter(|(_, index)| !index.is_empty());
                Codes::Texts(TextCodes { keys, known, learned, codes: HashMap::default(), new: Vec::new() })
            }
            Keys::Numbers(keys) => Codes::Numbers(NumberCodes { keys, codes: HashMap::default(), new: Vec::new() }),
        }
    }

    /// Returns the code of a text. A column of integers has none.
    #[inline]
    pub(super) fn text(&mut self, text: &str) -> u32 {
        match self {
            Codes::Texts(codes) => codes.code_of(text),
            Codes::Numbers(_) => crate::plan::NO_CODE,
        }
    }

    /// Returns the code of an integer. A column of texts has none.
    #[inline]
    pub(super) fn number(&mut self, number: i64) -> u32 {
        match self {
            Codes::Texts(_) => crate::plan::NO_CODE,
            Codes::Numbers(codes) => codes.code_of(number),
        }
    }

    /// Returns the text of a code; the empty one in a column of integers.
    pub(super) fn text_of(&self, code: u32) -> &str {
        match self {
            Codes::Texts(codes) => match Parsed::new_position(code) {
                Some(new) => &codes.new[new],
                None => match (code.checked_sub(codes.known), &codes.learned) {
                    (Some(number), Some((learned, _))) => learned.get(number),
                    _ => codes.keys.get(code),
                },
            },
            Codes::Numbers(_) => "",
        }
    }

    /// Returns the number of new values.
    pub(super) fn new_values(&self) -> usize {
        match self {
            Codes::Texts(codes) => codes.new.len(),
            Codes::Numbers(codes) => codes.new.len(),
        }
    }

    /// Forgets all new values but the first ones: those of a row that turned out bad.
    pub(super) fn truncate(&mut self, new_values: usize) {
        match self {
            Codes::Texts(TextCodes { codes, new, .. }) => {
                new.drain(new_values..).for_each(|value| {
                    codes.remove(&value);
                });
            }
            Codes::Numbers(NumberCodes { codes, new, .. }) => {
                new.drain(new_values..).for_each(|value| {
                    codes.remove(&value);
                });
            }
        }
    }

    pub(super) fn into_new(self) -> NewIds {
        match self {
            Codes::Texts(codes) => NewIds::Texts(codes.new),
            Codes::Numbers(codes) => NewIds::Numbers(codes.new),
        }
    }
}

impl TextCodes<'_> {
    #[inline]
    fn code_of(&mut self, text: &str) -> u32 {
        if self.known > 0
            && let Some(code) = self.keys.find(text.as_bytes())
        {
            return code;
        }
        if let Some((learned, index)) = &self.learned
            && let Some(number) = learned.find(index, text)
        {
            return self.known + number;
        }
        if let Some(&code) = self.codes.get(text) {
            return code;
        }
        let (code, text) = (Parsed::new_code(self.new.len()), Arc::<str>::from(text));
        self.new.push(Arc::clone(&text));
        self.codes.insert(text, code);
        code
    }
}

impl NumberCodes<'_> {
    #[inline]
    pub(super) fn code_of(&mut self, number: i64) -> u32 {
        self.keys.find(number).unwrap_or_else(|| {
            *self.codes.entry(number).or_insert_with(|| {
                self.new.push(number);
                Parsed::new_code(self.new.len() - 1)
            })
        })
    }
}
