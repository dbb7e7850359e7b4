//! Listing a principal's sessions, and what is known of one without its token.
//!
//! It knows the engine's parts. Invariants: the disk is read with no lock held, and what ended meanwhile is left out;
//! what is listed was verified; a disk that cannot be read is an error and never a shorter list; data of a session is
//! never shown here, because nobody here has its token.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Engine;
use super::cell::Cell;
use crate::error::Result;
use crate::seal::Fingerprint;
use crate::storage::Scanned;
use crate::storage::record::{Header, PrincipalRef, Row};
use crate::time::Tick;

/// A live session of a principal.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) row: Row,
    pub(crate) header: Header,
    pub(crate) last_seen: Tick,
    /// Device and address, as they were encoded.
    pub(crate) facts: Vec<u8>,
}

impl Engine {
    /// The live sessions of a principal, oldest first. Reads from disk those that are not in use.
    ///
    /// Rows stay the same through rotations, so what lives before and after the reading is listed once, whatever its
    /// token is by then. What is damaged keeps nobody from seeing the rest: damaged facts are shown as none, and a row
    /// whose header does not verify, or is gone, is left out; either is counted.
    pub(crate) fn list(&self, principal: PrincipalRef, name: &str) -> Result<Vec<Listed>> {
        self.check_open()?;
        self.check_name(principal, name)?;
        let mut listed = Vec::new();
        let mut unknown = Vec::new();
        for (row, (fingerprint, last_seen)) in self.look(principal) {
            match self.describe(row, fingerprint)? {
                Some((header, facts)) => listed.push(Listed { row, header, last_seen, facts }),
                None => unknown.push(row),
            }
        }
        let mut live = self.look(principal);
        if unknown.iter().any(|row| live.contains_key(row)) {
            // Damaged; or ended by a commit that takes effect before the writer's turn is over.
            drop(self.writer.lock());
            live = self.look(principal);
            unknown.retain(|row| live.contains_key(row));
            self.counters.refused_rows.add(unknown.len());
            unknown.into_iter().for_each(|row| self.note_refused_row(row));
        }
        listed.retain_mut(|listed| {
            let found = live.get(&listed.row);
            listed.last_seen = found.map_or(listed.last_seen, |(_, last_seen)| *last_seen);
            found.is_some()
        });
        Ok(listed)
    }

    /// Token and last use of each of a principal's live sessions, at one moment.
    fn look(&self, principal: PrincipalRef) -> BTreeMap<Row, (Fingerprint, Tick)> {
        let (now, profiles) = (self.clock.now(), self.index.profiles());
        let locked = self.principals.lock(principal);
        let known = |(row, slot)| {
            let found = self.index.slot(slot, |slot| {
                (now < slot.deadline(profiles)).then(|| (Fingerprint(slot.fingerprint), slot.last_seen()))
            });
            found.flatten().map(|found| (row, found))
        };
        locked.rows(&self.index).into_iter().filter_map(known).collect()
    }

    /// Header and facts of a session, or `None` if its row is gone or its header does not verify.
    fn describe(&self, row: Row, fingerprint: Fingerprint) -> Result<Option<(Header, Vec<u8>)>> {
        let in_use = self.index.cell(fingerprint, row).map(|(cell, _)| {
            let content = cell.lock();
            (content.header, Some(content.facts.to_vec()))
        });
        let found = match in_use {
            Some(found) => Some(found),
            None => self.reader.shown(row)?.and_then(|(scanned, facts)| match scanned {
                Scanned::Live(header) => Some((header, facts)),
                Scanned::Refused => None,
            }),
        };
        let Some((header, sealed)) = found else { return Ok(None) };
        let facts = sealed.and_then(|sealed| self.keys.open_facts(row, &sealed)).unwrap_or_else(|| {
            self.counters.refused_rows.add(1);
            Vec::new()
        });
        Ok(Some((header, facts)))
    }

    /// Seconds until a session is idle for too long, and until its life is over.
    pub(crate) fn left(&self, cell: &Arc<Cell>, generation: u32) -> Result<(u32, u32)> {
        self.check_open()?;
        let header = {
            let content = cell.lock();
            content.check(generation)?;
            content.header
        };
        let now = self.clock.now();
        let last_seen = self.index.find(header.fingerprint, cell.row, |_, slot| slot.last_seen());
        let last_seen = last_seen.unwrap_or(header.last_seen);
        let life = header.absolute.since(now);
        Ok((last_seen.plus(header.idle).since(now).min(life), life))
    }
}
