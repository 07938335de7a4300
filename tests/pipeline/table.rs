//! The table of the curated files: other engines read it, other writers write to it, and it has each batch once.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use music_streams::aws::Clients;
use music_streams::aws::s3::Bucket;
use serde_json::Value;

use crate::operators::{ask, verify};
use crate::refusing::Answer;
use crate::scene::{DENIED, Scene};
use crate::support::*;

/// The engines of tests/table.py.
const ENGINES: [&str; 4] = ["delta-rs", "duckdb", "polars", "sail"];
const DAYS: [&str; 2] = ["2024-06-24", "2024-06-25"];

/// Runs tests/table.py. Returns the lines of its output, which are JSON.
fn table(arguments: &[&str]) -> Vec<Value> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(root.join(".tools/checks/bin/python"))
        .arg(root.join("tests/table.py"))
        .args(arguments)
        .output()
        .expect("`make test` installs the readers");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The rows of each day, by a plain count.
fn by_day(rows: &[Row]) -> BTreeMap<String, u64> {
    let mut days = BTreeMap::new();
    for row in rows {
        *days.entry(row.date.to_owned()).or_default() += 1;
    }
    days
}

/// Asserts that DuckDB reads exactly these rows. [`assert_read_by`] has more.
async fn assert_read(deployment: &Deployment, rows: &[Row]) -> String {
    assert_read_by(deployment, rows, &["duckdb"]).await
}

/// Asserts that some engines, and a plain replay of the log, read exactly these rows, also by a filter on a day, and
/// that the log never had a row twice. Returns the digest of all rows.
async fn assert_read_by(deployment: &Deployment, rows: &[Row], engines: &[&str]) -> String {
    eventually("the table has every batch", Duration::from_secs(60), async || state(deployment)["lag"] == 0).await;
    let found = table(&[&["facts", &deployment.bucket], engines].concat()).pop().unwrap();
    let found: BTreeMap<String, Value> = serde_json::from_value(found).unwrap();
    assert_eq!(found.len(), engines.len() + 1, "{found:?}");
    let expected = serde_json::to_value(by_day(rows)).unwrap();
    let mut digests = BTreeMap::new();
    for (engine, facts) in &found {
        assert_eq!(facts["rows"], rows.len(), "{engine}: {facts}");
        assert_eq!(facts["by_day"], expected, "{engine}");
        assert_eq!(facts["filtered"], expected, "{engine}, with a filter on the day");
        assert_eq!(facts["nulls"]["user_id"], 0, "{engine}");
        digests.entry(facts["digest"].as_str().unwrap().to_owned()).or_insert_with(Vec::new).push(engine);
    }
    assert_eq!(digests.len(), 1, "{digests:?}");
    for version in table(&["log", &deployment.bucket]) {
        assert_eq!(version["wrong"], serde_json::json!([]), "{version}");
    }
    digests.into_keys().next().unwrap()
}

/// Puts files, and waits until they are counted. Returns their rows.
async fn count(deployment: &Deployment, seeds: std::ops::Range<u64>) -> Vec<Row> {
    let mut all = Vec::new();
    for seed in seeds {
        let rows = rows(40_000 + seed, 150);
        deployment.put(&format!("incoming/{seed}.csv"), csv_of(&rows)).await;
        all.extend(rows);
    }
    deployment.settled().await;
    deployment.registry_is_empty().await;
    all
}

fn compact(deployment: &Deployment) -> String {
    let ended = ask(deployment, &["compact"]);
    assert!(ended.success, "{}{}", ended.stdout, ended.stderr);
    ended.stdout
}

fn assert_verified(deployment: &Deployment) {
    for arguments in [&[][..], &["--table"]] {
        let (agrees, differences, notes, _) = verify(deployment, arguments);
        assert!(agrees && differences.is_empty(), "{arguments:?}: {differences:#?} {notes:?}");
    }
}

fn state(deployment: &Deployment) -> Value {
    let ended = ask(deployment, &["status", "--format", "json"]);
    serde_json::from_str::<Value>(&ended.stdout).unwrap()["table"].clone()
}

