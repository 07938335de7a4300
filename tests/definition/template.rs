//! `music-streams definition template`: the template of the repository, and those of other definitions.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::written::EXAMPLES;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The template of a definition; of the built-in one without.
fn template(definition: Option<&str>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_music-streams"));
    command.args(["definition", "template"]).env_clear();
    if let Some(text) = definition {
        std::fs::write(&path, text).unwrap();
        command.arg(path);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What is deployed is what the program prints. UPDATE_DOCUMENTS writes it anew.
#[test]
fn the_template_of_the_repository_is_that_of_the_built_in_definition() {
    let (path, template) = (root().join("deploy/template.yaml"), template(None));
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        std::fs::write(&path, &template).unwrap();
    }
    assert!(std::fs::read_to_string(&path).unwrap() == template, "deploy/template.yaml is another");
}

/// The lines of a template that contain a text, without what surrounds them.
fn lines<'t>(template: &'t str, text: &str) -> Vec<&'t str> {
    template.lines().map(str::trim).filter(|line| line.contains(text)).collect()
}

#[test]
fn tables_have_the_keys_of_their_reports() {
    let rides = template(Some(EXAMPLES[0].1));
    let names = ["bike_reports", "places", "tags", "totals", "top_lists", "music_streams_ledger"];
    assert_eq!(lines(&rides, "TableName: !Sub"), names.map(|name| format!("TableName: !Sub ${{TablePrefix}}{name}")));
    let keys = ["bike_id", "place", "tags", "all"].map(|key| format!("- {{AttributeName: \"{key}\", KeyType: HASH}}"));
    assert_eq!(lines(&rides, "\", KeyType: HASH"), keys);
    let periods = ["report_date", "report_hour", "report_date", "report_date"];
    let periods = periods.map(|period| format!("- {{AttributeName: \"{period}\", KeyType: RANGE}}"));
    assert_eq!(lines(&rides, "\", KeyType: RANGE"), periods);
    // Of consumers and replays, to write; of people, to read, and to put definitions in force; of servers, to read.
    for table in ["BikeReports", "PlacesTable", "TagsTable", "TotalsTable"] {
        let arn = format!("- !GetAtt {table}.Arn");
        // Beside its own name.
        let mut expected = vec![format!("{table}:"), arn.clone(), arn.clone(), arn.clone(), arn.clone()];
        // Of servers the last day with rows, too.
        expected.extend((table == "TotalsTable").then(|| format!("Resource: !GetAtt {table}.Arn")));
        expected.push(arn);
        expected.sort();
        let mut found = lines(&rides, table);
        found.sort();
        assert_eq!(found, expected);
    }
}

/// The lines of a policy.
fn policy<'t>(template: &'t str, name: &str) -> Option<&'t str> {
    let (_, rest) = template.split_once(&format!("\n  {name}:\n"))?;
    Some(rest.split("\n\n").next().unwrap())
}

const PERSONS: &str = r#"
name = "x"
time = "at"
[input]
format = "csv"
[columns]
at = "time"
who = "id"
[reports.people]
key = "who"
personal = true
top = { by = "rows" }
measures = { rows = "count" }
"#;
const THINGS: &str = r#"
[reports.things]
key = "thing"
attributes = ["kind"]
top = { by = "rows", under = ["kind"] }
measures = { rows = "count" }
[references.kinds]
file = "kinds.csv"
key = "thing"
columns = { kind = { type = "text", unknown = "none" } }
"#;

#[test]
fn persons_are_read_by_a_policy_of_their_own() {
    let music = template(None);
    let (open, persons) = (policy(&music, "ReaderPolicy").unwrap(), policy(&music, "PersonalReaderPolicy").unwrap());
    assert!(!open.contains("Listener") && !open.contains("listeners"), "{open}");
    assert!(
        open.contains("TrackLevelReports") && open.contains("\"tracks#*\"") && open.contains("\"genres\""),
        "{open}"
    );
    assert_eq!(lines(persons, "!GetAtt"), ["- !GetAtt ListenerLevelReports.Arn", "Resource: !GetAtt TopLists.Arn"]);
    assert_eq!(lines(persons, "- \""), ["- \"listeners\""]);
    for policy in [open, persons] {
        for right in ["s3:", "Put", "Update", "Delete", "PartiQL", "Scan", "Receive", "Send", "kms:E", "kms:G"] {
            assert!(!policy.contains(right), "{right}: {policy}");
        }
    }
    assert_eq!(policy(&template(Some(EXAMPLES[0].1)), "PersonalReaderPolicy"), None);

    // Nobody else could tell the days, so the policy of persons has it.
    let only_persons = template(Some(PERSONS));
    assert!(!policy(&only_persons, "ReaderPolicy").unwrap().contains("TopLists"), "{only_persons}");
    assert!(policy(&only_persons, "PersonalReaderPolicy").unwrap().contains("dynamodb:Query"), "{only_persons}");
    let both = template(Some(&format!("{}{THINGS}", PERSONS.replace("[reports", "thing = \"id\"\n[reports"))));
    let (open, persons) = (policy(&both, "ReaderPolicy").unwrap(), policy(&both, "PersonalReaderPolicy").unwrap());
    assert!(!persons.contains("dynamodb:Query") && !open.contains("people"), "{both}");
    assert_eq!(lines(open, "- \""), ["- \"things\"", "- \"things#*\""]);
}

