//! Checkpoints: all that a log comes to, as one Parquet file, and `_last_checkpoint`, which names it.
//!
//! A row is an action. Those of other writers are read too, in one part or in several.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::formats::delta::DeltaError;
use crate::formats::delta::action::{Action, of_value};
use crate::formats::parquet::{ParquetError, nested};

/// The columns of a checkpoint, in Parquet's notation.
const SCHEMA: &str = "
message checkpoint {
  OPTIONAL group txn {
    REQUIRED BYTE_ARRAY appId (UTF8);
    REQUIRED INT64 version;
    OPTIONAL INT64 lastUpdated;
  }
  OPTIONAL group add {
    REQUIRED BYTE_ARRAY path (UTF8);
    REQUIRED group partitionValues (MAP) {
      REPEATED group key_value { REQUIRED BYTE_ARRAY key (UTF8); OPTIONAL BYTE_ARRAY value (UTF8); }
    }
    REQUIRED INT64 size;
    REQUIRED INT64 modificationTime;
    REQUIRED BOOLEAN dataChange;
    OPTIONAL BYTE_ARRAY stats (UTF8);
    OPTIONAL group tags (MAP) {
      REPEATED group key_value { REQUIRED BYTE_ARRAY key (UTF8); OPTIONAL BYTE_ARRAY value (UTF8); }
    }
  }
  OPTIONAL group remove {
    REQUIRED BYTE_ARRAY path (UTF8);
    OPTIONAL INT64 deletionTimestamp;
    REQUIRED BOOLEAN dataChange;
    OPTIONAL BOOLEAN extendedFileMetadata;
    OPTIONAL group partitionValues (MAP) {
      REPEATED group key_value { REQUIRED BYTE_ARRAY key (UTF8); OPTIONAL BYTE_ARRAY value (UTF8); }
    }
    OPTIONAL INT64 size;
  }
  OPTIONAL group metaData {
    REQUIRED BYTE_ARRAY id (UTF8);
    OPTIONAL BYTE_ARRAY name (UTF8);
    OPTIONAL BYTE_ARRAY description (UTF8);
    REQUIRED group format {
      REQUIRED BYTE_ARRAY provider (UTF8);
      OPTIONAL group options (MAP) {
        REPEATED group key_value { REQUIRED BYTE_ARRAY key (UTF8); OPTIONAL BYTE_ARRAY value (UTF8); }
      }
    }
    REQUIRED BYTE_ARRAY schemaString (UTF8);
    REQUIRED group partitionColumns (LIST) { REPEATED group list { REQUIRED BYTE_ARRAY element (UTF8); } }
    REQUIRED group configuration (MAP) {
      REPEATED group key_value { REQUIRED BYTE_ARRAY key (UTF8); OPTIONAL BYTE_ARRAY value (UTF8); }
    }
    OPTIONAL INT64 createdTime;
  }
  OPTIONAL group protocol {
    REQUIRED INT32 minReaderVersion;
    REQUIRED INT32 minWriterVersion;
  }
}";

/// The fields that are read, by action.
const FIELDS: [(&str, &[&str]); 5] = [
    ("txn", &["appId", "version", "lastUpdated"]),
    ("add", &["path", "partitionValues", "size", "modificationTime", "dataChange", "stats", "tags"]),
    ("remove", &["path", "deletionTimestamp", "dataChange", "extendedFileMetadata", "partitionValues", "size"]),
    (
        "metaData",
        &["id", "name", "description", "format", "schemaString", "partitionColumns", "configuration", "createdTime"],
    ),
    ("protocol", &["minReaderVersion", "minWriterVersion"]),
];

/// The content of `_last_checkpoint`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastCheckpoint {
    /// The number of the last entry that it contains.
    pub version: u64,
    /// The number of its actions.
    #[serde(default)]
    pub size: u64,
    /// The number of its parts, if it has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<u32>,
}

/// Writes a checkpoint.
pub fn to_parquet(actions: &[Action]) -> Result<Vec<u8>, ParquetError> {
    let rows: Result<Vec<Value>, _> = actions.iter().map(serde_json::to_value).collect();
    nested::write(SCHEMA, &rows.map_err(|error| ParquetError::Encode(error.to_string()))?)
}

