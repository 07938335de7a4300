//! The micro-batch window: the announced objects that are processed together.
//!
//! Second stage of the flow, and pure: time comes in as an argument, nothing waits. The rules:
//!
//! * **W1** A window opens with its first message. Its edge is the next multiple of the window length, counted from the
//!   Unix epoch, strictly after that moment: windows are aligned to the clock. Where several consumers share a queue,
//!   each one's edges come by its own [`offset`] later, so that they do not write the same items in the same seconds.
//! * **W2** A window is due at its edge, or at once when it is full. The clock is read only when the window opens: if
//!   the clock jumps later, the window is due when it would have been.
//! * **W3** It is full when it holds at least [`Limits::objects`] objects, [`Limits::bytes`] bytes or
//!   [`Limits::messages`] messages. A full window takes no further message; before that, it takes each message
//!   whole, so a limit is exceeded by at most one message.
//! * **W4** A due window that is not closed yet continues to fill until it is full.
//! * **W5** An object announced several times is in the window once; its messages all wait for it.
//! * **W6** Every message that was taken comes out exactly once, from [`Window::close`]. An empty window never does.
//!
//! Window edges are processing time and do not affect the figures: a row's day comes from the row.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use crate::intake::custody::MessageId;
use crate::object::{ObjectEvent, ObjectId};

/// A message that was received and understood.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its identifier in custody.
    pub id: MessageId,
    /// The objects it announces; never empty.
    pub events: Vec<ObjectEvent>,
}

/// The limits at which a window is full.
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
    /// Its identifier in custody.
    pub id: MessageId,
    /// The objects it waits for, as indices into [`Closed::objects`].
    pub objects: Vec<usize>,
}

/// The content of a closed window, which a batch processes.
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
    offset: Duration,
    due_at: Option<Instant>,
    bytes: u64,
    positions: HashMap<ObjectId, usize>,
    content: Closed,
}

impl Window {
    /// Returns an empty window of the given length, whose edges lie `offset` after the multiples of the length.
    pub fn new(length: Duration, limits: Limits, offset: Duration) -> Self {
        let (positions, content) = (HashMap::new(), Closed::default());
        Window { length, limits, offset, due_at: None, bytes: 0, positions, content }
    }

    /// Takes a message, or returns it if the window is full (W3). The moment is given twice: `time` is the clock's time
    /// since the Unix epoch, which determines the edge; `now` is the monotonic time, which determines the wait.
    pub fn offer(&mut self, message: Message, time: Duration, now: Instant) -> Result<(), Message> {
        if self.is_full() {
            return Err(message);
        }
        let (length, offset) = (self.length, self.offset);
        self.due_at.get_or_insert_with(|| now.checked_add(until_edge(time, length, offset)).unwrap_or(now));
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
        self.content.messages.push(Waiting { id: message.id, objects });
        Ok(())
    }

    /// Returns true if the window takes no further message (W3).
    pub fn is_full(&self) -> bool {
        self.content.objects.len() >= self.limits.objects
            || self.bytes >= self.limits.bytes
            || self.content.messages.len() >= self.limits.messages
    }

    /// The number of its objects.
    pub fn objects(&self) -> usize {
        self.content.objects.len()
    }

    /// The largest of its shares of the limits: at least 1 if it [`is_full`](Window::is_full).
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

    /// The time from `now` until the window is due, zero if it is due already; `None` if it is empty.
    pub fn due_in(&self, now: Instant) -> Option<Duration> {
        let due_in = self.due_at?.saturating_duration_since(now);
        Some(if self.is_full() { Duration::ZERO } else { due_in })
    }

    /// Moves the edges of the windows that open from now on to `offset` after the multiples of the length. Returns
    /// false if they are there already.
    pub fn set_offset(&mut self, offset: Duration) -> bool {
        std::mem::replace(&mut self.offset, offset) != offset
    }

    /// Returns true if it has taken no message yet.
    pub fn is_empty(&self) -> bool {
        self.content.messages.is_empty()
    }

