//! Aggregation: rows of a batch, and what they add up to.
//!
//! Pure. Users and tracks become dense codes once, when their row is read ([`Dictionary`]); everything after works on
//! codes: the fold here and the dictionary columns in [`crate::columnar`]. The fold gives one [`Delta`] for each report
//! item that a row touched.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::catalogue::Catalogue;
use crate::report::{Attributes, Delta, Figures, Key, Member, Report, UNKNOWN};
use crate::row::{Row, day_of};

/// A track that occurred in the batch.
#[derive(Debug)]
pub struct Track {
    /// Its id.
    pub id: Arc<str>,
    /// Its song in the catalogue.
    pub song: Option<u32>,
    member: Member,
}

/// A listener that occurred in the batch.
#[derive(Debug)]
pub struct User {
    /// Its id.
    pub id: i64,
    /// Its country in the catalogue.
    pub country: Option<u16>,
    member: Member,
}

/// Tracks, listeners and source files of a batch, numbered from 0 in the order of their first occurrence.
#[derive(Debug, Default)]
pub struct Dictionary {
    tracks: Vec<Track>,
    track_codes: HashMap<Arc<str>, u32, RandomState>,
    users: Vec<User>,
    user_codes: HashMap<i64, u32, RandomState>,
    sources: Vec<String>,
}

impl Dictionary {
    /// Tracks and listeners in it. Each is in a report item at least, once a row of it counts.
    pub fn len(&self) -> usize {
        self.tracks.len() + self.users.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A track by code.
    pub fn track(&self, code: u32) -> &Track {
        &self.tracks[code as usize]
    }

    /// A listener by code.
    pub fn user(&self, code: u32) -> &User {
        &self.users[code as usize]
    }

    /// A source file's key by code.
    pub fn source(&self, code: u32) -> &str {
        &self.sources[code as usize]
    }

    /// Registers a source file.
    pub fn add_source(&mut self, key: &str) -> u32 {
        self.sources.push(key.to_owned());
        (self.sources.len() - 1) as u32
    }

    fn track_code(&mut self, id: &str, catalogue: &Catalogue) -> u32 {
        if let Some(&code) = self.track_codes.get(id) {
            return code;
        }
        let (code, id) = (self.tracks.len() as u32, Arc::<str>::from(id));
        self.tracks.push(Track { id: id.clone(), song: catalogue.find_song(&id), member: Member::of_track(&id) });
        self.track_codes.insert(id, code);
        code
    }

    fn user_code(&mut self, id: i64, catalogue: &Catalogue) -> u32 {
        if let Some(&code) = self.user_codes.get(&id) {
            return code;
        }
        let code = self.users.len() as u32;
        self.users.push(User { id, country: catalogue.find_country(id), member: Member::of_user(id) });
        self.user_codes.insert(id, code);
        code
    }
}

/// Good rows, by column, in codes of a [`Dictionary`].
#[derive(Debug, Default)]
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
    /// Adds a row.
    pub fn push(&mut self, row: Row<'_>, source: u32, dictionary: &mut Dictionary, catalogue: &Catalogue) {
        self.tracks.push(dictionary.track_code(row.track_id, catalogue));
        self.users.push(dictionary.user_code(row.user_id, catalogue));
        self.times.push(row.listen_time);
        self.sources.push(source);
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
}

/// Deltas of one day, by code.
#[derive(Debug, Default)]
struct Day {
    tracks: HashMap<u32, Figures, RandomState>,
    genres: HashMap<Option<u16>, Figures, RandomState>,
    users: HashMap<u32, Figures, RandomState>,
}

/// What the rows so far add up to.
#[derive(Debug, Default)]
pub struct Fold {
    days: BTreeMap<i32, Day>,
    items: usize,
}

impl Fold {
    /// Adds rows.
    pub fn add(&mut self, rows: &Rows, dictionary: &Dictionary, catalogue: &Catalogue) {
        for index in 0..rows.len() {
            let (track, user) = (dictionary.track(rows.tracks[index]), dictionary.user(rows.users[index]));
            let song = track.song.map(|song| catalogue.song(song));
            let listening_ms = song.map_or(0, |song| u64::from(song.duration_ms));
            let day = self.days.entry(day_of(rows.times[index])).or_default();
            let items = &mut self.items;
            let mut count = |figures: &mut Figures, member: Member| {
                *items += usize::from(figures.listens == 0);
                figures.listens += 1;
                figures.listening_ms += listening_ms;
                figures.distinct.insert(member);
            };
            count(day.tracks.entry(rows.tracks[index]).or_default(), user.member);
            count(day.users.entry(rows.users[index]).or_default(), track.member);
            match song.map(|song| song.genres.as_slice()) {
                None | Some([]) => count(day.genres.entry(None).or_default(), user.member),
                Some(genres) => {
                    genres.iter().for_each(|&genre| count(day.genres.entry(Some(genre)).or_default(), user.member));
                }
            }
        }
    }

