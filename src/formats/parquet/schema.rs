//! Schemas: the columns of a file and their types.

use arrow2::datatypes::{DataType, Field, TimeUnit};
use arrow2::io::parquet::write::to_parquet_schema;
use parquet2::metadata::SchemaDescriptor;
use parquet2::schema::types::ParquetType;
use sha2::{Digest, Sha256};

use crate::formats::parquet::ParquetError;

/// The Parquet type of a column, with its name and nullability.
pub type ColumnType = parquet2::schema::types::PrimitiveType;

/// Digits of a decimal number: as many as always fit into 64 bits.
pub const MAX_DECIMAL_DIGITS: usize = 18;

/// The type of a column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// UTF-8.
    Text,
    /// Bytes.
    Bytes,
    /// A signed number of 32 bits.
    Int32,
    /// A signed number of 64 bits.
    Int64,
    /// Days since the Unix epoch.
    Date,
    /// Microseconds since the Unix epoch, UTC.
    Timestamp,
    /// A decimal number of at most 18 digits, as a signed number of 64 bits.
    Decimal {
        /// Its digits after the point.
        places: u8,
    },
}

/// A column of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// The type of its values.
    pub type_: Type,
    /// True if it has nulls.
    pub is_nullable: bool,
}

impl Column {
    /// A column with a value in every row.
    pub fn required(name: impl Into<String>, type_: Type) -> Self {
        Column { name: name.into(), type_, is_nullable: false }
    }

    /// A column with nulls.
    pub fn nullable(name: impl Into<String>, type_: Type) -> Self {
        Column { name: name.into(), type_, is_nullable: true }
    }

    fn field(&self) -> Field {
        let type_ = match self.type_ {
            Type::Text => DataType::Utf8,
            Type::Bytes => DataType::Binary,
            Type::Int32 => DataType::Int32,
            Type::Int64 => DataType::Int64,
            Type::Date => DataType::Date32,
            Type::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".to_owned())),
            Type::Decimal { places } => DataType::Decimal(MAX_DECIMAL_DIGITS, usize::from(places)),
        };
        Field::new(&self.name, type_, self.is_nullable)
    }
}

/// The schema of a file.
pub struct Schema(pub(super) SchemaDescriptor);

impl Schema {
    /// Returns the schema of these columns.
    pub fn of<'a>(columns: impl IntoIterator<Item = &'a Column>) -> Result<Self, ParquetError> {
        let fields: Vec<Field> = columns.into_iter().map(Column::field).collect();
        Ok(Schema(to_parquet_schema(&arrow2::datatypes::Schema::from(fields))?))
    }

    /// Gives each column an id that follows from its name, so that it is the same in every file, whatever columns come
    /// before it. Delta goes by names; a catalog that goes by ids can take up files only if they have had them from the
    /// beginning. Of a hundred columns, two have the same id with a probability of one to 200,000.
    #[must_use]
    pub fn with_ids(self) -> Self {
        let fields = self.0.fields().iter().cloned().map(|mut field| {
            if let ParquetType::PrimitiveType(column) = &mut field {
                column.field_info.id = Some(id_of(&column.field_info.name));
            }
            field
        });
        let (name, fields) = (self.0.name().to_owned(), fields.collect());
        Schema(SchemaDescriptor::new(name, fields))
    }

    /// Returns the type of a column.
    pub fn type_of(&self, name: &str) -> Result<ColumnType, ParquetError> {
        let column = self.0.columns().iter().find(|column| column.descriptor.primitive_type.field_info.name == name);
        let type_ = column.map(|column| column.descriptor.primitive_type.clone());
        type_.ok_or_else(|| ParquetError::Encode(format!("the schema lacks the column {name}")))
    }
}

/// A number from 1 to 2^30 for a name.
fn id_of(name: &str) -> i32 {
    let [a, b, c, d, ..]: [u8; 32] = Sha256::digest(name).into();
    1 + (i32::from_be_bytes([a, b, c, d]) & 0x3fff_ffff)
}
