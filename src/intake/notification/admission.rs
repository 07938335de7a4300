//! Admission: the announced objects that a consumer of one bucket accepts.

use crate::intake::notification::{Notification, quoted};
use crate::layout::INCOMING;
use crate::object::{ObjectEvent, ObjectId};

/// A notification, sorted by what a consumer of one bucket does with it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// The objects to process.
    pub events: Vec<ObjectEvent>,
    /// Keys that are not read: those outside the incoming prefix (mainly our own output), and folder markers.
    pub refused: Vec<String>,
    /// The kinds of events that announce no new object.
    pub ignored: Vec<String>,
    /// The reasons why the message must stay in the queue, whatever happens to its events; empty if it need not.
    pub unreadable: Vec<String>,
}

/// Admits objects of `bucket` under the incoming prefix.
pub fn admit(notification: Notification, bucket: &str) -> Admission {
    let Notification { events, ignored, unreadable } = notification;
    let mut admission = Admission { ignored, unreadable, ..Admission::default() };
    for event in events {
        let ObjectId { bucket: name, key, .. } = &event.object;
        if name != bucket {
            let name = quoted(name);
            let reason = format!("it announces an object of bucket {name:?}, this consumer reads {bucket:?}");
            admission.unreadable.push(reason);
        } else if !key.starts_with(INCOMING) || key.ends_with('/') {
            admission.refused.push(event.object.key);
        } else {
            admission.events.push(event);
        }
    }
    admission
}
