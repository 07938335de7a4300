//! Reading: the end of a file, and its columns.

use std::io::{Cursor, Read, Seek};

use arrow2::array::Array;
use arrow2::datatypes::Schema;
use arrow2::io::parquet::read as arrow_read;
use arrow2::types::NativeType;
use parquet2::metadata::RowGroupMetaData;

use crate::formats::parquet::ParquetError;
use crate::formats::parquet::arrays::{Bytes, Numbers, Texts};
use crate::process::tasks;

/// Returns the length of a file's footer, with the 8 bytes of length and magic number after it. `end` is the file's
/// last bytes; `None` if they are not those of a Parquet file. <https://parquet.apache.org/docs/file-format/>
pub fn footer_bytes(end: &[u8]) -> Option<usize> {
    let [.., a, b, c, d, b'P', b'A', b'R', b'1'] = end else { return None };
    Some(u32::from_le_bytes([*a, *b, *c, *d]) as usize + 8)
}

/// Returns the number of a file's rows. `end` is the file's last bytes, with its whole footer.
pub fn count_rows(end: &[u8]) -> Result<u64, ParquetError> {
    contained(|| Ok(arrow_read::read_metadata(&mut Cursor::new(end)).map_err(undecodable)?.num_rows as u64))
}

/// Decodes with the archived crates, whose panics become errors.
pub fn contained<T>(decode: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    tasks::contain(decode).unwrap_or_else(|| Err(ParquetError::Decode("its bytes are damaged".to_owned())))
}

pub(super) fn undecodable(error: arrow2::error::Error) -> ParquetError {
    ParquetError::Decode(error.to_string())
}

/// A file that is being read. Use it inside [`contained`].
pub struct Reader<R> {
    file: R,
    row_groups: Vec<RowGroupMetaData>,
    schema: Schema,
}

impl<R: Read + Seek> Reader<R> {
    /// Reads the footer.
    pub fn open(mut file: R) -> Result<Self, ParquetError> {
        let metadata = arrow_read::read_metadata(&mut file).map_err(undecodable)?;
        let schema = arrow_read::infer_schema(&metadata).map_err(undecodable)?;
        Ok(Reader { file, row_groups: metadata.row_groups, schema })
    }

    /// Returns the number of row groups.
    pub fn row_groups(&self) -> usize {
        self.row_groups.len()
    }

    /// Leaves out every row group but one.
    #[must_use]
    pub fn only(mut self, row_group: usize) -> Self {
        self.row_groups = self.row_groups.into_iter().skip(row_group).take(1).collect();
        self
    }

    /// Returns the names of the columns, in order.
    pub fn column_names(&self) -> Vec<&str> {
        self.schema.fields.iter().map(|field| field.name.as_str()).collect()
    }

    /// Reads the columns of these names, one row group in memory at a time.
    pub fn read(
        mut self,
        names: &[&str],
        mut each: impl FnMut(Columns<'_>) -> Result<(), ParquetError>,
    ) -> Result<(), ParquetError> {
        let mut fields = std::mem::take(&mut self.schema.fields);
        for name in names {
            let place = fields.iter().position(|field| field.name == *name);
            let place = place.ok_or_else(|| ParquetError::Decode(format!("it has no column {name}")))?;
            self.schema.fields.push(fields.swap_remove(place));
        }
        for columns in arrow_read::FileReader::new(self.file, self.row_groups, self.schema, None, None, None) {
            let columns = columns.map_err(undecodable)?;
            each(Columns { names, arrays: columns.arrays() })?;
        }
        Ok(())
    }
}

/// The columns of a row group.
pub struct Columns<'a> {
    names: &'a [&'a str],
    arrays: &'a [Box<dyn Array>],
}

impl<'a> Columns<'a> {
    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.arrays.first().map_or(0, |array| array.len())
    }

    /// Returns a column of texts.
    pub fn texts(&self, name: &str) -> Result<&'a Texts, ParquetError> {
        self.column(name)
    }

    /// Returns a column of byte strings.
    pub fn bytes(&self, name: &str) -> Result<&'a Bytes, ParquetError> {
        self.column(name)
    }

    /// Returns a column of numbers.
    pub fn numbers<T: NativeType>(&self, name: &str) -> Result<&'a Numbers<T>, ParquetError> {
        self.column(name)
    }

    fn column<A: 'static>(&self, name: &str) -> Result<&'a A, ParquetError> {
        let place = self.names.iter().position(|column| *column == name);
        let array = place
            .and_then(|place| self.arrays.get(place))
            .ok_or_else(|| ParquetError::Decode(format!("no column {name} was read")))?;
        array
            .as_any()
            .downcast_ref()
            .ok_or_else(|| ParquetError::Decode(format!("a column is of type {:?}", array.data_type())))
    }
}
