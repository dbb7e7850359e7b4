//! The writer: turns everything that has changed into one batch, applies it, and lets it take effect.
//!
//! It knows the queue, cells, groups and the storage's writer. Invariants: a batch holds the state as it is when the
//! batch is built; a change made meanwhile is queued again by itself; sealing happens outside every lock; nobody is
//! told before the batch is durable and its groups have taken effect; after a failed batch nothing durable is ever
//! acknowledged again. A panic here poisons the engine, and whoever waits is told that the outcome is unknown.

mod full;
mod keys;

use std::collections::HashSet;
use std::sync::Arc;

pub(crate) use keys::KeyStanding;

use super::Engine;
use super::cell::{Cell, Content, Life};
use super::group::{Group, Kind};
use super::health::{closed, full};
use super::queue::{Answer, Failure, KeyChange, Pending, Queued, Swept};
use super::sweep::Sweep;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::record::{Body, Cutoff, Header, PrincipalRef, Row};
use crate::storage::{self, Batch, Put};

/// The writer's state; its owner, a thread or whoever drives the engine by hand, holds it alone.
#[derive(Debug)]
pub(crate) struct Machine {
    storage: Option<storage::Writer>,
    sweep: Sweep,
    /// Rows that were found dead at the start may be left in it.
    ran_out_before: bool,
    /// When the last batch was written, if the file has not been settled since.
    unsettled_since_ms: Option<u64>,
    /// When the clock was written last, or tried to.
    stamped_ms: u64,
    /// When to look for room again on a full disk.
    look_again_ms: Option<u64>,
    /// There was no room for ends of sessions either.
    is_stuck: bool,
}

/// After this long without a write, the file is left so that the next start need not walk it.
const SETTLE_AFTER_MS: u64 = 2000;
/// With sessions and nothing to write, the clock is written this often, so that a power cut leaves little to be told by
/// the wall clock.
const STAMP_MS: u64 = 60 * 60 * 1000;
/// Row numbers that a start skips, because sessions may have had them that a crash forgot, and their handles must not
/// come to name others: more than can wait in the queue and in a batch under way.
const ROW_RESERVE: u64 = 1 << 18;
/// Last-seen times that ride on a batch that somebody waits for: a few pages.
const TOUCHES_URGENT_MAX: usize = 4096;

/// A batch, and what is to be done once it is durable.
#[derive(Debug, Default)]
struct Built {
    batch: Batch,
    saved: Vec<(Arc<Cell>, u64)>,
    groups: Vec<Queued>,
    swept: Vec<Swept>,
    /// What is in the batch of rows that ended by themselves, and not with a group.
    dead: Vec<Row>,
    /// And whether that, or a cutoff, ends a session.
    ends_sessions: bool,
}

impl Machine {
    pub(crate) fn new(storage: storage::Writer, now_ms: u64) -> Self {
        let sweep = Sweep::default();
        let (ran_out_before, unsettled_since_ms, look_again_ms) = (false, None, None);
        Self {
            storage: Some(storage),
            sweep,
            ran_out_before,
            unsettled_since_ms,
            stamped_ms: now_ms,
            look_again_ms,
            is_stuck: false,
        }
    }

    /// Lets the store be written to, once it was found to be whole.
    pub(crate) fn take_over(&mut self) -> Result<()> {
        self.storage.as_mut().map_or(Ok(()), storage::Writer::take_over)
    }

    /// Starts the thread that brings the journal to the tables.
    pub(crate) fn start_thread(&mut self, engine: &Engine) -> Result<()> {
        let ring = engine.queue.bell.ringer();
        self.storage.as_mut().map_or(Ok(()), |storage| storage.start_thread(ring))
    }

