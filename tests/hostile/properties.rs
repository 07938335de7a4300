//! Properties that must hold for any input bytes. Shared by the fuzz targets and by the plain test over their corpora.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use music_streams::aws::item::Item;
use music_streams::batch::manifest::DeltaFile;
use music_streams::calendar::{date_text, day_of};
use music_streams::compute::{Dictionary, Fold, Rows, deltas};
use music_streams::definition::Definition;
use music_streams::input::auditor::{InputFile, Judgement, Value};
use music_streams::input::file::{BadObject, Blocks, ReadError};
use music_streams::input::parsed::{NewIds, Parsed};
use music_streams::intake::notification::{admit, decode};
use music_streams::ledger::{parse_registry, registry_item};
use music_streams::plan::Plan;
use music_streams::plan::period::Period;
use music_streams::protocol::Opening;
use music_streams::reference::References;
use music_streams::reports::figures::{Delta, Figures, Key, Labels, shown};
use music_streams::reports::item;
use tokio::io::{AsyncRead, ReadBuf};

#[path = "../support/definitions.rs"]
pub mod definitions;

/// 2026-01-01T00:00:00Z, the time from which a row is in the future.
pub const JUDGED_AT: i64 = 1_767_225_600;

/// The body of a queue message.
pub fn notification(bytes: &[u8]) {
    let body = String::from_utf8_lossy(bytes);
    let direct = admit(decode(&body), "bucket");
    for event in &direct.events {
        assert_eq!(event.object.bucket, "bucket");
        assert!(event.object.key.starts_with("incoming/") && !event.object.key.ends_with('/'));
    }
    // SNS changes nothing about it, unless it is an envelope itself: they are opened to a bounded depth.
    let wrapped = serde_json::json!({"Type": "Notification", "Message": body}).to_string();
    let through_sns = admit(decode(&wrapped), "bucket");
    if direct.unreadable.is_empty() && !body.contains("Notification") {
        assert_eq!(through_sns, direct);
    }
}

/// The fields of one row, separated by newlines. A good row's values, written plainly, are a good row of the same
/// values.
pub fn row(bytes: &[u8]) {
    let quoted = |field: &[u8]| {
        let inner = field.iter().flat_map(|&byte| if byte == b'"' { vec![byte; 2] } else { vec![byte] });
        [b"\"".to_vec(), inner.collect(), b"\"".to_vec()].concat()
    };
    let fields: Vec<Vec<u8>> = bytes.split(|&byte| byte == b'\n').map(quoted).collect();
    let file = [b"user_id,track_id,listen_time\n", &fields.join(&b',')[..]].concat();
    let Ok(rows) = read(&file, usize::MAX, LIMIT_BYTES) else { return };
    let Some((user, rest)) = rows.first().filter(|row| !row.starts_with("line")).and_then(|row| row.split_once(' '))
    else {
        return;
    };
    let (track, time) = rest.split_once(' ').unwrap();
    let time: i64 = time.parse().unwrap();
    assert!(user.parse::<i64>().unwrap() > 0 && time <= JUDGED_AT * 1_000_000 + 86_400_000_000);
    assert!((1..=64).contains(&track.len()) && track.bytes().all(|byte| byte.is_ascii_graphic()));
    let of_day = time.rem_euclid(86_400_000_000);
    let (hour, minute, second) = (of_day / 3_600_000_000, of_day / 60_000_000 % 60, of_day / 1_000_000 % 60);
    let (date, micros, track) = (date_text(day_of(time)), of_day % 1_000_000, track.replace('"', "\"\""));
    let plain = format!(
        "user_id,track_id,listen_time\n{user},\"{track}\",{date}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z"
    );
    assert_eq!(read(plain.as_bytes(), usize::MAX, LIMIT_BYTES), Ok(rows));
}

/// The outcome of reading a file: its rows, each as text, or the reason for which it is bad.
pub type Outcome = Result<Vec<String>, BadObject>;

/// Bytes that arrive a few at a time.
struct Trickle {
    bytes: Vec<u8>,
    position: usize,
    step: usize,
}

