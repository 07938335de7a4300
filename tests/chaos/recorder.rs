//! A recording proxy: forwards connections unchanged, and notes the IAM action and resource of each request.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// An IAM action and an ARN, and the partition key of an item that is read.
pub type Call = (String, String, Option<String>);

/// The calls that were recorded.
#[derive(Clone, Default)]
pub struct Calls(Arc<Mutex<BTreeSet<Call>>>);

impl Calls {
    pub fn take(&self) -> BTreeSet<Call> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// Starts a proxy to the service at `upstream` (`http://host:port`) that records every call. Ends with the runtime.
    pub async fn on_the_way_to(&self, upstream: &str) -> String {
        let upstream = upstream.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let calls = self.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(calls.clone().forward(client, upstream.clone()));
            }
        });
        url
    }

    async fn forward(self, client: TcpStream, upstream: String) {
        let server = TcpStream::connect(upstream).await.unwrap();
        let (from_client, mut to_client) = client.into_split();
        let (mut from_server, to_server) = server.into_split();
        tokio::select! {
            _ = tokio::io::copy(&mut from_server, &mut to_client) => {}
            () = self.forward_requests(BufReader::new(from_client), to_server) => {}
        }
    }

    async fn forward_requests(&self, mut from: impl AsyncBufReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin) {
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                if !matches!(from.read_until(b'\n', &mut head).await, Ok(1..)) {
                    return;
                }
            }
            let head_text = String::from_utf8(head.clone()).unwrap();
            assert!(header(&head_text, "transfer-encoding").is_none(), "a request of unknown length:\n{head_text}");
            let length = header(&head_text, "content-length").map_or(0, |length| length.parse().unwrap());
            let mut body = vec![0; length];
            // The head first: a client may wait for permission to send the body.
            if to.write_all(&head).await.is_err() || from.read_exact(&mut body).await.is_err() {
                return;
            }
            self.0.lock().unwrap().extend(calls_of(&head_text, &body));
            if to.write_all(&body).await.is_err() {
                return;
            }
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn calls_of(head: &str, body: &[u8]) -> Vec<Call> {
    match header(head, "x-amz-target") {
        Some(target) => {
            let (_, operation) = target.split_once('.').unwrap();
            let body: Value = serde_json::from_slice(body).unwrap();
            if target.starts_with("AmazonSQS") { sqs_calls(operation, &body) } else { dynamodb_calls(operation, &body) }
        }
        None => s3_calls(head, body),
    }
}

fn sqs_calls(operation: &str, body: &Value) -> Vec<Call> {
    let name = body["QueueUrl"].as_str().or(body["SourceArn"].as_str()).or(body["QueueName"].as_str()).unwrap();
    let name = name.rsplit(['/', ':']).next().unwrap();
    // A batch is allowed by the action that it repeats.
    let action = operation.strip_suffix("Batch").unwrap_or(operation);
    vec![(format!("sqs:{action}"), format!("arn:aws:sqs:us-east-1:000000000000:{name}"), None)]
}

fn dynamodb_calls(operation: &str, body: &Value) -> Vec<Call> {
    // A transaction is allowed by the actions of its parts.
    if let Some(parts) = body["TransactItems"].as_array() {
        let parts = parts.iter().flat_map(|part| part.as_object().unwrap());
        return parts.flat_map(|(action, part)| dynamodb_calls(&format!("{action}Item"), part)).collect();
    }
    // So is a batch of statements, each of which begins with its verb and names its table in quotes.
    if let Some(statements) = body["Statements"].as_array() {
        let texts = statements.iter().map(|statement| statement["Statement"].as_str().unwrap());
        let calls = texts.flat_map(|text| {
            let action = if text.starts_with("INSERT") { "PartiQLInsert" } else { "PartiQLUpdate" };
            dynamodb_calls(action, &json!({"TableName": text.split('"').nth(1)}))
        });
        return calls.collect();
    }
    // A single statement reads.
    if let Some(text) = body["Statement"].as_str() {
        let table = text.split("FROM \"").nth(1).and_then(|rest| rest.split('"').next());
        return dynamodb_calls("PartiQLSelect", &json!({ "TableName": table }));
    }
    let tables: Vec<(String, Option<String>)> = match body["RequestItems"].as_object() {
        Some(items) => {
            let keys = |(table, read): (&String, &Value)| {
                let keys = read["Keys"].as_array().unwrap().iter().map(partition);
                keys.map(|key| (table.clone(), key)).collect::<Vec<_>>()
            };
            items.iter().flat_map(keys).collect()
        }
        None => {
            let key = match operation {
                "GetItem" => partition(&body["Key"]),
                "Query" => body["ExpressionAttributeValues"].as_object().unwrap().values().find_map(text),
                _ => None,
            };
            vec![(body["TableName"].as_str().unwrap().to_owned(), key)]
        }
    };
    let index = body["IndexName"].as_str().map_or(String::new(), |index| format!("/index/{index}"));
    let arn = |table| format!("arn:aws:dynamodb:us-east-1:000000000000:table/{table}{index}");
    tables.into_iter().map(|(table, key)| (format!("dynamodb:{operation}"), arn(table), key)).collect()
}

