//! Writing: beginning sessions, changing their data, asking for durability.
//!
//! It knows the engine's parts. Invariants: a change is made under the cell's lock if the session is live and of the
//! handle's generation, else not at all; it is in the writer's queue before the lock is let go; what is refused for
//! lack of room or size changes nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Engine;
use super::cell::{Cell, Content, Life};
use super::end::Fate;
use super::events::{Happening, Refusal, Why};
use super::group::{SignInRequest, key_was_dropped};
use super::health::full;
use super::principals::Locked;
use super::queue::Waiter;
use super::receipt::{Receipt, promise};
use super::slot::{ListId, Slot, SlotId};
use crate::error::{Error, ErrorKind, Result};
use crate::seal::{Fingerprint, Key};
use crate::storage::record::{ClassByte, Header, PrincipalRef, Row};
use crate::time::Tick;
use crate::token::{Entropy, Token};

impl Engine {
    /// Makes an anonymous session. It is live at once and written behind.
    pub(crate) fn begin(self: &Arc<Self>, data: Arc<[u8]>, door: u8) -> Result<(Arc<Cell>, Token)> {
        let memory_only = self.settings.anonymous_in_memory;
        if memory_only {
            self.check_open()?;
        } else {
            self.check_durable()?;
            self.queue.check_room(true)?;
        }
        self.check_size(&data)?;
        self.check_bytes(memory_only, true, data.len())?;
        // Asked before a row number is drawn, so that refusals do not use up the numbers that a crash may forget.
        self.make_room(&mut self.principals.lock_anonymous())?;
        let token = Token::random(self.keys.active(), self.entropy.as_ref())?;
        let data_key = Key::random(self.entropy.as_ref())?;
        let header = self.anonymous_header(&token, door);
        let row = if memory_only { self.next_memory_row() } else { self.next_row()? };
        let wrap = self.wrap(row, &header, &token, &data_key)?;
        let mut content = Content::new(header, data_key, wrap, Box::default(), None);
        content.memory_only = memory_only;
        content.queued = !memory_only;
        content.charged = data.len();
        content.data = data;
        let charged = content.charged;
        let cell = Arc::new(Cell::new(self, row, content));
        let mut locked = self.principals.lock_anonymous();
        self.make_room(&mut locked)?;
        let filed = self.file(row, &header, ListId::ANONYMOUS, Some(Arc::clone(&cell)), false);
        let Some(slot) = filed else {
            let dropped = self.keys.retired().has(header.key_id);
            let repeats = || Error::new(ErrorKind::Storage, "the system's random source repeats itself");
            return Err(if dropped { key_was_dropped() } else { repeats() });
        };
        self.unwritten.lock().insert(row, slot);
        self.charge(memory_only, true, charged);
        locked.link(&self.index, slot);
        self.note_session(row, &header, None, Happening::Created);
        drop(locked);
        self.arm(slot);
        if !memory_only {
            self.queue.push_cell(Arc::clone(&cell), self.clock.now_ms());
        }
        Ok((cell, token))
    }

    /// Whether a session's data may take `bytes` more, in the queue or, where it never goes to disk, in memory.
    fn check_bytes(&self, memory_only: bool, anonymous: bool, bytes: usize) -> Result<()> {
        if !memory_only {
            return self.queue.check_bytes(anonymous, bytes);
        }
        if self.memory_only_bytes.load(Ordering::Relaxed) + bytes > self.settings.cache_bytes.max(MEMORY_ONLY_BYTES_MIN)
        {
            return Err(Error::new(ErrorKind::Busy, "anonymous sessions take as much memory as they may"));
        }
        Ok(())
    }

    fn charge(&self, memory_only: bool, anonymous: bool, bytes: usize) {
        if memory_only {
            self.memory_only_bytes.fetch_add(bytes, Ordering::Relaxed);
        } else {
            self.queue.charge(anonymous, bytes);
        }
    }

    fn anonymous_header(&self, token: &Token, door: u8) -> Header {
        let (now, limits) = (self.clock.now(), self.settings.anonymous);
        Header {
            key_id: token.key_id(),
            class: ClassByte::Anonymous,
            remembered: false,
            method: 0,
            generation: 0,
            step: 0,
            created: now,
            authenticated: Tick(0),
            absolute: now.plus(limits.lifetime),
            idle: limits.idle,
            last_seen: now,
            created_wall: self.clock.wall(),
            fingerprint: token.fingerprint(),
            other: Fingerprint::NONE,
            overlap: Tick(0),
            other_key: 0,
            principal: PrincipalRef::NONE,
            external: 0,
            door,
            frame: self.ledger.frame(),
        }
    }

    /// Ends the oldest anonymous sessions until one more fits their quota and the store's.
    pub(super) fn make_room(&self, locked: &mut Locked<'_>) -> Result<()> {
        loop {
            let (oldest, count) = locked.oldest();
            let live = self.live();
            if live < self.settings.sessions_max && count < self.settings.anonymous_max {
                return Ok(());
            }
            // Where those who signed in fill the store alone, ending strangers' sessions would help nobody.
            if oldest == SlotId::NONE || live.saturating_sub(count) >= self.settings.sessions_max {
                self.note_refused_visitor();
                return Err(Error::new(ErrorKind::Refused, "the store holds as many sessions as it may"));
            }
            self.evict_anonymous(locked, oldest);
        }
    }

