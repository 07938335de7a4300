//! Reference data: the files under `reference/` whose lines add attributes to the rows.
//!
//! All of them together are the **catalogue**. It is loaded from the bucket, plain or gzip, kept in memory, and loaded
//! again when an eTag changes. A batch sees one catalogue from its first row to its last.
//!
//! Lines are judged as rows are: an unusable line is skipped and counted by its problem, and the log names the first
//! ones. Of several lines with the same key the first one counts; only the values of an attribute with many are
//! collected from all lines of a key.
//!
//! A damaged catalogue would falsify every later figure. A file is therefore refused if it has no key, if more than
//! half of its lines are unusable, or if it lacks more than half of the keys of the one before it ([`error::Refusal`]);
//! the last good catalogue stays in use. An operator who means it uploads the file with the metadata `accept=as-is`.
//!
//! Everything is bounded: the memory of the catalogue, the lengths of its texts, and the values of a key.
//!
//! | file | content |
//! |---|---|
//! | [`references`] | the catalogue in memory |
//! | [`keys`] | the keys of references, which are the first codes of a column; the hot path |
//! | [`values`] | attributes by code |
//! | [`texts`] | many texts in one allocation |
//! | `parse` | the files, line by line |
//! | `lines` | a file read by the places of its columns |
//! | `check` | the refusal of a damaged catalogue |
//! | [`source`] | loading by eTag, and the state in the ledger |
//! | [`error`] | errors and reasons for a refusal |

mod check;
pub mod error;
pub mod keys;
mod lines;
mod parse;
pub mod references;
pub mod source;
pub mod texts;
pub mod values;

pub use error::CatalogueError;
pub use parse::MAX_MANY;
pub use references::References;
pub use source::{CatalogueSource, read_once};

use crate::definition::Reference;

/// Returns the key of a reference's file in the bucket.
pub fn file_key(reference: &Reference) -> String {
    format!("reference/{}", reference.file)
}
