//! SQS: queues in memory, with long polls that are served in the order of their arrival.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::sync::Notify;
use tokio::time::Instant;

/// All queues, by name.
#[derive(Debug, Default)]
pub struct Sqs {
    queues: Mutex<HashMap<String, Arc<Queue>>>,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    visible: VecDeque<u64>,
    /// Messages that come back at a time, unless they are deleted before.
    hidden: BTreeMap<(Instant, u64), ()>,
    messages: HashMap<u64, Message>,
}

#[derive(Debug)]
struct Message {
    body: String,
    sent_ms: u64,
    receives: u64,
    hidden_until: Option<Instant>,
}

impl State {
    /// Brings back the messages whose time is up. Returns the time of the next.
    fn bring_back(&mut self) -> Option<Instant> {
        while let Some(&(until, id)) = self.hidden.keys().next() {
            if until > Instant::now() {
                return Some(until);
            }
            self.hidden.remove(&(until, id));
            self.show(id);
        }
        None
    }

    fn show(&mut self, id: u64) {
        if let Some(message) = self.messages.get_mut(&id) {
            message.hidden_until = None;
            self.visible.push_back(id);
        }
    }

    fn hide(&mut self, id: u64, time: Duration) {
        let Some(message) = self.messages.get_mut(&id) else { return };
        if let Some(until) = message.hidden_until.take() {
            self.hidden.remove(&(until, id));
        }
        if time.is_zero() {
            return self.show(id);
        }
        let until = Instant::now() + time;
        message.hidden_until = Some(until);
        self.hidden.insert((until, id), ());
    }

    fn delete(&mut self, id: u64) {
        if let Some(until) = self.messages.remove(&id).and_then(|message| message.hidden_until) {
            self.hidden.remove(&(until, id));
        }
    }

    fn take(&mut self, most: usize, time: Duration) -> Vec<Json> {
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(id) = self.visible.pop_front()
        {
            let Some(message) = self.messages.get_mut(&id) else { continue };
            message.receives += 1;
            taken.push(json!({
                "MessageId": format!("message-{id}"), "ReceiptHandle": id.to_string(), "Body": message.body,
                "Attributes": {
                    "ApproximateReceiveCount": message.receives.to_string(),
                    "SentTimestamp": message.sent_ms.to_string(),
                },
            }));
            self.hide(id, time);
        }
        taken
    }
}

impl Sqs {
    /// Sends a message to a queue, if there is one of this name.
    pub fn send(&self, queue: &str, body: String) {
        let Some(queue) = self.queues.lock().unwrap().get(queue).cloned() else { return };
        let mut state = queue.state.lock().unwrap();
        state.last += 1;
        let (id, sent_ms) = (state.last, super::table::now_ms());
        state.messages.insert(id, Message { body, sent_ms, receives: 0, hidden_until: None });
        state.visible.push_back(id);
        drop(state);
        queue.arrived.notify_one();
    }

    /// Carries out a request.
    pub async fn answer(&self, operation: &str, body: &[u8]) -> Result<Json, Json> {
        let body: Json = serde_json::from_slice(body).map_err(|error| failed(&error.to_string()))?;
        if operation == "CreateQueue" {
            let name = body["QueueName"].as_str().unwrap_or_default();
            self.queues.lock().unwrap().entry(name.to_owned()).or_default();
            return Ok(json!({"QueueUrl": name}));
        }
        let name = body["QueueUrl"].as_str().and_then(|url| url.rsplit('/').next()).unwrap_or_default();
        let queue = self.queues.lock().unwrap().get(name).cloned();
        let queue = queue.ok_or_else(|| failed("AWS.SimpleQueueService.NonExistentQueue"))?;
        match operation {
            "ReceiveMessage" => Ok(json!({"Messages": queue.receive(&body).await})),
            "SendMessage" => {
                self.send(name, body["MessageBody"].as_str().unwrap_or_default().to_owned());
                Ok(json!({"MessageId": "message"}))
            }
            "DeleteMessageBatch" => Ok(queue.each(&body, |state, id, _| state.delete(id))),
            "ChangeMessageVisibilityBatch" => {
                Ok(queue.each(&body, |state, id, entry| state.hide(id, seconds(&entry["VisibilityTimeout"]))))
            }
            "GetQueueAttributes" => {
                let mut state = queue.state.lock().unwrap();
                state.bring_back();
                let hidden = state.hidden.len();
                let waiting = state.messages.len() - hidden;
                Ok(json!({"Attributes": {
                    "QueueArn": format!("arn:aws:sqs:us-east-1:000000000000:{name}"),
                    "ApproximateNumberOfMessages": waiting.to_string(),
                    "ApproximateNumberOfMessagesNotVisible": hidden.to_string(),
                    "ApproximateNumberOfMessagesDelayed": "0",
                }}))
            }
            _ => Err(failed(&format!("the stand-in has no {operation}"))),
        }
    }
}

impl Queue {
    /// Waits for messages as long as the request says.
    async fn receive(&self, body: &Json) -> Vec<Json> {
        let most = body["MaxNumberOfMessages"].as_u64().unwrap_or(1) as usize;
        let end = Instant::now() + seconds(&body["WaitTimeSeconds"]);
        loop {
            let next = {
                let mut state = self.state.lock().unwrap();
                let next = state.bring_back();
                let taken = state.take(most, seconds(&body["VisibilityTimeout"]));
                if !taken.is_empty() {
                    if !state.visible.is_empty() {
                        self.arrived.notify_one();
                    }
                    return taken;
                }
                next.map_or(end, |next| next.min(end))
            };
            if Instant::now() >= end {
                return Vec::new();
            }
            let _ = tokio::time::timeout_at(next, self.arrived.notified()).await;
        }
    }

    /// Carries out every entry of a batch.
    fn each(&self, body: &Json, change: impl Fn(&mut State, u64, &Json)) -> Json {
        let mut done = Vec::new();
        let mut state = self.state.lock().unwrap();
        for entry in body["Entries"].as_array().into_iter().flatten() {
            let id = entry["ReceiptHandle"].as_str().and_then(|handle| handle.parse().ok());
            if let Some(id) = id {
                change(&mut state, id, entry);
            }
            done.push(json!({"Id": entry["Id"]}));
        }
        if !state.visible.is_empty() {
            self.arrived.notify_one();
        }
        json!({"Successful": done, "Failed": []})
    }
}

fn seconds(value: &Json) -> Duration {
    Duration::from_secs(value.as_u64().unwrap_or(0))
}

fn failed(reason: &str) -> Json {
    json!({"__type": format!("com.amazonaws.sqs#{reason}"), "message": reason})
}
