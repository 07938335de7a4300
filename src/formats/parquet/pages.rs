//! Pages: plain values, their statistics, and compression.

use parquet2::compression::Compression;
use parquet2::encoding::{Encoding, hybrid_rle};
use parquet2::metadata::Descriptor;
use parquet2::page::{
    CompressedDataPage, CompressedDictPage, CompressedPage, DataPage, DataPageHeader, DataPageHeaderV1, Page,
};
use parquet2::schema::Repetition;
use parquet2::schema::types::PhysicalType;
use parquet2::statistics::{BinaryStatistics, PrimitiveStatistics, Statistics, serialize_statistics};

use crate::formats::parquet::ParquetError;
use crate::formats::parquet::schema::ColumnType;

/// Level 1: on this data as small as level 3, at less cost.
const ZSTD_LEVEL: i32 = 1;

/// A column of a row group: its compressed pages.
pub type ColumnPages = Vec<CompressedPage>;

/// A compressor that reuses its state from page to page.
pub(super) struct PageCompressor(zstd::bulk::Compressor<'static>);

impl PageCompressor {
    pub(super) fn new() -> Result<Self, ParquetError> {
        let compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL);
        compressor.map(PageCompressor).map_err(|error| ParquetError::Encode(error.to_string()))
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<Vec<u8>, ParquetError> {
        let mut compressed = self.0.compress(bytes).map_err(|error| ParquetError::Encode(error.to_string()))?;
        compressed.shrink_to_fit();
        Ok(compressed)
    }

    pub(super) fn compress(&mut self, page: Page) -> Result<CompressedPage, ParquetError> {
        Ok(match page {
            Page::Dict(page) => {
                let (bytes, values) = (self.bytes(&page.buffer)?, page.num_values);
                CompressedPage::Dict(CompressedDictPage::new(
                    bytes,
                    Compression::Zstd,
                    page.buffer.len(),
                    values,
                    page.is_sorted,
                ))
            }
            Page::Data(page) => CompressedPage::Data(CompressedDataPage::new(
                page.header().clone(),
                self.bytes(page.buffer())?,
                Compression::Zstd,
                page.buffer().len(),
                page.descriptor.clone(),
                Some(page.num_values()),
            )),
        })
    }
}

/// Values of a type that pages can have.
pub trait Plain: Copy {
    /// Encodes values one after the other.
    fn encode(values: &[Self]) -> Vec<u8>;
    /// Returns the least and the greatest value, and the number of nulls.
    fn statistics(values: &[Self], null_count: i64, type_: &ColumnType) -> parquet_format_safe::Statistics;
}

impl Plain for &str {
    fn encode(values: &[Self]) -> Vec<u8> {
        let mut plain = Vec::with_capacity(values.iter().map(|value| 4 + value.len()).sum());
        for value in values {
            plain.extend_from_slice(&(value.len() as u32).to_le_bytes());
            plain.extend_from_slice(value.as_bytes());
        }
        plain
    }

    fn statistics(values: &[Self], null_count: i64, type_: &ColumnType) -> parquet_format_safe::Statistics {
        let extreme = |value: Option<&&str>| value.map(|value| value.as_bytes().to_vec());
        let statistics = BinaryStatistics {
            primitive_type: type_.clone(),
            null_count: Some(null_count),
            distinct_count: None,
            max_value: extreme(values.iter().max()),
            min_value: extreme(values.iter().min()),
        };
        serialize_statistics(&statistics as &dyn Statistics)
    }
}

macro_rules! plain_number {
    ($type:ty) => {
        impl Plain for $type {
            fn encode(values: &[Self]) -> Vec<u8> {
                values.iter().flat_map(|value| value.to_le_bytes()).collect()
            }

            fn statistics(values: &[Self], null_count: i64, type_: &ColumnType) -> parquet_format_safe::Statistics {
                let statistics = PrimitiveStatistics::<$type> {
                    primitive_type: type_.clone(),
                    null_count: Some(null_count),
                    distinct_count: None,
                    max_value: values.iter().max().copied(),
                    min_value: values.iter().min().copied(),
                };
                serialize_statistics(&statistics as &dyn Statistics)
            }
        }
    };
}

plain_number!(i64);
plain_number!(i32);

/// Encodes a column of numbers without a dictionary. `none` stands for null.
pub fn encode_numbers(type_: ColumnType, numbers: &[i64], none: i64) -> Result<ColumnPages, ParquetError> {
    if is_short(&type_) {
        // The type is that of the range of the numbers.
        let short: Vec<Option<i32>> = numbers.iter().map(|&it| (it != none).then_some(it as i32)).collect();
        return encode_plain(type_, &short);
    }
    let numbers: Vec<Option<i64>> = numbers.iter().map(|&number| (number != none).then_some(number)).collect();
    encode_plain(type_, &numbers)
}

/// Returns true for a column of numbers of 32 bits.
pub fn is_short(type_: &ColumnType) -> bool {
    type_.physical_type == PhysicalType::Int32
}

/// Encodes a column without a dictionary.
pub fn encode_plain<V: Plain>(type_: ColumnType, values: &[Option<V>]) -> Result<ColumnPages, ParquetError> {
    let present: Vec<V> = values.iter().flatten().copied().collect();
    let null_count = values.len() - present.len();
    let mut page = Vec::new();
    if type_.field_info.repetition == Repetition::Optional {
        encode_presence(&mut page, values.iter().map(Option::is_some))?;
    }
    page.extend(V::encode(&present));
    let statistics = V::statistics(&present, null_count as i64, &type_);
    let header = data_page_header(values.len(), Encoding::Plain, statistics);
    let descriptor = Descriptor { primitive_type: type_, max_def_level: 0, max_rep_level: 0 };
    let page = DataPage::new(header, page, descriptor, Some(values.len()));
    Ok(vec![PageCompressor::new()?.compress(Page::Data(page))?])
}

/// Encodes definition levels, 1 where there is a value. Version 1 pages put the length of the levels before them.
pub(super) fn encode_presence(
    page: &mut Vec<u8>,
    present: impl ExactSizeIterator<Item = bool>,
) -> Result<(), ParquetError> {
    let start = page.len();
    page.extend_from_slice(&[0; 4]);
    hybrid_rle::encode_bool(page, present).map_err(|error| ParquetError::Encode(error.to_string()))?;
    let length = (page.len() - start - 4) as u32;
    page[start..start + 4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

pub(super) fn data_page_header(
    rows: usize,
    encoding: Encoding,
    statistics: parquet_format_safe::Statistics,
) -> DataPageHeader {
    DataPageHeader::V1(DataPageHeaderV1 {
        num_values: rows as i32,
        encoding: encoding.into(),
        definition_level_encoding: Encoding::Rle.into(),
        repetition_level_encoding: Encoding::Rle.into(),
        statistics: Some(statistics),
    })
}
