//! Rows to levels and values.

use parquet2::encoding::Encoding;
use parquet2::encoding::hybrid_rle::{bitpacked_encode, encode_u32};
use parquet2::metadata::{Descriptor, SchemaDescriptor};
use parquet2::page::{DataPage, DataPageHeader, DataPageHeaderV1, Page};
use parquet2::schema::Repetition;
use parquet2::schema::types::{ParquetType, PhysicalType};
use serde_json::Value;

use super::{Shape, bits, name_of, shape_of};
use crate::formats::parquet::pages::{ColumnPages, PageCompressor};
use crate::formats::parquet::{ParquetError, ParquetFile, RowGroup, Schema};

/// Writes rows as a file of one row group. `message` is the schema in Parquet's own notation; each row is an object of
/// its fields.
pub fn write(message: &str, rows: &[Value]) -> Result<Vec<u8>, ParquetError> {
    let schema = SchemaDescriptor::try_from_message(message)?;
    let mut leaves: Vec<Leaf<'_>> = schema.columns().iter().map(|_| Leaf::default()).collect();
    for row in rows {
        let mut rest = leaves.as_mut_slice();
        for field in schema.fields() {
            let (of_field, others) = rest.split_at_mut(leaf_count(field));
            shred(field, row.get(name_of(field)), Levels::default(), of_field)?;
            rest = others;
        }
    }
    let mut compressor = PageCompressor::new()?;
    let pages: Vec<ColumnPages> = schema
        .columns()
        .iter()
        .zip(leaves)
        .map(|(column, leaf)| Ok(vec![compressor.compress(leaf.page(&column.descriptor)?)?]))
        .collect::<Result<_, ParquetError>>()?;
    let mut file = ParquetFile::new(Schema(schema), false)?;
    file.append(RowGroup::new(pages))?;
    file.finish()
}

/// The levels at which a value stands: how often it repeats, and how much of its path is defined.
#[derive(Debug, Clone, Copy, Default)]
struct Levels {
    repetition: u32,
    definition: u32,
    /// The number of repeated groups around it.
    depth: u32,
}

/// A value of a leaf.
#[derive(Debug, Clone, Copy)]
enum Scalar<'a> {
    Text(&'a str),
    Number(i64),
    Bool(bool),
}

impl<'a> Scalar<'a> {
    fn of(value: &'a Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(Scalar::Text(text)),
            Value::Number(number) => number.as_i64().map(Scalar::Number),
            Value::Bool(bool) => Some(Scalar::Bool(*bool)),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

/// The levels and values of a leaf of the schema.
#[derive(Debug, Default)]
struct Leaf<'a> {
    repetitions: Vec<u32>,
    definitions: Vec<u32>,
    values: Vec<Scalar<'a>>,
}

impl Leaf<'_> {
    fn page(self, descriptor: &Descriptor) -> Result<Page, ParquetError> {
        let mut page = Vec::new();
        for (levels, max) in
            [(&self.repetitions, descriptor.max_rep_level), (&self.definitions, descriptor.max_def_level)]
        {
            if max > 0 {
                // Version 1 pages put the length of the levels before them.
                let mut encoded = Vec::new();
                encode_u32(&mut encoded, levels.iter().copied(), bits(max)).map_err(failed)?;
                page.extend_from_slice(&(encoded.len() as u32).to_le_bytes());
                page.extend_from_slice(&encoded);
            }
        }
        plain(&mut page, &self.values, descriptor.primitive_type.physical_type)?;
        let header = DataPageHeader::V1(DataPageHeaderV1 {
            num_values: self.definitions.len() as i32,
            encoding: Encoding::Plain.into(),
            definition_level_encoding: Encoding::Rle.into(),
            repetition_level_encoding: Encoding::Rle.into(),
            statistics: None,
        });
        let rows = self.repetitions.iter().filter(|&&repetition| repetition == 0).count();
        Ok(Page::Data(DataPage::new(header, page, descriptor.clone(), Some(rows))))
    }
}

