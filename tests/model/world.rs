//! The world of the model: S3, SQS, DynamoDB, consumers, a sweep and an operator, reduced to what the protocol depends
//! on, and the events from outside. The steps of consumers and of the operator are in [`crate::steps`].

use music_streams::protocol::{
    Applied, BatchNumber, Change, ClaimConflict, InForce, MAX_UNFINISHED, Registry, State, resolve,
};

use crate::steps::{Task, Way};

/// Contents of objects that exist in the model.
pub const OBJECTS: usize = 3;
/// The key of each. Objects 0 and 2 are two contents of one key, so that putting one overwrites the other.
pub const KEY_OF: [usize; OBJECTS] = [0, 1, 0];
const KEYS: usize = 2;
/// The report items that have rows of each.
const ITEMS_OF: [&[usize]; OBJECTS] = [&[0], &[0, 1], &[1]];
pub const ITEMS: usize = 2;
/// The number of consumers. The operator has the next index.
pub const CONSUMERS: usize = 2;
pub const OPERATOR: usize = CONSUMERS;
/// One more than the highest batch number.
pub const BATCHES: usize = 16;
/// The least version of replaced items, above any that counting up reaches.
pub const REPLACED: u8 = 100;

/// A set of objects, one bit each.
pub type Objects = u8;
/// A set of batches, one bit each.
pub type Batches = u16;

pub fn has(objects: Objects, object: usize) -> bool {
    objects & (1 << object) != 0
}

pub fn members(objects: Objects) -> impl Iterator<Item = usize> {
    (0..OBJECTS).filter(move |&object| has(objects, object))
}

/// A fault of the protocol, in the variants that must be caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Nothing: the protocol as it is.
    None,
    /// An item's watermark is ignored, and only its list is used.
    NoWatermarkCheck,
    /// The watermark passes batches that are not finished, so lists are emptied early.
    WatermarkTooHigh,
    /// Items are written without a condition on their version.
    NoVersionCondition,
    /// An abandoned batch commits nevertheless.
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
    /// The source is deleted without a condition on its content.
    UnconditionalDelete,
    /// The source is deleted before it was copied.
    DeleteBeforeCopy,
    /// The current content of the key is read, not the announced one.
    UnconditionalRead,
    /// An object that was gone keeps its claim, so that it counts as finished when it comes back.
    GoneKeepsClaim,
    /// A claim is not looked at again after its batch was found done, when it may have been released.
    DuplicateUnconfirmed,
    /// A batch leaves the registry before its record is written.
    UnlistBeforeRecord,
    /// An object that is left out of a batch stays claimed by it.
    AsideKeepsClaim,
    /// An object that is left out of a batch has no holder, and is not marked as set aside.
    AsideForgotten,
    /// An object counts as set aside although its claim was another batch's by then.
    AsideUnconfirmed,
    /// A report item that is refused is not listed.
    ParkForgotten,
    /// A batch stops when a report item is refused.
    ParkStopsBatch,
    /// The missing figures of a report item are added by the rule for batches.
    RestoreByAdding,
    /// A report item's figures are replaced although it has a later batch in it.
    RestoreOverLater,
    /// Figures are added up without waiting for the batches at work.
    RestoreUnwaited,
    /// A report item is removed from the list although it was listed again meanwhile.
    UnlistUnconditional,
    /// The claim on an object that is left where it lies is released.
    LeftReleasesClaim,
    /// A batch is opened without a limit on unfinished ones.
    RegistryUnbounded,
    /// The claims of batches that are not finished are not renewed.
    LeaveNotRenewed,
    /// A claim is renewed without a condition on the batch that was judged.
    RenewUnconditional,
    /// A batch that is set aside is recorded as done.
    AsideBatchDone,
    /// A batch that is set aside is recorded as abandoned.
    AsideBatchAbandoned,
    /// A batch is opened and prepared under the definition that its consumer knew, whatever is in force.
    OpenUnderAnother,
    /// A batch is committed whatever definition has come into force since it was prepared.
    CommitUnderAnother,
}

/// The names of the invariants.
pub const I1: &str = "I1 nothing is deleted unread";
pub const I2: &str = "I2 nothing is counted twice";
pub const FIGURES: &str = "I2 every item has what is done, or is set aside";
pub const I3: &str = "I3 curated files are of committed batches, and show an object once";
pub const I5: &str = "I5 what is incoming and not counted is announced, or set aside";
pub const I6: &str = "I6 the registry is bounded";
pub const I8: &str = "I8 a batch was prepared under the definition in force at its commit";
pub const I7: &str = "I7 one consumer, started alone, brings everything to its end, and what is set aside comes back";

/// A report item.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Item {
    pub applied: Applied,
    /// The number of times that it contains the rows of each object.
    pub counts: [u8; OBJECTS],
    pub version: u8,
}

