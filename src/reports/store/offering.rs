//! One pass over the items of a batch: the epochs of top lists that it has seen, and the offers that it makes.

use std::collections::HashMap;

use tokio::sync::Mutex;

use crate::aws::item::Item;
use crate::plan::reports::Report;
use crate::reports::figures::Key;
use crate::reports::item::{ReportItem, parse_item};
use crate::reports::top_lists::{ListKey, Offers};

/// Entries of offers, of some KB at the most, that are gathered before they are made.
const LARGE_ENTRIES: usize = 32 * 1024;

/// Epochs that were seen before items were read, and the offers made of those items.
#[derive(Debug, Default)]
pub struct Offering {
    epochs: Mutex<HashMap<ListKey, u64>>,
    offers: Mutex<Offers>,
}

impl Offering {
    /// Returns those of the lists whose epochs were not seen.
    pub(super) async fn unseen(&self, lists: impl IntoIterator<Item = ListKey>) -> Vec<ListKey> {
        let epochs = self.epochs.lock().await;
        lists.into_iter().filter(|list| !epochs.contains_key(list)).collect()
    }

    /// Returns the lists that an item belongs to and whose epochs were not seen.
    pub(super) async fn unseen_of(&self, report: &Report, key: &Key, item: &Item) -> Vec<ListKey> {
        let Ok(stored) = parse_item(report, item) else { return Vec::new() };
        self.unseen(ListKey::of_item(report, key.period, &stored.labels)).await
    }

    /// Keeps the first epoch of each list: items were read after that.
    pub(super) async fn learn(&self, epochs: HashMap<ListKey, u64>) {
        let mut known = self.epochs.lock().await;
        for (list, epoch) in epochs {
            known.entry(list).or_insert(epoch);
        }
    }

    /// Offers an item to those of its lists whose epochs were seen before it was read.
    pub(super) async fn offer(&self, report: &Report, key: &Key, stored: &ReportItem) {
        if stored.version > 0 {
            let epochs = self.epochs.lock().await;
            self.offers.lock().await.add(report, key, stored, |list| epochs.contains_key(list));
        }
    }

    /// Returns true if the offers should be made before more items come.
    pub async fn is_large(&self) -> bool {
        self.offers.lock().await.entries() > LARGE_ENTRIES
    }

    /// Takes the offers, with the epochs in which they count.
    pub(super) async fn take(&self) -> (HashMap<ListKey, u64>, Offers) {
        let epochs = self.epochs.lock().await.clone();
        (epochs, std::mem::take(&mut *self.offers.lock().await))
    }
}
