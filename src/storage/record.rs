//! Records: the byte layout of everything fixed that is stored, all little-endian.
//!
//! It knows bytes and the vocabulary of ring 0, no files and no redb. Invariants: parsing is total, so bytes
//! from a disk never panic; whatever was parsed had its tag checked under the store's keys first; reserved
//! bytes are written as zero and ignored on reading only where the table says so.
//!
//! # Header of a session (116 bytes, table `sessions`)
//!
//! | Offset | Bytes | Field |
//! |---|---|---|
//! | 0 | 1 | record version, 1 |
//! | 1 | 1 | id of the server key of the token in force, which also tags this header |
//! | 2 | 1 | class: 0 anonymous, 1 pending, 2 authenticated; bit 7: remembered |
//! | 3 | 1 | authentication method, the application's own number |
//! | 4 | 4 | generation: raised by each hard rotation |
//! | 8 | 4 | step: raised by each soft rotation, zero again after a hard one |
//! | 12 | 4 | created, engine seconds |
//! | 16 | 4 | last authentication, engine seconds |
//! | 20 | 4 | absolute deadline, engine seconds |
//! | 24 | 4 | idle timeout, seconds |
//! | 28 | 4 | last seen when the token was made, engine seconds |
//! | 32 | 8 | created, wall clock, milliseconds since 1970 |
//! | 40 | 16 | fingerprint of the token |
//! | 56 | 16 | fingerprint of the other token, or zero: the successor that is offered or, once that was used, the one before |
//! | 72 | 4 | when the token before stops to open the session, engine seconds; zero while the other is only offered |
//! | 76 | 8 | principal reference, or zero |
//! | 84 | 8 | external reference, or zero |
//! | 92 | 1 | door: how its client reached the application when it began, a number of the web layer's; 0 unknown |
//! | 93 | 1 | id of the server key of the other token, or zero |
//! | 94 | 2 | reserved, zero |
//! | 96 | 4 | frame: how many credits the ticks above have in them; see [`credit`](super::credit) |
//! | 100 | 16 | tag over row number, store id and bytes 0 to 99 |

use crate::error::{Error, Result};
use crate::seal::{Fingerprint, Tagger};
use crate::time::{Tick, Timestamp};

/// Number of a session's row: ascending, never reused. Zero is no row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Row(pub(crate) u64);

impl Row {
    /// Row numbers end here: the index keeps 48 bits of them.
    pub(crate) const LIMIT: u64 = 1 << 48;
    /// Rows from here on are those of sessions that stay off the disk.
    pub(crate) const MEMORY: u64 = Self::LIMIT / 2;
}

/// What the store knows a principal by: a keyed hash of the name. Zero is no principal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PrincipalRef(pub(crate) u64);

impl PrincipalRef {
    pub(crate) const NONE: Self = Self(0);
}

/// What a session grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClassByte {
    Anonymous,
    Pending,
    Authenticated,
}

pub(crate) const HEADER_BYTES: usize = 116;
pub(crate) type HeaderBytes = [u8; HEADER_BYTES];
const HEADER_TAGGED: usize = HEADER_BYTES - TAG_BYTES;
const TAG_BYTES: usize = 16;
const HEADER_VERSION: u8 = 1;
const REMEMBERED: u8 = 0x80;

/// Everything fixed about a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) generation: u32,
    pub(crate) step: u32,
    pub(crate) key_id: u8,
    pub(crate) class: ClassByte,
    pub(crate) remembered: bool,
    pub(crate) method: u8,
    pub(crate) created: Tick,
    pub(crate) authenticated: Tick,
    pub(crate) absolute: Tick,
    pub(crate) idle: u32,
    pub(crate) last_seen: Tick,
    pub(crate) created_wall: Timestamp,
    pub(crate) other: Fingerprint,
    pub(crate) overlap: Tick,
    pub(crate) other_key: u8,
    pub(crate) principal: PrincipalRef,
    pub(crate) external: u64,
    pub(crate) door: u8,
    pub(crate) frame: u32,
}

