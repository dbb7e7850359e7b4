//! Restoring: filling the index from the store at start, and writing last-seen times at the end.
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
use crate::storage::record::{ClassByte, Cutoff, Header, PrincipalRef, Row};
use crate::storage::{Scanned, TouchBlock, touch};
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
        let touches = self.reader.touches()?;
        let end = self.reader.last_row()?.map_or(0, |row| row.0.saturating_add(1));
        let middle = if end > PARALLEL_MIN { self.next_row.load(Ordering::SeqCst).min(end) / 2 } else { 0 };
        let (first, second) = std::thread::scope(|scope| {
            let first = scope.spawn(|| self.scan(0..middle, &touches));
            let second = self.scan(middle..end, &touches);
            (first.join(), second)
        });
        let first = first.map_err(|_| crate::error::Error::corrupt("the store is damaged"))??;
        let found = self.adopt_parts([first, second?]);
        self.finish_restore(&cutoffs)?;
        Ok(found)
    }

    fn scan(&self, rows: std::ops::Range<u64>, touches: &[(Row, Tick)]) -> Result<Part> {
        let now = self.clock.now();
        let mut part = Part::default();
        let mut touches = touches.get(touches.partition_point(|(row, _)| row.0 < rows.start)..).unwrap_or_default();
        self.reader.scan(rows, &mut |row, scanned| {
            let Scanned::Live(mut header) = scanned else {
                part.found.refused += 1;
                return;
            };
            part.last = part.last.max(row);
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
                self.queue.push_swept(part.swept, now_ms);
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

    /// When every session on disk was last seen, in as few blocks as say it to within a sixty-fourth of an interval.
    pub(super) fn touch_blocks(&self) -> Vec<TouchBlock> {
        let mut seen: Vec<(u32, Tick, Row)> = Vec::new();
        self.index.for_each(|slot| {
            let on_disk = !self.settings.anonymous_in_memory || slot.list() != ListId::ANONYMOUS;
            if on_disk {
                seen.push((self.index.profiles().idle(slot.profile()), slot.last_seen(), slot.row()));
            }
        });
        // Newest first within each idle timeout: a block reaches back 255 steps from its first entry.
        seen.sort_unstable_by_key(|&(idle, last_seen, _)| (idle, std::cmp::Reverse(last_seen)));
        let mut blocks: Vec<TouchBlock> = Vec::new();
        for (idle, last_seen, row) in seen {
            let fits =
                |block: &&mut TouchBlock| block.idle == idle && last_seen >= touch::oldest(block.tick, block.step);
            match blocks.last_mut().filter(fits) {
                Some(block) => block.entries.push((row, last_seen)),
                None => {
                    let step = touch_step(idle);
                    blocks.push(TouchBlock { idle, tick: last_seen, step, entries: vec![(row, last_seen)] });
                }
            }
        }
        blocks.iter_mut().for_each(|block| block.entries.sort_unstable_by_key(|&(row, _)| row));
        blocks
    }
}

/// Seconds by which a last-seen time on disk may lag before a write of the session brings it along: a twentieth of the
/// idle timeout, at most an hour.
pub(super) fn touch_interval(idle: u32) -> u32 {
    (idle / 20).clamp(1, 3600)
}

/// Seconds in one step of age: a sixty-fourth of that.
fn touch_step(idle: u32) -> u8 {
    u8::try_from(touch_interval(idle) / 64).unwrap_or(u8::MAX).max(1)
}
