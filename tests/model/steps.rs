//! The steps of a consumer, and of the operator who brings back what is set aside. A step is one call to a service, so
//! everything that can happen between two calls is explored.
//!
//! The decisions are made by the functions that the program itself calls: [`Registry`], [`resolve`], [`Applied`].

use music_streams::protocol::{Applied, BatchNumber, Change, ClaimConflict, Opening, Registry, State, resolve};

use crate::world::{
    BATCHES, Claim, Fault, ITEMS, Item, KEY_OF, Manifest, OBJECTS, OPERATOR, Objects, Pause, REPLACED, World, has,
    members,
};

/// The next step of a consumer or of the operator.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    Open,
    List,
    /// Claims an object if nobody has. The claims of a window are made first.
    Claim(usize),
    /// Reads a claim that was there. Each is judged after all were made.
    Contest(usize),
    JudgeByRegistry {
        object: usize,
        holder: BatchNumber,
    },
    JudgeByRecord {
        object: usize,
        holder: BatchNumber,
    },
    ConfirmDuplicate {
        object: usize,
        holder: BatchNumber,
    },
    TakeOver {
        object: usize,
        holder: BatchNumber,
    },
    Prepare,
    SetAside(usize),
    Commit,
    Watermark,
    ReadItem {
        item: usize,
        through: BatchNumber,
    },
    WriteItem {
        item: usize,
        through: BatchNumber,
        seen: Item,
    },
    Park {
        item: usize,
        through: BatchNumber,
    },
    Publish,
    Copy(usize),
    Delete(usize),
    LeaveInPlace(usize),
    ReleaseClaim(usize),
    Record(State),
    Unlist(State),
    Acknowledge,
    Abandon,
    Clear(State),
    ListBatchAside,
    /// Waits until the batches that were at work at its start are finished, and adds up what they have counted.
    AddUp,
    ReadReplaced {
        item: usize,
        of: Replacement,
    },
    Replace {
        item: usize,
        of: Replacement,
        seen: Item,
    },
    UnlistItems,
    UnlistOriginal(usize),
    UnlistBatch,
}

/// The replacement of an item's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Replacement {
    /// The number up to which every batch is finished.
    through: BatchNumber,
    /// The last of the batches that have rows.
    last: BatchNumber,
    /// The batches that are added up.
    batches: u16,
}

/// The things that the operator brings back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// The report items that are listed.
    Items,
    /// An object that was left where it lies.
    Original(usize),
    /// A batch, and all report items.
    Batch(BatchNumber),
}

/// An operator at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BringBack {
    way: Way,
    /// The number of times that each report item was listed at the start.
    listed: [u8; ITEMS],
    /// The last batch number when figures began to be added up.
    last: BatchNumber,
    /// Items that are still refused.
    refused: [bool; ITEMS],
}

/// The memory of a consumer or operator at work. All of it is lost in a crash.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Task {
    batch: BatchNumber,
    /// The definition that the consumer knows, and the one that it opened the batch under: normally the same.
    definition: u64,
    opened_under: u64,
    /// Announced objects of the window.
    window: Objects,
    /// The messages that announced them.
    messages: [u8; OBJECTS],
    won: Objects,
    /// Objects whose claim was there, until it is read.
    contested: Objects,
    /// Objects that are at their place, until they are deleted where they were.
    copied: Objects,
    /// Objects whose messages can be deleted.
    finished: Objects,
    back: Option<BringBack>,
    pub step: Step,
}

impl Task {
    fn of(batch: BatchNumber, step: Step) -> Self {
        Task {
            batch,
            definition: 0,
            opened_under: 0,
            window: 0,
            messages: [0; OBJECTS],
            won: 0,
            contested: 0,
            copied: 0,
            finished: 0,
            back: None,
            step,
        }
    }

    /// Returns true if the next step only reads. A lost answer then makes no difference.
    pub fn only_reads(&self) -> bool {
        matches!(
            self.step,
            Step::Contest(_)
                | Step::JudgeByRegistry { .. }
                | Step::JudgeByRecord { .. }
                | Step::ReadItem { .. }
                | Step::Watermark
        )
    }

    /// Returns true if its batch is not committed, and so can be abandoned.
    pub fn can_stop(&self) -> bool {
        matches!(self.step, Step::Claim(_) | Step::Contest(_) | Step::Prepare)
    }

