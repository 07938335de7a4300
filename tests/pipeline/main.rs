//! The whole program against a real local stack.
//!
//! Run by `make test` (LocalStack) and `make test-ministack`; both give each test process a stack of its own.
//!
//! | file | behaviour |
//! |---|---|
//! | `figures` | reports and curated rows are those of an independent fold |
//! | `repetition` | duplicates, restarts, crashes and repeated uploads count once |
//! | `input` | odd, damaged and hostile files |
//! | `edges` | files, catalogues and object versions that could change figures unnoticed |
//! | `queue` | custody of messages, dead letters |
//! | `sweep` | files without a notification |
//! | `table` | the table of the curated files, as other engines read it |
//! | `refusals` | what a service refuses permanently is set aside and comes back |
//! | `replay` | reports restored from the archive, as the operations guide says |
//! | `operators` | audit, overview, history, dead letters |
//! | `definitions` | definitions come into force; other events than listens |
//! | `cli` | answers, wrong settings, missing permissions |
//! | `reading` | command line, API and page: figures over days, and what is kept |
//! | `health` | answers to an orchestrator |
//! | `telemetry` | metrics and traces as a receiver of OTLP gets them |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs
)]

mod cli;
mod definitions;
mod edges;
mod figures;
mod health;
mod input;
mod operators;
mod queue;
mod reading;
mod receiver;
mod refusals;
#[path = "../support/refusing.rs"]
mod refusing;
mod repetition;
mod replay;
mod scene;
#[path = "../support/served.rs"]
mod served;
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "../support/mod.rs"]
mod support;
mod sweep;
mod table;
mod telemetry;
