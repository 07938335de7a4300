//! The start: the resources of a consumer, and the checks that they exist and may be used.
//!
//! The tests are tests/pipeline and tests/chaos/permissions.rs.

use std::sync::Arc;

use crate::aws::Clients;
use crate::aws::error::AwsError;
use crate::aws::s3::Bucket;
use crate::aws::sqs::Queue;
use crate::lake::Lake;
use crate::layout;
use crate::ledger::{DefinitionError, Ledger};
use crate::memory::Memory;
use crate::plan::Plan;
use crate::protocol::{BatchNumber, InForce};
use crate::reference::{CatalogueError, CatalogueSource};
use crate::reports::store::Reports;
use crate::service::config::Settings;
use crate::service::{StartError, unix_time};
use crate::telemetry::progress::Progress;

/// The resources of a consumer.
pub(super) struct Resources {
    pub(super) queue: Queue,
    pub(super) bucket: Bucket,
    pub(super) ledger: Ledger,
    pub(super) reports: Reports,
    pub(super) memory: Memory,
    /// The definition of the reports.
    pub(super) definition: InForce,
}

impl Resources {
    /// The resources named by the settings, under the built-in definition.
    pub(super) fn new(settings: &Settings, clients: Clients, plan: Arc<Plan>, progress: &Progress) -> Self {
        let prefix = settings.table_prefix.clone();
        Resources {
            queue: Queue::new(clients.sqs, settings.queue_url.clone(), settings.visibility_timeout),
            bucket: Bucket::new(clients.s3, settings.bucket.clone()),
            ledger: Ledger::new(clients.dynamodb.clone(), &prefix, consumer_name()),
            reports: Reports::new(
                clients.dynamodb,
                plan,
                prefix,
                settings.write_concurrency,
                settings.max_writes_per_second,
                progress.clone(),
            ),
            memory: Memory::of(settings.max_memory),
            definition: InForce::default(),
        }
    }

    /// Checks every resource, and loads the catalogue. The error has all faults at once, because permissions are rarely
    /// missing one at a time.
    pub(super) async fn check(&mut self) -> Result<CatalogueSource, StartError> {
        // Without the ledger it is not known; that the ledger cannot be read is told below.
        match self.take_up_definition().await {
            Ok(()) | Err(DefinitionError::Aws(_)) => {}
            Err(error) => return Err(StartError::Resources(error.to_string())),
        }
        let (queue, bucket, ledger, reports, catalogue) = futures::join!(
            self.queue.check(),
            self.bucket.check(self.ledger.owner()),
            self.check_ledger(),
            self.reports.check(),
            self.load_catalogue()
        );
        let problems: Vec<String> = [queue, ledger, reports]
            .into_iter()
            .filter_map(Result::err)
            .chain(bucket)
            .map(|error| error.to_string())
            .chain(catalogue.as_ref().err().map(|error| error.to_string()))
            .collect();
        match catalogue {
            Ok(catalogue) if problems.is_empty() => Ok(catalogue),
            _ => Err(StartError::Resources(problems.join("\n"))),
        }
    }

    /// Takes up the definition in force, if it is not the built-in one.
    async fn take_up_definition(&mut self) -> Result<(), DefinitionError> {
        let in_force = self.ledger.registry().await?.definition;
        if in_force != self.definition {
            self.reports = self.reports.of_plan(self.ledger.plan_in_force(&in_force).await?);
            self.definition = in_force;
        }
        Ok(())
    }

    async fn load_catalogue(&self) -> Result<CatalogueSource, CatalogueError> {
        let (bucket, plan, ledger) = (self.bucket.clone(), Arc::clone(self.reports.plan()), self.ledger.clone());
        CatalogueSource::load(bucket, plan, ledger, self.memory.catalogue()).await
    }

    async fn check_ledger(&self) -> Result<(), AwsError> {
        self.ledger.check().await?;
        self.skip_taken_numbers().await
    }

    /// Reserves the batch numbers that the bucket shows to be taken, in case the ledger was lost or restored to an
    /// earlier time.
    async fn skip_taken_numbers(&self) -> Result<(), AwsError> {
        let last = self.ledger.registry().await?.last;
        let number = |key: &str| layout::batch_of_folder(key, 1);
        let in_bucket = self.bucket.last_key_after(layout::BATCHES, layout::key_after_batch(last), number).await?;
        let taken = in_bucket.unwrap_or(0).max(self.newest_in_table().await);
        // Another consumer may have taken that number between the two reads.
        let last = self.ledger.registry().await?.last;
        if taken <= last {
            return Ok(());
        }
        tracing::warn!(
            last,
            taken,
            "the ledger has forgotten batches that are in the bucket; their numbers are skipped"
        );
        self.ledger.skip_to(taken).await
    }

    /// Returns the newest batch in the table of the curated files, which outlives the manifests.
    async fn newest_in_table(&self) -> BatchNumber {
        let mut lake = Lake::new(self.bucket.clone(), self.ledger.clone());
        match lake.refresh().await {
            Ok(_) => lake.snapshot().applied().newest(),
            Err(error) => {
                tracing::warn!("the table of the curated files cannot be read: {error}");
                0
            }
        }
    }
}

/// A name that no other process has had: host, process id and a random number.
fn consumer_name() -> String {
    let host = std::env::var("HOSTNAME").ok().filter(|host| !host.is_empty()).unwrap_or_else(|| "consumer".to_owned());
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), unix_time());
    format!("{host}-{}-{random:016x}", std::process::id())
}
