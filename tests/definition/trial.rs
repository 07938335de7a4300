//! `music-streams definition try` on small files of every format. The expected rows and figures were worked out by
//! hand.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;

use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr;

use crate::rules::GOOD;

const PLAYS: &str = include_str!("examples/plays.toml");
const REQUESTS: &str = include_str!("examples/requests.toml");
const READINGS: &str = include_str!("examples/readings.toml");

/// Files of a folder, by their paths.
type Files<'f> = [(&'f str, &'f [u8])];

/// Runs the program in a folder with these files.
fn run(files: &Files<'_>, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    run_in(folder.path(), arguments)
}

fn run_in(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_music-streams"));
    command.args(["definition", "try"]).args(arguments).current_dir(folder).env_clear().output().unwrap()
}

fn said(output: &Output) -> (&str, &str) {
    let text = |bytes| std::str::from_utf8(bytes).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

/// Tries a definition, and returns the answer for programs.
fn tried(files: &Files<'_>, arguments: &[&str]) -> Value {
    let output = run(files, &[arguments, &["--format", "json"]].concat());
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The first items of each report.
fn items(answer: &Value) -> Vec<&Value> {
    answer["reports"].as_array().unwrap().iter().map(|report| &report["first"]).collect()
}

/// The lines and reasons of the rejected rows.
fn rejected(answer: &Value) -> Vec<(&str, u64, &str)> {
    let rows = answer["rejected_rows"].as_array().unwrap().iter();
    rows.map(|row| (row["object"].as_str().unwrap(), row["line"].as_u64().unwrap(), row["reason"].as_str().unwrap()))
        .collect()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// Fields without names, a column from the key, a join, and a reference that lacks a key.
#[test]
fn lines_of_tabs_in_folders_of_listeners() {
    let ann = "#PLAYER/1\nMira\tDays\tRain\t1\t200\tL\t1616925238\nMira\tDays\tRain\t1\t30\tS\t1616925500\n\
               Oto\t\tNoon\t\t131\tL\t1616999999\nOto\t\tNoon\t\tx\tL\t1616999999\nOto\tNoon\n";
    let files: &Files<'_> = &[
        ("plays.toml", PLAYS.as_bytes()),
        ("data/ann/log.tsv", ann.as_bytes()),
        ("data/bo/log.tsv", b"Mira\tDays\tRain\t1\t100\tL\t1616925238\n"),
        ("data/.hidden", b"\0"),
        ("reference/listeners.tsv", b"ann\tPeru\n\nann\tGhana\ncy\t\n"),
    ];
    let answer = tried(files, &["plays.toml", "data"]);
    let of_file = |name: &str, rows, rejected| {
        json!({
            "file": format!("data/{name}"), "key": format!("incoming/{name}"), "format": "TSV", "compression": null,
            "columns": null, "rows": rows, "rejected": rejected, "passed_over": 0,
        })
    };
    assert_eq!(answer["files"], json!([of_file("ann/log.tsv", 5, 2), of_file("bo/log.tsv", 1, 0)]));
    assert_eq!(answer["rows"], 4);
    let expected = [
        ("incoming/ann/log.tsv", 5, "seconds is not an integer from 0 on"),
        ("incoming/ann/log.tsv", 6, "2 fields, and field 7 is read"),
    ];
    assert_eq!(rejected(&answer), expected);
    assert_eq!(answer["rejected"], json!({ "seconds": 1, "width": 1 }));
    let reference =
        json!({ "reference": "listeners", "file": "listeners.tsv", "keys": 2, "rows_found": 3, "remarks": [] });
    assert_eq!(answer["references"], json!([reference]));
    let first = json!({
        "listener": "ann", "artist": "Mira", "title": "Rain", "song": "Mira – Rain", "seconds": 200,
        "played_at": "2021-03-28T09:53:58Z", "country": "Peru", "source_key": "incoming/ann/log.tsv",
    });
    assert_eq!(answer["first_rows"][0], first);
    assert_eq!(answer["first_rows"][3]["country"], Value::Null);
    let songs = json!([
        {
            "song": "Mira – Rain", "report_date": "2021-03-28", "plays": 3, "listeners": 2, "minutes": 330,
            "artist": "Mira", "title": "Rain",
        },
        {
            "song": "Oto – Noon", "report_date": "2021-03-29", "plays": 1, "listeners": 1, "minutes": 131,
            "artist": "Oto", "title": "Noon",
        },
    ]);
    let countries = json!([
        { "country": "Peru", "report_date": "2021-03-28", "plays": 2 },
        { "country": "unknown", "report_date": "2021-03-28", "plays": 1 },
        { "country": "Peru", "report_date": "2021-03-29", "plays": 1 },
    ]);
    assert_eq!(items(&answer), [&songs, &countries]);
}

/// Names of columns in a comment, which change on the way; gzip; a part of the key by its name.
#[test]
fn a_log_whose_columns_change() {
    let log = "#Version: 1.0\n#Fields: date time cs-uri-stem sc-status sc-bytes time-taken\n\
               2026-03-01 08:59:59 /a 200 500 0.25\n2026-03-01 08:00:00 /a 503 - 1\n\
               2026-03-01 09:00:00 /a 200 100 0.0005\n#Fields: time-taken time date sc-status cs-uri-stem\n\
               2.125 09:30:00 2026-03-01 404 /b\n";
    let files: &Files<'_> = &[("requests.toml", REQUESTS.as_bytes()), ("log.gz", &gzip(log))];
    let answer = tried(files, &["requests.toml", "log.gz", "--key", "site=shop.example/log.gz"]);
    let file = &answer["files"][0];
    assert_eq!(
        (&file["format"], &file["compression"], &file["key"]),
        (&json!("a W3C log"), &json!("gzip"), &json!("incoming/site=shop.example/log.gz"))
    );
    assert_eq!(file["columns"], json!(["date", "time", "cs-uri-stem", "sc-status", "sc-bytes", "time-taken"]));
    let expected = [("incoming/site=shop.example/log.gz", 5, "seconds has more than 3 decimal places")];
    assert_eq!(rejected(&answer), expected);
    let paths = json!([
        {
            "path": "/a", "report_hour": "2026-03-01T08", "requests": 2, "failures": 1, "bytes": 500, "slowest": 1,
        },
        {
            "path": "/b", "report_hour": "2026-03-01T09", "requests": 1, "failures": 0, "bytes": 0, "slowest": 2.125,
        },
    ]);
    let sites = json!([{ "site": "shop.example", "report_date": "2026-03-01", "requests": 3, "not_found": 1 }]);
    let shown: Vec<Value> = items(&answer).into_iter().map(without_rows).collect();
    assert_eq!(shown, [paths, sites]);
}

/// The items without the number of rows, which an item has if no measure is that.
fn without_rows(items: &Value) -> Value {
    let mut items = items.clone();
    for item in items.as_array_mut().unwrap() {
        item.as_object_mut().unwrap().remove("applied_rows");
    }
    items
}

/// Documents with lists of records; times in milliseconds; days of another zone; rows that are not meant.
#[test]
fn documents_of_readings() {
    let document = r#"{"sent":1,"readings":[
        {"meta":{"sent":1772302499999,"sensor":"s1"},"celsius":-3.5},
        {"meta":{"sent":1772302500000,"sensor":"s1","test":false},"celsius":"4","humidity":40.0},
        {"meta":{"sent":1772302500000,"sensor":"s1","test":true},"celsius":"hot"},
        {"meta":{"sent":1772302600000,"sensor":"s1"},"celsius":4.25},
        {"meta":{"sent":1772302600000,"sensor":"s1"},"celsius":61}]}{"readings":[]}"#;
    let files: &Files<'_> = &[("readings.toml", READINGS.as_bytes()), ("a.json", document.as_bytes())];
    let answer = tried(files, &["readings.toml", "a.json"]);
    assert_eq!((&answer["rows"], &answer["files"][0]["passed_over"]), (&json!(2), &json!(1)));
    let expected = [
        ("incoming/a.json", 5, "celsius has more than 1 decimal place"),
        ("incoming/a.json", 6, "celsius is not a decimal number from -90 to 60"),
    ];
    assert_eq!(rejected(&answer), expected);
    // Midnight of Kathmandu is 18:15 of UTC.
    let sensors = json!([
        {
            "sensor": "s1", "report_date": "2026-03-01", "readings": 1, "coldest": 4, "warmest": 4,
            "sum_of_celsius": 4, "average": 4,
        },
        {
            "sensor": "s1", "report_date": "2026-02-28", "readings": 1, "coldest": -3.5, "warmest": -3.5,
            "sum_of_celsius": -3.5, "average": -3.5,
        },
    ]);
    assert_eq!(items(&answer), [&sensors]);
}

