//! The world of the model: S3, SQS, DynamoDB and consumers, reduced to what the protocol depends on, and every step that a
//! consumer takes in it. A step is one call to a service, so everything that can happen between two calls is explored.
//!
//! What a step decides is decided by the functions that the program itself calls: [`Registry`], [`contest`], [`Applied`].

use music_streams::protocol::{Applied, BatchNumber, Change, Contest, Registry, State, contest};

/// Contents of objects that exist in the model.
pub const OBJECTS: usize = 3;
/// The key of each. Objects 0 and 2 are two contents of one key, so that putting one overwrites the other.
const KEY_OF: [usize; OBJECTS] = [0, 1, 0];
const KEYS: usize = 2;
/// The report items that have rows of each.
const ITEMS_OF: [&[usize]; OBJECTS] = [&[0], &[0, 1], &[1]];
const ITEMS: usize = 2;
pub const CONSUMERS: usize = 2;
/// One more than the highest batch number.
const BATCHES: usize = 16;

/// A set of objects, one bit each.
pub type Objects = u8;

fn has(objects: Objects, object: usize) -> bool {
    objects & (1 << object) != 0
}

fn members(objects: Objects) -> impl Iterator<Item = usize> {
    (0..OBJECTS).filter(move |&object| has(objects, object))
}

/// What is wrong with the protocol, in the variants that must be caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Nothing: the protocol as it is.
    None,
    /// An item's watermark is not looked at, only its list.
    NoWatermarkCheck,
    /// The watermark passes batches that are not finished, so lists are emptied early.
    WatermarkTooHigh,
    /// Items are written without a condition on their version.
    NoVersionCondition,
    /// A batch that was abandoned commits all the same.
    NoCommitFence,
    /// Items are written before the commit.
    UpsertBeforeCommit,
    /// Curated files are completed before the commit.
    PublishBeforeCommit,
    /// A batch takes its number in one write and is listed in another.
    NumberBeforeEntry,
    /// A number is used again once its batch has left the registry.
    NumberReused,
    /// A claim is taken over without a look at the batch that holds it.
    TakeOverUnchecked,
    /// A claim is taken over without a condition on its holder.
    TakeOverUnconditional,
    /// The announcement of an object that a live batch holds counts as a duplicate.
    LiveIsDuplicate,
    /// Messages are deleted before the commit.
    AcknowledgeBeforeCommit,
    /// The source is deleted whatever is there by now.
    UnconditionalDelete,
    /// The source is deleted before it was copied.
    DeleteBeforeCopy,
    /// What is under the key is read, not the content that was announced.
    UnconditionalRead,
    /// An object that was gone keeps its claim, so that it counts as finished when it comes back.
    GoneKeepsClaim,
    /// A claim is not looked at again after its batch was found done, when it may have been released.
    DuplicateUnconfirmed,
    /// A batch leaves the registry before its record is written.
    UnlistBeforeRecord,
}

/// What each invariant is called.
pub const I1: &str = "I1 nothing is deleted unread";
pub const I2: &str = "I2 nothing is counted twice";
pub const I3: &str = "I3 curated files are of committed batches, and show an object once";
pub const I5: &str = "I5 what is incoming and not counted is announced";
pub const I7: &str = "I7 one consumer, started alone, brings everything to its end";

/// A report item.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Item {
    applied: Applied,
    /// How often the rows of each object are in it.
    pub counts: [u8; OBJECTS],
    version: u8,
}

/// What a batch wrote before its commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Manifest {
    /// Objects whose content was read under each announced object: normally itself.
    read: [Option<u8>; OBJECTS],
    /// Objects that were gone.
    gone: Objects,
}

impl Manifest {
    /// Contents whose rows are in the batch.
    fn contents(&self) -> Objects {
        self.read.iter().flatten().fold(0, |set, &content| set | 1 << content)
    }

    fn counts(&self, item: usize) -> [u8; OBJECTS] {
        let mut counts = [0; OBJECTS];
        for &content in self.read.iter().flatten() {
            counts[content as usize] += u8::from(ITEMS_OF[content as usize].contains(&item));
        }
        counts
    }
}

/// What a consumer does next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    Open,
    List,
    Claim(usize),
    JudgeByRegistry { object: usize, holder: BatchNumber },
    JudgeByRecord { object: usize, holder: BatchNumber },
    ConfirmDuplicate { object: usize, holder: BatchNumber },
    TakeOver { object: usize, holder: BatchNumber },
    Prepare,
    Commit,
    Watermark,
    ReadItem { item: usize, through: BatchNumber },
    WriteItem { item: usize, through: BatchNumber, seen: Item },
    Publish,
    Copy(usize),
    Delete(usize),
    ReleaseClaim(usize),
    Record(State),
    Unlist(State),
    Acknowledge,
    Abandon,
    Clear,
}

