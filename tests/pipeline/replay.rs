//! Replay: lost or damaged reports are restored from the archive, as the operations guide says.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;

use crate::operators::{ask, verify};
use crate::support::*;

/// The tables that have an item for each value and day, and the attribute of the value.
pub const TABLES: [(&str, &str); 6] = [
    ("track_level_reports", "track_id"),
    ("genre_level_reports", "track_genre"),
    ("listener_level_reports", "user_id"),
    ("artist_level_reports", "artists"),
    ("country_level_reports", "user_country"),
    ("top_lists", "list"),
];
/// Those that have one of all rows, for each day and for each hour.
pub const OF_ALL: [(&str, &str); 2] = [("day_level_reports", "report_date"), ("hour_level_reports", "report_hour")];

/// Returns the commands of a section of the operations guide.
fn commands_of_the_guide(section: &str) -> Vec<Vec<String>> {
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    let (_, after) = guide.split_once(&format!("## {section}\n")).unwrap_or_else(|| panic!("no section {section}"));
    let text = after.split("\n## ").next().unwrap();
    let commands = text.split("```sh\n").skip(1).flat_map(|block| block.split("```").next().unwrap().lines());
    commands
        .filter_map(|line| line.trim().strip_prefix("music-streams "))
        .map(|line| line.split('#').next().unwrap().split_whitespace().map(str::to_owned).collect())
        .collect()
}

/// Runs the commands of a section of the guide, and returns their output.
fn follow(deployment: &Deployment, section: &str) -> String {
    let commands = commands_of_the_guide(section);
    assert!(commands.iter().any(|command| command[0] == "replay"), "{commands:?}");
    let mut said = String::new();
    for command in commands {
        let ended = ask(deployment, &command.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(ended.success, "{command:?}: {}{}", ended.stdout, ended.stderr);
        said += &ended.stdout;
    }
    said
}

/// Returns all published attributes of the report tables.
async fn seen(deployment: &Deployment) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for (table, _) in TABLES.into_iter().chain(OF_ALL) {
        for item in deployment.scan(table).await {
            if table == "top_lists" {
                for (place, entry) in Deployment::entries(&item).iter().enumerate() {
                    let state = if item["rebuilding"] == AttributeValue::Bool(true) { " being rebuilt" } else { "" };
                    let name = format!("{} {}{state}", text(&item, "list"), text(&item, "report_date"));
                    seen.insert(format!("{name} {place} {}", shown(entry)));
                }
            } else if number(&item, "total_listens") > 0 {
                seen.insert(format!("{table} {}", shown(&item)));
            }
        }
    }
    seen
}

/// The attributes that people see.
fn shown(item: &Item) -> String {
    let mut fields: Vec<_> = item
        .iter()
        .filter(|(name, _)| !["version", "applied", "applied_through"].contains(&name.as_str()))
        .filter(|(name, _)| !name.starts_with("sketch"))
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect();
    fields.sort();
    fields.join(" ")
}

fn assert_same(found: &BTreeSet<String>, expected: &BTreeSet<String>) {
    let some = |lines: Vec<&String>| format!("{} such as {:#?}", lines.len(), lines.iter().take(3).collect::<Vec<_>>());
    let (lost, other) = (expected.difference(found).collect(), found.difference(expected).collect());
    assert!(found == expected, "lost: {}\nnot expected: {}", some(lost), some(other));
}

async fn write(deployment: &Deployment, table: &str, item: Item) {
    let put = deployment.clients.dynamodb.put_item().table_name(format!("{}{table}", deployment.table_prefix));
    put.set_item(Some(item)).send().await.unwrap();
}

