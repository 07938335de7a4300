//! Distinct counts: sets of ids of which only the size matters.
//!
//! Pure. Sets are stored and merged as Apache DataSketches HLL sketches ([`Distinct`]), whose bytes Java, C++ and
//! Python can read too. While a batch's rows are folded, a set is a plain list of hashes, or plain registers once it is
//! large ([`Members`]): its sketch is needed only once, as bytes, and is written in one pass.
//! docs/adr/0011-compute-path.md has the measurements.

use std::hash::{Hash, Hasher};

use datasketches::common::NumStdDev;
use datasketches::hash::value::raw_bytes;
use datasketches::hll::{Coupon, HllSketch, HllType, HllUnion};

/// Binary logarithm of the number of registers of a sketch. 2^14 registers give a standard error of 0.8 %. Up to about
/// 1,500 members the sketch keeps their hashes, and the count is in practice exact. A full sketch takes 8 KiB; one of a
/// hundred members takes 400 bytes.
pub const SKETCH_LG_K: u8 = 14;

/// The hash of a member, computed once and used in many sketches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member(Coupon);

impl Member {
    /// An integer, hashed as DataSketches hashes a 64-bit integer in every language.
    pub fn of_number(number: i64) -> Self {
        Member(Coupon::from_value(number))
    }

    /// A text, hashed as DataSketches hashes a UTF-8 string in every language.
    pub fn of_text(text: &str) -> Self {
        Member(Coupon::from_value(raw_bytes::from_str(text)))
    }

    /// The hash as a number. The library reveals it only through `Hash`.
    fn number(self) -> u32 {
        struct Seen(u32);
        impl Hasher for Seen {
            fn write(&mut self, _: &[u8]) {}

            fn write_u32(&mut self, number: u32) {
                self.0 = number;
            }

            fn finish(&self) -> u64 {
                u64::from(self.0)
            }
        }
        let mut seen = Seen(0);
        self.0.hash(&mut seen);
        seen.0
    }
}

/// A set that is being filled.
#[derive(Debug)]
pub enum Members {
    /// Its members, possibly with duplicates.
    Few(Vec<Member>),
    /// The registers of its sketch.
    Many(Box<[u8; REGISTERS]>),
}

/// The most members that a sketch lists; a larger one has registers. It must be the library's own number: the two forms
/// estimate slightly differently, so a count would otherwise depend on the forms it went through.
const MAX_LISTED: usize = 1536;
/// Members that are listed before duplicates are removed.
const FEW_MEMBERS: usize = 2 * MAX_LISTED;
const REGISTERS: usize = 1 << SKETCH_LG_K;

impl Default for Members {
    fn default() -> Self {
        Members::Few(Vec::new())
    }
}

impl Members {
    /// Bytes of heap memory that they take.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Members::Few(few) => few.capacity() * std::mem::size_of::<Member>(),
            Members::Many(_) => REGISTERS,
        }
    }

    /// The largest possible size of their sketch, in bytes.
    pub fn sketch_bytes(&self) -> usize {
        match self {
            Members::Few(few) if few.len() <= MAX_LISTED => 12 + few.len() * std::mem::size_of::<Member>(),
            Members::Few(_) | Members::Many(_) => 40 + REGISTERS,
        }
    }

    /// Adds members. Returns the number of additional bytes of memory.
    pub fn extend(&mut self, members: &[Member]) -> usize {
        match self {
            Members::Few(few) => {
                let before = few.capacity();
                few.extend_from_slice(members);
                let room = few.capacity();
                if few.len() > FEW_MEMBERS {
                    return self.condense(before * std::mem::size_of::<Member>());
                }
                (room - before) * std::mem::size_of::<Member>()
            }
            Members::Many(registers) => {
                members.iter().for_each(|&member| raise(registers, member));
                0
            }
        }
    }

    /// Removes duplicates, and changes to registers if many members are left. Returns the number of additional bytes of
    /// memory.
    #[cold]
    fn condense(&mut self, bytes_before: usize) -> usize {
        if let Members::Few(few) = self {
            few.sort_unstable();
            few.dedup();
            if few.len() > MAX_LISTED {
                *self = Members::Many(registers(few));
            }
        }
        self.memory_bytes().saturating_sub(bytes_before)
    }

    /// Serializes the sketch in DataSketches' form: as [`Distinct::to_bytes`] does, except for the order of members
    /// and, for large sets, with one byte for each register. Source: `HllSketch::serialize` of the library, and
    /// PreambleUtil.java in <https://github.com/apache/datasketches-java>.
    pub fn into_bytes(self) -> Vec<u8> {
        let mut few = match self {
            Members::Few(few) => few,
            Members::Many(registers) => return bytes_of_registers(&registers),
        };
        few.sort_unstable();
        few.dedup();
        if few.len() > MAX_LISTED {
            return bytes_of_registers(&registers(&few));
        }
        bytes_of_list(&few)
    }
}

