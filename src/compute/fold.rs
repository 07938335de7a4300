//! The fold: the sums of a batch's rows, one accumulator per report item and day.
//!
//! Pure. The fold takes the rows of a row group at a time and sorts each day's pairs of track and listener. It so meets
//! every report item once with all its rows, and each row costs a few sequential passes only.
//!
//! It returns one [`FoldedItem`] for each report item that a row touched, and never two for one key: days are unique,
//! each day's accumulators are keyed by code, and an id has one code ([`crate::compute::codes`]). Rows without a genre
//! are counted under the catalogue's own genre `unknown` if it has one. A second delta of a key in a batch would be
//! mistaken for a repetition and dropped; a delta file with two rows of one key is therefore refused
//! ([`crate::compute::deltas::decode`]).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;

use crate::compute::codes::Names;
use crate::compute::deltas::{FoldedItem, Subject};
use crate::compute::pairs::Pairs;
use crate::compute::rows::Rows;
use crate::memory::table_bytes;
use crate::reference::catalogue::MAX_GENRES;
use crate::reports::distinct::Members;

/// The accumulator of a report item: its counts and its distinct members.
#[derive(Debug, Default)]
pub(super) struct Accumulator {
    pub(super) listens: u64,
    pub(super) listening_ms: u64,
    pub(super) members: Members,
}

/// The report items of one day, by code.
#[derive(Debug, Default)]
struct Day {
    tracks: Accumulators<u32>,
    genres: Accumulators<Option<u16>>,
    users: Accumulators<u32>,
}

/// Accumulators by code.
type Accumulators<K> = HashMap<K, Accumulator, RandomState>;

/// Returns the bytes that a table takes in addition while it makes room for `more` items; none if it has room.
fn growth_bytes<K>(items: &Accumulators<K>, more: usize) -> usize {
    let is_room = items.capacity() - items.len() >= more;
    if is_room { 0 } else { table_bytes::<K, Accumulator>((2 * items.capacity()).max(more)) }
}

impl Day {
    /// Returns the bytes of the day's tables.
    fn table_bytes(&self) -> usize {
        let of_codes = |items: &Accumulators<u32>| table_bytes::<u32, Accumulator>(items.capacity());
        of_codes(&self.tracks) + of_codes(&self.users) + table_bytes::<Option<u16>, Accumulator>(self.genres.capacity())
    }

    /// Returns true if the day stays within the limit until the next check, given `bytes` apart from its tables.
    #[cold]
    fn has_room(&self, bytes: usize, limit_bytes: usize) -> bool {
        bytes + self.table_bytes() + self.growth_bytes() <= limit_bytes
    }

    /// Returns the bytes that its tables may take in addition until the next check.
    fn growth_bytes(&self) -> usize {
        growth_bytes(&self.tracks, RUNS_PER_LOOK)
            + growth_bytes(&self.users, RUNS_PER_LOOK)
            + growth_bytes(&self.genres, MAX_GENRES)
    }
}

/// Bytes of a day's entry among the days, without its tables.
const DAY_BYTES: usize = 2 * std::mem::size_of::<(i32, Day)>();
/// Number of runs of a track's or a listener's rows between two memory checks, and the growth in bytes that forces a
/// check.
const RUNS_PER_LOOK: usize = 64;
const BYTES_PER_LOOK: usize = 1 << 20;

/// The sums of the rows so far.
#[derive(Debug, Default)]
pub struct Fold {
    days: BTreeMap<i32, Day>,
    items: usize,
    /// Bytes of memory that the items take.
    bytes: usize,
    /// The memory limit was exceeded, and rows are missing.
    is_too_large: bool,
    pairs: Pairs,
    /// Listens and milliseconds by listener for the current rows; zero between calls.
    of_user: Vec<(u64, u64)>,
}