    /// Writes what is due. Returns when there will be something to do without a ring, in engine milliseconds.
    pub(crate) fn step(&mut self, engine: &Arc<Engine>, force: bool) -> Option<u64> {
        engine.look_at_wall();
        let look_ms = self.look_for_room(engine);
        let now_ms = engine.clock.now_ms();
        let has_room = look_ms.is_none();
        let sweep_ms = self.sweep.due_ms().filter(|_| has_room);
        let clock_is_due = has_room && engine.live() > 0 && now_ms.saturating_sub(self.stamped_ms) >= STAMP_MS;
        let sweep_is_due = sweep_ms.is_some_and(|due| due <= now_ms);
        let force = engine.ledger.take_urgent() || sweep_is_due || clock_is_due || force;
        match engine.queue.take(now_ms, force) {
            Ok(mut pending) => {
                pending.clock_is_due = clock_is_due;
                self.write(engine, pending);
                // What came in meanwhile has rung, or set a time of its own.
                Some(engine.clock.now_ms())
            }
            Err(due_ms) => {
                let settle_ms = self.unsettled_since_ms.map(|since| since.saturating_add(SETTLE_AFTER_MS));
                let settle_ms = settle_ms.filter(|&settle_ms| {
                    let waits = settle_ms > now_ms;
                    if !waits {
                        self.settle(engine);
                    }
                    waits
                });
                let stamp_ms = (engine.live() > 0).then(|| self.stamped_ms.saturating_add(STAMP_MS));
                let stamp_ms = stamp_ms.filter(|&stamp_ms| stamp_ms > now_ms);
                let wake_ms = [due_ms, sweep_ms, settle_ms, stamp_ms, look_ms, engine.clock.look_again_ms()];
                wake_ms.into_iter().flatten().min()
            }
        }
    }

    fn settle(&mut self, engine: &Engine) {
        self.unsettled_since_ms = None;
        if let Some(Err(error)) = self.storage.as_mut().map(storage::Writer::settle) {
            engine.health.degrade(&error);
        }
    }

    fn write(&mut self, engine: &Arc<Engine>, mut pending: Pending) {
        let waiters = std::mem::take(&mut pending.waiters);
        let key_changes = std::mem::take(&mut pending.key_changes);
        if pending.clock_is_due {
            // Whatever comes of it, it is not due again at once.
            self.stamped_ms = engine.clock.now_ms();
        }
        self.ran_out_before |= pending.ran_out_before;
        let result = self.write_batch(engine, pending);
        self.ran_out_before &= self.sweep.due_ms().is_some();
        for waiter in waiters {
            engine.answers.push(Answer::Waiter(waiter, result.clone()));
        }
        self.change_keys(engine, key_changes, &result);
    }

    fn note_commit(&mut self, engine: &Engine) {
        let now_ms = engine.clock.now_ms();
        (self.unsettled_since_ms, self.stamped_ms) = (Some(now_ms), now_ms);
    }

    fn write_batch(&mut self, engine: &Arc<Engine>, pending: Pending) -> Result<(), Failure> {
        if let Err(error) = engine.health.check_writable() {
            let failure = Failure::from(&error);
            // Nothing is deleted any more either; the next start finds what was to be swept.
            self.sweep = Sweep::default();
            engine.decline(pending, &failure);
            return Err(failure);
        }
        if self.is_full() {
            return self.write_ends(engine, pending);
        }
        let mut built = Built::default();
        let prepared = engine.build(pending, &mut self.sweep, &mut built);
        let is_prepared = prepared.is_ok();
        let applied = prepared.and_then(|()| {
            if !built.batch.is_empty() {
                self.storage.as_mut().ok_or_else(closed)?.apply(&built.batch)?;
                self.note_commit(engine);
                engine.counters.commits.add(1);
            }
            Ok(())
        });
        match applied {
            Ok(()) => {
                engine.settle_built(built);
                Ok(())
            }
            Err(_) if is_prepared && self.is_clean() => self.write_less(engine, built),
            Err(error) => {
                let failure = engine.health.degrade(&error);
                engine.fail_built(built, &failure);
                Err(failure)
            }
        }
    }

    /// Leaves what ran out while nothing ran to the next start, names included, if nobody was there to be told of it and
    /// it was not swept all the same.
    fn leave_untold(&mut self, engine: &Engine, pending: &mut Pending) {
        if (self.ran_out_before || pending.ran_out_before) && !engine.events.were_listened_to() {
            pending.swept.clear();
            pending.emptied.clear();
            self.sweep = Sweep::default();
        }
    }

