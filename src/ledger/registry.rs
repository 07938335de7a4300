//! The registry: one item, changed by compare-and-swap.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;

use crate::aws::error::{AwsError, aws_error};
use crate::aws::item::{Item, number, text};
use crate::aws::retry::Backoff;
use crate::ledger::records::record_key;
use crate::ledger::{ATTEMPTS, Ledger, epoch_seconds, expiry, happened};
use crate::protocol::{BatchNumber, Change, Entry, MAX_UNFINISHED, Registry, State};

/// A record outlives every claim of its batch.
const RECORD_DAYS: u64 = 31;

/// The registry as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredRegistry {
    /// The registry.
    pub registry: Registry,
    /// Counts the writes; 0 where there is no item.
    pub version: u64,
}

impl Ledger {
    /// Reads the registry, strongly consistent.
    pub async fn registry(&self) -> Result<Registry, AwsError> {
        Ok(self.stored_registry().await?.registry)
    }

    /// Takes the next number and lists the batch as open, in one write; `None` while too many batches are not finished.
    pub async fn open(&self) -> Result<Option<BatchNumber>, AwsError> {
        let since = epoch_seconds();
        let mut taken = None;
        self.change(|registry| {
            // The answer to a write that did happen may have been lost.
            let is_mine =
                |number: &BatchNumber| registry.batches.get(number).is_some_and(|entry| entry.owner == self.owner);
            if taken.as_ref().is_some_and(is_mine) {
                return Change::Already;
            }
            match registry.open(&self.owner, since, MAX_UNFINISHED) {
                Some((number, next)) => {
                    taken = Some(number);
                    Change::To(next)
                }
                None => Change::Refused,
            }
        })
        .await
        .map(|is_open| taken.filter(|_| is_open))
    }

    /// Shows that the owner lives. `false` when the batch is no longer this consumer's.
    pub async fn beat(&self, number: BatchNumber) -> Result<bool, AwsError> {
        self.change(|registry| registry.beat(number, &self.owner)).await
    }

    /// Flips this consumer's batch from open to committed. `false` when it was abandoned meanwhile.
    pub async fn commit(&self, number: BatchNumber) -> Result<bool, AwsError> {
        self.change(|registry| registry.commit(number, &self.owner)).await
    }

    /// Flips a batch from open to abandoned, if it still is as `seen`. `false` when it is not.
    pub async fn abandon(&self, number: BatchNumber, seen: &Entry) -> Result<bool, AwsError> {
        self.change(|registry| registry.abandon(number, seen)).await
    }

    /// Makes another consumer's committed batch this consumer's, if it still is as `seen`. `false` when it is not.
    pub async fn adopt(&self, number: BatchNumber, seen: &Entry) -> Result<bool, AwsError> {
        self.change(|registry| registry.adopt(number, seen, &self.owner)).await
    }

    /// Makes another consumer's open batch this consumer's and committed, which it was before, if it still is as `seen`. `false` when
    /// it is not.
    pub async fn commit_again(&self, number: BatchNumber, seen: &Entry) -> Result<bool, AwsError> {
        self.change(|registry| registry.commit_again(number, seen, &self.owner)).await
    }

    /// Gives up this consumer's own open batch. `false` when it is committed or somebody else did so.
    pub async fn abandon_own(&self, number: BatchNumber) -> Result<bool, AwsError> {
        self.change(|registry| registry.abandon_own(number, &self.owner)).await
    }

    /// Takes no number up to this one any more.
    pub async fn skip_to(&self, number: BatchNumber) -> Result<(), AwsError> {
        self.change(|registry| registry.skip_to(number)).await.map(drop)
    }

    /// Writes the record of a finished batch, then takes it off the registry. In this order, so that its state can be
    /// found at any time; both may be repeated.
    pub async fn close(&self, number: BatchNumber, state: State, summary: &str) -> Result<(), AwsError> {
        // A batch that is set aside has its objects until an operator brings it to its end.
        let expires_at = (state != State::Aside).then(|| expiry(RECORD_DAYS));
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .item("pk", text(record_key(number)))
            .item("sk", text("record"))
            .item("state", text(state.name()))
            .item("summary", text(summary))
            .item("finished_at", text(jiff::Timestamp::now().to_string()));
        let put = match expires_at {
            Some(expires_at) => put.item("expires_at", expires_at),
            None => put,
        };
        put.send().await.map_err(aws_error("dynamodb:PutItem", format!("{}/{}", self.table, record_key(number))))?;
        fail::fail_point!("recorded");
        self.change(|registry| registry.close(number)).await.map(drop)
    }

