//! The table as its log has it up to an entry, and the entries that may follow: every decision about the table. Pure.
//!
//! The table is one more item that batches are applied to, with the same [`Applied`]: the version of the application
//! `music-streams` is the watermark, and a batch above it that is in the table has a transaction of its own. One entry
//! changes files and watermark together, and is written on condition that there is none of its number. So a batch is in
//! the table once, whoever adds it, and as often as anybody tries.
//!
//! Explored by `tests/model/table.rs`, with broken variants.

use std::collections::{BTreeMap, BTreeSet};

use crate::formats::delta::DeltaError;
use crate::formats::delta::action::{
    Action, Add, CommitInfo, Format, MetaData, Named, Protocol, Remove, Transaction, VERSIONS,
};
use crate::formats::delta::schema::{self, Column};
use crate::formats::delta::stats::Stats;
use crate::lake::batches::{batches_of, ranges, tag_of};
use crate::layout;
use crate::protocol::{Applied, BatchNumber};

/// The column of the table whose value a file's folder has.
pub const PARTITION: &str = "report_date";
/// The name by which the log knows this program.
const APPLICATION: &str = "music-streams";
/// The time for which a removed file is remembered, and left to readers of an older version.
pub const KEPT_MS: i64 = 7 * 86_400_000;

/// The table up to an entry of its log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// The number of the last entry; `None` before the first.
    pub version: Option<u64>,
    protocol: Option<Protocol>,
    metadata: Option<MetaData>,
    files: BTreeMap<String, Add>,
    removed: BTreeMap<String, Remove>,
    transactions: BTreeMap<String, i64>,
}

/// A curated file that is there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DataFile {
    /// Its place below the table.
    pub path: String,
    /// The day of its rows.
    pub day: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The time at which it was written, in milliseconds since the Unix epoch.
    pub modified_ms: i64,
    /// Its statistics.
    pub stats: Stats,
}

/// A batch that is to be in the table: its files, which are all there, and their columns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Arrival {
    /// The batch.
    pub batch: BatchNumber,
    /// The columns of its files.
    pub columns: Vec<Column>,
    /// Its files.
    pub files: Vec<DataFile>,
}

/// Files that take the place of others.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Replacement {
    /// The places of those that leave.
    pub removed: BTreeSet<String>,
    /// Those that come, each with the batches whose rows it has.
    pub added: Vec<(DataFile, BTreeSet<BatchNumber>)>,
    /// False if the rows are the same as before.
    pub changes_rows: bool,
}

/// The reason why files cannot take the place of others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Overtaken {
    /// Somebody else has replaced them.
    #[error("{0} is in the table no longer")]
    Gone(String),
    /// They have rows of other batches.
    #[error("they have rows of the batches {after}, and not of {before}")]
    Batches {
        /// The batches that leave.
        before: String,
        /// The batches that come.
        after: String,
    },
    /// They have more rows, or fewer.
    #[error("they have {after} rows, and not {before}")]
    Rows {
        /// The rows that leave.
        before: u64,
        /// The rows that come.
        after: u64,
    },
}

impl Snapshot {
    /// Takes up an entry of the log, or a checkpoint up to it.
    pub fn apply(&mut self, version: u64, actions: Vec<Action>) -> Result<(), DeltaError> {
        for action in actions {
            match action {
                Action::Protocol(protocol) => {
                    protocol.check()?;
                    self.protocol = Some(protocol);
                }
                Action::MetaData(metadata) => self.metadata = Some(metadata),
                Action::Txn(transaction) => drop(self.transactions.insert(transaction.app_id, transaction.version)),
                Action::Add(add) => {
                    self.removed.remove(&add.path);
                    self.files.insert(add.path.clone(), add);
                }
                Action::Remove(remove) => {
                    self.files.remove(&remove.path);
                    self.removed.insert(remove.path.clone(), remove);
                }
                Action::CommitInfo(_) => {}
            }
        }
        self.version = Some(version);
        Ok(())
    }

    /// Returns the number of the entry that follows.
    pub fn next_version(&self) -> u64 {
        self.version.map_or(0, |version| version + 1)
    }

