//! Publishing: how a group takes effect once its commit is durable, or does not.
//!
//! It knows the engine's parts. Invariants: it runs in the writer's turn; the old session is dead before the new one is
//! live; what was killed meanwhile makes nothing live, and the row that was written for it is queued for deletion before
//! the list is let go, so that whoever killed it is told only when it is gone from disk too.

use std::sync::Arc;

use super::Engine;
use super::cell::Cell;
use super::end::Fate;
use super::ended::EndReason;
use super::events::{By, Happening, Why};
use super::group::{Group, Kind, Rotate};
use super::slot::{ListId, NewSlot, OtherSlot, SlotId};
use crate::error::{Error, Result};
use crate::seal::Wrap;
use crate::storage::record::{Header, PrincipalRef, Row};
use crate::time::Tick;
use crate::token::Token;

impl Engine {
    /// After the commit: the old session is dead, then the new one is live. Returns what to tell whoever waits.
    pub(super) fn publish(self: &Arc<Self>, group: &Arc<Group>) -> Result<Token> {
        let published = match &group.kind {
            Kind::SignIn { old, new, evicted, .. } => {
                let mut replaced = None;
                if let Some(old) = old {
                    let header = old.lock().header;
                    if self.end(header.fingerprint, old.row, Why::Replaced, Fate::Deleted) {
                        replaced = Some(old.row);
                    } else {
                        // Whoever ended it kills this group before letting go of the list.
                        self.principals.pass_through(header.principal);
                    }
                }
                for &row in evicted {
                    // Asked for by row, because a rotation may have given it another place since the decision.
                    let slot = self.listed_place(group.principal, row);
                    if slot.and_then(|slot| self.end_at(slot, row, Why::Limit, Fate::Deleted)).is_some() {
                        self.counters.evicted.add(1);
                    }
                }
                self.publish_sign_in(group, new, replaced)
            }
            Kind::Rotation { cell, header, wrap, how } => self.publish_rotation(group, cell, (header, wrap, *how)),
        };
        let answer = match published {
            Some((cell, generation)) => {
                group.binding.move_to(cell, generation, group.token.clone());
                Ok(group.token.clone())
            }
            None => Err(Error::gone()),
        };
        drop(group.claim.lock().take());
        answer
    }

    /// The place that a principal's session has now. Only the writer, whose turn this is, changes it.
    fn listed_place(&self, principal: PrincipalRef, row: Row) -> Option<SlotId> {
        let locked = self.principals.lock(principal);
        locked.rows(&self.index).into_iter().find(|&(other, _)| other == row).map(|(_, slot)| slot)
    }

    fn publish_sign_in(&self, group: &Arc<Group>, new: &Arc<Cell>, replaced: Option<Row>) -> Option<(Arc<Cell>, u32)> {
        let mut locked = self.principals.lock(group.principal);
        locked.remove_group(group);
        let list = locked.list_id();
        let (header, name) = {
            let content = new.lock();
            (content.header, content.principal.clone())
        };
        let filed = (!group.is_killed()).then(|| self.file(new.row, &header, list, Some(Arc::clone(new)), false));
        let Some(slot) = filed.flatten() else {
            // Its row was written all the same, and goes before whoever killed the group is told that it is gone.
            new.lock().kill(EndReason::Revoked);
            self.queue.push_dead(new.row, self.clock.now_ms());
            self.queue.push_emptied(group.principal, self.clock.now_ms());
            return None;
        };
        let what = Happening::SignedIn { method: header.method, remembered: header.remembered, replaced };
        self.note_session(new.row, &header, name.as_ref(), what);
        locked.into_list().link(&self.index, slot);
        self.arm(slot);
        Some((Arc::clone(new), header.generation))
    }

    fn publish_rotation(
        &self,
        group: &Arc<Group>,
        cell: &Arc<Cell>,
        (header, wrap, how): (&Header, &Wrap, Rotate),
    ) -> Option<(Arc<Cell>, u32)> {
        let before = cell.lock().header.fingerprint;
        let (slot, list) = self.index.find(before, cell.row, |id, slot| (id, slot.list()))?;
        let mut locked = self.principals.lock_list(list);
        if group.is_killed() {
            return None;
        }
        let mut last_seen = Tick(0);
        let removed = self.index.remove(slot, cell.row, |slot| {
            last_seen = slot.last_seen();
            slot.list() == list
        })?;
        self.forget_filed();
        // A credit may have been made since the decision, and the session been used by the old token.
        let mut header = *header;
        self.ledger.age(cell.row, &mut header);
        cell.rotate(&header, wrap);
        let filed = Header { last_seen: last_seen.max(header.last_seen), ..header };
        let Some(slot) = self.file(cell.row, &filed, list, Some(Arc::clone(cell)), false) else {
            // Its server key is dropped at this moment; or the random source repeats itself, and nobody may end up in
            // somebody else's session.
            let dropped = self.keys.retired().has(header.key_id);
            let why = if dropped { Why::Revoked(By::Key) } else { Why::Fault };
            locked.unlink(&self.index, &removed);
            cell.lock().kill(why.reason());
            self.wake_waiting(cell.row);
            let name = cell.lock().principal.clone();
            self.note_session(cell.row, &header, name.as_ref(), Happening::Ended(why));
            self.queue.push_dead(cell.row, self.clock.now_ms());
            return None;
        };
        if last_seen > header.last_seen {
            self.index.note_renewed(slot);
        }
        locked.replace(&self.index, &removed, slot);
        self.arm(slot);
        let name = cell.lock().principal.clone();
        let reauthenticated = if let Rotate::Reauthenticated { method } = how { Some(method) } else { None };
        self.note_session(cell.row, &header, name.as_ref(), Happening::Rotated { reauthenticated });
        drop(locked);
        self.wake_waiting(cell.row);
        Some((Arc::clone(cell), header.generation))
    }