    /// Report items touched so far: what memory and the delta file grow with.
    pub fn items(&self) -> usize {
        self.items
    }

    /// The deltas, day by day. Each is made when it is asked for, and what it was made of is freed with it.
    pub fn into_deltas(self, dictionary: &Dictionary, catalogue: &Catalogue) -> impl Iterator<Item = Delta> {
        self.days.into_iter().flat_map(move |(day, folded)| {
            let delta = move |report, id: &str, figures, attributes| Delta {
                key: Key { report, id: id.to_owned(), day },
                figures,
                attributes,
            };
            let tracks = folded.tracks.into_iter().map(move |(code, figures)| {
                let track = dictionary.track(code);
                delta(Report::Track, &track.id, figures, track_attributes(track, catalogue))
            });
            let genres = by_name(folded.genres, catalogue)
                .into_iter()
                .map(move |(genre, figures)| delta(Report::Genre, genre, figures, Attributes::default()));
            let users = folded.users.into_iter().map(move |(code, figures)| {
                let user = dictionary.user(code);
                let country = user.country.map_or(UNKNOWN, |country| catalogue.country(country)).to_owned();
                let attributes = Attributes { user_country: Some(country), ..Attributes::default() };
                delta(Report::Listener, &user.id.to_string(), figures, attributes)
            });
            tracks.chain(genres).chain(users)
        })
    }
}

fn track_attributes(track: &Track, catalogue: &Catalogue) -> Attributes {
    let song = track.song.map(|song| catalogue.song(song));
    let mut genres: BTreeSet<String> =
        song.iter().flat_map(|song| &song.genres).map(|&genre| catalogue.genre(genre).to_owned()).collect();
    if genres.is_empty() {
        genres.insert(UNKNOWN.to_owned());
    }
    Attributes {
        track_name: song.and_then(|song| song.name.clone()),
        artists: song.and_then(|song| song.artists.clone()),
        genres,
        user_country: None,
    }
}

/// Figures by the genre's name. The catalogue itself may name a genre "unknown", which is then one with that of the tracks
/// that have none.
fn by_name(genres: HashMap<Option<u16>, Figures, RandomState>, catalogue: &Catalogue) -> BTreeMap<&str, Figures> {
    let mut named: BTreeMap<&str, Figures> = BTreeMap::new();
    for (genre, figures) in genres {
        named.entry(genre.map_or(UNKNOWN, |code| catalogue.genre(code))).or_default().merge(&figures);
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::MICROS_PER_DAY;
    use proptest::prelude::*;
    use std::collections::HashSet;

    const SONGS: &str = "track_id,track_name,artists,track_genre,duration_ms\n\
        t0,A,X,pop,1000\nt0,A,X,rock,1000\nt1,B,Y,rock,250\nt2,C,Z,,7\nt3,D,Z,unknown,11\n";
    const USERS: &str = "user_id,user_country\n1,Peru\n2,Ghana\n";

    async fn catalogue() -> Catalogue {
        Catalogue::parse(SONGS.as_bytes(), USERS.as_bytes()).await.unwrap()
    }

    /// A listen: user, track, day.
    type Listen = (i64, u8, i64);

    fn rows_of(listens: &[Listen], dictionary: &mut Dictionary, catalogue: &Catalogue) -> Rows {
        let mut rows = Rows::default();
        for &(user_id, track, day) in listens {
            let track_id = format!("t{track}");
            rows.push(
                Row { user_id, track_id: &track_id, listen_time: day * MICROS_PER_DAY + 5 },
                0,
                dictionary,
                catalogue,
            );
        }
        rows
    }

    /// Report, id and day of an item.
    type Id = (&'static str, String, i32);

    /// The visible part of deltas: listens, milliseconds, distinct.
    type Visible = BTreeMap<Id, (u64, u64, u64)>;

    fn folded(batches: &[&[Listen]], catalogue: &Catalogue) -> Visible {
        let (mut dictionary, mut fold) = (Dictionary::default(), Fold::default());
        for listens in batches {
            let rows = rows_of(listens, &mut dictionary, catalogue);
            fold.add(&rows, &dictionary, catalogue);
        }
        visible(fold.into_deltas(&dictionary, catalogue))
    }

    fn visible(deltas: impl Iterator<Item = Delta>) -> Visible {
        let mut visible = Visible::new();
        for Delta { key, figures, .. } in deltas {
            let value = (figures.listens, figures.listening_ms, figures.distinct.count());
            assert_eq!(visible.insert((key.report.name(), key.id, key.day), value), None, "an item twice");
        }
        visible
    }

    /// The same by plain sets, knowing nothing of codes and sketches.
    fn reference(listens: &[Listen]) -> Visible {
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
        prop::collection::vec((1..40_i64, 0..6_u8, -2..3_i64), 0..200)
    }

    proptest! {
        #[test]
        fn the_fold_is_that_of_plain_sets_however_the_rows_are_cut(a in listens(), b in listens()) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let catalogue = runtime.block_on(catalogue());
            let expected = reference(&[a.clone(), b.clone()].concat());
            prop_assert_eq!(&folded(&[&a, &b], &catalogue), &expected);
            prop_assert_eq!(&folded(&[&b, &a], &catalogue), &expected);
        }

        #[test]
        fn deltas_survive_the_delta_file(listens in listens()) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let catalogue = runtime.block_on(catalogue());
            let (mut dictionary, mut fold) = (Dictionary::default(), Fold::default());
            fold.add(&rows_of(&listens, &mut dictionary, &catalogue), &dictionary, &catalogue);
            let items = fold.items();
            let deltas: Vec<Delta> = fold.into_deltas(&dictionary, &catalogue).collect();
            prop_assert!(deltas.len() <= items);
            let bytes = crate::columnar::encode_deltas(&deltas).unwrap();
            let back = crate::columnar::decode_deltas(&bytes).unwrap();
            prop_assert_eq!(back.len(), deltas.len());
            for (back, delta) in back.iter().zip(&deltas) {
                prop_assert_eq!((&back.key, &back.attributes), (&delta.key, &delta.attributes));
            }
            prop_assert_eq!(visible(back.into_iter()), visible(deltas.into_iter()));
        }
    }

    #[tokio::test]
    async fn names_come_from_the_catalogue() {
        let catalogue = catalogue().await;
        let (mut dictionary, mut fold) = (Dictionary::default(), Fold::default());
        let rows = rows_of(&[(1, 0, 0), (9, 5, 0)], &mut dictionary, &catalogue);
        fold.add(&rows, &dictionary, &catalogue);
        let deltas: Vec<Delta> = fold.into_deltas(&dictionary, &catalogue).collect();
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
