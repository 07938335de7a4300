//! The reference catalogue: what is known about tracks and listeners.
//!
//! Loaded from `reference/songs.csv` and `reference/users.csv`, kept in memory, and loaded again when an eTag changes. A
//! batch sees one catalogue from its first row to its last.
//!
//! Everything in it is bounded: the memory it takes, the lengths of what it says, and the genres of a track. Lines that cannot be
//! used are passed over, and the log names the first of them.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use csv_async::ByteRecord;
use foldhash::fast::RandomState;
use tokio::io::{AsyncRead, ReadBuf};

use crate::aws::AwsError;
use crate::bucket::Bucket;
use crate::csv;
use crate::distinct::Member;
use crate::memory::{allocated, table_bytes};
use crate::report::{LIST_SEPARATOR, UNKNOWN};
use crate::row::parse_track_id;

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
/// is part of DynamoDB's keys, and a track's item names many ([`crate::report::MAX_GENRES`]).
pub const MAX_VALUE_BYTES: usize = 128;
/// Genres of a track. Each is counted on its own for every row; further ones are passed over.
pub const MAX_GENRES: usize = 50;
/// Longest line. Beyond it a file is not CSV but something with an unclosed quote.
const MAX_LINE_BYTES: u64 = 1 << 20;
/// Lines of each file that the log names when something is wrong with them.
const NAMED_LINES: usize = 5;

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
    /// Lines passed over because a field that is needed was missing or no number.
    pub skipped_lines: u64,
    /// Lines of which something was cut or passed over, as it was too long or too much.
    pub cut_lines: u64,
    /// The first lines of each file with which something was wrong: the file, the line, and what.
    pub remarks: Vec<(&'static str, u64, &'static str)>,
    /// Bytes of text in it: of ids, names, artists and lists of genres.
    text_bytes: usize,
    /// Bytes of its small allocations.
    small_bytes: usize,
}

/// Why a file of the catalogue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// Fetching failed.
    #[error("the catalogue cannot be loaded: {0}")]
    Aws(#[from] AwsError),
    /// The files did not arrive in time.
    #[error("the catalogue was not read within {} s", LOAD_TIMEOUT.as_secs())]
    Stalled,
    /// Reading or parsing failed.
    #[error("{key} cannot be read as CSV: {source}")]
    Unreadable {
        /// Which file.
        key: &'static str,
        /// What the CSV reader said.
        source: csv_async::Error,
    },
    /// The header is not that of the file.
    #[error("{key} lacks the column {column}; its header must name {expected}")]
    MissingColumn {
        /// Which file.
        key: &'static str,
        /// The first column missing.
        column: &'static str,
        /// All columns needed.
        expected: String,
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

    fn keep_text(&mut self, text: &str) {
        self.text_bytes += text.len();
        self.small_bytes += allocated(text.len());
    }

    fn remark(&mut self, key: &'static str, line: u64, problem: &'static str) {
        if self.remarks.iter().filter(|remark| remark.0 == key).count() < NAMED_LINES {
            self.remarks.push((key, line, problem));
        }
    }

    fn skip(&mut self, key: &'static str, line: u64, problem: &'static str) {
        self.skipped_lines += 1;
        self.remark(key, line, problem);
    }

    fn cut(&mut self, key: &'static str, line: u64, problem: &'static str) {
        self.cut_lines += 1;
        self.remark(key, line, problem);
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
        while table.next().await? {
            let line = table.line();
            self.check_memory(SONGS_KEY, line, limit_bytes)?;
            let [track_id, name, artists, genre, duration] = table.fields();
            // Parquet's INT32, in which durations are published, is signed.
            let Some(duration_ms) = duration.parse::<u32>().ok().filter(|&duration| i32::try_from(duration).is_ok())
            else {
                self.skip(SONGS_KEY, line, "passed over: duration_ms is not a number of milliseconds below 2^31");
                continue;
            };
            // No good row names such a track, so that nothing is lost without it.
            let Some(track_id) = parse_track_id(track_id.as_bytes()).filter(|id| !id.is_empty()) else {
                self.skip(SONGS_KEY, line, "passed over: track_id is not 1 to 64 visible ASCII characters");
                continue;
            };
            if name.len().max(artists.len()) > MAX_NAME_BYTES {
                self.cut(SONGS_KEY, line, "track_name or artists is longer than 512 bytes and was cut");
            }
            let index = match self.find_song(track_id.as_bytes()) {
                Some(index) => index,
                None => self.add_song(track_id, shortened(name), shortened(artists), duration_ms),
            };
            // The separator is reserved: it joins the genres of a track wherever they are written out.
            for genre in genre.split(LIST_SEPARATOR).map(str::trim).filter(|genre| !genre.is_empty()) {
                if genre.len() > MAX_VALUE_BYTES {
                    self.cut(SONGS_KEY, line, "a genre is longer than 128 bytes and was passed over");
                    continue;
                }
                let code = intern(genre, &mut genre_codes, &mut self.genres)
                    .ok_or(CatalogueError::TooManyValues { key: SONGS_KEY, column: "track_genre" })?;
                let genres = &mut self.songs[index as usize].genres;
                if genres.contains(&code) {
                    continue;
                }
                if genres.len() == MAX_GENRES {
                    self.cut(SONGS_KEY, line, "the track has 50 genres already and this one was passed over");
                    continue;
                }
                let before = genres.capacity();
                genres.push(code);
                self.small_bytes += allocated(2 * genres.capacity()) - allocated(2 * before);
            }
        }
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
                    self.check_memory(SONGS_KEY, table.line(), limit_bytes)?;
                    list
                }
            };
            self.songs[song].genre_list = Some(list);
        }
        self.songs.shrink_to_fit();
        self.track_members.shrink_to_fit();
        self.check_memory(SONGS_KEY, table.line(), limit_bytes)
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
        while table.next().await? {
            let line = table.line();
            self.check_memory(USERS_KEY, line, limit_bytes)?;
            let [user_id, country] = table.fields();
            let Some(user_id) = user_id.parse::<i64>().ok().filter(|&id| id > 0) else {
                self.skip(USERS_KEY, line, "passed over: user_id is not a positive integer");
                continue;
            };
            let index = *self.user_of_id.entry(user_id).or_insert_with(|| {
                self.users.push(User { id: user_id, country: None });
                self.user_members.push(Member::of_user(user_id));
                (self.users.len() - 1) as u32
            });
            if country.len() > MAX_VALUE_BYTES {
                self.cut(USERS_KEY, line, "user_country is longer than 128 bytes and was passed over");
            } else if !country.is_empty() {
                let code = intern(country, &mut country_codes, &mut self.countries)
                    .ok_or(CatalogueError::TooManyValues { key: USERS_KEY, column: "user_country" })?;
                self.users[index as usize].country = Some(code);
            }
        }
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
        self.check_memory(USERS_KEY, table.line(), limit_bytes)
    }
}