/// Of a list in one line each rejected record is told by its number, and what is no object is rejected alone.
#[test]
fn a_list_with_values_that_are_no_objects() {
    let definition = LEAST.replace("\"csv\"", "\"json\"");
    let good = r#"{"at":"2026-03-01T00:00:00Z","id":"a"}"#;
    let list = format!("[{good},null,{good},7,{{\"at\":\"2026-03-01T00:00:00Z\"}},\"x\",{good}]");
    let lines = format!("{good}\nnull\n{good}\n{good} 5 {{}}\n{good}\n");
    let document = format!("{{\"Records\":[null,{good},1]}}");
    let no_object = "the record is not an object";
    for (text, rows, expected) in [
        (&list, 3, vec![(1, 2, no_object), (1, 4, no_object), (1, 5, "id is empty"), (1, 6, no_object)]),
        (&lines, 4, vec![(2, 2, no_object), (4, 5, no_object), (4, 6, "at is empty")]),
        (&document, 1, vec![(1, 1, no_object), (1, 3, no_object)]),
    ] {
        let definition = match text == &document {
            true => definition.replace("\"json\"", "\"json\"\nrecords = \"Records\""),
            false => definition.clone(),
        };
        let files: &Files<'_> = &[("j.toml", definition.as_bytes()), ("a.json", text.as_bytes())];
        let answer = tried(files, &["j.toml", "a.json"]);
        assert_eq!(answer["rows"], rows, "{answer:#}");
        let rejected = answer["rejected_rows"].as_array().unwrap().iter();
        let number = |row: &Value, name: &str| row[name].as_u64().unwrap();
        let rejected: Vec<_> =
            rejected.map(|row| (number(row, "line"), number(row, "record"), row["reason"].as_str().unwrap())).collect();
        assert_eq!(rejected, expected);
    }
    let files: &Files<'_> = &[("j.toml", definition.as_bytes()), ("a.json", list.as_bytes())];
    let output = run(files, &["j.toml", "a.json"]);
    assert!(said(&output).0.contains("  line 1, record 4: the record is not an object\n    7\n"), "{output:?}");
}

