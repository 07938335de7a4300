//! The process: what it does when nobody reads what it says, or reads no more, and when it is asked to stop before it has started.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_music-streams"));
    command.args(arguments).env_clear();
    command.envs([("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x"), ("AWS_REGION", "us-east-1")]);
    command
}

/// The consumer of an AWS that is at `endpoint` only.
fn consumer(endpoint: &str, arguments: &[&str]) -> Command {
    let queue = format!("{endpoint}/queue");
    let mut command = program(&[&["run", "--queue-url", &queue, "--bucket", "bucket"], arguments].concat());
    command.env("AWS_ENDPOINT_URL", endpoint).env("AWS_ENDPOINT_URL_SQS", endpoint);
    command
}

/// How it ends by itself.
fn end_of(process: &mut Child) -> ExitStatus {
    let started = Instant::now();
    loop {
        if let Some(status) = process.try_wait().unwrap() {
            return status;
        }
        if started.elapsed() > PATIENCE {
            process.kill().unwrap();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A pipe whose reader has gone away.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn a_reader_that_has_gone_away_is_no_failure() {
    let settings = ["check-config", "--queue-url", "https://sqs.us-east-1.amazonaws.com/1/q", "--bucket", "bucket"];
    for arguments in [&settings[..], &["--help"], &["run", "--help"], &["--version"]] {
        let mut process = program(arguments).stdout(closed_pipe()).stderr(Stdio::piped()).spawn().unwrap();
        assert!(end_of(&mut process).success(), "{arguments:?}");
        let mut said = String::new();
        process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "", "{arguments:?}");
    }
    // What is wrong is said all the same, and the status tells.
    let wrong = ["check-config", "--queue-url", "q", "--bucket", "bucket"];
    let mut process = program(&wrong).stdout(closed_pipe()).stderr(closed_pipe()).spawn().unwrap();
    assert_eq!(end_of(&mut process).code(), Some(1));
}

#[test]
fn a_disk_that_is_full_is_a_failure() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let settings = ["check-config", "--queue-url", "https://sqs.us-east-1.amazonaws.com/1/q", "--bucket", "bucket"];
    let ended = program(&settings).stdout(full).output();
    let ended = ended.unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8(ended.stderr).unwrap().contains("standard output cannot be written"));
}

#[test]
fn a_log_that_nobody_reads_holds_nothing_up() {
    // A pipe that is full from the beginning, one that is closed, and one that is read.
    let (mut reader, mut full) = std::io::pipe().unwrap();
    let filling = full.try_clone().unwrap();
    let filled = std::thread::spawn(move || {
        let mut filling = filling;
        // Blocks for ever on what has no place any more.
        let _ = filling.write_all(&vec![b' '; 1 << 20]);
    });
    std::thread::sleep(Duration::from_millis(200));
    assert!(!filled.is_finished());
    let mut ended = Vec::new();
    for (stderr, is_full) in [(Stdio::from(full.try_clone().unwrap()), true), (closed_pipe(), false)] {
        // Nothing answers there.
        let mut process = consumer("http://127.0.0.1:9", &[]);
        let mut process = process.env("RUST_LOG", "trace").stderr(stderr).spawn().unwrap();
        ended.push((end_of(&mut process).code(), is_full));
    }
    assert_eq!(ended, [(Some(1), true), (Some(1), false)]);
    full.flush().unwrap();
    drop(full);
    // Only now may the thread end.
    let _ = std::io::copy(&mut reader, &mut std::io::sink());
    filled.join().unwrap();
}

/// An AWS that takes every connection and answers nothing.
fn silent() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut taken = Vec::new();
        for connection in listener.incoming() {
            taken.push(connection);
        }
    });
    endpoint
}

/// The answer about health, once there is one.
fn health(address: SocketAddr, question: &str) -> String {
    let started = Instant::now();
    loop {
        if let Ok(mut connection) = TcpStream::connect(address) {
            write!(connection, "GET /{question} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
            let mut answer = String::new();
            connection.read_to_string(&mut answer).unwrap();
            return answer;
        }
        assert!(started.elapsed() < PATIENCE, "nobody answers");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_has_not_started_does_not_live_yet_and_stops_when_asked() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut process =
        consumer(&silent(), &["--health-address", &address.to_string()]).stderr(Stdio::piped()).spawn().unwrap();
    for question in ["live", "ready"] {
        let answer = health(address, question);
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.contains(&format!("not {question}: starting")),
            "{answer}"
        );
    }
    let asked = Instant::now();
    assert!(Command::new("kill").args(["-TERM", &process.id().to_string()]).status().unwrap().success());
    let status = end_of(&mut process);
    let mut log = String::new();
    process.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("stopped before it was ready"), "{log}");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}
