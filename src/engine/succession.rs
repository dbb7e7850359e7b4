//! Soft rotation at work: successors are offered, confirmed and handed out, and replays end sessions.
//!
//! It knows cells, the index and the rules in `soft`. Invariants: a successor is found by its fingerprint before the offer
//! is queued, and handed out when the commit with it is durable, so whoever comes with it is let in, after a crash too;
//! nothing is offered or confirmed while a sign-in or hard rotation is on its way, which would go by the header as it
//! was; whoever shows a token too late ends the session, in memory before the answer and on disk within a second.

use std::sync::Arc;

use super::Engine;
use super::cell::{Cell, Content, Life, OtherToken, Stamp};
use super::end::Fate;
use super::events::Why;
use super::index::Confirmed;
use super::load::Hot;
use super::soft::Other;
use crate::seal::{Fingerprint, Wrap};
use crate::storage::WrapBinding;
use crate::storage::record::{Header, PrincipalRef, Row};
use crate::time::Tick;
use crate::token::Token;

impl Engine {
    /// Makes a successor for a token that is due for one, and queues the offer. Costs some 50 microseconds, once in an
    /// interval.
    #[cold]
    pub(super) fn offer_successor(&self, cell: &Arc<Cell>, token: &Token, now: Tick) {
        if cell.take_due(now) && !self.try_offer(cell, token, now) {
            // No room, a sign-in on its way, or the session is over: whoever comes next second may try again.
            cell.put_off_due(now.plus(1));
        }
    }

    fn try_offer(&self, cell: &Arc<Cell>, token: &Token, now: Tick) -> bool {
        let rotation = self.settings.rotation;
        let (header, data_key, memory_only) = {
            let content = cell.lock();
            (content.header, content.data_key.clone(), content.memory_only)
        };
        let anonymous = header.principal == PrincipalRef::NONE;
        let has_room = || self.check_durable().and_then(|()| self.queue.check_room(anonymous)).is_ok();
        if header.fingerprint != token.fingerprint() || now < header.soft_due(rotation) || !(memory_only || has_room())
        {
            return false;
        }
        let at = WrapBinding { row: cell.row, generation: header.generation, step: header.step.saturating_add(1) };
        // Under the active key, so that sessions in use leave an old one.
        let key_id = self.keys.active();
        let Some(successor) = self.keys.successor(&at, token, key_id) else { return false };
        let Some(wrap) = self.keys.wrap(&at, &successor, &data_key) else { return false };
        let fingerprint = successor.fingerprint();
        let mut before = None;
        let offered = self.index.offer((header.fingerprint, cell), (fingerprint, key_id), || {
            let mut content = cell.lock();
            if !content.may_pass_on(&header) {
                return false;
            }
            content.header.offer(fingerprint, key_id);
            self.note_succession(cell, &mut content);
            let version = content.version;
            let other = OtherToken { wrap: Some(wrap), offer: Some(successor), version };
            before = content.other.replace(Box::new(other));
            true
        });
        drop(before);
        offered
    }

    /// Lets whoever has the successor in, and from now on the token before for the overlap only. Never blocks.
    #[cold]
    pub(super) fn confirm_successor(&self, successor: Fingerprint, now: Tick, touch: bool) -> Hot {
        let rotation = self.settings.rotation;
        let found = self.index.confirm(successor, (now, touch), |cell| {
            let mut content = cell.lock();
            let header = content.header;
            if header.other != successor || !header.is_offering() || !content.may_pass_on(&header) {
                return None;
            }
            content.header.confirm(now, rotation);
            content.swap_wraps();
            self.note_succession(cell, &mut content);
            Some(content.header.overlap)
        });
        match found {
            Confirmed::Absent => Hot::Absent,
            Confirmed::Cold(row) => Hot::OnDisk(row),
            Confirmed::Here(cell, stamp) => Hot::Here(cell, stamp),
        }
    }

    /// Ends the session of a token whose overlap is over, unless a hard rotation has replaced both meanwhile.
    #[cold]
    pub(super) fn end_replayed(&self, fingerprint: Fingerprint, row: Row) {
        self.end_if(fingerprint, row, |_| Some((Why::Replayed, Fate::Delete)));
    }

    /// The successor to hand to the client of a handle, if there is one on disk: for those only who came with the token in
    /// force.
    pub(super) fn offered_successor(&self, cell: &Cell, stamp: Stamp) -> Option<Token> {
        // Switched off: what was handed out before is still taken.
        self.settings.rotation.every?;
        let content = cell.lock();
        let is_live = content.life == Life::Live && content.group.is_none() && Stamp::of(&content.header) == stamp;
        if !is_live || !content.header.is_offering() {
            return None;
        }
        let other = content.other.as_ref()?;
        (content.memory_only || other.version <= content.durable).then(|| other.offer.clone()).flatten()
    }

    /// Has a changed header written behind.
    fn note_succession(&self, cell: &Arc<Cell>, content: &mut Content) {
        content.version += 1;
        content.header_version = content.version;
        cell.note_header(&content.header);
        if !content.queued && !content.memory_only {
            content.queued = true;
            self.queue.push_cell(Arc::clone(cell), self.clock.now_ms());
        }
    }
}

impl Content {
    /// Whether the session may go on to another token, now that it has this header, or still has.
    fn may_pass_on(&self, header: &Header) -> bool {
        let same = (self.header.fingerprint, self.header.other) == (header.fingerprint, header.other);
        self.life == Life::Live && self.group.is_none() && same && self.header.generation == header.generation
    }

    fn swap_wraps(&mut self) {
        let Some(other) = &mut self.other else { return };
        other.offer = None;
        if let Some(wrap) = &mut other.wrap {
            std::mem::swap(wrap, &mut self.wrap);
        }
    }

    /// One for each token that opens the session, the one in force first.
    pub(super) fn wraps(&self, now: Tick) -> Vec<Wrap> {
        let opens = self.header.has_other() && Other::at(self.header.overlap, now) != Other::Replayed;
        let other = self.other.as_ref().filter(|_| opens).and_then(|other| other.wrap);
        [self.wrap].into_iter().chain(other).collect()
    }
}
