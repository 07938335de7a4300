//! Chaos: three real consumers on a real local stack, behind an unreliable network, while files keep arriving.
//! Consumers are killed, stopped, frozen for longer than their lease, and crash by themselves at every step of the
//! protocol. The stack freezes, and its database is killed. Some files can never be read, some never deleted, and
//! report items are overwritten by hand. Then all of it ends, one consumer is started, what was set aside is brought
//! back, and every figure must be that of an independent fold; and so must be the table of the curated files, of which
//! every version that ever was is replayed.
//!
//! Run by `make chaos SECONDS=120 SEED=1`. The seed determines the events; their timing depends on the machine too.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs
)]

mod permissions;
mod proxy;
mod recorder;
#[path = "../support/refusing.rs"]
mod refusing;
mod stack;
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::AttributeValue;
use proxy::Proxy;
use refusing::{Answer, Refusing};
use stack::Stack;
use support::*;

/// The places in the program at which it can be made to crash.
const STEPS: [&str; 26] = [
    "table decided",
    "table entry written",
    "table checkpoint written",
    "compacted",
    "opened",
    "claims written",
    "claimed",
    "prepared",
    "manifest written",
    "committed",
    "item written",
    "lists written",
    "upserted",
    "upload completed",
    "published",
    "copied",
    "deleted",
    "archived",
    "recorded",
    "finished",
    "acknowledged",
    "abandoned",
    "cleared away",
    "adopted",
    "swept",
    "given up",
];
/// Files are compacted as soon as there are enough of a day, and checkpoints are made often.
const HASTE: &str = "settled at once=return;checkpoint every fourth=return";
const CONSUMERS: usize = 3;
const LEASE: Duration = Duration::from_secs(3);
const ROWS: usize = 40;

/// The number of events of each kind.
#[derive(Debug, Default)]
struct Tally {
    files: usize,
    kills: usize,
    crashes: BTreeMap<&'static str, usize>,
    frozen: usize,
    stopped: usize,
    failed_starts: usize,
    stack_frozen: usize,
    database_killed: usize,
    refused_files: usize,
    held_files: usize,
    foreign_items: usize,
    definitions: usize,
}

/// A consumer that is started again whenever it ends.
struct Slot {
    consumer: Consumer,
    thaw: Option<Instant>,
}

struct Chaos {
    deployment: Deployment,
    s3_and_sqs: Proxy,
    dynamodb: Proxy,
    random: Random,
    /// Keys and eTags of the uploaded files.
    uploaded: Vec<(String, String)>,
    /// Commands under way that put another definition in force. The service may fail them.
    applying: Vec<tokio::task::JoinHandle<bool>>,
    tally: Tally,
}

impl Chaos {
    /// Starts a consumer that will crash at the step with the fewest crashes so far.
    fn start(&mut self) -> Slot {
        let (crashes, random) = (&self.tally.crashes, &mut self.random);
        let of = |step: &&str| crashes.get(step).copied().unwrap_or(0);
        // The rarest, or any of the rarest half: one that is hard to get to must not keep the others waiting.
        let mut steps = STEPS;
        steps.sort_by_key(of);
        let step = if random.below(3) == 0 { steps[0] } else { steps[random.below(STEPS.len() as u64 / 2) as usize] };
        let failpoints = format!("{step}={}%panic;{HASTE}", [100, 50, 20][random.below(3) as usize]);
        let environment = [
            ("FAILPOINTS", failpoints.as_str()),
            ("AWS_ENDPOINT_URL", self.s3_and_sqs.url.as_str()),
            ("AWS_ENDPOINT_URL_DYNAMODB", self.dynamodb.url.as_str()),
        ];
        let flags =
            ["--window", "1s", "--lease", "3s", "--max-objects", "12", "--sweep-interval", "4s", "--sweep-age", "15s"];
        Slot { consumer: self.deployment.consumer_in(&flags, &environment), thaw: None }
    }

