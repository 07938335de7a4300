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
use crate::aws::item::{Item, number, text};
use crate::aws::retry::{Backoff, retry_until};
use crate::plan::period::Period;
use crate::protocol::BatchNumber;
use crate::reports::figures::Key;
use crate::reports::statements::{Expected, ItemWrite, Written};
use crate::reports::store::change::{beginning, contended};
use crate::reports::store::{Offering, READ_ITEMS, Reports};
use crate::reports::top_lists::{Entry, ListKey, Offers, PERIOD_ATTRIBUTE, TOP_LISTS_TABLE, TopList};
use crate::telemetry::metrics::{label, metrics};

/// Lists that are read, changed and written together.
const GROUP: usize = 25;
/// Groups at a time.
const CONCURRENT_GROUPS: usize = 4;

/// The outcome of offers.
#[derive(Debug, Default)]
pub struct Offered {
    /// A list is in another epoch than was seen: the items must be read and offered again.
    pub is_stale: bool,
    /// Lists that cannot be written, each with the reason.
    pub refused: Vec<(ListKey, String)>,
}

impl Reports {
    /// The full name of the table of top lists.
    pub fn lists_table(&self) -> String {
        self.prefixed(TOP_LISTS_TABLE)
    }

    /// Reads the epochs of lists; 0 for a list that is not there yet.
    pub(super) async fn epochs(&self, lists: &[ListKey]) -> Result<HashMap<ListKey, u64>, AwsError> {
        let mut epochs: HashMap<ListKey, u64> = lists.iter().map(|list| (list.clone(), 0)).collect();
        for group in lists.chunks(READ_ITEMS) {
            for item in self.read_list_items(group, true).await? {
                if let (Some(list), Some(epoch)) = (ListKey::parse(&item), number(&item, "epoch")) {
                    epochs.insert(list, epoch);
                }
            }
        }
        Ok(epochs)
    }

    async fn read_list_items(&self, lists: &[ListKey], only_epochs: bool) -> Result<Vec<Item>, AwsError> {
        let table = self.lists_table();
        let mut keys = KeysAndAttributes::builder()
            .set_keys(Some(lists.iter().map(ListKey::item).collect()))
            .consistent_read(true);
        if only_epochs {
            keys = keys
                .projection_expression("#list, #period, epoch")
                .expression_attribute_names("#list", "list")
                .expression_attribute_names("#period", PERIOD_ATTRIBUTE);
        }
        let request = keys.build().ok().map(|keys| (table.clone(), keys)).into_iter().collect();
        Ok(self.read_all(request, &table).await?.into_iter().map(|(_, item)| item).collect())
    }

