//! Vacuum: deleting what no reader needs any more. Files of batches are not deleted: `verify` and `replay` read them.

use fail::fail_point;

use crate::formats::delta::checkpoint::LastCheckpoint;
use crate::lake::log::{last_checkpoint_key, version_of_checkpoint, version_of_entry};
use crate::lake::snapshot::KEPT_MS;
use crate::lake::{Lake, LakeError, now_ms};
use crate::layout::{COMPACTED, CURATED, CURATED_LOG};

/// The time for which entries of the log are kept behind a checkpoint.
const ENTRIES_KEPT_MS: i64 = 30 * 86_400_000;

/// Objects that are deleted at a time: the rest is left to the next time.
const MOST_DELETIONS: usize = 2000;

/// The numbers of objects that were deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Vacuumed {
    /// Compacted files that are in the table no longer, or never were.
    pub files: usize,
    /// Entries and checkpoints of the log.
    pub entries: usize,
}

/// The time for which something is kept; tests do not wait for so long.
fn unless_at_once(kept_ms: i64) -> i64 {
    fail_point!("vacuum at once", |_| 0);
    kept_ms
}

impl Lake {
    /// Deletes compacted files a week after they have left the table, or were written and never came into it, and
    /// entries of the log a month after a checkpoint that has them.
    pub async fn vacuum(&mut self) -> Result<Vacuumed, LakeError> {
        // The list first: a file that comes into the table afterwards is younger than a week.
        let written = self.bucket.list_written(COMPACTED).await?;
        let mut vacuumed = Vacuumed::default();
        if !self.refresh().await? {
            return Ok(vacuumed);
        }
        let (now, kept_ms, entries_kept_ms) = (now_ms(), unless_at_once(KEPT_MS), unless_at_once(ENTRIES_KEPT_MS));
        for object in written.iter().filter(|object| now.saturating_sub(object.at_ms) >= kept_ms) {
            let path = object.key.strip_prefix(CURATED).unwrap_or(&object.key);
            if vacuumed.files < MOST_DELETIONS && !self.snapshot.needs(path, now) {
                self.bucket.delete(&object.key).await?;
                vacuumed.files += 1;
            }
        }
        let last = match self.bucket.read_all(&last_checkpoint_key()).await {
            Ok(json) => serde_json::from_slice::<LastCheckpoint>(&json).map_or(0, |last| last.version),
            Err(_) => return Ok(vacuumed),
        };
        let log = self.bucket.list_written(CURATED_LOG).await?;
        let is_old = |at_ms: i64| now.saturating_sub(at_ms) >= entries_kept_ms;
        let checkpoints = log.iter().filter_map(|object| Some((version_of_checkpoint(&object.key)?, object.at_ms)));
        // The newest checkpoint that is old enough for all before it. A reader that begins with the last one, or with
        // any of the last month, finds every entry after it.
        let kept_from = checkpoints.filter(|(version, at)| *version <= last && is_old(*at)).map(|(version, _)| version);
        let Some(kept_from) = kept_from.max() else { return Ok(vacuumed) };
        for object in &log {
            let version = version_of_entry(&object.key).or_else(|| version_of_checkpoint(&object.key));
            let is_behind = version.is_some_and(|version| version < kept_from);
            if is_behind && is_old(object.at_ms) && vacuumed.entries < MOST_DELETIONS {
                self.bucket.delete(&object.key).await?;
                vacuumed.entries += 1;
            }
        }
        Ok(vacuumed)
    }
}
