//! Keys: the ids that the references of a column have, which are the column's first codes. The hot path of reading
//! rows.
//!
//! Pure. Covered by the tests of `parse`.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::memory::{allocated, table_bytes};
use crate::plan::columns::Kind;
use crate::reference::texts::Texts;

/// Length of ids that are looked up without a loop: 128 bits in base 62, as several large catalogues number their
/// items.
pub const SHORT_ID_BYTES: usize = 22;
/// Greatest number in the direct lookup table, which takes 4 MiB at most.
const SMALL_NUMBER: usize = 1 << 20;
/// Entry of the lookup table for a number that is no key.
const NO_KEY: u32 = u32::MAX;

/// The keys of a column: its codes from 0.
#[derive(Debug)]
pub enum Keys {
    /// Of a column of texts.
    Texts(TextKeys),
    /// Of a column of integers.
    Numbers(NumberKeys),
}

impl Keys {
    /// No keys of this kind.
    pub fn of(kind: Kind) -> Self {
        match kind {
            Kind::Text => Keys::Texts(TextKeys::default()),
            Kind::Number => Keys::Numbers(NumberKeys::default()),
        }
    }

    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        match self {
            Keys::Texts(keys) => keys.texts.len(),
            Keys::Numbers(keys) => keys.numbers.len(),
        }
    }

    /// Returns true if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of text.
    pub fn text_bytes(&self) -> usize {
        match self {
            Keys::Texts(keys) => keys.texts.text_bytes(),
            Keys::Numbers(_) => 0,
        }
    }

    /// Bytes of memory.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Keys::Texts(keys) => {
                let tables = table_bytes::<ShortId, u32>(keys.short.capacity())
                    + table_bytes::<Box<[u8]>, u32>(keys.other.capacity());
                keys.texts.memory_bytes() + tables + keys.other_bytes
            }
            Keys::Numbers(keys) => {
                let lists =
                    keys.numbers.capacity() * std::mem::size_of::<i64>() + keys.small_len * std::mem::size_of::<u32>();
                lists + table_bytes::<i64, u32>(keys.codes.capacity())
            }
        }
    }

    /// Gives back memory that is not needed and fills the table of small numbers, once all keys are there.
    pub(super) fn complete(&mut self) {
        match self {
            Keys::Texts(keys) => keys.texts.shrink(),
            Keys::Numbers(keys) => keys.complete(),
        }
    }
}

/// An id of the usual length as three numbers, the last two of which overlap: hashed and compared without a loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct ShortId(u64, u64, u64);

impl ShortId {
    #[inline]
    fn of(id: &[u8; SHORT_ID_BYTES]) -> Self {
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&id[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        ShortId(number(0), number(8), number(SHORT_ID_BYTES - 8))
    }
}

/// Keys that are texts.
#[derive(Debug, Default)]
pub struct TextKeys {
    texts: Texts,
    /// Ids of the usual length are stored in the table itself, which saves two cache misses per row.
    short: HashMap<ShortId, u32, RandomState>,
    other: HashMap<Box<[u8]>, u32, RandomState>,
    other_bytes: usize,
    has_commas: bool,
}

impl TextKeys {
    /// Returns the code of a key.
    #[inline]
    pub fn find(&self, key: &[u8]) -> Option<u32> {
        match key.try_into() {
            Ok(short) => self.find_short(short),
            Err(_) => self.other.get(key).copied(),
        }
    }

    /// Returns the same for a key of the usual length.
    #[inline]
    pub fn find_short(&self, key: &[u8; SHORT_ID_BYTES]) -> Option<u32> {
        self.short.get(&ShortId::of(key)).copied()
    }

    /// Returns a key by code.
    pub fn get(&self, code: u32) -> &str {
        self.texts.get(code)
    }

    /// Returns the bytes of a key.
    pub fn text_len(&self, code: u32) -> usize {
        self.texts.len_of(code)
    }

    /// Returns true if any key has a comma in it.
    pub fn has_commas(&self) -> bool {
        self.has_commas
    }

    /// Adds a key that is not there yet, and returns its code.
    pub(super) fn add(&mut self, key: &str) -> u32 {
        let code = self.texts.push(key);
        self.has_commas |= key.contains(',');
        match key.as_bytes().try_into() {
            Ok(short) => self.short.insert(ShortId::of(short), code),
            Err(_) => {
                self.other_bytes += allocated(key.len());
                self.other.insert(key.as_bytes().into(), code)
            }
        };
        code
    }
}

/// Keys that are integers.
#[derive(Debug, Default)]
pub struct NumberKeys {
    numbers: Vec<i64>,
    /// Direct lookup table for small numbers, the common case of sequentially assigned ids; made once all keys are
    /// there, with `small_len` entries.
    small: Vec<u32>,
    small_len: usize,
    codes: HashMap<i64, u32, RandomState>,
}

impl NumberKeys {
    /// Returns the code of a key.
    #[inline]
    pub fn find(&self, key: i64) -> Option<u32> {
        match usize::try_from(key).ok().and_then(|key| self.small.get(key)) {
            Some(&code) => (code != NO_KEY).then_some(code),
            None => self.codes.get(&key).copied(),
        }
    }

    /// Returns a key by code; 0 if there is none of this code.
    pub fn get(&self, code: u32) -> i64 {
        self.numbers.get(code as usize).copied().unwrap_or(0)
    }

    /// Adds a key that is not there yet, and returns its code.
    pub(super) fn add(&mut self, key: i64) -> u32 {
        let code = self.numbers.len() as u32;
        self.codes.insert(key, code);
        self.numbers.push(key);
        if let Some(small) = small(key) {
            self.small_len = self.small_len.max(small + 1);
        }
        code
    }

    fn complete(&mut self) {
        self.numbers.shrink_to_fit();
        self.small = vec![NO_KEY; self.small_len];
        for (&key, code) in self.numbers.iter().zip(0..) {
            if let Some(key) = small(key) {
                self.small[key] = code;
            }
        }
    }
}

/// Returns the place of a number in the direct lookup table, if it is small.
fn small(key: i64) -> Option<usize> {
    usize::try_from(key).ok().filter(|&key| key <= SMALL_NUMBER)
}