    /// Changes the registry by compare-and-swap, until the change is made, or turns out to be made already or refused
    /// (`false`).
    async fn change(&self, mut change: impl FnMut(&Registry) -> Change) -> Result<bool, AwsError> {
        let mut backoff = Backoff::after_a_race();
        for _ in 0..ATTEMPTS {
            let stored = self.stored_registry().await?;
            let next = match change(&stored.registry) {
                Change::To(next) => next,
                Change::Already => return Ok(true),
                Change::Refused => return Ok(false),
            };
            if self.swap(stored.version, &next).await? {
                return Ok(true);
            }
            // Who lost a race runs the next one apart from the others.
            backoff.pause_uncancelled().await;
        }
        Err(Self::contended("dynamodb:PutItem", format!("{}/registry", self.table)))
    }

    async fn stored_registry(&self) -> Result<StoredRegistry, AwsError> {
        let Some(item) = self.get("registry", "registry").await? else { return Ok(StoredRegistry::default()) };
        // What is not understood would be lost by the next swap.
        parse_registry(&item).ok_or_else(|| self.foreign("registry"))
    }

    /// Replaces the registry if it still has the version that was read. Whether it did.
    async fn swap(&self, version: u64, next: &Registry) -> Result<bool, AwsError> {
        let put = self.client.put_item().table_name(&self.table).set_item(Some(registry_item(next, version + 1)));
        let put = if version == 0 {
            put.condition_expression("attribute_not_exists(pk)")
        } else {
            put.condition_expression("version = :version")
                .expression_attribute_values(":version", AttributeValue::N(version.to_string()))
        };
        happened(put.send().await.map_err(aws_error("dynamodb:PutItem", format!("{}/registry", self.table))))
    }
}

/// The registry's item.
pub fn registry_item(registry: &Registry, version: u64) -> Item {
    let number = |value: u64| AttributeValue::N(value.to_string());
    let batches = registry.batches.iter().map(|(batch, entry)| {
        let entry = HashMap::from([
            ("state".to_owned(), text(entry.state.name())),
            ("owner".to_owned(), text(&entry.owner)),
            ("beat".to_owned(), number(entry.beat)),
            ("since".to_owned(), number(entry.since)),
        ]);
        (batch.to_string(), AttributeValue::M(entry))
    });
    HashMap::from([
        ("pk".to_owned(), text("registry")),
        ("sk".to_owned(), text("registry")),
        ("version".to_owned(), number(version)),
        ("last".to_owned(), number(registry.last)),
        ("batches".to_owned(), AttributeValue::M(batches.collect())),
    ])
}

/// Reads the registry's item back; `None` when it is not what this program writes.
pub fn parse_registry(item: &Item) -> Option<StoredRegistry> {
    let parse = |(name, entry): (&String, &AttributeValue)| {
        let entry = entry.as_m().ok()?;
        let state = State::from_name(entry.get("state")?.as_s().ok()?)?;
        let owner = entry.get("owner")?.as_s().ok()?.clone();
        let (beat, since) = (number(entry, "beat")?, number(entry, "since")?);
        Some((name.parse().ok()?, Entry { state, owner, beat, since }))
    };
    let batches = item.get("batches")?.as_m().ok()?.iter().map(parse).collect::<Option<BTreeMap<_, _>>>()?;
    // Both count up, and neither has come to its end.
    let count = |name| number(item, name).filter(|&count| count < u64::MAX);
    let registry = Registry { last: count("last")?, batches };
    let is_whole = registry.batches.keys().all(|number| (1..=registry.last).contains(number));
    is_whole.then_some(StoredRegistry { registry, version: count("version")? })
}
