//! The world: the log, the files and the ledger, what happens to them, and what must hold.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use music_streams::formats::delta::action::{Action, Add, Named, Transaction};
use music_streams::formats::delta::checkpoint;
use music_streams::formats::delta::schema::Column;
use music_streams::formats::delta::stats::Stats;
use music_streams::lake::batches::batches_of;
use music_streams::lake::snapshot::{Arrival, DataFile, PARTITION, Snapshot, day_of};
use music_streams::layout;
use music_streams::protocol::{Applied, BatchNumber, Change, Registry, State};

use super::{BATCHES, Broken, DAYS, FOREIGN_DAY, NOW};
use crate::random::Random;

/// The rows of a batch in a file, and the rebuild that they are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) rows: u64,
    pub(super) rebuild: usize,
}

/// The rows of a file, by their batches.
pub(super) type Content = BTreeMap<BatchNumber, Rows>;

/// A file that a batch has prepared.
#[derive(Debug, Clone)]
pub(super) struct Upload {
    pub(super) path: String,
    pub(super) day: usize,
    pub(super) rows: u64,
}

/// What an operator has to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Errand {
    /// To publish a file that was refused.
    Publish(BatchNumber, String),
    /// To finish a batch that was set aside.
    BringBack(BatchNumber),
    Rebuild(usize),
}

/// A rebuild of a day, and the batches that the table had of it.
pub(super) struct Rebuild {
    pub(super) day: usize,
    pub(super) batches: BTreeSet<BatchNumber>,
}

pub(super) struct World {
    pub(super) random: Random,
    pub(super) broken: Broken,
    /// The table's log, and what it comes to.
    pub(super) log: Vec<Vec<Action>>,
    pub(super) table: Snapshot,
    /// The curated files that are there.
    pub(super) bucket: BTreeMap<String, Content>,
    /// What each batch has prepared, and whether its manifest is there.
    pub(super) uploads: BTreeMap<BatchNumber, Vec<Upload>>,
    pub(super) manifests: BTreeSet<BatchNumber>,
    /// Files that were published before, and those that were refused.
    pub(super) published: BTreeSet<String>,
    pub(super) refused: BTreeSet<String>,
    pub(super) registry: Registry,
    pub(super) records: BTreeMap<BatchNumber, State>,
    /// A backup of the ledger.
    pub(super) backup: Option<(Registry, BTreeMap<BatchNumber, State>)>,
    /// True in walks in which the ledger may be restored, until it is.
    pub(super) may_restore: bool,
    pub(super) may_refuse: bool,
    pub(super) committed: BTreeSet<BatchNumber>,
    pub(super) rebuilds: Vec<Rebuild>,
    pub(super) pending: BTreeSet<Errand>,
    /// Entries that are being written, by process, and those whose process has died.
    pub(super) under_way: BTreeMap<usize, (u64, Vec<Action>)>,
    pub(super) late: Vec<(u64, Vec<Action>)>,
    /// What may still happen.
    pub(super) batches_left: u32,
    pub(super) rebuilds_left: u32,
    pub(super) foreign_left: u32,
    pub(super) names: usize,
    pub(super) seen: BTreeMap<&'static str, u64>,
    pub(super) history: Vec<String>,
    pub(super) wrong: Option<String>,
}

pub(super) type Shared = Rc<RefCell<World>>;

impl World {
    pub(super) fn new(seed: u64, broken: Broken) -> Self {
        let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let may_restore = random.below(3) == 0;
        World {
            random,
            broken,
            log: Vec::new(),
            table: Snapshot::default(),
            bucket: BTreeMap::new(),
            uploads: BTreeMap::new(),
            manifests: BTreeSet::new(),
            published: BTreeSet::new(),
            refused: BTreeSet::new(),
            registry: Registry::default(),
            records: BTreeMap::new(),
            backup: None,
            may_restore,
            may_refuse: !may_restore,
            committed: BTreeSet::new(),
            rebuilds: Vec::new(),
            pending: BTreeSet::new(),
            under_way: BTreeMap::new(),
            late: Vec::new(),
            batches_left: BATCHES,
            rebuilds_left: 2,
            foreign_left: 2,
            names: 0,
            seen: BTreeMap::new(),
            history: Vec::new(),
            wrong: None,
        }
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.random.below(bound as u64) as usize
    }

