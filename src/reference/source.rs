//! The source.

use std::sync::Arc;
use std::time::Duration;

use crate::aws::error::AwsError;
use crate::aws::s3::Bucket;
use crate::ledger::{CatalogueState, Ledger};
use crate::object::ObjectId;
use crate::reference::catalogue::{Catalogue, Remark};
use crate::reference::error::{ACCEPT, CatalogueError};
use crate::reference::parse::{SONGS_KEY, USERS_KEY};
use crate::telemetry::metrics::metrics;

/// Longest time for reading both files: far above what a catalogue of a million tracks takes.
pub(super) const LOAD_TIMEOUT: Duration = Duration::from_secs(300);

/// The catalogue in the bucket, and the last good state of it.
#[derive(Debug)]
pub struct CatalogueSource {
    bucket: Bucket,
    /// Where it is written down what is in use, for whoever starts later and for people.
    ledger: Ledger,
    /// Memory that it may take.
    limit_bytes: usize,
    current: Option<(Files, Arc<Catalogue>)>,
    /// What is there is refused, which was told.
    is_refused: bool,
    /// What was refused last, which need not be read again.
    refused: Option<Files>,
}

/// The files that there are: songs, then users.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Files {
    songs: ObjectId,
    users: ObjectId,
    /// Which of them is to be used whatever it lacks.
    accepted: [bool; 2],
}

impl CatalogueSource {
    /// Loads the catalogue for the first time, into so many bytes of memory.
    pub async fn load(bucket: Bucket, ledger: Ledger, limit_bytes: usize) -> Result<Self, CatalogueError> {
        let mut source =
            CatalogueSource { bucket, ledger, limit_bytes, current: None, is_refused: false, refused: None };
        source.refresh().await?;
        Ok(source)
    }

    /// The catalogue as it is now: loaded again if one of its files changed. If that fails, the last good one, which the log and the
    /// ledger say.
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
                self.write_down(self.ledger.refuse_catalogue(&error.to_string(), &files)).await;
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
            // Whoever damaged it put the good one back.
            if self.is_refused {
                self.tell_in_use(catalogue).await;
                (self.is_refused, self.refused) = (false, None);
            }
            return Ok(());
        }
        let catalogue = match self.read(&files).await {
            Ok(catalogue) => catalogue,
            Err(error) => {
                // What is wrong with a file stays wrong with it; what fetching it met may pass.
                if !matches!(error, CatalogueError::Aws(_) | CatalogueError::Stalled) {
                    self.refused = Some(files);
                }
                return Err(error);
            }
        };
        self.tell_in_use(&catalogue).await;
        self.current = Some((files, Arc::new(catalogue)));
        (self.is_refused, self.refused) = (false, None);
        Ok(())
    }

    /// Reads the files, and holds them against what is in use.
    async fn read(&self, files: &Files) -> Result<Catalogue, CatalogueError> {
        let catalogue = files.read(&self.bucket, self.limit_bytes).await?;
        let before = self.current.as_ref().map(|(_, before)| before.as_ref());
        let known = match before {
            Some(before) => before.state(),
            // What it was before this consumer started. Those that run hold its keys against theirs, and know better.
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

    async fn tell_in_use(&self, catalogue: &Catalogue) {
        metrics().catalogue_refused.record(0, &[]);
        self.write_down(self.ledger.accept_catalogue(&catalogue.state())).await;
    }

    /// Has the ledger tell of it. What fails here is only what people are told.
    async fn write_down(&self, write: impl Future<Output = Result<(), AwsError>>) {
        if let Err(error) = write.await {
            tracing::warn!("{error}; music-streams status does not tell of the catalogue that is in use");
        }
    }
}

impl Files {
    /// Names these files, and whether they are accepted.
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

/// The catalogue as it is now, for whoever needs it once, into so many bytes of memory.
pub async fn read_once(bucket: &Bucket, limit_bytes: usize) -> Result<Catalogue, CatalogueError> {
    let files = Files::find(bucket).await?;
    let catalogue = files.read(bucket, limit_bytes).await?;
    catalogue.check(files.accepted, None, &CatalogueState::default())?;
    Ok(catalogue)
}
