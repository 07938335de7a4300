//! The ledger: one DynamoDB table that records which batch has claimed which object, and the state of every batch.
//!
//! The only module that knows the ledger's items. [`crate::protocol`] makes the decisions; this module makes each of
//! them durable by one conditional write: the registry by compare-and-swap, a claim by an insert on condition that
//! there is none. The items, by the file that reads and writes them, each with its keys `pk` and `sk`:
//!
//! * [`registry`] (`registry`, `registry`): `version` N, `last` N, `batches` M (number → `state`, `owner`, `beat` N,
//!   `since` N), `definition` M (`change` N, `digest`, `since` M, `filling` M, `gone` L)
//! * [`definitions`] (`definition#DIGEST`, `definition`): `text`, `stored_at`
//! * [`claims`] (`object#s3://BUCKET/KEY`, `version#…` or `etag#…`): `batch` N (absent: unassigned), `quarantined_by`
//!   N, `size` N, `created_at`, `claimed_at`, `expires_at` N, `renewed`, `deaths` N, `times_aside` N, `aside_until` N
//! * [`aside_list`] (`aside`, an [`AsideKey`](aside::AsideKey)): `entry` (JSON of [`Aside`](aside::Aside)), `since`
//! * [`sweeps`] (`sweep`, `sweep`): `started_at` N, `by`, `finished_at` N, `found` N, `left_over` N
//! * [`catalogue_state`] (`catalogue`, `catalogue`): `keys` M, `loaded_at`, `refused`, `refused_at`,
//!   `refused_files`
//! * [`touched`] (`touched`, `touched`): `times` N, `at`
//! * [`records`] (`batch#000000000042`, `record`): `state` (`done`, `abandoned`, `lost`, `aside`), `summary`,
//!   `finished_at`, `expires_at` N
//!
//! Claims and records expire (`expires_at`, DynamoDB's time to live): claims after SQS can no longer repeat their
//! message, records after the claims that refer to them. A claim is renewed while its object remains under the incoming
//! prefix, and the record of a batch that is set aside does not expire. [`aside`] defines the entries of the list,
//! without I/O.
//!
//! Covered by `tests/pipeline` and `tests/chaos`; `tests/hostile` covers the registry's encoding.

pub mod aside;
pub mod aside_list;
pub mod catalogue_state;
pub mod claims;
pub mod definitions;
pub mod records;
pub mod registry;
pub mod sweeps;
pub mod touched;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::delete_item::builders::DeleteItemFluentBuilder;
use aws_sdk_dynamodb::operation::put_item::builders::PutItemFluentBuilder;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

pub use crate::ledger::aside_list::COUNTED_ASIDE;
pub use crate::ledger::catalogue_state::CatalogueState;
pub use crate::ledger::claims::judge::ClaimJudge;
pub use crate::ledger::claims::versions::ClaimRecord;
pub use crate::ledger::claims::{CLAIMS_PER_REQUEST, Claim, ClaimStatus};
pub use crate::ledger::definitions::DefinitionError;
pub use crate::ledger::records::Record;
pub use crate::ledger::registry::{Opened, StoredRegistry, parse_registry, registry_item};
pub use crate::ledger::sweeps::{LastSweep, Swept};
pub use crate::ledger::touched::Touched;

use crate::aws::error::{AwsError, Kind, aws_error};
use crate::aws::item::{Item, text};
use crate::aws::statements::{Expected, ItemWrite, write_items};
use crate::object::{ObjectEvent, ObjectId, Version};

/// Name of the ledger's table, without the prefix.
pub const LEDGER_TABLE: &str = "music_streams_ledger";
/// Lifetime of a claim. It exceeds SQS's longest retention, 14 days, so that every repetition of a message finds its
/// claim.
pub const CLAIM_DAYS: u64 = 15;
const DAY_SECONDS: u64 = 86_400;
/// Attempts at a conditional write before it fails. Each lost attempt means that another consumer's write succeeded.
const ATTEMPTS: usize = 100;

const PUT: &str = "dynamodb:PutItem";
const UPDATE: &str = "dynamodb:UpdateItem";
const DELETE: &str = "dynamodb:DeleteItem";
const QUERY: &str = "dynamodb:Query";

/// A client for the ledger's table, acting as one consumer.
#[derive(Debug, Clone)]
pub struct Ledger {
    client: aws_sdk_dynamodb::Client,
    table: String,
    owner: String,
}

impl Ledger {
    /// Creates a client for the ledger whose table has this prefix, acting as the consumer `owner`.
    pub fn new(client: aws_sdk_dynamodb::Client, table_prefix: &str, owner: String) -> Self {
        Ledger { client, table: format!("{table_prefix}{LEDGER_TABLE}"), owner }
    }

