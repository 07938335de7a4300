//! Codes: the values of a column in a block, as numbers.
//!
//! Pure. A value that neither the references nor the batch know is numbered within the block ([`Parsed::new_code`]).
//! Texts are looked up when all rows of the block are there, column by column: memory is slow, and many look-ups can
//! wait for it together. Covered by the tests of [`crate::input`].

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::input::learned::{Learned, LearnedTexts, Published};
use crate::input::parsed::{NewIds, Parsed};
use crate::plan::NO_CODE;
use crate::reference::keys::{Keys, NumberKeys, TextKeys};

/// The codes of a column's values.
pub(super) enum Codes<'b> {
    Texts(TextCodes<'b>),
    Numbers(NumberCodes<'b>),
}

/// The codes of texts.
pub(super) struct TextCodes<'b> {
    pub(super) keys: &'b TextKeys,
    /// The number of keys, which is the code of the first learned text.
    known: u32,
    learned: Option<&'b LearnedTexts>,
    published: Arc<Published>,
    /// Texts whose codes are not looked up yet.
    pending: Vec<Pending>,
    /// Hashes and numbers of the new texts.
    numbers: HashTable<(u32, u32)>,
    new: Vec<Arc<str>>,
}

/// A text without its code.
#[derive(Debug, Clone, Copy)]
struct Pending {
    row: u32,
    text: TextPlace,
}

/// The codes of integers.
pub(super) struct NumberCodes<'b> {
    keys: &'b NumberKeys,
    codes: HashMap<i64, u32, RandomState>,
    new: Vec<i64>,
}

/// The texts of a block's values: parts of its own text, and those that are not there as they are.
pub(super) struct BlockTexts<'b> {
    block: &'b [u8],
    others: Vec<u8>,
}

/// The place of a text: in the block's text, or behind it among the others.
#[derive(Debug, Clone, Copy)]
pub(super) struct TextPlace {
    start: usize,
    length: u32,
}

impl<'b> BlockTexts<'b> {
    pub(super) fn of(block: &'b [u8]) -> Self {
        BlockTexts { block, others: Vec::new() }
    }

    /// Returns the place of a text, which is kept if it is not part of the block's.
    #[inline]
    pub(super) fn place(&mut self, text: &str) -> TextPlace {
        let length = text.len() as u32;
        let start = (text.as_ptr() as usize).wrapping_sub(self.block.as_ptr() as usize);
        if start < self.block.len() && self.block.len() - start >= text.len() {
            return TextPlace { start, length };
        }
        let start = self.block.len() + self.others.len();
        self.others.extend_from_slice(text.as_bytes());
        TextPlace { start, length }
    }

    #[inline]
    fn get(&self, TextPlace { start, length }: TextPlace) -> &[u8] {
        let length = length as usize;
        match start.checked_sub(self.block.len()) {
            None => &self.block[start..start + length],
            Some(start) => &self.others[start..start + length],
        }
    }
}

impl<'b> Codes<'b> {
    pub(super) fn of(keys: &'b Keys, learned: Option<&'b Learned>) -> Self {
        let known = keys.len() as u32;
        match keys {
            Keys::Texts(keys) => {
                let learned = match learned {
                    Some(Learned::Texts(texts)) => Some(texts),
                    _ => None,
                };
                Codes::Texts(TextCodes {
                    keys,
                    known,
                    learned,
                    published: learned.map(LearnedTexts::published).unwrap_or_default(),
                    pending: Vec::new(),
                    numbers: HashTable::new(),
                    new: Vec::new(),
                })
            }
            Keys::Numbers(keys) => Codes::Numbers(NumberCodes { keys, codes: HashMap::default(), new: Vec::new() }),
        }
    }

    /// Returns the code of an integer. A column of texts has none.
    #[inline]
    pub(super) fn number(&mut self, number: i64) -> u32 {
        match self {
            Codes::Texts(_) => NO_CODE,
            Codes::Numbers(codes) => codes.code_of(number),
        }
    }

