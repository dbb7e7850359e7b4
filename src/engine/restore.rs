//! Restoring: filling the index from the store at start.
//!
//! It knows the reader's scan and the engine's parts. Invariants: only verified rows are filed, counted or allowed to
//! raise the row counter; new options shorten stored deadlines and never lengthen them; rows that a cutoff or a
//! deadline has made dead are not filed but swept.

use std::collections::HashMap;
use std::num::NonZero;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;

use super::Engine;
use super::queue::Swept;
use super::slot::{ListId, SlotId};
use crate::error::{Error, Result};
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

/// What a piece of the scan comes to.
#[derive(Debug, Default)]
struct Part {
    found: Found,
    last: Row,
    /// In row order, so that the oldest is first in its list.
    anonymous: Vec<SlotId>,
    filed: Vec<SlotId>,
    waiting: Vec<Waiting>,
    swept: Vec<Swept>,
    dead: Vec<Row>,
}

/// What is to be filed next.
#[derive(Debug)]
struct Waiting {
    row: Row,
    header: Header,
    /// Its deadlines are earlier than those on disk.
    clipped: bool,
}

/// Rows that are filed at once: enough for some in each shard of the index, few enough to take a megabyte or two.
const FILED_AT_ONCE: usize = 8192;
/// Fewer row numbers than this are scanned by one thread: starting another costs more.
const PARALLEL_MIN: u64 = 10_000;
/// Rows are scanned in so many pieces. Their numbers have large gaps, so a thread that is done takes the next piece.
const PIECES: u64 = 64;
/// More threads than this would wait for the disk, or for each other.
const THREADS_MAX: usize = 4;

impl Engine {
    /// Fills the index. Runs before the engine is used by anybody.
    pub(super) fn restore(self: &Arc<Self>, cutoffs: Vec<(PrincipalRef, Cutoff)>) -> Result<Found> {
        for &(principal, cutoff) in &cutoffs {
            self.cutoffs.restore(principal, cutoff);
            self.next_row.fetch_max(cutoff.below.0, Ordering::SeqCst);
        }
        let known: HashMap<_, _> = cutoffs.iter().copied().collect();
        let touches = self.reader.touches(&self.ledger.all())?;
        let end = self.reader.last_row()?.map_or(0, |row| row.0.saturating_add(1));
        let usual = self.next_row.load(Ordering::SeqCst).min(end);
        let found = self.adopt_parts(in_pieces(usual, end, |rows| self.scan(rows, &touches.seen, &known))?);
        self.touches.lock().found(&touches.bytes);
        self.finish_restore(&cutoffs)?;
        self.ledger.forget(self.reader.first_row()?);
        Ok(found)
    }

    fn scan(&self, rows: Range<u64>, touches: &[(Row, Tick)], cutoffs: &HashMap<PrincipalRef, Cutoff>) -> Result<Part> {
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
            if cutoffs.get(&header.principal).is_some_and(|cutoff| cutoff.kills(row)) {
                self.cutoffs.add_outstanding(header.principal);
                part.swept.push(Swept { row, cutoff: Some(header.principal) });
                return;
            }
            self.scan_row(row, &header, now, &mut part);
        })?;
        self.file_waiting(&mut part);
        Ok(part)
    }

    fn scan_row(&self, row: Row, stored: &Header, now: Tick, part: &mut Part) {
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
        part.waiting.push(Waiting { row, header, clipped: header != *stored });
        if part.waiting.len() == FILED_AT_ONCE {
            self.file_waiting(part);
        }
    }

    /// Puts into the index what was read so far, and links it, in row order.
    fn file_waiting(&self, part: &mut Part) {
        let list_of = |principal| match principal {
            PrincipalRef::NONE => ListId::ANONYMOUS,
            principal => self.principals.lock(principal).list_id(),
        };
        let new_slot =
            |Waiting { row, header, clipped }: Waiting| self.new_slot(row, &header, list_of(header.principal), clipped);
        // Taken with its memory, because a part outlives its scan.
        let sessions: Vec<_> = std::mem::take(&mut part.waiting).into_iter().map(new_slot).collect();
        let filed = self.index.insert_all(&sessions);
        let restored = part.filed.len();
        for (session, slot) in sessions.iter().zip(filed) {
            let Some(slot) = slot else {
                part.found.refused += 1;
                continue;
            };
            part.filed.push(slot);
            if session.list == ListId::ANONYMOUS {
                part.anonymous.push(slot);
            } else {
                self.principals.lock_list(session.list).link(&self.index, slot);
            }
        }
        let restored = part.filed.len() - restored;
        part.found.restored += restored;
        self.count_filed(u32::try_from(restored).unwrap_or(u32::MAX));
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

    fn adopt_parts(&self, parts: Vec<Part>) -> Found {
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

/// Scans the row numbers below `end` with several threads. What comes back is in row order. Those from `usual` on nobody
/// has handed out: whatever is there is damage, and must not make the pieces uneven.
fn in_pieces<T: Send>(usual: u64, end: u64, scan: impl Fn(Range<u64>) -> Result<T> + Sync) -> Result<Vec<T>> {
    let (pieces, threads) = if usual > PARALLEL_MIN {
        (PIECES, std::thread::available_parallelism().map_or(1, NonZero::get).min(THREADS_MAX))
    } else {
        (1, 1)
    };
    let rows_each = usual / pieces;
    let next = AtomicU64::new(0);
    let work = || -> Result<Vec<(u64, T)>> {
        let mut done = Vec::new();
        loop {
            let piece = next.fetch_add(1, Ordering::Relaxed);
            if piece >= pieces {
                return Ok(done);
            }
            let first = piece * rows_each;
            let scanned = scan(first..if piece + 1 == pieces { end } else { first + rows_each });
            // The others need not go on.
            done.push((piece, scanned.inspect_err(|_| next.store(pieces, Ordering::Relaxed))?));
        }
    };
    let all = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        let join = |other: ScopedJoinHandle<'_, _>| {
            other.join().unwrap_or_else(|_| Err(Error::corrupt("the store is damaged")))
        };
        others.into_iter().map(join).chain([own]).collect::<Result<Vec<_>>>()
    })?;
    let mut done: Vec<_> = all.into_iter().flatten().collect();
    done.sort_unstable_by_key(|&(piece, _)| piece);
    Ok(done.into_iter().map(|(_, part)| part).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_every_row_number_once_and_come_back_in_order() {
        for usual in [0, 1, PARALLEL_MIN, PARALLEL_MIN + 1, 1_000_003, 1 << 40] {
            for end in [usual, usual + 1, u64::MAX] {
                let pieces = in_pieces(usual, end, Ok).unwrap();
                let last = pieces.iter().try_fold(0, |from, rows| (rows.start == from).then_some(rows.end));
                assert_eq!(last, Some(end), "{usual} of {end}");
                let longest = pieces.iter().rev().skip(1).map(|rows| rows.end - rows.start).max();
                assert!(longest.is_none_or(|longest| longest <= usual / PIECES), "{usual} of {end}");
            }
        }
    }

    #[test]
    fn a_piece_that_fails_fails_the_whole() {
        let failed = |rows: Range<u64>| if rows.contains(&500_000) { Err(Error::gone()) } else { Ok(()) };
        assert!(in_pieces(1_000_000, 1_000_000, failed).is_err());
        let everywhere = |_| Err::<(), _>(Error::gone());
        assert!(in_pieces(1_000_000, 1_000_000, everywhere).is_err());
    }
}
