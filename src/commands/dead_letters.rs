//! `music-streams dead-letters`: what lies in the dead-letter queue and why, and the way back.
//!
//! A message ends there after its last receive, whyever it came back each time. Nobody can read it: that is told from
//! its body. Or it can be read, and its objects were not done each time: what became of them since is told from the
//! ledger. Looking takes each message for a moment and gives it back; moving them back to the main queue is done by SQS
//! itself.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::aws::Clients;
use crate::aws::error::AwsError;
use crate::aws::sqs::Queue;
use crate::commands::format::{Format, printable, table};
use crate::intake::custody::Custody;
use crate::intake::notification::{Admission, admit, decode};
use crate::ledger::{ClaimRecord, LEDGER_TABLE, Ledger};
use crate::object::ObjectId;
use crate::protocol::{BatchNumber, State};

/// How long a message is hidden from others while it is looked at.
const LOOK: Duration = Duration::from_secs(60);
/// How long an empty queue is asked for more.
const WAIT: Duration = Duration::from_secs(2);
/// Characters of a body that a table shows.
const SHOWN_CHARS: usize = 120;

/// Objects of one message that are looked up in the ledger.
const EXAMINED_OBJECTS: usize = 8;

/// What to do with dead letters, and how to show them.
#[derive(Debug, Args)]
pub struct DeadLettersQuery {
    /// Move all of them back to the main queue, to be worked off again
    ///
    /// For when what kept them from being worked off is mended. Nothing can be counted twice by it.
    #[arg(long)]
    redrive: bool,

    /// URL of the main queue, whose redrive policy names the dead-letter queue
    #[arg(long, env = "MUSIC_STREAMS_QUEUE_URL", value_name = "URL")]
    queue_url: String,

    /// Bucket that the consumers read
    #[arg(long, env = "MUSIC_STREAMS_BUCKET", value_name = "NAME")]
    bucket: String,

    /// Put before the name of every table
    #[arg(long, env = "MUSIC_STREAMS_TABLE_PREFIX", value_name = "TEXT", default_value = "")]
    table_prefix: String,

    /// How many to show at the most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000), value_name = "COUNT")]
    limit: u16,

    /// A table for people or JSON for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// A message of the dead-letter queue.
#[derive(Debug, Serialize)]
struct DeadLetter {
    message_id: String,
    /// Receives, those by this command included.
    receive_count: u32,
    reason: String,
    body: String,
}

impl DeadLettersQuery {
    /// Looks at or moves the messages, and gives what to print.
    pub async fn answer(&self, clients: Clients) -> Result<String, AwsError> {
        let queue = Queue::new(clients.sqs, self.queue_url.clone(), LOOK);
        let Some(dead) = queue.dead_letter_queue().await? else {
            return Ok("this queue has no redrive policy, and so no dead-letter queue".to_owned());
        };
        if self.redrive {
            let moved = dead.redrive(&queue).await?;
            return Ok(match self.format {
                Format::Table => format!("{moved} messages were moved back to the main queue"),
                Format::Json => serde_json::json!({ "moved": moved }).to_string(),
            });
        }
        let mut letters = self.look(&dead).await?;
        let ledger = Ledger::new(clients.dynamodb, format!("{}{LEDGER_TABLE}", self.table_prefix), String::new());
        for letter in &mut letters {
            letter.reason = self.reason(&letter.body, &ledger).await?;
        }
        Ok(match self.format {
            Format::Json => format!("{:#}", serde_json::json!(letters)),
            Format::Table if letters.is_empty() => "no dead letters".to_owned(),
            Format::Table => {
                let row = |letter: &DeadLetter| {
                    let body: String = printable(&letter.body).chars().take(SHOWN_CHARS).collect();
                    vec![letter.message_id.clone(), letter.receive_count.to_string(), printable(&letter.reason), body]
                };
                table(&["MESSAGE", "RECEIVES", "WHY", "BODY"], &[false, true], letters.iter().map(row))
            }
        })
    }