    /// Counts the way in which a consumer ended.
    fn bury(&mut self, slot: &mut Slot) -> bool {
        let Some(status) = slot.consumer.ended() else { return false };
        match status.signal() {
            Some(6) => {
                let log = slot.consumer.log();
                let step = STEPS.into_iter().find(|step| log.contains(&format!("failpoint {step} panic")));
                *self
                    .tally
                    .crashes
                    .entry(step.unwrap_or_else(|| panic!("it panics by itself:\n{log}")))
                    .or_default() += 1;
            }
            Some(9) => self.tally.kills += 1,
            None if status.success() => self.tally.stopped += 1,
            // Nothing of the stack could be reached when it started.
            None => self.tally.failed_starts += 1,
            Some(signal) => panic!("ended by signal {signal}:\n{}", slot.consumer.log()),
        }
        true
    }

    /// Lets one thing go wrong with one consumer.
    fn trouble(&mut self, slot: &mut Slot) {
        if let Some(thaw) = slot.thaw {
            if Instant::now() >= thaw {
                slot.consumer.signal("-CONT");
                slot.thaw = None;
            }
            return;
        }
        match self.random.below(240) {
            0..3 => slot.consumer.signal("-KILL"),
            3 => {
                slot.consumer.signal("-STOP");
                slot.thaw = Some(Instant::now() + LEASE + Duration::from_millis(self.random.below(4000)));
                self.tally.frozen += 1;
            }
            4 => slot.consumer.signal("-TERM"),
            _ => {}
        }
    }

    /// Uploads a file, announced once or several times. Some files are broken.
    async fn upload(&mut self, all: &mut Vec<Row>, broken: &mut usize) {
        let number = self.tally.files;
        let kind = match self.random.below(24) {
            0 => "refused",
            1 => "held",
            _ => "part",
        };
        self.tally.refused_files += usize::from(kind == "refused");
        self.tally.held_files += usize::from(kind == "held");
        let key = format!("incoming/{kind} {number}+é.csv");
        let rows = rows(0x1000_0000 + number as u64, ROWS);
        let mut content = csv_of(&rows).into_bytes();
        if self.random.below(12) == 0 {
            content = gzip(&content);
            content.truncate(content.len() - 9);
            *broken += 1;
        } else {
            all.extend(rows);
        }
        self.deployment.put(&key, content).await;
        // It may be archived by now.
        let head = self.deployment.clients.s3.head_object().bucket(&self.deployment.bucket).key(&key).send().await;
        if let Ok(etag) = head.map(|head| head.e_tag.unwrap().trim_matches('"').to_owned()) {
            self.uploaded.push((key, etag));
            if self.random.below(4) == 0 {
                self.announce(self.uploaded.len() - 1).await;
            }
        }
        self.tally.files += 1;
    }

    /// Overwrites a report item by hand.
    async fn spoil(&mut self) {
        let genre = ["jazz", "pop", "fado"][self.random.below(3) as usize];
        let put = self.deployment.clients.dynamodb.put_item().table_name(genres(&self.deployment));
        let put = put.set_item(Some(foreign_item(genre)));
        // The database may be dead just now.
        self.tally.foreign_items += usize::from(put.send().await.is_ok());
    }

    /// Puts another definition in force, which counts the same.
    fn apply(&mut self) {
        let deployment = &self.deployment;
        let file = std::env::temp_dir().join(format!("{}-{}.toml", deployment.bucket, self.applying.len()));
        let shown = program(&["definition", "show"], &[]).stdout;
        let hours = 24 + self.random.below(1000);
        std::fs::write(&file, shown.replacen("\n", &format!("\nfuture = \"{hours}h\"\n"), 1)).unwrap();
        let (bucket, prefix) = (deployment.bucket.clone(), deployment.table_prefix.clone());
        self.applying.push(tokio::task::spawn_blocking(move || {
            let environment =
                [("MUSIC_STREAMS_BUCKET", bucket.as_str()), ("MUSIC_STREAMS_TABLE_PREFIX", prefix.as_str())];
            let ended = program(&["definition", "apply", file.to_str().unwrap(), "--yes"], &environment);
            std::fs::remove_file(file).unwrap();
            ended.success
        }));
    }

    /// Announces a file once more, in every form.
    async fn announce(&self, number: usize) {
        let (key, etag) = &self.uploaded[number];
        for body in announcements(&self.deployment, key, etag) {
            self.deployment.send(body).await;
        }
    }
}

