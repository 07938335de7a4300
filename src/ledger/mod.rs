//! The ledger: one DynamoDB table that says which batch has which object, and where every batch stands.
//!
//! The only module that knows the ledger's items. What is decided is in [`crate::protocol`]; here it is made to hold, each by
//! one conditional write: the registry by compare-and-swap, a claim by a put where nothing is yet. Items (keys `pk`, `sk`):
//!
//! | item | keys | attributes |
//! |---|---|---|
//! | registry | `registry`, `registry` | `version` N, `last` N, `batches` M: number → `state`, `owner`, `beat`, `since` |
//! | claim | `object#s3://BUCKET/KEY`, `version#…` or `etag#…` | `batch` N (none: nobody's), `quarantined_by` N, `size` N, `created_at`, `claimed_at`, `expires_at`, `renewed`, `deaths` N, `times_aside` N, `aside_until` N |
//! | set aside | `aside`, by what it is | `entry` (JSON of [`Aside`]), `since` |
//! | sweep | `sweep`, `sweep` | `started_at` N, `by`, `finished_at` N, `found` N, `left_over` N |
//! | catalogue | `catalogue`, `catalogue` | `songs` N, `users` N, `loaded_at`, `refused`, `refused_at`, `refused_files` |
//! | record | `batch#000000000042`, `record` | `state` (`done`, `abandoned`, `lost`, `aside`), `summary`, `finished_at`, `expires_at` |
//!
//! Claims and records expire (`expires_at`, DynamoDB's time to live), claims after SQS can no longer repeat their message,
//! records after the claims that refer to them. A claim is renewed for as long as its object lies there, and the record of a
//! batch that is set aside does not expire.

pub mod aside;
pub mod aside_list;
pub mod catalogue_state;
pub mod claims;
pub mod records;
pub mod registry;
pub mod sweeps;

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem};

pub use crate::ledger::aside_list::COUNTED_ASIDE;
pub use crate::ledger::catalogue_state::CatalogueState;
pub use crate::ledger::claims::judge::ClaimJudge;
pub use crate::ledger::claims::versions::ClaimRecord;
pub use crate::ledger::claims::{Claim, ClaimStatus};
pub use crate::ledger::records::Record;
pub use crate::ledger::registry::{StoredRegistry, parse_registry, registry_item};
pub use crate::ledger::sweeps::{LastSweep, Swept};

use crate::aws::error::{AwsError, Kind, aws_error};
use crate::aws::item::{Item, text};

/// The ledger's table, without the prefix.
pub const LEDGER_TABLE: &str = "music_streams_ledger";
/// A claim outlives SQS's longest retention, 14 days, so that every repetition of its message meets it.
pub const CLAIM_DAYS: u64 = 15;
const DAY_SECONDS: u64 = 86_400;
/// Tries of a conditional write before giving up: each failure means that another consumer got through.
const ATTEMPTS: usize = 100;

/// The ledger.
#[derive(Debug, Clone)]
pub struct Ledger {
    client: aws_sdk_dynamodb::Client,
    table: String,
    owner: String,
}

impl Ledger {
    /// The ledger in `table`, as seen by the consumer `owner`.
    pub fn new(client: aws_sdk_dynamodb::Client, table: String, owner: String) -> Self {
        Ledger { client, table, owner }
    }

    /// The name of this consumer in the ledger.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Carries out writes, all or none.
    async fn transact(
        &self,
        operation: &'static str,
        resource: String,
        writes: Vec<TransactWriteItem>,
    ) -> Result<(), AwsError> {
        let write = self.client.transact_write_items().set_transact_items(Some(writes)).send().await;
        match write {
            Ok(_) => Ok(()),
            Err(error) => {
                // The reasons stand beside the error: a condition that does not hold, or another write at the same moment.
                let reasons = error.as_service_error().and_then(|error| match error {
                    TransactWriteItemsError::TransactionCanceledException(cancelled) => {
                        let codes = cancelled.cancellation_reasons().iter().filter_map(|reason| reason.code());
                        Some(codes.map(str::to_owned).collect::<Vec<_>>())
                    }
                    _ => None,
                });
                let mut error = aws_error(operation, resource)(error);
                if let Some(codes) = reasons {
                    let has = |code: &str| codes.iter().any(|it| it == code);
                    error.kind = if has("ConditionalCheckFailed") {
                        Kind::Condition
                    } else if has("TransactionConflict") {
                        Kind::Transient
                    } else if has("ThrottlingError") || has("ProvisionedThroughputExceeded") {
                        Kind::Throttled
                    } else {
                        Kind::Refused
                    };
                }
                Err(error)
            }
        }
    }

    /// Whether everything that is done to the ledger is allowed.
    pub async fn check(&self) -> Result<(), AwsError> {
        let key = format!("check#{}", self.owner);
        let resource = || format!("{}/{key}", self.table);
        let put = self.client.put_item().table_name(&self.table).item("pk", text(&key)).item("sk", text("check"));
        put.item("expires_at", expiry(1)).send().await.map_err(aws_error("dynamodb:PutItem", resource()))?;
        let update = self.client.update_item().table_name(&self.table).key("pk", text(&key)).key("sk", text("check"));
        let update = update.update_expression("SET expires_at = :soon").expression_attribute_values(":soon", expiry(1));
        update.send().await.map_err(aws_error("dynamodb:UpdateItem", resource()))?;
        self.get(&key, "check").await?;
        let delete = self.client.delete_item().table_name(&self.table).key("pk", text(&key)).key("sk", text("check"));
        delete.send().await.map_err(aws_error("dynamodb:DeleteItem", resource()))?;
        self.count_aside().await.map(drop)
    }

    fn query_of(&self, pk: &str) -> QueryFluentBuilder {
        let query = self.client.query().table_name(&self.table).consistent_read(true);
        query.key_condition_expression("pk = :pk").expression_attribute_values(":pk", text(pk))
    }

    fn contended(operation: &'static str, resource: String) -> AwsError {
        let cause = format!("other consumers changed it {ATTEMPTS} times meanwhile");
        AwsError { operation, resource, kind: Kind::Throttled, cause }
    }

    fn foreign(&self, pk: &str) -> AwsError {
        AwsError {
            operation: "dynamodb:GetItem",
            resource: format!("{}/{pk}", self.table),
            kind: Kind::Refused,
            cause: "the item is not what this version writes; restore it, or run the version that wrote it".to_owned(),
        }
    }

    async fn get(&self, pk: &str, sk: &str) -> Result<Option<Item>, AwsError> {
        let output = self
            .client
            .get_item()
            .table_name(&self.table)
            .key("pk", text(pk))
            .key("sk", text(sk))
            .consistent_read(true)
            .send()
            .await
            .map_err(aws_error("dynamodb:GetItem", format!("{}/{pk}", self.table)))?;
        Ok(output.item)
    }
}

/// Whether a conditional write happened, or its condition did not hold.
fn happened<T>(written: Result<T, AwsError>) -> Result<bool, AwsError> {
    match written {
        Ok(_) => Ok(true),
        Err(error) if error.kind == Kind::Condition => Ok(false),
        Err(error) => Err(error),
    }
}

fn expiry(days: u64) -> AttributeValue {
    count(epoch_seconds() + days * DAY_SECONDS)
}

fn count(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

fn epoch_seconds() -> u64 {
    jiff::Timestamp::now().as_second().unsigned_abs()
}
