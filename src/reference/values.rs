//! Values: an attribute of a reference, by the codes of the reference's key.
//!
//! Pure. Covered by the tests of `parse`.

use crate::plan::columns::Attribute;
use crate::plan::{NO_CODE, NO_NUMBER};
use crate::reference::texts::Texts;

/// The values of an attribute. A key that the reference lacks has none.
#[derive(Debug, Default)]
pub struct Values {
    /// Numbers by key, of an attribute that is a number.
    pub(super) numbers: Vec<i64>,
    /// Codes by key: of the values, or of the lists of an attribute with many.
    pub(super) codes: Vec<u32>,
    /// The texts of the values by their codes, each value once.
    pub(super) texts: Texts,
    /// The lists of an attribute with many, each list once.
    pub(super) lists: Option<Lists>,
    /// The code of the value that reports have in place of none.
    pub(super) unknown: Option<[u32; 1]>,
    written_bytes: usize,
}

/// Lists of values.
#[derive(Debug, Default)]
pub(super) struct Lists {
    pub(super) ends: Vec<u32>,
    pub(super) values: Vec<u32>,
    /// Each list as text, joined by the attribute's character.
    pub(super) texts: Texts,
}

impl Values {
    /// The values of an attribute whose reference has no keys.
    pub(super) fn without_keys(attribute: &Attribute) -> Self {
        let mut values = Values::default();
        if let Some(unknown) = attribute.unknown.as_ref().filter(|_| attribute.has_codes) {
            values.unknown = Some([values.texts.push(unknown)]);
        }
        values
    }

    /// Returns a key's number; [`NO_NUMBER`] if it has none.
    #[inline]
    pub fn number(&self, key: u32) -> i64 {
        self.numbers.get(key as usize).copied().unwrap_or(NO_NUMBER)
    }

    /// Returns the codes of a key's values, for reports: of the value in place of none if there is none.
    #[inline]
    pub fn values(&self, key: u32) -> &[u32] {
        let unknown = || self.unknown.as_ref().map_or(&[][..], |unknown| unknown);
        match (self.codes.get(key as usize), &self.lists) {
            (None | Some(&NO_CODE), _) => unknown(),
            (Some(code), None) => std::slice::from_ref(code),
            (Some(&list), Some(lists)) => lists.get(list),
        }
    }

    /// Returns the code of a key's value, if it has one.
    #[inline]
    pub fn value(&self, key: u32) -> Option<u32> {
        self.codes.get(key as usize).copied().filter(|&code| code != NO_CODE)
    }

    /// Returns the text of a value.
    pub fn text(&self, value: u32) -> &str {
        self.texts.get(value)
    }

    /// Returns the number of different values.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Returns true if there is no value.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Returns the text of a key's value, or of all its values.
    pub fn whole(&self, key: u32) -> Option<&str> {
        self.value(key).map(|code| self.whole_text(code))
    }

    /// Returns the text that a code of [`Values::value`] stands for: of a value or of a list.
    pub fn whole_text(&self, code: u32) -> &str {
        self.lists.as_ref().map_or(&self.texts, |lists| &lists.texts).get(code)
    }

    /// Returns the bytes of the text of a key's value, or of all its values.
    pub fn whole_len(&self, key: u32) -> usize {
        let texts = self.lists.as_ref().map_or(&self.texts, |lists| &lists.texts);
        self.value(key).map_or(0, |code| texts.len_of(code))
    }

    /// Returns true if the keys share few values, of which all together are small.
    pub fn are_few(&self) -> bool {
        const KEYS_OF_A_VALUE: usize = 8;
        let texts = self.lists.as_ref().map_or(&self.texts, |lists| &lists.texts);
        texts.len() * KEYS_OF_A_VALUE <= self.codes.len()
    }

    /// Returns true if the keys share values, so that each is worth writing once. Lists of a few texts always do.
    pub fn are_shared(&self) -> bool {
        self.lists.is_some() || self.are_few()
    }

    /// Bytes of text, were each written once for each key that has it.
    pub fn text_bytes(&self) -> usize {
        self.written_bytes
    }

    /// Bytes of memory.
    pub fn memory_bytes(&self) -> usize {
        let lists = self
            .lists
            .as_ref()
            .map_or(0, |lists| lists.texts.memory_bytes() + 4 * (lists.ends.capacity() + lists.values.capacity()));
        8 * self.numbers.capacity() + 4 * self.codes.capacity() + self.texts.memory_bytes() + lists
    }

    /// Counts the bytes of text and gives back memory, once all keys are there.
    pub(super) fn complete(&mut self) {
        self.written_bytes = (0..self.codes.len() as u32).map(|key| self.whole_len(key)).sum();
        self.numbers.shrink_to_fit();
        self.codes.shrink_to_fit();
        self.texts.shrink();
        if let Some(lists) = &mut self.lists {
            lists.ends.shrink_to_fit();
            lists.values.shrink_to_fit();
            lists.texts.shrink();
        }
    }
}

impl Lists {
    #[inline]
    fn get(&self, list: u32) -> &[u32] {
        let list = list as usize;
        let start = if list == 0 { 0 } else { self.ends.get(list - 1).copied().unwrap_or(0) };
        let end = self.ends.get(list).copied().unwrap_or(start);
        self.values.get(start as usize..end as usize).unwrap_or_default()
    }
}
