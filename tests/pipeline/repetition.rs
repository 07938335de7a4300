//! Repetition: duplicates, restarts, crashes, and files that are put there again count once.

use std::time::Duration;

use crate::support::*;

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
async fn the_same_content_under_the_same_key_counts_once() {
    let deployment = Deployment::new("again").await;
    let rows = rows(6500, 80);
    deployment.put("incoming/a.csv", csv_of(&rows)).await;
    let consumer = deployment.consumer(&["--window", "1s"]);
    deployment.settled().await;
    // Somebody uploads the file again; it is the same object, and it is counted already.
    deployment.put("incoming/a.csv", csv_of(&rows)).await;
    eventually("a second batch has met the file", Duration::from_secs(60), async || {
        deployment.batches().await >= 2 && deployment.messages_in(&deployment.queue_url).await == 0
    })
    .await;
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
    eventually("the sweep has renewed the claim", Duration::from_secs(60), async || {
        deployment.scan("music_streams_ledger").await.iter().any(|item| item.contains_key("renewed"))
    })
    .await;
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
