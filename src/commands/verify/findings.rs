//! The findings of an audit: differences, notes and the summary.

use indicatif::{ProgressBar, ProgressStyle};

use super::VerifyError;
use crate::commands::format::{Format, print, printable};

/// The number of differences, and of everything that was compared.
pub(super) struct Findings {
    pub(super) format: Format,
    pub(super) progress: ProgressBar,
    pub(super) differences: u64,
    pub(super) curated_rows: u64,
    pub(super) items: u64,
    pub(super) top_lists: u64,
    pub(super) batches: u64,
    pub(super) archived_files: u64,
}

impl Findings {
    pub(super) fn new(format: Format) -> Self {
        let style = ProgressStyle::with_template("{msg:<24} [{bar:40}] {bytes} of {total_bytes}, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        Findings {
            format,
            progress: ProgressBar::new(0).with_style(style),
            differences: 0,
            curated_rows: 0,
            items: 0,
            top_lists: 0,
            batches: 0,
            archived_files: 0,
        }
    }

    /// Starts the progress bar for a number of bytes to read.
    pub(super) fn begin(&self, what: String, bytes: u64) {
        self.progress.reset();
        self.progress.set_length(bytes);
        self.progress.set_message(what);
    }

    fn print(&self, line: &str) {
        self.progress.suspend(|| print(line));
    }

    /// Reports that two accounts disagree.
    pub(super) fn difference(
        &mut self,
        about: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) {
        self.differences += 1;
        let (about, expected, found) = (about.into(), expected.into(), found.into());
        self.print(&match self.format {
            Format::Table => printable(&format!("DIFFERENCE {about}: expected {expected}; found {found}")),
            Format::Json => {
                serde_json::json!({"difference": {"about": about, "expected": expected, "found": found}}).to_string()
            }
        });
    }

    /// Reports something that could not be judged.
    pub(super) fn note(&self, note: impl Into<String>) {
        let note = note.into();
        self.print(&match self.format {
            Format::Table => printable(&format!("note: {note}")),
            Format::Json => serde_json::json!({ "note": note }).to_string(),
        });
    }

    /// Prints the summary. Returns an error if there were differences.
    pub(super) fn conclude(self) -> Result<(), VerifyError> {
        self.progress.finish_and_clear();
        let Findings { differences, curated_rows, items, top_lists, batches, archived_files, .. } = self;
        match self.format {
            Format::Table => print(&format!(
                "{curated_rows} curated rows, {items} report items, {top_lists} top lists, {archived_files} archived \
                 files of {batches} batches: {}",
                if differences == 0 { "all agree".to_owned() } else { format!("{differences} differences") }
            )),
            Format::Json => print(
                &serde_json::json!({"summary": {
                    "curated_rows": curated_rows, "report_items": items, "top_lists": top_lists, "batches": batches,
                    "archived_files": archived_files, "differences": differences,
                }})
                .to_string(),
            ),
        }
        if differences == 0 { Ok(()) } else { Err(VerifyError::Differences(differences)) }
    }
}
