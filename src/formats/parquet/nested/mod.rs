//! Nested columns: rows with groups, maps and lists, as JSON.
//!
//! arrow2's own reader of nested columns loses maps within groups, and panics on files of others. Here, levels and
//! values are written to and read from parquet2's pages. Maps and lists do not nest in each other, and hold texts,
//! numbers and booleans; that is what checkpoints of a Delta log need ([`crate::formats::delta`]). Encoding of levels:
//! <https://parquet.apache.org/docs/file-format/nestedencoding/>.
//!
//! Covered by the property of `formats/delta/checkpoint.rs`, and by `tests/pipeline/table.rs`, where others read and
//! write checkpoints.

mod read;
mod write;

use parquet2::schema::types::{GroupConvertedType, GroupLogicalType, ParquetType};

pub use read::read;
pub use write::write;

fn bits(max_level: i16) -> u32 {
    i16::BITS - max_level.leading_zeros()
}

fn name_of(field: &ParquetType) -> &str {
    field.get_field_info().name.as_str()
}

/// The meaning of a group's only child, which is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Group,
    Map,
    List,
}

/// Returns the shape of a group, and for a map or a list the fields of its repeated child.
fn shape_of(field: &ParquetType) -> (Shape, &[ParquetType]) {
    let ParquetType::GroupType { logical_type, converted_type, fields, .. } = field else { return (Shape::Group, &[]) };
    let shape = match (logical_type, converted_type) {
        (Some(GroupLogicalType::Map), _) | (_, Some(GroupConvertedType::Map | GroupConvertedType::MapKeyValue)) => {
            Shape::Map
        }
        (Some(GroupLogicalType::List), _) | (_, Some(GroupConvertedType::List)) => Shape::List,
        _ => return (Shape::Group, fields),
    };
    match fields.as_slice() {
        [ParquetType::GroupType { fields, .. }] => (shape, fields),
        _ => (Shape::Group, fields),
    }
}
