//! Generated data: a catalogue and listens, always the same.

use std::collections::BTreeSet;

use super::Random;

pub struct Song {
    pub track_id: String,
    pub name: String,
    /// In the order of the catalogue, which is not that of their names.
    pub artists: Vec<String>,
    pub duration_ms: u64,
    pub genres: Vec<&'static str>,
}

const GENRES: [&str; 7] = ["ambient", "blues", "fado", "jazz", "k-pop", "pop", "reggae"];
const TRACKS: u64 = 400;
const CATALOGUED_TRACKS: u64 = 380;
const USERS: u64 = 900;
const CATALOGUED_USERS: u64 = 850;

pub fn track_id(track: u64) -> String {
    format!("{track:05}abcdefghijkmnopq")
}

pub fn songs() -> Vec<Song> {
    let mut random = Random(1);
    let song = |track| {
        let genres: BTreeSet<_> =
            (0..=random.below(2)).map(|_| GENRES[random.below(GENRES.len() as u64) as usize]).collect();
        let name = match track % 10 {
            0 => format!("Say \"{track}\", twice"),
            1 => format!("夜に {track}"),
            _ => format!("Song {track}"),
        };
        let (own, guest) = (format!("Artist {}", track % 60), "A Guest".to_owned());
        let artists = match track % 7 {
            0 => vec![],
            1 => vec![own],
            _ => vec![own, guest],
        };
        let duration_ms = 60_000 + random.below(300_000);
        Song { track_id: track_id(track), name, artists, duration_ms, genres: genres.into_iter().collect() }
    };
    (0..CATALOGUED_TRACKS).map(song).collect()
}

pub fn country(user: u64) -> &'static str {
    if user > CATALOGUED_USERS { "unknown" } else { ["Peru", "Japan", "Ghana"][(user % 3) as usize] }
}

pub fn songs_csv() -> String {
    let mut csv = String::from(",track_id,artists,album_name,track_name,popularity,duration_ms,explicit,track_genre\n");
    for song in songs() {
        for genre in &song.genres {
            let (id, name) = (&song.track_id, song.name.replace('"', "\"\""));
            let artists = song.artists.join(";");
            csv += &format!("0,{id},{artists},\"Album, the\",\"{name}\",1,{},False,{genre}\n", song.duration_ms);
        }
    }
    csv
}

pub fn users_csv() -> String {
    let mut csv = String::from("user_id,user_name,user_age,user_country,created_at\n");
    for user in 1..=CATALOGUED_USERS {
        csv += &format!("{user},Name {user},30,{},2024-01-01\n", country(user));
    }
    csv
}

/// A listen.
#[derive(Clone)]
pub struct Row {
    pub user: u64,
    pub track: u64,
    pub date: &'static str,
    pub second: u64,
}

/// Generates listens of two days, most of them of few tracks and listeners.
pub fn rows(seed: u64, count: usize) -> Vec<Row> {
    let mut random = Random(seed);
    let row = |_| {
        let (a, b) = (random.below(TRACKS), random.below(TRACKS));
        let date = if random.below(10) == 0 { "2024-06-24" } else { "2024-06-25" };
        Row { user: 1 + random.below(USERS), track: a.min(b), date, second: random.below(86_400) }
    };
    (0..count).map(row).collect()
}

pub fn csv_of(rows: &[Row]) -> String {
    let mut csv = String::from("user_id,track_id,listen_time\n");
    for Row { user, track, date, second } in rows {
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        csv += &format!("{user},{},{date} {hour:02}:{minute:02}:{second:02}\n", track_id(*track));
    }
    csv
}
