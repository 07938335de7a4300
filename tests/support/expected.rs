//! The figures and curated rows that the generated data must give, by an independent fold.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::process::Command;

use super::data::{country, track_id};
use super::*;

#[derive(Default)]
struct Figures {
    listens: u64,
    listening_ms: u64,
    members: HashSet<u64>,
}

/// The expected reports of some listens: a plain fold, by key and date.
#[derive(Default)]
pub struct Expected {
    tracks: BTreeMap<(String, String), Figures>,
    genres: BTreeMap<(String, String), Figures>,
    listeners: BTreeMap<(String, String), Figures>,
}

impl Expected {
    pub fn of(rows: &[Row]) -> Self {
        let songs = songs();
        let mut expected = Expected::default();
        for row in rows {
            let song = songs.get(row.track as usize);
            let ms = song.map_or(0, |song| song.duration_ms);
            let count = |report: &mut BTreeMap<_, Figures>, id: String, member| {
                let figures = report.entry((id, row.date.to_owned())).or_default();
                figures.listens += 1;
                figures.listening_ms += ms;
                figures.members.insert(member);
            };
            count(&mut expected.tracks, track_id(row.track), row.user);
            count(&mut expected.listeners, row.user.to_string(), row.track);
            for genre in song.map_or(vec!["unknown"], |song| song.genres.clone()) {
                count(&mut expected.genres, genre.to_owned(), row.user);
            }
        }
        expected
    }

    /// Asserts that every item of the tables is as expected, and that there is no other.
    pub async fn assert_reported(&self, deployment: &Deployment) {
        let songs: HashMap<_, _> = songs().into_iter().map(|song| (song.track_id.clone(), song)).collect();
        let tracks = deployment.scan("track_level_reports").await;
        compare("track_level_reports", "track_id", "unique_users", &self.tracks, &tracks);
        let genres = deployment.scan("genre_level_reports").await;
        compare("genre_level_reports", "track_genre", "unique_users", &self.genres, &genres);
        let listeners = deployment.scan("listener_level_reports").await;
        compare("listener_level_reports", "user_id", "unique_tracks", &self.listeners, &listeners);
        for item in &listeners {
            assert_eq!(text(item, "user_country"), country(text(item, "user_id").parse().unwrap()));
        }
        let mut lists = BTreeMap::new();
        for item in &tracks {
            let song = songs.get(text(item, "track_id"));
            assert_eq!(text(item, "track_name"), song.map_or("", |song| &song.name));
            assert_eq!(text(item, "artists"), song.map_or("", |song| &song.artists));
            let genres = song.map_or(vec!["unknown"], |song| song.genres.clone());
            assert_eq!(text(item, "track_genre"), genres.join(";"));
            for genre in genres {
                add_to_list(&mut lists, &format!("tracks#track_genre#{genre}"), "track_id", item);
            }
            add_to_list(&mut lists, "tracks", "track_id", item);
        }
        genres.iter().for_each(|item| add_to_list(&mut lists, "genres", "track_genre", item));
        listeners.iter().for_each(|item| add_to_list(&mut lists, "listeners", "user_id", item));
        for list in lists.values_mut() {
            list.sort_by_key(|(id, listens)| (std::cmp::Reverse(*listens), id.clone()));
            list.truncate(100);
        }
        assert_eq!(deployment.top_lists().await, lists);
    }
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
            let id = |entry: &Item| {
                let id = ["track_id", "user_id"].into_iter().find(|name| entry.contains_key(*name));
                text(entry, id.unwrap_or("track_genre")).to_owned()
            };
            let entries: Vec<_> =
                Self::entries(&item).iter().map(|entry| (id(entry), number(entry, "total_listens"))).collect();
            if !entries.is_empty() {
                lists.insert((text(&item, "list").to_owned(), text(&item, "report_date").to_owned()), entries);
            }
        }
        lists
    }
}

fn compare(table: &str, key: &str, distinct: &str, expected: &BTreeMap<(String, String), Figures>, items: &[Item]) {
    assert_eq!(items.len(), expected.len(), "items of {table}");
    for item in items {
        let id = (text(item, key).to_owned(), text(item, "report_date").to_owned());
        let figures = expected.get(&id).unwrap_or_else(|| panic!("{table} has an item {id:?} of no row"));
        assert_eq!(number(item, "total_listens"), figures.listens, "total_listens of {id:?} in {table}");
        // Exact: the stored decimal is compared as milliseconds.
        let stored: f64 = item["total_listening_time"].as_n().unwrap().parse().unwrap();
        assert_eq!((stored * 1000.0).round() as u64, figures.listening_ms, "total_listening_time of {id:?} in {table}");
        let (members, found) = (figures.members.len() as u64, number(item, distinct));
        let slack = if members < 100 { 0 } else { members / 50 };
        assert!(found.abs_diff(members) <= slack, "{distinct} of {id:?} in {table}: {found}, not {members}");
        if distinct == "unique_users" {
            let average: f64 = item["avg_listening_time_per_user"].as_n().unwrap().parse().unwrap();
            assert!(
                (average - stored / found as f64).abs() < 0.001,
                "avg_listening_time_per_user of {id:?} in {table}"
            );
        }
    }
}

/// Returns the curated rows as DuckDB, pyarrow or Polars reads them: each row as text, sorted.
pub async fn curated_rows(deployment: &Deployment, reader: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    for (index, key) in deployment.keys("curated/").await.iter().enumerate() {
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
        let (name, genre, duration) =
            songs.get(row.track as usize).map_or((String::new(), String::new(), String::new()), |song| {
                (song.name.clone(), song.genres.join(";"), song.duration_ms.to_string())
            });
        format!("{user}|{track}|{time}|{name}|{genre}|{duration}")
    };
    let mut lines: Vec<_> = rows.iter().map(line).collect();
    lines.sort();
    lines
}
