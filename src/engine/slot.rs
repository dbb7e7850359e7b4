//! Slots: what must be in memory to decide about a token, 48 bytes a session.
//!
//! It knows integers and ring 0. Invariants: a slot is as large as it says; what a load needs is in it; last seen
//! and the list links are atomic, because they change while others read the slot: last seen under the shard's
//! read lock, links under the lock of the list they belong to.

use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use crate::options::Settings;
use crate::seal::Fingerprint;
use crate::storage::credit::Credit;
use crate::storage::record::{ClassByte, Row};
use crate::time::Tick;
use crate::token::KEY_IDS;

/// Number of a slot in the whole index: the shard in the low 8 bits, the place in the shard above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SlotId(pub(crate) u32);

impl SlotId {
    /// No slot.
    pub(crate) const NONE: Self = Self(u32::MAX);
}

/// Which list of sessions a slot is linked into: a principal's, or the anonymous one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListId(pub(crate) u32);

impl ListId {
    pub(crate) const ANONYMOUS: Self = Self(u32::MAX);
}

/// Class and idle timeout of a session, as a number into [`Profiles`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProfileId(pub(crate) u8);

/// One session, or a free place.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) fingerprint: [u8; 16],
    /// Row in the low 48 bits, zero when the place is free; then the profile, whether the session is clipped, whether
    /// the reaper was called to the place and has not been here since, and the server key of the token.
    word: u64,
    pub(crate) absolute: u32,
    last_seen: AtomicU32,
    pub(crate) list: u32,
    pub(crate) previous: AtomicU32,
    pub(crate) next: AtomicU32,
    /// The tick at which the wheel's entry for this place comes up; zero when there is none. It outlives the
    /// session: whoever uses the place next inherits the entry.
    pub(crate) armed: u32,
}

const _: () = assert!(size_of::<Slot>() == 48, "the promise of memory per session counts on it");
const ROW_BITS: u32 = 48;
const CLIPPED: u64 = 1 << 56;
const CALLED: u64 = 1 << 57;
const KEY_SHIFT: u32 = 58;
const _: () = assert!(KEY_IDS as u64 == 1 << (u64::BITS - KEY_SHIFT), "what is left of the word is a key's id");

impl Slot {
    pub(crate) fn fill(&mut self, session: &NewSlot) {
        debug_assert!(session.row.0 > 0 && session.row.0 < Row::LIMIT, "row {}", session.row.0);
        self.fingerprint = session.fingerprint.0;
        let clipped = if session.clipped { CLIPPED } else { 0 };
        let profile = u64::from(session.profile.0) << ROW_BITS;
        self.word = self.word & CALLED | session.row.0 | profile | clipped;
        self.set_key(session.key_id);
        self.absolute = session.absolute.0;
        *self.last_seen.get_mut() = session.last_seen.0;
        self.list = session.list.0;
    }

    pub(crate) const fn clear(&mut self) {
        self.word &= CALLED;
    }

    /// Whether the wheel's entry for this place comes up in time for `due`.
    pub(crate) const fn is_armed_for(&self, due: Tick) -> bool {
        self.armed != 0 && self.armed <= due.0
    }

    /// Notes that the reaper was called to this place. `false` if it was before and is still to come, so that however
    /// often a place is used meanwhile, it waits for the reaper once.
    pub(crate) const fn call(&mut self) -> bool {
        let first = self.word & CALLED == 0;
        self.word |= CALLED;
        first
    }

    /// The reaper has come.
    pub(crate) const fn answer(&mut self) {
        self.word &= !CALLED;
    }

    pub(crate) const fn row(&self) -> Row {
        Row(self.word & (Row::LIMIT - 1))
    }

    #[expect(clippy::cast_possible_truncation, reason = "the shift leaves 16 bits, of which 8 are used")]
    pub(crate) const fn profile(&self) -> ProfileId {
        ProfileId((self.word >> ROW_BITS) as u8)
    }

