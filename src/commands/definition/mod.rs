//! `music-streams definition`: a definition checked, tried on files, explained, shown in its canonical form, described
//! to editors, and put in force; and the template of its pipeline. Only `apply` needs AWS.
//!
//! * `mod.rs`: the commands but for these
//! * `trial`: `try`
//! * `explain`: `explain`
//! * `template`: `template`
//! * `apply`: `apply`
//!
//! Covered by tests/definition, `apply` by tests/pipeline.

mod apply;
mod explain;
mod template;
mod trial;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use crate::aws::Clients;
use crate::aws::error::AwsError;
use crate::commands::definition::apply::Apply;
use crate::commands::definition::explain::Explain;
use crate::commands::definition::template::Template;
use crate::commands::definition::trial::{TrialError, Try};
use crate::commands::format::{Format, print, printable, table};
use crate::definition::Definition;
use crate::definition::change::{Change, Class, changes};
use crate::definition::keys::limits::MAX_FILE_BYTES;
use crate::definition::problems::Problems;
use crate::definition::schema::schema;
use crate::plan::{Plan, PlanError};

/// The arguments of `music-streams definition`.
#[derive(Debug, Args)]
pub struct DefinitionQuery {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Check a definition, and show every problem with its line
    ///
    /// The exit status is 0 if it is good, and 1 if not. Needs no AWS.
    Check(Check),
    /// Try a definition on files, and show what becomes of them: rows, rejected rows and items of the reports
    ///
    /// Does what a batch would do, up to the figures. Writes nothing, and needs no AWS. The exit status is 0 if all
    /// files can be counted, and 1 if not.
    Try(Try),
    /// Explain what follows from a definition: columns, tables, what their items cost, and each report as SQL
    ///
    /// The SQL is for DuckDB, on the curated files, and gives what the items show. Without a file it is the built-in
    /// definition. Needs no AWS.
    Explain(Explain),
    /// Print the CloudFormation template of a pipeline with a definition: bucket, queues, tables, policies
    ///
    /// Without a file it is that of the built-in definition, which deploy/template.yaml is too. Needs no AWS.
    Template(Template),
    /// Print a definition in its canonical form: without comments and defaults, as its digest is made
    ///
    /// Two files with the same canonical form mean the same. Without a file it is the built-in definition.
    Show(Show),
    /// Put a definition in force
    ///
    /// Compares it with the one in force, shows what each change means, looks at the tables, and asks. Consumers take
    /// it up with their next batch; none of them has to stop. No batch has rows of two definitions.
    Apply(Apply),
    /// Print the JSON Schema of definitions, for editors
    ///
    /// Put it beside a definition whose first line is: #:schema definition.schema.json
    Schema,
}

#[derive(Debug, Args)]
struct Check {
    /// The definition
    file: PathBuf,

    /// Compare with another definition, such as the one in force, and show what each change means
    ///
    /// The exit status is 1 if a change cannot be made.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,

