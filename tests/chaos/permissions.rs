//! Least privilege: the policies of the template allow the calls that are made, and hardly any others.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::recorder::{Call, Calls};
use crate::support::*;

/// What servers of figures answer to anybody.
const ANSWERS: [&str; 15] = [
    "/",
    "/?days=1",
    "/?days=1&under=track_genre:jazz",
    "/item?report=tracks&id=x",
    "/item?report=genres&id=jazz",
    "/pipeline",
    "/api",
    "/api/v1",
    "/api/v1/series/genres?id=jazz",
    "/api/v1/top/tracks?days=7",
    "/api/v1/top/tracks?days=1&under=track_genre:jazz&format=csv",
    "/api/v1/top/genres?days=1",
    "/api/v1/pipeline",
    "/api/v1/freshness",
    "/api/v1/openapi.json",
];
/// What they answer beside with `--personal`.
const PERSONAL_ANSWERS: [&str; 5] = [
    "/",
    "/?days=1",
    "/item?report=listeners&id=1",
    "/api/v1/series/listeners?id=1&days=7",
    "/api/v1/top/listeners?days=7",
];

/// Compares calls with policies of the deployment. Returns the calls that they do not allow, and the rights that no
/// call used.
fn compare(deployment: &Deployment, policies: &[&str], calls: &BTreeSet<Call>) -> (Vec<String>, Vec<String>) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut python = Command::new(root.join(".tools/stack/bin/python"))
        .arg(root.join("tests/policy.py"))
        .arg(&deployment.bucket)
        .args(policies)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    python.stdin.take().unwrap().write_all(serde_json::json!(calls).to_string().as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policies_allow_what_is_called_and_nothing_else() {
    let calls = Calls::default();
    let endpoint = |name: &str| std::env::var(name).unwrap();
    let way = calls.on_the_way_to(&endpoint("AWS_ENDPOINT_URL")).await;
    let way_to_dynamodb = calls.on_the_way_to(&endpoint("AWS_ENDPOINT_URL_DYNAMODB")).await;
    let ways = [("AWS_ENDPOINT_URL", way.as_str()), ("AWS_ENDPOINT_URL_DYNAMODB", way_to_dynamodb.as_str())];

    let (mut consumed, mut asked, mut replayed) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let (mut applied, mut served, mut served_persons) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut first = None;
    for versioning in ["Versioning=Suspended", "Versioning=Enabled"] {
        let deployment = Deployment::with("permissions", &[versioning]).await;
        let csv = csv_of(&rows(1, 300)) + "x,bad user,2024-06-25 00:00:00\n";
        deployment.put("incoming/good.csv", csv.clone()).await;
        deployment.put("incoming/bad.csv", "no listening file").await;
        deployment.send("not an event").await;
        // It dies with everything prepared, or committed; the next one clears away, or takes over.
        for step in ["manifest written", "archived"] {
            let environment =
                [("FAILPOINTS", format!("{step}=panic")), (ways[0].0, ways[0].1.into()), (ways[1].0, ways[1].1.into())];
            let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
            let mut dying = deployment.consumer_in(&["--window", "1s", "--visibility-timeout", "5s"], &environment);
            dying.end().await;
        }
        // A file that is gone when it is read releases its claim.
        deployment.put("incoming/gone.csv", "x").await;
        let etag = etag_of(&deployment, "incoming/gone.csv").await;
        let s3 = &deployment.clients.s3;
        s3.delete_object().bucket(&deployment.bucket).key("incoming/gone.csv").send().await.unwrap();
        deployment.send(announcements(&deployment, "incoming/gone.csv", &etag)[0].clone()).await;
        // Something for the table's vacuum: a compacted file that never came into the table, and entries of the log
        // that a checkpoint has.
        let orphan = "curated/compacted/report_date=2024-06-25/from-000000000001-0.parquet";
        deployment.put(orphan, "x").await;
        for number in 0..6 {
            deployment.put(&format!("incoming/more-{number}.csv"), csv_of(&rows(2 + number, 10))).await;
        }
        let hasty = ("FAILPOINTS", "vacuum at once=return;checkpoint every fourth=return");
        let flags = ["--window", "1s", "--sweep-age", "1s", "--sweep-interval", "2s", "--max-objects", "1"];
        let consumer = deployment.consumer_in(&flags, &[ways[0], ways[1], hasty]);
        consumer.logged("after recovery").await;
        // The unreadable message remains.
        eventually("one message is left", std::time::Duration::from_secs(120), async || {
            deployment.keys("incoming/").await.is_empty() && deployment.messages_in(&deployment.queue_url).await <= 1
        })
        .await;
        deployment.registry_is_empty().await;
        eventually("the table is vacuumed", std::time::Duration::from_secs(60), async || {
            let first = "curated/_delta_log/00000000000000000000.json";
            !deployment.keys("curated/").await.iter().any(|key| key == orphan || key == first)
        })
        .await;
        consumer.stop();
        consumed.extend(generalized(calls.take(), &deployment, first.as_ref()));

        let environment = [
            ways[0],
            ways[1],
            ("MUSIC_STREAMS_QUEUE_URL", deployment.queue_url.as_str()),
            ("MUSIC_STREAMS_BUCKET", deployment.bucket.as_str()),
            ("MUSIC_STREAMS_TABLE_PREFIX", deployment.table_prefix.as_str()),
        ];
        let object = format!("s3://{}/incoming/good.csv", deployment.bucket);
        let sqs = &deployment.clients.sqs;
        sqs.send_message().queue_url(&deployment.dead_letter_queue_url).message_body("dead").send().await.unwrap();
        for arguments in [
            &["report", "tracks"][..],
            &["report", "tracks", "--date", "2024-06-25"],
            &["report", "tracks", "--date", "2024-06-25", "--under", "jazz"],
            &["report", "genres", "--date", "2024-06-25"],
            &["report", "listeners", "--date", "2024-06-25"],
            &["report", "artists", "--date", "2024-06-25"],
            &["report", "countries", "--date", "2024-06-25"],
            &["report", "days", "*"],
            &["report", "hours", "*"],
            &["report", "track", "x"],
            &["report", "genre", "pop"],
            &["report", "listener", "1"],
            &["report", "artist", "x"],
            &["report", "country", "Peru"],
            &["status"],
            &["status", "--object", &object],
            &["aside"],
            &["quarantine"],
            &["verify", "--date", "2024-06-24", "--date", "2024-06-25"],
            &["dead-letters"],
            &["dead-letters", "--redrive"],
        ] {
            let ended = program(arguments, &environment);
            assert!(ended.success, "{arguments:?}: {}{}", ended.stdout, ended.stderr);
        }
        // Differences take further calls.
        for (table, key) in [
            ("track_level_reports", "track_id"),
            ("genre_level_reports", "track_genre"),
            ("listener_level_reports", "user_id"),
            ("artist_level_reports", "artists"),
            ("country_level_reports", "user_country"),
            ("day_level_reports", "all"),
            ("hour_level_reports", "all"),
        ] {
            let mut invented = deployment.scan(table).await.remove(0);
            invented.insert(key.into(), aws_sdk_dynamodb::types::AttributeValue::S("1000000".into()));
            let put = deployment.clients.dynamodb.put_item().table_name(format!("{}{table}", deployment.table_prefix));
            put.set_item(Some(invented)).send().await.unwrap();
        }
        let ended = program(&["verify", "--scan", "--date", "2024-06-24", "--date", "2024-06-25"], &environment);
        assert!(!ended.success && ended.stderr.contains("7 differences"), "{}{}", ended.stdout, ended.stderr);
        asked.extend(generalized(calls.take(), &deployment, first.as_ref()));

        for rebuild in [&["--rebuild", "--scan"][..], &[]] {
            let ended = program(&[&["replay", "--date", "2024-06-25"], rebuild].concat(), &environment);
            assert!(ended.success, "{}{}", ended.stdout, ended.stderr);
        }
        for way_back in ["aside", "quarantine"] {
            let ended = program(&[way_back, "--retry"], &environment);
            assert!(ended.success, "{}{}", ended.stdout, ended.stderr);
        }
        replayed.extend(generalized(calls.take(), &deployment, first.as_ref()));

        let file = std::env::temp_dir().join(format!("{}.toml", deployment.bucket));
        let shown = program(&["definition", "show"], &[]).stdout;
        std::fs::write(&file, shown.replacen("\n", "\nfuture = \"2d\"\n", 1)).unwrap();
        let ended = program(&["definition", "apply", file.to_str().unwrap(), "--yes"], &environment);
        std::fs::remove_file(&file).unwrap();
        assert!(ended.success && ended.stdout.contains("is in force"), "{}{}", ended.stdout, ended.stderr);
        applied.extend(generalized(calls.take(), &deployment, first.as_ref()));

        // Under a definition that the ledger has.
        for (answers, more, calls_of) in
            [(&ANSWERS[..], &[][..], &mut served), (&PERSONAL_ANSWERS[..], &["--personal"][..], &mut served_persons)]
        {
            for path in answers {
                let ended = program(&[&["serve", "--once", path][..], more].concat(), &environment);
                assert!(ended.success, "{path}: {}{}", ended.stdout, ended.stderr);
            }
            calls_of.extend(generalized(calls.take(), &deployment, first.as_ref()));
        }
        first.get_or_insert(deployment);
    }

    let deployment = first.unwrap();
    let (forbidden, unused) = compare(&deployment, &["ConsumerPolicyArn"], &consumed);
    assert!(forbidden.is_empty(), "the consumer does what its policy does not allow: {forbidden:#?}");
    // Rights that S3 requires in addition when a file has tags, and those that only a file of 256 MiB needs.
    let of_some_files =
        ["s3:GetObjectTagging", "s3:GetObjectVersionTagging", "s3:PutObjectTagging", "s3:ListMultipartUploadParts"];
    let unused: Vec<_> =
        unused.into_iter().filter(|it| !of_some_files.iter().any(|action| it.starts_with(action))).collect();
    assert!(unused.is_empty(), "the consumer's policy allows what nobody does: {unused:#?}");

    let (forbidden, unused) = compare(&deployment, &["OperatorPolicyArn"], &asked);
    assert!(forbidden.is_empty(), "a command does what its policy does not allow: {forbidden:#?}");
    // Calls that SQS makes on behalf of the caller who moves messages.
    let on_behalf = ["sqs:DeleteMessage", "sqs:SendMessage"];
    let unused: Vec<_> =
        unused.into_iter().filter(|it| !on_behalf.iter().any(|action| it.starts_with(action))).collect();
    assert!(unused.is_empty(), "the operators' policy allows what no command does: {unused:#?}");

    let (forbidden, unused) = compare(&deployment, &["ApplyPolicyArn"], &applied);
    assert!(forbidden.is_empty(), "definition apply does what its policy does not allow: {forbidden:#?}");
    assert!(unused.is_empty(), "the policy of definition apply allows what it does not do: {unused:#?}");

    let (forbidden, unused) = compare(&deployment, &["ReaderPolicyArn"], &served);
    assert!(forbidden.is_empty(), "serve does what its policy does not allow: {forbidden:#?}");
    assert!(unused.is_empty(), "the policy of serve allows what it does not do: {unused:#?}");
    let (forbidden, unused) = compare(&deployment, &["ReaderPolicyArn"], &served_persons);
    let is_of_persons = |it: &String| it.contains("listener_level_reports") || it.ends_with(" of listeners");
    assert!(!forbidden.is_empty() && forbidden.iter().all(is_of_persons), "{forbidden:#?}, {unused:#?}");
    served_persons.extend(served);
    let (forbidden, unused) = compare(&deployment, &["ReaderPolicyArn", "PersonalReaderPolicyArn"], &served_persons);
    assert!(forbidden.is_empty(), "serve --personal does what its policies do not allow: {forbidden:#?}");
    assert!(unused.is_empty(), "the policy of serve --personal allows what it does not do: {unused:#?}");

    let (forbidden, unused) = compare(&deployment, &["ReplayPolicyArn"], &replayed);
    assert!(forbidden.is_empty(), "replay does what its policy does not allow: {forbidden:#?}");
    // Needed when a file of the archive cannot be read, an answer was lost, or a batch had very many days.
    let rare =
        ["s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject on curated", "s3:ListBucketMultipartUploads"];
    // Needed to bring back files, batches and claims that were set aside, of which there are none here.
    let of_aside = [
        "on incoming/",
        "s3:PutObject on archive",
        "s3:PutObject on quarantine",
        "s3:GetObject on quarantine",
        "s3:GetObjectTagging on quarantine",
        "s3:GetObjectVersionTagging on quarantine",
        "s3:PutObjectTagging",
        "s3:ListMultipartUploadParts",
        "sqs:SendMessage",
        "-music_streams_ledger",
    ];
    let is_rare =
        |it: &str| rare.iter().any(|action| it.starts_with(action)) || of_aside.iter().any(|right| it.contains(right));
    let unused: Vec<_> = unused.into_iter().filter(|it| !is_rare(it)).collect();
    // It reads the archive once manifests have expired, or to rebuild.
    assert!(unused.is_empty(), "the policy of replay allows what it does not do: {unused:#?}");
}

/// Renames the resources of this deployment to those of the first one.
fn generalized(calls: BTreeSet<Call>, deployment: &Deployment, first: Option<&Deployment>) -> BTreeSet<Call> {
    let Some(first) = first else { return calls };
    let name = |resource: String| resource.replace(&deployment.bucket, &first.bucket);
    calls.into_iter().map(|(action, resource, key)| (action, name(resource), key)).collect()
}
