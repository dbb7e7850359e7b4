//! Restoring: filling the index from the store at start.
//!
//! It knows the reader's scan and the engine's parts. Invariants: only verified rows are filed, counted or allowed to
//! raise the row counter; new options shorten stored deadlines and never lengthen them; rows that a cutoff or a
//! deadline has made dead are not filed but swept.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Engine;
use super::queue::Swept;
use super::slot::{ListId, SlotId};
use crate::error::Result;
use crate::options::Limits;
use crate::storage::Scanned;
use crate::storage::record::{ClassByte, Cutoff, Header, PrincipalRef, Row};
use crate::time::Tick;

/// What opening found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found {
    /// Sessions that live on.
    pub(crate) restored: usize,
    /// Sessions whose time ran out while nothing ran.
    pub(crate) expired: usize,
    /// Rows that could not be verified, and were left as they are.
    pub(crate) refused: usize,
}

/// What one thread's part of the scan comes to.
#[derive(Debug, Default)]
struct Part {
    found: Found,
    last: Row,
    /// In row order, so that the oldest is first in its list.
    anonymous: Vec<SlotId>,
    filed: Vec<SlotId>,
    swept: Vec<Swept>,
    dead: Vec<Row>,
}

/// Fewer rows than this are scanned by one thread: starting another costs more.
const PARALLEL_MIN: u64 = 10_000;

impl Engine {
    /// Fills the index. Runs before the engine is used by anybody.
    pub(super) fn restore(self: &Arc<Self>, cutoffs: Vec<(PrincipalRef, Cutoff)>) -> Result<Found> {
        for &(principal, cutoff) in &cutoffs {
            self.cutoffs.restore(principal, cutoff);
            self.next_row.fetch_max(cutoff.below.0, Ordering::SeqCst);
        }
        let touches = self.reader.touches(&self.ledger.all())?;
        let end = self.reader.last_row()?.map_or(0, |row| row.0.saturating_add(1));
        let middle = if end > PARALLEL_MIN { self.next_row.load(Ordering::SeqCst).min(end) / 2 } else { 0 };
        let (first, second) = std::thread::scope(|scope| {
            let first = scope.spawn(|| self.scan(0..middle, &touches.seen));
            let second = self.scan(middle..end, &touches.seen);
            (first.join(), second)
        });
        let first = first.map_err(|_| crate::error::Error::corrupt("the store is damaged"))??;
        let found = self.adopt_parts([first, second?]);
        self.touches.lock().found(&touches.bytes);
        self.finish_restore(&cutoffs)?;
        self.ledger.forget(self.reader.first_row()?);
        Ok(found)
    }

    fn scan(&self, rows: std::ops::Range<u64>, touches: &[(Row, Tick)]) -> Result<Part> {
        let (now, credits) = (self.clock.now(), self.ledger.all());
        let mut part = Part::default();
        let mut touches = touches.get(touches.partition_point(|(row, _)| row.0 < rows.start)..).unwrap_or_default();
        self.reader.scan(rows, &mut |row, scanned| {
            let Scanned::Live(mut header) = scanned else {
                part.found.refused += 1;
                self.note_refused_row(row);
                return;
            };
            part.last = part.last.max(row);
            credits.age(row, &mut header);
            while let Some(((touched, seen), rest)) = touches.split_first().filter(|((touched, _), _)| *touched <= row)
            {
                if *touched == row {
                    header.last_seen = header.last_seen.max(*seen);
                }
                touches = rest;
            }
            self.scan_row(row, &header, now, &mut part);
        })?;
        Ok(part)
    }

    fn scan_row(&self, row: Row, stored: &Header, now: Tick, part: &mut Part) {
        let principal = stored.principal;
        if self.cutoffs.get(principal).is_some_and(|cutoff| cutoff.kills(row)) {
            self.cutoffs.add_outstanding(principal);
            part.swept.push(Swept { row, cutoff: Some(principal) });
            return;
        }
        let header = self.clipped(stored);
        let expired = |header: &Header| now >= header.absolute || now >= header.last_seen.plus(header.idle);
        if expired(&header) {
            part.found.expired += 1;
            self.note_expired_before(row, &header);
            if expired(stored) {
                part.swept.push(Swept { row, cutoff: None });
            } else {
                // Only the options say so, and they may be other ones next time.
                part.dead.push(row);
            }
            return;
        }
        let clipped = header != *stored;
        if principal == PrincipalRef::NONE {
            let Some(slot) = self.file(row, &header, ListId::ANONYMOUS, None, clipped) else {
                part.found.refused += 1;
                return;
            };
            part.anonymous.push(slot);
            part.filed.push(slot);
        } else {
            let mut locked = self.principals.lock(principal);
            let list = locked.list_id();
            let Some(slot) = self.file(row, &header, list, None, clipped) else {
                part.found.refused += 1;
                return;
            };
            locked.into_list().link(&self.index, slot);
            part.filed.push(slot);
        }
        part.found.restored += 1;
    }

    /// The stored deadlines, or the options' where those are shorter by now.
    pub(super) fn clipped(&self, stored: &Header) -> Header {
        let allowed = match stored.class {
            ClassByte::Anonymous => self.settings.anonymous,
            ClassByte::Pending | ClassByte::Authenticated if stored.remembered => self.settings.remembered,
            ClassByte::Pending | ClassByte::Authenticated => self.settings.signed_in,
        };
        let limits = allowed.clipped(Limits { idle: stored.idle, lifetime: stored.absolute.since(stored.created) });
        Header { absolute: stored.created.plus(limits.lifetime), idle: limits.idle, ..*stored }
    }

    fn adopt_parts(&self, parts: [Part; 2]) -> Found {
        let mut found = Found::default();
        let now_ms = self.clock.now_ms();
        for part in parts {
            found.restored += part.found.restored;
            found.expired += part.found.expired;
            found.refused += part.found.refused;
            self.next_row.fetch_max(part.last.0 + 1, Ordering::SeqCst);
            let mut locked = self.principals.lock_anonymous();
            for &slot in &part.anonymous {
                locked.link(&self.index, slot);
            }
            drop(locked);
            self.unarmed.lock().extend(part.filed);
            part.dead.iter().for_each(|&row| self.queue.push_dead(row, now_ms));
            if !part.swept.is_empty() {
                self.queue.push_found(part.swept, now_ms);
            }
        }
        self.counters.expired.add(found.expired);
        self.counters.refused_rows.add(found.refused);
        found
    }

    /// Applies the anonymous quota, and forgets names and cutoffs that nothing needs any more.
    fn finish_restore(&self, cutoffs: &[(PrincipalRef, Cutoff)]) -> Result<()> {
        let mut locked = self.principals.lock_anonymous();
        while locked.oldest().1 > self.settings.anonymous_max {
            let oldest = locked.oldest().0;
            self.evict_anonymous(&mut locked, oldest);
        }
        drop(locked);
        let now_ms = self.clock.now_ms();
        for principal in self.reader.principals()? {
            let mut locked = self.principals.lock(principal);
            if locked.count() == 0 {
                self.queue.push_emptied(principal, now_ms);
            } else {
                locked.claim_name();
            }
        }
        for &(principal, _) in cutoffs.iter().filter(|(principal, _)| self.cutoffs.is_idle(*principal)) {
            self.queue.push_cutoff(principal, false, now_ms);
        }
        Ok(())
    }
}
