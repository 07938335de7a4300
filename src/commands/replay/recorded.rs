//! The figures that a batch recorded in its delta files.

use futures::{StreamExt, TryStreamExt};

use super::{Replay, ReplayError};
use crate::aws::error::Kind;
use crate::batch::manifest::{DeltaFile, Manifest};
use crate::compute::Scope;
use crate::protocol::BatchNumber;
use crate::reports::figures::Delta;

/// The deltas that a batch added to a day's items.
pub(super) struct Recorded<S> {
    /// The deltas, several at a time.
    pub(super) deltas: S,
    /// They are those that the batch recorded. Otherwise they were computed anew, with the current catalogue.
    pub(super) are_original: bool,
}

impl Replay {
    /// Returns the deltas that a batch added to a day's items: from its delta files if they are kept and whole, else
    /// from its archived files.
    pub(super) async fn recorded_deltas(
        &self,
        batch: BatchNumber,
        curated: &[String],
        day: i32,
    ) -> Result<Recorded<impl futures::Stream<Item = Result<Vec<Delta>, ReplayError>>>, ReplayError> {
        let mut files = Vec::new();
        if let Some(manifest) = Manifest::find(&self.bucket, batch).await? {
            for file in &manifest.delta_files {
                match self.bucket.read_all(&file.key).await {
                    Ok(bytes) if file.is_whole(&bytes) => files.push(file.clone()),
                    Err(error) if error.kind != Kind::NotFound => return Err(error.into()),
                    _ => {
                        files.clear();
                        break;
                    }
                }
            }
        }
        if files.is_empty() {
            let (_, deltas) = self.prepare(batch, curated, Scope::FiguresOf(day), 0).await?;
            let deltas = deltas.map_err(|error| self.limit_error(error)).left_stream();
            return Ok(Recorded { deltas, are_original: false });
        }
        let read = move |file: DeltaFile| async move {
            let mut deltas = file.decode(&self.bucket.read_all(&file.key).await?)?;
            deltas.retain(|delta| delta.key.day == day);
            Ok(deltas)
        };
        Ok(Recorded { deltas: futures::stream::iter(files).then(read).right_stream(), are_original: true })
    }
}
