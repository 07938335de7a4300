//! The reference catalogue: what is known about tracks and listeners.
//!
//! Loaded from `reference/songs.csv` and `reference/users.csv`, plain or gzip, kept in memory, and loaded again when an eTag changes. A
//! batch sees one catalogue from its first row to its last.
//!
//! Lines are judged as rows are: one that cannot be used is passed over, counted by what is wrong with it, and the log names the first.
//! Of several lines with the same key the first counts, in both files; only genres are collected from all lines of a track.
//!
//! A catalogue that is damaged would change every figure that comes after it. So a file is refused that names no track or listener,
//! of whose lines more than half cannot be used, or that lacks more than half of the keys that were there before ([`Refused`]); the
//! last good catalogue stays in use. Whoever means it uploads the file with the metadata `accept=as-is`.
//!
//! Everything in it is bounded: the memory it takes, the lengths of what it says, and the genres of a track.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::io::AsyncRead;

use crate::aws::error::AwsError;
use crate::aws::s3::Bucket;
use crate::formats::csv::{self, CsvError, NotCsv};
use crate::input::cleanse::{parse_track_id, parse_user_id};
use crate::ledger::{CatalogueState, Ledger};
use crate::memory::{allocated, table_bytes};
use crate::object::ObjectId;
use crate::reports::distinct::Member;
use crate::reports::figures::{LIST_SEPARATOR, UNKNOWN};
use crate::telemetry::metrics::metrics;

/// Key of the songs' file.
pub const SONGS_KEY: &str = "reference/songs.csv";
/// Key of the listeners' file.
pub const USERS_KEY: &str = "reference/users.csv";

/// Longest time for reading both files: far above what a catalogue of a million tracks takes.
const LOAD_TIMEOUT: Duration = Duration::from_secs(300);

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

/// Greatest user id that is looked up in a list: 4 MiB of it.
const SMALL_ID: usize = 1 << 20;
/// Stands in that list for an id that nobody has.
const NO_USER: u32 = u32::MAX;

/// Longest name of a track, and of its artists, in bytes: far above any there is. What is longer is cut.
pub const MAX_NAME_BYTES: usize = 512;
/// Longest name of a genre, and of a country, in bytes. What is longer is passed over, as what is left of it could be another's. A genre
/// is part of DynamoDB's keys, and a track's item names many ([`crate::reports::figures::MAX_GENRES`]).
pub const MAX_VALUE_BYTES: usize = 128;
/// Genres of a track. Each is counted on its own for every row; further ones are passed over.
pub const MAX_GENRES: usize = 50;
/// Lines that the log names of those with the same thing wrong with them.
const NAMED_LINES: usize = 5;
/// Metadata of a file that is to be used whatever it lacks.
pub const ACCEPT: (&str, &str) = ("accept", "as-is");

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
    /// The same as text, joined by [`LIST_SEPARATOR`], as an index for [`Catalogue::genre_list`].
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
    songs: Vec<Song>,
    /// Beside the songs, as the fold asks for nothing else of them.
    track_members: Vec<Member>,
    /// Ids of the usual length lie in the table itself, which saves every row two cache misses.
    song_of_track: HashMap<PackedTrackId, u32, RandomState>,
    song_of_odd_track: HashMap<Box<[u8]>, u32, RandomState>,
    commas_in_track_ids: bool,
    genres: Vec<String>,
    genre_lists: Vec<String>,
    unknown_genre: Option<u16>,
    countries: Vec<String>,
    users: Vec<User>,
    user_members: Vec<Member>,
    /// Users by id as far as ids are small, as they are where they were counted up.
    user_of_small_id: Vec<u32>,
    user_of_id: HashMap<i64, u32, RandomState>,
    /// Lines with something in them, of each file.
    lines: BTreeMap<&'static str, u64>,
    /// Of each file, what is wrong with lines of it, and with which.
    pub remarks: BTreeMap<(&'static str, &'static str), Remark>,
    /// Bytes of text in it: of ids, names, artists and lists of genres.
    text_bytes: usize,
    /// Bytes of its small allocations.
    small_bytes: usize,
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

