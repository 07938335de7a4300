//! The protocol, explored exhaustively: every interleaving of two consumers and the owner of the bucket, with crashes,
//! evictions of the living and the dead, lost answers, repeated notifications and overwritten objects.
//!
//! In every state that can be reached, the invariants of `src/lib.rs` must hold, and from every one of them a single
//! consumer that is started alone must bring everything to its end, with every object counted once. And the model must be
//! able to fail: each of the variants in [`Fault`] breaks the protocol in one place, and each is caught.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr, missing_docs)]

mod world;

use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model, Property};
use world::{Budget, Fault, I1, I2, I3, I5, I7, OBJECTS, Objects, Step, World};

/// What can happen next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Action {
    /// An idle consumer closes a window on these objects.
    Begin(usize, Objects),
    /// A consumer takes its next step.
    Step(usize),
    /// A consumer's next step happens, but the consumer does not learn of it and will try again.
    LoseAnswer(usize),
    /// A consumer gives up its batch.
    Stop(usize),
    /// A consumer dies and is started again, with nothing in memory.
    Crash(usize),
    /// An idle consumer takes the owner of a batch for dead.
    Recover(usize, u64),
    /// The owner of the bucket puts an object.
    Put(usize),
    /// An object is announced again, by S3, SQS or the sweep.
    Repeat(usize),
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
            match &state.task {
                Some(task) => {
                    actions.push(Action::Step(consumer));
                    // A read whose answer is lost is a read later on.
                    let is_read = matches!(
                        task.step,
                        Step::JudgeByRegistry { .. }
                            | Step::JudgeByRecord { .. }
                            | Step::ReadItem { .. }
                            | Step::Watermark
                    );
                    if budget.lost_answers > 0 && !is_read {
                        actions.push(Action::LoseAnswer(consumer));
                    }
                    if budget.stops > 0 && world.can_stop(consumer) {
                        actions.push(Action::Stop(consumer));
                    }
                    if budget.crashes > 0 {
                        actions.push(Action::Crash(consumer));
                    }
                }
                None => {
                    if budget.batches > 0 {
                        let windows = (1..1 << OBJECTS).filter(|window| window & !world.announced() == 0);
                        actions.extend(windows.map(|window| Action::Begin(consumer, window)));
                    }
                    if budget.evictions > 0 {
                        actions.extend(world.listed().map(|batch| Action::Recover(consumer, batch)));
                    }
                }
            }
        }
        if budget.puts > 0 {
            actions.extend([0, 2].into_iter().filter(|&object| !world.is_incoming(object)).map(Action::Put));
        }
        if budget.repeats > 0 {
            let silent = |&object: &usize| world.put & 1 << object != 0 && world.announced() & 1 << object == 0;
            actions.extend((0..OBJECTS).filter(silent).map(Action::Repeat));
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
            Property::always(I5, |_, world: &World| {
                let is = |objects: &Objects, object: usize| objects & 1 << object != 0;
                put(world).all(|object| {
                    !world.is_incoming(object) || is(&world.announced(), object) || world.curated(object) > 0
                })
            }),
            Property::always(I7, |protocol: &Protocol, world| protocol.converges(world)),
        ]
    }
}

fn put(world: &World) -> impl Iterator<Item = usize> {
    let put = world.put;
    (0..OBJECTS).filter(move |object| put & 1 << object != 0)
}

impl Protocol {
    /// Every consumer dies; one is started and works until there is nothing to do. Are the figures right then?
    fn converges(&self, world: &World) -> bool {
        let mut world = world.without_consumers();
        let mut hasher = std::hash::DefaultHasher::new();
        world.hash(&mut hasher);
        let hash = hasher.finish();
        let is_known = || self.converging.lock().unwrap().contains(&hash);
        is_known() || {
            self.work_alone(&mut world);
            let is_right = is_at_its_end(&world);
            if is_right {
                self.converging.lock().unwrap().insert(hash);
            }
            is_right
        }
    }

    fn work_alone(&self, world: &mut World) {
        // A life of its own: it is none of the owners in the registry.
        world.crash(0);
        for _ in 0..200 {
            let overdue = world.listed().next();
            match (&world.consumers[0].task, overdue) {
                (Some(_), _) => world.step(0, self.fault),
                (None, Some(batch)) => world.recover(0, batch),
                (None, None) if world.announced() != 0 => world.begin(0, world.announced()),
                (None, None) => break,
            }
        }
    }
}

