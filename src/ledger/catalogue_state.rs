//! The state of the catalogue, for operators. Covered by `tests/pipeline`.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;

use crate::aws::error::AwsError;
use crate::aws::item::{number, text, text_of};
use crate::ledger::{Ledger, PUT, UPDATE, count, now_text};

/// Both keys of the item.
const CATALOGUE: &str = "catalogue";

/// The catalogue that consumers use.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct CatalogueState {
    /// The number of keys in each of its files.
    pub keys: BTreeMap<String, u64>,
    /// The time at which it was loaded.
    pub loaded_at: Option<jiff::Timestamp>,
    /// The reason for which a later catalogue was refused, and the time at which that happened.
    pub refused: Option<(String, jiff::Timestamp)>,
    /// The files of the refused catalogue.
    pub refused_files: Option<String>,
}

impl Ledger {
    /// Records the catalogue in use. A recorded refusal is cleared.
    pub async fn accept_catalogue(&self, state: &CatalogueState) -> Result<(), AwsError> {
        let keys: HashMap<_, _> = state.keys.iter().map(|(file, &keys)| (file.clone(), count(keys))).collect();
        let put = self.put(CATALOGUE, CATALOGUE).item("keys", AttributeValue::M(keys)).item("loaded_at", now_text());
        put.send().await.map(drop).map_err(self.error(PUT, CATALOGUE))
    }

    /// Records that a later catalogue is refused. The one in use remains.
    pub async fn refuse_catalogue(&self, reason: &str, files: &str) -> Result<(), AwsError> {
        let update = self
            .update(CATALOGUE, CATALOGUE)
            .update_expression("SET refused = :reason, refused_at = :now, refused_files = :files")
            .expression_attribute_values(":files", text(files))
            .expression_attribute_values(":reason", text(reason))
            .expression_attribute_values(":now", now_text());
        update.send().await.map(drop).map_err(self.error(UPDATE, CATALOGUE))
    }

    /// Reads the state of the catalogue; `None` before the first.
    pub async fn catalogue(&self) -> Result<Option<CatalogueState>, AwsError> {
        let Some(item) = self.get(CATALOGUE, CATALOGUE).await? else { return Ok(None) };
        let keys = item.get("keys").and_then(|keys| keys.as_m().ok());
        let time = |name| text_of(&item, name).and_then(|time| time.parse().ok());
        Ok(Some(CatalogueState {
            keys: keys
                .into_iter()
                .flat_map(|keys| keys.keys().filter_map(|file| Some((file.clone(), number(keys, file)?))))
                .collect(),
            loaded_at: time("loaded_at"),
            refused: text_of(&item, "refused").zip(time("refused_at")),
            refused_files: text_of(&item, "refused_files"),
        }))
    }
}
