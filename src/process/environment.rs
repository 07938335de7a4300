//! The environment of the process, cleaned before anything reads it.
//!
//! A deployment template without a value for a variable sets it to the empty string, which must mean the same as not
//! setting it. A value that was read from a file may end in an invisible line feed, which no service understands.
//! Covered by `tests/process.rs`.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Prefixes of the variables that this program and its libraries read.
const READ: [&str; 4] = ["MUSIC_STREAMS_", "AWS_", "OTEL_", "RUST_LOG"];

/// Restarts the process without the variables that are set to the empty string, if there are any. The error names a
/// variable or an argument that contains a line end.
pub fn clean() -> Result<(), String> {
    let is_read = |name: &OsStr| READ.iter().any(|read| name.as_encoded_bytes().starts_with(read.as_bytes()));
    let mut empty = Vec::new();
    for (name, value) in std::env::vars_os().filter(|(name, _)| is_read(name)) {
        let bytes = value.as_encoded_bytes();
        if bytes.is_empty() {
            empty.push(name);
        } else if bytes.contains(&b'\n') || bytes.contains(&b'\r') {
            // Not the value: it may be a secret.
            return Err(format!("the variable {} has a line end in its value; remove it", name.display()));
        }
    }
    for argument in std::env::args_os().skip(1) {
        if argument.as_encoded_bytes().ends_with(b"\n") || argument.as_encoded_bytes().ends_with(b"\r") {
            return Err(format!("the argument {argument:?} ends with a line end; remove it"));
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
    // Returns only on failure.
    Err(format!("cannot restart without the empty variables: {}", again.exec()))
}
