//! Learned values: those that no reference has, with the numbers that a batch gives them.
//!
//! One task numbers them, in the order of the file. Those who parse blocks beside it look texts up in a copy that is
//! published when it is worth its cost: when texts that it lacks have come again often. A text that the copy lacks is
//! numbered within the block ([`Parsed::new_code`](crate::input::parsed::Parsed::new_code)), which is right for any
//! text.
//!
//! Pure. Covered by the tests of `compute`.

use std::hash::BuildHasher;
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::fast::RandomState;

use crate::plan::columns::Kind;

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
    published: RwLock<Arc<Published>>,
}

/// A table of texts and their numbers that does not change. Looking one up touches two places of memory, which are far
/// apart from those of others: [`Published::find_all`] waits for many of them at the same time.
#[derive(Debug, Default)]
pub struct Published {
    /// Hash and place of an entry, from 1 in the low half; 0 in an empty slot. As many as a power of two.
    slots: Vec<u64>,
    /// Entries, one after the other: number, length, text.
    entries: Vec<u8>,
    texts: usize,
    hasher: RandomState,
}

/// Bytes of an entry before its text: the number and the length.
const HEAD_BYTES: usize = 6;
/// Texts that are looked up at the same time.
const TOGETHER: usize = 32;

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

    /// Adds a value that stands for none, and returns its number.
    pub fn push_none(&self) -> u32 {
        match self {
            Learned::Texts(texts) => texts.push(Arc::from("")),
            Learned::Numbers(numbers) => numbers.push(0) as u32,
        }
    }
}

impl LearnedTexts {
    /// Returns the text with this number; the empty one if there is none.
    #[inline]
    pub fn get(&self, number: u32) -> &str {
        self.texts.get(number as usize).map_or("", |text| text.as_ref())
    }

    /// Adds a text and returns its number.
    pub fn push(&self, text: Arc<str>) -> u32 {
        self.texts.push(text) as u32
    }

    /// Returns the table that was published last.
    pub fn published(&self) -> Arc<Published> {
        Arc::clone(&self.published.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Publishes all texts. None is empty but the one that stands for none.
    pub fn publish(&self) {
        let texts = self.texts.iter().filter(|(_, text)| !text.is_empty());
        let published = Published::of(texts.map(|(number, text)| (number as u32, text.as_ref())));
        if let Some(published) = published {
            *self.published.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(published);
        }
    }
}

impl Published {
    /// Returns the table of these texts; `None` if it would take more than 4 GiB.
    fn of<'t>(texts: impl Iterator<Item = (u32, &'t str)> + Clone) -> Option<Self> {
        let (count, bytes) =
            texts.clone().fold((0, 0), |(count, bytes), (_, text)| (count + 1, bytes + HEAD_BYTES + text.len()));
        u32::try_from(bytes).ok()?;
        let slots = vec![0; (2_usize * count).next_power_of_two()];
        let mut table = Published { slots, entries: Vec::with_capacity(bytes), texts: count, ..Published::default() };
        for (number, text) in texts {
            let hash = table.hash(text.as_bytes());
            let mut slot = table.first_slot(hash);
            while table.slots[slot] != 0 {
                slot = (slot + 1) & (table.slots.len() - 1);
            }
            table.slots[slot] = u64::from(hash) << 32 | (table.entries.len() as u64 + 1);
            table.entries.extend_from_slice(&number.to_le_bytes());
            table.entries.extend_from_slice(&u16::try_from(text.len()).ok()?.to_le_bytes());
            table.entries.extend_from_slice(text.as_bytes());
        }
        Some(table)
    }

    /// Returns true if it has no text.
    pub fn is_empty(&self) -> bool {
        self.texts == 0
    }

    /// Bytes of memory.
    pub fn memory_bytes(&self) -> usize {
        self.slots.len() * std::mem::size_of::<u64>() + self.entries.capacity()
    }

    /// Returns the hash of a text.
    #[inline]
    pub fn hash(&self, text: &[u8]) -> u32 {
        (self.hasher.hash_one(text) >> 32) as u32
    }

