//! Scanning: the values at some paths of a record, and the end of the record, in one pass.
//!
//! Records of a file mostly have the same keys in the same order, written in the same way. A key that stands where the
//! record before had it is recognized by one comparison. Values that are not wanted are only passed over. A wanted text
//! without escapes is a part of the record's own bytes; serde_json reads one with escapes
//! ([`crate::formats::json::unescaped`]).

use crate::formats::Raw;
use crate::formats::json::grammar::{Stop, blanks, colon, scalar, string, value};
use crate::formats::json::text::unescaped;

/// Paths to values of a record, each of one key or several. A value's number is that of its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Keys by the object that has them; the first is the record.
    objects: Vec<Vec<Key>>,
    keys: usize,
    values: usize,
}

/// A key that is on a path.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    name: Box<[u8]>,
    /// Its number among all keys.
    number: usize,
    /// Its value, if a path ends here.
    value: Option<usize>,
    /// The object below it, if a path goes on.
    object: Option<usize>,
}

impl Paths {
    /// Returns the paths with these keys. A path that is there twice has the number of the first.
    pub fn new<'p>(paths: impl IntoIterator<Item = &'p [String]>) -> Self {
        let mut all = Paths { objects: vec![Vec::new()], keys: 0, values: 0 };
        for path in paths {
            let mut object = 0;
            for (index, name) in path.iter().enumerate() {
                let place = all.key(object, name.as_bytes());
                if index + 1 == path.len() {
                    all.objects[object][place].value.get_or_insert(all.values);
                } else {
                    object = all.object_below(object, place);
                }
            }
            all.values += 1;
        }
        all
    }

    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.values
    }

    /// Returns true if there is no path.
    pub fn is_empty(&self) -> bool {
        self.values == 0
    }

    fn key(&mut self, object: usize, name: &[u8]) -> usize {
        let keys = &mut self.objects[object];
        keys.iter().position(|key| *key.name == *name).unwrap_or_else(|| {
            keys.push(Key { name: name.into(), number: self.keys, value: None, object: None });
            self.keys += 1;
            keys.len() - 1
        })
    }

    fn object_below(&mut self, object: usize, key: usize) -> usize {
        let next = self.objects.len();
        let below = *self.objects[object][key].object.get_or_insert(next);
        if below == next {
            self.objects.push(Vec::new());
        }
        below
    }
}

/// A scanner of records.
#[derive(Debug)]
pub struct Scanner<'p> {
    paths: &'p Paths,
    /// The record in which each key was met last, to find repeated ones.
    met: Vec<u64>,
    record: u64,
    is_repeated: bool,
    /// By object, the keys of the last record, in its order.
    before: Vec<Vec<KeyBefore<'p>>>,
}

/// Most keys of an object that are remembered, and most bytes of one.
const REMEMBERED: (usize, usize) = (256, 128);

/// A key of the last record.
#[derive(Debug)]
struct KeyBefore<'p> {
    /// All that stood from its first quote to its value.
    written: Vec<u8>,
    key: Option<&'p Key>,
}

impl<'p> Scanner<'p> {
    /// Returns a scanner for these paths.
    pub fn new(paths: &'p Paths) -> Self {
        let before = paths.objects.iter().map(|_| Vec::new()).collect();
        Scanner { paths, met: vec![0; paths.keys], record: 0, is_repeated: false, before }
    }

    /// Scans the record at the start of a text, which begins with a brace. Returns its length, and sets the values, of
    /// which there are as many as paths.
    pub fn scan<'t>(&mut self, text: &'t [u8], values: &mut [Raw<'t>]) -> Result<usize, Stop> {
        values.fill(Raw::Nothing);
        self.record += 1;
        self.is_repeated = false;
        self.object(text, 0, 0, 1, values)
    }

    /// Returns true if the last record had a wanted key twice in one object, or a key on the way to one.
    pub fn is_repeated(&self) -> bool {
        self.is_repeated
    }