/// Reads a checkpoint, or a part of one.
pub fn of_parquet(file: &[u8]) -> Result<Vec<Action>, DeltaError> {
    let unreadable = |problem: String| DeltaError::Unreadable { what: "a checkpoint of the table's log", problem };
    let is_wanted = |path: &[&str]| match path {
        [action, field, ..] => FIELDS.iter().any(|(name, fields)| name == action && fields.contains(field)),
        _ => false,
    };
    let rows = nested::read(file, is_wanted).map_err(|error| unreadable(error.to_string()))?;
    let mut actions = Vec::with_capacity(rows.len());
    for mut row in rows {
        // Empty lists and maps are not told from none.
        if let Some(metadata) = row.get_mut("metaData").and_then(Value::as_object_mut) {
            metadata.entry("partitionColumns").or_insert_with(|| Value::Array(Vec::new()));
        }
        if let Some(add) = row.get_mut("add").and_then(Value::as_object_mut) {
            add.entry("partitionValues").or_insert_with(|| Value::Object(serde_json::Map::new()));
        }
        actions.extend(of_value(row).map_err(|error| unreadable(error.to_string()))?);
    }
    Ok(actions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::delta::action::{Add, Format, MetaData, Named, Remove, Transaction, VERSIONS};
    use proptest::collection::btree_map;
    use proptest::option;
    use proptest::prelude::*;

    fn named() -> impl Strategy<Value = Named> {
        btree_map("[a-z]{1,3}", option::of("\\PC{0,5}"), 1..4)
    }

    fn actions() -> impl Strategy<Value = Action> {
        prop_oneof![
            Just(Action::Protocol(VERSIONS)),
            ("\\PC{0,9}", any::<i64>(), option::of(any::<i64>())).prop_map(|(app_id, version, last_updated)| {
                Action::Txn(Transaction { app_id, version, last_updated })
            }),
            ("[a-z]{1,9}", named(), 0..1_u64 << 40, any::<bool>(), option::of("\\PC{0,9}"), option::of(named()))
                .prop_map(|(path, partition_values, size, data_change, stats, tags)| {
                    Action::Add(Add { path, partition_values, size, modification_time: 7, data_change, stats, tags })
                }),
            ("[a-z]{1,9}", option::of(named()), option::of(0..1_u64 << 40), option::of(any::<bool>())).prop_map(
                |(path, partition_values, size, extended_file_metadata)| {
                    let deletion_timestamp = size.map(|size| size as i64);
                    let data_change = size.is_some();
                    Action::Remove(Remove {
                        path,
                        deletion_timestamp,
                        data_change,
                        extended_file_metadata,
                        partition_values,
                        size,
                    })
                }
            ),
            (
                "\\PC{0,9}",
                prop::collection::vec("[a-z]{0,3}", 0..4),
                btree_map("[a-z]{1,3}", "[a-z]{0,3}", 0..3),
                option::of("x{0,3}")
            )
                .prop_map(|(schema_string, partition_columns, configuration, name)| {
                    let format = Format { provider: "parquet".into(), options: configuration.clone() };
                    let (id, description, created_time) = ("1".into(), name.clone(), Some(7));
                    Action::MetaData(MetaData {
                        id,
                        name,
                        description,
                        format,
                        schema_string,
                        partition_columns,
                        configuration,
                        created_time,
                    })
                }),
        ]
    }

    proptest! {
        #[test]
        fn actions_become_a_checkpoint_and_come_back(actions in prop::collection::vec(actions(), 1..40)) {
            let file = to_parquet(&actions).unwrap();
            prop_assert_eq!(of_parquet(&file).unwrap(), actions);
        }

        #[test]
        fn no_damage_panics(
            actions in prop::collection::vec(actions(), 1..5),
            at in any::<usize>(),
            byte in any::<u8>(),
        ) {
            let mut file = to_parquet(&actions).unwrap();
            let at = at % file.len();
            file[at] = byte;
            let _ = of_parquet(&file);
            let _ = of_parquet(&file[..at]);
        }
    }

    #[test]
    fn what_is_no_checkpoint_is_refused() {
        for bytes in [&b""[..], b"PAR1", b"PAR1PAR1", b"some text"] {
            of_parquet(bytes).unwrap_err();
        }
    }
}
