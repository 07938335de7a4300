//! The columns of a Delta table.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::formats::delta::DeltaError;
use crate::formats::parquet;

/// A column: its name, and its type by its name in the format, such as `decimal(18,2)`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub type_: String,
}

impl Column {
    /// Returns the column that a column of Parquet files is.
    pub fn of(column: &parquet::Column) -> Self {
        let type_ = match column.type_ {
            parquet::Type::Text => "string".to_owned(),
            parquet::Type::Bytes => "binary".to_owned(),
            parquet::Type::Int32 => "integer".to_owned(),
            parquet::Type::Int64 => "long".to_owned(),
            parquet::Type::Date => "date".to_owned(),
            parquet::Type::Timestamp => "timestamp".to_owned(),
            parquet::Type::Decimal { places } => format!("decimal({},{places})", parquet::MAX_DECIMAL_DIGITS),
        };
        Column { name: column.name.clone(), type_ }
    }

    /// Returns the column of Parquet files that this column is; `None` for a type that this program does not write.
    pub fn in_files(&self) -> Option<parquet::Column> {
        let type_ = match self.type_.as_str() {
            "string" => parquet::Type::Text,
            "integer" => parquet::Type::Int32,
            "long" => parquet::Type::Int64,
            "date" => parquet::Type::Date,
            "timestamp" => parquet::Type::Timestamp,
            other => {
                let digits = other.strip_prefix("decimal(")?.strip_suffix(')')?;
                let (digits, places) = digits.split_once(',')?;
                if digits.parse() != Ok(parquet::MAX_DECIMAL_DIGITS) {
                    return None;
                }
                parquet::Type::Decimal { places: places.parse().ok()? }
            }
        };
        Some(parquet::Column::nullable(&self.name, type_))
    }
}

/// Writes the columns of a table. All may be null: files of before a column came do not have it.
pub fn to_text(columns: &[Column]) -> String {
    json!({ "type": "struct", "fields": columns.iter().map(field).collect::<Vec<_>>() }).to_string()
}

/// Adds columns to those of a table, whose other fields stay as they are.
pub fn extended(text: &str, columns: &[Column]) -> Result<String, DeltaError> {
    let unreadable = |problem: String| DeltaError::Unreadable { what: "the schema of the table", problem };
    let mut schema: Value = serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
    let fields = schema.get_mut("fields").and_then(Value::as_array_mut);
    fields.ok_or_else(|| unreadable("it has no fields".to_owned()))?.extend(columns.iter().map(field));
    Ok(schema.to_string())
}

fn field(column: &Column) -> Value {
    json!({ "name": column.name, "type": column.type_, "nullable": true, "metadata": {} })
}

/// Reads the columns of a table. The type of a nested column is its JSON.
pub fn of_text(text: &str) -> Result<Vec<Column>, DeltaError> {
    let unreadable =
        |problem: &str| DeltaError::Unreadable { what: "the schema of the table", problem: problem.to_owned() };
    let schema: Value = serde_json::from_str(text).map_err(|error| unreadable(&error.to_string()))?;
    let fields = schema["fields"].as_array().ok_or_else(|| unreadable("it has no fields"))?;
    let column = |field: &Value| {
        let type_ = field["type"].as_str().map_or_else(|| field["type"].to_string(), str::to_owned);
        Some(Column { name: field["name"].as_str()?.to_owned(), type_ })
    };
    fields.iter().map(column).collect::<Option<_>>().ok_or_else(|| unreadable("a field has no name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_the_same_in_files_and_in_the_log() {
        let types = [
            parquet::Type::Text,
            parquet::Type::Int32,
            parquet::Type::Int64,
            parquet::Type::Date,
            parquet::Type::Timestamp,
            parquet::Type::Decimal { places: 2 },
        ];
        let columns: Vec<_> = types.map(|type_| parquet::Column::nullable(format!("{type_:?}"), type_)).into();
        let of_table: Vec<_> = columns.iter().map(Column::of).collect();
        assert_eq!(of_text(&to_text(&of_table)).unwrap(), of_table);
        assert_eq!(of_table.iter().map(Column::in_files).collect::<Option<Vec<_>>>().unwrap(), columns);
        for other in ["double", "decimal(38,2)", "decimal", r#"{"type":"struct","fields":[]}"#] {
            assert_eq!(Column { name: "x".into(), type_: other.into() }.in_files(), None);
        }
        of_text("{}").unwrap_err();
        let foreign = r#"{"type":"struct","fields":[{"name":"n","type":{"type":"struct"},"metadata":{"a":1}}]}"#;
        let more = extended(foreign, &of_table[..1]).unwrap();
        let [before, after] = [foreign, &more].map(|text| serde_json::from_str::<Value>(text).unwrap());
        assert_eq!((&after["fields"][0], &of_text(&more).unwrap()[1]), (&before["fields"][0], &of_table[0]));
        extended("{}", &of_table).unwrap_err();
    }
}
