//! From messages to windows of objects.

pub mod notification;
pub mod window;
