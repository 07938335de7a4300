//! Aggregation: rows of a batch, and what they add up to.
//!
//! Pure. Rows work in codes: those of the catalogue, and after them those of the tracks and listeners that the batch brought
//! along ([`Names`]). The fold takes the rows of a row group at a time, sorts each day's pairs of track and listener, and so meets
//! every report item once with all its rows: what is left to do for each row are a few sequential passes. It gives one
//! [`DayItem`] for each report item that a row touched.

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::calendar::day_of;
use crate::input::block::Parsed;
use crate::input::cleanse::MAX_TRACK_ID_CHARS;
use crate::memory::{allocated, table_bytes};
use crate::reference::catalogue::{Catalogue, MAX_GENRES, Song};
use crate::reports::distinct::{Member, Members};
use crate::reports::figures::{Report, UNKNOWN};

/// What the codes of a batch stand for. Clones share what they hold, and see what is added later.
#[derive(Debug, Clone, Default)]
pub struct Names {
    catalogue: Arc<Catalogue>,
    new_tracks: Arc<boxcar::Vec<(Arc<str>, Member)>>,
    new_users: Arc<boxcar::Vec<(i64, Member)>>,
    sources: Arc<boxcar::Vec<String>>,
}

impl Names {
    /// The names in a catalogue.
    pub fn of(catalogue: Arc<Catalogue>) -> Self {
        Names { catalogue, ..Names::default() }
    }

    /// The catalogue.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// A source file's key.
    pub fn source(&self, code: u32) -> &str {
        self.sources.get(code as usize).map_or("", String::as_str)
    }

    /// The song of a track, if the catalogue has it.
    pub fn song(&self, track: u32) -> Option<&Song> {
        self.new_track(track).is_none().then(|| self.catalogue.song(track))
    }

    /// A track's id.
    pub fn track_id(&self, track: u32) -> &str {
        self.new_track(track).map_or_else(|| self.catalogue.song(track).track_id.as_ref(), |(id, _)| id)
    }

    /// Bytes of what a track's row says about it.
    fn text_bytes(&self, track: u32) -> usize {
        let texts = |song: &Song| {
            let genres = song.genre_list.map_or(0, |list| self.catalogue.genre_list(list).len());
            genres + [&song.name, &song.artists].into_iter().flatten().map(|text| text.len()).sum::<usize>()
        };
        self.track_id(track).len() + self.song(track).map_or(0, texts)
    }

    /// A listener's id.
    pub fn user_id(&self, user: u32) -> i64 {
        self.new_user(user).map_or_else(|| self.catalogue.user(user).id, |&(id, _)| id)
    }

    /// A listener's country, if the catalogue tells it.
    pub fn country(&self, user: u32) -> Option<&str> {
        self.country_code(user).map(|code| self.catalogue.country(code))
    }

    /// The same as the catalogue's code.
    pub fn country_code(&self, user: u32) -> Option<u16> {
        if self.new_user(user).is_some() { None } else { self.catalogue.user(user).country }
    }

    fn track_member(&self, track: u32) -> Member {
        self.new_track(track).map_or_else(|| self.catalogue.track_member(track), |&(_, member)| member)
    }

    fn user_member(&self, user: u32) -> Member {
        self.new_user(user).map_or_else(|| self.catalogue.user_member(user), |&(_, member)| member)
    }

    fn new_track(&self, track: u32) -> Option<&(Arc<str>, Member)> {
        self.new_tracks.get((track as usize).checked_sub(self.catalogue.songs())?)
    }

    fn new_user(&self, user: u32) -> Option<&(i64, Member)> {
        self.new_users.get((user as usize).checked_sub(self.catalogue.users())?)
    }
}

/// Bytes of an entry in a list of new tracks and of new listeners; the list notes of each whether it is there yet.
const LIST_ENTRY_BYTES: (usize, usize) =
    (std::mem::size_of::<(Arc<str>, Member, bool)>(), std::mem::size_of::<(i64, Member, bool)>());

/// Gives codes to what the catalogue lacks.
#[derive(Debug, Default)]
pub struct Dictionary {
    names: Names,
    track_codes: HashMap<Arc<str>, u32, RandomState>,
    user_codes: HashMap<i64, u32, RandomState>,
    /// Bytes of the ids and of the sources' keys.
    text_bytes: usize,
}

impl Dictionary {
    /// A dictionary on top of a catalogue.
    pub fn of(catalogue: Arc<Catalogue>) -> Self {
        Dictionary { names: Names::of(catalogue), ..Dictionary::default() }
    }

