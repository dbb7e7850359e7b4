//! For fuzzing: arbitrary bytes read as each kind of record, with a tag that is right, so that they get past it.
//!
//! It knows every record. Invariant: what is read from bytes that nobody wrote is refused, or is written again as something
//! that reads the same; nothing panics, and no count in the bytes makes anybody reserve more than they take.

use std::sync::LazyLock;

use super::credit::Credits;
use super::effects::Effects;
use super::key_file::KeyFile;
use super::keys::Keys;
use super::record::{Body, Cutoff, HEADER_LABEL, Header, HeaderBytes, PrincipalRef, Row, STATE_LABEL, State};
use super::{credit, record, touch};
use crate::seal::{Key, Tagger};
use crate::time::Timestamp;
use crate::token::OsEntropy;

const ROW: Row = Row(7);
const STORE: &[u8; 16] = &[3; 16];

/// Reads bytes as each kind of record.
///
/// # Panics
/// If something that was read is not written again as what reads the same.
pub(crate) fn read(bytes: &[u8]) {
    let tagger = Tagger::new(&Key::from_bytes([5; Key::BYTES]));
    header(bytes, &tagger);
    if let Some(body) = Body::decode(bytes) {
        assert_eq!(Body::encode(&body.wraps, &body.facts, &body.data), bytes, "a body has one form");
    }
    if let Some(cutoff) = tagged(bytes, record::CUTOFF_LABEL, &[&1_u64.to_le_bytes()], &tagger)
        && let Ok(cutoff) = Cutoff::decode(&cutoff, PrincipalRef(1), &tagger)
    {
        let again = cutoff.encode(PrincipalRef(1), &tagger);
        assert_eq!(Cutoff::decode(&again, PrincipalRef(1), &tagger).ok(), Some(cutoff));
    }
    if let Some(state) = tagged::<{ record::STATE_BYTES }>(bytes, STATE_LABEL, &[STORE], &tagger)
        && let Ok(state) = State::decode(&state, STORE, &tagger)
    {
        assert_eq!(State::decode(&state.encode(STORE, &tagger), STORE, &tagger).ok(), Some(state));
    }
    let touches = with_tag(bytes, tagger.tag16(touch::LABEL, &[&9_u64.to_le_bytes(), bytes]));
    if let Some((_, entries)) = touch::decode(9, &touches, &tagger) {
        assert!(entries.len() <= bytes.len() / 2 && entries.is_sorted_by(|one, two| one.0 < two.0));
    }
    let tag = tagger.tag16(credit::LABEL, &[STORE, bytes]);
    if let Ok(credits) = Credits::decode(Some(&with_tag(bytes, tag)), (&tag, u32::MAX), STORE, &tagger) {
        assert!(credits.encode(STORE, &tagger).is_none_or(|again| again.len() <= bytes.len() + tag.len()));
    }
    frame(bytes, &tagger);
}

/// Keys that payloads are written with; the tag of the state record is put right afterwards.
static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let file = KeyFile::create(Timestamp::from_unix_ms(0), &OsEntropy).expect("random bytes");
    Keys::create(&file, &OsEntropy).expect("random bytes").0
});

/// Reads bytes as what comes behind the state record in the payload of a frame.
fn frame(bytes: &[u8], tagger: &Tagger) {
    let state = State::default().encode(STORE, tagger);
    let read = |effects: &[u8]| Effects::decode(&[&state[..], effects].concat(), STORE, tagger);
    let Some(effects) = read(bytes) else { return };
    let again = effects.encode(&KEYS);
    let again = again.get(state.len()..).unwrap_or_default();
    assert!(again.len() <= bytes.len(), "more was read than there is");
    assert_eq!(read(again), Some(effects));
}

fn header(bytes: &[u8], tagger: &Tagger) {
    let Some(bytes) = tagged::<{ record::HEADER_BYTES }>(bytes, HEADER_LABEL, &[&ROW.0.to_le_bytes(), STORE], tagger)
    else {
        return;
    };
    let read = |bytes: &HeaderBytes| Header::decode(bytes, ROW, STORE, tagger);
    if let Some(header) = read(&bytes) {
        assert_eq!(read(&header.encode(ROW, STORE, tagger)), Some(header));
    }
    assert_eq!(Header::decode(&bytes, Row(8), STORE, tagger), None, "another row's");
}

/// A record of `N` bytes that ends in its tag, out of the first of these bytes.
fn tagged<const N: usize>(bytes: &[u8], label: &str, bound: &[&[u8]], tagger: &Tagger) -> Option<[u8; N]> {
    let content = bytes.get(..N - 16)?;
    let tag = tagger.tag16(label, &[bound, &[content]].concat());
    with_tag(content, tag).try_into().ok()
}

fn with_tag(content: &[u8], tag: [u8; 16]) -> Vec<u8> {
    [content, &tag].concat()
}
