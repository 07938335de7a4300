//! The state of the table of the curated files.

use bytesize::ByteSize;
use serde::Serialize;

use crate::aws::s3::Bucket;
use crate::lake::{Lake, LakeError};
use crate::ledger::Ledger;
use crate::protocol::BatchNumber;

/// The state of the table.
#[derive(Debug, Serialize)]
pub(super) struct TableState {
    /// The number of the last entry of its log.
    version: u64,
    /// The last batch in it.
    newest_batch: BatchNumber,
    /// Finished batches that are not in it yet.
    lag: usize,
    /// Its files.
    files: usize,
    /// Their size.
    bytes: u64,
}

impl TableState {
    /// Reads the state; `None` if there is no table yet.
    pub(super) async fn read(bucket: Bucket, ledger: Ledger) -> Result<Option<Self>, LakeError> {
        let registry = ledger.registry().await?;
        let mut lake = Lake::new(bucket, ledger);
        if !lake.refresh().await? {
            return Ok(None);
        }
        let snapshot = lake.snapshot();
        Ok(Some(TableState {
            version: snapshot.version.unwrap_or(0),
            newest_batch: snapshot.applied().newest(),
            lag: lake.late(&registry).await?,
            files: snapshot.files().count(),
            bytes: snapshot.files().map(|add| add.size).sum(),
        }))
    }

    /// Formats the state for people.
    pub(super) fn as_text(&self) -> String {
        let TableState { version, newest_batch, lag, files, bytes } = self;
        let late = if *lag == 0 { String::new() } else { format!("; {lag} finished batches are NOT IN IT yet") };
        let bytes = ByteSize(*bytes).display().si();
        format!("table      version {version} with batches up to {newest_batch}, {files} files of {bytes}{late}")
    }
}