    /// Returns the content and starts an empty window (W6). `None` if there is no content.
    pub fn close(&mut self) -> Option<Closed> {
        if self.is_empty() {
            return None;
        }
        let next = Window::new(self.length, self.limits, self.offset);
        Some(std::mem::replace(self, next).content)
    }
}

/// Returns the delay after the multiples of `length` at which the windows of a consumer of this name close when it has
/// company: a fraction of the window that follows from the name, in whole milliseconds.
pub fn offset(consumer: &str, length: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    consumer.hash(&mut hasher);
    let millis = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(hasher.finish() % millis.max(1))
}

/// The time from `time` to the next multiple of `length` plus `offset` that is strictly after it.
fn until_edge(time: Duration, length: Duration, offset: Duration) -> Duration {
    let length_nanos = length.as_nanos().max(1);
    // The distance from the last edge, computed without the offset as the distance from a multiple.
    let behind = (time.as_nanos() + length_nanos - offset.as_nanos() % length_nanos) % length_nanos;
    let until = length_nanos - behind;
    Duration::new(u64::try_from(until / 1_000_000_000).unwrap_or(u64::MAX), (until % 1_000_000_000) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Version;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const LENGTH: Duration = Duration::from_secs(300);
    const LIMITS: Limits = Limits { objects: 9, bytes: 99, messages: 9 };

    fn event(object: u8, size: u64) -> ObjectEvent {
        let object =
            ObjectId { bucket: "b".into(), key: format!("incoming/{object}"), version: Version::ETag("e".into()) };
        ObjectEvent { object, size, created_at: None }
    }

    fn message(id: u64, objects: &[u8]) -> Message {
        Message { id: MessageId(id), events: objects.iter().map(|&object| event(object, 10)).collect() }
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
        let now = Instant::now();
        for (time, edge) in [(minutes(3), minutes(5)), (minutes(5), minutes(10)), (minutes(9), minutes(10))] {
            let mut window = Window::new(LENGTH, LIMITS, Duration::ZERO);
            assert_eq!(window.due_in(now), None);
            window.offer(message(1, &[1]), time, now).unwrap();
            assert_eq!(window.due_in(now), Some(edge - time));
            window.offer(message(2, &[2]), time + minutes(1), now + minutes(1)).unwrap();
            assert_eq!(window.due_in(now), Some(edge - time), "the first message sets the edge");
            assert_eq!(window.due_in(now + edge - time), Some(Duration::ZERO));
            assert_eq!(window.due_in(now + minutes(60)), Some(Duration::ZERO));
        }
    }

    #[test]
    fn w2_a_clock_that_jumps_moves_no_open_window() {
        for jumped_to in [Duration::ZERO, Duration::from_secs(10_000_000_000), Duration::MAX] {
            let now = Instant::now();
            let mut window = Window::new(LENGTH, LIMITS, Duration::ZERO);
            window.offer(message(1, &[1]), Duration::from_secs(1_000_000_200), now).unwrap();
            let due_in = window.due_in(now).unwrap();
            assert!(due_in <= LENGTH);
            window.offer(message(2, &[2]), jumped_to, now + due_in / 2).unwrap();
            assert_eq!(window.due_in(now + due_in), Some(Duration::ZERO), "{jumped_to:?}");
        }
    }

    #[test]
    fn w1_consumers_with_company_are_spread_over_the_whole_window() {
        let names: Vec<_> = (0..1000).map(|number| format!("consumer-{number}")).collect();
        for seconds in [300, 60, 2] {
            let length = Duration::from_secs(seconds);
            let offsets: Vec<_> = names.iter().map(|name| offset(name, length)).collect();
            assert!(offsets.iter().all(|&offset| offset < length), "{offsets:?}");
            for tenth in 0..10 {
                let there = (length / 10 * tenth)..(length / 10 * (tenth + 1));
                let inside = offsets.iter().filter(|&offset| there.contains(offset)).count();
                assert!((50..200).contains(&inside), "{inside} of 1000 in tenth {tenth}");
            }
            assert_eq!(offset(&names[0], length), offsets[0], "the same for the same name");
        }
    }

    #[test]
    fn w1_an_offset_holds_for_windows_that_open_later() {
        let (now, seconds) = (Instant::now(), Duration::from_secs);
        let mut window = Window::new(LENGTH, LIMITS, Duration::ZERO);
        window.offer(message(1, &[1]), seconds(600), now).unwrap();
        assert!(window.set_offset(seconds(20)));
        assert!(!window.set_offset(seconds(20)));
        assert_eq!(window.due_in(now), Some(LENGTH), "an open window is due when it would have been");
        assert!(window.close().is_some());
        window.offer(message(2, &[2]), seconds(900), now).unwrap();
        assert_eq!(window.due_in(now), Some(seconds(20)));
    }

    proptest! {
        #[test]
        fn w1_the_edge_is_the_next_multiple_and_the_offset(
            nanos in any::<u64>(), length_millis in 1..10_000_000_u64, offset_millis in 0..10_000_u64
        ) {
            let (time, length) = (Duration::from_nanos(nanos), Duration::from_millis(length_millis));
            let offset = Duration::from_millis(offset_millis);
            let until = until_edge(time, length, offset);
            prop_assert_eq!((time + until).as_nanos() % length.as_nanos(), offset.as_nanos() % length.as_nanos());
            prop_assert!(!until.is_zero() && until <= length);
        }

        #[test]
        fn w2_w3_full_exactly_at_a_limit_and_then_due_at_once(limits in limits(), messages in messages()) {
            let mut window = Window::new(LENGTH, limits, Duration::ZERO);
            let (time, now) = (Duration::from_secs(1000), Instant::now());
            let (mut distinct, mut taken) = (BTreeSet::<&u8>::new(), 0);
            for (id, objects) in messages.iter().enumerate() {
                let bytes = 10 * distinct.len() as u64;
                let full = distinct.len() >= limits.objects || bytes >= limits.bytes || taken >= limits.messages;
                prop_assert_eq!(window.is_full(), full);
                prop_assert_eq!(window.due_in(now) == Some(Duration::ZERO), full && taken > 0);
                prop_assert_eq!(window.offer(message(id as u64, objects), time, now).is_err(), full);
                if !full {
                    distinct.extend(objects);
                    taken += 1;
                }
            }
        }

        #[test]
        fn w4_a_due_window_goes_on_filling(late_secs in 300..100_000_u64) {
            let mut window = Window::new(LENGTH, Limits { objects: 2, bytes: 1000, messages: 9 }, Duration::ZERO);
            let (time, now) = (Duration::from_secs(10), Instant::now());
            window.offer(message(1, &[1]), time, now).unwrap();
            let late = Duration::from_secs(late_secs);
            prop_assert!(window.offer(message(2, &[2]), time + late, now + late).is_ok());
            prop_assert!(window.offer(message(3, &[3]), time + late, now + late).is_err());
        }

        #[test]
        fn w5_w6_nothing_is_lost_or_doubled(
            limits in limits(), messages in messages(), closes in prop::collection::vec(any::<bool>(), 30),
        ) {
            let mut window = Window::new(LENGTH, limits, Duration::ZERO);
            let (mut taken, mut given) = (Vec::new(), Vec::new());
            let mut check = |closed: Closed| {
                let distinct: BTreeSet<_> = closed.objects.iter().map(|event| event.object.key.clone()).collect();
                assert_eq!(distinct.len(), closed.objects.len());
                for waiting in closed.messages {
                    let key = |&index: &usize| closed.objects[index].object.key.clone();
                    let mut keys: Vec<_> = waiting.objects.iter().map(key).collect();
                    keys.sort();
                    given.push((waiting.id.0, keys));
                }
            };
            for (id, objects) in messages.iter().enumerate() {
                if window.offer(message(id as u64, objects), Duration::ZERO, Instant::now()).is_ok() {
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
