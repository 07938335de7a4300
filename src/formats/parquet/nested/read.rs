//! Levels and values to rows.

use std::io::Cursor;

use parquet2::encoding::Encoding;
use parquet2::encoding::hybrid_rle::HybridRleDecoder;
use parquet2::metadata::{ColumnChunkMetaData, Descriptor};
use parquet2::page::{Page, split_buffer};
use parquet2::read::{decompress, get_page_iterator, read_metadata};
use parquet2::schema::Repetition;
use parquet2::schema::types::PhysicalType;
use serde_json::{Map, Value};

use super::{Shape, bits, name_of, shape_of};
use crate::formats::parquet::schema::ColumnType;
use crate::formats::parquet::{ParquetError, contained};

/// Bytes of the largest page that is read.
const MAX_PAGE_BYTES: usize = 256 << 20;

/// Reads the fields of a file that are wanted, by their path; those of types that cannot be read are left out. A field
/// without a value is not in its row.
pub fn read(file: &[u8], is_wanted: impl Fn(&[&str]) -> bool) -> Result<Vec<Value>, ParquetError> {
    contained(|| {
        let metadata = read_metadata(&mut Cursor::new(file)).map_err(undecodable)?;
        let mut rows = Vec::new();
        for row_group in &metadata.row_groups {
            let first = rows.len();
            rows.resize_with(first + row_group.num_rows(), || Value::Object(Map::new()));
            // Of a map, the leaf of the keys comes before that of the values.
            let mut keys: Vec<Vec<Value>> = Vec::new();
            for column in row_group.columns() {
                let Some((path, part)) = part_of(column) else { continue };
                if !is_wanted(&path) {
                    continue;
                }
                let values = by_row(column, file)?;
                if values.len() != row_group.num_rows() {
                    return Err(ParquetError::Decode(format!("{path:?} has {} rows", values.len())));
                }
                if part == Part::Key {
                    keys = values;
                    continue;
                }
                let mut keys = std::mem::take(&mut keys).into_iter();
                for (row, values) in rows[first..].iter_mut().zip(values) {
                    let value = match part {
                        Part::Scalar => values.into_iter().find(|value| !value.is_null()),
                        Part::Element => (!values.is_empty()).then_some(Value::Array(values)),
                        Part::Key | Part::Value => {
                            let keys = keys.next().unwrap_or_default();
                            let entries = keys.into_iter().zip(values);
                            let named = entries.filter_map(|(key, value)| Some((key.as_str()?.to_owned(), value)));
                            let entries: Map<String, Value> = named.collect();
                            (!entries.is_empty()).then_some(Value::Object(entries))
                        }
                    };
                    value.into_iter().for_each(|value| insert(row, &path, value));
                }
            }
        }
        Ok(rows)
    })
}

fn insert(row: &mut Value, path: &[&str], value: Value) {
    let mut place = row;
    for name in path {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = &mut place[*name];
    }
    *place = value;
}

/// The part of its field that a leaf is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Scalar,
    Key,
    Value,
    Element,
}

/// Returns the path of the field that a leaf belongs to, and its part of it. `None` if it cannot be read here.
fn part_of(column: &ColumnChunkMetaData) -> Option<(Vec<&str>, Part)> {
    let descriptor = column.descriptor();
    let names = &descriptor.path_in_schema;
    let mut field = &descriptor.base_type;
    let mut path = vec![name_of(field)];
    for name in &names[1..] {
        let (shape, fields) = shape_of(field);
        let is_last = |place: usize| names.last().is_some_and(|last| name_of(&fields[place]) == last);
        match (shape, fields.len()) {
            (Shape::Group, _) => {
                field = fields.iter().find(|field| name_of(field) == name)?;
                path.push(name_of(field));
            }
            _ if names.len() != path.len() + 2 => return None,
            (Shape::Map, 2) => return Some((path, if is_last(0) { Part::Key } else { Part::Value })),
            (Shape::List, 1) => return Some((path, Part::Element)),
            _ => return None,
        }
    }
    let can_be_read = matches!(
        descriptor.descriptor.primitive_type.physical_type,
        PhysicalType::ByteArray | PhysicalType::Int64 | PhysicalType::Int32 | PhysicalType::Boolean
    );
    (can_be_read && descriptor.descriptor.max_rep_level == 0).then_some((path, Part::Scalar))
}

