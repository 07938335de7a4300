//! Top lists under every order of steps: batches, crashes, repetitions, and a rebuild that lowers figures.
//!
//! A simulation around the program's own [`TopList`]. A batch sees the epoch, reads and writes its items, then offers
//! them; a rebuild replaces the items, restarts the list, then offers all items. Each read and each conditional write
//! is a step of its own, and a seed chooses whose turn it is. In the end the list must be what sorting all items gives.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use music_streams::reports::top_lists::{Entry, TopList};

use crate::random::Random;

const ITEMS: usize = 8;
const LENGTH: usize = 3;
const SEEDS: u64 = 100_000;

/// A rule that is left out; each must be found to matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// The entry that was offered last wins, whatever its item's version.
    NoVersion,
    /// A batch offers its entries before it has written the items.
    OfferedFirst,
    /// A rebuild raises the epoch and keeps the entries.
    NotEmptied,
    /// A rebuild restarts the list before it replaces the items.
    RestartedFirst,
    /// An offer counts in any epoch.
    NoEpoch,
}

/// A report item: what batches have added, and what a rebuild takes away again.
#[derive(Debug, Clone, Default)]
struct Stored {
    applied: BTreeSet<usize>,
    counted: u64,
    surplus: u64,
    version: u64,
}

struct World {
    items: Vec<Stored>,
    list: TopList,
    offers: u64,
    broken: Broken,
}

impl World {
    fn entry(&mut self, id: usize, item: &Stored) -> Arc<Entry> {
        self.offers += 1;
        let version = if self.broken == Broken::NoVersion { self.offers } else { item.version };
        let figure = Some((item.counted + item.surplus) as i64).filter(|&figure| figure > 0);
        Arc::new(Entry { id: id.to_string(), figure, version, shown: Vec::new() })
    }

    /// Writes the list if it still has the version that was read.
    fn swap(&mut self, version: u64, next: TopList) -> bool {
        let holds = self.list.version == version;
        if holds {
            self.list = next;
        }
        holds
    }

    fn expected(&self) -> Vec<String> {
        let mut ids: Vec<usize> =
            (0..ITEMS).filter(|&id| self.items[id].counted + self.items[id].surplus > 0).collect();
        ids.sort_by_key(|&id| (Reverse(self.items[id].counted + self.items[id].surplus), id.to_string()));
        ids.into_iter().take(LENGTH).map(|id| id.to_string()).collect()
    }
}

/// One who takes steps. `deltas` is empty for the rebuild.
struct Actor {
    number: usize,
    deltas: Vec<(usize, u64)>,
    step: Step,
    epoch: u64,
    offers: Vec<Arc<Entry>>,
    crashes: u32,
}

enum Step {
    Begin,
    /// Reads the item at this position.
    Read(usize),
    /// Writes the item at this position, as it was read.
    Write(usize, Stored),
    ReadList,
    WriteList(u64, TopList),
    /// A rebuild restarts the list, read or not yet.
    Restart(Option<TopList>),
    Done,
}

impl Actor {
    fn is_rebuild(&self) -> bool {
        self.deltas.is_empty()
    }

    fn take(&mut self, world: &mut World) {
        let step = std::mem::replace(&mut self.step, Step::Done);
        self.step = if self.is_rebuild() { self.rebuild(step, world) } else { self.apply(step, world) };
    }

    fn apply(&mut self, step: Step, world: &mut World) -> Step {
        let offered_first = world.broken == Broken::OfferedFirst;
        match step {
            Step::Begin => {
                (self.epoch, self.offers) = (world.list.epoch, Vec::new());
                Step::Read(0)
            }
            Step::Read(position) if position == self.deltas.len() && offered_first => Step::Done,
            Step::Read(position) if position == self.deltas.len() => Step::ReadList,
            Step::Read(position) => {
                let item = world.items[self.deltas[position].0].clone();
                if offered_first && position == 0 && self.offers.is_empty() {
                    // All of them as they will be, if nobody is faster.
                    for (id, _) in self.deltas.clone() {
                        let next = self.next(&world.items[id].clone(), id);
                        self.offers.push(world.entry(id, &next));
                    }
                    return Step::ReadList;
                }
                Step::Write(position, item)
            }
            Step::Write(position, read) => {
                let id = self.deltas[position].0;
                let next = self.next(&read, id);
                if next.version != read.version && world.items[id].version != read.version {
                    return Step::Read(position);
                }
                if next.version != read.version {
                    world.items[id] = next.clone();
                }
                if !offered_first {
                    self.offers.push(world.entry(id, &next));
                }
                Step::Read(position + 1)
            }
            Step::ReadList => self.offer(world, if offered_first { Step::Read(0) } else { Step::Done }),
            Step::WriteList(version, next) if world.swap(version, next.clone()) => {
                if offered_first {
                    Step::Read(0)
                } else {
                    Step::Done
                }
            }
            Step::WriteList(..) => Step::ReadList,
            Step::Restart(_) | Step::Done => Step::Done,
        }
    }

    fn next(&self, item: &Stored, id: usize) -> Stored {
        let mut next = item.clone();
        if next.applied.insert(self.number) {
            next.counted += self.deltas.iter().filter(|delta| delta.0 == id).map(|delta| delta.1).sum::<u64>();
            next.version += 1;
        }
        next
    }

