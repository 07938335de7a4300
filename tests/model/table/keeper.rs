//! Keepers of the table, as `src/lake/log.rs`, `advance.rs` and `arrivals.rs` have it.

use music_streams::formats::delta::action::{Action, Transaction};
use music_streams::formats::delta::stats::Stats;
use music_streams::lake::snapshot::{Arrival, DataFile, Overtaken, Snapshot};
use music_streams::protocol::{BatchNumber, Registry, State};

use super::world::Upload;
use super::{ATTEMPTS, Broken, DAYS, NOW, Process, pause};

/// A batch, as far as the table is concerned.
enum Look {
    In(Arrival),
    Nothing,
    Later,
}

impl Process {
    pub(super) async fn keep(mut self) {
        loop {
            let registry = self.registry().await;
            self.advance(&registry).await;
        }
    }

    /// Reads the log up to its end, at first from a checkpoint.
    pub(super) async fn refresh(&mut self) {
        pause().await;
        let mut world = self.world.borrow_mut();
        if !self.is_loaded {
            self.is_loaded = true;
            self.table = Snapshot::default();
            let entries = world.log.len();
            if entries > 0 && world.chance(2) {
                let version = world.below(entries);
                let checkpoint = world.replayed(version + 1).to_actions(NOW);
                self.table.apply(version as u64, checkpoint).unwrap();
            }
        }
        while let Some(entry) = world.log.get(self.table.next_version() as usize) {
            self.table.apply(self.table.next_version(), entry.clone()).unwrap();
        }
        let through = self.table.applied().through;
        self.without_files.retain(|&batch| batch > through);
    }

    pub(super) async fn advance(&mut self, registry: &Registry) {
        if self.is_loaded && self.lacking(registry).is_empty() {
            return;
        }
        self.refresh().await;
        let lacking = self.lacking(registry);
        let last = lacking.last().copied().unwrap_or(0);
        let mut arrivals = Vec::new();
        for &batch in &lacking {
            pause().await;
            match self.look(batch, registry) {
                Look::In(arrival) => arrivals.push(arrival),
                Look::Nothing => drop(self.without_files.insert(batch)),
                Look::Later => {}
            }
        }
        let through = match self.broken {
            Broken::WatermarkToLast => registry.last,
            Broken::StatesBeforeRegistry => self.registry().await.applied_through(),
            _ => registry.applied_through(),
        };
        let through = through.min(last);
        let is_ahead = self.broken == Broken::WatermarkAhead;
        let decide = |snapshot: &Snapshot| {
            let mut actions = snapshot.advance(through, &arrivals, NOW).unwrap();
            if let Some(actions) = actions.as_mut().filter(|_| is_ahead && through > snapshot.applied().through) {
                raise(actions, through);
            }
            Ok(actions)
        };
        // Nothing is overtaken.
        let _ = self.commit(decide).await;
        let through = self.table.applied().through;
        self.without_files.retain(|&batch| batch > through);
    }

    fn lacking(&self, registry: &Registry) -> Vec<BatchNumber> {
        let applied = self.table.applied();
        let may_be_in = |batch: &BatchNumber| {
            let state = registry.batches.get(batch).map(|entry| entry.state);
            !matches!(state, Some(State::Open | State::Abandoned | State::Lost))
        };
        let lacking = |batch: &BatchNumber| !applied.contains(*batch) && !self.without_files.contains(batch);
        (applied.through + 1..=registry.last).filter(lacking).filter(may_be_in).collect()
    }

    fn look(&self, batch: BatchNumber, registry: &Registry) -> Look {
        let world = self.world();
        let has_manifest = world.manifests.contains(&batch);
        let listed = registry.batches.get(&batch).map(|entry| entry.state);
        let state = listed.or_else(|| world.records.get(&batch).copied());
        let mut arrival = world.arrival(batch, None);
        let planned = world.uploads.get(&batch).map_or(0, Vec::len);
        if has_manifest && self.broken == Broken::AbandonedByManifest {
            let described = |upload: &Upload| DataFile {
                path: upload.path.clone(),
                day: DAYS[upload.day].to_owned(),
                bytes: upload.rows,
                modified_ms: NOW,
                stats: Stats { num_records: upload.rows, ..Stats::default() },
            };
            arrival.files = world.uploads[&batch].iter().map(described).collect();
            return Look::In(arrival);
        }
        let is_done = match state {
            Some(State::Open) => return Look::Later,
            Some(State::Abandoned | State::Lost | State::Aside) => return Look::Nothing,
            Some(State::Committed) => false,
            Some(State::Done) | None => true,
        };
        let may_be_partial = self.broken == Broken::FileNotThere && !arrival.files.is_empty();
        if !is_done && (!has_manifest || (arrival.files.len() < planned && !may_be_partial)) {
            return Look::Later;
        }
        if arrival.files.is_empty() { Look::Nothing } else { Look::In(arrival) }
    }

    /// Writes the entry that is decided, and decides anew whenever somebody else was faster.
    pub(super) async fn commit(
        &mut self,
        decide: impl Fn(&Snapshot) -> Result<Option<Vec<Action>>, Overtaken>,
    ) -> Result<bool, Overtaken> {
        let mut decided = None;
        for _ in 0..ATTEMPTS {
            let again = decided.take().filter(|_| self.broken == Broken::DecidedOnce);
            let Some(actions) = again.map_or_else(|| decide(&self.table), |actions| Ok(Some(actions)))? else {
                return Ok(false);
            };
            let version = match self.broken {
                Broken::UnreadBase => self.world().log.len() as u64,
                _ => self.table.next_version(),
            };
            if self.put(version, &actions).await {
                self.table.apply(version, actions).unwrap();
                return Ok(true);
            }
            self.refresh().await;
            decided = Some(actions);
        }
        Ok(false)
    }

    /// Asks for an entry to be written. Returns false if there is one, which may be this very one.
    async fn put(&self, version: u64, actions: &[Action]) -> bool {
        self.world().under_way.insert(self.number, (version, actions.to_vec()));
        pause().await;
        let mut world = self.world();
        world.under_way.remove(&self.number);
        let is_written = world.put(version, actions.to_vec());
        let is_lost = is_written && world.chance(8);
        if is_lost {
            world.note("lost answer", &version.to_string());
        }
        is_written && !is_lost
    }
}

/// Sets the watermark of an entry.
fn raise(actions: &mut Vec<Action>, through: BatchNumber) {
    let app_id = "music-streams".to_owned();
    actions.retain(|action| !matches!(action, Action::Txn(transaction) if transaction.app_id == app_id));
    actions.push(Action::Txn(Transaction { app_id, version: through as i64, last_updated: None }));
}
