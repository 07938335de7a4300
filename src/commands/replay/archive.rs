//! A batch's archived files: where they are, and what they add up to.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use super::{Replay, ReplayError};
use crate::aws::error::AwsError;
use crate::aws::s3::Upload;
use crate::batch::manifest::{Fate, Manifest, ManifestObject};
use crate::batch::prepare::{self, Limits, Plan, Preparation, PrepareError};
use crate::compute::{Scope, columnar};
use crate::input::file::BadObject;
use crate::layout;
use crate::object::{ObjectEvent, ObjectId, Version};
use crate::protocol::BatchNumber;
use crate::reports::figures::Delta;
use crate::telemetry::progress::Progress;

/// Last bytes of a curated file that nearly always have its whole footer, and those that always have it.
const END_BYTES: [usize; 2] = [64 * 1024, 64 * 1024 * 1024];
/// Archived files that are opened ahead.
const OPEN_AHEAD: usize = 16;

/// What there is of a batch in the archive.
struct Archived {
    opened_at: jiff::Timestamp,
    files: Vec<ArchivedFile>,
}

struct ArchivedFile {
    place: String,
    /// The key that it came with.
    source: String,
    /// Its rows, and those of them that were rejected, while the manifest tells.
    counts: Option<(u64, u64)>,
}

impl Replay {
    /// Reads a batch's archived files as the batch did, and does not go on with fewer rows than it counted. So many bytes of figures
    /// are in memory already.
    pub(super) async fn prepare(
        &self,
        batch: BatchNumber,
        curated: &[String],
        scope: Scope,
        lasting_bytes: usize,
    ) -> Result<(Vec<Upload>, impl futures::Stream<Item = Result<Vec<Delta>, PrepareError>>), ReplayError> {
        let Archived { opened_at, files } = self.archived(batch).await?;
        let limits = Limits {
            object_bytes: u64::MAX,
            report_items: self.max_report_items as usize,
            memory: self.memory.without(lasting_bytes),
            rows: None,
        };
        let (bucket, catalogue) = (self.bucket.clone(), Arc::clone(&self.catalogue));
        let (plan, shutdown) = (Plan { batch, opened_at, scope }, CancellationToken::new());
        let mut preparation = Preparation::new(bucket, catalogue, plan, limits, shutdown, Progress::default());
        let mut bodies = futures::stream::iter(&files)
            .map(async |file| {
                let body = self.bucket.find(&file.place).await?.map(|object| self.bucket.read(&object));
                Ok::<_, AwsError>((file, body))
            })
            .buffered(OPEN_AHEAD);
        while let Some((ArchivedFile { place, source, counts }, body)) = bodies.try_next().await? {
            let problem = |problem: String| ReplayError::Archive { place: place.clone(), problem };
            let Some(body) = body else { return Err(problem("is not there".to_owned())) };
            let object = ObjectId {
                bucket: self.bucket.name().to_owned(),
                key: source.clone(),
                version: Version::ETag(String::new()),
            };
            let event = ObjectEvent { object, size: 0, created_at: None };
            let outcome = match preparation.add(0, &event, body).await {
                Ok(outcome) | Err(PrepareError::Spoiled { outcome, .. }) => outcome,
                Err(error) => return Err(self.explained(error)),
            };
            match outcome {
                prepare::Outcome::Counted { rows, rejected } => match counts {
                    Some(counted) if *counted != (rows, rejected) => {
                        let (had, had_rejected) = counted;
                        return Err(problem(format!(
                            "has {rows} rows, {rejected} of them bad, and its batch counted {had}, {had_rejected} of them bad"
                        )));
                    }
                    _ => {}
                },
                prepare::Outcome::Bad(bad) => return Err(problem(format!("cannot be read: {bad}"))),
                prepare::Outcome::Unreadable(reason) => return Err(problem(format!("cannot be read: {reason}"))),
                prepare::Outcome::Gone => return Err(problem("was replaced while it was read".to_owned())),
            }
        }
        let (uploads, rows, deltas) = preparation.finish_unwritten().await.map_err(|error| self.explained(error))?;
        // No manifest tells what each file had. The curated files tell of the day, unless they are what is to be mended.
        if files.iter().any(|file| file.counts.is_none()) {
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

    /// The rows of a curated file; none when it is damaged.
    async fn rows_in(&self, key: &str) -> Result<u64, ReplayError> {
        for bytes in END_BYTES {
            let end = self.bucket.read_end(key, bytes).await?;
            match columnar::footer_bytes(&end) {
                Some(footer) if footer <= end.len() => return Ok(columnar::count_rows(&end).unwrap_or(0)),
                Some(_) => {}
                None => break,
            }
        }
        Ok(0)
    }

    pub(super) fn explained(&self, error: PrepareError) -> ReplayError {
        match error {
            PrepareError::TooLarge(BadObject::TooMuchMemory { .. }) => ReplayError::TooMuchMemory(self.memory.bytes()),
            PrepareError::TooLarge(_) => ReplayError::TooManyItems(self.max_report_items),
            error => ReplayError::Prepare(error),
        }
    }

    /// The files that a batch counted, and when it did.
    async fn archived(&self, batch: BatchNumber) -> Result<Archived, ReplayError> {
        if let Some(manifest) = Manifest::find(&self.bucket, batch).await? {
            let place = |object: ManifestObject| match object.fate {
                Fate::Archived { to, rows, rejected } => {
                    Some(ArchivedFile { place: to, source: object.object.key, counts: Some((rows, rejected)) })
                }
                Fate::Quarantined { .. } | Fate::Gone => None,
            };
            return Ok(Archived {
                opened_at: manifest.opened_at,
                files: manifest.objects.into_iter().filter_map(place).collect(),
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
                // The end of its date: a row that was less than a day in the future then is no further from it.
                let date = date.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
                let opened_at = format!("{date}T23:59:59Z").parse();
                let opened_at = opened_at.map_err(|_| ReplayError::NoArchive(batch))?;
                return Ok(Archived { opened_at, files: files.into_iter().map(file).collect() });
            }
        }
        Err(ReplayError::NoArchive(batch))
    }
}
