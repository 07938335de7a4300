//! Top lists in DynamoDB: epochs and offers of a batch, and the steps of a rebuild.
//!
//! The only writer of lists. Each is written by compare-and-swap on its version, and not at all where nothing changes.
//! Tested in tests/pipeline and tests/chaos; the rules are those of [`crate::reports::top_lists`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use aws_sdk_dynamodb::types::KeysAndAttributes;
use futures::{StreamExt, TryStreamExt};
use tokio_util::sync::CancellationToken;

use crate::aws::error::{AwsError, Kind, aws_error};
use crate::aws::item::{Item, item, number, text};
use crate::aws::retry::{Backoff, retry_until};
use crate::aws::statements::{Expected, ItemWrite, Written};
use crate::plan::period::Period;
use crate::protocol::BatchNumber;
use crate::reports::figures::Key;
use crate::reports::store::change::{beginning, contended};
use crate::reports::store::offering::LARGE_ENTRIES;
use crate::reports::store::{Offering, READ_ITEMS, ReadCost, Reports};
use crate::reports::top_lists::{Entry, ListKey, Offers, PERIOD_ATTRIBUTE, TOP_LISTS_TABLE, TopList};
use crate::telemetry::metrics::{label, metrics};

/// Lists that are read, changed and written together.
const GROUP: usize = 25;
/// Groups at a time.
const CONCURRENT_GROUPS: usize = 4;

/// The outcome of offers.
#[derive(Debug, Default)]
pub struct Offered {
    /// The lists that were written.
    written: Vec<ListKey>,
    /// A list is in another epoch than was seen: the items must be read and offered again.
    pub is_stale: bool,
    /// Lists that cannot be written, each with the reason.
    pub refused: Vec<(ListKey, String)>,
}

/// Lists that were emptied, and are being filled anew.
#[derive(Debug)]
pub struct Restarted {
    /// The epochs that they were emptied in.
    epochs: HashMap<ListKey, u64>,
    /// Lists that cannot be written, each with the reason.
    refused: Vec<(ListKey, String)>,
}

impl Offered {
    fn add(&mut self, other: Offered) {
        self.written.extend(other.written);
        self.is_stale |= other.is_stale;
        self.refused.extend(other.refused);
    }
}

impl Reports {
    /// The full name of the table of top lists.
    pub fn lists_table(&self) -> String {
        self.prefixed(TOP_LISTS_TABLE)
    }

    /// Reads the epochs of lists; 0 for a list that is not there yet.
    pub async fn epochs(&self, lists: &[ListKey]) -> Result<HashMap<ListKey, u64>, AwsError> {
        let mut epochs: HashMap<ListKey, u64> = lists.iter().map(|list| (list.clone(), 0)).collect();
        for group in lists.chunks(READ_ITEMS) {
            for item in self.read_list_items(group, true, None).await? {
                if let (Some(list), Some(epoch)) = (ListKey::parse(&item), number(&item, "epoch")) {
                    epochs.insert(list, epoch);
                }
            }
        }
        Ok(epochs)
    }

    /// Reads the items of lists: strongly consistent, or where the cost is counted, eventually.
    pub(super) async fn read_list_items(
        &self,
        lists: &[ListKey],
        only_epochs: bool,
        cost: Option<&ReadCost>,
    ) -> Result<Vec<Item>, AwsError> {
        let table = self.lists_table();
        let mut keys = KeysAndAttributes::builder()
            .set_keys(Some(lists.iter().map(|list| item(list.fields())).collect()))
            .consistent_read(cost.is_none());
        if only_epochs {
            keys = keys
                .projection_expression("#list, #period, epoch")
                .expression_attribute_names("#list", "list")
                .expression_attribute_names("#period", PERIOD_ATTRIBUTE);
        }
        let request = keys.build().ok().map(|keys| (table.clone(), keys)).into_iter().collect();
        Ok(self.read_all(request, &table, cost).await?.into_iter().map(|(_, item)| item).collect())
    }

    /// Reads lists; one that is not there is empty. The error of a list tells that somebody else wrote it.
    pub async fn lists(&self, lists: &[ListKey]) -> Result<BTreeMap<ListKey, Result<TopList, String>>, AwsError> {
        Ok(self.parsed_lists(lists, self.read_list_items(lists, false, None).await?))
    }