/// Why a file is not used though it can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nothing in it can be used.
    #[error("none of its {0} lines can be used")]
    Empty(u64),
    /// Most of it cannot be used.
    #[error("{skipped} of its {lines} lines cannot be used")]
    Skipped {
        /// Lines passed over.
        skipped: u64,
        /// All its lines.
        lines: u64,
    },
    /// Most of what was there before is gone.
    #[error("it lacks {lost} of the {known} keys that were there before")]
    Lost {
        /// Keys that it lacks.
        lost: u64,
        /// Keys that there were.
        known: u64,
    },
}

/// Why a file of the catalogue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// Fetching failed.
    #[error("the catalogue cannot be loaded: {0}")]
    Aws(#[from] AwsError),
    /// There is no such file.
    #[error("{key} is not there; upload it under reference/ of the bucket")]
    Missing {
        /// Which file.
        key: &'static str,
    },
    /// It would damage the figures.
    #[error(
        "{key} is refused: {reason}. Upload a whole file, or the same one with the metadata {}={} if it is meant \
         (aws s3 cp songs.csv s3://BUCKET/{key} --metadata {}={})",
        ACCEPT.0, ACCEPT.1, ACCEPT.0, ACCEPT.1
    )]
    Refused {
        /// Which file.
        key: &'static str,
        /// What it lacks.
        reason: Refused,
    },
    /// Another consumer refused it.
    #[error("the catalogue was refused by consumers that run: {0}")]
    RefusedBefore(String),
    /// The files did not arrive in time.
    #[error("the catalogue was not read within {} s", LOAD_TIMEOUT.as_secs())]
    Stalled,
    /// Reading or parsing failed.
    #[error("{key} cannot be used: {bad}")]
    Unreadable {
        /// Which file.
        key: &'static str,
        /// What is wrong with it.
        bad: NotCsv,
    },
    /// The header is not that of the file.
    #[error("{key} cannot be used: {problem}")]
    Header {
        /// Which file.
        key: &'static str,
        /// What is wrong, and what was found.
        problem: String,
    },
    /// It takes more memory than there is for it.
    #[error(
        "the catalogue takes more than {limit_bytes} bytes of memory, at line {line} of {key}: a quarter of what --max-memory leaves a \
         batch, as a changed one is loaded beside it; give a higher --max-memory, and the memory for it, or leave out what nobody listens to"
    )]
    TooLarge {
        /// Which file.
        key: &'static str,
        /// Its line.
        line: u64,
        /// The limit.
        limit_bytes: usize,
    },
    /// More distinct genres or countries than a 16-bit code holds.
    #[error("{key} has more than 65,535 different values in {column}; this is not the catalogue")]
    TooManyValues {
        /// Which file.
        key: &'static str,
        /// Which column.
        column: &'static str,
    },
}

impl CatalogueError {
    fn of_file(key: &'static str, error: CsvError) -> Self {
        match error {
            CsvError::Bad(bad) => CatalogueError::Unreadable { key, bad },
            CsvError::Body(error) => error.into(),
        }
    }
}

impl Catalogue {
    /// Parses both files, with no bound on the memory they take.
    pub async fn parse(
        songs: impl AsyncRead + Unpin + Send,
        users: impl AsyncRead + Unpin + Send,
    ) -> Result<Self, CatalogueError> {
        Self::parse_within(usize::MAX, songs, users).await
    }

    /// Parses both files into so many bytes of memory. Lines that lack a needed field are counted and passed over.
    pub async fn parse_within(
        limit_bytes: usize,
        songs: impl AsyncRead + Unpin + Send,
        users: impl AsyncRead + Unpin + Send,
    ) -> Result<Self, CatalogueError> {
        let mut catalogue = Catalogue::default();
        catalogue.parse_songs(songs, limit_bytes).await?;
        catalogue.parse_users(users, limit_bytes).await?;
        Ok(catalogue)
    }

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

    fn check_memory(&self, key: &'static str, line: u64, limit_bytes: usize) -> Result<(), CatalogueError> {
        if self.memory_bytes() > limit_bytes {
            Err(CatalogueError::TooLarge { key, line, limit_bytes })
        } else {
            Ok(())
        }
    }

    /// What the ledger says of it.
    fn state(&self) -> CatalogueState {
        let (songs, users) = (self.songs.len() as u64, self.users.len() as u64);
        CatalogueState { songs, users, loaded_at: Some(jiff::Timestamp::now()), refused: None, refused_files: None }
    }

