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
use crate::plan::Plan;
use crate::reference::error::{ACCEPT, CatalogueError};
use crate::reference::references::Remark;
use crate::reference::{References, file_key};
use crate::telemetry::metrics::metrics;

/// Longest time for reading all files: far above the time that a catalogue of a million keys takes.
pub(super) const LOAD_TIMEOUT: Duration = Duration::from_secs(300);

/// The catalogue in the bucket, and its last good version.
#[derive(Debug)]
pub struct CatalogueSource {
    bucket: Bucket,
    plan: Arc<Plan>,
    /// Records the catalogue in use, for consumers that start later and for people.
    ledger: Ledger,
    /// Bytes of memory that the catalogue may take.
    limit_bytes: usize,
    current: Option<(Files, Arc<References>)>,
    /// The current files are refused, which has been reported.
    is_refused: bool,
    /// The files that were refused last, which need not be read again.
    refused: Option<Files>,
}

/// The catalogue's files in the bucket, in the order of the definition's references. Each of them may have to be used
/// even if it would be refused.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Files(Vec<(ObjectId, bool)>);

impl CatalogueSource {
    /// Loads the catalogue for the first time, within `limit_bytes` of memory.
    pub async fn load(
        bucket: Bucket,
        plan: Arc<Plan>,
        ledger: Ledger,
        limit_bytes: usize,
    ) -> Result<Self, CatalogueError> {
        let (current, is_refused, refused) = (None, false, None);
        let mut source = CatalogueSource { bucket, plan, ledger, limit_bytes, current, is_refused, refused };
        source.refresh().await?;
        Ok(source)
    }

    /// Returns the current catalogue, loaded again if one of its files changed. If that fails, returns the last good
    /// one and reports the failure in the log and the ledger.
    pub async fn latest(&mut self) -> Arc<References> {
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
        match &self.current {
            Some((_, catalogue)) => Arc::clone(catalogue),
            None => Arc::new(References::empty(&self.plan)),
        }
    }

    async fn refresh(&mut self) -> Result<(), CatalogueError> {
        let files = Files::find(&self.bucket, &self.plan).await?;
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
    async fn read(&self, files: &Files) -> Result<References, CatalogueError> {
        let catalogue = files.read(&self.bucket, &self.plan, self.limit_bytes).await?;
        let before = self.current.as_ref().map(|(_, before)| before.as_ref());
        let known = match before {
            Some(before) => before.state(&self.plan),
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
        catalogue.check(&self.plan, &files.accepted(), before, &known)?;
        Ok(catalogue)
    }

    async fn record_in_use(&self, catalogue: &References) {
        metrics().catalogue_refused.record(0, &[]);
        self.record(self.ledger.accept_catalogue(&catalogue.state(&self.plan))).await;
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
        let files = self.0.iter().map(|(file, is_accepted)| format!("{} {is_accepted}", file.version));
        files.collect::<Vec<_>>().join(" ")
    }

    fn accepted(&self) -> Vec<bool> {
        self.0.iter().map(|(_, is_accepted)| *is_accepted).collect()
    }

    async fn find(bucket: &Bucket, plan: &Plan) -> Result<Self, CatalogueError> {
        let keys: Vec<String> = plan.definition.references.iter().map(file_key).collect();
        let files = futures::future::try_join_all(keys.iter().map(|key| bucket.describe_current(key))).await?;
        let found = files.into_iter().zip(keys).map(|(file, key)| {
            let file = file.ok_or(CatalogueError::Missing { key })?;
            let is_accepted = file.metadata.get(ACCEPT.0).is_some_and(|value| value == ACCEPT.1);
            Ok((file.object, is_accepted))
        });
        Ok(Files(found.collect::<Result<_, CatalogueError>>()?))
    }

    async fn read(&self, bucket: &Bucket, plan: &Plan, limit_bytes: usize) -> Result<References, CatalogueError> {
        let files = self.0.iter().map(|(file, _)| bucket.read(file)).collect();
        let parsing = References::parse_within(limit_bytes, plan, files);
        let catalogue = tokio::time::timeout(LOAD_TIMEOUT, parsing).await.map_err(|_| CatalogueError::Stalled)??;
        for ((reference, problem), Remark { lines, first, is_skipped }) in &catalogue.remarks {
            let key = file_key(&plan.definition.references[*reference]);
            let what = if *is_skipped { "not used" } else { "not used whole" };
            tracing::warn!(key, lines, ?first, "{lines} lines of {key} are {what}: {problem}");
        }
        for (reference, written) in plan.definition.references.iter().enumerate() {
            let (key, keys) = (file_key(written), catalogue.keys_of(reference));
            tracing::info!(key, keys, skipped_lines = catalogue.skipped(reference), "reference read");
        }
        tracing::info!(bytes = catalogue.memory_bytes(), "catalogue read");
        Ok(catalogue)
    }
}

/// Reads the current catalogue once, within `limit_bytes` of memory.
pub async fn read_once(bucket: &Bucket, plan: &Plan, limit_bytes: usize) -> Result<References, CatalogueError> {
    let files = Files::find(bucket, plan).await?;
    let catalogue = files.read(bucket, plan, limit_bytes).await?;
    catalogue.check(plan, &files.accepted(), None, &CatalogueState::default())?;
    Ok(catalogue)
}
