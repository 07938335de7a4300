//! Codes: the tracks, listeners and files of a batch as numbers.
//!
//! Pure. The codes are those of the catalogue, followed by those of the tracks and listeners that the catalogue lacks.
//! An id has exactly one code in a batch, and a code one id; the fold relies on it to produce one delta per report item
//! ([`crate::compute::fold`]).

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::memory::{allocated, table_bytes};
use crate::reference::Catalogue;
use crate::reference::catalogue::Song;
use crate::reports::distinct::Member;

/// The meaning of a batch's codes. Clones share their content and see later additions.
#[derive(Debug, Clone, Default)]
pub struct Names {
    catalogue: Arc<Catalogue>,
    new_tracks: Arc<boxcar::Vec<(Arc<str>, Member)>>,
    new_users: Arc<boxcar::Vec<(i64, Member)>>,
    sources: Arc<boxcar::Vec<String>>,
}

impl Names {
    /// Returns the names of a catalogue.
    pub fn of(catalogue: Arc<Catalogue>) -> Self {
        Names { catalogue, ..Names::default() }
    }

    /// Returns the catalogue.
    #[inline]
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Returns the key of a source file.
    pub fn source(&self, code: u32) -> &str {
        self.sources.get(code as usize).map_or("", String::as_str)
    }

    /// Returns a track's song if the catalogue has it.
    #[inline]
    pub fn song(&self, track: u32) -> Option<&Song> {
        self.new_track(track).is_none().then(|| self.catalogue.song(track))
    }

    /// Returns the id of a track.
    pub fn track_id(&self, track: u32) -> &str {
        self.new_track(track).map_or_else(|| self.catalogue.song(track).track_id.as_ref(), |(id, _)| id)
    }

    /// Returns the bytes of a track's texts: its id, name, artists and genres.
    pub(super) fn text_bytes(&self, track: u32) -> usize {
        let texts = |song: &Song| {
            let genres = song.genre_list.map_or(0, |list| self.catalogue.genre_list(list).len());
            genres + [&song.name, &song.artists].into_iter().flatten().map(|text| text.len()).sum::<usize>()
        };
        self.track_id(track).len() + self.song(track).map_or(0, texts)
    }

    /// Returns the id of a listener.
    pub fn user_id(&self, user: u32) -> i64 {
        self.new_user(user).map_or_else(|| self.catalogue.user(user).id, |&(id, _)| id)
    }

    /// Returns the country of a listener if the catalogue has it.
    pub fn country(&self, user: u32) -> Option<&str> {
        self.country_code(user).map(|code| self.catalogue.country(code))
    }

    /// Returns the same as a code of the catalogue.
    pub fn country_code(&self, user: u32) -> Option<u16> {
        if self.new_user(user).is_some() { None } else { self.catalogue.user(user).country }
    }

    #[inline]
    pub(super) fn track_member(&self, track: u32) -> Member {
        self.new_track(track).map_or_else(|| self.catalogue.track_member(track), |&(_, member)| member)
    }

    #[inline]
    pub(super) fn user_member(&self, user: u32) -> Member {
        self.new_user(user).map_or_else(|| self.catalogue.user_member(user), |&(_, member)| member)
    }

    #[inline]
    fn new_track(&self, track: u32) -> Option<&(Arc<str>, Member)> {
        self.new_tracks.get((track as usize).checked_sub(self.catalogue.songs())?)
    }

    #[inline]
    fn new_user(&self, user: u32) -> Option<&(i64, Member)> {
        self.new_users.get((user as usize).checked_sub(self.catalogue.users())?)
    }
}

/// Bytes of an entry in the lists of new tracks and of new listeners, including the flag by which the list marks it as
/// present.
const LIST_ENTRY_BYTES: (usize, usize) =
    (std::mem::size_of::<(Arc<str>, Member, bool)>(), std::mem::size_of::<(i64, Member, bool)>());

/// The assignment of codes to tracks and listeners that the catalogue lacks.
#[derive(Debug, Default)]
pub struct Dictionary {
    names: Names,
    track_codes: HashMap<Arc<str>, u32, RandomState>,
    user_codes: HashMap<i64, u32, RandomState>,
    /// Bytes of the ids and of the source files' keys.
    text_bytes: usize,
}

impl Dictionary {
    /// Returns a dictionary on top of a catalogue.
    pub fn of(catalogue: Arc<Catalogue>) -> Self {
        Dictionary { names: Names::of(catalogue), ..Dictionary::default() }
    }

    /// Returns the names, which later additions extend.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Returns the number of tracks and listeners that the catalogue lacks.
    pub fn len(&self) -> usize {
        self.track_codes.len() + self.user_codes.len()
    }

    /// Returns true if the catalogue lacks none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the bytes of memory that the names take, without the catalogue. Tables count as if they were about to
    /// grow, when the old and the new one exist.
    pub fn memory_bytes(&self) -> usize {
        // The lists double as well when they grow.
        let lists = 2 * (self.track_codes.len() * LIST_ENTRY_BYTES.0 + self.user_codes.len() * LIST_ENTRY_BYTES.1);
        let tables = table_bytes::<Arc<str>, u32>(self.track_codes.capacity())
            + table_bytes::<i64, u32>(self.user_codes.capacity());
        lists + 3 * tables + self.text_bytes
    }

    /// Registers a source file and returns its code.
    pub fn add_source(&mut self, key: &str) -> u32 {
        self.text_bytes += 2 * std::mem::size_of::<String>() + allocated(key.len());
        self.names.sources.push(key.to_owned()) as u32
    }

    pub(super) fn track_code(&mut self, id: &Arc<str>) -> u32 {
        *self.track_codes.entry(Arc::clone(id)).or_insert_with(|| {
            // An Arc has two counters in addition to its text.
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
