//! From messages to windows of objects.

pub mod custody;
pub mod notification;
pub mod window;