    /// Returns the number of a text, if the table has it.
    pub fn find(&self, text: &[u8]) -> Option<u32> {
        if self.is_empty() {
            return None;
        }
        let hash = self.hash(text);
        let first = self.first_slot(hash);
        self.find_from(first, self.slots[first], hash, text)
    }

    /// Looks up many texts, and hands on each one's place in the list, its hash and its number.
    pub fn find_all<'t>(
        &self,
        texts: impl Iterator<Item = &'t [u8]>,
        mut found: impl FnMut(usize, &'t [u8], u32, Option<u32>),
    ) {
        let mut texts = texts.enumerate();
        let (mut asked, mut together) = (Vec::with_capacity(TOGETHER), 0_u64);
        loop {
            asked.clear();
            asked.extend(texts.by_ref().take(TOGETHER).map(|(place, text)| (place, text, self.hash(text), 0, 0)));
            if asked.is_empty() {
                // The heads have been read for the sake of reading; the sum keeps that from being left out.
                std::hint::black_box(together);
                return;
            }
            // These loops wait for nothing but memory, and so for many places of it at the same time.
            for (_, _, hash, first, slot) in &mut asked {
                *first = self.first_slot(*hash);
                *slot = self.slots.get(*first).copied().unwrap_or(0);
            }
            for (_, _, hash, _, slot) in &asked {
                if (slot >> 32) as u32 == *hash {
                    together = together.wrapping_add(self.entries.get(place_of(*slot)).copied().unwrap_or(0).into());
                }
            }
            for &(place, text, hash, first, slot) in &asked {
                found(place, text, hash, self.find_from(first, slot, hash, text));
            }
        }
    }

    #[inline]
    fn first_slot(&self, hash: u32) -> usize {
        hash as usize & self.slots.len().wrapping_sub(1)
    }

    /// Looks for a text from a slot on, which has this content.
    #[inline]
    fn find_from(&self, first: usize, content: u64, hash: u32, text: &[u8]) -> Option<u32> {
        let (mut at, mut slot) = (first, content);
        while slot != 0 {
            if (slot >> 32) as u32 == hash {
                let entry = self.entries.get(place_of(slot)..)?;
                let (&number, rest) = entry.split_first_chunk()?;
                let (&length, rest) = rest.split_first_chunk()?;
                if usize::from(u16::from_le_bytes(length)) == text.len() && rest.get(..text.len())? == text {
                    return Some(u32::from_le_bytes(number));
                }
            }
            at = (at + 1) & (self.slots.len() - 1);
            slot = self.slots[at];
        }
        None
    }
}

/// Returns the place of a slot's entry.
#[inline]
fn place_of(slot: u64) -> usize {
    ((slot & u64::from(u32::MAX)) as usize).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_texts_are_found_alone_and_together_and_others_are_not() {
        let texts = LearnedTexts::default();
        assert_eq!(texts.published().find(b"text 1"), None);
        texts.push(Arc::from(""));
        for number in 1..=1000 {
            assert_eq!(texts.push(Arc::from(format!("text {number}"))), number);
        }
        assert!(texts.published().is_empty());
        texts.publish();
        texts.push(Arc::from("text 1001"));
        let (published, asked) = (texts.published(), (0..=1001).map(|number| format!("text {number}")));
        let asked: Vec<String> = asked.collect();
        let expected = |number: usize| (1..=1000).contains(&number).then_some(number as u32);
        for (number, text) in asked.iter().enumerate() {
            assert_eq!(published.find(text.as_bytes()), expected(number), "{text}");
        }
        let mut seen = 0;
        published.find_all(asked.iter().map(String::as_bytes), |place, text, hash, number| {
            assert_eq!((place, text, number), (seen, asked[seen].as_bytes(), expected(seen)));
            assert_eq!(hash, published.hash(text));
            seen += 1;
        });
        assert_eq!((seen, published.find(b""), texts.get(1001)), (1002, None, "text 1001"));
        Published::default().find_all([&b"x"[..]].into_iter(), |_, _, _, number| assert_eq!(number, None));
    }
}