impl Header {
    pub(crate) fn encode(&self, row: Row, store_id: &[u8; 16], tagger: &Tagger) -> HeaderBytes {
        let mut out = Writer::<HEADER_BYTES>::new();
        let class = match self.class {
            ClassByte::Anonymous => 0,
            ClassByte::Pending => 1,
            ClassByte::Authenticated => 2,
        };
        out.put([HEADER_VERSION, self.key_id, class | if self.remembered { REMEMBERED } else { 0 }, self.method]);
        for word in [self.generation, self.step, self.created.0, self.authenticated.0, self.absolute.0, self.idle] {
            out.put(word.to_le_bytes());
        }
        out.put(self.last_seen.0.to_le_bytes());
        out.put(self.created_wall.unix_ms().to_le_bytes());
        out.put(self.fingerprint.0);
        out.put(self.other.0);
        out.put(self.overlap.0.to_le_bytes());
        out.put(self.principal.0.to_le_bytes());
        out.put(self.external.to_le_bytes());
        out.put([self.door, self.other_key, 0, 0]);
        out.put(self.frame.to_le_bytes());
        let tag = tagger.tag16(HEADER_LABEL, &[&row.0.to_le_bytes(), store_id, out.written()]);
        out.put(tag);
        out.finish()
    }

    /// The key id that the header claims; nothing else of it may be used before [`decode`](Self::decode).
    pub(crate) const fn key_id(bytes: &HeaderBytes) -> u8 {
        bytes[1]
    }

    /// `None` unless the tag is right for this row, store and key, and every field has a meaning.
    pub(crate) fn decode(bytes: &HeaderBytes, row: Row, store_id: &[u8; 16], tagger: &Tagger) -> Option<Self> {
        let (tagged, tag) = bytes.split_first_chunk::<HEADER_TAGGED>()?;
        let tag: &[u8; TAG_BYTES] = tag.try_into().ok()?;
        if !tagger.verify(HEADER_LABEL, &[&row.0.to_le_bytes(), store_id, tagged], tag) {
            return None;
        }
        let mut input = Reader(tagged);
        let [version, key_id, class, method] = input.take()?;
        if version != HEADER_VERSION {
            return None;
        }
        Some(Self {
            key_id,
            class: match class & !REMEMBERED {
                0 => ClassByte::Anonymous,
                1 => ClassByte::Pending,
                2 => ClassByte::Authenticated,
                _ => return None,
            },
            remembered: class & REMEMBERED != 0,
            method,
            generation: input.u32()?,
            step: input.u32()?,
            created: Tick(input.u32()?),
            authenticated: Tick(input.u32()?),
            absolute: Tick(input.u32()?),
            idle: input.u32()?,
            last_seen: Tick(input.u32()?),
            created_wall: Timestamp::from_unix_ms(input.u64()?),
            fingerprint: Fingerprint(input.take()?),
            other: Fingerprint(input.take()?),
            overlap: Tick(input.u32()?),
            principal: PrincipalRef(input.u64()?),
            external: input.u64()?,
            door: input.take::<1>().map(|[door]| door)?,
            other_key: input.take::<3>().map(|[key, ..]| key)?,
            frame: input.u32()?,
        })
    }
}

#[cfg(test)]
impl Header {
    pub(crate) const fn sample() -> Self {
        Self {
            key_id: 3,
            class: ClassByte::Authenticated,
            remembered: true,
            method: 9,
            generation: 2,
            step: 1,
            created: Tick(100),
            authenticated: Tick(150),
            absolute: Tick(43_300),
            idle: 1800,
            last_seen: Tick(160),
            created_wall: Timestamp::from_unix_ms(1_767_225_600_000),
            fingerprint: Fingerprint([7; 16]),
            other: Fingerprint::NONE,
            overlap: Tick(0),
            other_key: 0,
            principal: PrincipalRef(0xABCD),
            external: 0,
            door: 4,
            frame: 7,
        }
    }
}