/// A batch in a consumer's hands. All of it is lost in a crash.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Task {
    batch: BatchNumber,
    /// Announced objects of the window.
    window: Objects,
    /// The messages that announced them.
    messages: [u8; OBJECTS],
    won: Objects,
    /// Objects whose messages can be deleted.
    finished: Objects,
    pub step: Step,
}

/// A consumer: which life it is in, and what it is at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Consumer {
    life: u8,
    pub task: Option<Task>,
}

/// How often things may still go wrong, which is what makes the model finite.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Batch numbers.
    pub batches: BatchNumber,
    /// Crashes.
    pub crashes: u8,
    /// A consumer takes another, alive or dead, for dead.
    pub evictions: u8,
    /// A write happens and its answer is lost.
    pub lost_answers: u8,
    /// A batch is given up before its commit: a stop signal, a call that failed.
    pub stops: u8,
    /// An object is put, or put again.
    pub puts: u8,
    /// A notification is repeated after its message was deleted, or the sweep finds the object.
    pub repeats: u8,
}

/// Everything there is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// The content under each key of the incoming prefix.
    pub incoming: [Option<u8>; KEYS],
    /// Every content that was ever put.
    pub put: Objects,
    /// Contents that their owner overwrote; not those put again since.
    pub overwritten: Objects,
    /// Contents that were put more than once: one that was counted before stays where it is.
    pub put_again: Objects,
    /// Messages that are not deleted, for each object a bit for each message.
    messages: [u8; OBJECTS],
    /// How many messages there were for each object.
    announced: [u8; OBJECTS],
    claims: [BatchNumber; OBJECTS],
    registry: Registry,
    records: [Option<State>; BATCHES],
    manifests: [Option<Manifest>; BATCHES],
    /// Contents in the uploads of each batch that are not completed.
    uploads: [Objects; BATCHES],
    /// Contents in completed uploads: what is under the curated prefix.
    pub curated: [Objects; BATCHES],
    /// What each batch put into its folder of the archive.
    pub archive: [Objects; BATCHES],
    pub items: [Item; ITEMS],
    pub consumers: [Consumer; CONSUMERS],
    pub budget: Budget,
    /// Batches that were ever committed: known to the model only.
    pub committed: u64,
}

impl World {
    /// Objects 0 and 1 lie under their keys and are announced.
    pub fn new(budget: Budget) -> Self {
        World {
            incoming: [Some(0), Some(1)],
            put: 0b011,
            overwritten: 0,
            put_again: 0,
            messages: [1, 1, 0],
            announced: [1, 1, 0],
            claims: [0; OBJECTS],
            registry: Registry::default(),
            records: [None; BATCHES],
            manifests: [None; BATCHES],
            uploads: [0; BATCHES],
            curated: [0; BATCHES],
            archive: [0; BATCHES],
            items: Default::default(),
            consumers: Default::default(),
            budget,
            committed: 0,
        }
    }

    /// The content of an object is what lies under its key.
    pub fn is_incoming(&self, object: usize) -> bool {
        self.incoming[KEY_OF[object]] == Some(object as u8)
    }

    /// Whether a report item has rows of an object.
    pub fn is_of_item(object: usize, item: usize) -> bool {
        ITEMS_OF[object].contains(&item)
    }

    /// In how many places of the archive an object is.
    pub fn archived(&self, object: usize) -> usize {
        self.archive.iter().filter(|&&objects| has(objects, object)).count()
    }

    /// In how many curated files the rows of an object are.
    pub fn curated(&self, object: usize) -> usize {
        self.curated.iter().filter(|&&contents| has(contents, object)).count()
    }

    /// Nothing is left to do: no message and no batch.
    pub fn is_settled(&self) -> bool {
        self.messages == [0; OBJECTS] && self.registry.batches.is_empty()
    }

    /// The owner of the bucket puts an object, over whatever is there.
    pub fn put(&mut self, object: usize) {
        if let Some(content) = self.incoming[KEY_OF[object]].replace(object as u8) {
            self.overwritten |= 1 << content;
        }
        self.overwritten &= !(1 << object);
        self.put_again |= self.put & 1 << object;
        self.put |= 1 << object;
        self.announce(object);
    }