    /// Writes everything that is left and closes the file. Of the rows to be swept as many as take little time: what is
    /// left of them is told of again.
    pub(crate) fn close(&mut self, engine: &Arc<Engine>) -> Result<()> {
        engine.look_at_wall();
        let mut looked = self.look_for_room_last(engine);
        // Taking effect may queue a little more, so until nothing is left.
        while let Ok(mut pending) = engine.queue.take(0, true) {
            self.leave_untold(engine, &mut pending);
            if pending.is_empty() {
                break;
            }
            // Names that events need stay until they are read.
            while engine.hand_on_events() {}
            self.write(engine, pending);
            if self.is_full() && (self.is_stuck || !engine.queue.has_ends()) {
                // The rest would be put back again and again.
                looked = looked.and_then(|()| Err(full()));
                break;
            }
        }
        engine.refuse(engine.queue.shut());
        while engine.hand_on_events() {}
        let Some(mut storage) = self.storage.take() else { return Ok(()) };
        let mut last = Batch { touches: engine.touch_blocks(), replace_touches: true, ..engine.empty_batch() };
        let swept = self.sweep.take_rows(self.sweep.share(false, 0, engine.clock.now_ms()));
        last.deletes.extend(swept.into_iter().map(|swept| swept.row));
        let touched = engine.health.check_writable().and_then(|()| storage.apply(&last));
        let closed = storage.close();
        looked.and(touched).and(closed)
    }
}

impl Engine {
    pub(super) fn empty_batch(&self) -> Batch {
        Batch {
            next_row: self.next_row.load(std::sync::atomic::Ordering::SeqCst) + ROW_RESERVE,
            clock: self.clock.checkpoint(),
            credits: self.ledger.take_changed(),
            ..Batch::default()
        }
    }

    fn resolve_cutoffs(&self, changed: &mut Vec<PrincipalRef>) -> Vec<(PrincipalRef, Option<Cutoff>)> {
        changed.sort_unstable();
        changed.dedup();
        changed.iter().map(|&principal| (principal, self.cutoffs.resolve(principal))).collect()
    }

    /// Reads the state of everything that was queued.
    fn build(&self, mut pending: Pending, sweep: &mut Sweep, built: &mut Built) -> Result<()> {
        // One that goes with a key that is dropped would come to nothing.
        let is_void = |group: &Group| group.is_killed() || self.keys.retired().has(group.token.key_id());
        let (killed, live): (Vec<_>, Vec<_>) = pending.groups.drain(..).partition(|queued| is_void(&queued.group));
        built.groups = live;
        for Queued { group, promise } in killed {
            self.abandon(&group);
            self.answers.push(Answer::Group(promise, Err(Error::gone())));
        }
        let groups: Vec<_> = built.groups.iter().map(|queued| Arc::clone(&queued.group)).collect();
        for group in &groups {
            self.build_group(group, built)?;
        }
        // What a group holds it has written or ended above; a put from the queue would come on top of that.
        let held: HashSet<Row> = groups.iter().filter_map(|group| Some(group.held()?.row)).collect();
        for cell in pending.cells.drain(..) {
            if held.contains(&cell.row) {
                self.dequeue(&mut cell.lock());
            } else if let Some((put, version)) = self.snapshot(&cell)? {
                built.batch.puts.push(put);
                built.saved.push((cell, version));
            }
        }
        built.batch.ends_sessions |= pending.ends_sessions;
        built.ends_sessions = pending.ends_sessions;
        built.batch.deletes.extend_from_slice(&pending.dead);
        built.dead = std::mem::take(&mut pending.dead);
        self.build_sweep(&mut pending, sweep, built);
        self.build_touches(&mut pending, built);
        built.batch.cutoffs = self.resolve_cutoffs(&mut pending.cutoffs);
        let stamp = self.empty_batch();
        built.batch.next_row = stamp.next_row;
        built.batch.clock = stamp.clock;
        built.batch.credits = stamp.credits;
        built.batch.clock_is_due = pending.clock_is_due;
        Ok(())
    }

