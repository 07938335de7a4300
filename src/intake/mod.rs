//! Intake: from the messages of the queue to windows of objects.
//!
//! The first two stages of the flow. Both are pure: time comes in as an argument, and nothing waits.
//!
//! * [`notification`]: from a message body to the objects that it announces
//! * [`window`]: the objects that are processed together, with the messages that wait for them

pub mod custody;
pub mod notification;
pub mod window;
