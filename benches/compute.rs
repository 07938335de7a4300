//! The compute path of a batch, part by part, on one seeded day of listens. Run by `make bench`.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use csv_async::ByteRecord;
use music_streams::aggregate::{Dictionary, Fold, Rows};
use music_streams::catalogue::Catalogue;
use music_streams::columnar::{self, ParquetFile, Renumbering};
use music_streams::event;
use music_streams::report::{Distinct, Member};
use music_streams::row::{Columns, Row};

const ROWS: usize = 200_000;
const TRACKS: usize = 20_000;
const USERS: u64 = 10_000;
/// 2024-06-25T00:00:00Z.
const MIDNIGHT: i64 = 1_719_273_600_000_000;

/// SplitMix64, <https://prng.di.unimi.it/splitmix64.c>.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn track_id(track: usize) -> String {
    format!("{track:022x}")
}

/// Listens as user, track and second of the day; half of them go to a hundredth of the tracks.
fn listens() -> Vec<(i64, usize, i64)> {
    let mut state = 7;
    let listen = |_| {
        let among = if random(&mut state).is_multiple_of(2) { TRACKS / 100 } else { TRACKS };
        let (user, track) = (1 + random(&mut state) % USERS, random(&mut state) as usize % among);
        (user as i64, track, (random(&mut state) % 86_400) as i64)
    };
    (0..ROWS).map(listen).collect()
}

fn csv() -> String {
    let mut csv = String::from("user_id,track_id,listen_time\n");
    for (user, track, second) in listens() {
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        csv += &format!("{user},{},2024-06-25 {hour:02}:{minute:02}:{second:02}\n", track_id(track));
    }
    csv
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn catalogue() -> Catalogue {
    let mut songs = String::from("track_id,track_name,artists,track_genre,duration_ms\n");
    for track in 0..TRACKS {
        songs += &format!(
            "{},Song {track},Artist {},genre-{},{}\n",
            track_id(track),
            track % 3000,
            track % 114,
            60_000 + track
        );
    }
    let users: String = (1..=USERS).map(|user| format!("{user},Country {}\n", user % 150)).collect();
    let users = format!("user_id,user_country\n{users}");
    runtime().block_on(Catalogue::parse(songs.as_bytes(), users.as_bytes())).unwrap()
}

/// The listens as rows in codes.
fn rows(catalogue: &Catalogue) -> (Rows, Dictionary) {
    let (mut rows, mut dictionary) = (Rows::default(), Dictionary::default());
    let source = dictionary.add_source("incoming/bench.csv");
    for (user_id, track, second) in listens() {
        let row = Row { user_id, track_id: &track_id(track), listen_time: MIDNIGHT + second * 1_000_000 };
        rows.push(row, source, &mut dictionary, catalogue);
    }
    (rows, dictionary)
}

fn notifications(criterion: &mut Criterion) {
    let records: Vec<_> = (0..10)
        .map(|number| {
            serde_json::json!({"eventVersion": "2.1", "eventName": "ObjectCreated:Put", "eventTime": "2026-01-02T03:04:05.678Z",
                "s3": {"bucket": {"name": "b"}, "object": {"key": format!("incoming/{number}+a.csv"), "size": 1000, "eTag": "e"}}})
        })
        .collect();
    let body = serde_json::json!({ "Records": records }).to_string();
    let mut group = criterion.benchmark_group("notification");
    group.throughput(Throughput::Elements(10));
    group.bench_function("decode 10 records", |bencher| bencher.iter(|| event::decode(black_box(&body))));
}

fn parsing(criterion: &mut Criterion) {
    let (csv, catalogue, runtime) = (csv(), catalogue(), runtime());
    let mut group = criterion.benchmark_group("rows");
    group.throughput(Throughput::Bytes(csv.len() as u64)).sample_size(20);
    group.bench_function("parse", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let mut reader = music_streams::csv::reader(csv.as_bytes()).await.unwrap();
                let mut record = ByteRecord::new();
                let mut fields = 0;
                while reader.read_byte_record(&mut record).await.unwrap() {
                    fields += record.len();
                }
                fields
            })
        });
    });
    group.bench_function("parse, cleanse, enrich", |bencher| {
        bencher.iter(|| {
            runtime.block_on(async {
                let mut reader = music_streams::csv::reader(csv.as_bytes()).await.unwrap();
                let mut record = ByteRecord::new();
                reader.read_byte_record(&mut record).await.unwrap();
                let columns = Columns::from_header(record.iter()).unwrap();
                let (mut rows, mut dictionary) = (Rows::default(), Dictionary::default());
                while reader.read_byte_record(&mut record).await.unwrap() {
                    let field = |index| record.get(index).unwrap_or_default();
                    let row = columns.cleanse(record.len(), field, i64::MAX).unwrap();
                    rows.push(row, 0, &mut dictionary, &catalogue);
                }
                rows.len()
            })
        });
    });
}

fn folding(criterion: &mut Criterion) {
    let catalogue = catalogue();
    let (rows, dictionary) = rows(&catalogue);
    let mut group = criterion.benchmark_group("aggregate");
    group.throughput(Throughput::Elements(ROWS as u64)).sample_size(20);
    group.bench_function("fold", |bencher| {
        bencher.iter_batched_ref(
            Fold::default,
            |fold| fold.add(&rows, &dictionary, &catalogue),
            BatchSize::PerIteration,
        );
    });
    let (mut some, mut others) = (Distinct::default(), Distinct::default());
    (0..1000).for_each(|user| some.insert(Member::of_user(user)));
    (500..1500).for_each(|user| others.insert(Member::of_user(user)));
    group.throughput(Throughput::Elements(1));
    group.bench_function("merge two sketches of 1,000", |bencher| {
        bencher.iter_batched_ref(|| some.clone(), |some| some.merge(&others), BatchSize::SmallInput);
    });
}

fn encoding(criterion: &mut Criterion) {
    let catalogue = catalogue();
    let (rows, dictionary) = rows(&catalogue);
    let positions: Vec<u32> = (0..rows.len() as u32).collect();
    let mut group = criterion.benchmark_group("parquet");
    group.throughput(Throughput::Elements(ROWS as u64)).sample_size(20);
    group.bench_function("encode curated rows", |bencher| {
        let mut scratch = Renumbering::default();
        bencher.iter(|| {
            let mut file = ParquetFile::curated().unwrap();
            columnar::write_rows(&mut file, &rows, &positions, &dictionary, &catalogue, &mut scratch).unwrap();
            file.finish().unwrap()
        });
    });
    let mut fold = Fold::default();
    fold.add(&rows, &dictionary, &catalogue);
    let deltas: Vec<_> = fold.into_deltas(&dictionary, &catalogue).collect();
    group.throughput(Throughput::Elements(deltas.len() as u64));
    group.bench_function("encode deltas", |bencher| bencher.iter(|| columnar::encode_deltas(&deltas).unwrap()));
    let bytes = columnar::encode_deltas(&deltas).unwrap();
    group.bench_function("decode deltas", |bencher| bencher.iter(|| columnar::decode_deltas(&bytes).unwrap().len()));
}

criterion_group!(benches, notifications, parsing, folding, encoding);
criterion_main!(benches);
