//! The log in the bucket: entries and checkpoints, read and written.
//!
//! An entry is one object that is written on condition that there is none of its name. A checkpoint is made by whoever
//! writes every hundredth entry; should that fail, readers read more entries.

use fail::fail_point;

use crate::aws::error::{AwsError, Kind};
use crate::aws::retry::Backoff;
use crate::formats::delta::action::{self, Action};
use crate::formats::delta::checkpoint::{self, LastCheckpoint};
use crate::formats::delta::{DeltaError, checkpoint::of_parquet};
use crate::lake::{Lake, LakeError, Snapshot, now_ms};
use crate::layout::CURATED_LOG;

/// Entries from one checkpoint to the next, unless the table says otherwise.
const ENTRIES_PER_CHECKPOINT: u64 = 100;
/// Attempts at an entry while others write theirs.
const ATTEMPTS: usize = 30;
/// The age of a snapshot up to which an entry may follow it without another look at the log.
const FRESH_MS: i64 = 60_000;
/// Parts of another writer's checkpoint that are read.
const MAX_PARTS: u32 = 1000;
const JSON: &str = "application/json";

impl Lake {
    /// Reads the log up to its end. Returns false if there is none yet.
    pub async fn refresh(&mut self) -> Result<bool, LakeError> {
        let now = now_ms();
        // The log was deleted, or this process slept until its entry was: the end of the log is elsewhere.
        let is_there = match self.snapshot.version {
            Some(version) => self.bucket.written(&entry_key(version)).await?.is_some(),
            None => false,
        };
        if !is_there {
            self.snapshot = self.last_checkpoint().await?;
        }
        while let Some(entry) = self.read_entry(self.snapshot.next_version()).await? {
            let version = self.snapshot.next_version();
            self.snapshot.apply(version, entry)?;
        }
        self.snapshot.forget(now);
        self.refreshed_ms = Some(now);
        Ok(self.snapshot.version.is_some())
    }

    /// Writes the entry that `decide` wants to follow, and decides anew whenever somebody else was faster. Returns
    /// false if there is nothing to write.
    pub(super) async fn commit<E: From<LakeError>>(
        &mut self,
        mut decide: impl FnMut(&Snapshot) -> Result<Option<Vec<Action>>, E>,
    ) -> Result<bool, E> {
        if self.refreshed_ms.is_none_or(|at| (now_ms() - at).abs() > FRESH_MS) {
            self.refresh().await?;
        }
        let mut backoff = Backoff::for_contention();
        for _ in 0..ATTEMPTS {
            let Some(actions) = decide(&self.snapshot)? else { return Ok(false) };
            let version = self.snapshot.next_version();
            fail_point!("table decided");
            let put = self.bucket.put_new(&entry_key(version), action::to_lines(&actions), JSON).await;
            if put.map_err(LakeError::from)? {
                fail_point!("table entry written");
                self.snapshot.apply(version, actions).map_err(LakeError::from)?;
                self.checkpoint_if_due(version).await;
                return Ok(true);
            }
            backoff.pause_uncancelled().await;
            // Also our own entry, if the answer to it was lost.
            self.refresh().await?;
        }
        Err(LakeError::Contended(ATTEMPTS).into())
    }

    /// Writes a checkpoint after every hundredth entry. A failure is no error: the next one is made a hundred entries
    /// later.
    async fn checkpoint_if_due(&self, version: u64) {
        if version == 0 || !version.is_multiple_of(self.entries_per_checkpoint()) {
            return;
        }
        if let Err(error) = self.write_checkpoint(version).await {
            tracing::warn!(version, "the table's checkpoint was not written: {error}");
        }
    }

    fn entries_per_checkpoint(&self) -> u64 {
        fail_point!("checkpoint every fourth", |_| 4);
        self.snapshot.setting("delta.checkpointInterval").unwrap_or(ENTRIES_PER_CHECKPOINT).max(1)
    }

