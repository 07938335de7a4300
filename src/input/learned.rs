//! Learned values: those that no reference has, with the codes that a batch gives them.
//!
//! One task assigns codes, in the order of the file. Those who parse blocks beside it look texts up in a copy of its
//! index, which is published each time that the number of texts has doubled. A text that the copy lacks is numbered
//! within the block ([`Parsed::new_code`](crate::input::parsed::Parsed::new_code)): that is correct for any text, and
//! rare for those that come often.
//!
//! Pure. Covered by the tests of `compute`.

use std::hash::BuildHasher;
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use crate::plan::columns::Kind;

/// The number of texts from which on the index is published.
const FIRST_PUBLISHED: usize = 64;

/// The learned values of a column.
#[derive(Debug)]
pub enum Learned {
    /// Of a column of texts.
    Texts(LearnedTexts),
    /// Of a column of integers.
    Numbers(boxcar::Vec<i64>),
}

/// Learned texts, numbered from 0.
#[derive(Debug, Default)]
pub struct LearnedTexts {
    texts: boxcar::Vec<Arc<str>>,
    published: RwLock<Arc<Index>>,
    hasher: RandomState,
}

/// The numbers of texts, by the hash of the text.
#[derive(Debug, Clone, Default)]
pub struct Index(HashTable<Entry>);

/// A text's number, and half of its hash, by which nearly all others are told from it.
#[derive(Debug, Clone, Copy)]
struct Entry {
    hash: u32,
    number: u32,
}

impl Learned {
    /// No values of this kind.
    pub fn of(kind: Kind) -> Self {
        match kind {
            Kind::Text => Learned::Texts(LearnedTexts::default()),
            Kind::Number => Learned::Numbers(boxcar::Vec::new()),
        }
    }

    /// Returns the number of values.
    pub fn count(&self) -> usize {
        match self {
            Learned::Texts(texts) => texts.texts.count(),
            Learned::Numbers(numbers) => numbers.count(),
        }
    }
}

impl LearnedTexts {
    /// Returns the text with this number; the empty one if there is none.
    #[inline]
    pub fn get(&self, number: u32) -> &str {
        self.texts.get(number as usize).map_or("", |text| text.as_ref())
    }

    /// Returns the index that was published last.
    pub fn published(&self) -> Arc<Index> {
        Arc::clone(&self.published.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the number of a text that an index has.
    #[inline]
    pub fn find(&self, index: &Index, text: &str) -> Option<u32> {
        self.find_hashed(index, self.hash(text), text)
    }

    /// Returns the number of a text, and adds it if the index, which has all of them, lacks it. The second value is
    /// true if it was added.
    pub fn number_of(&self, index: &mut Index, text: &Arc<str>) -> (u32, bool) {
        let hash = self.hash(text);
        if let Some(number) = self.find_hashed(index, hash, text) {
            return (number, false);
        }
        let number = self.push(Arc::clone(text));
        index.0.insert_unique(spread(hash), Entry { hash, number }, |entry| spread(entry.hash));
        (number, true)
    }

    /// Adds a text that is never looked up, and returns its number.
    pub fn push(&self, text: Arc<str>) -> u32 {
        self.texts.push(text) as u32
    }

    /// Publishes an index if it has twice as many texts as the published one.
    pub fn publish(&self, index: &Index) {
        if index.len() >= FIRST_PUBLISHED.max(2 * self.published().len()) {
            *self.published.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(index.clone());
        }
    }

    #[inline]
    fn hash(&self, text: &str) -> u32 {
        (self.hasher.hash_one(text) >> 32) as u32
    }

    #[inline]
    fn find_hashed(&self, index: &Index, hash: u32, text: &str) -> Option<u32> {
        let found = index.0.find(spread(hash), |entry| entry.hash == hash && self.get(entry.number) == text);
        found.map(|entry| entry.number)
    }
}

impl Index {
    /// Returns the number of texts.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns true if there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of memory of its table, of one that is about to replace it, and of the published copy.
    pub fn memory_bytes(&self) -> usize {
        4 * crate::memory::table_bytes::<u32, u32>(self.0.capacity())
    }
}

/// Returns a hash of 64 bits made of 32: the table takes its place from the low bits, and tells entries by the high ones.
#[inline]
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_one_number_and_is_found_by_others_after_a_while() {
        let (texts, mut index) = (LearnedTexts::default(), Index::default());
        texts.push(Arc::from(""));
        for round in 0..2 {
            for number in 0..1000_u32 {
                let added = texts.number_of(&mut index, &Arc::from(format!("text {number}")));
                assert_eq!(added, (number + 1, round == 0));
                texts.publish(&index);
            }
        }
        let published = texts.published();
        assert!((500..=1000).contains(&published.len()));
        for number in 0..1000 {
            let text = format!("text {number}");
            let found = texts.find(&published, &text);
            assert!(found.is_none() || found.is_some_and(|found| texts.get(found) == text), "{text}");
            assert_eq!(texts.find(&index, &text), Some(number + 1));
        }
        assert_eq!((texts.find(&index, ""), texts.find(&index, "another")), (None, None));
    }
}
