//! The ledger: one DynamoDB table that says which batch has which object, and where every batch stands.
//!
//! The only module that knows the ledger's items. Every change is one conditional write; what is decided by them is in
//! [`crate::protocol`]. Items (keys `pk`, `sk`):
//!
//! | item | keys | attributes |
//! |---|---|---|
//! | registry | `registry`, `registry` | `last` N, `batches` M: number → `state`, `owner`, `beat`, `since` |
//! | claim | `object#s3://BUCKET/KEY`, `version#…` or `etag#…` | `batch` N, `claimed_at`, `expires_at` |
//! | record | `batch#000000000042`, `record` | `state` (`done`, `abandoned`), `summary`, `finished_at`, `expires_at` |
//!
//! Claims and records expire (`expires_at`, DynamoDB's time to live), claims after SQS can no longer repeat their message,
//! records after the claims that refer to them.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};

use crate::aws::{AwsError, Item, Kind, explain, number, text};
use crate::event::{ObjectId, Version};
use crate::protocol::{BatchNumber, Contest, Entry, Registry, State, contest};

/// A claim outlives SQS's longest retention, 14 days, so that every repetition of its message meets it.
const CLAIM_DAYS: u64 = 15;
/// A record outlives every claim of its batch.
const RECORD_DAYS: u64 = 31;
/// Tries to take a number before giving up: each failure means that another consumer took one.
const OPEN_ATTEMPTS: usize = 100;

