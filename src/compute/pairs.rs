//! Pairs of codes, each in one number, sorted by radix, or found once each.
//!
//! Pure. Covered by the tests of [`crate::compute::fold`], whose rows outnumber the pairs that are sorted by
//! comparison.

/// Sorted pairs of two codes, each pair in one number.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    sorted: Vec<u64>,
    scratch: Vec<u64>,
    /// By second code, whether a pair has it; false between two calls.
    seen: Vec<bool>,
}

impl Pairs {
    #[inline]
    pub(super) fn first(pair: u64) -> u32 {
        (pair >> 32) as u32
    }

    #[inline]
    pub(super) fn second(pair: u64) -> u32 {
        pair as u32
    }

    #[inline]
    pub(super) fn of(first: u32, second: u32) -> u64 {
        u64::from(first) << 32 | u64::from(second)
    }

    /// Replaces the pairs, and sorts them by the first code and then by the second.
    pub(super) fn set(&mut self, pairs: impl Iterator<Item = u64>) {
        self.sorted.clear();
        self.sorted.extend(pairs);
        self.sort_by(0);
        self.sort_by(32);
    }

    /// Replaces the pairs by the different ones of pairs that are equal if their second codes are, in no order.
    pub(super) fn set_once(&mut self, pairs: impl Iterator<Item = u64>) {
        let Pairs { sorted, seen, .. } = self;
        sorted.clear();
        for pair in pairs {
            let code = Self::second(pair) as usize;
            if code >= seen.len() {
                seen.resize((code + 1).next_power_of_two(), false);
            }
            if !std::mem::replace(&mut seen[code], true) {
                sorted.push(pair);
            }
        }
        sorted.iter().for_each(|&pair| seen[Self::second(pair) as usize] = false);
    }

    /// Bytes of memory that grow with the codes. The others grow with the rows, whose memory has room for them.
    pub(super) fn memory_bytes(&self) -> usize {
        self.seen.capacity()
    }

    /// Drops repeated pairs and swaps the codes of each pair.
    pub(super) fn swap_distinct(&mut self) {
        self.sorted.dedup();
        self.sorted.iter_mut().for_each(|pair| *pair = pair.rotate_left(32));
        // The second codes are in order already, and the sort is stable.
        self.sort_by(32);
    }

    /// Returns the runs of pairs with the same first code.
    #[inline]
    pub(super) fn runs(&self) -> impl Iterator<Item = &[u64]> {
        self.sorted.chunk_by(|&a, &b| Self::first(a) == Self::first(b))
    }

    /// Sorts stably by the code that begins at bit `shift`: a radix sort, digit by digit.
    fn sort_by(&mut self, shift: u32) {
        const DIGIT_BITS: u32 = 11;
        const SMALL: usize = 1024;
        let code = |pair: u64| (pair >> shift) as u32;
        if self.sorted.len() <= SMALL {
            self.sorted.sort_by_key(|&pair| code(pair));
            return;
        }
        let bits = u32::BITS - self.sorted.iter().fold(0, |all, &pair| all | code(pair)).leading_zeros();
        self.scratch.resize(self.sorted.len(), 0);
        for low in (0..bits).step_by(DIGIT_BITS as usize) {
            let digit = |pair: u64| (code(pair) >> low) as usize & ((1 << DIGIT_BITS) - 1);
            let mut ends = [0_usize; 1 << DIGIT_BITS];
            self.sorted.iter().for_each(|&pair| ends[digit(pair)] += 1);
            let mut start = 0;
            for end in &mut ends {
                start += std::mem::replace(end, start);
            }
            for &pair in &self.sorted {
                let place = &mut ends[digit(pair)];
                self.scratch[*place] = pair;
                *place += 1;
            }
            std::mem::swap(&mut self.sorted, &mut self.scratch);
        }
    }
}
