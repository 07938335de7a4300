//! `music-streams compact`: makes large files of small ones in the table of the curated files, as consumers do between
//! batches, and deletes what no reader needs any more. Covered by tests/pipeline/table.rs.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytesize::ByteSize;
use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::aws::Clients;
use crate::calendar::{date_text, parse_day};
use crate::commands::format::print;
use crate::commands::resources::{Resources, Tables};
use crate::lake::compact::Compactor;
use crate::lake::snapshot::day_of;
use crate::lake::{Lake, LakeError};
use crate::memory::Memory;
use crate::plan::Plan;

/// Attempts at a day whose files consumers compact at the same time.
const ATTEMPTS: usize = 3;

/// The arguments of `music-streams compact`.
#[derive(Debug, Args)]
pub struct CompactQuery {
    /// Day whose files are compacted, in the definition's zone; may be given several times [default: every day]
    #[arg(long = "date", value_parser = parse_day, value_name = "YYYY-MM-DD")]
    days: Vec<i32>,

    #[command(flatten)]
    resources: Resources,

    /// Memory that the process may use [default: the limit of its container, or 2GiB]
    #[arg(long, env = "MUSIC_STREAMS_MAX_MEMORY", value_name = "SIZE")]
    max_memory: Option<ByteSize>,
}

impl CompactQuery {
    /// The pipeline's tables.
    pub fn tables(&self) -> &Tables {
        self.resources.tables()
    }

    /// Compacts the days, and prints the result of each.
    pub async fn run(&self, clients: Clients, plan: Arc<Plan>) -> Result<(), LakeError> {
        let ledger = self.resources.tables.ledger(&clients, "");
        let bucket = self.resources.bucket(&clients);
        let mut lake = Lake::new(bucket.clone(), ledger.clone());
        lake.advance(&ledger.registry().await?).await?;
        let compactor = Compactor {
            bucket,
            memory: Memory::of(self.max_memory),
            order: plan.clustering(),
            shutdown: CancellationToken::new(),
        };
        let mut days: BTreeSet<String> = self.days.iter().map(|&day| date_text(day)).collect();
        if days.is_empty() {
            days.extend(lake.snapshot().files().filter_map(|add| day_of(add).map(str::to_owned)));
        }
        let mut compacted = 0;
        for day in &days {
            compacted += usize::from(compact_day(&mut lake, &compactor, day).await?);
        }
        let vacuumed = lake.vacuum().await?;
        let version = lake.snapshot().version.map_or("no table yet".to_owned(), |version| format!("version {version}"));
        print(&format!(
            "{compacted} of {} days compacted, {version}; deleted {} files and {} log entries that no reader needs",
            days.len(),
            vacuumed.files,
            vacuumed.entries
        ));
        Ok(())
    }
}

/// Compacts a day, and prints the result. Returns false if there is nothing to gain.
async fn compact_day(lake: &mut Lake, compactor: &Compactor, day: &str) -> Result<bool, LakeError> {
    for _ in 0..ATTEMPTS {
        let compaction = lake.compaction(day, |_| true)?;
        if compaction.files.len() < 2 {
            return Ok(false);
        }
        let before: u64 = compaction.files.iter().flatten().map(|file| file.bytes).sum();
        let files: usize = compaction.files.iter().map(Vec::len).sum();
        let merged = compactor.run(&compaction).await?;
        let (into, after) = (merged.len(), merged.iter().map(|merged| merged.file.bytes).sum());
        if lake.replace(merged).await? {
            let [before, after] = [before, after].map(|bytes| ByteSize(bytes).display().si());
            print(&format!("{day}: {files} files of {before} became {into} of {after}"));
            return Ok(true);
        }
    }
    Err(LakeError::Contended(ATTEMPTS))
}