    fn snapshot(&self, cell: &Cell) -> Result<Option<(Put, u64)>> {
        let (header, header_pending, data, data_key, wraps, facts, version) = {
            let mut content = cell.lock();
            self.dequeue(&mut content);
            if content.life != Life::Live || content.memory_only {
                return Ok(None);
            }
            let pending = content.is_header_pending();
            let key = content.data_key.clone();
            (
                content.header,
                pending,
                Arc::clone(&content.data),
                key,
                content.wraps(self.clock.now()),
                content.facts.clone(),
                content.version,
            )
        };
        let data = self.keys.seal_data(cell.row, &data_key, &data, self.entropy.as_ref())?;
        let body = Body::encode(&wraps, &facts, &data);
        Ok(Some((Put { row: cell.row, header: header_pending.then_some(header), body: Some(body) }, version)))
    }

    /// Takes a cell off the queue's books.
    pub(super) fn dequeue(&self, content: &mut Content) {
        content.queued = false;
        self.queue.discharge(content.header.principal == PrincipalRef::NONE, content.charged);
        content.charged = 0;
    }

    fn build_group(&self, group: &Arc<Group>, built: &mut Built) -> Result<()> {
        match &group.kind {
            Kind::SignIn { old, new, evicted, sealed_name } => {
                if let Some((put, version)) = self.snapshot(new)? {
                    built.batch.puts.push(put);
                    built.saved.push((Arc::clone(new), version));
                }
                // This turn is the writer's, so a row that was not written before is not on its way either.
                let written = |old: &&Arc<Cell>| !self.unwritten.lock().contains_key(&old.row);
                let ended = built.batch.deletes.len();
                built.batch.deletes.extend(old.iter().filter(written).map(|old| old.row));
                built.batch.deletes.extend(evicted.iter().copied());
                built.batch.ends_sessions |= built.batch.deletes.len() > ended;
                if self.principals.lock(group.principal()).claim_name() {
                    let name = match sealed_name {
                        Some(name) => name.clone(),
                        // It was to be written by another sign-in, for which there was no room.
                        None => self.seal_name_of(group.principal(), new)?,
                    };
                    built.batch.principals.push((group.principal(), Some(name)));
                }
            }
            Kind::Rotation { cell, header, wrap, .. } => {
                if let Some((put, version)) = self.snapshot(cell)? {
                    // The latest data, under the new header and the new wrap.
                    built.batch.puts.push(self.rotated(put, header, wrap));
                    built.saved.push((Arc::clone(cell), version));
                }
                built.batch.ends_sessions = true;
            }
        }
        Ok(())
    }

    fn seal_name_of(&self, principal: PrincipalRef, cell: &Cell) -> Result<Vec<u8>> {
        let name = cell.lock().principal.clone().ok_or_else(|| Error::corrupt("a sign-in without a name"))?;
        self.keys.seal_name(principal, &name, self.entropy.as_ref())
    }

    fn rotated(&self, put: Put, header: &Header, wrap: &crate::seal::Wrap) -> Put {
        let body =
            put.body.as_deref().and_then(Body::decode).map(|body| Body::encode(&[*wrap], &body.facts, &body.data));
        Put { row: put.row, header: Some(*header), body }
    }

    /// Takes dead rows along, and names that nobody needs, as many as there is time for.
    fn build_sweep(&self, pending: &mut Pending, sweep: &mut Sweep, built: &mut Built) {
        let now_ms = self.clock.now_ms();
        let (swept, emptied) = (std::mem::take(&mut pending.swept), std::mem::take(&mut pending.emptied));
        sweep.add(swept, emptied.into_iter().collect(), pending.swept_since_ms.unwrap_or(now_ms));
        let share = sweep.share(pending.urgent, built.batch.puts.len(), now_ms);
        built.swept = sweep.take_rows(share);
        built.batch.deletes.extend(built.swept.iter().map(|swept| swept.row));
        for principal in sweep.take_names(share) {
            let mut locked = self.principals.lock(principal);
            // Its last session ended while this batch was built: that row is for the next one, and so is the name.
            if self.queue.is_emptied(principal) {
                continue;
            }
            // An event needs a name that is only on disk. Asked under the lock that its session ended under.
            if self.events.needs_names() {
                drop(locked);
                self.queue.push_emptied(principal, now_ms);
            // A group in this batch holds the principal, so its name cannot be dropped along with being put.
            } else if locked.drop_if_empty() {
                built.batch.principals.push((principal, None));
            }
        }
    }