fn plain(page: &mut Vec<u8>, values: &[Scalar<'_>], type_: PhysicalType) -> Result<(), ParquetError> {
    let mut bools = Vec::new();
    for value in values {
        match (value, type_) {
            (Scalar::Text(text), PhysicalType::ByteArray) => {
                page.extend_from_slice(&(text.len() as u32).to_le_bytes());
                page.extend_from_slice(text.as_bytes());
            }
            (Scalar::Number(number), PhysicalType::Int64) => page.extend_from_slice(&number.to_le_bytes()),
            (Scalar::Number(number), PhysicalType::Int32) => {
                let number = i32::try_from(*number).map_err(failed)?;
                page.extend_from_slice(&number.to_le_bytes());
            }
            (Scalar::Bool(bool), PhysicalType::Boolean) => bools.push(*bool),
            _ => return Err(ParquetError::Encode(format!("{value:?} in a column of type {type_:?}"))),
        }
    }
    bitpacked_encode(page, bools.into_iter()).map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> ParquetError {
    ParquetError::Encode(error.to_string())
}

fn leaf_count(field: &ParquetType) -> usize {
    match field {
        ParquetType::PrimitiveType(_) => 1,
        ParquetType::GroupType { fields, .. } => fields.iter().map(leaf_count).sum(),
    }
}

/// Appends a field of a row to its leaves.
fn shred<'a>(
    field: &ParquetType,
    value: Option<&'a Value>,
    levels: Levels,
    leaves: &mut [Leaf<'a>],
) -> Result<(), ParquetError> {
    let value = value.filter(|value| !value.is_null());
    let is_required = field.get_field_info().repetition == Repetition::Required;
    let Some(value) = value else {
        if is_required {
            return Err(ParquetError::Encode(format!("{} is missing", name_of(field))));
        }
        skip(levels, leaves);
        return Ok(());
    };
    let inner = Levels { definition: levels.definition + u32::from(!is_required), ..levels };
    let wrong = || ParquetError::Encode(format!("{} cannot be {value}", name_of(field)));
    match shape_of(field) {
        (Shape::Group, []) => {
            let [leaf] = leaves else { return Err(wrong()) };
            push(leaf, inner, Some(Scalar::of(value).ok_or_else(wrong)?));
        }
        (Shape::Group, fields) => {
            let mut rest = leaves;
            for field in fields {
                let (of_field, others) = rest.split_at_mut(leaf_count(field));
                shred(field, value.get(name_of(field)), inner, of_field)?;
                rest = others;
            }
        }
        (Shape::Map, fields) => {
            let entries = value.as_object().ok_or_else(wrong)?;
            if entries.is_empty() {
                skip(inner, leaves);
                return Ok(());
            }
            let ([_, of_value], [keys, values]) = (fields, leaves) else { return Err(wrong()) };
            for (place, (key, value)) in entries.iter().enumerate() {
                let levels = repeated(inner, place);
                push(keys, levels, Some(Scalar::Text(key)));
                shred(of_value, Some(value), levels, std::slice::from_mut(values))?;
            }
        }
        (Shape::List, fields) => {
            let [of_element] = fields else { return Err(wrong()) };
            let elements = value.as_array().ok_or_else(wrong)?;
            if elements.is_empty() {
                skip(inner, leaves);
            }
            for (place, element) in elements.iter().enumerate() {
                shred(of_element, Some(element), repeated(inner, place), leaves)?;
            }
        }
    }
    Ok(())
}

/// The levels of an entry of a map or a list.
fn repeated(inner: Levels, place: usize) -> Levels {
    let depth = inner.depth + 1;
    Levels { repetition: if place == 0 { inner.repetition } else { depth }, definition: inner.definition + 1, depth }
}

fn skip(levels: Levels, leaves: &mut [Leaf<'_>]) {
    leaves.iter_mut().for_each(|leaf| push(leaf, levels, None));
}

fn push<'a>(leaf: &mut Leaf<'a>, levels: Levels, value: Option<Scalar<'a>>) {
    leaf.repetitions.push(levels.repetition);
    leaf.definitions.push(levels.definition);
    leaf.values.extend(value);
}
