//! Edges of the input: files, catalogues and object versions that could change figures unnoticed.

use std::time::Duration;

use aws_sdk_s3::types::BucketVersioningStatus;

use crate::support::*;

const HEADER: &str = "user_id,track_id,listen_time\n";
const GOOD: &str = "7,t,2024-06-25 17:43:13\n";

/// The expected outcome of a file.
enum Becomes {
    /// The number of accepted rows, and each rejected row: its line, the number of lines it spans, and part of the
    /// reason.
    Counted(u64, &'static [(u64, u64, &'static str)]),
    /// The file is quarantined; part of the reason.
    Quarantined(&'static str),
}
use Becomes::{Counted, Quarantined};

fn with_header(rows: &str) -> Vec<u8> {
    format!("{HEADER}{rows}").into_bytes()
}

#[tokio::test]
async fn files_are_judged_as_they_are() {
    let utf_16: Vec<u8> = format!("{HEADER}{GOOD}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let noted = |rows: &str| format!("user_id,track_id,listen_time,note\n{rows}").into_bytes();
    let note = "1,t,2024-06-25 17:43:13,\"two\nlines\"\n";
    let cases: Vec<(&str, Vec<u8>, Becomes)> = vec![
        (
            "quote-in-the-last-column",
            noted(&format!("{note}2,t,2024-06-25 17:43:13,\"he said\n3,t,2024-06-25 17:43:13,ok\n")),
            Quarantined("ends within the quotes that line 4 opens"),
        ),
        (
            "quote-in-a-required-column",
            with_header(&format!("1,\"t,2024-06-25 17:43:13\n{GOOD}{GOOD}")),
            Quarantined("ends within the quotes that line 2 opens"),
        ),
        (
            "quote-and-eighty-thousand-rows",
            with_header(&format!("1,\"t,2024-06-25 17:43:13\n{}1,t\",x\n", GOOD.repeat(80_000))),
            Quarantined("the record at line 2 is longer than 100 lines"),
        ),
        (
            "notes-of-several-lines",
            noted(&format!("{note}{note}x,t,2024-06-25 17:43:13,\"a\n\nb\"\ny,t,,\n")),
            Counted(2, &[(6, 3, "user_id"), (9, 1, "listen_time is empty")]),
        ),
        (
            "text-behind-a-quote",
            with_header(&format!("\"7\"8,t,2024-06-25 17:43:13\n{GOOD}7,\"t\" ,2024-06-25 17:43:13\n")),
            Counted(1, &[(2, 1, "follows the quote"), (4, 1, "follows the quote")]),
        ),
        (
            "crlf",
            with_header(&format!("{GOOD}{GOOD}bad,t,2024-06-25 17:43:13\n").replace('\n', "\r\n")),
            Counted(2, &[(4, 1, "user_id")]),
        ),
        (
            "cr",
            [HEADER, GOOD, GOOD, "\n", "bad,t,2024-06-25 17:43:13\n"].concat().replace('\n', "\r").into_bytes(),
            Counted(2, &[(5, 1, "user_id")]),
        ),
        (
            "leading-zeros",
            with_header(&format!(
                "0000000000000000007,{time}00000000000000000007,{time}{}7,{time}000,{time}",
                "0".repeat(400),
                time = "t,2024-06-25 17:43:13\n"
            )),
            Counted(3, &[(5, 1, "user_id")]),
        ),
        (
            "iso-8601",
            with_header(
                "1,t,2024-06-25T17:43Z\n1,t,\"2024-06-25T17:43:13,500Z\"\n1,t,2024-06-25T24:00:00Z\n\
            1,t,20240625T174313Z\n1,t,2024-W26-2T17:43:13Z\n1,t,2024-177T17:43:13Z\n1,t,2016-12-31T23:59:60Z\n\
            1,t,2024-06-25 17:43\n1,t,2024-06-25 17:43:13 UTC\n1,t,2024-06-25T17:59:60Z\n",
            ),
            Counted(8, &[(10, 1, "listen_time"), (11, 1, "listen_time")]),
        ),
        (
            "header-with-a-quote-amid",
            b"\"user_i\"d,track_id,listen_time\n7,t,2024-06-25 17:43:13\n".to_vec(),
            Quarantined("follows the quote"),
        ),
        ("utf-16", [b"\xFF\xFE".to_vec(), utf_16].concat(), Quarantined("UTF-16")),
        ("gzip-in-gzip", gzip(&gzip(&with_header(GOOD))), Quarantined("gzip within another compression")),
        ("parquet", b"PAR1\x15\x04\x15".to_vec(), Quarantined("Parquet")),
        ("another-header", b"id,song,when\n1,2,3\n".to_vec(), Quarantined("the header is \\\"id,song,when\\\"")),
        ("only-a-header", with_header(""), Counted(0, &[])),
        ("all-rejected", with_header("x,t,2024-06-25 17:43:13\n"), Counted(0, &[(2, 1, "user_id")])),
    ];
    let deployment = Deployment::new("edges").await;
    for (name, content, _) in &cases {
        deployment.put(&format!("incoming/{name}.csv"), content.clone()).await;
    }
    let consumer = deployment.consumer(&["--window", "2s"]);
    deployment.settled().await;
    for name in ["only-a-header", "all-rejected"] {
        consumer.logged(&format!("rows of incoming/{name}.csv ")).await;
    }
    consumer.logged("\"suspect\":").await;
    consumer.stop();
    deployment.assert_clean().await;

    let mut rejects = Vec::new();
    for key in deployment.keys("quarantine/rows/").await {
        let list = String::from_utf8(deployment.get(&key).await).unwrap();
        rejects.extend(list.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()));
    }
    let (archived, quarantined) = (deployment.keys("archive/").await, deployment.keys("quarantine/objects/").await);
    let mut listens = 0;
    for (name, _, becomes) in &cases {
        let place = |keys: &[String]| keys.iter().find(|key| key.ends_with(&format!("/{name}.csv"))).cloned();
        match becomes {
            Counted(good, bad) => {
                assert!(place(&archived).is_some(), "{name}");
                let key = format!("incoming/{name}.csv");
                let of_file = rejects.iter().filter(|reject| reject["object"] == key.as_str());
                let found: Vec<_> = of_file
                    .map(|reject| {
                        let (line, reason) = (reject["line"].as_u64().unwrap(), reject["reason"].as_str().unwrap());
                        (line, reject["lines"].as_u64().unwrap_or(1), reason)
                    })
                    .collect();
                assert_eq!(found.len(), bad.len(), "{name}: {found:?}");
                for (found, bad) in found.iter().zip(*bad) {
                    assert!(
                        (found.0, found.1) == (bad.0, bad.1) && found.2.contains(bad.2),
                        "{name}: {found:?} {bad:?}"
                    );
                }
                listens += good;
            }
            Quarantined(reason) => {
                let place = place(&quarantined).unwrap_or_else(|| panic!("{name} was counted"));
                let note = String::from_utf8(deployment.get(&format!("{place}.reason.json")).await).unwrap();
                assert!(note.contains(reason), "{name}: {note}");
            }
        }
    }
    let genres = deployment.scan("genre_level_reports").await;
    assert_eq!(genres.iter().map(|item| number(item, "total_listens")).sum::<u64>(), listens);
    let status = program(&["status"], &of(&deployment)).stdout;
    assert!(status.contains("FILES gave no row"), "{status}");
}

