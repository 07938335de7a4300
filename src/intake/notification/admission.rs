//! Admission.

use crate::intake::notification::{Notification, quoted};
use crate::layout::INCOMING;
use crate::object::{ObjectEvent, ObjectId};

/// What a consumer of one bucket does with a notification.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// The objects to work on.
    pub events: Vec<ObjectEvent>,
    /// Keys that are not read: outside the incoming prefix (our own output above all), or a folder marker.
    pub refused: Vec<String>,
    /// The kinds of what is no announcement of a new object.
    pub ignored: Vec<String>,
    /// Why the message must stay in the queue, whatever becomes of its events; empty when it need not.
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
