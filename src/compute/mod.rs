//! Compute: a batch's rows on every core, while more of them are being read.
//!
//! Three kinds of work share one thread for each core, each bounded: blocks are parsed, several at a time, and come back in
//! order; row groups are encoded, several at a time; and the fold, which one task after the other owns, takes the same rows. What
//! is read, written and awaited meanwhile is the caller's ([`crate::batch::prepare`]).

pub mod codes;
pub mod curated;
pub mod deltas;
pub mod fold;
mod pairs;
pub mod rows;

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::RecvError;

pub use crate::compute::codes::{Dictionary, Names};
pub use crate::compute::fold::Fold;
pub use crate::compute::rows::Rows;

use crate::compute::deltas::{DeltaRow, FoldedItem};
use crate::formats::parquet::{ParquetError, RowGroup};
use crate::input::block::{Block, Parsed};
use crate::memory::Memory;
use crate::process::tasks;

/// A computation did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// Encoding failed.
    #[error(transparent)]
    Parquet(#[from] ParquetError),
    /// It crashed.
    #[error("a computation crashed, which is a fault of this program; the lines before say where")]
    Crashed(#[from] RecvError),
}

/// Bytes of the texts in a row group's dictionaries: one with more is split. While it is encoded it has them some three times.
const MAX_DICTIONARY_BYTES: usize = 16 << 20;
/// Bytes of what a delta file has in it. Whoever reads one, or makes one, has that several times in memory.
const MAX_DELTA_BYTES: usize = 8 << 20;

/// How many cores there are.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Computes on rayon's threads, of which there is one for each core, while tokio's have time for everything else.
fn spawn<T: Send + 'static>(compute: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
    let (sender, receiver) = oneshot::channel();
    rayon::spawn(move || {
        // A panic drops the sender, which the receiver sees; rayon would end the process.
        if let Some(result) = tasks::contain(compute) {
            // Nobody waits any more when the batch was given up.
            let _ = sender.send(result);
        }
    });
    receiver
}

/// Parses blocks on every core, and gives their rows in order.
pub fn parse<E: From<ComputeError>>(
    blocks: impl Stream<Item = Result<Block, E>>,
    names: Names,
    memory: Memory,
) -> impl Stream<Item = Result<Parsed, E>> {
    let start = move |block: Block| {
        let names = names.clone();
        let parsing = spawn(move || block.parse(names.catalogue()));
        async { parsing.await.map_err(|error| E::from(error.into())) }
    };
    blocks.map_ok(start).try_buffered(memory.blocks_ahead(cores()))
}

/// What of the rows is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everything: a batch.
    Batch,
    /// One day's file and figures.
    Day(i32),
    /// One day's figures, and no file.
    FiguresOf(i32),
}

impl Scope {
    fn has(self, day: i32) -> bool {
        match self {
            Scope::Batch => true,
            Scope::Day(only) | Scope::FiguresOf(only) => day == only,
        }
    }
}

/// What the rows before those at hand add up to.
#[derive(Debug, Clone, Copy)]
pub struct Folded {
    /// Report items.
    pub items: usize,
    /// Bytes of memory that they take.
    pub bytes: usize,
    /// Whether they would have taken more than they may; some rows are not in them then.
    pub is_too_large: bool,
}

/// Row groups of each day, in the making or made.
type Encoding = oneshot::Receiver<Result<Vec<(i32, RowGroup)>, ParquetError>>;

/// Folds and encodes.
#[derive(Debug)]
pub struct Compute {
    names: Names,
    scope: Scope,
    fold: oneshot::Receiver<Fold>,
    encoding: VecDeque<Encoding>,
}

impl Compute {
    /// Nothing yet.
    pub fn new(names: Names, scope: Scope) -> Self {
        let fold = spawn(Fold::default);
        Compute { names, scope, fold, encoding: VecDeque::new() }
    }