// ---------------------------------------------------------------------------------------------- catalogues

fn of(deployment: &Deployment) -> [(&'static str, &str); 3] {
    [
        ("MUSIC_STREAMS_QUEUE_URL", &deployment.queue_url),
        ("MUSIC_STREAMS_BUCKET", &deployment.bucket),
        ("MUSIC_STREAMS_TABLE_PREFIX", &deployment.table_prefix),
    ]
}

#[tokio::test]
async fn a_damaged_catalogue_takes_no_place_of_a_good_one() {
    let deployment = Deployment::new("damaged").await;
    let consumer = deployment.consumer(&["--window", "1s"]);
    consumer.logged("\"ready\"").await;
    let good = String::from_utf8(deployment.get("reference/songs.csv").await).unwrap();
    let header = good.lines().next().unwrap();
    let some = good.lines().take(40).collect::<Vec<_>>().join("\n");
    let without_durations: String = good.replace(",False,", ",no,").replace(",1,", ",1,x");
    let rows = rows(9900, 200);
    for (number, (damaged, told)) in [
        (format!("{header}\n"), "none of its 0 lines can be used"),
        (format!("{good}9,odd,\"no end\n"), "ends within the quotes"),
        (some, "keys that were there before"),
        (without_durations, "lines can be used"),
        (good.replacen("duration_ms", "track_id", 1), "names column track_id twice"),
    ]
    .into_iter()
    .enumerate()
    {
        deployment.put("reference/songs.csv", damaged).await;
        deployment.put(&format!("incoming/{number}.csv"), csv_of(&rows[number * 40..][..40])).await;
        consumer.logged(told).await;
        deployment.settled().await;
    }
    let log = consumer.log();
    assert_eq!(log.matches("going on with the catalogue loaded before").count(), 5, "each is said once: {log}");
    let status = program(&["status"], &of(&deployment)).stdout;
    assert!(status.contains("REFUSED") && status.contains("names column track_id twice"), "{status}");
    // Every figure is that of the good one. Put there again, it is the one in use.
    Expected::of(&rows).assert_reported(&deployment).await;
    deployment.put("reference/songs.csv", good.clone()).await;
    deployment.put("incoming/unheard.csv", format!("{HEADER}1,unheard,2024-06-25 00:00:00\n")).await;
    deployment.settled().await;
    let status = program(&["status"], &of(&deployment)).stdout;
    assert!(!status.contains("REFUSED") && status.contains("380 keys in reference/songs.csv"), "{status}");

    // A consumer that starts has no good one; but it knows how much there was.
    let some = good.lines().take(40).collect::<Vec<_>>().join("\n");
    deployment.put("reference/songs.csv", some.clone()).await;
    let start =
        |arguments: &[&str]| program(&[&["run", "--exit-when-idle", "1s"], arguments].concat(), &of(&deployment));
    let refused = start(&[]);
    assert!(!refused.success && refused.stderr.contains("accept=as-is"), "{}", refused.stderr);
    // An operator who means it says so with the file.
    let put = deployment.clients.s3.put_object().bucket(&deployment.bucket).key("reference/songs.csv");
    put.metadata("accept", "as-is").body(some.into_bytes().into()).send().await.unwrap();
    deployment.put("incoming/last.csv", format!("{HEADER}1,unheard,2024-06-25 00:00:00\n")).await;
    deployment.settled().await;
    let taken = start(&[]);
    assert!(taken.success, "{}", taken.stderr);
    consumer.stop();
    let status = program(&["status"], &of(&deployment)).stdout;
    assert!(!status.contains("REFUSED"), "{status}");
}

#[tokio::test]
async fn a_catalogue_is_read_as_it_is_written() {
    let deployment = Deployment::new("written").await;
    // As pandas writes numbers beside a gap, compressed, with a key named twice and lines that are none.
    let songs = ",track_id,artists,album_name,track_name,popularity,duration_ms,explicit,track_genre\r\n\
        0,t1,A,Al,One,50,230666.0,False,pop\r\n1,t2,B,Al,Two,50,,False,rock\r\n2,t1,Z,Al,Other,50,1,False,folk\r\n\
        3,t3,A,Al,Three,50,90500,False,pop\r\n4,t4,short\r\n5,t5,A,Al,\"Five\" and,50,1,False,pop\r\n";
    let users = "user_id,user_country\n7.0,Peru\n007,Chile\n8,\n8,Ghana\nx,Japan\n";
    deployment.put("reference/songs.csv", gzip(songs.as_bytes())).await;
    deployment.put("reference/users.csv", gzip(users.as_bytes())).await;
    let rows: String = ["t1", "t2", "t3"]
        .iter()
        .map(|track| format!("7,{track},2024-06-25 00:00:00\n8,{track},2024-06-25 00:00:00\n"))
        .collect();
    deployment.put("incoming/a.csv", with_header(&rows)).await;
    let consumer = deployment.consumer(&["--window", "1s"]);
    deployment.settled().await;
    for told in [
        "1 lines of reference/songs.csv are not used: duration_ms",
        "more or fewer fields",
        "follows the quote",
        "1 lines of reference/users.csv",
    ] {
        consumer.logged(told).await;
    }
    consumer.stop();
    let tracks = deployment.scan("track_level_reports").await;
    let track = |id: &str| tracks.iter().find(|item| text(item, "track_id") == id).unwrap();
    let time = |id: &str| track(id)["total_listening_time"].as_n().unwrap().clone();
    assert_eq!((text(track("t1"), "track_name"), time("t1").as_str()), ("One", "461.332"));
    assert_eq!(text(track("t1"), "track_genre"), "folk;pop");
    assert_eq!(text(track("t1"), "artists"), "A;Z", "of all its lines, as genres");
    assert_eq!(time("t3"), "181");
    assert!(!track("t2").contains_key("track_name"));
    let listeners = deployment.scan("listener_level_reports").await;
    let country = |id: &str| {
        listeners.iter().find(|item| {
            item.values()
                .any(|value| value.as_s().is_ok_and(|text| text == id) || value.as_n().is_ok_and(|text| text == id))
        })
    };
    assert_eq!(text(country("7").unwrap(), "user_country"), "Peru", "the first line counts");
    assert_eq!(text(country("8").unwrap(), "user_country"), "unknown", "also where it says less");
}

// ---------------------------------------------------------------------------------------------- objects

async fn version(deployment: &Deployment, status: BucketVersioningStatus) {
    let configuration = aws_sdk_s3::types::VersioningConfiguration::builder().status(status).build();
    let put = deployment.clients.s3.put_bucket_versioning().bucket(&deployment.bucket);
    put.versioning_configuration(configuration).send().await.unwrap();
}

/// A version that was deleted before it was read is not read, whether announced or found by a sweep.
#[tokio::test]
async fn what_its_owner_deleted_or_overwrote_is_history() {
    let deployment = Deployment::with("history", &["Versioning=Enabled"]).await;
    let [announced, deleted, old, new] = [9700, 9701, 9702, 9703].map(|seed| rows(seed, 30));
    deployment.put("incoming/deleted.csv", csv_of(&deleted)).await;
    deployment.put("incoming/announced.csv", csv_of(&announced)).await;
    let s3 = &deployment.clients.s3;
    s3.delete_object().bucket(&deployment.bucket).key("incoming/deleted.csv").send().await.unwrap();
    deployment.process_all().await;
    Expected::of(&announced).assert_reported(&deployment).await;
    assert_eq!(deployment.keys("archive/").await.len(), 1);

    // A bucket with history and without notifications.
    deployment.silence().await;
    deployment.put("incoming/a.csv", csv_of(&old)).await;
    // S3 gives times to the second.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    deployment.put("incoming/a.csv", csv_of(&new)).await;
    deployment.put("incoming/b.csv", csv_of(&old)).await;
    s3.delete_object().bucket(&deployment.bucket).key("incoming/b.csv").send().await.unwrap();
    let consumer = deployment.consumer(&["--window", "1s", "--sweep-interval", "2s", "--sweep-age", "1s"]);
    // The overwritten version becomes current again when the one above it is moved away.
    eventually("both are archived", Duration::from_secs(60), async || deployment.keys("archive/").await.len() >= 2)
        .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    consumer.stop();
    deployment.assert_clean().await;
    Expected::of(&[announced, new].concat()).assert_reported(&deployment).await;
    assert_eq!(deployment.keys("archive/").await.len(), 2);
}

#[tokio::test]
async fn a_producer_that_asks_for_a_free_name_counts_once() {
    let deployment = Deployment::with("producer", &["Versioning=Enabled"]).await;
    let rows = rows(9800, 40);
    let put = async || {
        let put =
            deployment.clients.s3.put_object().bucket(&deployment.bucket).key("incoming/a.csv").if_none_match("*");
        put.body(csv_of(&rows).into_bytes().into()).send().await
    };
    put().await.unwrap();
    // The answer was lost, and the SDK tries again.
    let again = put().await.unwrap_err();
    assert_eq!(again.raw_response().unwrap().status().as_u16(), 412);
    deployment.process_all().await;
    Expected::of(&rows).assert_reported(&deployment).await;

    // A producer that does not ask for a free name is counted twice, and a warning says so.
    deployment.put("incoming/b.csv", csv_of(&rows)).await;
    deployment.put("incoming/b.csv", csv_of(&rows)).await;
    let consumer = deployment.consumer(&["--window", "1s"]);
    consumer.logged("incoming/b.csv comes again").await;
    deployment.settled().await;
    consumer.stop();
    Expected::of(&[rows.clone(), rows.clone(), rows].concat()).assert_reported(&deployment).await;
}

/// With suspended versioning, versions are called null, and moving a file away leaves a delete marker. Neither is
/// counted or found again.
#[tokio::test]
async fn with_suspended_versioning_each_file_counts_once() {
    let deployment = Deployment::with("suspended", &["Versioning=Enabled"]).await;
    version(&deployment, BucketVersioningStatus::Suspended).await;
    let rows = rows(9850, 60);
    deployment.put("incoming/a.csv", csv_of(&rows[..30])).await;
    deployment.put("incoming/b.csv", csv_of(&rows[30..])).await;
    let consumer = deployment.consumer(&["--window", "1s", "--sweep-interval", "2s", "--sweep-age", "1s"]);
    deployment.settled().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    consumer.stop();
    deployment.assert_clean().await;
    Expected::of(&rows).assert_reported(&deployment).await;
    assert_eq!(deployment.keys("archive/").await.len(), 2);
}

/// XML cannot express such a key, so a listing must ask for encoded keys.
#[tokio::test]
async fn a_key_with_control_characters_keeps_nothing_from_being_found() {
    if is_ministack() {
        // It does not encode the keys of versions when asked to, and so its list is no XML.
        return;
    }
    let deployment = Deployment::new("control").await;
    deployment.silence().await;
    let rows = rows(9900, 60);
    deployment.put("incoming/\u{1}first\u{b}.csv", csv_of(&rows[..30])).await;
    deployment.put("incoming/plain +%2B.csv", csv_of(&rows[30..])).await;
    let consumer = deployment.consumer(&["--window", "1s", "--sweep-interval", "2s", "--sweep-age", "1s"]);
    for _ in 0..2 {
        consumer.logged("batch done").await;
    }
    eventually("all rows are reported", Duration::from_secs(60), async || {
        let tracks = deployment.scan("track_level_reports").await;
        tracks.iter().map(|item| number(item, "total_listens")).sum::<u64>() == 60
    })
    .await;
    consumer.stop();
    Expected::of(&rows).assert_reported(&deployment).await;
    let verified = program(&["verify", "--date", "2024-06-25"], &of(&deployment));
    assert!(verified.success, "{}{}", verified.stdout, verified.stderr);
}

#[tokio::test]
async fn a_quarantined_file_comes_back_under_its_own_name() {
    for parameters in [&[][..], &["Versioning=Enabled"]] {
        let deployment = Deployment::with("return", parameters).await;
        let rows = rows(9950, 3000);
        deployment.put("incoming/large.csv", csv_of(&rows)).await;
        deployment.put("incoming/bad.csv", "no,header\n").await;
        let consumer = deployment.consumer(&["--window", "1s", "--max-object-size", "10KiB"]);
        deployment.settled().await;
        consumer.stop();
        let listed = program(&["quarantine"], &of(&deployment)).stdout;
        assert!(listed.contains("--max-object-size") && listed.contains("bad.csv"), "{listed}");
        let story = program(
            &["status", "--object", &format!("s3://{}/incoming/large.csv", deployment.bucket)],
            &of(&deployment),
        );
        assert!(story.stdout.contains("quarantined at") && !story.stdout.contains("twice"), "{}", story.stdout);

        let returned = program(&["quarantine", "--retry", "--format", "json"], &of(&deployment));
        assert!(returned.success, "{}{}", returned.stdout, returned.stderr);
        assert!(deployment.keys("quarantine/objects/").await.is_empty());
        let consumer = deployment.consumer(&["--window", "1s"]);
        deployment.settled().await;
        consumer.stop();
        deployment.assert_clean().await;
        Expected::of(&rows).assert_reported(&deployment).await;
        let story = program(
            &["status", "--object", &format!("s3://{}/incoming/large.csv", deployment.bucket)],
            &of(&deployment),
        );
        assert!(story.stdout.contains("counted, and archived"), "{}", story.stdout);
        // The file that is still bad is in quarantine again, once.
        assert_eq!(deployment.keys("quarantine/objects/").await.len(), 2);
        let verified = program(&["verify", "--date", "2024-06-25"], &of(&deployment));
        assert!(verified.success, "{}{}", verified.stdout, verified.stderr);
    }
}