/// What a claim came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The object is this batch's.
    Won,
    /// It is finished already.
    Duplicate,
    /// Another batch is at it.
    Left,
}

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

    /// Reads the registry, strongly consistent.
    pub async fn registry(&self) -> Result<Registry, AwsError> {
        let item = self.get("registry", "registry").await?;
        Ok(item.map(|item| parse_registry(&item)).unwrap_or_default())
    }

    /// Takes the next number and lists the batch as open, in one write.
    pub async fn open(&self) -> Result<BatchNumber, AwsError> {
        let mut registry = self.registry().await?;
        for _ in 0..OPEN_ATTEMPTS {
            let number = registry.last + 1;
            let entry = AttributeValue::M(HashMap::from([
                ("state".to_owned(), text(State::Open.name())),
                ("owner".to_owned(), text(&self.owner)),
                ("beat".to_owned(), AttributeValue::N("0".to_owned())),
                ("since".to_owned(), text(jiff::Timestamp::now().to_string())),
            ]));
            let attempt = if registry.last == 0 {
                // The very first batch makes the registry.
                let batches = AttributeValue::M(HashMap::from([(number.to_string(), entry)]));
                let put = self.client.put_item().table_name(&self.table);
                put.item("pk", text("registry"))
                    .item("sk", text("registry"))
                    .item("last", AttributeValue::N(number.to_string()))
                    .item("batches", batches)
                    .condition_expression("attribute_not_exists(pk)")
                    .send()
                    .await
                    .map(drop)
                    .map_err(explain("dynamodb:PutItem", format!("{}/registry", self.table)))
            } else {
                self.update_registry(number)
                    .update_expression("SET #last = :number, batches.#number = :entry")
                    .condition_expression("#last = :last")
                    .expression_attribute_names("#last", "last")
                    .expression_attribute_values(":number", AttributeValue::N(number.to_string()))
                    .expression_attribute_values(":last", AttributeValue::N(registry.last.to_string()))
                    .expression_attribute_values(":entry", entry)
                    .send()
                    .await
                    .map(drop)
                    .map_err(explain("dynamodb:UpdateItem", format!("{}/registry", self.table)))
            };
            match attempt {
                Ok(()) => return Ok(number),
                Err(error) if error.kind == Kind::Condition => {
                    registry = self.registry().await?;
                    // The answer to a write that did happen may have been lost, and the SDK tried it again.
                    if registry.batches.get(&number).is_some_and(|entry| entry.owner == self.owner) {
                        return Ok(number);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(AwsError {
            operation: "dynamodb:UpdateItem",
            resource: format!("{}/registry", self.table),
            kind: Kind::Throttled,
            cause: format!("{OPEN_ATTEMPTS} other consumers took a number first"),
        })
    }

    /// Shows that the owner lives. `false` when the batch is no longer this consumer's.
    pub async fn beat(&self, number: BatchNumber) -> Result<bool, AwsError> {
        let update = self
            .update_registry(number)
            .update_expression("SET batches.#number.beat = batches.#number.beat + :one")
            .condition_expression("batches.#number.#owner = :me AND batches.#number.#state <> :abandoned")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":one", AttributeValue::N("1".to_owned()))
            .expression_attribute_values(":me", text(&self.owner))
            .expression_attribute_values(":abandoned", text(State::Abandoned.name()));
        self.conditional(update.send().await)
    }

    /// Flips this consumer's batch from open to committed. `false` when it was abandoned meanwhile.
    pub async fn commit(&self, number: BatchNumber) -> Result<bool, AwsError> {
        let update = self
            .update_registry(number)
            .update_expression("SET batches.#number.#state = :committed")
            // Committed already: the answer to the first try was lost.
            .condition_expression("batches.#number.#owner = :me AND batches.#number.#state IN (:open, :committed)")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":me", text(&self.owner))
            .expression_attribute_values(":open", text(State::Open.name()))
            .expression_attribute_values(":committed", text(State::Committed.name()));
        self.conditional(update.send().await)
    }

    /// Flips a batch from open to abandoned, if it still is as `seen`. `false` when it is not.
    pub async fn abandon(&self, number: BatchNumber, seen: &Entry) -> Result<bool, AwsError> {
        self.seize(number, seen, "SET batches.#number.#state = :to", State::Open, text(State::Abandoned.name())).await
    }

    /// Makes another consumer's committed batch this consumer's, if it still is as `seen`. `false` when it is not.
    pub async fn adopt(&self, number: BatchNumber, seen: &Entry) -> Result<bool, AwsError> {
        self.seize(number, seen, "SET batches.#number.#owner = :to", State::Committed, text(&self.owner)).await
    }

    async fn seize(
        &self,
        number: BatchNumber,
        seen: &Entry,
        change: &str,
        state: State,
        to: AttributeValue,
    ) -> Result<bool, AwsError> {
        let update = self
            .update_registry(number)
            .update_expression(change)
            .condition_expression(
                "batches.#number.#owner = :owner AND batches.#number.#state = :state AND batches.#number.beat = :beat",
            )
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":owner", text(&seen.owner))
            .expression_attribute_values(":state", text(state.name()))
            .expression_attribute_values(":beat", AttributeValue::N(seen.beat.to_string()))
            .expression_attribute_values(":to", to);
        self.conditional(update.send().await)
    }

    /// Gives up this consumer's own open batch. `false` when it is committed or somebody else did so.
    pub async fn abandon_own(&self, number: BatchNumber) -> Result<bool, AwsError> {
        let update = self
            .update_registry(number)
            .update_expression("SET batches.#number.#state = :abandoned")
            .condition_expression("batches.#number.#owner = :me AND batches.#number.#state IN (:open, :abandoned)")
            .expression_attribute_names("#owner", "owner")
            .expression_attribute_names("#state", "state")
            .expression_attribute_values(":me", text(&self.owner))
            .expression_attribute_values(":open", text(State::Open.name()))
            .expression_attribute_values(":abandoned", text(State::Abandoned.name()));
        self.conditional(update.send().await)
    }

    /// Writes the record of a finished batch, then takes it off the registry. In this order, so that its state can be
    /// found at any time; both may be repeated.
    pub async fn close(&self, number: BatchNumber, state: State, summary: &str) -> Result<(), AwsError> {
        self.client
            .put_item()
            .table_name(&self.table)
            .item("pk", text(record_key(number)))
            .item("sk", text("record"))
            .item("state", text(state.name()))
            .item("summary", text(summary))
            .item("finished_at", text(jiff::Timestamp::now().to_string()))
            .item("expires_at", expiry(RECORD_DAYS))
            .send()
            .await
            .map_err(explain("dynamodb:PutItem", format!("{}/{}", self.table, record_key(number))))?;
        let update = self.update_registry(number).update_expression("REMOVE batches.#number").send().await;
        self.conditional(update).map(drop)
    }

    /// Claims an object for a batch.
    pub async fn claim(&self, object: &ObjectId, batch: BatchNumber) -> Result<Claim, AwsError> {
        let (pk, sk) = claim_key(object);
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .item("pk", text(&pk))
            .item("sk", text(&sk))
            .item("batch", AttributeValue::N(batch.to_string()))
            .item("claimed_at", text(jiff::Timestamp::now().to_string()))
            .item("expires_at", expiry(CLAIM_DAYS))
            .condition_expression("attribute_not_exists(pk)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let mut held = match put {
            Ok(_) => return Ok(Claim::Won),
            Err(SdkError::ServiceError(service)) if service.err().is_conditional_check_failed_exception() => {
                match service.into_err() {
                    PutItemError::ConditionalCheckFailedException(failed) => failed.item,
                    _ => None,
                }
            }
            Err(error) => return Err(explain("dynamodb:PutItem", format!("{}/{pk}", self.table))(error)),
        };
        loop {
            // Some emulators do not return the item that stood in the way.
            let item = match held.take() {
                Some(item) => Some(item),
                None => self.get(&pk, &sk).await?,
            };
            let holder = item.as_ref().and_then(|item| number(item, "batch")).unwrap_or(0);
            if holder == batch {
                return Ok(Claim::Won);
            }
            match contest(self.state_of(holder).await?) {
                Contest::Duplicate => return Ok(Claim::Duplicate),
                Contest::Leave => return Ok(Claim::Left),
                Contest::TakeOver => {}
            }
            let update = self
                .client
                .update_item()
                .table_name(&self.table)
                .key("pk", text(&pk))
                .key("sk", text(&sk))
                .update_expression("SET #batch = :batch, expires_at = :expires_at")
                .condition_expression("#batch = :holder OR attribute_not_exists(pk)")
                .expression_attribute_names("#batch", "batch")
                .expression_attribute_values(":batch", AttributeValue::N(batch.to_string()))
                .expression_attribute_values(":holder", AttributeValue::N(holder.to_string()))
                .expression_attribute_values(":expires_at", expiry(CLAIM_DAYS));
            if self.conditional(update.send().await)? {
                return Ok(Claim::Won);
            }
            // Another consumer was faster: judge its claim.
        }
    }

    /// Where a batch stands; `None` when nothing is known of it any more.
    pub async fn state_of(&self, number: BatchNumber) -> Result<Option<State>, AwsError> {
        // The registry first: a batch leaves it only after its record is written.
        if let Some(entry) = self.registry().await?.batches.get(&number) {
            return Ok(Some(entry.state));
        }
        let record = self.get(&record_key(number), "record").await?;
        Ok(record.and_then(|record| State::from_name(record.get("state")?.as_s().ok()?)))
    }

    fn update_registry(
        &self,
        number: BatchNumber,
    ) -> aws_sdk_dynamodb::operation::update_item::builders::UpdateItemFluentBuilder {
        self.client
            .update_item()
            .table_name(&self.table)
            .key("pk", text("registry"))
            .key("sk", text("registry"))
            .expression_attribute_names("#number", number.to_string())
    }

    fn conditional<T>(
        &self,
        result: Result<T, SdkError<UpdateItemError, aws_smithy_runtime_api::client::orchestrator::HttpResponse>>,
    ) -> Result<bool, AwsError> {
        match result.map_err(explain("dynamodb:UpdateItem", &self.table)) {
            Ok(_) => Ok(true),
            Err(error) if error.kind == Kind::Condition => Ok(false),
            // The path of a batch that has left the registry does not exist, which DynamoDB calls invalid.
            Err(error) if error.cause.contains("document path") => Ok(false),
            Err(error) => Err(error),
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
            .map_err(explain("dynamodb:GetItem", format!("{}/{pk}", self.table)))?;
        Ok(output.item)
    }
}

fn claim_key(object: &ObjectId) -> (String, String) {
    let pk = format!("object#s3://{}/{}", object.bucket, object.key);
    let sk = match &object.version {
        Version::Id(id) => format!("version#{id}"),
        Version::ETag(etag) => format!("etag#{etag}"),
    };
    (pk, sk)
}

fn record_key(number: BatchNumber) -> String {
    format!("batch#{number:012}")
}

fn expiry(days: u64) -> AttributeValue {
    let from_now = Duration::from_secs(days * 86_400);
    let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default() + from_now;
    AttributeValue::N(at.as_secs().to_string())
}

fn parse_registry(item: &Item) -> Registry {
    let mut registry = Registry { last: number(item, "last").unwrap_or(0), ..Registry::default() };
    if let Some(AttributeValue::M(batches)) = item.get("batches") {
        for (name, entry) in batches {
            let parsed = (|| {
                let entry = entry.as_m().ok()?;
                let state = State::from_name(entry.get("state")?.as_s().ok()?)?;
                let owner = entry.get("owner")?.as_s().ok()?.clone();
                Some((name.parse().ok()?, Entry { state, owner, beat: number(entry, "beat")? }))
            })();
            registry.batches.extend(parsed);
        }
    }
    registry
}
