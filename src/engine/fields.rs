//! The entries of one session as one byte string.
//!
//! What lives here: the layout of the map from field name to encoded value, and pure functions over it. A
//! session's map is small and is copied as a whole more often than it is changed (into a cell, into a batch,
//! to disk), so it is kept encoded: one allocation, shared by reference count, read in place.
//!
//! | Bytes | Part |
//! |---|---|
//! | 1 | length of the name, 1 to 64 |
//! | n | name, UTF-8 |
//! | 1 | version of the field's type |
//! | 1 | codec of the value |
//! | 1 | flags: bit 0 kept on sign-in, bit 1 relaxed, others 0 |
//! | 4 | length of the value, little-endian |
//! | m | value |
//!
//! Entries follow each other without padding, in the order in which their names were first set; the end of
//! the bytes is the end of the map, and no bytes are an empty map.
//!
//! What it may know: the error and the limit of a name. Values, versions and codecs are opaque to it.
//!
//! Invariants: names are unique and there are at most [`FIELDS_MAX`]. [`validate`] holds them for bytes that
//! come from outside, before anything else sees those; every function here keeps them. Reading functions never
//! panic on any bytes and end at the first entry that is not whole.
//!
//! On a crash or panic: nothing is kept here. A changed map is a new byte string, so whoever holds the old one
//! is not disturbed.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::field::FIELD_NAME_BYTES_MAX;

/// One entry of the map, borrowed from its bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: u8,
    pub(crate) codec: u8,
    pub(crate) flags: u8,
    pub(crate) value: &'a [u8],
}

impl Entry<'_> {
    fn is_kept(&self) -> bool {
        self.flags & FLAG_KEPT != 0
    }

    fn encoded_len(&self) -> usize {
        1 + self.name.len() + HEAD_BYTES + self.value.len()
    }
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the value.
        f.debug_struct("Entry")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("codec", &self.codec)
            .field("flags", &self.flags)
            .field("value_bytes", &self.value.len())
            .finish()
    }
}

/// Checks bytes that come from outside.
///
/// # Errors
///
/// [`ErrorKind::Corrupt`] if they are not exactly one map.
pub(crate) fn validate(bytes: &[u8]) -> Result<()> {
    let mut rest = bytes;
    let mut seen = 0;
    while !rest.is_empty() {
        let Some((raw, after)) = split(rest) else {
            return Err(Error::corrupt("the fields of a session end within an entry"));
        };
        let Some(entry) = raw.entry() else {
            return Err(Error::corrupt("the name of a field is not UTF-8"));
        };
        seen += 1;
        if seen > FIELDS_MAX {
            return Err(Error::corrupt("a session has too many fields"));
        }
        if !(1..=FIELD_NAME_BYTES_MAX).contains(&entry.name.len()) {
            return Err(Error::corrupt("the name of a field has no valid length"));
        }
        if entry.flags & !FLAGS_KNOWN != 0 {
            return Err(Error::corrupt("a field has unknown flags"));
        }
        // The first entry of that name must be this one.
        if span(bytes, entry.name).is_none_or(|(before, _)| before.len() + rest.len() != bytes.len()) {
            return Err(Error::corrupt("a session has two fields of one name"));
        }
        rest = after;
    }
    Ok(())
}

/// The entry of that name. A scan: a session has a handful of fields, and their bytes lie together.
#[inline]
pub(crate) fn find<'a>(bytes: &'a [u8], name: &'a str) -> Option<Entry<'a>> {
    let mut rest = bytes;
    while let Some((raw, after)) = split(rest) {
        if raw.name == name.as_bytes() {
            return Some(raw.named(name));
        }
        rest = after;
    }
    None
}

/// All entries, in the order in which their names were first set.
pub(crate) fn entries(bytes: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (raw, after) = split(rest)?;
        rest = after;
        raw.entry()
    })
    .fuse()
}

/// How many entries there are.
pub(crate) fn count(bytes: &[u8]) -> usize {
    entries(bytes).count()
}