    /// Returns all that the log comes to, for a checkpoint at this time.
    pub fn to_actions(&self, now_ms: i64) -> Vec<Action> {
        let through = self.applied().through;
        let is_needed = |name: &str| batch_of_application(name).is_none_or(|batch| batch > through);
        let transactions =
            self.transactions.iter().filter(|(name, _)| is_needed(name)).map(|(app_id, &version)| {
                Action::Txn(Transaction { app_id: app_id.clone(), version, last_updated: None })
            });
        let files = self.files.values().map(|add| Action::Add(Add { data_change: false, ..add.clone() }));
        let removed = self.removed.values().filter(|remove| is_late(remove, now_ms)).cloned();
        let removed = removed.map(|remove| Action::Remove(Remove { data_change: false, ..remove }));
        let head = [self.protocol.clone().map(Action::Protocol), self.metadata.clone().map(Action::MetaData)];
        head.into_iter().flatten().chain(transactions).chain(files).chain(removed).collect()
    }

    /// Returns true if the table contains a batch, or has passed it.
    pub fn contains(&self, batch: BatchNumber) -> bool {
        let through = self.transactions.get(APPLICATION).and_then(|&version| u64::try_from(version).ok()).unwrap_or(0);
        batch <= through || self.transactions.contains_key(&format!("{APPLICATION}/{batch}"))
    }

    /// Returns the batches that the table contains.
    pub fn applied(&self) -> Applied {
        let through = self.transactions.get(APPLICATION).and_then(|&version| u64::try_from(version).ok()).unwrap_or(0);
        let listed = self.transactions.keys().filter_map(|name| batch_of_application(name));
        Applied { through, listed: listed.filter(|&batch| batch > through).collect() }
    }

    /// Returns the file in the table at a place.
    pub fn file(&self, path: &str) -> Option<&Add> {
        self.files.get(path)
    }

    /// Returns the files in the table, by their places.
    pub fn files(&self) -> impl Iterator<Item = &Add> {
        self.files.values()
    }

    /// Returns a file of a day that another program has written: it may have rows of any batch.
    pub fn foreign(&self, day: &str) -> Option<&Add> {
        self.files_of(day).find(|add| batches_of(add).is_empty())
    }

    /// Returns the files of a day in the table.
    pub fn files_of(&self, day: &str) -> impl Iterator<Item = &Add> {
        self.files.values().filter(move |add| day_of(add) == Some(day))
    }

    /// Returns true if a file is in the table, or was removed so lately that readers of older versions may need it.
    pub fn needs(&self, path: &str, now_ms: i64) -> bool {
        self.files.contains_key(path) || self.removed.get(path).is_some_and(|remove| is_late(remove, now_ms))
    }

    /// Forgets what a checkpoint at this time would leave out.
    pub fn forget(&mut self, now_ms: i64) {
        let through = self.applied().through;
        self.removed.retain(|_, remove| is_late(remove, now_ms));
        self.transactions.retain(|name, _| batch_of_application(name).is_none_or(|batch| batch > through));
    }

    /// Returns a setting of the table that is a number.
    pub fn setting(&self, name: &str) -> Option<u64> {
        self.metadata.as_ref()?.configuration.get(name)?.parse().ok()
    }

    /// Returns the columns of the table, without that of the partitions.
    pub fn columns(&self) -> Result<Vec<Column>, DeltaError> {
        let Some(metadata) = &self.metadata else { return Ok(Vec::new()) };
        let mut columns = schema::of_text(&metadata.schema_string)?;
        columns.retain(|column| column.name != PARTITION);
        Ok(columns)
    }

