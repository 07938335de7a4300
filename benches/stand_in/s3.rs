//! S3: buckets in memory, addressed by path, with conditional writes, copies and deletes, and uploads in parts.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Mutex;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};

use super::sqs::Sqs;

/// Keys in one page of a listing.
const PAGE: usize = 1000;

/// All buckets.
#[derive(Debug, Default)]
pub struct S3 {
    buckets: Mutex<HashMap<String, Bucket>>,
}

#[derive(Debug, Default)]
struct Bucket {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, Upload>,
}

#[derive(Debug, Clone)]
struct Object {
    bytes: Bytes,
    etag: String,
    modified: jiff::Timestamp,
    metadata: HeaderMap,
}

#[derive(Debug)]
struct Upload {
    key: String,
    parts: BTreeMap<u32, Object>,
    metadata: HeaderMap,
}

/// A request, taken apart.
struct Request<'a> {
    method: &'a Method,
    key: String,
    query: HashMap<String, String>,
    headers: &'a HeaderMap,
    body: Bytes,
}

type Answer = Response<Body>;

impl Object {
    fn new(bytes: Bytes, headers: &HeaderMap) -> Self {
        let digest = Sha256::digest(&bytes);
        let etag = digest[..16].iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        let is_kept =
            |name: &str| name.starts_with("x-amz-meta-") || ["content-type", "content-encoding"].contains(&name);
        let metadata = headers.iter().filter(|(name, _)| is_kept(name.as_str()));
        let metadata = metadata.map(|(name, value)| (name.clone(), value.clone())).collect();
        Object { bytes, etag, modified: jiff::Timestamp::now(), metadata }
    }

    /// Returns true unless the request wants another content.
    fn matches(&self, headers: &HeaderMap, name: &str) -> bool {
        headers.get(name).is_none_or(|etag| etag.to_str().is_ok_and(|etag| etag == "*" || unquoted(etag) == self.etag))
    }

    fn answer(&self, status: StatusCode, body: Bytes) -> Answer {
        let time = self.modified.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let mut answer = Response::builder().status(status).header("last-modified", time);
        for (name, value) in &self.metadata {
            answer = answer.header(name, value);
        }
        let answer = answer.header("etag", format!("\"{}\"", self.etag)).header("content-length", body.len());
        answer.body(Body::from(body)).unwrap()
    }
}

impl S3 {
    /// Carries out a request. New objects under `incoming/` are announced to the queue of the bucket's name.
    pub fn answer(&self, method: &Method, uri: &Uri, headers: &HeaderMap, body: Bytes, sqs: &Sqs) -> Answer {
        let (bucket, key) = path_of(uri.path());
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let query = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decoded(k), decoded(v)));
        let request = Request { method, key, query: query.collect(), headers, body };
        let mut buckets = self.buckets.lock().unwrap();
        if request.key.is_empty() && *method == Method::PUT {
            buckets.entry(bucket).or_default();
            return plain(StatusCode::OK);
        }
        let source = headers.get("x-amz-copy-source").and_then(|source| source.to_str().ok()).map(path_of);
        let source = match source {
            Some((bucket, key)) => match buckets.get(&bucket).and_then(|bucket| bucket.objects.get(&key)) {
                Some(object) if object.matches(headers, "x-amz-copy-source-if-match") => Some(object.clone()),
                Some(_) => return failed(StatusCode::PRECONDITION_FAILED, "PreconditionFailed"),
                None => return failed(StatusCode::NOT_FOUND, "NoSuchKey"),
            },
            None => None,
        };
        match buckets.get_mut(&bucket) {
            None => failed(StatusCode::NOT_FOUND, "NoSuchBucket"),
            Some(of_bucket) => of_bucket.answer(&bucket, request, source, sqs),
        }
    }
}

