//! Curated Parquet as DuckDB, pyarrow and Polars read it. Each fault of the archived crates has a test here. Run by
//! `make test`.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::process::Command;
use std::sync::Arc;

use music_streams::compute::merge::Merge;
use music_streams::compute::{Dictionary, Rows, curated};
use music_streams::formats::delta::stats::Stats;
use music_streams::formats::parquet::{self, Bound};
use music_streams::input::file::Blocks;
use music_streams::plan::Plan;
use music_streams::reference::References;
use music_streams::reports::distinct::{Distinct, Member, Members};

const SONGS: &str = "track_id,track_name,artists,track_genre,duration_ms\n\
    known,Zulu,Ä;B,pop,1000\nknown,Zulu,Ä;B,rock,1000\nbare,,,,7\nelsewhere,Never played,N,fado,9\n";
const USERS: &str = "user_id,user_country\n1,Peru\n3,Ghana\n";

fn python(arguments: &[&std::ffi::OsStr]) -> String {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let output =
        Command::new(root.join(".tools/checks/bin/python")).arg(root.join("tests/readers.py")).args(arguments).output();
    let output = output.expect("`make test` installs the readers");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the rows of a file with these lines.
async fn rows(lines: String, dictionary: &mut Dictionary, source: u32) -> Rows {
    let text = format!("user_id,track_id,listen_time\n{lines}").into_bytes();
    let (plan, references) = (Arc::clone(dictionary.names().plan()), Arc::clone(dictionary.names().references()));
    let (body, now) = (std::io::Cursor::new(text), jiff::Timestamp::now());
    let mut blocks = Blocks::open(body, u64::MAX, now, &plan, "incoming/a.csv").await.unwrap();
    let mut rows = Rows::with_capacity(&plan, 0);
    while let Some(block) = blocks.next().await.unwrap() {
        rows.append(&block.parse(&references), source, dictionary);
    }
    rows
}

async fn dictionary() -> Dictionary {
    let plan = Plan::built_in().unwrap();
    let references = References::parse(&plan, vec![SONGS.as_bytes(), USERS.as_bytes()]).await.unwrap();
    Dictionary::of(plan, Arc::new(references))
}

/// Two row groups: 21 rows, then 9.
async fn written() -> Vec<u8> {
    let mut dictionary = dictionary().await;
    let source = dictionary.add_source("incoming/ä.csv");
    let mut file = curated::new_file(&Plan::built_in().unwrap()).unwrap();
    for (first, count) in [(0, 21), (21, 9)] {
        let line = |index| {
            let track_id = ["known", "bare", "absent"][index % 3];
            format!("{},{track_id},2024-06-25 00:00:00.{index:06}\n", 1 + index % 4)
        };
        let rows = rows((first..first + count).map(line).collect(), &mut dictionary, source).await;
        assert_eq!(rows.len(), count);
        file.append(curated::encode_rows(&rows, dictionary.names()).unwrap()).unwrap();
    }
    file.finish().unwrap()
}

#[tokio::test]
async fn the_end_of_a_file_tells_its_rows() {
    let file = written().await;
    let footer = parquet::footer_bytes(&file[file.len() - 8..]).unwrap();
    assert!(footer < file.len());
    for bytes in [footer, footer + 1, file.len()] {
        assert_eq!(parquet::count_rows(&file[file.len() - bytes..]).unwrap(), 30);
    }
    for not_enough in [footer - 1, 12, 8, 0] {
        parquet::count_rows(&file[file.len() - not_enough..]).unwrap_err();
    }
    for no_parquet in [&b"PAR1"[..], b"", b"some text, no Parquet"] {
        assert_eq!(parquet::footer_bytes(no_parquet), None);
    }
}

/// Files of a day, one of which lacks a column, become one: the same rows, in the order of the columns.
#[tokio::test]
async fn files_that_become_one_keep_their_rows() {
    let (file, plan) = (written().await, Plan::built_in().unwrap());
    let without: Vec<_> = plan.curated.iter().filter(|it| it.column.name != "track_genre").cloned().collect();
    let columns: Vec<parquet::Column> =
        plan.curated.iter().map(|it| parquet::Column { is_nullable: true, ..it.column.clone() }).collect();
    let mut merge = Merge::new(&columns);
    for _ in 0..2 {
        let row_groups = merge.add(std::io::Cursor::new(&file), 0).unwrap();
        assert_eq!((row_groups, merge.add(std::io::Cursor::new(&file), 1).unwrap()), (2, 2));
    }
    // As a definition without that column wrote it.
    let mut narrow = Merge::new(&without.iter().map(|it| it.column.clone()).collect::<Vec<_>>());
    narrow.add(std::io::Cursor::new(&file), 0).unwrap();
    let narrow = file_of(&without.into_iter().map(|it| it.column).collect::<Vec<_>>(), &mut narrow);
    merge.add(std::io::Cursor::new(&narrow), 0).unwrap();
    assert_eq!(merge.rows(), 30 + 30 + 21);
    let merged = file_of(&columns, &mut merge);
    assert_eq!(merge.rows(), 0);

    let rows = |file: &[u8]| -> Vec<Vec<serde_json::Value>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("curated.parquet");
        std::fs::write(&path, file).unwrap();
        serde_json::from_str(&python(&["curated".as_ref(), path.as_os_str()])).unwrap()
    };
    let genre = plan.curated.iter().position(|it| it.column.name == "track_genre").unwrap();
    let before = rows(&file);
    let mut expected = [before.clone(), before.clone()].concat();
    expected.extend(before[..21].iter().cloned().map(|mut row| {
        row[genre] = serde_json::Value::Null;
        row
    }));
    let found = rows(&merged);
    let key = |row: &Vec<serde_json::Value>| (row[1].as_str().unwrap().to_owned(), row[2].as_str().unwrap().to_owned());
    assert!(found.is_sorted_by_key(key), "by track, then by time");
    let sorted = |mut rows: Vec<Vec<serde_json::Value>>| {
        rows.sort_by_key(|row| serde_json::json!(row).to_string());
        rows
    };
    assert_eq!(sorted(found), sorted(expected));
}