impl Fold {
    /// Adds rows of one day within `limit_bytes` of memory. It stops amid the rows before it takes more;
    /// [`Fold::is_too_large`] is true then and the fold of no further use.
    pub fn add(&mut self, day: i32, rows: &Rows, names: &Names, limit_bytes: usize) {
        if self.is_too_large {
            return;
        }
        self.pairs.set(&rows.tracks, &rows.users);
        self.reserve_users(&rows.users);
        let day = match self.days.entry(day) {
            Entry::Occupied(day) => day.into_mut(),
            Entry::Vacant(place) => {
                self.bytes += DAY_BYTES;
                place.insert(Day::default())
            }
        };
        let touched = |items: &mut usize, item: &Accumulator| *items += usize::from(item.listens == 0);
        self.bytes -= day.table_bytes();
        let (mut items, mut bytes, mut last_look) = (0, self.bytes, self.bytes);
        // Tables take their memory at once when they double and are checked beforehand; sets grow little by little.
        let mut is_room = |number: usize, bytes: usize, day: &Day| {
            if !number.is_multiple_of(RUNS_PER_LOOK) && bytes - last_look <= BYTES_PER_LOOK {
                return true;
            }
            last_look = bytes;
            day.has_room(bytes, limit_bytes)
        };
        for (number, run) in self.pairs.runs().enumerate() {
            if !is_room(number, bytes, day) {
                self.is_too_large = true;
                return;
            }
            let (track, listens) = (Pairs::first(run[0]), run.len() as u64);
            let song = names.song(track);
            let duration_ms = song.map_or(0, |song| u64::from(song.duration_ms));
            for &pair in run {
                let (user_listens, user_ms) = &mut self.of_user[Pairs::second(pair) as usize];
                *user_listens += 1;
                *user_ms += duration_ms;
            }
            let listeners = run.chunk_by(|a, b| a == b).map(|same| names.user_member(Pairs::second(same[0])));
            let mut count = |item: &mut Accumulator| {
                touched(&mut items, item);
                item.listens += listens;
                item.listening_ms += listens * duration_ms;
                bytes += item.members.extend(listeners.clone());
            };
            count(day.tracks.entry(track).or_default());
            match song.map(|song| song.genres.as_slice()) {
                None | Some([]) => count(day.genres.entry(names.catalogue().unknown_genre()).or_default()),
                Some(genres) => {
                    genres.iter().for_each(|&genre| count(day.genres.entry(Some(genre)).or_default()));
                }
            }
        }
        self.pairs.swap_distinct();
        for (number, run) in self.pairs.runs().enumerate() {
            if !is_room(number, bytes, day) {
                self.is_too_large = true;
                return;
            }
            let user = Pairs::first(run[0]);
            let (listens, listening_ms) = std::mem::take(&mut self.of_user[user as usize]);
            let item = day.users.entry(user).or_default();
            touched(&mut items, item);
            item.listens += listens;
            item.listening_ms += listening_ms;
            bytes += item.members.extend(run.iter().map(|&pair| names.track_member(Pairs::second(pair))));
        }
        self.items += items;
        self.bytes = bytes + day.table_bytes();
        self.is_too_large = self.bytes > limit_bytes;
    }

    /// Makes room for the sums of these listeners.
    fn reserve_users(&mut self, users: &[u32]) {
        let greatest = users.iter().max().map_or(0, |&user| user as usize + 1);
        if self.of_user.len() < greatest {
            self.bytes += (greatest - self.of_user.len()) * std::mem::size_of::<(u64, u64)>();
            self.of_user.reserve_exact(greatest - self.of_user.len());
            self.of_user.resize(greatest, (0, 0));
        }
    }

    /// Returns true if the memory limit was exceeded. The fold lacks rows then.
    pub fn is_too_large(&self) -> bool {
        self.is_too_large
    }

    /// Returns the bytes of memory that the fold takes.
    pub fn memory_bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the number of report items touched so far, with which memory and delta files grow.
    pub fn items(&self) -> usize {
        self.items
    }

    /// Returns the number of rows so far.
    pub fn listens(&self) -> u64 {
        self.days.values().flat_map(|day| day.tracks.values()).map(|track| track.listens).sum()
    }

