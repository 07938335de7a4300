//! `music-streams dead-letters`: what lies in the dead-letter queue and why, and the way back.
//!
//! Only messages that no consumer could read end there, and those whose object S3 would not give out for days. Looking takes
//! each message for a moment and gives it back; moving them back to the main queue is done by SQS itself.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::aws::{AwsError, Clients};
use crate::event::{admit, decode};
use crate::queue::{Custody, Queue};
use crate::show::{Format, printable, table};

/// How long a message is hidden from others while it is looked at.
const LOOK: Duration = Duration::from_secs(60);
/// How long an empty queue is asked for more.
const WAIT: Duration = Duration::from_secs(2);
/// Characters of a body that a table shows.
const SHOWN_CHARS: usize = 120;

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
        let letters = self.look(&dead).await?;
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
        let (custody, _custodian) = Custody::keep(dead.clone());
        let (mut letters, mut held) = (Vec::new(), Vec::new());
        let looked = loop {
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
                    reason: self.reason(&message.body),
                    body: message.body,
                });
            }
        };
        custody.release(held, Duration::ZERO).await;
        letters.truncate(usize::from(self.limit));
        looked.map(|()| letters)
    }

    fn reason(&self, body: &str) -> String {
        let admission = admit(decode(body), &self.bucket);
        admission.unreadable.unwrap_or_else(|| {
            let keys: Vec<_> = admission.events.iter().map(|event| event.object.key.as_str()).collect();
            format!("it can be read, but S3 did not give out its object: {}", keys.join(", "))
        })
    }
}
