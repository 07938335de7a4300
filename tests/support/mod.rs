//! The common ground of the tests against a local AWS: a deployment of its own for each test, the real program as a
//! process, generated data, and the figures that an independent fold of that data gives.

mod eventually;
mod random;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_sqs::types::{MessageSystemAttributeName, QueueAttributeName};
use music_streams::aws::Clients;
use serde_json::json;

pub use eventually::{eventually, eventually_blocking, eventually_some};
pub use random::Random;

pub type Item = HashMap<String, AttributeValue>;

/// The time that anything may take before a test fails. Generous, as the machine may be slow; a passing test never waits
/// for all of it.
const PATIENCE: Duration = Duration::from_secs(120);

pub fn is_ministack() -> bool {
    std::env::var("MUSIC_STREAMS_TEST_STACK").expect("the tests need a local stack: run them by `make test`")
        == "ministack"
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

// ---------------------------------------------------------------------------------------------- deployment

/// A deployment of deploy/template.yaml under names of its own.
pub struct Deployment {
    pub clients: Clients,
    pub bucket: String,
    pub queue_url: String,
    pub dead_letter_queue_url: String,
    pub table_prefix: String,
}

impl Deployment {
    pub async fn new(test: &str) -> Self {
        Self::with(test, &[]).await
    }

    pub async fn with(test: &str, parameters: &[&str]) -> Self {
        is_ministack();
        let unique =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() % 1_000_000_000;
        let name = format!("{test}-{}-{unique}", std::process::id());
        let output = Command::new(root().join(".tools/stack/bin/python"))
            .arg(root().join("localstack/deploy.py"))
            .arg(&name)
            .args([format!("BucketName={name}"), format!("QueueName={name}"), format!("TablePrefix={name}-")])
            .args(parameters)
            .stderr(Stdio::inherit())
            .output()
            .expect("`make test` installs the local stack");
        assert!(output.status.success(), "deploying the template failed");
        let outputs: HashMap<String, String> = serde_json::from_slice(&output.stdout).unwrap();
        let deployment = Deployment {
            clients: Clients::from_environment().await,
            bucket: outputs["BucketName"].clone(),
            queue_url: outputs["QueueUrl"].clone(),
            dead_letter_queue_url: outputs["DeadLetterQueueUrl"].clone(),
            table_prefix: outputs["TablePrefix"].clone(),
        };
        deployment.put_catalogue().await;
        deployment
    }

    pub async fn put_catalogue(&self) {
        self.put("reference/songs.csv", songs_csv()).await;
        self.put("reference/users.csv", users_csv()).await;
    }

    pub async fn put(&self, key: &str, content: impl Into<Vec<u8>>) {
        let body = ByteStream::from(content.into());
        self.clients.s3.put_object().bucket(&self.bucket).key(key).body(body).send().await.unwrap();
    }

    pub async fn keys(&self, prefix: &str) -> Vec<String> {
        let pages = self.clients.s3.list_objects_v2().bucket(&self.bucket).prefix(prefix).into_paginator().send();
        let pages: Vec<_> = pages.try_collect().await.unwrap();
        pages.iter().flat_map(|page| page.contents()).map(|object| object.key().unwrap().to_owned()).collect()
    }

    pub async fn get(&self, key: &str) -> Vec<u8> {
        let object = self.clients.s3.get_object().bucket(&self.bucket).key(key).send().await.unwrap();
        object.body.collect().await.unwrap().to_vec()
    }

    pub async fn scan(&self, table: &str) -> Vec<Item> {
        let table = format!("{}{table}", self.table_prefix);
        let scan = self.clients.dynamodb.scan().table_name(table).consistent_read(true).into_paginator().items().send();
        scan.try_collect().await.unwrap()
    }

    pub async fn send(&self, body: impl Into<String>) {
        self.clients.sqs.send_message().queue_url(&self.queue_url).message_body(body).send().await.unwrap();
    }

    pub async fn messages_in(&self, queue_url: &str) -> u32 {
        let names = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ];
        let attributes = self.clients.sqs.get_queue_attributes().queue_url(queue_url);
        let attributes = attributes.set_attribute_names(Some(names.to_vec())).send().await.unwrap().attributes.unwrap();
        names.iter().map(|name| attributes.get(name).map_or(0, |count| count.parse::<u32>().unwrap())).sum()
    }

    /// Receives what is visible, and makes it visible again: receive counts and bodies.
    pub async fn receive(&self) -> Vec<(u32, String)> {
        let count = MessageSystemAttributeName::ApproximateReceiveCount;
        let receive =
            self.clients.sqs.receive_message().queue_url(&self.queue_url).visibility_timeout(0).wait_time_seconds(2);
        let output =
            receive.max_number_of_messages(10).message_system_attribute_names(count.clone()).send().await.unwrap();
        let of = |message: &aws_sdk_sqs::types::Message| {
            let attributes = message.attributes().unwrap();
            (attributes[&count].parse().unwrap(), message.body().unwrap().to_owned())
        };
        output.messages().iter().map(of).collect()
    }

    /// An item of the ledger.
    pub async fn ledger_item(&self, pk: &str) -> Item {
        let ledger = self.scan("music_streams_ledger").await;
        ledger.into_iter().find(|item| text(item, "pk") == pk).unwrap()
    }

    /// How many batches took a number, whatever became of them.
    pub async fn batches(&self) -> u64 {
        let registry = self.scan("music_streams_ledger").await.into_iter().find(|item| text(item, "pk") == "registry");
        registry.map_or(0, |registry| number(&registry, "last"))
    }

    /// Waits until nothing is left to do: no file is incoming, no message is queued.
    pub async fn settled(&self) {
        self.settled_within(PATIENCE).await;
    }

    pub async fn settled_within(&self, patience: Duration) {
        eventually_some("no file is incoming and no message is queued", patience, async || {
            let (files, messages) = (self.keys("incoming/").await, self.messages_in(&self.queue_url).await);
            if files.is_empty() && messages == 0 { Ok(()) } else { Err(format!("{messages} messages, {files:?}")) }
        })
        .await
    }

    /// Waits until every batch is finished or cleared away.
    pub async fn registry_is_empty(&self) {
        // It may have had two hundred.
        eventually_some("the registry is empty", 3 * PATIENCE, async || {
            let registry = self.ledger_item("registry").await;
            if registry["batches"].as_m().unwrap().is_empty() { Ok(()) } else { Err(format!("{registry:?}")) }
        })
        .await
    }

    /// What must hold when everything has stopped: nothing half done is left anywhere.
    pub async fn assert_clean(&self) {
        let ledger = self.scan("music_streams_ledger").await;
        let registry = ledger.iter().find(|item| text(item, "pk") == "registry").unwrap();
        assert_eq!(registry["batches"].as_m().unwrap().len(), 0, "a batch is left in the registry: {registry:?}");
        let uploads = self.clients.s3.list_multipart_uploads().bucket(&self.bucket).send().await.unwrap();
        // But for one of a start that was killed while it tried what it may; that is the bucket's lifecycle's.
        let keys = uploads.uploads().iter().filter_map(|upload| upload.key());
        let left: Vec<_> = keys.filter(|key| !key.contains("/check-")).collect();
        assert!(left.is_empty(), "uploads are left over: {left:?}");
        assert_eq!(self.messages_in(&self.queue_url).await, 0);
        assert_eq!(self.messages_in(&self.dead_letter_queue_url).await, 0, "a healthy message was dead-lettered");
    }

    /// From now on nothing is announced.
    pub async fn silence(&self) {
        let silence = aws_sdk_s3::types::NotificationConfiguration::builder().build();
        let configure = self.clients.s3.put_bucket_notification_configuration().bucket(&self.bucket);
        configure.notification_configuration(silence).send().await.unwrap();
    }

    /// Starts the consumer, with short times; `arguments` come last and win.
    pub fn consumer(&self, arguments: &[&str]) -> Consumer {
        self.consumer_in(arguments, &[])
    }

    /// Starts it with more in its environment.
    pub fn consumer_in(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Consumer {
        self.consumer_of(env!("CARGO_BIN_EXE_music-streams"), arguments, environment)
    }

    /// Starts the consumer that another version may be.
    pub fn consumer_of(&self, program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Consumer {
        let log = std::env::temp_dir().join(format!(
            "{}-{:x}.log",
            self.bucket,
            std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos()
        ));
        let mut command = Command::new(program);
        command
            .args(["run", "--window", "2s", "--lease", "3s", "--visibility-timeout", "10s", "--poll-wait", "1s"])
            .args(arguments)
            .env("MUSIC_STREAMS_QUEUE_URL", &self.queue_url)
            .env("MUSIC_STREAMS_BUCKET", &self.bucket)
            .env("MUSIC_STREAMS_TABLE_PREFIX", &self.table_prefix)
            .env("MUSIC_STREAMS_LOG_FORMAT", "json")
            .envs(environment.iter().copied())
            .stderr(std::fs::File::create(&log).unwrap())
            .stdout(Stdio::null());
        Consumer { process: command.spawn().unwrap(), log }
    }

    /// Runs the consumer over all that is there.
    pub async fn work_off(&self) {
        let consumer = self.consumer(&[]);
        self.settled().await;
        consumer.stop();
    }
}

/// A running consumer; killed when dropped.
pub struct Consumer {
    process: Child,
    log: PathBuf,
}

impl Consumer {
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.process.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Its exit status, once it has ended.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.process.try_wait().unwrap()
    }

    /// Waits for a line in the log.
    pub async fn logged(&self, text: &str) {
        eventually(format!("the log has {text:?}"), PATIENCE, async || self.log().contains(text)).await;
    }

    /// Waits until it has ended by itself, and returns its status.
    pub async fn end(&mut self) -> std::process::ExitStatus {
        eventually_some("the consumer ends", PATIENCE, async || self.ended().ok_or("it runs")).await
    }

    /// Sends SIGTERM. It must end with status 0 within its time.
    pub fn stop(mut self) {
        self.signal("-TERM");
        let status = eventually_blocking("the consumer stops", Duration::from_secs(30), || self.ended());
        assert!(status.success(), "{status}");
    }

    /// Sends SIGKILL: a crash.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- the consumer's log\n{}", self.log());
        }
        let _ = std::fs::remove_file(&self.log);
    }
}