/// The manifest of a batch, written before its commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Manifest {
    /// Objects whose content was read under each announced object: normally itself.
    pub read: [Option<u8>; OBJECTS],
    /// Objects that were missing.
    pub gone: Objects,
    /// The definition by which it was prepared.
    pub definition: u64,
}

impl Manifest {
    /// Contents whose rows are in the batch.
    pub fn contents(&self) -> Objects {
        self.read.iter().flatten().fold(0, |set, &content| set | 1 << content)
    }

    pub fn counts(&self, item: usize) -> [u8; OBJECTS] {
        let mut counts = [0; OBJECTS];
        for &content in self.read.iter().flatten() {
            counts[content as usize] += u8::from(ITEMS_OF[content as usize].contains(&item));
        }
        counts
    }
}

/// The pause of an object that is set aside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Pause {
    /// It is not set aside.
    #[default]
    No,
    /// It is set aside and listed, and is not tried again yet.
    Lasts,
    /// It is set aside and listed until a batch takes it over.
    Over,
}

/// A claim on an object. The default stands for no claim.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The batch that has it; 0 for none.
    pub batch: BatchNumber,
    /// True once its object was seen to be finished but still in its place.
    pub renewed: bool,
    pub pause: Pause,
    /// True if it was made or renewed since time last passed.
    pub kept: bool,
}

impl Claim {
    pub fn of(batch: BatchNumber) -> Self {
        Claim { batch, kept: true, ..Claim::default() }
    }
}

/// The sweep's view of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Look {
    object: usize,
    holder: Claim,
    /// The verdict, once there is one: true if the object is finished, false if its batch is not.
    is_finished: Option<bool>,
}

/// A consumer or the operator: the number of its starts, and its work.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Consumer {
    pub life: u8,
    pub task: Option<Task>,
}

/// The number of times that each optional event may still happen, which makes the model finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Batches that the registry may list.
    pub room: usize,
    /// Windows that are closed.
    pub batches: u8,
    /// Crashes.
    pub crashes: u8,
    /// A consumer takes another, alive or dead, for dead.
    pub evictions: u8,
    /// A write happens and its answer is lost.
    pub lost_answers: u8,
    /// A batch is abandoned before its commit: a stop signal, a failed call.
    pub stops: u8,
    /// An object is put, or put again.
    pub puts: u8,
    /// A notification is repeated after its message was deleted, or the sweep finds the object.
    pub repeats: u8,
    /// An object cannot be read.
    pub unreadable: u8,
    /// The pause of an object that is set aside ends.
    pub retries: u8,
    /// An object cannot be moved.
    pub unmovable: u8,
    /// Somebody else writes a report item. It is repaired, or deleted where it is listed as set aside.
    pub spoiled: u8,
    /// The manifest of a committed batch is lost. It can be restored.
    pub lost_manifests: u8,
    /// The operator brings back something that is set aside.
    pub brought_back: u8,
    /// The sweep looks at a claim.
    pub looks: u8,
    /// Enough time passes for claims that were not renewed to expire.
    pub times: u8,
    /// Another definition comes into force.
    pub applied: u8,
}

impl Budget {
    pub const NOTHING: Budget = Budget {
        room: MAX_UNFINISHED,
        batches: 0,
        crashes: 0,
        evictions: 0,
        lost_answers: 0,
        stops: 0,
        puts: 0,
        repeats: 0,
        unreadable: 0,
        retries: 0,
        unmovable: 0,
        spoiled: 0,
        lost_manifests: 0,
        brought_back: 0,
        looks: 0,
        times: 0,
        applied: 0,
    };
}