    /// Returns true once in `times`.
    pub(super) fn chance(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(super) fn note(&mut self, what: &'static str, more: &str) {
        *self.seen.entry(what).or_default() += 1;
        self.history.push(format!("{what} {more}"));
    }

    pub(super) fn fail(&mut self, wrong: String) {
        self.history.push(format!("WRONG: {wrong}"));
        self.wrong.get_or_insert(wrong);
    }

    pub(super) fn record(&mut self, batch: BatchNumber, state: State) {
        self.note(state.name(), &batch.to_string());
        self.records.insert(batch, state);
    }

    pub(super) fn change(&mut self, change: impl FnOnce(&Registry) -> Change) -> bool {
        match change(&self.registry) {
            Change::To(next) => self.registry = next,
            Change::Already => {}
            Change::Refused => return false,
        }
        true
    }

    /// Writes an entry, if there is none of its number.
    pub(super) fn put(&mut self, version: u64, actions: Vec<Action>) -> bool {
        let place = version as usize;
        let is_there = place < self.log.len();
        if is_there && self.broken != Broken::NoCondition {
            self.note("conflict", &version.to_string());
            return false;
        }
        let describe = |action: &Action| match action {
            Action::Add(add) => Some(format!("+{} {:?}", add.path, batches_of(add))),
            Action::Remove(remove) => Some(format!("-{}", remove.path)),
            Action::Txn(transaction) => Some(format!("{}={}", transaction.app_id, transaction.version)),
            Action::Protocol(_) | Action::MetaData(_) | Action::CommitInfo(_) => None,
        };
        let described: Vec<String> = actions.iter().filter_map(describe).collect();
        self.note("entry", &format!("{version}: {}", described.join(", ")));
        let through = self.table.applied().through;
        if is_there {
            self.log[place] = actions;
            self.table = self.replayed(self.log.len());
        } else {
            self.log.push(actions.clone());
            self.table.apply(version, actions).unwrap();
        }
        if self.table.applied().through < through {
            self.fail(format!("the watermark falls in version {version}"));
        }
        self.check();
        true
    }

    /// Returns what the first entries come to.
    pub(super) fn replayed(&self, entries: usize) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (version, entry) in self.log.iter().take(entries).enumerate() {
            snapshot.apply(version as u64, entry.clone()).unwrap();
        }
        snapshot
    }

    /// Returns the rows of each batch in the table, by day.
    fn in_table(&self) -> Result<BTreeMap<(usize, BatchNumber), Rows>, String> {
        let mut found = BTreeMap::new();
        for add in self.table.files() {
            let batches = batches_of(add);
            // A file of another writer.
            if batches.is_empty() {
                continue;
            }
            let path = &add.path;
            let content = self.bucket.get(path).ok_or_else(|| format!("{path} is not there"))?;
            if !content.keys().eq(&batches) {
                return Err(format!("{path} has rows of {:?}, and not of {batches:?}", content.keys()));
            }
            if Stats::rows_of(add.stats.as_deref()) != Some(content.values().map(|rows| rows.rows).sum()) {
                return Err(format!("{path} has other rows than the log says: {content:?}"));
            }
            for (&batch, &rows) in content {
                if !self.committed.contains(&batch) {
                    return Err(format!("{path} has rows of batch {batch}, which was never committed"));
                }
                if found.insert((day_number(day_of(add)), batch), rows).is_some() {
                    return Err(format!("{path} has rows of batch {batch} once more"));
                }
            }
        }
        Ok(found)
    }

    /// Looks at the table as it is.
    fn check(&mut self) {
        let found = match self.in_table() {
            Ok(found) => found,
            Err(wrong) => return self.fail(wrong),
        };
        for (number, Rebuild { day, batches }) in self.rebuilds.iter().enumerate() {
            let rows = batches.iter().filter_map(|&batch| found.get(&(*day, batch)));
            let are_new: BTreeSet<bool> = rows.map(|rows| rows.rebuild > number).collect();
            if are_new.len() > 1 {
                return self.fail(format!("rebuild {} of {} is mixed with what was before", number + 1, DAYS[*day]));
            }
        }
    }