    /// Parses lists; one without an item is empty. The error of a list tells that somebody else wrote it.
    pub(super) fn parsed_lists(
        &self,
        lists: &[ListKey],
        items: Vec<Item>,
    ) -> BTreeMap<ListKey, Result<TopList, String>> {
        let mut found: BTreeMap<ListKey, Result<TopList, String>> =
            lists.iter().map(|list| (list.clone(), Ok(TopList::default()))).collect();
        for item in items {
            let Some(key) = ListKey::parse(&item) else { continue };
            let report = key.report(&self.plan).map(|report| &self.plan.reports[report]);
            let parsed = report.and_then(|report| TopList::parse(report, item)).ok_or_else(|| {
                let (table, period) = (self.lists_table(), key.period);
                format!("the list {} of {period} in {table} is not what this program writes; delete it", key.list)
            });
            found.insert(key, parsed);
        }
        found
    }

    /// Reads one list. A list that somebody else wrote is an error.
    pub async fn list(&self, key: &ListKey) -> Result<TopList, AwsError> {
        let found = self.lists(std::slice::from_ref(key)).await?.remove(key);
        found.unwrap_or(Ok(TopList::default())).map_err(|cause| AwsError {
            operation: "dynamodb:BatchGetItem",
            resource: self.lists_table(),
            kind: Kind::Refused,
            cause,
        })
    }

    /// Makes the offers of a batch's pass over its items. If the result is stale, the pass must be repeated, with a new
    /// offering. May be repeated.
    pub async fn offer(
        &self,
        batch: BatchNumber,
        offering: &Offering,
        deadline: &CancellationToken,
    ) -> Result<Offered, AwsError> {
        let (epochs, offers) = offering.take().await;
        self.offer_entries(batch, offers, &epochs, deadline).await
    }

    /// Offers entries, each made of an item that was read after the list's epoch in `epochs`.
    async fn offer_entries(
        &self,
        batch: BatchNumber,
        offers: Offers,
        epochs: &HashMap<ListKey, u64>,
        deadline: &CancellationToken,
    ) -> Result<Offered, AwsError> {
        let offers = offers.into_lists();
        let mut lists: Vec<&ListKey> = offers.keys().collect();
        let begin = beginning(batch, lists.len());
        lists.rotate_left(begin);
        let change = |list: &ListKey, stored: &TopList| {
            if epochs.get(list) != Some(&stored.epoch) {
                return Err(());
            }
            let entries = offers.get(list).map_or(&[][..], |entries: &Vec<Arc<Entry>>| entries);
            let top = list.report(&self.plan).and_then(|report| self.plan.reports[report].top.as_ref());
            Ok(stored.with(entries, top.map_or(0, |top| top.keep)))
        };
        self.change_lists(&lists, &change, deadline).await
    }

    /// Changes lists by compare-and-swap. `change` returns the next list, `None` for no change, or an error for one of
    /// another epoch.
    async fn change_lists(
        &self,
        lists: &[&ListKey],
        change: &impl Fn(&ListKey, &TopList) -> Result<Option<TopList>, ()>,
        deadline: &CancellationToken,
    ) -> Result<Offered, AwsError> {
        let groups: Vec<Offered> = futures::stream::iter(lists.chunks(GROUP))
            .map(|group| self.change_list_group(group, change, deadline))
            .buffer_unordered(CONCURRENT_GROUPS)
            .try_collect()
            .await?;
        let mut all = Offered::default();
        groups.into_iter().for_each(|group| all.add(group));
        Ok(all)
    }