/// A time that clocks left out is told as such, and one that they showed twice is the first of the two.
#[test]
fn local_times_when_clocks_are_changed() {
    for format in ["iso", "%Y-%m-%d %H:%M:%S"] {
        let time = format!("{{ type = \"time\", zone = \"Europe/Lisbon\", format = \"{format}\" }}");
        let definition = LEAST.replacen("at = \"time\"", &format!("at = {time}"), 1);
        let rows = "at,id\n2026-03-29 01:30:00,a\n2026-10-25 01:30:00,b\nnoon,c\n";
        let definition = definition.replace("[input]", "future = \"366d\"\n[input]");
        let files: &Files<'_> = &[("z.toml", definition.as_bytes()), ("a.csv", rows.as_bytes())];
        let answer = tried(files, &["z.toml", "a.csv"]);
        assert_eq!(answer["first_rows"][0]["at"], "2026-10-25T00:30:00Z", "{answer:#}");
        let [(_, 2, skipped), (_, 4, other)] = rejected(&answer)[..] else { panic!("{answer:#}") };
        assert_eq!(skipped, "at is a time that its zone does not have: clocks were put forward past it");
        assert!(other.starts_with("at is not a time like "), "{other}");
    }
}

/// A folder of data may have the files that are looked up in it, as a bucket has.
#[test]
fn references_may_be_in_the_folder_of_data() {
    let definition = LEAST.replace(
        "[reports.ids]",
        "[references.names]\nfile = \"n.csv\"\nkey = \"id\"\n\
        [references.names.columns]\nname = \"text\"\n[reports.ids]",
    );
    let files: &Files<'_> = &[
        ("r.toml", definition.as_bytes()),
        ("data/a.csv", b"at,id\n2026-03-01T00:00:00Z,a\n"),
        ("data/reference/n.csv", b"id,name\na,Ann\n"),
        ("other/n.csv", b"id,name\na,Bo\n"),
    ];
    let answer = tried(files, &["r.toml", "data"]);
    assert_eq!((&answer["first_rows"][0]["name"], answer["files"].as_array().unwrap().len()), (&json!("Ann"), 1));
    // What is said counts.
    let answer = tried(&[files, &[("reference/n.csv", b"id,name\na,Cy\n")]].concat(), &["r.toml", "data/a.csv"]);
    assert_eq!(answer["first_rows"][0]["name"], "Cy");
    let answer = tried(files, &["r.toml", "data/a.csv", "--reference", "other"]);
    assert_eq!(answer["first_rows"][0]["name"], "Bo");
}