/// The catalogue in the bucket, and the last good state of it.
#[derive(Debug)]
pub struct CatalogueSource {
    bucket: Bucket,
    /// Memory that it may take.
    limit_bytes: usize,
    current: Option<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    songs_etag: String,
    users_etag: String,
    catalogue: Arc<Catalogue>,
}

impl CatalogueSource {
    /// Loads the catalogue for the first time, into so many bytes of memory.
    pub async fn load(bucket: Bucket, limit_bytes: usize) -> Result<Self, CatalogueError> {
        let mut source = CatalogueSource { bucket, limit_bytes, current: None };
        source.refresh().await?;
        Ok(source)
    }

    /// The catalogue as it is now: loaded again if one of its files changed. If that fails, the last good one, with a
    /// warning in the log.
    pub async fn latest(&mut self) -> Arc<Catalogue> {
        if let Err(error) = self.refresh().await {
            tracing::warn!("{error}; going on with the catalogue loaded before");
        }
        self.current.as_ref().map(|loaded| Arc::clone(&loaded.catalogue)).unwrap_or_default()
    }

    async fn refresh(&mut self) -> Result<(), CatalogueError> {
        if let Some(loaded) = &self.current {
            let (songs, users) = tokio::try_join!(
                self.bucket.read_unless(SONGS_KEY, Some(&loaded.songs_etag)),
                self.bucket.read_unless(USERS_KEY, Some(&loaded.users_etag)),
            )?;
            if songs.is_none() && users.is_none() {
                return Ok(());
            }
        }
        let (songs, users) =
            tokio::try_join!(self.bucket.read_unless(SONGS_KEY, None), self.bucket.read_unless(USERS_KEY, None))?;
        let (Some((songs, songs_etag)), Some((users, users_etag))) = (songs, users) else { return Ok(()) };
        let parsing = Catalogue::parse_within(self.limit_bytes, songs.into_async_read(), users.into_async_read());
        let catalogue = tokio::time::timeout(LOAD_TIMEOUT, parsing).await.map_err(|_| CatalogueError::Stalled)??;
        for (file, line, problem) in &catalogue.remarks {
            tracing::warn!(file, line, "line {line} of {file}: {problem}");
        }
        tracing::info!(
            songs = catalogue.songs(),
            users = catalogue.users(),
            skipped_lines = catalogue.skipped_lines,
            cut_lines = catalogue.cut_lines,
            bytes = catalogue.memory_bytes(),
            "catalogue loaded"
        );
        self.current = Some(Loaded { songs_etag, users_etag, catalogue: Arc::new(catalogue) });
        Ok(())
    }
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

/// The body of a file. It ends with an error within a line that has no end, which would otherwise be collected whole.
struct Lines<R> {
    inner: R,
    delivered: u64,
    /// Bytes of whole lines that were parsed.
    parsed: Arc<AtomicU64>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Lines<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.delivered.saturating_sub(self.parsed.load(Ordering::Relaxed))
            > MAX_LINE_BYTES + csv::BUFFER_BYTES as u64
        {
            let problem = format!("a line is longer than {MAX_LINE_BYTES} bytes (an unclosed quote?)");
            return Poll::Ready(Err(std::io::Error::other(problem)));
        }
        let before = buffer.filled().len();
        let ready = Pin::new(&mut self.inner).poll_read(context, buffer);
        self.delivered += (buffer.filled().len() - before) as u64;
        ready
    }
}

