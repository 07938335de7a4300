//! The figures that a batch recorded in its delta files.

use futures::{StreamExt, TryStreamExt};

use super::{Replay, ReplayError};
use crate::aws::error::Kind;
use crate::batch::manifest::{DeltaFile, Manifest};
use crate::compute::Scope;
use crate::protocol::BatchNumber;
use crate::reports::figures::Delta;

impl Replay {
    /// Returns the deltas that a batch added to a day's items: from its delta files if they are kept and whole, else
    /// from its archived files.
    pub(super) async fn recorded_deltas(
        &self,
        batch: BatchNumber,
        curated: &[String],
        day: i32,
    ) -> Result<impl futures::Stream<Item = Result<Vec<Delta>, ReplayError>>, ReplayError> {
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
            return Ok(deltas.map_err(|error| self.limit_error(error)).left_stream());
        }
        let read = move |file: DeltaFile| async move {
            let mut deltas = file.decode(&self.bucket.read_all(&file.key).await?, &self.plan)?;
            deltas.retain(|delta| self.plan.day_of(delta.key.period) == day);
            Ok(deltas)
        };
        Ok(futures::stream::iter(files).then(read).right_stream())
    }
}