fn file_of(columns: &[parquet::Column], merge: &mut Merge) -> Vec<u8> {
    let mut file = parquet::ParquetFile::new(Merge::schema(columns).unwrap(), true).unwrap();
    file.append(merge.encode(&["track_id".to_owned(), "listen_time".to_owned()]).unwrap()).unwrap();
    file.finish().unwrap()
}

/// The footer alone says what the table's log needs to know of a file.
#[tokio::test]
async fn a_footer_tells_columns_and_bounds() {
    let file = written().await;
    let footer = parquet::footer_bytes(&file[file.len() - 8..]).unwrap();
    let summary = parquet::summary(&file[file.len() - footer..]).unwrap();
    let plan = Plan::built_in().unwrap();
    assert_eq!(summary.columns, plan.curated.iter().map(|it| it.column.clone()).collect::<Vec<_>>());
    assert_eq!(summary.rows, 30);
    let bounds = |name: &str| {
        let place = summary.columns.iter().position(|column| column.name == name).unwrap();
        summary.bounds[place].clone().unwrap()
    };
    assert_eq!(bounds("track_id"), (Bound::Text("absent".into()), Bound::Text("known".into())));
    assert_eq!(bounds("user_id"), (Bound::Number(1), Bound::Number(4)));
    let midnight = 1_719_273_600_000_000;
    assert_eq!(bounds("listen_time"), (Bound::Number(midnight), Bound::Number(midnight + 29)));
    let stats = Stats::of(&summary, "source_key").to_text();
    assert!(stats.contains(r#""listen_time":"2024-06-25T00:00:00.001Z""#), "rounded up: {stats}");
    for not_enough in [footer - 1, 12, 8, 0] {
        parquet::summary(&file[file.len() - not_enough..]).unwrap_err();
    }
    // Each column has an id, the same in every file, whatever columns come before it.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("curated.parquet");
    std::fs::write(&path, &file).unwrap();
    let facts = python(&["ids".as_ref(), path.as_os_str()]);
    let ids: std::collections::BTreeMap<String, i64> = serde_json::from_str(&facts).unwrap();
    let distinct: std::collections::BTreeSet<_> = ids.values().collect();
    assert!(distinct.len() == plan.curated.len() && ids.values().all(|id| (1..=1 << 30).contains(id)), "{ids:?}");
    assert_eq!(ids["track_id"], 370_673_573);
}

#[tokio::test]
async fn types_nulls_and_statistics_are_right_for_every_reader() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("curated.parquet");
    std::fs::write(&path, written().await).unwrap();
    let facts: serde_json::Value = serde_json::from_str(&python(&["facts".as_ref(), path.as_os_str()])).unwrap();
    assert_eq!((&facts["rows"], &facts["row_groups"]), (&30.into(), &2.into()));

    // Nulls: a third of the rows names a track that the catalogue lacks, a third one without names, half the listeners
    // are unknown.
    for (column, nulls, in_first_group) in [
        ("track_name", 20, 14),
        ("artists", 20, 14),
        ("track_genre", 20, 14),
        ("duration_ms", 10, 7),
        ("user_country", 15, 10),
        ("user_id", 0, 0),
        ("track_id", 0, 0),
        ("listen_time", 0, 0),
        ("source_key", 0, 0),
    ] {
        assert_eq!(facts["duckdb_is_null"][column], nulls, "IS NULL of {column} in DuckDB");
        assert_eq!(facts["polars_nulls"][column], nulls, "nulls of {column} in Polars");
        assert_eq!(facts["columns"][column]["nulls"], in_first_group, "null count of {column} in the footer");
    }

    // Minimum and maximum, of the values that occur, are used: pyarrow ignores them without column orders.
    for (column, least, greatest) in [
        ("user_id", "1", "4"),
        ("track_id", "absent", "known"),
        ("track_name", "Zulu", "Zulu"),
        ("track_genre", "pop;rock", "pop;rock"),
        ("duration_ms", "7", "1000"),
        ("user_country", "Ghana", "Peru"),
        ("listen_time", "2024-06-25 00:00:00+00:00", "2024-06-25 00:00:00.000020+00:00"),
    ] {
        let facts = &facts["columns"][column];
        assert_eq!(facts["has_min_max"], true, "{column}");
        assert_eq!((facts["min"].as_str().unwrap(), facts["max"].as_str().unwrap()), (least, greatest), "{column}");
    }

    // Logical types.
    assert_eq!(facts["columns"]["listen_time"]["type"], "timestamp[us, tz=UTC]");
    assert_eq!(facts["duckdb_types"]["listen_time"], "TIMESTAMP WITH TIME ZONE");
    assert_eq!(facts["polars_types"]["listen_time"], "Datetime(time_unit='us', time_zone='UTC')");
    for (column, duckdb, arrow) in
        [("user_id", "BIGINT", "int64"), ("duration_ms", "INTEGER", "int32"), ("track_name", "VARCHAR", "string")]
    {
        assert_eq!(facts["duckdb_types"][column], duckdb);
        assert_eq!(facts["columns"][column]["type"], arrow);
    }

    // Dictionary-encoded and compressed.
    for column in
        ["user_id", "track_id", "track_name", "artists", "track_genre", "duration_ms", "user_country", "source_key"]
    {
        assert_eq!(facts["columns"][column]["compression"], "ZSTD");
        assert!(facts["columns"][column]["encodings"].to_string().contains("RLE_DICTIONARY"), "{column}");
    }
}

#[tokio::test]
async fn a_row_group_holds_only_values_that_occur_in_it() {
    let mut dictionary = dictionary().await;
    let line = |index: i64| {
        let scattered = index.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64);
        format!("{},track-{scattered:016x},2024-06-25 00:00:00\n", 1 + index)
    };
    let mut rows = rows((0..20_000).map(line).collect(), &mut dictionary, 0).await;
    let size_of = |rows: &Rows| {
        let mut file = curated::new_file(&Plan::built_in().unwrap()).unwrap();
        file.append(curated::encode_rows(rows, dictionary.names()).unwrap()).unwrap();
        file.finish().unwrap().len()
    };
    let all = size_of(&rows);
    rows.truncate(20);
    let few = size_of(&rows);
    assert!(few * 20 < all, "{few} bytes for 20 rows, {all} for 20,000: the dictionary is written whole");
}

