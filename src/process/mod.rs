//! The process and its surroundings: its log, its tasks, its environment, and ECS.

pub mod ecs;
pub mod environment;
pub mod log;
pub mod tasks;