impl Bucket {
    fn answer(&mut self, name: &str, request: Request<'_>, source: Option<Object>, sqs: &Sqs) -> Answer {
        let has = |parameter: &str| request.query.contains_key(parameter);
        match *request.method {
            Method::GET if request.key.is_empty() && has("list-type") => self.list(&request),
            Method::GET if request.key.is_empty() && has("uploads") => self.list_uploads(&request),
            Method::GET if has("object-lock") => failed(StatusCode::NOT_FOUND, "ObjectLockConfigurationNotFoundError"),
            Method::GET if has("tagging") => xml("<Tagging><TagSet></TagSet></Tagging>".to_owned()),
            Method::GET if has("uploadId") => self.list_parts(&request),
            Method::GET | Method::HEAD => self.get(&request),
            Method::POST if has("delete") => self.delete_many(&request),
            Method::POST if has("uploads") => self.begin_upload(name, &request),
            Method::POST if has("uploadId") => self.complete_upload(&request),
            Method::PUT if has("uploadId") => self.put_part(&request, source),
            Method::PUT => self.put(name, request, source, sqs),
            Method::DELETE if has("uploadId") => match self.uploads.remove(&request.query["uploadId"]) {
                Some(_) => plain(StatusCode::NO_CONTENT),
                None => failed(StatusCode::NOT_FOUND, "NoSuchUpload"),
            },
            Method::DELETE => match self.delete(&request.key, request.headers) {
                Ok(()) => plain(StatusCode::NO_CONTENT),
                Err((status, code)) => failed(status, code),
            },
            _ => failed(StatusCode::NOT_IMPLEMENTED, "NotImplemented"),
        }
    }