/// The partition key of the ledger or of top lists. Policies do not look at those of reports.
fn partition(key: &Value) -> Option<String> {
    ["pk", "list"].iter().find_map(|name| text(&key[name]))
}

fn text(value: &Value) -> Option<String> {
    value["S"].as_str().map(str::to_owned)
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html>.
fn s3_calls(head: &str, body: &[u8]) -> Vec<Call> {
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let has = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    let path = path.trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let arn = if key.is_empty() { format!("arn:aws:s3:::{bucket}") } else { format!("arn:aws:s3:::{bucket}/{key}") };
    let action = match (method, key.is_empty()) {
        ("GET", true) if has("versions") => "ListBucketVersions",
        ("GET", true) if has("uploads") => "ListBucketMultipartUploads",
        ("GET", true) if has("object-lock") => "GetBucketObjectLockConfiguration",
        ("GET", true) => "ListBucket",
        ("POST", true) if has("delete") => {
            let body = String::from_utf8_lossy(body).into_owned();
            return body.split("<Object>").skip(1).flat_map(|object| delete_calls(&arn, object)).collect();
        }
        ("GET", false) if has("uploadId") => "ListMultipartUploadParts",
        ("GET", false) if has("tagging") && has("versionId") => "GetObjectVersionTagging",
        ("GET", false) if has("tagging") => "GetObjectTagging",
        ("GET" | "HEAD", false) if has("versionId") => "GetObjectVersion",
        ("GET" | "HEAD", false) => "GetObject",
        ("PUT" | "POST", false) => "PutObject",
        ("DELETE", false) if has("uploadId") => "AbortMultipartUpload",
        ("DELETE", false) if has("versionId") => "DeleteObjectVersion",
        ("DELETE", false) => "DeleteObject",
        _ => panic!("an S3 call that no policy knows of: {method} {target}"),
    };
    let mut calls = vec![(format!("s3:{action}"), arn.clone(), None)];
    if method == "DELETE" && header(head, "if-match").is_some() {
        calls.push(("s3:GetObject".to_owned(), arn, None));
    }
    if let Some(source) = header(head, "x-amz-copy-source") {
        let (source, version) = source.split_once('?').unwrap_or((source, ""));
        let action = if version.is_empty() { "s3:GetObject" } else { "s3:GetObjectVersion" };
        calls.push((action.to_owned(), format!("arn:aws:s3:::{}", source.trim_start_matches('/')), None));
    }
    calls
}

/// The actions of one of the deletions of a request. One on condition of the eTag reads that, too:
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-deletes.html>.
fn delete_calls(bucket: &str, object: &str) -> Vec<Call> {
    let key = object.split("<Key>").nth(1).unwrap().split("</Key>").next().unwrap();
    let action = if object.contains("<VersionId>") { "s3:DeleteObjectVersion" } else { "s3:DeleteObject" };
    let reads = object.contains("<ETag>").then_some("s3:GetObject");
    [action].into_iter().chain(reads).map(|action| (action.to_owned(), format!("{bucket}/{key}"), None)).collect()
}
