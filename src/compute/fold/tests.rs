//! Tests of the fold against plain sets.

use super::*;
use crate::compute::deltas;
use crate::compute::fixtures::{self, Cell, Cells, NOON};
use crate::compute::names::Dictionary;
use crate::definition::reports::{Aggregate, Key, Measure, Period as Every};
use crate::reference::References;
use crate::reports::figures::Delta;
use proptest::prelude::*;
use std::collections::HashSet;
use std::sync::Arc;

const SONGS: &str = "track_id,track_name,artists,track_genre,duration_ms\n\
    t0,A,X;W,pop,1000\nt0,A,X;W,rock,1000\nt1,B,W,rock,250\nt2,C,,,7\nt3,D,unknown,unknown,11\n";
const USERS: &str = "user_id,user_country\n1,Peru\n2,Ghana\n";

/// A dictionary on a small catalogue of the built-in definition.
pub(in crate::compute) async fn dictionary() -> Dictionary {
    let plan = Plan::built_in().unwrap();
    let references = References::parse(&plan, vec![SONGS.as_bytes(), USERS.as_bytes()]).await.unwrap();
    Dictionary::of(plan, Arc::new(references))
}

/// A day of this century.
pub(in crate::compute) const DAY: i64 = 20_000;

/// A row of the built-in definition: user, track, day.
pub(in crate::compute) type Listen = (i64, u8, i64);

/// The hour of the day of a row: not that of the midnight.
fn hour(user: i64) -> i64 {
    1 + 9 * (user % 3)
}

fn cells((user, track, day): Listen) -> Cells {
    let time = day * 86_400_000_000 + hour(user) * 3_600_000_000 + 5_000_000;
    vec![user.into(), Cell::Text(format!("t{track}")), time.into()]
}

pub(in crate::compute) fn add(fold: &mut Fold, listens: &[Listen], dictionary: &mut Dictionary) {
    let cells: Vec<Cells> = listens.iter().map(|&listen| cells(listen)).collect();
    let zone = dictionary.names().plan().zone.clone();
    for (day, rows) in fixtures::rows(dictionary, &cells).by_day(&zone) {
        fold.add(day, &rows, dictionary.names(), usize::MAX);
    }
}

/// Report, id, day and hour of an item.
type Id = (String, String, i32, Option<i64>);

/// The visible part of deltas: rows, milliseconds, and each distinct count.
type Visible = BTreeMap<Id, (i64, i64, Vec<u64>)>;

/// Returns the deltas as they come out of a delta file.
pub(in crate::compute) fn deltas(fold: Fold, names: &Names) -> Vec<Delta> {
    let items = fold.into_items(names.plan()).collect();
    deltas::decode(&deltas::encode(items, names).unwrap(), names.plan()).unwrap()
}

fn folded(batches: &[&[Listen]], dictionary: &mut Dictionary) -> Visible {
    let mut fold = Fold::default();
    batches.iter().for_each(|listens| add(&mut fold, listens, dictionary));
    let plan = Arc::clone(dictionary.names().plan());
    let mut visible = Visible::new();
    for Delta { key, figures, .. } in deltas(fold, dictionary.names()) {
        let distinct = figures.distinct.iter().map(|distinct| distinct.as_ref().unwrap().count());
        let value = (figures.slots[0].unwrap(), figures.slots[1].unwrap(), distinct.collect());
        let (day, hour) = key.period.date_and_hour();
        let id = (plan.reports[key.report].name.clone(), key.id, day, hour.map(i64::from));
        assert_eq!(visible.insert(id, value), None, "an item twice");
    }
    visible
}

/// Computes the same with plain sets, without codes and sketches.
fn reference(listens: &[Listen]) -> Visible {
    let mut sets: BTreeMap<Id, (i64, i64, Vec<HashSet<String>>)> = BTreeMap::new();
    for &(user, track, day) in listens {
        let (ms, genres, artists): (i64, &[&str], &[&str]) = match track {
            0 => (1000, &["pop", "rock"], &["W", "X"]),
            1 => (250, &["rock"], &["W"]),
            2 => (7, &["unknown"], &["unknown"]),
            3 => (11, &["unknown"], &["unknown"]),
            _ => (0, &["unknown"], &["unknown"]),
        };
        let country = ["unknown", "Peru", "Ghana"].get(user as usize).copied().unwrap_or("unknown");
        let mut count = |report: &str, id: &str, hour: Option<i64>, members: &[&str]| {
            let entry = sets.entry((report.to_owned(), id.to_owned(), day as i32, hour)).or_default();
            (entry.0, entry.1) = (entry.0 + 1, entry.1 + ms);
            entry.2.resize_with(members.len(), HashSet::new);
            for (set, &member) in entry.2.iter_mut().zip(members) {
                set.insert(member.to_owned());
            }
        };
        let (user_id, track_id) = (user.to_string(), format!("t{track}"));
        count("tracks", &track_id, None, &[&user_id]);
        count("listeners", &user_id, None, &[&track_id]);
        genres.iter().for_each(|genre| count("genres", genre, None, &[&user_id]));
        artists.iter().for_each(|artist| count("artists", artist, None, &[&user_id]));
        count("countries", country, None, &[&user_id]);
        count("days", "*", None, &[&user_id, &track_id]);
        count("hours", "*", Some(hour(user)), &[&user_id]);
    }
    let sizes = |members: Vec<HashSet<String>>| members.iter().map(|set| set.len() as u64).collect();
    sets.into_iter().map(|(key, (listens, ms, members))| (key, (listens, ms, sizes(members)))).collect()
}

