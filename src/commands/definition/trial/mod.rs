//! `music-streams definition try`: a definition tried on files of this machine, without AWS and without a network.
//!
//! The files are read, judged, looked up and folded by the code of a batch ([`crate::batch::prepare`]), so that what is
//! shown is what will happen. Only the ends differ: files in place of the bucket, and the terminal in place of tables.
//!
//! | file | content |
//! |---|---|
//! | `mod.rs` | the arguments, the errors, and the preparation |
//! | `data.rs` | the files to read, and the keys that they would have in the bucket |
//! | `references.rs` | the files that are looked up |
//! | `seen.rs` | what is kept of the rows: the first ones, and what none of them has |
//! | `items.rs` | the first items of each report |
//! | `text.rs`, `json.rs` | the answer for people and for programs |
//!
//! Covered by tests/definition.

mod data;
mod items;
mod json;
mod references;
mod seen;
mod text;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::batch::prepare::{Folded, ObjectOutcome, Preparation, PreparationLimits, PrepareError, Subject};
use crate::commands::definition::trial::data::DataFile;
use crate::commands::definition::trial::items::{ReportItems, first_items};
use crate::commands::definition::trial::references::LookedUp;
use crate::commands::definition::trial::seen::Seen;
use crate::commands::definition::{DefinitionError, good};
use crate::commands::format::{Format, print};
use crate::compute::Scope;
use crate::formats::parquet::ParquetError;
use crate::input::file::{BadObject, Recognized};
use crate::memory::Memory;
use crate::object::{ObjectEvent, ObjectId, Version};
use crate::plan::{Plan, PlanError};
use crate::reference::References;
use crate::telemetry::progress::Progress;

/// Most rows, rejected rows and items that are shown.
const MAX_SHOWN: u32 = 1_000_000;

/// The arguments of `music-streams definition try`.
#[derive(Debug, Args)]
pub(super) struct Try {
    /// The definition
    file: PathBuf,

    /// Files to try it on, or folders of them
    ///
    /// A file's key in the bucket would be its path below the folder that was given, or its name. The definition and
    /// the folder of the references are no data, wherever they lie.
    #[arg(required = true)]
    data: Vec<PathBuf>,

    /// The folder of the files that are looked up; by default the folder "reference" in a folder of data, or else
    /// beside the definition
    #[arg(long, value_name = "FOLDER")]
    reference: Option<PathBuf>,

    /// The key below incoming/ that the file would have in the bucket, for columns that are read from it
    #[arg(long)]
    key: Option<String>,

    /// Number of rows, of rejected rows for each reason, and of items of each report that are shown
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_SHOWN)))]
    #[arg(value_name = "COUNT")]
    rows: u32,

    /// Text for people or JSON for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// A reason why a definition cannot be tried.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The definition cannot be carried out.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The data cannot be found.
    #[error("{0}")]
    Data(String),
    /// The references cannot be used.
    #[error("{0}")]
    References(String),
    /// The files together are too much for a batch.
    #[error("the files together are too much for one batch, and a consumer would divide them; try fewer at a time")]
    TooMuch,
    /// The rows could not be computed.
    #[error(transparent)]
    Prepare(PrepareError),
    /// The figures could not be computed.
    #[error(transparent)]
    Figures(#[from] ParquetError),
    /// Some files cannot be counted, which was printed.
    #[error("{bad} of {all} files cannot be counted")]
    BadFiles {
        /// Their number.
        bad: usize,
        /// The number of all files.
        all: usize,
    },
}

/// A file that was tried.
struct Tried {
    file: DataFile,
    /// Its form, if its beginning could be read.
    recognized: Option<Recognized>,
    outcome: ObjectOutcome,
}

/// Everything that a trial found.
struct Trial {
    plan: Arc<Plan>,
    files: Vec<Tried>,
    references: Vec<LookedUp>,
    seen: Seen,
    /// Rejected rows, by their reason in a word.
    rejected: BTreeMap<String, u64>,
    reports: Vec<ReportItems>,
}

