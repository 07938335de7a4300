//! The protocol, explored exhaustively: every interleaving of two consumers, the sweep, the operator and the owner of
//! the bucket. Crashes happen, and evictions of the living and the dead, lost answers, repeated notifications and
//! overwritten objects; objects, report items and moves are refused permanently, manifests are lost, claims expire, the
//! registry is full, and definitions come into force.
//!
//! In every reachable state, the invariants of `src/lib.rs` must hold. From every state, a single consumer that is
//! started alone must finish everything but what is set aside. An operator must then be able to bring that back too,
//! with every object counted once. And the model must be able to fail: each of the variants in [`Fault`] breaks the
//! protocol in one place, and each is caught.
//!
//! Simplifications: an object is put again only while its claim lasts, as it would be new content afterwards; records
//! do not expire; rows that are lost with an object are not counted; there is one operator.
//!
//! Top lists (`lists.rs`) and the table of the curated files (`table.rs`) have simulations of their own: random orders
//! of steps, from seeds, and broken variants too.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, missing_docs)]

mod lists;
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "../support/random.rs"]
mod random;
mod steps;
mod table;
mod world;

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use music_streams::protocol::{ClaimConflict, State};
use random::Random;
use stateright::{Checker, HasDiscoveries, Model, Property};
use steps::Way;
use world::{
    BATCHES, Budget, CONSUMERS, FIGURES, Fault, I1, I2, I3, I5, I6, I7, I8, ITEMS, OBJECTS, OPERATOR, Objects, Pause,
    World, has, members,
};

/// An event that can happen next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Action {
    /// An idle consumer closes a window on these objects.
    Begin(usize, Objects),
    /// A consumer takes its next step.
    Step(usize),
    /// A consumer's next step is carried out, but its answer is lost and the consumer will try again.
    LoseAnswer(usize),
    /// A consumer abandons its batch.
    Stop(usize),
    /// A consumer dies and is started again, with nothing in memory.
    Crash(usize),
    /// An idle consumer takes the owner of a batch for dead.
    Recover(usize, u64),
    /// The owner of the bucket puts an object.
    Put(usize),
    /// An object is announced again, by S3, SQS or the sweep.
    Repeat(usize),
    /// A consumer finds that it cannot read an object.
    CannotRead(usize, usize),
    /// The pause of an object that is set aside ends.
    EndPause(usize),
    /// A consumer finds that it cannot move an object.
    CannotMove(usize, usize),
    /// Somebody else writes a report item.
    Spoil(usize),
    /// The operator repairs a report item, or deletes it.
    Mend(usize, bool),
    /// A committed batch's manifest is lost.
    LoseManifest(u64),
    /// A lost manifest is restored.
    RestoreManifest(u64),
    /// The operator begins to bring something back.
    BringBack(Way),
    /// The sweep reads the claim on an object.
    Look(usize),
    /// The sweep takes its next step.
    GoOnLooking,
    /// Claims expire that were not renewed.
    TimePasses,
    /// Another definition comes into force.
    Apply,
}

