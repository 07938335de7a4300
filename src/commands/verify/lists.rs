//! The comparison of top lists with a day's curated rows: each list must be what sorting all expected items gives.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::definition::reports::{Report, Top};
use crate::plan::Plan;
use crate::protocol::BatchNumber;
use crate::reports::figures::{Key, MAX_VALUES};
use crate::reports::store::READ_ITEMS;
use crate::reports::top_lists::{ListKey, TopList};

use super::expected::{Expected, Published};
use super::reports::{has_changed, published_of, shown};
use super::{Auditor, VerifyError};

/// Lists that are read at a time.
const LISTS_AT_A_TIME: usize = 25;

/// An entry: its id, the figure by which the list is ordered, and all figures.
#[derive(Debug)]
struct Listed {
    id: String,
    rank: i128,
    published: Published,
}

/// The best items of a day for each list, gathered from one partition of the items after another.
#[derive(Debug, Default)]
pub(super) struct ExpectedLists {
    lists: BTreeMap<ListKey, Vec<Listed>>,
    /// Items with more texts in a label than are kept: the order of batches decides which lists they are in.
    of_many: HashSet<Key>,
}

impl ExpectedLists {
    /// Adds the items of a partition.
    pub(super) fn add(&mut self, expected: &Expected<'_>, plan: &Plan) {
        let definition = &plan.definition;
        for (index, report) in definition.reports.iter().enumerate() {
            let Some(top) = &report.top else { continue };
            for (period, id, item) in expected.items(index) {
                let Some(rank) = item.rank(report) else { continue };
                let of_all = ListKey { list: report.name.clone(), period };
                let texts = top.under.iter().zip(&item.under);
                let under = texts.flat_map(|(name, texts)| {
                    texts.iter().map(move |text| ListKey { list: format!("{}#{name}#{text}", report.name), period })
                });
                for list in std::iter::once(of_all).chain(under) {
                    let published = item.published(definition, report);
                    let entries = self.lists.entry(list).or_default();
                    entries.push(Listed { id: id.clone(), rank, published });
                    if entries.len() >= 2 * top.keep {
                        keep_best(entries, top);
                    }
                }
                if item.under.iter().any(|texts| texts.len() > MAX_VALUES) {
                    self.of_many.insert(Key { report: index, id: id.clone(), period });
                }
            }
        }
    }
}

/// Sorts by the figure, greatest first, then by id, and cuts the list at its length.
fn keep_best(entries: &mut Vec<Listed>, top: &Top) {
    entries.sort_by(|one, other| (Reverse(one.rank), &one.id).cmp(&(Reverse(other.rank), &other.id)));
    entries.truncate(top.keep);
}

impl Auditor {
    /// Compares the top lists of a day with the expected ones. `through` is the batch up to which the curated files
    /// have all rows.
    pub(super) async fn verify_lists(
        &mut self,
        day: i32,
        mut expected: ExpectedLists,
        through: BatchNumber,
    ) -> Result<(), VerifyError> {
        if self.scan {
            for list in self.reports.lists_of_day(day).await? {
                expected.lists.entry(list).or_default();
            }
        }
        let keys: Vec<ListKey> = expected.lists.keys().cloned().collect();
        for group in keys.chunks(LISTS_AT_A_TIME) {
            for (key, list) in self.reports.lists(group).await? {
                let entries = expected.lists.remove(&key).unwrap_or_default();
                match list {
                    Err(foreign) => self.findings.difference(name_of(&key), "a top list", foreign),
                    Ok(list) => self.compare_list(&key, entries, &list, &expected.of_many, through).await?,
                }
            }
        }
        Ok(())
    }

    async fn compare_list(
        &mut self,
        key: &ListKey,
        mut expected: Vec<Listed>,
        list: &TopList,
        of_many: &HashSet<Key>,
        through: BatchNumber,
    ) -> Result<(), VerifyError> {
        // The list was read by its report.
        let Some(index) = key.report(&self.plan) else { return Ok(()) };
        let report = &self.plan.definition.reports[index];
        if let Some(top) = &report.top {
            keep_best(&mut expected, top);
        }
        let expected: Vec<(String, Published)> = expected.into_iter().map(|it| (it.id, it.published)).collect();
        let of_plan = &self.plan.reports[index];
        let found =
            list.entries.iter().map(|entry| (entry.id.clone(), published_of(report, &entry.attributes(of_plan))));
        let found: Vec<(String, Published)> = found.collect();
        let place = (0..expected.len().max(found.len())).find(|&place| {
            let (expected, found) = (expected.get(place), found.get(place));
            expected.map(|(id, _)| id) != found.map(|(id, _)| id)
                || !self.agree(expected.map(|(_, shown)| shown), found.map(|(_, shown)| shown))
        });
        let Some(place) = place else {
            self.findings.top_lists += u64::from(!expected.is_empty());
            return Ok(());
        };
        if list.rebuilding {
            let found = "lacks entries since a rebuild that did not end; unless one is at work now, repeat it";
            self.findings.difference(name_of(key), "a complete list", found.to_owned());
            return Ok(());
        }
        let ids: BTreeSet<&String> = expected.iter().map(|(id, _)| id).chain(found.iter().map(|(id, _)| id)).collect();
        let keys: Vec<Key> =
            ids.into_iter().map(|id| Key { report: index, id: id.clone(), period: key.period }).collect();
        if key.list != report.name && keys.iter().any(|key| of_many.contains(key)) {
            self.findings.note(format!("{} has items in very many lists and was not judged", name_of(key)));
            return Ok(());
        }
        for group in keys.chunks(READ_ITEMS) {
            let items = self.reports.read(&group.iter().collect::<Vec<_>>()).await?;
            if items.values().any(|item| has_changed(Some(item), through)) {
                self.findings.note(format!("{} kept changing and was not judged; verify again later", name_of(key)));
                return Ok(());
            }
        }
        self.findings.difference(
            format!("place {} of {}", place + 1, name_of(key)),
            entry_text(report, expected.into_iter().nth(place)),
            entry_text(report, found.into_iter().nth(place)),
        );
        Ok(())
    }
}

fn entry_text(report: &Report, entry: Option<(String, Published)>) -> String {
    match entry {
        Some((id, published)) => format!("{id}: {}", shown(report, Some(published))),
        None => "the end of the list".to_owned(),
    }
}

fn name_of(key: &ListKey) -> String {
    format!("the top list {} of {}", key.list, key.period)
}