    fn get(&self, request: &Request<'_>) -> Answer {
        let Some(object) = self.objects.get(&request.key) else { return failed(StatusCode::NOT_FOUND, "NoSuchKey") };
        if !object.matches(request.headers, "if-match") {
            return failed(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        if *request.method == Method::HEAD {
            let mut answer = object.answer(StatusCode::OK, object.bytes.clone());
            *answer.body_mut() = Body::empty();
            return answer;
        }
        match request.headers.get("range").and_then(|range| range_of(range.to_str().ok()?, object.bytes.len())) {
            Some((from, to)) => {
                let mut answer = object.answer(StatusCode::PARTIAL_CONTENT, object.bytes.slice(from..to));
                let range = format!("bytes {from}-{}/{}", to - 1, object.bytes.len());
                answer.headers_mut().insert("content-range", range.parse().unwrap());
                answer
            }
            None => object.answer(StatusCode::OK, object.bytes.clone()),
        }
    }

    fn put(&mut self, name: &str, request: Request<'_>, source: Option<Object>, sqs: &Sqs) -> Answer {
        let there = self.objects.get(&request.key);
        if there.is_some() && request.headers.contains_key("if-none-match")
            || request.headers.contains_key("if-match")
                && !there.is_some_and(|there| there.matches(request.headers, "if-match"))
        {
            return failed(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        let is_copy = source.is_some();
        let object = match source {
            Some(source) => Object { modified: jiff::Timestamp::now(), ..source },
            None => Object::new(request.body, request.headers),
        };
        let etag = object.etag.clone();
        if request.key.starts_with("incoming/") {
            sqs.send(name, announcement(name, &request.key, &object));
        }
        self.objects.insert(request.key, object);
        if is_copy {
            return xml(format!("<CopyObjectResult><ETag>\"{etag}\"</ETag></CopyObjectResult>"));
        }
        Response::builder().header("etag", format!("\"{etag}\"")).body(Body::empty()).unwrap()
    }

    fn delete(&mut self, key: &str, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
        match self.objects.get(key) {
            Some(object) if !object.matches(headers, "if-match") => {
                Err((StatusCode::PRECONDITION_FAILED, "PreconditionFailed"))
            }
            None if headers.contains_key("if-match") => Err((StatusCode::NOT_FOUND, "NoSuchKey")),
            _ => {
                self.objects.remove(key);
                Ok(())
            }
        }
    }

    /// Deletes many, each on the condition of its own eTag.
    fn delete_many(&mut self, request: &Request<'_>) -> Answer {
        let text = String::from_utf8_lossy(&request.body);
        let mut result = String::from("<DeleteResult>");
        for object in text.split("<Object>").skip(1) {
            let Some(key) = element(object, "Key") else { continue };
            let mut condition = HeaderMap::new();
            if let Some(Ok(etag)) = element(object, "ETag").map(HeaderValue::try_from) {
                condition.insert("if-match", etag);
            }
            let key_text = escaped(&key);
            let _ = match self.delete(&key, &condition) {
                Ok(()) => write!(result, "<Deleted><Key>{key_text}</Key></Deleted>"),
                Err((_, code)) => write!(result, "<Error><Key>{key_text}</Key><Code>{code}</Code></Error>"),
            };
        }
        xml(result + "</DeleteResult>")
    }

    fn list(&self, request: &Request<'_>) -> Answer {
        let parameter = |name: &str| request.query.get(name).map(String::as_str);
        let prefix = parameter("prefix").unwrap_or_default();
        let after = parameter("continuation-token").or(parameter("start-after")).unwrap_or_default();
        let is_encoded = parameter("encoding-type") == Some("url");
        let most = parameter("max-keys").and_then(|most| most.parse().ok()).unwrap_or(PAGE);
        let from = prefix.max(after).to_owned();
        let mut found = self.objects.range(from..).skip_while(|(key, _)| key.as_str() <= after && !after.is_empty());
        let page: Vec<_> = found.by_ref().take_while(|(key, _)| key.starts_with(prefix)).take(most).collect();
        let is_truncated = page.len() == most;
        let mut result = format!(
            "<ListBucketResult>{}<KeyCount>{}</KeyCount><IsTruncated>{is_truncated}</IsTruncated>",
            if is_encoded { "<EncodingType>url</EncodingType>" } else { "" },
            page.len()
        );
        for (key, object) in &page {
            let key = if is_encoded { encoded(key) } else { escaped(key) };
            let size = object.bytes.len();
            let _ = write!(
                result,
                "<Contents><Key>{key}</Key><LastModified>{:.3}</LastModified><ETag>\"{}\"</ETag><Size>{size}</Size>\
                 </Contents>",
                object.modified, object.etag
            );
        }
        if let (true, Some((key, _))) = (is_truncated, page.last()) {
            let _ = write!(result, "<NextContinuationToken>{}</NextContinuationToken>", escaped(key));
        }
        xml(result + "</ListBucketResult>")
    }

    fn list_uploads(&self, request: &Request<'_>) -> Answer {
        let prefix = request.query.get("prefix").map(String::as_str).unwrap_or_default();
        let mut result = String::from("<ListMultipartUploadsResult><EncodingType>url</EncodingType>");
        for (id, upload) in self.uploads.iter().filter(|(_, upload)| upload.key.starts_with(prefix)) {
            let key = encoded(&upload.key);
            let _ = write!(result, "<Upload><Key>{key}</Key><UploadId>{id}</UploadId></Upload>");
        }
        xml(result + "<IsTruncated>false</IsTruncated></ListMultipartUploadsResult>")
    }

    fn list_parts(&self, request: &Request<'_>) -> Answer {
        let Some(upload) = self.uploads.get(&request.query["uploadId"]) else {
            return failed(StatusCode::NOT_FOUND, "NoSuchUpload");
        };
        let mut result = String::from("<ListPartsResult><IsTruncated>false</IsTruncated>");
        for (number, part) in &upload.parts {
            let (etag, size) = (&part.etag, part.bytes.len());
            let _ = write!(
                result,
                "<Part><PartNumber>{number}</PartNumber><ETag>\"{etag}\"</ETag><Size>{size}</Size></Part>"
            );
        }
        xml(result + "</ListPartsResult>")
    }

    fn begin_upload(&mut self, name: &str, request: &Request<'_>) -> Answer {
        let id = format!("{:016x}", self.uploads.len() as u64 ^ Object::new(Bytes::new(), request.headers).serial());
        let metadata = Object::new(Bytes::new(), request.headers).metadata;
        let upload = Upload { key: request.key.clone(), parts: BTreeMap::new(), metadata };
        self.uploads.insert(id.clone(), upload);
        let key = escaped(&request.key);
        xml(format!(
            "<InitiateMultipartUploadResult><Bucket>{name}</Bucket><Key>{key}</Key><UploadId>{id}</UploadId>\
             </InitiateMultipartUploadResult>"
        ))
    }

    fn put_part(&mut self, request: &Request<'_>, source: Option<Object>) -> Answer {
        let number = request.query.get("partNumber").and_then(|number| number.parse().ok());
        let (Some(upload), Some(number)) = (self.uploads.get_mut(&request.query["uploadId"]), number) else {
            return failed(StatusCode::NOT_FOUND, "NoSuchUpload");
        };
        let is_copy = source.is_some();
        let bytes = match source {
            Some(source) => {
                let range = request.headers.get("x-amz-copy-source-range").and_then(|range| range.to_str().ok());
                let range = range.and_then(|range| range_of(range, source.bytes.len()));
                range.map_or(source.bytes.clone(), |(from, to)| source.bytes.slice(from..to))
            }
            None => request.body.clone(),
        };
        let part = Object::new(bytes, request.headers);
        let etag = part.etag.clone();
        upload.parts.insert(number, part);
        if is_copy {
            return xml(format!("<CopyPartResult><ETag>\"{etag}\"</ETag></CopyPartResult>"));
        }
        Response::builder().header("etag", format!("\"{etag}\"")).body(Body::empty()).unwrap()
    }

    fn complete_upload(&mut self, request: &Request<'_>) -> Answer {
        let Some(upload) = self.uploads.remove(&request.query["uploadId"]) else {
            return failed(StatusCode::NOT_FOUND, "NoSuchUpload");
        };
        let whole: Vec<u8> = upload.parts.values().flat_map(|part| part.bytes.iter().copied()).collect();
        let mut object = Object::new(Bytes::from(whole), &upload.metadata);
        object.etag = format!("{}-{}", object.etag, upload.parts.len());
        let (key, etag) = (escaped(&upload.key), object.etag.clone());
        self.objects.insert(upload.key, object);
        xml(format!(
            "<CompleteMultipartUploadResult><Key>{key}</Key><ETag>\"{etag}\"</ETag></CompleteMultipartUploadResult>"
        ))
    }
}

impl Object {
    /// A number that differs from one moment to the next.
    fn serial(&self) -> u64 {
        self.modified.as_nanosecond() as u64
    }
}

fn announcement(bucket: &str, key: &str, object: &Object) -> String {
    let key = encoded(key);
    let (size, etag) = (object.bytes.len(), &object.etag);
    serde_json::json!({"Records": [{
        "eventVersion": "2.1", "eventSource": "aws:s3", "eventName": "ObjectCreated:Put",
        "eventTime": object.modified.to_string(),
        "s3": {"bucket": {"name": bucket}, "object": {"key": key, "size": size, "eTag": etag}},
    }]})
    .to_string()
}

/// Bucket and key of a path, with or without a slash before it.
fn path_of(path: &str) -> (String, String) {
    let path = path.strip_prefix('/').unwrap_or(path);
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    (decoded(bucket), decoded(key))
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn unquoted(etag: &str) -> &str {
    etag.trim_matches('"')
}

/// The text of the first element of this name.
fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    let text = text.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&apos;", "'");
    Some(text.replace("&amp;", "&"))
}

/// First byte and the one after the last of `bytes=FROM-TO`, `bytes=FROM-` or `bytes=-LAST`.
fn range_of(range: &str, length: usize) -> Option<(usize, usize)> {
    let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
    match (from.parse::<usize>().ok(), to.parse::<usize>().ok()) {
        (Some(from), Some(to)) => (from < length).then_some((from, length.min(to + 1))),
        (Some(from), None) => (from < length).then_some((from, length)),
        (None, Some(last)) => Some((length.saturating_sub(last), length)),
        (None, None) => None,
    }
}

fn plain(status: StatusCode) -> Answer {
    Response::builder().status(status).body(Body::empty()).unwrap()
}

fn xml(body: String) -> Answer {
    Response::builder().header("content-type", "application/xml").body(Body::from(body)).unwrap()
}

fn failed(status: StatusCode, code: &str) -> Answer {
    let mut answer = xml(format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>"));
    *answer.status_mut() = status;
    answer
}
