//! A refusing proxy: forwards requests to a service, except for those that a rule answers as a service does that
//! denies, throttles or fails.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A request, as a rule sees it.
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    head: String,
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// Returns the objects that it deletes together, each with its key and the version id, if it has one.
    fn deletes(&self) -> Vec<(&str, Option<&str>)> {
        if self.method != "POST" || !self.target.ends_with("?delete") {
            return Vec::new();
        }
        let objects = self.body.split("<Object>").skip(1);
        objects.map(|object| (element(object, "Key").unwrap(), element(object, "VersionId"))).collect()
    }

    /// Returns the answer that refuses to delete objects whose key contains `part`, alone or among others.
    pub fn refuses_to_delete(&self, part: &'static str, code: &'static str) -> Option<Answer> {
        let is_single = self.method == "DELETE" && self.target.contains(part);
        let is_among = self.deletes().iter().any(|(key, _)| key.contains(part));
        match (is_single, is_among) {
            (true, _) => Some(Answer::S3(403, code)),
            (_, true) => Some(Answer::Deletes { part, code }),
            _ => None,
        }
    }

    /// The claims that it makes: the partition key of each.
    pub fn claims(&self) -> Vec<String> {
        if !self.header("x-amz-target").is_some_and(|target| target.ends_with("BatchExecuteStatement")) {
            return Vec::new();
        }
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        let keys = body["Statements"].as_array().unwrap().iter().map(|statement| &statement["Parameters"][0]["S"]);
        let claims = keys.filter_map(|key| key.as_str().filter(|key| key.starts_with("object#")));
        claims.map(str::to_owned).collect()
    }

    /// Returns true if it reads an object whose key contains `part`.
    pub fn gets(&self, part: &str) -> bool {
        self.method == "GET" && self.target.contains(part) && !self.target.contains("list-type")
    }
}

