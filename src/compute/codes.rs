//! Codes: the tracks, listeners and files of a batch as numbers.
//!
//! Pure. The codes are those of the catalogue, and after them those of the tracks and listeners that the catalogue lacks. An id has
//! exactly one code, and a code one id.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::memory::{allocated, table_bytes};
use crate::reference::catalogue::{Catalogue, Song};
use crate::reports::distinct::Member;

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
    pub(super) fn text_bytes(&self, track: u32) -> usize {
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

    pub(super) fn track_member(&self, track: u32) -> Member {
        self.new_track(track).map_or_else(|| self.catalogue.track_member(track), |&(_, member)| member)
    }

    pub(super) fn user_member(&self, user: u32) -> Member {
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

    pub(super) fn track_code(&mut self, id: &Arc<str>) -> u32 {
        *self.track_codes.entry(Arc::clone(id)).or_insert_with(|| {
            // An Arc has two counters beside its text.
            self.text_bytes += allocated(16 + id.len());
            let position = self.names.new_tracks.push((Arc::clone(id), Member::of_track(id)));
            (self.names.catalogue.songs() + position) as u32
        })
    }

    pub(super) fn user_code(&mut self, id: i64) -> u32 {
        *self.user_codes.entry(id).or_insert_with(|| {
            let position = self.names.new_users.push((id, Member::of_user(id)));
            (self.names.catalogue.users() + position) as u32
        })
    }
}
