//! The process: what it does when nobody reads what it says, or reads no more, and when it is asked to stop before it has started.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "support/eventually.rs"]
mod eventually;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use eventually::eventually_blocking;

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

/// Waits until the process has ended by itself, and returns its status.
fn end_of(process: &mut Child) -> ExitStatus {
    let ended = std::panic::AssertUnwindSafe(|| {
        eventually_blocking("the process ends", PATIENCE, || process.try_wait().unwrap())
    });
    std::panic::catch_unwind(ended).unwrap_or_else(|panic| {
        process.kill().unwrap();
        std::panic::resume_unwind(panic)
    })
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
    let connect = || TcpStream::connect(address).ok();
    let mut connection = eventually_blocking("the health address takes connections", PATIENCE, connect);
    write!(connection, "GET /{question} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
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

/// What it says when its surroundings are as these variables say, and its status.
fn said_with(arguments: &[&str], variables: &[(&str, &str)]) -> (bool, String) {
    let ended = program(arguments).envs(variables.iter().copied()).output().unwrap();
    let said = [ended.stdout, ended.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert!(!said.contains("panicked"), "{said}");
    (ended.status.success(), said)
}

#[test]
fn a_variable_that_is_set_to_nothing_is_not_set() {
    let queue = ("MUSIC_STREAMS_QUEUE_URL", "https://sqs.us-east-1.amazonaws.com/1/q");
    let empty = [
        "MUSIC_STREAMS_TABLE_PREFIX",
        "MUSIC_STREAMS_MAX_MEMORY",
        "MUSIC_STREAMS_WINDOW",
        "MUSIC_STREAMS_HEALTH_ADDRESS",
        "MUSIC_STREAMS_LOG_FORMAT",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        "AWS_PROFILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "RUST_LOG",
    ];
    let variables: Vec<_> =
        empty.iter().map(|name| (*name, "")).chain([queue, ("MUSIC_STREAMS_BUCKET", "bucket")]).collect();
    let (success, said) = said_with(&["check-config"], &variables);
    assert!(success && said.contains("default") && !said.contains("AWS_ENDPOINT_URL"), "{said}");
    let (_, without) = said_with(&["check-config"], &[queue, ("MUSIC_STREAMS_BUCKET", "bucket")]);
    assert_eq!(said, without);
    // One that is needed is missing, and not empty.
    let (success, said) = said_with(&["check-config"], &[queue, ("MUSIC_STREAMS_BUCKET", "")]);
    assert!(!success && said.contains("--bucket"), "{said}");
}

#[test]
fn a_line_end_in_a_value_is_named() {
    for (name, value) in [
        ("MUSIC_STREAMS_BUCKET", "b\n"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9\r\n"),
        ("AWS_SECRET_ACCESS_KEY", "secret\n"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9\n"),
    ] {
        let (success, said) = said_with(&["report", "tracks", "--date", "2024-06-25"], &[(name, value)]);
        assert!(!success && said.contains(name) && said.contains("line end"), "{said}");
        assert!(!said.contains("secret\\n") && !said.contains("127.0.0.1"), "{said}");
    }
    let (success, said) = said_with(&["check-config", "--bucket", "b\n"], &[]);
    assert!(!success && said.contains("line end"), "{said}");
}

/// An endpoint, a region or a profile that cannot be right is an error that names it, and no panic.
#[test]
fn surroundings_that_cannot_be_right_are_named() {
    let report = ["report", "tracks", "--date", "2024-06-25"];
    for (variables, told) in [
        (&[("AWS_ENDPOINT_URL", "localhost:4566")][..], "localhost:4566"),
        (&[("AWS_ENDPOINT_URL", "not a url")], "not a url"),
        (&[("AWS_ENDPOINT_URL_DYNAMODB", "://")], "://"),
        (&[("AWS_REGION", "us east")], "set AWS_REGION"),
        (&[("AWS_PROFILE", "absent"), ("AWS_CONFIG_FILE", "/dev/null")], ""),
    ] {
        let started = Instant::now();
        let (success, said) = said_with(&report, &[variables, &[("AWS_MAX_ATTEMPTS", "1")]].concat());
        assert!(!success || told.is_empty(), "{variables:?}: {said}");
        assert!(said.contains(told), "{variables:?}: {said}");
        assert!(started.elapsed() < PATIENCE, "{variables:?}");
    }
    let mut lost = program(&report);
    lost.env_remove("AWS_REGION").env("AWS_EC2_METADATA_DISABLED", "true");
    let said = String::from_utf8(lost.output().unwrap().stderr).unwrap();
    assert!(said.contains("set AWS_REGION"), "{said}");
}

/// An answer that is none of AWS's: of a proxy that wants to be asked first, say.
#[test]
fn an_answer_that_cannot_be_read_is_shown_with_its_cause() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 8192]);
            let body = "<html>Please log in</html>";
            let _ =
                write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        }
    });
    let (success, said) = said_with(&["report", "tracks", "--date", "2024-06-25"], &[("AWS_ENDPOINT_URL", &url)]);
    assert!(!success && !said.contains("failed:  ("), "{said}");
    assert!(said.contains("HTTP 200") && said.len() > 150, "{said}");
}

#[test]
fn credentials_come_from_a_process_and_the_endpoint_from_a_profile() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    let (asked_in, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 8192];
            let length = stream.read(&mut request).unwrap_or(0);
            let _ = asked_in.send(String::from_utf8_lossy(&request[..length]).into_owned());
            let _ = write!(stream, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    let folder = std::env::temp_dir().join(format!("music-streams-profile-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let credentials = r#"{"Version": 1, "AccessKeyId": "from-a-process", "SecretAccessKey": "y"}"#;
    std::fs::write(folder.join("credentials.json"), credentials).unwrap();
    let process = format!("/bin/cat {}", folder.join("credentials.json").display());
    let config = format!("[profile mine]\nregion = eu-west-1\nendpoint_url = {url}\ncredential_process = {process}\n");
    std::fs::write(folder.join("config"), config).unwrap();
    let mut status = program(&["status", "--object", "s3://some-bucket/incoming/a.csv"]);
    status.env_clear().env("PATH", "/bin:/usr/bin");
    let config = folder.join("config");
    status.envs([("AWS_PROFILE", "mine"), ("AWS_CONFIG_FILE", config.to_str().unwrap()), ("AWS_MAX_ATTEMPTS", "1")]);
    let mut quarantine = program(&["quarantine", "--bucket", "some-bucket"]);
    quarantine.env_clear().env("PATH", "/bin:/usr/bin");
    quarantine.envs([("AWS_PROFILE", "mine"), ("AWS_CONFIG_FILE", config.to_str().unwrap())]);
    for mut command in [status, quarantine] {
        assert!(!command.output().unwrap().status.success());
    }
    std::fs::remove_dir_all(&folder).unwrap();
    let asked: Vec<String> = asked.try_iter().collect();
    assert!(asked.iter().all(|request| request.contains("Credential=from-a-process/")), "{asked:#?}");
    // By path, as the name of the bucket in front of an address resolves to nothing.
    assert!(asked.iter().any(|request| request.starts_with("GET /some-bucket")), "{asked:#?}");
}