    /// Returns the report items, day by day. The memory of an item is freed with it.
    pub fn into_items(self) -> impl Iterator<Item = FoldedItem> {
        self.days.into_iter().flat_map(|(day, folded)| {
            let item = move |of, item| FoldedItem { day, of, item };
            let tracks = folded.tracks.into_iter().map(move |(track, figures)| item(Subject::Track(track), figures));
            let genres = folded.genres.into_iter().map(move |(genre, figures)| item(Subject::Genre(genre), figures));
            let users = folded.users.into_iter().map(move |(user, figures)| item(Subject::Listener(user), figures));
            tracks.chain(genres).chain(users)
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::calendar::date_text;
    use crate::compute::codes::Dictionary;
    use crate::compute::deltas::{self, DeltaRow};
    use crate::reference::Catalogue;
    use crate::reports::figures::Delta;
    use proptest::prelude::*;
    use std::collections::HashSet;
    use std::sync::Arc;

    const SONGS: &str = "track_id,track_name,artists,track_genre,duration_ms\n\
        t0,A,X,pop,1000\nt0,A,X,rock,1000\nt1,B,Y,rock,250\nt2,C,Z,,7\nt3,D,Z,unknown,11\n";
    pub(in crate::compute) const USERS: &str = "user_id,user_country\n1,Peru\n2,Ghana\n";

    pub(in crate::compute) async fn catalogue() -> Catalogue {
        Catalogue::parse(SONGS.as_bytes(), USERS.as_bytes()).await.unwrap()
    }

    /// A day of this century.
    pub(in crate::compute) const DAY: i64 = 20_000;

    /// A listen: user, track, day.
    pub(in crate::compute) type Listen = (i64, u8, i64);

    pub(in crate::compute) fn add(fold: &mut Fold, listens: &[Listen], dictionary: &mut Dictionary) {
        let line = |(user, track, day): &Listen| format!("{user},t{track},{} 00:00:05\n", date_text(*day as i32));
        let lines: String = listens.iter().map(line).collect();
        let mut rows = Rows::default();
        rows.append(&crate::input::block::tests::parse(&lines, dictionary.names().catalogue()), 0, dictionary);
        assert_eq!(rows.len(), listens.len());
        for (day, rows) in rows.by_day() {
            fold.add(day, &rows, dictionary.names(), usize::MAX);
        }
    }

    /// Report, id and day of an item.
    type Id = (&'static str, String, i32);

    /// The visible part of deltas: listens, milliseconds, distinct.
    type PublishedFigures = BTreeMap<Id, (u64, u64, u64)>;

    /// Returns the deltas as they come out of a delta file.
    pub(in crate::compute) fn deltas(fold: Fold, names: &Names) -> Vec<Delta> {
        let rows: Vec<DeltaRow<'_>> = fold.into_items().map(|item| item.into_row(names)).collect();
        deltas::decode(&deltas::encode(&rows).unwrap()).unwrap()
    }

    fn folded(batches: &[&[Listen]], catalogue: &Arc<Catalogue>) -> PublishedFigures {
        let (mut dictionary, mut fold) = (Dictionary::of(Arc::clone(catalogue)), Fold::default());
        batches.iter().for_each(|listens| add(&mut fold, listens, &mut dictionary));
        visible(deltas(fold, dictionary.names()).into_iter())
    }

    fn visible(deltas: impl Iterator<Item = Delta>) -> PublishedFigures {
        let mut visible = PublishedFigures::new();
        for Delta { key, figures, .. } in deltas {
            let value = (figures.listens, figures.listening_ms, figures.distinct.count());
            assert_eq!(visible.insert((key.report.name(), key.id, key.day), value), None, "an item twice");
        }
        visible
    }

    /// Computes the same with plain sets, without codes and sketches.
    fn reference(listens: &[Listen]) -> PublishedFigures {
        let mut sets: BTreeMap<Id, (u64, u64, HashSet<String>)> = BTreeMap::new();
        for &(user, track, day) in listens {
            let (ms, genres): (u64, &[&str]) = match track {
                0 => (1000, &["pop", "rock"]),
                1 => (250, &["rock"]),
                2 => (7, &["unknown"]),
                3 => (11, &["unknown"]),
                _ => (0, &["unknown"]),
            };
            let mut count = |report, id: String, member: String| {
                let entry = sets.entry((report, id, day as i32)).or_default();
                (entry.0, entry.1) = (entry.0 + 1, entry.1 + ms);
                entry.2.insert(member);
            };
            count("track", format!("t{track}"), user.to_string());
            count("listener", user.to_string(), format!("t{track}"));
            genres.iter().for_each(|genre| count("genre", (*genre).to_owned(), user.to_string()));
        }
        sets.into_iter().map(|(key, (listens, ms, members))| (key, (listens, ms, members.len() as u64))).collect()
    }

    fn listens() -> impl Strategy<Value = Vec<Listen>> {
        prop::collection::vec((1..40_i64, 0..6_u8, DAY - 2..DAY + 3), 0..200)
    }

    /// Sets outgrow their lists, and runs those that are sorted by comparison.
    #[tokio::test]
    async fn many_rows_are_folded_as_few_are() {
        let catalogue = Arc::new(catalogue().await);
        let listens: Vec<Listen> =
            (0..40_000_i64).map(|row| (1 + row * row % 3001, (row % 7 % 6) as u8, DAY + row % 97 / 90)).collect();
        let expected = reference(&listens);
        for parts in [1, 3, 17] {
            let parts: Vec<&[Listen]> = listens.chunks(listens.len().div_ceil(parts)).collect();
            let folded = folded(&parts, &catalogue);
            assert_eq!(folded.len(), expected.len());
            for (item, &(listens, ms, members)) in &expected {
                let (folded_listens, folded_ms, folded_members) = folded[item];
                assert_eq!((folded_listens, folded_ms), (listens, ms), "{item:?}");
                assert!(folded_members.abs_diff(members) as f64 <= 1.0 + members as f64 * 0.03, "{item:?} {members}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_fold_is_that_of_plain_sets_however_the_rows_are_cut(a in listens(), b in listens()) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let catalogue = Arc::new(runtime.block_on(catalogue()));
            let expected = reference(&[a.clone(), b.clone()].concat());
            prop_assert_eq!(&folded(&[&a, &b], &catalogue), &expected);
            prop_assert_eq!(&folded(&[&b, &a], &catalogue), &expected);
        }
    }

    /// Returns rows of `tracks` tracks and `users` listeners that the catalogue lacks, with `listens` rows per track.
    fn new_rows(tracks: usize, users: usize, listens: usize, dictionary: &mut Dictionary) -> Rows {
        let line = |row: usize| format!("{},new-{},2024-06-25 00:00:05\n", 1000 + row * 7919 % users, row % tracks);
        let lines: String = (0..tracks * listens).map(line).collect();
        let mut rows = Rows::default();
        rows.append(&crate::input::block::tests::parse(&lines, dictionary.names().catalogue()), 0, dictionary);
        rows
    }

    /// The accounted memory equals the sum over every item.
    #[tokio::test]
    async fn a_fold_knows_the_bytes_it_takes() {
        let mut dictionary = Dictionary::of(Arc::new(catalogue().await));
        let mut fold = Fold::default();
        for (day, tracks, users, listens) in [(1, 3000, 2000, 4), (2, 5, 6000, 5000), (1, 10, 9000, 3000), (3, 1, 1, 1)]
        {
            let rows = new_rows(tracks, users, listens, &mut dictionary);
            fold.add(day, &rows, dictionary.names(), usize::MAX);
        }
        let items = |day: &Day| {
            let of_codes = day.tracks.values().chain(day.users.values()).chain(day.genres.values());
            of_codes.map(|item| item.members.memory_bytes()).sum::<usize>()
        };
        let members: usize = fold.days.values().map(items).sum();
        let tables: usize = fold.days.values().map(Day::table_bytes).sum();
        let of_user = std::mem::size_of_val(fold.of_user.as_slice());
        assert_eq!(fold.memory_bytes(), members + tables + of_user + 3 * DAY_BYTES);
        assert!(members > 100_000 && tables > 100_000, "{members} {tables}");
    }

    #[tokio::test]
    async fn a_fold_stops_before_it_takes_more_than_it_may() {
        let mut dictionary = Dictionary::of(Arc::new(catalogue().await));
        for (tracks, users, listens) in [(50_000, 40_000, 1), (20, 20_000, 10_000), (2000, 2000, 100)] {
            let rows = new_rows(tracks, users, listens, &mut dictionary);
            let mut fold = Fold::default();
            fold.add(1, &rows, dictionary.names(), usize::MAX);
            let needed = fold.memory_bytes();
            assert!(!fold.is_too_large());
            for limit in [needed / 8, needed / 3, needed - 1] {
                let mut fold = Fold::default();
                fold.add(1, &rows, dictionary.names(), limit);
                assert!(fold.is_too_large(), "{limit} of {needed}");
                let day = &fold.days[&1];
                let of_codes = day.tracks.values().chain(day.users.values()).chain(day.genres.values());
                let members: usize = of_codes.map(|item| item.members.memory_bytes()).sum();
                let taken = members + day.table_bytes();
                assert!(taken <= limit + (2 << 20), "{taken}, and {limit} were allowed");
                // It stays too large whatever follows.
                fold.add(2, &rows, dictionary.names(), usize::MAX);
                assert!(fold.is_too_large());
            }
            let mut fold = Fold::default();
            // A table that doubles exists twice for a while.
            fold.add(1, &rows, dictionary.names(), 2 * needed + (1 << 20));
            assert!(!fold.is_too_large());
        }
    }
}
