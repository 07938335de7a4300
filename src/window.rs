//! The micro-batch window: which announced objects are worked on together.
//!
//! Second stage of the flow, and pure: time comes in as an argument, nothing waits. The rules:
//!
//! * **W1** A window opens with its first message. Its edge is the next multiple of the window length, counted from the
//!   Unix epoch, strictly after that moment: windows are aligned to the clock.
//! * **W2** A window is due at its edge, or at once when it is full.
//! * **W3** It is full when it holds at least [`Limits::objects`] objects, [`Limits::bytes`] bytes or
//!   [`Limits::messages`] messages. A full window takes no further message; before, it takes a message whole, so a limit
//!   is overstepped by one message at the most.
//! * **W4** A due window that nobody takes yet goes on filling until it is full.
//! * **W5** An object announced several times is in the window once; its messages all wait for it.
//! * **W6** Every message that was taken comes out exactly once, from [`Window::close`]. An empty window never does.
//!
//! Window edges are processing time and carry no meaning for the figures: a row's day comes from the row.

use std::collections::HashMap;
use std::time::Duration;

use crate::event::{ObjectEvent, ObjectId};

/// Names a message held in custody by [`crate::queue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub u64);

/// A message that was received and understood.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its name in custody.
    pub id: MessageId,
    /// The objects it announces; never empty.
    pub events: Vec<ObjectEvent>,
    /// Whether it also has a record that nobody could read, so that it must not be deleted.
    pub keep: bool,
}

/// When a window is full.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Distinct objects.
    pub objects: usize,
    /// Announced bytes of distinct objects.
    pub bytes: u64,
    /// Messages: each counts against the 120,000 in flight that SQS allows a queue.
    pub messages: usize,
}

/// A message of a closed window.
#[derive(Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its name in custody.
    pub id: MessageId,
    /// The objects it waits for, as indices into [`Closed::objects`].
    pub objects: Vec<usize>,
    /// Whether it must stay in the queue whatever becomes of them.
    pub keep: bool,
}

/// The content of a window: what a batch works on.
#[derive(Debug, Default)]
pub struct Closed {
    /// Distinct objects, in the order they were first announced.
    pub objects: Vec<ObjectEvent>,
    /// Messages, each with the objects it waits for.
    pub messages: Vec<Waiting>,
}

/// The window that is filling.
#[derive(Debug)]
pub struct Window {
    length: Duration,
    limits: Limits,
    edge: Option<Duration>,
    bytes: u64,
    positions: HashMap<ObjectId, usize>,
    content: Closed,
}

impl Window {
    /// An empty window of the given length.
    pub fn new(length: Duration, limits: Limits) -> Self {
        Window { length, limits, edge: None, bytes: 0, positions: HashMap::new(), content: Closed::default() }
    }

    /// Takes a message at `now` (since the Unix epoch), or gives it back when the window is full (W3).
    pub fn offer(&mut self, message: Message, now: Duration) -> Result<(), Message> {
        if self.is_full() {
            return Err(message);
        }
        self.edge.get_or_insert_with(|| next_edge(now, self.length));
        let mut objects = Vec::with_capacity(message.events.len());
        for event in message.events {
            let position = match self.positions.get(&event.object) {
                Some(&known) => known,
                None => {
                    let position = self.content.objects.len();
                    self.bytes = self.bytes.saturating_add(event.size);
                    self.positions.insert(event.object.clone(), position);
                    self.content.objects.push(event);
                    position
                }
            };
            if !objects.contains(&position) {
                objects.push(position);
            }
        }
        self.content.messages.push(Waiting { id: message.id, objects, keep: message.keep });
        Ok(())
    }

    /// Whether the window takes no further message (W3).
    pub fn is_full(&self) -> bool {
        self.content.objects.len() >= self.limits.objects
            || self.bytes >= self.limits.bytes
            || self.content.messages.len() >= self.limits.messages
    }

    /// Objects in it.
    pub fn objects(&self) -> usize {
        self.content.objects.len()
    }

    /// How full it is: the largest of its shares of the limits; 1 and above when it [`is_full`](Window::is_full).
    pub fn fill(&self) -> f64 {
        let Limits { objects, bytes, messages } = self.limits;
        [
            self.content.objects.len() as f64 / objects as f64,
            self.bytes as f64 / bytes as f64,
            self.content.messages.len() as f64 / messages as f64,
        ]
        .into_iter()
        .fold(0.0, f64::max)
    }

    /// When the window is due, since the Unix epoch; `None` while it is empty.
    pub fn due_at(&self, now: Duration) -> Option<Duration> {
        if self.is_full() { self.edge.map(|_| now) } else { self.edge }
    }

    /// Whether nothing was taken yet.
    pub fn is_empty(&self) -> bool {
        self.content.messages.is_empty()
    }

    /// Hands over the content and starts an empty window (W6). `None` when there is none.
    pub fn close(&mut self) -> Option<Closed> {
        if self.is_empty() {
            return None;
        }
        let next = Window::new(self.length, self.limits);
        Some(std::mem::replace(self, next).content)
    }
}