    /// Looks at the table in the end.
    pub(super) fn check_end(&mut self) {
        if !self.pending.is_empty() {
            return self.fail(format!("{:?} cannot be done", self.pending));
        }
        let found = match self.in_table() {
            Ok(found) => found,
            Err(wrong) => return self.fail(wrong),
        };
        let mut there = BTreeMap::new();
        for upload in self.uploads.values().flatten() {
            let content = self.bucket.get(&upload.path).into_iter().flatten();
            there.extend(content.map(|(&batch, &rows)| ((upload.day, batch), rows)));
        }
        if found != there {
            return self.fail(format!("the table has {found:?}, and the files of batches {there:?}"));
        }
        if self.log.is_empty() {
            return;
        }
        let version = self.below(self.log.len());
        let mut replayed = self.replayed(version + 1);
        let mut actions = replayed.to_actions(NOW);
        if self.chance(16) {
            actions = checkpoint::of_parquet(&checkpoint::to_parquet(&actions).unwrap()).unwrap();
        }
        let mut loaded = Snapshot::default();
        loaded.apply(version as u64, actions).unwrap();
        for (version, entry) in self.log.iter().enumerate().skip(version + 1) {
            replayed.apply(version as u64, entry.clone()).unwrap();
            loaded.apply(version as u64, entry.clone()).unwrap();
        }
        if facts(&loaded) != facts(&replayed) || facts(&replayed) != facts(&self.table) {
            self.fail(format!("a checkpoint of version {version} does not say what the log says"));
        }
    }

    pub(super) fn upload(&self, batch: BatchNumber, path: &str) -> Option<&Upload> {
        self.uploads.get(&batch)?.iter().find(|upload| upload.path == path)
    }

    /// Prepares the files of a batch, and writes its manifest.
    pub(super) fn prepare(&mut self, batch: BatchNumber) {
        let first = self.below(DAYS.len());
        let days = if self.chance(2) { vec![first] } else { vec![0, 1] };
        let upload = |day: usize, rows: usize| Upload { path: batch_path(day, batch), day, rows: rows as u64 };
        let uploads = days.into_iter().map(|day| upload(day, 1 + self.below(4))).collect();
        self.uploads.insert(batch, uploads);
        self.manifests.insert(batch);
    }

    /// Publishes a file, unless it was published before.
    pub(super) fn publish(&mut self, batch: BatchNumber, path: &str) {
        self.refused.remove(path);
        let Some(&Upload { rows, .. }) = self.upload(batch, path) else { return };
        if self.published.insert(path.to_owned()) {
            self.note("published", path);
            self.bucket.insert(path.to_owned(), Content::from([(batch, Rows { rows, rebuild: 0 })]));
        }
    }

    /// Returns the file at a place, if it is there.
    pub(super) fn data_file(&self, path: &str, day: usize) -> Option<DataFile> {
        let rows = self.bucket.get(path)?.values().map(|rows| rows.rows).sum();
        let stats = Stats { num_records: rows, ..Stats::default() };
        Some(DataFile { path: path.to_owned(), day: DAYS[day].to_owned(), bytes: rows, modified_ms: NOW, stats })
    }

    /// Returns the files of a batch that are there.
    pub(super) fn arrival(&self, batch: BatchNumber, day: Option<usize>) -> Arrival {
        let is_wanted = |upload: &&Upload| day.is_none_or(|day| upload.day == day);
        let uploads = self.uploads.get(&batch).into_iter().flatten().filter(is_wanted);
        let files = uploads.filter_map(|upload| self.data_file(&upload.path, upload.day)).collect();
        Arrival { batch, columns: vec![Column { name: "track_id".into(), type_: "string".into() }], files }
    }

    pub(super) fn write_compacted(&mut self, day: usize, content: Content) -> DataFile {
        self.names += 1;
        let key = layout::compacted_key(DAYS[day], &self.names.to_string());
        let path = key.strip_prefix(layout::CURATED).unwrap().to_owned();
        self.bucket.insert(path.clone(), content);
        self.data_file(&path, day).unwrap()
    }

    /// Returns the batches of a day that a rebuild replaces; `None` if a file that is not in the bucket forbids it.
    pub(super) fn to_rebuild(
        &self,
        day: usize,
        through: BatchNumber,
        lost: Option<BatchNumber>,
    ) -> Option<BTreeSet<BatchNumber>> {
        let of_day = |batch: &BatchNumber| self.uploads[batch].iter().find(|upload| upload.day == day);
        let known = self.uploads.range(..=through).map(|(&batch, _)| batch);
        let mut batches = BTreeSet::new();
        for (batch, upload) in known.filter_map(|batch| Some((batch, of_day(&batch)?))) {
            let is_done = self.records.get(&batch) == Some(&State::Done);
            let is_refused = is_done && self.refused.contains(&upload.path);
            if is_refused && lost != Some(batch) {
                return None;
            }
            let is_aside = self.records.get(&batch) == Some(&State::Aside);
            if lost == Some(batch) || (self.bucket.contains_key(&upload.path) && !is_aside) {
                batches.insert(batch);
            }
        }
        Some(batches)
    }

