//! Blocks for tests of other modules.

use std::io::Cursor;

use crate::input::file::Blocks;
use crate::input::parsed::Parsed;
use crate::plan::Plan;
use crate::reference::References;

/// Reads a file of the built-in definition with these lines, block by block. References have no keys.
pub(crate) async fn parsed(lines: &str) -> Vec<Parsed> {
    let plan = Plan::built_in().unwrap();
    let references = References::empty(&plan);
    let text = format!("user_id,track_id,listen_time\n{lines}").into_bytes();
    let now = jiff::Timestamp::from_second(1_767_225_600).unwrap();
    let mut blocks = Blocks::open(Cursor::new(text), u64::MAX, now, &plan, "incoming/a.csv").await.unwrap();
    let mut parsed = Vec::new();
    while let Some(block) = blocks.next().await.unwrap() {
        parsed.push(block.parse(&references));
    }
    parsed
}
