//! Merging: rows of several curated files as one row group, sorted.
//!
//! Pure. The files may be of several definitions: a column that a file lacks is null in its rows. Texts have codes here
//! that no batch knows, because a file has its values and not those of the catalogue of today.
//!
//! Covered by `tests/parquet.rs`, which compares the rows before and after, by DuckDB.

use std::collections::HashMap;
use std::hash::Hash;
use std::io::{Read, Seek};

use foldhash::fast::RandomState;
use rayon::prelude::*;

use crate::formats::parquet::arrays::Numbers;
use crate::formats::parquet::dictionary::{ColumnEncoder, each, renumber};
use crate::formats::parquet::pages::{ColumnPages, encode_numbers, is_short};
use crate::formats::parquet::read::{Columns, Reader};
use crate::formats::parquet::schema::ColumnType;
use crate::formats::parquet::{Column, ParquetError, RowGroup, Schema, Type, contained};
use crate::memory::allocated;
use crate::plan::NO_NUMBER;

/// Rows that are gathered from files, column by column.
#[derive(Debug)]
pub struct Merge {
    columns: Vec<(Column, Values)>,
    rows: usize,
}

/// The values of a column.
#[derive(Debug)]
enum Values {
    /// Texts by their codes; the first code is that of none.
    Texts { codes: Vec<u32>, code_of: HashMap<Box<str>, u32, RandomState>, bytes: usize },
    /// Integers, decimals in units of their last place, times in microseconds; [`NO_NUMBER`] for none.
    Numbers(Vec<i64>),
}