    /// A new message names the object.
    pub fn announce(&mut self, object: usize) {
        self.messages[object] |= 1 << self.announced[object];
        self.announced[object] += 1;
    }

    /// Objects that have a message.
    pub fn announced(&self) -> Objects {
        (0..OBJECTS).filter(|&object| self.messages[object] != 0).fold(0, |set, object| set | 1 << object)
    }

    fn delete_messages(&mut self, objects: Objects, taken: [u8; OBJECTS]) {
        members(objects).for_each(|object| self.messages[object] &= !taken[object]);
    }

    /// The world without consumers, and without what is only ever different between worlds that go on alike.
    pub fn without_consumers(&self) -> World {
        let mut world = self.clone();
        world.consumers = Default::default();
        world.budget = Budget::default();
        for entry in world.registry.batches.values_mut() {
            entry.owner.clear();
        }
        world
    }

    pub fn crash(&mut self, consumer: usize) {
        self.consumers[consumer].life += 1;
        self.consumers[consumer].task = None;
    }

    /// An idle consumer closes a window on announced objects.
    pub fn begin(&mut self, consumer: usize, window: Objects) {
        let task = Task { batch: 0, window, messages: self.messages, won: 0, finished: 0, step: Step::Open };
        self.consumers[consumer].task = Some(task);
    }

    /// Batches that may be taken for a silent owner's.
    pub fn listed(&self) -> impl Iterator<Item = BatchNumber> {
        self.registry.batches.keys().copied()
    }

    /// An idle consumer takes the owner of a listed batch for dead.
    pub fn recover(&mut self, consumer: usize, batch: BatchNumber) {
        let Some(entry) = self.registry.batches.get(&batch).cloned() else { return };
        let me = self.name(consumer);
        let step = match entry.state {
            State::Open => {
                self.change(self.registry.abandon(batch, &entry));
                Step::Clear
            }
            State::Abandoned => Step::Clear,
            State::Committed => {
                self.change(self.registry.adopt(batch, &entry, &me));
                Step::Watermark
            }
            State::Done => return,
        };
        self.consumers[consumer].task =
            Some(Task { batch, window: 0, messages: [0; OBJECTS], won: 0, finished: 0, step });
    }

    /// A consumer gives its batch up, where it may.
    pub fn stop(&mut self, consumer: usize) {
        if let Some(task) = &mut self.consumers[consumer].task {
            task.step = Step::Abandon;
        }
    }

    /// Whether a consumer's batch is before its commit, and so can be given up.
    pub fn can_stop(&self, consumer: usize) -> bool {
        let step = self.consumers[consumer].task.as_ref().map(|task| &task.step);
        matches!(step, Some(Step::Claim(_) | Step::Prepare))
    }

    fn name(&self, consumer: usize) -> String {
        format!("{consumer}.{}", self.consumers[consumer].life)
    }

    /// Carries out a change of the registry. Whether it holds now.
    fn change(&mut self, change: Change) -> bool {
        match change {
            Change::To(next) => {
                self.registry = next;
                true
            }
            Change::Already => true,
            Change::Refused => false,
        }
    }

    /// Carries out the next step of a consumer.
    pub fn step(&mut self, consumer: usize, fault: Fault) {
        let Some(mut task) = self.consumers[consumer].task.take() else { return };
        self.consumers[consumer].task = self.take_step(&mut task, &self.name(consumer), fault).map(|step| {
            task.step = step;
            task
        });
    }