fn genres(deployment: &Deployment) -> String {
    format!("{}genre_level_reports", deployment.table_prefix)
}

fn foreign_item(genre: &str) -> Item {
    let text = |value: &str| AttributeValue::S(value.to_owned());
    [("track_genre", text(genre)), ("report_date", text("2024-06-25")), ("note", text("by hand"))]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
}

fn environment_of(deployment: &Deployment) -> [(&str, &str); 3] {
    [
        ("MUSIC_STREAMS_BUCKET", &deployment.bucket),
        ("MUSIC_STREAMS_QUEUE_URL", &deployment.queue_url),
        ("MUSIC_STREAMS_TABLE_PREFIX", &deployment.table_prefix),
    ]
}

/// Asserts that other engines read these rows from the table of the curated files, and that no version of its log had a
/// row twice, or a batch without all of its files.
fn assert_table(deployment: &Deployment, rows: &[Row]) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |arguments: [&str; 2]| {
        let mut python = std::process::Command::new(root.join(".tools/checks/bin/python"));
        let output = python.arg(root.join("tests/table.py")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<serde_json::Value>>()
    };
    let versions = read(["log", &deployment.bucket]);
    let wrong: Vec<_> = versions.iter().filter(|version| version["wrong"] != serde_json::json!([])).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
    rows.iter().for_each(|row| *expected.entry(row.date).or_default() += 1);
    let facts = read(["facts", &deployment.bucket]).pop().unwrap();
    let engines = facts.as_object().unwrap();
    for (engine, facts) in engines {
        assert_eq!(facts["filtered"], serde_json::json!(expected), "{engine}");
        assert_eq!(facts["digest"], engines["log"]["digest"], "{engine}");
    }
    let files = versions.last().unwrap()["files"].as_u64().unwrap();
    let compacted = versions.windows(2).filter(|two| two[1]["files"].as_u64() < two[0]["files"].as_u64()).count();
    println!(
        "{} versions of the table, {compacted} of them by compactions, the last one of {files} files: each batch once",
        versions.len()
    );
}

