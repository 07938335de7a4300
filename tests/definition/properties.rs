//! Properties of any definition, and of any bytes.

use music_streams::definition::Definition;
use music_streams::definition::change::changes;
use proptest::prelude::*;

use crate::generate::definition;
use crate::hostile::definition as holds;
use crate::written::EXAMPLES;

proptest! {
    #[test]
    fn a_definition_survives_its_canonical_form(definition in definition()) {
        let canonical = definition.canonical();
        let parsed = Definition::parse(canonical.as_bytes());
        let parsed = parsed.map_err(|problems| TestCaseError::fail(problems.describe("it")))?;
        prop_assert_eq!(&parsed, &definition, "{}", canonical);
        prop_assert_eq!(parsed.canonical(), canonical);
        prop_assert!(changes(&definition, &parsed).is_empty());
    }

    #[test]
    fn any_bytes_have_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        holds(&bytes);
    }

    #[test]
    fn any_text_has_an_answer(text in "[\\[\\]{}=\",.#\\\\\n \ta-z0-9é-]{0,200}") {
        holds(text.as_bytes());
    }

    /// Parts of definitions in other places: what a person leaves behind in the middle of a change.
    #[test]
    fn a_damaged_definition_has_an_answer(
        (_, text) in prop::sample::select(&EXAMPLES[..]), from in any::<prop::sample::Index>(),
        length in 0..60_usize, to in any::<prop::sample::Index>(), is_moved in any::<bool>(),
    ) {
        let mut bytes = text.as_bytes().to_vec();
        let start = from.index(bytes.len());
        let end = (start + length).min(bytes.len());
        let part: Vec<u8> = bytes.drain(start..end).collect();
        if is_moved && !bytes.is_empty() {
            let to = to.index(bytes.len());
            bytes.splice(to..to, part);
        }
        holds(&bytes);
    }
}

/// Nesting, length and numbers of anything are bounded, and none of it takes long.
#[test]
fn much_of_anything_has_an_answer() {
    for text in [
        "a = ".to_owned() + &"[".repeat(60_000),
        "a = ".to_owned() + &"{a=".repeat(20_000),
        "[".to_owned() + &"a.".repeat(30_000) + "a]",
        "a.".repeat(30_000),
        "[[a]]\n".repeat(10_000),
        (0..8000).map(|index| format!("a{index}=1\n")).collect(),
        format!("name = \"{}\"", "x".repeat(60_000)),
        format!("[columns]\n{} = \"id\"", "x".repeat(60_000)),
        format!("[columns]\nx = \"{}\"", "i".repeat(60_000)),
        "\n".repeat(65_000),
        "\u{feff}name = \"x\"".to_owned(),
        "name = 1e400\nearliest = nan\nfuture = 0xffffffffffffffffffffffffffffffffffffffff".to_owned(),
    ] {
        holds(text.as_bytes());
    }
}