/// Quotes, comments, texts for no value, zstd; a reference with several values of a key, and a line that is not used.
#[test]
fn rides_with_a_reference_of_several_lines() {
    let rides = "# hired\nride_id;Day;Time;bike_id;rider_id;city;station;metres;balance;fare;status\n\
                 r1;01.03.2026;00:30:00;7;ann;Lisboa;'Rossio; north';12000;-1;2.50;done\n\
                 r2;01.03.2026;00:45:00;7;NULL;Lisboa;'Rossio; north';12345;0;1.5;cancelled\n\
                 r3;01.03.2026;12:00:00;8;bo;Porto;São Bento;500;0;999;done\n\
                 r4;01.03.2026;12:00:00;8;bo;Porto;São Bento;500;0;1;lost\n\
                 r5;31.02.2026;12:00:00;8;bo;Porto;São Bento;500;0;1;done\n\
                 r6;01.03.2026;12:00:00;8;bo;Porto;São Bento;10000;0;0;done\n";
    let bikes = "number,model,tags,price\n7,City,red|fast,100.00\n7,Other,red|old,\n9,Cargo,big,x\n";
    let files: &Files<'_> = &[
        ("rides.toml", GOOD.as_bytes()),
        ("rides.csv.zst", &zstd::bulk::compress(rides.as_bytes(), 3).unwrap()),
        ("lookup/bikes.csv.gz", &gzip(bikes)),
    ];
    // Neither the definition nor the references are data.
    let answer = tried(files, &["rides.toml", ".", "--reference", "lookup"]);
    assert_eq!(answer["files"][0]["compression"], "zstd");
    assert_eq!((&answer["rows"], &answer["files"][0]["passed_over"]), (&json!(3), &json!(2)));
    let rejected = rejected(&answer);
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0].1, 7);
    let reference = &answer["references"][0];
    assert_eq!((&reference["keys"], &reference["rows_found"]), (&json!(1), &json!(2)));
    assert_eq!(reference["remarks"].as_array().unwrap().len(), 1);
    let bikes = json!([
        {
            "bike_id": "7", "report_date": "2026-03-01", "rides": 2, "riders": 1, "kilometres": 24.345, "fares": 2.5,
            "longest": 12345, "fare_per_ride": 1.25, "model": "City", "tags": "fast|old|red", "city": "Lisboa",
        },
        {
            "bike_id": "8", "report_date": "2026-03-01", "rides": 1, "riders": 1, "kilometres": 10, "fares": 0,
            "longest": 10000, "fare_per_ride": 0, "model": "unknown", "tags": "none", "city": "Porto",
        },
    ]);
    let places = json!([
        {
            "place": "Lisboa, Rossio; north", "report_hour": "2026-03-01T00", "rides": 2,
            "first_ride": "2026-03-01T00:30:00Z", "last_ride": "2026-03-01T00:45:00Z",
        },
        {
            "place": "Porto, São Bento", "report_hour": "2026-03-01T12", "rides": 1,
            "first_ride": "2026-03-01T12:00:00Z", "last_ride": "2026-03-01T12:00:00Z",
        },
    ]);
    let of_tag =
        |tag: &str, longest| json!({ "tags": tag, "report_date": "2026-03-01", "rides": 1, "longest": longest });
    let tags = json!([of_tag("fast", 12345), of_tag("old", 12345), of_tag("red", 12345), of_tag("none", 10000)]);
    let totals = json!([{
        "all": "*", "report_date": "2026-03-01", "rides": 3, "guests": 1, "long_rides": 2, "long_share": 0.6667,
    }]);
    let shown: Vec<Value> = items(&answer).into_iter().map(without_rows).collect();
    assert_eq!(shown, [bikes, places, tags, totals]);
}

