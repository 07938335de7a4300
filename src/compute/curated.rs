//! Curated files: rows as Parquet, and back. `docs/curated.md` describes them.
//!
//! Covered by `tests/parquet.rs`, which reads the files with DuckDB, pyarrow and Polars, and by `tests/pipeline`.

use std::io::{Read, Seek};

use rayon::prelude::*;

use crate::compute::names::{Names, Value};
use crate::compute::rows::Rows;
use crate::formats::parquet::dictionary::{ColumnEncoder, distinct, each, encode_times, renumber};
use crate::formats::parquet::pages::{ColumnPages, encode_numbers};
use crate::formats::parquet::read::{Columns, Reader};
use crate::formats::parquet::schema::ColumnType;
use crate::formats::parquet::{self, ParquetError, ParquetFile, RowGroup, Schema, Type};
use crate::plan::columns::{CuratedColumn, CuratedValues, Kind};
use crate::plan::{NO_NUMBER, Plan};

/// Begins a curated file.
pub fn new_file(plan: &Plan) -> Result<ParquetFile, ParquetError> {
    ParquetFile::new(schema(plan)?, true)
}

fn schema(plan: &Plan) -> Result<Schema, ParquetError> {
    Ok(Schema::of(plan.curated.iter().map(|curated| &curated.column))?.with_ids())
}

/// The columns of a row group that follow from the same array of the rows, by their places in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    /// Of a code column: its own and those of its attributes.
    Code(usize),
    /// Of an integer column.
    Int(usize),
    Time,
    Source,
}

fn group_of(values: CuratedValues, plan: &Plan) -> Group {
    match values {
        CuratedValues::Code(column) => Group::Code(column),
        CuratedValues::Attribute(attribute) => Group::Code(plan.attributes[attribute].code),
        CuratedValues::Int(int) => Group::Int(int),
        CuratedValues::Time => Group::Time,
        CuratedValues::Source => Group::Source,
    }
}

/// Encodes rows of one day as a row group. Most columns follow from a few codes, so rows are read only to renumber
/// these and to write the numbers. Columns of different codes are encoded in parallel.
pub fn encode_rows(rows: &Rows, names: &Names) -> Result<RowGroup, ParquetError> {
    let plan = names.plan();
    let schema = schema(plan)?;
    let mut groups: Vec<(Group, Vec<usize>)> = Vec::new();
    for (place, curated) in plan.curated.iter().enumerate() {
        let group = group_of(curated.values, plan);
        match groups.iter_mut().find(|(known, _)| *known == group) {
            Some((_, places)) => places.push(place),
            None => groups.push((group, vec![place])),
        }
    }
    let encode = |(group, places): &(Group, Vec<usize>)| {
        let columns = places.iter().map(|&place| (place, &plan.curated[place]));
        encode_group(*group, columns, rows, names, &schema)
    };
    let encoded: Vec<Vec<(usize, ColumnPages)>> = groups.par_iter().map(encode).collect::<Result<_, _>>()?;
    let mut columns: Vec<(usize, ColumnPages)> = encoded.into_iter().flatten().collect();
    columns.sort_by_key(|(place, _)| *place);
    Ok(RowGroup::new(columns.into_iter().map(|(_, pages)| pages).collect()))
}

fn encode_group<'p>(
    group: Group,
    columns: impl Iterator<Item = (usize, &'p CuratedColumn)>,
    rows: &Rows,
    names: &Names,
    schema: &Schema,
) -> Result<Vec<(usize, ColumnPages)>, ParquetError> {
    let typed =
        columns.map(|(place, curated)| Ok::<_, ParquetError>((place, curated, schema.type_of(&curated.column.name)?)));
    match group {
        Group::Code(code) => {
            let (codes, used) = renumber(rows.codes[code].iter().copied());
            let mut encoder = ColumnEncoder::new(&codes)?;
            let encode = |column: Result<(usize, &CuratedColumn, ColumnType), ParquetError>| {
                let (place, curated, type_) = column?;
                Ok((place, encode_coded(&mut encoder, curated, type_, code, &used, names)?))
            };
            typed.map(encode).collect()
        }
        Group::Int(int) => typed
            .map(|column| {
                column.and_then(|(place, _, type_)| Ok((place, encode_numbers(type_, &rows.ints[int], NO_NUMBER)?)))
            })
            .collect(),
        Group::Time => typed
            .map(|column| column.and_then(|(place, _, type_)| Ok((place, encode_times(type_, &rows.times)?))))
            .collect(),
        Group::Source => {
            let (codes, used) = renumber(rows.sources.iter().copied());
            let mut encoder = ColumnEncoder::new(&codes)?;
            let keys = || each(used.iter().map(|&source| Some(names.source(source))));
            typed
                .map(|column| column.and_then(|(place, _, type_)| Ok((place, encoder.column(type_, keys())?))))
                .collect()
        }
    }
}

