//! Texts with escapes, read by serde_json.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// Returns the text that stands between quotes with escapes, as bytes: it need not be UTF-8, and is none if a surrogate
/// stands alone.
pub fn unescaped(raw: &[u8]) -> Option<Vec<u8>> {
    let quoted = [b"\"", raw, b"\""].concat();
    serde_json::from_slice::<Bytes>(&quoted).ok().map(|bytes| bytes.0)
}

/// A text as bytes, which serde_json does not check.
struct Bytes(Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(BytesVisitor)
    }
}

struct BytesVisitor;

impl Visitor<'_> for BytesVisitor {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
        Ok(Bytes(bytes.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_resolved() {
        let text = |raw: &str| unescaped(raw.as_bytes()).map(|text| String::from_utf8(text).map_err(|_| ()));
        assert_eq!(text("a\\\"b\\\\\\/\\n\\t"), Some(Ok("a\"b\\/\n\t".to_owned())));
        assert_eq!(text("\\u00e4\\uD83C\\uDFB5\\u0000"), Some(Ok("ä🎵\0".to_owned())));
        assert_eq!(text("\\ud800"), Some(Err(())), "a surrogate alone");
        assert_eq!(text("\\udfb5 \\ud83c"), Some(Err(())));
        assert_eq!(unescaped(b"\xff\\n"), Some(b"\xff\n".to_vec()));
    }
}
