//! Columns by dictionary.
//!
//! Several columns may follow from the same codes of a row group's rows: a track's name and its artists both follow
//! from the track's code. Rows are read only to renumber these codes, so that every dictionary has exactly the values
//! that occur, and to write the new numbers. Columns with the same positions share their compressed page.

use parquet2::compression::Compression;
use parquet2::encoding::{Encoding, hybrid_rle};
use parquet2::metadata::Descriptor;
use parquet2::page::{CompressedDataPage, CompressedPage, DictPage, Page};
use parquet2::schema::Repetition;

use crate::calendar::MICROS_PER_DAY;
use crate::formats::parquet::ParquetError;
use crate::formats::parquet::pages::{ColumnPages, PageCompressor, Plain, data_page_header, encode_plain};
use crate::formats::parquet::schema::ColumnType;

const MICROS_PER_SECOND: i64 = 1_000_000;
/// Longer than any day of a time zone.
const LONGEST_DAY: i64 = 3 * MICROS_PER_DAY;

/// Renumbers codes to those that occur, in the order of their first occurrence. Returns the new codes, and the old code
/// of each new one.
pub fn renumber(codes: impl Iterator<Item = u32>) -> (Vec<u32>, Vec<u32>) {
    const UNUSED: u32 = u32::MAX;
    let (mut used, mut new_of) = (Vec::new(), Vec::new());
    let mut renumbered = Vec::with_capacity(codes.size_hint().0);
    for code in codes {
        let slot = code as usize;
        if slot >= new_of.len() {
            new_of.resize(slot + 1, UNUSED);
        }
        if new_of[slot] == UNUSED {
            new_of[slot] = used.len() as u32;
            used.push(code);
        }
        renumbered.push(new_of[slot]);
    }
    (renumbered, used)
}

/// The position of null in a dictionary.
const NULL: u32 = u32::MAX;

/// The dictionary of a column, and the position in it of each code's value.
pub struct Values<V> {
    positions: Vec<u32>,
    dictionary: Vec<V>,
}

impl<V> Values<V> {
    /// Replaces every value of the dictionary.
    pub fn map<W>(self, to: impl FnMut(V) -> W) -> Values<W> {
        Values { positions: self.positions, dictionary: self.dictionary.into_iter().map(to).collect() }
    }
}

/// Gives each code a value of its own. Values that are nearly unique are not worth deduplicating; in return, columns of
/// the same codes have the same pages of positions.
pub fn each<V>(of_code: impl Iterator<Item = Option<V>>) -> Values<V> {
    let mut dictionary = Vec::with_capacity(of_code.size_hint().0);
    let positions = of_code.map(|value| {
        value.map_or(NULL, |value| {
            dictionary.push(value);
            (dictionary.len() - 1) as u32
        })
    });
    Values { positions: positions.collect(), dictionary }
}

/// Gives codes that share a value the same position: each value is in the dictionary once.
pub fn distinct(of_code: impl Iterator<Item = Option<u32>>) -> Values<u32> {
    let of_code: Vec<Option<u32>> = of_code.collect();
    let (renumbered, dictionary) = renumber(of_code.iter().flatten().copied());
    let mut renumbered = renumbered.into_iter();
    let positions = of_code.iter().map(|value| value.and_then(|_| renumbered.next()).unwrap_or(NULL)).collect();
    Values { positions, dictionary }
}

/// A compressed page of positions in a dictionary.
#[derive(Clone)]
struct IndexPage {
    compressed: Vec<u8>,
    uncompressed_bytes: usize,
    null_count: usize,
}

impl IndexPage {
    /// Encodes positions in a dictionary. Source:
    /// <https://parquet.apache.org/docs/file-format/data-pages/encodings/#RLEDICT>.
    fn encode(
        codes: &[u32],
        positions: &[u32],
        distinct: usize,
        nullable: bool,
        compressor: &mut PageCompressor,
    ) -> Result<Self, ParquetError> {
        let bits = (usize::BITS - distinct.saturating_sub(1).leading_zeros()).max(1);
        let mut page = Vec::with_capacity(codes.len() * bits as usize / 8 + codes.len() / 8 + 32);
        let has_nulls = positions.contains(&NULL);
        let mut null_count = 0;
        if nullable {
            // Definition levels: 1 where there is a value. Version 1 pages put the length of the levels before them.
            page.extend_from_slice(&[0; 4]);
            if has_nulls {
                let valid = codes.iter().map(|&code| positions[code as usize] != NULL);
                null_count = valid.clone().filter(|valid| !valid).count();
                hybrid_rle::encode_bool(&mut page, valid).map_err(|error| ParquetError::Encode(error.to_string()))?;
            } else {
                push_varint(&mut page, codes.len() << 1);
                page.push(1);
            }
            let length = (page.len() - 4) as u32;
            page[..4].copy_from_slice(&length.to_le_bytes());
        }
        page.push(bits as u8);
        push_varint(&mut page, (codes.len() - null_count).div_ceil(8) << 1 | 1);
        let of_rows = codes.iter().map(|&code| positions[code as usize]);
        if has_nulls {
            bit_pack(&mut page, of_rows.filter(|&position| position != NULL), bits);
        } else {
            bit_pack(&mut page, of_rows, bits);
        }
        Ok(IndexPage { compressed: compressor.bytes(&page)?, uncompressed_bytes: page.len(), null_count })
    }
}

