//! The figures and curated rows that the generated data must give, by an independent fold.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::process::Command;

use super::data::{Song, country, track_id};
use super::*;

#[derive(Default)]
struct Figures {
    listens: u64,
    listening_ms: u64,
    users: HashSet<u64>,
    tracks: HashSet<u64>,
}

/// The figures of a report by key and period.
type Items = BTreeMap<(String, String), Figures>;

/// The expected reports of some listens: a plain fold, by key and date or hour.
#[derive(Default)]
pub struct Expected {
    tracks: Items,
    genres: Items,
    listeners: Items,
    artists: Items,
    countries: Items,
    days: Items,
    hours: Items,
}

impl Expected {
    pub fn of(rows: &[Row]) -> Self {
        let songs = songs();
        let mut expected = Expected::default();
        for row in rows {
            let song = songs.get(row.track as usize);
            let count = |report: &mut Items, id: String, period: &str| {
                let figures = report.entry((id, period.to_owned())).or_default();
                figures.listens += 1;
                figures.listening_ms += song.map_or(0, |song| song.duration_ms);
                figures.users.insert(row.user);
                figures.tracks.insert(row.track);
            };
            count(&mut expected.tracks, track_id(row.track), row.date);
            count(&mut expected.listeners, row.user.to_string(), row.date);
            for genre in genres_of(song) {
                count(&mut expected.genres, genre.to_owned(), row.date);
            }
            for artist in artists_of(song) {
                count(&mut expected.artists, artist, row.date);
            }
            count(&mut expected.countries, country(row.user).to_owned(), row.date);
            count(&mut expected.days, "*".to_owned(), row.date);
            count(&mut expected.hours, "*".to_owned(), &format!("{}T{:02}", row.date, row.second / 3600));
        }
        expected
    }

    /// Asserts that every item of the tables is as expected, and that there is no other.
    pub async fn assert_reported(&self, deployment: &Deployment) {
        let songs: HashMap<_, _> = songs().into_iter().map(|song| (song.track_id.clone(), song)).collect();
        let compared = async |name: &str, key: &str, period: &str, distinct: &[&str], expected: &Items| {
            let items = deployment.scan(name).await;
            compare(name, [key, period], distinct, expected, &items);
            items
        };
        let (day, users) = ("report_date", &["unique_users"][..]);
        let tracks = compared("track_level_reports", "track_id", day, users, &self.tracks).await;
        let genres = compared("genre_level_reports", "track_genre", day, users, &self.genres).await;
        let listeners = compared("listener_level_reports", "user_id", day, &["unique_tracks"], &self.listeners).await;
        let artists = compared("artist_level_reports", "artists", day, users, &self.artists).await;
        let countries = compared("country_level_reports", "user_country", day, users, &self.countries).await;
        let both = &["unique_users", "unique_tracks"];
        compared("day_level_reports", "all", day, both, &self.days).await;
        compared("hour_level_reports", "all", "report_hour", users, &self.hours).await;
        for item in &listeners {
            assert_eq!(text(item, "user_country"), country(text(item, "user_id").parse().unwrap()));
        }
        let mut lists = BTreeMap::new();
        for item in &tracks {
            let song = songs.get(text(item, "track_id"));
            assert_eq!(text(item, "track_name"), song.map_or("", |song| &song.name));
            // Several values are in the order of their letters.
            let mut artists = artists_of(song);
            artists.sort();
            assert_eq!(text(item, "artists"), artists.join(";"));
            let genres = genres_of(song);
            assert_eq!(text(item, "track_genre"), genres.join(";"));
            for genre in genres {
                add_to_list(&mut lists, &format!("tracks#track_genre#{genre}"), "track_id", item);
            }
            add_to_list(&mut lists, "tracks", "track_id", item);
        }
        genres.iter().for_each(|item| add_to_list(&mut lists, "genres", "track_genre", item));
        listeners.iter().for_each(|item| add_to_list(&mut lists, "listeners", "user_id", item));
        artists.iter().for_each(|item| add_to_list(&mut lists, "artists", "artists", item));
        countries.iter().for_each(|item| add_to_list(&mut lists, "countries", "user_country", item));
        for list in lists.values_mut() {
            list.sort_by_key(|(id, listens)| (std::cmp::Reverse(*listens), id.clone()));
            list.truncate(100);
        }
        assert_eq!(deployment.top_lists().await, lists);
    }
}

/// The genres that a listen of a song counts under.
fn genres_of(song: Option<&Song>) -> Vec<&'static str> {
    song.map_or(vec!["unknown"], |song| song.genres.clone())
}

/// The artists that a listen of a song counts under.
fn artists_of(song: Option<&Song>) -> Vec<String> {
    let artists = song.map_or(vec![], |song| song.artists.clone());
    if artists.is_empty() { vec!["unknown".to_owned()] } else { artists }
}

