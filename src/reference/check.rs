//! The check that keeps a damaged catalogue out of use.
//!
//! Covered by `tests/pipeline` (`refusals`, `edges`).

use crate::ledger::CatalogueState;
use crate::plan::Plan;
use crate::reference::error::{CatalogueError, Refusal};
use crate::reference::keys::Keys;
use crate::reference::{References, file_key};

impl References {
    /// Returns the state that the ledger records of the catalogue in use.
    pub(super) fn state(&self, plan: &Plan) -> CatalogueState {
        let files = plan.definition.references.iter().map(file_key);
        let keys = files.enumerate().map(|(reference, file)| (file, self.keys_of(reference))).collect();
        CatalogueState { keys, loaded_at: Some(jiff::Timestamp::now()), refused: None, refused_files: None }
    }

    /// Returns the number of keys in a reference's file.
    pub fn keys_of(&self, reference: usize) -> u64 {
        self.has[reference].iter().filter(|&&has| has).count() as u64
    }

    /// Returns the number of skipped lines of a reference's file.
    pub fn skipped(&self, reference: usize) -> u64 {
        let of_file = self.remarks.iter().filter(|((of, _), remark)| *of == reference && remark.is_skipped);
        of_file.map(|(_, remark)| remark.lines).sum()
    }

    /// Returns true if a reference's file has the key with this code.
    pub fn has_key(&self, reference: usize, code: u32) -> bool {
        self.has[reference].get(code as usize) == Some(&true)
    }

    /// Refuses a catalogue that a consumer would refuse at its first start.
    pub fn check_alone(&self, plan: &Plan) -> Result<(), CatalogueError> {
        self.check(plan, &[], None, &CatalogueState::default())
    }

    /// Returns the number of a reference's keys that others lack.
    fn lost(&self, reference: usize, code: usize, now: &References) -> u64 {
        let has = |place: Option<u32>| place.and_then(|place| now.has[reference].get(place as usize)) == Some(&true);
        let keys = (0..).zip(&self.has[reference]).filter(|(_, has)| **has).map(|(key, _)| key);
        let is_lost = |key: &u32| match (&self.keys[code], &now.keys[code]) {
            (Keys::Texts(before), Keys::Texts(now)) => !has(now.find(before.get(*key).as_bytes())),
            (Keys::Numbers(before), Keys::Numbers(now)) => !has(now.find(before.get(*key))),
            _ => true,
        };
        keys.filter(is_lost).count() as u64
    }

    /// Refuses a catalogue that would falsify figures and is more likely a mishap than intended: a file in which
    /// nothing or little is usable, or that lacks most of the keys before it. `known` has the number of those.
    pub(super) fn check(
        &self,
        plan: &Plan,
        accepted: &[bool],
        before: Option<&References>,
        known: &CatalogueState,
    ) -> Result<(), CatalogueError> {
        for (reference, written) in plan.definition.references.iter().enumerate() {
            let key = file_key(written);
            let keys = self.keys_of(reference);
            let known = known.keys.get(&key).copied().unwrap_or(0);
            let lost = match before {
                Some(before) => before.lost(reference, plan.references[reference], self),
                None => known.saturating_sub(keys),
            };
            let (lines, skipped) = (self.lines[reference], self.skipped(reference));
            let reason = if accepted.get(reference) == Some(&true) {
                continue;
            } else if keys == 0 {
                Refusal::Empty(lines)
            } else if 2 * skipped > lines {
                Refusal::Skipped { skipped, lines }
            } else if 2 * lost > known {
                Refusal::Lost { lost, known }
            } else {
                continue;
            };
            return Err(CatalogueError::Refused { key, reason });
        }
        Ok(())
    }
}