    fn keep_text(&mut self, text: &str) {
        self.text_bytes += text.len();
        self.small_bytes += allocated(text.len());
    }

    fn remark(&mut self, key: &'static str, line: u64, problem: &'static str, is_skipped: bool) {
        let remark = self.remarks.entry((key, problem)).or_default();
        remark.lines += 1;
        remark.is_skipped = is_skipped;
        if remark.first.len() < NAMED_LINES {
            remark.first.push(line);
        }
    }

    /// Lines of a file that were passed over.
    fn skipped(&self, key: &str) -> u64 {
        let of_file = self.remarks.iter().filter(|((file, _), remark)| *file == key && remark.is_skipped);
        of_file.map(|(_, remark)| remark.lines).sum()
    }

    /// Refuses what damages the figures and is a mishap sooner than meant: a file in which nothing or little can be used, or which lacks
    /// most of what was there before. `known` is how much that was.
    fn check(
        &self,
        accepted: [bool; 2],
        before: Option<&Catalogue>,
        known: &CatalogueState,
    ) -> Result<(), CatalogueError> {
        let (songs, users) = (self.songs.len() as u64, self.users.len() as u64);
        let (lost_songs, lost_users) = match before {
            Some(before) => (
                before.songs.iter().filter(|song| self.find_song(song.track_id.as_bytes()).is_none()).count() as u64,
                before.users.iter().filter(|user| self.find_user(user.id).is_none()).count() as u64,
            ),
            None => (known.songs.saturating_sub(songs), known.users.saturating_sub(users)),
        };
        for (key, is_accepted, keys, known, lost) in [
            (SONGS_KEY, accepted[0], songs, known.songs, lost_songs),
            (USERS_KEY, accepted[1], users, known.users, lost_users),
        ] {
            let (lines, skipped) = (self.lines.get(key).copied().unwrap_or(0), self.skipped(key));
            let reason = if is_accepted {
                continue;
            } else if keys == 0 {
                Refused::Empty(lines)
            } else if 2 * skipped > lines {
                Refused::Skipped { skipped, lines }
            } else if 2 * lost > known {
                Refused::Lost { lost, known }
            } else {
                continue;
            };
            return Err(CatalogueError::Refused { key, reason });
        }
        Ok(())
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

    async fn parse_songs(
        &mut self,
        file: impl AsyncRead + Unpin + Send,
        limit_bytes: usize,
    ) -> Result<(), CatalogueError> {
        let columns = ["track_id", "track_name", "artists", "track_genre", "duration_ms"];
        let mut genre_codes = HashMap::new();
        let mut table = Table::open(SONGS_KEY, columns, file).await?;
        self.take_lines(&mut table, limit_bytes, |catalogue, line, fields| {
            catalogue.take_song(line, fields, &mut genre_codes)
        })
        .await?;
        self.unknown_genre = genre_codes.get(UNKNOWN).copied();
        let mut lists: HashMap<Vec<u16>, u32> = HashMap::new();
        for song in 0..self.songs.len() {
            if self.songs[song].genres.is_empty() {
                continue;
            }
            let genres = &self.songs[song].genres;
            let list = match lists.get(genres) {
                Some(&list) => list,
                None => {
                    let names: Vec<&str> = genres.iter().map(|&code| self.genres[usize::from(code)].as_str()).collect();
                    let names = names.join(&LIST_SEPARATOR.to_string());
                    let list = self.genre_lists.len() as u32;
                    lists.insert(genres.clone(), list);
                    self.keep_text(&names);
                    self.genre_lists.push(names);
                    self.check_memory(SONGS_KEY, table.last_line, limit_bytes)?;
                    list
                }
            };
            self.songs[song].genre_list = Some(list);
        }
        self.songs.shrink_to_fit();
        self.track_members.shrink_to_fit();
        self.check_memory(SONGS_KEY, table.last_line, limit_bytes)
    }

    /// Takes every line of a file that can be used, and remarks upon the others.
    async fn take_lines<const N: usize>(
        &mut self,
        table: &mut Table<'_, N>,
        limit_bytes: usize,
        mut take: impl for<'l> FnMut(&mut Self, u64, [&'l str; N]) -> Result<(), CatalogueError> + Send,
    ) -> Result<(), CatalogueError> {
        while let Some(block) = table.next().await? {
            let mut lines = table.lines(&block);
            while let Some((line, fields)) = lines.next() {
                *self.lines.entry(table.key).or_default() += 1;
                self.check_memory(table.key, line, limit_bytes)?;
                match fields {
                    Ok(fields) => take(self, line, fields)?,
                    Err(problem) => self.remark(table.key, line, problem, true),
                }
            }
        }
        Ok(())
    }

    fn take_song(
        &mut self,
        line: u64,
        [track_id, name, artists, genre, duration]: [&str; 5],
        genre_codes: &mut HashMap<String, u16>,
    ) -> Result<(), CatalogueError> {
        // Parquet's INT32, in which durations are published, is signed.
        let Some(duration_ms) = whole_number(duration)
            .and_then(|digits| digits.parse::<u32>().ok())
            .filter(|&duration| i32::try_from(duration).is_ok())
        else {
            self.remark(SONGS_KEY, line, "duration_ms is not a number of milliseconds below 2^31", true);
            return Ok(());
        };
        // No good row names such a track, so that nothing is lost without it.
        let Some(track_id) = parse_track_id(track_id.as_bytes()).filter(|id| !id.is_empty()) else {
            self.remark(SONGS_KEY, line, "track_id is not 1 to 64 visible ASCII characters", true);
            return Ok(());
        };
        if name.len().max(artists.len()) > MAX_NAME_BYTES {
            self.remark(SONGS_KEY, line, "track_name or artists is longer than 512 bytes and was cut", false);
        }
        let index = match self.find_song(track_id.as_bytes()) {
            Some(index) => index,
            None => self.add_song(track_id, shortened(name), shortened(artists), duration_ms),
        };
        // The separator is reserved: it joins the genres of a track wherever they are written out.
        for genre in genre.split(LIST_SEPARATOR).map(str::trim).filter(|genre| !genre.is_empty()) {
            if genre.len() > MAX_VALUE_BYTES {
                self.remark(SONGS_KEY, line, "a genre is longer than 128 bytes and was passed over", false);
                continue;
            }
            let code = intern(genre, genre_codes, &mut self.genres)
                .ok_or(CatalogueError::TooManyValues { key: SONGS_KEY, column: "track_genre" })?;
            let genres = &mut self.songs[index as usize].genres;
            if genres.contains(&code) {
                continue;
            }
            if genres.len() == MAX_GENRES {
                self.remark(SONGS_KEY, line, "the track has 50 genres already and this one was passed over", false);
                continue;
            }
            let before = genres.capacity();
            genres.push(code);
            self.small_bytes += allocated(2 * genres.capacity()) - allocated(2 * before);
        }
        Ok(())
    }

    fn add_song(&mut self, track_id: &str, name: &str, artists: &str, duration_ms: u32) -> u32 {
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

    async fn parse_users(
        &mut self,
        file: impl AsyncRead + Unpin + Send,
        limit_bytes: usize,
    ) -> Result<(), CatalogueError> {
        let mut country_codes = HashMap::new();
        let mut table = Table::open(USERS_KEY, ["user_id", "user_country"], file).await?;
        self.take_lines(&mut table, limit_bytes, |catalogue, line, fields| {
            catalogue.take_user(line, fields, &mut country_codes)
        })
        .await?;
        let small = |user: &User| usize::try_from(user.id).ok().filter(|&id| id <= SMALL_ID);
        let greatest = self.users.iter().filter_map(small).max();
        self.user_of_small_id = vec![NO_USER; greatest.map_or(0, |greatest| greatest + 1)];
        for (user, index) in self.users.iter().zip(0..) {
            if let Some(id) = small(user) {
                self.user_of_small_id[id] = index;
            }
        }
        self.users.shrink_to_fit();
        self.user_members.shrink_to_fit();
        self.check_memory(USERS_KEY, table.last_line, limit_bytes)
    }

    fn take_user(
        &mut self,
        line: u64,
        [user_id, country]: [&str; 2],
        country_codes: &mut HashMap<String, u16>,
    ) -> Result<(), CatalogueError> {
        let Some(id) = whole_number(user_id).and_then(|digits| parse_user_id(digits.as_bytes())) else {
            self.remark(USERS_KEY, line, "user_id is not a positive integer", true);
            return Ok(());
        };
        if self.user_of_id.contains_key(&id) {
            return Ok(());
        }
        let country = if country.len() > MAX_VALUE_BYTES {
            self.remark(USERS_KEY, line, "user_country is longer than 128 bytes and was passed over", false);
            None
        } else if country.is_empty() {
            None
        } else {
            let code = intern(country, country_codes, &mut self.countries);
            Some(code.ok_or(CatalogueError::TooManyValues { key: USERS_KEY, column: "user_country" })?)
        };
        self.user_of_id.insert(id, self.users.len() as u32);
        self.users.push(User { id, country });
        self.user_members.push(Member::of_user(id));
        Ok(())
    }
}