pub(super) const HEADER_LABEL: &str = "header";

pub(crate) const CUTOFF_BYTES: usize = 40;
pub(crate) type CutoffBytes = [u8; CUTOFF_BYTES];
pub(super) const CUTOFF_LABEL: &str = "cutoff";

/// "Every session of this principal below `below` is dead, but for `spared`": below 8, spared 8, disabled 1,
/// reserved 7, tag 16 (table `cutoffs`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cutoff {
    pub(crate) below: Row,
    pub(crate) spared: Row,
    pub(crate) disabled: bool,
}

impl Cutoff {
    pub(crate) fn kills(&self, row: Row) -> bool {
        row < self.below && row != self.spared
    }

    pub(crate) fn encode(&self, principal: PrincipalRef, tagger: &Tagger) -> CutoffBytes {
        let mut out = Writer::<CUTOFF_BYTES>::new();
        out.put(self.below.0.to_le_bytes());
        out.put(self.spared.0.to_le_bytes());
        out.put([u8::from(self.disabled), 0, 0, 0, 0, 0, 0, 0]);
        let tag = tagger.tag16(CUTOFF_LABEL, &[&principal.0.to_le_bytes(), out.written()]);
        out.put(tag);
        out.finish()
    }

    pub(crate) fn decode(bytes: &CutoffBytes, principal: PrincipalRef, tagger: &Tagger) -> Result<Self> {
        Self::parse(bytes, principal, tagger)
            .ok_or_else(|| Error::corrupt("a sign-out-everywhere record of the store is damaged or was changed"))
    }

    fn parse(bytes: &CutoffBytes, principal: PrincipalRef, tagger: &Tagger) -> Option<Self> {
        let (tagged, tag) = bytes.split_first_chunk::<{ CUTOFF_BYTES - TAG_BYTES }>()?;
        let tag: &[u8; TAG_BYTES] = tag.try_into().ok()?;
        if !tagger.verify(CUTOFF_LABEL, &[&principal.0.to_le_bytes(), tagged], tag) {
            return None;
        }
        let mut input = Reader(tagged);
        Some(Self {
            below: Row(input.u64()?),
            spared: Row(input.u64()?),
            disabled: u8::from_le_bytes(input.take()?) != 0,
        })
    }

    /// This record's share of the sum that the state record holds over all cutoffs, so that a removed one is
    /// noticed: tags are pseudo-random, so sums of different sets differ.
    pub(crate) fn share(bytes: &CutoffBytes) -> u128 {
        bytes.last_chunk::<TAG_BYTES>().map_or(0, |tag| u128::from_le_bytes(*tag))
    }
}

/// Engine time as of a commit, with what is needed to go on from there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) engine_ms: u64,
    pub(crate) since_boot_ms: u64,
    pub(crate) wall_ms: u64,
    /// Zero when the system cannot tell boots apart.
    pub(crate) boot_id: [u8; 16],
    /// Whether the wall clock may yet turn out to have been behind when the boot began.
    pub(crate) provisional: bool,
    pub(crate) boot: BootStart,
    pub(crate) base: Anchor,
}

/// How it was when the store was first opened in a boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BootStart {
    /// Rows from here on were made since.
    pub(crate) first_row: Row,
    /// Later than everything that was dated before.
    pub(crate) first_tick: Tick,
    pub(crate) engine_ms: u64,
    pub(crate) wall_ms: u64,
    /// What engine time was set forward by since the base because wall clocks said so, beyond the time that the machine
    /// was up.
    pub(crate) jump_ms: u64,
}

/// Engine time and wall clock at one moment, of which the wall clock is believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Anchor {
    pub(crate) engine_ms: u64,
    pub(crate) wall_ms: u64,
}

