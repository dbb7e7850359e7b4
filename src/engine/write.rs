//! Writing: beginning sessions, changing their data, asking for durability.
//!
//! It knows the engine's parts. Invariants: a change is made under the cell's lock if the session is live and of the
//! handle's generation, else not at all; it is in the writer's queue before the lock is let go; what is refused for
//! lack of room or size changes nothing.

use std::sync::Arc;

use super::Engine;
use super::cell::{Cell, Content, EndReason, Life};
use super::principals::Locked;
use super::receipt::{Receipt, promise};
use super::slot::{ListId, SlotId};
use crate::error::{Error, ErrorKind, Result};
use crate::seal::{Fingerprint, Key};
use crate::storage::record::{ClassByte, Header, PrincipalRef, Row};
use crate::time::Tick;
use crate::token::Token;

impl Engine {
    /// Makes an anonymous session. It is live at once and written behind.
    pub(crate) fn begin(self: &Arc<Self>, data: Arc<[u8]>) -> Result<(Arc<Cell>, Token)> {
        let memory_only = self.settings.anonymous_in_memory;
        if memory_only {
            self.check_open()?;
        } else {
            self.check_durable()?;
            self.queue.check_room(true, data.len())?;
        }
        self.check_size(&data)?;
        let token = Token::random(self.keys.active(), self.entropy.as_ref())?;
        let data_key = Key::random(self.entropy.as_ref())?;
        let header = self.anonymous_header(&token);
        let row = self.next_row();
        let facts = self.keys.seal_facts(row, &[], self.entropy.as_ref())?;
        let wrap = self.wrap(row, &header, &token, &data_key)?;
        let mut content = Content::new(header, data_key, wrap, facts.into(), None);
        content.memory_only = memory_only;
        content.queued = !memory_only;
        content.charged = if memory_only { 0 } else { data.len() };
        self.queue.charge(true, content.charged);
        content.data = data;
        let cell = Arc::new(Cell::new(self, row, content));
        let mut locked = self.principals.lock_anonymous();
        self.make_room(&mut locked)?;
        self.unwritten.lock().insert(row, header.fingerprint);
        let slot = self.file(row, &header, ListId::ANONYMOUS, Some(Arc::clone(&cell)));
        locked.link(&self.index, slot);
        drop(locked);
        self.arm(slot);
        if !memory_only {
            self.queue.push_cell(Arc::clone(&cell), self.clock.now_ms());
        }
        Ok((cell, token))
    }

    fn anonymous_header(&self, token: &Token) -> Header {
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
            successor: Fingerprint([0; 16]),
            overlap: Tick(0),
            principal: PrincipalRef::NONE,
            external: 0,
        }
    }

    /// Ends the oldest anonymous sessions until one more fits their quota and the store's.
    pub(super) fn make_room(&self, locked: &mut Locked<'_>) -> Result<()> {
        loop {
            let (oldest, count) = locked.oldest();
            let full = self.live() >= self.settings.sessions_max;
            if !full && count < self.settings.anonymous_max {
                return Ok(());
            }
            if oldest == SlotId::NONE {
                return Err(Error::new(ErrorKind::Refused, "the store holds as many sessions as it may"));
            }
            self.evict_anonymous(locked, oldest);
        }
    }

    pub(super) fn evict_anonymous(&self, locked: &mut Locked<'_>, oldest: SlotId) {
        let names = self.index.slot(oldest, |slot| (Fingerprint(slot.fingerprint), slot.row()));
        let Some((fingerprint, row)) = names else { return };
        let ended = self.end_locked(locked, ListId::ANONYMOUS, (fingerprint, row), EndReason::Limit, |_| true);
        self.counters.evicted.add(1);
        if ended.is_some_and(|ended| !ended.memory_only) {
            self.queue.push_dead(row, self.clock.now_ms());
        }
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
        if !content.memory_only {
            if !content.queued {
                self.queue.check_room(anonymous, data.len())?;
            }
            content.charged += growth;
            self.queue.charge(anonymous, growth);
        }
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
        self.queue.push_waiter(Box::new(move |result| {
            promise.keep(match result {
                Ok(()) => saved(&cell, wanted),
                Err(failure) => Err(failure.error()),
            });
        }));
        Ok(self.driven(receipt))
    }

    /// A receipt for everything that was queued before, with a value to hand out then.
    pub(super) fn when_durable<T: Send + 'static>(self: &Arc<Self>, value: T) -> Receipt<T> {
        let (promise, receipt) = promise();
        self.queue.push_waiter(Box::new(move |result| {
            promise.keep(result.map(|()| value).map_err(|failure| failure.error()));
        }));
        self.driven(receipt)
    }

    fn check_size(&self, data: &[u8]) -> Result<()> {
        let max = self.settings.session_bytes_max;
        if data.len() > max {
            let message = format!("the session would take {} bytes, {max} are allowed", data.len());
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        Ok(())
    }

    pub(super) fn next_row(&self) -> Row {
        Row(self.next_row.fetch_add(1, std::sync::atomic::Ordering::SeqCst))
    }
}

/// Whether a version is on disk, now that the batch that should hold it is.
fn saved(cell: &Cell, wanted: u64) -> Result<()> {
    let content = cell.lock();
    if content.durable >= wanted {
        return Ok(());
    }
    match content.life {
        Life::Dead(_) => Err(Error::gone()),
        Life::Live => Err(Error::new(ErrorKind::Unknown, "the change was not written")),
    }
}