impl AsyncRead for Trickle {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let count = self.step.min(buffer.remaining()).min(self.bytes.len() - self.position);
        buffer.put_slice(&self.bytes[self.position..self.position + count]);
        self.position += count;
        Poll::Ready(Ok(()))
    }
}

/// Reads a file of the built-in definition whose bytes arrive `step` at a time.
pub fn read(bytes: &[u8], step: usize, limit_bytes: u64) -> Outcome {
    read_as(&Definition::built_in().unwrap(), bytes, step, limit_bytes)
}

/// Reads a file of a definition in both ways, which agree.
pub fn read_as(definition: &Definition, bytes: &[u8], step: usize, limit_bytes: u64) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let body = || Trickle { bytes: bytes.to_vec(), position: 0, step };
    let judged_at = jiff::Timestamp::from_second(JUDGED_AT).unwrap();
    let plan = Arc::new(Plan::of(definition.clone()).unwrap());
    let references = References::empty(&plan);
    let audited = async {
        let mut file = InputFile::open(body(), limit_bytes, judged_at, definition, KEY).await?;
        let mut rows = Vec::new();
        while let Some(row) = file.next().await? {
            let of_value = |value: &Option<Value>| match value {
                None => "-".to_owned(),
                Some(Value::Text(text)) => text.clone(),
                Some(Value::Number(number)) => number.to_string(),
            };
            rows.push(match row.judgement {
                Judgement::Good(values) => values.iter().map(of_value).collect::<Vec<_>>().join(" "),
                Judgement::PassedOver => format!("line {} is passed over", row.number),
                Judgement::Rejected(reason) => format!("line {}: {reason}", row.number),
            });
        }
        Ok(rows)
    };
    let parsed = async {
        let mut blocks = Blocks::open(body(), limit_bytes, judged_at, &plan, KEY).await?;
        let mut counts = [0_u64; 3];
        while let Some(block) = blocks.next().await? {
            let block = block.parse(&references);
            let rejected = block.rejected.values().sum::<u64>();
            let fates = [block.times.len() as u64, block.passed_over, rejected];
            counts.iter_mut().zip(fates).for_each(|(count, of_block)| *count += of_block);
        }
        Ok(counts)
    };
    let bad = |error| match error {
        ReadError::Bad(bad) => bad,
        ReadError::Body(error) => panic!("there is no network here: {error}"),
    };
    let rows: Outcome = runtime.block_on(audited).map_err(bad);
    let counted = rows.as_ref().map(|rows| {
        let (passed_over, others): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.ends_with("is passed over"));
        let rejected = others.iter().filter(|row| row.starts_with("line ")).count();
        [others.len() - rejected, passed_over.len(), rejected].map(|count| count as u64)
    });
    match (runtime.block_on(parsed).map_err(bad), counted) {
        // The decompressor decides how far a damaged stream can be read, so the reasons may differ.
        (Err(_), Err(_)) => {}
        (Ok(parsed), Ok(counted)) => assert_eq!(parsed, counted),
        (parsed, counted) => panic!("{parsed:?}, and audited {counted:?}"),
    }
    rows
}

/// The key of the files.
const KEY: &str = "incoming/alice/file";

const LIMIT_BYTES: u64 = 256 << 10;

/// A file of the built-in definition.
pub fn file(bytes: &[u8]) {
    file_as(&Definition::built_in().unwrap(), bytes);
}

/// A file of tabs, without a header.
pub fn tsv(bytes: &[u8]) {
    file_as(&definitions::history(), bytes);
}

/// A log whose columns are named on the way.
pub fn w3c(bytes: &[u8]) {
    file_as(&definitions::access_log(), bytes);
}

/// A file of JSON, and one of documents of JSON.
pub fn json(bytes: &[u8]) {
    file_as(&definitions::player_history(None), bytes);
    file_as(&definitions::player_history(Some("Records")), bytes);
}

/// A pattern of times on the first line, and times on the others. The pattern is refused, or reads any text.
pub fn pattern(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Some((pattern, times)) = text.split_once('\n') else { return };
    if pattern.contains('%') && Plan::of(definitions::times(pattern)).is_ok() {
        file_as(&definitions::times(pattern), times.as_bytes());
    }
}

