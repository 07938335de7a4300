//! Company: other consumers of the same queue, as the numbers of batches show them.
//!
//! Pure. Batches of all consumers are numbered one after the other, so a number that is missing between two of one's
//! own was another consumer's. Consumers with company let their windows end at different moments
//! ([`crate::intake::window::offset`]).

use crate::protocol::BatchNumber;

/// The company of a consumer.
#[derive(Debug, Default)]
pub struct Company {
    last: Option<BatchNumber>,
    is_there: bool,
}

impl Company {
    /// Begins a window: company has not been seen during it.
    pub(super) fn begin_window(&mut self) {
        self.is_there = false;
    }

    /// Takes the number of a batch that this consumer has opened.
    pub(super) fn opened(&mut self, number: BatchNumber) {
        self.is_there |= self.last.is_some_and(|last| number > last + 1);
        self.last = Some(number);
    }

    /// Returns true if another consumer has opened a batch since this one's previous window.
    pub fn is_there(&self) -> bool {
        self.is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_missing_between_ones_own_are_company() {
        let mut company = Company::default();
        let windows: [(&[BatchNumber], bool); 6] = [
            // The first number says nothing about others.
            (&[17], false),
            (&[18], false),
            // Several batches of one window.
            (&[19, 20, 21], false),
            (&[22, 24, 25], true),
            (&[26], false),
            (&[30], true),
        ];
        for (numbers, is_there) in windows {
            company.begin_window();
            numbers.iter().for_each(|&number| company.opened(number));
            assert_eq!(company.is_there(), is_there, "{numbers:?}");
        }
    }
}