/// The catalogue in the bucket, and the last good state of it.
#[derive(Debug)]
pub struct CatalogueSource {
    bucket: Bucket,
    /// Where it is written down what is in use, for whoever starts later and for people.
    ledger: Ledger,
    /// Memory that it may take.
    limit_bytes: usize,
    current: Option<(Files, Arc<Catalogue>)>,
    /// What is there is refused, which was told.
    is_refused: bool,
    /// What was refused last, which need not be read again.
    refused: Option<Files>,
}

/// The files that there are: songs, then users.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Files {
    songs: ObjectId,
    users: ObjectId,
    /// Which of them is to be used whatever it lacks.
    accepted: [bool; 2],
}

impl CatalogueSource {
    /// Loads the catalogue for the first time, into so many bytes of memory.
    pub async fn load(bucket: Bucket, ledger: Ledger, limit_bytes: usize) -> Result<Self, CatalogueError> {
        let mut source =
            CatalogueSource { bucket, ledger, limit_bytes, current: None, is_refused: false, refused: None };
        source.refresh().await?;
        Ok(source)
    }

    /// The catalogue as it is now: loaded again if one of its files changed. If that fails, the last good one, which the log and the
    /// ledger say.
    pub async fn latest(&mut self) -> Arc<Catalogue> {
        match self.refresh().await {
            Ok(()) => {}
            Err(error @ (CatalogueError::Aws(_) | CatalogueError::Stalled)) => {
                tracing::warn!("{error}; going on with the catalogue loaded before");
            }
            Err(error) => {
                tracing::error!("{error}; going on with the catalogue loaded before");
                self.is_refused = true;
                metrics().catalogue_refused.record(1, &[]);
                let files = self.refused.as_ref().map_or(String::new(), Files::name);
                self.write_down(self.ledger.refuse_catalogue(&error.to_string(), &files)).await;
            }
        }
        self.current.as_ref().map(|(_, catalogue)| Arc::clone(catalogue)).unwrap_or_default()
    }

