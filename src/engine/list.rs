//! Listing a principal's sessions, and what is known of one without its token.
//!
//! It knows the engine's parts. Invariants: the disk is read with no lock held, and what ended meanwhile is left out;
//! what is listed was verified; data of a session is never shown here, because nobody here has its token.

use std::sync::Arc;

use super::Engine;
use super::cell::Cell;
use crate::error::Result;
use crate::seal::Fingerprint;
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
    pub(crate) fn list(&self, principal: PrincipalRef, name: &str) -> Result<Vec<Listed>> {
        self.check_open()?;
        self.check_name(principal, name)?;
        let mut rows = self.principals.lock(principal).rows(&self.index);
        rows.sort_unstable_by_key(|&(row, _)| row);
        let now = self.clock.now();
        let mut listed = Vec::with_capacity(rows.len());
        for (row, slot) in rows {
            let profiles = self.index.profiles();
            let known = self.index.slot(slot, |slot| {
                let live = slot.row() == row && now < slot.deadline(profiles);
                live.then(|| (Fingerprint(slot.fingerprint), slot.last_seen()))
            });
            let Some((fingerprint, last_seen)) = known.flatten() else { continue };
            let found = match self.index.cell(fingerprint, row) {
                Some((cell, _)) => {
                    let content = cell.lock();
                    Some((content.header, content.facts.to_vec()))
                }
                None => self.reader.session(row)?.map(|(header, body)| (header, body.facts)),
            };
            let Some((header, sealed)) = found else { continue };
            let facts = self.keys.open_facts(row, &sealed);
            let facts = facts.ok_or_else(|| crate::error::Error::corrupt("a session's facts are damaged"))?;
            if self.index.find(fingerprint, row, |_, _| ()).is_some() {
                listed.push(Listed { row, header, last_seen, facts });
            }
        }
        Ok(listed)
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
