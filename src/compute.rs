//! Compute: a batch's rows on every core, while more of them are being read.
//!
//! Three kinds of work share one thread for each core, each bounded: blocks are parsed, several at a time, and come back in
//! order; row groups are encoded, several at a time; and the fold, which one task after the other owns, takes the same rows. What
//! is read, written and awaited meanwhile is the caller's ([`crate::transform`]).

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::RecvError;

use crate::aggregate::{DayItem, DeltaRow, Fold, Names, Rows};
use crate::block::{Block, Parsed};
use crate::columnar::{self, ColumnarError, RowGroup};
use crate::event::ObjectEvent;
use crate::tasks;

/// A computation did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// Encoding failed.
    #[error(transparent)]
    Columnar(#[from] ColumnarError),
    /// It crashed.
    #[error("a computation crashed, which is a fault of this program; the lines before say where")]
    Crashed(#[from] RecvError),
}

/// Blocks for each core that are parsed ahead of being asked for.
const BLOCKS_AHEAD: usize = 4;

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
    event: ObjectEvent,
    names: Names,
) -> impl Stream<Item = Result<Parsed, E>> {
    let event = Arc::new(event);
    let start = move |block: Block| {
        let (event, names) = (Arc::clone(&event), names.clone());
        let parsing = spawn(move || block.parse(&event, names.catalogue()));
        async { parsing.await.map_err(|error| E::from(error.into())) }
    };
    blocks.map_ok(start).try_buffered(BLOCKS_AHEAD * cores())
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

/// Row groups of each day, in the making or made.
type Encoding = oneshot::Receiver<Result<Vec<(i32, RowGroup)>, ColumnarError>>;

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

    /// Begins work on rows, once the fold is through with those before; tells how many report items these touched.
    pub async fn start(&mut self, rows: Rows) -> Result<usize, ComputeError> {
        let mut fold = (&mut self.fold).await?;
        let items = fold.items();
        let names = self.names.clone();
        let scope = self.scope;
        let mut days = rows.by_day();
        days.retain(|(day, _)| scope.has(*day));
        let days = Arc::new(days);
        let (of_fold, names_of_fold) = (Arc::clone(&days), names.clone());
        self.fold = spawn(move || {
            of_fold.iter().for_each(|(day, rows)| fold.add(*day, rows, &names_of_fold));
            fold
        });
        if !matches!(scope, Scope::FiguresOf(_)) {
            self.encoding.push_back(spawn(move || {
                let encode = |(day, rows): &(i32, Rows)| Ok((*day, columnar::encode_rows(rows, &names)?));
                days.iter().map(encode).collect()
            }));
        }
        Ok(items)
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

/// Encodes what rows add up to as delta files of at most so many report items, several at a time.
pub fn encode_deltas(
    fold: Fold,
    names: Names,
    items_per_file: usize,
) -> impl Stream<Item = Result<Vec<u8>, ComputeError>> {
    let mut items = fold.into_items();
    let groups = std::iter::from_fn(move || {
        let group: Vec<_> = items.by_ref().take(items_per_file).collect();
        (!group.is_empty()).then_some(group)
    });
    let start = move |group: Vec<DayItem>| {
        let names = names.clone();
        let encoding = spawn(move || {
            let rows: Vec<DeltaRow<'_>> = group.into_iter().map(|item| item.into_row(&names)).collect();
            columnar::encode_deltas(&rows)
        });
        async { Ok(encoding.await??) }
    };
    futures::stream::iter(groups).map(start).buffered(cores() + 1)
}