/// Three generations of checkpoints, with files that were removed in each, and with other writers in between.
#[tokio::test(flavor = "multi_thread")]
async fn every_engine_reads_what_was_counted() {
    let deployment = Deployment::new("table").await;
    let flags = ["--window", "1s", "--max-objects", "1", "--compact", "never"];
    let mut consumer = deployment.consumer(&flags);
    let mut all = count(&deployment, 0..4).await;
    let digest = assert_read_by(&deployment, &all, &ENGINES).await;
    // Another writer: from here on, every fourth entry is followed by a checkpoint.
    table(&["foreign", &deployment.bucket, "commit"]);
    assert!(compact(&deployment).contains("4 files of"), "one of each batch");
    assert_eq!(assert_read_by(&deployment, &all, &ENGINES).await, digest, "compaction changes no row");
    assert_verified(&deployment);
    for generation in 1..4 {
        all.extend(count(&deployment, 10 * generation..10 * generation + 5).await);
        // A consumer that begins anew reads the last checkpoint, its own or another writer's.
        if generation == 2 {
            table(&["foreign", &deployment.bucket, "checkpoint"]);
        }
        consumer.stop();
        consumer = deployment.consumer(&flags);
        compact(&deployment);
    }
    all.extend(count(&deployment, 90..92).await);
    consumer.stop();
    assert_read_by(&deployment, &all, &ENGINES).await;
    assert_verified(&deployment);
    let checkpoints = deployment.keys("curated/_delta_log/").await;
    let checkpoints = checkpoints.iter().filter(|key| key.contains(".checkpoint")).count();
    assert!(checkpoints >= 4, "{checkpoints}");
    let [track, listens] = ["track_id = 't00001'", "listen_time < TIMESTAMP '2024-06-25 12:00:00'"];
    let morning = all.iter().filter(|row| row.date == DAYS[0] || row.second < 12 * 3600).count();
    for (condition, expected) in [(track, None), (listens, Some(morning))] {
        let counts = table(&["count", &deployment.bucket, condition]).pop().unwrap();
        let counts: BTreeMap<String, u64> = serde_json::from_value(counts).unwrap();
        let first = expected.unwrap_or_else(|| *counts.values().next().unwrap() as usize);
        assert!(counts.values().all(|&count| count == first as u64), "{condition}: {counts:?}, not {first}");
    }
    // The guide's queries, as they are there.
    let of_day = all.iter().filter(|row| row.date == DAYS[1]).count() as u64;
    let blocks = table(&["documents", &deployment.bucket]);
    assert_eq!(blocks.len(), 5, "DuckDB, Polars, delta-rs, Spark, and the plain files: {blocks:#?}");
    for block in blocks {
        let text = block["block"].as_str().unwrap();
        let numbers = block["rows"].as_array().unwrap().iter().map(|row| row.as_array().unwrap().last().unwrap());
        let sum: u64 = numbers.map(|number| number.as_u64().unwrap()).sum();
        let is_right = if text.contains("LIMIT 3") { (3..of_day).contains(&sum) } else { sum == of_day };
        assert!(is_right, "{of_day} rows of the day, but {block}");
    }
    let state = state(&deployment);
    assert_eq!((&state["lag"], state["newest_batch"].as_u64().unwrap()), (&0.into(), deployment.batches().await));
}

/// Files of another writer are left alone, and the audit says so.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_writer_has_compacted_is_found() {
    let deployment = Deployment::new("table-foreign").await;
    let consumer = deployment.consumer(&["--window", "1s", "--max-objects", "1"]);
    let all = count(&deployment, 200..204).await;
    table(&["foreign", &deployment.bucket, "optimize"]);
    let more = count(&deployment, 204..206).await;
    consumer.stop();
    compact(&deployment);
    assert_read(&deployment, &[all, more].concat()).await;
    let (agrees, differences, _, _) = verify(&deployment, &[]);
    assert!(!agrees, "{differences:?}");
    assert!(differences.iter().any(|it| it["found"] == "a file of another writer"), "{differences:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_is_rebuilt_through_the_table() {
    let deployment = Deployment::new("table-rebuilt").await;
    let consumer = deployment.consumer(&["--window", "1s", "--max-objects", "1"]);
    let all = count(&deployment, 300..304).await;
    let before = assert_read(&deployment, &all).await;
    // Other genres of the same tracks: each row changes, and none is more or less.
    let songs = String::from_utf8(deployment.get("reference/songs.csv").await).unwrap();
    deployment.put("reference/songs.csv", songs.replace("pop", "pap")).await;
    for _ in 0..2 {
        let ended = ask(&deployment, &["replay", "--date", DAYS[0], "--date", DAYS[1], "--rebuild"]);
        assert!(ended.success, "{}{}", ended.stdout, ended.stderr);
    }
    let after = assert_read(&deployment, &all).await;
    assert_ne!(before, after);
    assert_verified(&deployment);
    // Files that are damaged or lost come back by a rebuild, and readers of the table never meet them afterwards.
    let more = count(&deployment, 310..312).await;
    let mut files = deployment.keys(&format!("curated/report_date={}/", DAYS[1])).await;
    let (lost, damaged) = (files.pop().unwrap(), files.pop().unwrap());
    deployment.put(&damaged, vec![7; deployment.get(&damaged).await.len()]).await;
    deployment.clients.s3.delete_object().bucket(&deployment.bucket).key(&lost).send().await.unwrap();
    let batch = deployment.batches().await.to_string();
    let ended = ask(&deployment, &["replay", "--date", DAYS[1], "--rebuild", "--batch", &batch]);
    assert!(ended.success, "{}{}", ended.stdout, ended.stderr);
    consumer.stop();
    assert_read(&deployment, &[all, more].concat()).await;
    assert_verified(&deployment);
}

