//! The history of an object: each of its versions, the batch that claimed it, and the outcome.

use serde::Serialize;

use crate::aws::error::AwsError;
use crate::aws::s3::Bucket;
use crate::batch::manifest::{Fate, Manifest};
use crate::calendar::time_text;
use crate::commands::format::printable;
use crate::layout;
use crate::ledger::{ClaimRecord, Ledger};
use crate::object::{ObjectId, Version};
use crate::protocol::{BatchNumber, State};

/// The history of an object.
#[derive(Debug, Serialize)]
pub(super) struct ObjectHistory {
    object: String,
    /// Its known versions, present and past.
    contents: Vec<VersionHistory>,
}

/// The history of one version.
#[derive(Debug, Serialize)]
struct VersionHistory {
    version: Version,
    /// The time at which it was put under its key, if it is still there.
    incoming_since: Option<jiff::Timestamp>,
    /// The time from which it is tried again, if it is set aside.
    aside_until: Option<jiff::Timestamp>,
    claim: Option<Claimed>,
}

/// The claim of a version, and the state of the batch that has it.
#[derive(Debug, Serialize)]
struct Claimed {
    batch: BatchNumber,
    claimed_at: jiff::Timestamp,
    /// The batch's state; `None` if it ended before it left a record.
    state: Option<State>,
    /// The consumer that has the batch, while it is unfinished.
    consumer: Option<String>,
    finished_at: Option<jiff::Timestamp>,
    /// The batch's decision, while its manifest is kept.
    decision: Option<Fate>,
    /// The key of the list with its rejected rows, if it has any.
    rejected_rows: Option<String>,
}

impl ObjectHistory {
    /// Reads the history of an object from its claims, and from what lies under its key now.
    pub(super) async fn read(key: &str, bucket: &Bucket, ledger: &Ledger) -> Result<Self, AwsError> {
        let mut contents = Vec::new();
        for claim in ledger.claims(bucket.name(), key).await? {
            contents.push(VersionHistory::read(key, claim, bucket, ledger).await?);
        }
        // Listed after the claims were read: an object that is archived in between shows as archived, not as lost.
        let (mut page, mut next) = bucket.list_current(key, None).await?;
        loop {
            let of_this_key = page.iter().filter(|event| event.object.key == key).count();
            for event in page.drain(..of_this_key) {
                let (version, incoming_since) = (event.object.version, event.created_at);
                match contents.iter_mut().find(|history| history.version == version) {
                    Some(history) => history.incoming_since = incoming_since,
                    None => {
                        contents.push(VersionHistory { version, incoming_since, aside_until: None, claim: None });
                    }
                }
            }
            // The listing goes on with longer keys that begin with this one.
            if !page.is_empty() || next.is_none() {
                break;
            }
            (page, next) = bucket.list_current(key, next).await?;
        }
        Ok(ObjectHistory { object: format!("s3://{}/{key}", bucket.name()), contents })
    }

    /// Formats the history for people.
    pub(super) fn as_text(&self) -> String {
        let object = printable(&self.object);
        if self.contents.is_empty() {
            return format!(
                "{object}\n  nothing is known of it: it was never put there, or was deleted before it was read, or was \
                 finished more than 15 days ago"
            );
        }
        let mut lines = vec![object];
        for history in &self.contents {
            lines.push(format!("  {}", printable(&history.version.to_string())));
            lines.extend(history.lines().into_iter().map(|line| format!("    {}", printable(&line))));
        }
        lines.join("\n")
    }
}