/// Both tables of the catalog, that of the log and that of files.
#[test]
fn the_catalog_has_the_columns_of_the_curated_files() {
    let readings = template(Some(EXAMPLES[3].1));
    let columns = [
        ("at", "timestamp"),
        ("sensor", "string"),
        ("is_test", "string"),
        ("celsius", "decimal(18,1)"),
        ("humidity", "decimal(18,1)"),
        ("source_key", "string"),
    ];
    let columns = columns.map(|(name, type_)| format!("- {{Name: \"{name}\", Type: \"{type_}\"}}"));
    assert_eq!(lines(&readings, "- {Name:"), [columns.clone(), columns].concat());
    assert_eq!(lines(&readings, "Default: \"readings\""), ["Default: \"readings\""]);
    // A row may be a day ahead of a clock that is ahead of UTC's.
    assert_eq!(lines(&readings, ",NOW+"), ["projection.report_date.range: !Sub ${CatalogFirstDate},NOW+2DAYS"]);

    let more = "name = \"a-b\"\nearliest = \"2024-06-25\"\nfuture = \"36h\"\n";
    let other = template(Some(&PERSONS.replace("name = \"x\"\n", more)));
    assert_eq!(lines(&other, "Default: \"a"), ["Default: \"a_b\""]);
    assert_eq!(lines(&other, "Default: \"20"), ["Default: \"2024-06-25\""]);
    assert_eq!(lines(&other, ",NOW+"), ["projection.report_date.range: !Sub ${CatalogFirstDate},NOW+3DAYS"]);
}

#[test]
fn analysts_write_nothing_and_consumers_delete_no_file_of_a_batch() {
    let music = template(None);
    let analysts = policy(&music, "AnalystPolicy").unwrap();
    for right in
        ["Put", "Update", "Delete", "Create", "Abort", "Write", "dynamodb", "sqs", "kms:E", "kms:G", "incoming"]
    {
        assert!(!analysts.contains(right), "{right}: {analysts}");
    }
    let consumers = policy(&music, "ConsumerPolicy").unwrap();
    let (_, tidying) = consumers.split_once("- Sid: TidyTable\n").unwrap();
    let (tidying, _) = tidying.split_once("- Sid: ").unwrap();
    let places = ["- !Sub ${Bucket.Arn}/curated/compacted/*", "- !Sub ${Bucket.Arn}/curated/_delta_log/*"];
    assert_eq!(lines(tidying, "!Sub"), places);
    assert_eq!(lines(tidying, "s3:"), ["Action: s3:DeleteObject"]);
}

/// No template speaks of what another definition is about.
#[test]
fn templates_are_of_their_definition_alone() {
    let words = ["listen", "track", "song", "genre", "artist", "user_"];
    for (name, text) in EXAMPLES.into_iter().filter(|(name, _)| *name != "plays") {
        let template = template(Some(text)).to_lowercase();
        assert!(template.contains(&format!("\"{name}\"")), "{name}");
        for word in words {
            assert!(!template.contains(word), "{name} has {word}: {:?}", lines(&template, word));
        }
    }
}

/// A definition as large as may be: with as many reports, and names that YAML would take for something else.
fn largest() -> String {
    let mut text = "name = \"x\"\ntime = \"at\"\n[input]\nformat = \"csv\"\n[columns]\nat = \"time\"\n".to_owned();
    for key in ["on", "null", "y", "n", "no", "yes", "true", "off"] {
        text += &format!("{key} = \"id\"\n");
    }
    for (index, key) in ["on", "null", "y", "n", "no", "yes", "true", "off"].into_iter().cycle().take(16).enumerate() {
        let table = ["queue", "a.b", "a-b", "A_b", "a__b", "123", "bucket_policy", "true"];
        let table = table.get(index).map_or(format!("quite_a_long_name_of_a_table_{index}"), |&it| it.to_owned());
        text += &format!("[reports.r{index}]\nkey = \"{key}\"\ntable = \"{table}\"\n");
        text += &format!("[reports.r{index}.measures]\nrows = \"count\"\n");
    }
    text
}

/// cfn-lint knows the properties of every resource. CloudFormation takes templates of 51,200 bytes.
#[test]
fn templates_are_good() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(root().join(".tools/checks/bin/cfn-lint"));
    let largest = largest();
    for (name, text) in EXAMPLES.into_iter().chain([("largest", &*largest)]) {
        let (path, template) = (folder.path().join(format!("{name}.yaml")), template(Some(text)));
        assert!(template.len() < 51_200, "{name} has {} bytes", template.len());
        std::fs::write(&path, template).unwrap();
        command.arg(path);
    }
    let output = command.output().expect("`make test` installs it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
