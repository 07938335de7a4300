//! What one pass over the items of a batch has seen of top lists: their epochs, and the offers made since.

use std::collections::HashMap;

use tokio::sync::Mutex;

use crate::aws::item::Item;
use crate::reports::figures::Key;
use crate::reports::item::{ReportItem, parse_item};
use crate::reports::top_lists::{ListKey, Offers};

/// Epochs that were seen before items were read, and the offers made of those items.
#[derive(Debug, Default)]
pub(super) struct Seen {
    epochs: Mutex<HashMap<ListKey, u64>>,
    offers: Mutex<Offers>,
}

impl Seen {
    /// The lists that an item belongs to and whose epochs were not seen before it was read.
    pub(super) async fn unseen(&self, key: &Key, item: &Item) -> Vec<ListKey> {
        let Ok(stored) = parse_item(key.report, item) else { return Vec::new() };
        let epochs = self.epochs.lock().await;
        let lists = ListKey::of_item(key, &stored.attributes.genres);
        lists.into_iter().filter(|list| !epochs.contains_key(list)).collect()
    }

    /// Keeps the first epoch of each list: items were read after that.
    pub(super) async fn learn(&self, epochs: HashMap<ListKey, u64>) {
        let mut known = self.epochs.lock().await;
        for (list, epoch) in epochs {
            known.entry(list).or_insert(epoch);
        }
    }

    /// Offers an item to those of its lists whose epochs were seen before it was read.
    pub(super) async fn offer(&self, key: &Key, stored: &ReportItem) {
        if stored.version > 0 {
            let epochs = self.epochs.lock().await;
            self.offers.lock().await.add(key, stored, |list| epochs.contains_key(list));
        }
    }

    /// Returns the epochs and the offers.
    pub(super) fn into_inner(self) -> (HashMap<ListKey, u64>, Offers) {
        (self.epochs.into_inner(), self.offers.into_inner())
    }
}
