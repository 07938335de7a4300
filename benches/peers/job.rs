//! The compute path of a batch on local files, as a job like those of its peers: `job --data DIR --out DIR` reads
//! `DIR/streams-*.csv` with the catalogue beside them and writes curated Parquet and delta files. Run by `make
//! bench-peers`.

#![allow(clippy::print_stdout, missing_docs)]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use futures::{StreamExt, TryStreamExt};
use music_streams::batch::prepare::{DELTAS_PER_FILE, room};
use music_streams::calendar::date_text;

use music_streams::compute::{self, Compute, Dictionary, Rows, Scope, curated};
use music_streams::formats::parquet::{ParquetFile, RowGroup};
use music_streams::input::file::Blocks;
use music_streams::memory::Memory;
use music_streams::plan::Plan;
use music_streams::reference::References;

/// As in the program itself.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().collect();
    let argument = |name: &str| {
        let place = arguments.iter().position(|argument| argument == name)?;
        arguments.get(place + 1).map(PathBuf::from)
    };
    // `cargo bench` calls every benchmark; this one is for `make bench-peers` alone.
    let (Some(data), Some(out)) = (argument("--data"), argument("--out")) else { return Ok(()) };
    let startup = since_start()?;
    let began = Instant::now();
    let (rows, rejected) = tokio::runtime::Runtime::new()?.block_on(job(&data, &out))?;
    let result = serde_json::json!({
        "system": "music-streams", "version": env!("CARGO_PKG_VERSION"), "startup_s": startup,
        "job_s": began.elapsed().as_secs_f64(), "rows": rows, "rejected": rejected,
    });
    println!("{result}");
    Ok(())
}

/// Seconds since whoever measures started this process.
fn since_start() -> Result<f64, Failure> {
    let Ok(started) = std::env::var("BENCH_STARTED_AT") else { return Ok(0.0) };
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() - started.parse::<f64>()?)
}

async fn job(data: &Path, out: &Path) -> Result<(u64, u64), Failure> {
    let open = |name| tokio::fs::File::open(data.join(name));
    let plan = Plan::built_in()?;
    let references = References::parse(&plan, vec![open("songs.csv").await?, open("users.csv").await?]).await?;
    let mut dictionary = Dictionary::of(Arc::clone(&plan), Arc::new(references));
    let mut compute = Compute::new(dictionary.names().clone(), Scope::Batch);
    let mut files = CuratedFiles { out, plan: Arc::clone(&plan), files: BTreeMap::new() };
    let memory = Memory::of(None);
    let row_group_rows = memory.row_group_rows(plan.row_bytes());
    let empty = || Rows::with_capacity(&plan, room(row_group_rows));
    let (mut rows, mut read, mut rejected) = (empty(), 0, 0);

    let mut inputs = Vec::new();
    for entry in std::fs::read_dir(data)? {
        inputs.push(entry?.path());
    }
    inputs.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("streams")));
    inputs.sort();
    for input in inputs {
        let key = input.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let source = dictionary.add_source(&key);
        let body = tokio::fs::File::open(&input).await?;
        let blocks = Blocks::open(body, u64::MAX, jiff::Timestamp::now(), &plan, &key).await?;
        let blocks = futures::stream::try_unfold(blocks, async |mut blocks| {
            Ok::<_, Failure>(blocks.next().await?.map(|block| (block, blocks)))
        });
        let mut parsed = compute::parse(blocks, dictionary.names().clone(), memory).boxed();
        while let Some(block) = parsed.try_next().await? {
            read += block.rows;
            rejected += block.rejected.values().sum::<u64>();
            rows.append(&block, source, &mut dictionary);
            if rows.len() >= row_group_rows {
                compute.start(std::mem::replace(&mut rows, empty()), memory.lasting()).await?;
                files.write(&mut compute, memory.row_groups_ahead(compute::cores())).await?;
            }
        }
    }
    compute.start(rows, memory.lasting()).await?;
    files.write(&mut compute, 0).await?;
    files.finish()?;

    let fold = compute.take_fold().await?;
    std::fs::create_dir_all(out.join("deltas"))?;
    let mut delta_files =
        std::pin::pin!(compute::encode_deltas(fold, dictionary.names().clone(), DELTAS_PER_FILE, memory));
    let mut number = 0;
    while let Some(bytes) = delta_files.try_next().await? {
        std::fs::write(out.join(format!("deltas/{number}.parquet")), bytes)?;
        number += 1;
    }
    Ok((read - rejected, rejected))
}

/// The Parquet files that are being written, by day.
struct CuratedFiles<'a> {
    out: &'a Path,
    plan: Arc<Plan>,
    files: BTreeMap<i32, (ParquetFile, BufWriter<File>)>,
}

impl CuratedFiles<'_> {
    async fn write(&mut self, compute: &mut Compute, at_most: usize) -> Result<(), Failure> {
        while let Some(row_groups) = compute.encoded(at_most).await? {
            for (day, row_group) in row_groups {
                self.append(day, row_group)?;
            }
        }
        Ok(())
    }

    fn append(&mut self, day: i32, row_group: RowGroup) -> Result<(), Failure> {
        if !self.files.contains_key(&day) {
            let folder = self.out.join(format!("curated/date={}", date_text(day)));
            std::fs::create_dir_all(&folder)?;
            let file = BufWriter::new(File::create(folder.join("part-1.parquet"))?);
            self.files.insert(day, (curated::new_file(&self.plan)?, file));
        }
        if let Some((parquet, file)) = self.files.get_mut(&day) {
            parquet.append(row_group)?;
            file.write_all(&parquet.take_pending())?;
        }
        Ok(())
    }

    fn finish(self) -> Result<(), Failure> {
        for (parquet, mut file) in self.files.into_values() {
            file.write_all(&parquet.finish()?)?;
            file.flush()?;
        }
        Ok(())
    }
}
