//! Reading rows: one at a time for a session that is not in memory, all of them at start.
//!
//! It knows redb's read side, records and keys. Invariants: a read transaction lives for one call, because a long
//! one keeps freed pages from being used again; nothing is returned that was not verified; "not there" is `None`
//! and damage is an error. The ring is looked at before the rows, because a key leaves it only after its rows are gone.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use redb::{ReadableDatabase, ReadableTable};

use super::credit::Credits;
use super::record::{Body, Header, PrincipalRef, Row};
use super::schema::{BODIES, PRINCIPALS, SESSIONS, TOUCHES};
use super::{Database, Keys, Ring, closed, contained, failed, touch};
use crate::error::{Error, Result};
use crate::time::Tick;

/// Reads the last committed state. Each call may block on the disk.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    database: Database,
    keys: Arc<Keys>,
}

/// What a scan finds at a row.
#[derive(Debug)]
pub(crate) enum Scanned {
    Live(Header),
    /// The header's tag is wrong, or its server key was dropped: it authenticates nobody.
    Refused,
}

/// The touches of a store.
#[derive(Debug, Default)]
pub(crate) struct Touches {
    /// The latest of each row, ascending by row.
    pub(crate) seen: Vec<(Row, Tick)>,
    /// Bytes of the blocks of each bucket.
    pub(crate) bytes: HashMap<u64, u64>,
}

const WHAT: &str = "failed to read `store.redb`";

fn damaged() -> Error {
    Error::corrupt("a session's header is damaged")
}

impl Reader {
    pub(crate) fn new(database: Database, keys: Arc<Keys>) -> Self {
        Self { database, keys }
    }

    /// Header and body of a row.
    pub(crate) fn session(&self, row: Row) -> Result<Option<(Header, Body)>> {
        let ring = self.keys.ring();
        let found = self.with(|transaction| {
            let header = transaction.open_table(SESSIONS)?.get(row.0)?.map(|value| *value.value());
            let body = transaction.open_table(BODIES)?.get(row.0)?.map(|value| Body::decode(value.value()));
            Ok(header.zip(body))
        })?;
        let Some((header, body)) = found else { return Ok(None) };
        let header = self.verify(&ring, row, &header).ok_or_else(damaged)?;
        let body = body.ok_or_else(|| Error::corrupt("a session's body is damaged"))?;
        Ok(Some((header, body)))
    }

    /// What can be told of a row without its token: its header, and its sealed facts unless the body is damaged.
    pub(crate) fn shown(&self, row: Row) -> Result<Option<(Scanned, Option<Vec<u8>>)>> {
        let ring = self.keys.ring();
        let found = self.with(|transaction| {
            let header = transaction.open_table(SESSIONS)?.get(row.0)?.map(|value| *value.value());
            let body = transaction.open_table(BODIES)?.get(row.0)?.and_then(|value| Body::decode(value.value()));
            Ok(header.map(|header| (header, body)))
        })?;
        Ok(found.map(|(header, body)| {
            let header = self.verify(&ring, row, &header).map_or(Scanned::Refused, Scanned::Live);
            (header, body.map(|body| body.facts))
        }))
    }

    /// Header of a row.
    pub(crate) fn header(&self, row: Row) -> Result<Option<Header>> {
        let ring = self.keys.ring();
        let found =
            self.with(|transaction| Ok(transaction.open_table(SESSIONS)?.get(row.0)?.map(|value| *value.value())))?;
        found.map(|bytes| self.verify(&ring, row, &bytes).ok_or_else(damaged)).transpose()
    }

    /// The name behind a reference.
    pub(crate) fn principal(&self, principal: PrincipalRef) -> Result<Option<String>> {
        let found = self.with(|transaction| {
            Ok(transaction.open_table(PRINCIPALS)?.get(principal.0)?.map(|v| v.value().to_vec()))
        })?;
        found
            .map(|sealed| {
                self.keys
                    .open_name(principal, &sealed)
                    .ok_or_else(|| Error::corrupt("a principal's name is damaged or was changed"))
            })
            .transpose()
    }

    /// Every reference that has a name.
    pub(crate) fn principals(&self) -> Result<Vec<PrincipalRef>> {
        self.with(|transaction| {
            let table = transaction.open_table(PRINCIPALS)?;
            table.iter()?.map(|entry| Ok(PrincipalRef(entry?.0.value()))).collect()
        })
    }

    /// Visits the rows of a range in ascending order, each verified.
    pub(crate) fn scan(&self, rows: Range<u64>, visit: &mut dyn FnMut(Row, Scanned)) -> Result<()> {
        let ring = self.keys.ring();
        self.with(|transaction| {
            for entry in transaction.open_table(SESSIONS)?.range(rows)? {
                let (row, bytes) = entry?;
                let row = Row(row.value());
                let header = self.verify(&ring, row, bytes.value());
                visit(row, header.map_or(Scanned::Refused, Scanned::Live));
            }
            Ok(())
        })
    }

    /// The lowest row number in the store, verified or not.
    pub(crate) fn first_row(&self) -> Result<Option<Row>> {
        self.with(|transaction| Ok(transaction.open_table(SESSIONS)?.first()?.map(|(row, _)| Row(row.value()))))
    }

    /// The highest row number in the store, verified or not.
    pub(crate) fn last_row(&self) -> Result<Option<Row>> {
        self.with(|transaction| Ok(transaction.open_table(SESSIONS)?.last()?.map(|(row, _)| Row(row.value()))))
    }

    /// Every persisted touch, with these credits in it. Damaged blocks are left out: losing a touch only shortens a
    /// session's life.
    pub(crate) fn touches(&self, credits: &Credits) -> Result<Touches> {
        let mut touches = Touches::default();
        self.with(|transaction| {
            for entry in transaction.open_table(TOUCHES)?.iter()? {
                let (key, block) = entry?;
                let (key, block) = (key.value(), block.value());
                *touches.bytes.entry(touch::bucket_of(key)).or_default() += block.len() as u64;
                let (frame, entries) = touch::decode(key, block, self.keys.store()).unwrap_or_default();
                let seen = entries.into_iter().map(|(row, seen)| (row, credits.seen(frame, row, seen)));
                touches.seen.extend(seen);
            }
            Ok(())
        })?;
        touches.seen.sort_unstable_by_key(|&(row, seen)| (row, std::cmp::Reverse(seen)));
        touches.seen.dedup_by_key(|(row, _)| *row);
        Ok(touches)
    }

    fn verify(&self, ring: &Ring, row: Row, bytes: &super::record::HeaderBytes) -> Option<Header> {
        if row.0 == 0 || row.0 >= Row::MEMORY {
            return None;
        }
        Header::decode(bytes, row, self.keys.store_id(), ring.headers(Header::key_id(bytes))?)
    }

    fn with<T>(&self, read: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>) -> Result<T> {
        let database = self.database.read();
        let database = database.as_ref().ok_or_else(closed)?;
        contained("failed to read `store.redb`: the file is damaged", || {
            let transaction = database.begin_read().map_err(|error| failed(WHAT, error))?;
            read(&transaction).map_err(|error| failed(WHAT, error))
        })
    }
}
