//! The sweep: files that no notification announces are found, and count once.

use std::time::Duration;

use futures::StreamExt;

use crate::support::*;

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
    eventually("all files are archived", Duration::from_secs(120), async || {
        deployment.keys("incoming/").await == ["incoming/folder/"]
    })
    .await;
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