    async fn change_list_group(
        &self,
        group: &[&ListKey],
        change: &impl Fn(&ListKey, &TopList) -> Result<Option<TopList>, ()>,
        deadline: &CancellationToken,
    ) -> Result<Offered, AwsError> {
        let mut offered = Offered::default();
        let mut open: Vec<ListKey> = group.iter().map(|&list| list.clone()).collect();
        let mut race = Backoff::for_contention();
        while !open.is_empty() {
            let stored = retry_until(deadline, async || self.lists(&open).await).await?;
            let (mut changed, mut writes) = (Vec::new(), Vec::new());
            for (key, stored) in stored {
                match stored.as_ref().map(|stored| (stored.version, change(&key, stored))) {
                    Err(foreign) => offered.refused.push((key, foreign.clone())),
                    Ok((_, Err(()))) => offered.is_stale = true,
                    Ok((_, Ok(None))) => {}
                    Ok((version, Ok(Some(next)))) => match key.report(&self.plan) {
                        Some(report) => {
                            writes.push(self.list_write(&key, report, &next, version));
                            changed.push(key);
                        }
                        None => offered.refused.push((key, "the definition keeps no such list".to_owned())),
                    },
                }
            }
            open.clear();
            for (key, written) in changed.into_iter().zip(self.write(writes, deadline).await?) {
                match written {
                    Ok(Written::Yes) => {
                        metrics().report_items.add(1, &label("report", "top_list"));
                        offered.written.push(key);
                    }
                    Ok(Written::Conflict(_)) => {
                        metrics().conflicts.add(1, &[]);
                        open.push(key);
                    }
                    Err(error) => offered.refused.push((key, error.to_string())),
                }
            }
            fail::fail_point!("lists written");
            if !open.is_empty() && !race.pause(deadline).await {
                return Err(contended(self.lists_table()));
            }
        }
        Ok(offered)
    }

