//! The source: the catalogue in the bucket, loaded again when one of its files changes. The ledger records which
//! catalogue is in use or refused.
//!
//! Covered by `tests/pipeline` (`refusals`, `edges`).

use std::sync::Arc;
use std::time::Duration;

use crate::aws::error::AwsError;
use crate::aws::s3::Bucket;
use crate::ledger::{CatalogueState, Ledger};
use crate::object::ObjectId;
use crate::reference::Catalogue;
use crate::reference::catalogue::Remark;
use crate::reference::error::{ACCEPT, CatalogueError};
use crate::reference::parse::{SONGS_KEY, USERS_KEY};
use crate::telemetry::metrics::metrics;

/// Longest time for reading both files: far above the time that a catalogue of a million tracks takes.
pub(super) const LOAD_TIMEOUT: Duration = Duration::from_secs(300);

/// The catalogue in the bucket, and its last good version.
#[derive(Debug)]
pub struct CatalogueSource {
    bucket: Bucket,
    /// Records the catalogue in use, for consumers that start later and for people.
    ledger: Ledger,
    /// Bytes of memory that the catalogue may take.
    limit_bytes: usize,
    current: Option<(Files, Arc<Catalogue>)>,
    /// The current files are refused, which has been reported.
    is_refused: bool,
    /// The files that were refused last, which need not be read again.
    refused: Option<Files>,
}

/// The catalogue's files in the bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Files {
    songs: ObjectId,
    users: ObjectId,
    /// For songs and users: the file must be used even if it would be refused.
    accepted: [bool; 2],
}

impl CatalogueSource {
    /// Loads the catalogue for the first time, within `limit_bytes` of memory.
    pub async fn load(bucket: Bucket, ledger: Ledger, limit_bytes: usize) -> Result<Self, CatalogueError> {
        let mut source =
            CatalogueSource { bucket, ledger, limit_bytes, current: None, is_refused: false, refused: None };
        source.refresh().await?;
        Ok(source)
    }

    /// Returns the current catalogue, loaded again if one of its files changed. If that fails, returns the last good
    /// one and reports the failure in the log and the ledger.
    pub async fn latest(&mut self) -> Arc<Catalogue> {
        match self.refresh().await {
            Ok(()) => {}
            Err(error @ (CatalogueError::Aws(_) | CatalogueError::Stalled)) => {
                tracing::warn!("{error}; going on with the catalogue loaded before");
            }
            Err(error) => {
                tracing::error!("{error}; going on with the catalogue loaded before");
                self.is_refused = true;
                metrics().catalogue_refused.record(1, &[]);
                let files = self.refused.as_ref().map_or(String::new(), Files::name);
                self.record(self.ledger.refuse_catalogue(&error.to_string(), &files)).await;
            }
        }
        self.current.as_ref().map(|(_, catalogue)| Arc::clone(catalogue)).unwrap_or_default()
    }

    async fn refresh(&mut self) -> Result<(), CatalogueError> {
        let files = Files::find(&self.bucket).await?;
        if self.refused.as_ref() == Some(&files) {
            return Ok(());
        }
        if let Some((current, catalogue)) = &self.current
            && *current == files
        {
            // The good files have been put back.
            if self.is_refused {
                self.record_in_use(catalogue).await;
                (self.is_refused, self.refused) = (false, None);
            }
            return Ok(());
        }
        let catalogue = match self.read(&files).await {
            Ok(catalogue) => catalogue,
            Err(error) => {
                // A problem of a file stays; one of fetching may pass.
                if !matches!(error, CatalogueError::Aws(_) | CatalogueError::Stalled) {
                    self.refused = Some(files);
                }
                return Err(error);
            }
        };
        self.record_in_use(&catalogue).await;
        self.current = Some((files, Arc::new(catalogue)));
        (self.is_refused, self.refused) = (false, None);
        Ok(())
    }

    /// Reads the files and compares them with the catalogue in use.
    async fn read(&self, files: &Files) -> Result<Catalogue, CatalogueError> {
        let catalogue = files.read(&self.bucket, self.limit_bytes).await?;
        let before = self.current.as_ref().map(|(_, before)| before.as_ref());
        let known = match before {
            Some(before) => before.state(),
            // The state before this consumer started. Running consumers compare the keys themselves and know better.
            None => {
                let known = self.ledger.catalogue().await?.unwrap_or_default();
                if let (Some((reason, _)), Some(refused)) = (&known.refused, &known.refused_files)
                    && *refused == files.name()
                {
                    return Err(CatalogueError::RefusedBefore(reason.clone()));
                }
                known
            }
        };
        catalogue.check(files.accepted, before, &known)?;
        Ok(catalogue)
    }

    async fn record_in_use(&self, catalogue: &Catalogue) {
        metrics().catalogue_refused.record(0, &[]);
        self.record(self.ledger.accept_catalogue(&catalogue.state())).await;
    }

    /// Records a state in the ledger. A failure affects only what people are shown.
    async fn record(&self, write: impl Future<Output = Result<(), AwsError>>) {
        if let Err(error) = write.await {
            tracing::warn!("{error}; music-streams status does not show the catalogue that is in use");
        }
    }
}

impl Files {
    /// Returns a name for these files and their acceptance.
    fn name(&self) -> String {
        format!("{} {} {:?}", self.songs.version, self.users.version, self.accepted)
    }

    async fn find(bucket: &Bucket) -> Result<Self, CatalogueError> {
        let (songs, users) = tokio::try_join!(bucket.describe_current(SONGS_KEY), bucket.describe_current(USERS_KEY))?;
        let songs = songs.ok_or(CatalogueError::Missing { key: SONGS_KEY })?;
        let users = users.ok_or(CatalogueError::Missing { key: USERS_KEY })?;
        let accepted = [&songs, &users].map(|file| file.metadata.get(ACCEPT.0).is_some_and(|value| value == ACCEPT.1));
        Ok(Files { songs: songs.object, users: users.object, accepted })
    }

    async fn read(&self, bucket: &Bucket, limit_bytes: usize) -> Result<Catalogue, CatalogueError> {
        let (songs, users) = (bucket.read(&self.songs), bucket.read(&self.users));
        let parsing = Catalogue::parse_within(limit_bytes, songs, users);
        let catalogue = tokio::time::timeout(LOAD_TIMEOUT, parsing).await.map_err(|_| CatalogueError::Stalled)??;
        for (&(key, problem), Remark { lines, first, is_skipped }) in &catalogue.remarks {
            let what = if *is_skipped { "not used" } else { "not used whole" };
            tracing::warn!(key, lines, ?first, "{lines} lines of {key} are {what}: {problem}");
        }
        let [songs, users] = [catalogue.songs(), catalogue.users()];
        let skipped_lines = catalogue.skipped(SONGS_KEY) + catalogue.skipped(USERS_KEY);
        tracing::info!(songs, users, skipped_lines, bytes = catalogue.memory_bytes(), "catalogue read");
        Ok(catalogue)
    }
}

/// Reads the current catalogue once, within `limit_bytes` of memory.
pub async fn read_once(bucket: &Bucket, limit_bytes: usize) -> Result<Catalogue, CatalogueError> {
    let files = Files::find(bucket).await?;
    let catalogue = files.read(bucket, limit_bytes).await?;
    catalogue.check(files.accepted, None, &CatalogueState::default())?;
    Ok(catalogue)
}
