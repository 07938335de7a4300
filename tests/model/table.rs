//! The table of the curated files under every order of steps: batches, crashes, compactions, rebuilds, an operator,
//! other writers, and a ledger that is restored to an earlier time.
//!
//! A simulation around the program's own [`Snapshot`] and [`Registry`]. Each process is a loop that does what the code
//! of `src/lake` does; at every call of a service it pauses, and a seed chooses whose turn it is. A process may sleep
//! for long and go on with an old decision, or die, with its last request under way or not. Answers to log entries are
//! lost.
//!
//! Every version of the log is looked at as it is written. In each of them a day has the rows of a batch once at most,
//! the files that it names are there with the rows that it names, nothing is of a batch that was not committed, and of
//! a rebuild there is all or nothing. In the end the table has what the files of batches have, and checkpoints agree.
//!
//! Simplifications: there is one operator; a batch has one file of a day; nobody carries on with a batch that is set
//! aside, and a rebuild leaves its files alone; where the ledger is restored, nothing is set aside, and all processes
//! are stopped before.

mod consumer;
mod keeper;
mod operator;
mod world;

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use music_streams::lake::snapshot::Snapshot;
use music_streams::protocol::{BatchNumber, Change, Registry};
use world::{Shared, World};

const SEEDS: u64 = 20_000;
/// Seeds after which a broken variant counts as caught.
const CAUGHT: usize = 10;
const DAYS: [&str; 2] = ["2024-06-24", "2024-06-25"];
/// The day of other writers. One that has files of theirs cannot be rebuilt.
const FOREIGN_DAY: &str = "2024-06-26";
/// Batches that are opened in a walk.
const BATCHES: u32 = 7;
/// Two consumers, their three keepers of the table, two compactors, and an operator.
const PROCESSES: usize = 8;
const STEPS: usize = 600;
/// Attempts at an entry, and at a day.
const ATTEMPTS: usize = 30;
const ATTEMPTS_AT_DAY: usize = 5;
/// Looks at the registry while a rebuild waits for batches.
const PATIENCE: usize = 20;
const NOW: i64 = 1_719_337_393_000;

/// A rule that is left out; each must be found to matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// The watermark is the last number taken.
    WatermarkToLast,
    /// The watermark may be above every batch that has files.
    WatermarkAhead,
    /// A manifest is believed, whatever the state of its batch.
    AbandonedByManifest,
    /// An entry is written over another one.
    NoCondition,
    /// An entry follows entries that were not read.
    UnreadBase,
    /// Files are replaced that are in the table no longer.
    ReplaceWithoutCheck,
    /// A committed batch is added with those of its files that are there.
    FileNotThere,
    /// The registry is read after the states.
    StatesBeforeRegistry,
    /// Files are rebuilt while they are in the table.
    RebuiltInPlace,
    /// A rebuild lists the day's files before it reads the log.
    ListedFirst,
    /// Batches that had no files before a rebuild are not looked at again after it.
    NothingForEver,
    /// What was decided is written as another entry when somebody was faster.
    DecidedOnce,
}

/// A process, with the table as it knows it.
struct Process {
    world: Shared,
    broken: Broken,
    number: usize,
    owner: String,
    table: Snapshot,
    is_loaded: bool,
    /// Batches above the watermark that have no files.
    without_files: BTreeSet<BatchNumber>,
}

/// Lets others take their turn.
async fn pause() {
    let mut has_paused = false;
    let paused = move |_: &mut Context<'_>| match std::mem::replace(&mut has_paused, true) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    };
    std::future::poll_fn(paused).await;
}

impl Process {
    fn new(world: &Shared, number: usize) -> Self {
        let mut it = world.borrow_mut();
        it.names += 1;
        Process {
            world: Rc::clone(world),
            broken: it.broken,
            number,
            owner: format!("consumer {}", it.names),
            table: Snapshot::default(),
            is_loaded: false,
            without_files: BTreeSet::new(),
        }
    }

    fn world(&self) -> RefMut<'_, World> {
        self.world.borrow_mut()
    }

    async fn registry(&self) -> Registry {
        pause().await;
        self.world().registry.clone()
    }

    async fn change(&self, change: impl FnOnce(&Registry) -> Change) -> bool {
        pause().await;
        self.world().change(change)
    }
}

/// A process that takes steps.
struct Actor {
    run: Pin<Box<dyn Future<Output = ()>>>,
    sleeps_until: usize,
}

impl Actor {
    fn new(world: &Shared, number: usize) -> Self {
        let process = Process::new(world, number);
        let run: Pin<Box<dyn Future<Output = ()>>> = match number {
            0 | 1 => Box::pin(process.consume()),
            2..=4 => Box::pin(process.keep()),
            5 | 6 => Box::pin(process.compact()),
            _ => Box::pin(process.operate()),
        };
        Actor { run, sleeps_until: 0 }
    }

