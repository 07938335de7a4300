//! A batch's archived files: their places, and what they add up to.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use super::{Replay, ReplayError};
use crate::aws::error::AwsError;
use crate::aws::s3::Upload;
use crate::batch::manifest::{Fate, Manifest, ManifestObject};
use crate::batch::prepare::{ObjectOutcome, Preparation, PreparationLimits, PrepareError, Subject};
use crate::compute::Scope;
use crate::formats::parquet;
use crate::input::file::BadObject;
use crate::layout;
use crate::object::{ObjectEvent, ObjectId, Version};
use crate::protocol::BatchNumber;
use crate::reports::figures::Delta;
use crate::telemetry::progress::Progress;

/// The sizes of a curated file's end that are read for its footer: one that nearly always suffices, and one that always
/// does.
const END_BYTES: [usize; 2] = [64 * 1024, 64 * 1024 * 1024];
/// The number of archived files that are opened ahead.
const OPEN_AHEAD: usize = 16;

/// A batch's files in the archive, and the time at which it was opened.
struct Archived {
    opened_at: jiff::Timestamp,
    files: Vec<ArchivedFile>,
    has_manifest: bool,
}

struct ArchivedFile {
    place: String,
    /// Its original key.
    source: String,
    /// Its rows, and the rejected ones among them; `None` once the manifest has expired, or if the batch read it by
    /// another definition.
    counts: Option<(u64, u64)>,
}

impl Replay {
    /// Reads a batch's archived files as the batch did. Returns an error if they have fewer rows than the batch
    /// counted. `lasting_bytes` of memory are taken by figures already.
    pub(super) async fn prepare(
        &self,
        batch: BatchNumber,
        curated: &[String],
        scope: Scope,
        lasting_bytes: usize,
    ) -> Result<(Vec<Upload>, impl futures::Stream<Item = Result<Vec<Delta>, PrepareError>>), ReplayError> {
        let Archived { opened_at, files, has_manifest } = self.archived(batch).await?;
        let limits = PreparationLimits {
            object_bytes: u64::MAX,
            report_items: self.max_report_items as usize,
            memory: self.memory.without(lasting_bytes),
            rows: None,
        };
        let (bucket, plan, references) = (self.bucket.clone(), Arc::clone(&self.plan), Arc::clone(&self.catalogue));
        let (subject, shutdown) = (Subject { batch, opened_at, scope }, CancellationToken::new());
        let progress = Progress::default();
        let mut preparation = Preparation::new(bucket, plan, references, subject, limits, shutdown, progress);
        let mut bodies = futures::stream::iter(&files)
            .map(async |file| {
                let body = self.bucket.find(&file.place).await?.map(|object| self.bucket.read(&object));
                Ok::<_, AwsError>((file, body))
            })
            .buffered(OPEN_AHEAD);
        while let Some((ArchivedFile { place, source, counts }, body)) = bodies.try_next().await? {
            let problem = |problem: String| ReplayError::Archive { place: place.clone(), problem };
            let Some(body) = body else { return Err(problem("is missing".to_owned())) };
            let object = ObjectId {
                bucket: self.bucket.name().to_owned(),
                key: source.clone(),
                version: Version::ETag(String::new()),
            };
            let event = ObjectEvent { object, size: 0, created_at: None };
            let outcome = match preparation.add(0, &event, body).await {
                Ok(outcome) | Err(PrepareError::Spoiled { outcome, .. }) => outcome,
                Err(error) => return Err(self.limit_error(error)),
            };
            match outcome {
                ObjectOutcome::Counted { rows, rejected, .. } => match counts {
                    Some(counted) if *counted != (rows, rejected) => {
                        let (had, had_rejected) = counted;
                        return Err(problem(format!(
                            "has {rows} rows, {rejected} of them bad; its batch counted {had}, {had_rejected} of them \
                             bad"
                        )));
                    }
                    _ => {}
                },
                ObjectOutcome::Bad(bad) => return Err(problem(format!("cannot be read: {bad}"))),
                ObjectOutcome::Unreadable(reason) => return Err(problem(format!("cannot be read: {reason}"))),
                ObjectOutcome::Gone => return Err(problem("was replaced while it was read".to_owned())),
            }
        }
        let (uploads, rows, deltas) = preparation.finish_unwritten().await.map_err(|error| self.limit_error(error))?;
        // Without a manifest, compare with the curated files. They are absent if they are what is to be restored.
        if !has_manifest {
            let mut before = 0;
            for key in curated {
                before += self.rows_in(key).await?;
            }
            if rows < before {
                return Err(ReplayError::Incomplete { batch, curated: before, archived: rows });
            }
        }
        Ok((uploads, deltas))
    }

    /// Returns the number of rows of a curated file, 0 if it is damaged.
    async fn rows_in(&self, key: &str) -> Result<u64, ReplayError> {
        for bytes in END_BYTES {
            let end = self.bucket.read_end(key, bytes).await?;
            match parquet::footer_bytes(&end) {
                Some(footer) if footer <= end.len() => return Ok(parquet::count_rows(&end).unwrap_or(0)),
                Some(_) => {}
                None => break,
            }
        }
        Ok(0)
    }

    /// Names the limit of the replay that was exceeded.
    pub(super) fn limit_error(&self, error: PrepareError) -> ReplayError {
        match error {
            PrepareError::TooLarge(BadObject::TooMuchMemory { .. }) => ReplayError::TooMuchMemory(self.memory.bytes()),
            PrepareError::TooLarge(_) => ReplayError::TooManyItems(self.max_report_items),
            error => ReplayError::Prepare(error),
        }
    }

    /// Returns the files that a batch counted, and the time at which it was opened.
    async fn archived(&self, batch: BatchNumber) -> Result<Archived, ReplayError> {
        if let Some(manifest) = Manifest::find(&self.bucket, batch).await? {
            // Another definition may count other rows of the same file.
            let is_same = manifest.definition.as_ref().is_none_or(|digest| *digest == self.plan.digest);
            let place = |object: ManifestObject| match object.fate {
                Fate::Archived { to, rows, rejected, .. } => {
                    let counts = is_same.then_some((rows, rejected));
                    Some(ArchivedFile { place: to, source: object.object.key, counts })
                }
                Fate::Quarantined { .. } | Fate::Gone => None,
            };
            return Ok(Archived {
                opened_at: manifest.opened_at,
                files: manifest.objects.into_iter().filter_map(place).collect(),
                has_manifest: true,
            });
        }
        for date in self.bucket.folders(layout::ARCHIVE).await? {
            let folder = format!("{date}{}/", layout::batch_name(batch));
            let files = self.bucket.list(&folder).await?;
            if !files.is_empty() {
                let file = |(place, _): (String, u64)| {
                    let source = format!("{}{}", layout::INCOMING, place.strip_prefix(&folder).unwrap_or(&place));
                    ArchivedFile { place, source, counts: None }
                };
                // The end of its date: a row that was accepted then, up to a day in the future, is accepted again.
                let date = date.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
                let opened_at = format!("{date}T23:59:59Z").parse();
                let opened_at = opened_at.map_err(|_| ReplayError::NoArchive(batch))?;
                return Ok(Archived { opened_at, files: files.into_iter().map(file).collect(), has_manifest: false });
            }
        }
        Err(ReplayError::NoArchive(batch))
    }
}