    /// Begins to replace files. Returns the number of the rebuild.
    pub(super) fn begin_rebuild(&mut self, day: usize, batches: &BTreeSet<BatchNumber>) -> usize {
        let found = self.in_table().unwrap_or_default();
        let batches = batches.iter().copied().filter(|&batch| found.contains_key(&(day, batch))).collect();
        self.rebuilds.push(Rebuild { day, batches });
        // One that ends in between is repeated.
        self.pending.insert(Errand::Rebuild(day));
        self.rebuilds.len()
    }

    /// Replaces the file of a batch in place, or removes it.
    pub(super) fn rebuild_file(&mut self, day: usize, batch: BatchNumber, rebuild: usize) {
        let path = batch_path(day, batch);
        if self.table.file(&path).is_some() {
            self.fail(format!("{path} is replaced while it is in the table"));
        }
        let rows = if self.chance(12) { 0 } else { 1 + self.below(5) as u64 };
        self.note("rebuilt", &format!("{path}: {rows} rows"));
        self.refused.remove(&path);
        self.published.insert(path.clone());
        match rows {
            0 => self.bucket.remove(&path),
            _ => self.bucket.insert(path, Content::from([(batch, Rows { rows, rebuild })])),
        };
    }

    /// Another writer adds a file.
    pub(super) fn write_as_another(&mut self) {
        if self.foreign_left == 0 || self.log.is_empty() {
            return;
        }
        self.foreign_left -= 1;
        let version = self.log.len() as u64;
        let add = Add {
            path: format!("report_date={FOREIGN_DAY}/part-{version}.parquet"),
            partition_values: Named::from([(PARTITION.to_owned(), Some(FOREIGN_DAY.to_owned()))]),
            size: 9,
            modification_time: NOW,
            data_change: true,
            stats: None,
            tags: None,
        };
        let transaction = Transaction { app_id: "another".to_owned(), version: 9, last_updated: None };
        self.put(version, vec![Action::Txn(transaction), Action::Add(add)]);
    }

    /// An entry arrives whose writer is dead.
    pub(super) fn deliver_late(&mut self) {
        if let Some((version, actions)) = self.late.pop() {
            self.note("late request", &version.to_string());
            self.put(version, actions);
        }
    }

    /// Makes a backup of the ledger, or restores it. Returns true if all processes are to begin anew.
    pub(super) fn back_up_or_restore(&mut self) -> bool {
        if !self.may_restore {
            return false;
        }
        let Some((registry, records)) = self.backup.take() else {
            self.backup = Some((self.registry.clone(), self.records.clone()));
            return false;
        };
        self.may_restore = false;
        self.note("restored", &format!("from {} to {}", self.registry.last, registry.last));
        (self.registry, self.records) = (registry, records);
        // The start also asks the table, whose answer may fail.
        let taken = self.manifests.last().copied().unwrap_or(0);
        self.change(|registry| registry.skip_to(taken))
    }

    pub(super) fn next_errand(&mut self) -> Option<Errand> {
        if !self.pending.is_empty() && self.chance(2) {
            let place = self.below(self.pending.len());
            return self.pending.iter().nth(place).cloned();
        }
        if self.rebuilds_left == 0 || !self.chance(10) {
            return None;
        }
        self.rebuilds_left -= 1;
        Some(Errand::Rebuild(self.below(DAYS.len())))
    }
}

pub(super) fn batch_path(day: usize, batch: BatchNumber) -> String {
    let key = layout::curated_key(DAYS[day], batch, 1);
    key.strip_prefix(layout::CURATED).unwrap().to_owned()
}

pub(super) fn day_number(day: Option<&str>) -> usize {
    DAYS.iter().position(|it| Some(*it) == day).unwrap()
}

/// What readers and writers see of a table.
pub(super) fn facts(snapshot: &Snapshot) -> (Vec<Add>, Applied) {
    let files = snapshot.files().map(|add| Add { data_change: false, ..add.clone() });
    (files.collect(), snapshot.applied())
}
