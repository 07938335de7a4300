//! Actions: what an entry of the log says, a JSON object in each line.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::formats::delta::DeltaError;

/// The versions of readers and writers that this program's tables need.
pub const VERSIONS: Protocol = Protocol { min_reader_version: 1, min_writer_version: 2 };

/// An action.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// The versions that are needed to use the table.
    Protocol(Protocol),
    /// The name, the columns and the settings of the table.
    MetaData(MetaData),
    /// The last version of an application.
    Txn(Transaction),
    /// A file that is in the table from now on.
    Add(Add),
    /// A file that is in the table no longer.
    Remove(Remove),
    /// Words about the entry, for people.
    CommitInfo(CommitInfo),
}

/// The versions that are needed to use a table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Protocol {
    /// The version of the format that readers must know.
    pub min_reader_version: u32,
    /// The version of the format that writers must know.
    pub min_writer_version: u32,
}

/// The name, the columns and the settings of a table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetaData {
    /// An identifier that no other table has.
    pub id: String,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The format of its files.
    pub format: Format,
    /// Its columns, as JSON ([`crate::formats::delta::schema`]).
    pub schema_string: String,
    /// The columns whose values are in the log and not in the files.
    pub partition_columns: Vec<String>,
    /// Its settings.
    #[serde(default, deserialize_with = "or_default")]
    pub configuration: BTreeMap<String, String>,
    /// The time at which it was created, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_time: Option<i64>,
}

/// The format of a table's files.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Format {
    /// Its name: `parquet`.
    pub provider: String,
    /// Its options.
    #[serde(default, deserialize_with = "or_default")]
    pub options: BTreeMap<String, String>,
}

/// The last version of an application. It is written with files, so that they are added once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transaction {
    /// The name of the application.
    pub app_id: String,
    /// Its version.
    pub version: i64,
    /// The time of it, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<i64>,
}

/// Values by name, as partitions and tags have them.
pub type Named = BTreeMap<String, Option<String>>;

/// A file that is in the table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Add {
    /// Its place below the table, in URL encoding.
    pub path: String,
    /// The values of the partition columns in all of its rows.
    pub partition_values: Named,
    /// Its size in bytes.
    pub size: u64,
    /// The time at which it was written, in milliseconds since the Unix epoch.
    pub modification_time: i64,
    /// False if its rows were in the table already, in other files.
    pub data_change: bool,
    /// Its statistics, as JSON ([`crate::formats::delta::stats`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<String>,
    /// Words about it that readers pass over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Named>,
}

/// A file that is in the table no longer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remove {
    /// Its place below the table, in URL encoding.
    pub path: String,
    /// The time at which it was removed, in milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<i64>,
    /// False if its rows stay in the table, in other files.
    pub data_change: bool,
    /// True if partition values and size follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended_file_metadata: Option<bool>,
    /// The values of the partition columns in all of its rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition_values: Option<Named>,
    /// Its size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// Words about an entry of the log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommitInfo {
    /// The time of it, in milliseconds since the Unix epoch.
    pub timestamp: i64,
    /// The operation.
    pub operation: String,
    /// The program that wrote it.
    pub engine_info: String,
}

/// Takes null for the value of nothing.
fn or_default<'d, T: Default + Deserialize<'d>, D: Deserializer<'d>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// Writes an entry of the log.
pub fn to_lines(actions: &[Action]) -> Vec<u8> {
    let mut lines = Vec::new();
    for action in actions {
        // Maps have texts as keys, and numbers are integers: there is no other error.
        lines.extend(serde_json::to_vec(action).unwrap_or_default());
        lines.push(b'\n');
    }
    lines
}

/// Reads an entry of the log. Actions of other kinds, and words for people, are passed over; a table whose rows depend
/// on them needs a higher version of readers or writers ([`Protocol::check`]).
pub fn of_lines(lines: &[u8]) -> Result<Vec<Action>, DeltaError> {
    let unreadable = |problem: serde_json::Error| DeltaError::Unreadable {
        what: "an entry of the table's log",
        problem: problem.to_string(),
    };
    let mut actions = Vec::new();
    for line in lines.split(|&byte| byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        let value: Value = serde_json::from_slice(line).map_err(unreadable)?;
        actions.extend(of_value(value).map_err(unreadable)?);
    }
    Ok(actions)
}

/// Reads an action; `None` if it is of another kind.
pub fn of_value(value: Value) -> Result<Option<Action>, serde_json::Error> {
    // What others say about their entries has no fixed form, and changes nothing.
    const KINDS: [&str; 5] = ["protocol", "metaData", "txn", "add", "remove"];
    let Value::Object(fields) = value else { return Ok(None) };
    let known = fields.into_iter().find(|(name, value)| KINDS.contains(&name.as_str()) && !value.is_null());
    known.map(|(name, value)| serde_json::from_value(serde_json::json!({ name: value }))).transpose()
}

impl Protocol {
    /// Returns an error if this program must not write the table.
    pub fn check(&self) -> Result<(), DeltaError> {
        let Protocol { min_reader_version: reader, min_writer_version: writer } = *self;
        if reader > VERSIONS.min_reader_version || writer > VERSIONS.min_writer_version {
            return Err(DeltaError::Unsupported(format!(
                "readers of version {reader} and writers of version {writer}"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_another_writer_is_read() {
        // As delta-rs writes them, shortened.
        let lines = r#"{"commitInfo":{"timestamp":null,"operation":{"of":1},"operationParameters":{"mode":"Append"}}}
            {"metaData":{"id":"x","name":null,"format":{"provider":"parquet","options":null},"schemaString":"{}",
                "partitionColumns":[],"configuration":null,"createdTime":null}}
            {"cdc":{"path":"x","partitionValues":{},"size":1,"dataChange":false}}
            {"add":{"path":"report_date=2024-06-25/part-1.parquet","partitionValues":{"report_date":"2024-06-25"},
                "size":7,"modificationTime":5,"dataChange":true,"stats":"{\"numRecords\":3}","tags":null,
                "deletionVector":null,"baseRowId":null,"clusteringProvider":null}}"#;
        let actions = of_lines(lines.replace("\n                ", "").as_bytes()).unwrap();
        assert_eq!(actions.len(), 2);
        let Action::Add(add) = &actions[1] else { panic!("{actions:?}") };
        assert_eq!((add.size, add.tags.is_none(), add.stats.as_deref()), (7, true, Some(r#"{"numRecords":3}"#)));
        assert_eq!(of_lines(&to_lines(&actions)).unwrap(), actions);
        of_lines(b"{\"add\":{\"path\":1}}").unwrap_err();
        of_lines(b"no json").unwrap_err();
    }

    #[test]
    fn a_table_of_higher_versions_is_not_written() {
        VERSIONS.check().unwrap();
        for (reader, writer) in [(2, 2), (1, 3), (3, 7)] {
            let error = Protocol { min_reader_version: reader, min_writer_version: writer }.check().unwrap_err();
            assert!(error.to_string().contains(&format!("writers of version {writer}")), "{error}");
        }
    }
}
