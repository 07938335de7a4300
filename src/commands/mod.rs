//! The commands for people.

pub mod aside;
pub mod dead_letters;
pub mod format;
pub mod health;
pub mod quarantine;
pub mod replay;
pub mod report;
pub mod status;
pub mod verify;