    fn list_write(&self, key: &ListKey, report: usize, next: &TopList, version: u64) -> ItemWrite<'static> {
        let expected = if version == 0 { Expected::Absent } else { Expected::Version(version) };
        let (table, name) = (self.lists_table(), key.list.clone());
        ItemWrite {
            table,
            name,
            key: key.fields(),
            attributes: next.fields(&self.plan.reports[report]),
            removed: Vec::new(),
            expected,
        }
    }

    /// Finds every list of a day and of its hours by a scan of the table, which is small.
    pub async fn lists_of_day(&self, day: i32) -> Result<BTreeSet<ListKey>, AwsError> {
        let table = self.lists_table();
        let hours = self.plan.zone.hours_of(day);
        let text_of = |period: Option<&Period>| text(period.map(ToString::to_string).unwrap_or_default());
        let mut items = self
            .client
            .scan()
            .table_name(&table)
            .projection_expression("#list, #period")
            .filter_expression("#period = :day OR #period BETWEEN :first AND :last")
            .expression_attribute_names("#list", "list")
            .expression_attribute_names("#period", PERIOD_ATTRIBUTE)
            .expression_attribute_values(":day", text_of(Some(&Period::Day(day))))
            .expression_attribute_values(":first", text_of(hours.first()))
            .expression_attribute_values(":last", text_of(hours.last()))
            .into_paginator()
            .items()
            .send();
        let mut lists = BTreeSet::new();
        while let Some(item) = items.try_next().await.map_err(aws_error("dynamodb:Scan", &table))? {
            // The first and the last hour may have the date of a neighbouring day between them.
            lists.extend(ListKey::parse(&item).filter(|list| self.plan.day_of(list.period) == day));
        }
        Ok(lists)
    }

    /// Offers items to the lists that they belong to. May be repeated.
    pub async fn offer_again(&self, keys: &[Key], deadline: &CancellationToken) -> Result<Offered, AwsError> {
        loop {
            let (offering, mut offered) = (Offering::default(), Offered::default());
            for group in keys.chunks(READ_ITEMS) {
                let items = self.read_seen(&group.iter().collect::<Vec<_>>(), Some(&offering), deadline).await?;
                for (key, item) in items {
                    // An item that somebody else wrote is reported where it is written.
                    if let Ok(stored) = self.parse(&key, Some(item)) {
                        offering.offer(self.report(&key), &key, &stored).await;
                    }
                }
                if offering.is_large().await {
                    offered.add(self.offer(0, &offering, deadline).await?);
                }
            }
            offered.add(self.offer(0, &offering, deadline).await?);
            if !offered.is_stale {
                return Ok(offered);
            }
        }
    }

    /// Begins a rebuild: marks lists as being rebuilt, before any of their items is replaced. Returns those that were
    /// not marked before.
    pub async fn mark_rebuilding(
        &self,
        lists: &BTreeSet<ListKey>,
        deadline: &CancellationToken,
    ) -> Result<BTreeSet<ListKey>, AwsError> {
        let lists: Vec<&ListKey> = lists.iter().collect();
        let change = |_: &ListKey, list: &TopList| Ok((!list.rebuilding).then(|| list.marked()));
        Ok(self.change_lists(&lists, &change, deadline).await?.written.into_iter().collect())
    }

    /// Takes the mark off lists that this rebuild has marked, when it has replaced no item. A list that was marked
    /// before stays so: an earlier rebuild may have left it empty.
    pub async fn unmark_rebuilding(
        &self,
        marked: &BTreeSet<ListKey>,
        deadline: &CancellationToken,
    ) -> Result<(), AwsError> {
        let marked: Vec<&ListKey> = marked.iter().collect();
        let change = |_: &ListKey, list: &TopList| Ok(list.rebuilding.then(|| list.completed()));
        self.change_lists(&marked, &change, deadline).await?;
        Ok(())
    }

    /// Empties lists in a new epoch, after all their items were replaced.
    pub async fn restart(
        &self,
        lists: &BTreeSet<ListKey>,
        now_ms: u64,
        deadline: &CancellationToken,
    ) -> Result<Restarted, AwsError> {
        let lists: Vec<ListKey> = lists.iter().cloned().collect();
        let change = |_: &ListKey, list: &TopList| Ok(Some(list.restarted(now_ms)));
        let refused = self.change_lists(&lists.iter().collect::<Vec<_>>(), &change, deadline).await?.refused;
        let epochs = retry_until(deadline, async || self.epochs(&lists).await).await?;
        Ok(Restarted { epochs, refused })
    }

    /// Reads items and offers them to restarted lists. May be repeated.
    pub async fn refill(
        &self,
        restarted: &mut Restarted,
        keys: &[Key],
        deadline: &CancellationToken,
    ) -> Result<(), AwsError> {
        let lists: Vec<ListKey> = restarted.epochs.keys().cloned().collect();
        loop {
            // Those of another rebuild's, where one has emptied the lists meanwhile.
            let epochs = retry_until(deadline, async || self.epochs(&lists).await).await?;
            let (mut offers, mut offered) = (Offers::default(), Offered::default());
            let mut groups = futures::stream::iter(keys.chunks(READ_ITEMS))
                .map(async |group| {
                    let keys: Vec<&Key> = group.iter().collect();
                    retry_until(deadline, async || self.read(&keys).await).await
                })
                .buffer_unordered(CONCURRENT_GROUPS);
            while let Some(items) = groups.try_next().await? {
                for (key, item) in items {
                    // An item that somebody else wrote is reported where it is written.
                    let Ok(stored) = self.parse(&key, Some(item)) else { continue };
                    offers.add(self.report(&key), &key, &stored, |list| epochs.contains_key(list));
                }
                if offers.entries() > LARGE_ENTRIES {
                    offered.add(self.offer_entries(0, std::mem::take(&mut offers), &epochs, deadline).await?);
                }
            }
            offered.add(self.offer_entries(0, offers, &epochs, deadline).await?);
            if !offered.is_stale {
                restarted.refused.extend(offered.refused);
                return Ok(());
            }
        }
    }

    /// Ends a rebuild: takes the mark off the lists that took all offers. A list in a later epoch is another rebuild's
    /// to complete. Returns those refused.
    pub async fn complete_rebuilding(
        &self,
        Restarted { epochs, mut refused }: Restarted,
        deadline: &CancellationToken,
    ) -> Result<Vec<(ListKey, String)>, AwsError> {
        let took: Vec<&ListKey> =
            epochs.keys().filter(|list| refused.iter().all(|(refused, _)| refused != *list)).collect();
        let change = |key: &ListKey, list: &TopList| {
            let is_ours = list.rebuilding && epochs.get(key) == Some(&list.epoch);
            Ok(is_ours.then(|| list.completed()))
        };
        let completed = self.change_lists(&took, &change, deadline).await?;
        refused.extend(completed.refused);
        Ok(refused)
    }
}