    /// Scans the object at this place, which is the `depth`th within others. Returns the place after it.
    fn object<'t>(
        &mut self,
        text: &'t [u8],
        at: usize,
        object: usize,
        depth: u32,
        values: &mut [Raw<'t>],
    ) -> Result<usize, Stop> {
        let mut at = blanks(text, at + 1);
        if text.get(at) == Some(&b'}') {
            return Ok(at + 1);
        }
        for number in 0.. {
            let (value_at, key) = self.key(text, at, object, number)?;
            at = match key {
                Some(key) => self.take(text, value_at, key, depth, values)?,
                None => value(text, value_at, depth)?,
            };
            at = blanks(text, at);
            match text.get(at) {
                Some(b',') => at = blanks(text, at + 1),
                Some(b'}') => return Ok(at + 1),
                Some(_) => return Err(Stop::Broken),
                None => return Err(Stop::More),
            }
        }
        Err(Stop::Broken)
    }

    /// Reads the key at this place, one of an object by its number. Returns the place of its value, and the key if it
    /// is wanted.
    #[inline]
    fn key(&mut self, text: &[u8], at: usize, object: usize, number: usize) -> Result<(usize, Option<&'p Key>), Stop> {
        if let Some(KeyBefore { written, key }) = self.before[object].get(number)
            && text.get(at..).is_some_and(|text| text.starts_with(written))
        {
            // A value that begins with a blank is not as it was before.
            let value_at = at + written.len();
            return Ok((blanks(text, value_at), *key));
        }
        self.other_key(text, at, object, number)
    }

    #[cold]
    fn other_key(
        &mut self,
        text: &[u8],
        at: usize,
        object: usize,
        number: usize,
    ) -> Result<(usize, Option<&'p Key>), Stop> {
        if text.get(at) != Some(&b'"') {
            return Err(if at < text.len() { Stop::Broken } else { Stop::More });
        }
        let (end, has_escapes) = string(text, at)?;
        let value_at = colon(text, end)?;
        let key = self.wanted(object, &text[at + 1..end - 1], has_escapes);
        let written = &text[at..value_at];
        let before = &mut self.before[object];
        let is_next = number == before.len() && number < REMEMBERED.0;
        if written.len() <= REMEMBERED.1 {
            match before.get_mut(number) {
                Some(before) => {
                    before.written.clear();
                    before.written.extend_from_slice(written);
                    before.key = key;
                }
                None if is_next => {
                    before.push(KeyBefore { written: written.to_vec(), key });
                }
                None => {}
            }
        }
        Ok((value_at, key))
    }