impl Merge {
    /// Begins without rows.
    pub fn new(columns: &[Column]) -> Self {
        let empty = |column: &Column| {
            let values = match column.type_ {
                Type::Text | Type::Bytes => Values::Texts { codes: Vec::new(), code_of: HashMap::default(), bytes: 0 },
                Type::Int32 | Type::Int64 | Type::Date | Type::Timestamp | Type::Decimal { .. } => {
                    Values::Numbers(Vec::new())
                }
            };
            (column.clone(), values)
        };
        Merge { columns: columns.iter().map(empty).collect(), rows: 0 }
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of memory that the rows take, and their encoding will take beside them.
    pub fn bytes(&self) -> usize {
        let of_column = |(_, values): &(Column, Values)| match values {
            // The codes once more in their new order, and as a page.
            Values::Texts { codes, bytes, .. } => 3 * 4 * codes.len() + 2 * bytes,
            Values::Numbers(numbers) => 3 * 8 * numbers.len(),
        };
        self.columns.iter().map(of_column).sum()
    }

    /// Adds the rows of a row group of a file. Returns the number of the file's row groups.
    pub fn add(&mut self, file: impl Read + Seek, row_group: usize) -> Result<usize, ParquetError> {
        contained(|| {
            let reader = Reader::open(file)?;
            let row_groups = reader.row_groups();
            let in_file = reader.column_names();
            let names = self.columns.iter().map(|(column, _)| column.name.clone());
            let names: Vec<String> = names.filter(|name| in_file.contains(&name.as_str())).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            reader.only(row_group).read(&names, |group| {
                for (column, values) in &mut self.columns {
                    let is_there = names.contains(&column.name.as_str());
                    values.extend(column, is_there.then_some(&group), group.rows())?;
                }
                self.rows += group.rows();
                Ok(())
            })?;
            Ok(row_groups)
        })
    }

    /// Returns the schema of the merged rows.
    pub fn schema(columns: &[Column]) -> Result<Schema, ParquetError> {
        Ok(Schema::of(columns)?.with_ids())
    }

    /// Encodes the rows in the order of these columns, and forgets them.
    pub fn encode(&mut self, order: &[String]) -> Result<RowGroup, ParquetError> {
        let columns: Vec<Column> = self.columns.iter().map(|(column, _)| column.clone()).collect();
        let schema = Merge::schema(&columns)?;
        let order = self.sorted(order);
        let encode = |(column, values): &(Column, Values)| values.encode(schema.type_of(&column.name)?, &order);
        let pages = self.columns.par_iter().map(encode).collect::<Result<Vec<ColumnPages>, ParquetError>>()?;
        *self = Merge::new(&columns);
        Ok(RowGroup::new(pages))
    }

    /// Returns the positions of the rows in order.
    fn sorted(&self, by: &[String]) -> Vec<u32> {
        let keys = by.iter().filter_map(|name| self.columns.iter().find(|(column, _)| column.name == *name));
        let ranks: Vec<Vec<i64>> = keys.map(|(_, values)| values.ranks()).collect();
        let mut order: Vec<u32> = (0..self.rows as u32).collect();
        order.sort_by(|&a, &b| {
            let compare = |ranks: &Vec<i64>| ranks[a as usize].cmp(&ranks[b as usize]);
            ranks.iter().map(compare).find(|order| order.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
        });
        order
    }
}

impl Values {
    /// Adds the values of a row group, or that many nulls if it lacks the column.
    fn extend(&mut self, column: &Column, group: Option<&Columns<'_>>, rows: usize) -> Result<(), ParquetError> {
        let name = &column.name;
        match self {
            Values::Texts { codes, code_of, bytes } => {
                let Some(group) = group else {
                    codes.resize(codes.len() + rows, 0);
                    return Ok(());
                };
                codes.extend(group.texts(name)?.iter().map(|text| {
                    let Some(text) = text else { return 0 };
                    if let Some(&code) = code_of.get(text) {
                        return code;
                    }
                    let code = code_of.len() as u32 + 1;
                    *bytes += allocated(text.len()) + 32;
                    code_of.insert(text.into(), code);
                    code
                }));
            }
            Values::Numbers(numbers) => match (group, column.type_) {
                (None, _) => numbers.resize(numbers.len() + rows, NO_NUMBER),
                (Some(group), Type::Int32 | Type::Date) => {
                    let values: &Numbers<i32> = group.numbers(name)?;
                    numbers.extend(values.iter().map(|number| number.map_or(NO_NUMBER, |&number| number.into())));
                }
                (Some(group), Type::Decimal { .. }) => {
                    let values: &Numbers<i128> = group.numbers(name)?;
                    // A decimal of 18 digits fits.
                    let number = |number: &i128| i64::try_from(*number).unwrap_or(NO_NUMBER);
                    numbers.extend(values.iter().map(|value| value.map_or(NO_NUMBER, number)));
                }
                (Some(group), _) => {
                    let values: &Numbers<i64> = group.numbers(name)?;
                    numbers.extend(values.iter().map(|number| number.copied().unwrap_or(NO_NUMBER)));
                }
            },
        }
        Ok(())
    }

    /// Returns a number for each row, in the order of the values.
    fn ranks(&self) -> Vec<i64> {
        match self {
            Values::Numbers(numbers) => numbers.clone(),
            Values::Texts { codes, code_of, .. } => {
                let mut texts: Vec<(&str, u32)> = code_of.iter().map(|(text, &code)| (&**text, code)).collect();
                texts.sort_unstable();
                let mut ranks = vec![0; texts.len() + 1];
                for (rank, (_, code)) in texts.iter().enumerate() {
                    ranks[*code as usize] = rank as i64 + 1;
                }
                codes.iter().map(|&code| ranks[code as usize]).collect()
            }
        }
    }

    fn encode(&self, type_: ColumnType, order: &[u32]) -> Result<ColumnPages, ParquetError> {
        match self {
            Values::Texts { codes, code_of, .. } => {
                let mut texts = vec![None; code_of.len() + 1];
                code_of.iter().for_each(|(text, &code)| texts[code as usize] = Some(&**text));
                let (codes, used) = renumber(order.iter().map(|&row| codes[row as usize]));
                ColumnEncoder::new(&codes)?.column(type_, each(used.iter().map(|&code| texts[code as usize])))
            }
            Values::Numbers(numbers) => {
                let numbers: Vec<i64> = order.iter().map(|&row| numbers[row as usize]).collect();
                let Some((codes, distinct)) = coded(&numbers) else {
                    return encode_numbers(type_, &numbers, NO_NUMBER);
                };
                let value = |number: &i64| (*number != NO_NUMBER).then_some(*number);
                let mut encoder = ColumnEncoder::new(&codes)?;
                match is_short(&type_) {
                    // The type is that of the range of the numbers.
                    true => encoder.column(type_, each(distinct.iter().map(|it| value(it).map(|it| it as i32)))),
                    false => encoder.column(type_, each(distinct.iter().map(value))),
                }
            }
        }
    }
}

/// Returns codes for values, and the values, unless a dictionary of them would be larger than they are.
fn coded<T: Copy + Eq + Hash>(values: &[T]) -> Option<(Vec<u32>, Vec<T>)> {
    let most = values.len() / 2;
    let mut code_of: HashMap<T, u32, RandomState> = HashMap::default();
    let (mut codes, mut distinct) = (Vec::with_capacity(values.len()), Vec::new());
    for &value in values {
        let next = distinct.len() as u32;
        let code = *code_of.entry(value).or_insert(next);
        if code == next {
            distinct.push(value);
            if distinct.len() > most {
                return None;
            }
        }
        codes.push(code);
    }
    Some((codes, distinct))
}
