//! The comparison of top lists with a day's curated rows: each list must be what sorting all expected items gives.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::calendar::date_text;
use crate::protocol::BatchNumber;
use crate::reports::figures::{Figures, Key, MAX_GENRES, Report};
use crate::reports::item::PublishedFigures;
use crate::reports::store::READ_ITEMS;
use crate::reports::top_lists::{ListKey, MAX_ENTRIES, TopList};

use super::expected::Expected;
use super::reports::has_changed;
use super::{Auditor, VerifyError};

/// Lists that are read at a time.
const LISTS_AT_A_TIME: usize = 25;

/// The id and the figures of an entry.
type Shown = (String, PublishedFigures);

/// The best items of a day for each list, gathered from one partition of the items after another.
#[derive(Debug, Default)]
pub(super) struct ExpectedLists {
    lists: BTreeMap<ListKey, Vec<Shown>>,
    /// Tracks with more genres than an item keeps: the order of batches decides which lists they are in.
    many_genres: HashSet<String>,
}

impl ExpectedLists {
    /// Adds the items of a partition.
    pub(super) fn add(&mut self, expected: &Expected, day: i32) {
        for (id, track) in &expected.tracks {
            self.offer(ListKey::of_report(Report::Track, day), id, &track.figures);
            if track.genres.len() > MAX_GENRES {
                self.many_genres.insert(id.clone());
            }
            for genre in &track.genres {
                self.offer(ListKey::of_genre(genre, day), id, &track.figures);
            }
        }
        for (id, figures) in &expected.genres {
            self.offer(ListKey::of_report(Report::Genre, day), id, figures);
        }
        for (id, figures) in &expected.listeners {
            self.offer(ListKey::of_report(Report::Listener, day), &id.to_string(), figures);
        }
    }

    fn offer(&mut self, list: ListKey, id: &str, figures: &Figures) {
        let figures = PublishedFigures::of(list.report(), figures);
        let entries = self.lists.entry(list).or_default();
        entries.push((id.to_owned(), figures));
        if entries.len() >= 2 * MAX_ENTRIES {
            keep_best(entries);
        }
    }
}

/// Sorts by listens, most first, then by id, and cuts the list at its length.
fn keep_best(entries: &mut Vec<Shown>) {
    entries.sort_by(|(one_id, one), (other_id, other)| other.listens.cmp(&one.listens).then(one_id.cmp(other_id)));
    entries.truncate(MAX_ENTRIES);
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
                let mut entries = expected.lists.remove(&key).unwrap_or_default();
                keep_best(&mut entries);
                match list {
                    Err(foreign) => self.findings.difference(name_of(&key), "a top list", foreign),
                    Ok(list) => self.compare_list(&key, &entries, &list, &expected.many_genres, through).await?,
                }
            }
        }
        Ok(())
    }

    async fn compare_list(
        &mut self,
        key: &ListKey,
        expected: &[Shown],
        list: &TopList,
        many_genres: &HashSet<String>,
        through: BatchNumber,
    ) -> Result<(), VerifyError> {
        let found: Vec<(String, Option<PublishedFigures>)> = list
            .entries
            .iter()
            .map(|entry| (entry.id.clone(), PublishedFigures::read(key.report(), &entry.attributes(key.report()))))
            .collect();
        let place = (0..expected.len().max(found.len())).find(|&place| {
            let expected = expected.get(place).map(|(id, figures)| (id, Some(*figures)));
            expected != found.get(place).map(|(id, figures)| (id, *figures))
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
        let is_of_genre = *key != ListKey::of_report(key.report(), key.day);
        if is_of_genre && ids.iter().any(|id| many_genres.contains(*id)) {
            self.findings.note(format!("{} has tracks of very many genres and was not judged", name_of(key)));
            return Ok(());
        }
        let keys: Vec<Key> =
            ids.into_iter().map(|id| Key { report: key.report(), id: id.clone(), day: key.day }).collect();
        for group in keys.chunks(READ_ITEMS) {
            let items = self.reports.read(&group.iter().collect::<Vec<_>>()).await?;
            if items.values().any(|item| has_changed(Some(item), through)) {
                self.findings.note(format!("{} kept changing and was not judged; verify again later", name_of(key)));
                return Ok(());
            }
        }
        let shown = |entry: Option<(&String, Option<PublishedFigures>)>| match entry {
            Some((id, Some(figures))) => format!("{id}: {figures}"),
            Some((id, None)) => format!("{id}, in a form that this program does not write"),
            None => "the end of the list".to_owned(),
        };
        self.findings.difference(
            format!("place {} of {}", place + 1, name_of(key)),
            shown(expected.get(place).map(|(id, figures)| (id, Some(*figures)))),
            shown(found.get(place).map(|(id, figures)| (id, *figures))),
        );
        Ok(())
    }
}

fn name_of(key: &ListKey) -> String {
    format!("the top list {} of {}", key.list, date_text(key.day))
}
