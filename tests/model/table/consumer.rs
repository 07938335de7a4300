//! Consumers: batches come and go.

use music_streams::protocol::{BatchNumber, Entry, InForce, MAX_UNFINISHED, Opening, State};

use super::world::{Errand, Upload};
use super::{Process, pause};

impl Process {
    pub(super) async fn consume(self) {
        loop {
            let registry = self.registry().await;
            let place = self.world().below(registry.batches.len().max(1));
            match registry.batches.iter().nth(place) {
                // Its owner is silent, or slow.
                Some((&batch, entry)) if self.world().chance(3) => self.recover(batch, entry).await,
                _ => self.work().await,
            }
        }
    }

    async fn work(&self) {
        if self.world().batches_left == 0 {
            return;
        }
        pause().await;
        // Another consumer may have opened the last one.
        if self.world().batches_left == 0 {
            return;
        }
        let opening = self.world().registry.open(&self.owner, 0, MAX_UNFINISHED, &InForce::default());
        let Opening::To(batch, next) = opening else { return };
        self.world().batches_left -= 1;
        self.world().registry = next;
        pause().await;
        let has_manifest = !self.world().chance(6);
        if has_manifest {
            self.world().prepare(batch);
        }
        if !has_manifest || self.world().chance(6) {
            if self.change(|registry| registry.abandon_own(batch, &self.owner)).await {
                self.clear_away(batch, State::Abandoned).await;
            }
        } else if self.change(|registry| registry.commit(batch, &self.owner, &InForce::default())).await {
            let days: Vec<usize> = self.world().uploads[&batch].iter().map(|upload| upload.day).collect();
            self.world().committed.insert(batch);
            self.world().note("committed", &format!("{batch} of the days {days:?}"));
            self.carry_out(batch).await;
        }
    }

    async fn clear_away(&self, batch: BatchNumber, state: State) {
        pause().await;
        // Or its removal fails.
        if self.world().chance(2) {
            self.world().manifests.remove(&batch);
        }
        self.close(batch, state).await;
    }

    pub(super) async fn close(&self, batch: BatchNumber, state: State) {
        self.world().record(batch, state);
        self.change(|registry| registry.close(batch)).await;
    }

    async fn carry_out(&self, batch: BatchNumber) {
        let uploads = self.world().uploads[&batch].clone();
        for Upload { path, .. } in uploads {
            pause().await;
            let mut world = self.world();
            if world.records.get(&batch) == Some(&State::Aside) {
                return;
            }
            if world.refused.contains(&path) {
                continue;
            }
            if world.may_refuse && !world.published.contains(&path) && world.chance(8) {
                world.note("refused", &path);
                world.pending.insert(Errand::Publish(batch, path.clone()));
                world.refused.insert(path);
            } else {
                world.publish(batch, &path);
            }
        }
        pause().await;
        if self.world().records.get(&batch) != Some(&State::Aside) {
            self.close(batch, State::Done).await;
        }
    }

    async fn recover(&self, batch: BatchNumber, seen: &Entry) {
        match seen.state {
            State::Open => {
                pause().await;
                let is_published = !self.world().arrival(batch, None).files.is_empty();
                if is_published {
                    if self.change(|registry| registry.commit_again(batch, seen, &self.owner)).await {
                        self.carry_out(batch).await;
                    }
                } else if self.change(|registry| registry.abandon(batch, seen)).await {
                    self.clear_away(batch, State::Lost).await;
                }
            }
            State::Abandoned | State::Lost => self.clear_away(batch, seen.state).await,
            State::Committed => {
                if self.change(|registry| registry.adopt(batch, seen, &self.owner)).await {
                    pause().await;
                    if !self.set_aside(batch) {
                        self.carry_out(batch).await;
                    }
                }
            }
            State::Done | State::Aside => {}
        }
    }

    /// Sets a batch aside if its manifest turns out to be lost.
    fn set_aside(&self, batch: BatchNumber) -> bool {
        let mut world = self.world();
        let is_committed = world.registry.batches.get(&batch).is_some_and(|entry| entry.state == State::Committed);
        let is_unfinished = is_committed && !world.records.contains_key(&batch);
        let is_lost = is_unfinished && world.may_refuse && world.chance(5);
        if is_lost {
            world.manifests.remove(&batch);
            world.record(batch, State::Aside);
            world.pending.insert(Errand::BringBack(batch));
            world.change(|registry| registry.close(batch));
        }
        is_lost
    }

    pub(super) async fn recover_all(&self) {
        loop {
            let first = self.world().registry.batches.first_key_value().map(|(&batch, entry)| (batch, entry.clone()));
            let Some((batch, entry)) = first else { return };
            self.recover(batch, &entry).await;
        }
    }
}
