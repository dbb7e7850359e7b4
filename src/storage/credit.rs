//! Credits: time that passed before a boot and was not counted when it began.
//!
//! It knows ticks, rows and bytes. Engine time goes on evenly while the machine runs; when it turns out later that more
//! time had passed before, whatever is older than the boot is aged by the difference, and what is younger is left as it
//! is. Which is which follows from row numbers and ticks alone.
//!
//! Invariants: aging only shortens a life; a header or block says by its frame which credits are in it already, so that
//! none is applied twice and it does not matter when a row is written anew; credits are numbered for ever, and a number
//! is below every frame that has it.
//!
//! # The record (`meta`, key 3; not there if no credit is needed)
//!
//! | Offset | Bytes | Field |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | number of credits, at most 64 |
//! | 2 | 20 each | credits: number 4, rows below 8, ticks below 4, seconds 4; ascending by number |
//! | end | 16 | tag over the store id and all bytes before; the state record has it too |

use super::record::{Header, Row};
use crate::error::{Error, Result};
use crate::seal::Tagger;
use crate::time::Tick;

/// Time that passed before a boot and was not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Credit {
    number: u32,
    /// The first row that was made since the boot.
    before_row: Row,
    /// When the boot began: what happened since is dated right.
    before_tick: Tick,
    seconds: u32,
}

impl Credit {
    pub(crate) const fn new(before_row: Row, before_tick: Tick, seconds: u32) -> Self {
        Self { number: 0, before_row, before_tick, seconds }
    }

    /// A deadline of a session, or the moment it was made.
    pub(crate) fn date(&self, row: Row, tick: Tick) -> Tick {
        if row < self.before_row { tick.minus(self.seconds) } else { tick }
    }

    /// The moment of something that happened to a session.
    pub(crate) fn event(&self, row: Row, tick: Tick) -> Tick {
        if tick < self.before_tick { self.date(row, tick) } else { tick }
    }
}

/// The credits that rows on disk may still need, and how many there ever were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Credits {
    made: u32,
    kept: Vec<Credit>,
}

/// A device without a battery for its clock makes one at each boot.
const KEPT_MAX: usize = 64;
const VERSION: u8 = 1;
const CREDIT_BYTES: usize = 20;
const TAG_BYTES: usize = 16;
pub(super) const LABEL: &str = "credits";

impl Credits {
    /// The frame of what is written from now on: the number of credits that were ever made.
    pub(crate) const fn frame(&self) -> u32 {
        self.made
    }

    pub(crate) fn add(&mut self, credit: Credit) {
        self.kept.push(Credit { number: self.made, ..credit });
        self.made = self.made.saturating_add(1);
        if self.kept.len() > KEPT_MAX {
            self.merge_oldest();
        }
    }

    /// Makes one of the two oldest that ages whatever either would have, by as much as both: some sessions get shorter,
    /// none longer.
    fn merge_oldest(&mut self) {
        let &[first, second, ..] = self.kept.as_slice() else { return };
        let merged = Credit {
            number: second.number,
            before_row: first.before_row.max(second.before_row),
            before_tick: first.before_tick.max(second.before_tick),
            seconds: first.seconds.saturating_add(second.seconds),
        };
        self.kept.splice(..2, [merged]);
    }

    /// Forgets those that no row needs; `oldest` is the first that is left on disk, dead or alive. `true` if any went.
    pub(crate) fn forget(&mut self, oldest: Option<Row>) -> bool {
        let before = self.kept.len();
        self.kept.retain(|credit| oldest.is_some_and(|oldest| oldest < credit.before_row));
        self.kept.len() < before
    }

    /// Brings a header to the present frame.
    pub(crate) fn age(&self, row: Row, header: &mut Header) {
        for credit in self.since(header.frame) {
            header.created = credit.date(row, header.created);
            header.absolute = credit.date(row, header.absolute);
            header.authenticated = credit.event(row, header.authenticated);
            header.last_seen = credit.event(row, header.last_seen);
        }
        header.frame = self.made;
    }

    /// When a session was last seen, said in `frame`, brought to the present one.
    pub(crate) fn seen(&self, frame: u32, row: Row, tick: Tick) -> Tick {
        self.since(frame).fold(tick, |tick, credit| credit.event(row, tick))
    }

    fn since(&self, frame: u32) -> impl Iterator<Item = &Credit> {
        self.kept.iter().filter(move |credit| credit.number >= frame)
    }