/// DuckDB reads back any rows as they were written: few and many values, nulls in any column, times with fractions and
/// without, counts around the groups of eight in which codes are packed.
#[tokio::test]
async fn every_shape_of_rows_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("curated.parquet");
    for (count, tracks, fraction) in [(1, 1, ""), (7, 2, ""), (8, 3, ".5"), (9, 1, ""), (1000, 3, ""), (5000, 700, "")]
    {
        let mut dictionary = dictionary().await;
        let source = dictionary.add_source("s");
        let known = ["known", "bare", "elsewhere"];
        let fields = |index: usize| {
            let track = index * index % tracks;
            let track = known.get(track).map_or_else(|| format!("new-{track}"), |&id| id.to_owned());
            (1 + index % 5, track, format!("2024-06-25 {:02}:{:02}:{:02}{fraction}", index % 24, index % 7, index % 60))
        };
        let line = |index| {
            let (user, track, time) = fields(index);
            format!("{user},{track},{time}\n")
        };
        let rows = rows((0..count).map(line).collect(), &mut dictionary, source).await;
        let mut file = curated::new_file(&Plan::built_in().unwrap()).unwrap();
        file.append(curated::encode_rows(&rows, dictionary.names()).unwrap()).unwrap();
        std::fs::write(&path, file.finish().unwrap()).unwrap();
        let read: Vec<serde_json::Value> =
            serde_json::from_str(&python(&["curated".as_ref(), path.as_os_str()])).unwrap();
        assert_eq!(read.len(), count);
        for (index, row) in read.iter().enumerate() {
            let (user, track, time) = fields(index);
            let song = match track.as_str() {
                "known" => serde_json::json!(["Zulu", "Ä;B", "pop;rock", 1000]),
                "bare" => serde_json::json!([null, null, null, 7]),
                "elsewhere" => serde_json::json!(["Never played", "N", "fado", 9]),
                _ => serde_json::json!([null, null, null, null]),
            };
            let country = [Some("Peru"), None, Some("Ghana"), None, None][user - 1];
            let expected = serde_json::json!([user, track, time, song[0], song[1], song[2], song[3], country, "s"]);
            assert_eq!(row, &expected, "row {index} of {count}");
        }
    }
}

#[test]
fn sketches_are_read_by_apache_datasketches() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sketch");
    for count in [0_u32, 1, 7, 100, 5_000, 200_000] {
        let (mut distinct, mut members) = (Distinct::default(), Members::default());
        (0..count).for_each(|member| distinct.insert(Member::of_number(i64::from(member))));
        members.extend(&(0..count).map(|member| Member::of_number(i64::from(member))).collect::<Vec<_>>());
        for bytes in [distinct.to_bytes(), members.into_bytes()] {
            std::fs::write(&path, bytes).unwrap();
            let counts = python(&["sketch".as_ref(), path.as_os_str(), count.to_string().as_ref()]);
            for read in counts.split_whitespace().map(|read| read.parse::<f64>().unwrap()) {
                let slack = if count < 1000 { 0.5 } else { f64::from(count) * 0.02 };
                assert!((read - f64::from(count)).abs() <= slack, "{count} members: {counts}");
            }
        }
        assert!(distinct.count().abs_diff(u64::from(count)) <= u64::from(count) / 50);
    }
}