    async fn refresh(&mut self) -> Result<(), CatalogueError> {
        let files = Files::find(&self.bucket).await?;
        if self.refused.as_ref() == Some(&files) {
            return Ok(());
        }
        if let Some((current, catalogue)) = &self.current
            && *current == files
        {
            // Whoever damaged it put the good one back.
            if self.is_refused {
                self.tell_in_use(catalogue).await;
                (self.is_refused, self.refused) = (false, None);
            }
            return Ok(());
        }
        let catalogue = match self.read(&files).await {
            Ok(catalogue) => catalogue,
            Err(error) => {
                // What is wrong with a file stays wrong with it; what fetching it met may pass.
                if !matches!(error, CatalogueError::Aws(_) | CatalogueError::Stalled) {
                    self.refused = Some(files);
                }
                return Err(error);
            }
        };
        self.tell_in_use(&catalogue).await;
        self.current = Some((files, Arc::new(catalogue)));
        (self.is_refused, self.refused) = (false, None);
        Ok(())
    }

    /// Reads the files, and holds them against what is in use.
    async fn read(&self, files: &Files) -> Result<Catalogue, CatalogueError> {
        let catalogue = files.read(&self.bucket, self.limit_bytes).await?;
        let before = self.current.as_ref().map(|(_, before)| before.as_ref());
        let known = match before {
            Some(before) => before.state(),
            // What it was before this consumer started. Those that run hold its keys against theirs, and know better.
            None => {
                let known = self.ledger.catalogue().await?.unwrap_or_default();
                if let (Some((reason, _)), Some(refused)) = (&known.refused, &known.refused_files)
                    && *refused == files.name()
                {
                    return Err(CatalogueError::RefusedBefore(reason.clone()));
                }
                known
            }
        };
        catalogue.check(files.accepted, before, &known)?;
        Ok(catalogue)
    }

