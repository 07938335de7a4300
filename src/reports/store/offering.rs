//! One pass over the items of a batch: the epochs of top lists that it has seen, and the offers that it makes.

use std::collections::HashMap;

use tokio::sync::Mutex;

use crate::aws::item::Item;
use crate::reports::figures::Key;
use crate::reports::item::{ReportItem, parse_item};
use crate::reports::top_lists::{ListKey, Offers};

/// Entries of offers, of some KB at the most, that are gathered before they are made.
pub(super) const LARGE_ENTRIES: usize = 32 * 1024;

/// Epochs that were seen before items were read, and the offers made of those items.
#[derive(Debug, Default)]
pub struct Offering {
    seen: Mutex<Seen>,
    offers: Mutex<Offers>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The moment at which epochs were last added.
    now: Moment,
    /// The first epoch that was seen of each list, with its moment.
    epochs: HashMap<ListKey, (u64, Moment)>,
}

/// A moment of an offering. Several groups of items are read at a time: a list's epoch that one group has seen counts
/// for the items of another group only if these were read afterwards.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

impl Offering {
    /// Returns the moment, to be noted before items are read.
    pub(super) async fn now(&self) -> Moment {
        self.seen.lock().await.now
    }

    /// Returns those of the lists whose epochs had not been seen at a moment.
    pub(super) async fn unseen(&self, lists: impl IntoIterator<Item = ListKey>, at: Moment) -> Vec<ListKey> {
        let seen = self.seen.lock().await;
        let is_seen = |list: &ListKey| seen.epochs.get(list).is_some_and(|&(_, since)| since <= at);
        lists.into_iter().filter(|list| !is_seen(list)).collect()
    }

    /// Returns the lists that an item belongs to and whose epochs had not been seen before it was read.
    pub(super) async fn unseen_of(&self, key: &Key, item: &Item, read_after: Moment) -> Vec<ListKey> {
        let Ok(stored) = parse_item(key.report, item) else { return Vec::new() };
        self.unseen(ListKey::of_item(key, &stored.attributes.genres), read_after).await
    }

    /// Keeps the first epoch of each list: items were read after that.
    pub(super) async fn learn(&self, epochs: HashMap<ListKey, u64>) {
        let mut seen = self.seen.lock().await;
        seen.now = Moment(seen.now.0 + 1);
        let now = seen.now;
        for (list, epoch) in epochs {
            seen.epochs.entry(list).or_insert((epoch, now));
        }
    }

    /// Offers an item to those of its lists whose epochs were seen before it was read.
    pub(super) async fn offer(&self, key: &Key, stored: &ReportItem) {
        if stored.version > 0 {
            let seen = self.seen.lock().await;
            self.offers.lock().await.add(key, stored, |list| seen.epochs.contains_key(list));
        }
    }

    /// Returns true if the offers should be made before more items come.
    pub async fn is_large(&self) -> bool {
        self.offers.lock().await.entries() > LARGE_ENTRIES
    }

    /// Takes the offers, with the epochs in which they count.
    pub(super) async fn take(&self) -> (HashMap<ListKey, u64>, Offers) {
        let seen = self.seen.lock().await;
        let epochs = seen.epochs.iter().map(|(list, &(epoch, _))| (list.clone(), epoch)).collect();
        (epochs, std::mem::take(&mut *self.offers.lock().await))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reports::figures::Report;

    /// Of two groups, one reads its items, and then the other one sees the epoch of a list.
    #[tokio::test]
    async fn an_epoch_that_was_seen_after_an_item_was_read_does_not_count_for_it() {
        let (offering, list) = (Offering::default(), ListKey::of_report(Report::Genre, 1));
        let before_the_read = offering.now().await;
        offering.learn(HashMap::from([(list.clone(), 7)])).await;
        assert_eq!(offering.unseen([list.clone()], before_the_read).await, std::slice::from_ref(&list));
        let before_the_next_read = offering.now().await;
        offering.learn(HashMap::from([(list.clone(), 8)])).await;
        assert!(offering.unseen([list.clone()], before_the_next_read).await.is_empty());
        assert_eq!(offering.take().await.0, HashMap::from([(list, 7)]), "the first epoch that was seen");
    }
}
