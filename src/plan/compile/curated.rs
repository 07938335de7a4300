//! The columns of the curated files.

use crate::definition::change::fit_32_bits;
use crate::definition::columns::Type;
use crate::formats::parquet;
use crate::plan::columns::{CuratedColumn, CuratedValues, Places, SOURCE_COLUMN};
use crate::plan::compile::Compiler;

impl Compiler<'_> {
    /// Returns the columns of the curated files.
    pub(super) fn curated(&self) -> Vec<CuratedColumn> {
        let of_columns = self.definition.columns.iter().zip(&self.columns).map(|(column, places)| {
            let values = match places {
                Places { is_time: true, .. } => CuratedValues::Time,
                Places { code: Some(code), .. } => CuratedValues::Code(*code),
                Places { int, .. } => CuratedValues::Int(int.unwrap_or_default()),
            };
            (column.name.as_str(), &column.type_, column.is_optional, values)
        });
        let attributes = self.definition.references.iter().flat_map(|reference| &reference.attributes);
        let of_attributes = attributes.enumerate().map(|(index, attribute)| {
            (attribute.name.as_str(), &attribute.type_, true, CuratedValues::Attribute(index))
        });
        let mut curated: Vec<CuratedColumn> = of_columns
            .chain(of_attributes)
            .map(|(name, type_, is_nullable, values)| {
                let type_ = curated_type(type_);
                CuratedColumn { column: parquet::Column { name: name.to_owned(), type_, is_nullable }, values }
            })
            .collect();
        let source = parquet::Column::required(SOURCE_COLUMN, parquet::Type::Text);
        curated.push(CuratedColumn { column: source, values: CuratedValues::Source });
        curated
    }
}

/// The type of a column of the curated files.
fn curated_type(type_: &Type) -> parquet::Type {
    match type_ {
        Type::Id { .. } | Type::Text { .. } => parquet::Type::Text,
        Type::Integer { min, max } if fit_32_bits(*min, *max) => parquet::Type::Int32,
        Type::Integer { .. } => parquet::Type::Int64,
        Type::Decimal { places, .. } => parquet::Type::Decimal { places: *places },
        Type::Time { .. } => parquet::Type::Timestamp,
    }
}