    /// Returns the object that may turn out to be unmovable.
    pub fn moves(&self) -> Option<usize> {
        match self.step {
            Step::Copy(object) | Step::Delete(object) if self.back.is_none() => Some(object),
            _ => None,
        }
    }

    /// Returns the objects of which one may turn out to be unreadable.
    pub fn reads(&self) -> Objects {
        if self.step == Step::Prepare { self.won } else { 0 }
    }
}

impl World {
    /// An idle consumer closes a window on announced objects.
    pub fn begin(&mut self, consumer: usize, window: Objects) {
        let task = Task { window, messages: self.messages, ..Task::of(0, Step::Open) };
        self.consumers[consumer].task = Some(task);
    }

    /// The operator begins to bring something back.
    pub fn bring_back(&mut self, way: Way) {
        let (batch, step) = match way {
            Way::Items => (0, Step::AddUp),
            Way::Original(object) => (self.left[object], Step::Copy(object)),
            Way::Batch(batch) => (batch, Step::Publish),
        };
        let back = BringBack { way, listed: self.parked, last: self.registry.last, refused: [false; ITEMS] };
        self.consumers[OPERATOR].task = Some(Task { back: Some(back), ..Task::of(batch, step) });
    }

    /// An idle consumer takes the owner of a listed batch for dead.
    pub fn recover(&mut self, consumer: usize, batch: BatchNumber) {
        let Some(entry) = self.registry.batches.get(&batch).cloned() else { return };
        let me = self.name(consumer);
        let step = match entry.state {
            State::Open => {
                self.change(self.registry.abandon(batch, &entry));
                Step::Clear(State::Lost)
            }
            State::Abandoned | State::Lost => Step::Clear(entry.state),
            State::Committed => {
                self.change(self.registry.adopt(batch, &entry, &me));
                if self.lost_manifests & 1 << batch == 0 { Step::Watermark } else { Step::ListBatchAside }
            }
            State::Aside | State::Done => return,
        };
        self.consumers[consumer].task = Some(Task::of(batch, step));
    }

    /// Returns true if the operator waits for batches at work.
    pub fn waits(&self, task: &Task) -> bool {
        let last = task.back.map_or(0, |back| back.last);
        task.step == Step::AddUp && self.registry.applied_through() < last
    }

    /// A consumer abandons its batch, if it may.
    pub fn stop(&mut self, consumer: usize) {
        self.turn(consumer, Step::Abandon);
    }

    /// A consumer cannot read one of its objects.
    pub fn cannot_read(&mut self, consumer: usize, object: usize) {
        self.turn(consumer, Step::SetAside(object));
    }

    /// A consumer cannot move an object.
    pub fn cannot_move(&mut self, consumer: usize, object: usize) {
        self.turn(consumer, Step::LeaveInPlace(object));
    }

    fn turn(&mut self, consumer: usize, step: Step) {
        if let Some(task) = &mut self.consumers[consumer].task {
            task.step = step;
        }
    }

    fn name(&self, consumer: usize) -> String {
        format!("{consumer}.{}", self.consumers[consumer].life)
    }

    /// Carries out a change of the registry. Returns true if it is in effect now.
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

    /// Carries out the next step of a consumer, or of the operator.
    pub fn step(&mut self, consumer: usize, fault: Fault) {
        let Some(mut task) = self.consumers[consumer].task.take() else { return };
        self.consumers[consumer].task = self.take_step(&mut task, &self.name(consumer), fault).map(|step| {
            task.step = step;
            task
        });
    }