    /// Takes last-seen times along. Where somebody waits, many of them wait for as long as they may.
    fn build_touches(&self, pending: &mut Pending, built: &mut Built) {
        let now_ms = self.clock.now_ms();
        for flush in pending.touches.drain(..) {
            let entries: usize = flush.blocks.iter().map(|block| block.entries.len()).sum();
            if pending.urgent && entries > TOUCHES_URGENT_MAX && now_ms < flush.due_ms {
                self.queue.push_touches(flush);
                continue;
            }
            built.batch.replace_touches |= flush.replaces_all;
            built.batch.touches.extend(flush.blocks);
        }
    }

    /// The batch failed. Where its outcome is unknown, nothing of a group may go on; else all is as before it.
    fn fail_built(&self, built: Built, failure: &Failure) {
        for Queued { group, promise } in built.groups {
            if failure.kind == ErrorKind::Unknown {
                self.fail_group(&group);
            } else {
                self.abandon(&group);
            }
            self.answers.push(Answer::Group(promise, Err(failure.error())));
        }
    }

    /// Nothing is written any more. Changed cells stay on the queue's books, so that its limit holds for what memory has
    /// to keep of them.
    fn decline(&self, pending: Pending, failure: &Failure) {
        for Queued { group, promise } in pending.groups {
            self.abandon(&group);
            self.answers.push(Answer::Group(promise, Err(failure.error())));
        }
    }

    /// Tells everybody whose change came too late to be written.
    pub(super) fn refuse(&self, pending: Pending) {
        for Queued { group, promise } in pending.groups {
            self.abandon(&group);
            self.answers.push(Answer::Group(promise, Err(closed())));
        }
        for waiter in pending.waiters {
            self.answers.push(Answer::Waiter(waiter, Err(Failure::stopped())));
        }
        for change in pending.key_changes {
            let stopped = Failure::stopped();
            self.answers.push(match change {
                KeyChange::Rotate(promise) => Answer::Rotated(promise, Err(stopped.error())),
                KeyChange::Drop { promise, .. } => Answer::Dropped(promise, Err(stopped.error())),
            });
        }
    }

    /// Gives the answers of the last turn. No lock may be held.
    pub(super) fn deliver(&self) {
        self.answers.deliver();
    }

    /// One turn of the writer, and its answers.
    pub(super) fn write_turn(self: &Arc<Self>, force: bool) -> Option<u64> {
        while self.hand_on_events() {}
        let wake_ms = self.writer.lock().step(self, force);
        while self.hand_on_events() {}
        self.deliver();
        wake_ms
    }