/// The state of all services, consumers and the operator.
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
    pub messages: [u8; OBJECTS],
    /// The number of messages so far for each object.
    announced: [u8; OBJECTS],
    pub claims: [Claim; OBJECTS],
    pub registry: Registry,
    pub records: [Option<State>; BATCHES],
    pub manifests: [Option<Manifest>; BATCHES],
    /// Batches whose manifest is lost, except to those that have it in memory.
    pub lost_manifests: Batches,
    /// Contents in the uploads of each batch that are not completed.
    pub uploads: [Objects; BATCHES],
    /// Contents in completed uploads: what is under the curated prefix.
    pub curated: [Objects; BATCHES],
    /// The objects in each batch's folder of the archive.
    pub archive: [Objects; BATCHES],
    pub items: [Item; ITEMS],
    /// Items that were overwritten from outside, with the content that a repair restores.
    pub foreign: [bool; ITEMS],
    /// The number of times that each item was listed as set aside since it was last removed from the list.
    pub parked: [u8; ITEMS],
    /// Objects that are listed as left where they lie, with the batch that has counted them.
    pub left: [BatchNumber; OBJECTS],
    /// Batches that are listed as set aside.
    pub aside: Batches,
    /// Two consumers and the operator.
    pub consumers: [Consumer; CONSUMERS + 1],
    pub look: Option<Look>,
    pub budget: Budget,
    /// Batches that were ever committed: known to the model only.
    pub committed: Batches,
    /// Batches that were committed under another definition than they were prepared by: known to the model only.
    pub mixed: Batches,
    /// Objects that were ever set aside, so that only the sweep finds them from then on: known to the model only.
    pub ever_aside: Objects,
    /// Objects whose claim has expired: known to the model only.
    pub expired: Objects,
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
            claims: Default::default(),
            registry: Registry::default(),
            records: [None; BATCHES],
            manifests: [None; BATCHES],
            lost_manifests: 0,
            uploads: [0; BATCHES],
            curated: [0; BATCHES],
            archive: [0; BATCHES],
            items: Default::default(),
            foreign: [false; ITEMS],
            parked: [0; ITEMS],
            left: [0; OBJECTS],
            aside: 0,
            consumers: Default::default(),
            look: None,
            budget,
            committed: 0,
            mixed: 0,
            ever_aside: 0,
            expired: 0,
        }
    }

    // ------------------------------------------------------------------------------------------ what there is

    /// The content of an object is what lies under its key.
    pub fn is_incoming(&self, object: usize) -> bool {
        self.incoming[KEY_OF[object]] == Some(object as u8)
    }

    /// Returns true if a report item has rows of an object.
    pub fn is_of_item(object: usize, item: usize) -> bool {
        ITEMS_OF[object].contains(&item)
    }

    /// Returns the number of an object's places in the archive.
    pub fn archived(&self, object: usize) -> usize {
        self.archive.iter().filter(|&&objects| has(objects, object)).count()
    }

    /// Returns the number of curated files with rows of an object.
    pub fn curated(&self, object: usize) -> usize {
        self.curated.iter().filter(|&&contents| has(contents, object)).count()
    }

    /// Returns true if an object is listed as set aside.
    pub fn is_aside(&self, object: usize) -> bool {
        self.claims[object].pause != Pause::No
    }

    /// Returns true if an object belongs to a batch that is set aside.
    pub fn is_of_batch_aside(&self, object: usize) -> bool {
        self.state_of(self.claims[object].batch) == Some(State::Aside)
    }

    /// Returns the state of a batch, from the registry or its record.
    pub fn state_of(&self, batch: BatchNumber) -> Option<State> {
        let listed = self.registry.batches.get(&batch).map(|entry| entry.state);
        listed.or(self.records[batch as usize])
    }

    /// Returns the outcome if a batch claimed an object now; `None` while the object is set aside.
    pub fn standing(&self, object: usize) -> Option<ClaimConflict> {
        match self.claims[object] {
            Claim { pause: Pause::Lasts, .. } => None,
            Claim { renewed: true, .. } => Some(ClaimConflict::Duplicate),
            Claim { batch: 0, .. } => Some(resolve(None)),
            Claim { batch, .. } => Some(resolve(self.state_of(batch))),
        }
    }

    /// Returns the objects that the sweep adds to a window by itself. It also finds some that were never set aside: a
    /// repeated announcement.
    pub fn swept(&self) -> Objects {
        let is_found = |&object: &usize| {
            has(self.ever_aside, object)
                && self.is_incoming(object)
                && matches!(self.standing(object), Some(ClaimConflict::TakeOver { .. }))
        };
        (0..OBJECTS).filter(is_found).fold(0, |set, object| set | 1 << object)
    }

    /// Returns the objects that have a message.
    pub fn announced(&self) -> Objects {
        (0..OBJECTS).filter(|&object| self.messages[object] != 0).fold(0, |set, object| set | 1 << object)
    }

    /// Returns true if only an operator can do more: no batch is left, and no message but those of batches set aside.
    pub fn is_settled(&self) -> bool {
        members(self.announced()).all(|object| self.is_of_batch_aside(object)) && self.registry.batches.is_empty()
    }

    /// Returns true if nothing is set aside.
    pub fn has_nothing_aside(&self) -> bool {
        self.parked == [0; ITEMS]
            && self.left == [0; OBJECTS]
            && self.aside == 0
            && (0..OBJECTS).all(|object| !self.is_aside(object))
    }

    /// Returns the world without consumers and operator, and without what makes no difference to the future.
    pub fn without_consumers(&self) -> World {
        let mut world = self.clone();
        world.consumers = Default::default();
        world.look = None;
        world.budget = Budget { room: self.budget.room, ..Budget::NOTHING };
        for entry in world.registry.batches.values_mut() {
            entry.owner.clear();
        }
        world.claims.iter_mut().for_each(|claim| claim.kept = *claim != Claim::default());
        world.parked.iter_mut().for_each(|times| *times = (*times).min(1));
        world
    }

    // ------------------------------------------------------------------------------------------ what happens to it

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

    pub fn delete_messages(&mut self, objects: Objects, taken: [u8; OBJECTS]) {
        members(objects).for_each(|object| self.messages[object] &= !taken[object]);
    }

    pub fn crash(&mut self, consumer: usize) {
        self.consumers[consumer].life += 1;
        self.consumers[consumer].task = None;
    }

    /// Returns the batches whose owner may be taken for dead.
    pub fn listed(&self) -> impl Iterator<Item = BatchNumber> {
        self.registry.batches.keys().copied()
    }

    /// Returns the committed, unfinished batches whose manifest exists.
    pub fn with_manifest(&self) -> impl Iterator<Item = BatchNumber> {
        let committed = self.registry.batches.iter().filter(|(_, entry)| entry.state == State::Committed);
        committed.map(|(&batch, _)| batch).filter(|&batch| self.lost_manifests & 1 << batch == 0)
    }

    /// Another definition comes into force.
    pub fn apply(&mut self) {
        let seen = self.registry.definition.clone();
        if let Change::To(next) = self.registry.redefine(&seen, Self::definition(seen.change + 1)) {
            self.registry = next;
        }
    }

    /// The definition of a change.
    pub fn definition(change: u64) -> InForce {
        InForce { change, ..InForce::default() }
    }

    /// An object's pause ends.
    pub fn end_pause(&mut self, object: usize) {
        if self.is_aside(object) {
            self.claims[object].pause = Pause::Over;
        }
    }

    /// The operator restores an overwritten item, or deletes it.
    pub fn mend(&mut self, item: usize, by_deletion: bool) {
        self.foreign[item] = false;
        if by_deletion {
            self.items[item] = Item::default();
        }
    }

    // ------------------------------------------------------------------------------------------ the sweep, and time

    /// The sweep reads the claim on an object that lies there.
    pub fn look(&mut self, object: usize) {
        self.look = Some(Look { object, holder: self.claims[object], is_finished: None });
    }

    /// The sweep judges the claim that it has read, or renews the one that it has judged.
    pub fn go_on_looking(&mut self, fault: Fault) {
        let Some(look) = self.look.take() else { return };
        let Look { object, holder, is_finished } = look;
        let Some(is_finished) = is_finished else {
            let resolve = if holder.renewed { ClaimConflict::Duplicate } else { resolve(self.state_of(holder.batch)) };
            let is_finished = match resolve {
                ClaimConflict::Duplicate => Some(true),
                ClaimConflict::Leave if fault != Fault::LeaveNotRenewed => Some(false),
                ClaimConflict::Leave | ClaimConflict::TakeOver { .. } => None,
            };
            self.look = is_finished.map(|_| Look { is_finished, ..look });
            return;
        };
        let claim = &mut self.claims[object];
        let is_judged = claim.batch == holder.batch;
        if claim.batch != 0 && (is_judged || fault == Fault::RenewUnconditional) {
            claim.renewed |= is_finished;
            claim.kept = true;
        }
    }

    /// Returns true if the sweep has renewed its claims: it visits each several hundred times before it expires.
    pub fn may_time_pass(&self, fault: Fault) -> bool {
        (0..OBJECTS).filter(|&object| self.is_incoming(object)).all(|object| {
            let claim = self.claims[object];
            let is_renewed = match self.standing(object) {
                Some(ClaimConflict::Duplicate) => true,
                Some(ClaimConflict::Leave) => fault != Fault::LeaveNotRenewed,
                Some(ClaimConflict::TakeOver { .. }) | None => false,
            };
            claim.kept || !is_renewed
        })
    }

    /// Claims expire that were neither made nor renewed since time last passed. Objects that are set aside are tried
    /// again long before that.
    pub fn time_passes(&mut self) {
        for (object, claim) in self.claims.iter_mut().enumerate() {
            if claim.batch != 0 && !claim.kept {
                *claim = Claim::default();
                self.expired |= 1 << object;
            }
            claim.kept = claim.pause != Pause::No;
        }
    }

    // ------------------------------------------------------------------------------------------ the operator

    /// Returns the things that the operator could bring back.
    pub fn ways_back(&self) -> impl Iterator<Item = Way> {
        let batches =
            (0..BATCHES).filter(|&batch| self.aside & 1 << batch != 0 && self.lost_manifests & 1 << batch == 0);
        let originals = (0..OBJECTS).filter(|&object| self.left[object] != 0);
        let items = (self.parked != [0; ITEMS]).then_some(Way::Items);
        batches.map(|batch| Way::Batch(batch as BatchNumber)).chain(originals.map(Way::Original)).chain(items)
    }
}
