//! The property of definitions that must hold for any input bytes. Shared by the fuzz target, the plain test over its
//! corpus, and the tests of definitions.

use music_streams::definition::Definition;

/// Whatever the bytes are, they are a definition that survives its canonical form, or have problems with places.
pub fn definition(bytes: &[u8]) {
    match Definition::parse(bytes) {
        Ok(definition) => {
            let canonical = definition.canonical();
            assert_eq!(Definition::parse(canonical.as_bytes()).as_ref(), Ok(&definition), "{canonical}");
        }
        Err(problems) => {
            assert!(problems.all >= problems.shown.len() && !problems.shown.is_empty());
            assert!(problems.describe("it").lines().count() >= 3 * problems.shown.len());
        }
    }
}
