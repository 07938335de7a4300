//! `music-streams dead-letters`: the messages of the dead-letter queue, each with the reason, and the way back.
//!
//! SQS moves a message there after its last receive. If the message cannot be read, its body gives the reason. If it
//! can be read, its objects were not finished each time, and the ledger says what has happened to them since. Listing
//! receives each message and makes it visible again at once; SQS itself moves messages back to the main queue.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::aws::Clients;
use crate::aws::error::AwsError;
use crate::aws::sqs::{Custody, Queue};
use crate::commands::format::{Format, printable, table};
use crate::commands::resources::Resources;
use crate::intake::notification::{Admission, admit, decode};
use crate::ledger::{ClaimRecord, Ledger};
use crate::object::ObjectId;
use crate::protocol::{BatchNumber, State};

/// The time for which a message is hidden from others while it is listed.
const LOOK: Duration = Duration::from_secs(60);
/// The time for which an empty queue is polled for more.
const WAIT: Duration = Duration::from_secs(2);
/// The number of characters of a body that a table shows.
const SHOWN_CHARS: usize = 120;
/// The number of objects of one message that are looked up in the ledger.
const EXAMINED_OBJECTS: usize = 8;

/// The arguments of `music-streams dead-letters`.
#[derive(Debug, Args)]
pub struct DeadLettersQuery {
    /// Move all of them back to the main queue, to be processed again
    ///
    /// Use it once the cause is fixed. Nothing is ever counted twice.
    #[arg(long)]
    redrive: bool,

    /// URL of the main queue, whose redrive policy names the dead-letter queue
    #[arg(long, env = "MUSIC_STREAMS_QUEUE_URL", value_name = "URL")]
    queue_url: String,

    #[command(flatten)]
    resources: Resources,

    /// Number of messages to show, at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000), value_name = "COUNT")]
    limit: u16,

    /// Table for people or JSON for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// A message of the dead-letter queue.
#[derive(Debug, Serialize)]
struct DeadLetter {
    message_id: String,
    /// The number of receives, including those by this command.
    receive_count: u32,
    reason: String,
    body: String,
}

impl DeadLettersQuery {
    /// Lists or moves the messages, and returns the text to print.
    pub async fn answer(&self, clients: Clients) -> Result<String, AwsError> {
        let queue = Queue::new(clients.sqs.clone(), self.queue_url.clone(), LOOK);
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
        let mut letters = self.receive(&dead).await?;
        let bucket = self.resources.bucket(&clients);
        let ledger = self.resources.tables.ledger(&clients, "");
        for letter in &mut letters {
            letter.reason = reason(&letter.body, bucket.name(), &ledger).await?;
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

    async fn receive(&self, dead: &Queue) -> Result<Vec<DeadLetter>, AwsError> {
        let (custody, _custodian) = Custody::keep(dead.clone());
        let (mut letters, mut held) = (Vec::new(), Vec::new());
        let received = loop {
            let received = match dead.receive(WAIT, &custody).await {
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
        received.map(|()| letters)
    }
}

/// Returns the reason for which a message is a dead letter.
async fn reason(body: &str, bucket_name: &str, ledger: &Ledger) -> Result<String, AwsError> {
    let Admission { events, unreadable, refused, ignored } = admit(decode(body), bucket_name);
    if let Some(reason) = unreadable.into_iter().next() {
        return Ok(reason);
    }
    if events.is_empty() {
        let what = refused.into_iter().chain(ignored).next().unwrap_or_default();
        return Ok(format!("it announces no object to count ({what}); if sent back, it is deleted"));
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

/// The holder of an object that a dead letter announces.
#[derive(Debug, Clone, Copy)]
enum Holder {
    Nobody,
    Aside,
    Batch(BatchNumber, Option<State>),
}

/// Explains from an object's claim why its message is a dead letter, and what to do.
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
            format!("batch {batch} tried it and failed; the log says why. Fix that, then send the message back")
        }
        Holder::Batch(batch, None) => {
            format!("batch {batch} had it, but its record has expired; send the message back")
        }
        Holder::Aside => {
            "it is set aside; music-streams aside says why. It is tried again without the message, which can be deleted"
                .to_owned()
        }
        Holder::Nobody => "nothing holds it up now; send the message back".to_owned(),
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
            (Holder::Batch(7, Some(State::Lost)), "batch 7 tried it and failed"),
            (Holder::Batch(7, Some(State::Aside)), "batch 7 has it and is set aside"),
            (Holder::Batch(7, None), "batch 7 had it, but its record has expired"),
            (Holder::Aside, "it is set aside"),
            (Holder::Nobody, "nothing holds it up now"),
        ] {
            assert!(explanation(holder).starts_with(said), "{holder:?}");
        }
    }
}