struct Protocol {
    budget: Budget,
    fault: Fault,
    /// Hashes of worlds from which a single consumer is known to bring everything to its end.
    converging: Mutex<HashSet<u64>>,
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.budget)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let budget = &world.budget;
        for (consumer, state) in world.consumers.iter().enumerate() {
            let Some(task) = &state.task else { continue };
            if !world.waits(task) || self.fault == Fault::RestoreUnwaited {
                actions.push(Action::Step(consumer));
            }
            if consumer == OPERATOR {
                continue;
            }
            if budget.lost_answers > 0 && !task.only_reads() {
                actions.push(Action::LoseAnswer(consumer));
            }
            if budget.stops > 0 && task.can_stop() {
                actions.push(Action::Stop(consumer));
            }
            if budget.crashes > 0 {
                actions.push(Action::Crash(consumer));
            }
            if budget.unreadable > 0 {
                let there = members(task.reads()).filter(|&object| world.is_incoming(object));
                actions.extend(there.map(|object| Action::CannotRead(consumer, object)));
            }
            if budget.unmovable > 0 {
                let there = task.moves().filter(|&object| world.is_incoming(object));
                actions.extend(there.map(|object| Action::CannotMove(consumer, object)));
            }
        }
        for consumer in (0..CONSUMERS).filter(|&consumer| world.consumers[consumer].task.is_none()) {
            if budget.batches > 0 {
                let known = world.announced() | world.swept();
                let windows = (1..1 << OBJECTS).filter(|window| window & !known == 0);
                actions.extend(windows.map(|window| Action::Begin(consumer, window)));
            }
            if budget.evictions > 0 {
                actions.extend(world.listed().map(|batch| Action::Recover(consumer, batch)));
            }
        }
        if budget.puts > 0 {
            actions.extend([0, 2].into_iter().filter(|&object| may_be_put(world, object)).map(Action::Put));
        }
        if budget.repeats > 0 {
            let silent = |&object: &usize| world.put & 1 << object != 0 && world.announced() & 1 << object == 0;
            actions.extend((0..OBJECTS).filter(silent).map(Action::Repeat));
        }
        if budget.retries > 0 {
            let lasts = |&object: &usize| world.claims[object].pause == Pause::Lasts;
            actions.extend((0..OBJECTS).filter(lasts).map(Action::EndPause));
        }
        let is_idle = world.consumers[OPERATOR].task.is_none();
        for item in 0..ITEMS {
            if !world.foreign[item] && budget.spoiled > 0 {
                actions.push(Action::Spoil(item));
            }
            if world.foreign[item] {
                actions.push(Action::Mend(item, false));
            }
            // An item that is deleted without being listed, or while it is brought back, is lost.
            if world.foreign[item] && world.parked[item] > 0 && is_idle {
                actions.push(Action::Mend(item, true));
            }
        }
        if budget.lost_manifests > 0 {
            actions.extend(world.with_manifest().map(Action::LoseManifest));
        }
        let lost = (0..BATCHES as u64).filter(|batch| world.lost_manifests & 1 << batch != 0);
        actions.extend(lost.map(Action::RestoreManifest));
        if budget.brought_back > 0 && is_idle {
            actions.extend(world.ways_back().map(Action::BringBack));
        }
        match world.look {
            Some(_) => actions.push(Action::GoOnLooking),
            None if budget.looks > 0 => {
                let is_held = |&object: &usize| world.is_incoming(object) && world.claims[object].batch != 0;
                actions.extend((0..OBJECTS).filter(is_held).map(Action::Look));
            }
            None => {}
        }
        if budget.times > 0 && world.may_time_pass(self.fault) {
            actions.push(Action::TimePasses);
        }
        if budget.applied > 0 {
            actions.push(Action::Apply);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        match action {
            Action::Begin(consumer, window) => {
                next.budget.batches -= 1;
                next.begin(consumer, window);
            }
            Action::Step(consumer) => next.step(consumer, self.fault),
            Action::LoseAnswer(consumer) => {
                next.budget.lost_answers -= 1;
                let before = next.consumers[consumer].clone();
                next.step(consumer, self.fault);
                next.consumers[consumer] = before;
            }
            Action::Stop(consumer) => {
                next.budget.stops -= 1;
                next.stop(consumer);
            }
            Action::Crash(consumer) => {
                next.budget.crashes -= 1;
                next.crash(consumer);
            }
            Action::Recover(consumer, batch) => {
                next.budget.evictions -= 1;
                next.recover(consumer, batch);
            }
            Action::Put(object) => {
                next.budget.puts -= 1;
                next.put(object);
            }
            Action::Repeat(object) => {
                next.budget.repeats -= 1;
                next.announce(object);
            }
            Action::CannotRead(consumer, object) => {
                next.budget.unreadable -= 1;
                next.cannot_read(consumer, object);
            }
            Action::EndPause(object) => {
                next.budget.retries -= 1;
                next.end_pause(object);
            }
            Action::CannotMove(consumer, object) => {
                next.budget.unmovable -= 1;
                next.cannot_move(consumer, object);
            }
            Action::Spoil(item) => {
                next.budget.spoiled -= 1;
                next.foreign[item] = true;
            }
            Action::Mend(item, by_deletion) => next.mend(item, by_deletion),
            Action::LoseManifest(batch) => {
                next.budget.lost_manifests -= 1;
                next.lost_manifests |= 1 << batch;
            }
            Action::RestoreManifest(batch) => next.lost_manifests &= !(1 << batch),
            Action::BringBack(way) => {
                next.budget.brought_back -= 1;
                next.bring_back(way);
            }
            Action::Look(object) => {
                next.budget.looks -= 1;
                next.look(object);
            }
            Action::GoOnLooking => next.go_on_looking(self.fault),
            Action::TimePasses => {
                next.budget.times -= 1;
                next.time_passes();
            }
            Action::Apply => {
                next.budget.applied -= 1;
                next.apply();
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(I1, |_, world: &World| {
                put(world).all(|object| {
                    world.is_incoming(object) || world.archived(object) > 0 || world.overwritten & 1 << object != 0
                })
            }),
            Property::always(I2, |_, world: &World| {
                world.items.iter().all(|item| item.counts.iter().all(|&count| count <= 1))
                    && put(world).all(|object| world.archived(object) <= 1)
            }),
            Property::always(I3, |_, world: &World| {
                let mut of_batch = world.curated.iter().enumerate();
                of_batch.all(|(batch, &contents)| contents == 0 || world.committed & 1 << batch != 0)
                    && put(world).all(|object| world.curated(object) <= 1)
            }),
            Property::always(FIGURES, |_, world: &World| (0..ITEMS).all(|item| lacks_nothing(world, item))),
            Property::always(I5, |_, world: &World| {
                put(world).filter(|&object| world.is_incoming(object)).all(|object| {
                    // Once it was set aside, its message is gone: the list has it, and afterwards the sweep finds it.
                    let is_found =
                        has(world.ever_aside, object) && world.standing(object) != Some(ClaimConflict::Duplicate);
                    has(world.announced(), object) || world.curated(object) > 0 || is_found
                })
            }),
            Property::always(I6, |_, world: &World| world.registry.batches.len() <= world.budget.room),
            Property::always(I8, |_, world: &World| world.mixed == 0),
            Property::always(I7, |protocol: &Protocol, world| protocol.converges(world)),
        ]
    }
}

