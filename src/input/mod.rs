//! From an object to its rows, good and rejected.

pub mod audit_reader;
pub mod block;
pub mod cleanse;
pub mod file;
mod lines;
pub mod rejects;
#[cfg(test)]
mod tests;
pub mod time;
