//! The process and its surroundings.
//!
//! [`environment`] cleans the environment before anything reads it; [`log`] writes lines without blocking; [`tasks`]
//! names every task and ends the process when one of them dies; [`ecs`] identifies an ECS task and protects it from
//! being scaled in.

pub mod ecs;
pub mod environment;
pub mod log;
pub mod tasks;
