//! Compute: a batch's rows on every core, while more of them are being read.
//!
//! Three kinds of work share one thread per core, each of them bounded: blocks are parsed, several at a time, and come
//! back in order; row groups are encoded, several at a time; and the fold, which one task after the other owns, takes
//! the same rows. Reading, writing and waiting are the caller's part ([`crate::batch::prepare`]).
//!
//! | file | content |
//! |---|---|
//! | [`names`] | values and files as numbers, and back |
//! | [`rows`] | good rows by column, in codes, integers and times |
//! | [`fold`] | the sums of rows, for each report item |
//! | `items` | the items of a report and period, in arrays |
//! | `masks` | the rows that meet the conditions of measures |
//! | `pairs` | pairs of codes, sorted by radix |
//! | [`deltas`] | a batch's additions to report items, as delta files |
//! | [`curated`] | rows as curated files, and back |
//! | [`merge`] | rows of several curated files as one row group |

pub mod curated;
pub mod deltas;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod fold;
mod items;
mod masks;
pub mod merge;
pub mod names;
mod pairs;
pub mod rows;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::RecvError;

pub use crate::compute::fold::{Fold, FoldedItem};
pub use crate::compute::names::{Dictionary, Names};
pub use crate::compute::rows::Rows;

use crate::formats::parquet::{ParquetError, RowGroup};
use crate::input::block::Block;
use crate::input::parsed::Parsed;
use crate::memory::Memory;
use crate::process::tasks;

/// A failed computation.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// Encoding failed.
    #[error(transparent)]
    Parquet(#[from] ParquetError),
    /// The computation panicked.
    #[error("a computation panicked, which is a fault of this program; earlier log lines say where")]
    Crashed(#[from] RecvError),
}

/// Bytes of text in a row group's dictionaries. A row group with more is split, since encoding it takes about three
/// times as much memory.
const MAX_DICTIONARY_BYTES: usize = 16 << 20;
/// Bytes of a delta file before compression. Whoever writes or reads one has them in memory several times.
const MAX_DELTA_BYTES: usize = 8 << 20;

/// Returns the number of cores.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Computes apart from tokio's threads, and waits for the result.
pub async fn apart<T: Send + 'static>(compute: impl FnOnce() -> T + Send + 'static) -> Result<T, ComputeError> {
    Ok(spawn(compute).await?)
}

/// Computes on one of rayon's threads, of which there is one per core, so that tokio's threads stay free for everything
/// else.
fn spawn<T: Send + 'static>(compute: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
    let (sender, receiver) = oneshot::channel();
    rayon::spawn(move || {
        // A panic drops the sender, which the receiver sees. Left to rayon, it would end the process.
        if let Some(result) = tasks::contain(compute) {
            // The receiver is gone if the batch was abandoned.
            let _ = sender.send(result);
        }
    });
    receiver
}

/// Parses blocks on every core and returns their rows in order.
pub fn parse<E: From<ComputeError>>(
    blocks: impl Stream<Item = Result<Block, E>>,
    names: Names,
    memory: Memory,
) -> impl Stream<Item = Result<Parsed, E>> {
    let start = move |block: Block| {
        let names = names.clone();
        let parsing = spawn(move || block.parse_with(names.references(), names.learned()));
        async { parsing.await.map_err(|error| E::from(error.into())) }
    };
    blocks.map_ok(start).try_buffered(memory.blocks_ahead(cores()))
}

/// The part of the rows that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everything: a batch.
    Batch,
    /// One day's file and figures.
    Day(i32),
    /// One day's figures, and no file.
    FiguresOf(i32),
    /// All figures and the list of rejected rows, and no file: a trial.
    Figures,
}

impl Scope {
    fn has(self, day: i32) -> bool {
        match self {
            Scope::Batch | Scope::Figures => true,
            Scope::Day(only) | Scope::FiguresOf(only) => day == only,
        }
    }

    fn has_files(self) -> bool {
        matches!(self, Scope::Batch | Scope::Day(_))
    }

    /// Returns true if rejected rows are listed. Whoever repeats a batch has the list already.
    pub fn lists_rejects(self) -> bool {
        matches!(self, Scope::Batch | Scope::Figures)
    }
}

/// The size of the fold of all rows before the current ones.
#[derive(Debug, Clone, Copy)]
pub struct Folded {
    /// The number of report items.
    pub items: usize,
    /// The bytes of memory that they take.
    pub bytes: usize,
    /// The limit was exceeded; the fold lacks some rows then.
    pub is_too_large: bool,
}

/// Row groups of each day, while they are encoded and afterwards.
type Encoding = oneshot::Receiver<Result<Vec<(i32, RowGroup)>, ParquetError>>;

/// The fold and the encoding of a batch's rows.
#[derive(Debug)]
pub struct Compute {
    names: Names,
    scope: Scope,
    fold: oneshot::Receiver<Fold>,
    encoding: VecDeque<Encoding>,
}

