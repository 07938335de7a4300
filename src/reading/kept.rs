//! What was read and still holds: items and lists, each with the mark of its day, bounded in bytes.

use std::sync::Arc;
use std::time::Duration;

use moka::future::Cache;

use crate::plan::reports::Report;
use crate::reports::figures::Key;
use crate::reports::item::ReportItem;
use crate::reports::top_lists::{ListKey, TopList};

/// Bytes of a piece beside its figures: keys, labels and the cache's own.
const PIECE_BYTES: usize = 400;
/// Bytes of an entry of a list: its attributes by name.
const ENTRY_BYTES: usize = 700;

/// The key of a piece.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PieceKey {
    /// A report item.
    Item(Key),
    /// A top list.
    List(ListKey),
}

/// A piece of an answer.
#[derive(Debug, Clone)]
pub enum Piece {
    /// A report item; one that is not there has no rows.
    Item(Arc<ReportItem>),
    /// A top list.
    List(Arc<TopList>),
}

impl Piece {
    fn bytes(&self) -> usize {
        PIECE_BYTES
            + match self {
                Piece::Item(item) => item.figures.sketch_bytes() + 24 * item.figures.slots.len(),
                Piece::List(list) => ENTRY_BYTES * list.entries.len(),
            }
    }
}

/// The mark that a piece was read under: the day's version, or the number of the moment where days have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// The version of the day's item of all rows.
    Version(u64),
    /// The number of the moment.
    Moment(u64),
}

/// The pieces that were read.
#[derive(Debug, Clone)]
pub struct Kept(Cache<PieceKey, (Mark, Piece)>);

impl Kept {
    /// Keeps pieces of so many bytes, each for at most so long.
    pub fn new(bytes: u64, max_age: Duration) -> Self {
        let weigh = |_: &PieceKey, (_, piece): &(Mark, Piece)| u32::try_from(piece.bytes()).unwrap_or(u32::MAX);
        Kept(Cache::builder().weigher(weigh).max_capacity(bytes).time_to_live(max_age).build())
    }

    /// Returns a piece that was read under this mark.
    pub async fn get(&self, key: &PieceKey, mark: Mark) -> Option<Piece> {
        self.0.get(key).await.filter(|(of, _)| *of == mark).map(|(_, piece)| piece)
    }

    /// Keeps a piece.
    pub async fn put(&self, key: PieceKey, mark: Mark, piece: Piece) {
        self.0.insert(key, (mark, piece)).await;
    }

    /// Forgets everything, as the keys belong to another definition.
    pub fn clear(&self) {
        self.0.invalidate_all();
    }
}

/// An item that is not there.
pub fn no_item(report: &Report) -> ReportItem {
    let figures = crate::reports::figures::Figures::of_none(report);
    ReportItem { figures, ..ReportItem::default() }
}