/// A list of objects; the built-in definition's shape; the rows that are asked for.
#[test]
fn only_so_many_are_shown_as_are_asked_for() {
    let rows: String = (1..=30).map(|user| format!("{user},t{},2024-06-25 00:00:00\n{user},t\n", user % 3)).collect();
    let shown = Command::new(env!("CARGO_BIN_EXE_music-streams")).args(["definition", "show"]).output().unwrap();
    let listens = format!("user_id,track_id,listen_time\n{rows}");
    let files: &Files<'_> = &[
        ("m.toml", &shown.stdout),
        ("a.csv", listens.as_bytes()),
        ("reference/songs.csv", b"track_id,track_name,artists,track_genre,duration_ms\nt0,A,X,pop,1500\n"),
        ("reference/users.csv", b"user_id,user_country\n1,Peru\n"),
    ];
    let answer = tried(files, &["m.toml", "a.csv", "--rows", "2"]);
    let lengths = |of: &Value| of.as_array().unwrap().len();
    assert_eq!((lengths(&answer["first_rows"]), lengths(&answer["rejected_rows"])), (2, 2));
    assert_eq!((&answer["rows"], &answer["rejected"]), (&json!(30), &json!({ "width": 30 })));
    let counts: Vec<_> = answer["reports"].as_array().unwrap().iter().map(|it| it["items"].as_u64().unwrap()).collect();
    assert_eq!(counts, [3, 2, 30, 2, 2, 1, 1]);
    let tracks = json!({
        "track_id": "t0", "report_date": "2024-06-25", "total_listens": 10, "unique_users": 10,
        "total_listening_time": 15, "avg_listening_time_per_user": 1.5, "track_name": "A", "artists": "X",
        "track_genre": "pop",
    });
    let genres: Vec<_> =
        items(&answer)[1].as_array().unwrap().iter().map(|it| it["track_genre"].as_str().unwrap()).collect();
    assert_eq!((&items(&answer)[0][0], genres), (&tracks, vec!["unknown", "pop"]));
    let answer = tried(files, &["m.toml", "a.csv", "--rows", "0"]);
    assert_eq!((lengths(&answer["first_rows"]), &answer["reports"][0]["first"]), (0, &json!([])));
}

/// The least definition of lines with a time and an id.
const LEAST: &str = "name = \"x\"\ntime = \"at\"\n[input]\nformat = \"csv\"\n[columns]\nat = \"time\"\nid = \"id\"\n\
                     note = { type = \"text\", optional = true }\n[reports.ids]\nkey = \"id\"\n\
                     [reports.ids.measures]\nrows = \"count\"\n";