/// The answer of a rule.
#[derive(Debug, Clone, Copy)]
pub enum Answer {
    /// An error of S3.
    S3(u16, &'static str),
    /// An answer about each of the objects that are deleted together: an error for those whose key contains the part;
    /// the others are to be asked about again.
    Deletes { part: &'static str, code: &'static str },
    /// An answer about each of some claims: an error for those whose key contains the part; the others are to be asked
    /// about again.
    Claims { part: &'static str, code: &'static str },
    /// None: the service gets the request, and its answer is lost.
    Lost,
    /// An error of DynamoDB.
    DynamoDb(u16, &'static str),
    /// The service's answer, delayed.
    Late(Duration),
}

type Rule = Box<dyn FnMut(&Request) -> Option<Answer> + Send>;

/// A proxy to one service. Ends with the runtime.
#[derive(Clone)]
pub struct Refusing {
    pub url: String,
    rule: Arc<Mutex<Rule>>,
}

impl Refusing {
    /// Starts a proxy to the service at `upstream` (`http://host:port`) that refuses nothing yet.
    pub async fn before(upstream: &str) -> Self {
        let upstream = upstream.strip_prefix("http://").unwrap().trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(Box::new(|_| None)));
        let refusing = Refusing { url, rule };
        let way = refusing.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(way.clone().forward(client, upstream.clone()));
            }
        });
        refusing
    }

    /// Starts a proxy to S3 and SQS.
    pub async fn before_s3() -> Self {
        Self::before(&std::env::var("AWS_ENDPOINT_URL").unwrap()).await
    }

    /// Starts a proxy to DynamoDB.
    pub async fn before_dynamodb() -> Self {
        Self::before(&std::env::var("AWS_ENDPOINT_URL_DYNAMODB").unwrap()).await
    }

    /// From now on, requests for which the rule has an answer get that answer.
    pub fn refuse(&self, rule: impl FnMut(&Request) -> Option<Answer> + Send + 'static) {
        *self.rule.lock().unwrap() = Box::new(rule);
    }

    /// From now on nothing is refused.
    pub fn relent(&self) {
        self.refuse(|_| None);
    }

    async fn forward(self, client: TcpStream, upstream: String) {
        let Ok(server) = TcpStream::connect(upstream).await else { return };
        let (from_client, to_client) = client.into_split();
        let (mut from_server, to_server) = server.into_split();
        let to_client = Arc::new(tokio::sync::Mutex::new(to_client));
        let answers = Arc::clone(&to_client);
        let is_lost = AtomicBool::new(false);
        let relay = async {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
                if is_lost.load(Ordering::Relaxed) {
                    return;
                }
                if answers.lock().await.write_all(&buffer[..length]).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = relay => {}
            () = self.forward_requests(BufReader::new(from_client), to_server, to_client, &is_lost) => {}
        }
    }

    async fn forward_requests(
        &self,
        mut from: impl AsyncBufReadExt + Unpin,
        mut to: impl AsyncWriteExt + Unpin,
        answers: Arc<tokio::sync::Mutex<tokio::net::tcp::OwnedWriteHalf>>,
        is_lost: &AtomicBool,
    ) {
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                if !matches!(from.read_until(b'\n', &mut head).await, Ok(1..)) {
                    return;
                }
            }
            let text = String::from_utf8_lossy(&head).into_owned();
            let mut words = text.split(' ');
            let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
            let mut request = Request { method, target, head: text, body: String::new() };
            let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
            if request.header("expect").is_some() {
                let _ = answers.lock().await.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
            }
            let mut body = vec![0; length];
            if from.read_exact(&mut body).await.is_err() {
                return;
            }
            request.body = String::from_utf8_lossy(&body).into_owned();
            let answer = (self.rule.lock().unwrap())(&request);
            match answer {
                Some(Answer::S3(status, code)) => {
                    let body =
                        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>refused</Message></Error>");
                    if say(&answers, status, "application/xml", &body).await.is_err() {
                        return;
                    }
                    continue;
                }
                Some(Answer::Deletes { part, code }) => {
                    let errors = request.deletes().into_iter().map(|(key, version)| {
                        let code = if key.contains(part) { code } else { "InternalError" };
                        let version = version.map(|id| format!("<VersionId>{id}</VersionId>")).unwrap_or_default();
                        format!("<Error><Key>{key}</Key>{version}<Code>{code}</Code><Message>refused</Message></Error>")
                    });
                    let errors: String = errors.collect();
                    let body = format!("<?xml version=\"1.0\"?><DeleteResult>{errors}</DeleteResult>");
                    if say(&answers, 200, "application/xml", &body).await.is_err() {
                        return;
                    }
                    continue;
                }
                Some(Answer::Claims { part, code }) => {
                    let errors = request.claims().into_iter().map(|key| {
                        let code = if key.contains(part) { code } else { "ThrottlingError" };
                        serde_json::json!({"Error": {"Code": code, "Message": "refused"}})
                    });
                    let body = serde_json::json!({"Responses": errors.collect::<Vec<_>>()}).to_string();
                    if say(&answers, 200, "application/x-amz-json-1.0", &body).await.is_err() {
                        return;
                    }
                    continue;
                }
                Some(Answer::Lost) => is_lost.store(true, Ordering::Relaxed),
                Some(Answer::DynamoDb(status, code)) => {
                    let body = format!(r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","message":"refused"}}"#);
                    if say(&answers, status, "application/x-amz-json-1.0", &body).await.is_err() {
                        return;
                    }
                    continue;
                }
                Some(Answer::Late(pause)) => tokio::time::sleep(pause).await,
                None => {}
            }
            // The body has been read, so the upstream need not be asked for permission to send it.
            let head: String = request.head.split_inclusive("\r\n").filter(|line| !is_expect(line)).collect();
            if to.write_all(head.as_bytes()).await.is_err() || to.write_all(&body).await.is_err() {
                return;
            }
        }
    }
}

/// The text of an element of XML.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>")).unwrap().0)
}

fn is_expect(line: &str) -> bool {
    line.to_ascii_lowercase().starts_with("expect:")
}

async fn say(
    answers: &tokio::sync::Mutex<tokio::net::tcp::OwnedWriteHalf>,
    status: u16,
    kind: &str,
    body: &str,
) -> std::io::Result<()> {
    let length = body.len();
    let answer = format!("HTTP/1.1 {status} Refused\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}");
    answers.lock().await.write_all(answer.as_bytes()).await
}
