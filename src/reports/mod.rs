//! Reports: figures, the items that hold them, and how they are written.

pub mod distinct;
pub mod figures;
pub mod item;
pub mod list_store;
pub mod statements;
pub mod store;
pub mod top_lists;