async fn delete(deployment: &Deployment, table: &str, item: &Item) {
    let of = |tables: &[(&str, &'static str)]| tables.iter().find(|(name, _)| *name == table).map(|(_, key)| *key);
    let key = match (of(&TABLES), of(&OF_ALL)) {
        (Some(key), _) => [key, "report_date"],
        (_, Some(period)) => ["all", period],
        _ => ["pk", "sk"],
    };
    let mut delete =
        deployment.clients.dynamodb.delete_item().table_name(format!("{}{table}", deployment.table_prefix));
    for name in key {
        delete = delete.key(name, item[name].clone());
    }
    delete.send().await.unwrap();
}

/// Puts a file for each seed, processed two at a time.
async fn process_all(deployment: &Deployment, seeds: std::ops::Range<u64>) -> Vec<Row> {
    let mut all = Vec::new();
    for seed in seeds {
        let rows = rows(8100 + seed, 400);
        let csv = csv_of(&rows) + "x,bad user,2024-06-25 00:00:00\n";
        deployment
            .put(&format!("incoming/{seed} +é.csv"), if seed == 1 { gzip(csv.as_bytes()) } else { csv.into() })
            .await;
        all.extend(rows);
    }
    let consumer = deployment.consumer(&["--max-objects", "2"]);
    deployment.settled().await;
    consumer.stop();
    all
}

#[tokio::test]
async fn a_day_that_was_restored_to_an_earlier_time_is_replayed() {
    let deployment = Deployment::new("replay").await;
    let mut all = process_all(&deployment, 0..2).await;
    let mut backup = Vec::new();
    for (table, _) in TABLES.into_iter().chain(OF_ALL) {
        backup.push((table, deployment.scan(table).await));
    }
    all.extend(process_all(&deployment, 2..6).await);
    let before = seen(&deployment).await;

    // Of what is there, nothing changes.
    let said = follow(&deployment, "Replay a day");
    assert!(said.contains("figures: 0 were lacking"), "{said}");
    assert_same(&seen(&deployment).await, &before);

    // All tables are as they were once, and two items that were there then are lost altogether.
    for (table, items) in backup {
        for item in deployment.scan(table).await {
            delete(&deployment, table, &item).await;
        }
        for item in items.into_iter().skip(2) {
            write(&deployment, table, item).await;
        }
    }
    assert!(seen(&deployment).await != before);
    let said = follow(&deployment, "Replay a day");
    assert!(said.contains("all agree") && !said.contains("figures: 0 were lacking"), "{said}");
    let ended = ask(&deployment, &["replay", "--date", "2024-06-24"]);
    assert!(ended.success, "{}", ended.stderr);
    assert_same(&seen(&deployment).await, &before);
    Expected::of(&all).assert_reported(&deployment).await;

    // One table alone is lost, the top lists are not, and manifests have expired; then consumers go on.
    let days = ["--date", "2024-06-24", "--date", "2024-06-25"];
    for arguments in [&["replay", "--rebuild"][..], &["replay"]] {
        let ended = ask(&deployment, &[arguments, &days].concat());
        assert!(ended.success, "{}", ended.stderr);
        assert_same(&seen(&deployment).await, &before);
        for item in deployment.scan("track_level_reports").await {
            delete(&deployment, "track_level_reports", &item).await;
        }
        for key in deployment.keys("batches/").await {
            deployment.clients.s3.delete_object().bucket(&deployment.bucket).key(key).send().await.unwrap();
        }
    }
    assert!(ask(&deployment, &[&["replay"][..], &days].concat()).success);
    assert_same(&seen(&deployment).await, &before);

    // A report table is as it was before a rebuild, and the lists have the rebuilt items.
    let tracks = deployment.scan("track_level_reports").await;
    assert!(ask(&deployment, &[&["replay", "--rebuild"][..], &days].concat()).success);
    for item in tracks {
        write(&deployment, "track_level_reports", item).await;
    }
    assert!(ask(&deployment, &[&["replay"][..], &days].concat()).success);
    assert_same(&seen(&deployment).await, &before);
    all.extend(process_all(&deployment, 6..8).await);
    Expected::of(&all).assert_reported(&deployment).await;
    let (success, differences, ..) = verify(&deployment, &[]);
    assert!(success, "{differences:#?}");

    // While a batch is at work, a lost item could be taken for a whole one.
    let mut registry = deployment.ledger_item("registry").await;
    let entry = [("state", "open"), ("owner", "somebody")].map(|(k, v)| (k.to_owned(), AttributeValue::S(v.into())));
    let entry = entry.into_iter().chain(["beat", "since"].map(|name| (name.to_owned(), AttributeValue::N("0".into()))));
    let batches = [("3".to_owned(), AttributeValue::M(entry.collect()))].into();
    registry.insert("batches".into(), AttributeValue::M(batches));
    write(&deployment, "music_streams_ledger", registry).await;
    let ended = ask(&deployment, &["replay", "--date", "2024-06-25"]);
    assert!(!ended.success && ended.stderr.contains("at work meanwhile ([3])"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_day_is_rebuilt_in_place() {
    let deployment = Deployment::new("rebuild").await;
    let mut all = process_all(&deployment, 0..5).await;
    let before = seen(&deployment).await;
    follow(&deployment, "Rebuild a day");
    assert_same(&seen(&deployment).await, &before);

    // Whatever was done to the day's items and lists.
    for (table, period) in OF_ALL {
        let items = deployment.scan(table).await;
        let mut items = items.iter().filter(|item| text(item, period).starts_with("2024-06-25"));
        let mut wrong = items.next().unwrap().clone();
        wrong.insert("total_listens".into(), AttributeValue::N("1000000".into()));
        write(&deployment, table, wrong).await;
        if let Some(lost) = items.next() {
            delete(&deployment, table, lost).await;
        }
    }
    for (table, key) in TABLES {
        let items = deployment.scan(table).await;
        let of_the_day = |item: &&Item| text(item, "report_date") == "2024-06-25";
        let mut items = items.iter().filter(of_the_day);
        delete(&deployment, table, items.next().unwrap()).await;
        let mut wrong = items.next().unwrap().clone();
        if table == "top_lists" {
            wrong.insert("entries".into(), AttributeValue::L(Vec::new()));
            write(&deployment, table, wrong).await;
            continue;
        }
        wrong.insert("total_listens".into(), AttributeValue::N("1000000".into()));
        write(&deployment, table, wrong).await;
        let mut invented = items.next().unwrap().clone();
        // As a listener it is a number.
        invented.insert(key.into(), AttributeValue::S("123456789".into()));
        write(&deployment, table, invented).await;
    }
    let said = follow(&deployment, "Rebuild a day");
    assert!(said.contains("all agree"), "{said}");
    assert_same(&seen(&deployment).await, &before);
    assert_eq!(curated_rows(&deployment, "duckdb").await, expected_rows(&all));

    // A curated file is lost, and the batch in its name is known.
    let lost = deployment.keys("curated/report_date=2024-06-25/").await.remove(0);
    deployment.clients.s3.delete_object().bucket(&deployment.bucket).key(&lost).send().await.unwrap();
    let number = lost.rsplit("batch-").next().unwrap().trim_end_matches(".parquet");
    let ended = ask(&deployment, &["replay", "--date", "2024-06-25", "--rebuild", "--batch", number]);
    assert!(ended.success, "{}", ended.stderr);
    assert_same(&seen(&deployment).await, &before);
    assert_eq!(curated_rows(&deployment, "duckdb").await, expected_rows(&all));

    // The same without manifests, which are kept for a month; then consumers continue.
    for key in deployment.keys("batches/").await {
        deployment.clients.s3.delete_object().bucket(&deployment.bucket).key(key).send().await.unwrap();
    }
    follow(&deployment, "Rebuild a day");
    assert_same(&seen(&deployment).await, &before);
    assert_eq!(curated_rows(&deployment, "duckdb").await, expected_rows(&all));

    // Nor is a lost archived file taken for none: the curated files tell how many rows there were.
    let lost = deployment.keys("archive/").await.remove(0);
    let content = deployment.get(&lost).await;
    deployment.clients.s3.delete_object().bucket(&deployment.bucket).key(&lost).send().await.unwrap();
    let item = deployment.scan("track_level_reports").await.remove(0);
    delete(&deployment, "track_level_reports", &item).await;
    // And a list that an earlier rebuild has left empty is not taken for complete by one that fails before it begins.
    let list = deployment.scan("top_lists").await.into_iter().find(|it| it["report_date"] == item["report_date"]);
    let mut left = list.clone().unwrap();
    left.insert("entries".into(), AttributeValue::L(Vec::new()));
    left.insert("rebuilding".into(), AttributeValue::Bool(true));
    write(&deployment, "top_lists", left.clone()).await;
    for rebuild in [&["--rebuild"][..], &[]] {
        let ended = ask(&deployment, &[&["replay", "--date", text(&item, "report_date")], rebuild].concat());
        assert!(!ended.success && ended.stderr.contains("curated rows of the day"), "{}", ended.stderr);
    }
    let (success, differences, ..) = verify(&deployment, &[]);
    assert!(!success && format!("{differences:?}").contains("a rebuild that did not end"), "{differences:#?}");
    deployment.assert_clean().await;
    write(&deployment, "top_lists", list.unwrap()).await;
    write(&deployment, "track_level_reports", item).await;
    assert_same(&seen(&deployment).await, &before);
    assert_eq!(curated_rows(&deployment, "duckdb").await, expected_rows(&all));
    deployment.put(&lost, content).await;

    // An archived file is not what its batch counted.
    all.extend(process_all(&deployment, 5..7).await);
    let archived = deployment.keys("archive/").await.into_iter().find(|key| key.ends_with("5 +é.csv")).unwrap();
    let content = deployment.get(&archived).await;
    deployment.put(&archived, "user_id,track_id,listen_time\n1,x,2024-06-25 00:00:00\n").await;
    let ended = ask(&deployment, &["replay", "--date", "2024-06-25", "--rebuild"]);
    assert!(
        !ended.success && ended.stderr.contains(&archived) && ended.stderr.contains("restore it"),
        "{}",
        ended.stderr
    );
    deployment.put(&archived, content).await;
    deployment.assert_clean().await;
    let (success, differences, ..) = verify(&deployment, &[]);
    assert!(success, "{differences:#?}");
    assert_eq!(curated_rows(&deployment, "duckdb").await, expected_rows(&all));
}

/// Tracks change their names, lengths and genres, and some leave the catalogue.
fn other_catalogue() -> String {
    let mut csv = String::from("track_id,track_name,artists,track_genre,duration_ms\n");
    for (number, song) in songs().iter().enumerate().filter(|(number, _)| number % 7 != 0) {
        let genres = if number % 2 == 0 { vec!["polka"] } else { song.genres.clone() };
        for genre in genres {
            csv += &format!("{},New {number},Other,{genre},{}\n", song.track_id, song.duration_ms + 1);
        }
    }
    csv
}

#[tokio::test]
async fn a_day_is_rebuilt_with_another_catalogue() {
    let (deployment, fresh) = (Deployment::new("catalogue").await, Deployment::new("fresh").await);
    process_all(&deployment, 0..3).await;
    deployment.put("reference/songs.csv", other_catalogue()).await;
    let ended = ask(&deployment, &["replay", "--rebuild", "--date", "2024-06-25", "--date", "2024-06-24"]);
    assert!(ended.success, "{}", ended.stderr);

    // As in a pipeline that had it from the start.
    fresh.put("reference/songs.csv", other_catalogue()).await;
    process_all(&fresh, 0..3).await;
    assert_same(&seen(&deployment).await, &seen(&fresh).await);
    assert_eq!(curated_rows(&deployment, "polars").await, curated_rows(&fresh, "polars").await);
    let (success, differences, ..) = verify(&deployment, &[]);
    assert!(success, "{differences:#?}");
    let top = ask(&deployment, &["report", "tracks", "--date", "2024-06-25", "--under", "polka", "--top", "3"]);
    assert!(top.success && top.stdout.contains("New "), "{}", top.stdout);

    // An item that was set aside since then gets figures of the catalogue that the day has.
    let genres = deployment.scan("genre_level_reports").await;
    let mut foreign = genres.into_iter().max_by_key(|item| number(item, "total_listens")).unwrap();
    foreign.remove("applied_through");
    write(&deployment, "genre_level_reports", foreign.clone()).await;
    process_all(&deployment, 3..5).await;
    delete(&deployment, "genre_level_reports", &foreign).await;
    let ended = ask(&deployment, &["aside", "--retry"]);
    assert!(ended.success && ended.stdout.contains("back"), "{}{}", ended.stdout, ended.stderr);
    let (success, differences, ..) = verify(&deployment, &[]);
    assert!(success, "{differences:#?}");

    // And back again.
    deployment.put_catalogue().await;
    let ended = ask(&deployment, &["replay", "--rebuild", "--date", "2024-06-25", "--date", "2024-06-24"]);
    assert!(ended.success, "{}", ended.stderr);
    let none = ask(&deployment, &["report", "tracks", "--date", "2024-06-25", "--under", "polka", "--top", "3"]);
    assert_eq!(none.stdout.trim(), "no rows");
    let (success, differences, ..) = verify(&deployment, &[]);
    assert!(success, "{differences:#?}");
}

#[tokio::test]
async fn a_day_is_rebuilt_beside_consumers_at_work() {
    let deployment = Deployment::new("beside").await;
    let consumers = [0, 1].map(|_| deployment.consumer(&["--window", "1s", "--max-objects", "3"]));
    let mut all = Vec::new();
    let mut rebuilt = 0;
    for seed in 0..30 {
        let rows = rows(8200 + seed, 150);
        deployment.put(&format!("incoming/{seed}.csv"), csv_of(&rows)).await;
        all.extend(rows);
        if seed % 5 == 4 {
            let ended = ask(&deployment, &["replay", "--rebuild", "--date", "2024-06-25"]);
            // Items that keep getting new batches are left as they are, which is an error.
            assert!(ended.success || ended.stderr.contains("got new batches again and again"), "{}", ended.stderr);
            rebuilt += usize::from(ended.success);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    deployment.settled().await;
    deployment.registry_is_empty().await;
    Expected::of(&all).assert_reported(&deployment).await;
    assert!(ask(&deployment, &["replay", "--rebuild", "--date", "2024-06-25"]).success);
    consumers.into_iter().for_each(Consumer::stop);
    Expected::of(&all).assert_reported(&deployment).await;
    assert_eq!(curated_rows(&deployment, "pyarrow").await, expected_rows(&all));
    println!("{rebuilt} of 6 rebuilds beside consumers at work came to their end");
    assert!(rebuilt > 0);
}

#[tokio::test]
async fn a_ledger_that_was_lost_takes_no_number_twice() {
    let deployment = Deployment::new("forgotten").await;
    let mut all = process_all(&deployment, 0..4).await;
    let batches = deployment.batches().await;
    assert!(batches > 1);
    for item in deployment.scan("music_streams_ledger").await {
        delete(&deployment, "music_streams_ledger", &item).await;
    }
    let ended = ask(&deployment, &["replay", "--date", "2024-06-25"]);
    assert!(!ended.success && ended.stderr.contains("which the ledger does not know"), "{}", ended.stderr);
    all.extend(process_all(&deployment, 4..6).await);
    assert!(deployment.batches().await > batches);
    Expected::of(&all).assert_reported(&deployment).await;
    assert_eq!(curated_rows(&deployment, "duckdb").await, expected_rows(&all));
    let (success, differences, ..) = verify(&deployment, &[]);
    assert!(success, "{differences:#?}");
}

#[tokio::test]
async fn a_ledger_that_was_restored_abandons_nothing_that_was_finished() {
    let deployment = Deployment::new("restored").await;
    let all = process_all(&deployment, 0..3).await;
    let mut registry = deployment.ledger_item("registry").await;
    let entry = [("state", "open"), ("owner", "of old")].map(|(k, v)| (k.to_owned(), AttributeValue::S(v.into())));
    let entry = entry.into_iter().chain(["beat", "since"].map(|name| (name.to_owned(), AttributeValue::N("0".into()))));
    registry.insert("batches".into(), AttributeValue::M([("1".to_owned(), AttributeValue::M(entry.collect()))].into()));
    write(&deployment, "music_streams_ledger", registry).await;
    let consumer = deployment.consumer(&[]);
    deployment.registry_is_empty().await;
    consumer.stop();
    assert_eq!(text(&deployment.ledger_item("batch#000000000001").await, "state"), "done");
    Expected::of(&all).assert_reported(&deployment).await;
    let (success, differences, ..) = verify(&deployment, &[]);
    assert!(success, "{differences:#?}");
}
