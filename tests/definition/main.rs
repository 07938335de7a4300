//! Definitions: the examples, every rule with its message, the canonical form, changes, the schema for editors and the
//! commands. Run by `make test`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod changes;
mod commands;
mod explain;
mod generate;
#[path = "../hostile/definition.rs"]
mod hostile;
mod properties;
#[path = "../support/definition_rules.rs"]
mod rules;
mod template;
mod trial;
mod tutorials;
mod written;
