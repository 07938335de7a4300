//! The form of a file, as its beginning shows it. Covered by tests/definition.

use crate::definition::input::Header as Names;
use crate::formats::Compression;
use crate::formats::csv::directives::first_directive;
use crate::formats::csv::{Blocks, Header, name_of};

impl Blocks<'_> {
    /// The name of the format.
    pub fn format_name(&self) -> &'static str {
        name_of(&self.format)
    }

    /// The compression that was recognized.
    pub fn compression(&self) -> Option<Compression> {
        self.body.compression()
    }

    /// Returns the names of the columns, as they are written: in the first record, or in a line `#Fields:` at the
    /// beginning of the file. Call it before the first block is taken.
    pub fn column_names(&self) -> Option<Vec<String>> {
        let names = |header: &Header| {
            header.record.iter().map(|name| String::from_utf8_lossy(name.trim_ascii()).into_owned()).collect()
        };
        match (self.header(), self.format.header) {
            (Some(header), _) => Some(names(header)),
            (None, Names::Directive) => {
                first_directive(&self.text[self.at..], None).map(|directive| names(&directive.header))
            }
            (None, _) => None,
        }
    }
}
