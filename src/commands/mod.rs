//! The subcommands of `music-streams` other than `run`. Each one reads or repairs a pipeline once, prints and exits.
//!
//! A command is a struct of its arguments with one method that carries it out. All may run beside consumers at work.
//! `status`, `verify` and `report` write nothing; `aside`, `quarantine` and `dead-letters` write only with `--retry` or
//! `--redrive`.
//!
//! | file | contents |
//! |---|---|
//! | [`report`] | the figures of the report tables |
//! | [`status`] | the pipeline's state, or one object's history |
//! | [`verify`] | the audit of a day |
//! | [`replay`] | a day's reports, restored from the archive |
//! | [`compact`] | small files of the curated table, made large |
//! | [`aside`] | the list of what was set aside, and the way back |
//! | [`quarantine`] | the files that could not be counted, and the way back |
//! | [`dead_letters`] | the dead-letter queue |
//! | [`definition`] | a definition, checked and shown |
//! | [`serve`] | the page and the API |
//! | [`health`] | a question to a running consumer |
//! | [`resources`] | the arguments that several commands share: bucket and tables |
//! | [`mod@format`] | output on a terminal or as JSON |

pub mod aside;
pub mod compact;
pub mod dead_letters;
pub mod definition;
pub mod format;
pub mod health;
pub mod quarantine;
pub mod replay;
pub mod report;
pub mod resources;
pub mod serve;
pub mod status;
pub mod verify;