/// Whether nothing is left to do, every object counts once, and each lies where it should.
fn is_at_its_end(world: &World) -> bool {
    world.is_settled()
        && put(world).all(|object| {
            let is = |objects: Objects| objects & 1 << object != 0;
            let is_counted = world.curated(object) > 0;
            let is_in_its_items =
                world.items.iter().enumerate().all(|(item, stored)| {
                    stored.counts[object] == u8::from(is_counted && World::is_of_item(object, item))
                });
            let place = match (world.is_incoming(object), world.archived(object)) {
                (false, 1) => is_counted,
                (false, 0) => is(world.overwritten),
                (true, _) => is_counted && is(world.put_again),
                _ => false,
            };
            is_in_its_items && place
        })
}

/// What goes wrong in each of the short explorations, and in the long one everything at once.
const SHORT: [Budget; 3] = [
    Budget { batches: 2, crashes: 1, evictions: 2, lost_answers: 0, stops: 0, puts: 0, repeats: 0 },
    Budget { batches: 2, crashes: 0, evictions: 1, lost_answers: 1, stops: 0, puts: 0, repeats: 1 },
    Budget { batches: 2, crashes: 0, evictions: 0, lost_answers: 0, stops: 1, puts: 2, repeats: 0 },
];
const LONG: [Budget; 1] =
    [Budget { batches: 2, crashes: 1, evictions: 1, lost_answers: 1, stops: 1, puts: 1, repeats: 1 }];

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

/// What a random walk may meet: more of everything than can be explored.
const WALK: Budget = Budget { batches: 8, crashes: 4, evictions: 5, lost_answers: 4, stops: 3, puts: 3, repeats: 3 };

/// Takes random actions until none is left, and checks every property in every state. The same seed takes the same walk.
fn walk(seed: u64) -> Result<usize, String> {
    let protocol = Protocol { budget: WALK, fault: Fault::None, converging: Mutex::default() };
    let properties = protocol.properties();
    let mut world = World::new(WALK);
    let mut random = seed;
    let mut actions = Vec::new();
    for steps in 0.. {
        if let Some(broken) = properties.iter().find(|property| !(property.condition)(&protocol, &world)) {
            return Err(format!("seed {seed}: after {steps} steps: {}", broken.name));
        }
        actions.clear();
        protocol.actions(&world, &mut actions);
        // Steps are what consumers mostly do; troubles are rare, or a walk would be over at once.
        if !next(&mut random).is_multiple_of(8) && actions.iter().any(|action| matches!(action, Action::Step(_))) {
            actions.retain(|action| matches!(action, Action::Step(_)));
        }
        if actions.is_empty() {
            return Ok(steps);
        }
        let chosen = actions.swap_remove(next(&mut random) as usize % actions.len());
        world = protocol.next_state(&world, chosen).unwrap();
    }
    Ok(0)
}

/// SplitMix64, <https://prng.di.unimi.it/splitmix64.c>.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
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

/// Every variant that must be caught, the invariant that it breaks, and the troubles in which that shows.
fn variants() -> [(Fault, &'static str, Budget); 18] {
    let calm = Budget { batches: 2, ..Budget::default() };
    let silent = Budget { evictions: 1, ..calm };
    let zombie = Budget { batches: 3, evictions: 2, ..calm };
    let crash = Budget { crashes: 1, evictions: 1, ..calm };
    let overwrite = Budget { puts: 1, ..calm };
    let again = Budget { puts: 2, ..calm };
    [
        (Fault::NoWatermarkCheck, I7, zombie),
        (Fault::WatermarkTooHigh, I7, zombie),
        (Fault::NoVersionCondition, I7, calm),
        (Fault::NoCommitFence, I7, silent),
        (Fault::UpsertBeforeCommit, I2, crash),
        (Fault::PublishBeforeCommit, I3, calm),
        (Fault::NumberBeforeEntry, I7, silent),
        (Fault::NumberReused, I7, calm),
        (Fault::TakeOverUnchecked, I7, calm),
        (Fault::TakeOverUnconditional, I7, zombie),
        (Fault::LiveIsDuplicate, I5, silent),
        (Fault::AcknowledgeBeforeCommit, I5, silent),
        (Fault::UnconditionalDelete, I1, overwrite),
        (Fault::DeleteBeforeCopy, I1, calm),
        (Fault::UnconditionalRead, I2, overwrite),
        (Fault::GoneKeepsClaim, I7, again),
        (Fault::DuplicateUnconfirmed, I5, again),
        (Fault::UnlistBeforeRecord, I2, overwrite),
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