    /// The record, or `None` if there is nothing to keep.
    pub(crate) fn encode(&self, store_id: &[u8; 16], tagger: &Tagger) -> Option<Vec<u8>> {
        if self.kept.is_empty() {
            return None;
        }
        let count = u8::try_from(self.kept.len()).expect("at most 64 credits are kept");
        let mut out = vec![VERSION, count];
        for credit in &self.kept {
            out.extend_from_slice(&credit.number.to_le_bytes());
            out.extend_from_slice(&credit.before_row.0.to_le_bytes());
            out.extend_from_slice(&credit.before_tick.0.to_le_bytes());
            out.extend_from_slice(&credit.seconds.to_le_bytes());
        }
        let tag = tagger.tag16(LABEL, &[store_id, &out]);
        out.extend_from_slice(&tag);
        Some(out)
    }

    /// The tag of a record, by which the state record knows it; zero for none.
    pub(crate) fn tag(record: Option<&[u8]>) -> [u8; TAG_BYTES] {
        record.and_then(|bytes| bytes.last_chunk()).copied().unwrap_or_default()
    }

    /// Reads what [`encode`](Self::encode) wrote; `tag` and `made` are what the state record says.
    pub(crate) fn decode(
        record: Option<&[u8]>,
        (tag, made): (&[u8; TAG_BYTES], u32),
        store_id: &[u8; 16],
        tagger: &Tagger,
    ) -> Result<Self> {
        let kept = match record {
            None if *tag == [0; TAG_BYTES] => Some(Vec::new()),
            None => None,
            Some(bytes) => Self::parse(bytes, tag, store_id, tagger),
        };
        let kept = kept.filter(|kept| kept.iter().all(|credit| credit.number < made));
        kept.map(|kept| Self { made, kept })
            .ok_or_else(|| Error::corrupt("the record of clock corrections is missing, damaged or was changed"))
    }

    fn parse(bytes: &[u8], tag: &[u8; TAG_BYTES], store_id: &[u8; 16], tagger: &Tagger) -> Option<Vec<Credit>> {
        let (tagged, own) = bytes.split_last_chunk::<TAG_BYTES>()?;
        if own != tag || !tagger.verify(LABEL, &[store_id, tagged], own) {
            return None;
        }
        let (&[version, count], credits) = tagged.split_first_chunk::<2>()?;
        let (credits, rest) = credits.as_chunks::<CREDIT_BYTES>();
        if version != VERSION || !rest.is_empty() || credits.len() != usize::from(count) {
            return None;
        }
        credits.iter().map(Credit::parse).collect()
    }
}