    async fn tell_in_use(&self, catalogue: &Catalogue) {
        metrics().catalogue_refused.record(0, &[]);
        self.write_down(self.ledger.accept_catalogue(&catalogue.state())).await;
    }

    /// Has the ledger tell of it. What fails here is only what people are told.
    async fn write_down(&self, write: impl Future<Output = Result<(), AwsError>>) {
        if let Err(error) = write.await {
            tracing::warn!("{error}; music-streams status does not tell of the catalogue that is in use");
        }
    }
}

impl Files {
    /// Names these files, and whether they are accepted.
    fn name(&self) -> String {
        format!("{} {} {:?}", self.songs.version, self.users.version, self.accepted)
    }

    async fn find(bucket: &Bucket) -> Result<Self, CatalogueError> {
        let (songs, users) = tokio::try_join!(bucket.describe_current(SONGS_KEY), bucket.describe_current(USERS_KEY))?;
        let songs = songs.ok_or(CatalogueError::Missing { key: SONGS_KEY })?;
        let users = users.ok_or(CatalogueError::Missing { key: USERS_KEY })?;
        let accepted = [&songs, &users].map(|file| file.metadata.get(ACCEPT.0).is_some_and(|value| value == ACCEPT.1));
        Ok(Files { songs: songs.object, users: users.object, accepted })
    }

    async fn read(&self, bucket: &Bucket, limit_bytes: usize) -> Result<Catalogue, CatalogueError> {
        let (songs, users) = (bucket.read(&self.songs), bucket.read(&self.users));
        let parsing = Catalogue::parse_within(limit_bytes, songs, users);
        let catalogue = tokio::time::timeout(LOAD_TIMEOUT, parsing).await.map_err(|_| CatalogueError::Stalled)??;
        for (&(key, problem), Remark { lines, first, is_skipped }) in &catalogue.remarks {
            let what = if *is_skipped { "not used" } else { "not used whole" };
            tracing::warn!(key, lines, ?first, "{lines} lines of {key} are {what}: {problem}");
        }
        let [songs, users] = [catalogue.songs(), catalogue.users()];
        let skipped_lines = catalogue.skipped(SONGS_KEY) + catalogue.skipped(USERS_KEY);
        tracing::info!(songs, users, skipped_lines, bytes = catalogue.memory_bytes(), "catalogue read");
        Ok(catalogue)
    }
}

/// The catalogue as it is now, for whoever needs it once, into so many bytes of memory.
pub async fn read_once(bucket: &Bucket, limit_bytes: usize) -> Result<Catalogue, CatalogueError> {
    let files = Files::find(bucket).await?;
    let catalogue = files.read(bucket, limit_bytes).await?;
    catalogue.check(files.accepted, None, &CatalogueState::default())?;
    Ok(catalogue)
}

/// The code of a value, a new one if it is new; `None` when the codes are used up.
fn intern(value: &str, codes: &mut HashMap<String, u16>, values: &mut Vec<String>) -> Option<u16> {
    if let Some(&code) = codes.get(value) {
        return Some(code);
    }
    let code = u16::try_from(values.len()).ok()?;
    codes.insert(value.to_owned(), code);
    values.push(value.to_owned());
    Some(code)
}

fn some(text: &str) -> Option<Box<str>> {
    (!text.is_empty()).then(|| text.into())
}

/// What there is room for of a name.
fn shortened(name: &str) -> &str {
    &name[..name.floor_char_boundary(MAX_NAME_BYTES)]
}

/// The digits of a whole number, which may be written with a fraction of zeros: as `230666.0`, where a table had gaps.
fn whole_number(text: &str) -> Option<&str> {
    let digits = match text.split_once('.') {
        Some((digits, zeros)) if !zeros.is_empty() && zeros.bytes().all(|zero| zero == b'0') => digits,
        Some(_) => return None,
        None => text,
    };
    (!digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit())).then_some(digits)
}