/// As it is when consumers of an earlier version have published files, or the log was deleted.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_begins_with_all_files_that_are_there() {
    let deployment = Deployment::new("table-first").await;
    let flags = ["--window", "1s", "--max-objects", "1"];
    let consumer = deployment.consumer(&flags);
    let mut all = count(&deployment, 400..403).await;
    consumer.stop();
    let s3 = &deployment.clients.s3;
    let manifests =
        deployment.keys("batches/").await.into_iter().filter(|key| key.ends_with("batch-000000000002/manifest.json"));
    for key in deployment.keys("curated/_delta_log/").await.into_iter().chain(manifests) {
        s3.delete_object().bucket(&deployment.bucket).key(key).send().await.unwrap();
    }
    assert_eq!(state(&deployment), Value::Null);
    let (_, _, notes, _) = verify(&deployment, &[]);
    assert!(notes.iter().any(|note| note.contains("no table of the curated files yet")), "{notes:?}");
    let consumer = deployment.consumer(&flags);
    all.extend(count(&deployment, 403..404).await);
    consumer.stop();
    assert_read(&deployment, &all).await;
    assert_verified(&deployment);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_holds_nothing_up() {
    let scene = Scene::new("table-denied", &[]).await;
    let is_log = |target: &str| target.contains("/curated/_delta_log/");
    scene.s3.refuse(move |request| is_log(&request.target).then_some(DENIED));
    let consumer = scene.consumer(&["--max-objects", "1", "--lease", "4s"]);
    let mut all = count(&scene.deployment, 500..503).await;
    Expected::of(&all).assert_reported(&scene.deployment).await;
    consumer.logged("batches are not in the table: ").await;
    scene.s3.refuse(move |request| is_log(&request.target).then_some(Answer::S3(503, "SlowDown")));
    all.extend(count(&scene.deployment, 503..505).await);
    scene.s3.relent();
    eventually("the table has all", Duration::from_secs(60), async || state(&scene.deployment)["lag"] == 0).await;
    consumer.stop();
    assert_read(&scene.deployment, &all).await;
    assert_verified(&scene.deployment);
}

/// A file that could not be published is not in the table, and comes into it when it comes back.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_set_aside_comes_into_the_table_when_it_comes_back() {
    let scene = Scene::new("table-aside", &[]).await;
    let completes = |request: &crate::refusing::Request| {
        let target = &request.target;
        request.method == "POST"
            && target.contains("/curated/")
            && target.contains("2024-06-25")
            && target.contains("uploadId")
    };
    scene.s3.refuse(move |request| completes(request).then_some(Answer::S3(400, "InvalidPart")));
    let consumer = scene.consumer(&["--max-objects", "1", "--lease", "4s"]);
    let first = count(&scene.deployment, 600..601).await;
    let (there, aside): (Vec<Row>, Vec<Row>) = first.iter().cloned().partition(|row| row.date == DAYS[0]);
    assert!(!there.is_empty() && !aside.is_empty());
    assert_read(&scene.deployment, &there).await;
    scene.s3.relent();
    let more = count(&scene.deployment, 601..602).await;
    assert!(scene.retry().success);
    consumer.stop();
    assert_read(&scene.deployment, &[first, more].concat()).await;
    assert_verified(&scene.deployment);
}

/// A ledger that was lost takes no number that the table has, even when all manifests have expired.
#[tokio::test(flavor = "multi_thread")]
async fn the_table_remembers_the_numbers_of_batches() {
    let deployment = Deployment::new("table-numbers").await;
    let flags = ["--window", "1s", "--max-objects", "1"];
    let consumer = deployment.consumer(&flags);
    let mut all = count(&deployment, 700..703).await;
    consumer.stop();
    let taken = deployment.batches().await;
    for item in deployment.scan("music_streams_ledger").await {
        let delete = deployment.clients.dynamodb.delete_item();
        let delete = delete.table_name(format!("{}music_streams_ledger", deployment.table_prefix));
        delete.key("pk", item["pk"].clone()).key("sk", item["sk"].clone()).send().await.unwrap();
    }
    for key in deployment.keys("batches/").await {
        deployment.clients.s3.delete_object().bucket(&deployment.bucket).key(key).send().await.unwrap();
    }
    let consumer = deployment.consumer(&flags);
    all.extend(count(&deployment, 703..704).await);
    consumer.stop();
    assert!(deployment.batches().await > taken);
    assert_read(&deployment, &all).await;
}

/// Of writers that race for an object, one wins.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_writers_wins() {
    let deployment = Deployment::new("table-race").await;
    let bucket = Bucket::new(Clients::from_environment().await.s3, deployment.bucket.clone());
    let puts = (0..50).map(|_| bucket.put_new("curated/_delta_log/race", vec![1], "application/json"));
    let won = futures::future::join_all(puts).await.into_iter().filter(|won| *won.as_ref().unwrap()).count();
    assert_eq!(won, 1);
}