impl Credit {
    fn parse(bytes: &[u8; CREDIT_BYTES]) -> Option<Self> {
        let (number, rest) = bytes.split_first_chunk::<4>()?;
        let (before_row, rest) = rest.split_first_chunk::<8>()?;
        let (before_tick, rest) = rest.split_first_chunk::<4>()?;
        let seconds: &[u8; 4] = rest.try_into().ok()?;
        Some(Self {
            number: u32::from_le_bytes(*number),
            before_row: Row(u64::from_le_bytes(*before_row)),
            before_tick: Tick(u32::from_le_bytes(*before_tick)),
            seconds: u32::from_le_bytes(*seconds),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::seal::Key;

    fn tagger() -> Tagger {
        Tagger::new(&Key::from_bytes([1; 32]))
    }

    fn header(frame: u32) -> Header {
        Header { frame, ..Header::sample() }
    }

    #[test]
    fn what_is_older_than_the_boot_is_aged_and_the_rest_is_not() {
        let credit = Credit::new(Row(10), Tick(1000), 300);
        for (row, tick, date, event) in
            [(9, 999, 699, 699), (9, 1000, 700, 1000), (9, 100, 0, 0), (10, 999, 999, 999), (10, 1000, 1000, 1000)]
        {
            assert_eq!(credit.date(Row(row), Tick(tick)), Tick(date), "row {row}, tick {tick}");
            assert_eq!(credit.event(Row(row), Tick(tick)), Tick(event), "row {row}, tick {tick}");
        }
    }

    #[test]
    fn no_credit_is_applied_twice() {
        let mut credits = Credits::default();
        credits.add(Credit::new(Row(10), Tick(1000), 30));
        let mut once = header(0);
        credits.age(Row(5), &mut once);
        assert_eq!((once.frame, once.absolute), (1, header(0).absolute.minus(30)));
        let mut twice = once;
        credits.age(Row(5), &mut twice);
        assert_eq!(twice, once);
        credits.add(Credit::new(Row(10), Tick(1000), 5));
        let mut fresh = header(0);
        credits.age(Row(5), &mut fresh);
        credits.age(Row(5), &mut twice);
        assert_eq!(fresh, twice, "whether it was written in between or not");
        assert_eq!(credits.seen(0, Row(5), Tick(160)), Tick(125));
        assert_eq!(credits.seen(1, Row(5), Tick(160)), Tick(155));
        assert_eq!(credits.seen(2, Row(5), Tick(160)), Tick(160));
    }

    #[test]
    fn credits_go_when_no_row_needs_them() {
        let mut credits = Credits::default();
        credits.add(Credit::new(Row(10), Tick(1000), 30));
        credits.add(Credit::new(Row(20), Tick(2000), 30));
        assert!(!credits.forget(Some(Row(9))));
        assert!(credits.forget(Some(Row(10))));
        assert_eq!((credits.kept.len(), credits.frame()), (1, 2));
        assert!(credits.forget(None));
        assert_eq!((credits.kept.len(), credits.frame()), (0, 2));
    }

    #[test]
    fn the_record_is_known_to_the_state_and_every_byte_is_bound() {
        let mut credits = Credits::default();
        assert_eq!(credits.encode(&[7; 16], &tagger()), None);
        credits.add(Credit::new(Row(10), Tick(1000), 30));
        credits.add(Credit::new(Row(1 << 40), Tick(2000), u32::MAX));
        let bytes = credits.encode(&[7; 16], &tagger()).unwrap();
        assert_eq!(bytes.len(), 2 + 2 * CREDIT_BYTES + TAG_BYTES);
        let tag = Credits::tag(Some(&bytes));
        let read =
            |bytes: Option<&[u8]>, tag: &[u8; 16], made| Credits::decode(bytes, (tag, made), &[7; 16], &tagger()).ok();
        assert_eq!(read(Some(&bytes), &tag, 2), Some(credits));
        assert_eq!(read(Some(&bytes), &tag, 1), None, "a frame that it is ahead of");
        assert_eq!(read(None, &tag, 2), None, "removed");
        assert_eq!(read(Some(&bytes), &[0; 16], 2), None, "added");
        assert_eq!(read(None, &[0; 16], 2), Some(Credits { made: 2, kept: Vec::new() }));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(read(Some(&changed), &tag, 2), None, "byte {at}");
            let own = Credits::tag(Some(&changed));
            assert_eq!(read(Some(&changed), &own, 2), None, "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn merging_keeps_the_record_small_and_only_shortens(
            steps in proptest::collection::vec((1_u64..5, 1_u32..50, 1_u32..100), 1..200),
            row in 1_u64..500, frame in 0_usize..200, tick in 1000_u32..8000,
        ) {
            let (mut credits, mut every) = (Credits::default(), Vec::new());
            let (mut before_row, mut before_tick) = (1, 1000);
            for (number, &(rows, ticks, seconds)) in (0_u32..).zip(&steps) {
                before_row += rows;
                before_tick += ticks;
                let credit = Credit { number, before_row: Row(before_row), before_tick: Tick(before_tick), seconds };
                credits.add(credit);
                every.push(credit);
            }
            prop_assert!(credits.kept.len() <= KEPT_MAX);
            prop_assert!(credits.kept.is_sorted_by(|a, b| a.number < b.number && a.before_row <= b.before_row));
            let (row, frame) = (Row(row), frame.min(steps.len()));
            let exact = every.iter().skip(frame).fold((Tick(tick), Tick(tick)), |(date, event), credit| {
                (credit.date(row, date), credit.event(row, event))
            });
            let mut aged = Header { absolute: Tick(tick), last_seen: Tick(tick), ..header(u32::try_from(frame).unwrap()) };
            credits.age(row, &mut aged);
            prop_assert!(aged.absolute <= exact.0 && aged.last_seen <= exact.1, "{aged:?} {exact:?}");
            if steps.len() <= KEPT_MAX {
                prop_assert_eq!((aged.absolute, aged.last_seen), exact);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Credits::decode(Some(&bytes), (&Credits::tag(Some(&bytes)), 9), &[0; 16], &tagger());
            let mut tagged = bytes;
            let tag = tagger().tag16(LABEL, &[&[0; 16], &tagged]);
            tagged.extend_from_slice(&tag);
            let _ = Credits::decode(Some(&tagged), (&tag, 9), &[0; 16], &tagger());
        }
    }
}
