//! Reference data: what is known of tracks and listeners.

pub mod catalogue;
mod check;
pub mod error;
pub mod ids;
mod lines;
mod parse;
pub mod source;

pub use catalogue::Catalogue;
pub use error::CatalogueError;
pub use source::{CatalogueSource, read_once};