/// A CSV file read by column name.
struct Table<'a, const N: usize> {
    key: &'static str,
    blocks: csv::Blocks<'a>,
    indices: [usize; N],
    width: usize,
    last_line: u64,
}

impl<'a, const N: usize> Table<'a, N> {
    async fn open(
        key: &'static str,
        columns: [&'static str; N],
        file: impl AsyncRead + Unpin + Send + 'a,
    ) -> Result<Self, CatalogueError> {
        let opened = csv::Blocks::open(file, u64::MAX).await;
        let (blocks, header) = opened.map_err(|error| CatalogueError::of_file(key, error))?;
        let indices = header.find(columns).map_err(|problem| CatalogueError::Header {
            key,
            problem: format!("{problem}; it must name {}", columns.join(", ")),
        })?;
        Ok(Table { key, blocks, indices, width: header.width(), last_line: 1 })
    }

    async fn next(&mut self) -> Result<Option<csv::Block>, CatalogueError> {
        let block = self.blocks.next().await.map_err(|error| CatalogueError::of_file(self.key, error))?;
        self.last_line = block.as_ref().map_or(self.last_line, csv::Block::first_line);
        Ok(block)
    }

    fn lines<'b>(&self, block: &'b csv::Block) -> Lines<'b, N> {
        Lines { records: block.records(), indices: self.indices, width: self.width }
    }
}

/// The lines of a block, judged as rows are.
struct Lines<'b, const N: usize> {
    records: csv::Records<'b>,
    indices: [usize; N],
    width: usize,
}