    /// Returns the entry that adds batches to the table, with every batch up to `through` finished for ever. `None` if
    /// the table has all of them. The registry from which `through` follows was read before the state of any batch.
    ///
    /// The watermark is never above the newest batch that has files: the number of one that left nothing behind could
    /// be taken again after the ledger was lost, and the table would have passed it.
    pub fn advance(
        &self,
        through: BatchNumber,
        arrivals: &[Arrival],
        now_ms: i64,
    ) -> Result<Option<Vec<Action>>, DeltaError> {
        let applied = self.applied();
        let (new, conflicts): (Vec<&Arrival>, Vec<&Arrival>) = arrivals
            .iter()
            .filter(|arrival| !applied.contains(arrival.batch))
            .partition(|arrival| self.conflict(arrival).is_none());
        let newest = new.iter().map(|arrival| arrival.batch).fold(applied.newest(), u64::max);
        let before_conflicts = conflicts.iter().map(|arrival| arrival.batch - 1).fold(through, u64::min);
        let through = before_conflicts.min(newest).max(applied.through);
        let adds: Vec<Action> =
            new.iter().flat_map(|arrival| &arrival.files).map(|file| added(file, None, true)).collect();
        if adds.is_empty() {
            return Ok(None);
        }
        let mut actions = vec![info("ADD BATCHES", now_ms)];
        actions.extend(self.described(new.iter().map(|arrival| &arrival.columns), now_ms)?);
        if through > applied.through {
            actions.push(transaction(APPLICATION.to_owned(), through));
        }
        let listed = new.iter().map(|arrival| arrival.batch).filter(|&batch| batch > through);
        actions.extend(listed.map(|batch| transaction(format!("{APPLICATION}/{batch}"), batch)));
        actions.extend(adds);
        Ok(Some(actions))
    }

    /// Returns the entry that adds batches which the table has passed without them: they were set aside, and came back.
    /// `None` if the table has rows of all of them.
    pub fn include(&self, arrivals: &[Arrival], now_ms: i64) -> Result<Option<Vec<Action>>, DeltaError> {
        let applied = self.applied();
        let mut adds = Vec::new();
        for arrival in arrivals.iter().filter(|arrival| applied.contains(arrival.batch)) {
            let is_new = |file: &&DataFile| {
                let mut compacted = self.files_of(&file.day).filter(|add| add.tags.is_some());
                !self.files.contains_key(&file.path) && !compacted.any(|add| batches_of(add).contains(&arrival.batch))
            };
            adds.extend(arrival.files.iter().filter(is_new).map(|file| added(file, None, true)));
        }
        if adds.is_empty() {
            return Ok(None);
        }
        let mut actions = vec![info("ADD BATCHES THAT CAME BACK", now_ms)];
        actions.extend(self.described(arrivals.iter().map(|arrival| &arrival.columns), now_ms)?);
        actions.extend(adds);
        Ok(Some(actions))
    }

    /// Returns the entry that puts files in the place of others.
    pub fn replace(&self, replacement: &Replacement, now_ms: i64) -> Result<Vec<Action>, Overtaken> {
        let Replacement { removed, added: of_added, changes_rows } = replacement;
        let find = |path: &String| self.files.get(path).ok_or_else(|| Overtaken::Gone(path.clone()));
        let leaving: Vec<&Add> = removed.iter().map(find).collect::<Result<_, _>>()?;
        let before: BTreeSet<BatchNumber> = leaving.iter().flat_map(|add| batches_of(add)).collect();
        let after: BTreeSet<BatchNumber> = of_added.iter().flat_map(|(_, batches)| batches).copied().collect();
        let disjoint = of_added.iter().map(|(_, batches)| batches.len()).sum::<usize>() == after.len();
        // A rebuild may leave a batch without rows of the day.
        let are_same = if *changes_rows { after.is_subset(&before) } else { before == after };
        if !are_same || !disjoint {
            return Err(Overtaken::Batches { before: ranges(&before), after: ranges(&after) });
        }
        let rows_before = leaving.iter().map(|add| Stats::rows_of(add.stats.as_deref()).unwrap_or(0)).sum();
        let rows_after = of_added.iter().map(|(file, _)| file.stats.num_records).sum();
        if !changes_rows && rows_before != rows_after {
            return Err(Overtaken::Rows { before: rows_before, after: rows_after });
        }
        let mut actions = vec![info(if *changes_rows { "REBUILD" } else { "COMPACT" }, now_ms)];
        actions.extend(leaving.into_iter().map(|add| {
            Action::Remove(Remove {
                path: add.path.clone(),
                deletion_timestamp: Some(now_ms),
                data_change: *changes_rows,
                extended_file_metadata: Some(true),
                partition_values: Some(add.partition_values.clone()),
                size: Some(add.size),
            })
        }));
        actions.extend(of_added.iter().map(|(file, batches)| added(file, Some(batches), *changes_rows)));
        Ok(actions)
    }