/// What every commit writes (`meta`, key 2; 184 bytes).
///
/// | Offset | Bytes | Field |
/// |---|---|---|
/// | 0 | 8 | next row number, ahead of every row that was handed out |
/// | 8 | 8 | commit counter |
/// | 16 | 8 | epoch |
/// | 24 | 1 | an epoch raise is due |
/// | 25 | 1 | the clock is provisional |
/// | 26 | 2 | reserved, zero |
/// | 28 | 4 | credits that were ever made |
/// | 32 | 8 | engine time, milliseconds |
/// | 40 | 8 | time since boot, milliseconds |
/// | 48 | 8 | wall clock, milliseconds since 1970 |
/// | 56 | 16 | boot id, or zero |
/// | 72 | 8 | next touch flush number |
/// | 80 | 16 | sum of all cutoff tags |
/// | 96 | 32 | first open of this boot: next row, engine time, wall clock, jump (8 bytes each) |
/// | 128 | 16 | last believed wall clock: engine time, wall clock (8 bytes each) |
/// | 144 | 4 | first open of this boot: first tick |
/// | 148 | 4 | reserved, zero |
/// | 152 | 16 | tag of the record of credits, or zero |
/// | 168 | 16 | tag over the store id and bytes 0 to 167 |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) next_row: u64,
    pub(crate) commits: u64,
    pub(crate) epoch: u64,
    pub(crate) epoch_due: bool,
    pub(crate) clock: Checkpoint,
    pub(crate) next_flush: u64,
    pub(crate) cutoff_sum: u128,
    pub(crate) credits_made: u32,
    pub(crate) credits_tag: [u8; TAG_BYTES],
}

pub(crate) const STATE_BYTES: usize = 184;
pub(super) const STATE_LABEL: &str = "state";

impl State {
    pub(crate) fn encode(&self, store_id: &[u8; 16], tagger: &Tagger) -> [u8; STATE_BYTES] {
        let mut out = Writer::<STATE_BYTES>::new();
        for word in [self.next_row, self.commits, self.epoch] {
            out.put(word.to_le_bytes());
        }
        out.put([u8::from(self.epoch_due), u8::from(self.clock.provisional), 0, 0]);
        out.put(self.credits_made.to_le_bytes());
        for word in [self.clock.engine_ms, self.clock.since_boot_ms, self.clock.wall_ms] {
            out.put(word.to_le_bytes());
        }
        out.put(self.clock.boot_id);
        out.put(self.next_flush.to_le_bytes());
        out.put(self.cutoff_sum.to_le_bytes());
        let (boot, base) = (self.clock.boot, self.clock.base);
        for word in [boot.first_row.0, boot.engine_ms, boot.wall_ms, boot.jump_ms, base.engine_ms, base.wall_ms] {
            out.put(word.to_le_bytes());
        }
        out.put(boot.first_tick.0.to_le_bytes());
        out.put([0; 4]);
        out.put(self.credits_tag);
        let tag = tagger.tag16(STATE_LABEL, &[store_id, out.written()]);
        out.put(tag);
        out.finish()
    }

    pub(crate) fn decode(bytes: &[u8], store_id: &[u8; 16], tagger: &Tagger) -> Result<Self> {
        Self::parse(bytes, store_id, tagger)
            .ok_or_else(|| Error::corrupt("the state record of the store is damaged or was changed"))
    }

