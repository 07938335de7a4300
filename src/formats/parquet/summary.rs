//! Summaries: a file's rows, columns and bounds, from its footer alone.

use std::io::Cursor;

use arrow2::io::parquet::read as arrow_read;
use parquet2::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use parquet2::schema::Repetition;
use parquet2::schema::types::{PhysicalType, PrimitiveConvertedType, PrimitiveLogicalType};

use crate::formats::parquet::read::{contained, undecodable};
use crate::formats::parquet::schema::ColumnType;
use crate::formats::parquet::{Column, ParquetError, Type};

/// A file's rows, columns and bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The number of rows.
    pub rows: u64,
    /// The columns.
    pub columns: Vec<Column>,
    /// The least and the greatest value of each column; `None` where a row group does not say, or there is none.
    pub bounds: Vec<Option<(Bound, Bound)>>,
    /// Bytes of all pages before compression.
    pub uncompressed_bytes: u64,
}

/// The least or the greatest value of a column.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bound {
    /// Of texts, by their bytes.
    Text(String),
    /// Of numbers and times.
    Number(i64),
}

/// Returns the summary of a file. `end` is the file's last bytes, with its whole footer
/// ([`footer_bytes`](crate::formats::parquet::footer_bytes)).
pub fn summary(end: &[u8]) -> Result<Summary, ParquetError> {
    contained(|| {
        let metadata = arrow_read::read_metadata(&mut Cursor::new(end)).map_err(undecodable)?;
        let types: Vec<&ColumnType> =
            metadata.schema().columns().iter().map(|column| &column.descriptor.primitive_type).collect();
        let columns: Option<Vec<Column>> = types.iter().map(|type_| column_of(type_)).collect();
        let columns = columns.ok_or_else(|| ParquetError::Decode("a column is of a type of others".to_owned()))?;
        let bounds = columns.iter().enumerate().map(|(place, column)| bounds(column, place, &metadata.row_groups));
        let chunks = metadata.row_groups.iter().flat_map(RowGroupMetaData::columns);
        Ok(Summary {
            rows: metadata.num_rows as u64,
            bounds: bounds.collect(),
            columns,
            uncompressed_bytes: chunks.map(|chunk| u64::try_from(chunk.uncompressed_size()).unwrap_or(0)).sum(),
        })
    })
}

/// Returns the column of a type that this program writes.
fn column_of(type_: &ColumnType) -> Option<Column> {
    use PrimitiveConvertedType as Converted;
    use PrimitiveLogicalType as Logical;
    let is_nullable = match type_.field_info.repetition {
        Repetition::Required => false,
        Repetition::Optional => true,
        Repetition::Repeated => return None,
    };
    let kind = match (type_.physical_type, type_.logical_type, type_.converted_type) {
        (PhysicalType::ByteArray, Some(Logical::String), _) | (PhysicalType::ByteArray, _, Some(Converted::Utf8)) => {
            Type::Text
        }
        (PhysicalType::ByteArray, _, _) => Type::Bytes,
        (PhysicalType::Int32, Some(Logical::Date), _) | (PhysicalType::Int32, _, Some(Converted::Date)) => Type::Date,
        (PhysicalType::Int32, _, _) => Type::Int32,
        (PhysicalType::Int64, Some(Logical::Timestamp { .. }), _) => Type::Timestamp,
        (PhysicalType::Int64, Some(Logical::Decimal(_, places)), _)
        | (PhysicalType::Int64, _, Some(Converted::Decimal(_, places))) => {
            Type::Decimal { places: u8::try_from(places).ok()? }
        }
        (PhysicalType::Int64, _, _) => Type::Int64,
        _ => return None,
    };
    Some(Column { name: type_.field_info.name.clone(), type_: kind, is_nullable })
}

fn bounds(column: &Column, place: usize, row_groups: &[RowGroupMetaData]) -> Option<(Bound, Bound)> {
    let mut all: Option<(Bound, Bound)> = None;
    for row_group in row_groups {
        let (least, greatest) = bounds_of_chunk(column, row_group.columns().get(place)?)?;
        all = Some(match all {
            Some((lowest, highest)) => (lowest.min(least), highest.max(greatest)),
            None => (least, greatest),
        });
    }
    all
}

fn bounds_of_chunk(column: &Column, chunk: &ColumnChunkMetaData) -> Option<(Bound, Bound)> {
    let statistics = chunk.metadata().statistics.as_ref()?;
    let bound = |bytes: &Vec<u8>| match column.type_ {
        Type::Text => String::from_utf8(bytes.clone()).ok().map(Bound::Text),
        Type::Int32 | Type::Date => Some(Bound::Number(i32::from_le_bytes(bytes.as_slice().try_into().ok()?).into())),
        Type::Int64 | Type::Timestamp | Type::Decimal { .. } => {
            Some(Bound::Number(i64::from_le_bytes(bytes.as_slice().try_into().ok()?)))
        }
        Type::Bytes => None,
    };
    Some((bound(statistics.min_value.as_ref()?)?, bound(statistics.max_value.as_ref()?)?))
}