/// Repairs what was refused, and brings back what was set aside, as an operator would.
async fn bring_everything_back(deployment: &Deployment) {
    for item in deployment.scan("genre_level_reports").await {
        if item.contains_key("note") {
            let delete = deployment.clients.dynamodb.delete_item().table_name(genres(deployment));
            let delete = delete.key("track_genre", item["track_genre"].clone());
            delete.key("report_date", item["report_date"].clone()).send().await.unwrap();
        }
    }
    let environment = environment_of(deployment);
    let listed = program(&["aside", "--format", "json"], &environment);
    let listed: Vec<serde_json::Value> = serde_json::from_str(&listed.stdout).unwrap();
    println!("{} things were set aside", listed.len());
    let retried = program(&["aside", "--retry"], &environment);
    assert!(retried.success, "{}{}", retried.stdout, retried.stderr);
    deployment.settled_within(Duration::from_secs(300)).await;
    deployment.registry_is_empty().await;
    let listed = program(&["aside", "--format", "json"], &environment);
    assert_eq!(listed.stdout.trim(), "[]", "everything came back");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_every_row_counts_once() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (seconds, seed) = (number("CHAOS_SECONDS", 120), number("CHAOS_SEED", 1));
    let mut stack = Stack::new();
    let endpoint = |name: &str| std::env::var(name).unwrap();
    let refusing = Refusing::before(&endpoint("AWS_ENDPOINT_URL")).await;
    refusing.refuse(|request| {
        let is_unreadable = request.gets("/incoming/refused");
        let unreadable = is_unreadable.then_some(Answer::S3(403, "AccessDenied"));
        unreadable.or_else(|| request.refuses_to_delete("incoming/held", "AccessDenied"))
    });
    let mut chaos = Chaos {
        deployment: Deployment::new("chaos").await,
        s3_and_sqs: Proxy::to(&refusing.url, seed).await,
        dynamodb: Proxy::to(&endpoint("AWS_ENDPOINT_URL_DYNAMODB"), seed + 1).await,
        random: Random(seed),
        uploaded: Vec::new(),
        applying: Vec::new(),
        tally: Tally::default(),
    };
    let (mut all, mut broken) = (Vec::new(), 0);
    let mut slots: Vec<Slot> = (0..CONSUMERS).map(|_| chaos.start()).collect();
    let (start, mut said) = (Instant::now(), Instant::now());
    while start.elapsed() < Duration::from_secs(seconds) {
        // Now and then nothing new comes for some seconds, but announcements of what came long ago.
        let is_lull = start.elapsed().as_secs() % 15 > 10;
        match chaos.random.below(9) {
            0..3 if !is_lull => chaos.upload(&mut all, &mut broken).await,
            0 if !chaos.uploaded.is_empty() => {
                let number = chaos.random.below(chaos.uploaded.len() as u64) as usize;
                chaos.announce(number).await;
            }
            _ => {}
        }
        for slot in &mut slots {
            if chaos.bury(slot) {
                *slot = chaos.start();
            } else {
                chaos.trouble(slot);
            }
        }
        if chaos.random.below(100) == 0 {
            chaos.spoil().await;
        }
        if chaos.random.below(40) == 0 {
            chaos.apply();
        }
        match chaos.random.below(300) {
            0 | 1 => {
                stack.freeze(1, Duration::from_millis(2000 + chaos.random.below(5000))).await;
                chaos.tally.stack_frozen += 1;
            }
            2 => {
                stack.restart_database().await;
                chaos.tally.database_killed += 1;
            }
            _ => tokio::time::sleep(Duration::from_millis(150)).await,
        }
        if said.elapsed() > Duration::from_secs(20) {
            said = Instant::now();
            println!("  {:>5.0} s: {:?}", start.elapsed().as_secs_f64(), chaos.tally);
        }
    }

    // Everything ends, one is started, and there is no more trouble.
    for slot in &slots {
        slot.consumer.signal("-KILL");
    }
    drop(slots);
    for applied in std::mem::take(&mut chaos.applying) {
        chaos.tally.definitions += usize::from(applied.await.unwrap());
    }
    let faults = chaos.s3_and_sqs.faults() + chaos.dynamodb.faults();
    let crashes: usize = chaos.tally.crashes.values().sum();
    println!(
        "seed {seed}, {seconds} s: {} kills and crashes, {faults} network faults, {:?}",
        chaos.tally.kills + crashes,
        chaos.tally
    );
    let deployment = chaos.deployment;
    // One more batch meets every item that somebody has written.
    let last = rows(0x2000_0000, 600);
    deployment.put("incoming/last.csv", csv_of(&last)).await;
    all.extend(last);
    chaos.tally.files += 1;
    let alone = Instant::now();
    let flags = ["--sweep-interval", "5s", "--sweep-age", "1s", "--lease", "3s"];
    let consumer = deployment.consumer_in(&flags, &[("FAILPOINTS", HASTE)]);
    // Permanent refusals hold up nothing else.
    let is_left = |key: &String| !key.contains("/refused") && !key.contains("/held");
    eventually("all other files are moved", Duration::from_secs(900), async || {
        !deployment.keys("incoming/").await.iter().any(is_left)
    })
    .await;
    deployment.registry_is_empty().await;
    bring_everything_back(&deployment).await;
    consumer.stop();
    let compacted = program(&["compact"], &environment_of(&deployment));
    assert!(compacted.success, "{}{}", compacted.stdout, compacted.stderr);
    println!("one consumer brought it to its end in {:.0} s", alone.elapsed().as_secs_f64());

    Expected::of(&all).assert_reported(&deployment).await;
    assert_eq!(curated_rows(&deployment, "duckdb").await, expected_rows(&all));
    assert_table(&deployment, &all);
    assert_eq!(deployment.keys("archive/").await.len() + broken, chaos.tally.files);
    assert_eq!(deployment.keys("quarantine/objects/").await.len(), 2 * broken, "each with its reason");
    assert_eq!(deployment.messages_in(&deployment.dead_letter_queue_url).await, 0);
    assert!(seconds < 30 || chaos.tally.definitions > 0, "no definition came into force");
    println!("{} files, {} rows: none lost, none counted twice", chaos.tally.files, all.len());
}

