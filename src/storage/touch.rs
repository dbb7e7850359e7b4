//! Touch blocks: when sessions were last seen, a few bytes each.
//!
//! It knows bytes only. Invariants: rows ascend strictly; a time that cannot be told exactly is told older, so a
//! lost or rounded touch can only shorten a session's life.
//!
//! # A block (table `touches`)
//!
//! | Offset | Bytes | Field |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | seconds in one step of age |
//! | 2 | 4 | engine seconds that ages count back from |
//! | 6 | 4 | number of entries |
//! | 10 | 4 | frame: how many credits the times have in them; see [`credit`](super::credit) |
//! | 14 | .. | entries: row as LEB128 difference to the one before, then age in steps, 1 byte |
//! | end | 16 | tag over the key and all bytes before |

use super::TouchBlock;
use super::record::Row;
use crate::seal::Tagger;
use crate::time::Tick;

const VERSION: u8 = 1;
/// Before the entries.
const FIXED_BYTES: usize = 14;
pub(super) const LABEL: &str = "touches";
const TAG_BYTES: usize = 16;

/// The key of a block: sessions of like idle timeouts share a bucket, the binary logarithm of theirs, because blocks of
/// like intervals are written and replaced together.
pub(crate) fn key(idle: u32, flush: u64) -> u64 {
    debug_assert!(flush < 1 << BUCKET_SHIFT, "flush number {flush} reaches into the bucket");
    u64::from(idle.max(1).ilog2()) << BUCKET_SHIFT | flush
}

/// The bucket that a key belongs to.
pub(crate) const fn bucket_of(key: u64) -> u64 {
    key >> BUCKET_SHIFT
}

/// Flush numbers take the bits below.
const BUCKET_SHIFT: u32 = 56;

/// The oldest last-seen time that a block counting back from `tick` can hold.
pub(crate) const fn oldest(tick: Tick, step: u8) -> Tick {
    Tick(tick.0.saturating_sub(255 * step as u32))
}

/// Bytes that the entries of a block take at most: with what stands around them it fills a page of the B-tree, 4 KiB. Larger
/// values get pages of a power of two, of which much stays empty.
const BLOCK_BYTES_MAX: usize = 4000;

/// Cuts entries, ascending by row, into parts that make blocks of a good size.
pub(crate) fn parts(mut entries: &[(Row, Tick)]) -> impl Iterator<Item = &[(Row, Tick)]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let mut before = 0;
        let fitting = entries.iter().take_while(|(row, _)| {
            bytes += varint_bytes(row.0 - before) + 1;
            before = row.0;
            bytes <= BLOCK_BYTES_MAX
        });
        let (part, rest) = entries.split_at_checked(fitting.count())?;
        entries = rest;
        (!part.is_empty()).then_some(part)
    })
}