    /// Makes room in a full store for somebody who signs in and may, at the cost of an anonymous session.
    pub(super) fn make_room_to_sign_in(&self, principal: PrincipalRef, request: &SignInRequest) -> Result<()> {
        if self.live() < self.settings.sessions_max {
            return Ok(());
        }
        // Asked before anybody's session ends for it; what counts is the answer under the lock that signs in.
        self.admit(&self.principals.lock(principal), principal, None, request)?;
        let mut locked = self.principals.lock_anonymous();
        let (oldest, _) = locked.oldest();
        if oldest == SlotId::NONE {
            self.note_principal(principal, &request.name, Happening::Refused(Refusal::StoreFull));
            return Err(Error::new(ErrorKind::Refused, "the store holds as many sessions as it may"));
        }
        self.evict_anonymous(&mut locked, oldest);
        Ok(())
    }

    pub(super) fn evict_anonymous(&self, locked: &mut Locked<'_>, oldest: SlotId) {
        let Some(row) = self.index.slot(oldest, Slot::row) else { return };
        let doomed = |_: &_| Some((Why::Limit, Fate::Delete));
        self.end_locked(locked, ListId::ANONYMOUS, (oldest, row), doomed);
        self.counters.evicted.add(1);
    }

    /// Changes a session's data. `edit` returns the new data, or `None` to leave it; it may be called under the
    /// cell's lock, so it copies bytes and nothing else. `true` if something was changed.
    pub(crate) fn change(
        &self,
        cell: &Arc<Cell>,
        generation: u32,
        relaxed: bool,
        edit: impl FnOnce(&[u8]) -> Result<Option<Arc<[u8]>>>,
    ) -> Result<bool> {
        self.check_open()?;
        let mut content = cell.lock();
        content.check_write(generation)?;
        let Some(data) = edit(&content.data)? else { return Ok(false) };
        self.check_size(&data)?;
        let anonymous = content.header.principal == PrincipalRef::NONE;
        let growth = data.len().saturating_sub(content.charged);
        if !content.queued && !content.memory_only {
            self.queue.check_room(anonymous)?;
        }
        self.check_bytes(content.memory_only, anonymous, growth)?;
        content.charged += growth;
        self.charge(content.memory_only, anonymous, growth);
        content.data = data;
        content.version += 1;
        if !relaxed {
            content.wanted = content.version;
        }
        if !content.queued && !content.memory_only {
            content.queued = true;
            self.queue.push_cell(Arc::clone(cell), self.clock.now_ms());
        }
        Ok(true)
    }

    /// Asks for the session's changes to be durable.
    pub(crate) fn save(self: &Arc<Self>, cell: &Arc<Cell>, generation: u32) -> Result<Receipt> {
        self.check_durable()?;
        let wanted = {
            let content = cell.lock();
            content.check(generation)?;
            if content.memory_only {
                return Err(Error::new(ErrorKind::NotDurable, "the session is kept in memory only"));
            }
            if content.durable >= content.wanted {
                return Ok(Receipt::ready(()));
            }
            content.wanted
        };
        let (promise, receipt) = promise();
        let cell = Arc::clone(cell);
        let waiter: Waiter = Box::new(move |result| {
            promise.keep(match result {
                Ok(()) => saved(&cell, wanted),
                Err(failure) => Err(failure.error()),
            });
        });
        self.queue.push_waiter(waiter, self.clock.now_ms());
        Ok(receipt.untold(self))
    }

    /// A receipt for everything that was queued before, with a value to hand out then.
    pub(super) fn when_durable<T: Send + 'static>(self: &Arc<Self>, value: T) -> Receipt<T> {
        let (promise, receipt) = promise();
        let waiter: Waiter = Box::new(move |result| {
            promise.keep(result.map(|()| value).map_err(|failure| failure.error()));
        });
        self.queue.push_waiter(waiter, self.clock.now_ms());
        receipt.untold(self)
    }

    fn check_size(&self, data: &[u8]) -> Result<()> {
        let max = self.settings.session_bytes_max;
        if data.len() > max {
            let message = format!("the session would take {} bytes, {max} are allowed", data.len());
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        Ok(())
    }

    /// A number that no row on disk has.
    fn next_memory_row(&self) -> Row {
        Row(self.next_memory_row.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn next_row(&self) -> Result<Row> {
        let row = self.next_row.fetch_add(1, Ordering::SeqCst);
        if row >= Row::MEMORY {
            return Err(Error::new(ErrorKind::Refused, "the store has made as many sessions as its format can number"));
        }
        Ok(Row(row))
    }
}

/// Rows of sessions that stay off the disk begin anywhere in the lower half of their range, so that another run does
/// not use them again.
pub(super) fn first_memory_row(entropy: &dyn Entropy) -> Result<u64> {
    let mut random = [0; 8];
    entropy.fill(&mut random)?;
    Ok(Row::MEMORY + u64::from_le_bytes(random) % (Row::MEMORY / 2))
}

/// Memory that anonymous sessions may take where they stay off the disk, even if the cache is smaller.
const MEMORY_ONLY_BYTES_MIN: usize = 256 * 1024;

/// Whether a version is on disk, now that the batch that should hold it is.
fn saved(cell: &Cell, wanted: u64) -> Result<()> {
    let content = cell.lock();
    if content.durable >= wanted {
        return Ok(());
    }
    match content.life {
        Life::Dead(_) => Err(Error::gone()),
        // It was put back, because there was no room for it.
        Life::Live => Err(full()),
    }
}