    /// A group that was killed before it was written: what it held goes on, if it still lives.
    pub(super) fn abandon(&self, group: &Arc<Group>) {
        if group.new_row().is_some() {
            let mut locked = self.principals.lock(group.principal);
            locked.remove_group(group);
            drop(locked);
            self.queue.push_emptied(group.principal, self.clock.now_ms());
        }
        if let Some(cell) = group.held() {
            let mut content = cell.lock();
            if content.group.as_ref().is_some_and(|other| Arc::ptr_eq(other, group)) {
                content.group = None;
            }
        }
        drop(group.claim.lock().take());
    }

    /// A group whose commit failed: whether it is on disk is unknown, so nothing of it may go on.
    pub(super) fn fail_group(&self, group: &Arc<Group>) {
        if let Some(cell) = group.held() {
            let fingerprint = cell.lock().header.fingerprint;
            self.end(fingerprint, cell.row, Why::Fault, Fate::Deleted);
        }
        self.abandon(group);
    }

    /// The other token of a session, unless its server key was dropped: it opens nothing then and means nothing.
    fn other_slot(&self, header: &Header) -> Option<OtherSlot> {
        let Header { other: fingerprint, overlap, other_key: key_id, .. } = *header;
        (header.has_other() && self.keys.ring().has(key_id)).then_some(OtherSlot { fingerprint, overlap, key_id })
    }

    /// Puts a session into the index, unless its token's fingerprint is there already or its server key is dropped.
    /// `clipped` says that the row on disk has later deadlines than this header.
    pub(super) fn file(
        &self,
        row: Row,
        header: &Header,
        list: ListId,
        cell: Option<Arc<Cell>>,
        clipped: bool,
    ) -> Option<SlotId> {
        let filed = self.index.insert(&self.new_slot(row, header, list, clipped), cell);
        if filed.is_some() {
            self.count_filed(1);
        }
        filed
    }

    /// What is filed of a session.
    pub(super) fn new_slot(&self, row: Row, header: &Header, list: ListId, clipped: bool) -> NewSlot {
        let profiles = self.index.profiles();
        let profile = profiles.find(header.class, header.idle);
        let idle = profiles.idle(profile);
        profiles.note_span(idle.min(header.absolute.since(header.created)));
        if self.idle_in_use.note(idle) {
            // The reaper may sleep for longer than its last-seen time may wait.
            self.reaper_bell.ring();
        }
        NewSlot {
            fingerprint: header.fingerprint,
            row,
            profile,
            absolute: header.absolute,
            last_seen: header.last_seen,
            list,
            clipped: clipped || idle < header.idle,
            key_id: header.key_id,
            other: self.other_slot(header),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::engine::{Handle, SignInRequest};
    use crate::error::ErrorKind;
    use crate::options::Options;
    use crate::storage::disk::{Disk, SimDisk};
    use crate::time::ManualClock;
    use crate::token::{Entropy, OsEntropy};

    /// A random source that gets stuck.
    #[derive(Debug, Default)]
    struct Stuck(AtomicBool);

    impl Entropy for Stuck {
        fn fill(&self, buffer: &mut [u8]) -> Result<()> {
            OsEntropy.fill(buffer)?;
            if self.0.load(Ordering::Relaxed) {
                buffer.fill(7);
            }
            Ok(())
        }
    }

    fn open(disk: &SimDisk, entropy: &Arc<Stuck>) -> Arc<Engine> {
        let settings = Options::new().clock(ManualClock::new()).manual_workers().check().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        let entropy: Arc<dyn Entropy> = Arc::<Stuck>::clone(entropy);
        Engine::open(&disk, settings, entropy).unwrap().0
    }

    #[test]
    fn a_random_source_that_repeats_itself_puts_nobody_into_anothers_session() {
        let (disk, entropy) = (SimDisk::simulated(1), Arc::<Stuck>::default());
        let engine = open(&disk, &entropy);
        let sign_in = |handle: &Handle, who: &str| {
            engine.sign_in(handle.binding(), &SignInRequest::sample(who)).unwrap().blocking_wait()
        };
        let bob = Handle::fresh(&engine);
        let bobs = sign_in(&bob, "bob").unwrap();
        entropy.0.store(true, Ordering::Relaxed);
        let adas = sign_in(&Handle::fresh(&engine), "ada").unwrap();
        assert_eq!(sign_in(&Handle::fresh(&engine), "eve").unwrap_err().kind(), ErrorKind::Gone);
        assert_eq!(engine.begin(Arc::default(), 0).unwrap_err().kind(), ErrorKind::Storage);
        let rotated = engine.rotate(bob.binding(), Rotate::Plain).unwrap().blocking_wait();
        assert_eq!(rotated.unwrap_err().kind(), ErrorKind::Gone);
        assert!(engine.load(&bobs, false).unwrap().is_none(), "what cannot have the token that it was to get, ends");
        engine.write_turn(true);
        let check = |engine: &Arc<Engine>| {
            assert_eq!((engine.live(), engine.counters.refused_rows.get()), (1, 0));
            let (cell, _) = engine.load(&adas, false).unwrap().unwrap();
            assert_eq!(cell.lock().principal.as_deref(), Some("ada"));
        };
        check(&engine);
        disk.restore_power();
        drop((bob, engine));
        check(&open(&disk, &entropy));
    }
}
