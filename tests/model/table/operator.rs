//! Compactors and an operator, as `src/lake/compact.rs`, `rebuild.rs` and `src/commands` have it.

use std::collections::BTreeSet;

use music_streams::formats::delta::action::Add;
use music_streams::lake::batches::batches_of;
use music_streams::lake::snapshot::{Arrival, DataFile, Replacement, Snapshot};
use music_streams::layout;
use music_streams::protocol::{BatchNumber, Registry, State};

use super::world::{Content, Errand, Upload};
use super::{ATTEMPTS_AT_DAY, Broken, DAYS, NOW, PATIENCE, Process, pause};

impl Process {
    pub(super) async fn compact(mut self) {
        loop {
            pause().await;
            if !self.world().chance(5) {
                continue;
            }
            if !self.is_loaded || self.world().chance(2) {
                self.refresh().await;
            }
            let day = self.world().below(DAYS.len());
            let mut paths = self.paths_of(day, |add| !batches_of(add).is_empty());
            paths.retain(|_| !self.world().chance(3));
            if paths.len() < 2 {
                continue;
            }
            let picked = self.table.clone();
            if let Some(merged) = self.merge(day, &paths).await {
                self.replace(&picked, &paths, merged).await;
            }
        }
    }

    fn paths_of(&self, day: usize, is_wanted: impl Fn(&Add) -> bool) -> Vec<String> {
        self.table.files_of(DAYS[day]).filter(|add| is_wanted(add)).map(|add| add.path.clone()).collect()
    }

    /// Reads files one after another, and writes their rows to a new one. `None` if one of them is gone.
    async fn merge(&self, day: usize, paths: &[String]) -> Option<DataFile> {
        let mut content = Content::new();
        for path in paths {
            pause().await;
            let read = self.world().bucket.get(path).cloned()?;
            content.extend(read);
        }
        pause().await;
        Some(self.world().write_compacted(day, content))
    }

    /// Puts a file in the place of those `picked`. Returns false if somebody else has replaced some.
    async fn replace(&mut self, picked: &Snapshot, paths: &[String], merged: DataFile) -> bool {
        let batches = paths.iter().filter_map(|path| picked.file(path)).flat_map(batches_of).collect();
        let removed = paths.iter().cloned().collect();
        let replacement = Replacement { removed, added: vec![(merged, batches)], changes_rows: false };
        let is_unchecked = self.broken == Broken::ReplaceWithoutCheck;
        let decide = |snapshot: &Snapshot| {
            let base = if is_unchecked { picked } else { snapshot };
            base.replace(&replacement, NOW).map(Some)
        };
        let replaced = self.commit(decide).await;
        let what = if replaced == Ok(true) { "compacted" } else { "overtaken" };
        self.world().note(what, &format!("{paths:?}"));
        replaced == Ok(true)
    }

    /// Forgets the table, as a command begins without it.
    pub(super) fn forget(&mut self) {
        self.is_loaded = false;
        self.without_files.clear();
    }

    pub(super) async fn operate(mut self) {
        loop {
            pause().await;
            self.do_errand().await;
        }
    }

    pub(super) async fn do_errand(&mut self) {
        self.forget();
        let errand = self.world().next_errand();
        let Some(errand) = errand else { return };
        self.world().note("errand", &format!("{errand:?}"));
        let is_done = match &errand {
            Errand::Publish(batch, path) => self.publish(*batch, path).await,
            Errand::BringBack(batch) => self.bring_back(*batch).await,
            Errand::Rebuild(day) => self.rebuild(*day, None).await,
        };
        if is_done {
            self.world().note("errand done", &format!("{errand:?}"));
            self.world().pending.remove(&errand);
        }
    }

    /// Publishes a file that was refused, or rebuilds its day.
    async fn publish(&mut self, batch: BatchNumber, path: &str) -> bool {
        let day = self.world().upload(batch, path).unwrap().day;
        let is_there = self.world().bucket.contains_key(path);
        // Else its parts have expired.
        if !is_there && self.world().chance(2) {
            return self.rebuild(day, Some(batch)).await;
        }
        self.world().publish(batch, path);
        self.include(batch).await;
        true
    }

    /// Finishes a batch that was set aside: its manifest is restored.
    async fn bring_back(&mut self, batch: BatchNumber) -> bool {
        self.world().manifests.insert(batch);
        let uploads = self.world().uploads[&batch].clone();
        for Upload { path, .. } in &uploads {
            pause().await;
            if !self.world().refused.contains(path) {
                self.world().publish(batch, path);
            }
        }
        pause().await;
        self.close(batch, State::Done).await;
        if self.world().chance(2) {
            self.include(batch).await;
            return true;
        }
        for Upload { day, .. } in uploads {
            if !self.rebuild(day, Some(batch)).await {
                return false;
            }
        }
        true
    }