    /// The server key of the token in force.
    pub(crate) const fn key_id(&self) -> u8 {
        (self.word >> KEY_SHIFT) as u8
    }

    pub(crate) fn set_key(&mut self, key_id: u8) {
        debug_assert!(key_id < KEY_IDS, "key {key_id}");
        self.word = self.word & ((1 << KEY_SHIFT) - 1) | u64::from(key_id) << KEY_SHIFT;
    }

    /// Whether the row on disk says that the session lives longer than the slot does.
    pub(crate) const fn is_clipped(&self) -> bool {
        self.word & CLIPPED != 0
    }

    pub(crate) const fn list(&self) -> ListId {
        ListId(self.list)
    }

    pub(crate) fn last_seen(&self) -> Tick {
        Tick(self.last_seen.load(Ordering::Relaxed))
    }

    /// Moves last seen forward; never back, whatever order threads come in. `true` if it moved, perhaps.
    pub(crate) fn touch(&self, now: Tick) -> bool {
        let moves = self.last_seen.load(Ordering::Relaxed) < now.0;
        if moves {
            self.last_seen.fetch_max(now.0, Ordering::Relaxed);
        }
        moves
    }

    /// Takes a credit into account. `true` if that made a difference.
    pub(crate) fn age(&mut self, credit: &Credit) -> bool {
        let (row, absolute, last_seen) = (self.row(), self.absolute, self.last_seen());
        self.absolute = credit.date(row, Tick(absolute)).0;
        *self.last_seen.get_mut() = credit.event(row, last_seen).0;
        self.absolute < absolute || self.last_seen() < last_seen
    }

    /// The moment from which the session is dead unless it is used before.
    pub(crate) fn deadline(&self, profiles: &Profiles) -> Tick {
        let idle = profiles.idle(self.profile());
        Tick(self.last_seen().plus(idle).0.min(self.absolute))
    }

    /// Whether that moment is the end of its life, even if it had been used to the last.
    pub(crate) fn is_at_end_of_life(&self, profiles: &Profiles) -> bool {
        self.deadline(profiles).0 == self.absolute
    }
}

/// What a new slot holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewSlot {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) row: Row,
    pub(crate) profile: ProfileId,
    pub(crate) absolute: Tick,
    pub(crate) last_seen: Tick,
    pub(crate) list: ListId,
    /// The row on disk has later deadlines than these.
    pub(crate) clipped: bool,
    /// The server key of the token.
    pub(crate) key_id: u8,
    pub(crate) other: Option<OtherSlot>,
}

/// The other token of a session, as the index keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OtherSlot {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) overlap: Tick,
    pub(crate) key_id: u8,
}

/// The pairs of class and idle timeout in use. There is room for 255; further timeouts are rounded down to one
/// that is there, so a session may end early, never late.
#[derive(Debug)]
pub(crate) struct Profiles {
    idle: [AtomicU32; PROFILES],
    /// The shortest time that any session so far was given, in seconds.
    shortest: AtomicU32,
    known: Mutex<Vec<(u8, u32)>>,
}

const PROFILES: usize = 255;
/// One profile of one second for each class, so that there is always something to round down to.
const CLASSES: [ClassByte; 3] = [ClassByte::Anonymous, ClassByte::Pending, ClassByte::Authenticated];

impl Profiles {
    pub(crate) fn new() -> Self {
        let profiles = Self {
            idle: std::array::from_fn(|_| AtomicU32::new(0)),
            shortest: AtomicU32::new(u32::MAX),
            known: Mutex::new(Vec::with_capacity(PROFILES)),
        };
        for class in CLASSES {
            profiles.find(class, 1);
        }
        profiles
    }

    /// Makes sure of the options' own timeouts, so that those of single sessions cannot take their places.
    pub(crate) fn reserve(&self, settings: &Settings) {
        self.find(ClassByte::Anonymous, settings.anonymous.idle);
        for limits in [settings.signed_in, settings.remembered] {
            self.find(ClassByte::Pending, limits.idle);
            self.find(ClassByte::Authenticated, limits.idle);
        }
    }

