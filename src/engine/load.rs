//! Loading: from a token to a session's cell.
//!
//! It knows the index, the reader and the keys. Invariants: both deadlines are judged here, whatever the wheel does;
//! a token that is not ours costs one hash and one probe; a cold session is read by one thread at a time, so there
//! are never two cells for one session; what was read counts only if the session is still live and still has the
//! token once it is to be published. The disk is never read under a shard's or a list's lock. What else a load may set
//! going, when a token is replaced softly, is in `succession`.

use std::sync::Arc;

use super::Engine;
use super::cell::{Cell, Content, OtherToken, Stamp};
use super::fields;
use super::index::Probe;
use crate::error::{Error, Result};
use crate::storage::WrapBinding;
use crate::storage::record::{Body, Header, PrincipalRef, Row};
use crate::token::Token;

/// What memory knows of a token.
#[derive(Debug)]
pub(crate) enum Hot {
    Absent,
    Here(Arc<Cell>, Stamp),
    OnDisk(Row),
}

impl Engine {
    /// The live session of a token, and which of its tokens that is. Blocks on the disk only if the session's data is not
    /// in memory.
    pub(crate) fn load(self: &Arc<Self>, token: &Token, touch: bool) -> Result<Option<(Arc<Cell>, Stamp)>> {
        let row = match self.load_hot(token, touch)? {
            Hot::Absent => return Ok(None),
            Hot::Here(cell, stamp) => return Ok(Some((cell, stamp))),
            Hot::OnDisk(row) => row,
        };
        let Some(found) = self.load_cold(token, row)? else { return Ok(None) };
        // The token may be one to confirm, or be due for another. It counts as used already, but for a successor.
        Ok(match self.load_hot(token, touch)? {
            Hot::Here(cell, stamp) => Some((cell, stamp)),
            Hot::Absent => None,
            // Pushed out again by others; it lives, and this is its cell.
            Hot::OnDisk(_) => Some(found),
        })
    }

    /// Like [`load`](Self::load), but never blocks: a session whose data is not in memory is only pointed out.
    pub(crate) fn load_hot(self: &Arc<Self>, token: &Token, touch: bool) -> Result<Hot> {
        self.check_open()?;
        let (fingerprint, now) = (token.fingerprint(), self.clock.now());
        Ok(match self.index.probe(fingerprint, now, touch) {
            Probe::Absent => Hot::Absent,
            Probe::Hot(cell, stamp) => {
                if touch && cell.is_due(now) {
                    self.offer_successor(&cell, token, now);
                }
                Hot::Here(cell, stamp)
            }
            Probe::Cold(row) => Hot::OnDisk(row),
            Probe::Successor => self.confirm_successor(fingerprint, now, touch),
            Probe::Replayed(row) => {
                self.end_replayed(fingerprint, row);
                Hot::Absent
            }
        })
    }

    /// Marks a session in use as seen now. One whose time ran out is not revived, though nobody has collected it yet.
    ///
    /// # Errors
    /// `Gone`, `Closed`.
    pub(crate) fn renew(&self, cell: &Cell, generation: u32) -> Result<()> {
        self.check_open()?;
        let fingerprint = {
            let content = cell.lock();
            content.check(generation)?;
            content.header.fingerprint
        };
        // A rotation in between has filed the session under another fingerprint, and then this handle is out of date.
        if self.index.touch(fingerprint, cell.row, self.clock.now()) { Ok(()) } else { Err(Error::gone()) }
    }

    fn load_cold(self: &Arc<Self>, token: &Token, row: Row) -> Result<Option<(Arc<Cell>, Stamp)>> {
        let fingerprint = token.fingerprint();
        let _turn = self.cold_turn(row).lock();
        if let Some(found) = self.index.cell(fingerprint, row) {
            return Ok(Some(found));
        }
        let still_live = || self.index.find(fingerprint, row, |_, _| ()).is_some();
        let Some((header, body)) = self.reader.session(row)? else {
            // Ended meanwhile; or about to be, by a commit that takes effect before the writer's turn is over; or the
            // store lost a row that it should have.
            drop(self.writer.lock());
            return if still_live() { Err(Error::corrupt("a session's row is missing")) } else { Ok(None) };
        };
        if header.step_of(fingerprint).is_none() {
            return Ok(None);
        }
        let content = match self.open_content(token, row, self.clipped(&header), &body) {
            // Its server key was dropped since it was read.
            Err(_) if !still_live() => return Ok(None),
            opened => opened?,
        };
        let cell = Arc::new(Cell::new(self, row, content));
        // Aged only there, so that a credit that is made meanwhile is not missed.
        Ok(self.index.publish(fingerprint, cell, |cell| self.ledger.age_cell(cell)))
    }

    fn open_content(&self, token: &Token, row: Row, header: Header, body: &Body) -> Result<Content> {
        let damaged = || Error::corrupt("a session's body is damaged");
        let (wrap, other) = body.wraps.split_first().ok_or_else(damaged)?;
        let (wrap, other) = (*wrap, other.first().copied());
        let is_other = header.fingerprint != token.fingerprint();
        let own = if is_other { other } else { Some(wrap) };
        let step = header.step_of(token.fingerprint()).ok_or_else(damaged)?;
        let at = WrapBinding { row, generation: header.generation, step };
        let data_key = own.and_then(|wrap| self.keys.unwrap(&at, token, &wrap)).ok_or_else(damaged)?;
        if header.is_offering() && other.is_none() {
            return Err(damaged());
        }
        let offer = match (header.is_offering(), is_other) {
            (false, _) => None,
            (true, true) => Some(token.clone()),
            (true, false) => {
                let at = WrapBinding { step: step.saturating_add(1), ..at };
                self.keys.successor(&at, token, header.other_key).filter(|offer| offer.fingerprint() == header.other)
            }
        };
        let other = header.has_other().then(|| Box::new(OtherToken { wrap: other, offer, version: 0 }));
        let data = self.keys.open_data(row, &data_key, &body.data).ok_or_else(damaged)?;
        fields::validate(&data)?;
        let principal = if header.principal == PrincipalRef::NONE {
            None
        } else {
            let name = self.reader.principal(header.principal)?;
            Some(Arc::from(name.ok_or_else(|| Error::corrupt("a principal's name is missing"))?))
        };
        Ok(Content {
            data: data.into(),
            version: 0,
            durable: 0,
            wanted: 0,
            header_version: 0,
            other,
            ..Content::new(header, data_key, wrap, body.facts.as_slice().into(), principal)
        })
    }
}
