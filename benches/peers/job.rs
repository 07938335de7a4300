//! The preparation of a batch on local files, as a job like those of its peers: `job --data DIR --out DIR` reads
//! `DIR/streams-*.csv` with the catalogue beside them and writes curated Parquet and delta files. Run by `make
//! bench-peers`. With `--definition FILE` it makes the reports of another definition of the same listens.

#![allow(clippy::print_stdout, missing_docs)]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use futures::TryStreamExt;
use music_streams::batch::prepare::{
    DELTAS_PER_FILE, Destination, Folded, ObjectOutcome, Preparation, PreparationLimits, PrepareError, Subject,
};
use music_streams::calendar::date_text;
use music_streams::compute::{self, Scope, curated};
use music_streams::definition::Definition;
use music_streams::formats::parquet::{ParquetFile, RowGroup};
use music_streams::memory::Memory;
use music_streams::object::{ObjectEvent, ObjectId, Version};
use music_streams::plan::Plan;
use music_streams::reference::References;
use music_streams::telemetry::progress::Progress;
use tokio_util::sync::CancellationToken;

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
    let plan = match argument("--definition") {
        None => Plan::built_in()?,
        Some(file) => Arc::new(Plan::of(Definition::parse(&std::fs::read(file)?).map_err(|it| it.describe("it"))?)?),
    };
    let (rows, rejected) = tokio::runtime::Runtime::new()?.block_on(job(plan, &data, &out))?;
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

async fn job(plan: Arc<Plan>, data: &Path, out: &Path) -> Result<(u64, u64), Failure> {
    let open = |name| tokio::fs::File::open(data.join(name));
    let references = References::parse(&plan, vec![open("songs.csv").await?, open("users.csv").await?]).await?;
    let files = CuratedFiles { out, plan: Arc::clone(&plan), files: BTreeMap::new(), failure: None };
    let memory = Memory::of(None);
    let subject = Subject { batch: 1, opened_at: jiff::Timestamp::now(), scope: Scope::Batch };
    let limits = PreparationLimits { object_bytes: u64::MAX, report_items: usize::MAX, memory, rows: None };
    let (never, progress) = (CancellationToken::new(), Progress::default());
    let references = Arc::new(references);
    let mut preparation = Preparation::for_destination(files, plan, references, subject, limits, never, progress);

    let mut inputs = Vec::new();
    for entry in std::fs::read_dir(data)? {
        inputs.push(entry?.path());
    }
    inputs.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("streams")));
    inputs.sort();
    let (mut read, mut rejected) = (0, 0);
    for (position, input) in inputs.iter().enumerate() {
        let key = input.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let object = ObjectId { bucket: String::new(), key, version: Version::ETag(String::new()) };
        let event = ObjectEvent { object, size: 0, created_at: None };
        match preparation.add(position, &event, tokio::fs::File::open(input).await?).await? {
            ObjectOutcome::Counted { rows, rejected: of_file, .. } => {
                (read, rejected) = (read + rows, rejected + of_file)
            }
            other => return Err(format!("{}: {other:?}", input.display()).into()),
        }
    }
    let Folded { destination: files, fold, names, .. } = preparation.finish_folded().await?;
    files.finish()?;

    std::fs::create_dir_all(out.join("deltas"))?;
    let mut delta_files = std::pin::pin!(compute::encode_deltas(fold, names, DELTAS_PER_FILE, memory));
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
    /// The first failure.
    failure: Option<Failure>,
}

impl Destination for CuratedFiles<'_> {
    async fn curated(&mut self, row_groups: Vec<(i32, RowGroup)>) -> Result<(), PrepareError> {
        for (day, row_group) in row_groups {
            if self.failure.is_none() {
                self.failure = self.append(day, row_group).err();
            }
        }
        Ok(())
    }

    /// The list is left out, as the peers write none.
    async fn rejected(&mut self, _: Vec<u8>) -> Result<(), PrepareError> {
        Ok(())
    }
}

impl CuratedFiles<'_> {
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
        self.failure.map_or(Ok(()), Err)?;
        for (parquet, mut file) in self.files.into_values() {
            file.write_all(&parquet.finish()?)?;
            file.flush()?;
        }
        Ok(())
    }
}