    /// The batch is durable: cells are clean as of the versions in it, groups take effect.
    fn settle_built(self: &Arc<Self>, built: Built) {
        {
            let mut unwritten = self.unwritten.lock();
            for put in &built.batch.puts {
                unwritten.remove(&put.row);
            }
        }
        for (cell, version) in built.saved {
            let mut content = cell.lock();
            content.durable = content.durable.max(version);
            drop(content);
            self.index.recount(&cell);
        }
        for Queued { group, promise } in built.groups {
            let result = self.publish(&group);
            self.answers.push(Answer::Group(promise, result));
        }
        let now_ms = self.clock.now_ms();
        for principal in built.swept.iter().filter_map(|swept| swept.cutoff) {
            if self.cutoffs.settle_outstanding(principal) {
                self.queue.push_cutoff(principal, false, now_ms);
            }
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let kind = if error.kind() == ErrorKind::Unknown { ErrorKind::Unknown } else { ErrorKind::Storage };
        Self { kind, message: format!("{error:#}").into() }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;
    use std::time::Duration;

    use super::super::{Handle, SignInRequest};
    use super::*;
    use crate::options::Options;
    use crate::storage::disk::{Disk, SimDisk};
    use crate::time::ManualClock;
    use crate::token::{OsEntropy, Token};

    fn open(disk: &SimDisk, clock: &ManualClock) -> Arc<Engine> {
        let options = Options::new().clock(clock.clone()).manual_workers();
        let settings = options.idle_timeout(Duration::from_secs(600)).check().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(disk.clone());
        Engine::open(&disk, settings, Arc::new(OsEntropy)).unwrap().0
    }

    fn sign_in(engine: &Arc<Engine>, name: &str) -> (Handle, Token) {
        let request = SignInRequest::sample(name);
        let handle = Handle::fresh(engine);
        let token = engine.sign_in(handle.binding(), &request).unwrap().blocking_wait().unwrap();
        (handle, token)
    }

    #[test]
    fn a_name_that_was_not_written_is_written_with_who_counted_on_it() {
        let (disk, clock) = (SimDisk::simulated(1), ManualClock::new());
        let engine = open(&disk, &clock);
        let request = SignInRequest::sample("ada");
        let first = engine.sign_in(Handle::fresh(&engine).binding(), &request).unwrap();
        let pending = engine.queue.take(engine.clock.now_ms(), true).unwrap();
        let mut built = Built::default();
        engine.build(pending, &mut Sweep::default(), &mut built).unwrap();
        // Comes while the first is being written.
        let second = engine.sign_in(Handle::fresh(&engine).binding(), &request).unwrap();
        // There was no room for the first.
        _ = engine.writer.lock().write_less(&engine, built);
        engine.deliver();
        assert!(first.blocking_wait().is_err());
        let token = second.blocking_wait().unwrap();
        disk.restore_power();
        drop(engine);
        let engine = open(&disk, &clock);
        let (cell, _) = engine.load(&token, true).unwrap().expect("its row is on disk");
        assert_eq!(cell.lock().principal.as_deref(), Some("ada"));
    }

    #[test]
    fn what_was_acknowledged_outlives_a_panic_of_the_tree() {
        let (disk, clock) = (SimDisk::simulated(1), ManualClock::new());
        let engine = open(&disk, &clock);
        let (_ada, token) = sign_in(&engine, "ada");
        disk.plant(crate::storage::Planted::PanickingTree);
        // Goes to the tables at once.
        let rotating = engine.rotate_key().unwrap();
        assert!(std::panic::catch_unwind(AssertUnwindSafe(|| rotating.blocking_wait())).is_err());
        disk.plant(None);
        drop(engine.close());
        disk.restore_power();
        drop(engine);
        let engine = open(&disk, &clock);
        assert!(engine.load(&token, true).unwrap().is_some(), "the sign-in was acknowledged");
    }

    #[test]
    fn a_name_outlives_a_session_that_ends_while_a_batch_is_built() {
        let (disk, clock) = (SimDisk::simulated(1), ManualClock::new());
        let engine = open(&disk, &clock);
        let _bob = sign_in(&engine, "bob");
        clock.advance(Duration::from_secs(600));
        let (ada, _) = sign_in(&engine, "ada");
        // Bob's row waits to be swept, and so ada's name does, which may have to go.
        engine.reap();
        drop(ada.require().map(|(cell, generation)| engine.destroy(&cell, generation).unwrap()).unwrap());
        let (ada, token) = sign_in(&engine, "ada");
        clock.advance(Duration::from_secs(2));
        while engine.hand_on_events() {}
        let pending = engine.queue.take(engine.clock.now_ms(), true).unwrap();
        drop(ada.require().map(|(cell, generation)| engine.destroy(&cell, generation).unwrap()).unwrap());
        engine.writer.lock().write(&engine, pending);
        // Killed before the next batch: the sign-out was not acknowledged.
        disk.restore_power();
        drop(engine);
        let engine = open(&disk, &clock);
        let (cell, _) = engine.load(&token, true).unwrap().expect("its row is on disk");
        assert_eq!(cell.lock().principal.as_deref(), Some("ada"));
    }
}