/// Appends an unsigned LEB128 number: <https://en.wikipedia.org/wiki/LEB128>.
fn push_varint(page: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        page.push(value as u8 | 0x80);
        value >>= 7;
    }
    page.push(value as u8);
}

/// Packs values of `bits` bits each, lowest bit first, and pads the last group of eight values with zeros.
fn bit_pack(page: &mut Vec<u8>, values: impl Iterator<Item = u32>, bits: u32) {
    let (mut packed, mut filled, mut count) = (0_u64, 0, 0_usize);
    for value in values {
        packed |= u64::from(value) << filled;
        filled += bits;
        if filled >= u32::BITS {
            page.extend_from_slice(&(packed as u32).to_le_bytes());
            packed >>= u32::BITS;
            filled -= u32::BITS;
        }
        count += 1;
    }
    let padding = (count.next_multiple_of(8) - count) * bits as usize;
    let bytes = (filled as usize + padding) / 8;
    let rest = packed.to_le_bytes();
    page.extend((0..bytes).map(|index| rest.get(index).copied().unwrap_or(0)));
}

/// An encoder of columns that follow from the same codes of a row group's rows.
pub struct ColumnEncoder<'a> {
    codes: &'a [u32],
    compressor: PageCompressor,
    /// The pages made so far, with their positions and their nullability.
    pages: Vec<(Vec<u32>, bool, IndexPage)>,
}

impl<'a> ColumnEncoder<'a> {
    /// Returns an encoder for rows with these codes.
    pub fn new(codes: &'a [u32]) -> Result<Self, ParquetError> {
        Ok(ColumnEncoder { codes, compressor: PageCompressor::new()?, pages: Vec::new() })
    }

    /// Encodes a column by dictionary.
    pub fn column<V: Plain>(&mut self, type_: ColumnType, values: Values<V>) -> Result<ColumnPages, ParquetError> {
        let nullable = type_.field_info.repetition == Repetition::Optional;
        let Values { positions, dictionary } = values;
        let known = self.pages.iter().find(|(known, optional, _)| *known == positions && *optional == nullable);
        let page = match known {
            Some((_, _, page)) => page.clone(),
            None => {
                let compressor = &mut self.compressor;
                let page = IndexPage::encode(self.codes, &positions, dictionary.len(), nullable, compressor)?;
                self.pages.push((positions, nullable, page.clone()));
                page
            }
        };
        let statistics = V::statistics(&dictionary, page.null_count as i64, &type_);
        let dictionary_page = DictPage::new(V::encode(&dictionary), dictionary.len(), false);
        let dictionary_page = self.compressor.compress(Page::Dict(dictionary_page))?;
        let data_page = CompressedDataPage::new(
            data_page_header(self.codes.len(), Encoding::RleDictionary, statistics),
            page.compressed,
            Compression::Zstd,
            page.uncompressed_bytes,
            Descriptor { primitive_type: type_, max_def_level: 0, max_rep_level: 0 },
            Some(self.codes.len()),
        );
        Ok(vec![dictionary_page, CompressedPage::Data(data_page)])
    }
}

/// Encodes the times of one day: by dictionary if they are whole seconds that repeat, which takes a quarter of the
/// space and time of plain times.
pub fn encode_times(type_: ColumnType, times: &[i64]) -> Result<ColumnPages, ParquetError> {
    let (first, last) =
        times.iter().fold((i64::MAX, i64::MIN), |(first, last), &time| (first.min(time), last.max(time)));
    let is_a_day = last.saturating_sub(first) <= LONGEST_DAY;
    if is_a_day && times.iter().all(|time| (time - first) % MICROS_PER_SECOND == 0) {
        let (codes, seconds) = renumber(times.iter().map(|time| ((time - first) / MICROS_PER_SECOND) as u32));
        if !seconds.is_empty() && seconds.len() <= times.len() / 2 {
            let values = seconds.iter().map(|&second| Some(first + i64::from(second) * MICROS_PER_SECOND));
            return ColumnEncoder::new(&codes)?.column(type_, each(values));
        }
    }
    let times: Vec<Option<i64>> = times.iter().copied().map(Some).collect();
    encode_plain(type_, &times)
}
