//! A batch's work, part by part, on one seeded day of listens. Run by `make bench`.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../tests/support/definitions.rs"]
mod definitions;
#[path = "../tests/support/random.rs"]
mod random;

use std::hint::black_box;
use std::io::Cursor;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use music_streams::calendar::day_of;
use music_streams::compute::{Dictionary, Fold, FoldedItem, Names, Rows, curated, deltas};
use music_streams::definition::Definition;
use music_streams::input::auditor::InputFile;
use music_streams::input::block::Block;
use music_streams::input::file::Blocks;
use music_streams::intake::custody::MessageId;
use music_streams::intake::notification;
use music_streams::intake::window::{Limits, Message, Window};
use music_streams::object::{ObjectEvent, ObjectId, Version};
use music_streams::plan::Plan;
use music_streams::reference::References;
use music_streams::reports::distinct::{Distinct, Member, Members};
use music_streams::reports::item::{self, ReportItem};

use crate::random::Random;

const ROWS: usize = 200_000;
const TRACKS: usize = 20_000;
const USERS: u64 = 10_000;
/// 2024-06-25T00:00:00Z, in microseconds.
const MIDNIGHT: i64 = 1_719_273_600_000_000;

fn track_id(track: usize) -> String {
    format!("{track:022x}")
}

/// Listens of one day; half of them go to a hundredth of the tracks. With quotes, which change no value, the lines take
/// the general way.
fn csv(quoted: bool) -> String {
    let mut csv = String::from("user_id,track_id,listen_time\n");
    let mut random = Random(7);
    for _ in 0..ROWS {
        let among = if random.next().is_multiple_of(2) { TRACKS / 100 } else { TRACKS };
        let (user, track) = (1 + random.below(USERS), track_id(random.below(among as u64) as usize));
        let second = random.below(86_400);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let track = if quoted { format!("\"{track}\"") } else { track };
        csv += &format!("{user},{track},2024-06-25 {hour:02}:{minute:02}:{second:02}\n");
    }
    csv
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn plan() -> Arc<Plan> {
    Plan::built_in().unwrap()
}

fn references() -> Arc<References> {
    let song = |track| {
        let (artist, genre, duration) = (track % 3000, track % 114, 60_000 + track);
        format!("{},Song {track},Artist {artist},genre-{genre},{duration}\n", track_id(track))
    };
    let songs: String = (0..TRACKS).map(song).collect();
    let songs = format!("track_id,track_name,artists,track_genre,duration_ms\n{songs}");
    let users: String = (1..=USERS).map(|user| format!("{user},Country {}\n", user % 150)).collect();
    let users = format!("user_id,user_country\n{users}");
    let files = vec![songs.as_bytes(), users.as_bytes()];
    Arc::new(runtime().block_on(References::parse(&plan(), files)).unwrap())
}

fn an_event() -> ObjectEvent {
    let object =
        ObjectId { bucket: "b".to_owned(), key: "incoming/a.csv".to_owned(), version: Version::ETag("e".to_owned()) };
    ObjectEvent { object, size: 1000, created_at: None }
}

fn blocks(text: &str, plan: &Arc<Plan>) -> Vec<Block> {
    runtime().block_on(async {
        let (body, now) = (Cursor::new(text.to_owned()), jiff::Timestamp::now());
        let mut blocks = Blocks::open(body, u64::MAX, now, plan, "incoming/alice/a").await.unwrap();
        let mut all = Vec::new();
        while let Some(block) = blocks.next().await.unwrap() {
            all.push(block);
        }
        all
    })
}

/// The day's rows in codes.
fn rows() -> (Rows, Names) {
    let plan = plan();
    let mut dictionary = Dictionary::of(Arc::clone(&plan), references());
    let source = dictionary.add_source("incoming/a.csv");
    let mut rows = Rows::with_capacity(&plan, ROWS);
    for block in blocks(&csv(false), &plan) {
        let references = Arc::clone(dictionary.names().references());
        rows.append(&block.parse(&references), source, &mut dictionary);
    }
    assert_eq!(rows.len(), ROWS);
    (rows, dictionary.names().clone())
}

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, criterion::measurement::WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(20);
    group
}