    #[inline]
    fn wanted(&self, object: usize, name: &[u8], has_escapes: bool) -> Option<&'p Key> {
        let keys = &self.paths.objects[object];
        if has_escapes {
            let name = unescaped(name)?;
            return keys.iter().find(|key| *key.name == *name);
        }
        keys.iter().find(|key| *key.name == *name)
    }

    /// Takes the value of a wanted key. Returns the place after it.
    fn take<'t>(
        &mut self,
        text: &'t [u8],
        at: usize,
        key: &Key,
        depth: u32,
        values: &mut [Raw<'t>],
    ) -> Result<usize, Stop> {
        self.is_repeated |= std::mem::replace(&mut self.met[key.number], self.record) == self.record;
        let (end, found) = match (text.get(at), key.object) {
            (Some(b'"'), _) => {
                let (end, has_escapes) = string(text, at)?;
                let inner = &text[at + 1..end - 1];
                (end, if has_escapes { Raw::Escaped(inner) } else { Raw::Text(inner) })
            }
            (Some(b'{'), Some(object)) if depth < crate::formats::json::MAX_DEPTH => {
                (self.object(text, at, object, depth + 1, values)?, Raw::Nested)
            }
            (Some(b'{' | b'['), _) => (value(text, at, depth)?, Raw::Nested),
            _ => {
                let end = scalar(text, at)?;
                (end, if text[at] == b'n' { Raw::Nothing } else { Raw::Text(&text[at..end]) })
            }
        };
        if let Some(value) = key.value {
            values[value] = found;
        }
        Ok(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::json::grammar::tests::nearly_json;
    use proptest::prelude::*;

    fn paths(paths: &[&str]) -> Paths {
        let paths: Vec<Vec<String>> = paths.iter().map(|path| path.split('.').map(str::to_owned).collect()).collect();
        Paths::new(paths.iter().map(Vec::as_slice))
    }

    #[test]
    fn values_are_found_by_path() {
        let paths = paths(&["a", "b.c", "b", "b.d.e", "missing", "a"]);
        let mut scanner = Scanner::new(&paths);
        let mut values = vec![Raw::Nothing; paths.len()];
        let text = b"{\"x\":[{\"a\":0}],\"a\" : -1.50 ,\"b\":{\"c\":\"t\",\"d\":{\"e\":\"\\n\"}},\"y\":null}{";
        assert_eq!(scanner.scan(text, &mut values), Ok(text.len() - 1));
        let nothing = Raw::Nothing;
        let expected = [Raw::Text(b"-1.50"), Raw::Text(b"t"), Raw::Nested, Raw::Escaped(b"\\n"), nothing, nothing];
        assert_eq!(values, expected);
        assert!(!scanner.is_repeated());
        for (text, is_repeated) in [
            ("{\"a\":1,\"\\u0061\":2}", true),
            ("{\"b\":{\"c\":1},\"b\":null}", true),
            ("{\"b\":{\"c\":1,\"c\":1}}", true),
            ("{\"z\":1,\"z\":2,\"b\":{\"a\":1},\"a\":1}", false),
        ] {
            assert_eq!(scanner.scan(text.as_bytes(), &mut values), Ok(text.len()));
            assert_eq!(scanner.is_repeated(), is_repeated, "{text}");
        }
    }

    /// The same by serde_json, for a record without repeated keys.
    fn by_serde(record: &serde_json::Value, path: &str) -> String {
        let value = path.split('.').try_fold(record, |value, key| value.as_object()?.get(key));
        match value {
            None | Some(serde_json::Value::Null) => "nothing".to_owned(),
            Some(serde_json::Value::Object(_) | serde_json::Value::Array(_)) => "nested".to_owned(),
            Some(value) => value.to_string(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn what_is_scanned_is_what_serde_reads(texts in prop::collection::vec(nearly_json(), 1..5)) {
            let names = ["a", "b", "a.a", "a.b", "b.a.b"];
            let paths = paths(&names);
            // The scanner remembers the keys of the record before, and the texts have the same few keys.
            let mut scanner = Scanner::new(&paths);
            for text in texts.iter().filter(|text| text.first() == Some(&b'{')) {
                let mut values = vec![Raw::Nothing; names.len()];
                let found = scanner.scan(text, &mut values);
                prop_assert_eq!(found, value(text, 0, 0));
                // Numbers that serde would round, lone surrogates and other bytes than UTF-8 are left out.
                let Ok(record) = serde_json::from_slice::<serde_json::Value>(text) else { continue };
                if scanner.is_repeated() || found != Ok(text.len()) {
                    continue;
                }
                for (name, value) in names.iter().zip(&values) {
                    let expected = by_serde(&record, name);
                    let value = match value {
                        Raw::Nothing => "nothing".to_owned(),
                        Raw::Nested => "nested".to_owned(),
                        Raw::Text(text) if expected.starts_with('"') => {
                            serde_json::json!(std::str::from_utf8(text).unwrap()).to_string()
                        }
                        Raw::Escaped(raw) => {
                            serde_json::json!(String::from_utf8(unescaped(raw).unwrap()).unwrap()).to_string()
                        }
                        Raw::Text(text) => serde_json::from_slice::<serde_json::Value>(text).unwrap().to_string(),
                    };
                    prop_assert_eq!(value, expected, "{}", name);
                }
            }
        }
    }
}
