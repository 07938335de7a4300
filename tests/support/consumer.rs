//! The program as a process: a running consumer, or a command that ends.

use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use super::*;

/// A running consumer; killed when dropped.
pub struct Consumer {
    pub(super) process: Child,
    pub(super) log: PathBuf,
}

impl Consumer {
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.process.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Its exit status, once it has ended.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.process.try_wait().unwrap()
    }

    /// Waits for a line in the log.
    pub async fn logged(&self, text: &str) {
        eventually(format!("the log has {text:?}"), PATIENCE, async || self.log().contains(text)).await;
    }

    /// Waits until it has ended by itself, and returns its status.
    pub async fn end(&mut self) -> std::process::ExitStatus {
        eventually_some("the consumer ends", PATIENCE, async || self.ended().ok_or("it runs")).await
    }

    /// Sends SIGTERM. It must end with status 0 within its time.
    pub fn stop(mut self) {
        self.signal("-TERM");
        let status = eventually_blocking("the consumer stops", Duration::from_secs(30), || self.ended());
        assert!(status.success(), "{status}");
    }

    /// Sends SIGKILL: a crash.
    pub fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- the consumer's log\n{}", self.log());
        }
        let _ = std::fs::remove_file(&self.log);
    }
}

/// The output and exit status of a command.
pub struct Ended {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command until it ends.
pub fn program(arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_music-streams"))
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { success: output.status.success(), stdout: text(output.stdout), stderr: text(output.stderr) }
}