fn listens() -> impl Strategy<Value = Vec<Listen>> {
    prop::collection::vec((1..40_i64, 0..6_u8, DAY - 2..DAY + 3), 0..200)
}

/// Sets outgrow their lists, and runs those that are sorted by comparison.
#[tokio::test]
async fn many_rows_are_folded_as_few_are() {
    let listens: Vec<Listen> =
        (0..40_000_i64).map(|row| (1 + row * row % 3001, (row % 7 % 6) as u8, DAY + row % 97 / 90)).collect();
    let expected = reference(&listens);
    for parts in [1, 3, 17] {
        let parts: Vec<&[Listen]> = listens.chunks(listens.len().div_ceil(parts)).collect();
        let folded = folded(&parts, &mut dictionary().await);
        assert_eq!(folded.len(), expected.len());
        for (item, (listens, ms, members)) in &expected {
            let (folded_listens, folded_ms, folded_members) = &folded[item];
            assert_eq!((folded_listens, folded_ms, folded_members.len()), (listens, ms, members.len()), "{item:?}");
            for (folded, &members) in folded_members.iter().zip(members) {
                assert!(folded.abs_diff(members) as f64 <= 1.0 + members as f64 * 0.03, "{item:?} {members}");
            }
        }
    }
}

proptest! {
    #[test]
    fn the_fold_is_that_of_plain_sets_however_the_rows_are_cut(a in listens(), b in listens()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let expected = reference(&[a.clone(), b.clone()].concat());
        prop_assert_eq!(&folded(&[&a, &b], &mut runtime.block_on(dictionary())), &expected);
        prop_assert_eq!(&folded(&[&b, &a], &mut runtime.block_on(dictionary())), &expected);
    }
}

/// Returns rows of `tracks` tracks and `users` listeners that the catalogue lacks, with `listens` rows per track.
fn new_rows(tracks: usize, users: usize, listens: usize, dictionary: &mut Dictionary) -> Rows {
    let plan = Arc::clone(dictionary.names().plan());
    let mut block = crate::input::parsed::Parsed::of(&plan);
    let count = tracks * listens;
    let new = |column: usize, ids: usize| -> Vec<u32> {
        let of_row = |row: usize| if column == 0 { row * 7919 % users } else { row % tracks };
        assert!(ids > 0);
        (0..count).map(|row| crate::input::parsed::Parsed::new_code(of_row(row))).collect()
    };
    block.codes = vec![new(0, users), new(1, tracks)];
    let ids: Vec<Arc<str>> = (0..tracks).map(|track| Arc::from(format!("new-{track}"))).collect();
    let numbers = (0..users as i64).map(|user| 1000 + user).collect();
    block.new_ids = vec![crate::input::parsed::NewIds::Numbers(numbers), crate::input::parsed::NewIds::Texts(ids)];
    block.times = vec![NOON; count];
    let mut rows = Rows::with_capacity(&plan, count);
    rows.append(&block, 0, dictionary);
    rows
}

fn item_bytes(fold: &Fold) -> (usize, usize) {
    let items = || fold.periods.values().flatten();
    (items().map(Items::member_bytes).sum(), items().map(Items::table_bytes).sum())
}

/// The accounted memory equals the sum over every item.
#[tokio::test]
async fn a_fold_knows_the_bytes_it_takes() {
    let mut dictionary = dictionary().await;
    let mut fold = Fold::default();
    for (day, tracks, users, listens) in [(1, 3000, 2000, 4), (2, 5, 6000, 5000), (1, 10, 9000, 3000), (3, 1, 1, 1)] {
        let rows = new_rows(tracks, users, listens, &mut dictionary);
        fold.add(day, &rows, dictionary.names(), usize::MAX);
    }
    let (members, tables) = item_bytes(&fold);
    // Three days, and the hour of all rows.
    let periods = 4 * 2 * 7 * std::mem::size_of::<Items>();
    assert_eq!(fold.memory_bytes(), members + tables + periods + fold.scratch.memory_bytes());
    assert!(members > 100_000 && tables > 100_000, "{members} {tables}");
}