fn put(world: &World) -> impl Iterator<Item = usize> {
    members(world.put)
}

/// A content is put again only while its claim lasts: afterwards it would be new.
fn may_be_put(world: &World, object: usize) -> bool {
    !world.is_incoming(object) && !has(world.expired, object)
}

/// Returns true if a report item has all rows counted by batches that are done, unless they or the item are set aside.
fn lacks_nothing(world: &World, item: usize) -> bool {
    let is_done = |&batch: &usize| world.records[batch] == Some(State::Done) && world.aside & 1 << batch == 0;
    let counts = |batch: usize| world.manifests[batch].map_or([0; OBJECTS], |manifest| manifest.counts(item));
    world.parked[item] > 0
        || (0..BATCHES)
            .filter(is_done)
            .all(|batch| counts(batch).iter().zip(world.items[item].counts).all(|(&counted, there)| counted <= there))
}

impl Protocol {
    /// Returns true if everything converges. All consumers die, and one is started and works until there is nothing to
    /// do: the figures must be right then, except for what is set aside. The operator repairs and brings that back: all
    /// must be right.
    fn converges(&self, world: &World) -> bool {
        let mut world = world.without_consumers();
        let mut hasher = std::hash::DefaultHasher::new();
        world.hash(&mut hasher);
        let hash = hasher.finish();
        let is_known = || self.converging.lock().unwrap().contains(&hash);
        is_known() || {
            self.work_alone(&mut world);
            let mut is_right = is_at_its_end(&world);
            if is_right && !world.has_nothing_aside() {
                self.bring_everything_back(&mut world);
                self.work_alone(&mut world);
                is_right = is_at_its_end(&world) && world.has_nothing_aside();
            }
            if is_right {
                self.converging.lock().unwrap().insert(hash);
            }
            is_right
        }
    }

