//! The environment of the process: what templates and files of variables do to it, mended before anybody reads it.
//!
//! A template that has no value for a variable sets it to nothing, which means the same as not setting it; and a file with a value in
//! it has a line feed at its end, which nobody sees and no service understands.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What the names of variables begin with that anything in this program reads.
const READ: [&str; 4] = ["MUSIC_STREAMS_", "AWS_", "OTEL_", "RUST_LOG"];

/// Begins the process anew without the variables that are set and empty, if there are any. The error names a variable or an argument
/// with a line end in it.
pub fn settle() -> Result<(), String> {
    let is_read = |name: &OsStr| READ.iter().any(|read| name.as_encoded_bytes().starts_with(read.as_bytes()));
    let mut empty = Vec::new();
    for (name, value) in std::env::vars_os().filter(|(name, _)| is_read(name)) {
        let bytes = value.as_encoded_bytes();
        if bytes.is_empty() {
            empty.push(name);
        } else if bytes.contains(&b'\n') || bytes.contains(&b'\r') {
            // Not the value: it may be a secret.
            return Err(format!("the variable {} has a line end in its value; take it away", name.display()));
        }
    }
    for argument in std::env::args_os().skip(1) {
        if argument.as_encoded_bytes().ends_with(b"\n") || argument.as_encoded_bytes().ends_with(b"\r") {
            return Err(format!("the argument {argument:?} has a line end behind it; take it away"));
        }
    }
    if empty.is_empty() {
        return Ok(());
    }
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let mut arguments = std::env::args_os();
    let mut again = Command::new(program);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    again.args(arguments);
    empty.iter().for_each(|name| {
        again.env_remove(name);
    });
    // Only a failure comes back.
    Err(format!("cannot begin anew without the variables that are empty: {}", again.exec()))
}
