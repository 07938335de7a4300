//! The state of the catalogue that consumers use.

use crate::aws::error::{AwsError, aws_error};
use crate::aws::item::{number, text, text_of};
use crate::ledger::{Ledger, count};

/// Keys of the catalogue's state.
const CATALOGUE: &str = "catalogue";

/// The catalogue that consumers use.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct CatalogueState {
    /// Tracks in it.
    pub songs: u64,
    /// Listeners in it.
    pub users: u64,
    /// Since when it is in use.
    pub loaded_at: Option<jiff::Timestamp>,
    /// A later one was refused: why, and since when.
    pub refused: Option<(String, jiff::Timestamp)>,
    /// Which files those were.
    pub refused_files: Option<String>,
}

impl Ledger {
    /// Writes down which catalogue is in use.
    pub async fn accept_catalogue(&self, state: &CatalogueState) -> Result<(), AwsError> {
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .item("pk", text(CATALOGUE))
            .item("sk", text(CATALOGUE))
            .item("songs", count(state.songs))
            .item("users", count(state.users))
            .item("loaded_at", text(jiff::Timestamp::now().to_string()));
        put.send().await.map(drop).map_err(aws_error("dynamodb:PutItem", format!("{}/{CATALOGUE}", self.table)))
    }

    /// Writes down why a later one is not in use.
    pub async fn refuse_catalogue(&self, reason: &str, files: &str) -> Result<(), AwsError> {
        let update = self
            .client
            .update_item()
            .table_name(&self.table)
            .key("pk", text(CATALOGUE))
            .key("sk", text(CATALOGUE))
            .update_expression("SET refused = :reason, refused_at = :now, refused_files = :files")
            .expression_attribute_values(":files", text(files))
            .expression_attribute_values(":reason", text(reason))
            .expression_attribute_values(":now", text(jiff::Timestamp::now().to_string()));
        update.send().await.map(drop).map_err(aws_error("dynamodb:UpdateItem", format!("{}/{CATALOGUE}", self.table)))
    }

    /// The catalogue that was in use last; `None` before the first.
    pub async fn catalogue(&self) -> Result<Option<CatalogueState>, AwsError> {
        let Some(item) = self.get(CATALOGUE, CATALOGUE).await? else { return Ok(None) };
        let time = |name| text_of(&item, name).and_then(|time| time.parse().ok());
        Ok(Some(CatalogueState {
            songs: number(&item, "songs").unwrap_or(0),
            users: number(&item, "users").unwrap_or(0),
            loaded_at: time("loaded_at"),
            refused: text_of(&item, "refused").zip(time("refused_at")),
            refused_files: text_of(&item, "refused_files"),
        }))
    }
}