    /// The names so far, and those to come.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Tracks and listeners that the catalogue lacks.
    pub fn len(&self) -> usize {
        self.track_codes.len() + self.user_codes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that the names take, beside the catalogue. Tables are counted as if they were about to grow, when there are an old
    /// and a new one.
    pub fn memory_bytes(&self) -> usize {
        // The lists double as well.
        let lists = 2 * (self.track_codes.len() * LIST_ENTRY_BYTES.0 + self.user_codes.len() * LIST_ENTRY_BYTES.1);
        let tables = table_bytes::<Arc<str>, u32>(self.track_codes.capacity())
            + table_bytes::<i64, u32>(self.user_codes.capacity());
        lists + 3 * tables + self.text_bytes
    }

    /// Registers a source file.
    pub fn add_source(&mut self, key: &str) -> u32 {
        self.text_bytes += 2 * std::mem::size_of::<String>() + allocated(key.len());
        self.names.sources.push(key.to_owned()) as u32
    }

    fn track_code(&mut self, id: &Arc<str>) -> u32 {
        *self.track_codes.entry(Arc::clone(id)).or_insert_with(|| {
            // An Arc has two counters beside its text.
            self.text_bytes += allocated(16 + id.len());
            let position = self.names.new_tracks.push((Arc::clone(id), Member::of_track(id)));
            (self.names.catalogue.songs() + position) as u32
        })
    }

    fn user_code(&mut self, id: i64) -> u32 {
        *self.user_codes.entry(id).or_insert_with(|| {
            let position = self.names.new_users.push((id, Member::of_user(id)));
            (self.names.catalogue.users() + position) as u32
        })
    }
}

/// Good rows, by column, in codes.
#[derive(Debug, Default, Clone)]
pub struct Rows {
    /// Codes of the tracks.
    pub tracks: Vec<u32>,
    /// Codes of the listeners.
    pub users: Vec<u32>,
    /// Microseconds since the Unix epoch.
    pub times: Vec<i64>,
    /// Codes of the files they came from.
    pub sources: Vec<u32>,
}

impl Rows {
    /// None yet, and room for so many: memory that is not touched costs nothing, and memory that grows is copied.
    pub fn with_capacity(rows: usize) -> Self {
        Rows {
            tracks: Vec::with_capacity(rows),
            users: Vec::with_capacity(rows),
            times: Vec::with_capacity(rows),
            sources: Vec::with_capacity(rows),
        }
    }

