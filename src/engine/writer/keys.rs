//! Server keys: rotating, listing and dropping them while the store is open.
//!
//! It knows the index, the ring and the storage's writer. Invariants: keys change in the writer's turn, between batches, so
//! whatever a batch writes has its key; sessions of a key that is dropped are dead in memory first, then on disk with all
//! that is left of it there, then the key leaves its file, then somebody is told. Nothing comes to live under that key
//! meanwhile: it is retired before its sessions are looked for, and filing asks for that under the shard's lock. A sign-in
//! or rotation that was decided before is refused by the writer.

use std::sync::Arc;

use super::Machine;
use crate::engine::Engine;
use crate::engine::end::Fate;
use crate::engine::events::{By, Happening, Note, Why};
use crate::engine::health::closed;
use crate::engine::index::Index;
use crate::engine::queue::{Answer, Failure, KeyChange};
use crate::engine::receipt::{Receipt, promise};
use crate::error::{Error, ErrorKind, Result};
use crate::time::Timestamp;
use crate::token::KEY_IDS;

/// A server key, as it stands.
#[derive(Debug)]
pub(crate) struct KeyStanding {
    pub(crate) id: u8,
    pub(crate) active: bool,
    pub(crate) made: Timestamp,
    pub(crate) sessions: usize,
}

impl Engine {
    /// Makes a new server key, which is the active one once the receipt is ready.
    pub(crate) fn rotate_key(self: &Arc<Self>) -> Result<Receipt<u8>> {
        self.check_durable()?;
        let (promise, receipt) = promise();
        self.queue.push_key_change(KeyChange::Rotate(promise), self.clock.now_ms());
        Ok(receipt.untold(self))
    }

    /// The server keys, in the order in which they were made. Visits every slot there is.
    pub(crate) fn key_standings(&self) -> Result<Vec<KeyStanding>> {
        self.check_open()?;
        let ring = self.keys.ring();
        let counts = self.index.count_keys(self.clock.now());
        let standing = |id, made| {
            let sessions = counts.get(usize::from(id)).copied().unwrap_or_default();
            KeyStanding { id, active: id == ring.active(), made, sessions }
        };
        Ok(ring.servers().iter().map(|server| standing(server.id, server.made)).collect())
    }

    /// Ends every session of a server key, and then the key. The receipt's number is how many.
    pub(crate) fn drop_key(self: &Arc<Self>, id: u8) -> Result<Receipt<usize>> {
        self.check_open()?;
        if id >= KEY_IDS {
            return Err(Error::invalid(format!("there is no server key {id}: ids are below {KEY_IDS}")));
        }
        if id == self.keys.active() {
            let message = format!("server key {id} is the active one; rotate first, then drop it");
            return Err(Error::new(ErrorKind::Refused, message));
        }
        let mut count = 0;
        // Of one that is not in the ring there are no sessions; the writer knows whether there is such a key at all.
        if self.keys.retire(id) {
            count = Index::shard_numbers().map(|shard| self.end_of_key(shard, id)).sum();
            self.counters.revoked.add(count);
        }
        let (promise, receipt) = promise();
        self.queue.push_key_change(KeyChange::Drop { id, count, promise }, self.clock.now_ms());
        Ok(receipt.untold(self))
    }

    /// Ends the sessions of a shard that go with a key. Returns how many were live.
    fn end_of_key(&self, shard: u32, id: u8) -> usize {
        let (now, mut count) = (self.clock.now(), 0);
        loop {
            let found = self.index.leave_key(shard, id);
            if found.is_empty() {
                return count;
            }
            for (fingerprint, row) in found {
                let mut live = false;
                self.end_if(fingerprint, row, |slot| {
                    // One that was rotated meanwhile has left the key, or is found again by the token that it has now.
                    let goes_with_it = slot.key_id() == id || slot.fingerprint == fingerprint.0;
                    live = goes_with_it && now < slot.deadline(self.index.profiles());
                    goes_with_it.then_some((Why::Revoked(By::Key), Fate::Delete))
                });
                count += usize::from(live);
            }
        }
    }

    fn note_keys(&self, what: Happening) {
        self.note(|| Note { what, ..Note::missed(0, self.clock.wall()) });
    }
}

impl Machine {
    /// Changes the keys, now that everything that was queued before is written, or was not.
    pub(super) fn change_keys(&mut self, engine: &Engine, changes: Vec<KeyChange>, written: &Result<(), Failure>) {
        for change in changes {
            let ready = written.as_ref().map_err(|failure| failure.error()).copied();
            let answer = match change {
                KeyChange::Rotate(promise) => {
                    Answer::Rotated(promise, ready.and_then(|()| self.note_outcome(engine, Self::rotate_key)))
                }
                KeyChange::Drop { id, count, promise } => {
                    let drop_key = |machine: &mut Self, engine: &Engine| machine.drop_key(engine, id);
                    let dropped = ready.and_then(|()| self.note_outcome(engine, drop_key));
                    Answer::Dropped(promise, dropped.map(|()| count))
                }
            };
            self.note_room(engine);
            engine.answers.push(answer);
        }
    }