    fn work_alone(&self, world: &mut World) {
        // A new start: it is none of the owners in the registry.
        world.crash(0);
        for _ in 0..300 {
            let overdue = world.listed().next();
            let waits = members(world.announced()).filter(|&object| world.is_of_batch_aside(object));
            let window = (world.announced() | world.swept()) & !waits.fold(0, |set, object| set | 1 << object);
            match (&world.consumers[0].task, overdue) {
                (Some(_), _) => world.step(0, self.fault),
                (None, Some(batch)) => world.recover(0, batch),
                (None, None) if window != 0 && world.registry.last + 1 < BATCHES as u64 => world.begin(0, window),
                (None, None) => break,
            }
        }
    }

    fn bring_everything_back(&self, world: &mut World) {
        world.lost_manifests = 0;
        for item in 0..ITEMS {
            let by_deletion = world.foreign[item] && world.parked[item] > 0;
            world.mend(item, by_deletion);
        }
        for object in (0..OBJECTS).filter(|&object| world.is_aside(object)).collect::<Vec<_>>() {
            world.end_pause(object);
            world.announce(object);
        }
        for way in world.ways_back().collect::<Vec<_>>() {
            world.crash(OPERATOR);
            world.bring_back(way);
            for _ in 0..60 {
                world.step(OPERATOR, self.fault);
            }
        }
    }
}

/// Returns true if nothing is left to do without an operator, every object that is not set aside counts once, and each
/// lies where it should.
fn is_at_its_end(world: &World) -> bool {
    world.is_settled()
        && put(world).all(|object| {
            let is = |objects: Objects| has(objects, object);
            let is_counted = world.curated(object) > 0;
            let is_in_its_items = world.items.iter().enumerate().all(|(item, stored)| {
                world.parked[item] > 0
                    || stored.counts[object] == u8::from(is_counted && World::is_of_item(object, item))
            });
            let place = match (world.is_incoming(object), world.archived(object)) {
                (false, 1) => is_counted,
                (false, 0) => is(world.overwritten),
                (true, _) if world.is_aside(object) => !is_counted,
                (true, _) => is_counted && (is(world.put_again) || world.left[object] != 0),
                _ => false,
            };
            // The operator finishes what a batch that is set aside has decided.
            let is_of_listed = (0..BATCHES).any(|batch| {
                world.aside & 1 << batch != 0 && world.manifests[batch].is_some_and(|it| has(it.contents(), object))
            });
            is_of_listed || world.is_of_batch_aside(object) || (is_in_its_items && place)
        })
}

/// Two windows, and no trouble.
const CALM: Budget = Budget { batches: 2, ..Budget::NOTHING };

/// The troubles of each of the short explorations.
const SHORT: [Budget; 11] = [
    Budget { crashes: 1, evictions: 2, ..CALM },
    Budget { evictions: 1, lost_answers: 1, repeats: 1, ..CALM },
    Budget { stops: 1, puts: 2, ..CALM },
    // An object is refused, and comes back.
    Budget { unreadable: 1, retries: 1, evictions: 1, repeats: 1, ..CALM },
    // A report item is refused, and comes back.
    Budget { spoiled: 1, brought_back: 1, evictions: 1, ..CALM },
    // A move is refused.
    Budget { unmovable: 1, brought_back: 1, evictions: 1, repeats: 1, ..CALM },
    // The registry is full.
    Budget { room: 1, crashes: 1, evictions: 2, ..CALM },
    // Claims expire.
    Budget { looks: 1, times: 2, ..CALM },
    Budget { looks: 1, puts: 1, ..CALM },
    // A batch is set aside, and comes back.
    Budget { lost_manifests: 1, brought_back: 1, evictions: 1, ..CALM },
    // Definitions come into force.
    Budget { applied: 2, evictions: 1, lost_answers: 1, ..CALM },
];
/// The troubles of each of the long explorations.
const LONG: [Budget; 3] = [
    Budget { crashes: 1, evictions: 1, lost_answers: 1, stops: 1, puts: 1, repeats: 1, ..CALM },
    Budget { looks: 2, times: 2, evictions: 1, ..CALM },
    Budget { looks: 1, puts: 2, ..CALM },
];