    /// Adds the rows of a block, giving codes to what is new in it.
    pub fn append(&mut self, block: &Parsed, source: u32, dictionary: &mut Dictionary) {
        let new_tracks: Vec<u32> = block.new_tracks.iter().map(|id| dictionary.track_code(id)).collect();
        let new_users: Vec<u32> = block.new_users.iter().map(|&id| dictionary.user_code(id)).collect();
        append_codes(&mut self.tracks, &block.tracks, &new_tracks);
        append_codes(&mut self.users, &block.users, &new_users);
        self.times.extend_from_slice(&block.times);
        self.sources.resize(self.times.len(), source);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.times.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    /// Forgets all rows from position `length` on.
    pub fn truncate(&mut self, length: usize) {
        self.tracks.truncate(length);
        self.users.truncate(length);
        self.times.truncate(length);
        self.sources.truncate(length);
    }

    /// Takes the rows from position `start` on.
    pub fn split_off(&mut self, start: usize) -> Rows {
        Rows {
            tracks: self.tracks.split_off(start),
            users: self.users.split_off(start),
            times: self.times.split_off(start),
            sources: self.sources.split_off(start),
        }
    }

    /// The rows in parts, each of which has at most so many bytes of text in its dictionaries, about: nearly always one.
    pub fn in_parts(&self, text_bytes: usize, names: &Names) -> Vec<Cow<'_, Rows>> {
        // All that the catalogue has, and an id for each row that it lacks, is more than the rows can have.
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
        // Neighbours mostly share their day: they are moved together.
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

/// A report item in the making.
#[derive(Debug, Default)]
struct Item {
    listens: u64,
    listening_ms: u64,
    members: Members,
}

/// Report items of one day, by code.
#[derive(Debug, Default)]
struct Day {
    tracks: Items<u32>,
    genres: Items<Option<u16>>,
    users: Items<u32>,
}

/// Report items by code.
type Items<K> = HashMap<K, Item, RandomState>;

/// Bytes that a table of items will take in addition while it makes room for so many more; none as long as it has that.
fn growth_bytes<K>(items: &Items<K>, more: usize) -> usize {
    let is_room = items.capacity() - items.len() >= more;
    if is_room { 0 } else { table_bytes::<K, Item>((2 * items.capacity()).max(more)) }
}

impl Day {
    /// Bytes of its tables.
    fn table_bytes(&self) -> usize {
        let of_codes = |items: &Items<u32>| table_bytes::<u32, Item>(items.capacity());
        of_codes(&self.tracks) + of_codes(&self.users) + table_bytes::<Option<u16>, Item>(self.genres.capacity())
    }

    /// Whether it is within the limit until the next look, with so many bytes beside its tables.
    #[cold]
    fn has_room(&self, bytes: usize, limit_bytes: usize) -> bool {
        bytes + self.table_bytes() + self.growth_bytes() <= limit_bytes
    }

    /// Bytes that its tables may take in addition before the next look.
    fn growth_bytes(&self) -> usize {
        growth_bytes(&self.tracks, RUNS_PER_LOOK)
            + growth_bytes(&self.users, RUNS_PER_LOOK)
            + growth_bytes(&self.genres, MAX_GENRES)
    }
}

/// Bytes of a day's place among the days, without its tables.
const DAY_BYTES: usize = 2 * std::mem::size_of::<(i32, Day)>();
/// Runs of a track's or a listener's rows between two looks at the memory of the report items, and bytes that these grow by.
const RUNS_PER_LOOK: usize = 64;
const BYTES_PER_LOOK: usize = 1 << 20;

/// What the rows so far add up to.
#[derive(Debug, Default)]
pub struct Fold {
    days: BTreeMap<i32, Day>,
    items: usize,
    /// Bytes of memory that the items take.
    bytes: usize,
    /// It would have taken more than it may, and lacks rows.
    is_too_large: bool,
    pairs: Pairs,
    /// Listens and milliseconds by listener, for the rows at hand; zero between them.
    of_user: Vec<(u64, u64)>,
}

impl Fold {
    /// Adds rows of one day, within so many bytes of memory. Where they do not suffice, it stops amid the rows before it takes more:
    /// then it [`Fold::is_too_large`], and of no use any more.
    pub fn add(&mut self, day: i32, rows: &Rows, names: &Names, limit_bytes: usize) {
        if self.is_too_large {
            return;
        }
        let day = match self.days.entry(day) {
            Entry::Occupied(day) => day.into_mut(),
            Entry::Vacant(place) => {
                self.bytes += DAY_BYTES;
                place.insert(Day::default())
            }
        };
        let mut items = 0;
        let touched = |items: &mut usize, item: &Item| *items += usize::from(item.listens == 0);

        self.pairs.set(&rows.tracks, &rows.users);
        let greatest = rows.users.iter().max().map_or(0, |&user| user as usize + 1);
        if self.of_user.len() < greatest {
            self.bytes += (greatest - self.of_user.len()) * std::mem::size_of::<(u64, u64)>();
            self.of_user.reserve_exact(greatest - self.of_user.len());
            self.of_user.resize(greatest, (0, 0));
        }
        self.bytes -= day.table_bytes();
        let (mut bytes, mut last_look) = (self.bytes, self.bytes);
        // Tables take their memory at once when they double, so they are asked beforehand; sets take it little by little.
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
            let mut count = |item: &mut Item| {
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

    /// Whether it was to take more memory than it may. It lacks rows then.
    pub fn is_too_large(&self) -> bool {
        self.is_too_large
    }

    /// Bytes of memory that it takes.
    pub fn memory_bytes(&self) -> usize {
        self.bytes
    }

    /// Report items touched so far: what memory and the delta file grow with.
    pub fn items(&self) -> usize {
        self.items
    }

    /// Rows so far.
    pub fn listens(&self) -> u64 {
        self.days.values().flat_map(|day| day.tracks.values()).map(|track| track.listens).sum()
    }

    /// The report items, day by day. What an item is made of is freed with it.
    pub fn into_items(self) -> impl Iterator<Item = DayItem> {
        self.days.into_iter().flat_map(|(day, folded)| {
            let item = move |of, item| DayItem { day, of, item };
            let tracks = folded.tracks.into_iter().map(move |(track, figures)| item(Of::Track(track), figures));
            let genres = folded.genres.into_iter().map(move |(genre, figures)| item(Of::Genre(genre), figures));
            let users = folded.users.into_iter().map(move |(user, figures)| item(Of::Listener(user), figures));
            tracks.chain(genres).chain(users)
        })
    }
}

/// A report item of a day, in names: a row of a delta file.
#[derive(Debug)]
pub struct DeltaRow<'a> {
    /// Which report.
    pub report: Report,
    /// The track id, genre or user id.
    pub id: Cow<'a, str>,
    /// The day, in days since the Unix epoch (UTC).
    pub day: i32,
    /// Rows counted.
    pub listens: u64,
    /// Sum of the tracks' durations, in milliseconds.
    pub listening_ms: u64,
    /// The sketch of its distinct members, serialized.
    pub distinct: Vec<u8>,
    /// The track's name.
    pub track_name: Option<&'a str>,
    /// Its artists.
    pub artists: Option<&'a str>,
    /// Every genre it is counted under, joined by [`crate::reports::figures::LIST_SEPARATOR`].
    pub genres: Option<&'a str>,
    /// The listener's country.
    pub user_country: Option<&'a str>,
}

/// What an item is about, by code.
#[derive(Debug, Clone, Copy)]
enum Of {
    Track(u32),
    Genre(Option<u16>),
    Listener(u32),
}

/// A report item of a day, in codes.
#[derive(Debug)]
pub struct DayItem {
    day: i32,
    of: Of,
    item: Item,
}

impl DayItem {
    /// Bytes of the item in names, at the most.
    pub fn row_bytes(&self, names: &Names) -> usize {
        let text = match self.of {
            Of::Track(track) => names.text_bytes(track),
            // Genres and countries are short.
            Of::Genre(_) | Of::Listener(_) => 0,
        };
        std::mem::size_of::<DeltaRow<'_>>() + self.item.members.sketch_bytes() + text
    }

    /// The item in names.
    pub fn into_row(self, names: &Names) -> DeltaRow<'_> {
        let DayItem { day, of, item: Item { listens, listening_ms, members } } = self;
        let distinct = members.into_bytes();
        let row = move |report, id| DeltaRow {
            report,
            id,
            day,
            listens,
            listening_ms,
            distinct,
            track_name: None,
            artists: None,
            genres: None,
            user_country: None,
        };
        match of {
            Of::Track(track) => {
                let song = names.song(track);
                let genres = song.and_then(|song| song.genre_list).map(|list| names.catalogue().genre_list(list));
                DeltaRow {
                    track_name: song.and_then(|song| song.name.as_deref()),
                    artists: song.and_then(|song| song.artists.as_deref()),
                    genres: Some(genres.unwrap_or(UNKNOWN)),
                    ..row(Report::Track, names.track_id(track).into())
                }
            }
            Of::Genre(genre) => {
                let name = genre.map_or(UNKNOWN, |genre| names.catalogue().genre(genre));
                row(Report::Genre, name.into())
            }
            Of::Listener(user) => {
                let user_country = Some(names.country(user).unwrap_or(UNKNOWN));
                DeltaRow { user_country, ..row(Report::Listener, names.user_id(user).to_string().into()) }
            }
        }
    }
}

/// Pairs of two codes in one number, sorted.
#[derive(Debug, Default)]
struct Pairs {
    sorted: Vec<u64>,
    scratch: Vec<u64>,
}

impl Pairs {
    fn first(pair: u64) -> u32 {
        (pair >> 32) as u32
    }

    fn second(pair: u64) -> u32 {
        pair as u32
    }

    fn set(&mut self, firsts: &[u32], seconds: &[u32]) {
        self.sorted.clear();
        self.sorted
            .extend(firsts.iter().zip(seconds).map(|(&first, &second)| u64::from(first) << 32 | u64::from(second)));
        self.sort_by(0);
        self.sort_by(32);
    }

    /// Each pair once, the other way round.
    fn swap_distinct(&mut self) {
        self.sorted.dedup();
        self.sorted.iter_mut().for_each(|pair| *pair = pair.rotate_left(32));
        // The seconds are in order already, and sorting is stable.
        self.sort_by(32);
    }

    /// All pairs with the same first code, for each of them.
    fn runs(&self) -> impl Iterator<Item = &[u64]> {
        self.sorted.chunk_by(|&a, &b| Self::first(a) == Self::first(b))
    }

    /// Sorts, stably, by the code that begins at bit `shift`: a radix sort, digit by digit.
    fn sort_by(&mut self, shift: u32) {
        const DIGIT_BITS: u32 = 11;
        const SMALL: usize = 1024;
        let code = |pair: u64| (pair >> shift) as u32;
        if self.sorted.len() <= SMALL {
            self.sorted.sort_by_key(|&pair| code(pair));
            return;
        }
        let bits = u32::BITS - self.sorted.iter().fold(0, |all, &pair| all | code(pair)).leading_zeros();
        self.scratch.resize(self.sorted.len(), 0);
        for low in (0..bits).step_by(DIGIT_BITS as usize) {
            let digit = |pair: u64| (code(pair) >> low) as usize & ((1 << DIGIT_BITS) - 1);
            let mut ends = [0_usize; 1 << DIGIT_BITS];
            self.sorted.iter().for_each(|&pair| ends[digit(pair)] += 1);
            let mut start = 0;
            for end in &mut ends {
                start += std::mem::replace(end, start);
            }
            for &pair in &self.sorted {
                let place = &mut ends[digit(pair)];
                self.scratch[*place] = pair;
                *place += 1;
            }
            std::mem::swap(&mut self.sorted, &mut self.scratch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calendar::date_text;
    use crate::reports::figures::Delta;
    use proptest::prelude::*;
    use std::collections::{BTreeSet, HashSet};

    const SONGS: &str = "track_id,track_name,artists,track_genre,duration_ms\n\
        t0,A,X,pop,1000\nt0,A,X,rock,1000\nt1,B,Y,rock,250\nt2,C,Z,,7\nt3,D,Z,unknown,11\n";
    const USERS: &str = "user_id,user_country\n1,Peru\n2,Ghana\n";

    async fn catalogue() -> Catalogue {
        Catalogue::parse(SONGS.as_bytes(), USERS.as_bytes()).await.unwrap()
    }

    /// A day of this century.
    const DAY: i64 = 20_000;

    /// A listen: user, track, day.
    type Listen = (i64, u8, i64);

    fn add(fold: &mut Fold, listens: &[Listen], dictionary: &mut Dictionary) {
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

    /// What comes out of the delta file.
    fn deltas(fold: Fold, names: &Names) -> Vec<Delta> {
        let rows: Vec<DeltaRow<'_>> = fold.into_items().map(|item| item.into_row(names)).collect();
        crate::compute::columnar::decode_deltas(&crate::compute::columnar::encode_deltas(&rows).unwrap()).unwrap()
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

    /// The same by plain sets, knowing nothing of codes and sketches.
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

    /// Sets that outgrow their lists, and runs that outgrow what is sorted by comparing.
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

    /// Rows of so many tracks and listeners that the catalogue lacks, each track heard so often.
    fn new_rows(tracks: usize, users: usize, listens: usize, dictionary: &mut Dictionary) -> Rows {
        let line = |row: usize| format!("{},new-{},2024-06-25 00:00:05\n", 1000 + row * 7919 % users, row % tracks);
        let lines: String = (0..tracks * listens).map(line).collect();
        let mut rows = Rows::default();
        rows.append(&crate::input::block::tests::parse(&lines, dictionary.names().catalogue()), 0, dictionary);
        rows
    }

    /// The account is checked against what it is made of, found another way: by looking at every item.
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
                // It stays so, whatever comes.
                fold.add(2, &rows, dictionary.names(), usize::MAX);
                assert!(fold.is_too_large());
            }
            let mut fold = Fold::default();
            // A table that doubles is there twice for a while.
            fold.add(1, &rows, dictionary.names(), 2 * needed + (1 << 20));
            assert!(!fold.is_too_large());
        }
    }

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

    #[tokio::test]
    async fn names_come_from_the_catalogue() {
        let (mut dictionary, mut fold) = (Dictionary::of(Arc::new(catalogue().await)), Fold::default());
        add(&mut fold, &[(1, 0, DAY), (9, 5, DAY)], &mut dictionary);
        let deltas = deltas(fold, dictionary.names());
        let of = |report, id: &str| {
            &deltas.iter().find(|delta| delta.key.report == report && delta.key.id == id).unwrap().attributes
        };
        let track = of(Report::Track, "t0");
        assert_eq!((track.track_name.as_deref(), track.artists.as_deref()), (Some("A"), Some("X")));
        assert_eq!(track.genres, BTreeSet::from(["pop".to_owned(), "rock".to_owned()]));
        assert_eq!(of(Report::Track, "t5").genres, BTreeSet::from([UNKNOWN.to_owned()]));
        assert_eq!(of(Report::Track, "t5").track_name, None);
        assert_eq!(of(Report::Listener, "1").user_country.as_deref(), Some("Peru"));
        assert_eq!(of(Report::Listener, "9").user_country.as_deref(), Some(UNKNOWN));
    }
}
