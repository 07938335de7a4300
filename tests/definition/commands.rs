//! `music-streams definition` as people and programs run it, without AWS.

use std::path::Path;
use std::process::{Command, Output};

use music_streams::definition::Definition;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::rules::GOOD;
use crate::written::{EXAMPLES, good};

/// Runs the program in a folder with these files.
fn run(files: &[(&str, &str)], arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_music-streams"));
    command.arg("definition").args(arguments).current_dir(folder.path()).env_clear().output().unwrap()
}

fn said(output: &Output) -> (&str, &str) {
    let text = |bytes| std::str::from_utf8(bytes).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_good_definition_is_summed_up() {
    let output = run(&[("rides.toml", GOOD)], &["check", "rides.toml"]);
    assert!(output.status.success());
    let digest = good(GOOD).digest();
    let expected = format!("rides.toml is good: 11 columns, 1 reference, 4 reports\ndigest {digest}\n");
    assert_eq!(said(&output), (&*expected, ""));

    let output = run(&[("rides.toml", GOOD)], &["check", "rides.toml", "--format", "json"]);
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer, serde_json::json!({ "problems": [], "digest": digest }));
}

#[test]
fn problems_are_printed_with_their_lines() {
    let broken = GOOD.replace("\"rider_id\" }", "\"ride\u{7}\" }").replace("every = \"hour\"", "every = \"week\"");
    let output = run(&[("broken.toml", &broken)], &["check", "broken.toml"]);
    assert_eq!(output.status.code(), Some(1));
    let (stdout, stderr) = said(&output);
    assert_eq!(stderr, "music-streams: broken.toml has 1 problem\n");
    assert!(stdout.starts_with("broken.toml:48:28: this is no TOML: "), "{stdout}");
    // What a terminal would obey is made visible.
    assert!(stdout.contains("riders = { distinct = \"ride\u{fffd}\" }") && !stdout.contains('\u{7}'), "{stdout}");

    let broken = GOOD.replace("every = \"hour\"", "every = \"week\"").replace("keep = 20", "keep = 0");
    let output = run(&[("broken.toml", &broken)], &["check", "broken.toml", "--format", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let (stdout, stderr) = said(&output);
    assert_eq!(stderr, "music-streams: broken.toml has 2 problems\n");
    let answer: Value = serde_json::from_str(stdout).unwrap();
    let expected = serde_json::json!({ "problems": [
        {
            "line": 45, "column": 48, "message": "'keep' takes a whole number from 1 to 1000",
            "text": "top = { by = \"rides\", under = [\"tags\"], keep = 0 }",
        },
        {
            "line": 56, "column": 10, "message": "'every' takes \"day\" or \"hour\", not 'week'",
            "text": "every = \"week\"",
        },
    ] });
    assert_eq!(answer, expected);
}

#[test]
fn what_cannot_be_read_is_no_definition() {
    let output = run(&[], &["check", "none.toml"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = "music-streams: none.toml cannot be read: No such file or directory (os error 2)\n";
    assert_eq!(said(&output), ("", expected));
    let large = "#".repeat(100_000);
    let output = run(&[("large.toml", &large)], &["check", "large.toml"]);
    assert!(said(&output).0.starts_with("large.toml:1:1: a definition has at most 65536 bytes"), "{output:?}");
}

#[test]
fn changes_are_shown_with_their_meaning() {
    let check =
        |text: &str| run(&[("new.toml", text), ("old.toml", GOOD)], &["check", "new.toml", "--against", "old.toml"]);
    let output = check(GOOD);
    assert!(output.status.success());
    assert!(said(&output).0.ends_with("\nit means the same as the other one\n"), "{output:?}");

    let output = check(&GOOD.replace("keep = 20", "keep = 20, ").replace("future = \"2h\"", "future = \"3h\""));
    assert!(output.status.success(), "{output:?}");
    assert!(said(&output).0.contains("compatible"), "{output:?}");

    let output = check(&GOOD.replace("divide = 1000", "divide = 100"));
    assert_eq!(output.status.code(), Some(1));
    let (stdout, stderr) = said(&output);
    let row = stdout.lines().last().unwrap().split("  ").map(str::trim).filter(|cell| !cell.is_empty());
    let expected =
        ["reports.bikes.measures.kilometres", "refused", "it means something else now; give it another name"];
    assert_eq!(row.collect::<Vec<_>>(), expected);
    assert_eq!(stderr, "music-streams: 1 of the changes cannot be made\n");
}

/// What is shown has the digest that is named.
#[test]
fn a_definition_is_shown_as_its_digest_is_made() {
    let shown = run(&[("rides.toml", GOOD)], &["show", "rides.toml"]);
    assert_eq!(format!("{:x}", Sha256::digest(&shown.stdout)), good(GOOD).digest());
    let shown = run(&[], &["show"]);
    assert!(shown.status.success());
    assert_eq!(Some(format!("{:x}", Sha256::digest(&shown.stdout))), Definition::built_in().ok().map(|it| it.digest()));
    let broken = run(&[("rides.toml", "x = 1")], &["show", "rides.toml"]);
    assert_eq!((broken.status.code(), said(&broken).0), (Some(1), ""));
    assert!(said(&broken).1.starts_with("music-streams: rides.toml:1:1: "), "{broken:?}");
}

/// The parts of TOML files that a schema, read by the library of Python, finds wrong; `good` if there are none.
fn held_against_the_schema(files: &[String]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(root.join(".tools/stack/bin/python"));
    let schema = folder.path().join("schema.json");
    let served = run(&[], &["schema"]);
    assert!(served.status.success());
    std::fs::write(&schema, served.stdout).unwrap();
    command.arg(root.join("tests/definition/schema.py")).arg(schema);
    for (index, text) in files.iter().enumerate() {
        let path = folder.path().join(index.to_string());
        std::fs::write(&path, text).unwrap();
        command.arg(path);
    }
    let output = command.output().expect("`make test` installs the library");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// What the parser takes, the schema takes.
#[test]
fn the_schema_takes_good_definitions() {
    let mut texts: Vec<String> = EXAMPLES.iter().map(|(_, text)| (*text).to_owned()).collect();
    texts.push(Definition::built_in().unwrap_or_else(|it| panic!("{it:?}")).canonical());
    texts.extend(EXAMPLES.iter().map(|(_, text)| good(text).canonical()));
    assert_eq!(held_against_the_schema(&texts), vec!["good"; texts.len()]);
}

/// What is wrong in the form of one value, the schema finds too, and there.
#[test]
fn the_schema_finds_what_has_a_wrong_form() {
    let wrong = [
        ("name = \"rides\"", "name = \"My Rides\"", "name"),
        ("name = \"rides\"\n", "", "the top"),
        ("format = \"csv\"", "format = \"cvs\"", "input input.format"),
        ("format = \"csv\"", "format = \"json\"", "input"),
        ("comment = \"#\"", "comment = 1", "input.comment"),
        ("delimiter = \";\"", "delimeter = \";\"", "input"),
        ("balance  = \"integer\"", "balance  = \"decimal\"", "columns.balance"),
        ("balance  = \"integer\"", "balance  = \"float\"", "columns.balance"),
        ("ride_id  = \"id\"", "Ride-ID  = \"id\"", "columns"),
        ("every = \"hour\"", "every = \"week\"", "reports.places.every"),
        ("keep = 20", "keep = 5000", "reports.bikes.top.keep"),
        ("divide = 1000", "divide = 60", "reports.bikes.measures.kilometres"),
        ("max = \"metres\" }\nfare", "max = \"metres\", min = \"metres\" }\nfare", "reports.bikes.measures.longest"),
        ("fare = { max = 500 }", "fare = { max = \"500\" }", "where.fare"),
        ("many = \"|\"", "many = \"||\"", "references.bikes.columns.tags"),
    ];
    let texts: Vec<String> = wrong
        .iter()
        .map(|(find, write, _)| {
            assert_eq!(GOOD.matches(find).count(), 1, "{find}");
            GOOD.replace(find, write)
        })
        .collect();
    assert_eq!(held_against_the_schema(&texts), wrong.map(|(_, _, at)| at));
}