/// What no program can be faster than: to read the text, and to copy it.
fn floors(criterion: &mut Criterion) {
    let csv = csv(false);
    let mut group = group(criterion, "floor");
    group.throughput(Throughput::Bytes(csv.len() as u64));
    group.bench_function("count line feeds", |bencher| {
        bencher.iter(|| memchr::memchr_iter(b'\n', black_box(csv.as_bytes())).count());
    });
    group.bench_function("copy", |bencher| {
        let mut copy = vec![0; csv.len()];
        bencher.iter(|| copy.copy_from_slice(black_box(csv.as_bytes())));
    });
}

fn messages(criterion: &mut Criterion) {
    let record = |number| {
        serde_json::json!({
            "eventVersion": "2.1", "eventName": "ObjectCreated:Put", "eventTime": "2026-01-02T03:04:05.678Z",
            "s3": {
                "bucket": {"name": "b"},
                "object": {"key": format!("incoming/{number}+a.csv"), "size": 1000, "eTag": "e"},
            },
        })
    };
    let body = serde_json::json!({ "Records": (0..10).map(record).collect::<Vec<_>>() }).to_string();
    let mut group = group(criterion, "messages");
    group.throughput(Throughput::Elements(10));
    group.bench_function("decode a notification of 10", |bencher| {
        bencher.iter(|| notification::admit(notification::decode(black_box(&body)), "b"));
    });

    let message = |number: u64| {
        let mut event = an_event();
        event.object.key = format!("incoming/{number}.csv");
        Message { id: MessageId(number), events: vec![event] }
    };
    let messages: Vec<Message> = (0..10_000).map(message).collect();
    let limits = Limits { objects: 20_000, bytes: u64::MAX, messages: 20_000 };
    group.throughput(Throughput::Elements(messages.len() as u64));
    group.bench_function("window of 10,000", |bencher| {
        let windows = || (Window::new(Duration::from_secs(300), limits, Duration::ZERO), messages.clone());
        let fill = |(mut window, messages): (Window, Vec<Message>)| {
            let now = Instant::now();
            messages.into_iter().for_each(|message| window.offer(message, Duration::from_secs(1), now).unwrap());
            window.close()
        };
        bencher.iter_batched(windows, fill, BatchSize::LargeInput);
    });
}

fn parsing(criterion: &mut Criterion) {
    let (plain, quoted, plan, references, runtime) = (csv(false), csv(true), plan(), references(), runtime());
    let mut group = group(criterion, "rows");
    for (name, csv) in [("plain lines to rows in codes", &plain), ("records to rows in codes", &quoted)] {
        let blocks = blocks(csv, &plan);
        group.throughput(Throughput::Bytes(csv.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| blocks.iter().map(|block| block.parse(&references).rows).sum::<u64>());
        });
    }
    for (name, csv) in [("read blocks of plain lines", &plain), ("read blocks of records", &quoted)] {
        group.throughput(Throughput::Bytes(csv.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| runtime.block_on(read_blocks(csv, &plan)));
        });
    }
    group.throughput(Throughput::Bytes(plain.len() as u64));
    group.bench_function("row by row, as the auditor reads", |bencher| {
        let read = async || {
            let (body, now) = (Cursor::new(plain.as_bytes().to_vec()), jiff::Timestamp::now());
            let mut file = InputFile::open(body, u64::MAX, now, &plan.definition, "incoming/a.csv").await.unwrap();
            while let Some(row) = file.next().await.unwrap() {
                black_box(row);
            }
        };
        bencher.iter(|| runtime.block_on(read()));
    });
}

async fn read_blocks(text: &str, plan: &Arc<Plan>) {
    let (body, now) = (Cursor::new(text.as_bytes().to_vec()), jiff::Timestamp::now());
    let mut blocks = Blocks::open(body, u64::MAX, now, plan, "incoming/alice/a").await.unwrap();
    while let Some(block) = blocks.next().await.unwrap() {
        black_box(block);
    }
}