    /// Begins work on rows, once the fold is through with those before. It may take so many bytes.
    pub async fn start(&mut self, rows: Rows, limit_bytes: usize) -> Result<Folded, ComputeError> {
        let mut fold = (&mut self.fold).await?;
        let folded = Folded { items: fold.items(), bytes: fold.memory_bytes(), is_too_large: fold.is_too_large() };
        let names = self.names.clone();
        let scope = self.scope;
        let mut days = rows.by_day();
        days.retain(|(day, _)| scope.has(*day));
        let days = Arc::new(days);
        let (of_fold, names_of_fold) = (Arc::clone(&days), names.clone());
        self.fold = spawn(move || {
            of_fold.iter().for_each(|(day, rows)| fold.add(*day, rows, &names_of_fold, limit_bytes));
            fold
        });
        if !matches!(scope, Scope::FiguresOf(_)) {
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

    /// The row groups of the oldest rows, when more than `at_most` are being encoded.
    pub async fn encoded(&mut self, at_most: usize) -> Result<Option<Vec<(i32, RowGroup)>>, ComputeError> {
        if self.encoding.len() <= at_most {
            return Ok(None);
        }
        match self.encoding.pop_front() {
            Some(oldest) => Ok(Some(oldest.await??)),
            None => Ok(None),
        }
    }

    /// What all rows add up to, once.
    pub async fn take_fold(&mut self) -> Result<Fold, ComputeError> {
        Ok((&mut self.fold).await?)
    }
}

/// Encodes what rows add up to as delta files of at most so many report items, and some 8 MiB, several at a time.
pub fn encode_deltas(
    fold: Fold,
    names: Names,
    items_per_file: usize,
    memory: Memory,
) -> impl Stream<Item = Result<Vec<u8>, ComputeError>> {
    let (mut items, names_of_groups) = (fold.into_items(), names.clone());
    let groups = std::iter::from_fn(move || {
        let (mut group, mut bytes) = (Vec::new(), 0);
        while group.len() < items_per_file
            && bytes < MAX_DELTA_BYTES
            && let Some(item) = items.next()
        {
            bytes += item.row_bytes(&names_of_groups);
            group.push(item);
        }
        (!group.is_empty()).then_some(group)
    });
    let start = move |group: Vec<FoldedItem>| {
        let names = names.clone();
        let encoding = spawn(move || {
            let rows: Vec<DeltaRow<'_>> = group.into_iter().map(|item| item.into_row(&names)).collect();
            deltas::encode(&rows)
        });
        async { Ok(encoding.await??) }
    };
    futures::stream::iter(groups).map(start).buffered(memory.delta_files_ahead(cores()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::catalogue::Catalogue;
    use bytesize::ByteSize;

    /// 3,000 tracks of 2,000 listeners each, of whom every sketch takes 16 KiB: 48 MiB in one file, if only items were counted.
    #[tokio::test]
    async fn delta_files_are_cut_by_bytes_too() {
        let mut dictionary = Dictionary::of(Arc::new(Catalogue::default()));
        let mut fold = Fold::default();
        for track in 0..3000_u32 {
            let lines: String = (0..2000).map(|user| format!("{},t{track},2024-06-25 00:00:05\n", 1 + user)).collect();
            let mut rows = Rows::default();
            rows.append(&crate::input::block::tests::parse(&lines, dictionary.names().catalogue()), 0, &mut dictionary);
            fold.add(19_899, &rows, dictionary.names(), usize::MAX);
        }
        let items = fold.items();
        let names = dictionary.names().clone();
        let files = encode_deltas(fold, names, 4096, Memory::of(Some(ByteSize::mib(512))));
        let files: Vec<Vec<u8>> = files.try_collect().await.unwrap();
        let decoded: Vec<_> = files.iter().map(|file| deltas::decode(file).unwrap()).collect();
        assert_eq!(decoded.iter().map(Vec::len).sum::<usize>(), items);
        for file in &decoded {
            let sketches: usize = file.iter().map(|delta| delta.figures.distinct.to_bytes().len()).sum();
            assert!(sketches <= MAX_DELTA_BYTES + (32 << 10), "{sketches}");
        }
    }
}