/// A file. The outcome does not depend on the chunks in which its bytes arrive.
fn file_as(definition: &Definition, bytes: &[u8]) {
    let whole = read_as(definition, bytes, usize::MAX, LIMIT_BYTES);
    let in_pieces = read_as(definition, bytes, 1 + bytes.len() / 7, LIMIT_BYTES);
    match (&whole, &in_pieces) {
        // The decompressor decides how far a damaged stream can be read, so the reasons may differ.
        (Err(_), Err(_)) => {}
        _ => assert_eq!(whole, in_pieces),
    }
    if let Ok(rows) = whole {
        assert!(rows.len() as u64 <= LIMIT_BYTES);
    }
}

/// A gzip file with one damaged byte. It is read as it was, or it is bad. The first three bytes select the byte and its
/// damage.
pub fn gzip(bytes: &[u8]) {
    let [a, b, damage, content @ ..] = bytes else { return };
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    let mut compressed = encoder.finish().unwrap();
    let position = usize::from(u16::from_le_bytes([*a, *b])) % compressed.len();
    compressed[position] ^= damage;
    if let Ok(rows) = read(&compressed, usize::MAX, LIMIT_BYTES) {
        assert_eq!(Ok(rows), read(content, usize::MAX, LIMIT_BYTES));
    }
    if let Ok(rows) = read(&compressed[..position], usize::MAX, LIMIT_BYTES) {
        panic!("half a file was taken for a whole one: {rows:?}");
    }
}

/// A zstd file with one damaged byte, as [`gzip`]; its frame has a checksum.
pub fn zstd(bytes: &[u8]) {
    let [a, b, damage, content @ ..] = bytes else { return };
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(content).unwrap();
    let mut compressed = encoder.finish().unwrap();
    let position = usize::from(u16::from_le_bytes([*a, *b])) % compressed.len();
    compressed[position] ^= damage;
    if let Ok(rows) = read(&compressed, usize::MAX, LIMIT_BYTES) {
        assert_eq!(Ok(rows), read(content, usize::MAX, LIMIT_BYTES));
    }
    if let Ok(rows) = read(&compressed[..position], usize::MAX, LIMIT_BYTES) {
        panic!("half a file was taken for a whole one: {rows:?}");
    }
}

/// Items of the tables, in DynamoDB's own JSON. An item that can be read can be read again after a delta was added.
pub fn items(bytes: &[u8]) {
    let Some(item) = serde_json::from_slice(bytes).ok().as_ref().and_then(item_of_json) else { return };
    if let Some(stored) = parse_registry(&item) {
        assert_eq!(parse_registry(&registry_item(&stored.registry, stored.version)), Some(stored.clone()));
        let known = stored.registry.definition.clone();
        let Opening::To(number, next) = stored.registry.open("me", 1, usize::MAX, &known) else { panic!("no room") };
        assert!(number > stored.registry.last && next.applied_through() < number);
    }
    let plan = Plan::built_in().unwrap();
    for (index, report) in plan.reports.iter().enumerate() {
        let _ = (item::is_empty(report, &item), item::applied_of(&item));
        if let (Some(key), Ok(stored)) = (item::parse_key(report, index, &item), item::parse_item(report, &item)) {
            let nothing = Delta { key, figures: Figures::of_none(report), labels: Labels::default() };
            let batch =
                stored.applied.listed.last().copied().unwrap_or(0).max(stored.applied.through).saturating_add(1);
            let Some(next) = stored.with(&nothing, report, batch, 0) else { continue };
            assert_eq!(next.figures.rows(), stored.figures.rows());
            let again = item::parse_item(report, &item::item_of(report, &nothing.key, &next)).unwrap();
            assert_eq!(shown(&again.figures, report), shown(&next.figures, report));
            assert_eq!((again.labels, again.applied, again.version), (next.labels, next.applied, next.version));
        }
    }
}

