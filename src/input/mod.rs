//! From an object to its rows, good and rejected.

pub mod block;
pub mod cleanse;
pub mod file;
