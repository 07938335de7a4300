//! A permanent refusal affects only what is refused: everything else is finished, and what was set aside is listed and
//! can be brought back, with each row counted once.

use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::json;

use crate::refusing::Answer;
use crate::scene::{DENIED, Scene};
use crate::support::*;

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_read_are_left_out_of_one_batch_and_come_back() {
    let scene = Scene::new("unreadable", &[]).await;
    scene.s3.refuse(|request| request.gets("/incoming/denied").then_some(DENIED));
    let mut all = Vec::new();
    for number in 0..90 {
        let rows = rows(20_000 + number, 20);
        let kind = if number % 3 == 0 { "denied" } else { "fine" };
        scene.put(&format!("{kind}-{number}.csv"), &rows).await;
        all.push((kind, rows));
    }
    // A window that takes all of them, and a sweep that would bring them back every two seconds.
    let consumer = scene.consumer(&["--window", "10s", "--sweep-interval", "2s", "--sweep-age", "1s"]);
    eventually("only what is denied lies there", Duration::from_secs(120), async || {
        scene.deployment.keys("incoming/").await.len() == 30
    })
    .await;
    eventually("no message waits", Duration::from_secs(60), async || {
        scene.deployment.messages_in(&scene.deployment.queue_url).await == 0 && scene.registered().await.is_empty()
    })
    .await;
    let batches = scene.deployment.batches().await;
    assert!(batches <= 3, "one batch, or two where the window's edge fell between them, and not one a file: {batches}");
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(scene.deployment.batches().await <= batches + 1, "the sweep leaves alone what is set aside");
    let aside = scene.aside();
    assert_eq!(aside.len(), 30, "{aside:#?}");
    assert!(
        aside
            .iter()
            .all(|entry| entry["kind"] == "object" && entry["reason"].as_str().unwrap().contains("AccessDenied"))
    );
    let fine = |rows: &[(&str, Vec<Row>)]| -> Vec<Row> {
        rows.iter().filter(|(kind, _)| *kind == "fine").flat_map(|(_, rows)| rows.clone()).collect()
    };
    Expected::of(&fine(&all)).assert_reported(&scene.deployment).await;
    let status = scene.command(&["status"]);
    assert!(status.stdout.contains("aside      30 object"), "{}", status.stdout);
    let story = format!("s3://{}/incoming/denied-0.csv", scene.deployment.bucket);
    let story = scene.command(&["status", "--object", &story]);
    assert!(story.stdout.contains("set aside"), "{}", story.stdout);

    scene.s3.relent();
    let retried = scene.retry();
    assert!(retried.success, "{}{}", retried.stdout, retried.stderr);
    scene.deployment.settled().await;
    scene.deployment.registry_is_empty().await;
    consumer.stop();
    assert!(scene.aside().is_empty());
    let all: Vec<Row> = all.into_iter().flat_map(|(_, rows)| rows).collect();
    Expected::of(&all).assert_reported(&scene.deployment).await;
    scene.deployment.assert_clean().await;
    assert!(scene.verify().success);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_of_denied_s3_leaves_nothing_behind_and_ends_without_a_human() {
    let scene = Scene::new("denied", &[]).await;
    let consumer = scene.consumer(&["--sweep-interval", "2s", "--sweep-age", "1s"]);
    consumer.logged("\"ready\"").await;
    let bucket = scene.deployment.bucket.clone();
    scene.s3.refuse(move |request| request.target.contains(&bucket).then_some(DENIED));
    let mut all = Vec::new();
    for number in 0..30 {
        let rows = rows(21_000 + number, 10);
        scene.put(&format!("{number}.csv"), &rows).await;
        all.extend(rows);
    }
    let mut most = 0;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(25) {
        most = most.max(scene.registered().await.len());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(most <= 2, "batches that wrote nothing leave nothing in the registry: {most}");
    assert!(consumer.log().contains("S3 does not work for this consumer"), "{}", consumer.log());
    assert!(scene.aside().is_empty(), "an outage sets nothing aside");
    scene.s3.relent();
    scene.deployment.settled().await;
    scene.deployment.registry_is_empty().await;
    consumer.stop();
    scene.deployment.assert_clean().await;
    Expected::of(&all).assert_reported(&scene.deployment).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_registry_is_emptied_by_whoever_waits_for_it() {
    let scene = Scene::new("full", &[]).await;
    scene.deployment.process_all().await;
    let number = |value: u64| AttributeValue::N(value.to_string());
    let entry = |state: &str| {
        let fields = [("state", AttributeValue::S(state.into())), ("owner", AttributeValue::S("gone".into()))];
        let fields = fields.into_iter().chain([("beat", number(1)), ("since", number(1_700_000_000))]);
        AttributeValue::M(fields.map(|(name, value)| (name.to_owned(), value)).collect())
    };
    let batches = (1001..=1200)
        .map(|batch: u64| (batch.to_string(), entry(if batch.is_multiple_of(2) { "open" } else { "lost" })));
    let table = format!("{}music_streams_ledger", scene.deployment.table_prefix);
    let put = scene.deployment.clients.dynamodb.put_item().table_name(table);
    let put = put.item("pk", AttributeValue::S("registry".into())).item("sk", AttributeValue::S("registry".into()));
    let put = put.item("version", number(7)).item("last", number(1200));
    put.item("batches", AttributeValue::M(batches.collect())).send().await.unwrap();
    let rows = rows(22_000, 100);
    scene.put("a.csv", &rows).await;
    let consumer = scene.consumer(&["--lease", "2s"]);
    consumer.logged("no more are opened until some are").await;
    scene.deployment.settled().await;
    scene.deployment.registry_is_empty().await;
    consumer.stop();
    Expected::of(&rows).assert_reported(&scene.deployment).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_report_item_keeps_no_other_and_gets_its_figures_later() {
    let scene = Scene::new("foreign", &[]).await;
    let genre = AttributeValue::S("jazz".into());
    let table = format!("{}genre_level_reports", scene.deployment.table_prefix);
    let day = AttributeValue::S("2024-06-25".into());
    let put = scene.deployment.clients.dynamodb.put_item().table_name(&table).item("track_genre", genre.clone());
    put.item("report_date", day.clone()).item("note", AttributeValue::S("by hand".into())).send().await.unwrap();
    let mut all = Vec::new();
    let consumer = scene.consumer(&["--lease", "2s"]);
    for number in 0..5 {
        let rows = rows(23_000 + number, 200);
        scene.put(&format!("{number}.csv"), &rows).await;
        all.extend(rows);
        scene.deployment.settled().await;
    }
    scene.deployment.registry_is_empty().await;
    assert_eq!(scene.deployment.keys("archive/").await.len(), 5);
    let aside = scene.aside();
    assert_eq!(aside.len(), 1, "one item, however many batches have met it: {aside:#?}");
    assert_eq!((&aside[0]["kind"], &aside[0]["id"]), (&json!("report_item"), &json!("jazz")));
    let verified = scene.verify();
    assert!(!verified.success && verified.stdout.contains("set aside"), "{}", verified.stdout);
    let retried = scene.retry();
    assert!(
        !retried.success && retried.stdout.contains("still set aside: report item genres jazz"),
        "{}",
        retried.stdout
    );

    // The operator deletes it; before the retry, consumers continue with what looks like a new item.
    let delete = scene.deployment.clients.dynamodb.delete_item().table_name(&table).key("track_genre", genre);
    delete.key("report_date", day).send().await.unwrap();
    for number in 5..7 {
        let rows = rows(23_000 + number, 200);
        scene.put(&format!("{number}.csv"), &rows).await;
        all.extend(rows);
        scene.deployment.settled().await;
    }
    scene.deployment.registry_is_empty().await;
    let retried = scene.retry();
    assert!(retried.success, "{}{}", retried.stdout, retried.stderr);
    Expected::of(&all).assert_reported(&scene.deployment).await;
    assert!(scene.retry().success, "once more changes nothing");
    let rows = rows(23_100, 200);
    scene.put("last.csv", &rows).await;
    all.extend(rows);
    scene.deployment.settled().await;
    consumer.stop();
    Expected::of(&all).assert_reported(&scene.deployment).await;
    assert!(scene.verify().success);
}

/// Returns the number of copies of a name in the archive, in all versions.
async fn copies(deployment: &Deployment, name: &str) -> usize {
    let list = deployment.clients.s3.list_object_versions().bucket(&deployment.bucket).prefix("archive/");
    let output = list.send().await.unwrap();
    output.versions().iter().filter(|version| version.key().unwrap().ends_with(name)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_moved_is_copied_once_and_its_batch_ends() {
    for (name, parameters) in [("held", &[][..]), ("held-version", &["Versioning=Enabled"])] {
        let scene = Scene::new(name, parameters).await;
        scene.s3.refuse(|request| request.refuses_to_delete("incoming/held", "AccessDenied"));
        // Moved together, and deleted by the same request.
        let (held, others) = (rows(24_000, 50), rows(24_001, 50));
        scene.put("held.csv", &held).await;
        for (number, rows) in others.chunks(10).enumerate() {
            scene.put(&format!("other-{number}.csv"), rows).await;
        }
        let flags = ["--window", "3s", "--lease", "2s", "--sweep-interval", "2s", "--sweep-age", "1s"];
        let consumer = scene.consumer(&flags);
        eventually("the others are archived", Duration::from_secs(60), async || {
            scene.deployment.keys("incoming/").await == ["incoming/held.csv"]
        })
        .await;
        scene.deployment.registry_is_empty().await;
        eventually("its message is deleted", Duration::from_secs(30), async || {
            scene.deployment.messages_in(&scene.deployment.queue_url).await == 0
        })
        .await;
        // Announced again and found by every sweep, it does not count again, nor is it copied again.
        tokio::time::sleep(Duration::from_secs(8)).await;
        let all = [held, others].concat();
        Expected::of(&all).assert_reported(&scene.deployment).await;
        assert_eq!(copies(&scene.deployment, "held.csv").await, 1);
        let aside = scene.aside();
        assert_eq!((aside.len(), &aside[0]["kind"]), (1, &json!("original")), "{aside:#?}");
        let verified = scene.verify();
        assert!(
            verified.success && verified.stdout.contains("could not be moved"),
            "{}{}",
            verified.stdout,
            verified.stderr
        );

        let retried = scene.retry();
        assert!(retried.success, "the command's own way is open: {}{}", retried.stdout, retried.stderr);
        assert!(scene.deployment.keys("incoming/").await.is_empty());
        assert_eq!(copies(&scene.deployment, "held.csv").await, 1);
        assert!(scene.aside().is_empty());
        consumer.stop();
        assert!(scene.verify().success);
        Expected::of(&all).assert_reported(&scene.deployment).await;
    }
}

/// Copies are made one by one and deletions together, so there is time between the two.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_overwritten_before_it_is_deleted_stays_and_counts_as_well() {
    let scene = Scene::new("overwritten", &[]).await;
    scene.s3.refuse(|request| {
        let is_copy = request.method == "PUT" && request.header("x-amz-copy-source").is_some();
        (is_copy && request.target.contains("slow.csv")).then_some(Answer::Late(Duration::from_secs(8)))
    });
    let [first, second, slow, other] = [29_000, 29_001, 29_002, 29_003].map(|seed| rows(seed, 40));
    for (name, rows) in [("again.csv", &first), ("slow.csv", &slow), ("other.csv", &other)] {
        scene.put(name, rows).await;
    }
    let consumer = scene.consumer(&["--window", "3s"]);
    let is_copied = async || scene.deployment.keys("archive/").await.iter().any(|key| key.ends_with("again.csv"));
    eventually("the file is copied", Duration::from_secs(60), is_copied).await;
    assert_eq!(scene.deployment.keys("incoming/").await.len(), 3, "nothing is deleted yet");
    scene.put("again.csv", &second).await;
    scene.deployment.settled().await;
    scene.deployment.registry_is_empty().await;
    consumer.stop();
    assert_eq!(copies(&scene.deployment, "again.csv").await, 2, "both contents are in the archive");
    scene.deployment.assert_clean().await;
    Expected::of(&[first, second, slow, other].concat()).assert_reported(&scene.deployment).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_refused_or_throttled_costs_no_other_and_none_is_lost_with_an_answer() {
    let scene = Scene::new("claims", &[]).await;
    let mut requests = 0;
    scene.dynamodb.refuse(move |request| {
        let claims = request.claims();
        if claims.iter().any(|key| key.contains("/odd")) {
            return Some(Answer::Claims { part: "/odd", code: "ValidationError" });
        }
        requests += u32::from(!claims.is_empty());
        // Made, but the consumer does not hear of it.
        (!claims.is_empty() && requests <= 2).then_some(Answer::Lost)
    });
    let mut all = Vec::new();
    for number in 0..60 {
        let rows = rows(29_100 + number, 5);
        scene.put(&format!("{number}.csv"), &rows).await;
        all.extend(rows);
    }
    let odd = rows(29_200, 5);
    scene.put("odd.csv", &odd).await;
    let consumer = scene.consumer(&["--window", "4s", "--lease", "2s"]);
    eventually("all others are archived", Duration::from_secs(90), async || {
        scene.deployment.keys("incoming/").await == ["incoming/odd.csv"]
    })
    .await;
    scene.deployment.registry_is_empty().await;
    assert!(!consumer.log().contains("batch failed"), "{}", consumer.log());
    Expected::of(&all).assert_reported(&scene.deployment).await;
    scene.dynamodb.relent();
    scene.deployment.settled().await;
    scene.deployment.registry_is_empty().await;
    consumer.stop();
    Expected::of(&[all, odd].concat()).assert_reported(&scene.deployment).await;
    scene.deployment.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_that_always_fails_holds_up_none_of_the_others() {
    let scene = Scene::new("failing", &[]).await;
    scene.s3.refuse(|request| request.gets("/incoming/broken").then_some(Answer::S3(500, "InternalError")));
    let mut all = Vec::new();
    for number in 0..9 {
        let rows = rows(25_000 + number, 30);
        scene.put(&format!("{number}.csv"), &rows).await;
        all.extend(rows);
    }
    let broken = rows(25_100, 30);
    scene.put("broken.csv", &broken).await;
    let consumer = scene.consumer(&[]);
    eventually("nine are done", Duration::from_secs(110), async || {
        scene.deployment.keys("incoming/").await == ["incoming/broken.csv"]
    })
    .await;
    scene.deployment.registry_is_empty().await;
    Expected::of(&all).assert_reported(&scene.deployment).await;
    assert_eq!(scene.aside().len(), 1);
    scene.s3.relent();
    assert!(scene.retry().success);
    scene.deployment.settled().await;
    consumer.stop();
    Expected::of(&[all, broken].concat()).assert_reported(&scene.deployment).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn throttled_reads_slow_a_batch_down_and_do_not_fail_it() {
    let mut seconds = Vec::new();
    for share in [0, 30] {
        let scene = Scene::new("throttled", &[]).await;
        let mut random = Random(7);
        scene.s3.refuse(move |request| {
            (request.gets("/incoming/") && random.below(100) < share).then_some(Answer::S3(503, "SlowDown"))
        });
        let mut all = Vec::new();
        for number in 0..300 {
            let rows = rows(26_000 + number, 4);
            scene.put(&format!("{number}.csv"), &rows).await;
            all.extend(rows);
        }
        let consumer = scene.consumer(&["--window", "15s"]);
        consumer.logged("window closed").await;
        let started = Instant::now();
        scene.deployment.settled().await;
        seconds.push(started.elapsed().as_secs_f64());
        consumer.stop();
        assert!(scene.aside().is_empty(), "throttling sets nothing aside");
        assert!(scene.deployment.batches().await <= 3);
        Expected::of(&all).assert_reported(&scene.deployment).await;
    }
    println!("300 files: {:.1} s, and with 30 % of all reads throttled {:.1} s", seconds[0], seconds[1]);
    // On a machine that does other work as well.
    assert!(seconds[1] < 3.0 * seconds[0] + 15.0, "{seconds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_reports_leaves_batches_committed_and_claims_outlive_it() {
    let scene = Scene::new("reports", &[]).await;
    let consumer = scene.consumer(&["--lease", "2s", "--sweep-interval", "2s", "--sweep-age", "1s"]);
    consumer.logged("\"ready\"").await;
    scene.dynamodb.refuse(|request| {
        let is_read = request.header("x-amz-target").is_some_and(|target| target.ends_with("BatchGetItem"));
        is_read.then_some(Answer::DynamoDb(400, "AccessDeniedException"))
    });
    scene.s3.refuse(|request| {
        (request.method == "DELETE" && request.target.contains("/incoming/")).then_some(Answer::S3(503, "SlowDown"))
    });
    let rows_a = rows(27_000, 60);
    scene.put("a.csv", &rows_a).await;
    eventually("the batch stays committed", Duration::from_secs(60), async || {
        scene.registered().await == ["committed"]
    })
    .await;
    // As time to live would see it in a week: the claims are about to expire, and the file still lies there.
    let table = format!("{}music_streams_ledger", scene.deployment.table_prefix);
    let soon = jiff::Timestamp::now().as_second() + 86_400;
    let claims = async || -> Vec<Item> {
        let ledger = scene.deployment.scan("music_streams_ledger").await;
        ledger.into_iter().filter(|item| text(item, "pk").starts_with("object#")).collect()
    };
    for claim in claims().await {
        let update = scene.deployment.clients.dynamodb.update_item().table_name(&table);
        let update = update.key("pk", claim["pk"].clone()).key("sk", claim["sk"].clone());
        let update = update.update_expression("SET expires_at = :soon");
        update.expression_attribute_values(":soon", AttributeValue::N(soon.to_string())).send().await.unwrap();
    }
    eventually("the sweep has renewed the claim", Duration::from_secs(60), async || {
        claims().await.iter().all(|claim| number(claim, "expires_at") > soon as u64 + 5 * 86_400)
    })
    .await;
    assert!(claims().await.iter().all(|claim| !claim.contains_key("renewed")), "it is not finished");
    scene.s3.relent();
    scene.dynamodb.relent();
    scene.deployment.settled_within(Duration::from_secs(180)).await;
    scene.deployment.registry_is_empty().await;
    consumer.stop();
    Expected::of(&rows_a).assert_reported(&scene.deployment).await;
    assert_eq!(scene.deployment.batches().await, 1, "nobody has counted it anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_committed_batch_whose_files_are_gone_is_set_aside_and_comes_back_with_them() {
    for (what, lost) in [("manifest", "manifest.json"), ("deltas", "deltas-1.parquet")] {
        let scene = Scene::new(what, &[]).await;
        let consumer = scene.consumer(&[]);
        consumer.logged("\"ready\"").await;
        scene.dynamodb.refuse(|request| {
            let is_read = request.header("x-amz-target").is_some_and(|target| target.ends_with("BatchGetItem"));
            is_read.then_some(Answer::DynamoDb(400, "AccessDeniedException"))
        });
        let rows_a = rows(28_000, 60);
        scene.put("a.csv", &rows_a).await;
        eventually("the batch stays committed", Duration::from_secs(60), async || {
            scene.registered().await == ["committed"]
        })
        .await;
        consumer.kill();
        scene.dynamodb.relent();
        let keys = scene.deployment.keys("batches/").await;
        let key = keys.iter().find(|key| key.ends_with(lost)).unwrap();
        let content = scene.deployment.get(key).await;
        let s3 = &scene.deployment.clients.s3;
        s3.delete_object().bucket(&scene.deployment.bucket).key(key).send().await.unwrap();
        let consumer = scene.consumer(&["--lease", "2s"]);
        scene.deployment.registry_is_empty().await;
        // Others are not held up meanwhile.
        let rows_b = rows(28_001, 60);
        scene.put("b.csv", &rows_b).await;
        let archived = async |name: &str| scene.deployment.keys("archive/").await.iter().any(|key| key.ends_with(name));
        eventually("the other file is archived", Duration::from_secs(60), async || archived("b.csv").await).await;
        let aside = scene.aside();
        assert_eq!((aside.len(), &aside[0]["kind"]), (1, &json!("batch")), "{aside:#?}");
        assert!(!scene.verify().success, "figures that are lacking are said to be");
        assert!(!scene.retry().success || what == "deltas", "nothing can be done without the manifest");
        scene.deployment.put(key, content).await;
        let retried = scene.retry();
        assert!(retried.success, "{}{}", retried.stdout, retried.stderr);
        scene.deployment.settled().await;
        consumer.stop();
        assert!(scene.aside().is_empty());
        Expected::of(&[rows_a, rows_b].concat()).assert_reported(&scene.deployment).await;
        assert_eq!(scene.deployment.keys("archive/").await.len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_is_copied_in_parts_while_the_consumer_lives() {
    let scene = Scene::new("large", &[]).await;
    // Each part is answered 12 s after the one before it, so that all of them take longer than a batch may stand still.
    let mut parts = 0;
    scene.s3.refuse(move |request| {
        let is_part = request.method == "PUT" && request.header("x-amz-copy-source").is_some();
        parts += u64::from(is_part);
        is_part.then_some(Answer::Late(Duration::from_secs(12 * parts)))
    });
    // Above the limit, so that nothing of it is read; in four parts.
    scene.deployment.put("incoming/large.bin", vec![0_u8; 800 << 20]).await;
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let flags = ["--max-object-size", "1MiB", "--stuck-after", "30s", "--health-address", &free];
    let consumer = scene.consumer(&flags);
    consumer.logged("\"ready\"").await;
    eventually("the large files are moved", Duration::from_secs(180), async || {
        let live = program(&["health", "--health-address", &free], &[]);
        assert!(live.success, "{}", live.stderr);
        scene.deployment.keys("incoming/").await.is_empty()
    })
    .await;
    consumer.stop();
    let quarantined = scene.deployment.keys("quarantine/objects/").await;
    assert_eq!(quarantined.len(), 2, "{quarantined:?}");
    let head = scene.deployment.clients.s3.head_object().bucket(&scene.deployment.bucket).key(&quarantined[0]);
    assert_eq!(head.send().await.unwrap().content_length(), Some(800 << 20));
}