impl VersionHistory {
    /// Reads the history of one version from its claim and the claiming batch.
    async fn read(key: &str, claim: ClaimRecord, bucket: &Bucket, ledger: &Ledger) -> Result<Self, AwsError> {
        let Some(batch) = claim.batch.or(claim.quarantined_by.filter(|_| claim.aside_until.is_none())) else {
            let ClaimRecord { version, aside_until, .. } = claim;
            return Ok(VersionHistory { version, incoming_since: None, aside_until, claim: None });
        };
        let entry = ledger.registry().await?.batches.remove(&batch);
        let record = match entry {
            Some(_) => None,
            None => ledger.record(batch).await?,
        };
        let manifest = Manifest::find(bucket, batch).await?;
        let decision = manifest.as_ref().and_then(|manifest| {
            let is_it = |id: &ObjectId| id.key == key && id.version == claim.version;
            manifest.objects.iter().find(|object| is_it(&object.object)).map(|object| object.fate.clone())
        });
        let has_rejects = matches!(decision, Some(Fate::Archived { rejected: 1.., .. }));
        let rejected_rows = manifest.filter(|_| has_rejects).and_then(|manifest| {
            let mut keys = manifest.uploads.into_iter().map(|upload| upload.key);
            keys.find(|key| key.starts_with(layout::QUARANTINED_ROWS))
        });
        let claimed = Claimed {
            batch,
            claimed_at: claim.claimed_at,
            state: entry.as_ref().map(|entry| entry.state).or(record.as_ref().map(|record| record.state)),
            consumer: entry.map(|entry| entry.owner),
            finished_at: record.map(|record| record.finished_at),
            decision,
            rejected_rows,
        };
        Ok(VersionHistory { version: claim.version, incoming_since: None, aside_until: None, claim: Some(claimed) })
    }

    /// Formats the history for people, as lines.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let since = self.incoming_since.map(|since| format!("lies there since {}", time_text(since)));
        let Some(claim) = &self.claim else {
            lines.extend(since);
            lines.push(match self.aside_until {
                Some(until) => format!(
                    "set aside: it could not be read, and is tried again from {} on; music-streams aside says why",
                    time_text(until)
                ),
                None => {
                    "no batch has it yet: its announcement waits in the queue, or the next sweep finds it".to_owned()
                }
            });
            return lines;
        };
        let Claimed { batch, claimed_at, state, consumer, finished_at, decision, rejected_rows } = claim;
        lines.push(format!("claimed {} by batch {batch}", time_text(*claimed_at)));
        let by = consumer.as_ref().map_or(String::new(), |consumer| format!(" by {consumer}"));
        let at = finished_at.map_or(String::new(), |at| format!(" at {}", time_text(at)));
        lines.push(match state {
            Some(State::Open) => format!("batch {batch} is open: it is being prepared{by}"),
            Some(State::Committed) => format!("batch {batch} is committed: it is being carried out{by}"),
            Some(State::Done) => format!("batch {batch} was done{at}"),
            Some(State::Aside) => {
                format!("batch {batch} is committed, and was set aside{at}: music-streams aside says why")
            }
            Some(State::Abandoned | State::Lost) | None => {
                format!("batch {batch} was abandoned{at}: the next batch that meets it takes it over")
            }
        });
        if matches!(state, Some(State::Committed | State::Aside | State::Done)) {
            let mood = if *state == Some(State::Done) { "" } else { "to be " };
            match decision {
                Some(Fate::Archived { to, rows, rejected, passed_over }) => {
                    lines.push(format!("{mood}counted, and archived at {to}"));
                    lines.push(match passed_over {
                        0 => format!("{rows} rows, {rejected} of them rejected"),
                        _ => format!("{rows} rows, {rejected} of them rejected, and {passed_over} others passed over"),
                    });
                    lines.extend(rejected_rows.iter().map(|key| format!("rejected rows are listed in {key}")));
                }
                Some(Fate::Quarantined { to, reason }) => {
                    lines.push(format!("{mood}quarantined at {to}: {reason}"));
                }
                Some(Fate::Gone) => lines.push("was deleted or replaced before it could be read".to_owned()),
                None => lines.push("the manifest of that batch is no longer kept: look under archive/".to_owned()),
            }
        }
        let counted = matches!((state, decision), (Some(State::Done), Some(Fate::Archived { .. }) | None));
        if let (true, Some(since)) = (counted, &since) {
            lines.push(format!("{since}: the same content was put there again, which does not count twice"));
        } else if let (Some(State::Done), Some(since)) = (state, &since) {
            lines.push(format!("{since}: it was put there again, and the next batch that meets it reads it again"));
        } else {
            lines.extend(since);
        }
        lines
    }
}