    /// Returns the actions that describe the table, if it is new, or gets columns.
    pub fn described<'a>(
        &self,
        files: impl Iterator<Item = &'a Vec<Column>>,
        now_ms: i64,
    ) -> Result<Vec<Action>, DeltaError> {
        let known = self.columns()?;
        let mut new: Vec<Column> = Vec::new();
        for column in files.flatten() {
            match known.iter().chain(&new).find(|it| it.name == column.name) {
                None => new.push(column.clone()),
                Some(it) if it.type_ == column.type_ => {}
                Some(it) => return Err(other_type(column, it)),
            }
        }
        if new.is_empty() {
            return Ok(Vec::new());
        }
        Ok(match &self.metadata {
            Some(metadata) => {
                let schema_string = schema::extended(&metadata.schema_string, &new)?;
                vec![Action::MetaData(MetaData { schema_string, ..metadata.clone() })]
            }
            None => {
                new.push(Column { name: PARTITION.to_owned(), type_: "date".to_owned() });
                let metadata = new_metadata(schema::to_text(&new), now_ms);
                vec![Action::Protocol(VERSIONS), Action::MetaData(metadata)]
            }
        })
    }

    /// Returns the fault of a batch whose columns are of other types than the table's.
    pub fn conflict(&self, arrival: &Arrival) -> Option<DeltaError> {
        let known = self.columns().ok()?;
        let other = |column: &Column| {
            let known = known.iter().find(|it| it.name == column.name && it.type_ != column.type_)?;
            Some(other_type(column, known))
        };
        arrival.columns.iter().find_map(other)
    }
}

fn other_type(column: &Column, known: &Column) -> DeltaError {
    DeltaError::OtherType { column: column.name.clone(), type_: column.type_.clone(), known: known.type_.clone() }
}

fn new_metadata(schema_string: String, now_ms: i64) -> MetaData {
    let id = layout::hexadecimal_sha256(format!("{APPLICATION} {now_ms} {schema_string}").as_bytes());
    // For other writers, which are not to remove what readers of this table still need.
    let settings = [
        ("delta.checkpointInterval", "100"),
        ("delta.deletedFileRetentionDuration", "interval 7 days"),
        ("delta.logRetentionDuration", "interval 30 days"),
    ];
    MetaData {
        id: format!("{}-{}-{}-{}-{}", &id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..32]),
        name: None,
        description: None,
        format: Format { provider: "parquet".to_owned(), options: BTreeMap::new() },
        schema_string,
        partition_columns: vec![PARTITION.to_owned()],
        configuration: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        created_time: Some(now_ms),
    }
}

fn info(operation: &str, now_ms: i64) -> Action {
    let engine_info = concat!("music-streams ", env!("CARGO_PKG_VERSION")).to_owned();
    Action::CommitInfo(CommitInfo { timestamp: now_ms, operation: operation.to_owned(), engine_info })
}

fn transaction(app_id: String, version: BatchNumber) -> Action {
    let version = i64::try_from(version).unwrap_or(i64::MAX);
    Action::Txn(Transaction { app_id, version, last_updated: None })
}

fn added(file: &DataFile, batches: Option<&BTreeSet<BatchNumber>>, data_change: bool) -> Action {
    Action::Add(Add {
        path: file.path.clone(),
        partition_values: Named::from([(PARTITION.to_owned(), Some(file.day.clone()))]),
        size: file.bytes,
        modification_time: file.modified_ms,
        data_change,
        stats: Some(file.stats.to_text()),
        tags: batches.map(tag_of),
    })
}

/// Returns true for a file that was removed so lately that readers of older versions may need it.
fn is_late(remove: &Remove, now_ms: i64) -> bool {
    remove.deletion_timestamp.is_some_and(|at| now_ms.saturating_sub(at) < KEPT_MS)
}

/// Returns the day of a file in the table.
pub fn day_of(add: &Add) -> Option<&str> {
    add.partition_values.get(PARTITION)?.as_deref()
}

fn batch_of_application(name: &str) -> Option<BatchNumber> {
    name.strip_prefix(APPLICATION)?.strip_prefix('/')?.parse().ok()
}