    /// Text for people or JSON for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Args)]
struct Show {
    /// The definition; the built-in one by default
    file: Option<PathBuf>,
}

/// An error of `music-streams definition`.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// The file cannot be read.
    #[error("{file} cannot be read: {error}")]
    Unreadable {
        /// The file.
        file: String,
        /// The reason.
        error: std::io::Error,
    },
    /// The definition has problems, which were printed.
    #[error("{file} has {count} problem{}", if *count == 1 { "" } else { "s" })]
    Problems {
        /// The file.
        file: String,
        /// Their number.
        count: usize,
    },
    /// The definition has problems.
    #[error("{0}")]
    Bad(String),
    /// A change cannot be made; all of them were printed.
    #[error("{0} of the changes cannot be made")]
    Refused(usize),
    /// The definition cannot be carried out.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A call failed.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The definition could not be tried, or not on all files.
    #[error(transparent)]
    Trial(#[from] TrialError),
}

impl DefinitionQuery {
    /// Checks, tries, explains, shows, describes definitions, or puts one in force, which is what the clients are for.
    pub async fn run(&self, clients: impl Future<Output = Clients>) -> Result<(), DefinitionError> {
        match &self.what {
            What::Apply(apply) => apply.run(&clients.await).await,
            What::Check(check) => check.run(),
            What::Try(trial) => trial.run().await,
            What::Explain(explain) => explain.run(),
            What::Template(template) => template.run(),
            What::Show(show) => {
                let definition = good_or_built_in(show.file.as_deref())?;
                // What is printed ends with a line end of its own.
                print(definition.canonical().trim_end());
                Ok(())
            }
            What::Schema => {
                print(&format!("{:#}", schema()));
                Ok(())
            }
        }
    }
}

impl Check {
    fn run(&self) -> Result<(), DefinitionError> {
        let before = self.against.as_deref().map(good).transpose()?;
        let definition = match read(&self.file)? {
            Ok(definition) => definition,
            Err(problems) => {
                print(&match self.format {
                    Format::Table => described(&problems, &self.file),
                    Format::Json => format!("{:#}", json!({ "problems": problems.shown })),
                });
                return Err(DefinitionError::Problems { file: name(&self.file), count: problems.all });
            }
        };
        // Some patterns of times can be written, and not carried out.
        Plan::of(definition.clone())?;
        let changes = before.map(|before| changes(&before, &definition));
        let digest = definition.digest();
        print(&match (self.format, &changes) {
            (Format::Json, None) => format!("{:#}", json!({ "problems": [], "digest": digest })),
            (Format::Json, Some(changes)) => {
                format!("{:#}", json!({ "problems": [], "digest": digest, "changes": changes }))
            }
            (Format::Table, None) => summary(&self.file, &definition),
            (Format::Table, Some(changes)) if changes.is_empty() => {
                format!("{}\nit means the same as the other one", summary(&self.file, &definition))
            }
            (Format::Table, Some(changes)) => {
                format!("{}\n\n{}", summary(&self.file, &definition), changes_text(changes))
            }
        });
        refused(&changes.unwrap_or_default())
    }
}

/// Writes changes for people.
fn changes_text(changes: &[Change]) -> String {
    let row = |change: &Change| vec![change.part.clone(), class(change.class).to_owned(), change.meaning.to_owned()];
    table(&["PART", "CHANGE", "MEANING"], &[], changes.iter().map(row))
}

/// Returns an error if some of the changes cannot be made.
fn refused(changes: &[Change]) -> Result<(), DefinitionError> {
    match changes.iter().filter(|change| change.class == Class::Refused).count() {
        0 => Ok(()),
        refused => Err(DefinitionError::Refused(refused)),
    }
}

/// The word for the consequence of a change.
fn class(class: Class) -> &'static str {
    match class {
        Class::Compatible => "compatible",
        Class::OldDaysStay => "old days stay",
        Class::Refused => "refused",
    }
}

/// Says what a definition without problems has.
fn summary(file: &Path, definition: &Definition) -> String {
    let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    format!(
        "{} is good: {}, {}, {}\ndigest {}",
        name(file),
        count(definition.columns.len(), "column"),
        count(definition.references.len(), "reference"),
        count(definition.reports.len(), "report"),
        definition.digest()
    )
}

/// The name of a file, as it is safe for a terminal.
fn name(file: &Path) -> String {
    printable(&file.display().to_string())
}

/// Writes problems as it is safe for a terminal.
fn described(problems: &Problems, file: &Path) -> String {
    problems.describe(&name(file)).lines().map(printable).collect::<Vec<_>>().join("\n")
}

/// Reads a definition, which may have problems.
fn read(file: &Path) -> Result<Result<Definition, Problems>, DefinitionError> {
    let mut bytes = Vec::new();
    // One byte more than a definition may have: the parser says that it is too much.
    let read = File::open(file).and_then(|opened| opened.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|error| DefinitionError::Unreadable { file: name(file), error })?;
    Ok(Definition::parse(&bytes))
}

/// Reads a definition without problems.
fn good(file: &Path) -> Result<Definition, DefinitionError> {
    read(file)?.map_err(|problems| DefinitionError::Bad(described(&problems, file)))
}

/// Reads a definition without problems; the built-in one if no file is given.
fn good_or_built_in(file: Option<&Path>) -> Result<Definition, DefinitionError> {
    let built_in_problems = |problems: Problems| DefinitionError::Bad(problems.describe("the built-in definition"));
    file.map_or_else(|| Definition::built_in().map_err(built_in_problems), good)
}
