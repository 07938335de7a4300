//! The same question again, whenever the figures change.

use std::io::IsTerminal;
use std::time::Duration;

use super::{Query, ReportError, Said};
use crate::commands::format::print;
use crate::process::log;
use crate::reading::reader::Reader;

/// Clears a terminal, and goes to its beginning.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

/// Prints an answer, and its last line on standard error.
pub(super) fn print_once(said: &Said, is_quiet: bool) {
    print(&said.text);
    if !is_quiet {
        log::line(&said.remark);
    }
}

/// Prints the answer whenever it changes, until Ctrl-C. On a terminal one that fails is told, and asked again.
pub(super) async fn watch(query: &Query, reader: &Reader, interval: Duration) -> Result<(), ReportError> {
    let is_terminal = std::io::stdout().is_terminal();
    let mut last = None;
    loop {
        match query.answer(reader).await {
            Ok(said) if last.as_ref() != Some(&said.figures) => {
                match is_terminal {
                    true => print(&format!("{CLEAR}{}\n{}", said.text, said.remark)),
                    false => print(&said.figures.to_string()),
                }
                last = Some(said.figures);
            }
            Ok(_) => {}
            Err(error) if is_terminal && last.is_some() => log::line(&format!("no answer: {error}")),
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = tokio::time::sleep(interval.max(Duration::from_secs(1))) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}