/// Encodes a column that follows from a code. `used` are the codes of the rows.
fn encode_coded(
    encoder: &mut ColumnEncoder<'_>,
    curated: &CuratedColumn,
    type_: ColumnType,
    code: usize,
    used: &[u32],
    names: &Names,
) -> Result<ColumnPages, ParquetError> {
    let value = |key: &u32| coded_value(curated.values, code, *key, names);
    match (curated.column.type_, curated.values) {
        (Type::Text, CuratedValues::Attribute(attribute)) if names.references().values(attribute).are_shared() => {
            let values = names.references().values(attribute);
            let shared = distinct(used.iter().map(|&key| values.value(key)));
            encoder.column(type_, shared.map(|code| values.whole_text(code)))
        }
        (Type::Text, _) => encoder.column(type_, each(used.iter().map(|key| value(key).text()))),
        // The type is that of the range of the values.
        (Type::Int32, _) => {
            encoder.column(type_, each(used.iter().map(|key| value(key).number().map(|number| number as i32))))
        }
        _ => encoder.column(type_, each(used.iter().map(|key| value(key).number()))),
    }
}

/// Returns the value that a column has in the rows with a code: the code's own, or that of an attribute.
#[inline]
fn coded_value(values: CuratedValues, column: usize, code: u32, names: &Names) -> CuratedValue<'_> {
    let CuratedValues::Attribute(attribute) = values else {
        return match names.value(column, code) {
            _ if names.no_value(column) == Some(code) => CuratedValue::None,
            Value::Text(text) => CuratedValue::Text(text),
            Value::Number(number) => CuratedValue::Number(number),
        };
    };
    let values = names.references().values(attribute);
    match names.plan().attributes[attribute].kind {
        Kind::Text => values.whole(code).map_or(CuratedValue::None, CuratedValue::Text),
        Kind::Number => CuratedValue::of_number(values.number(code)),
    }
}

/// Returns the value that a row has in a column of its curated file.
pub fn value<'n>(curated: &CuratedColumn, rows: &Rows, row: usize, names: &'n Names) -> CuratedValue<'n> {
    match group_of(curated.values, names.plan()) {
        Group::Code(code) => coded_value(curated.values, code, rows.codes[code][row], names),
        Group::Int(int) => CuratedValue::of_number(rows.ints[int][row]),
        Group::Time => CuratedValue::Number(rows.times[row]),
        Group::Source => CuratedValue::Text(names.source(rows.sources[row])),
    }
}

/// A value of a curated row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CuratedValue<'a> {
    /// The row has none.
    None,
    /// A text.
    Text(&'a str),
    /// An integer, a decimal in units of its last place, or a time in microseconds.
    Number(i64),
}

impl<'a> CuratedValue<'a> {
    fn of_number(number: i64) -> Self {
        if number == NO_NUMBER { CuratedValue::None } else { CuratedValue::Number(number) }
    }

    fn text(self) -> Option<&'a str> {
        if let CuratedValue::Text(text) = self { Some(text) } else { None }
    }

    fn number(self) -> Option<i64> {
        if let CuratedValue::Number(number) = self { Some(number) } else { None }
    }
}

/// Reads a curated file back, one row group in memory at a time, and calls `each` with the values of each row, in the
/// order of the given columns.
pub fn read_rows(
    file: impl Read + Seek,
    columns: &[(&str, Type)],
    mut each: impl FnMut(&[CuratedValue<'_>]),
) -> Result<(), ParquetError> {
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    parquet::contained(|| {
        Reader::open(file)?.read(&names, |group| {
            let arrays: Vec<CuratedArray<'_>> =
                columns.iter().map(|(name, type_)| CuratedArray::of(&group, name, *type_)).collect::<Result<_, _>>()?;
            let mut row_values = Vec::with_capacity(arrays.len());
            for row in 0..group.rows() {
                row_values.clear();
                row_values.extend(arrays.iter().map(|array| array.value(row)));
                each(&row_values);
            }
            Ok(())
        })
    })
}

/// A column that is read back.
enum CuratedArray<'a> {
    Texts(&'a parquet::arrays::Texts),
    Short(&'a parquet::arrays::Numbers<i32>),
    Long(&'a parquet::arrays::Numbers<i64>),
    Decimal(&'a parquet::arrays::Numbers<i128>),
}

impl<'a> CuratedArray<'a> {
    fn of(columns: &Columns<'a>, name: &str, type_: Type) -> Result<Self, ParquetError> {
        Ok(match type_ {
            Type::Text | Type::Bytes => CuratedArray::Texts(columns.texts(name)?),
            Type::Int32 | Type::Date => CuratedArray::Short(columns.numbers(name)?),
            Type::Int64 | Type::Timestamp => CuratedArray::Long(columns.numbers(name)?),
            Type::Decimal { .. } => CuratedArray::Decimal(columns.numbers(name)?),
        })
    }

    fn value(&self, row: usize) -> CuratedValue<'a> {
        let number = |value: Option<i64>| value.map_or(CuratedValue::None, CuratedValue::Number);
        match self {
            CuratedArray::Texts(texts) => texts.get(row).map_or(CuratedValue::None, CuratedValue::Text),
            CuratedArray::Short(numbers) => number(numbers.get(row).map(i64::from)),
            CuratedArray::Long(numbers) => number(numbers.get(row)),
            // A decimal of 18 digits fits.
            CuratedArray::Decimal(numbers) => number(numbers.get(row).and_then(|value| i64::try_from(value).ok())),
        }
    }
}
