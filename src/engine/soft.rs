//! Soft rotation, the rules: when a token is replaced as time goes by, and which of two tokens opens the session.
//!
//! It knows headers and ticks, and nothing of locks, tokens and disks. A header is in one of three states; T is its token
//! in force, at `step`:
//!
//! | State | `fingerprint` | `other` | `overlap` | T opens | the other token |
//! |---|---|---|---|---|---|
//! | single | T | zero | zero | yes | there is none |
//! | offered | T | its successor | zero | yes | confirms |
//! | confirmed | T | the one before T | when that one is dead | yes | opens until then, ends the session from then on |
//!
//! ```text
//!            a load by T that counts as use, T being old enough
//!   single ────────────────────────────────────────────────────▶ offered ◀───┐
//!     ▲                                                             │        │ the same; the one
//!     │ hard rotation, from any state: one new                      │ a load │ before T is forgotten
//!     │ token, nothing else opens the session                       ▼ by T'  │
//!     └─────────────────────────────────────────────────────── confirmed ────┘
//! ```
//!
//! Invariants: an offer is handed out only once it is on disk, and changes nothing for T; what was confirmed never opens
//! by the token before for longer than the overlap; a confirmation that a crash forgets leaves the offer as it was, so
//! one token at least always opens the session; the token before T begins nothing and is told nothing; generation,
//! row and deadlines never change.

use crate::options::Rotation;
use crate::seal::Fingerprint;
use crate::storage::record::Header;
use crate::time::Tick;

/// What the other token of a session is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Other {
    /// The successor: using it confirms it.
    Offered,
    /// The one before, whose requests may still be under way.
    Leaving,
    /// The one before, which only somebody with a copy shows.
    Replayed,
}

impl Other {
    /// By when the overlap is over; zero is never, because it has not begun.
    pub(super) fn at(overlap: Tick, now: Tick) -> Self {
        match overlap {
            Tick(0) => Self::Offered,
            overlap if now < overlap => Self::Leaving,
            _ => Self::Replayed,
        }
    }

    /// The step of the other token, from that of the token in force.
    pub(super) const fn step(self, present: u32) -> u32 {
        match self {
            Self::Offered => present.saturating_add(1),
            Self::Leaving | Self::Replayed => present.saturating_sub(1),
        }
    }
}

/// No moment.
pub(super) const NEVER: Tick = Tick(u32::MAX);

impl Header {
    /// Whether there are two tokens.
    pub(super) fn has_other(&self) -> bool {
        self.other != Fingerprint::NONE
    }

    /// Whether a successor is on offer.
    pub(super) fn is_offering(&self) -> bool {
        self.has_other() && self.overlap == Tick(0)
    }

    /// The step that one of the session's tokens was made at; `None` if it is none of them.
    pub(super) fn step_of(&self, fingerprint: Fingerprint) -> Option<u32> {
        if fingerprint == self.fingerprint {
            return Some(self.step);
        }
        // Whether the overlap is over makes no difference to this.
        (self.has_other() && fingerprint == self.other).then(|| Other::at(self.overlap, Tick(0)).step(self.step))
    }

    /// From when on a successor may be offered.
    pub(super) fn soft_due(&self, rotation: Rotation) -> Tick {
        let Some(every) = rotation.every else { return NEVER };
        if self.is_offering() {
            return NEVER;
        }
        // A header with one token is as old as that token. With two, the overlap says when the token came into force.
        let since = if self.has_other() { self.overlap.minus(rotation.overlap) } else { self.last_seen };
        since.plus(every).max(self.overlap)
    }

    /// Offers a successor.
    pub(super) const fn offer(&mut self, successor: Fingerprint, key_id: u8) {
        self.other = successor;
        self.other_key = key_id;
        self.overlap = Tick(0);
    }

