//! The queue: custody of messages, unreadable ones, and those that announce what S3 refuses.

use std::time::Duration;

use serde_json::json;

use crate::support::*;

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
    eventually("the file is archived", Duration::from_secs(60), async || deployment.keys("incoming/").await.is_empty())
        .await;
    consumer.stop();
    Expected::of(&rows).assert_reported(&deployment).await;
    assert_eq!(deployment.keys("archive/").await.len(), 1);
}
