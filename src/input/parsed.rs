//! The rows of a block, in codes, integers and times: what reading hands on to the computation.
//!
//! A block is parsed apart from all others. An id that no reference has is therefore numbered within the block, and
//! gets its code when the block's rows are appended to the batch's, in the order of the file
//! ([`crate::compute::Rows::append`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::input::rejects::Rejects;
use crate::plan::Plan;
use crate::plan::columns::Kind;

/// Marks the number of an id that is new in the block.
const NEW: u32 = 1 << 31;

/// The rows of a block.
#[derive(Debug)]
pub struct Parsed {
    /// Number of rows, good and rejected.
    pub rows: u64,
    /// Number of rows that are not meant, by the definition's conditions. They are none of `rows`.
    pub passed_over: u64,
    /// Number of rejected rows, by the reason in a word.
    pub rejected: BTreeMap<String, u64>,
    /// By code column and good row: a code of [`crate::reference::References::keys`] or of a learned value behind them
    /// ([`crate::input::learned`]), the number of a new id ([`Parsed::new_code`]), or [`crate::plan::NO_CODE`] for no
    /// value.
    pub codes: Vec<Vec<u32>>,
    /// By integer column and good row: the integer, or [`crate::plan::NO_NUMBER`] for no value.
    pub ints: Vec<Vec<i64>>,
    /// By good row: its time, in microseconds since the Unix epoch.
    pub times: Vec<i64>,
    /// By code column: the ids that are new in the block, each once.
    pub new_ids: Vec<NewIds>,
    /// The first rejected rows, as many as may be listed of an object.
    pub rejects: Rejects,
}

/// Ids that no reference has, by their numbers in the block.
#[derive(Debug)]
pub enum NewIds {
    /// Of a column of texts.
    Texts(Vec<Arc<str>>),
    /// Of a column of integers.
    Numbers(Vec<i64>),
}

impl Parsed {
    /// No rows of this plan.
    pub fn of(plan: &Plan) -> Self {
        let new_ids = plan.codes.iter().map(|column| match column.kind {
            Kind::Text => NewIds::Texts(Vec::new()),
            Kind::Number => NewIds::Numbers(Vec::new()),
        });
        Parsed {
            rows: 0,
            passed_over: 0,
            rejected: BTreeMap::new(),
            codes: plan.codes.iter().map(|_| Vec::new()).collect(),
            ints: plan.ints.iter().map(|_| Vec::new()).collect(),
            times: Vec::new(),
            new_ids: new_ids.collect(),
            rejects: Rejects::default(),
        }
    }

    /// Returns the code, within the block, of the new id at this position of its column.
    #[inline]
    pub fn new_code(position: usize) -> u32 {
        NEW | position as u32
    }

    /// Returns the position of a new id among those of its column. Neither a code of the batch nor
    /// [`crate::plan::NO_CODE`] has one.
    #[inline]
    pub fn new_position(code: u32) -> Option<usize> {
        (code & NEW != 0 && code != crate::plan::NO_CODE).then_some((code & !NEW) as usize)
    }
}