/// The message of a trial that fails, without the program's name.
fn refused(files: &Files<'_>, arguments: &[&str]) -> String {
    let files = [files, &[("x.toml", LEAST.as_bytes())]].concat();
    let output = run(&files, arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    said(&output).1.strip_prefix("music-streams: ").unwrap().trim_end().to_owned()
}

#[test]
fn what_cannot_be_tried_is_said() {
    let data: &Files<'_> = &[("a.csv", b"at,id\n2026-03-01T00:00:00Z,a\n")];
    assert_eq!(refused(&[], &["x.toml", "none.csv"]), "none.csv is not there");
    assert_eq!(refused(&[("f/.a", b"")], &["x.toml", "f"]), "there is no file in the folder f");
    assert_eq!(
        refused(&[("f/a", b""), ("f/b", b"")], &["x.toml", "f", "--key", "k"]),
        "--key is the key of one file, and there are 2 files"
    );
    let expected = "none.toml cannot be read: No such file or directory (os error 2)";
    assert_eq!(refused(data, &["none.toml", "a.csv"]), expected);
    let two = LEAST.replace("\"csv\"", "\"cvs\"").replace("key = \"id\"", "key = \"ib\"");
    let message = refused(&[("two.toml", two.as_bytes()), data[0]], &["two.toml", "a.csv"]);
    let marked = message.lines().filter(|line| line.trim_start_matches([' ', '|']).starts_with('^')).count();
    assert!(message.contains("two.toml:4:") && message.contains("two.toml:10:") && marked == 2, "{message}");
}

#[test]
fn references_that_cannot_be_used_are_said() {
    let definition = LEAST.replace(
        "[reports.ids]",
        "[references.names]\nfile = \"n.csv\"\nkey = \"id\"\n\
        [references.names.columns]\nname = \"text\"\n[reports.ids]",
    );
    let with = |reference: Option<&[u8]>| {
        let mut files: Vec<(&str, &[u8])> = vec![("r.toml", definition.as_bytes()), ("a.csv", b"at,id\n")];
        files.extend(reference.map(|bytes| ("reference/n.csv", bytes)));
        refused(&files, &["r.toml", "a.csv"])
    };
    let expected = "reference/n.csv is not there, and the definition looks it up as 'names'; put it there, or name the \
                    folder that has it: --reference FOLDER";
    assert_eq!(with(None), expected);
    let message = with(Some(b"id,title\na,A\n"));
    assert!(
        message.starts_with("reference: reference/n.csv cannot be used: the header lacks the column name"),
        "{message}"
    );
    let message = with(Some(b"id,name\na,\nb c,B\n"));
    let parts = ["none of its 2 lines can be used", "line 2 is not used: ", "line 3 is not used: "];
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
}

/// A file that cannot be counted leaves the others alone, and is no part of any figure.
#[test]
fn bad_files_are_named_and_the_others_shown() {
    let good = b"at,id,note\n2026-03-01T00:00:00Z,a,\n";
    let cut = gzip(&"at,id,note\n2026-03-01T00:00:00Z,b,\n".repeat(3));
    let files: &Files<'_> = &[
        ("x.toml", LEAST.as_bytes()),
        ("d/a.csv", good),
        ("d/b.csv", b""),
        ("d/c.csv.gz", &cut[..cut.len() - 12]),
        ("d/d.csv", b"PAR1\x15\x04"),
        ("d/e.csv", b"when,id,note\n2026-03-01T00:00:00Z,b,\n"),
        ("d/f.csv", b"at,id,note\n2026-03-01T00:00:00Z,b,\"x\n"),
    ];
    let output = run(files, &["x.toml", "d", "--format", "json"]);
    assert_eq!((output.status.code(), said(&output).1), (Some(1), "music-streams: 5 of 6 files cannot be counted\n"));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let problems: Vec<_> = answer["files"].as_array().unwrap().iter().map(|file| file["problem"].as_str()).collect();
    assert_eq!(problems[0], None);
    let parts = ["empty", "gzip stream is cut off", "Parquet", "lacks the column at", "ends within the quotes"];
    for (problem, part) in problems[1..].iter().zip(parts) {
        assert!(problem.unwrap().contains(part), "{problem:?} {part}");
    }
    assert_eq!(answer["rows"], 1);
    assert_eq!(answer["columns_without_values"], json!(["note"]));
    let text = run(files, &["x.toml", "d"]);
    assert!(said(&text).0.contains("d/b.csv cannot be counted: "), "{text:?}");
}

