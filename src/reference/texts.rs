//! Texts, one after the other in one allocation.

use std::ops::Range;

/// Texts by number.
#[derive(Debug, Default, Clone)]
pub struct Texts {
    text: String,
    ends: Vec<usize>,
}

impl Texts {
    /// Adds a text and returns its number.
    pub fn push(&mut self, text: &str) -> u32 {
        self.text.push_str(text);
        self.ends.push(self.text.len());
        (self.ends.len() - 1) as u32
    }

    /// Returns a text by number; the empty one if there is none of this number.
    #[inline]
    pub fn get(&self, number: u32) -> &str {
        self.text.get(self.place_of(number)).unwrap_or_default()
    }

    /// Returns the bytes of a text.
    #[inline]
    pub fn len_of(&self, number: u32) -> usize {
        self.place_of(number).len()
    }

    #[inline]
    fn place_of(&self, number: u32) -> Range<usize> {
        let number = number as usize;
        let start = if number == 0 { 0 } else { self.ends.get(number - 1).copied().unwrap_or(self.text.len()) };
        start..self.ends.get(number).copied().unwrap_or(start)
    }

    /// Returns the number of texts.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns true if there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all texts.
    pub fn text_bytes(&self) -> usize {
        self.text.len()
    }

    /// Bytes of memory.
    pub fn memory_bytes(&self) -> usize {
        self.text.capacity() + self.ends.capacity() * std::mem::size_of::<usize>()
    }

    /// Gives back memory that is not needed, once all texts are there.
    pub fn shrink(&mut self) {
        self.text.shrink_to_fit();
        self.ends.shrink_to_fit();
    }
}
