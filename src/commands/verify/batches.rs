//! The comparison of batches that have rows of the verified days with what they archived.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::aws::error::AwsError;
use crate::aws::s3::Bucket;
use crate::batch::manifest::{Fate, Manifest, ManifestObject};
use crate::calendar::date_text;
use crate::compute::curated::CuratedValue;
use crate::definition::Definition;
use crate::definition::Field;
use crate::definition::reports::{Key as ReportKey, Report};
use crate::input::auditor::{InputFile, Judgement, Value};
use crate::input::file::ReadError;
use crate::layout;
use crate::ledger::aside::{Aside, What};
use crate::object::ObjectId;
use crate::protocol::{Registry, State};

use super::day::day_in;
use super::{Auditor, VerifyError, hash};

/// The number of archived files that are read at the same time.
const CONCURRENT_FILES: usize = 8;

/// The number of rows and the sum of their hashes, whatever their order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Digest {
    pub(super) rows: u64,
    sum: u64,
}

impl Digest {
    /// Adds a row: its values as they were read, and the key of its file.
    pub(super) fn add(&mut self, row: (&[CuratedValue<'_>], CuratedValue<'_>)) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(hash(row));
    }

    pub(super) fn merge(&mut self, other: Digest) {
        self.rows += other.rows;
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

impl Auditor {
    /// Compares the batches that have rows of the verified days with what they archived.
    pub(super) async fn verify_batches(
        &mut self,
        days: &[i32],
        at_the_start: &Registry,
        aside: &[Aside],
    ) -> Result<(), VerifyError> {
        let published = std::mem::take(&mut self.published);
        let left = |entry: &Aside| match &entry.what {
            What::Original { object, .. } => Some(object.clone()),
            _ => None,
        };
        let left: HashSet<ObjectId> = aside.iter().filter_map(left).collect();
        let mut counted: HashSet<u64> = HashSet::new();
        for (batch, published) in published {
            // The record of a batch is kept for as long as its manifest.
            if let Some(state @ (State::Open | State::Abandoned | State::Lost)) = self.ledger.state_of(batch).await? {
                let about = format!("curated rows of batch {batch}");
                self.findings.difference(about, "none", format!("some, and the batch is {}", state.name()));
                continue;
            }
            // Other batches may have published files after the first day's were listed.
            if batch > at_the_start.last || at_the_start.batches.contains_key(&batch) {
                self.findings.note(format!("batch {batch} was at work during the audit; its files were not compared"));
                continue;
            }
            match Manifest::find(&self.bucket, batch).await? {
                Some(Manifest { definition: Some(definition), .. }) if definition != self.plan.digest => {
                    self.findings.note(format!(
                        "batch {batch} was read by another definition ({definition}); its archived files were not \
                         compared"
                    ));
                }
                Some(manifest) => self.verify_batch(&manifest, &published, days, &mut counted, &left).await?,
                None => self.findings.note(format!(
                    "the manifest of batch {batch} is no longer kept; its archived files were not compared"
                )),
            }
        }
        Ok(())
    }

    async fn verify_batch(
        &mut self,
        manifest: &Manifest,
        published: &BTreeMap<i32, Digest>,
        days: &[i32],
        counted: &mut HashSet<u64>,
        left: &HashSet<ObjectId>,
    ) -> Result<(), VerifyError> {
        let batch = manifest.batch;
        self.findings.batches += 1;
        self.findings.begin(format!("batch {batch}"), manifest.objects.iter().map(|object| object.size).sum());
        let mut archived: BTreeMap<i32, Digest> = BTreeMap::new();
        let mut rejected = 0;
        let (bucket, plan, opened_at) = (self.bucket.clone(), Arc::clone(&self.plan), manifest.opened_at);
        let audit = Audit { definition: &plan.definition, opened_at, days };
        let mut accounts = futures::stream::iter(&manifest.objects)
            .map(|object| {
                let bucket = bucket.clone();
                let is_left = left.contains(&object.object);
                async move { Ok::<_, AwsError>((object, account(&bucket, object, audit, is_left).await?)) }
            })
            .buffer_unordered(CONCURRENT_FILES);
        while let Some((object, account)) = accounts.try_next().await? {
            self.findings.progress.inc(object.size);
            for (about, expected, found) in account.differences {
                self.findings.difference(about, expected, found);
            }
            if left.contains(&object.object) {
                let key = &object.object.key;
                self.findings.note(format!("{key} is counted and could not be moved; music-streams aside says why"));
            } else if account.is_left_over {
                let key = &object.object.key;
                self.findings.note(format!("{key} was put there again with content that was counted before"));
            }
            if matches!(object.fate, Fate::Archived { .. }) {
                self.findings.archived_files += 1;
                if !counted.insert(hash(&object.object)) {
                    self.findings.difference(&object.object.key, "one batch that counts it", "several");
                }
            }
            rejected += account.rejected;
            for (day, digest) in account.days {
                archived.entry(day).or_default().merge(digest);
            }
        }
        for &day in days {
            let rows = |digests: &BTreeMap<i32, Digest>| digests.get(&day).copied().unwrap_or_default();
            let (archived, published) = (rows(&archived), rows(published));
            if archived != published {
                let about = format!("curated rows of batch {batch} of {}", date_text(day));
                let describe = |digest: Digest| format!("{} rows with hash {:016x}", digest.rows, digest.sum);
                self.findings.difference(about, describe(archived), describe(published));
            }
        }
        self.verify_deltas(manifest, published, days).await?;
        let mut listed = 0;
        for upload in manifest.uploads.iter().filter(|upload| upload.key.starts_with(layout::QUARANTINED_ROWS)) {
            listed += listed_in(&self.bucket, &upload.key).await?;
        }
        if listed != rejected {
            let about = format!("rejected rows of batch {batch}");
            self.findings.difference(about, rejected.to_string(), format!("{listed} listed"));
        }
        Ok(())
    }

    async fn verify_deltas(
        &mut self,
        manifest: &Manifest,
        published: &BTreeMap<i32, Digest>,
        days: &[i32],
    ) -> Result<(), VerifyError> {
        // A report in which each row counts once.
        let counts_once = |key: &ReportKey| match key {
            ReportKey::All => true,
            ReportKey::Field(name) => {
                !matches!(self.plan.definition.field(name), Some(Field::Attribute(_, it)) if it.many.is_some())
            }
        };
        let reports = &self.plan.definition.reports;
        // And one that counted whatever came, when the batch was prepared.
        let counts_all = |(index, report): (usize, &Report)| {
            (self.plan.since[index].is_none() && counts_once(&report.key)).then_some(index)
        };
        let Some(report) = reports.iter().enumerate().find_map(counts_all) else { return Ok(()) };
        let mut counted: BTreeMap<i32, i64> = BTreeMap::new();
        for file in &manifest.delta_files {
            let bytes = self.bucket.read_all(&file.key).await?;
            let Ok(deltas) = file.decode(&bytes, &self.plan) else {
                self.findings.difference(&file.key, "the delta file that the batch wrote", "other bytes");
                return Ok(());
            };
            for delta in deltas.iter().filter(|delta| delta.key.report == report) {
                let rows = counted.entry(self.plan.day_of(delta.key.period)).or_default();
                *rows = rows.saturating_add(delta.figures.rows().unwrap_or(0));
            }
        }
        for day in days {
            let rows = published.get(day).map_or(0, |digest| digest.rows);
            let counted = counted.get(day).copied().unwrap_or(0);
            if i64::try_from(rows) != Ok(counted) {
                let about = format!("deltas of batch {} of {}", manifest.batch, date_text(*day));
                self.findings.difference(about, format!("{rows} rows"), format!("{counted}"));
            }
        }
        Ok(())
    }
}

/// What archived files are read for.
#[derive(Clone, Copy)]
struct Audit<'a> {
    definition: &'a Arc<Definition>,
    /// The time by which the batch judged rows.
    opened_at: jiff::Timestamp,
    days: &'a [i32],
}

/// The findings about one object.
#[derive(Debug, Default)]
struct Account {
    /// Subject, expected and found.
    differences: Vec<(String, String, String)>,
    /// Its accepted rows of the verified days.
    days: BTreeMap<i32, Digest>,
    rejected: u64,
    passed_over: u64,
    /// True if it lies under the incoming prefix again.
    is_left_over: bool,
}

impl Account {
    fn differ(&mut self, about: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) {
        self.differences.push((about.into(), expected.into(), found.into()));
    }
}

/// Looks an object up in the places where its batch should and should not have left it. Reads it if it was counted.
async fn account(
    bucket: &Bucket,
    object: &ManifestObject,
    audit: Audit<'_>,
    is_left: bool,
) -> Result<Account, AwsError> {
    let ManifestObject { object, created_at, fate, .. } = object;
    let mut account = Account::default();
    match fate {
        Fate::Archived { to, rows, rejected, passed_over } => {
            // An object that could not be moved can be read under its original key, if not in the archive.
            let found = match bucket.find(to).await? {
                None if is_left => Some(object.clone()),
                found => found,
            };
            let Some(archived) = found else {
                account.differ(to, "an archived file", "none");
                return Ok(account);
            };
            match read_archived(bucket, &archived, &object.key, audit, &mut account).await {
                Ok(found) if (found, account.rejected, account.passed_over) == (*rows, *rejected, *passed_over) => {}
                Ok(found) => {
                    let (rejected_now, passed_over_now) = (account.rejected, account.passed_over);
                    account.differ(
                        to,
                        format!("{rows} rows, {rejected} rejected, {passed_over} passed over"),
                        format!("{found} rows, {rejected_now} rejected, {passed_over_now} passed over"),
                    );
                }
                Err(ReadError::Bad(bad)) => {
                    account.differ(to, format!("{rows} rows, {rejected} rejected"), bad.to_string())
                }
                Err(ReadError::Body(error)) => return Err(error),
            }
        }
        Fate::Quarantined { .. } if is_left => {}
        Fate::Quarantined { to, .. } => {
            let places = [to.clone(), format!("{to}{}", layout::REASON_SUFFIX)];
            let found = [bucket.find(&places[0]).await?, bucket.find(&places[1]).await?].map(|found| found.is_some());
            // Both are gone if the file was brought back or has expired. One of them alone is a loss.
            if found[0] != found[1] {
                let missing = if found[0] { &places[1] } else { &places[0] };
                account.differ(missing, "a quarantined file with its reason", "none");
            }
        }
        Fate::Gone => return Ok(account),
    }
    if !is_left && let Some(since) = bucket.last_modified(object).await? {
        account.is_left_over = since.as_second() > created_at.unwrap_or(audit.opened_at).as_second();
        if !account.is_left_over {
            account.differ(&object.key, "one place for it", "it still lies there, though it was put away");
        }
    }
    Ok(account)
}

/// Reads and cleanses an archived file as its batch did, and returns its number of rows.
async fn read_archived(
    bucket: &Bucket,
    archived: &ObjectId,
    source_key: &str,
    audit: Audit<'_>,
    account: &mut Account,
) -> Result<u64, ReadError> {
    // Its batch accepted it, so there is no limit here.
    let body = bucket.read(archived);
    let mut file = InputFile::open(body, u64::MAX, audit.opened_at, audit.definition, source_key).await?;
    let time = audit.definition.columns.iter().position(|column| column.name == audit.definition.time);
    let mut rows = 0;
    while let Some(row) = file.next().await? {
        rows += u64::from(row.judgement != Judgement::PassedOver);
        match row.judgement {
            Judgement::Rejected(_) => account.rejected += 1,
            Judgement::PassedOver => account.passed_over += 1,
            Judgement::Good(values) => {
                let Some(Some(Value::Number(time))) = time.and_then(|time| values.get(time)) else { continue };
                let day = day_in(&audit.definition.zone, *time);
                if audit.days.contains(&day) {
                    let values: Vec<CuratedValue<'_>> = values.iter().map(curated_value).collect();
                    account.days.entry(day).or_default().add((&values, CuratedValue::Text(source_key)));
                }
            }
        }
    }
    Ok(rows)
}

fn curated_value(value: &Option<Value>) -> CuratedValue<'_> {
    match value {
        None => CuratedValue::None,
        Some(Value::Text(text)) => CuratedValue::Text(text),
        Some(Value::Number(number)) => CuratedValue::Number(*number),
    }
}