    fn offer(&mut self, world: &World, done: Step) -> Step {
        if world.list.epoch != self.epoch && world.broken != Broken::NoEpoch {
            return Step::Begin;
        }
        match world.list.with(&self.offers, LENGTH) {
            Some(next) => Step::WriteList(world.list.version, next),
            None => done,
        }
    }

    /// Replaces all items, restarts the list, reads all items, offers them.
    fn rebuild(&mut self, step: Step, world: &mut World) -> Step {
        let restarts_first = world.broken == Broken::RestartedFirst;
        match step {
            Step::Begin if restarts_first => Step::Restart(None),
            Step::Begin => Step::Write(0, Stored::default()),
            Step::Write(id, _) => {
                let item = &mut world.items[id];
                (item.surplus, item.version) = (0, item.version + 100);
                match id + 1 {
                    ITEMS if restarts_first => {
                        (self.epoch, self.offers) = (world.list.epoch, Vec::new());
                        Step::Read(0)
                    }
                    ITEMS => Step::Restart(None),
                    id => Step::Write(id, Stored::default()),
                }
            }
            Step::Restart(None) => Step::Restart(Some(world.list.clone())),
            Step::Restart(Some(read)) => {
                let entries = if world.broken == Broken::NotEmptied { read.entries.clone() } else { Vec::new() };
                if !world.swap(read.version, TopList { entries, ..read.restarted(0) }) {
                    return Step::Restart(None);
                }
                if restarts_first {
                    return Step::Write(0, Stored::default());
                }
                (self.epoch, self.offers) = (world.list.epoch, Vec::new());
                Step::Read(0)
            }
            Step::Read(ITEMS) => Step::ReadList,
            Step::Read(id) => {
                let item = world.items[id].clone();
                self.offers.push(world.entry(id, &item));
                Step::Read(id + 1)
            }
            Step::ReadList => self.offer(world, Step::Done),
            Step::WriteList(version, next) if world.swap(version, next.clone()) => Step::Done,
            Step::WriteList(..) => Step::ReadList,
            Step::Done => Step::Done,
        }
    }
}

/// Returns true if the list is right in the end.
fn is_right(seed: u64, broken: Broken) -> bool {
    let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let mut below = |bound: usize| random.below(bound as u64) as usize;
    let mut items = vec![Stored::default(); ITEMS];
    for item in &mut items {
        (item.surplus, item.version) = (below(6) as u64, 1);
    }
    let mut world = World { items, list: TopList::default(), offers: 0, broken };
    // As an earlier batch left it.
    let entries: Vec<Arc<Entry>> = (0..ITEMS)
        .map(|id| {
            let item = world.items[id].clone();
            world.entry(id, &item)
        })
        .collect();
    world.list = world.list.with(&entries, LENGTH).unwrap_or_default();
    let mut actors: Vec<Actor> = (0..2 + below(4))
        .map(|number| {
            let deltas = (0..1 + below(3)).map(|_| (below(ITEMS), 1 + below(4) as u64));
            let deltas = deltas.collect::<std::collections::BTreeMap<_, _>>().into_iter().collect();
            Actor { number, deltas, step: Step::Begin, epoch: 0, offers: Vec::new(), crashes: below(3) as u32 }
        })
        .collect();
    if below(4) > 0 {
        let number = actors.len();
        let crashes = below(3) as u32;
        actors.push(Actor { number, deltas: Vec::new(), step: Step::Begin, epoch: 0, offers: Vec::new(), crashes });
    }
    loop {
        let busy: Vec<usize> = (0..actors.len()).filter(|&actor| !matches!(actors[actor].step, Step::Done)).collect();
        let Some(&turn) = busy.get(below(busy.len().max(1))) else { break };
        let actor = &mut actors[turn];
        if actor.crashes > 0 && below(8) == 0 {
            actor.crashes -= 1;
            (actor.step, actor.offers) = (Step::Begin, Vec::new());
        } else {
            actor.take(&mut world);
        }
    }
    let found: Vec<String> = world.list.entries.iter().map(|entry| entry.id.clone()).collect();
    let listens = |entry: &Arc<Entry>| {
        let figure = |id: usize| (world.items[id].counted + world.items[id].surplus) as i64;
        entry.id.parse().is_ok_and(|id: usize| entry.figure == Some(figure(id)))
    };
    found == world.expected() && world.list.entries.iter().all(listens)
}

#[test]
fn a_top_list_is_what_sorting_all_items_gives() {
    for seed in 0..SEEDS {
        assert!(is_right(seed, Broken::Nothing), "seed {seed}");
    }
}

#[test]
fn every_rule_of_top_lists_is_needed() {
    use Broken::{NoEpoch, NoVersion, NotEmptied, OfferedFirst, RestartedFirst};
    for broken in [NoVersion, OfferedFirst, NotEmptied, RestartedFirst, NoEpoch] {
        let wrong = (0..SEEDS / 5).filter(|&seed| !is_right(seed, broken)).count();
        println!("{broken:?}: {wrong} of {} seeds end with a wrong list", SEEDS / 5);
        assert!(wrong > 0, "{broken:?} is not caught");
    }
}
