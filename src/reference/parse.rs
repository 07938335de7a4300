//! Parsing: both files of the catalogue, line by line.

use std::collections::HashMap;

use tokio::io::AsyncRead;

use crate::memory::allocated;
use crate::reference::Catalogue;
use crate::reference::catalogue::MAX_GENRES;
use crate::reference::error::CatalogueError;
use crate::reference::ids::{parse_track_id, parse_user_id};
use crate::reference::lines::Table;
use crate::reports::figures::{LIST_SEPARATOR, UNKNOWN};

/// Key of the tracks' file.
pub const SONGS_KEY: &str = "reference/songs.csv";
/// Key of the listeners' file.
pub const USERS_KEY: &str = "reference/users.csv";

/// Longest name of a track and of its artists, in bytes: far above any real one. Longer ones are cut.
pub const MAX_NAME_BYTES: usize = 512;
/// Longest name of a genre and of a country, in bytes. Longer ones are skipped, since a cut name could be another's. A
/// genre is part of DynamoDB's keys, and a track's item names many ([`crate::reports::figures::MAX_GENRES`]).
pub const MAX_VALUE_BYTES: usize = 128;
/// Number of lines with the same problem that the log names.
const NAMED_LINES: usize = 5;

impl Catalogue {
    /// Parses both files without a bound on memory.
    pub async fn parse(
        songs: impl AsyncRead + Unpin + Send,
        users: impl AsyncRead + Unpin + Send,
    ) -> Result<Self, CatalogueError> {
        Self::parse_within(usize::MAX, songs, users).await
    }

    /// Parses both files within `limit_bytes` of memory. Unusable lines are counted and skipped.
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

    fn check_memory(&self, key: &'static str, line: u64, limit_bytes: usize) -> Result<(), CatalogueError> {
        if self.memory_bytes() > limit_bytes {
            Err(CatalogueError::TooLarge { key, line, limit_bytes })
        } else {
            Ok(())
        }
    }

    fn remark(&mut self, key: &'static str, line: u64, problem: &'static str, is_skipped: bool) {
        let remark = self.remarks.entry((key, problem)).or_default();
        remark.lines += 1;
        remark.is_skipped = is_skipped;
        if remark.first.len() < NAMED_LINES {
            remark.first.push(line);
        }
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

    /// Takes every usable line of a file, and records the problems of the others.
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
        // Durations are published as Parquet's INT32, which is signed.
        let Some(duration_ms) = whole_number(duration)
            .and_then(|digits| digits.parse::<u32>().ok())
            .filter(|&duration| i32::try_from(duration).is_ok())
        else {
            self.remark(SONGS_KEY, line, "duration_ms is not a number of milliseconds below 2^31", true);
            return Ok(());
        };
        // No good row names such a track, so that nothing is lost.
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
        // The separator is reserved: it joins the genres of a track wherever they are written as text.
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
        self.index_small_ids();
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
        self.add_user(id, country);
        Ok(())
    }
}

/// Returns the code of a value, a new one for a new value, or `None` if all codes are used.
fn intern(value: &str, codes: &mut HashMap<String, u16>, values: &mut Vec<String>) -> Option<u16> {
    if let Some(&code) = codes.get(value) {
        return Some(code);
    }
    let code = u16::try_from(values.len()).ok()?;
    codes.insert(value.to_owned(), code);
    values.push(value.to_owned());
    Some(code)
}

/// Cuts a name to [`MAX_NAME_BYTES`].
fn shortened(name: &str) -> &str {
    &name[..name.floor_char_boundary(MAX_NAME_BYTES)]
}

/// Returns the digits of a whole number, which may have a fraction of zeros, as in `230666.0`: some tools write
/// integers of columns with gaps like this.
fn whole_number(text: &str) -> Option<&str> {
    let digits = match text.split_once('.') {
        Some((digits, zeros)) if !zeros.is_empty() && zeros.bytes().all(|zero| zero == b'0') => digits,
        Some(_) => return None,
        None => text,
    };
    (!digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit())).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::catalogue::Song;

    const USERS: &str = "user_id,user_name,user_age,user_country,created_at\n1,A,1,Peru,x\n2,B,2,,x\nx,C,3,Chile,x\n";

    async fn parse(songs: &str) -> Result<Catalogue, CatalogueError> {
        Catalogue::parse(songs.as_bytes(), USERS.as_bytes()).await
    }

    #[tokio::test]
    async fn a_track_of_several_genres_is_one_song() {
        let songs = "\u{feff},track_id,artists,track_name,duration_ms,track_genre\n\
                     0,a,\"X;Y\",\"Say \"\"hi\"\", twice\",1000,pop\n1,b,,,5,\n2,a,X,other,9,rock\r\n\
                     3,a,X,other,9,pop\n4,c,Z,no duration,,pop\n5,,Z,no id,1,pop\n";
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
            "track_id,artists,track_name,duration_ms,track_genre\na,{long},{long},1000,pop\n\
             b,X,Y,5,{genre};rock\nc,X,Y,5,{}\n",
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
            "reference/songs.csv cannot be used: the header lacks the columns artists, track_genre, duration_ms; \
             the header is \
             \"track_id,track_name\"; it must name track_id, track_name, artists, track_genre, duration_ms"
        );
        assert!(parse("").await.is_err());
    }
}
