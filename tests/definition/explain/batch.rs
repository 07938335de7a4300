//! A batch of files, prepared by the program's own code: curated files in a folder, and items.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;
use music_streams::aws::item::Item;
use music_streams::batch::prepare::{
    Destination, Folded, ObjectOutcome, Preparation, PreparationLimits, PrepareError, Subject,
};
use music_streams::calendar::date_text;
use music_streams::compute::{self, Scope, curated, deltas};
use music_streams::formats::parquet::{ParquetFile, RowGroup};
use music_streams::memory::Memory;
use music_streams::object::{ObjectEvent, ObjectId, Version};
use music_streams::plan::Plan;
use music_streams::reference::References;
use music_streams::reports::figures::Key;
use music_streams::reports::item::{ReportItem, item_of};
use music_streams::telemetry::progress::Progress;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// What became of some files.
pub struct Batch {
    pub plan: Arc<Plan>,
    /// The folder of the curated files, `report_date=…` below it.
    pub curated: TempDir,
    /// The files of each day.
    pub days: BTreeMap<i32, Vec<u8>>,
    pub items: Vec<(Key, Item)>,
    pub rows: u64,
}

/// Prepares files, each of whole rows, with the files that are looked up.
pub fn prepared(plan: Arc<Plan>, references: &[Vec<u8>], files: &[Vec<u8>]) -> Batch {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let references = references.iter().map(Vec::as_slice).collect();
        let references = Arc::new(References::parse(&plan, references).await.unwrap());
        let destination = CuratedFiles { plan: Arc::clone(&plan), files: BTreeMap::new() };
        let memory = Memory::of(None);
        let subject = Subject { batch: 1, opened_at: jiff::Timestamp::now(), scope: Scope::Batch };
        let limits = PreparationLimits { object_bytes: u64::MAX, report_items: usize::MAX, memory, rows: None };
        let (never, progress) = (CancellationToken::new(), Progress::default());
        let plan_of_rows = Arc::clone(&plan);
        let mut preparation =
            Preparation::for_destination(destination, plan_of_rows, references, subject, limits, never, progress);
        let mut good = 0;
        for (position, file) in files.iter().enumerate() {
            let key = format!("incoming/{position}");
            let object = ObjectId { bucket: String::new(), key, version: Version::ETag(String::new()) };
            let event = ObjectEvent { object, size: file.len() as u64, created_at: None };
            match preparation.add(position, &event, std::io::Cursor::new(file.clone())).await.unwrap() {
                ObjectOutcome::Counted { rows, rejected, .. } => good += rows - rejected,
                other => panic!("{other:?}\n{}", String::from_utf8_lossy(file)),
            }
        }
        let Folded { destination, fold, names, .. } = preparation.finish_folded().await.unwrap();
        let mut items = Vec::new();
        let mut delta_files = std::pin::pin!(compute::encode_deltas(fold, names, 1000, memory));
        while let Some(bytes) = delta_files.try_next().await.unwrap() {
            for delta in
                deltas::decode(&bytes, &plan).unwrap_or_else(|it| panic!("{it}\n{}", plan.definition.canonical()))
            {
                let report = &plan.reports[delta.key.report];
                let item = ReportItem::default().with(&delta, report, 1, 0).unwrap();
                items.push((delta.key.clone(), item_of(report, &delta.key, &item)));
            }
        }
        let curated = tempfile::tempdir().unwrap();
        let days = destination.finish(curated.path());
        Batch { plan, curated, days, items, rows: good }
    })
}

/// The curated files that are being written, by day.
struct CuratedFiles {
    plan: Arc<Plan>,
    files: BTreeMap<i32, (ParquetFile, Vec<u8>)>,
}

impl Destination for CuratedFiles {
    async fn curated(&mut self, row_groups: Vec<(i32, RowGroup)>) -> Result<(), PrepareError> {
        for (day, row_group) in row_groups {
            let new = || (curated::new_file(&self.plan).unwrap(), Vec::new());
            let (file, bytes) = self.files.entry(day).or_insert_with(new);
            file.append(row_group).unwrap();
            bytes.extend(file.take_pending());
        }
        Ok(())
    }

    async fn rejected(&mut self, _: Vec<u8>) -> Result<(), PrepareError> {
        Ok(())
    }
}

impl CuratedFiles {
    fn finish(self, folder: &Path) -> BTreeMap<i32, Vec<u8>> {
        let finish = |(day, (file, mut bytes)): (i32, (ParquetFile, Vec<u8>))| {
            bytes.extend(file.finish().unwrap());
            let folder = folder.join(format!("report_date={}", date_text(day)));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("batch-000000000001.parquet"), &bytes).unwrap();
            (day, bytes)
        };
        self.files.into_iter().map(finish).collect()
    }
}
