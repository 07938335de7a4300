//! The references of a plan, in memory: keys and attributes by code.
//!
//! Pure. Covered by the tests of `parse`.

use std::collections::BTreeMap;

use crate::plan::Plan;
use crate::reference::keys::Keys;
use crate::reference::values::Values;

/// All references of a plan. A batch sees one version of them from its first row to its last.
#[derive(Debug, Default)]
pub struct References {
    /// The keys of each code column: of all references that it is the key of.
    pub(super) keys: Vec<Keys>,
    /// The values of each attribute.
    pub(super) values: Vec<Values>,
    /// For each reference, by the codes of its key: true if its file has the key.
    pub(super) has: Vec<Vec<bool>>,
    /// For each reference, the number of non-empty lines of its file.
    pub(super) lines: Vec<u64>,
    /// Problems of lines, by reference.
    pub remarks: BTreeMap<(usize, String), Remark>,
}

/// The lines of a file that share a problem.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remark {
    /// Their number.
    pub lines: u64,
    /// The numbers of the first ones.
    pub first: Vec<u64>,
    /// The lines were skipped. Otherwise only part of their content was.
    pub is_skipped: bool,
}

impl References {
    /// References without a line.
    pub fn empty(plan: &Plan) -> Self {
        let keys = plan.codes.iter().map(|column| Keys::of(column.kind)).collect();
        let (values, count) = (plan.attributes.iter().map(Values::without_keys).collect(), plan.references.len());
        References { keys, values, has: vec![Vec::new(); count], lines: vec![0; count], remarks: BTreeMap::new() }
    }

    /// Returns the keys of a code column.
    #[inline]
    pub fn keys(&self, code_column: usize) -> &Keys {
        &self.keys[code_column]
    }

    /// Returns the values of an attribute.
    #[inline]
    pub fn values(&self, attribute: usize) -> &Values {
        &self.values[attribute]
    }

    /// Bytes of memory.
    pub fn memory_bytes(&self) -> usize {
        let keys = self.keys.iter().map(Keys::memory_bytes).sum::<usize>();
        let has = self.has.iter().map(Vec::capacity).sum::<usize>();
        keys + has + self.values.iter().map(Values::memory_bytes).sum::<usize>()
    }

    /// Bytes of text, all of which may be written into one row group.
    pub fn text_bytes(&self) -> usize {
        let keys = self.keys.iter().map(Keys::text_bytes).sum::<usize>();
        keys + self.values.iter().map(Values::text_bytes).sum::<usize>()
    }
}

#[cfg(test)]
impl References {
    /// References with these keys of each code column: texts or integers.
    pub(crate) fn with_keys(plan: &Plan, mut keys_of: impl FnMut(usize) -> (Vec<&'static str>, Vec<i64>)) -> Self {
        let mut references = References::empty(plan);
        for (column, keys) in references.keys.iter_mut().enumerate() {
            let (texts, numbers) = keys_of(column);
            match keys {
                Keys::Texts(keys) => texts.into_iter().for_each(|key| {
                    keys.add(key);
                }),
                Keys::Numbers(keys) => numbers.into_iter().for_each(|key| {
                    keys.add(key);
                }),
            }
            keys.complete();
        }
        references
    }
}