    /// Does what the step says, and says what comes next.
    fn take_step(&mut self, task: &mut Task, me: &str, fault: Fault) -> Option<Step> {
        let Task { batch, window, .. } = *task;
        match task.step.clone() {
            Step::Open => {
                if fault == Fault::NumberReused {
                    self.registry.last = self.registry.batches.keys().last().copied().unwrap_or(0);
                }
                let (number, next) = self.registry.open(me, 0);
                task.batch = number;
                if fault == Fault::NumberBeforeEntry {
                    self.registry.last = number;
                    return Some(Step::List);
                }
                self.registry = next;
                Some(next_claim(window, 0))
            }
            Step::List => {
                let before = Registry { last: batch - 1, batches: self.registry.batches.clone() };
                self.registry.batches = before.open(me, 0).1.batches;
                Some(next_claim(window, 0))
            }
            Step::Claim(object) => match self.claims[object] {
                0 => {
                    self.claims[object] = batch;
                    self.claimed(task, object)
                }
                holder if holder == batch => self.claimed(task, object),
                holder if fault == Fault::TakeOverUnchecked => Some(Step::TakeOver { object, holder }),
                holder => Some(Step::JudgeByRegistry { object, holder }),
            },
            Step::JudgeByRegistry { object, holder } => match self.registry.batches.get(&holder) {
                Some(entry) => Some(judged(task, object, holder, Some(entry.state), fault)),
                None => Some(Step::JudgeByRecord { object, holder }),
            },
            Step::JudgeByRecord { object, holder } => {
                Some(judged(task, object, holder, self.records[holder as usize], fault))
            }
            Step::ConfirmDuplicate { object, holder } => {
                let current = self.claims[object];
                if current != holder && fault != Fault::DuplicateUnconfirmed {
                    return Some(match current {
                        0 => Step::TakeOver { object, holder: 0 },
                        current => Step::JudgeByRegistry { object, holder: current },
                    });
                }
                task.finished |= 1 << object;
                Some(next_claim(window, object + 1))
            }
            Step::TakeOver { object, holder } => {
                let current = self.claims[object];
                // One's own claim: the answer to an earlier try was lost.
                if current != holder && current != batch && current != 0 && fault != Fault::TakeOverUnconditional {
                    return Some(Step::JudgeByRegistry { object, holder: current });
                }
                self.claims[object] = batch;
                self.claimed(task, object)
            }
            Step::Prepare => {
                if task.won == 0 {
                    return Some(Step::Abandon);
                }
                let mut manifest = Manifest { read: [None; OBJECTS], gone: 0 };
                for object in members(task.won) {
                    match self.incoming[KEY_OF[object]] {
                        Some(content) if content as usize == object || fault == Fault::UnconditionalRead => {
                            manifest.read[object] = Some(content);
                        }
                        _ => manifest.gone |= 1 << object,
                    }
                }
                self.manifests[batch as usize] = Some(manifest);
                self.uploads[batch as usize] = manifest.contents();
                if fault == Fault::AcknowledgeBeforeCommit {
                    self.delete_messages(task.won, task.messages);
                }
                match fault {
                    Fault::UpsertBeforeCommit => Some(Step::Watermark),
                    Fault::PublishBeforeCommit => Some(Step::Publish),
                    _ => Some(Step::Commit),
                }
            }
            Step::Commit => {
                let change = self.registry.commit(batch, me);
                if self.change(change) || fault == Fault::NoCommitFence {
                    self.committed |= 1 << batch;
                    return Some(if fault == Fault::UpsertBeforeCommit { Step::Publish } else { Step::Watermark });
                }
                Some(Step::Abandon)
            }
            Step::Watermark => {
                let mut through = self.registry.applied_through();
                if fault == Fault::WatermarkTooHigh {
                    through = self.registry.last;
                }
                // Without its manifest a batch cannot go on; it stays committed, which the properties notice.
                self.manifest(batch).map(|_| Step::ReadItem { item: 0, through: through.min(batch - 1) })
            }
            Step::ReadItem { item, through } => {
                let seen = self.items[item].clone();
                let wanted = self.manifest(batch).is_some_and(|manifest| manifest.counts(item) != [0; OBJECTS]);
                let contained = match fault {
                    Fault::NoWatermarkCheck => seen.applied.listed.contains(&batch),
                    _ => seen.applied.contains(batch),
                };
                let write = wanted && !contained;
                Some(if write { Step::WriteItem { item, through, seen } } else { after_item(item, through, fault) })
            }
            Step::WriteItem { item, through, seen } => {
                if self.items[item].version != seen.version && fault != Fault::NoVersionCondition {
                    return Some(Step::ReadItem { item, through });
                }
                let counts = self.manifest(batch).map_or([0; OBJECTS], |manifest| manifest.counts(item));
                let mut next = seen;
                (0..OBJECTS).for_each(|object| next.counts[object] += counts[object]);
                next.applied = next.applied.with(batch, through);
                next.version += 1;
                self.items[item] = next;
                Some(after_item(item, through, fault))
            }
            Step::Publish => {
                self.curated[batch as usize] |= std::mem::take(&mut self.uploads[batch as usize]);
                let is_committed = self.committed & 1 << batch != 0;
                Some(match fault {
                    Fault::PublishBeforeCommit if !is_committed => Step::Commit,
                    _ => self.next_move(batch, 0, fault),
                })
            }
            Step::Copy(object) => {
                let copied = self.is_incoming(object);
                if copied {
                    self.archive[batch as usize] |= 1 << object;
                }
                Some(match fault {
                    // Nothing to copy: moved already, or replaced by its owner.
                    _ if !copied => self.next_move(batch, object + 1, fault),
                    Fault::DeleteBeforeCopy => self.next_move(batch, object + 1, fault),
                    _ => Step::Delete(object),
                })
            }
            Step::Delete(object) => {
                if self.is_incoming(object) || fault == Fault::UnconditionalDelete {
                    self.incoming[KEY_OF[object]] = None;
                }
                Some(match fault {
                    Fault::DeleteBeforeCopy => Step::Copy(object),
                    _ => self.next_move(batch, object + 1, fault),
                })
            }
            Step::ReleaseClaim(object) => {
                if self.claims[object] == batch && fault != Fault::GoneKeepsClaim {
                    self.claims[object] = 0;
                }
                Some(self.next_release(batch, object + 1, fault))
            }
            Step::Record(state) => {
                self.records[batch as usize] = Some(state);
                Some(if fault == Fault::UnlistBeforeRecord { after_close(task, state) } else { Step::Unlist(state) })
            }
            Step::Unlist(state) => {
                let change = self.registry.close(batch);
                self.change(change);
                Some(if fault == Fault::UnlistBeforeRecord { Step::Record(state) } else { after_close(task, state) })
            }
            Step::Acknowledge => {
                self.delete_messages(task.finished, task.messages);
                None
            }
            Step::Abandon => {
                let change = self.registry.abandon_own(batch, me);
                let is_abandoned = self.change(change)
                    || match self.registry.batches.get(&batch) {
                        Some(entry) => entry.state == State::Abandoned,
                        None => self.records[batch as usize] == Some(State::Abandoned),
                    };
                Some(if is_abandoned { Step::Clear } else { Step::Acknowledge })
            }
            Step::Clear => {
                self.uploads[batch as usize] = 0;
                self.manifests[batch as usize] = None;
                Some(close(State::Abandoned, fault))
            }
        }
    }