/// What a command said, and how it ended.
pub struct Ended {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command to its end.
pub fn program(arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_music-streams"))
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { success: output.status.success(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Curated rows as DuckDB, pyarrow or Polars sees them; each row as text, sorted.
pub async fn curated_rows(deployment: &Deployment, reader: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    for (index, key) in deployment.keys("curated/").await.iter().enumerate() {
        std::fs::write(folder.path().join(format!("{index}.parquet")), deployment.get(key).await).unwrap();
    }
    let output = Command::new(root().join(".tools/checks/bin/python"))
        .arg(root().join("tests/readers.py"))
        .args(["rows", reader])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// The same rows from the data they were made of.
pub fn expected_rows(rows: &[Row]) -> Vec<String> {
    let songs = songs();
    let line = |row: &Row| {
        let csv = csv_of(std::slice::from_ref(row));
        let mut fields = csv.lines().nth(1).unwrap().split(',');
        let (user, track, time) = (fields.next().unwrap(), fields.next().unwrap(), fields.next().unwrap());
        let (name, genre, duration) =
            songs.get(row.track as usize).map_or((String::new(), String::new(), String::new()), |song| {
                (song.name.clone(), song.genres.join(";"), song.duration_ms.to_string())
            });
        format!("{user}|{track}|{time}|{name}|{genre}|{duration}")
    };
    let mut lines: Vec<_> = rows.iter().map(line).collect();
    lines.sort();
    lines
}

/// The event that S3 would send, in each of the forms in which it can arrive.
pub fn announcements(deployment: &Deployment, key: &str, etag: &str) -> Vec<String> {
    let encoded: String = key
        .bytes()
        .map(|byte| match byte {
            b' ' => "+".to_owned(),
            b'/' | b'.' | b'-' | b'0'..=b'9' | b'a'..=b'z' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect();
    let direct = json!({"Records": [{
        "eventVersion": "2.9", "eventName": "ObjectCreated:Put", "eventTime": "2026-01-01T00:00:00Z", "brandNewField": [1],
        "s3": {"bucket": {"name": deployment.bucket}, "object": {"key": encoded, "size": 1, "eTag": etag, "sequencer": "00"}},
    }]}).to_string();
    let in_sns = json!({"Type": "Notification", "TopicArn": "arn:aws:sns:x", "Message": direct}).to_string();
    let event_bridge = json!({"version": "0", "source": "aws.s3", "detail-type": "Object Created", "detail": {
        "bucket": {"name": deployment.bucket}, "object": {"key": key, "size": 1, "etag": etag},
    }})
    .to_string();
    vec![direct, in_sns, event_bridge]
}

pub async fn etag_of(deployment: &Deployment, key: &str) -> String {
    let head = deployment.clients.s3.head_object().bucket(&deployment.bucket).key(key).send().await.unwrap();
    head.e_tag.unwrap().trim_matches('"').to_owned()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn text<'a>(item: &'a Item, name: &str) -> &'a str {
    item.get(name).and_then(|value| value.as_s().ok()).map_or("", String::as_str)
}

pub fn number(item: &Item, name: &str) -> u64 {
    item[name].as_n().unwrap().parse().unwrap()
}

// ---------------------------------------------------------------------------------------------- data

pub struct Song {
    pub track_id: String,
    pub name: String,
    pub artists: String,
    pub duration_ms: u64,
    pub genres: Vec<&'static str>,
}

const GENRES: [&str; 7] = ["ambient", "blues", "fado", "jazz", "k-pop", "pop", "reggae"];
const TRACKS: u64 = 400;
const CATALOGUED_TRACKS: u64 = 380;
const USERS: u64 = 900;
const CATALOGUED_USERS: u64 = 850;

fn track_id(track: u64) -> String {
    format!("{track:05}abcdefghijkmnopq")
}

pub fn songs() -> Vec<Song> {
    let mut random = Random(1);
    let song = |track| {
        let genres: BTreeSet<_> =
            (0..=random.below(2)).map(|_| GENRES[random.below(GENRES.len() as u64) as usize]).collect();
        let name = match track % 10 {
            0 => format!("Say \"{track}\", twice"),
            1 => format!("夜に {track}"),
            _ => format!("Song {track}"),
        };
        let (artists, duration_ms) = (format!("Artist {};Guest", track % 60), 60_000 + random.below(300_000));
        Song { track_id: track_id(track), name, artists, duration_ms, genres: genres.into_iter().collect() }
    };
    (0..CATALOGUED_TRACKS).map(song).collect()
}

fn country(user: u64) -> &'static str {
    if user > CATALOGUED_USERS { "unknown" } else { ["Peru", "Japan", "Ghana"][(user % 3) as usize] }
}

fn songs_csv() -> String {
    let mut csv = String::from(",track_id,artists,album_name,track_name,popularity,duration_ms,explicit,track_genre\n");
    for song in songs() {
        for genre in &song.genres {
            let (id, name) = (&song.track_id, song.name.replace('"', "\"\""));
            csv += &format!("0,{id},{},\"Album, the\",\"{name}\",1,{},False,{genre}\n", song.artists, song.duration_ms);
        }
    }
    csv
}

fn users_csv() -> String {
    let mut csv = String::from("user_id,user_name,user_age,user_country,created_at\n");
    for user in 1..=CATALOGUED_USERS {
        csv += &format!("{user},Name {user},30,{},2024-01-01\n", country(user));
    }
    csv
}

/// A listen.
#[derive(Clone)]
pub struct Row {
    pub user: u64,
    pub track: u64,
    pub date: &'static str,
    pub second: u64,
}

/// Listens of two days, few tracks and listeners having most of them.
pub fn rows(seed: u64, count: usize) -> Vec<Row> {
    let mut random = Random(seed);
    let row = |_| {
        let (a, b) = (random.below(TRACKS), random.below(TRACKS));
        let date = if random.below(10) == 0 { "2024-06-24" } else { "2024-06-25" };
        Row { user: 1 + random.below(USERS), track: a.min(b), date, second: random.below(86_400) }
    };
    (0..count).map(row).collect()
}

pub fn csv_of(rows: &[Row]) -> String {
    let mut csv = String::from("user_id,track_id,listen_time\n");
    for Row { user, track, date, second } in rows {
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        csv += &format!("{user},{},{date} {hour:02}:{minute:02}:{second:02}\n", track_id(*track));
    }
    csv
}

// ---------------------------------------------------------------------------------------------- expected figures

#[derive(Default)]
struct Figures {
    listens: u64,
    listening_ms: u64,
    members: HashSet<u64>,
}

/// The reports that the listens must give: a plain fold, by key and date.
#[derive(Default)]
pub struct Expected {
    tracks: BTreeMap<(String, String), Figures>,
    genres: BTreeMap<(String, String), Figures>,
    listeners: BTreeMap<(String, String), Figures>,
}

impl Expected {
    pub fn of(rows: &[Row]) -> Self {
        let songs = songs();
        let mut expected = Expected::default();
        for row in rows {
            let song = songs.get(row.track as usize);
            let ms = song.map_or(0, |song| song.duration_ms);
            let count = |report: &mut BTreeMap<_, Figures>, id: String, member| {
                let figures = report.entry((id, row.date.to_owned())).or_default();
                figures.listens += 1;
                figures.listening_ms += ms;
                figures.members.insert(member);
            };
            count(&mut expected.tracks, track_id(row.track), row.user);
            count(&mut expected.listeners, row.user.to_string(), row.track);
            for genre in song.map_or(vec!["unknown"], |song| song.genres.clone()) {
                count(&mut expected.genres, genre.to_owned(), row.user);
            }
        }
        expected
    }

    /// Every item of the tables is as expected, and there is no other.
    pub async fn assert_reported(&self, deployment: &Deployment) {
        let songs: HashMap<_, _> = songs().into_iter().map(|song| (song.track_id.clone(), song)).collect();
        let tracks = deployment.scan("track_level_reports").await;
        compare("track_level_reports", "track_id", "unique_users", &self.tracks, &tracks);
        let genres = deployment.scan("genre_level_reports").await;
        compare("genre_level_reports", "track_genre", "unique_users", &self.genres, &genres);
        let listeners = deployment.scan("listener_level_reports").await;
        compare("listener_level_reports", "user_id", "unique_tracks", &self.listeners, &listeners);
        for item in &listeners {
            assert_eq!(text(item, "user_country"), country(text(item, "user_id").parse().unwrap()));
        }
        let mut lists = BTreeMap::new();
        for item in &tracks {
            let song = songs.get(text(item, "track_id"));
            assert_eq!(text(item, "track_name"), song.map_or("", |song| &song.name));
            assert_eq!(text(item, "artists"), song.map_or("", |song| &song.artists));
            let genres = song.map_or(vec!["unknown"], |song| song.genres.clone());
            assert_eq!(text(item, "track_genre"), genres.join(";"));
            for genre in genres {
                add_to_list(&mut lists, &format!("tracks#track_genre#{genre}"), "track_id", item);
            }
            add_to_list(&mut lists, "tracks", "track_id", item);
        }
        genres.iter().for_each(|item| add_to_list(&mut lists, "genres", "track_genre", item));
        listeners.iter().for_each(|item| add_to_list(&mut lists, "listeners", "user_id", item));
        for list in lists.values_mut() {
            list.sort_by_key(|(id, listens)| (std::cmp::Reverse(*listens), id.clone()));
            list.truncate(100);
        }
        assert_eq!(deployment.top_lists().await, lists);
    }
}

/// The entries of each list and day: id and listens.
pub type TopLists = BTreeMap<(String, String), Vec<(String, u64)>>;

fn add_to_list(lists: &mut TopLists, list: &str, id: &str, item: &Item) {
    let list = lists.entry((list.to_owned(), text(item, "report_date").to_owned())).or_default();
    list.push((text(item, id).to_owned(), number(item, "total_listens")));
}

impl Deployment {
    /// Reads the top lists, those that have entries.
    pub async fn top_lists(&self) -> TopLists {
        let mut lists = TopLists::new();
        for item in self.scan("top_lists").await {
            let id = |entry: &Item| {
                let id = ["track_id", "user_id"].into_iter().find(|name| entry.contains_key(*name));
                text(entry, id.unwrap_or("track_genre")).to_owned()
            };
            let entries = item["entries"].as_l().unwrap().iter().map(|entry| entry.as_m().unwrap());
            let entries: Vec<_> = entries.map(|entry| (id(entry), number(entry, "total_listens"))).collect();
            if !entries.is_empty() {
                lists.insert((text(&item, "list").to_owned(), text(&item, "report_date").to_owned()), entries);
            }
        }
        lists
    }
}

fn compare(table: &str, key: &str, distinct: &str, expected: &BTreeMap<(String, String), Figures>, items: &[Item]) {
    assert_eq!(items.len(), expected.len(), "items of {table}");
    for item in items {
        let id = (text(item, key).to_owned(), text(item, "report_date").to_owned());
        let figures = expected.get(&id).unwrap_or_else(|| panic!("{table} has an item {id:?} of no row"));
        assert_eq!(number(item, "total_listens"), figures.listens, "total_listens of {id:?} in {table}");
        // Exact: the stored decimal is compared as milliseconds.
        let stored: f64 = item["total_listening_time"].as_n().unwrap().parse().unwrap();
        assert_eq!((stored * 1000.0).round() as u64, figures.listening_ms, "total_listening_time of {id:?} in {table}");
        let (members, found) = (figures.members.len() as u64, number(item, distinct));
        let slack = if members < 100 { 0 } else { members / 50 };
        assert!(found.abs_diff(members) <= slack, "{distinct} of {id:?} in {table}: {found}, not {members}");
        if distinct == "unique_users" {
            let average: f64 = item["avg_listening_time_per_user"].as_n().unwrap().parse().unwrap();
            assert!(
                (average - stored / found as f64).abs() < 0.001,
                "avg_listening_time_per_user of {id:?} in {table}"
            );
        }
    }
}