/// Returns the number of rejected rows in a list of them, 0 if it is missing. A row has a line; the rows of a file that
/// are too many for that share one line with their number.
async fn listed_in(bucket: &Bucket, key: &str) -> Result<u64, AwsError> {
    let Some(object) = bucket.find(key).await? else { return Ok(0) };
    let mut lines = BufReader::new(bucket.read(&object)).take(u64::MAX);
    let (mut listed, mut line) = (0_u64, Vec::new());
    loop {
        line.clear();
        lines.set_limit(MAX_LISTED_LINE_BYTES);
        match lines.read_until(b'\n', &mut line).await {
            Ok(0) => return Ok(listed),
            Ok(_) => listed = listed.saturating_add(rows_of_line(&line)),
            Err(error) => match ReadError::from(error) {
                ReadError::Body(error) => return Err(error),
                // Cannot happen: only decompression finds bad bytes.
                ReadError::Bad(_) => return Ok(listed),
            },
        }
    }
}

/// The longest line of a list of rejected rows: far above a key and the shown fields with everything escaped.
const MAX_LISTED_LINE_BYTES: u64 = 1 << 20;

/// Returns the number of rejected rows that a line stands for, 0 if no batch wrote it.
fn rows_of_line(line: &[u8]) -> u64 {
    #[derive(serde::Deserialize)]
    struct Line {
        line: Option<u64>,
        unlisted: Option<u64>,
    }
    match serde_json::from_slice(line) {
        Ok(Line { unlisted: Some(rows), .. }) => rows,
        Ok(Line { line: Some(_), .. }) => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stands_for_one_row_or_for_many() {
        let row = r#"{"fields":["\"unlisted\":7"],"line":3,"object":"a","reason":"x","version":{"etag":"e"}}"#;
        let rest = r#"{"object":"a","reasons":{"width":5,"user_id":2},"unlisted":7,"version":{"etag":"e"}}"#;
        assert_eq!([row, rest, "", "x"].map(|line| rows_of_line(line.as_bytes())), [1, 7, 0, 0]);
    }
}