/// The map with this entry in place of the one of its name, or after all others.
///
/// # Errors
///
/// [`ErrorKind::TooLarge`] if it would be one entry too many or the value is too long for the layout.
pub(crate) fn with_set(bytes: &[u8], entry: Entry<'_>) -> Result<Arc<[u8]>> {
    debug_assert!(validate(bytes).is_ok(), "changing a map that is not valid");
    let (before, after) = match span(bytes, entry.name) {
        Some(around) => around,
        None if count(bytes) < FIELDS_MAX => (bytes, [].as_slice()),
        None => return Err(Error::new(ErrorKind::TooLarge, format!("a session has at most {FIELDS_MAX} fields"))),
    };
    let mut map = Vec::with_capacity(before.len() + entry.encoded_len() + after.len());
    map.extend_from_slice(before);
    put(&mut map, entry)?;
    map.extend_from_slice(after);
    debug_assert!(validate(&map).is_ok(), "setting {entry:?} made a map that is not valid");
    Ok(map.into())
}

/// The map without the entry of that name, or `None` if there is none.
pub(crate) fn without(bytes: &[u8], name: &str) -> Option<Arc<[u8]>> {
    let (before, after) = span(bytes, name)?;
    Some([before, after].concat().into())
}

/// The map with only those entries that move on to the session of a signed-in visitor.
pub(crate) fn kept(bytes: &[u8]) -> Arc<[u8]> {
    let mut map = Vec::new();
    let mut rest = bytes;
    while let Some((raw, after)) = split(rest) {
        if raw.entry().is_some_and(|entry| entry.is_kept()) {
            map.extend_from_slice(raw.all);
        }
        rest = after;
    }
    map.into()
}

/// One whole entry whose name nobody has looked at yet.
struct Raw<'a> {
    all: &'a [u8],
    name: &'a [u8],
    version: u8,
    codec: u8,
    flags: u8,
    value: &'a [u8],
}

impl<'a> Raw<'a> {
    fn entry(&self) -> Option<Entry<'a>> {
        std::str::from_utf8(self.name).ok().map(|name| self.named(name))
    }

    #[inline]
    fn named(&self, name: &'a str) -> Entry<'a> {
        Entry { name, version: self.version, codec: self.codec, flags: self.flags, value: self.value }
    }
}

/// The first entry and what follows it; `None` if the bytes do not hold a whole one.
#[inline]
fn split(bytes: &[u8]) -> Option<(Raw<'_>, &[u8])> {
    let (&name_bytes, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(name_bytes))?;
    let (&[version, codec, flags, length @ ..], rest) = rest.split_first_chunk::<HEAD_BYTES>()?;
    let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(length)).ok()?)?;
    let all = bytes.get(..bytes.len() - rest.len())?;
    Some((Raw { all, name, version, codec, flags, value }, rest))
}

/// What lies before and after the first entry of that name.
fn span<'a>(bytes: &'a [u8], name: &str) -> Option<(&'a [u8], &'a [u8])> {
    let mut rest = bytes;
    while let Some((raw, after)) = split(rest) {
        if raw.name == name.as_bytes() {
            return Some((bytes.get(..bytes.len() - rest.len())?, after));
        }
        rest = after;
    }
    None
}

fn put(map: &mut Vec<u8>, entry: Entry<'_>) -> Result<()> {
    let too_large = |_| Error::new(ErrorKind::TooLarge, "a field is too large for its session");
    map.push(u8::try_from(entry.name.len()).map_err(too_large)?);
    map.extend_from_slice(entry.name.as_bytes());
    map.extend_from_slice(&[entry.version, entry.codec, entry.flags]);
    map.extend_from_slice(&u32::try_from(entry.value.len()).map_err(too_large)?.to_le_bytes());
    map.extend_from_slice(entry.value);
    Ok(())
}

/// The most entries of one session: reading is a scan, and each entry is one comparison.
pub(crate) const FIELDS_MAX: usize = 64;

/// The entry moves from an anonymous session to the signed-in one.
pub(crate) const FLAG_KEPT: u8 = 1;

/// The entry is written behind.
pub(crate) const FLAG_RELAXED: u8 = 2;

const FLAGS_KNOWN: u8 = FLAG_KEPT | FLAG_RELAXED;