/// Parses DynamoDB's JSON, but with bytes in hexadecimal.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_AttributeValue.html>
fn item_of_json(json: &serde_json::Value) -> Option<Item> {
    let of = |value: &serde_json::Value| -> Option<AttributeValue> {
        let (kind, value) = value.as_object()?.iter().next()?;
        Some(match kind.as_str() {
            "S" => AttributeValue::S(value.as_str()?.to_owned()),
            "N" => AttributeValue::N(value.as_str()?.to_owned()),
            "B" => AttributeValue::B(Blob::new(bytes_of_hexadecimal(value.as_str()?)?)),
            "NS" => {
                AttributeValue::Ns(value.as_array()?.iter().filter_map(|it| Some(it.as_str()?.to_owned())).collect())
            }
            "M" => AttributeValue::M(item_of_json(value)?),
            _ => return None,
        })
    };
    let object = json.as_object()?;
    Some(object.iter().filter_map(|(name, value)| Some((name.clone(), of(value)?))).collect::<HashMap<_, _>>())
}

fn bytes_of_hexadecimal(text: &str) -> Option<Vec<u8>> {
    (0..text.len() / 2).map(|index| u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()).collect()
}

/// Rows made of these bytes. Their counts survive the delta file, and no other bytes pass for it.
pub fn deltas(bytes: &[u8]) {
    let mut source = Source(bytes);
    let plan = Plan::built_in().unwrap();
    let mut dictionary = Dictionary::of(Arc::clone(&plan), Arc::new(References::empty(&plan)));
    let (mut fold, mut expected) = (Fold::default(), BTreeMap::new());
    for row in 0..64 {
        if source.0.is_empty() {
            break;
        }
        let (user, track, day) = (source.number() as i64, source.text(), source.number() as i32);
        let mut block = Parsed::of(&plan);
        block.codes = vec![vec![Parsed::new_code(0)], vec![Parsed::new_code(0)]];
        block.new_ids = vec![NewIds::Numbers(vec![user]), NewIds::Texts(vec![track.as_str().into()])];
        block.times = vec![0];
        let mut rows = Rows::with_capacity(&plan, 1);
        rows.append(&block, row, &mut dictionary);
        fold.add(day, &rows, dictionary.names(), usize::MAX);
        let unknown = || "unknown".to_owned();
        let of_day = [track.clone(), unknown(), user.to_string(), unknown(), unknown(), "*".to_owned()];
        for (report, id) in of_day.into_iter().enumerate() {
            *expected.entry(Key { report, id, period: Period::Day(day) }).or_insert(0) += 1;
        }
        // The time of every row is the epoch.
        *expected.entry(Key { report: 6, id: "*".to_owned(), period: Period::Hour(0) }).or_insert(0) += 1;
    }
    let items = fold.into_items(&plan).collect();
    let mut encoded = deltas::encode(items, dictionary.names()).unwrap();
    let file = DeltaFile::new("deltas".to_owned(), &encoded);
    let decoded = file.decode(&encoded, &plan).unwrap();
    let counted = decoded.into_iter().map(|delta| (delta.key, delta.figures.rows().unwrap()));
    assert_eq!(counted.collect::<BTreeMap<Key, i64>>(), expected);
    let position = source.spent(bytes) % encoded.len();
    encoded[position] ^= 1;
    let changed = file.decode(&encoded, &plan).unwrap_err().to_string();
    assert!(changed.starts_with("the delta file deltas is not as its batch wrote it"), "{changed}");
}

/// Values made from any bytes; zero and empty at the end of the bytes.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// Returns a small or a large number, up to the maximum of a signed column.
    fn number(&mut self) -> u64 {
        let bytes = usize::from(self.byte() % 9);
        (0..bytes).fold(0_u64, |number, _| number << 8 | u64::from(self.byte())) & i64::MAX as u64
    }

    fn text(&mut self) -> String {
        let (text, rest) = self.0.split_at(usize::from(self.0.first().copied().unwrap_or(0) % 40).min(self.0.len()));
        self.0 = rest;
        String::from_utf8_lossy(text).into_owned()
    }

    fn spent(&self, of: &[u8]) -> usize {
        of.iter().fold(of.len(), |sum, &byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)))
    }
}
