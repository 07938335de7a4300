//! The server in Lambda: the real program, with a runtime API and a DynamoDB without items that this test plays.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
/// The time for which a look at the ledger is shared, and somewhat more.
const LOOK: Duration = Duration::from_millis(2_200);

/// What Lambda and DynamoDB are for the program.
struct Aws {
    address: String,
    events: Sender<Value>,
    answers: Receiver<Value>,
    /// DynamoDB refuses every call.
    is_denied: Arc<AtomicBool>,
}

/// What the threads of its connections share.
struct Side {
    events: Mutex<Receiver<Value>>,
    answers: Mutex<Sender<Value>>,
    is_denied: Arc<AtomicBool>,
    number: AtomicU64,
}

impl Aws {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (events, to_take) = channel();
        let (to_give, answers) = channel();
        let is_denied = Arc::new(AtomicBool::new(false));
        let side = Arc::new(Side {
            events: Mutex::new(to_take),
            answers: Mutex::new(to_give),
            is_denied: Arc::clone(&is_denied),
            number: AtomicU64::new(0),
        });
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let side = Arc::clone(&side);
                std::thread::spawn(move || side.serve(connection.unwrap()));
            }
        });
        Aws { address, events, answers, is_denied }
    }

    /// The program with this DynamoDB.
    fn serve(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_music-streams"));
        command.arg("serve").args(arguments).env_clear().env("MUSIC_STREAMS_LOG_FORMAT", "json");
        command.envs([("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "x"), ("AWS_REGION", "us-east-1")]);
        command.env("AWS_ENDPOINT_URL_DYNAMODB", format!("http://{}", self.address));
        command
    }

    /// Starts it as Lambda does.
    fn function(&self) -> Program {
        let mut command = self.serve(&[]);
        command.env("AWS_LAMBDA_RUNTIME_API", &self.address).env("AWS_LAMBDA_FUNCTION_NAME", "figures");
        command.envs([("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"), ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")]);
        Program(command.spawn().unwrap())
    }

    /// Gives the program an event, and returns its answer.
    fn ask(&self, event: Value) -> Value {
        self.events.send(event).unwrap();
        self.answers.recv_timeout(PATIENCE).unwrap()
    }
}

impl Side {
    fn serve(&self, connection: TcpStream) {
        let mut reader = BufReader::new(connection.try_clone().unwrap());
        while let Some((line, headers, body)) = request(&mut reader) {
            let (status, more, said) = self.answer(&line, &headers, &body);
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{more}\r\n", said.len());
            if (&connection).write_all(&[head.as_bytes(), said.as_bytes()].concat()).is_err() {
                return;
            }
        }
    }

    /// The status, further headers, and the body.
    fn answer(&self, line: &str, headers: &str, body: &[u8]) -> (&'static str, String, String) {
        if headers.to_ascii_lowercase().contains("x-amz-target: dynamodb") {
            let kind = "content-type: application/x-amz-json-1.0\r\n".to_owned();
            return match self.is_denied.load(Ordering::SeqCst) {
                // No item, no unprocessed key.
                false => ("200 OK", kind, "{}".to_owned()),
                true => {
                    let error = "{\"__type\": \"com.amazonaws.dynamodb#AccessDeniedException\", \"Message\": \"no\"}";
                    ("400 Bad Request", kind, error.to_owned())
                }
            };
        }
        if line == "GET /2018-06-01/runtime/invocation/next HTTP/1.1" {
            // Waits as Lambda does. The test has ended where there is no event any more.
            let Ok(event) = self.events.lock().unwrap().recv() else {
                return ("410 Gone", String::new(), String::new());
            };
            let number = self.number.fetch_add(1, Ordering::SeqCst);
            let headers = format!(
                "content-type: application/json\r\nlambda-runtime-aws-request-id: {number}\r\n\
                 lambda-runtime-deadline-ms: 4102444800000\r\n\
                 lambda-runtime-invoked-function-arn: arn:aws:lambda:us-east-1:1:function:figures\r\n"
            );
            return ("200 OK", headers, event.to_string());
        }
        let answer = serde_json::from_slice(body).unwrap_or(Value::Null);
        assert!(
            line.starts_with("POST /2018-06-01/runtime/invocation/") && line.contains("/response "),
            "{line} {answer}"
        );
        self.answers.lock().unwrap().send(answer).unwrap();
        ("202 Accepted", String::new(), String::new())
    }
}

/// Reads a request: its first line, its headers, its body.
fn request(reader: &mut impl BufRead) -> Option<(String, String, Vec<u8>)> {
    let (mut line, mut headers) = (String::new(), String::new());
    reader.read_line(&mut line).ok().filter(|&bytes| bytes > 0)?;
    while !headers.ends_with("\r\n\r\n") && headers != "\r\n" {
        reader.read_line(&mut headers).ok().filter(|&bytes| bytes > 0)?;
    }
    let length = headers.lines().filter_map(|line| line.split_once(':'));
    let length = length.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let mut body = vec![0; length.map_or(0, |(_, value)| value.trim().parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    Some((line.trim_end().to_owned(), headers, body))
}

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The event of a function's URL. HTTP APIs of API Gateway send the same.
fn url_event(method: &str, path: &str, headers: Value) -> Value {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let host = "id.lambda-url.us-east-1.on.aws";
    let mut all = json!({"host": host, "x-forwarded-proto": "https", "x-forwarded-for": "192.0.2.1"});
    all.as_object_mut().unwrap().extend(headers.as_object().unwrap().clone());
    json!({
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": query, "headers": all,
        "requestContext": {
            "accountId": "123456789012", "apiId": "id", "domainName": host, "domainPrefix": "id",
            "authorizer": {"iam": {
                "accessKey": "AKIA", "accountId": "123456789012", "callerId": "AIDA",
                "userArn": "arn:aws:iam::123456789012:user/a", "userId": "AIDA",
            }},
            "http": {
                "method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "curl",
            },
            "requestId": "r", "routeKey": "$default", "stage": "$default", "time": "11/Jan/2026:11:45:34 +0000",
            "timeEpoch": 1_768_131_934_837_i64,
        },
        "isBase64Encoded": false,
    })
}

/// The event of a load balancer.
fn balancer_event(path: &str, headers: Value) -> Value {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let query: serde_json::Map<String, Value> =
        query.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, it)| (name.into(), it.into())).collect();
    let mut all = json!({"host": "figures.example.com", "x-forwarded-proto": "https"});
    all.as_object_mut().unwrap().extend(headers.as_object().unwrap().clone());
    json!({
        "requestContext": {"elb": {
            "targetGroupArn": "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/figures/6d0ecf83",
        }},
        "httpMethod": "GET", "path": path, "queryStringParameters": query, "headers": all, "body": "",
        "isBase64Encoded": false,
    })
}

/// The bytes of an answer's body.
fn bytes(answer: &Value) -> Vec<u8> {
    let body = answer["body"].as_str().unwrap_or_default();
    if answer["isBase64Encoded"] == true { STANDARD.decode(body).unwrap() } else { body.into() }
}

fn text(answer: &Value) -> String {
    String::from_utf8(bytes(answer)).unwrap()
}

fn unzipped(answer: &Value) -> String {
    let mut text = String::new();
    flate2::read::GzDecoder::new(bytes(answer).as_slice()).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn events_are_answered_as_requests_are() {
    let aws = Aws::start();
    let _function = aws.function();

    // A function's URL, and a load balancer.
    let live = aws.ask(url_event("GET", "/live", json!({})));
    assert_eq!((live["statusCode"].as_u64(), text(&live).as_str()), (Some(200), "live\n"), "{live}");
    assert_eq!(live["isBase64Encoded"], false);
    assert!(live["headers"]["content-security-policy"].as_str().unwrap().contains("default-src 'none'"), "{live}");
    let live = aws.ask(balancer_event("/live", json!({})));
    assert_eq!((&live["statusCode"], &live["statusDescription"]), (&json!(200), &json!("200 OK")), "{live}");
    assert_eq!(text(&live), "live\n");

    // Nobody may read the tables: a problem, and not an error of the function.
    aws.is_denied.store(true, Ordering::SeqCst);
    let denied = aws.ask(url_event("GET", "/api/v1", json!({})));
    assert_eq!(
        (&denied["statusCode"], &denied["headers"]["content-type"]),
        (&json!(502), &json!("application/problem+json"))
    );
    assert!(text(&denied).contains("dynamodb:GetItem"), "{denied}");
    aws.is_denied.store(false, Ordering::SeqCst);

    let nothing = aws.ask(url_event("GET", "/nowhere", json!({"accept": "application/json"})));
    assert_eq!(nothing["statusCode"], 404, "{nothing}");
    assert!(text(&nothing).contains("there is nothing at /nowhere"), "{nothing}");
    let nothing = aws.ask(balancer_event("/api/v1/top/nothing?days=7", json!({})));
    assert_eq!(nothing["statusCode"], 404, "{nothing}");
    let changed = aws.ask(url_event("POST", "/api/v1", json!({})));
    assert_eq!((&changed["statusCode"], &changed["headers"]["allow"]), (&json!(405), &json!("GET, HEAD")), "{changed}");

    // A query, through both.
    let wrong = [
        url_event("GET", "/?days=x", json!({"accept": "application/json"})),
        balancer_event("/?days=x", json!({"accept": "application/json"})),
    ];
    for event in wrong {
        let wrong = aws.ask(event);
        assert_eq!(wrong["statusCode"], 400, "{wrong}");
        assert!(text(&wrong).contains("\"parameter\": \"days\""), "{wrong}");
    }
}

/// Lambda takes bodies as text, or as Base64 where it is told so:
/// <https://github.com/awslabs/aws-lambda-rust-runtime/issues/871> was about one that was told the former, and was not.
#[test]
fn what_is_compressed_says_so() {
    let aws = Aws::start();
    let _function = aws.function();
    let page = aws.ask(url_event("GET", "/", json!({"accept": "text/html", "accept-encoding": "gzip, br"})));
    assert_eq!((&page["statusCode"], &page["isBase64Encoded"]), (&json!(200), &json!(true)), "{page}");
    assert_eq!(page["headers"]["content-encoding"], "gzip", "{page}");
    let html = unzipped(&page);
    assert!(html.starts_with("<!DOCTYPE html>"), "{html}");

    // The files of the page, compressed and not, and the second time from the client's own memory.
    let style = html.split('"').find(|part| part.ends_with(".css")).unwrap().trim_start_matches("./");
    let path = format!("/{style}");
    let plain = aws.ask(url_event("GET", &path, json!({})));
    assert_eq!((&plain["statusCode"], &plain["isBase64Encoded"]), (&json!(200), &json!(false)), "{plain}");
    assert!(plain["headers"]["cache-control"].as_str().unwrap().contains("immutable"), "{plain}");
    for event in [
        url_event("GET", &path, json!({"accept-encoding": "gzip"})),
        balancer_event(&path, json!({"accept-encoding": "gzip"})),
    ] {
        let zipped = aws.ask(event);
        assert_eq!((&zipped["statusCode"], &zipped["isBase64Encoded"]), (&json!(200), &json!(true)), "{zipped}");
        assert_eq!(zipped["headers"]["content-encoding"], "gzip", "{zipped}");
        assert_eq!(unzipped(&zipped), text(&plain));
    }
    let kept = aws.ask(url_event("GET", &path, json!({"if-none-match": plain["headers"]["etag"]})));
    assert_eq!((kept["statusCode"].as_u64(), text(&kept).as_str()), (Some(304), ""), "{kept}");
}

#[test]
fn answers_are_those_over_http() {
    let aws = Aws::start();
    let _function = aws.function();
    let mut server = Program(aws.serve(&["--address", "127.0.0.1:0"]).stderr(Stdio::piped()).spawn().unwrap());
    let mut log = BufReader::new(server.0.stderr.take().unwrap()).lines().map_while(Result::ok);
    let line = log.find(|line| line.contains("the page is at http://")).unwrap();
    let address = line.split("http://").nth(1).unwrap().split('"').next().unwrap();
    std::thread::spawn(move || log.for_each(drop));
    for path in
        ["/live", "/api/v1", "/api/v1/openapi.json", "/api/v1/top/tracks?days=7&format=csv", "/nowhere?format=json"]
    {
        let mut connection = TcpStream::connect(address).unwrap();
        write!(
            connection,
            "GET {path} HTTP/1.1\r\nhost: {address}\r\naccept: application/json\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let of_event = aws.ask(url_event("GET", path, json!({"accept": "application/json"})));
        assert!(head.starts_with(&format!("HTTP/1.1 {} ", of_event["statusCode"])), "{path}: {head}\n{of_event}");
        assert_eq!(text(&of_event), body, "{path}");
        for name in ["content-type", "etag", "cache-control", "vary"] {
            let lines = head.lines().filter_map(|line| line.split_once(": "));
            let over_http = lines.into_iter().find(|(found, _)| *found == name).map(|(_, value)| value);
            assert_eq!(of_event["headers"][name].as_str(), over_http, "{path}: {name}");
        }
    }
}

/// The ledger is looked at anew after a while, so a function that was refused once recovers by itself.
#[test]
fn a_function_recovers() {
    let aws = Aws::start();
    let _function = aws.function();
    for (is_denied, status) in [(false, 200), (true, 502), (false, 200)] {
        aws.is_denied.store(is_denied, Ordering::SeqCst);
        let asked = Instant::now();
        let ready = aws.ask(url_event("GET", "/api/v1/freshness", json!({})));
        assert_eq!(ready["statusCode"], status, "{ready}");
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
        std::thread::sleep(LOOK);
    }
}
