//! The catalogue: its tables and lookups.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;

use crate::memory::{allocated, table_bytes};
use crate::reports::distinct::Member;

/// Length of the ids that nearly every track has: Spotify's, 128 bits in base 62.
pub const CANONICAL_TRACK_ID_BYTES: usize = 22;

/// An id of that length as numbers, of which the last two overlap: hashed and compared without a loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct PackedTrackId(u64, u64, u64);

impl PackedTrackId {
    fn of(id: &[u8; CANONICAL_TRACK_ID_BYTES]) -> Self {
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&id[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        PackedTrackId(number(0), number(8), number(CANONICAL_TRACK_ID_BYTES - 8))
    }
}

/// Genres of a track. Each is counted on its own for every row; further ones are passed over.
pub const MAX_GENRES: usize = 50;
/// Greatest user id that is looked up in a list: 4 MiB of it.
const SMALL_ID: usize = 1 << 20;
/// Stands in that list for an id that nobody has.
const NO_USER: u32 = u32::MAX;

/// A track of the catalogue. One that is listed under several genres has one line for each of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Song {
    /// Its track id.
    pub track_id: Box<str>,
    /// Its name, where the catalogue gives one.
    pub name: Option<Box<str>>,
    /// Its artists, joined by `;` as in the catalogue.
    pub artists: Option<Box<str>>,
    /// Its genres, each once, in the catalogue's order; empty when no line names one.
    pub genres: Vec<u16>,
    /// The same as text, joined by [`crate::reports::figures::LIST_SEPARATOR`], as an index for [`Catalogue::genre_list`].
    pub genre_list: Option<u32>,
    /// How long it plays, in milliseconds. The first line of the track counts.
    pub duration_ms: u32,
}

/// A listener of the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub id: i64,
    /// Its country, as a code for [`Catalogue::country`].
    pub country: Option<u16>,
}

/// The catalogue. Its tracks and listeners are numbered, and the numbers are the codes in which a batch works.
#[derive(Debug, Default)]
pub struct Catalogue {
    pub(super) songs: Vec<Song>,
    /// Beside the songs, as the fold asks for nothing else of them.
    pub(super) track_members: Vec<Member>,
    /// Ids of the usual length lie in the table itself, which saves every row two cache misses.
    song_of_track: HashMap<PackedTrackId, u32, RandomState>,
    song_of_odd_track: HashMap<Box<[u8]>, u32, RandomState>,
    commas_in_track_ids: bool,
    pub(super) genres: Vec<String>,
    pub(super) genre_lists: Vec<String>,
    pub(super) unknown_genre: Option<u16>,
    pub(super) countries: Vec<String>,
    pub(super) users: Vec<User>,
    pub(super) user_members: Vec<Member>,
    /// Users by id as far as ids are small, as they are where they were counted up.
    pub(super) user_of_small_id: Vec<u32>,
    pub(super) user_of_id: HashMap<i64, u32, RandomState>,
    /// Lines with something in them, of each file.
    pub(super) lines: BTreeMap<&'static str, u64>,
    /// Of each file, what is wrong with lines of it, and with which.
    pub remarks: BTreeMap<(&'static str, &'static str), Remark>,
    /// Bytes of text in it: of ids, names, artists and lists of genres.
    pub(super) text_bytes: usize,
    /// Bytes of its small allocations.
    pub(super) small_bytes: usize,
}

/// Lines of a file with which the same thing is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remark {
    /// How many there are.
    pub lines: u64,
    /// The first of them.
    pub first: Vec<u64>,
    /// They were passed over. Otherwise part of what they say was.
    pub is_skipped: bool,
}

impl Catalogue {
    /// Bytes of memory that it takes.
    pub fn memory_bytes(&self) -> usize {
        fn list<T>(list: &Vec<T>) -> usize {
            list.capacity() * std::mem::size_of::<T>()
        }
        let lists = list(&self.songs) + list(&self.users) + list(&self.user_of_small_id);
        let members = list(&self.track_members) + list(&self.user_members);
        let texts = list(&self.genres) + list(&self.genre_lists) + list(&self.countries);
        let tables = table_bytes::<PackedTrackId, u32>(self.song_of_track.capacity())
            + table_bytes::<Box<[u8]>, u32>(self.song_of_odd_track.capacity())
            + table_bytes::<i64, u32>(self.user_of_id.capacity());
        lists + members + texts + tables + self.small_bytes
    }

