//! The registry: one item that lists the unfinished batches, changed by compare-and-swap of the whole item.
//!
//! The changes are those of [`Registry`]. Covered by `tests/model` (the changes), `tests/hostile` (the encoding), and
//! `tests/chaos` (the writes).

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;

use crate::aws::error::AwsError;
use crate::aws::item::{Item, number, text};
use crate::aws::retry::Backoff;
use crate::ledger::{ATTEMPTS, Ledger, PUT, count, epoch_seconds};
use crate::protocol::{BatchNumber, Change, Entry, InForce, MAX_UNFINISHED, Opening, Registry, State};

/// Both keys of the item.
const REGISTRY: &str = "registry";

/// The registry with the version of its item.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredRegistry {
    /// The registry.
    pub registry: Registry,
    /// The number of writes so far; 0 when there is no item yet.
    pub version: u64,
}

/// The outcome of the wish to open a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// It has this number.
    Batch(BatchNumber),
    /// Too many batches are unfinished.
    Full,
    /// This other definition is in force.
    Redefined(InForce),
}

impl Ledger {
    /// Reads the registry, strongly consistent.
    pub async fn registry(&self) -> Result<Registry, AwsError> {
        Ok(self.stored_registry().await?.registry)
    }

    /// Takes the next number and lists the batch as open, in one write, if the `known` definition is in force.
    pub async fn open(&self, known: &InForce) -> Result<Opened, AwsError> {
        let since = epoch_seconds();
        let (mut taken, mut refused) = (None, Opened::Full);
        let is_open = self
            .change(|registry| {
                // An earlier attempt may have been carried out although its answer was lost.
                let is_mine =
                    |number: &BatchNumber| registry.batches.get(number).is_some_and(|entry| entry.owner == self.owner);
                if taken.as_ref().is_some_and(is_mine) {
                    return Change::Already;
                }
                match registry.open(&self.owner, since, MAX_UNFINISHED, known) {
                    Opening::To(number, next) => {
                        taken = Some(number);
                        return Change::To(next);
                    }
                    Opening::Full => refused = Opened::Full,
                    Opening::Redefined => refused = Opened::Redefined(registry.definition.clone()),
                }
                Change::Refused
            })
            .await?;
        Ok(taken.filter(|_| is_open).map_or(refused, Opened::Batch))
    }

    /// Renews the lease on this consumer's batch. Returns false if the batch is no longer this consumer's.
    pub async fn renew_lease(&self, number: BatchNumber) -> Result<bool, AwsError> {
        self.change(|registry| registry.renew_lease(number, &self.owner)).await
    }

    /// Commits this consumer's open batch, which was prepared under a definition. Returns false if it was abandoned
    /// meanwhile, or another definition is in force.
    pub async fn commit(&self, number: BatchNumber, under: &InForce) -> Result<bool, AwsError> {
        self.change(|registry| registry.commit(number, &self.owner, under)).await
    }

    /// Puts another definition, or other periods, in force, in place of those `seen`. Returns false if somebody else
    /// has done so meanwhile.
    pub async fn redefine(&self, seen: &InForce, next: &InForce) -> Result<bool, AwsError> {
        self.change(|registry| registry.redefine(seen, next.clone())).await
    }

    /// Abandons another consumer's open batch if its entry still equals `seen`. Returns false if it does not.
    pub async fn abandon(&self, number: BatchNumber, seen: &Entry) -> Result<bool, AwsError> {
        self.change(|registry| registry.abandon(number, seen)).await
    }

    /// Makes another consumer's committed batch this consumer's if its entry still equals `seen`. Returns false if it
    /// does not.
    pub async fn adopt(&self, number: BatchNumber, seen: &Entry) -> Result<bool, AwsError> {
        self.change(|registry| registry.adopt(number, seen, &self.owner)).await
    }

    /// Makes another consumer's open batch this consumer's and committed, as it was before the ledger was restored, if
    /// its entry still equals `seen`. Returns false if it does not.
    pub async fn commit_again(&self, number: BatchNumber, seen: &Entry) -> Result<bool, AwsError> {
        self.change(|registry| registry.commit_again(number, seen, &self.owner)).await
    }

    /// Abandons this consumer's own open batch. Returns false if it is committed, or another consumer abandoned it.
    pub async fn abandon_own(&self, number: BatchNumber) -> Result<bool, AwsError> {
        self.change(|registry| registry.abandon_own(number, &self.owner)).await
    }

    /// Reserves all batch numbers up to `number`; see [`Registry::skip_to`].
    pub async fn skip_to(&self, number: BatchNumber) -> Result<(), AwsError> {
        self.change(|registry| registry.skip_to(number)).await.map(drop)
    }

    /// Writes the record of a finished batch, then removes the batch from the registry. In this order the batch's state
    /// can be found at any time. May be repeated.
    pub async fn close(&self, number: BatchNumber, state: State, summary: &str) -> Result<(), AwsError> {
        self.write_record(number, state, summary).await?;
        fail::fail_point!("recorded");
        self.change(|registry| registry.close(number)).await.map(drop)
    }