    /// A commit that failed is the disk's failure; a key file that cannot be written is nothing of that.
    fn note_outcome<T>(&mut self, engine: &Engine, change: impl FnOnce(&mut Self, &Engine) -> Result<T>) -> Result<T> {
        let commits = engine.counters.commits.get();
        let outcome = change(self, engine);
        match &outcome {
            Err(error) if self.storage.as_ref().is_some_and(crate::storage::Writer::has_failed) => {
                drop(engine.health.degrade(error));
            }
            _ if engine.counters.commits.get() > commits => self.note_commit(engine),
            // The record of credits may have been to go along.
            Err(_) => engine.ledger.give_back(),
            Ok(_) => {}
        }
        outcome
    }

    fn rotate_key(&mut self, engine: &Engine) -> Result<u8> {
        let storage = self.storage.as_mut().ok_or_else(closed)?;
        let ring = storage.add_key(engine.clock.wall(), || engine.empty_batch(), engine.entropy.as_ref())?;
        engine.counters.commits.add(1);
        let id = ring.active();
        engine.keys.activate(ring);
        engine.note_keys(Happening::KeyRotated(id));
        Ok(id)
    }

    fn drop_key(&mut self, engine: &Engine, id: u8) -> Result<()> {
        let storage = self.storage.as_mut().ok_or_else(closed)?;
        storage.drop_key(id, || engine.empty_batch())?;
        engine.counters.commits.add(1);
        engine.note_keys(Happening::KeyDropped(id));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::queue::Pending;
    use crate::engine::{Cell, EndReason, Handle, Rotate, SignInRequest};
    use crate::options::Options;
    use crate::seal::Fingerprint;
    use crate::storage::disk::{Disk, SimDisk};
    use crate::time::ManualClock;
    use crate::token::{OsEntropy, Token};

    fn open() -> (SimDisk, Arc<Engine>) {
        let disk = SimDisk::simulated(1);
        let engine = open_again(&disk);
        (disk, engine)
    }

    fn open_again(disk: &SimDisk) -> Arc<Engine> {
        let settings = Options::new().clock(ManualClock::new()).manual_workers().check().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        Engine::open(&disk, settings, Arc::new(OsEntropy)).unwrap().0
    }

    fn sign_in(engine: &Arc<Engine>, handle: &Handle) -> Receipt<Token> {
        let request = SignInRequest::sample("ada");
        engine.sign_in(handle.binding(), &request).unwrap()
    }

    fn take(engine: &Engine) -> Pending {
        engine.queue.take(engine.clock.now_ms(), true).unwrap()
    }

    fn rotate(engine: &Arc<Engine>) {
        engine.rotate_key().unwrap().blocking_wait().unwrap();
    }

    fn drop_first(engine: &Arc<Engine>) {
        assert_eq!(engine.drop_key(0).unwrap().blocking_wait().unwrap(), 0);
    }

    fn is_clean(engine: Arc<Engine>, disk: &SimDisk) {
        while engine.queue.take(0, true).is_ok_and(|pending| !pending.is_empty()) {}
        disk.restore_power();
        drop(engine);
        let engine = open_again(disk);
        assert_eq!((engine.live(), engine.counters.refused_rows.get()), (0, 0));
        assert_eq!(engine.reader.first_row().unwrap(), None);
    }

    #[test]
    fn a_sign_in_that_was_decided_before_its_key_was_dropped_is_refused() {
        // Before the drop is written, and after.
        for waits in [false, true] {
            let (disk, engine) = open();
            let receipt = sign_in(&engine, &Handle::fresh(&engine));
            let pending = take(&engine);
            rotate(&engine);
            let dropping = engine.drop_key(0).unwrap();
            if waits {
                assert_eq!(dropping.blocking_wait().unwrap(), 0);
            }
            engine.writer.lock().write(&engine, pending);
            assert_eq!(receipt.blocking_wait().unwrap_err().kind(), ErrorKind::Gone, "waited for: {waits}");
            engine.write_turn(true);
            assert!(!engine.keys.ring().has(0));
            is_clean(engine, &disk);
        }
    }

    #[test]
    fn a_sign_in_that_was_written_while_its_key_was_dropped_comes_to_nothing() {
        let (disk, engine) = open();
        let receipt = sign_in(&engine, &Handle::fresh(&engine));
        let mut pending = take(&engine);
        let group = Arc::clone(&pending.groups[0].group);
        let mut built = super::super::Built::default();
        pending.waiters.clear();
        rotate(&engine);
        {
            let mut writer = engine.writer.lock();
            engine.build(pending, &mut super::super::Sweep::default(), &mut built).unwrap();
            writer.storage.as_mut().unwrap().apply(&built.batch).unwrap();
        }
        // Looks for sessions of the key before this one is there.
        let dropping = engine.drop_key(0).unwrap();
        assert_eq!(engine.publish(&group).unwrap_err().kind(), ErrorKind::Gone);
        assert_eq!(dropping.blocking_wait().unwrap(), 0);
        drop((built, receipt));
        assert!(engine.reader.first_row().unwrap().is_none());
        is_clean(engine, &disk);
    }

    #[test]
    fn a_rotation_onto_a_key_that_is_dropped_meanwhile_ends_the_session() {
        let (disk, engine) = open();
        rotate(&engine);
        let handle = Handle::fresh(&engine);
        let before = sign_in(&engine, &handle).blocking_wait().unwrap();
        rotate(&engine);
        // The session is under key 1 and moves to key 2, which is then dropped.
        let receipt = engine.rotate(handle.binding(), Rotate::Plain).unwrap();
        let group = Arc::clone(&take(&engine).groups[0].group);
        rotate(&engine);
        let dropping = engine.drop_key(2).unwrap();
        assert_eq!(engine.publish(&group).unwrap_err().kind(), ErrorKind::Gone);
        assert!(engine.load(&before, false).unwrap().is_none() && engine.load(&group.token, false).unwrap().is_none());
        let (cell, _) = handle.session().unwrap();
        assert_eq!(cell.lock().life, crate::engine::cell::Life::Dead(EndReason::Revoked));
        assert_eq!(dropping.blocking_wait().unwrap(), 0);
        drop(receipt);
        is_clean(engine, &disk);
    }

    /// A session's token, and what may follow it.
    fn two_tokens(cell: &Cell) -> (Fingerprint, Fingerprint) {
        let token = cell.lock().header.fingerprint;
        let mut successor = token;
        successor.0[0] ^= 1;
        (token, successor)
    }

    #[test]
    fn no_successor_is_offered_under_a_key_that_is_dropped() {
        let (_disk, engine) = open();
        rotate(&engine);
        let handle = Handle::fresh(&engine);
        sign_in(&engine, &handle).blocking_wait().unwrap();
        let (cell, _) = handle.session().unwrap();
        let (token, successor) = two_tokens(&cell);
        assert!(engine.index.offer((token, &cell), (successor, 0), || true));
        let dropping = engine.drop_key(0).unwrap();
        assert_eq!(engine.live(), 0, "its client may have the successor");
        let handle = Handle::fresh(&engine);
        sign_in(&engine, &handle).blocking_wait().unwrap();
        let (cell, _) = handle.session().unwrap();
        let (token, successor) = two_tokens(&cell);
        assert!(!engine.index.offer((token, &cell), (successor, 0), || true));
        assert_eq!(dropping.blocking_wait().unwrap(), 1);
    }

    #[test]
    fn dropping_nothing_retires_no_key_that_comes_later() {
        let (_disk, engine) = open();
        let dropping = engine.drop_key(1).unwrap();
        rotate(&engine);
        assert_eq!(engine.keys.active(), 1);
        // There was none when it was asked for, whatever there is by now.
        assert_eq!(dropping.blocking_wait().unwrap_err().kind(), ErrorKind::Invalid);
        sign_in(&engine, &Handle::fresh(&engine)).blocking_wait().unwrap();
        drop_first(&engine);
        assert_eq!(engine.live(), 1);
        // Two rotations and a drop in one turn: sessions may have begun under a key in between.
        let (dropping, second) = (engine.drop_key(2).unwrap(), engine.rotate_key().unwrap());
        let queued = engine.queue.take(0, true).unwrap();
        let mut changes = queued.key_changes;
        changes.reverse();
        let third = engine.rotate_key().unwrap();
        changes.insert(1, engine.queue.take(0, true).unwrap().key_changes.remove(0));
        engine.writer.lock().change_keys(&engine, changes, &Ok(()));
        engine.deliver();
        assert_eq!((second.blocking_wait().unwrap(), third.blocking_wait().unwrap()), (2, 3));
        assert_eq!(dropping.blocking_wait().unwrap_err().kind(), ErrorKind::Invalid);
        assert!(engine.keys.ring().has(2) && engine.keys.active() == 3);
    }
}
