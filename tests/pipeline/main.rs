//! The whole program against a real local stack: figures, duplicates, restarts, crashes, odd files, wrong settings.
//!
//! Run by `make test` (LocalStack) and `make test-ministack`; both give each test process a stack of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs
)]

mod edges;
mod health;
mod operators;
mod refusals;
#[path = "../support/refusing.rs"]
mod refusing;
mod replay;
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "../support/mod.rs"]
mod support;
mod telemetry;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::time::Duration;

use futures::StreamExt;
use serde_json::json;
use support::*;

#[tokio::test]
async fn every_figure_is_that_of_an_independent_fold() {
    let deployment = Deployment::new("figures").await;
    let files: Vec<_> = (0..4).map(|seed| (format!("incoming/streams {seed}+ü.csv"), rows(seed, 2800))).collect();
    for (key, rows) in &files {
        deployment.put(key, csv_of(rows)).await;
    }
    deployment.work_off().await;
    deployment.assert_clean().await;

    let all: Vec<Row> = files.iter().flat_map(|(_, rows)| rows.clone()).collect();
    Expected::of(&all).assert_reported(&deployment).await;
    for reader in ["duckdb", "pyarrow", "polars"] {
        assert_eq!(curated_rows(&deployment, reader).await, expected_rows(&all), "as {reader} reads it");
    }
    // The archive holds each file byte for byte, under the name that a person knows.
    let archived = deployment.keys("archive/").await;
    assert_eq!(archived.len(), files.len());
    for (key, rows) in &files {
        let name = key.strip_prefix("incoming").unwrap();
        let place = archived.iter().find(|place| place.ends_with(name)).unwrap();
        assert_eq!(deployment.get(place).await, csv_of(rows).as_bytes());
    }
    assert!(deployment.keys("quarantine/").await.is_empty());
    assert_eq!(
        deployment.keys("curated/").await.len() as u64,
        2 * deployment.batches().await,
        "a file a day and batch"
    );
}

#[tokio::test]
async fn duplicates_late_files_and_restarts_change_nothing() {
    let deployment = Deployment::new("restarts").await;
    let mut all = Vec::new();
    let mut upload = async |seed: u64| {
        let (key, rows) = (format!("incoming/part {seed}+é.csv"), rows(100 + seed, 900));
        deployment.put(&key, csv_of(&rows)).await;
        for body in announcements(&deployment, &key, &etag_of(&deployment, &key).await) {
            deployment.send(body).await;
        }
        all.extend(rows);
    };
    upload(0).await;
    upload(1).await;
    let consumer = deployment.consumer(&["--max-objects", "2"]);
    upload(2).await;
    upload(3).await;
    consumer.logged("batch done").await;
    upload(4).await;
    consumer.stop();
    upload(5).await;
    let consumer = deployment.consumer(&[]);
    upload(6).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    consumer.stop();
    upload(7).await;
    deployment.work_off().await;
    deployment.assert_clean().await;
    Expected::of(&all).assert_reported(&deployment).await;
    assert_eq!(curated_rows(&deployment, "duckdb").await, expected_rows(&all));
    assert_eq!(deployment.keys("archive/").await.len(), 8);
}

#[tokio::test]
async fn crashes_at_any_moment_lose_and_double_nothing() {
    let deployment = Deployment::new("crashes").await;
    let mut all = Vec::new();
    for round in 0..8_u64 {
        for part in 0..3 {
            let rows = rows(1000 + 10 * round + part, 700);
            deployment.put(&format!("incoming/{round}-{part}.csv"), csv_of(&rows)).await;
            all.extend(rows);
        }
        let consumer = deployment.consumer(&["--window", "1s"]);
        tokio::time::sleep(Duration::from_millis(700 + 170 * round)).await;
        consumer.kill();
    }
    // What the dead consumers left committed is finished, what they left open is abandoned, by this one.
    let consumer = deployment.consumer(&[]);
    deployment.settled().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    deployment.settled().await;
    consumer.stop();
    deployment.assert_clean().await;
    Expected::of(&all).assert_reported(&deployment).await;
    assert_eq!(curated_rows(&deployment, "duckdb").await, expected_rows(&all));
    assert_eq!(deployment.keys("archive/").await.len(), 24);
}

