//! Records of JSON.
//!
//! Pure. Covered by the tests of [`crate::input`].

use crate::formats::Raw;
use crate::formats::csv::Line;
use crate::formats::json::{Block, Piece, Pieces, Scanner, lone_value, next_record};
use crate::input::block::Parser;
use crate::input::rejection::Rejection;
use crate::input::rules::Format;

impl Parser<'_> {
    /// Takes the records of a block.
    pub(super) fn json(&mut self, block: &Block) {
        let rules = &self.layout.rules;
        let Format::Json { paths, .. } = &rules.format else { return };
        let (mut scanner, mut values) = (Scanner::new(paths), vec![Raw::Nothing; rules.places()]);
        self.reserve(block.pieces().len());
        for piece in block.pieces() {
            let text = block.text(piece);
            match piece.holds {
                Pieces::Records => self.piece(piece, text, &mut scanner, &mut values),
                Pieces::Broken => self.reject_record(piece, text, Rejection::Json),
                Pieces::NoObject => self.reject_record(piece, text, Rejection::NoObject),
                Pieces::NoList => self.reject_record(piece, text, Rejection::NoList),
            }
        }
    }

    /// Takes the records of a piece.
    #[inline]
    fn piece<'t>(&mut self, piece: &Piece, mut text: &'t [u8], scanner: &mut Scanner<'_>, values: &mut [Raw<'t>]) {
        while let Some(start) = next_record(text) {
            text = &text[start..];
            if text[0] != b'{' {
                let Ok(length) = lone_value(text, true) else {
                    return self.reject_record(piece, text, Rejection::Json);
                };
                self.reject_record(piece, &text[..length], Rejection::NoObject);
                text = &text[length..];
                continue;
            }
            match scanner.scan(text, values) {
                Ok(length) => {
                    let record = &text[..length];
                    text = &text[length..];
                    if scanner.is_repeated() {
                        self.reject_record(piece, record, Rejection::Repeated);
                        continue;
                    }
                    let raw = |place: usize| match values[place] {
                        // A text without a character is no value.
                        Raw::Text(b"") => Raw::Nothing,
                        value => value,
                    };
                    self.add(|| line_of(piece, record), raw, std::iter::once(record));
                }
                // It goes on to the end of the piece.
                Err(_) => return self.reject_record(piece, text, Rejection::Json),
            }
        }
    }

    #[cold]
    fn reject_record(&mut self, piece: &Piece, record: &[u8], rejection: Rejection) {
        self.reject(line_of(piece, record), rejection, std::iter::once(record));
    }
}

/// Returns the lines of a record, which is the first or the only one of a piece, or is on the piece's only line.
#[inline]
fn line_of(piece: &Piece, record: &[u8]) -> Line {
    Line { number: piece.line, lines: 1 + memchr::memchr_iter(b'\n', record).count() as u64, is_malformed: false }
}