/// A CSV file read by column name.
struct Table<const N: usize, R> {
    key: &'static str,
    reader: csv::Reader<csv::Peeked<Lines<R>>>,
    record: ByteRecord,
    indices: [usize; N],
    parsed: Arc<AtomicU64>,
}

impl<const N: usize, R: AsyncRead + Unpin + Send> Table<N, R> {
    async fn open(key: &'static str, columns: [&'static str; N], file: R) -> Result<Self, CatalogueError> {
        let parsed = Arc::<AtomicU64>::default();
        let reader = csv::reader(Lines { inner: file, delivered: 0, parsed: Arc::clone(&parsed) })
            .await
            .map_err(|error| CatalogueError::Unreadable { key, source: csv_async::Error::from(error) })?;
        let mut table = Table { key, reader, record: ByteRecord::new(), indices: [0; N], parsed };
        table.next().await?;
        for (index, column) in table.indices.iter_mut().zip(columns) {
            *index = table
                .record
                .iter()
                .map(<[u8]>::trim_ascii)
                .position(|name| name.eq_ignore_ascii_case(column.as_bytes()))
                .ok_or_else(|| CatalogueError::MissingColumn { key, column, expected: columns.join(", ") })?;
        }
        Ok(table)
    }

    async fn next(&mut self) -> Result<bool, CatalogueError> {
        let key = self.key;
        self.parsed.store(self.reader.position().byte(), Ordering::Relaxed);
        self.reader
            .read_byte_record(&mut self.record)
            .await
            .map_err(|source| CatalogueError::Unreadable { key, source })
    }

    /// The line on which the record begins, from 1. The reader has seen one more than there is.
    fn line(&self) -> u64 {
        self.record.position().map_or(0, |position| position.line().saturating_sub(1).max(1))
    }

    /// The fields of the columns; one that is missing or not UTF-8 is empty.
    fn fields(&self) -> [&str; N] {
        self.indices.map(|index| self.record.get(index).and_then(|field| std::str::from_utf8(field).ok()).unwrap_or(""))
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
        assert_eq!(catalogue.skipped_lines, 3);
        let lines: Vec<_> = catalogue.remarks.iter().map(|&(file, line, _)| (file, line)).collect();
        assert_eq!(lines, [(SONGS_KEY, 6), (SONGS_KEY, 7), (USERS_KEY, 4)]);
        assert!(catalogue.remarks[1].2.contains("track_id"), "{:?}", catalogue.remarks);
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
        assert_eq!((catalogue.skipped_lines, catalogue.cut_lines), (0, 13));
        assert_eq!(catalogue.remarks.iter().map(|remark| remark.1).collect::<Vec<_>>(), [2, 3, 4, 4, 4, 2]);
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
        let text = format!("track_id,track_name\na,\"{}", "no end\n".repeat(1 << 20));
        let told = parse(&text).await.unwrap_err().to_string();
        assert!(told.contains("lacks the column"), "{told}");
        let head = "track_id,track_name,artists,track_genre,duration_ms\n";
        let error = parse(&format!("{head}a,\"{}", "no end\n".repeat(1 << 20))).await.unwrap_err().to_string();
        assert!(error.contains("a line is longer than 1048576 bytes"), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_is_not_the_catalogue_is_refused() {
        let error = parse("track_id,track_name\na,b\n").await.unwrap_err().to_string();
        assert_eq!(
            error,
            "reference/songs.csv lacks the column artists; its header must name track_id, track_name, artists, track_genre, duration_ms"
        );
        assert!(parse("").await.is_err());
    }
}