/// The next multiple of `length` strictly after `now`.
fn next_edge(now: Duration, length: Duration) -> Duration {
    let length_nanos = length.as_nanos().max(1);
    let edge = (now.as_nanos() / length_nanos + 1) * length_nanos;
    Duration::new(u64::try_from(edge / 1_000_000_000).unwrap_or(u64::MAX), (edge % 1_000_000_000) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Version;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const LENGTH: Duration = Duration::from_secs(300);

    fn event(object: u8, size: u64) -> ObjectEvent {
        let object =
            ObjectId { bucket: "b".into(), key: format!("incoming/{object}"), version: Version::ETag("e".into()) };
        ObjectEvent { object, size, created_at: None }
    }

    fn message(id: u64, objects: &[u8]) -> Message {
        Message { id: MessageId(id), events: objects.iter().map(|&object| event(object, 10)).collect(), keep: false }
    }

    fn limits() -> impl Strategy<Value = Limits> {
        (1..6_usize, 1..60_u64, 1..8_usize).prop_map(|(objects, bytes, messages)| Limits { objects, bytes, messages })
    }

    fn messages() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(0..6_u8, 1..4), 0..30)
    }

    #[test]
    fn w1_edges_lie_on_the_clock() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        for (now, edge) in [(minutes(3), minutes(5)), (minutes(5), minutes(10)), (minutes(9), minutes(10))] {
            let mut window = Window::new(LENGTH, Limits { objects: 9, bytes: 99, messages: 9 });
            assert_eq!(window.due_at(now), None);
            window.offer(message(1, &[1]), now).unwrap();
            assert_eq!(window.due_at(now), Some(edge));
            window.offer(message(2, &[2]), now + minutes(1)).unwrap();
            assert_eq!(window.due_at(now), Some(edge), "the first message sets the edge");
        }
    }

    proptest! {
        #[test]
        fn w1_the_edge_is_the_next_multiple(now_nanos in 0..u64::MAX / 2, length_millis in 1..10_000_000_u64) {
            let (now, length) = (Duration::from_nanos(now_nanos), Duration::from_millis(length_millis));
            let edge = next_edge(now, length);
            prop_assert_eq!(edge.as_nanos() % length.as_nanos(), 0);
            prop_assert!(edge > now && edge - now <= length);
        }

        #[test]
        fn w2_w3_full_exactly_at_a_limit_and_then_due_at_once(limits in limits(), messages in messages()) {
            let mut window = Window::new(LENGTH, limits);
            let now = Duration::from_secs(1000);
            let (mut distinct, mut taken) = (BTreeSet::<&u8>::new(), 0);
            for (id, objects) in messages.iter().enumerate() {
                let full = distinct.len() >= limits.objects || 10 * distinct.len() as u64 >= limits.bytes || taken >= limits.messages;
                prop_assert_eq!(window.is_full(), full);
                prop_assert_eq!(window.due_at(now) == Some(now), full && taken > 0);
                prop_assert_eq!(window.offer(message(id as u64, objects), now).is_err(), full);
                if !full {
                    distinct.extend(objects);
                    taken += 1;
                }
            }
        }

        #[test]
        fn w4_a_due_window_goes_on_filling(late_secs in 300..100_000_u64) {
            let mut window = Window::new(LENGTH, Limits { objects: 2, bytes: 1000, messages: 9 });
            window.offer(message(1, &[1]), Duration::from_secs(10)).unwrap();
            prop_assert!(window.offer(message(2, &[2]), Duration::from_secs(late_secs)).is_ok());
            prop_assert!(window.offer(message(3, &[3]), Duration::from_secs(late_secs)).is_err());
        }

        #[test]
        fn w5_w6_nothing_is_lost_or_doubled(limits in limits(), messages in messages(), closes in prop::collection::vec(any::<bool>(), 30)) {
            let mut window = Window::new(LENGTH, limits);
            let (mut taken, mut given) = (Vec::new(), Vec::new());
            let mut check = |closed: Closed| {
                let distinct: BTreeSet<_> = closed.objects.iter().map(|event| event.object.key.clone()).collect();
                assert_eq!(distinct.len(), closed.objects.len());
                for waiting in closed.messages {
                    let mut keys: Vec<_> = waiting.objects.iter().map(|&index| closed.objects[index].object.key.clone()).collect();
                    keys.sort();
                    given.push((waiting.id.0, keys));
                }
            };
            for (id, objects) in messages.iter().enumerate() {
                if window.offer(message(id as u64, objects), Duration::ZERO).is_ok() {
                    let keys: BTreeSet<_> = objects.iter().map(|object| format!("incoming/{object}")).collect();
                    taken.push((id as u64, keys.into_iter().collect::<Vec<_>>()));
                }
                if closes[id] {
                    let empty = window.is_empty();
                    let closed = window.close();
                    prop_assert_eq!(closed.is_none(), empty);
                    closed.into_iter().for_each(&mut check);
                }
            }
            window.close().into_iter().for_each(&mut check);
            prop_assert!(window.close().is_none());
            prop_assert_eq!(taken, given);
        }
    }
}