/// Rows of a file may be used before its end shows that it is bad. All is then read again without it.
#[test]
fn a_large_file_that_turns_out_bad_leaves_nothing() {
    let rows = "2026-03-01T00:00:00Z,a,\n".repeat(1_500_000);
    let bad = format!("at,id,note\n{rows}2026-03-01T00:00:00Z,a,\"x\n");
    let files: &Files<'_> = &[
        ("x.toml", LEAST.as_bytes()),
        ("d/a.csv", b"at,id,note\n2026-03-01T00:00:00Z,b,\n"),
        ("d/b.csv", bad.as_bytes()),
        ("d/c.csv", b"at,id,note\n2026-03-01T00:00:00Z,c,\n"),
    ];
    let output = run(files, &["x.toml", "d", "--format", "json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &answer["rows"]), (Some(1), &json!(2)));
    let ids: Vec<_> = items(&answer)[0].as_array().unwrap().iter().map(|item| &item["id"]).collect();
    assert_eq!(ids, ["b", "c"]);
}

/// Whatever is in the files, lines have at most 120 columns and nothing that a terminal would obey.
#[test]
fn the_answer_for_people_is_safe_and_narrow() {
    let columns: Vec<String> = (0..60).map(|it| format!("quite_long_name_of_column_{it}")).collect();
    let mut definition = LEAST.replace("note", "title");
    for name in &columns {
        definition = definition.replace("[reports.ids]", &format!("{name} = \"text\"\n[reports.ids]"));
    }
    definition = definition
        .replace("key = \"id\"", "key = \"title\"")
        .replace("optional = true }", "unknown = \"-\", optional = true }");
    let wide = "語\u{1b}[31m\u{202e}".repeat(60);
    let row = format!("2026-03-01T00:00:00Z,a,{wide}{}\n", format!(",{wide}").repeat(60));
    let text = format!("at,id,title,{}\n{}x,y\n", columns.join(","), row.repeat(7));
    let name = format!("d/{}.csv", "n".repeat(150));
    let escapes = "\u{1b}[2J".repeat(90);
    let files: &Files<'_> =
        &[("x.toml", definition.as_bytes()), (&name, text.as_bytes()), ("d/b.csv", escapes.as_bytes())];
    let output = run(files, &["x.toml", "d", "--rows", "7"]);
    let (text, _) = said(&output);
    let widest = text.lines().max_by_key(|line| line.width()).unwrap();
    assert!(widest.width() <= 120, "{} columns: {widest}", widest.width());
    assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
    assert!(text.contains("quite_long_name_of_column_59") && text.contains("語"), "{text}");
}

/// Held by whoever reads the documentation and may write it anew.
pub static DOCUMENTATION: Mutex<()> = Mutex::new(());

/// The blocks of the documentation between fences, from a heading to the next one: their places in the text.
pub fn blocks(text: &str, heading: &str) -> Vec<std::ops::Range<usize>> {
    let start = text.find(heading).unwrap();
    let end = text[start + 1..].find("\n## ").map_or(text.len(), |end| start + 1 + end);
    let fences: Vec<usize> = text[start..end].match_indices("\n```").map(|(at, _)| start + at + 1).collect();
    let line_end = |at: usize| at + text[at..].find('\n').unwrap() + 1;
    fences.chunks(2).map(|fence| line_end(fence[0])..fence[1]).collect()
}

/// The first steps of the documentation, taken: its files, and what it shows of them. UPDATE_DOCUMENTS writes that
/// anew.
#[test]
fn the_documentation_shows_what_is_said() {
    let _alone = DOCUMENTATION.lock();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/definition.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let blocks = blocks(&text, "## In ten minutes");
    let [plays, first, first_answer, listeners, second, second_answer, problems] = &blocks[..] else {
        panic!("{} blocks", blocks.len());
    };
    let broken = text[second.clone()].replace("distinct = \"listener\" }\n\n", "distinct = \"listner\" }\n\n");
    let broken = broken.replace("divide = 1000", "divide = 60");
    let answer = |definition: &str| {
        let files: &Files<'_> = &[
            ("radio.toml", definition.as_bytes()),
            ("plays.csv", text[plays.clone()].as_bytes()),
            ("reference/listeners.csv", text[listeners.clone()].as_bytes()),
        ];
        let output = run(files, &["radio.toml", "plays.csv"]);
        let (answer, problems) = said(&output);
        format!("{answer}{}", problems.strip_prefix("music-streams: ").unwrap_or(problems))
    };
    let shown = [
        (first_answer, answer(&text[first.clone()])),
        (second_answer, answer(&text[second.clone()])),
        (problems, answer(&broken)),
    ];
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        let mut updated = text.clone();
        shown.iter().rev().for_each(|(block, answer)| updated.replace_range((*block).clone(), answer));
        std::fs::write(&path, updated).unwrap();
        return;
    }
    for (block, answer) in shown {
        assert_eq!(text[block.clone()], answer);
    }
}

/// No bytes make the program panic: it answers, or says what is wrong.
#[test]
fn damaged_files_are_answered() {
    let log =
        gzip("#Fields: date time cs-uri-stem sc-status sc-bytes time-taken\n2026-03-01 08:59:59 /a 200 500 0.25\n");
    let samples: [(&str, &[u8]); 4] = [
        (PLAYS, b"Mira\tDays\tRain\t1\t200\tL\t1616925238\n"),
        (REQUESTS, &log),
        (READINGS, br#"{"readings":[{"meta":{"sent":1772302499999,"sensor":"s1"},"celsius":-3.5}]}"#),
        (LEAST, b"at,id,note\n2026-03-01T00:00:00Z,a,\"x\"\n"),
    ];
    for (index, (definition, sample)) in samples.iter().enumerate() {
        let mut files = vec![
            ("x.toml".to_owned(), definition.as_bytes().to_vec()),
            ("reference/listeners.tsv".to_owned(), b"ann\tPeru\n".to_vec()),
        ];
        for at in 0..sample.len() {
            let (mut changed, key) = (sample.to_vec(), format!("d/site=a/{at:03}"));
            changed[at] = [0, 0xff, b'"', b'\n', b'{'][(at + index) % 5];
            files.push((format!("{key}-changed"), changed));
            files.push((format!("{key}-cut"), sample[..at].to_vec()));
        }
        let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        for format in ["table", "json"] {
            let output = run(&files, &["x.toml", "d", "--format", format]);
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            assert!(said(&output).1.ends_with(" files cannot be counted\n"), "{output:?}");
        }
    }
}