    fn parse(bytes: &[u8], store_id: &[u8; 16], tagger: &Tagger) -> Option<Self> {
        let bytes: &[u8; STATE_BYTES] = bytes.try_into().ok()?;
        let (tagged, tag) = bytes.split_first_chunk::<{ STATE_BYTES - TAG_BYTES }>()?;
        let tag: &[u8; TAG_BYTES] = tag.try_into().ok()?;
        if !tagger.verify(STATE_LABEL, &[store_id, tagged], tag) {
            return None;
        }
        let mut input = Reader(tagged);
        let (next_row, commits, epoch) = (input.u64()?, input.u64()?, input.u64()?);
        let [epoch_due, provisional, ..] = input.take::<4>()?;
        let credits_made = input.u32()?;
        let mut clock = Checkpoint {
            engine_ms: input.u64()?,
            since_boot_ms: input.u64()?,
            wall_ms: input.u64()?,
            boot_id: input.take()?,
            provisional: provisional != 0,
            ..Checkpoint::default()
        };
        let next_flush = input.u64()?;
        let cutoff_sum = u128::from_le_bytes(input.take()?);
        clock.boot = BootStart {
            first_row: Row(input.u64()?),
            engine_ms: input.u64()?,
            wall_ms: input.u64()?,
            jump_ms: input.u64()?,
            first_tick: Tick(0),
        };
        clock.base = Anchor { engine_ms: input.u64()?, wall_ms: input.u64()? };
        clock.boot.first_tick = Tick(input.u32()?);
        input.u32()?;
        Some(Self {
            next_row,
            commits,
            epoch,
            epoch_due: epoch_due != 0,
            clock,
            next_flush,
            cutoff_sum,
            credits_made,
            credits_tag: input.take()?,
        })
    }
}

/// A body as stored (table `bodies`): version 1, number of wraps (1; 2 while two tokens open the session), the
/// wraps of 48 bytes each, that of the header's `fingerprint` first, length of the sealed facts 2, sealed facts, sealed data to the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) wraps: Vec<crate::seal::Wrap>,
    pub(crate) facts: Vec<u8>,
    pub(crate) data: Vec<u8>,
}

const BODY_VERSION: u8 = 1;
/// A body has one wrap for each token that opens it.
const WRAPS_MAX: usize = 2;

impl Body {
    /// Lays the parts out; facts are at most a few hundred bytes by the rules of their type.
    pub(crate) fn encode(wraps: &[crate::seal::Wrap], facts: &[u8], data: &[u8]) -> Vec<u8> {
        debug_assert!((1..=WRAPS_MAX).contains(&wraps.len()), "{} wraps", wraps.len());
        let facts_bytes = u16::try_from(facts.len()).expect("facts are limited far below 64 KiB");
        let mut out = Vec::with_capacity(4 + size_of_val(wraps) + facts.len() + data.len());
        out.push(BODY_VERSION);
        out.push(u8::try_from(wraps.len()).expect("at most two wraps"));
        wraps.iter().for_each(|wrap| out.extend_from_slice(wrap));
        out.extend_from_slice(&facts_bytes.to_le_bytes());
        out.extend_from_slice(facts);
        out.extend_from_slice(data);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Reader(bytes);
        let [version, count] = input.take()?;
        if version != BODY_VERSION || !(1..=WRAPS_MAX).contains(&usize::from(count)) {
            return None;
        }
        let wraps = (0..count).map(|_| input.take()).collect::<Option<Vec<_>>>()?;
        let facts_bytes = usize::from(u16::from_le_bytes(input.take()?));
        let (facts, data) = input.0.split_at_checked(facts_bytes)?;
        Some(Self { wraps, facts: facts.to_vec(), data: data.to_vec() })
    }
}

/// Writes fixed-width fields one after the other; the length is part of the type, so a layout that does not
/// fill its record is caught by the first test that writes one.
struct Writer<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Writer<N> {
    const fn new() -> Self {
        Self { bytes: [0; N], at: 0 }
    }

    fn put<const M: usize>(&mut self, field: [u8; M]) {
        let to = self.at + M;
        self.bytes.get_mut(self.at..to).expect("fields add up to the record's length").copy_from_slice(&field);
        self.at = to;
    }

    fn written(&self) -> &[u8] {
        self.bytes.get(..self.at).unwrap_or_default()
    }

    fn finish(self) -> [u8; N] {
        debug_assert_eq!(self.at, N, "a record must be written whole");
        self.bytes
    }
}