/// Files of other definitions, as long as [`ROWS`] rows of them are.
fn dialects() -> Vec<(&'static str, Definition, String)> {
    let mut random = Random(11);
    let time = |random: &mut Random| {
        let second = random.below(86_400);
        format!("{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
    };
    let line = |random: &mut Random, row: usize| {
        let (user, track) = (random.below(USERS), random.below(TRACKS as u64));
        let (at, byte, address) = (time(random), random.below(100_000), random.below(60_000));
        match row % 4 {
            0 => format!("user_{user:06},{},2024-06-25 {at}\n", track_id(track as usize)),
            1 => format!(
                "user_{user:06}\t2024-06-25T{at}Z\tb1cfb6a1-1b2a-4ef5-b4a0-{track:012x}\tArtist {}\t\
                 f5ac1b9f-7a2e-4a3a-9f4e-{track:012x}\tA song of {track} words\n",
                track % 3000
            ),
            2 => format!(
                "2024-06-25\t{at}\tFRA{}-C1\t{byte}\t192.0.2.{}\tGET\td1.cloudfront.net\t/products/{track}/page.html\t\
                 200\thttps://www.example.com/\tMozilla/5.0%20(Windows%20NT%2010.0;%20Win64;%20x64)%20AppleWebKit\
                 /537.36\t-\t-\tHit\tU8nA6xGHHq5j_{address}==\twww.example.com\thttps\t421\t0.{:03}\t-\tTLSv1.3\t\
                 TLS_AES_128_GCM_SHA256\tHit\tHTTP/2.0\t-\t-\t{address}\t0.001\tHit\ttext/html\t{byte}\t-\t-\n",
                track % 60,
                user % 250,
                byte % 1000
            ),
            _ => player_record(track, &at, byte, user),
        }
    };
    let mut file = |kind: usize| (0..ROWS).map(|row| line(&mut random, 4 * row + kind)).collect::<String>();
    let names = "#Version: 1.0\n#Fields: date time x-edge-location sc-bytes c-ip cs-method cs(Host) cs-uri-stem \
                 sc-status cs(Referer) cs(User-Agent) cs-uri-query cs(Cookie) x-edge-result-type x-edge-request-id \
                 x-host-header cs-protocol cs-bytes time-taken x-forwarded-for ssl-protocol ssl-cipher \
                 x-edge-response-result-type cs-protocol-version fle-status fle-encrypted-fields \
                 c-port time-to-first-byte x-edge-detailed-result-type sc-content-type sc-content-len sc-range-start \
                 sc-range-end\n";
    vec![
        ("text ids", definitions::text_ids(), format!("user_id,track_id,listen_time\n{}", file(0))),
        ("history of tabs", definitions::history(), file(1)),
        ("access log", definitions::access_log(), format!("{names}{}", file(2))),
        ("lines of JSON", definitions::player_history(None), file(3)),
    ]
}

/// A record of JSON of some 690 bytes, of 23 fields.
fn player_record(track: u64, at: &str, played: u64, user: u64) -> String {
    format!(
        "{{\"ts\":\"2024-06-25T{at}Z\",\"username\":\"user_{user:06}\",\
         \"device\":{{\"platform\":\"iOS 17.{} (iPhone14,7)\"}},\
         \"ms_played\":{played},\"conn_country\":\"DE\",\"ip_addr_decrypted\":\"203.0.113.{}\",\
         \"user_agent_decrypted\":\"unknown\",\"master_metadata_track_name\":\"A song of {track} words\",\
         \"master_metadata_album_artist_name\":\"Artist {}\",\"master_metadata_album_album_name\":\"The album of {}\",\
         \"spotify_track_uri\":\"spotify:track:{track:022}\",\"episode_name\":null,\"episode_show_name\":null,\
         \"spotify_episode_uri\":null,\"reason_start\":\"trackdone\",\"reason_end\":\"trackdone\",\"shuffle\":false,\
         \"skipped\":false,\"offline\":false,\"offline_timestamp\":1719337393,\"incognito_mode\":false}}\n",
        track % 6,
        user % 250,
        track % 3000,
        track % 9000
    )
}

/// The ways through files of other definitions: cutting into blocks, and parsing.
fn parsing_dialects(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = group(criterion, "dialects");
    for (name, definition, text) in dialects() {
        let plan = Arc::new(Plan::of(definition).unwrap());
        let references = References::empty(&plan);
        group.throughput(Throughput::Elements(ROWS as u64));
        let of_blocks = blocks(&text, &plan);
        let good: usize = of_blocks.iter().map(|block| block.parse(&references).times.len()).sum();
        assert_eq!(good, ROWS, "{name}");
        group.bench_function(format!("{name}, {} bytes a row", text.len() / ROWS), |bencher| {
            bencher.iter(|| of_blocks.iter().map(|block| block.parse(&references).rows).sum::<u64>());
        });
        group.bench_function(format!("{name}, read blocks"), |bencher| {
            bencher.iter(|| runtime.block_on(read_blocks(&text, &plan)));
        });
        if name == "lines of JSON" {
            let list = format!("[{}]", text.trim_end().replace('\n', ",\n"));
            group.bench_function("a list of JSON, read blocks", |bencher| {
                bencher.iter(|| runtime.block_on(read_blocks(&list, &plan)));
            });
        }
    }
}

fn folding(criterion: &mut Criterion) {
    let (rows, names) = rows();
    let day = day_of(MIDNIGHT);
    let mut group = group(criterion, "aggregate");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("fold", |bencher| {
        bencher.iter_batched_ref(
            Fold::default,
            |fold| fold.add(day, &rows, &names, usize::MAX),
            BatchSize::PerIteration,
        );
    });
    for count in [100, 10_000] {
        let mut members = Members::default();
        members.extend(&(0..count).map(Member::of_number).collect::<Vec<_>>());
        let one = Distinct::from_bytes(&members.into_bytes()).unwrap();
        let mut other = Distinct::default();
        (count / 2..2 * count).for_each(|user| other.insert(Member::of_number(user)));
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("merge two sketches of {count}"), |bencher| {
            bencher.iter_batched_ref(|| one.clone(), |one| one.merge(&other), BatchSize::SmallInput);
        });
    }
}