    /// Reads lists; one that is not there is empty. The error of a list tells that somebody else wrote it.
    pub async fn lists(&self, lists: &[ListKey]) -> Result<BTreeMap<ListKey, Result<TopList, String>>, AwsError> {
        let mut found: BTreeMap<ListKey, Result<TopList, String>> =
            lists.iter().map(|list| (list.clone(), Ok(TopList::default()))).collect();
        for item in self.read_list_items(lists, false).await? {
            let Some(key) = ListKey::parse(&item) else { continue };
            let report = key.report(&self.plan).map(|report| &self.plan.reports[report]);
            let parsed = report.and_then(|report| TopList::parse(report, &item)).ok_or_else(|| {
                let (table, period) = (self.lists_table(), key.period);
                format!("the list {} of {period} in {table} is not what this program writes; delete it", key.list)
            });
            found.insert(key, parsed);
        }
        Ok(found)
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
        for Offered { is_stale, refused } in groups {
            all.is_stale |= is_stale;
            all.refused.extend(refused);
        }
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
                    Ok((version, Ok(Some(next)))) => {
                        writes.push(self.list_write(&key, &next, version));
                        changed.push(key);
                    }
                }
            }
            open.clear();
            for (key, written) in changed.into_iter().zip(self.write(writes, deadline).await?) {
                match written {
                    Ok(Written::Yes) => metrics().report_items.add(1, &label("report", "top_list")),
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

    fn list_write(&self, key: &ListKey, next: &TopList, version: u64) -> ItemWrite {
        let expected = if version == 0 { Expected::Absent } else { Expected::Version(version) };
        let (table, key, attributes) = (self.lists_table(), key.item(), next.attributes());
        ItemWrite { table, key, attributes, removed: Vec::new(), expected }
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
            let offering = Offering::default();
            for group in keys.chunks(READ_ITEMS) {
                let items = self.read_seen(&group.iter().collect::<Vec<_>>(), Some(&offering), deadline).await?;
                for (key, item) in items {
                    // An item that somebody else wrote is reported where it is written.
                    if let Ok(stored) = self.parse(&key, Some(item)) {
                        offering.offer(self.report(&key), &key, &stored).await;
                    }
                }
            }
            let offered = self.offer(0, &offering, deadline).await?;
            if !offered.is_stale {
                return Ok(offered);
            }
        }
    }

    /// Begins a rebuild: marks lists as being rebuilt, before any of their items is replaced. Returns those refused.
    pub async fn mark_rebuilding(
        &self,
        lists: &BTreeSet<ListKey>,
        deadline: &CancellationToken,
    ) -> Result<Vec<(ListKey, String)>, AwsError> {
        let lists: Vec<&ListKey> = lists.iter().collect();
        let change = |_: &ListKey, list: &TopList| Ok((!list.rebuilding).then(|| list.marked()));
        Ok(self.change_lists(&lists, &change, deadline).await?.refused)
    }

    /// Takes the mark off lists when no item was replaced. Returns those refused.
    pub async fn unmark_rebuilding(
        &self,
        lists: &BTreeSet<ListKey>,
        deadline: &CancellationToken,
    ) -> Result<Vec<(ListKey, String)>, AwsError> {
        let lists: Vec<&ListKey> = lists.iter().collect();
        let change = |_: &ListKey, list: &TopList| Ok(list.rebuilding.then(|| list.completed()));
        Ok(self.change_lists(&lists, &change, deadline).await?.refused)
    }

    /// Empties lists in a new epoch, after all their items were replaced. Returns those refused.
    pub async fn restart(
        &self,
        lists: &BTreeSet<ListKey>,
        now_ms: u64,
        deadline: &CancellationToken,
    ) -> Result<Vec<(ListKey, String)>, AwsError> {
        let lists: Vec<&ListKey> = lists.iter().collect();
        let change = |_: &ListKey, list: &TopList| Ok(Some(list.restarted(now_ms)));
        Ok(self.change_lists(&lists, &change, deadline).await?.refused)
    }

    /// Ends a rebuild: reads all items of a day, offers them to the restarted lists, and takes the mark off those lists
    /// that took the offers. Returns those refused. May be repeated.
    pub async fn refill(
        &self,
        lists: &BTreeSet<ListKey>,
        keys: &[Key],
        deadline: &CancellationToken,
    ) -> Result<Vec<(ListKey, String)>, AwsError> {
        let lists: Vec<ListKey> = lists.iter().cloned().collect();
        loop {
            let epochs = retry_until(deadline, async || self.epochs(&lists).await).await?;
            let mut offers = Offers::default();
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
            }
            let Offered { is_stale, mut refused } = self.offer_entries(0, offers, &epochs, deadline).await?;
            if is_stale {
                continue;
            }
            // A list in a later epoch is another rebuild's to complete.
            let took: Vec<&ListKey> =
                lists.iter().filter(|list| refused.iter().all(|(refused, _)| refused != *list)).collect();
            let change = |key: &ListKey, list: &TopList| {
                let is_ours = list.rebuilding && epochs.get(key) == Some(&list.epoch);
                Ok(is_ours.then(|| list.completed()))
            };
            refused.extend(self.change_lists(&took, &change, deadline).await?.refused);
            return Ok(refused);
        }
    }
}