    async fn look(&self, dead: &Queue) -> Result<Vec<DeadLetter>, AwsError> {
        let (custody, _custodian) = Custody::start(dead.clone());
        let (mut letters, mut held) = (Vec::new(), Vec::new());
        let looked = loop {
            let received = match custody.receive(WAIT).await {
                Ok(received) => received,
                Err(error) => break Err(error),
            };
            if received.is_empty() || letters.len() >= usize::from(self.limit) {
                held.extend(received.iter().map(|message| message.id));
                break Ok(());
            }
            for message in received {
                held.push(message.id);
                letters.push(DeadLetter {
                    message_id: message.message_id,
                    receive_count: message.receive_count,
                    reason: String::new(),
                    body: message.body,
                });
            }
        };
        custody.release(held, Duration::ZERO).await;
        letters.truncate(usize::from(self.limit));
        looked.map(|()| letters)
    }

    async fn reason(&self, body: &str, ledger: &Ledger) -> Result<String, AwsError> {
        let Admission { events, unreadable, refused, ignored } = admit(decode(body), &self.bucket);
        if let Some(reason) = unreadable.into_iter().next() {
            return Ok(reason);
        }
        if events.is_empty() {
            let what = refused.into_iter().chain(ignored).next().unwrap_or_default();
            return Ok(format!("it announces nothing to work on ({what}); sent back, it is deleted"));
        }
        let mut found = Vec::new();
        for event in events.iter().take(EXAMINED_OBJECTS) {
            let ObjectId { bucket, key, version } = &event.object;
            let claims = ledger.claims(bucket, key).await?;
            let claim = claims.into_iter().find(|claim| claim.version == *version);
            let holder = match claim {
                Some(ClaimRecord { aside_until: Some(_), .. }) => Holder::Aside,
                Some(ClaimRecord { batch: Some(batch), .. }) => Holder::Batch(batch, ledger.state_of(batch).await?),
                Some(_) | None => Holder::Nobody,
            };
            found.push(format!("{key}: {}", explanation(holder)));
        }
        if events.len() > EXAMINED_OBJECTS {
            found.push(format!("and {} more objects", events.len() - EXAMINED_OBJECTS));
        }
        Ok(found.join("; "))
    }
}

/// Who has an object that a dead letter announces.
#[derive(Debug, Clone, Copy)]
enum Holder {
    Nobody,
    Aside,
    Batch(BatchNumber, Option<State>),
}

/// Why the message of an object is a dead letter, as far as the object's claim tells; and what to do.
fn explanation(holder: Holder) -> String {
    match holder {
        Holder::Batch(batch, Some(State::Done)) => {
            format!("finished by batch {batch}, so the message was a duplicate; it can be deleted, or sent back")
        }
        Holder::Batch(batch, Some(State::Open | State::Committed)) => {
            format!("batch {batch} has it and is not finished; see status, and send the message back when it is")
        }
        Holder::Batch(batch, Some(State::Aside)) => {
            format!(
                "batch {batch} has it and is set aside; music-streams aside says why, and the message can be deleted"
            )
        }
        Holder::Batch(batch, Some(State::Abandoned | State::Lost)) => {
            format!("batch {batch} tried it and gave up; the log says why. Mend that, then send the message back")
        }
        Holder::Batch(batch, None) => {
            format!("batch {batch} had it, of which nothing is known any more; send the message back")
        }
        Holder::Aside => {
            "it is set aside; music-streams aside says why, it is tried again without the message, which can be deleted"
                .to_owned()
        }
        Holder::Nobody => "nothing keeps it from being worked off now; send the message back".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_readable_message_is_explained_by_what_the_ledger_knows() {
        for (holder, said) in [
            (Holder::Batch(7, Some(State::Done)), "finished by batch 7"),
            (Holder::Batch(7, Some(State::Open)), "batch 7 has it and is not finished"),
            (Holder::Batch(7, Some(State::Committed)), "batch 7 has it and is not finished"),
            (Holder::Batch(7, Some(State::Lost)), "batch 7 tried it and gave up"),
            (Holder::Batch(7, Some(State::Aside)), "batch 7 has it and is set aside"),
            (Holder::Batch(7, None), "batch 7 had it, of which nothing is known any more"),
            (Holder::Aside, "it is set aside"),
            (Holder::Nobody, "nothing keeps it from being worked off now"),
        ] {
            assert!(explanation(holder).starts_with(said), "{holder:?}");
        }
    }
}