/// Returns the values of a leaf by row, with `null` for an entry without a value.
fn by_row(column: &ColumnChunkMetaData, file: &[u8]) -> Result<Vec<Vec<Value>>, ParquetError> {
    let pages = get_page_iterator(column, Cursor::new(file), None, Vec::new(), MAX_PAGE_BYTES).map_err(undecodable)?;
    let Descriptor { primitive_type, max_def_level, max_rep_level } = &column.descriptor().descriptor;
    let type_ = primitive_type.physical_type;
    let (mut dictionary, mut rows) = (Vec::new(), Vec::<Vec<Value>>::new());
    for page in pages {
        let page = match decompress(page.map_err(undecodable)?, &mut Vec::new()).map_err(undecodable)? {
            Page::Dict(page) => {
                dictionary = decoded(&page.buffer, page.num_values, type_)?;
                continue;
            }
            Page::Data(page) => page,
        };
        let count = page.num_values();
        let (repetitions, definitions, values) = split_buffer(&page).map_err(undecodable)?;
        let repetitions = levels(repetitions, *max_rep_level, count)?;
        let definitions = levels(definitions, *max_def_level, count)?;
        let present = definitions.iter().filter(|&&level| level == *max_def_level as u32).count();
        let mut values = match page.encoding() {
            Encoding::Plain => decoded(values, present, type_)?,
            Encoding::RleDictionary | Encoding::PlainDictionary => looked_up(values, present, &dictionary)?,
            other => return Err(ParquetError::Decode(format!("the encoding {other:?} is not read here"))),
        }
        .into_iter();
        for (repetition, definition) in repetitions.into_iter().zip(definitions) {
            if repetition == 0 {
                rows.push(Vec::new());
            }
            let row = rows.last_mut().ok_or_else(|| ParquetError::Decode("it begins within a row".to_owned()))?;
            if definition == *max_def_level as u32 {
                row.push(values.next().ok_or_else(|| ParquetError::Decode("it has too few values".to_owned()))?);
            } else if *max_rep_level > 0 && definition + 1 == *max_def_level as u32 && is_optional(primitive_type) {
                // An entry whose value is null.
                row.push(Value::Null);
            }
        }
    }
    Ok(rows)
}

fn is_optional(type_: &ColumnType) -> bool {
    type_.field_info.repetition == Repetition::Optional
}

fn levels(encoded: &[u8], max: i16, count: usize) -> Result<Vec<u32>, ParquetError> {
    if max == 0 {
        return Ok(vec![0; count]);
    }
    let levels = HybridRleDecoder::try_new(encoded, bits(max), count).map_err(undecodable)?;
    levels.collect::<Result<_, _>>().map_err(undecodable)
}

fn looked_up(encoded: &[u8], count: usize, dictionary: &[Value]) -> Result<Vec<Value>, ParquetError> {
    let Some((&bits, positions)) = encoded.split_first() else { return Ok(Vec::new()) };
    let positions: Vec<u32> = match bits {
        0 => vec![0; count],
        _ => HybridRleDecoder::try_new(positions, u32::from(bits), count)
            .and_then(|positions| positions.collect::<Result<_, _>>())
            .map_err(undecodable)?,
    };
    let value = |position: u32| dictionary.get(position as usize).cloned();
    let values: Option<Vec<Value>> = positions.into_iter().map(value).collect();
    values.ok_or_else(|| ParquetError::Decode("a position is not in its dictionary".to_owned()))
}

/// Decodes plain values.
fn decoded(mut bytes: &[u8], count: usize, type_: PhysicalType) -> Result<Vec<Value>, ParquetError> {
    let short = || ParquetError::Decode("a page is shorter than its values".to_owned());
    if type_ == PhysicalType::Boolean {
        let bit = |place: usize| Some(Value::Bool(bytes.get(place / 8)? >> (place % 8) & 1 == 1));
        return (0..count).map(bit).collect::<Option<_>>().ok_or_else(short);
    }
    // Each value takes at least four bytes.
    let mut values = Vec::with_capacity(count.min(bytes.len() / 4));
    for _ in 0..count {
        let value = match type_ {
            PhysicalType::Int32 => Value::from(i32::from_le_bytes(take(&mut bytes).ok_or_else(short)?)),
            PhysicalType::Int64 => Value::from(i64::from_le_bytes(take(&mut bytes).ok_or_else(short)?)),
            _ => {
                let length = u32::from_le_bytes(take(&mut bytes).ok_or_else(short)?) as usize;
                let (text, rest) = bytes.split_at_checked(length).ok_or_else(short)?;
                bytes = rest;
                let text = std::str::from_utf8(text).map_err(|error| ParquetError::Decode(error.to_string()))?;
                Value::from(text)
            }
        };
        values.push(value);
    }
    Ok(values)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

fn undecodable(error: parquet2::error::Error) -> ParquetError {
    ParquetError::Decode(error.to_string())
}
