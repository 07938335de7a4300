//! Reference data: names, genres and durations of tracks, and countries of listeners.
//!
//! The catalogue is loaded from `reference/songs.csv` and `reference/users.csv`, plain or gzip, kept in memory, and
//! loaded again when an eTag changes. A batch sees one catalogue from its first row to its last.
//!
//! Lines are judged as rows are: an unusable line is skipped and counted by its problem, and the log names the first
//! ones. Of several lines with the same key the first one counts, in both files; only genres are collected from all
//! lines of a track.
//!
//! A damaged catalogue would falsify every later figure. A file is therefore refused if it names no track or listener,
//! if more than half of its lines are unusable, or if it lacks more than half of the keys of the catalogue before it
//! ([`error::Refusal`]); the last good catalogue stays in use. An operator who means it uploads the file with the
//! metadata `accept=as-is`.
//!
//! Everything is bounded: the memory of the catalogue, the lengths of its texts, and the genres of a track.
//!
//! | file | content |
//! |---|---|
//! | [`catalogue`] | tables and lookups; the hot path |
//! | `parse` | both files, line by line |
//! | `lines` | a CSV file read by column name |
//! | [`ids`] | the grammar of track ids and user ids |
//! | `check` | the refusal of a damaged catalogue |
//! | [`references`], [`keys`], [`values`], [`texts`] | the same for any plan: keys and attributes by code |
//! | [`source`] | loading by eTag, and the state in the ledger |
//! | [`error`] | errors and reasons for a refusal |

pub mod catalogue;
mod check;
pub mod error;
pub mod ids;
pub mod keys;
mod lines;
mod parse;
pub mod references;
pub mod source;
pub mod texts;
pub mod values;

pub use catalogue::Catalogue;
pub use error::CatalogueError;
pub use parse::{SONGS_KEY, USERS_KEY};
pub use references::References;
pub use source::{CatalogueSource, read_once};