fn encoding(criterion: &mut Criterion) {
    let (rows, names) = rows();
    let mut group = group(criterion, "parquet");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("encode curated rows", |bencher| {
        bencher.iter(|| {
            let mut file = curated::new_file(names.plan()).unwrap();
            file.append(curated::encode_rows(&rows, &names).unwrap()).unwrap();
            file.finish().unwrap()
        });
    });
    let mut fold = Fold::default();
    fold.add(day_of(MIDNIGHT), &rows, &names, usize::MAX);
    let plan = Arc::clone(names.plan());
    let items = |fold: Fold| fold.into_items(&plan).collect::<Vec<FoldedItem>>();
    let folded = || {
        let mut fold = Fold::default();
        fold.add(day_of(MIDNIGHT), &rows, &names, usize::MAX);
        items(fold)
    };
    let count = folded().len();
    group.throughput(Throughput::Elements(count as u64));
    group.bench_function("encode deltas", |bencher| {
        bencher.iter_batched(folded, |items| deltas::encode(items, &names).unwrap(), BatchSize::PerIteration);
    });
    let bytes = deltas::encode(items(fold), &names).unwrap();
    group.bench_function("decode deltas", |bencher| bencher.iter(|| deltas::decode(&bytes, &plan).unwrap().len()));

    // What the upsert does to each item between its read and its write.
    let deltas = deltas::decode(&bytes, &plan).unwrap();
    let batch_before: Vec<_> = deltas
        .iter()
        .map(|delta| {
            let report = &plan.reports[delta.key.report];
            item::item_of(report, &delta.key, &ReportItem::default().with(delta, report, 1, 0).unwrap())
        })
        .collect();
    group.bench_function("plan upserts", |bencher| {
        bencher.iter(|| {
            for (delta, item) in deltas.iter().zip(&batch_before) {
                let report = &plan.reports[delta.key.report];
                let stored = item::parse_item(report, item).unwrap();
                black_box(item::item_of(report, &delta.key, &stored.with(delta, report, 2, 1).unwrap()));
            }
        });
    });
}

criterion_group!(benches, floors, messages, parsing, parsing_dialects, folding, encoding);
criterion_main!(benches);