    /// Bytes of text in it, all of which may be written into one row group.
    pub fn text_bytes(&self) -> usize {
        self.text_bytes
    }
    pub(super) fn keep_text(&mut self, text: &str) {
        self.text_bytes += text.len();
        self.small_bytes += allocated(text.len());
    }

    /// The song with this track id, as an index for [`Catalogue::song`].
    pub fn find_song(&self, track_id: &[u8]) -> Option<u32> {
        match track_id.try_into() {
            Ok(canonical) => self.find_canonical_song(canonical),
            Err(_) => self.song_of_odd_track.get(track_id).copied(),
        }
    }

    /// The same for an id of the usual length.
    pub fn find_canonical_song(&self, track_id: &[u8; CANONICAL_TRACK_ID_BYTES]) -> Option<u32> {
        self.song_of_track.get(&PackedTrackId::of(track_id)).copied()
    }

    /// A song as a member of the sets that are counted.
    pub fn track_member(&self, index: u32) -> Member {
        self.track_members[index as usize]
    }

    /// Whether some track's id has a comma in it.
    pub fn has_commas_in_track_ids(&self) -> bool {
        self.commas_in_track_ids
    }

    /// A song by index.
    pub fn song(&self, index: u32) -> &Song {
        &self.songs[index as usize]
    }

    /// How many songs there are.
    pub fn songs(&self) -> usize {
        self.songs.len()
    }

    /// How many listeners there are.
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// A genre by code.
    pub fn genre(&self, code: u16) -> &str {
        &self.genres[usize::from(code)]
    }

    /// The code of the genre that is named as the tracks without any are counted, if there is one.
    pub fn unknown_genre(&self) -> Option<u16> {
        self.unknown_genre
    }

    /// The genres of a song as text, by [`Song::genre_list`].
    pub fn genre_list(&self, index: u32) -> &str {
        &self.genre_lists[index as usize]
    }

    /// The listener with this id, as an index for [`Catalogue::user`].
    pub fn find_user(&self, user_id: i64) -> Option<u32> {
        match usize::try_from(user_id).ok().and_then(|id| self.user_of_small_id.get(id)) {
            Some(&index) => (index != NO_USER).then_some(index),
            None => self.user_of_id.get(&user_id).copied(),
        }
    }

    /// A listener as a member of the sets that are counted.
    pub fn user_member(&self, index: u32) -> Member {
        self.user_members[index as usize]
    }

    /// A listener by index.
    pub fn user(&self, index: u32) -> &User {
        &self.users[index as usize]
    }

    /// A country by code.
    pub fn country(&self, code: u16) -> &str {
        &self.countries[usize::from(code)]
    }

    pub(super) fn add_song(&mut self, track_id: &str, name: &str, artists: &str, duration_ms: u32) -> u32 {
        let index = self.songs.len() as u32;
        self.songs.push(Song {
            track_id: track_id.into(),
            name: some(name),
            artists: some(artists),
            genres: Vec::new(),
            genre_list: None,
            duration_ms,
        });
        [track_id, name, artists].into_iter().for_each(|text| self.keep_text(text));
        self.track_members.push(Member::of_track(track_id));
        self.commas_in_track_ids |= track_id.contains(',');
        match track_id.as_bytes().try_into() {
            Ok(canonical) => self.song_of_track.insert(PackedTrackId::of(canonical), index),
            Err(_) => {
                self.small_bytes += allocated(track_id.len());
                self.song_of_odd_track.insert(track_id.as_bytes().into(), index)
            }
        };
        index
    }

    pub(super) fn add_user(&mut self, id: i64, country: Option<u16>) {
        self.user_of_id.insert(id, self.users.len() as u32);
        self.users.push(User { id, country });
        self.user_members.push(Member::of_user(id));
    }

    /// Fills the table of small ids, once all listeners are there.
    pub(super) fn index_small_ids(&mut self) {
        let small = |user: &User| usize::try_from(user.id).ok().filter(|&id| id <= SMALL_ID);
        let greatest = self.users.iter().filter_map(small).max();
        self.user_of_small_id = vec![NO_USER; greatest.map_or(0, |greatest| greatest + 1)];
        for (user, index) in self.users.iter().zip(0..) {
            if let Some(id) = small(user) {
                self.user_of_small_id[id] = index;
            }
        }
    }
}
fn some(text: &str) -> Option<Box<str>> {
    (!text.is_empty()).then(|| text.into())
}