impl Try {
    pub(super) async fn run(&self) -> Result<(), DefinitionError> {
        let plan = Arc::new(Plan::of(good(&self.file)?).map_err(TrialError::Plan)?);
        let folder = references::folder(self.reference.as_deref(), &self.data, &self.file);
        let files = data::files(&self.data, &[&self.file, &folder], self.key.as_deref())?;
        let memory = Memory::of(None);
        let references = references::read(&plan, &folder, memory.catalogue()).await?;
        let trial = self.prepare(plan, Arc::new(references), files, memory).await?;
        print(&match self.format {
            Format::Table => text::answer(&trial),
            Format::Json => json::answer(&trial),
        });
        let (bad, all) = (trial.files.iter().filter(|file| file.problem().is_some()).count(), trial.files.len());
        if bad > 0 { Err(TrialError::BadFiles { bad, all }.into()) } else { Ok(()) }
    }

    /// Prepares the files as a batch, as often as one of them turns out bad after rows of it were used.
    async fn prepare(
        &self,
        plan: Arc<Plan>,
        references: Arc<References>,
        files: Vec<DataFile>,
        memory: Memory,
    ) -> Result<Trial, TrialError> {
        let mut spoiled = BTreeMap::new();
        let (outcomes, folded) = loop {
            match self.attempt(&plan, &references, &files, memory, &spoiled).await {
                Ok(done) => break done,
                Err(PrepareError::Spoiled { object, outcome }) => spoiled.insert(object, outcome),
                Err(PrepareError::TooLarge(bad)) if files.len() == 1 => spoiled.insert(0, ObjectOutcome::Bad(bad)),
                Err(PrepareError::TooLarge(_)) => return Err(TrialError::TooMuch),
                Err(error) => return Err(TrialError::Prepare(error)),
            };
        };
        let Folded { destination: seen, fold, names, rejected } = folded;
        let references = LookedUp::all(&plan, &references, &seen);
        let reports = first_items(fold, &names, self.rows as usize)?;
        let files = files.into_iter().zip(outcomes);
        let files = files.map(|(file, (outcome, recognized))| Tried { file, recognized, outcome }).collect();
        Ok(Trial { plan, files, references, seen, rejected, reports })
    }

    async fn attempt(
        &self,
        plan: &Arc<Plan>,
        references: &Arc<References>,
        files: &[DataFile],
        memory: Memory,
        spoiled: &BTreeMap<usize, ObjectOutcome>,
    ) -> Result<(Vec<(ObjectOutcome, Option<Recognized>)>, Folded<Seen>), PrepareError> {
        let subject = Subject { batch: 0, opened_at: jiff::Timestamp::now(), scope: Scope::Figures };
        // Those of a consumer without settings.
        let limits = PreparationLimits { object_bytes: 5 << 30, report_items: 1_000_000, memory, rows: None };
        let (seen, never) = (Seen::new(plan, self.rows as usize), CancellationToken::new());
        let mut preparation = Preparation::for_destination(
            seen,
            Arc::clone(plan),
            Arc::clone(references),
            subject,
            limits,
            never,
            Progress::default(),
        );
        let mut outcomes = Vec::with_capacity(files.len());
        for (position, file) in files.iter().enumerate() {
            let outcome = match spoiled.get(&position) {
                Some(outcome) => outcome.clone(),
                None => match tokio::fs::File::open(&file.path).await {
                    Ok(body) => preparation.add(position, &file.event(), body).await?,
                    Err(error) => ObjectOutcome::Unreadable(format!("the file cannot be read: {error}")),
                },
            };
            outcomes.push((outcome, preparation.destination().take_recognized()));
        }
        Ok((outcomes, preparation.finish_folded().await?))
    }
}

impl DataFile {
    /// The announcement of the file, were it put into a bucket.
    fn event(&self) -> ObjectEvent {
        let version = Version::ETag(String::new());
        let object = ObjectId { bucket: String::new(), key: self.key.clone(), version };
        ObjectEvent { object, size: self.size, created_at: None }
    }
}

impl Tried {
    /// The reason why the file cannot be counted.
    fn problem(&self) -> Option<String> {
        match &self.outcome {
            ObjectOutcome::Counted { .. } => None,
            ObjectOutcome::Bad(bad @ BadObject::Key(_)) => Some(format!("{bad}; --key says the key of a file")),
            ObjectOutcome::Bad(bad) => Some(bad.to_string()),
            ObjectOutcome::Gone => Some("the file is not there any more".to_owned()),
            ObjectOutcome::Unreadable(problem) => Some(problem.clone()),
        }
    }
}
