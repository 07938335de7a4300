//! Gathering: what the reports of a base need of each code, in passes over the rows.
//!
//! Pure. Covered by the tests of [`crate::compute::fold`].

use crate::compute::fold::Scratch;
use crate::compute::names::Names;
use crate::compute::rows::Rows;
use crate::plan::NO_NUMBER;
use crate::plan::columns::Number;
use crate::plan::folding::{Base, Source};
use crate::plan::reports::Merge;

/// Gathers what a base needs of each code, in passes over the rows. What was gathered before is neutral.
pub(super) fn gather(
    base: &Base,
    rows: &Rows,
    names: &Names,
    masks: &[Vec<bool>],
    gathered: &mut Vec<i64>,
    scratch: &mut Scratch,
) {
    let stride = 1 + base.sources.len();
    let codes = base.code.map_or(1, |column| {
        let greatest = rows.codes[column].iter().max().map_or(0, |&code| code as usize + 1);
        greatest.max(names.codes(column))
    });
    if gathered.len() < codes * stride {
        let neutral = || std::iter::once(0).chain(base.sources.iter().map(|source| source.merge.neutral()));
        let more = codes - gathered.len() / stride;
        gathered.reserve_exact(more * stride);
        (0..more).for_each(|_| gathered.extend(neutral()));
    }
    let Scratch { touched, latest, .. } = scratch;
    let keys = match base.code {
        None => {
            touched.push(0);
            gathered[0] = rows.len() as i64;
            Keys::All
        }
        Some(column) => {
            count_rows(&rows.codes[column], stride, gathered, touched);
            Keys::Codes(&rows.codes[column])
        }
    };
    for (place, source) in base.sources.iter().enumerate() {
        let into = Into { gathered, stride, place: 1 + place, merge: source.merge };
        let mask = source.mask.map(|mask| masks[mask].as_slice());
        gather_source(source, rows, names, into, &keys, mask);
    }
    if !base.latest.is_empty() {
        latest.resize(latest.len().max(codes), 0);
        find_latest(&keys, &rows.times, touched, latest);
    }
}

/// Counts the rows of each code, and lists the codes in their order: so are the items made, and everything that follows
/// from a code is met in the order in which it lies in memory.
fn count_rows(codes: &[u32], stride: usize, gathered: &mut [i64], touched: &mut Vec<u32>) {
    /// Codes that are looked at rather than sorted, for each row.
    const CODES_OF_A_ROW: usize = 8;
    if gathered.len() / stride <= codes.len().saturating_mul(CODES_OF_A_ROW) {
        for &code in codes {
            gathered[code as usize * stride] += 1;
        }
        touched
            .extend((0..).zip(gathered.iter().step_by(stride)).filter(|(_, count)| **count > 0).map(|(code, _)| code));
        return;
    }
    for &code in codes {
        let count = &mut gathered[code as usize * stride];
        if *count == 0 {
            touched.push(code);
        }
        *count += 1;
    }
    touched.sort_unstable();
}

/// Finds the latest row of each code; of several as late, the last one.
fn find_latest(keys: &Keys<'_>, times: &[i64], touched: &[u32], latest: &mut [u32]) {
    match keys {
        Keys::All => latest[0] = (0..times.len()).max_by_key(|&row| times[row]).unwrap_or(0) as u32,
        Keys::Codes(keys) => {
            touched.iter().for_each(|&code| latest[code as usize] = u32::MAX);
            for (row, &code) in keys.iter().enumerate() {
                let known = &mut latest[code as usize];
                if *known == u32::MAX || times[*known as usize] <= times[row] {
                    *known = row as u32;
                }
            }
        }
    }
}

/// The codes that rows are gathered by.
enum Keys<'a> {
    All,
    Codes(&'a [u32]),
}

/// The place into which a source is gathered.
struct Into<'a> {
    gathered: &'a mut [i64],
    stride: usize,
    place: usize,
    merge: Merge,
}

impl Into<'_> {
    fn values(self, keys: &Keys<'_>, values: impl Iterator<Item = i64>, mask: Option<&[bool]>) {
        match (keys, mask) {
            (Keys::All, None) => self.pairs(values.map(|value| (0, value))),
            (Keys::All, Some(mask)) => {
                self.pairs(values.zip(mask).filter(|(_, met)| **met).map(|(value, _)| (0, value)));
            }
            (Keys::Codes(codes), None) => self.pairs(codes.iter().copied().zip(values)),
            (Keys::Codes(codes), Some(mask)) => {
                let of_mask = codes.iter().copied().zip(values).zip(mask).filter(|(_, met)| **met);
                self.pairs(of_mask.map(|(pair, _)| pair));
            }
        }
    }

    #[inline]
    fn pairs(self, pairs: impl Iterator<Item = (u32, i64)>) {
        let Into { gathered, stride, place, merge } = self;
        match merge {
            Merge::Add => {
                for (code, value) in pairs.filter(|&(_, value)| value != NO_NUMBER) {
                    let sum = &mut gathered[code as usize * stride + place];
                    *sum = sum.saturating_add(value);
                }
            }
            Merge::Greatest | Merge::Least => {
                for (code, value) in pairs {
                    let greatest = &mut gathered[code as usize * stride + place];
                    *greatest = (*greatest).max(merge.slot_of(value));
                }
            }
        }
    }
}

fn gather_source(source: &Source, rows: &Rows, names: &Names, into: Into<'_>, keys: &Keys<'_>, mask: Option<&[bool]>) {
    match source.of {
        None => into.values(keys, std::iter::repeat_n(1, rows.len()), mask),
        Some(Number::Time) => into.values(keys, rows.times.iter().copied(), mask),
        Some(Number::Int(int)) => into.values(keys, rows.ints[int].iter().copied(), mask),
        Some(Number::Attribute(attribute)) => {
            let values = names.references().values(attribute);
            let codes = &rows.codes[names.plan().attributes[attribute].code];
            into.values(keys, codes.iter().map(|&code| values.number(code)), mask);
        }
    }
}
