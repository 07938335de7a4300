//! Generated definitions and files, for the tests of [`crate::input`].

mod definitions;
mod files;

use crate::plan::Plan;
use crate::reference::References;

pub(super) use definitions::{definition, music};
pub(super) use files::file;

/// A generator of numbers: SplitMix64, <https://prng.di.unimi.it/splitmix64.c>.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Returns true once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

/// The keys that references have: by code column, none, some or all of these.
const KEYS: [&str; 5] = ["5SuOikwiRyPMVoIQDJUgSV", "0000000000000000000000", "short", "x", "a – b"];
const NUMBERS: [i64; 4] = [7, 8, 0, -3];

/// Returns references with some keys of a plan's columns.
pub(super) fn references(plan: &Plan, seed: u64) -> References {
    let mut random = Random(seed);
    References::with_keys(plan, |_| {
        let few = random.below(KEYS.len() + 1);
        (KEYS[..few].to_vec(), NUMBERS[..few.min(NUMBERS.len())].to_vec())
    })
}
