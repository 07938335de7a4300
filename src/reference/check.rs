//! The check that keeps a damaged catalogue out of use.
//!
//! Covered by `tests/pipeline` (`refusals`, `edges`).

use crate::ledger::CatalogueState;
use crate::reference::Catalogue;
use crate::reference::error::{CatalogueError, Refusal};
use crate::reference::parse::{SONGS_KEY, USERS_KEY};

impl Catalogue {
    /// Returns the state that the ledger records of the catalogue in use.
    pub(super) fn state(&self) -> CatalogueState {
        let (songs, users) = (self.songs.len() as u64, self.users.len() as u64);
        CatalogueState { songs, users, loaded_at: Some(jiff::Timestamp::now()), refused: None, refused_files: None }
    }

    /// Returns the number of skipped lines of a file.
    pub(super) fn skipped(&self, key: &str) -> u64 {
        let of_file = self.remarks.iter().filter(|((file, _), remark)| *file == key && remark.is_skipped);
        of_file.map(|(_, remark)| remark.lines).sum()
    }

    /// Refuses a catalogue that would falsify figures and is more likely a mishap than intended: a file in which
    /// nothing or little is usable, or that lacks most of the keys before it. `known` has the number of those.
    pub(super) fn check(
        &self,
        accepted: [bool; 2],
        before: Option<&Catalogue>,
        known: &CatalogueState,
    ) -> Result<(), CatalogueError> {
        let (songs, users) = (self.songs.len() as u64, self.users.len() as u64);
        let (lost_songs, lost_users) = match before {
            Some(before) => (
                before.songs.iter().filter(|song| self.find_song(song.track_id.as_bytes()).is_none()).count() as u64,
                before.users.iter().filter(|user| self.find_user(user.id).is_none()).count() as u64,
            ),
            None => (known.songs.saturating_sub(songs), known.users.saturating_sub(users)),
        };
        for (key, is_accepted, keys, known, lost) in [
            (SONGS_KEY, accepted[0], songs, known.songs, lost_songs),
            (USERS_KEY, accepted[1], users, known.users, lost_users),
        ] {
            let (lines, skipped) = (self.lines.get(key).copied().unwrap_or(0), self.skipped(key));
            let reason = if is_accepted {
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