/// The entries of each list and day: id and listens.
pub type TopLists = BTreeMap<(String, String), Vec<(String, u64)>>;

fn add_to_list(lists: &mut TopLists, list: &str, id: &str, item: &Item) {
    let list = lists.entry((list.to_owned(), text(item, "report_date").to_owned())).or_default();
    list.push((text(item, id).to_owned(), number(item, "total_listens")));
}

impl Deployment {
    /// The entries of a top list, each as values by the names of its columns.
    pub fn entries(list: &Item) -> Vec<Item> {
        let columns: Vec<&String> = list["columns"].as_l().unwrap().iter().map(|name| name.as_s().unwrap()).collect();
        let entry = |values: &AttributeValue| {
            let values = values.as_l().unwrap();
            assert_eq!(values.len(), columns.len(), "values of an entry");
            columns.iter().map(|&name| name.clone()).zip(values.iter().cloned()).collect()
        };
        list["entries"].as_l().unwrap().iter().map(entry).collect()
    }

    /// Reads the top lists, those that have entries.
    pub async fn top_lists(&self) -> TopLists {
        let mut lists = TopLists::new();
        for item in self.scan("top_lists").await {
            let list = text(&item, "list").to_owned();
            let id = match list.split('#').next() {
                Some("tracks") => "track_id",
                Some("genres") => "track_genre",
                Some("listeners") => "user_id",
                Some("artists") => "artists",
                Some("countries") => "user_country",
                _ => panic!("a list {list}"),
            };
            let entry = |entry: &Item| (text(entry, id).to_owned(), number(entry, "total_listens"));
            let entries: Vec<_> = Self::entries(&item).iter().map(entry).collect();
            if !entries.is_empty() {
                lists.insert((list, text(&item, "report_date").to_owned()), entries);
            }
        }
        lists
    }
}

fn compare(table: &str, [key, period]: [&str; 2], distinct: &[&str], expected: &Items, items: &[Item]) {
    assert_eq!(items.len(), expected.len(), "items of {table}");
    for item in items {
        let id = (text(item, key).to_owned(), text(item, period).to_owned());
        let figures = expected.get(&id).unwrap_or_else(|| panic!("{table} has an item {id:?} of no row"));
        assert_eq!(number(item, "total_listens"), figures.listens, "total_listens of {id:?} in {table}");
        // Exact: the stored decimal is compared as milliseconds.
        let stored: f64 = item["total_listening_time"].as_n().unwrap().parse().unwrap();
        assert_eq!((stored * 1000.0).round() as u64, figures.listening_ms, "total_listening_time of {id:?} in {table}");
        for name in ["unique_users", "unique_tracks"] {
            assert_eq!(item.contains_key(name), distinct.contains(&name), "{name} in {table}");
        }
        for &name in distinct {
            let members = if name == "unique_users" { &figures.users } else { &figures.tracks };
            let (members, found) = (members.len() as u64, number(item, name));
            let slack = if members < 100 { 0 } else { members / 50 };
            assert!(found.abs_diff(members) <= slack, "{name} of {id:?} in {table}: {found}, not {members}");
        }
        if distinct.contains(&"unique_users") {
            let average: f64 = item["avg_listening_time_per_user"].as_n().unwrap().parse().unwrap();
            assert!(
                (average - stored / number(item, "unique_users") as f64).abs() < 0.001,
                "avg_listening_time_per_user of {id:?} in {table}"
            );
        }
    }
}

/// Returns the curated rows as DuckDB, pyarrow or Polars reads them: each row as text, sorted.
pub async fn curated_rows(deployment: &Deployment, reader: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    for (index, key) in deployment.keys("curated/report_date=").await.iter().enumerate() {
        std::fs::write(folder.path().join(format!("{index}.parquet")), deployment.get(key).await).unwrap();
    }
    let output = Command::new(root().join(".tools/checks/bin/python"))
        .arg(root().join("tests/readers.py"))
        .args(["rows", reader])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Returns the same rows, made from the generated data.
pub fn expected_rows(rows: &[Row]) -> Vec<String> {
    let songs = songs();
    let line = |row: &Row| {
        let csv = csv_of(std::slice::from_ref(row));
        let mut fields = csv.lines().nth(1).unwrap().split(',');
        let (user, track, time) = (fields.next().unwrap(), fields.next().unwrap(), fields.next().unwrap());
        let song = songs.get(row.track as usize);
        let of_song = |of: &dyn Fn(&Song) -> String| song.map_or(String::new(), of);
        let (name, duration) = (of_song(&|song| song.name.clone()), of_song(&|song| song.duration_ms.to_string()));
        let (artists, genre) = (of_song(&|song| song.artists.join(";")), of_song(&|song| song.genres.join(";")));
        format!("{user}|{track}|{time}|{name}|{artists}|{genre}|{duration}")
    };
    let mut lines: Vec<_> = rows.iter().map(line).collect();
    lines.sort();
    lines
}