impl Compute {
    /// Begins without rows.
    pub fn new(names: Names, scope: Scope) -> Self {
        let fold = spawn(Fold::default);
        Compute { names, scope, fold, encoding: VecDeque::new() }
    }

    /// Begins work on rows as soon as the fold has taken those before. The fold may take `limit_bytes` of memory.
    pub async fn start(&mut self, rows: Rows, limit_bytes: usize) -> Result<Folded, ComputeError> {
        let mut fold = (&mut self.fold).await?;
        let folded = Folded { items: fold.items(), bytes: fold.memory_bytes(), is_too_large: fold.is_too_large() };
        let names = self.names.clone();
        let scope = self.scope;
        let mut days = rows.by_day(&self.names.plan().zone);
        days.retain(|(day, _)| scope.has(*day));
        let days = Arc::new(days);
        let (of_fold, names_of_fold) = (Arc::clone(&days), names.clone());
        self.fold = spawn(move || {
            of_fold.iter().for_each(|(day, rows)| fold.add(*day, rows, &names_of_fold, limit_bytes));
            fold
        });
        if scope.has_files() {
            self.encoding.push_back(spawn(move || {
                let mut row_groups = Vec::with_capacity(days.len());
                for (day, rows) in days.iter() {
                    for rows in rows.in_parts(MAX_DICTIONARY_BYTES, &names) {
                        row_groups.push((*day, curated::encode_rows(&rows, &names)?));
                    }
                }
                Ok(row_groups)
            }));
        }
        Ok(folded)
    }

    /// Returns the row groups of the oldest rows if more than `at_most` are being encoded.
    pub async fn encoded(&mut self, at_most: usize) -> Result<Option<Vec<(i32, RowGroup)>>, ComputeError> {
        if self.encoding.len() <= at_most {
            return Ok(None);
        }
        match self.encoding.pop_front() {
            Some(oldest) => Ok(Some(oldest.await??)),
            None => Ok(None),
        }
    }

    /// Returns the fold of all rows. Call it once, after the last rows.
    pub async fn take_fold(&mut self) -> Result<Fold, ComputeError> {
        Ok((&mut self.fold).await?)
    }
}

/// Encodes a fold as delta files, several at a time. A file has at most `items_per_file` report items and about 8 MiB.
pub fn encode_deltas(
    fold: Fold,
    names: Names,
    items_per_file: usize,
    memory: Memory,
) -> impl Stream<Item = Result<Vec<u8>, ComputeError>> {
    let (mut items, names_of_groups) = (fold.into_items(names.plan()), names.clone());
    let groups = std::iter::from_fn(move || {
        let (mut group, mut bytes) = (Vec::new(), 0);
        while group.len() < items_per_file
            && bytes < MAX_DELTA_BYTES
            && let Some(item) = items.next()
        {
            bytes += deltas::row_bytes(&item, &names_of_groups);
            group.push(item);
        }
        (!group.is_empty()).then_some(group)
    });
    let start = move |group: Vec<FoldedItem>| {
        let names = names.clone();
        let encoding = spawn(move || deltas::encode(group, &names));
        async { Ok(encoding.await??) }
    };
    futures::stream::iter(groups).map(start).buffered(memory.delta_files_ahead(cores()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::fixtures::{Cell, Cells};
    use crate::plan::Plan;
    use crate::reference::References;
    use bytesize::ByteSize;

    /// 3,000 tracks of 2,000 listeners each, whose sketches take 16 KiB each: 48 MiB in one file if only items were
    /// counted.
    #[tokio::test]
    async fn delta_files_are_cut_by_bytes_too() {
        let plan = Plan::built_in().unwrap();
        let mut dictionary = Dictionary::of(Arc::clone(&plan), Arc::new(References::empty(&plan)));
        let mut fold = Fold::default();
        for track in 0..3000_u32 {
            let cells = (0..2000_i64).map(|user| vec![(1 + user).into(), Cell::Text(format!("t{track}")), 0.into()]);
            let rows = fixtures::rows(&mut dictionary, &cells.collect::<Vec<Cells>>());
            fold.add(19_899, &rows, dictionary.names(), usize::MAX);
        }
        let items = fold.items();
        let names = dictionary.names().clone();
        let files = encode_deltas(fold, names, 4096, Memory::of(Some(ByteSize::mib(512))));
        let files: Vec<Vec<u8>> = files.try_collect().await.unwrap();
        let decoded: Vec<_> = files.iter().map(|file| deltas::decode(file, &plan).unwrap()).collect();
        assert_eq!(decoded.iter().map(Vec::len).sum::<usize>(), items);
        for file in &decoded {
            let of_items = file.iter().flat_map(|delta| delta.figures.distinct.iter().flatten());
            let sketches: usize = of_items.map(|distinct| distinct.to_bytes().len()).sum();
            assert!(sketches <= MAX_DELTA_BYTES + (32 << 10), "{sketches}");
        }
    }
}
