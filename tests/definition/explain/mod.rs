//! `music-streams definition explain`: its words, and its SQL held against the figures.

mod batch;
mod rows;
mod sql;

use std::process::{Command, Output};

use music_streams::definition::Definition;
use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr;

use crate::trial::{DOCUMENTATION, blocks};
use crate::written::EXAMPLES;

/// Runs the program in a folder with these files.
fn run(files: &[(&str, String)], arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_music-streams"));
    command.args(["definition", "explain"]).args(arguments).current_dir(folder.path()).env_clear().output().unwrap()
}

fn explained(text: &str, arguments: &[&str]) -> String {
    let output = run(&[("x.toml", text.to_owned())], &[&["x.toml"], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The whole answer for people, of the example with the most in it.
#[test]
fn a_definition_is_explained() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/definition/examples/rides.txt");
    let answer = explained(EXAMPLES[0].1, &["--curated", "/data/curated/"]);
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        std::fs::write(&path, &answer).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), answer);
}

#[test]
fn the_answer_for_programs_has_all_of_it() {
    let answer: Value = serde_json::from_str(&explained(EXAMPLES[0].1, &["--format", "json"])).unwrap();
    let column = json!({
        "column": "fare", "type": "decimal of 2 places from 0 to 999.99", "from": "fare",
        "curated": "DECIMAL(18, 2)", "without_value": "row passed over",
    });
    assert!(answer["columns"].as_array().unwrap().contains(&column), "{answer:#}");
    let report = &answer["reports"][0];
    assert_eq!(report["top_lists"], json!({ "by": "rides", "entries": 20, "lists": ["of all items", "of each tags"] }));
    assert_eq!((&report["partition_key"], &report["sort_key"]), (&json!("bike_id"), &json!("report_date")));
    assert_eq!(answer["reports"][1]["sort_key"], "report_hour");
    let measure = json!({ "attribute": "fares", "meaning": "the sum of fare, where status is 'done'" });
    assert!(report["measures"].as_array().unwrap().contains(&measure), "{report:#}");
    assert_eq!(answer["sorts"], json!([{ "pairs": "bike_id with rider_id", "counts": ["riders of bikes"] }]));
    let typical = report["typical_item"]["bytes"].as_u64().unwrap();
    assert!((500..1024).contains(&typical), "{typical}");
    assert_eq!(report["typical_item"]["write_units"], 1);
}

/// Without a file it is the built-in definition, whose sketch of 8 KiB is most of its largest items.
#[test]
fn the_built_in_definition_is_explained() {
    let output = run(&[], &["--format", "json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["definition"], "music");
    let genres = &answer["reports"][1];
    let largest = genres["largest_item"]["bytes"].as_u64().unwrap();
    assert!((8192..12_000).contains(&largest), "{largest}");
    assert!(genres["sql"].as_str().unwrap().contains("'s3://BUCKET/curated/report_date=*/*.parquet'"));
    // Pairs of one sort are counted from both sides.
    assert_eq!(answer["sorts"].as_array().unwrap().len(), 1);
}

/// The documentation shows the SQL of a report of its own example. UPDATE_DOCUMENTS writes it anew.
#[test]
fn the_documentation_shows_the_sql() {
    let _alone = DOCUMENTATION.lock();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/definition.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let definition = blocks(&text, "## In ten minutes")[4].clone();
    let answer: Value = serde_json::from_str(&explained(&text[definition], &["--format", "json"])).unwrap();
    let sql = format!("{}\n", answer["reports"][0]["sql"].as_str().unwrap());
    let [shown] = &blocks(&text, "## Explained, and as SQL")[..] else { panic!("one block") };
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        let mut updated = text.clone();
        updated.replace_range(shown.clone(), &sql);
        std::fs::write(&path, updated).unwrap();
        return;
    }
    assert_eq!(text[shown.clone()], sql);
}

#[test]
fn a_definition_with_problems_is_not_explained() {
    let output = run(&[("x.toml", "x = 1".to_owned())], &["x.toml"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("music-streams: x.toml:1:1: "), "{output:?}");
}

/// Lines are narrow but for those of the SQL, and nothing in them is obeyed by a terminal.
#[test]
fn the_answer_for_people_is_safe() {
    let text = EXAMPLES[0].1.replace("\"guest\"", "\"gu\\u001b[31mest\\u202e\"").replace("\"done\"", "\"do'ne\"");
    assert!(Definition::parse(text.as_bytes()).is_ok());
    let answer = explained(&text, &[]);
    assert!(!answer.contains(['\u{1b}', '\u{202e}']), "{answer}");
    assert!(answer.contains("'do''ne'"), "{answer}");
    let (words, _) = answer.split_once("The reports as SQL").unwrap();
    let widest = words.lines().max_by_key(|line| line.width()).unwrap();
    assert!(widest.width() <= 120, "{widest}");
}