    /// Notes the text of a row; its code follows.
    #[inline]
    pub(super) fn note(&mut self, row: usize, text: TextPlace) {
        if let Codes::Texts(codes) = self {
            codes.pending.push(Pending { row: row as u32, text });
        }
    }

    /// Forgets what was added since the column had so many integers, for rows from this one on.
    pub(super) fn take_back(&mut self, row: usize, numbers: usize) {
        match self {
            Codes::Texts(codes) => {
                while codes.pending.last().is_some_and(|last| last.row as usize >= row) {
                    codes.pending.pop();
                }
            }
            Codes::Numbers(NumberCodes { codes, new, .. }) => {
                new.drain(numbers..).for_each(|value| {
                    codes.remove(&value);
                });
            }
        }
    }

    /// Returns the number of new integers.
    #[inline]
    pub(super) fn new_numbers(&self) -> usize {
        match self {
            Codes::Texts(_) => 0,
            Codes::Numbers(codes) => codes.new.len(),
        }
    }

    /// Looks up the noted texts, and sets the codes of their rows.
    pub(super) fn look_up(&mut self, texts: &BlockTexts<'_>, codes: &mut [u32]) {
        if let Codes::Texts(own) = self {
            own.look_up(texts, codes);
        }
    }

    /// Returns the code of a text. A column of integers has none.
    pub(super) fn text(&mut self, text: &str) -> u32 {
        let Codes::Texts(codes) = self else { return NO_CODE };
        let known = codes.key(text.as_bytes());
        known.or_else(|| codes.published.find(text.as_bytes()).map(|number| codes.known + number)).unwrap_or_else(
            || {
                let hash = codes.published.hash(text.as_bytes());
                codes.new_code(hash, text.as_bytes())
            },
        )
    }

    /// Returns the text of a code; the empty one in a column of integers.
    pub(super) fn text_of(&self, code: u32) -> &str {
        let Codes::Texts(codes) = self else { return "" };
        match (Parsed::new_position(code), code.checked_sub(codes.known), codes.learned) {
            (Some(new), ..) => &codes.new[new],
            (None, Some(number), Some(learned)) => learned.get(number),
            _ => codes.keys.get(code),
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
    fn key(&self, text: &[u8]) -> Option<u32> {
        if self.known > 0 { self.keys.find(text) } else { None }
    }

    fn look_up(&mut self, texts: &BlockTexts<'_>, codes: &mut [u32]) {
        let mut pending = std::mem::take(&mut self.pending);
        pending.retain(|Pending { row, text }| {
            let key = self.key(texts.get(*text));
            key.inspect(|&key| codes[*row as usize] = key).is_none()
        });
        let (published, known) = (Arc::clone(&self.published), self.known);
        published.find_all(pending.iter().map(|it| texts.get(it.text)), |place, text, hash, number| {
            codes[pending[place].row as usize] = match number {
                Some(number) => known + number,
                None => self.new_code(hash, text),
            };
        });
    }

    /// Returns the code of a text that is new in the block.
    fn new_code(&mut self, hash: u32, text: &[u8]) -> u32 {
        let TextCodes { numbers, new, .. } = self;
        let is_same = |&(other, number): &(u32, u32)| other == hash && new[number as usize].as_bytes() == text;
        if let Some(&(_, number)) = numbers.find(spread(hash), is_same) {
            return Parsed::new_code(number as usize);
        }
        let number = new.len();
        numbers.insert_unique(spread(hash), (hash, number as u32), |&(hash, _)| spread(hash));
        // It was text when it was noted.
        new.push(Arc::from(String::from_utf8_lossy(text)));
        Parsed::new_code(number)
    }
}

impl NumberCodes<'_> {
    #[inline]
    fn code_of(&mut self, number: i64) -> u32 {
        self.keys.find(number).unwrap_or_else(|| {
            *self.codes.entry(number).or_insert_with(|| {
                self.new.push(number);
                Parsed::new_code(self.new.len() - 1)
            })
        })
    }
}

/// Returns a hash of 64 bits made of 32: a table takes an entry's place from the low bits, and tells entries by the
/// high ones.
#[inline]
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