/// Explores until the property is violated, or every property in every state.
fn check(budget: Budget, fault: Fault, sought: &[&'static str]) -> (usize, Duration, Vec<&'static str>) {
    let start = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let finish_when = match sought {
        [] => HasDiscoveries::AnyFailures,
        sought => HasDiscoveries::AllOf(sought.iter().copied().collect()),
    };
    let protocol = Protocol { budget, fault, converging: Mutex::default() };
    let checker = protocol.checker().threads(threads).finish_when(finish_when).spawn_bfs().join();
    for (property, path) in checker.discoveries() {
        if fault == Fault::None {
            println!("{property}: {:#?}\n{:#?}", path.clone().into_actions(), path.last_state());
        }
    }
    (checker.unique_state_count(), start.elapsed(), checker.discoveries().into_keys().collect())
}

/// The troubles of a random walk: more than can be explored exhaustively.
const WALK: Budget = Budget {
    room: 3,
    batches: 8,
    crashes: 4,
    evictions: 6,
    lost_answers: 4,
    stops: 3,
    puts: 3,
    repeats: 3,
    unreadable: 2,
    retries: 2,
    unmovable: 2,
    spoiled: 2,
    lost_manifests: 1,
    brought_back: 4,
    looks: 6,
    times: 2,
    applied: 3,
};

/// Takes random actions until none is left, and checks all properties in each state. A seed always takes the same walk.
fn walk(seed: u64) -> Result<usize, String> {
    let protocol = Protocol { budget: WALK, fault: Fault::None, converging: Mutex::default() };
    let properties = protocol.properties();
    let mut world = World::new(WALK);
    let mut random = Random(seed);
    let mut actions = Vec::new();
    for steps in 0.. {
        if let Some(broken) = properties.iter().find(|property| !(property.condition)(&protocol, &world)) {
            return Err(format!("seed {seed}: after {steps} steps: {}", broken.name));
        }
        actions.clear();
        protocol.actions(&world, &mut actions);
        // Steps are what consumers mostly do; troubles are rare, or a walk would be over at once.
        if !random.next().is_multiple_of(8) && actions.iter().any(|action| matches!(action, Action::Step(_))) {
            actions.retain(|action| matches!(action, Action::Step(_)));
        }
        if actions.is_empty() {
            return Ok(steps);
        }
        let chosen = actions.swap_remove(random.next() as usize % actions.len());
        world = protocol.next_state(&world, chosen).unwrap();
    }
    Ok(0)
}

#[test]
fn no_random_walk_breaks_the_protocol() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (first, seeds) = (number("FIRST_SEED", 1), number("SEEDS", 1000));
    let start = Instant::now();
    let walks: Vec<_> = (first..first + seeds).map(walk).collect();
    let steps: usize = walks.iter().flatten().sum();
    let failures: Vec<_> = walks.iter().filter_map(|walk| walk.as_ref().err()).collect();
    println!("{seeds} walks, {steps} steps in {:.1} s, {} violations", start.elapsed().as_secs_f64(), failures.len());
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn the_protocol_holds_in_every_state() {
    let everything = std::env::var_os("MODEL_EVERYTHING").is_some();
    for budget in if everything { &LONG[..] } else { &SHORT[..] } {
        let (states, time, broken) = check(*budget, Fault::None, &[]);
        println!("{states} states in {:.1} s, {} violations: {budget:?}", time.as_secs_f64(), broken.len());
        assert_eq!(broken, Vec::<&str>::new(), "{budget:?}");
    }
}

/// The variants that must be caught, each with the invariant that it breaks and the troubles that reveal it.
fn variants() -> Vec<(Fault, &'static str, Budget)> {
    let silent = Budget { evictions: 1, ..CALM };
    let zombie = Budget { batches: 3, evictions: 2, ..CALM };
    let crash = Budget { crashes: 1, evictions: 1, ..CALM };
    let overwrite = Budget { puts: 1, ..CALM };
    let again = Budget { puts: 2, ..CALM };
    let unreadable = Budget { unreadable: 1, ..CALM };
    let spoiled = Budget { spoiled: 1, ..CALM };
    let restored = Budget { brought_back: 1, ..spoiled };
    let time = Budget { times: 2, ..CALM };
    let lost = Budget { lost_manifests: 1, evictions: 1, ..CALM };
    vec![
        (Fault::NoWatermarkCheck, I7, zombie),
        (Fault::WatermarkTooHigh, I7, zombie),
        (Fault::NoVersionCondition, I7, CALM),
        (Fault::NoCommitFence, I7, silent),
        (Fault::UpsertBeforeCommit, I2, crash),
        (Fault::PublishBeforeCommit, I3, CALM),
        (Fault::NumberBeforeEntry, I7, silent),
        (Fault::NumberReused, I7, CALM),
        (Fault::TakeOverUnchecked, I7, CALM),
        (Fault::TakeOverUnconditional, I7, zombie),
        (Fault::LiveIsDuplicate, I5, silent),
        (Fault::AcknowledgeBeforeCommit, I5, silent),
        (Fault::UnconditionalDelete, I1, overwrite),
        (Fault::DeleteBeforeCopy, I1, CALM),
        (Fault::UnconditionalRead, I2, overwrite),
        (Fault::GoneKeepsClaim, I7, again),
        (Fault::DuplicateUnconfirmed, I5, again),
        (Fault::UnlistBeforeRecord, I2, overwrite),
        (Fault::AsideKeepsClaim, I5, unreadable),
        (Fault::AsideForgotten, I5, unreadable),
        (Fault::AsideUnconfirmed, I5, Budget { evictions: 1, ..unreadable }),
        (Fault::ParkForgotten, FIGURES, spoiled),
        (Fault::ParkStopsBatch, I7, spoiled),
        (Fault::RestoreByAdding, I7, spoiled),
        (Fault::RestoreOverLater, FIGURES, restored),
        (Fault::RestoreUnwaited, FIGURES, restored),
        (Fault::UnlistUnconditional, FIGURES, restored),
        (Fault::LeftReleasesClaim, I3, Budget { unmovable: 1, repeats: 1, ..CALM }),
        (Fault::RegistryUnbounded, I6, Budget { room: 1, ..CALM }),
        (Fault::LeaveNotRenewed, I2, time),
        (Fault::RenewUnconditional, I7, Budget { looks: 1, ..again }),
        (Fault::AsideBatchDone, I5, lost),
        (Fault::AsideBatchAbandoned, I2, Budget { brought_back: 1, ..lost }),
        (Fault::OpenUnderAnother, I8, Budget { applied: 1, ..CALM }),
        (Fault::CommitUnderAnother, I8, Budget { applied: 1, ..CALM }),
    ]
}

#[test]
fn every_broken_variant_is_caught() {
    for (fault, invariant, budget) in variants() {
        let (states, time, broken) = check(budget, fault, &[invariant]);
        println!("{fault:?} breaks {invariant}: seen after {states} states, {:.1} s", time.as_secs_f64());
        assert!(broken.contains(&invariant), "{fault:?} is not caught: {broken:?}");
    }
}