/// Lays a block out. Its entries ascend by row; each time is within `oldest(tick, step)..=tick`.
pub(crate) fn encode(key: u64, block: &TouchBlock, tagger: &Tagger) -> Vec<u8> {
    let TouchBlock { tick, frame, entries, .. } = block;
    let step = block.step.max(1);
    let mut out = Vec::with_capacity(FIXED_BYTES + entries.len() * 3 + TAG_BYTES);
    out.extend_from_slice(&[VERSION, step]);
    out.extend_from_slice(&tick.0.to_le_bytes());
    out.extend_from_slice(&u32::try_from(entries.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&frame.to_le_bytes());
    let mut before = 0;
    for &(row, seen) in entries {
        debug_assert!(row.0 > before, "row {} after {before}", row.0);
        put_varint(&mut out, row.0 - before);
        before = row.0;
        out.push(u8::try_from(tick.since(seen).div_ceil(u32::from(step))).unwrap_or(u8::MAX));
    }
    let tag = tagger.tag16(LABEL, &[&key.to_le_bytes(), &out]);
    out.extend_from_slice(&tag);
    out
}

/// Reads a block's frame and entries; `None` unless its tag is right for this key and it is well formed to the last byte.
pub(crate) fn decode(key: u64, bytes: &[u8], tagger: &Tagger) -> Option<(u32, Vec<(Row, Tick)>)> {
    let (block, tag) = bytes.split_last_chunk::<TAG_BYTES>()?;
    if !tagger.verify(LABEL, &[&key.to_le_bytes(), block], tag) {
        return None;
    }
    let (&[version, step], rest) = block.split_first_chunk::<2>()?;
    let (tick, rest) = rest.split_first_chunk::<4>()?;
    let (count, rest) = rest.split_first_chunk::<4>()?;
    let (frame, mut rest) = rest.split_first_chunk::<4>()?;
    let (tick, count) = (u32::from_le_bytes(*tick), u32::from_le_bytes(*count) as usize);
    // An entry takes two bytes at least, so a count that lies cannot make us reserve more than the block's size.
    if version != VERSION || count > rest.len() / 2 {
        return None;
    }
    let mut entries = Vec::with_capacity(count);
    let mut row = 0_u64;
    for _ in 0..count {
        let (delta, after) = take_varint(rest)?;
        let (&age, after) = after.split_first()?;
        // Rows ascend.
        row = row.checked_add(delta).filter(|_| delta > 0)?;
        entries.push((Row(row), Tick(tick.saturating_sub(u32::from(age) * u32::from(step)))));
        rest = after;
    }
    rest.is_empty().then_some((u32::from_le_bytes(*frame), entries))
}

const fn varint_bytes(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

/// Unsigned LEB128.
fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn take_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (at, &byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7F).checked_shl(u32::try_from(at).ok()? * 7)?;
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(at + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::seal::Key;

    fn tagger() -> Tagger {
        Tagger::new(&Key::from_bytes([1; 32]))
    }

    fn block(tick: u32, step: u8, entries: &[(Row, Tick)]) -> TouchBlock {
        TouchBlock { idle: 1800, tick: Tick(tick), step, frame: 3, entries: entries.to_vec() }
    }

    #[test]
    fn dense_rows_cost_two_bytes_each() {
        let entries: Vec<_> = (1..=10_000).map(|row| (Row(row), Tick(5000))).collect();
        let bytes = encode(key(1800, 1), &block(5000, 1, &entries), &tagger());
        assert!(bytes.len() <= 2 * 10_000 + 30, "{}", bytes.len());
    }

    #[test]
    fn a_block_is_bound_to_its_key() {
        let bytes = encode(7, &block(9, 1, &[(Row(1), Tick(8))]), &tagger());
        assert!(decode(7, &bytes, &tagger()).is_some());
        assert!(decode(8, &bytes, &tagger()).is_none());
    }

    #[test]
    fn parts_fill_a_block_and_leave_nothing_out() {
        for stride in [1, 100, 1 << 20, 1 << 40] {
            let entries: Vec<_> = (1..=50_000).map(|n| (Row(n * stride), Tick(5000))).collect();
            let parts: Vec<_> = parts(&entries).collect();
            assert_eq!(parts.concat(), entries);
            for part in &parts {
                assert!(encode(7, &block(5000, 1, part), &tagger()).len() <= BLOCK_BYTES_MAX + 30);
            }
            assert!(parts.iter().rev().skip(1).all(|part| part.len() > BLOCK_BYTES_MAX / 9));
        }
        assert_eq!(parts(&[]).count(), 0);
    }

    proptest! {
        #[test]
        fn times_come_back_never_later_and_at_most_a_step_older(
            rows in proptest::collection::btree_set(1_u64..1 << 48, 0..50), step in 1_u8..57, tick in 20_000_u32..u32::MAX, ages in proptest::collection::vec(0_u32..255, 50),
        ) {
            let entries: Vec<_> = rows.iter().zip(&ages).map(|(&row, age)| (Row(row), Tick(tick - age * u32::from(step) / 2))).collect();
            let key = key(1800, 3);
            let (frame, back) = decode(key, &encode(key, &block(tick, step, &entries), &tagger()), &tagger()).unwrap();
            prop_assert_eq!(frame, 3);
            prop_assert_eq!(back.len(), entries.len());
            for (&(row, seen), &(row_back, seen_back)) in entries.iter().zip(&back) {
                prop_assert_eq!(row, row_back);
                prop_assert!(seen_back <= seen && seen.since(seen_back) < u32::from(step));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes: Vec<u8>) {
            let tag = tagger().tag16(LABEL, &[&1_u64.to_le_bytes(), &bytes]);
            bytes.extend_from_slice(&tag);
            let _ = decode(1, &bytes, &tagger());
        }
    }
}