    /// Puts the successor in force, which was used just now.
    pub(super) fn confirm(&mut self, now: Tick, rotation: Rotation) {
        debug_assert!(self.is_offering(), "step {} has no successor", self.step);
        std::mem::swap(&mut self.fingerprint, &mut self.other);
        std::mem::swap(&mut self.key_id, &mut self.other_key);
        self.overlap = now.plus(rotation.overlap);
        self.step += 1;
    }

    /// Leaves one token, a new one.
    pub(super) const fn replace(&mut self, token: Fingerprint, key_id: u8) {
        self.fingerprint = token;
        self.key_id = key_id;
        self.other = Fingerprint::NONE;
        self.other_key = 0;
        self.overlap = Tick(0);
        self.step = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Fingerprint = Fingerprint([1; 16]);
    const B: Fingerprint = Fingerprint([2; 16]);
    const C: Fingerprint = Fingerprint([3; 16]);
    const ROTATION: Rotation = Rotation { every: Some(300), overlap: 10 };

    fn single() -> Header {
        Header { fingerprint: A, step: 4, last_seen: Tick(1000), ..Header::sample() }
    }

    #[test]
    fn the_other_token_by_overlap_and_time() {
        for (overlap, now, expected, step) in [
            (0, 0, Other::Offered, 5),
            (0, 5000, Other::Offered, 5),
            (1010, 1000, Other::Leaving, 3),
            (1010, 1009, Other::Leaving, 3),
            (1010, 1010, Other::Replayed, 3),
            (1010, 9999, Other::Replayed, 3),
        ] {
            let found = Other::at(Tick(overlap), Tick(now));
            assert_eq!((found, found.step(4)), (expected, step), "overlap {overlap}, now {now}");
        }
    }

    #[test]
    fn a_session_goes_from_token_to_token() {
        let mut header = single();
        assert_eq!((header.has_other(), header.is_offering()), (false, false));
        assert_eq!((header.step_of(A), header.step_of(B), header.step_of(Fingerprint::NONE)), (Some(4), None, None));
        assert_eq!(header.soft_due(ROTATION), Tick(1300));

        header.offer(B, 7);
        assert_eq!(header, Header { other: B, other_key: 7, ..single() }, "nothing else changes");
        assert_eq!((header.step_of(A), header.step_of(B)), (Some(4), Some(5)));
        assert_eq!((header.is_offering(), header.soft_due(ROTATION)), (true, NEVER), "one offer at a time");

        header.confirm(Tick(1320), ROTATION);
        let (key_id, other_key) = (7, single().key_id);
        let confirmed =
            Header { fingerprint: B, other: A, key_id, other_key, overlap: Tick(1330), step: 5, ..single() };
        assert_eq!(header, confirmed);
        assert_eq!((header.step_of(A), header.step_of(B)), (Some(4), Some(5)));
        assert_eq!((header.is_offering(), header.soft_due(ROTATION)), (false, Tick(1620)));

        header.offer(C, 8);
        assert_eq!((header.step_of(A), header.step_of(B), header.step_of(C)), (None, Some(5), Some(6)));
    }

    #[test]
    fn a_hard_rotation_leaves_one_token_in_any_state() {
        let (mut offered, mut confirmed) = (single(), single());
        offered.offer(B, 7);
        confirmed.offer(B, 7);
        confirmed.confirm(Tick(1320), ROTATION);
        for mut header in [single(), offered, confirmed] {
            header.replace(C, 9);
            assert_eq!(header, Header { fingerprint: C, key_id: 9, step: 0, ..single() });
            assert_eq!((header.step_of(A), header.step_of(B)), (None, None));
        }
    }

    #[test]
    fn the_next_successor_waits_for_the_end_of_the_overlap() {
        let mut header = single();
        header.offer(B, 7);
        let hasty = Rotation { every: Some(3), overlap: 60 };
        header.confirm(Tick(2000), hasty);
        assert_eq!(header.soft_due(hasty), Tick(2060));
        assert_eq!(header.soft_due(Rotation { every: None, overlap: 60 }), NEVER);
    }
}
