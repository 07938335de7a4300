//! The arguments that name a pipeline's bucket and tables, and the way from them to the bucket, the ledger and the
//! reports. Covered by tests/pipeline.

use std::num::NonZeroU32;
use std::sync::Arc;

use clap::Args;

use crate::aws::Clients;
use crate::aws::s3::Bucket;
use crate::ledger::Ledger;
use crate::plan::Plan;
use crate::reports::store::Reports;
use crate::telemetry::progress::Progress;

/// A pipeline's bucket and tables.
#[derive(Debug, Clone, Args)]
pub struct Resources {
    /// Bucket that the consumers read
    #[arg(long, env = "MUSIC_STREAMS_BUCKET", value_name = "NAME")]
    bucket: String,

    #[command(flatten)]
    pub(super) tables: Tables,
}

impl Resources {
    /// Names a bucket and tables, for a command whose own bucket argument is optional.
    pub(super) fn new(bucket: String, tables: Tables) -> Self {
        Resources { bucket, tables }
    }

    /// Returns the tables.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Returns the bucket.
    pub(super) fn bucket(&self, clients: &Clients) -> Bucket {
        Bucket::new(clients.s3.clone(), self.bucket.clone())
    }
}

/// A pipeline's tables.
#[derive(Debug, Clone, Args)]
pub struct Tables {
    /// Put before the name of every table
    #[arg(long, env = "MUSIC_STREAMS_TABLE_PREFIX", value_name = "TEXT", default_value = "")]
    table_prefix: String,
}

impl Tables {
    /// The text before the name of every table.
    pub fn prefix(&self) -> &str {
        &self.table_prefix
    }

    /// Returns the ledger, under the name that the command has in it. A command that only reads needs no name.
    pub fn ledger(&self, clients: &Clients, owner: impl Into<String>) -> Ledger {
        Ledger::new(clients.dynamodb.clone(), &self.table_prefix, owner.into())
    }

    /// Returns the report tables, with limits on the items written at the same time and per second.
    pub(super) fn reports(
        &self,
        clients: &Clients,
        plan: &Arc<Plan>,
        concurrency: usize,
        max_writes_per_second: Option<NonZeroU32>,
    ) -> Reports {
        let (client, plan, prefix) = (clients.dynamodb.clone(), Arc::clone(plan), self.table_prefix.clone());
        Reports::new(client, plan, prefix, concurrency, max_writes_per_second, Progress::default())
    }
}