    fn manifest(&self, batch: BatchNumber) -> Option<&Manifest> {
        self.manifests[batch as usize].as_ref()
    }

    fn claimed(&self, task: &mut Task, object: usize) -> Option<Step> {
        task.won |= 1 << object;
        Some(next_claim(task.window, object + 1))
    }

    /// The next object that was read, from `from` on; then the claims of those that were gone.
    fn next_move(&self, batch: BatchNumber, from: usize, fault: Fault) -> Step {
        let step = if fault == Fault::DeleteBeforeCopy { Step::Delete } else { Step::Copy };
        let read = |&object: &usize| self.manifest(batch).is_some_and(|manifest| manifest.read[object].is_some());
        match (from..OBJECTS).find(read) {
            Some(object) => step(object),
            None => self.next_release(batch, 0, fault),
        }
    }

    fn next_release(&self, batch: BatchNumber, from: usize, fault: Fault) -> Step {
        let gone = |&object: &usize| self.manifest(batch).is_some_and(|manifest| has(manifest.gone, object));
        (from..OBJECTS).find(gone).map_or(close(State::Done, fault), Step::ReleaseClaim)
    }
}

fn next_claim(window: Objects, from: usize) -> Step {
    (from..OBJECTS).find(|&object| has(window, object)).map_or(Step::Prepare, Step::Claim)
}

fn judged(task: &mut Task, object: usize, holder: BatchNumber, state: Option<State>, fault: Fault) -> Step {
    let mut contest = contest(state);
    if fault == Fault::LiveIsDuplicate && contest == Contest::Leave {
        contest = Contest::Duplicate;
    }
    match contest {
        Contest::Duplicate => Step::ConfirmDuplicate { object, holder },
        Contest::Leave => next_claim(task.window, object + 1),
        Contest::TakeOver => Step::TakeOver { object, holder },
    }
}

fn after_item(item: usize, through: BatchNumber, fault: Fault) -> Step {
    match item + 1 {
        item if item < ITEMS => Step::ReadItem { item, through },
        _ if fault == Fault::UpsertBeforeCommit => Step::Commit,
        _ => Step::Publish,
    }
}

fn close(state: State, fault: Fault) -> Step {
    if fault == Fault::UnlistBeforeRecord { Step::Unlist(state) } else { Step::Record(state) }
}

fn after_close(task: &mut Task, state: State) -> Step {
    if state == State::Done {
        task.finished |= task.won;
    }
    Step::Acknowledge
}