#[tokio::test]
async fn two_consumers_share_the_work() {
    let deployment = Deployment::new("two").await;
    let consumers = [deployment.consumer(&["--max-objects", "3"]), deployment.consumer(&["--max-objects", "3"])];
    let mut all = Vec::new();
    for seed in 0..12 {
        let rows = rows(2000 + seed, 400);
        deployment.put(&format!("incoming/{seed}.csv"), csv_of(&rows)).await;
        all.extend(rows);
    }
    deployment.settled().await;
    consumers.into_iter().for_each(Consumer::stop);
    deployment.assert_clean().await;
    Expected::of(&all).assert_reported(&deployment).await;
}

#[tokio::test]
async fn two_hundred_small_files_make_one_batch() {
    let deployment = Deployment::new("small").await;
    let mut all = Vec::new();
    for seed in 0..200 {
        let rows = rows(3000 + seed, 5);
        deployment.put(&format!("incoming/{seed}.csv"), csv_of(&rows)).await;
        all.extend(rows);
    }
    // Four seconds are enough to receive 200 messages; the batch itself may take as long as it takes.
    let consumer = deployment.consumer(&["--window", "10s"]);
    deployment.settled().await;
    consumer.stop();
    deployment.assert_clean().await;
    Expected::of(&all).assert_reported(&deployment).await;
    assert!(deployment.batches().await <= 2, "a clock edge may split them once");
}

#[tokio::test]
async fn a_window_much_longer_than_the_visibility_timeout_receives_each_message_once() {
    let deployment = Deployment::new("visibility").await;
    let rows = rows(4000, 50);
    let consumer = deployment.consumer(&["--window", "1h", "--visibility-timeout", "5s"]);
    consumer.logged("ready").await;
    deployment.put("incoming/a.csv", csv_of(&rows)).await;
    // More than three times the visibility timeout: without extension it would be received again and again.
    tokio::time::sleep(Duration::from_secs(16)).await;
    consumer.stop();
    let received = deployment.receive().await;
    let [(receive_count, body)] = received.as_slice() else { panic!("not one message: {received:?}") };
    assert!(body.contains("a.csv"));
    assert_eq!(*receive_count, 2, "once by the consumer, once by this test");
    // Given back at the stop, at once.
    deployment.work_off().await;
    deployment.assert_clean().await;
    Expected::of(&rows).assert_reported(&deployment).await;
}

