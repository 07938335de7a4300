//! The whole program against a real local stack: figures, duplicates, restarts, crashes, odd files, wrong settings.
//!
//! Run by `make test` (LocalStack) and `make test-ministack`; both give each test process a stack of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs
)]

mod cli;
mod edges;
mod figures;
mod health;
mod input;
mod operators;
mod queue;
mod refusals;
#[path = "../support/refusing.rs"]
mod refusing;
mod repetition;
mod replay;
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "../support/mod.rs"]
mod support;
mod sweep;
mod telemetry;