/// Rolling deployments: new tasks start beside old ones, which are asked to stop once the new ones are ready, while
/// files keep arriving. With ROLLING_FROM, every other deployment is of the program at that path, so that an older
/// version and this one work together.
#[tokio::test(flavor = "multi_thread")]
async fn rolling_deployments_lose_and_double_nothing() {
    const TASKS: usize = 2;
    const DEPLOYMENTS: u64 = 10;
    let deployment = Deployment::new("rolling").await;
    let other = std::env::var("ROLLING_FROM").unwrap_or(env!("CARGO_BIN_EXE_music-streams").to_owned());
    let programs = [other.as_str(), env!("CARGO_BIN_EXE_music-streams")];
    let start = |round: u64| -> Vec<Consumer> {
        let flags = ["--window", "1s", "--max-objects", "6"];
        (0..TASKS).map(|_| deployment.consumer_of(programs[round as usize % 2], &flags, &[])).collect()
    };
    let mut all = Vec::new();
    let mut files = 0;
    let mut upload = async |count: usize, pause: Duration| {
        for _ in 0..count {
            let rows = rows(0x3000_0000 + files, 60);
            deployment.put(&format!("incoming/{files} +é.csv"), csv_of(&rows)).await;
            all.extend(rows);
            files += 1;
            tokio::time::sleep(pause).await;
        }
    };
    let mut old = start(0);
    let mut slowest_stop = Duration::ZERO;
    for round in 1..=DEPLOYMENTS {
        upload(8, Duration::from_millis(40 + 17 * round)).await;
        let new = start(round);
        upload(4, Duration::from_millis(60)).await;
        for consumer in &new {
            consumer.logged("\"ready\"").await;
        }
        upload(6, Duration::from_millis(50 + 13 * round)).await;
        for consumer in old {
            let asked = Instant::now();
            // With status 0, or this fails.
            consumer.stop();
            slowest_stop = slowest_stop.max(asked.elapsed());
        }
        old = new;
    }
    deployment.settled().await;
    deployment.registry_is_empty().await;
    old.into_iter().for_each(Consumer::stop);
    deployment.assert_clean().await;
    Expected::of(&all).assert_reported(&deployment).await;
    assert_eq!(curated_rows(&deployment, "duckdb").await, expected_rows(&all));
    assert_eq!(deployment.keys("archive/").await.len() as u64, files);
    println!(
        "{DEPLOYMENTS} deployments of {TASKS} tasks, {files} files, {} rows: none lost, none counted twice; \
         stopped within {:.1} s",
        all.len(),
        slowest_stop.as_secs_f64()
    );
}

/// The owner of a committed batch dies at each of its steps in turn.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_consumers_committed_batch_is_finished_within_the_lease_and_ten_seconds() {
    let deployment = Deployment::new("recovery").await;
    let mut all = Vec::new();
    let steps = [
        "committed",
        "item written",
        "lists written",
        "upserted",
        "upload completed",
        "copied",
        "deleted",
        "archived",
        "recorded",
    ];
    for (seed, step) in (0..).zip(steps) {
        let mut dying = deployment.consumer_in(&["--window", "1s"], &[("FAILPOINTS", &format!("{step}=panic"))]);
        dying.logged("ready").await;
        let rows = rows(0x2000_0000 + seed, 300);
        deployment.put(&format!("incoming/{seed}.csv"), csv_of(&rows)).await;
        all.extend(rows);
        dying.end().await;
        let death = Instant::now();
        let heir = deployment.consumer(&["--window", "1s"]);
        deployment.registry_is_empty().await;
        let recovered = death.elapsed();
        assert!(deployment.keys("incoming/").await.is_empty(), "after {step}");
        heir.stop();
        println!("died at {step:?}: finished by another after {:.1} s", recovered.as_secs_f64());
        assert!(recovered < LEASE + Duration::from_secs(10), "{recovered:?} after {step}");
    }
    deployment.process_all().await;
    deployment.assert_clean().await;
    Expected::of(&all).assert_reported(&deployment).await;
}
