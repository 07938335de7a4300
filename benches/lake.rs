//! `make bench-table`, second part: the time and the bytes of each entry of the table's log, over thousands of batches.
//!
//! The batches are made up: each has a record, a manifest and one small file, written beforehand. The consumer's own
//! code then brings them into the table one by one, as it does after each batch. The services are those of
//! AWS_ENDPOINT_URL.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use music_streams::aws::Clients;
use music_streams::aws::s3::{Bucket, Upload};
use music_streams::batch::manifest::{CuratedFile, Manifest};
use music_streams::calendar::date_text;
use music_streams::compute::{Dictionary, Rows, curated};
use music_streams::formats::delta::schema::Column;
use music_streams::formats::delta::stats::Stats;
use music_streams::formats::parquet;
use music_streams::lake::Lake;
use music_streams::layout;
use music_streams::ledger::Ledger;
use music_streams::plan::Plan;
use music_streams::plan::columns::SOURCE_COLUMN;
use music_streams::protocol::{BatchNumber, Registry, State};
use music_streams::reference::References;

/// Batches of a day: windows of five minutes.
const BATCHES_PER_DAY: u64 = 288;
const FIRST_DAY: i32 = 19_899;
const CONCURRENT_WRITES: usize = 32;

struct Made {
    bucket: Bucket,
    ledger: Ledger,
    file: Vec<u8>,
    stats: Stats,
    columns: Vec<Column>,
}

impl Made {
    async fn write(&self, batch: BatchNumber) {
        let day = date_text(FIRST_DAY + (batch / BATCHES_PER_DAY) as i32);
        let key = layout::curated_key(&day, batch, 1);
        self.bucket.put(&key, self.file.clone(), "application/octet-stream").await.unwrap();
        let manifest = Manifest {
            batch,
            opened_at: jiff::Timestamp::UNIX_EPOCH,
            definition: None,
            objects: Vec::new(),
            uploads: vec![Upload { key: key.clone(), upload_id: String::new(), part_etags: Vec::new() }],
            curated: vec![CuratedFile { key, bytes: self.file.len() as u64, stats: self.stats.clone() }],
            columns: self.columns.clone(),
            delta_files: Vec::new(),
            rejected: Default::default(),
            traceparent: None,
        };
        let json = serde_json::to_vec(&manifest).unwrap();
        self.bucket.put(&layout::manifest_key(batch), json, "application/json").await.unwrap();
        self.ledger.close(batch, State::Done, "{}").await.unwrap();
    }
}

#[tokio::main]
async fn main() {
    // As cargo asks every benchmark.
    let Some(bucket) = std::env::args().skip(1).find(|argument| !argument.starts_with('-')) else { return };
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let batches = number("BATCHES", 10_000);
    let prefix = std::env::var("MUSIC_STREAMS_TABLE_PREFIX").unwrap_or_default();
    let clients = Clients::from_environment().await;
    let plan = Plan::built_in().unwrap();
    let mut dictionary = Dictionary::of(Arc::clone(&plan), Arc::new(References::empty(&plan)));
    dictionary.add_source("incoming/x.csv");
    let mut file = curated::new_file(&plan).unwrap();
    let rows = Rows::with_capacity(&plan, 0);
    file.append(curated::encode_rows(&rows, dictionary.names()).unwrap()).unwrap();
    let file = file.finish().unwrap();
    let made = Made {
        bucket: Bucket::new(clients.s3.clone(), bucket),
        ledger: Ledger::new(clients.dynamodb.clone(), &prefix, "bench".into()),
        stats: Stats::of(&parquet::summary(&file).unwrap(), SOURCE_COLUMN),
        columns: plan.curated.iter().map(|curated| Column::of(&curated.column)).collect(),
        file,
    };
    futures::stream::iter(1..=batches).for_each_concurrent(CONCURRENT_WRITES, |batch| made.write(batch)).await;

    let mut lake = Lake::new(made.bucket.clone(), made.ledger.clone());
    let mut times = Vec::new();
    println!("| batches | median ms an entry | 99 % | MB of the log |\n|---|---|---|---|");
    for batch in 1..=batches {
        let begun = Instant::now();
        let added = lake.advance(&Registry { last: batch, ..Registry::default() }).await.unwrap();
        assert_eq!(added, 1);
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        if batch.is_multiple_of(batches / 10) {
            times.sort_by(f64::total_cmp);
            let log: Vec<(String, u64)> = made.bucket.list(layout::CURATED_LOG).await.unwrap();
            let bytes: u64 = log.iter().map(|(_, bytes)| bytes).sum();
            let (median, most) = (times[times.len() / 2], times[times.len() * 99 / 100]);
            println!("| {batch} | {median:.1} | {most:.1} | {:.1} |", bytes as f64 / 1e6);
            times.clear();
        }
    }
    let begun = Instant::now();
    let mut cold = Lake::new(made.bucket.clone(), made.ledger.clone());
    assert!(cold.refresh().await.unwrap());
    assert_eq!(cold.snapshot().files().count() as u64, batches);
    println!("opened cold in {:.2} s", begun.elapsed().as_secs_f64());
}