/// Version, codec, flags and the length of the value.
const HEAD_BYTES: usize = 3 + size_of::<u32>();

const _: () = assert!(FIELD_NAME_BYTES_MAX <= u8::MAX as usize, "the length of a name is one byte");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry<'a>(name: &'a str, value: &'a [u8]) -> Entry<'a> {
        Entry { name, version: 1, codec: 1, flags: 0, value }
    }

    fn map(all: &[Entry<'_>]) -> Arc<[u8]> {
        all.iter().fold(Arc::default(), |bytes: Arc<[u8]>, entry| with_set(&bytes, *entry).unwrap())
    }

    #[track_caller]
    fn corrupt(bytes: &[u8], word: &str) {
        let error = validate(bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(word), "{error}");
    }

    #[test]
    fn the_layout_is_frozen() {
        let bytes = map(&[
            Entry { name: "ab", version: 3, codec: 2, flags: FLAG_KEPT | FLAG_RELAXED, value: b"xyz" },
            entry("c", b""),
        ]);
        assert_eq!(&bytes[..], b"\x02ab\x03\x02\x03\x03\0\0\0xyz\x01c\x01\x01\0\0\0\0\0");
        assert!(validate(&bytes).is_ok());
    }

    #[test]
    fn no_bytes_are_an_empty_map() {
        assert!(validate(&[]).is_ok());
        assert_eq!(count(&[]), 0);
        assert_eq!(find(&[], "a"), None);
        assert_eq!(without(&[], "a"), None);
        assert!(kept(&[]).is_empty());
    }

    #[test]
    fn setting_again_keeps_the_place_and_changes_all_else() {
        let bytes = map(&[entry("a", b"1"), entry("bb", b"22"), entry("c", b"3")]);
        let other = Entry { name: "bb", version: 2, codec: 2, flags: FLAG_RELAXED, value: b"longer" };
        let bytes = with_set(&bytes, other).unwrap();
        assert_eq!(find(&bytes, "bb"), Some(other));
        assert!(entries(&bytes).map(|entry| entry.name).eq(["a", "bb", "c"]));
    }

    #[test]
    fn names_are_compared_as_a_whole() {
        let bytes = map(&[entry("visits", b"1"), entry("visit", b"2")]);
        assert_eq!(find(&bytes, "visit").unwrap().value, b"2");
        assert_eq!(find(&bytes, "visits").unwrap().value, b"1");
        assert_eq!(find(&bytes, "vis"), None);
        assert_eq!(find(&bytes, ""), None);
    }

    #[test]
    fn only_kept_entries_move() {
        let moving = Entry { flags: FLAG_KEPT, ..entry("cart", b"3 eggs") };
        let both = Entry { flags: FLAG_KEPT | FLAG_RELAXED, ..entry("note", b"") };
        let bytes = map(&[entry("role", b"admin"), moving, Entry { flags: FLAG_RELAXED, ..entry("x", b"y") }, both]);
        assert!(entries(&kept(&bytes)).eq([moving, both]));
    }

    #[test]
    fn removing_leaves_the_others() {
        let bytes = map(&[entry("a", b"1"), entry("b", b"2"), entry("c", b"3")]);
        let fewer = without(&bytes, "b").unwrap();
        assert!(entries(&fewer).eq([entry("a", b"1"), entry("c", b"3")]));
        assert_eq!(without(&fewer, "b"), None);
    }

    #[test]
    fn a_map_has_a_limited_number_of_entries() {
        let names: Vec<String> = (0..=FIELDS_MAX).map(|number| format!("field {number}")).collect();
        let full = names[..FIELDS_MAX]
            .iter()
            .fold(Arc::default(), |bytes: Arc<[u8]>, name| with_set(&bytes, entry(name, b"v")).unwrap());
        assert_eq!(count(&full), FIELDS_MAX);
        assert!(validate(&full).is_ok());
        let error = with_set(&full, entry(&names[FIELDS_MAX], b"v")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
        assert!(with_set(&full, entry(&names[3], b"other")).is_ok());

        let mut over = full.to_vec();
        put(&mut over, entry(&names[FIELDS_MAX], b"v")).unwrap();
        corrupt(&over, "too many");
    }

    #[test]
    fn damage_is_named() {
        let one = map(&[entry("a", b"12")]);
        for end in 1..one.len() {
            corrupt(&one[..end], "end within");
        }
        corrupt(&[&one[..], &[0]].concat(), "end within");
        corrupt(&[&one[..], &one[..]].concat(), "two fields");
        corrupt(b"\x00\x01\x01\0\0\0\0\0", "length");
        corrupt(b"\x01a\x01\x01\x04\0\0\0\0", "flags");
        corrupt(b"\x01\xff\x01\x01\0\0\0\0\0", "UTF-8");
        corrupt(b"\x01a\x01\x01\0\xff\xff\xff\xff", "end within");
        let mut long = Vec::new();
        put(&mut long, entry(&"n".repeat(FIELD_NAME_BYTES_MAX + 1), b"")).unwrap();
        corrupt(&long, "length");
    }

    #[test]
    fn debug_never_shows_the_value() {
        assert!(!format!("{:?}", entry("a", b"secret")).contains("secret"));
        assert!(!format!("{:?}", entry("a", &[42])).contains("42"));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Set(String, Vec<u8>, u8),
        Remove(String),
        Keep,
    }

    fn step() -> impl Strategy<Value = Step> {
        let name = || prop_oneof![4 => "[abc]", 1 => "\\PC{1,16}"];
        prop_oneof![
            8 => (name(), any::<Vec<u8>>(), 0..=FLAGS_KNOWN)
                .prop_map(|(name, value, flags)| Step::Set(name, value, flags)),
            4 => name().prop_map(Step::Remove),
            1 => Just(Step::Keep),
        ]
    }

    proptest! {
        #[test]
        fn the_map_does_what_a_list_does(steps in prop::collection::vec(step(), 0..48)) {
            let mut bytes: Arc<[u8]> = Arc::default();
            let mut model: Vec<(String, Vec<u8>, u8)> = Vec::new();
            for step in steps {
                match step {
                    Step::Set(name, value, flags) => {
                        bytes = with_set(&bytes, Entry { flags, ..entry(&name, &value) }).unwrap();
                        match model.iter_mut().find(|(known, ..)| *known == name) {
                            Some(known) => *known = (name, value, flags),
                            None => model.push((name, value, flags)),
                        }
                    }
                    Step::Remove(name) => {
                        let known = model.iter().position(|(known, ..)| *known == name);
                        let fewer = without(&bytes, &name);
                        prop_assert_eq!(fewer.is_some(), known.is_some());
                        bytes = fewer.unwrap_or(bytes);
                        known.map(|index| model.remove(index));
                    }
                    Step::Keep => {
                        bytes = kept(&bytes);
                        model.retain(|(.., flags)| flags & FLAG_KEPT != 0);
                    }
                }
                prop_assert!(validate(&bytes).is_ok());
                prop_assert_eq!(count(&bytes), model.len());
                let listed = model.iter().map(|(name, value, flags)| Entry { flags: *flags, ..entry(name, value) });
                prop_assert!(entries(&bytes).eq(listed.clone()));
                for one in listed {
                    prop_assert_eq!(find(&bytes, one.name), Some(one));
                }
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, name: String) {
            let _ = find(&bytes, &name);
            let _ = without(&bytes, &name);
            let _ = kept(&bytes);
            let listed: Vec<_> = entries(&bytes).collect();
            prop_assert_eq!(listed.len(), count(&bytes));
            if validate(&bytes).is_ok() {
                prop_assert_eq!(&map(&listed)[..], &bytes[..]);
            }
        }

        #[test]
        fn a_changed_byte_is_a_valid_map_or_corrupt(at: prop::sample::Index, byte: u8) {
            let mut bytes = map(&[entry("visits", b"12"), entry("name", b"ada"), entry("x", b"")]).to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            match validate(&bytes) {
                Ok(()) => prop_assert_eq!(&map(&entries(&bytes).collect::<Vec<_>>())[..], &bytes[..]),
                Err(error) => prop_assert_eq!(error.kind(), ErrorKind::Corrupt),
            }
        }
    }
}
