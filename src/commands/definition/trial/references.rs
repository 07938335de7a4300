//! References: the files that are looked up, from a folder of this machine.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::commands::definition::name;
use crate::commands::definition::trial::TrialError;
use crate::commands::definition::trial::seen::Seen;
use crate::commands::format::printable;
use crate::plan::Plan;
use crate::reference::References;
use crate::reference::references::Remark;

/// The outcome of looking up in a reference.
#[derive(Debug, Serialize)]
pub(super) struct LookedUp {
    pub(super) reference: String,
    pub(super) file: String,
    /// The keys of the file.
    pub(super) keys: u64,
    /// The rows whose key the file has.
    pub(super) rows_found: u64,
    /// Problems of its lines.
    pub(super) remarks: Vec<String>,
}

impl LookedUp {
    /// Returns the outcomes of all references of a plan.
    pub(super) fn all(plan: &Plan, references: &References, seen: &Seen) -> Vec<Self> {
        let written = plan.definition.references.iter().enumerate();
        let looked_up = written.map(|(index, reference)| LookedUp {
            reference: reference.name.clone(),
            file: reference.file.clone(),
            keys: references.keys_of(index),
            rows_found: seen.found[index],
            remarks: remarks(references, index),
        });
        looked_up.collect()
    }
}

/// Returns the folder of the references: the one that was given; or the one in a folder of data, as in a bucket; or the
/// one beside the definition.
pub(super) fn folder(given: Option<&Path>, data: &[PathBuf], definition: &Path) -> PathBuf {
    let in_data = || data.iter().map(|folder| folder.join("reference")).find(|folder| folder.is_dir());
    given.map(Path::to_owned).or_else(in_data).unwrap_or_else(|| definition.with_file_name("reference"))
}

/// Reads the references of a plan, and judges them as a consumer does at its first start.
pub(super) async fn read(plan: &Plan, folder: &Path, limit_bytes: usize) -> Result<References, TrialError> {
    let mut files = Vec::new();
    for reference in &plan.definition.references {
        let path = folder.join(&reference.file);
        let opened = tokio::fs::File::open(&path).await;
        files.push(opened.map_err(|error| {
            let (path, name) = (name(&path), &reference.name);
            TrialError::References(match error.kind() {
                std::io::ErrorKind::NotFound => format!(
                    "{path} is not there, and the definition looks it up as '{name}'; \
                     put it there, or name the folder that has it: --reference FOLDER"
                ),
                _ => format!("{path}, which the definition looks up as '{name}', cannot be read: {error}"),
            })
        })?);
    }
    let in_folder = |error: String| format!("{}: {error}", printable(&folder.display().to_string()));
    let references = References::parse_within(limit_bytes, plan, files)
        .await
        .map_err(|error| TrialError::References(in_folder(error.to_string())))?;
    references.check_alone(plan).map_err(|error| {
        let all = (0..plan.definition.references.len()).flat_map(|index| remarks(&references, index));
        let remarks: String = all.map(|remark| format!("\n  {}", printable(&remark))).collect();
        TrialError::References(in_folder(format!("{error}{remarks}")))
    })?;
    Ok(references)
}

/// Describes the problems of a reference's lines.
fn remarks(references: &References, reference: usize) -> Vec<String> {
    let of_file = references.remarks.iter().filter(|((of, _), _)| *of == reference);
    let words = of_file.map(|((_, problem), Remark { lines, first, is_skipped })| {
        let what = if *is_skipped { "not used" } else { "not used whole" };
        let first: Vec<String> = first.iter().map(ToString::to_string).collect();
        let (first, more) = (first.join(", "), if *lines > first.len() as u64 { ", …" } else { "" });
        match lines {
            1 => format!("line {first} is {what}: {problem}"),
            _ => format!("{lines} lines are {what}: {problem} (lines {first}{more})"),
        }
    });
    words.collect()
}