fn registers(members: &[Member]) -> Box<[u8; REGISTERS]> {
    let mut registers = Box::new([0; REGISTERS]);
    members.iter().for_each(|&member| raise(&mut registers, member));
    registers
}

/// Raises the register that a member's lower bits name to the value of its upper six bits.
fn raise(registers: &mut [u8; REGISTERS], member: Member) {
    let number = member.number();
    let register = &mut registers[number as usize % REGISTERS];
    *register = (*register).max((number >> 26) as u8);
}

/// Fields of the preamble that every serialized sketch begins with.
const SERIAL_VERSION: u8 = 1;
const HLL_FAMILY: u8 = 7;
const EMPTY: u8 = 4;
const COMPACT: u8 = 8;
const OUT_OF_ORDER: u8 = 16;

fn bytes_of_list(members: &[Member]) -> Vec<u8> {
    /// Fewer than 2^3 members are written as a list, more of them as a hash table without its gaps.
    const LIST_LG_SIZE: u8 = 3;
    const MIN_TABLE_LG_SIZE: u8 = 5;
    let mut bytes = Vec::with_capacity(12 + 4 * members.len());
    if members.len() < 1 << LIST_LG_SIZE {
        let flags = if members.is_empty() { COMPACT | EMPTY } else { COMPACT };
        let (words, mode) = (2, 0);
        bytes.extend([words, SERIAL_VERSION, HLL_FAMILY, SKETCH_LG_K, LIST_LG_SIZE, flags, members.len() as u8, mode]);
    } else {
        // A table is at most three quarters full.
        let fits = |lg_size: &u8| 4 * members.len() <= 3 << lg_size;
        let lg_size = (MIN_TABLE_LG_SIZE..SKETCH_LG_K).find(fits).unwrap_or(SKETCH_LG_K);
        let (words, mode) = (3, 1);
        bytes.extend([words, SERIAL_VERSION, HLL_FAMILY, SKETCH_LG_K, lg_size, COMPACT, 0, mode]);
        bytes.extend((members.len() as u32).to_le_bytes());
    }
    members.iter().for_each(|member| bytes.extend(member.number().to_le_bytes()));
    bytes
}

fn bytes_of_registers(registers: &[u8; REGISTERS]) -> Vec<u8> {
    let mut counts = [0_u32; 64];
    registers.iter().for_each(|&value| counts[usize::from(value) % counts.len()] += 1);
    // The estimate is based on the sums of 2^-value, separately for small and for large values.
    let sum = |values: std::ops::Range<i32>| -> f64 {
        values.map(|value| f64::from(counts[value as usize]) * f64::from(-value).exp2()).sum()
    };
    let (words, mode_of_8_bit_registers) = (10, 2 | 2 << 2);
    let mut bytes = Vec::with_capacity(40 + REGISTERS);
    bytes.extend([words, SERIAL_VERSION, HLL_FAMILY, SKETCH_LG_K, 0, OUT_OF_ORDER, 0, mode_of_8_bit_registers]);
    for field in [0.0, sum(0..32), sum(32..64)] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend(counts[0].to_le_bytes());
    bytes.extend(0_u32.to_le_bytes());
    bytes.extend(registers);
    bytes
}

/// A set of which only the size matters.
#[derive(Debug, Clone, PartialEq)]
pub struct Distinct(HllSketch);

impl Default for Distinct {
    fn default() -> Self {
        match HllSketch::new(SKETCH_LG_K, HllType::Hll4) {
            Ok(sketch) => Distinct(sketch),
            Err(_) => unreachable!("SKETCH_LG_K is within the library's 4 to 21"),
        }
    }
}

impl Distinct {
    /// Adds a member; adding it again changes nothing.
    pub fn insert(&mut self, member: Member) {
        self.0.update_with_coupon(member.0);
    }

    /// Adds another set's members.
    pub fn merge(&mut self, other: &Distinct) {
        if let Ok(mut union) = HllUnion::new(SKETCH_LG_K) {
            union.update(&self.0);
            union.update(&other.0);
            self.0 = union.to_sketch(HllType::Hll4);
        }
    }