impl<const N: usize> Lines<'_, N> {
    /// The number of the next line, and the fields of the columns or why they cannot be used.
    fn next(&mut self) -> Option<(u64, Result<[&str; N], &'static str>)> {
        let line = self.records.advance()?;
        let record = self.records.record();
        let fields = || {
            if line.is_malformed {
                return Err("text stands behind the quote that closes a field");
            }
            if record.len() != self.width {
                return Err("it has more or fewer fields than the header");
            }
            let mut fields = [""; N];
            for (field, index) in fields.iter_mut().zip(self.indices) {
                *field =
                    std::str::from_utf8(record.get(index).unwrap_or_default()).map_err(|_| "a field is not UTF-8")?;
            }
            Ok(fields)
        };
        Some((line.number, fields()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "user_id,user_name,user_age,user_country,created_at\n1,A,1,Peru,x\n2,B,2,,x\nx,C,3,Chile,x\n";

    async fn parse(songs: &str) -> Result<Catalogue, CatalogueError> {
        Catalogue::parse(songs.as_bytes(), USERS.as_bytes()).await
    }

    #[tokio::test]
    async fn a_track_of_several_genres_is_one_song() {
        let songs = "\u{feff},track_id,artists,track_name,duration_ms,track_genre\n\
                     0,a,\"X;Y\",\"Say \"\"hi\"\", twice\",1000,pop\n1,b,,,5,\n2,a,X,other,9,rock\r\n3,a,X,other,9,pop\n4,c,Z,no duration,,pop\n5,,Z,no id,1,pop\n";
        let catalogue = parse(songs).await.unwrap();
        assert_eq!(catalogue.songs(), 2);
        let song = catalogue.song(catalogue.find_song(b"a").unwrap());
        assert_eq!(song.name.as_deref(), Some("Say \"hi\", twice"));
        assert_eq!(song.artists.as_deref(), Some("X;Y"));
        assert_eq!(song.duration_ms, 1000);
        assert_eq!(song.genres.iter().map(|&code| catalogue.genre(code)).collect::<Vec<_>>(), ["pop", "rock"]);
        assert_eq!(
            *catalogue.song(catalogue.find_song(b"b").unwrap()),
            Song { track_id: "b".into(), name: None, artists: None, genres: vec![], genre_list: None, duration_ms: 5 }
        );
        assert_eq!(catalogue.find_song(b"c"), None);
        let country = |id| catalogue.user(catalogue.find_user(id).unwrap()).country.map(|code| catalogue.country(code));
        assert_eq!((country(1), country(2)), (Some("Peru"), None));
        assert_eq!(catalogue.genre_list(song.genre_list.unwrap()), "pop;rock");
        assert_eq!((catalogue.skipped(SONGS_KEY), catalogue.skipped(USERS_KEY)), (2, 1));
        let remarks: Vec<_> = catalogue
            .remarks
            .iter()
            .map(|(&(file, problem), remark)| (file, &problem[..8], &remark.first[..]))
            .collect();
        assert_eq!(
            remarks,
            [(SONGS_KEY, "duration", &[6][..]), (SONGS_KEY, "track_id", &[7]), (USERS_KEY, "user_id ", &[4])]
        );
    }

    #[tokio::test]
    async fn what_is_too_long_or_too_much_is_cut_and_named() {
        let (long, genre) = ("é".repeat(300), "g".repeat(MAX_VALUE_BYTES + 1));
        let genres: Vec<String> = (0..60).map(|number| format!("genre {number}")).collect();
        let songs = format!(
            "track_id,artists,track_name,duration_ms,track_genre\na,{long},{long},1000,pop\nb,X,Y,5,{genre};rock\nc,X,Y,5,{}\n",
            genres.join(";")
        );
        let users = format!("user_id,user_country\n1,{genre}\n2,Peru\n");
        let catalogue = Catalogue::parse(songs.as_bytes(), users.as_bytes()).await.unwrap();
        let song = |id: &[u8]| catalogue.song(catalogue.find_song(id).unwrap());
        assert_eq!(song(b"a").name.as_deref(), Some("é".repeat(MAX_NAME_BYTES / 2).as_str()));
        assert_eq!(song(b"b").genres.iter().map(|&code| catalogue.genre(code)).collect::<Vec<_>>(), ["rock"]);
        assert_eq!(song(b"c").genres.len(), MAX_GENRES);
        assert_eq!(catalogue.user(catalogue.find_user(1).unwrap()).country, None);
        let remarks: Vec<_> =
            catalogue.remarks.values().map(|remark| (remark.lines, &remark.first[..], remark.is_skipped)).collect();
        assert_eq!(remarks, [(1, &[3][..], false), (10, &[4; 5], false), (1, &[2], false), (1, &[2], false)]);
    }

    #[tokio::test]
    async fn a_catalogue_that_does_not_fit_is_refused_at_the_line_where_it_ceases_to() {
        let songs: String = (0..20_000).map(|track| format!("track-{track},Song {track},Artist,pop,5\n")).collect();
        let songs = format!("track_id,track_name,artists,track_genre,duration_ms\n{songs}");
        let users: String = (1..=60_000).map(|user| format!("{user},Peru\n")).collect();
        let users = format!("user_id,user_country\n{users}");
        let within = async |bytes| Catalogue::parse_within(bytes, songs.as_bytes(), users.as_bytes()).await;
        let bytes = within(usize::MAX).await.unwrap().memory_bytes();
        assert!(within(bytes * 2).await.is_ok());
        let told = within(bytes - 1).await.unwrap_err().to_string();
        assert!(told.contains("of reference/users.csv") && told.contains("--max-memory"), "{told}");
        let told = within(bytes / 4).await.unwrap_err().to_string();
        assert!(told.contains("of reference/songs.csv"), "{told}");
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_not_collected() {
        let text = format!("track_id,\"track_name{}", "no end\n".repeat(1 << 20));
        let told = parse(&text).await.unwrap_err().to_string();
        assert!(told.contains("the record at line 1 is longer than 100 lines"), "{told}");
        let head = "track_id,track_name,artists,track_genre,duration_ms\n";
        let error = parse(&format!("{head}a,\"{}", "no end\n".repeat(1 << 20))).await.unwrap_err().to_string();
        assert!(error.contains("the record at line 2 is longer than 100 lines"), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_is_not_the_catalogue_is_refused() {
        let error = parse("track_id,track_name\na,b\n").await.unwrap_err().to_string();
        assert_eq!(
            error,
            "reference/songs.csv cannot be used: the header lacks the columns artists, track_genre, duration_ms; the header is \
             \"track_id,track_name\"; it must name track_id, track_name, artists, track_genre, duration_ms"
        );
        assert!(parse("").await.is_err());
    }
}