    async fn include(&mut self, batch: BatchNumber) {
        let registry = self.registry().await;
        self.advance(&registry).await;
        pause().await;
        let arrival = self.world().arrival(batch, None);
        self.include_all(&[arrival]).await;
    }

    async fn include_all(&mut self, arrivals: &[Arrival]) {
        // Nothing is overtaken.
        let included = self.commit(|snapshot| Ok(snapshot.include(arrivals, NOW).unwrap())).await;
        if included == Ok(true) {
            self.world().note("included", "");
        }
    }

    /// Rebuilds a day, and a file of a batch that is lost. Returns false if it is to be repeated.
    async fn rebuild(&mut self, day: usize, lost: Option<BatchNumber>) -> bool {
        let Some(through) = self.finished_through().await else { return false };
        if lost.is_some_and(|batch| batch > through) {
            return false;
        }
        let registry = self.registry().await;
        if self.broken != Broken::RebuiltInPlace && !self.detach(day, &registry).await {
            return false;
        }
        pause().await;
        let batches = self.world().to_rebuild(day, through, lost);
        let Some(batches) = batches else { return false };
        let rebuild = self.world().begin_rebuild(day, &batches);
        for batch in batches {
            pause().await;
            self.world().rebuild_file(day, batch, rebuild);
        }
        let registry = self.registry().await;
        let is_done = self.rewrite(day, &registry).await;
        if is_done {
            self.world().pending.remove(&Errand::Rebuild(day));
        }
        is_done
    }

    /// Waits until all present batches are finished. `None` if that takes too long.
    async fn finished_through(&self) -> Option<BatchNumber> {
        let last = self.registry().await.last;
        for _ in 0..PATIENCE {
            let through = self.registry().await.applied_through();
            if through >= last {
                return Some(through);
            }
        }
        None
    }

    /// Replaces every file of a batch in a day by compacted ones.
    async fn detach(&mut self, day: usize, registry: &Registry) -> bool {
        self.advance(registry).await;
        for _ in 0..ATTEMPTS_AT_DAY {
            self.refresh().await;
            let paths = self.paths_of(day, |add| layout::batch_of_curated(&add.path).is_some());
            if paths.is_empty() {
                return true;
            }
            let picked = self.table.clone();
            if let Some(merged) = self.merge(day, &paths).await
                && self.replace(&picked, &paths, merged).await
            {
                return true;
            }
        }
        false
    }

    /// Builds the compacted files of a day anew, and adds what the table lacks.
    async fn rewrite(&mut self, day: usize, registry: &Registry) -> bool {
        let rest = self.rewrite_compacted(day).await;
        let Some(rest) = rest else { return false };
        if self.broken != Broken::NothingForEver {
            self.without_files.clear();
            self.advance(registry).await;
        }
        self.include_all(&rest).await;
        true
    }

    async fn rewrite_compacted(&mut self, day: usize) -> Option<Vec<Arrival>> {
        let early = if self.broken == Broken::ListedFirst { Some(self.files_of_day(day).await) } else { None };
        for _ in 0..ATTEMPTS_AT_DAY {
            self.refresh().await;
            let arrivals = match &early {
                Some(arrivals) => arrivals.clone(),
                None => self.files_of_day(day).await,
            };
            let removed: BTreeSet<String> =
                self.paths_of(day, |add| add.tags.is_some() && !batches_of(add).is_empty()).into_iter().collect();
            let compacted = removed.iter().filter_map(|path| self.table.file(path));
            let batches: BTreeSet<BatchNumber> = compacted.flat_map(batches_of).collect();
            if removed.is_empty() {
                return Some(arrivals);
            }
            let (of_batches, rest): (Vec<Arrival>, Vec<Arrival>) =
                arrivals.into_iter().partition(|arrival| batches.contains(&arrival.batch));
            let paths: Vec<String> =
                of_batches.iter().flat_map(|arrival| &arrival.files).map(|file| file.path.clone()).collect();
            let mut added = Vec::new();
            if !paths.is_empty() {
                let merged = self.merge(day, &paths).await?;
                added.push((merged, of_batches.iter().map(|arrival| arrival.batch).collect()));
            }
            let replacement = Replacement { removed, added, changes_rows: true };
            if self.commit(|snapshot| snapshot.replace(&replacement, NOW).map(Some)).await == Ok(true) {
                self.world().note("rewritten", DAYS[day]);
                return Some(rest);
            }
        }
        None
    }

    async fn files_of_day(&self, day: usize) -> Vec<Arrival> {
        pause().await;
        let world = self.world();
        let arrivals = world.uploads.keys().map(|&batch| world.arrival(batch, Some(day)));
        arrivals.filter(|arrival| !arrival.files.is_empty()).collect()
    }
}
