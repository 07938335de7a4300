//! Reports: the figures, the items that hold them, and the tables that hold the items.
//!
//! A batch's rows are folded into deltas, one for each report item that it touches. Each delta is added to its item
//! exactly once, however often the batch is carried out.
//!
//! * [`figures`]: the reports, and how two sets of figures become one (pure)
//! * [`distinct`]: sketches of sets of which only the size matters (pure)
//! * [`item`]: the DynamoDB items, and how a delta changes one (pure)
//! * [`top_lists`]: the best of a day, kept as items (pure)
//! * [`store`]: reading and writing the tables

pub mod distinct;
pub mod figures;
pub mod item;
pub mod store;
pub mod top_lists;
