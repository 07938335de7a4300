//! The catalogue: its tables and lookups.
//!
//! Pure. Covered by the tests of `parse`.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;

use crate::memory::{allocated, table_bytes};
use crate::reports::distinct::Member;

/// Length of the ids of nearly all tracks, which are Spotify's: 128 bits in base 62.
pub const CANONICAL_TRACK_ID_BYTES: usize = 22;

/// An id of the usual length as three numbers, the last two of which overlap: hashed and compared without a loop.
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

/// Most genres of a track. Each one is counted on its own for every row; further ones are skipped.
pub const MAX_GENRES: usize = 50;
/// Greatest user id in the direct lookup table, which takes 4 MiB at most.
const SMALL_ID: usize = 1 << 20;
/// Entry of the lookup table for an id without a user.
const NO_USER: u32 = u32::MAX;

/// A track of the catalogue. A track of several genres has one line for each of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Song {
    /// Its track id.
    pub track_id: Box<str>,
    /// Its name, if the catalogue has one.
    pub name: Option<Box<str>>,
    /// Its artists, joined by `;` as in the catalogue.
    pub artists: Option<Box<str>>,
    /// Its genres, each once and in the catalogue's order; empty if no line names one.
    pub genres: Vec<u16>,
    /// Its genres as text, joined by [`crate::reports::figures::LIST_SEPARATOR`]: an index for
    /// [`Catalogue::genre_list`].
    pub genre_list: Option<u32>,
    /// Its duration in milliseconds, from the first line of the track.
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

/// The catalogue. Its tracks and listeners are numbered; the numbers are the codes that a batch works with.
#[derive(Debug, Default)]
pub struct Catalogue {
    pub(super) songs: Vec<Song>,
    /// Separate from the songs, since the fold needs nothing else of them.
    pub(super) track_members: Vec<Member>,
    /// Ids of the usual length are stored in the table itself, which saves two cache misses per row.
    song_of_track: HashMap<PackedTrackId, u32, RandomState>,
    song_of_odd_track: HashMap<Box<[u8]>, u32, RandomState>,
    commas_in_track_ids: bool,
    pub(super) genres: Vec<String>,
    pub(super) genre_lists: Vec<String>,
    pub(super) unknown_genre: Option<u16>,
    pub(super) countries: Vec<String>,
    pub(super) users: Vec<User>,
    pub(super) user_members: Vec<Member>,
    /// Direct lookup table for small ids, the common case of sequentially assigned ids.
    pub(super) user_of_small_id: Vec<u32>,
    pub(super) user_of_id: HashMap<i64, u32, RandomState>,
    /// Number of non-empty lines of each file.
    pub(super) lines: BTreeMap<&'static str, u64>,
    /// Problems of each file's lines.
    pub remarks: BTreeMap<(&'static str, &'static str), Remark>,
    /// Bytes of text: ids, names, artists and lists of genres.
    pub(super) text_bytes: usize,
    /// Bytes of small allocations.
    pub(super) small_bytes: usize,
}

/// The lines of a file that share a problem.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remark {
    /// Their number.
    pub lines: u64,
    /// The numbers of the first ones.
    pub first: Vec<u64>,
    /// The lines were skipped. Otherwise only part of their content was.
    pub is_skipped: bool,
}

impl Catalogue {
    /// Returns the bytes of memory that the catalogue takes.
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

    /// Returns the bytes of its text, all of which may be written into one row group.
    pub fn text_bytes(&self) -> usize {
        self.text_bytes
    }
    pub(super) fn keep_text(&mut self, text: &str) {
        self.text_bytes += text.len();
        self.small_bytes += allocated(text.len());
    }

    /// Returns the song with this track id, as an index for [`Catalogue::song`].
    pub fn find_song(&self, track_id: &[u8]) -> Option<u32> {
        match track_id.try_into() {
            Ok(canonical) => self.find_canonical_song(canonical),
            Err(_) => self.song_of_odd_track.get(track_id).copied(),
        }
    }

    /// Returns the same for an id of the usual length.
    pub fn find_canonical_song(&self, track_id: &[u8; CANONICAL_TRACK_ID_BYTES]) -> Option<u32> {
        self.song_of_track.get(&PackedTrackId::of(track_id)).copied()
    }

    /// Returns a song as a member of a distinct count.
    pub fn track_member(&self, index: u32) -> Member {
        self.track_members[index as usize]
    }

    /// Returns true if some track's id has a comma in it.
    pub fn has_commas_in_track_ids(&self) -> bool {
        self.commas_in_track_ids
    }

    /// Returns a song by index.
    pub fn song(&self, index: u32) -> &Song {
        &self.songs[index as usize]
    }

    /// Returns the number of songs.
    pub fn songs(&self) -> usize {
        self.songs.len()
    }

    /// Returns the number of listeners.
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// Returns a genre by code.
    pub fn genre(&self, code: u16) -> &str {
        &self.genres[usize::from(code)]
    }

    /// Returns the code of the genre whose name is also that of tracks without a genre, if the catalogue has it.
    pub fn unknown_genre(&self) -> Option<u16> {
        self.unknown_genre
    }

    /// Returns a song's genres as text, by [`Song::genre_list`].
    pub fn genre_list(&self, index: u32) -> &str {
        &self.genre_lists[index as usize]
    }

    /// Returns the listener with this id, as an index for [`Catalogue::user`].
    pub fn find_user(&self, user_id: i64) -> Option<u32> {
        match usize::try_from(user_id).ok().and_then(|id| self.user_of_small_id.get(id)) {
            Some(&index) => (index != NO_USER).then_some(index),
            None => self.user_of_id.get(&user_id).copied(),
        }
    }

    /// Returns a listener as a member of a distinct count.
    pub fn user_member(&self, index: u32) -> Member {
        self.user_members[index as usize]
    }

    /// Returns a listener by index.
    pub fn user(&self, index: u32) -> &User {
        &self.users[index as usize]
    }

    /// Returns a country by code.
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

    /// Fills the lookup table of small ids, once all listeners are known.
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