    /// The union of sets, made once: merging one after the other makes a sketch for each.
    pub fn union<'d>(sets: impl Iterator<Item = &'d Distinct>) -> Self {
        let Ok(mut union) = HllUnion::new(SKETCH_LG_K) else { return Distinct::default() };
        sets.for_each(|set| union.update(&set.0));
        Distinct(union.to_sketch(HllType::Hll4))
    }

    /// The number of members is between these with a probability of 95 %.
    pub fn between(&self) -> [u64; 2] {
        let count = self.count();
        // As long as the sketch keeps the members' hashes, both round to the count itself.
        let [low, high] = [self.0.lower_bound(NumStdDev::Two), self.0.upper_bound(NumStdDev::Two)].map(f64::round);
        [(low as u64).min(count), (high as u64).max(count)]
    }

    /// The number of members. Estimated from the registers alone, so that it does not depend on the order of merges.
    pub fn count(&self) -> u64 {
        self.0.composite_estimate().round() as u64
    }

    /// Serializes the sketch in DataSketches' form.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.serialize()
    }

    /// Parses DataSketches' serialized form. The error describes the fault in the bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let read = |bytes| HllSketch::deserialize(bytes).map_err(|error| format!("not an HLL sketch: {error}"));
        let sketch = read(bytes)?;
        // The library reads some damaged sketches that it could not read again after writing them.
        read(&sketch.serialize())?;
        Ok(Distinct(sketch))
    }

    /// The approximate number of bytes of memory that it takes.
    pub fn memory_bytes(&self) -> usize {
        std::mem::size_of::<Self>() + self.0.estimated_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sketches_survive_their_bytes(users in prop::collection::vec(1..5_000_i64, 0..4_000)) {
            let mut distinct = Distinct::default();
            users.iter().for_each(|&user| distinct.insert(Member::of_number(user)));
            prop_assert_eq!(Distinct::from_bytes(&distinct.to_bytes()).unwrap().count(), distinct.count());
        }

        /// Two members of a small set collide once in 200 million pairs, so not even this test can demand equality.
        #[test]
        fn small_counts_are_off_by_chance_only(users in prop::collection::hash_set(1..i64::MAX, 0..1000)) {
            let mut distinct = Distinct::default();
            users.iter().for_each(|&user| distinct.insert(Member::of_number(user)));
            prop_assert!((0..=2).contains(&(users.len() as u64 - distinct.count())));
        }

        #[test]
        fn no_bytes_panic_as_a_sketch(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Distinct::from_bytes(&bytes);
        }

        /// In every form: lists, tables of every size, registers; with duplicates; added at once and one by one.
        #[test]
        fn members_have_the_library_s_sketch(
            users in prop::collection::vec(0..6_000_i64, 0..9_000), population in 1..6_000_i64, part in 1..700_usize,
        ) {
            let (mut members, mut expected) = (Members::default(), Distinct::default());
            let users: Vec<i64> = users.into_iter().map(|user| user % population).collect();
            for users in users.chunks(part) {
                members.extend(&users.iter().map(|&user| Member::of_number(user)).collect::<Vec<_>>());
            }
            users.iter().for_each(|&user| expected.insert(Member::of_number(user)));
            let sketch = Distinct::from_bytes(&members.into_bytes()).unwrap();
            prop_assert_eq!(sketch.count(), expected.count());
            // Merging shows the members themselves, and must count none twice.
            let mut merged = expected.clone();
            merged.merge(&sketch);
            prop_assert_eq!(merged.count(), expected.count());
        }
    }

    #[test]
    fn counts_are_exact_when_small() {
        let mut distinct = Distinct::default();
        for user in 1..=1000 {
            distinct.insert(Member::of_number(user));
            distinct.insert(Member::of_number(user));
            assert_eq!(distinct.count(), user as u64);
        }
    }

    #[test]
    fn members_are_written_as_the_library_writes_them() {
        for count in [0, 1, 7, 8, 24, 25, 48, 49, 1000, 1536] {
            let (mut members, mut expected) = (Members::default(), Distinct::default());
            members.extend(&(0..count).map(Member::of_number).collect::<Vec<_>>());
            (0..count).for_each(|user| expected.insert(Member::of_number(user)));
            let (bytes, expected) = (members.into_bytes(), expected.to_bytes());
            assert_eq!((bytes.len(), &bytes[..8]), (expected.len(), &expected[..8]), "{count} members");
        }
    }
}