    /// The name of this consumer in the ledger.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Checks that every kind of call to the ledger is permitted.
    pub async fn check(&self) -> Result<(), AwsError> {
        let (pk, sk) = (format!("check#{}", self.owner), "check");
        let put = self.put(&pk, sk).item("expires_at", expiry(1));
        put.send().await.map_err(self.error(PUT, &pk))?;
        let update = self.update(&pk, sk).update_expression("SET expires_at = :soon");
        update.expression_attribute_values(":soon", expiry(1)).send().await.map_err(self.error(UPDATE, &pk))?;
        self.get(&pk, sk).await?;
        // The item is there, so this inserts nothing.
        let insert = ItemWrite {
            table: self.table.clone(),
            name: pk.clone(),
            key: vec![("pk", text(pk.as_str())), ("sk", text(sk))],
            attributes: Vec::new(),
            removed: Vec::new(),
            expected: Expected::Absent,
        };
        write_items(&self.client, &[&insert]).await?.into_iter().try_for_each(|written| written.map(drop))?;
        let version = Version::ETag(String::new());
        let object = ObjectId { bucket: "check".to_owned(), key: self.owner.clone(), version };
        self.find_similar_claims(&[&ObjectEvent { object, size: 0, created_at: None }]).await?;
        self.delete(&pk, sk).send().await.map_err(self.error(DELETE, &pk))?;
        self.count_aside().await.map(drop)
    }

    /// The name of an item or a partition in errors.
    fn resource(&self, pk: &str) -> String {
        format!("{}/{pk}", self.table)
    }

    fn error<E>(&self, operation: &'static str, pk: &str) -> impl FnOnce(SdkError<E, HttpResponse>) -> AwsError + use<E>
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        aws_error(operation, self.resource(pk))
    }

    fn put(&self, pk: &str, sk: &str) -> PutItemFluentBuilder {
        self.client.put_item().table_name(&self.table).item("pk", text(pk)).item("sk", text(sk))
    }

    fn update(&self, pk: &str, sk: &str) -> UpdateItemFluentBuilder {
        self.client.update_item().table_name(&self.table).key("pk", text(pk)).key("sk", text(sk))
    }

    fn delete(&self, pk: &str, sk: &str) -> DeleteItemFluentBuilder {
        self.client.delete_item().table_name(&self.table).key("pk", text(pk)).key("sk", text(sk))
    }

    fn query(&self, pk: &str) -> QueryFluentBuilder {
        let query = self.client.query().table_name(&self.table);
        query.key_condition_expression("pk = :pk").expression_attribute_values(":pk", text(pk))
    }

    /// Reads an item, strongly consistent.
    async fn get(&self, pk: &str, sk: &str) -> Result<Option<Item>, AwsError> {
        let get = self.client.get_item().table_name(&self.table).key("pk", text(pk)).key("sk", text(sk));
        let output = get.consistent_read(true).send().await.map_err(self.error("dynamodb:GetItem", pk))?;
        Ok(output.item)
    }

    /// Carries out a conditional write. Returns false if its condition did not hold.
    async fn conditional<T, E>(
        &self,
        operation: &'static str,
        pk: &str,
        write: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<bool, AwsError>
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
    {
        match write.await.map_err(self.error(operation, pk)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind == Kind::Condition => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Carries out updates of `pk` and what belongs to it, all or none. Returns false if a condition did not hold.
    async fn transact(&self, pk: &str, writes: Vec<TransactWriteItem>) -> Result<bool, AwsError> {
        let write = self.client.transact_write_items().set_transact_items(Some(writes)).send().await;
        let Err(error) = write else { return Ok(true) };
        // The reasons are listed beside the error: a condition that does not hold, or another write at the same moment.
        let reasons = error.as_service_error().and_then(|error| match error {
            TransactWriteItemsError::TransactionCanceledException(cancelled) => {
                let codes = cancelled.cancellation_reasons().iter().filter_map(|reason| reason.code());
                Some(codes.map(str::to_owned).collect::<Vec<_>>())
            }
            _ => None,
        });
        // IAM knows no transactions, only the calls within.
        let mut error = self.error(UPDATE, pk)(error);
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
        if error.kind == Kind::Condition { Ok(false) } else { Err(error) }
    }

    /// The error of a conditional write that lost every one of its [`ATTEMPTS`].
    fn contended(&self, operation: &'static str, pk: &str) -> AwsError {
        let cause = format!("other consumers changed it {ATTEMPTS} times meanwhile");
        AwsError { operation, resource: self.resource(pk), kind: Kind::Throttled, cause }
    }

    /// The error of an item that this version of the program did not write.
    fn unrecognized(&self, pk: &str) -> AwsError {
        AwsError {
            operation: "dynamodb:GetItem",
            resource: self.resource(pk),
            kind: Kind::Refused,
            cause: "the item is not what this version writes; restore it, or run the version that wrote it".to_owned(),
        }
    }
}

/// The value of `expires_at` for an item that lives this many days from now on.
fn expiry(days: u64) -> AttributeValue {
    count(epoch_seconds() + days * DAY_SECONDS)
}

fn count(value: u64) -> AttributeValue {
    AttributeValue::N(value.to_string())
}

/// The time as text (RFC 3339), as the ledger stores it for people.
fn now_text() -> AttributeValue {
    text(jiff::Timestamp::now().to_string())
}

fn epoch_seconds() -> u64 {
    jiff::Timestamp::now().as_second().unsigned_abs()
}

/// The point in time of a number of seconds since the Unix epoch.
fn timestamp(epoch_seconds: u64) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_second(i64::try_from(epoch_seconds).ok()?).ok()
}
