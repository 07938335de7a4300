//! The comparison of report items and listings with the sums of a day's curated rows.

use std::collections::{BTreeSet, HashSet};
use std::pin::pin;

use futures::StreamExt;

use crate::aws::item::Item;
use crate::calendar::date_text;
use crate::protocol::BatchNumber;
use crate::reports::figures::{Key, MAX_GENRES, Report};
use crate::reports::item::{PublishedFigures, applied_of, is_empty, parse_key};
use crate::reports::store::READ_ITEMS;

use super::expected::{Expected, Partition};
use super::{Auditor, VerifyError};

/// A comparison of the items and listings of a day with its curated rows.
pub(super) struct Comparison<'a> {
    pub(super) auditor: &'a mut Auditor,
    pub(super) day: i32,
    pub(super) through: BatchNumber,
    pub(super) partition: Partition,
    pub(super) expected: Expected,
    /// Items that the index does not show as expected, with the expected figures.
    pub(super) suspects: Vec<(Key, Option<PublishedFigures>)>,
    /// Items that changed in the meantime.
    pub(super) changing: &'a mut HashSet<Key>,
}

/// A listing that differs from the expected one.
struct SuspectListing {
    genre: String,
    track: Key,
    expected: Option<PublishedFigures>,
    found: Option<PublishedFigures>,
}

impl Comparison<'_> {
    pub(super) async fn run(mut self) -> Result<(), VerifyError> {
        let mut genres: BTreeSet<String> =
            self.expected.tracks.values().flat_map(|track| track.genres.iter().cloned()).collect();
        match self.partition.clone() {
            Partition::Only(keys) => {
                for key in keys {
                    let expected = self.expected.see(&key);
                    self.suspect(key, expected).await?;
                }
            }
            Partition::Part { .. } => {
                for report in Report::ALL {
                    self.compare_items(report, &mut genres).await?;
                }
            }
        }
        self.check_suspects().await?;
        self.compare_listings(&genres).await
    }

    async fn compare_items(&mut self, report: Report, genres: &mut BTreeSet<String>) -> Result<(), VerifyError> {
        let reports = self.auditor.reports.clone();
        let mut items = pin!(reports.day(report, self.day));
        while let Some(item) = items.next().await.transpose()? {
            let Some(key) = parse_key(report, &item).filter(|key| self.partition.has(report, &key.id, key.day)) else {
                continue;
            };
            if report == Report::Genre {
                genres.insert(key.id.clone());
            }
            let expected = self.expected.see(&key);
            if expected.is_some() && PublishedFigures::read(report, &item) == expected {
                self.auditor.findings.items += 1;
            } else {
                self.suspect(key, expected).await?;
            }
        }
        for key in self.expected.unseen(report, self.day) {
            let expected = self.expected.see(&key);
            self.suspect(key, expected).await?;
        }
        Ok(())
    }

    async fn suspect(&mut self, key: Key, expected: Option<PublishedFigures>) -> Result<(), VerifyError> {
        self.suspects.push((key, expected));
        if self.suspects.len() >= READ_ITEMS { self.check_suspects().await } else { Ok(()) }
    }

    /// Compares suspects with the table itself, since an index lags behind.
    async fn check_suspects(&mut self) -> Result<(), VerifyError> {
        let suspects = std::mem::take(&mut self.suspects);
        let items = self.auditor.reports.read(&suspects.iter().map(|(key, _)| key).collect::<Vec<_>>()).await?;
        for (key, expected) in &suspects {
            let item = items.get(key).filter(|item| !is_empty(item));
            let found = item.and_then(|item| PublishedFigures::read(key.report, item));
            if item.is_some() == expected.is_some() && found == *expected {
                self.auditor.findings.items += u64::from(item.is_some());
            } else if self.has_changed(item) {
                self.changing.insert(key.clone());
            } else {
                let about =
                    format!("{} of {} in {}", key.id, date_text(key.day), self.auditor.reports.table(key.report));
                let found = match item {
                    Some(_) => found
                        .map_or("an item in a form that this program does not write".to_owned(), |it| it.to_string()),
                    None => "no item".to_owned(),
                };
                self.auditor.findings.difference(about, shown(*expected, "no item"), found);
            }
        }
        Ok(())
    }

    /// Returns true if an item has a batch that was not finished when the curated files were listed.
    fn has_changed(&self, item: Option<&Item>) -> bool {
        item.and_then(applied_of).is_some_and(|applied| applied.newest() > self.through)
    }

    async fn compare_listings(&mut self, genres: &BTreeSet<String>) -> Result<(), VerifyError> {
        let reports = self.auditor.reports.clone();
        let mut suspects = Vec::new();
        for genre in genres {
            let mut listings = pin!(reports.listings(genre, self.day));
            while let Some(item) = listings.next().await.transpose()? {
                let Some(key) =
                    parse_key(Report::Track, &item).filter(|key| self.partition.has(key.report, &key.id, key.day))
                else {
                    continue;
                };
                let expected = self.expected.tracks.get_mut(&key.id);
                let expected = expected.and_then(|track| track.genres.remove(genre).then_some(track));
                let expected = expected.map(|track| PublishedFigures::of(Report::Track, &track.figures));
                if expected.is_none() && is_empty(&item) {
                    continue;
                }
                let found = PublishedFigures::read(Report::Track, &item);
                if expected.is_some() && expected == found {
                    self.auditor.findings.listings += 1;
                } else {
                    suspects.push(SuspectListing { genre: genre.clone(), track: key, expected, found });
                }
            }
            self.check_suspect_listings(&mut suspects).await?;
        }
        for (id, track) in self.expected.tracks.iter().filter(|(_, track)| track.all_genres <= MAX_GENRES) {
            let key = Key { report: Report::Track, id: id.clone(), day: self.day };
            let expected = Some(PublishedFigures::of(Report::Track, &track.figures));
            suspects.extend(track.genres.iter().map(|genre| SuspectListing {
                genre: genre.clone(),
                track: key.clone(),
                expected,
                found: None,
            }));
        }
        self.check_suspect_listings(&mut suspects).await
    }

    async fn check_suspect_listings(&mut self, suspects: &mut Vec<SuspectListing>) -> Result<(), VerifyError> {
        let suspects = std::mem::take(suspects);
        for group in suspects.chunks(READ_ITEMS) {
            // A track may be suspected under several genres, but a read may have each key only once.
            let keys: HashSet<&Key> = group.iter().map(|suspect| &suspect.track).collect();
            let items = self.auditor.reports.read(&keys.into_iter().collect::<Vec<_>>()).await?;
            for SuspectListing { genre, track, expected, found } in group {
                if self.has_changed(items.get(track)) {
                    self.changing.insert(track.clone());
                    continue;
                }
                let (table, date) = (self.auditor.reports.listings_table(), date_text(track.day));
                let about = format!("{} under {genre} of {date} in {table}", track.id);
                let (expected, found) = (shown(*expected, "no listing"), shown(*found, "no listing"));
                self.auditor.findings.difference(about, expected, found);
            }
        }
        Ok(())
    }
}

fn shown(visible: Option<PublishedFigures>, none: &str) -> String {
    visible.map_or(none.to_owned(), |visible| visible.to_string())
}