    /// Carries out a step, and returns the next one.
    fn take_step(&mut self, task: &mut Task, me: &str, fault: Fault) -> Option<Step> {
        let Task { batch, .. } = *task;
        match task.step.clone() {
            // -------------------------------------------------------------------------- up to the commit
            Step::Open => {
                if fault == Fault::NumberReused {
                    self.registry.last = self.registry.batches.keys().last().copied().unwrap_or(0);
                }
                let most = if fault == Fault::RegistryUnbounded { usize::MAX } else { self.budget.room };
                // With too many unfinished it waits, and the messages stay.
                task.opened_under = match fault {
                    Fault::OpenUnderAnother => self.registry.definition.change,
                    _ => task.definition,
                };
                let (number, next) = match self.registry.open(me, 0, most, &World::definition(task.opened_under)) {
                    Opening::To(number, next) => (number, next),
                    Opening::Full => return None,
                    Opening::Redefined => {
                        task.definition = self.registry.definition.change;
                        return Some(Step::Open);
                    }
                };
                task.batch = number;
                if fault == Fault::NumberBeforeEntry {
                    self.registry.last = number;
                    return Some(Step::List);
                }
                self.registry = next;
                Some(next_claim(task, 0))
            }
            Step::List => {
                let before = Registry { last: batch - 1, ..self.registry.clone() };
                let Opening::To(_, next) = before.open(me, 0, self.budget.room, &World::definition(task.opened_under))
                else {
                    return None;
                };
                self.registry.batches = next.batches;
                Some(next_claim(task, 0))
            }
            Step::Claim(object) => {
                if self.claims[object] == Claim::default() {
                    self.claims[object] = Claim::of(batch);
                    task.won |= 1 << object;
                } else {
                    // Also one's own, when the answer to an earlier try was lost.
                    task.contested |= 1 << object;
                }
                Some(next_claim(task, object + 1))
            }
            Step::Contest(object) => {
                task.contested &= !(1 << object);
                Some(self.consider(task, object, fault))
            }
            Step::JudgeByRegistry { object, holder } => match self.registry.batches.get(&holder) {
                Some(entry) => Some(judged(task, object, holder, resolve(Some(entry.state)), fault)),
                None => Some(Step::JudgeByRecord { object, holder }),
            },
            Step::JudgeByRecord { object, holder } => {
                Some(judged(task, object, holder, resolve(self.records[holder as usize]), fault))
            }
            Step::ConfirmDuplicate { object, holder } => {
                if self.claims[object].batch != holder && fault != Fault::DuplicateUnconfirmed {
                    return Some(self.consider(task, object, fault));
                }
                task.finished |= 1 << object;
                Some(next_contest(task))
            }
            Step::TakeOver { object, holder } => {
                if self.claims[object].batch != holder && fault != Fault::TakeOverUnconditional {
                    // Also one's own, when the answer to an earlier try was lost.
                    return Some(self.consider(task, object, fault));
                }
                self.claims[object] = Claim { renewed: self.claims[object].renewed, ..Claim::of(batch) };
                Some(won(task, object))
            }
            Step::Prepare => {
                if task.won == 0 {
                    return Some(Step::Abandon);
                }
                let mut manifest = Manifest { read: [None; OBJECTS], gone: 0, definition: task.definition };
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
            Step::SetAside(object) => {
                task.won &= !(1 << object);
                let claim = &mut self.claims[object];
                if claim.batch == batch {
                    match fault {
                        Fault::AsideKeepsClaim => {}
                        Fault::AsideForgotten => *claim = Claim::default(),
                        _ => {
                            *claim = Claim { pause: Pause::Lasts, ..Claim::of(0) };
                            self.ever_aside |= 1 << object;
                        }
                    }
                    task.finished |= 1 << object;
                } else if claim.pause != Pause::No || fault == Fault::AsideUnconfirmed {
                    // Set aside before, when the answer was lost. Else it is another batch's by now.
                    task.finished |= 1 << object;
                }
                Some(Step::Prepare)
            }
            Step::Commit => {
                let in_force = self.registry.definition.change;
                let under = if fault == Fault::CommitUnderAnother { in_force } else { task.opened_under };
                let change = self.registry.commit(batch, me, &World::definition(under));
                if let Change::To(_) = change
                    && self.manifest(batch).is_some_and(|manifest| manifest.definition != in_force)
                {
                    self.mixed |= 1 << batch;
                }
                if self.change(change) || fault == Fault::NoCommitFence {
                    self.committed |= 1 << batch;
                    return Some(if fault == Fault::UpsertBeforeCommit { Step::Publish } else { Step::Watermark });
                }
                Some(Step::Abandon)
            }

            // -------------------------------------------------------------------------- what a committed batch decided
            Step::Watermark => {
                let mut through = self.registry.applied_through();
                if fault == Fault::WatermarkTooHigh {
                    through = self.registry.last;
                }
                // Without its manifest a batch cannot continue. It stays committed, which the properties notice.
                self.manifest(batch).map(|_| Step::ReadItem { item: 0, through: through.min(batch - 1) })
            }
            Step::ReadItem { item, through } => {
                let seen = self.items[item].clone();
                let wanted = self.manifest(batch).is_some_and(|manifest| manifest.counts(item) != [0; OBJECTS]);
                let contained = match fault {
                    Fault::NoWatermarkCheck => seen.applied.listed.contains(&batch),
                    _ => seen.applied.contains(batch),
                };
                match wanted {
                    true if self.foreign[item] => match fault {
                        Fault::ParkForgotten => Some(after_item(item, through, fault)),
                        Fault::ParkStopsBatch => None,
                        _ => Some(Step::Park { item, through }),
                    },
                    true if !contained => Some(Step::WriteItem { item, through, seen }),
                    _ => Some(after_item(item, through, fault)),
                }
            }
            Step::WriteItem { item, through, seen } => {
                if self.foreign[item]
                    || (self.items[item].version != seen.version && fault != Fault::NoVersionCondition)
                {
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
            Step::Park { item, through } => {
                self.parked[item] += 1;
                Some(after_item(item, through, fault))
            }
            Step::Publish => {
                self.curated[batch as usize] |= std::mem::take(&mut self.uploads[batch as usize]);
                let is_committed = self.committed & 1 << batch != 0;
                Some(match fault {
                    Fault::PublishBeforeCommit if !is_committed => Step::Commit,
                    _ => self.first_move(task, fault),
                })
            }
            Step::Copy(object) => {
                // Else it was moved already, or replaced by its owner.
                if self.is_incoming(object) {
                    self.archive[batch as usize] |= 1 << object;
                    if fault != Fault::DeleteBeforeCopy {
                        task.copied |= 1 << object;
                    }
                }
                Some(self.next_copy(task, object + 1, fault))
            }
            Step::Delete(object) => {
                if self.is_incoming(object) || fault == Fault::UnconditionalDelete {
                    self.incoming[KEY_OF[object]] = None;
                }
                task.copied &= !(1 << object);
                Some(self.next_delete(task, fault))
            }
            Step::LeaveInPlace(object) => {
                self.left[object] = batch;
                if fault == Fault::LeftReleasesClaim && self.claims[object].batch == batch {
                    self.claims[object] = Claim::default();
                }
                if has(task.copied, object) {
                    task.copied &= !(1 << object);
                    return Some(self.next_delete(task, fault));
                }
                Some(self.next_copy(task, object + 1, fault))
            }
            Step::ReleaseClaim(object) => {
                if self.claims[object].batch == batch && fault != Fault::GoneKeepsClaim {
                    self.claims[object] = Claim::default();
                }
                Some(self.next_release(batch, object + 1, fault))
            }
            Step::Record(state) => {
                self.records[batch as usize] = Some(match (state, fault) {
                    (State::Aside, Fault::AsideBatchDone) => State::Done,
                    (State::Aside, Fault::AsideBatchAbandoned) => State::Abandoned,
                    (state, _) => state,
                });
                if fault == Fault::UnlistBeforeRecord {
                    self.after_close(task, state)
                } else {
                    Some(Step::Unlist(state))
                }
            }
            Step::Unlist(state) => {
                let change = self.registry.close(batch);
                self.change(change);
                if fault == Fault::UnlistBeforeRecord {
                    Some(Step::Record(state))
                } else {
                    self.after_close(task, state)
                }
            }
            Step::Acknowledge => {
                self.delete_messages(task.finished, task.messages);
                None
            }

            // -------------------------------------------------------------------------- giving up, and setting a batch
            // aside
            Step::Abandon => {
                let change = self.registry.abandon_own(batch, me);
                let state = if self.change(change) { Some(State::Abandoned) } else { self.state_of(batch) };
                Some(state.filter(|state| state.is_abandoned()).map_or(Step::Acknowledge, Step::Clear))
            }
            Step::Clear(state) => {
                self.uploads[batch as usize] = 0;
                self.manifests[batch as usize] = None;
                Some(close(state, fault))
            }
            Step::ListBatchAside => {
                self.aside |= 1 << batch;
                Some(close(State::Aside, fault))
            }

            // -------------------------------------------------------------------------- bringing back
            Step::AddUp => {
                let last = task.back?.last;
                let through = self.registry.applied_through();
                if through < last && fault != Fault::RestoreUnwaited {
                    return Some(Step::AddUp);
                }
                let through = if fault == Fault::RestoreUnwaited { self.registry.last } else { through };
                let batches = (1..BATCHES).filter(|&batch| batch as u64 <= through && self.curated[batch] != 0);
                let of = Replacement {
                    through,
                    last: batches.clone().next_back().unwrap_or(0) as BatchNumber,
                    batches: batches.fold(0, |set, batch| set | 1 << batch),
                };
                Some(next_replaced(task, 0, of))
            }
            Step::ReadReplaced { item, of } => {
                if self.foreign[item] {
                    task.back.as_mut()?.refused[item] = true;
                    return Some(next_replaced(task, item + 1, of));
                }
                let seen = self.items[item].clone();
                if seen.applied.newest() > of.through && fault != Fault::RestoreOverLater {
                    // It got a later batch in the meantime: try again.
                    let last = self.registry.last;
                    task.back.as_mut()?.last = last;
                    return Some(Step::AddUp);
                }
                Some(Step::Replace { item, of, seen })
            }
            Step::Replace { item, of, seen } => {
                if self.foreign[item] || self.items[item].version != seen.version {
                    return Some(Step::ReadReplaced { item, of });
                }
                self.items[item] = self.replaced(item, of, seen, fault);
                Some(next_replaced(task, item + 1, of))
            }
            Step::UnlistItems => {
                let BringBack { way, listed, refused, .. } = task.back?;
                for item in 0..ITEMS {
                    let is_listed_anew = self.parked[item] != listed[item] && fault != Fault::UnlistUnconditional;
                    if !refused[item] && !is_listed_anew {
                        self.parked[item] = 0;
                    }
                }
                let is_right = refused == [false; ITEMS];
                (matches!(way, Way::Batch(_)) && is_right).then_some(Step::UnlistBatch)
            }
            Step::UnlistOriginal(object) => {
                self.left[object] = 0;
                None
            }
            Step::UnlistBatch => {
                self.aside &= !(1 << batch);
                None
            }
        }
    }

    fn manifest(&self, batch: BatchNumber) -> Option<&Manifest> {
        self.manifests[batch as usize].as_ref()
    }

    /// Returns the step for an object whose claim was just read.
    fn consider(&self, task: &mut Task, object: usize, fault: Fault) -> Step {
        match self.claims[object] {
            Claim { batch, .. } if batch == task.batch => won(task, object),
            Claim { pause: Pause::Lasts, .. } => {
                task.finished |= 1 << object;
                next_contest(task)
            }
            Claim { batch: holder, .. } if holder == 0 || fault == Fault::TakeOverUnchecked => {
                Step::TakeOver { object, holder }
            }
            Claim { batch: holder, renewed: true, .. } => Step::ConfirmDuplicate { object, holder },
            Claim { batch: holder, .. } => Step::JudgeByRegistry { object, holder },
        }
    }

    /// Returns the first step of moving what was read: all of it is copied, then all that is copied is deleted where it
    /// was.
    fn first_move(&self, task: &mut Task, fault: Fault) -> Step {
        if fault != Fault::DeleteBeforeCopy {
            return self.next_copy(task, 0, fault);
        }
        let read = |&object: &usize| self.manifest(task.batch).is_some_and(|manifest| manifest.read[object].is_some());
        task.copied = (0..OBJECTS).filter(read).fold(0, |set, object| set | 1 << object);
        self.next_delete(task, fault)
    }

    /// Returns the step for the next object that was read, starting at `from`.
    fn next_copy(&self, task: &Task, from: usize, fault: Fault) -> Step {
        let is_wanted = |&object: &usize| match task.back {
            Some(BringBack { way: Way::Original(_), .. }) => false,
            _ => self.manifest(task.batch).is_some_and(|manifest| manifest.read[object].is_some()),
        };
        match (from..OBJECTS).find(is_wanted) {
            Some(object) => Step::Copy(object),
            None if fault == Fault::DeleteBeforeCopy => self.after_moves(task, fault),
            None => self.next_delete(task, fault),
        }
    }

    /// Returns the step for the next object that is copied.
    fn next_delete(&self, task: &Task, fault: Fault) -> Step {
        match (0..OBJECTS).find(|&object| has(task.copied, object)) {
            Some(object) => Step::Delete(object),
            None if fault == Fault::DeleteBeforeCopy => self.next_copy(task, 0, fault),
            None => self.after_moves(task, fault),
        }
    }

    /// Returns the step after the moves: for the claims of missing objects.
    fn after_moves(&self, task: &Task, fault: Fault) -> Step {
        match task.back {
            Some(BringBack { way: Way::Original(object), .. }) => Step::UnlistOriginal(object),
            _ => self.next_release(task.batch, 0, fault),
        }
    }

    fn next_release(&self, batch: BatchNumber, from: usize, fault: Fault) -> Step {
        let gone = |&object: &usize| self.manifest(batch).is_some_and(|manifest| has(manifest.gone, object));
        (from..OBJECTS).find(gone).map_or(close(State::Done, fault), Step::ReleaseClaim)
    }

    fn after_close(&self, task: &mut Task, state: State) -> Option<Step> {
        if let Some(back) = &mut task.back {
            // Its figures come from what is published.
            (back.listed, back.last) = (self.parked, self.registry.last);
            return Some(Step::AddUp);
        }
        if state == State::Done {
            task.finished |= task.won;
        }
        Some(Step::Acknowledge)
    }

    fn replaced(&self, item: usize, of: Replacement, seen: Item, fault: Fault) -> Item {
        let mut next = Item { version: REPLACED.max(seen.version + 1), ..Item::default() };
        if fault == Fault::RestoreByAdding {
            next = Item { version: next.version, ..seen };
        }
        for batch in (1..BATCHES as BatchNumber).filter(|&batch| of.batches & 1 << batch != 0) {
            if next.applied.contains(batch) {
                continue;
            }
            let counts = self.manifest(batch).map_or([0; OBJECTS], |manifest| manifest.counts(item));
            (0..OBJECTS).for_each(|object| next.counts[object] += counts[object]);
            if fault == Fault::RestoreByAdding {
                next.applied = next.applied.with(batch, batch - 1);
            }
        }
        if fault != Fault::RestoreByAdding {
            next.applied = Applied { through: of.last, ..Applied::default() };
        }
        next
    }
}

fn won(task: &mut Task, object: usize) -> Step {
    task.won |= 1 << object;
    next_contest(task)
}

/// Returns the step for the next object of the window, starting at `from`; then those for the contested ones.
fn next_claim(task: &Task, from: usize) -> Step {
    (from..OBJECTS).find(|&object| has(task.window, object)).map_or_else(|| next_contest(task), Step::Claim)
}

fn next_contest(task: &Task) -> Step {
    (0..OBJECTS).find(|&object| has(task.contested, object)).map_or(Step::Prepare, Step::Contest)
}

fn judged(task: &mut Task, object: usize, holder: BatchNumber, resolve: ClaimConflict, fault: Fault) -> Step {
    match resolve {
        ClaimConflict::Duplicate => Step::ConfirmDuplicate { object, holder },
        ClaimConflict::Leave if fault == Fault::LiveIsDuplicate => Step::ConfirmDuplicate { object, holder },
        ClaimConflict::Leave => next_contest(task),
        ClaimConflict::TakeOver { .. } => Step::TakeOver { object, holder },
    }
}

fn after_item(item: usize, through: BatchNumber, fault: Fault) -> Step {
    match item + 1 {
        item if item < ITEMS => Step::ReadItem { item, through },
        _ if fault == Fault::UpsertBeforeCommit => Step::Commit,
        _ => Step::Publish,
    }
}

/// Returns the next item to replace: of the listed ones, or of all if a batch is brought back.
fn next_replaced(task: &Task, from: usize, of: Replacement) -> Step {
    let is_wanted = |&item: &usize| match task.back {
        Some(BringBack { way: Way::Batch(_), .. }) => true,
        Some(back) => back.listed[item] > 0,
        None => false,
    };
    (from..ITEMS).find(is_wanted).map_or(Step::UnlistItems, |item| Step::ReadReplaced { item, of })
}

fn close(state: State, fault: Fault) -> Step {
    if fault == Fault::UnlistBeforeRecord { Step::Unlist(state) } else { Step::Record(state) }
}