#[tokio::test]
async fn a_fold_stops_before_it_takes_more_than_it_may() {
    let mut dictionary = dictionary().await;
    for (tracks, users, listens) in [(50_000, 40_000, 1), (20, 20_000, 10_000), (2000, 2000, 100)] {
        let rows = new_rows(tracks, users, listens, &mut dictionary);
        let mut fold = Fold::default();
        fold.add(1, &rows, dictionary.names(), usize::MAX);
        let needed = fold.memory_bytes();
        assert!(!fold.is_too_large());
        for limit in [needed / 8, needed / 3, needed - 1] {
            let mut fold = Fold::default();
            fold.add(1, &rows, dictionary.names(), limit);
            assert!(fold.is_too_large(), "{limit} of {needed}");
            let (members, tables) = item_bytes(&fold);
            assert!(members + tables <= limit + (2 << 20), "{members} {tables}, and {limit} were allowed");
            // It stays too large whatever follows.
            fold.add(2, &rows, dictionary.names(), usize::MAX);
            assert!(fold.is_too_large());
        }
        let mut fold = Fold::default();
        // A table that doubles exists twice for a while.
        fold.add(1, &rows, dictionary.names(), 3 * needed + (1 << 20));
        assert!(!fold.is_too_large());
    }
}

/// Labels are those of the latest row, by the rows' own times, and of the last of several as late.
#[tokio::test]
async fn labels_are_of_the_latest_row() {
    let mut report = fixtures::report("items", Key::Field("item".to_owned()), Every::Day);
    report.attributes = ["title", "kind", "weight", "shop", "price", "paid"].map(str::to_owned).to_vec();
    report.measures =
        vec![Measure { name: "rows".to_owned(), aggregate: Aggregate::Count, conditions: vec![], unit: None }];
    let mut of_kind = fixtures::report("kinds", Key::Field("kind".to_owned()), Every::Day);
    of_kind.attributes = vec!["item".to_owned(), "buyer".to_owned()];
    of_kind.measures = report.measures.clone();
    let plan = Arc::new(Plan::of(fixtures::definition(vec![report, of_kind], "UTC")).unwrap());
    let references = Arc::new(fixtures::references(&plan).await);
    let mut dictionary = Dictionary::of(Arc::clone(&plan), references);
    let row = |item: &str, minute: i64, shop: Cell, buyer: Cell, price: i64| -> Cells {
        let at = Cell::Number(NOON + minute * 60_000_000);
        vec![item.into(), at, shop, buyer, Cell::None, price.into(), Cell::Number(price), Cell::None]
    };
    let rows = [
        row("i1", 5, "s1".into(), 7.into(), 1234),
        row("i1", 9, Cell::None, 8.into(), 500),
        row("i1", 9, "s2".into(), Cell::None, -5),
        row("i1", 2, "s3".into(), 9.into(), 1),
        row("i3", 30, Cell::None, 9.into(), 0),
    ];
    let mut fold = Fold::default();
    // The latest row is in the first row group.
    for part in [&rows[..3], &rows[3..]] {
        let rows = fixtures::rows(&mut dictionary, part);
        fold.add(DAY as i32, &rows, dictionary.names(), usize::MAX);
    }
    let labels: BTreeMap<(usize, String), Vec<Vec<String>>> = deltas(fold, dictionary.names())
        .into_iter()
        .map(|delta| {
            let texts = |label| delta.labels.texts(label).map(str::to_owned).collect();
            ((delta.key.report, delta.key.id), (0..delta.labels.0.len()).map(texts).collect())
        })
        .collect();
    let time = "1969-12-31T23:59:59.999995Z";
    let of = |report, id: &str| labels[&(report, id.to_owned())].clone();
    assert_eq!(of(0, "i1"), [vec!["One"], vec!["a", "b", "c"], vec!["1.5"], vec!["s2"], vec!["-0.05"], vec![time]]);
    let epoch = "1970-01-01T00:00:00Z";
    assert_eq!(of(0, "i3"), [vec![], vec!["b"], vec![], vec!["nowhere"], vec!["0"], vec![epoch]]);
    // The kind of two items has the labels of the one whose row was the latest.
    assert_eq!(of(1, "a"), [vec!["i1"], vec!["nobody"]]);
    assert_eq!(of(1, "b"), [vec!["i3"], vec!["9"]]);
}
