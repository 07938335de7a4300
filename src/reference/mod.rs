//! Reference data: what is known of tracks and listeners.

pub mod catalogue;