    fn take(&mut self, world: &Shared, step: usize) {
        if step < self.sleeps_until {
            return;
        }
        assert!(self.run.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending(), "they run for ever");
        let mut world = world.borrow_mut();
        if world.chance(15) {
            self.sleeps_until = step + world.below(120);
        }
    }

    /// Kills the process and starts another one in its place. Its last request may be under way.
    fn begin_anew(&mut self, world: &Shared, number: usize) {
        *self = Actor::new(world, number);
        let mut world = world.borrow_mut();
        let request = world.under_way.remove(&number);
        if world.chance(2) {
            world.late.extend(request);
        }
    }
}

fn walk(seed: u64, broken: Broken) -> World {
    let world = Rc::new(RefCell::new(World::new(seed, broken)));
    let mut actors: Vec<Actor> = (0..PROCESSES).map(|number| Actor::new(&world, number)).collect();
    for step in 0..STEPS {
        if world.borrow().wrong.is_some() {
            break;
        }
        let event = world.borrow_mut().below(100);
        let number = world.borrow_mut().below(PROCESSES);
        match event {
            0 => actors[number].begin_anew(&world, number),
            1 => world.borrow_mut().write_as_another(),
            2 => world.borrow_mut().deliver_late(),
            3 => {
                let is_restored = world.borrow_mut().back_up_or_restore();
                let restarted = actors.iter_mut().enumerate().filter(|_| is_restored);
                restarted.for_each(|(number, actor)| actor.begin_anew(&world, number));
            }
            _ => actors[number].take(&world, step),
        }
    }
    actors.iter_mut().enumerate().for_each(|(number, actor)| actor.begin_anew(&world, number));
    drop(actors);
    if world.borrow().wrong.is_none() {
        end(&world);
    }
    Rc::into_inner(world).unwrap().into_inner()
}

/// One process is left: it finishes what is unfinished, does what operators have to do, and looks at the table once.
fn end(world: &Shared) {
    let late = world.borrow().late.len();
    (0..late).for_each(|_| world.borrow_mut().deliver_late());
    world.borrow_mut().rebuilds_left = 0;
    let mut last = Process::new(world, PROCESSES);
    let mut run = pin!(async move {
        last.recover_all().await;
        for _ in 0..200 {
            if last.world().pending.is_empty() {
                break;
            }
            last.do_errand().await;
        }
        last.forget();
        let registry = last.registry().await;
        last.advance(&registry).await;
    });
    for _ in 0..10_000 {
        if run.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
            return world.borrow_mut().check_end();
        }
    }
    world.borrow_mut().fail("one process does not come to an end".to_owned());
}

#[test]
fn the_table_has_each_batch_once_in_every_version() {
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..SEEDS {
        let world = walk(seed, Broken::Nothing);
        if let Some(wrong) = world.wrong {
            panic!("seed {seed}: {wrong}\n{}", world.history.join("\n"));
        }
        world.seen.into_iter().for_each(|(what, times)| *seen.entry(what).or_default() += times);
    }
    println!("{SEEDS} seeds: {seen:?}");
    let troubles = ["conflict", "lost answer", "late request", "overtaken", "aside", "refused", "restored"];
    for what in troubles.into_iter().chain(["compacted", "included", "rebuilt", "rewritten"]) {
        assert!(seen.contains_key(what), "{what} never happens");
    }
}

#[test]
fn every_rule_of_the_table_is_needed() {
    use Broken::{
        AbandonedByManifest, DecidedOnce, FileNotThere, ListedFirst, NoCondition, NothingForEver, RebuiltInPlace,
        ReplaceWithoutCheck, StatesBeforeRegistry, UnreadBase, WatermarkAhead, WatermarkToLast,
    };
    let variants = [
        WatermarkToLast,
        WatermarkAhead,
        AbandonedByManifest,
        NoCondition,
        UnreadBase,
        ReplaceWithoutCheck,
        FileNotThere,
        StatesBeforeRegistry,
        RebuiltInPlace,
        ListedFirst,
        NothingForEver,
        DecidedOnce,
    ];
    for broken in variants {
        let wrong = (0..SEEDS).filter_map(|seed| Some((seed, walk(seed, broken).wrong?)));
        let caught: Vec<(u64, String)> = wrong.take(CAUGHT).collect();
        let Some((seed, first)) = caught.first() else { panic!("{broken:?} is not caught") };
        let seeds = if caught.len() == CAUGHT { caught[CAUGHT - 1].0 + 1 } else { SEEDS };
        println!("{broken:?}: {} of {seeds} seeds go wrong, first {seed}: {first}", caught.len());
    }
}