    async fn write_checkpoint(&self, version: u64) -> Result<(), LakeError> {
        let actions = self.snapshot.to_actions(now_ms());
        let key = checkpoint_key(version);
        let file = checkpoint::to_parquet(&actions).map_err(|error| LakeError::File { key: key.clone(), error })?;
        self.bucket.put(&key, file, "application/vnd.apache.parquet").await?;
        fail_point!("table checkpoint written");
        let last = LastCheckpoint { version, size: actions.len() as u64, parts: None };
        let json = serde_json::to_vec(&last).unwrap_or_default();
        Ok(self.bucket.put(&last_checkpoint_key(), json, JSON).await?)
    }

    async fn read_entry(&self, version: u64) -> Result<Option<Vec<Action>>, LakeError> {
        Ok(match self.find(&entry_key(version)).await? {
            Some(lines) => Some(action::of_lines(&lines)?),
            None => None,
        })
    }

    /// Reads the last checkpoint that can be read, or nothing if the log is to be read from its beginning.
    async fn last_checkpoint(&self) -> Result<Snapshot, LakeError> {
        let hint = match self.find(&last_checkpoint_key()).await? {
            None if self.find(&entry_key(0)).await?.is_some() => return Ok(Snapshot::default()),
            None => None,
            Some(json) => match serde_json::from_slice::<LastCheckpoint>(&json) {
                Ok(last) => match self.read_checkpoint(&last).await {
                    Err(LakeError::Delta(error)) => {
                        tracing::warn!("the table's last checkpoint cannot be used: {error}; trying others");
                        Some(last.version)
                    }
                    read => return read,
                },
                Err(_) => None,
            },
        };
        let log = self.bucket.list(CURATED_LOG).await?;
        let versions = log.iter().filter_map(|(key, _)| version_of_checkpoint(key));
        for version in versions.filter(|version| Some(*version) != hint).collect::<Vec<_>>().into_iter().rev() {
            match self.read_checkpoint(&LastCheckpoint { version, size: 0, parts: None }).await {
                Err(LakeError::Delta(error)) => tracing::warn!(version, "{error}"),
                read => return read,
            }
        }
        let entries: Vec<u64> = log.iter().filter_map(|(key, _)| version_of_entry(key)).collect();
        match entries.first() {
            // There is none, or it is whole.
            None | Some(0) => Ok(Snapshot::default()),
            Some(first) => Err(unreadable(format!("no checkpoint can be read, and the log begins with entry {first}"))),
        }
    }

    async fn read_checkpoint(&self, last: &LastCheckpoint) -> Result<Snapshot, LakeError> {
        let mut snapshot = Snapshot::default();
        for key in last.keys() {
            let file = self.find(&key).await?.ok_or_else(|| unreadable(format!("{key} is missing")))?;
            snapshot.apply(last.version, of_parquet(&file)?)?;
        }
        Ok(snapshot)
    }

    async fn find(&self, key: &str) -> Result<Option<Vec<u8>>, AwsError> {
        match self.bucket.read_all(key).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl LastCheckpoint {
    /// The keys of its parts.
    fn keys(&self) -> Vec<String> {
        match self.parts.filter(|parts| *parts <= MAX_PARTS) {
            None => vec![checkpoint_key(self.version)],
            Some(parts) => (1..=parts)
                .map(|part| format!("{CURATED_LOG}{:020}.checkpoint.{part:010}.{parts:010}.parquet", self.version))
                .collect(),
        }
    }
}

fn unreadable(problem: String) -> LakeError {
    DeltaError::Unreadable { what: "the table's last checkpoint", problem }.into()
}

pub(super) fn last_checkpoint_key() -> String {
    format!("{CURATED_LOG}_last_checkpoint")
}

fn entry_key(version: u64) -> String {
    format!("{CURATED_LOG}{version:020}.json")
}

fn checkpoint_key(version: u64) -> String {
    format!("{CURATED_LOG}{version:020}.checkpoint.parquet")
}

/// Returns the number of an entry.
pub(super) fn version_of_entry(key: &str) -> Option<u64> {
    key.strip_prefix(CURATED_LOG)?.strip_suffix(".json")?.parse().ok()
}

/// Returns the number of the last entry in a checkpoint of one part.
pub(super) fn version_of_checkpoint(key: &str) -> Option<u64> {
    key.strip_prefix(CURATED_LOG)?.strip_suffix(".checkpoint.parquet")?.parse().ok()
}