/// Reads fixed-width fields one after the other; `None` at the end of the bytes.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const M: usize>(&mut self) -> Option<[u8; M]> {
        let (field, rest) = self.0.split_first_chunk::<M>()?;
        self.0 = rest;
        Some(*field)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::Key;

    fn tagger(byte: u8) -> Tagger {
        Tagger::new(&Key::from_bytes([byte; 32]))
    }

    #[test]
    fn headers_round_trip_and_every_byte_is_bound() {
        let bytes = Header::sample().encode(Row(5), &[1; 16], &tagger(1));
        assert_eq!(Header::decode(&bytes, Row(5), &[1; 16], &tagger(1)), Some(Header::sample()));
        assert_eq!(Header::decode(&bytes, Row(6), &[1; 16], &tagger(1)), None);
        assert_eq!(Header::decode(&bytes, Row(5), &[2; 16], &tagger(1)), None);
        assert_eq!(Header::decode(&bytes, Row(5), &[1; 16], &tagger(2)), None);
        for at in 0..HEADER_BYTES {
            let mut changed = bytes;
            changed[at] ^= 0x10;
            assert_eq!(Header::decode(&changed, Row(5), &[1; 16], &tagger(1)), None, "byte {at}");
        }
    }

    #[test]
    fn cutoffs_round_trip_and_every_byte_is_bound() {
        let cutoff = Cutoff { below: Row(10), spared: Row(4), disabled: true };
        assert!(cutoff.kills(Row(9)) && !cutoff.kills(Row(10)) && !cutoff.kills(Row(4)));
        let bytes = cutoff.encode(PrincipalRef(1), &tagger(1));
        assert_eq!(Cutoff::decode(&bytes, PrincipalRef(1), &tagger(1)).unwrap(), cutoff);
        assert!(Cutoff::decode(&bytes, PrincipalRef(2), &tagger(1)).is_err());
        for at in 0..CUTOFF_BYTES {
            let mut changed = bytes;
            changed[at] ^= 1;
            assert!(Cutoff::decode(&changed, PrincipalRef(1), &tagger(1)).is_err(), "byte {at}");
        }
    }

    #[test]
    fn states_round_trip_and_every_byte_is_bound() {
        let state = State {
            next_row: 9,
            commits: 4,
            epoch: 2,
            epoch_due: true,
            next_flush: 11,
            cutoff_sum: 77,
            credits_made: 5,
            credits_tag: [6; 16],
            clock: Checkpoint {
                engine_ms: 21,
                since_boot_ms: 22,
                wall_ms: 23,
                boot_id: [24; 16],
                provisional: true,
                boot: BootStart { first_row: Row(25), first_tick: Tick(31), engine_ms: 26, wall_ms: 27, jump_ms: 28 },
                base: Anchor { engine_ms: 29, wall_ms: 30 },
            },
        };
        let bytes = state.encode(&[1; 16], &tagger(1));
        assert_eq!(State::decode(&bytes, &[1; 16], &tagger(1)).unwrap(), state);
        assert!(State::decode(&bytes[1..], &[1; 16], &tagger(1)).is_err());
        for at in 0..STATE_BYTES {
            let mut changed = bytes;
            changed[at] ^= 1;
            assert!(State::decode(&changed, &[1; 16], &tagger(1)).is_err(), "byte {at}");
        }
    }

    #[test]
    fn bodies_round_trip_and_truncated_ones_are_refused() {
        let body = Body { wraps: vec![[3; 48]], facts: vec![1, 2, 3], data: vec![4, 5] };
        let bytes = Body::encode(&body.wraps, &body.facts, &body.data);
        assert_eq!(Body::decode(&bytes), Some(body));
        for length in 0..bytes.len() - 2 {
            assert_eq!(Body::decode(&bytes[..length]), None, "{length} bytes");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Body::decode(&bytes);
            let _ = State::parse(&bytes, &[0; 16], &tagger(1));
        }
    }
}
