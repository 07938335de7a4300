//! The reference of definitions: keys, limits and errors, from the tables and the tests of the parser.

use std::fmt::Write;

use music_streams::definition::Definition;
use music_streams::definition::columns::MAX_VALUE_BYTES;
use music_streams::definition::keys::SECTIONS;
use music_streams::definition::keys::limits;
use music_streams::definition::keys::shape::{Missing, Section, Shape};
use music_streams::ledger::LEDGER_TABLE;
use music_streams::reports::top_lists::TOP_LISTS_TABLE;

#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "../support/definition_rules.rs"]
mod rules;

use rules::{GOOD, RULES};

/// A text within a cell of a table, as code.
fn code(text: &str) -> String {
    format!("`{}`", text.replace('|', "\\|").replace('\n', "` `"))
}

fn section(section: &Section) -> String {
    let mut table =
        format!("### Keys of {}\n\n| key | takes | default | for | meaning |\n|---|---|---|---|---|\n", section.place);
    for key in section.keys {
        let default = match key.missing {
            Missing::Required => "required".to_owned(),
            Missing::Nothing => "none".to_owned(),
            Missing::Words(words) => words.to_owned(),
            Missing::Value(value) => code(value),
        };
        let only = if key.only == [key.name] { "" } else { &key.only.join(", ") };
        // A list of the tables' keys is in a section of its own.
        let takes = match key.shape {
            Shape::Section(_) | Shape::Entries { .. } => "a table".to_owned(),
            shape => shape.described().replace(" in quotes", "").replace(" without quotes", ""),
        };
        let (takes, default) = (takes.replace('|', "\\|"), default.replace("`\"|\"`", "`\"\\|\"`"));
        writeln!(table, "| `{}` | {takes} | {default} | {only} | {} |", key.name, key.meaning).unwrap();
    }
    table
}

fn limits() -> String {
    let reserved = limits::RESERVED_NAMES.iter().map(|name| format!("`{name}`"));
    let beginnings = limits::RESERVED_BEGINNINGS.iter().map(|name| format!("`{name}…`"));
    let rows: Vec<(&str, String)> = vec![
        ("a definition", format!("{} KiB", limits::MAX_FILE_BYTES >> 10)),
        ("columns and attributes together", limits::MAX_COLUMNS.to_string()),
        ("references; reports", limits::MAX_SECTIONS.to_string()),
        ("measures of a report", limits::MAX_MEASURES.to_string()),
        ("distinct counts of a report, as an item holds the sketch of each", limits::MAX_DISTINCTS.to_string()),
        ("attributes of a report", limits::MAX_SHOWN.to_string()),
        ("attributes under which there are top lists", limits::MAX_UNDER.to_string()),
        ("entries of a top list", format!("{}; fewer where keys may be long, as a list is one item", limits::KEPT.0)),
        ("a sum, in its least units", format!("{}, and as far below 0; beyond, it is not right", i64::MAX)),
        ("values of a condition", limits::MAX_VALUES.to_string()),
        ("an id, a text, a joined text, a report's key", format!("{MAX_VALUE_BYTES} bytes")),
        ("names", format!("{}, of `a` to `z`, `0` to `9` and `_`, with a letter first", limits::MAX_NAME_CHARS)),
        ("names that are the program's own", reserved.chain(beginnings).collect::<Vec<_>>().join(", ")),
        ("tables that are the pipeline's own", limits::RESERVED_TABLES.map(|name| format!("`{name}`")).join(", ")),
    ];
    let mut table = "## Limits\n\n| of | limit |\n|---|---|\n".to_owned();
    for (of, limit) in rows {
        writeln!(table, "| {of} | {limit} |").unwrap();
    }
    table
}

/// Every rule, by an edit of `tests/definition/examples/rides.toml` that breaks it.
fn errors() -> String {
    let mut tables = "## Errors\n\nEach rule, by an example that breaks it.\n\n".to_owned();
    for (heading, rules) in RULES {
        writeln!(tables, "### {heading}\n\n| written | message |\n|---|---|").unwrap();
        for rule in *rules {
            let problems = Definition::parse(GOOD.replace(rule.find, rule.write).as_bytes()).unwrap_err();
            let written = if rule.write.is_empty() {
                format!("without {}", code(rule.find.trim()))
            } else {
                code(rule.write.trim())
            };
            writeln!(tables, "| {written} | {} |", problems.shown[0].message.replace('|', "\\|")).unwrap();
        }
        tables.push('\n');
    }
    tables
}

#[test]
fn the_definition_is_documented() {
    let keys: Vec<String> = SECTIONS.iter().map(|it| section(it)).collect();
    crate::is_current("docs/definition.md", &format!("## Keys\n\n{}\n{}\n{}", keys.join("\n"), limits(), errors()));
}

/// The example in the document is a good one, and so is the name of each table that it may not take.
#[test]
fn the_documented_example_is_good() {
    let text = std::fs::read_to_string(crate::document("docs/definition.md")).unwrap();
    let example = text.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    Definition::parse(example.as_bytes()).unwrap_or_else(|problems| panic!("{}", problems.describe("it")));
    let mut tables = limits::RESERVED_TABLES;
    tables.sort_unstable();
    assert_eq!(tables, [LEDGER_TABLE, TOP_LISTS_TABLE]);
}