    /// The profile for a class and an idle timeout in seconds.
    pub(crate) fn find(&self, class: ClassByte, idle: u32) -> ProfileId {
        let class = class_number(class);
        let mut known = self.known.lock();
        let place = known.iter().position(|&pair| pair == (class, idle));
        let place = place.or_else(|| {
            (known.len() < PROFILES).then(|| {
                known.push((class, idle));
                known.len() - 1
            })
        });
        let place = place.or_else(|| {
            let below = known.iter().enumerate().filter(|(_, pair)| pair.0 == class && pair.1 <= idle);
            below.max_by_key(|(_, pair)| pair.1).map(|(place, _)| place)
        });
        let place = place.unwrap_or_else(|| usize::from(class));
        let idle = known.get(place).map_or(1, |pair| pair.1);
        if let Some(cell) = self.idle.get(place) {
            cell.store(idle, Ordering::Release);
        }
        ProfileId(u8::try_from(place).unwrap_or(class))
    }

    /// Notes what a session is given when it is made: its idle timeout or its lifetime, whichever is shorter.
    pub(crate) fn note_span(&self, seconds: u32) {
        if seconds < self.shortest.load(Ordering::Relaxed) {
            self.shortest.fetch_min(seconds, Ordering::Relaxed);
        }
    }

    /// The shortest time that any session so far was given, in seconds.
    pub(crate) fn shortest(&self) -> u32 {
        self.shortest.load(Ordering::Relaxed)
    }

    /// Whether sessions of this profile are of this class.
    pub(crate) fn is_class(&self, profile: ProfileId, class: ClassByte) -> bool {
        self.known.lock().get(usize::from(profile.0)).is_some_and(|pair| pair.0 == class_number(class))
    }

    pub(crate) fn class(&self, profile: ProfileId) -> ClassByte {
        let class = self.known.lock().get(usize::from(profile.0)).map_or(0, |pair| usize::from(pair.0));
        CLASSES.get(class).copied().unwrap_or(ClassByte::Anonymous)
    }

    pub(crate) fn idle(&self, profile: ProfileId) -> u32 {
        self.idle.get(usize::from(profile.0)).map_or(1, |idle| idle.load(Ordering::Relaxed))
    }
}

const fn class_number(class: ClassByte) -> u8 {
    match class {
        ClassByte::Anonymous => 0,
        ClassByte::Pending => 1,
        ClassByte::Authenticated => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_keeps_row_and_profile_apart() {
        let mut slot = Slot::default();
        slot.fill(&NewSlot {
            fingerprint: Fingerprint([1; 16]),
            row: Row(Row::LIMIT - 1),
            profile: ProfileId(254),
            absolute: Tick(500),
            last_seen: Tick(100),
            list: ListId::ANONYMOUS,
            clipped: true,
            key_id: 63,
            other: None,
        });
        assert!(slot.is_clipped() && slot.call());
        for key_id in [63, 0, 42] {
            slot.set_key(key_id);
            assert_eq!((slot.key_id(), slot.is_clipped(), slot.call()), (key_id, true, false));
        }
        assert_eq!((slot.row(), slot.profile()), (Row(Row::LIMIT - 1), ProfileId(254)));
        slot.touch(Tick(90));
        assert_eq!(slot.last_seen(), Tick(100));
        slot.clear();
        assert_eq!(slot.row(), Row(0));
    }

    #[test]
    fn when_profiles_run_out_timeouts_are_rounded_down() {
        let profiles = Profiles::new();
        for idle in 0..300 {
            let profile = profiles.find(ClassByte::Authenticated, 10 + idle * 10);
            assert!(profiles.idle(profile) <= 10 + idle * 10);
        }
        let last = profiles.find(ClassByte::Authenticated, 1_000_000);
        assert_eq!(profiles.idle(last), 10 + 251 * 10);
        let other = profiles.find(ClassByte::Anonymous, 1_000_000);
        assert_eq!(profiles.idle(other), 1);
    }
}
