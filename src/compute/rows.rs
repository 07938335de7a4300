//! Rows: the good rows of a batch by column, in codes.
//!
//! Pure. Rows can be split by day, and into parts whose dictionaries are small.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use foldhash::fast::RandomState;

use crate::calendar::day_of;
use crate::compute::codes::{Dictionary, Names};
use crate::input::block::Parsed;
use crate::reference::ids::MAX_TRACK_ID_CHARS;

/// Good rows by column, in codes.
#[derive(Debug, Default, Clone)]
pub struct Rows {
    /// Codes of the tracks.
    pub tracks: Vec<u32>,
    /// Codes of the listeners.
    pub users: Vec<u32>,
    /// Microseconds since the Unix epoch.
    pub times: Vec<i64>,
    /// Codes of the rows' source files.
    pub sources: Vec<u32>,
}

impl Rows {
    /// Returns no rows, with room for `rows`: untouched memory costs nothing, whereas growing memory is copied.
    pub fn with_capacity(rows: usize) -> Self {
        Rows {
            tracks: Vec::with_capacity(rows),
            users: Vec::with_capacity(rows),
            times: Vec::with_capacity(rows),
            sources: Vec::with_capacity(rows),
        }
    }

    /// Adds the rows of a block, and assigns codes to its new tracks and listeners.
    pub fn append(&mut self, block: &Parsed, source: u32, dictionary: &mut Dictionary) {
        let new_tracks: Vec<u32> = block.new_tracks.iter().map(|id| dictionary.track_code(id)).collect();
        let new_users: Vec<u32> = block.new_users.iter().map(|&id| dictionary.user_code(id)).collect();
        append_codes(&mut self.tracks, &block.tracks, &new_tracks);
        append_codes(&mut self.users, &block.users, &new_users);
        self.times.extend_from_slice(&block.times);
        self.sources.resize(self.times.len(), source);
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Returns true if there are no rows.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Drops all rows from position `length` on.
    pub fn truncate(&mut self, length: usize) {
        self.tracks.truncate(length);
        self.users.truncate(length);
        self.times.truncate(length);
        self.sources.truncate(length);
    }

    /// Removes and returns the rows from position `start` on.
    pub fn split_off(&mut self, start: usize) -> Rows {
        Rows {
            tracks: self.tracks.split_off(start),
            users: self.users.split_off(start),
            times: self.times.split_off(start),
            sources: self.sources.split_off(start),
        }
    }

    /// Returns the rows in parts, each with about `text_bytes` of text in its dictionaries at most: nearly always one
    /// part.
    pub fn in_parts(&self, text_bytes: usize, names: &Names) -> Vec<Cow<'_, Rows>> {
        // No rows can have more text than the whole catalogue and one id per row.
        if names.catalogue().text_bytes() + self.len() * MAX_TRACK_ID_CHARS <= text_bytes {
            return vec![Cow::Borrowed(self)];
        }
        let mut seen = vec![false; self.tracks.iter().max().map_or(0, |&track| track as usize + 1)];
        let (mut parts, mut start, mut bytes) = (Vec::new(), 0, 0);
        for (row, &track) in self.tracks.iter().enumerate() {
            if std::mem::replace(&mut seen[track as usize], true) {
                continue;
            }
            bytes += names.text_bytes(track);
            if bytes > text_bytes {
                parts.push(start..row);
                start = row;
                seen.fill(false);
                seen[track as usize] = true;
                bytes = names.text_bytes(track);
            }
        }
        if parts.is_empty() {
            return vec![Cow::Borrowed(self)];
        }
        parts.push(start..self.len());
        parts.into_iter().filter(|part| !part.is_empty()).map(|part| Cow::Owned(self.part(part))).collect()
    }

    fn part(&self, rows: Range<usize>) -> Rows {
        Rows {
            tracks: self.tracks[rows.clone()].to_vec(),
            users: self.users[rows.clone()].to_vec(),
            times: self.times[rows.clone()].to_vec(),
            sources: self.sources[rows].to_vec(),
        }
    }

    /// Splits the rows by report date, in the order in which the days first occur among them.
    pub fn by_day(self) -> Vec<(i32, Rows)> {
        // Neighbouring rows mostly share their day and are moved together.
        let mut runs = Vec::new();
        let mut days: Vec<(i32, usize)> = Vec::new();
        let mut place_of: HashMap<i32, usize, RandomState> = HashMap::default();
        let mut start = 0;
        for same_day in self.times.chunk_by(|&a, &b| day_of(a) == day_of(b)) {
            let day = day_of(same_day[0]);
            let place = *place_of.entry(day).or_insert_with(|| {
                days.push((day, 0));
                days.len() - 1
            });
            days[place].1 += same_day.len();
            runs.push((place, start..start + same_day.len()));
            start += same_day.len();
        }
        if let [(day, _)] = days[..] {
            return vec![(day, self)];
        }
        let mut split: Vec<_> = days.into_iter().map(|(day, length)| (day, Rows::with_capacity(length))).collect();
        for (place, run) in runs {
            let rows = &mut split[place].1;
            rows.tracks.extend_from_slice(&self.tracks[run.clone()]);
            rows.users.extend_from_slice(&self.users[run.clone()]);
            rows.times.extend_from_slice(&self.times[run.clone()]);
            rows.sources.extend_from_slice(&self.sources[run]);
        }
        split
    }
}

fn append_codes(codes: &mut Vec<u32>, of_block: &[u32], new: &[u32]) {
    if new.is_empty() {
        codes.extend_from_slice(of_block);
    } else {
        let code = |&code: &u32| Parsed::new_position(code).map_or(code, |position| new[position]);
        codes.extend(of_block.iter().map(code));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::fold::tests::USERS;
    use crate::reference::Catalogue;
    use std::collections::HashSet;
    use std::sync::Arc;

    #[tokio::test]
    async fn rows_whose_dictionaries_would_be_large_are_parted() {
        let songs: String = (0..1000).map(|song| format!("s{song:03},{},X,pop,1\n", "n".repeat(500))).collect();
        let songs = format!("track_id,track_name,artists,track_genre,duration_ms\n{songs}");
        let catalogue = Catalogue::parse(songs.as_bytes(), USERS.as_bytes()).await.unwrap();
        let mut dictionary = Dictionary::of(Arc::new(catalogue));
        let lines: String = (0..5000).map(|row| format!("1,s{:03},2024-06-25 00:00:05\n", row * 7 % 1000)).collect();
        let mut rows = Rows::default();
        rows.append(&crate::input::block::tests::parse(&lines, dictionary.names().catalogue()), 0, &mut dictionary);
        let names = dictionary.names();
        assert_eq!(rows.in_parts(1 << 20, names).len(), 1, "each name once in a dictionary, however many rows have it");
        let parts = rows.in_parts(100_000, names);
        assert_eq!(parts.iter().flat_map(|part| part.tracks.clone()).collect::<Vec<_>>(), rows.tracks);
        assert_eq!(parts.iter().map(|part| part.len()).sum::<usize>(), rows.len());
        for part in &parts {
            let tracks: HashSet<u32> = part.tracks.iter().copied().collect();
            assert!(tracks.iter().map(|&track| names.text_bytes(track)).sum::<usize>() <= 100_000);
        }
        assert!(parts.len() < 50, "{}", parts.len());
        assert_eq!(rows.in_parts(1, names).len(), 5000, "a row at the least");
    }
}
