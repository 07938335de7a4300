//! Columns as arrow2 arrays, for files whose columns have nothing in common, and for columns that were read.

use arrow2::array::{Array, BinaryArray, PrimitiveArray, Utf8Array};
use arrow2::datatypes::DataType;
use arrow2::io::parquet::write::{self as arrow_write, Nested};
use arrow2::trusted_len::TrustedLen;
use parquet2::compression::CompressionOptions;
use parquet2::encoding::Encoding;
use parquet2::page::Page;
use parquet2::schema::Repetition;

use crate::formats::parquet::ParquetError;
use crate::formats::parquet::schema::ColumnType;

/// A column of texts.
pub type Texts = Utf8Array<i32>;
/// A column of byte strings.
pub type Bytes = BinaryArray<i32>;
/// A column of numbers.
pub type Numbers<T> = PrimitiveArray<T>;

/// A column of any type, to be written by [`crate::formats::parquet::ParquetFile::write_columns`].
pub struct ColumnArray(Box<dyn Array>);

impl ColumnArray {
    /// A column of texts.
    pub fn texts(values: impl Iterator<Item = impl AsRef<str>>) -> Self {
        ColumnArray(Texts::from_iter_values(values).boxed())
    }

    /// A column of texts and nulls.
    pub fn nullable_texts<'a>(values: impl TrustedLen<Item = Option<&'a str>>) -> Self {
        ColumnArray(Texts::from_trusted_len_iter(values).boxed())
    }

    /// A column of byte strings and nulls.
    pub fn nullable_bytes<'a>(values: impl TrustedLen<Item = Option<&'a [u8]>>) -> Self {
        ColumnArray(Bytes::from_trusted_len_iter(values).boxed())
    }

    /// A column of numbers.
    pub fn int64(numbers: Vec<i64>) -> Self {
        ColumnArray(PrimitiveArray::from_vec(numbers).boxed())
    }

    /// A column of numbers and nulls.
    pub fn nullable_int64(numbers: Vec<Option<i64>>) -> Self {
        ColumnArray(Numbers::<i64>::from(numbers).boxed())
    }

    /// A column of numbers of 32 bits and nulls.
    pub fn nullable_int32(numbers: Vec<Option<i32>>) -> Self {
        ColumnArray(Numbers::<i32>::from(numbers).boxed())
    }

    /// A column of dates, in days since the Unix epoch.
    pub fn dates(days: Vec<i32>) -> Self {
        ColumnArray(PrimitiveArray::from_vec(days).to(DataType::Date32).boxed())
    }

    /// Encodes the column as plain pages without statistics.
    pub(super) fn pages(&self, type_: &ColumnType) -> Result<Vec<Page>, ParquetError> {
        let array = self.0.as_ref();
        let options = arrow_write::WriteOptions {
            write_statistics: false,
            version: arrow_write::Version::V1,
            compression: CompressionOptions::Uncompressed,
            data_pagesize_limit: None,
        };
        let nullable = type_.field_info.repetition == Repetition::Optional;
        let nested = [Nested::Primitive(array.validity().cloned(), nullable, array.len())];
        let pages = arrow_write::array_to_pages(array, type_.clone(), &nested, options, Encoding::Plain)?;
        Ok(pages.collect::<Result<_, _>>()?)
    }
}