#[tokio::test]
async fn odd_files_get_their_answer_and_harm_no_other() {
    let deployment = Deployment::new("odd").await;
    let good = rows(5000, 600);
    let csv = csv_of(&good);
    let third = good.len() / 3;
    let crlf_bom_quotes =
        format!("\u{feff}{}", csv_of(&good[..third])).replace('\n', "\r\n").replace("user_id", "\"user_id\"");
    let reordered: String = std::iter::once("extra,listen_time,track_id,user_id\n".to_owned())
        .chain(csv_of(&good[2 * third..]).lines().skip(1).map(|line| {
            let fields: Vec<_> = line.split(',').collect();
            format!("\"a \"\"b\"\", c\nd\",{}Z,{},{}\n", fields[2].replace(' ', "T"), fields[1], fields[0])
        }))
        .collect();
    let two_members = [gzip(&csv.as_bytes()[..5000]), gzip(&csv.as_bytes()[5000..])].concat();
    let long_field = "x".repeat(1 << 20);
    let mut invalid_utf8 = csv.clone().into_bytes();
    invalid_utf8.extend_from_slice(b"7,ab\xff\xfe,2024-06-25 00:00:00\n");
    let truncated = gzip(csv.as_bytes());
    for (key, content) in [
        ("crlf.csv", crlf_bom_quotes.into_bytes()),
        ("gzip.csv", gzip(csv_of(&good[third..2 * third]).as_bytes())),
        ("reordered.csv", reordered.into_bytes()),
        ("members.csv", two_members),
        ("header-only.csv", b"user_id,track_id,listen_time\n".to_vec()),
        ("invalid-utf8.csv", invalid_utf8),
        ("long-line.csv", format!("{csv}7,{long_field},2024-06-25 00:00:00\n").into_bytes()),
        ("zero.csv", Vec::new()),
        ("missing-column.csv", b"user_id,track_id\n1,a\n".to_vec()),
        ("binary.csv", b"\x89PNG\r\n\x1a\n\0\0\0".to_vec()),
        ("truncated.csv.gz", truncated[..truncated.len() - 20].to_vec()),
        ("damaged.csv.gz", [&truncated[..100], &[0xff; 300], &truncated[400..]].concat()),
        ("unclosed-quote.csv", format!("{csv}\"{}", "no end\n".repeat(900_000)).into_bytes()),
    ] {
        deployment.put(&format!("incoming/{key}"), content).await;
    }
    // Not a file at all; it stays.
    deployment.put("incoming/folder/", "").await;
    let consumer = deployment.consumer(&[]);
    let started = std::time::Instant::now();
    while deployment.keys("incoming/").await.len() > 1 || deployment.messages_in(&deployment.queue_url).await > 0 {
        assert!(started.elapsed() < Duration::from_secs(120), "{}", consumer.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    consumer.stop();
    deployment.assert_clean().await;

    let mut reasons = BTreeMap::new();
    for key in deployment.keys("quarantine/objects/").await {
        if let Some(file) = key.strip_suffix(".reason.json") {
            let note: serde_json::Value = serde_json::from_slice(&deployment.get(&key).await).unwrap();
            reasons.insert(file.rsplit('/').next().unwrap().to_owned(), note["reason"].as_str().unwrap().to_owned());
        }
    }
    let reason = |file: &str| reasons.get(file).unwrap_or_else(|| panic!("{file} is not in {reasons:?}")).as_str();
    assert_eq!(reason("zero.csv"), "the file is empty: not even a header");
    assert_eq!(
        reason("missing-column.csv"),
        "the file is not a listening file: the header lacks the column listen_time; the header is \"user_id,track_id\""
    );
    assert_eq!(reason("binary.csv"), "the file is not CSV: its first line is binary");
    assert_eq!(reason("truncated.csv.gz"), "the gzip stream is cut off");
    assert!(reason("damaged.csv.gz").starts_with("the gzip stream is damaged"), "{}", reason("damaged.csv.gz"));
    assert!(
        reason("unclosed-quote.csv").contains("the record at line 602 is longer than"),
        "{}",
        reason("unclosed-quote.csv")
    );
    assert_eq!(reasons.len(), 6, "{reasons:#?}");

    let mut rejected = Vec::new();
    for key in deployment.keys("quarantine/rows/").await {
        for line in String::from_utf8(deployment.get(&key).await).unwrap().lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            rejected.push((
                row["object"].as_str().unwrap().to_owned(),
                row["line"].as_u64().unwrap(),
                row["reason"].as_str().unwrap().to_owned(),
            ));
        }
    }
    rejected.sort();
    let bad_track = "track_id is not 1 to 64 visible ASCII characters".to_owned();
    assert_eq!(
        rejected,
        [
            ("incoming/invalid-utf8.csv".to_owned(), 602, bad_track.clone()),
            ("incoming/long-line.csv".to_owned(), 602, bad_track),
        ]
    );

    // Every good row once from the three files that share them, and once from each file that has all of them.
    let counted: Vec<Row> = std::iter::repeat_n(good, 4).flatten().collect();
    Expected::of(&counted).assert_reported(&deployment).await;
    assert_eq!(curated_rows(&deployment, "pyarrow").await, expected_rows(&counted));
    assert_eq!(deployment.keys("archive/").await.len(), 7);
}

/// From before the first day that counts to after the last: one curated file for each of thousands of days.
#[tokio::test]
async fn thousands_of_dates_in_one_file() {
    let deployment = Deployment::new("dates").await;
    let first = jiff::civil::date(1999, 12, 1);
    let tomorrow = jiff::Timestamp::now().as_second() / 86_400 + 1;
    let epoch = jiff::civil::date(1970, 1, 1);
    let mut csv = String::from("user_id,track_id,listen_time\n");
    let (mut good, mut bad) = (0, 0);
    for day in 0..2500 {
        let date = first.checked_add(jiff::Span::new().days(4 * day)).unwrap();
        csv += &format!("7,one-track,{date} 00:00:00\n");
        let days_since_epoch = i64::from(date.since(epoch).unwrap().get_days());
        if date.year() >= 2000 && days_since_epoch <= tomorrow { good += 1 } else { bad += 1 }
    }
    deployment.put("incoming/dates.csv", csv).await;
    deployment.put("incoming/other.csv", "user_id,track_id,listen_time\n8,other,2024-06-25 00:00:00\n").await;
    deployment.work_off().await;
    deployment.assert_clean().await;
    let items = deployment.scan("track_level_reports").await;
    assert_eq!(items.iter().filter(|item| text(item, "track_id") == "one-track").count(), good);
    assert_eq!(items.iter().filter(|item| text(item, "track_id") == "other").count(), 1);
    let mut rejected = 0;
    for key in deployment.keys("quarantine/rows/").await {
        rejected += String::from_utf8(deployment.get(&key).await).unwrap().lines().count();
    }
    assert_eq!(rejected, bad);
    assert!(bad > 0 && good > 2300);
    assert!(deployment.keys("curated/").await.len() >= good);
}

#[tokio::test]
async fn the_same_content_under_the_same_key_counts_once() {
    let deployment = Deployment::new("again").await;
    let rows = rows(6500, 80);
    deployment.put("incoming/a.csv", csv_of(&rows)).await;
    let consumer = deployment.consumer(&["--window", "1s"]);
    deployment.settled().await;
    // Somebody uploads the file again; it is the same object, and it is counted already.
    deployment.put("incoming/a.csv", csv_of(&rows)).await;
    let started = std::time::Instant::now();
    while deployment.batches().await < 2 || deployment.messages_in(&deployment.queue_url).await > 0 {
        assert!(started.elapsed() < Duration::from_secs(60), "{}", consumer.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    consumer.stop();
    deployment.assert_clean().await;
    Expected::of(&rows).assert_reported(&deployment).await;
    assert_eq!(deployment.keys("incoming/").await, ["incoming/a.csv"], "it is left to whoever put it there");
}

#[tokio::test]
async fn what_lies_there_again_does_not_count_when_everything_about_its_batch_has_expired() {
    let deployment = Deployment::new("expired").await;
    let rows = rows(6100, 80);
    deployment.put("incoming/a.csv", csv_of(&rows)).await;
    deployment.work_off().await;
    deployment.put("incoming/a.csv", csv_of(&rows)).await;
    // As it is a week later: the claim has some days left.
    let table = format!("{}music_streams_ledger", deployment.table_prefix);
    let soon = (jiff::Timestamp::now().as_second() + 3 * 86_400).to_string();
    for claim in deployment.scan("music_streams_ledger").await {
        if text(&claim, "pk").starts_with("object#") {
            let update = deployment.clients.dynamodb.update_item().table_name(&table);
            let update = update.key("pk", claim["pk"].clone()).key("sk", claim["sk"].clone());
            let update = update.update_expression("SET expires_at = :soon");
            let soon = aws_sdk_dynamodb::types::AttributeValue::N(soon.clone());
            update.expression_attribute_values(":soon", soon).send().await.unwrap();
        }
    }
    let consumer = deployment.consumer(&["--sweep-interval", "2s", "--sweep-age", "1s"]);
    let started = std::time::Instant::now();
    loop {
        let ledger = deployment.scan("music_streams_ledger").await;
        if ledger.iter().any(|item| item.contains_key("renewed")) {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{}", consumer.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // As time to live would: the record of the batch goes.
    for item in deployment.scan("music_streams_ledger").await {
        if text(&item, "pk").starts_with("batch#") {
            let delete = deployment.clients.dynamodb.delete_item();
            let delete = delete.table_name(format!("{}music_streams_ledger", deployment.table_prefix));
            delete.key("pk", item["pk"].clone()).key("sk", item["sk"].clone()).send().await.unwrap();
        }
    }
    let announcement = announcements(&deployment, "incoming/a.csv", &etag_of(&deployment, "incoming/a.csv").await);
    deployment.send(announcement[0].clone()).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    consumer.stop();
    assert_eq!(deployment.keys("incoming/").await, ["incoming/a.csv"]);
    Expected::of(&rows).assert_reported(&deployment).await;
}

#[tokio::test]
async fn a_file_that_was_taken_away_counts_when_it_comes_back() {
    let deployment = Deployment::new("back").await;
    let rows = rows(6600, 80);
    deployment.put("incoming/a.csv", csv_of(&rows)).await;
    deployment.clients.s3.delete_object().bucket(&deployment.bucket).key("incoming/a.csv").send().await.unwrap();
    let consumer = deployment.consumer(&["--window", "1s"]);
    consumer.logged("\"gone\":1").await;
    // Its owner uploads it again, unchanged: the same object, which nobody has counted.
    deployment.put("incoming/a.csv", csv_of(&rows)).await;
    deployment.settled().await;
    consumer.stop();
    deployment.assert_clean().await;
    Expected::of(&rows).assert_reported(&deployment).await;
}

/// More files than one page of a listing has, and no notification of any; two consumers look for them at the same time.
async fn found_by_the_sweep(parameters: &[&str]) {
    let deployment = Deployment::with("sweep", parameters).await;
    deployment.silence().await;
    let rows = rows(6700, 1100);
    futures::stream::iter(rows.iter().enumerate())
        .for_each_concurrent(8, async |(index, row)| {
            deployment.put(&format!("incoming/{index}.csv"), csv_of(std::slice::from_ref(row))).await;
        })
        .await;
    deployment.put("incoming/folder/", "").await;
    assert!(deployment.messages_in(&deployment.queue_url).await <= 1, "there may be the test event, and no other");
    let flags = ["--sweep-interval", "2s", "--sweep-age", "1s"];
    let consumers = [deployment.consumer(&flags), deployment.consumer(&flags)];
    let started = std::time::Instant::now();
    while deployment.keys("incoming/").await != ["incoming/folder/"] {
        assert!(started.elapsed() < Duration::from_secs(120), "{}", consumers[0].log());
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    consumers.into_iter().for_each(Consumer::stop);
    deployment.assert_clean().await;
    Expected::of(&rows).assert_reported(&deployment).await;
    assert_eq!(deployment.keys("archive/").await.len(), rows.len());
}

#[tokio::test]
async fn files_that_nobody_announced_are_found_and_count_once() {
    found_by_the_sweep(&[]).await;
}

#[tokio::test]
async fn versions_that_nobody_announced_are_found_and_count_once() {
    found_by_the_sweep(&["Versioning=Enabled"]).await;
}

#[tokio::test]
async fn an_overwritten_file_counts_with_its_last_content() {
    let deployment = Deployment::new("overwrite").await;
    deployment.put("incoming/a.csv", csv_of(&rows(6000, 40))).await;
    let last = rows(6001, 60);
    deployment.put("incoming/a.csv", csv_of(&last)).await;
    deployment.work_off().await;
    deployment.assert_clean().await;
    Expected::of(&last).assert_reported(&deployment).await;
    assert_eq!(deployment.keys("archive/").await.len(), 1);
}

#[tokio::test]
async fn with_versioning_every_content_counts() {
    let deployment = Deployment::with("versions", &["Versioning=Enabled"]).await;
    let (first, second) = (rows(7000, 40), rows(7001, 60));
    deployment.put("incoming/a.csv", csv_of(&first)).await;
    deployment.put("incoming/a.csv", csv_of(&second)).await;
    deployment.work_off().await;
    deployment.assert_clean().await;
    Expected::of(&[first, second].concat()).assert_reported(&deployment).await;
    assert_eq!(deployment.keys("archive/").await.len(), 2);
}

#[tokio::test]
async fn unreadable_messages_go_to_the_dead_letter_queue_and_nothing_else_does() {
    let deployment = Deployment::with("letters", &["MaxReceiveCount=2"]).await;
    let rows = rows(8000, 30);
    deployment.put("incoming/a.csv", csv_of(&rows)).await;
    deployment.send("not json").await;
    // One record of two is readable: it is counted, and the message is kept for somebody to look at.
    deployment.put("incoming/b.csv", csv_of(&rows)).await;
    let mut mixed: serde_json::Value = serde_json::from_str(
        &announcements(&deployment, "incoming/b.csv", &etag_of(&deployment, "incoming/b.csv").await)[0],
    )
    .unwrap();
    mixed["Records"]
        .as_array_mut()
        .unwrap()
        .push(json!({"eventVersion": "2.1", "eventName": "ObjectCreated:Put", "s3": {}}));
    deployment.send(mixed.to_string()).await;
    deployment
        .send(json!({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": deployment.bucket}).to_string())
        .await;
    // Announces our own output: acknowledged, not read.
    deployment.send(announcements(&deployment, "archive/2026-01-01/a.csv", "e")[0].clone()).await;
    let consumer = deployment.consumer(&["--window", "1s"]);
    deployment.settled().await;
    consumer.stop();
    assert_eq!(deployment.messages_in(&deployment.dead_letter_queue_url).await, 2);
    Expected::of(&[rows.clone(), rows].concat()).assert_reported(&deployment).await;
}

#[tokio::test]
async fn an_object_that_s3_does_not_give_out_holds_up_no_other() {
    let deployment = Deployment::with("refused", &["Versioning=Enabled"]).await;
    let rows = rows(8500, 30);
    // A version id that no S3 ever gave: refused with 400 or 404, depending on whose S3 it is.
    let mut bogus: serde_json::Value =
        serde_json::from_str(&announcements(&deployment, "incoming/a.csv", "e")[0]).unwrap();
    bogus["Records"][0]["s3"]["object"]["versionId"] = "not a version id".into();
    deployment.send(bogus.to_string()).await;
    deployment.put("incoming/a.csv", csv_of(&rows)).await;
    let consumer = deployment.consumer(&["--window", "1s"]);
    let started = std::time::Instant::now();
    while !deployment.keys("incoming/").await.is_empty() {
        assert!(started.elapsed() < Duration::from_secs(60), "{}", consumer.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    consumer.stop();
    Expected::of(&rows).assert_reported(&deployment).await;
    assert_eq!(deployment.keys("archive/").await.len(), 1);
}

#[tokio::test]
async fn the_catalogue_is_loaded_again_when_it_changes() {
    let deployment = Deployment::new("catalogue").await;
    let consumer = deployment.consumer(&["--window", "1s"]);
    let row = "user_id,track_id,listen_time\n1,new-track,2024-06-25 00:00:00\n";
    deployment.put("incoming/before.csv", row).await;
    deployment.settled().await;
    let mut songs = String::from_utf8(deployment.get("reference/songs.csv").await).unwrap();
    songs += "0,new-track,Someone,Album,New,1,90500,False,\"blues;fado\"\n";
    deployment.put("reference/songs.csv", songs).await;
    deployment.put("incoming/after.csv", row.replace("1,new", "2,new")).await;
    deployment.settled().await;
    // A catalogue that cannot be read does not stop anything.
    deployment.put("reference/songs.csv", "not,a,catalogue\n").await;
    deployment.put("incoming/still.csv", row.replace("1,new", "3,new")).await;
    deployment.settled().await;
    consumer.logged("going on with the catalogue loaded before").await;
    consumer.stop();
    let items = deployment.scan("track_level_reports").await;
    assert_eq!(items.len(), 1);
    assert_eq!((number(&items[0], "total_listens"), number(&items[0], "total_listening_time")), (3, 181));
    assert_eq!((text(&items[0], "track_name"), text(&items[0], "track_genre")), ("New", "blues;fado;unknown"));
}

// ---------------------------------------------------------------------------------------------- the command line

#[tokio::test]
async fn reports_answer_people_and_programs() {
    let deployment = Deployment::new("reports").await;
    let rows = rows(9000, 3000);
    deployment.put("incoming/a.csv", csv_of(&rows)).await;
    deployment.work_off().await;

    let ask = |arguments: &[&str]| {
        let line = [&["report"], arguments, &["--table-prefix", &deployment.table_prefix, "--format", "json"]].concat();
        let ended = program(&line, &[]);
        assert!(ended.success, "{}", ended.stderr);
        serde_json::from_str::<Vec<serde_json::Value>>(&ended.stdout).unwrap()
    };
    // The order by an independent count; ties by id.
    let top = |of: &dyn Fn(&Row) -> Vec<String>, most: usize| {
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        rows.iter()
            .filter(|row| row.date == "2024-06-25")
            .flat_map(of)
            .for_each(|id| *counts.entry(id).or_default() += 1);
        let mut order: Vec<_> = counts.into_iter().map(|(id, count)| (-count, id)).collect();
        order.sort();
        order.truncate(most);
        order.into_iter().map(|(count, id)| (id, -count)).collect::<Vec<_>>()
    };
    let found = |answer: Vec<serde_json::Value>, id: &str| {
        let pair =
            |item: &serde_json::Value| (item[id].as_str().unwrap().to_owned(), item["total_listens"].as_i64().unwrap());
        answer.iter().map(pair).collect::<Vec<_>>()
    };
    let songs = songs();
    let track = |row: &Row| {
        songs.get(row.track as usize).map_or(format!("{:05}abcdefghijkmnopq", row.track), |song| song.track_id.clone())
    };
    let genres = |row: &Row| {
        songs
            .get(row.track as usize)
            .map_or(vec!["unknown".to_owned()], |song| song.genres.iter().map(|&genre| genre.to_owned()).collect())
    };
    // An index keeps ties in no particular order, so a cut through a tie is no figure: compare the counts.
    let counts = |pairs: Vec<(String, i64)>| pairs.into_iter().map(|(_, count)| count).collect::<Vec<_>>();
    let day = ["--date", "2024-06-25"];
    assert_eq!(found(ask(&[&["genres"], &day[..], &["--top", "5"]].concat()), "track_genre"), top(&genres, 5));
    assert_eq!(
        counts(found(ask(&[&["tracks"], &day[..], &["--top", "7"]].concat()), "track_id")),
        counts(top(&|row| vec![track(row)], 7))
    );
    let of_jazz = |row: &Row| if genres(row).contains(&"jazz".to_owned()) { vec![track(row)] } else { vec![] };
    assert_eq!(
        counts(found(ask(&[&["tracks"], &day[..], &["--top", "3", "--genre", "jazz"]].concat()), "track_id")),
        counts(top(&of_jazz, 3))
    );
    assert_eq!(
        counts(found(ask(&[&["listeners"], &day[..], &["--top", "4"]].concat()), "user_id")),
        counts(top(&|row| vec![row.user.to_string()], 4))
    );
    let busiest = &top(&|row| vec![track(row)], 1)[0];
    let days = ask(&["track", &busiest.0]);
    assert_eq!(
        (days[0]["report_date"].as_str(), days[0]["total_listens"].as_i64()),
        (Some("2024-06-25"), Some(busiest.1))
    );

    let table = program(&["report", "genres", "--date", "2024-06-25", "--table-prefix", &deployment.table_prefix], &[]);
    assert!(table.stdout.contains("GENRE") && table.stdout.contains("jazz"), "{}", table.stdout);
    let nothing =
        program(&["report", "genres", "--date", "2020-01-01", "--table-prefix", &deployment.table_prefix], &[]);
    assert_eq!((nothing.success, nothing.stdout.trim()), (true, "no listens"));
    assert!(!program(&["report", "genres", "--date", "yesterday"], &[]).success);
}

#[tokio::test]
async fn what_is_wrong_at_the_start_is_named_with_its_remedy() {
    let deployment = Deployment::new("wrong").await;
    let run = |arguments: &[&str], environment: &[(&str, &str)]| {
        let names = [
            "run",
            "--queue-url",
            &deployment.queue_url,
            "--bucket",
            &deployment.bucket,
            "--table-prefix",
            &deployment.table_prefix,
        ];
        let ended = program(&[&names[..], arguments].concat(), environment);
        assert!(!ended.success, "{arguments:?} {environment:?}");
        ended.stderr
    };
    let queue = run(&["--queue-url", &deployment.queue_url.replace("wrong", "missing")], &[]);
    assert!(
        queue.contains("sqs:GetQueueAttributes") && queue.contains("missing") && queue.contains("check the name"),
        "{queue}"
    );
    let bucket = run(&["--bucket", "no-such-bucket"], &[]);
    assert!(bucket.contains("s3:ListBucket on s3://no-such-bucket") && bucket.contains("check the name"), "{bucket}");
    let table = run(&["--table-prefix", "absent-"], &[]);
    assert!(table.contains("absent-music_streams_ledger") && table.contains("deploy/template.yaml"), "{table}");
    let endpoint =
        run(&[], &[("AWS_ENDPOINT_URL", "http://127.0.0.1:9"), ("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:9")]);
    assert!(endpoint.contains("nothing answers at the endpoint: check AWS_REGION, AWS_ENDPOINT_URL"), "{endpoint}");
    let window = run(&["--window", "12h"], &[]);
    assert!(window.contains("longer than visibility allows") && window.contains("give at most 11h"), "{window}");
    for (flag, value) in [("--window", "soon"), ("--max-bytes", "many"), ("--receivers", "several"), ("--lease", "5")] {
        let nonsense = run(&[flag, value], &[]);
        assert!(nonsense.contains(flag) && nonsense.contains(value), "{nonsense}");
    }
    deployment.clients.s3.delete_object().bucket(&deployment.bucket).key("reference/songs.csv").send().await.unwrap();
    let catalogue = run(&[], &[]);
    assert!(catalogue.contains("reference/songs.csv") && catalogue.contains("upload it"), "{catalogue}");
}

#[test]
fn a_missing_permission_is_named() {
    // The local stacks allow everything, so this AWS refuses everything.
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 8192]);
            let body = r#"{"__type":"AccessDenied","message":"User is not authorized to perform this action"}"#;
            let _ = write!(
                stream,
                "HTTP/1.1 403 Forbidden\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    let ended = program(
        &["run", "--queue-url", &format!("{url}/q"), "--bucket", "bucket"],
        &[("AWS_ENDPOINT_URL", &url), ("AWS_ENDPOINT_URL_SQS", &url)],
    );
    assert!(!ended.success);
    assert!(
        ended.stderr.contains("not authorized")
            && ended.stderr.contains("give the role of this process sqs:GetQueueAttributes"),
        "{}",
        ended.stderr
    );
}

#[test]
fn settings_are_shown_with_their_sources() {
    let names = ["check-config", "--json", "--queue-url", "https://q", "--window", "7m"];
    let ended = program(&names, &[("MUSIC_STREAMS_BUCKET", "bucket-a"), ("MUSIC_STREAMS_LEASE", "90s")]);
    assert!(ended.success, "{}", ended.stderr);
    let settings: Vec<serde_json::Value> = serde_json::from_str(&ended.stdout).unwrap();
    let of = |name: &str| {
        let setting = settings.iter().find(|setting| setting["setting"] == name).unwrap();
        (setting["value"].as_str().unwrap().to_owned(), setting["source"].as_str().unwrap().to_owned())
    };
    assert_eq!(of("--window"), ("7m".to_owned(), "flag --window".to_owned()));
    assert_eq!(of("--bucket"), ("bucket-a".to_owned(), "environment MUSIC_STREAMS_BUCKET".to_owned()));
    assert_eq!(of("--lease"), ("90s".to_owned(), "environment MUSIC_STREAMS_LEASE".to_owned()));
    assert_eq!(of("--max-bytes"), ("128MiB".to_owned(), "default".to_owned()));
    let wrong = program(&["check-config", "--queue-url", "q", "--bucket", "bucket", "--poll-wait", "1m"], &[]);
    assert!(
        !wrong.success && wrong.stderr.contains("--queue-url") && wrong.stderr.contains("--poll-wait"),
        "{}",
        wrong.stderr
    );
}