    /// Changes the registry by compare-and-swap, until the change is made, or turns out to be made already. Returns
    /// false if it is refused.
    async fn change(&self, mut change: impl FnMut(&Registry) -> Change) -> Result<bool, AwsError> {
        let mut backoff = Backoff::for_contention();
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
            // The pause separates this attempt from those of the other consumers.
            backoff.pause_uncancelled().await;
        }
        Err(self.contended(PUT, REGISTRY))
    }

    async fn stored_registry(&self) -> Result<StoredRegistry, AwsError> {
        let Some(item) = self.get(REGISTRY, REGISTRY).await? else { return Ok(StoredRegistry::default()) };
        // An item that was only partly understood would lose the rest by the next swap.
        parse_registry(&item).ok_or_else(|| self.unrecognized(REGISTRY))
    }

    /// Replaces the registry if it still has the version that was read. Returns false if it has not.
    async fn swap(&self, version: u64, next: &Registry) -> Result<bool, AwsError> {
        let put = self.client.put_item().table_name(&self.table).set_item(Some(registry_item(next, version + 1)));
        let put = match version {
            0 => put.condition_expression("attribute_not_exists(pk)"),
            _ => put.condition_expression("version = :version").expression_attribute_values(":version", count(version)),
        };
        self.conditional(PUT, REGISTRY, put.send()).await
    }
}

/// Encodes the registry's item.
pub fn registry_item(registry: &Registry, version: u64) -> Item {
    let batches = registry.batches.iter().map(|(batch, entry)| {
        let entry = HashMap::from([
            ("state".to_owned(), text(entry.state.name())),
            ("owner".to_owned(), text(&entry.owner)),
            ("beat".to_owned(), count(entry.beat)),
            ("since".to_owned(), count(entry.since)),
        ]);
        (batch.to_string(), AttributeValue::M(entry))
    });
    let InForce { change, digest, since, filling, gone } = &registry.definition;
    let periods = |of: &BTreeMap<String, String>| {
        AttributeValue::M(of.iter().map(|(table, period)| (table.clone(), text(period))).collect())
    };
    let gone = AttributeValue::L(gone.iter().map(text).collect());
    let definition =
        [("change", count(*change)), ("since", periods(since)), ("filling", periods(filling)), ("gone", gone)];
    let digest = digest.as_ref().map(|digest| ("digest", text(digest)));
    let definition = definition.into_iter().chain(digest).map(|(name, value)| (name.to_owned(), value));
    HashMap::from([
        ("definition".to_owned(), AttributeValue::M(definition.collect())),
        ("pk".to_owned(), text(REGISTRY)),
        ("sk".to_owned(), text(REGISTRY)),
        ("version".to_owned(), count(version)),
        ("last".to_owned(), count(registry.last)),
        ("batches".to_owned(), AttributeValue::M(batches.collect())),
    ])
}

/// Decodes the registry's item; `None` when this program did not write it.
pub fn parse_registry(item: &Item) -> Option<StoredRegistry> {
    let parse = |(name, entry): (&String, &AttributeValue)| {
        let entry = entry.as_m().ok()?;
        let state = State::from_name(entry.get("state")?.as_s().ok()?)?;
        let owner = entry.get("owner")?.as_s().ok()?.clone();
        let (beat, since) = (number(entry, "beat")?, number(entry, "since")?);
        Some((name.parse().ok()?, Entry { state, owner, beat, since }))
    };
    let batches = item.get("batches")?.as_m().ok()?.iter().map(parse).collect::<Option<BTreeMap<_, _>>>()?;
    // Both are incremented, and must not overflow.
    let count = |name| number(item, name).filter(|&count| count < u64::MAX);
    let definition = match item.get("definition") {
        // As the version before definitions wrote it.
        None => InForce::default(),
        Some(definition) => parse_definition(definition.as_m().ok()?)?,
    };
    let registry = Registry { last: count("last")?, batches, definition };
    let is_whole = registry.batches.keys().all(|number| (1..=registry.last).contains(number));
    is_whole.then_some(StoredRegistry { registry, version: count("version")? })
}

fn parse_definition(item: &Item) -> Option<InForce> {
    let period = |(table, period): (&String, &AttributeValue)| Some((table.clone(), period.as_s().ok()?.clone()));
    let periods = |name: &str| item.get(name)?.as_m().ok()?.iter().map(period).collect::<Option<_>>();
    Some(InForce {
        change: number(item, "change").filter(|&change| change < u64::MAX)?,
        digest: match item.get("digest") {
            None => None,
            Some(digest) => Some(digest.as_s().ok()?.clone()),
        },
        since: periods("since")?,
        filling: periods("filling")?,
        gone: item.get("gone")?.as_l().ok()?.iter().map(|it| it.as_s().ok().cloned()).collect::<Option<_>>()?,
    })
}
